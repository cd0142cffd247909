//! The expected rows of `stages` and `deployments`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::detail::{Node, What};
use super::facts::{Known, artifact, deployed, known};
use super::names;
use super::plan::{Kind, Stage, Strategy};
use super::render::Scene;
use super::render_stages::{identifier, module, name, node_type, shown};
use super::truth::{head, micros, object};

type Service = (&'static str, &'static str, &'static str);
type Environment = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// The stages of an execution, each with the place of its node, in the order of `stage_index`.
pub(super) fn stages(scene: &Scene<'_>) -> Vec<(usize, Value)> {
    let nodes = &scene.detail.nodes;
    let mut order = Vec::new();
    for link in scene.detail.chain.iter().filter(|_| scene.planned()) {
        walk(nodes, *link, &mut order);
    }
    // A rollback of the pipeline joins the chain when it starts, a rollback stage never does.
    let joins = |place: &usize| matches!(nodes[*place].what, What::PipelineRollback);
    let mut rest: Vec<usize> = (0..nodes.len())
        .filter(|place| !order.contains(place) && shown(scene, *place))
        .collect();
    rest.sort_by_key(|place| {
        (
            !joins(place),
            nodes[*place].start,
            nodes[*place].key.to_string(),
        )
    });
    order.extend(rest);
    order
        .into_iter()
        .filter(|place| is_row(scene, *place))
        .enumerate()
        .map(|(index, place)| (place, stage(scene, place, index)))
        .collect()
}

fn walk(nodes: &[Node<'_>], place: usize, order: &mut Vec<usize>) {
    order.push(place);
    for child in &nodes[place].children {
        walk(nodes, *child, order);
    }
}

fn is_row(scene: &Scene<'_>, place: usize) -> bool {
    let node = &scene.detail.nodes[place];
    match node.what {
        What::Stage(stage) => !stage.hidden,
        What::Parallel | What::Strategy(..) => false,
        What::PipelineRollback => node.started(scene.at).is_some(),
    }
}

fn stage(scene: &Scene<'_>, place: usize, index: usize) -> Value {
    let node = &scene.detail.nodes[place];
    let group = node.group.map(|group| &scene.detail.nodes[group]);
    let strategy = match group.map(|group| group.what) {
        Some(What::Strategy(strategy, _)) => Some(strategy),
        _ => None,
    };
    let failure = node.failure_at(scene.at);
    let mut row = head(scene);
    row.extend(timing(scene, place));
    row.extend(object(json!({
        "stage_id": identifier(node),
        "stage_name": name(node),
        "stage_type": node_type(node),
        "module": module(node),
        "error_message": failure.map(|failure| failure.message),
        "failure_types": failure.map(super::detail::Failure::all_types).unwrap_or_default(),
        "parent_stage_node_id": group.map(|group| group.key.to_string()),
        "strategy_type": strategy.map(Strategy::node_type),
        "matrix": matrix(node, strategy),
        "iteration": node.instance.as_ref().map(|instance| instance.place),
        "stage_index": index,
    })));
    Value::Object(row)
}

/// The columns that stages and deployments share.
fn timing(scene: &Scene<'_>, place: usize) -> Map<String, Value> {
    let (node, at) = (&scene.detail.nodes[place], scene.at);
    let state = scene.detail.node_state(place, at);
    let (start, end) = (node.started(at), node.end_at(at));
    let duration = start
        .zip(end)
        .filter(|_| state.terminal())
        .map(|(start, end)| end - start);
    object(json!({
        "stage_node_id": node.key.to_string(),
        "status": state.spelled(scene.execution.old_shape),
        "status_category": state.category(),
        "start_ts": start.map(micros),
        "end_ts": end.map(micros),
        "duration_ms": duration,
        "is_rollback": node.is_rollback,
        "ran_in_this_execution": start.is_none_or(|start| scene.execution.start <= start),
    }))
}

/// Axis -> value, plain where it is a scalar.
fn matrix(node: &Node<'_>, strategy: Option<&Strategy>) -> Map<String, Value> {
    let (Some(instance), Some(Strategy::Matrix(axes))) = (&node.instance, strategy) else {
        return Map::new();
    };
    axes.iter()
        .zip(&instance.combination)
        .map(|(axis, value)| {
            let (name, values) = names::AXES[*axis];
            (name.to_owned(), values[*value].trim_matches('"').into())
        })
        .collect()
}

/// One row for each deployment stage that has started.
pub(super) fn deployments(scene: &Scene<'_>, stages: &[(usize, Value)]) -> Vec<Value> {
    stages
        .iter()
        .filter_map(|(place, _)| {
            let node = &scene.detail.nodes[*place];
            node.started(scene.at)?;
            let stage = node
                .stage()
                .filter(|stage| stage.kind == Kind::Deployment)?;
            let mut row = head(scene);
            row.extend(timing(scene, *place));
            row.extend(target(stage, node, known(node, scene.at)));
            Some(Value::Object(row))
        })
        .collect()
}

fn target(stage: &Stage, node: &Node<'_>, known: Known) -> Map<String, Value> {
    let service = (Known::Service <= known).then(|| names::SERVICES[stage.service]);
    let environment = (Known::Environment <= known).then(|| names::ENVIRONMENTS[stage.environment]);
    let infrastructure = environment.filter(|_| !stage.gitops);
    let artifact =
        (Known::Artifact <= known).then(|| artifact(names::SERVICES[stage.service].0, node));
    object(json!({
        "stage_id": stage.id,
        "service_id": service.map(|service| service.0),
        "service_name": service.map(|service| service.1),
        "deployment_type": service.map(|service| service.2),
        "environment_id": environment.map(|environment| environment.0),
        "environment_name": environment.map(|environment| environment.1),
        "environment_type": environment.map(|environment| environment.2),
        "infrastructure_id": infrastructure.map(|environment| environment.3),
        "artifact": artifact,
    }))
}

/// What the execution as a whole tells of its deployments, sorted, each once.
pub(super) fn deployed_set(
    scene: &Scene<'_>,
    least: Known,
    what: fn(Service, Environment) -> &'static str,
) -> BTreeSet<&'static str> {
    deployed(&scene.detail, scene.at, least)
        .filter_map(|node| node.stage())
        .map(|stage| {
            what(
                names::SERVICES[stage.service],
                names::ENVIRONMENTS[stage.environment],
            )
        })
        .collect()
}
