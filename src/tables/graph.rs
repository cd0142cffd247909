//! The stage graph of an execution: which nodes are rows of `stages`, in which order, and which
//! group holds which.
//!
//! The server sends nodes by id, in no order, with edges that may miss their target or form a
//! circle. Nothing here recurses.

use std::borrow::Cow;

use crate::scan::Value;

use super::buffers::Buffers;
use super::json::object;
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
    } others Known [
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
    } others Known
}

/// The stages of an execution.
#[derive(Default)]
pub(super) struct Graph<'a> {
    nodes: Nodes<'a>,
    /// The nodes that are rows of `stages`, in their order.
    rows: Vec<usize>,
}

/// A node that is a row of `stages`.
pub(super) struct Stage<'n> {
    /// The key of `layoutNodeMap`; `nodeUuid` differs for instances of a strategy.
    pub(super) id: &'n str,
    /// `nodeType`.
    pub(super) kind: Option<&'n str>,
    pub(super) start_ms: Option<i64>,
    pub(super) parent_id: Option<&'n str>,
    pub(super) strategy_type: Option<&'n str>,
}

struct Node<'a> {
    id: Cow<'a, str>,
    /// How the id begins, which tells most ids apart.
    prefix: u64,
    raw: Value<'a>,
    fields: NodeFields<'a>,
    /// `nodeType`.
    kind: Option<Cow<'a, str>>,
    start_ms: Option<i64>,
    children: Ids<'a>,
    next: Ids<'a>,
    is_seen: bool,
    /// The node that lists this one among its children: of several the first in the order.
    parent: Option<usize>,
}

/// A list of node ids, read whenever it is asked for.
#[derive(Clone, Copy, Default)]
struct Ids<'a>(Option<Value<'a>>);

impl<'a> Ids<'a> {
    /// Takes a list; `None` for any other value.
    fn of(raw: Value<'a>) -> Option<Self> {
        let is_empty = raw.items()?.next().is_none();
        Some(Self((!is_empty).then_some(raw)))
    }

    /// Whether nothing but ids is in the list.
    fn is_all(self) -> bool {
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

/// Memory of one graph that the next one uses again.
#[derive(Default)]
pub(super) struct GraphBuffers {
    members: Buffers<(Cow<'static, str>, Value<'static>)>,
    nodes: Buffers<Node<'static>>,
    ahead: Buffers<usize>,
    rows: Buffers<usize>,
    no_rows: Buffers<(Cow<'static, str>, Cow<'static, str>)>,
    text: String,
}

impl<'a> Graph<'a> {
    /// Takes the graph out of a summary. Nodes that are no rows go back to the rest of it.
    pub(super) fn take(
        summary: &mut Summary<'a>,
        room: &mut GraphBuffers,
        drift: &mut Drift,
    ) -> Self {
        let Some(map) = summary.fields.take(Field::LayoutNodeMap) else {
            return Self::default();
        };
        let mut members = room.members.list();
        let read = map.each_member(|id, raw| members.push((id, raw)));
        if read.is_none() {
            summary.fields.refuse(Field::LayoutNodeMap, drift);
            return Self::default();
        }
        let mut no_rows = room.no_rows.list();
        let mut lose = |id, raw: Value<'a>| no_rows.push((id, Cow::Borrowed(raw.json())));
        leaf::last_of_each(&mut members, |id, raw| {
            drift.odd_value("layoutNodeMap.*", &id);
            lose(id, raw);
        });
        let mut nodes = Nodes(room.nodes.list());
        for (id, raw) in members.drain(..) {
            match NodeFields::read(raw, drift) {
                Some(fields) => nodes.0.push(Node::read(id, raw, fields, drift)),
                None if raw.is_null() => {}
                None => {
                    drift.odd_value("layoutNodeMap.*", raw.json());
                    lose(id, raw);
                }
            }
        }
        room.members.keep(members);
        nodes
            .0
            .sort_unstable_by(|a, b| (a.prefix, &a.id).cmp(&(b.prefix, &b.id)));

        let mut ahead = room.ahead.list();
        find_starts(summary, &nodes, &mut ahead, drift);
        let mut rows = room.rows.list();
        let reached = nodes.walk(&mut ahead, &mut rows);
        room.ahead.keep(ahead);
        nodes.find_parents(&rows);
        let mut place = 0;
        rows.retain(|at| {
            let node = &nodes.0[*at];
            let is_row = node.is_row(place < reached);
            if !is_row {
                lose(node.id.clone(), node.raw);
            }
            place += 1;
            is_row
        });
        if !no_rows.is_empty() {
            let json = members::write_object(&mut no_rows, std::mem::take(&mut room.text));
            summary.fields.keep_instead(Field::LayoutNodeMap, json);
        }
        room.no_rows.keep(no_rows);
        Self { nodes, rows }
    }

    /// Hands over the stages in their order.
    pub(super) fn each_stage(
        self,
        room: &mut GraphBuffers,
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
            };
            each(stage, fields);
        }
        room.nodes.keep(nodes.0);
        room.rows.keep(rows);
    }
}

