//! The expected rows of `stages` and `deployments`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::detail::{Node, NodeKind};
use super::facts::{Resolved, artifact, deployed, resolved, rollback_ms};
use super::names;
use super::plan::{Stage, StageKind, Strategy};
use super::render::Snapshot;
use super::render_stages::{identifier, module, name, node_type, plain_identifier, shown};
use super::truth::{head, micros, object, provenance};

type Service = (&'static str, &'static str, &'static str);
type Environment = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// Returns the stages of an execution, each with the index of its node, in the order of
/// `stage_index`.
pub(super) fn stages(snapshot: &Snapshot<'_>) -> Vec<(usize, Value)> {
    let nodes = &snapshot.detail.nodes;
    let mut order = Vec::new();
    for link in snapshot.detail.chain.iter().filter(|_| snapshot.planned()) {
        walk(nodes, *link, &mut order);
    }
    // A pipeline rollback joins the chain when it starts; a rollback stage never does.
    let joins = |index: &usize| matches!(nodes[*index].kind, NodeKind::PipelineRollback);
    let mut rest: Vec<usize> = (0..nodes.len())
        .filter(|index| !order.contains(index) && shown(snapshot, *index))
        .collect();
    rest.sort_by_key(|index| {
        (
            !joins(index),
            nodes[*index].start,
            nodes[*index].key.to_string(),
        )
    });
    order.extend(rest);
    order
        .into_iter()
        .filter(|index| is_row(snapshot, *index))
        .enumerate()
        .map(|(stage_index, index)| (index, stage(snapshot, index, stage_index)))
        .collect()
}

fn walk(nodes: &[Node<'_>], index: usize, order: &mut Vec<usize>) {
    order.push(index);
    for child in &nodes[index].children {
        walk(nodes, *child, order);
    }
}

fn is_row(snapshot: &Snapshot<'_>, index: usize) -> bool {
    let node = &snapshot.detail.nodes[index];
    match node.kind {
        NodeKind::Stage(stage) => !stage.hidden,
        NodeKind::Parallel | NodeKind::Strategy(..) => false,
        NodeKind::PipelineRollback => node.started(snapshot.at).is_some(),
    }
}

fn stage(snapshot: &Snapshot<'_>, index: usize, stage_index: usize) -> Value {
    let node = &snapshot.detail.nodes[index];
    let group = node.group.map(|group| &snapshot.detail.nodes[group]);
    let strategy = match group.map(|group| group.kind) {
        Some(NodeKind::Strategy(strategy, _)) => Some(strategy),
        _ => None,
    };
    let failure = node.failure_at(snapshot.at);
    let mut row = head(snapshot);
    row.extend(timing(snapshot, index));
    row.extend(object(json!({
        "stage_id": identifier(node),
        "strategy_stage_id": plain_identifier(node),
        "rollback_ms": rollback_ms(node, snapshot.at),
        "stage_name": name(node),
        "stage_type": node_type(node),
        "module": module(node),
        "error_message": failure.map(|failure| failure.message),
        "failure_types": failure.map(super::detail::Failure::all_types).unwrap_or_default(),
        "parent_stage_node_id": group.map(|group| group.key.to_string()),
        "strategy_type": strategy.map(Strategy::node_type),
        "matrix": matrix(node, strategy),
        "iteration": node.instance.as_ref().map(|instance| instance.index),
        "stage_index": stage_index,
    })));
    Value::Object(row)
}

/// Returns the columns that stages and deployments share.
fn timing(snapshot: &Snapshot<'_>, index: usize) -> Map<String, Value> {
    let (node, at) = (&snapshot.detail.nodes[index], snapshot.at);
    let status = snapshot.detail.node_status(index, at);
    let (start, end) = (node.started(at), node.end_at(at));
    let duration = start
        .zip(end)
        .filter(|_| status.terminal())
        .map(|(start, end)| end - start);
    object(json!({
        "stage_node_id": node.key.to_string(),
        "status": status.spelled(snapshot.execution.legacy),
        "status_category": status.category(),
        "start_ts": start.map(micros),
        "end_ts": end.map(micros),
        "duration_ms": duration,
        "is_rollback": node.is_rollback,
        "ran_in_this_execution": start.is_none_or(|start| snapshot.execution.start <= start),
    }))
}

/// Returns the matrix as axis -> value, without the quotes of JSON.
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

/// Returns one row for each deployment stage that has started.
pub(super) fn deployments(snapshot: &Snapshot<'_>, stages: &[(usize, Value)]) -> Vec<Value> {
    stages
        .iter()
        .filter_map(|(index, row_of_stage)| {
            let node = &snapshot.detail.nodes[*index];
            node.started(snapshot.at)?;
            let stage = node
                .stage()
                .filter(|stage| stage.kind == StageKind::Deployment)?;
            // Without a type, only a service shows that the stage deploys.
            let resolved = resolved(node, snapshot.at);
            if stage.is_untyped() && resolved < Resolved::Service {
                return None;
            }
            let mut row = head(snapshot);
            row.extend(timing(snapshot, *index));
            row.extend(target(stage, node, resolved));
            row.extend(chain(snapshot, row_of_stage));
            let keys = ["service", "environment"].map(|of| {
                let id = row[&format!("{of}_id")].as_str();
                (format!("{of}_key"), id.map(|id| key(&row, id)).into())
            });
            row.extend(keys);
            Some(Value::Object(row))
        })
        .collect()
}

fn target(stage: &Stage, node: &Node<'_>, resolved: Resolved) -> Map<String, Value> {
    let service = (resolved >= Resolved::Service).then(|| names::SERVICES[stage.service]);
    let environment =
        (resolved >= Resolved::Environment).then(|| names::ENVIRONMENTS[stage.environment]);
    let infrastructure = environment.filter(|_| !stage.gitops);
    let artifact =
        (resolved >= Resolved::Artifact).then(|| artifact(names::SERVICES[stage.service].0, node));
    object(json!({
        "stage_id": identifier(node),
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

/// Returns an identifier with its scope.
fn key(row: &Map<String, Value>, id: &str) -> String {
    if id.starts_with("org.") || id.starts_with("account.") {
        return id.to_owned();
    }
    let part = |column: &str| row[column].as_str().unwrap_or_default();
    format!("{}/{}/{id}", part("org_id"), part("project_id"))
}

/// Returns the columns of a deployment that show what it retries, reverts or rolls back.
fn chain(snapshot: &Snapshot<'_>, stage: &Value) -> Map<String, Value> {
    let of = provenance(snapshot);
    let id = snapshot.execution.id();
    let axes = object(stage["matrix"].clone());
    let axes = axes
        .iter()
        .map(|(axis, value)| format!("{axis}={}", value.as_str().unwrap_or_default()));
    let axes: Vec<String> = axes.collect();
    let instance = match stage["iteration"].as_i64() {
        Some(iteration) if axes.is_empty() => iteration.to_string(),
        _ => axes.join(","),
    };
    let date = |end: i64| crate::clock::date_of(crate::clock::from_ms(end / 1_000)).to_string();
    let reverted = snapshot.account.reverted_by(snapshot.execution);
    object(json!({
        "strategy_stage_id": stage["strategy_stage_id"],
        "strategy_instance": instance,
        "was_rolled_back": !stage["rollback_ms"].is_null(),
        "rollback_ms": stage["rollback_ms"],
        "is_rollback": stage["is_rollback"] == true
            || of["execution_mode"].as_str().is_some_and(|mode| mode.ends_with("ROLLBACK")),
        "execution_mode": of["execution_mode"],
        "attempted_ts": micros(snapshot.execution.created_ms()),
        "retry_root_execution_id": of["retry_root_execution_id"].as_str().unwrap_or(&id),
        "rerun_root_execution_id": of["rerun_root_execution_id"],
        "parent_pipeline_execution_id": of["parent_pipeline_execution_id"],
        "reverts_execution_id": reverted.map(super::account::Execution::id),
        "triggered_by_name": of["triggered_by_name"],
        "deployed_date": stage["end_ts"].as_i64().map(date),
    }))
}

/// Returns the distinct values of a column of the deployments, sorted.
pub(super) fn deployed_set(
    snapshot: &Snapshot<'_>,
    least: Resolved,
    kind: fn(Service, Environment) -> &'static str,
) -> BTreeSet<&'static str> {
    deployed(&snapshot.detail, snapshot.at, least)
        .filter_map(|node| node.stage())
        .map(|stage| {
            kind(
                names::SERVICES[stage.service],
                names::ENVIRONMENTS[stage.environment],
            )
        })
        .collect()
}
