//! `layoutNodeMap` and what Harness counts in it.

use super::account::RowSize;
use super::detail::{Failure, Instance, Node, What};
use super::dice::Id;
use super::json::Json;
use super::names;
use super::plan::{Kind, Strategy};
use super::render::Scene;
use super::render_modules;
use super::state::State;

/// The map of stages, in no order that means anything, and where it starts.
pub(super) fn layout(scene: &Scene<'_>, json: &mut Json) {
    let nodes = &scene.detail.nodes;
    json.map("layoutNodeMap", |json| {
        let mut order: Vec<usize> = (0..nodes.len()).collect();
        order.sort_by_key(|place| nodes[*place].key);
        for place in order {
            if shown(scene, place) {
                let key = nodes[place].key.to_string();
                json.map(&key, |json| node(scene, place, json));
            }
        }
    });
    let first = scene.detail.chain.first().filter(|_| scene.planned());
    if let Some(first) = first {
        json.str("startingNodeId", &nodes[*first].key.to_string());
    }
}

/// A rollback stage off the chain is there only once it runs; all else is planned.
pub(super) fn shown(scene: &Scene<'_>, place: usize) -> bool {
    let node = &scene.detail.nodes[place];
    let on_chain = node.group.is_some() || scene.detail.chain.contains(&place);
    scene.planned()
        && (on_chain || scene.detail.rollback == Some(place) || node.started(scene.at).is_some())
}

fn node(scene: &Scene<'_>, place: usize, json: &mut Json) {
    let (detail, at) = (&scene.detail, scene.at);
    let node = &detail.nodes[place];
    let key = |place: usize| detail.nodes[place].key.to_string();
    json.str("nodeType", node_type(node));
    json.str(
        "nodeGroup",
        if let What::Strategy(..) = node.what {
            "STRATEGY"
        } else {
            "STAGE"
        },
    );
    json.str("nodeIdentifier", identifier(node));
    if let Some(name) = name(node) {
        json.str("name", &name);
    }
    json.str("nodeUuid", &node.uuid.to_string());
    json.str(
        "status",
        detail
            .node_state(place, at)
            .spelled(scene.execution.old_shape),
    );
    json.str("module", module(node));
    json.map("moduleInfo", |json| {
        render_modules::stage(scene, place, json);
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
            detail.next_of(place, at).map(|next| Some(key(next))),
        );
    });
    if let Some(instance) = &node.instance {
        let strategy = node.group.map(|group| detail.nodes[group].what);
        json.map("strategyMetadata", |json| {
            metadata(json, instance, strategy);
        });
    }
    if node.stage().is_none() {
        return;
    }
    let skipped = detail.node_state(place, at) == State::Skipped;
    if skipped || scene.account.spec.size == RowSize::Realistic {
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
    if node.is_kind(Kind::Pipeline) && node.started(at).is_some() && !node.carried {
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

/// Keys in lower case, as the server sends them.
fn metadata(json: &mut Json, instance: &Instance, strategy: Option<What<'_>>) {
    json.int("currentiteration", instance.place);
    json.int("totaliterations", instance.total);
    let Some(What::Strategy(Strategy::Matrix(axes), _)) = strategy else {
        return;
    };
    json.map("matrixmetadata", |json| {
        json.map("matrixvalues", |json| {
            for (axis, value) in axes.iter().zip(&instance.combination) {
                let (name, values) = names::AXES[*axis];
                json.str(name, values[*value]);
            }
        });
        let places = instance
            .combination
            .iter()
            .map(|place| i64::try_from(*place).unwrap_or(0));
        json.ints("matrixcombination", places);
    });
}

/// `failureInfoDTO`, and `failureInfo` of a whole execution.
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
    match node.what {
        What::Stage(stage) => stage.kind.node_type(),
        What::Parallel => "parallel",
        What::Strategy(strategy, _) => strategy.node_type(),
        What::PipelineRollback => "PipelineRollback",
    }
}

pub(super) fn module(node: &Node<'_>) -> &'static str {
    match node.what {
        What::Stage(stage) | What::Strategy(_, stage) => stage.kind.module(),
        What::Parallel | What::PipelineRollback => "pms",
    }
}

pub(super) fn identifier<'a>(node: &'a Node<'_>) -> &'a str {
    match node.what {
        What::Stage(stage) | What::Strategy(_, stage) => &stage.id,
        What::Parallel => "parallel",
        What::PipelineRollback => "prb-rollback",
    }
}

pub(super) fn name(node: &Node<'_>) -> Option<String> {
    match (node.what, &node.instance) {
        (What::Stage(stage), Some(instance)) => Some(format!("{}_{}", stage.name, instance.place)),
        (What::Stage(stage) | What::Strategy(_, stage), _) => Some(stage.name.clone()),
        (What::Parallel, _) => None,
        (What::PipelineRollback, _) => Some("Pipeline rollback".to_owned()),
    }
}

/// As Harness counts: along the chain, a group once, and only exact words.
pub(super) fn counts(scene: &Scene<'_>) -> [i64; 4] {
    let (detail, at) = (&scene.detail, scene.at);
    let mut counts = [0; 4];
    let mut next = detail.chain.first().copied().filter(|_| scene.planned());
    while let Some(node) = next {
        counts[3] += 1;
        match detail.node_state(node, at) {
            State::Success => counts[0] += 1,
            State::Failed => counts[1] += 1,
            State::Running => counts[2] += 1,
            _ => {}
        }
        next = detail.next_of(node, at);
    }
    counts
}
