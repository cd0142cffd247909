//! The rows that a correct extraction produces, computed from the account itself rather than from a
//! summary.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::Vintage;
use super::account::{Account, Execution, Origin};
use super::facts::{ErrorInfo, Resolved};
use super::plan::Shape;
use super::render::Snapshot;
use super::status::Status;
use super::truth_stages;

/// The expected rows of each table, with the columns that the simulator covers. Times are in
/// microseconds since the epoch. Lists are sorted unless their order is significant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Truth {
    /// Oldest start first.
    pub executions: Vec<Value>,
    /// In the order of executions, then by `stage_index`.
    pub stages: Vec<Value>,
    /// In the order of stages.
    pub deployments: Vec<Value>,
    /// In the order of executions.
    pub commits: Vec<Value>,
}

impl Truth {
    /// Writes `executions.ndjson`, `stages.ndjson`, `deployments.ndjson` and `commits.ndjson`.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn write_ndjson(&self, dir: &Path) -> io::Result<()> {
        for (name, rows) in self.tables() {
            let mut file = BufWriter::new(File::create(dir.join(format!("{name}.ndjson")))?);
            for row in rows {
                writeln!(file, "{row}")?;
            }
            file.flush()?;
        }
        Ok(())
    }

    /// Returns the tables with their names.
    pub fn tables(&self) -> [(&'static str, &[Value]); 4] {
        [
            ("executions", &self.executions),
            ("stages", &self.stages),
            ("deployments", &self.deployments),
            ("commits", &self.commits),
        ]
    }
}

impl Account {
    /// Returns the rows of a lake that is complete at an instant: all listed executions except
    /// those of the forbidden project.
    pub fn truth(&self, at: Timestamp, vintage: Vintage) -> Truth {
        let readable =
            |execution: &Execution| Some(self.pipeline(execution).project) != self.plan.forbidden;
        self.truth_where(at, vintage, readable)
    }

    /// Returns the rows of the executions that `keep` accepts, including the forbidden project.
    pub fn truth_where(
        &self,
        at: Timestamp,
        vintage: Vintage,
        keep: impl Fn(&Execution) -> bool,
    ) -> Truth {
        let mut truth = Truth::default();
        for execution in self.executions_at(at) {
            if listed(execution, vintage) && keep(execution) {
                let snapshot = self.snapshot(execution, at.as_millisecond(), vintage);
                add(&snapshot, &mut truth);
            }
        }
        truth
    }
}

/// Returns whether a server lists an execution if no filter is set.
pub(super) fn listed(execution: &Execution, vintage: Vintage) -> bool {
    vintage == Vintage::Older || !matches!(execution.origin, Origin::PipelineRollback { .. })
}

fn add(snapshot: &Snapshot<'_>, truth: &mut Truth) {
    let stages = truth_stages::stages(snapshot);
    truth.executions.push(execution(snapshot, &stages));
    truth
        .deployments
        .extend(truth_stages::deployments(snapshot, &stages));
    truth.commits.extend(commits(snapshot));
    truth.stages.extend(stages.into_iter().map(|(_, row)| row));
}

/// Returns the columns that every table begins with.
pub(super) fn head(snapshot: &Snapshot<'_>) -> Map<String, Value> {
    let pipeline = snapshot.account.pipeline(snapshot.execution);
    let scope = snapshot.account.scope_at(pipeline.project, snapshot.at);
    object(json!({
        "account_id": snapshot.account.id(),
        "org_id": scope.org,
        "project_id": scope.project,
        "pipeline_id": pipeline.id,
        "plan_execution_id": snapshot.execution.id(),
    }))
}

pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn execution(snapshot: &Snapshot<'_>, stages: &[(usize, Value)]) -> Value {
    let mut row = head(snapshot);
    row.extend(object(lifetime(snapshot, stages)));
    row.extend(object(provenance(snapshot)));
    row.extend(object(content(snapshot)));
    row.extend(object(counted(stages)));
    Value::Object(row)
}

