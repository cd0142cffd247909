//! Assigns times and statuses to the stages of an execution, and statuses to the execution itself.

use super::account::Execution;
use super::detail::Instance;
use super::detail::{Detail, Failure, Node, NodeKind, push, rolls_back};
use super::names;
use super::plan::{StageKind, Strategy};
use super::rng::Rng;
use super::status::{Phase, Status};

const TIMED_OUT: Failure = Failure {
    message: "Stage timed out. \"timeout\" of the stage was exceeded",
    types: &["EXPIRED"],
};

/// The time range of a part of an execution, and its outcome.
#[derive(Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
    ending: Status,
}

/// Assigns times to all nodes after the first `carried` links of the chain.
pub(super) fn assign_times(
    detail: &mut Detail<'_>,
    execution: &Execution,
    carried: usize,
    rng: &mut Rng,
) {
    let nothing_ran = matches!(execution.outcome, Status::Skipped | Status::Suspended);
    let never_ran = execution.run == execution.end;
    if nothing_ran {
        for node in detail
            .nodes
            .iter_mut()
            .filter(|node| node.children.is_empty())
        {
            node.phases.push(phase(execution.end, Status::Skipped));
        }
    } else if !never_ran {
        stages(detail, execution, carried, rng);
    }
    if detail.rollback.is_none() && rng.chance(500) && !rolls_back(execution.origin) {
        detail.rollback = Some(push(
            &mut detail.nodes,
            NodeKind::PipelineRollback,
            None,
            rng,
        ));
    }
    detail.phases = phases(detail, execution, nothing_ran || never_ran, rng);
}

fn stages(detail: &mut Detail<'_>, execution: &Execution, carried: usize, rng: &mut Rng) {
    let links = detail.chain.len();
    let stop = usize::from(execution.stop);
    let active = carried..(stop + 1).min(links);
    let ignored = if execution.outcome == Status::IgnoreFailed {
        carried + rng.below(links - carried)
    } else {
        usize::MAX
    };
    let boundaries = boundaries(detail, execution, active.clone(), rng);
    for (link, boundary) in active.zip(boundaries.windows(2)) {
        let length = boundary[1] - boundary[0];
        let mut span = Span {
            from: boundary[0] + (length / 10).min(250),
            to: boundary[1] - (length / 10).min(250),
            ending: Status::Success,
        };
        if link == stop {
            span.ending = execution.outcome;
        } else if link == ignored {
            span.ending = Status::IgnoreFailed;
        }
        let node = detail.chain[link];
        let rolls = link == stop && may_roll_back(detail, node, execution);
        let rollback = if rolls { rng.below(100) } else { 100 };
        if rollback < 50 {
            let to = span.to;
            span.to = span.from + length * 6 / 10;
            roll_back(
                detail,
                node,
                Span {
                    from: span.to,
                    to,
                    ending: Status::Success,
                },
                rollback < 30,
                rng,
            );
        }
        assign_node(&mut detail.nodes, node, span, rng);
    }
    if execution.last_outcome == Status::IgnoreFailed && execution.edit != 0 {
        for node in &mut detail.nodes {
            if node
                .phases
                .last()
                .is_some_and(|last| last.status == Status::Failed)
            {
                node.phases
                    .push(phase(execution.edit, Status::IgnoreFailed));
            }
        }
    } else if execution.edit != 0 {
        reopen(detail, execution, rng);
    }
}

/// Returns the times between the active links. The waiting link includes the execution's wait time.
fn boundaries(
    detail: &Detail<'_>,
    execution: &Execution,
    active: std::ops::Range<usize>,
    rng: &mut Rng,
) -> Vec<i64> {
    let needs_approval =
        |link: &usize| detail.nodes[detail.chain[*link]].is_kind(StageKind::Approval);
    let waits = active
        .clone()
        .find(needs_approval)
        .unwrap_or(active.end.saturating_sub(1));
    let weights: Vec<i64> = active.clone().map(|_| rng.between(1, 10)).collect();
    let total = weights.iter().sum::<i64>().max(1);
    let work = (execution.end - execution.run - execution.wait).max(0);
    let mut at = execution.run;
    let mut boundaries = vec![at];
    for (link, weight) in active.zip(weights) {
        at += work * weight / total + if link == waits { execution.wait } else { 0 };
        boundaries.push(at);
    }
    boundaries
}

