//! The stage graph and timeline of one execution, derived from the seed on demand.

use super::account::{Execution, Origin};
use super::plan::{Pipeline, Plan, Slot, Stage, StageKind, Strategy};
use super::rng::{Id, Rng, Stream};
use super::status::{Phase, Status, status_at};
use super::timeline;

/// The parts of an execution that are derived from its stored facts.
pub(super) struct Detail<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    /// The top-level nodes, in order of execution.
    pub(super) chain: Vec<usize>,
    /// A `PipelineRollback` node that is appended to the chain once it has started.
    pub(super) rollback: Option<usize>,
    pub(super) phases: Vec<Phase>,
    /// The first and the last end; `None` if the server never reports an end.
    pub(super) ends: Option<(i64, i64)>,
}

/// One entry of `layoutNodeMap`.
pub(super) struct Node<'a> {
    pub(super) key: Id,
    pub(super) uuid: Id,
    pub(super) kind: NodeKind<'a>,
    /// The group that contains this node.
    pub(super) group: Option<usize>,
    pub(super) children: Vec<usize>,
    pub(super) instance: Option<Instance>,
    pub(super) start: Option<i64>,
    pub(super) phases: Vec<Phase>,
    /// The first and the last end.
    pub(super) ends: Option<(i64, i64)>,
    /// The failure of a failed stage.
    pub(super) failure: Option<Failure>,
    /// Carried over from the execution that this one retries.
    pub(super) carried: bool,
    pub(super) is_rollback: bool,
    /// The execution that this node starts, if it starts one.
    pub(super) child: Id,
}

/// The kind of a node.
#[derive(Clone, Copy)]
pub(super) enum NodeKind<'a> {
    Stage(&'a Stage),
    Parallel,
    Strategy(&'a Strategy, &'a Stage),
    PipelineRollback,
}

/// One iteration of a strategy.
pub(super) struct Instance {
    pub(super) index: i64,
    pub(super) total: i64,
    /// The index of the value on each axis.
    pub(super) combination: Vec<usize>,
}

/// The reason why a stage failed.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) message: &'static str,
    pub(super) types: &'static [&'static str],
}

/// The time range in which a stage runs another execution.
pub(super) struct StageWindow {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) outcome: Status,
    pub(super) child: Id,
    pub(super) rollback: bool,
}

impl Detail<'_> {
    pub(super) fn status_at(&self, at: i64) -> Status {
        status_at(&self.phases, at)
    }

    pub(super) fn end_at(&self, at: i64) -> Option<i64> {
        end_at(self.ends, at)
    }

    /// Returns the node that follows another on the chain, at an instant.
    pub(super) fn next_of(&self, node: usize, at: i64) -> Option<usize> {
        let index = self.chain.iter().position(|link| *link == node)?;
        self.chain.get(index + 1).copied().or_else(|| {
            self.rollback
                .filter(|rollback| self.nodes[*rollback].start.is_some_and(|start| start <= at))
        })
    }

    /// Returns the status of a node. A group derives its status from its members.
    pub(super) fn node_status(&self, node: usize, at: i64) -> Status {
        let node = &self.nodes[node];
        if node.children.is_empty() {
            return status_at(&node.phases, at);
        }
        let members: Vec<Status> = node
            .children
            .iter()
            .map(|child| self.node_status(*child, at))
            .collect();
        let worst = |status: &&Status| !matches!(status, Status::Success | Status::Skipped);
        if members.iter().all(|status| status.terminal()) {
            *members.iter().find(worst).unwrap_or(&Status::Success)
        } else if members.iter().all(|status| *status == Status::NotStarted) {
            Status::NotStarted
        } else {
            Status::Running
        }
    }

    /// Returns the first failure of a stage up to an instant.
    pub(super) fn failure_at(&self, at: i64) -> Option<Failure> {
        let failed = |node: &&Node| node.failure_at(at).is_some();
        self.nodes.iter().find(failed)?.failure
    }
}

