//! The stage graph of an execution: selects and orders the nodes that are rows of `stages`, and finds
//! their parents.
//!
//! The server sends nodes by ID without an order. Edges may point to missing nodes or form cycles, so
//! the code does not recurse.

use std::borrow::Cow;

use super::buffers::Buffers;
use super::convert;
use super::dedup;
use super::json::object;
use super::summary::{Field, Summary};
use super::writer;
use crate::drift::Drift;
use crate::scan::Value;
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
    } others CountUnknown [
        "createdAt",
        "skipInfo",
        "nodeRunInfo",
        "barrierFound",
        "stepDetails",
        "nodeExecutionId",
        "executionInputConfigured",
        "isManualExecution",
        "childrenCount",
    ]
}

object! {
    Edges of EdgesField at "layoutNodeMap.*.edgeLayoutList." {
        Children = "currentNodeChildren",
        Next = "nextIds",
    } others CountUnknown
}

/// The stages of an execution.
#[derive(Default)]
pub(super) struct Graph<'a> {
    nodes: Nodes<'a>,
    /// The nodes that are rows of `stages`, in order.
    rows: Vec<usize>,
}

/// A node that is a row of `stages`.
pub(super) struct Stage<'n> {
    /// The key in `layoutNodeMap`. `nodeUuid` differs from it for instances of a strategy.
    pub(super) id: &'n str,
    /// `nodeType`.
    pub(super) kind: Option<&'n str>,
    pub(super) start_ms: Option<i64>,
    pub(super) parent_id: Option<&'n str>,
    pub(super) strategy_type: Option<&'n str>,
    /// `nodeIdentifier` of the strategy. That of an instance has a suffix.
    pub(super) strategy_stage_id: Option<Cow<'n, str>>,
}

struct Node<'a> {
    id: Cow<'a, str>,
    /// The first bytes of the ID, which are enough to order most IDs.
    prefix: u64,
    raw: Value<'a>,
    fields: NodeFields<'a>,
    /// `nodeType`.
    kind: Option<Cow<'a, str>>,
    start_ms: Option<i64>,
    children: Ids<'a>,
    next: Ids<'a>,
    is_seen: bool,
    /// The first node, in order, that lists this node as a child.
    parent: Option<usize>,
}

/// A list of node IDs that is parsed on each use.
#[derive(Clone, Copy, Default)]
struct Ids<'a>(Option<Value<'a>>);

impl<'a> Ids<'a> {
    /// Returns `None` if the value is not a list.
    fn read(raw: Value<'a>) -> Option<Self> {
        let is_empty = raw.items()?.next().is_none();
        Some(Self((!is_empty).then_some(raw)))
    }

    /// Returns true if the list contains only IDs and nulls.
    fn has_only_ids(self) -> bool {
        let mut items = self.0.and_then(Value::items).into_iter().flatten();
        items.all(|item| item.is_null() || item.text().is_some())
    }

    fn iter(self) -> impl Iterator<Item = Cow<'a, str>> {
        let items = self.0.and_then(Value::items).into_iter().flatten();
        items.filter_map(Value::text).filter(|id| !id.is_empty())
    }

    fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}

/// Allocations that are reused from graph to graph.
#[derive(Default)]
pub(super) struct GraphBuffers {
    members: Buffers<(Cow<'static, str>, Value<'static>)>,
    nodes: Buffers<Node<'static>>,
    stack: Buffers<usize>,
    rows: Buffers<usize>,
    skipped: Buffers<(Cow<'static, str>, Cow<'static, str>)>,
    text: String,
}