fn lifetime(snapshot: &Snapshot<'_>, stages: &[(usize, Value)]) -> Value {
    let (execution, at) = (snapshot.execution, snapshot.at);
    let status = snapshot.detail.status_at(at);
    let end = snapshot.detail.end_at(at);
    let ran = |(_, stage): &(usize, Value)| {
        (stage["ran_in_this_execution"] == true).then(|| stage["start_ts"].as_i64())?
    };
    let first = stages.iter().filter_map(ran).min();
    let failure = Account::failure(execution, &snapshot.detail, at);
    let modern = snapshot.vintage == Vintage::Saas;
    let message = failure.filter(|_| modern || snapshot.facts.error_info == ErrorInfo::Message);
    let types = failure
        .filter(|_| modern)
        .map(super::detail::Failure::all_types);
    let aborted = execution.outcome == Status::Aborted && execution.end <= at;
    json!({
        "pipeline_name": snapshot.account.pipeline(execution).name,
        "run_sequence": execution.run_sequence,
        "status": status.spelled(execution.legacy),
        "status_category": status.category(),
        "is_terminal": status.terminal(),
        "is_failure_ignored": status == Status::IgnoreFailed,
        "created_ts": micros(execution.created_ms()),
        "start_ts": micros(execution.start),
        "end_ts": end.map(micros),
        "duration_ms": end.filter(|_| status.terminal()).map(|end| end - execution.start),
        "queued_ms": first.map(|first| first / 1_000 - execution.start),
        "error_message": message.map(|failure| failure.message),
        "failure_types": types.unwrap_or_default(),
        "aborted_by_name": aborted.then_some(snapshot.facts.aborted_by.0),
    })
}

pub(super) fn provenance(snapshot: &Snapshot<'_>) -> Value {
    let (account, execution) = (snapshot.account, snapshot.execution);
    let trigger = snapshot.facts.trigger.as_ref();
    let id = |index: u32| account.by_index(index).id();
    let retry = match execution.origin {
        Origin::Retry { of, root } if snapshot.vintage == Vintage::Saas => Some((id(of), id(root))),
        _ => None,
    };
    let rerun = match execution.origin {
        Origin::Rerun { of, root } => Some((id(of), id(root))),
        _ => None,
    };
    let mode = match execution.origin {
        Origin::PostRollback { .. } => Some("POST_EXECUTION_ROLLBACK"),
        Origin::PipelineRollback { .. } => Some("PIPELINE_ROLLBACK"),
        _ => (!execution.legacy).then_some("NORMAL"),
    };
    let parent = account.parent_of(execution);
    json!({
        "trigger_type": trigger.map(|trigger| trigger.kind),
        "triggered_by_name": trigger.map(|trigger| trigger.name),
        "triggered_by_email": trigger.and_then(|trigger| trigger.email),
        "execution_mode": mode,
        "is_retry": retry.is_some(),
        "retry_root_execution_id": retry.as_ref().map(|(_, root)| root),
        "retry_parent_execution_id": retry.as_ref().map(|(of, _)| of),
        "rerun_of_execution_id": rerun.as_ref().map(|(of, _)| of),
        "rerun_root_execution_id": rerun.as_ref().map(|(_, root)| root),
        "parent_pipeline_execution_id": parent.as_ref().map(|(parent, _)| parent.id()),
        "parent_stage_node_id": parent.as_ref().map(|(_, stage)| stage.to_string()),
    })
}

