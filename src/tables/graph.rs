//! The stage graph of an execution: which nodes are rows of `stages`, in which order, and which
//! group holds which.
//!
//! The server sends nodes by id, in no order, with edges that may miss their target or form a
//! circle. Nothing here recurses.

use std::borrow::Cow;

use crate::scan::Value;

use super::json::{Others, object};
use super::leaf;
use super::members;
use super::summary::{Field, Summary};
use crate::drift::Drift;
use crate::status;

object! {
    NodeFields of NodeField at "layoutNodeMap.*." {
        NodeType = "nodeType",
        NodeGroup = "nodeGroup",
        NodeIdentifier = "nodeIdentifier",
        Name = "name",
        NodeUuid = "nodeUuid",
        Status = "status",
        Module = "module",
        ModuleInfo = "moduleInfo",
        StartTs = "startTs",
        EndTs = "endTs",
        Edges = "edgeLayoutList",
        FailureInfo = "failureInfo",
        FailureInfoDto = "failureInfoDTO",
        StrategyMetadata = "strategyMetadata",
        Hidden = "hidden",
        IsRollback = "isRollbackStageNode",
    } others Others::Known(&[
        "createdAt",
        "skipInfo",
        "nodeRunInfo",
        "barrierFound",
        "stepDetails",
        "nodeExecutionId",
        "executionInputConfigured",
        "isManualExecution",
        "childrenCount",
    ])
}

object! {
    Edges of EdgesField at "layoutNodeMap.*.edgeLayoutList." {
        Children = "currentNodeChildren",
        Next = "nextIds",
    } others Others::Known(&[])
}

/// The stages of an execution in their order.
#[derive(Default)]
pub(super) struct Graph<'a> {
    pub(super) stages: Vec<Stage<'a>>,
}

/// A node that is a row of `stages`.
pub(super) struct Stage<'a> {
    /// The key of `layoutNodeMap`; `nodeUuid` differs for instances of a strategy.
    pub(super) id: Cow<'a, str>,
    pub(super) fields: NodeFields<'a>,
    /// `nodeType`.
    pub(super) kind: Option<Cow<'a, str>>,
    pub(super) start_ms: Option<i64>,
    pub(super) parent_id: Option<Cow<'a, str>>,
    pub(super) strategy_type: Option<Cow<'a, str>>,
}

struct Node<'a> {
    id: Cow<'a, str>,
    raw: Value<'a>,
    fields: NodeFields<'a>,
    /// `nodeType`.
    kind: Option<Cow<'a, str>>,
    start_ms: Option<i64>,
    children: Vec<Cow<'a, str>>,
    next: Vec<Cow<'a, str>>,
}

impl<'a> Graph<'a> {
    /// Takes the graph out of a summary. Nodes that are no rows go back to the rest of it.
    pub(super) fn take(summary: &mut Summary<'a>, drift: &mut Drift) -> Self {
        let Some(map) = summary.fields.take(Field::LayoutNodeMap) else {
            return Self::default();
        };
        let Some(mut members) = map.members() else {
            summary.fields.refuse(Field::LayoutNodeMap, map, drift);
            return Self::default();
        };
        let mut no_rows = Vec::new();
        let mut lose = |id, raw: Value<'a>| no_rows.push((id, Cow::Borrowed(raw.json())));
        leaf::last_of_each(&mut members, |id, raw| {
            drift.odd_value("layoutNodeMap.*", &id);
            lose(id, raw);
        });
        let mut nodes = Nodes(Vec::with_capacity(members.len()));
        for (id, raw) in members {
            match NodeFields::read(raw, drift) {
                Some(fields) => nodes.0.push(Node::read(id, raw, fields, drift)),
                None if raw.is_null() => {}
                None => {
                    drift.odd_value("layoutNodeMap.*", raw.json());
                    lose(id, raw);
                }
            }
        }
        nodes.0.sort_unstable_by(|a, b| a.id.cmp(&b.id));

        let (order, reached) = nodes.walk(&starts(summary, &nodes, drift));
        let parents = nodes.parents(&order);
        let mut stages = Vec::with_capacity(order.len());
        for (place, at) in order.into_iter().enumerate() {
            let node = &nodes.0[at];
            if node.is_row(place < reached) {
                stages.push((at, parents[at].map(|parent| nodes.parent(parent))));
            } else {
                lose(node.id.clone(), node.raw);
            }
        }
        if !no_rows.is_empty() {
            let json = members::write_object(no_rows);
            summary.fields.keep_instead(Field::LayoutNodeMap, json);
        }
        Self {
            stages: nodes.into_stages(stages),
        }
    }
}

/// Where the walk begins. What the first row of `stages` does not tell stays in the rest.
fn starts<'a>(summary: &mut Summary<'a>, nodes: &Nodes<'a>, drift: &mut Drift) -> Vec<usize> {
    let fields = &mut summary.fields;
    let mut starts = Vec::new();
    if let Some(raw) = fields.peek(Field::StartingNodeId)
        && let Some(id) = fields.text(Field::StartingNodeId, drift)
    {
        starts.extend(nodes.find(&id));
        if !starts.iter().any(|at| nodes.0[*at].is_row(true)) {
            fields.keep(Field::StartingNodeId, raw);
        }
    }
    if let Some(raw) = fields.peek(Field::StartingNodeIds) {
        let ids = leaf::texts(raw).unwrap_or_default();
        starts.extend(ids.iter().filter_map(|id| nodes.find(id)));
    }
    starts
}