fn may_roll_back(detail: &Detail<'_>, node: usize, execution: &Execution) -> bool {
    let deploys = |node: usize| detail.nodes[node].is_kind(StageKind::Deployment);
    let node = &detail.nodes[node];
    execution.outcome == Status::Failed
        && !rolls_back(execution.origin)
        && (node.is_kind(StageKind::Deployment)
            || node.children.iter().any(|child| deploys(*child)))
}

/// Adds a rollback: of the pipeline, or as a single stage off the chain.
fn roll_back(detail: &mut Detail<'_>, of: usize, span: Span, pipeline: bool, rng: &mut Rng) {
    let stage = detail.nodes[detail.nodes[of].children.first().copied().unwrap_or(of)].kind;
    let kind = if pipeline {
        NodeKind::PipelineRollback
    } else {
        stage
    };
    let node = push(&mut detail.nodes, kind, None, rng);
    detail.nodes[node].is_rollback = true;
    if pipeline {
        detail.rollback = Some(node);
    }
    run(&mut detail.nodes[node], span, rng);
}

/// Assigns times within a span to a node and its members.
fn assign_node(nodes: &mut [Node<'_>], node: usize, span: Span, rng: &mut Rng) {
    let members = nodes[node].children.clone();
    if members.is_empty() {
        let skipped = nodes[node].stage().map_or(0, |stage| stage.skipped);
        if span.ending == Status::Success && rng.chance(skipped) {
            nodes[node].phases.push(phase(span.from, Status::Skipped));
        } else {
            run(&mut nodes[node], span, rng);
        }
        return;
    }
    let count = i64::try_from(members.len()).unwrap_or(1);
    let one_by_one = matches!(nodes[node].kind, NodeKind::Strategy(Strategy::Loop(_), _));
    let length = span.to - span.from;
    let bad = if span.ending == Status::Success {
        usize::MAX
    } else if one_by_one {
        members.len() - 1
    } else {
        rng.below(members.len())
    };
    for ((index, member), turn) in members.into_iter().enumerate().zip(0..) {
        let (from, to) = if one_by_one {
            (
                span.from + length * turn / count,
                span.from + length * (turn + 1) / count,
            )
        } else if index == bad || (bad == usize::MAX && turn == count - 1) {
            (span.from, span.to)
        } else {
            let late = (length / 20).min(rng.between(0, 900));
            (
                span.from + late,
                span.from + late + length * rng.between(40, 90) / 100,
            )
        };
        let ending = if index == bad {
            span.ending
        } else {
            Status::Success
        };
        assign_node(nodes, member, Span { from, to, ending }, rng);
    }
}

/// Runs one stage within a span.
fn run(node: &mut Node<'_>, span: Span, rng: &mut Rng) {
    let length = span.to - span.from;
    let (early, late) = (span.from + length / 5, span.to - length / 5);
    node.start = Some(span.from);
    node.phases.push(phase(span.from, Status::Running));
    if node.is_kind(StageKind::Approval) {
        let requested = span.from + (length / 10).min(1_500);
        node.phases.push(phase(requested, Status::ApprovalWaiting));
    } else if node.is_kind(StageKind::Deployment) && rng.chance(60) {
        let blocked = rng.pick(&[
            Status::ResourceWaiting,
            Status::InterventionWaiting,
            Status::InputWaiting,
        ]);
        node.phases.push(phase(early, blocked));
        node.phases.push(phase(late, Status::Running));
    } else if node.is_kind(StageKind::Ci) && rng.chance(40) {
        node.phases.push(phase(early, Status::AsyncWaiting));
    }
    node.phases.push(phase(span.to, span.ending));
    node.ends = Some((span.to, span.to));
    let (message, types) = rng.pick(names::FAILURES);
    node.failure = match span.ending {
        Status::Failed | Status::Errored | Status::IgnoreFailed => Some(Failure { message, types }),
        Status::Expired => Some(TIMED_OUT),
        _ => None,
    };
}

/// Resumes a rejected approval: it is granted, and the rest of the chain runs.
fn reopen(detail: &mut Detail<'_>, execution: &Execution, rng: &mut Rng) {
    let stop = usize::from(execution.stop);
    let granted = execution.edit + (execution.last_end - execution.edit) / 4;
    let approval = &mut detail.nodes[detail.chain[stop]];
    approval.phases.push(phase(execution.edit, Status::Running));
    approval.phases.push(phase(granted, Status::Success));
    approval.ends = approval.ends.map(|(first, _)| (first, granted));
    let rest = detail.chain[stop + 1..].to_vec();
    let count = i64::try_from(rest.len()).unwrap_or(1).max(1);
    let share = (execution.last_end - granted) / count;
    for (node, turn) in rest.into_iter().zip(0..) {
        let from = granted + turn * share;
        let span = Span {
            from: from + share / 50,
            to: from + share * 49 / 50,
            ending: Status::Success,
        };
        assign_node(&mut detail.nodes, node, span, rng);
    }
}

/// Returns the statuses of the execution itself.
fn phases(detail: &Detail<'_>, execution: &Execution, idle: bool, rng: &mut Rng) -> Vec<Phase> {
    let queued = rng.pick(&[
        Status::Queued,
        Status::QueuedExecutionConcurrencyReached,
        Status::QueuedLicenseLimitReached,
        Status::NotStarted,
    ]);
    let long = execution.run - execution.start > 3_000 || idle;
    let mut phases = vec![phase(
        execution.start,
        if long { queued } else { Status::Running },
    )];
    if !idle {
        phases.push(phase(execution.run, Status::Running));
    }
    let waiting = |status: Status| status.category() == "waiting";
    for link in &detail.chain {
        let node = &detail.nodes[*link];
        for pair in node.phases.windows(2) {
            if waiting(pair[0].status) && !node.carried {
                phases.push(pair[0]);
                phases.push(phase(pair[1].from, Status::Running));
            }
        }
    }
    phases.push(phase(execution.end, execution.outcome));
    if execution.edit != 0 && execution.last_outcome == Status::Success {
        phases.retain(|one| one.from <= execution.end);
        phases.push(phase(execution.edit, Status::Running));
        phases.push(phase(execution.last_end, Status::Success));
    } else if execution.edit != 0 {
        phases.push(phase(execution.edit, execution.last_outcome));
    }
    phases
}

fn phase(from: i64, status: Status) -> Phase {
    Phase { from, status }
}

/// Returns the iterations of a strategy; for a matrix every combination of its axes.
pub(super) fn instances(strategy: &Strategy) -> Vec<Instance> {
    let combinations = match strategy {
        Strategy::Loop(count) | Strategy::Parallelism(count) => {
            (0..*count).map(|_| Vec::new()).collect()
        }
        Strategy::Matrix(axes) => axes.iter().fold(vec![Vec::new()], |combinations, axis| {
            let values = names::AXES[*axis].1.len();
            combinations
                .iter()
                .flat_map(|so_far: &Vec<usize>| {
                    (0..values).map(|value| [so_far.as_slice(), &[value]].concat())
                })
                .collect()
        }),
    };
    let total = i64::try_from(combinations.len()).unwrap_or(0);
    combinations
        .into_iter()
        .zip(0..)
        .map(|(combination, index)| Instance {
            index,
            total,
            combination,
        })
        .collect()
}