fn content(snapshot: &Snapshot<'_>) -> Value {
    let (account, execution, at) = (snapshot.account, snapshot.execution, snapshot.at);
    let pipeline = account.pipeline(execution);
    let modules: &[&str] = match pipeline.shape {
        _ if at < execution.run => &[],
        Shape::Ci => &["ci"],
        Shape::Cd => &["cd"],
        Shape::Mixed => &["ci", "cd", "pms"],
        Shape::Custom | Shape::Chain => &["pms"],
    };
    let tags: Map<String, Value> = account
        .tags_at(execution, &snapshot.facts, at)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    let store = if pipeline.remote { "REMOTE" } else { "INLINE" };
    let build = account.build_at(execution, &snapshot.detail, at);
    let build = build.as_ref();
    json!({
        "modules": modules,
        "tags": tags,
        "yaml_version": (!execution.legacy).then(|| pipeline.yaml_version()),
        "store_type": (!execution.legacy).then_some(store),
        "repo_name": build.map(|_| pipeline.repo),
        "branch": build.map(super::facts::Build::reported_branch),
        "commit_sha": build.and_then(|build| build.commits.first()).map(|commit| &commit.sha),
        "pr_number": build.and_then(|build| build.pull_request),
        "ci_event": build.map(|build| build.event),
        "services": truth_stages::deployed_set(snapshot, Resolved::Service, |service, _| service.0),
        "environments": truth_stages::deployed_set(snapshot, Resolved::Environment, |_, env| env.0),
        "environment_types": truth_stages::deployed_set(snapshot, Resolved::Environment, |_, env| env.2),
    })
}

fn counted(stages: &[(usize, Value)]) -> Value {
    let count = |category: &str| {
        stages
            .iter()
            .filter(|(_, stage)| stage["status_category"] == category)
            .count()
    };
    let rolled_back = |stage: &Value| {
        let started = !stage["start_ts"].is_null();
        started && (stage["is_rollback"] == true || !stage["rollback_ms"].is_null())
    };
    json!({
        "was_rolled_back": stages.iter().any(|(_, stage)| rolled_back(stage)),
        "stage_count": stages.len(),
        "succeeded_stage_count": count("success"),
        "failed_stage_count": count("failure"),
        "running_stage_count": count("running"),
    })
}

fn commits(snapshot: &Snapshot<'_>) -> Vec<Value> {
    let Some(build) = snapshot
        .account
        .build_at(snapshot.execution, &snapshot.detail, snapshot.at)
    else {
        return Vec::new();
    };
    let reported = build.commits.iter().chain(&build.trigger_commits);
    let reported = reported.filter(|_| build.event != "release");
    let mut seen = std::collections::HashSet::new();
    reported
        .filter(|commit| seen.insert(commit.sha.as_str()))
        .map(|commit| {
            let mut row = head(snapshot);
            row.extend(object(json!({
                "commit_sha": commit.sha,
                "author_name": commit.author,
                "author_email": commit.email,
                "message": commit.message,
                "committed_ts": commit.committed.map(micros),
                "repo_name": snapshot.account.pipeline(snapshot.execution).repo,
                "branch": build.reported_branch(),
                "pr_number": build.pull_request,
            })));
            Value::Object(row)
        })
        .collect()
}