/// The nodes, sorted by id.
struct Nodes<'a>(Vec<Node<'a>>);

type Parent<'a> = (Cow<'a, str>, Option<Cow<'a, str>>);

impl<'a> Nodes<'a> {
    fn find(&self, id: &str) -> Option<usize> {
        self.0.binary_search_by(|node| (*node.id).cmp(id)).ok()
    }

    /// All nodes in their order, and how many of them can be reached: depth first, a node before
    /// its children, these before what follows. The others come after, by start and id.
    fn walk(&self, starts: &[usize]) -> (Vec<usize>, usize) {
        let mut order = Vec::with_capacity(self.0.len());
        let mut seen = vec![false; self.0.len()];
        let mut ahead: Vec<usize> = starts.iter().rev().copied().collect();
        while let Some(at) = ahead.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            order.push(at);
            let node = &self.0[at];
            let targets = node.next.iter().rev().chain(node.children.iter().rev());
            ahead.extend(targets.filter_map(|id| self.find(id)));
        }
        let reached = order.len();
        order.extend((0..self.0.len()).filter(|at| !seen[*at]));
        order[reached..].sort_by_key(|at| {
            let start = self.0[*at].start_ms;
            (start.is_none(), start)
        });
        (order, reached)
    }

    /// The node that lists each node among its children: of several the first in the order.
    fn parents(&self, order: &[usize]) -> Vec<Option<usize>> {
        let mut parents = vec![None; self.0.len()];
        for at in order {
            for child in self.0[*at].children.iter().filter_map(|id| self.find(id)) {
                if child != *at {
                    parents[child].get_or_insert(*at);
                }
            }
        }
        parents
    }

    /// The id of a parent, and its type where it is a strategy.
    fn parent(&self, at: usize) -> Parent<'a> {
        let node = &self.0[at];
        let strategy = node.is_strategy().then(|| node.kind.clone());
        (node.id.clone(), strategy.flatten())
    }

    fn into_stages(self, rows: Vec<(usize, Option<Parent<'a>>)>) -> Vec<Stage<'a>> {
        let mut nodes: Vec<_> = self.0.into_iter().map(Some).collect();
        let stage = |(at, parent): (usize, Option<Parent<'a>>)| {
            let (parent_id, strategy_type) = parent.unzip();
            nodes[at].take().map(|node| Stage {
                id: node.id,
                fields: node.fields,
                kind: node.kind,
                start_ms: node.start_ms,
                parent_id,
                strategy_type: strategy_type.flatten(),
            })
        };
        rows.into_iter().filter_map(stage).collect()
    }
}

impl<'a> Node<'a> {
    fn read(
        id: Cow<'a, str>,
        raw: Value<'a>,
        mut fields: NodeFields<'a>,
        drift: &mut Drift,
    ) -> Self {
        let mut children = Vec::new();
        let mut next = Vec::new();
        if let Some(raw) = fields.peek(NodeField::Edges) {
            let mut edges: Edges<'a> = fields.object(NodeField::Edges, drift);
            children = edges.texts(EdgesField::Children, drift);
            next = edges.texts(EdgesField::Next, drift);
            // No column tells what comes next, and a target may be missing.
            if !(children.is_empty() && next.is_empty() && edges.is_empty()) {
                fields.keep(NodeField::Edges, raw);
            }
        }
        Self {
            id,
            raw,
            kind: fields.text(NodeField::NodeType, drift),
            start_ms: fields.time(NodeField::StartTs, drift),
            fields,
            children,
            next,
        }
    }

    /// Whether the node is a stage: not hidden, no group (its children are the stages), and no
    /// placeholder of a rollback that never came.
    fn is_row(&self, is_reached: bool) -> bool {
        let is_hidden = self.fields.peek(NodeField::Hidden).and_then(leaf::boolean) == Some(true);
        let is_group = self.is_strategy() || self.is_type("parallel");
        let is_missing = self.is_placeholder() && !is_reached;
        !(is_hidden || is_group || is_missing)
    }

    fn is_placeholder(&self) -> bool {
        let status = self.fields.peek(NodeField::Status).and_then(leaf::text);
        self.is_type("PipelineRollback")
            && status.is_some_and(|status| status::same_word(&status, "NotStarted"))
    }

    fn is_strategy(&self) -> bool {
        let group = self.fields.peek(NodeField::NodeGroup).and_then(leaf::text);
        let is_grouped = group.is_some_and(|group| group.eq_ignore_ascii_case("STRATEGY"));
        let is_typed = ["MATRIX", "LOOP", "PARALLELISM"]
            .iter()
            .any(|word| self.is_type(word));
        (is_grouped && !self.is_type("parallel")) || is_typed
    }

    fn is_type(&self, word: &str) -> bool {
        let kind = self.kind.as_ref();
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case(word))
    }
}