impl Node<'_> {
    pub(super) fn end_at(&self, at: i64) -> Option<i64> {
        end_at(self.ends, at)
    }

    pub(super) fn started(&self, at: i64) -> Option<i64> {
        self.start.filter(|start| *start <= at)
    }

    pub(super) fn failure_at(&self, at: i64) -> Option<Failure> {
        self.failure.filter(|_| self.end_at(at).is_some())
    }

    pub(super) fn stage(&self) -> Option<&Stage> {
        match self.kind {
            NodeKind::Stage(stage) => Some(stage),
            _ => None,
        }
    }

    pub(super) fn is_kind(&self, kind: StageKind) -> bool {
        self.stage().is_some_and(|stage| stage.kind == kind)
    }
}

fn end_at(ends: Option<(i64, i64)>, at: i64) -> Option<i64> {
    let (first, last) = ends?;
    if last <= at {
        Some(last)
    } else {
        (first <= at).then_some(first)
    }
}

/// Returns when a node runs another execution: a chained pipeline or a pipeline rollback.
pub(super) fn stage_window(node: &Node<'_>) -> Option<StageWindow> {
    let rollback = matches!(node.kind, NodeKind::PipelineRollback);
    if node.carried || !(rollback || node.is_kind(StageKind::Pipeline)) {
        return None;
    }
    let end = node.ends?.0;
    Some(StageWindow {
        start: node.start?,
        end,
        outcome: status_at(&node.phases, end),
        child: node.child,
        rollback,
    })
}

/// Returns the slot at which an execution stops if another execution decides its outcome.
pub(super) fn stop_of(pipeline: &Pipeline, origin: Origin, outcome: Status) -> usize {
    let links = links(pipeline, origin).len();
    if outcome == Status::Success {
        links
    } else {
        links.saturating_sub(1)
    }
}

/// One link of the chain of an execution.
pub(super) enum Link<'a> {
    Slot(&'a Slot),
    Stage(&'a Stage),
}

/// Returns the chain of an execution: the pipeline's slots or, for a rollback, its deployments,
/// last first.
pub(super) fn links(pipeline: &Pipeline, origin: Origin) -> Vec<Link<'_>> {
    if !rolls_back(origin) {
        return pipeline.slots.iter().map(Link::Slot).collect();
    }
    let mut stages = Vec::new();
    pipeline
        .slots
        .iter()
        .for_each(|slot| deployments(slot, &mut stages));
    stages.into_iter().rev().map(Link::Stage).collect()
}

pub(super) fn rolls_back(origin: Origin) -> bool {
    matches!(
        origin,
        Origin::PostRollback { .. } | Origin::PipelineRollback { .. }
    )
}

fn deployments<'a>(slot: &'a Slot, stages: &mut Vec<&'a Stage>) {
    match slot {
        Slot::One(stage) | Slot::Strategy(_, stage) if stage.kind == StageKind::Deployment => {
            stages.push(stage);
        }
        Slot::Parallel(slots) => slots.iter().for_each(|slot| deployments(slot, stages)),
        Slot::One(_) | Slot::Strategy(..) => {}
    }
}

/// Derives the detail of one execution. `executions` must contain the execution that it retries.
pub(super) fn detail<'a>(
    seed: u64,
    plan: &'a Plan,
    executions: &[Execution],
    execution: &Execution,
) -> Detail<'a> {
    let mut rng = Rng::new(seed, Stream::Graph, execution.id);
    let links = links(
        &plan.pipelines[execution.pipeline as usize],
        execution.origin,
    );
    let mut detail = Detail {
        nodes: Vec::new(),
        chain: Vec::new(),
        rollback: None,
        phases: Vec::new(),
        ends: (!execution.end_unreported).then_some((execution.end, execution.last_end)),
    };
    // The indexes of nodes depend on the pipeline alone, so a retry finds its parent's nodes by
    // index.
    for link in &links {
        let node = match link {
            Link::Slot(slot) => build(&mut detail.nodes, slot, None, &mut rng),
            Link::Stage(stage) => push(&mut detail.nodes, NodeKind::Stage(stage), None, &mut rng),
        };
        detail.chain.push(node);
    }
    if rolls_back(execution.origin) {
        detail
            .nodes
            .iter_mut()
            .for_each(|node| node.is_rollback = true);
    }
    let mut carried = 0;
    if let Origin::Retry { of, .. } = execution.origin {
        let parent = &executions[of as usize];
        carried = usize::from(parent.stop).min(links.len());
        let first_own = detail.chain.get(carried).copied().unwrap_or(usize::MAX);
        let before = self::detail(seed, plan, executions, parent);
        for (node, old) in detail.nodes.iter_mut().zip(before.nodes).take(first_own) {
            node.start = old.start;
            node.phases = old.phases;
            node.ends = old.ends;
            node.failure = old.failure;
            node.carried = true;
        }
    }
    timeline::assign_times(&mut detail, execution, carried, &mut rng);
    detail
}

