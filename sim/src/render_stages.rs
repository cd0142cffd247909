//! Renders `layoutNodeMap` and the stage counts.

use super::account::RowSize;
use super::detail::{Failure, Instance, Node, NodeKind};
use super::json::Json;
use super::names;
use super::plan::{StageKind, Strategy};
use super::render::Snapshot;
use super::render_modules;
use super::rng::Id;
use super::status::Status;

/// Renders the map of stages, in no particular order, and its starting node.
pub(super) fn layout_nodes(snapshot: &Snapshot<'_>, json: &mut Json) {
    let nodes = &snapshot.detail.nodes;
    json.map("layoutNodeMap", |json| {
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|index| nodes[*index].key);
        for index in order {
            if shown(snapshot, index) {
                let key = nodes[index].key.to_string();
                json.map(&key, |json| node(snapshot, index, json));
            }
        }
    });
    let first = snapshot.detail.chain.first().filter(|_| snapshot.planned());
    if let Some(first) = first {
        json.str("startingNodeId", &nodes[*first].key.to_string());
    }
}

/// Returns whether a node is listed. A rollback stage off the chain is listed only once it runs.
pub(super) fn shown(snapshot: &Snapshot<'_>, index: usize) -> bool {
    let node = &snapshot.detail.nodes[index];
    let on_chain = node.group.is_some() || snapshot.detail.chain.contains(&index);
    snapshot.planned()
        && (on_chain
            || snapshot.detail.rollback == Some(index)
            || node.started(snapshot.at).is_some())
}

fn node(snapshot: &Snapshot<'_>, index: usize, json: &mut Json) {
    let (detail, at) = (&snapshot.detail, snapshot.at);
    let node = &detail.nodes[index];
    let key = |index: usize| detail.nodes[index].key.to_string();
    json.str("nodeType", node_type(node));
    json.str(
        "nodeGroup",
        if let NodeKind::Strategy(..) = node.kind {
            "STRATEGY"
        } else {
            "STAGE"
        },
    );
    json.str("nodeIdentifier", &identifier(node));
    if let Some(name) = name(node) {
        json.str("name", &name);
    }
    json.str("nodeUuid", &node.uuid.to_string());
    json.str(
        "status",
        detail
            .node_status(index, at)
            .spelled(snapshot.execution.legacy),
    );
    json.str("module", module(node));
    json.map("moduleInfo", |json| {
        render_modules::stage(snapshot, index, json);
    });
    json.int_if("startTs", node.started(at));
    json.int_if("endTs", node.end_at(at));
    json.map("edgeLayoutList", |json| {
        json.strings(
            "currentNodeChildren",
            node.children.iter().map(|child| Some(key(*child))),
        );
        json.strings(
            "nextIds",
            detail.next_of(index, at).map(|next| Some(key(next))),
        );
    });
    if let Some(instance) = &node.instance {
        let strategy = node.group.map(|group| detail.nodes[group].kind);
        json.map("strategyMetadata", |json| {
            metadata(json, instance, strategy);
        });
    }
    if node.stage().is_none() {
        return;
    }
    let skipped = detail.node_status(index, at) == Status::Skipped;
    if skipped || snapshot.account.spec.size == RowSize::Realistic {
        conditions(skipped, json);
    }
    if node.started(at).is_some() {
        json.map("failureInfo", |json| {
            json.str(
                "message",
                node.failure_at(at).map_or("", |failure| failure.message),
            );
        });
        json.map("failureInfoDTO", |json| failure(json, node.failure_at(at)));
        json.str("nodeExecutionId", &Id(!node.key.0).to_string());
    }
    if node.is_kind(StageKind::Pipeline) && node.started(at).is_some() && !node.carried {
        json.map("stepDetails", |json| {
            json.map("childPipelineExecutionDetails", |json| {
                json.str("planExecutionId", &node.child.to_string());
            });
        });
    }
    json.bool("executionInputConfigured", false);
    json.bool("isRollbackStageNode", node.is_rollback);
    if node.stage().is_some_and(|stage| stage.hidden) {
        json.bool("hidden", true);
    }
}

fn conditions(skipped: bool, json: &mut Json) {
    json.map("nodeRunInfo", |json| {
        json.str(
            "whenCondition",
            "<+OnPipelineSuccess> && (<+trigger.type> != \"Custom\")",
        );
        json.bool("evaluatedCondition", !skipped);
        let expressions = [
            ("<+OnPipelineSuccess>", "true"),
            ("<+trigger.type>", "null"),
        ];
        json.maps("expressions", expressions, |json, (expression, value)| {
            json.str("expression", expression);
            json.str("expressionValue", value);
            json.int("count", 1);
        });
    });
    if skipped {
        json.map("skipInfo", |json| {
            json.str("skipCondition", "<+pipeline.variables.fast> == \"yes\"");
            json.bool("evaluatedCondition", true);
        });
    }
}