impl GraphBuffers {
    /// Takes the memory of what went back to the rest of a summary.
    pub(super) fn keep(&mut self, summary: Summary<'_>) {
        let text = summary.fields.into_memory();
        if self.text.capacity() < text.capacity() {
            self.text = text;
        }
    }
}

/// Where the walk begins. What the first row of `stages` does not tell stays in the rest.
fn find_starts(
    summary: &mut Summary<'_>,
    nodes: &Nodes<'_>,
    starts: &mut Vec<usize>,
    drift: &mut Drift,
) {
    let fields = &mut summary.fields;
    if let Some(id) = fields.text(Field::StartingNodeId, drift) {
        starts.extend(nodes.find(&id));
        if !starts.iter().any(|at| nodes.0[*at].is_row(true)) {
            fields.keep(Field::StartingNodeId);
        }
    }
    if let Some(raw) = fields.peek(Field::StartingNodeIds) {
        let (ids, _) = leaf::texts(raw).unwrap_or_default();
        starts.extend(ids.iter().filter_map(|id| nodes.find(id)));
    }
}

/// The nodes, sorted by id.
#[derive(Default)]
struct Nodes<'a>(Vec<Node<'a>>);

impl Nodes<'_> {
    fn find(&self, id: &str) -> Option<usize> {
        let sought = (leaf::prefix(id.as_bytes()), id);
        let order = |node: &Node<'_>| (node.prefix, &*node.id).cmp(&sought);
        self.0.binary_search_by(order).ok()
    }

    /// Adds all nodes to `order`, and gives how many of them can be reached from those `ahead`: depth first, a
    /// node before its children, these before what follows. The others come after, by start and id.
    fn walk(&mut self, ahead: &mut Vec<usize>, order: &mut Vec<usize>) -> usize {
        // The next one last.
        ahead.reverse();
        while let Some(at) = ahead.pop() {
            if std::mem::replace(&mut self.0[at].is_seen, true) {
                continue;
            }
            order.push(at);
            let node = &self.0[at];
            let behind = ahead.len();
            let targets = node.children.iter().chain(node.next.iter());
            ahead.extend(targets.filter_map(|id| self.find(&id)));
            ahead[behind..].reverse();
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
                let ids = edges.read_with(field, Ids::of, drift).unwrap_or_default();
                if !ids.is_all() {
                    edges.refuse(field, drift);
                }
                ids
            };
            (children, next) = (ids(EdgesField::Children), ids(EdgesField::Next));
            // No column tells what comes next, and a target may be missing.
            if !(children.is_empty() && next.is_empty() && edges.is_empty()) {
                fields.keep(NodeField::Edges);
            }
        }
        Self {
            prefix: leaf::prefix(id.as_bytes()),
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

    /// Whether the node is a stage: not hidden, no group (its children are the stages), and no
    /// placeholder of a rollback that never came.
    fn is_row(&self, is_reached: bool) -> bool {
        let is_hidden = self.fields.peek(NodeField::Hidden).and_then(Value::boolean) == Some(true);
        let is_group = self.is_strategy() || self.is_type("parallel");
        let is_missing = !is_reached && self.is_placeholder();
        !(is_hidden || is_group || is_missing)
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