pub(super) fn micros(ms: i64) -> i64 {
    ms * 1_000
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::account::{AccountSpec, RowSize};

    fn account() -> Account {
        Account::generate(&AccountSpec::demo("2026-11-24T15:00:00Z".parse().unwrap()))
    }

    #[test]
    fn summaries_match_expected_rows() {
        let account = account();
        for hours in [0, 30] {
            let at = account.spec().now + jiff::SignedDuration::from_hours(hours);
            let truth = account.truth(at, Vintage::Saas);
            let stages = truth.stages.iter().fold(
                BTreeMap::<&str, Vec<&Value>>::new(),
                |mut stages, row| {
                    stages
                        .entry(row["plan_execution_id"].as_str().unwrap())
                        .or_default()
                        .push(row);
                    stages
                },
            );
            let listed = account
                .executions_at(at)
                .filter(|e| listed(e, Vintage::Saas));
            for (execution, row) in listed.zip(&truth.executions) {
                let text = account.render(execution, at, Vintage::Saas);
                let summary: Value = serde_json::from_str(&text).unwrap();
                let id = execution.id();
                assert_eq!(row["plan_execution_id"], id);
                assert_eq!(summary["planExecutionId"], id);
                assert_eq!(summary["status"], row["status"]);
                let ms = |column: &str| row[column].as_i64().map(|micros| micros / 1_000);
                assert_eq!(summary["startTs"].as_i64(), ms("start_ts"));
                assert_eq!(summary.get("endTs").and_then(Value::as_i64), ms("end_ts"));
                assert_eq!(
                    row["stage_count"],
                    stages.get(id.as_str()).map_or(0, Vec::len)
                );
                for stage in stages.get(id.as_str()).into_iter().flatten() {
                    let key = stage["stage_node_id"].as_str().unwrap();
                    let node = &summary["layoutNodeMap"][key];
                    assert_eq!(node["status"], stage["status"], "{id} {key}");
                    assert_eq!(node["nodeType"], stage["stage_type"]);
                }
            }
        }
    }

    #[test]
    fn tables_contain_every_special_case() {
        let account = account();
        let truth = account.truth(account.spec().now, Vintage::Saas);
        let count = |rows: &[Value], test: &dyn Fn(&Value) -> bool| {
            rows.iter().filter(|row| test(row)).count()
        };
        let executions = |test: &dyn Fn(&Value) -> bool| count(&truth.executions, test);
        let stages = |test: &dyn Fn(&Value) -> bool| count(&truth.stages, test);
        assert!(executions(&|row| row["is_retry"] == true) > 0);
        assert!(executions(&|row| !row["rerun_of_execution_id"].is_null()) > 0);
        assert!(executions(&|row| !row["parent_pipeline_execution_id"].is_null()) > 0);
        assert!(executions(&|row| row["was_rolled_back"] == true) > 0);
        assert!(executions(&|row| row["status_category"] == "running") > 0);
        assert!(executions(&|row| row["status_category"] == "waiting") > 0);
        assert!(executions(&|row| row["is_terminal"] == true && row["end_ts"].is_null()) > 0);
        assert!(executions(&|row| row["trigger_type"].is_null()) > 0);
        assert!(stages(&|row| row["ran_in_this_execution"] == false) > 0);
        for strategy in ["MATRIX", "LOOP", "PARALLELISM"] {
            assert!(
                stages(&|row| row["strategy_type"] == strategy) > 0,
                "{strategy}"
            );
        }
        assert!(count(&truth.deployments, &|row| row["service_id"].is_null()) > 0);
        assert!(count(&truth.commits, &|row| row["committed_ts"].is_null()) > 0);
        let taken_up = |e: &&Execution| e.edit != 0 && e.last_outcome == Status::Success;
        let taken_up = account.executions().iter().find(taken_up).unwrap();
        let at = crate::clock::from_ms(taken_up.edit);
        let again = account.truth_where(at, Vintage::Saas, |e| e.id == taken_up.id);
        assert_eq!(again.executions[0]["is_terminal"], false);
        assert_eq!(again.executions[0]["end_ts"], taken_up.end * 1_000);
        let older = account.truth(account.spec().now, Vintage::Older);
        assert!(truth.executions.len() < older.executions.len());
    }

    #[test]
    fn summaries_have_the_requested_size() {
        for (size, most) in [(RowSize::Small, 9_500), (RowSize::Realistic, 40_000)] {
            let now = "2026-11-24T15:00:00Z".parse().unwrap();
            let account = Account::generate(&AccountSpec {
                size,
                ..AccountSpec::small(now)
            });
            let mut sizes: Vec<usize> = account
                .executions_at(now)
                .map(|execution| account.render(execution, now, Vintage::Saas).len())
                .collect();
            sizes.sort_unstable();
            let (p10, p50, p90) = (
                sizes[sizes.len() / 10],
                sizes[sizes.len() / 2],
                sizes[sizes.len() * 9 / 10],
            );
            assert!(
                3_000 < p50 && p90 < most,
                "{size:?}: {p10} {p50} {p90} {:?}",
                sizes.last()
            );
        }
    }
}