impl<'a> Graph<'a> {
    /// Takes the graph out of a summary. Nodes that are not rows stay in the rest of the summary.
    pub(super) fn take(
        summary: &mut Summary<'a>,
        buffers: &mut GraphBuffers,
        drift: &mut Drift,
    ) -> Self {
        let Some(map) = summary.fields.take(Field::LayoutNodeMap) else {
            return Self::default();
        };
        let mut members = buffers.members.take();
        let read = map.each_member(|id, raw| members.push((id, raw)));
        if read.is_none() {
            summary.fields.reject(Field::LayoutNodeMap, drift);
            return Self::default();
        }
        let mut skipped = buffers.skipped.take();
        let mut skip = |id, raw: Value<'a>| skipped.push((id, Cow::Borrowed(raw.json())));
        dedup::keep_last(&mut members, |id, raw| {
            drift.odd_value("layoutNodeMap.*", &id);
            skip(id, raw);
        });
        let mut nodes = Nodes(buffers.nodes.take());
        for (id, raw) in members.drain(..) {
            match NodeFields::read(raw, drift) {
                Some(fields) => nodes.0.push(Node::read(id, raw, fields, drift)),
                None if raw.is_null() => {}
                None => {
                    drift.odd_value("layoutNodeMap.*", raw.json());
                    skip(id, raw);
                }
            }
        }
        buffers.members.recycle(members);
        nodes
            .0
            .sort_unstable_by(|a, b| (a.prefix, &a.id).cmp(&(b.prefix, &b.id)));

        let mut stack = buffers.stack.take();
        find_roots(summary, &nodes, &mut stack, drift);
        let mut rows = buffers.rows.take();
        let reached = nodes.walk(&mut stack, &mut rows);
        buffers.stack.recycle(stack);
        nodes.find_parents(&rows);
        let mut position = 0;
        rows.retain(|at| {
            let node = &nodes.0[*at];
            let is_row = node.is_row(position < reached);
            if !is_row {
                skip(node.id.clone(), node.raw);
            }
            position += 1;
            is_row
        });
        if !skipped.is_empty() {
            let json = writer::write_object(&mut skipped, std::mem::take(&mut buffers.text));
            summary.fields.replace(Field::LayoutNodeMap, json);
        }
        buffers.skipped.recycle(skipped);
        Self { nodes, rows }
    }

    /// Calls `each` with every stage, in order.
    pub(super) fn for_each_stage(
        self,
        buffers: &mut GraphBuffers,
        mut each: impl FnMut(Stage<'_>, NodeFields<'a>),
    ) {
        let Self { mut nodes, rows } = self;
        for &at in &rows {
            let fields = std::mem::take(&mut nodes.0[at].fields);
            let node = &nodes.0[at];
            let parent = node.parent.map(|at| &nodes.0[at]);
            let strategy = parent.filter(|parent| parent.is_strategy());
            let stage = Stage {
                id: &node.id,
                kind: node.kind.as_deref(),
                start_ms: node.start_ms,
                parent_id: parent.map(|parent| &*parent.id),
                strategy_type: strategy.and_then(|parent| parent.kind.as_deref()),
                strategy_stage_id: strategy.and_then(Node::identifier),
            };
            each(stage, fields);
        }
        buffers.nodes.recycle(nodes.0);
        buffers.rows.recycle(rows);
    }
}

impl GraphBuffers {
    /// Takes back the largest text allocation of a summary.
    pub(super) fn recycle(&mut self, summary: Summary<'_>) {
        let text = summary.fields.into_allocation();
        if self.text.capacity() < text.capacity() {
            self.text = text;
        }
    }
}

/// Finds the nodes at which the walk starts.
///
/// `startingNodeId` stays in the rest unless it is the first row of `stages`.
fn find_roots(
    summary: &mut Summary<'_>,
    nodes: &Nodes<'_>,
    starts: &mut Vec<usize>,
    drift: &mut Drift,
) {
    let fields = &mut summary.fields;
    if let Some(id) = fields.text(Field::StartingNodeId, drift) {
        starts.extend(nodes.find(&id));
        if !starts.iter().any(|at| nodes.0[*at].is_row(true)) {
            fields.restore(Field::StartingNodeId);
        }
    }
    if let Some(raw) = fields.peek(Field::StartingNodeIds) {
        let (ids, _) = convert::texts(raw).unwrap_or_default();
        starts.extend(ids.iter().filter_map(|id| nodes.find(id)));
    }
}