/// Adds the nodes of a slot and returns the index of the first.
fn build<'a>(
    nodes: &mut Vec<Node<'a>>,
    slot: &'a Slot,
    group: Option<usize>,
    rng: &mut Rng,
) -> usize {
    match slot {
        Slot::One(stage) => push(nodes, NodeKind::Stage(stage), group, rng),
        Slot::Parallel(slots) => {
            let parallel = push(nodes, NodeKind::Parallel, group, rng);
            for slot in slots {
                let child = build(nodes, slot, Some(parallel), rng);
                nodes[parallel].children.push(child);
            }
            parallel
        }
        Slot::Strategy(strategy, stage) => {
            let parent = push(nodes, NodeKind::Strategy(strategy, stage), group, rng);
            let uuid = rng.id();
            let instances = timeline::instances(strategy);
            for instance in instances {
                let child = push(nodes, NodeKind::Stage(stage), Some(parent), rng);
                nodes[child].uuid = uuid;
                nodes[child].instance = Some(instance);
                nodes[parent].children.push(child);
            }
            parent
        }
    }
}

/// Adds one node and returns its index.
pub(super) fn push<'a>(
    nodes: &mut Vec<Node<'a>>,
    kind: NodeKind<'a>,
    group: Option<usize>,
    rng: &mut Rng,
) -> usize {
    let key = rng.id();
    nodes.push(Node {
        key,
        uuid: key,
        kind,
        group,
        children: Vec::new(),
        instance: None,
        start: None,
        phases: Vec::new(),
        ends: None,
        failure: None,
        carried: false,
        is_rollback: matches!(kind, NodeKind::PipelineRollback),
        child: rng.id(),
    });
    nodes.len() - 1
}

#[cfg(test)]
mod tests {
    use crate::account::{Account, AccountSpec};

    #[test]
    fn timelines_are_monotonic() {
        let account =
            Account::generate(&AccountSpec::demo("2026-11-24T15:00:00Z".parse().unwrap()));
        let mut shapes = std::collections::BTreeMap::<&str, usize>::new();
        for execution in account.executions() {
            let detail = account.detail(execution);
            assert!(detail.phases.is_sorted_by_key(|phase| phase.from));
            assert_eq!(detail.phases.last().unwrap().status, execution.last_outcome);
            for node in &detail.nodes {
                assert!(node.phases.is_sorted_by_key(|phase| phase.from));
                if let (Some(start), Some((end, last))) = (node.start, node.ends) {
                    assert!(start <= end && end <= last, "{start} {end} {last}");
                    assert!(last <= execution.last_end, "{last} {}", execution.last_end);
                    assert_eq!(node.carried, start < execution.start);
                }
            }
            *shapes.entry(execution.last_outcome.word()).or_default() += 1;
            *shapes
                .entry(["", "rollback"][usize::from(detail.rollback.is_some())])
                .or_default() += 1;
            *shapes
                .entry(["", "retry"][usize::from(detail.nodes.iter().any(|n| n.carried))])
                .or_default() += 1;
        }
        for shape in [
            "Success",
            "IgnoreFailed",
            "Failed",
            "Errored",
            "Expired",
            "Aborted",
            "AbortedByFreeze",
            "ApprovalRejected",
            "Skipped",
            "Suspended",
            "rollback",
            "retry",
        ] {
            assert!(shapes.contains_key(shape), "no {shape} in {shapes:?}");
        }
    }
}