/// Renders `strategyMetadata`, with keys in lower case, as the server sends them.
fn metadata(json: &mut Json, instance: &Instance, strategy: Option<NodeKind<'_>>) {
    json.int("currentiteration", instance.index);
    json.int("totaliterations", instance.total);
    let Some(NodeKind::Strategy(Strategy::Matrix(axes), _)) = strategy else {
        return;
    };
    json.map("matrixmetadata", |json| {
        json.map("matrixvalues", |json| {
            for (axis, value) in axes.iter().zip(&instance.combination) {
                let (name, values) = names::AXES[*axis];
                json.str(name, values[*value]);
            }
        });
        let indexes = instance
            .combination
            .iter()
            .map(|index| i64::try_from(*index).unwrap_or(0));
        json.ints("matrixcombination", indexes);
    });
}

/// Renders `failureInfoDTO` of a stage and `failureInfo` of an execution.
pub(super) fn failure(json: &mut Json, failure: Option<Failure>) {
    json.str("message", failure.map_or("", |failure| failure.message));
    let types = failure.map_or(&[][..], |failure| failure.types);
    json.strings("failureTypeList", types.iter().copied().map(Some));
    json.maps("responseMessages", failure, |json, failure| {
        json.str("code", "DEFAULT_ERROR_CODE");
        json.str("level", "ERROR");
        json.str("message", failure.message);
        json.null("exception");
        json.strings(
            "failureTypes",
            failure.all_types().iter().copied().map(Some),
        );
    });
}

pub(super) fn node_type(node: &Node<'_>) -> &'static str {
    match node.kind {
        NodeKind::Stage(stage) => stage.node_type(),
        NodeKind::Parallel => "parallel",
        NodeKind::Strategy(strategy, _) => strategy.node_type(),
        NodeKind::PipelineRollback => "PipelineRollback",
    }
}

pub(super) fn module(node: &Node<'_>) -> &'static str {
    match node.kind {
        NodeKind::Stage(stage) | NodeKind::Strategy(_, stage) => stage.kind.module(),
        NodeKind::Parallel | NodeKind::PipelineRollback => "pms",
    }
}

/// Returns the identifier of a node: that of an instance of a strategy ends with its position.
pub(super) fn identifier(node: &Node<'_>) -> String {
    let mut id = plain_identifier(node).to_owned();
    if let Some(instance) = &node.instance {
        if instance.combination.is_empty() {
            id = format!("{id}_{}", instance.index);
        }
        for position in &instance.combination {
            id = format!("{id}_{position}");
        }
    }
    id
}

/// Returns the identifier of a node in the pipeline.
pub(super) fn plain_identifier<'a>(node: &'a Node<'_>) -> &'a str {
    match node.kind {
        NodeKind::Stage(stage) | NodeKind::Strategy(_, stage) => &stage.id,
        NodeKind::Parallel => "parallel",
        NodeKind::PipelineRollback => "prb-rollback",
    }
}

pub(super) fn name(node: &Node<'_>) -> Option<String> {
    match (node.kind, &node.instance) {
        (NodeKind::Stage(stage), Some(instance)) => {
            Some(format!("{}_{}", stage.name, instance.index))
        }
        (NodeKind::Stage(stage) | NodeKind::Strategy(_, stage), _) => Some(stage.name.clone()),
        (NodeKind::Parallel, _) => None,
        (NodeKind::PipelineRollback, _) => Some("Pipeline rollback".to_owned()),
    }
}

/// Counts stages as Harness does: along the chain, a group once, only exact statuses.
pub(super) fn counts(snapshot: &Snapshot<'_>) -> [i64; 4] {
    let (detail, at) = (&snapshot.detail, snapshot.at);
    let mut counts = [0; 4];
    let mut next = detail.chain.first().copied().filter(|_| snapshot.planned());
    while let Some(node) = next {
        counts[3] += 1;
        match detail.node_status(node, at) {
            Status::Success => counts[0] += 1,
            Status::Failed => counts[1] += 1,
            Status::Running => counts[2] += 1,
            _ => {}
        }
        next = detail.next_of(node, at);
    }
    counts
}