/// The nodes, sorted by id.
#[derive(Default)]
struct Nodes<'a>(Vec<Node<'a>>);

impl Nodes<'_> {
    fn find(&self, id: &str) -> Option<usize> {
        let sought = (dedup::prefix(id.as_bytes()), id);
        let order = |node: &Node<'_>| (node.prefix, &*node.id).cmp(&sought);
        self.0.binary_search_by(order).ok()
    }

    /// Appends all nodes to `order` and returns how many of them are reachable from `stack`.
    ///
    /// The walk is depth-first: a node, then its children, then its successors. Unreachable nodes come
    /// last, ordered by start and ID.
    fn walk(&mut self, stack: &mut Vec<usize>, order: &mut Vec<usize>) -> usize {
        // The next node is at the end.
        stack.reverse();
        while let Some(at) = stack.pop() {
            if std::mem::replace(&mut self.0[at].is_seen, true) {
                continue;
            }
            order.push(at);
            let node = &self.0[at];
            let bottom = stack.len();
            let targets = node.children.iter().chain(node.next.iter());
            stack.extend(targets.filter_map(|id| self.find(&id)));
            stack[bottom..].reverse();
        }
        let reached = order.len();
        order.extend((0..self.0.len()).filter(|at| !self.0[*at].is_seen));
        order[reached..].sort_by_key(|at| {
            let start = self.0[*at].start_ms;
            (start.is_none(), start)
        });
        reached
    }

    fn find_parents(&mut self, order: &[usize]) {
        for at in order {
            for id in self.0[*at].children.iter() {
                if let Some(child) = self.find(&id)
                    && child != *at
                {
                    self.0[child].parent.get_or_insert(*at);
                }
            }
        }
    }
}

impl<'a> Node<'a> {
    fn read(
        id: Cow<'a, str>,
        raw: Value<'a>,
        mut fields: NodeFields<'a>,
        drift: &mut Drift,
    ) -> Self {
        let (mut children, mut next) = (Ids::default(), Ids::default());
        if fields.peek(NodeField::Edges).is_some() {
            let mut edges: Edges<'a> = fields.object(NodeField::Edges, drift);
            let mut ids = |field| {
                let ids = edges.read_with(field, Ids::read, drift).unwrap_or_default();
                if !ids.has_only_ids() {
                    edges.reject(field, drift);
                }
                ids
            };
            (children, next) = (ids(EdgesField::Children), ids(EdgesField::Next));
            // No column contains the edges, and the nodes they point to may be missing.
            if !(children.is_empty() && next.is_empty() && edges.is_empty()) {
                fields.restore(NodeField::Edges);
            }
        }
        Self {
            prefix: dedup::prefix(id.as_bytes()),
            id,
            raw,
            kind: fields.text(NodeField::NodeType, drift),
            start_ms: fields.time(NodeField::StartTs, drift),
            fields,
            children,
            next,
            is_seen: false,
            parent: None,
        }
    }

    /// Returns true if the node is a stage: not hidden, not a group (its children are the stages), and
    /// not the placeholder of a rollback that did not happen.
    fn is_row(&self, is_reached: bool) -> bool {
        let is_hidden = self.fields.peek(NodeField::Hidden).and_then(Value::boolean) == Some(true);
        let is_group = self.is_strategy() || self.is_type("parallel");
        let is_missing = !is_reached && self.is_placeholder();
        !(is_hidden || is_group || is_missing)
    }

    fn identifier(&self) -> Option<Cow<'a, str>> {
        let identifier = self.fields.peek(NodeField::NodeIdentifier)?.text();
        identifier.filter(|identifier| !identifier.is_empty())
    }

    fn is_placeholder(&self) -> bool {
        let status = self.fields.peek(NodeField::Status).and_then(Value::text);
        self.is_type("PipelineRollback")
            && status.is_some_and(|status| status::same_word(&status, "NotStarted"))
    }

    fn is_strategy(&self) -> bool {
        let group = self.fields.peek(NodeField::NodeGroup).and_then(Value::text);
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
