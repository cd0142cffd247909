//! The expected rows of the views over a lake, computed from the account's rows without SQL.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::expected_attempts::{Attempt, Rollback};
use super::expected_deployments::Deployments;
use super::expected_dora::dora_metrics;
use super::truth::{Truth, object};
use crate::clock::{date_of, from_ms};

/// The expected rows of each view, in no particular order.
pub type ExpectedViews = BTreeMap<&'static str, Vec<Value>>;

const BY_PIPELINE: [&str; 3] = ["org_id", "project_id", "pipeline_id"];
const BY_STAGE: [&str; 5] = [
    "org_id",
    "project_id",
    "pipeline_id",
    "stage_id",
    "stage_type",
];

impl Truth {
    /// Computes the rows of each view of `analytics/sql/` over a lake with these rows. Views that
    /// extend a table are reduced to its key and the added columns.
    pub fn expected_views(&self) -> ExpectedViews {
        let facts = Index::of(self);
        let deployments = Deployments::of(&facts);
        let rows = |attempts: &[Attempt<'_>]| attempts.iter().map(Attempt::row).collect();
        let rollbacks = deployments.rollbacks.iter().map(Rollback::row);
        ExpectedViews::from([
            ("executions_latest", facts.latest()),
            (
                "deployment_runs",
                deployments.runs.iter().map(Attempt::run_row).collect(),
            ),
            ("deployment_failures", deployments.failure_rows(&facts)),
            ("undone_deployments", deployments.undone_rows()),
            ("change_failures", deployments.change_failure_rows()),
            ("outages", deployments.outage_rows()),
            ("changes", deployments.change_rows(&facts)),
            ("dora_metrics", dora_metrics(&deployments, &facts)),
            ("deployment_attempts", rows(&deployments.attempts)),
            ("deployments_once", rows(&deployments.finals)),
            ("rollbacks", rollbacks.collect()),
            ("current_versions", deployments.current_versions()),
            ("deployment_frequency", deployments.frequency()),
            ("deployment_failure_rate", deployments.failure_rate()),
            ("change_failure_rate", deployments.change_failure_rate()),
            ("time_to_restore", deployments.time_to_restore()),
            ("lead_time_for_changes", deployments.lead_time(&facts)),
            ("build_durations", facts.build_durations()),
            ("approvals_waited", facts.approvals()),
            ("failure_types", facts.failure_types()),
            ("queue_and_wait_time", facts.waiting()),
            ("failed_stages", facts.failed_stages()),
            ("flakiest_pipelines", facts.flakiest()),
            ("busiest_hours", facts.busiest_hours()),
        ])
    }
}

/// The rows of an account, indexed by their keys.
pub(super) struct Index<'a> {
    pub(super) truth: &'a Truth,
    pub(super) executions: HashMap<&'a str, &'a Value>,
    pub(super) commits: HashMap<&'a str, Vec<&'a Value>>,
}

impl<'a> Index<'a> {
    fn of(truth: &'a Truth) -> Self {
        let executions = truth.executions.iter();
        let mut commits = HashMap::<_, Vec<_>>::new();
        for row in &truth.commits {
            let of = commits.entry(text(row, "plan_execution_id")).or_default();
            of.push(row);
        }
        Self {
            truth,
            executions: executions
                .map(|row| (text(row, "plan_execution_id"), row))
                .collect(),
            commits,
        }
    }

    /// Returns the stage of a deployment.
    pub(super) fn stage_of(&self, deployment: &Value) -> &'a Value {
        let key =
            |row: &Value| ["plan_execution_id", "stage_node_id"].map(|column| row[column].clone());
        let sought = key(deployment);
        let found = self.truth.stages.iter().find(|stage| key(stage) == sought);
        found.unwrap_or(&Value::Null)
    }

    /// Returns the execution that all attempts at a deployment share.
    pub(super) fn root_of_chain(&self, execution: &'a Value) -> &'a str {
        let first = |row: &'a Value| {
            let retried = row["retry_root_execution_id"].as_str();
            let of_first = retried.and_then(|id| self.executions.get(id));
            let rerun = |row: &'a Value| row["rerun_root_execution_id"].as_str();
            of_first
                .and_then(|row| rerun(row))
                .or_else(|| rerun(row))
                .or(retried)
        };
        match execution["parent_pipeline_execution_id"].as_str() {
            Some(parent) => self
                .executions
                .get(parent)
                .and_then(|row| first(row))
                .unwrap_or(parent),
            None => first(execution).unwrap_or_else(|| text(execution, "plan_execution_id")),
        }
    }

    pub(super) fn execution_of(&self, row: &Value) -> &'a Value {
        self.executions[text(row, "plan_execution_id")]
    }

    fn latest(&self) -> Vec<Value> {
        let mut last = HashMap::new();
        for row in &self.truth.executions {
            let order = (int(row, "created_ts"), text(row, "plan_execution_id"));
            let so_far = last.entry(root(row)).or_insert(order);
            *so_far = order.max(*so_far);
        }
        let executions = self.truth.executions.iter();
        executions
            .map(|row| {
                json!({
                    "start_date": day(row),
                    "plan_execution_id": row["plan_execution_id"],
                    "root_execution_id": root(row),
                    "is_latest_attempt": last[root(row)].1 == row["plan_execution_id"],
                })
            })
            .collect()
    }

    fn build_durations(&self) -> Vec<Value> {
        let builds = self.ended_stages().filter(|row| row["stage_type"] == "CI");
        let rows = builds.map(|row| (self.group(row, &BY_PIPELINE), row));
        aggregate(rows, |builds| {
            let succeeded = builds.iter().filter(|row| is(row, "success"));
            let took: Vec<i64> = succeeded
                .filter_map(|row| int(row, "duration_ms"))
                .collect();
            json!({
                "builds": builds.len(),
                "failed_builds": builds.iter().filter(|row| !is(row, "success")).count(),
                "median_ms": percentile(&took, 0.5),
                "p90_ms": percentile(&took, 0.9),
                "p95_ms": percentile(&took, 0.95),
                "longest_ms": took.iter().max(),
            })
        })
    }

    /// Returns the approvals of each execution that ended, and the time during which one was pending.
    fn waits(&self) -> BTreeMap<&'a str, (Vec<&'a Value>, i64)> {
        let mut waits = BTreeMap::<&str, (Vec<&Value>, i64)>::new();
        for row in &self.truth.stages {
            let is_over = row["stage_type"] == "Approval" && !row["duration_ms"].is_null();
            if is_over && row["ran_in_this_execution"] == true {
                let of = waits.entry(text(row, "plan_execution_id")).or_default();
                of.0.push(row);
            }
        }
        for (approvals, waited) in waits.values_mut() {
            let ms = |row: &Value, column: &str| int(row, column).unwrap_or_default() / 1_000;
            approvals.sort_by_key(|row| ms(row, "start_ts"));
            let mut until = i64::MIN;
            for row in approvals {
                let end = ms(row, "end_ts");
                *waited += (end - until.max(ms(row, "start_ts"))).max(0);
                until = until.max(end);
            }
        }
        waits
    }

    fn approvals(&self) -> Vec<Value> {
        let rows = self.waits().into_iter().map(|(id, (approvals, waited))| {
            let execution = self.executions[id];
            let count = |category: &str| approvals.iter().filter(|row| is(row, category)).count();
            let mut row = group(execution, execution, &BY_PIPELINE);
            row.extend(object(json!({
                "plan_execution_id": id,
                "approvals": approvals.len(),
                "approved": count("success"),
                "rejected": count("rejected"),
                "expired": count("expired"),
                "is_approved": count("success") == approvals.len(),
                "waited_ms": waited,
            })));
            Value::Object(row)
        });
        rows.collect()
    }

    fn failure_types(&self) -> Vec<Value> {
        let failed = self.ended_stages().filter(|row| !is(row, "success"));
        let failed = failed.filter(|row| row["stage_type"] != "Pipeline");
        let rows = failed.flat_map(|row| {
            let kinds = row["failure_types"].as_array().into_iter().flatten();
            kinds.map(|kind| {
                let mut group = self.group(row, &BY_PIPELINE);
                group.insert("failure_type".to_owned(), kind.clone());
                (group, ())
            })
        });
        aggregate(rows, |failures| json!({ "failures": failures.len() }))
    }

    fn waiting(&self) -> Vec<Value> {
        let waits = self.waits();
        let executions = self.truth.executions.iter();
        aggregate(
            executions.map(|row| (self.group(row, &BY_PIPELINE), row)),
            |executions| {
                let waits = |row: &Value| waits.get(text(row, "plan_execution_id"));
                let of = |category: &str| {
                    let is_of = |row: &&&Value| {
                        let approvals = waits(row).map(|(approvals, _)| approvals);
                        approvals.into_iter().flatten().any(|row| is(row, category))
                    };
                    executions.iter().filter(is_of).count()
                };
                let queued = executions.iter().filter_map(|row| int(row, "queued_ms"));
                let queued: Vec<i64> = queued.collect();
                let approved = |row: &&Value| {
                    let (approvals, waited) = waits(row)?;
                    approvals
                        .iter()
                        .all(|row| is(row, "success"))
                        .then_some(*waited)
                };
                let approved: Vec<i64> = executions.iter().filter_map(approved).collect();
                let ended = executions.iter().filter_map(|row| {
                    let total = int(row, "duration_ms")?;
                    let waited = waits(row).map_or(0, |(_, waited)| *waited);
                    Some((
                        total,
                        total.min(int(row, "queued_ms").unwrap_or(0) + waited),
                    ))
                });
                let sum = ended.reduce(|sum, next| (sum.0 + next.0, sum.1 + next.1));
                let share = |(total, waited): (i64, i64)| (total > 0).then(|| ratio(waited, total));
                json!({
                    "executions": executions.len(),
                    "started_executions": queued.len(),
                    "median_queued_ms": percentile(&queued, 0.5),
                    "p95_queued_ms": percentile(&queued, 0.95),
                    "approved_executions": approved.len(),
                    "rejected_executions": of("rejected"),
                    "expired_executions": of("expired"),
                    "median_approval_ms": percentile(&approved, 0.5),
                    "p95_approval_ms": percentile(&approved, 0.95),
                    "waiting_ms": sum.map(|sum| sum.1),
                    "duration_ms": sum.map(|sum| sum.0),
                    "waiting_share": sum.and_then(share),
                })
            },
        )
    }

    fn failed_stages(&self) -> Vec<Value> {
        let stages = self
            .ended_stages()
            .filter(|row| row["is_rollback"] == false && row["stage_type"] != "Pipeline");
        let by_stage = |row: &'a Value| {
            let mut group = self.group(row, &BY_STAGE);
            group.insert("stage_id".to_owned(), row["strategy_stage_id"].clone());
            (group, row)
        };
        aggregate(stages.map(by_stage), |stages| {
            let failed: Vec<_> = stages.iter().filter(|row| !is(row, "success")).collect();
            json!({
                "runs": stages.len(),
                "failures": failed.len(),
                "failure_rate": share(failed.len(), stages.len()),
                "example_error_message":
                    failed.iter().filter_map(|row| row["error_message"].as_str()).min(),
            })
        })
    }

    fn flakiest(&self) -> Vec<Value> {
        let mut commits = BTreeMap::<String, Vec<&Value>>::new();
        let built = |row: &&Value| !row["commit_sha"].is_null() && has_outcome(row);
        for row in self.truth.executions.iter().filter(built) {
            let scope = BY_PIPELINE.iter().chain(&["repo_name", "commit_sha"]);
            let key: Vec<&Value> = scope.map(|column| &row[*column]).collect();
            commits.entry(json!(key).to_string()).or_default().push(row);
        }
        // Executions are sorted by start, so the first run of a commit gives its date.
        let rows = commits
            .into_values()
            .map(|runs| (self.group(runs[0], &BY_PIPELINE), runs));
        aggregate(rows, |commits| {
            let repeated = commits.iter().filter(|runs| runs.len() > 1).count();
            let outcome =
                |runs: &Vec<&Value>, good| runs.iter().any(|row| is(row, "success") == good);
            let is_flaky = |runs: &&Vec<&Value>| outcome(runs, true) && outcome(runs, false);
            let flaky = commits.iter().filter(is_flaky).count();
            json!({
                "commits": commits.len(),
                "repeated_commits": repeated,
                "flaky_commits": flaky,
                "flaky_share": share(flaky, commits.len()),
            })
        })
    }

    fn busiest_hours(&self) -> Vec<Value> {
        let executions = self.truth.executions.iter().map(|row| {
            let mut group = self.group(row, &["org_id", "project_id"]);
            let hour = int(row, "start_ts").unwrap_or(0) / 3_600_000_000 % 24;
            group.insert("hour_utc".to_owned(), hour.into());
            (group, row)
        });
        aggregate(executions, |executions| {
            let known = executions.iter().filter_map(|row| int(row, "duration_ms"));
            json!({
                "executions": executions.len(),
                "duration_ms": known.reduce(|sum, took| sum + took),
            })
        })
    }

    /// Returns the stages that ran and ended in success, failure or expiry.
    fn ended_stages(&self) -> impl Iterator<Item = &'a Value> {
        let ran = |row: &&Value| row["ran_in_this_execution"] == true && has_outcome(row);
        self.truth.stages.iter().filter(ran)
    }

    fn group(&self, row: &Value, by: &[&str]) -> Map<String, Value> {
        group(self.execution_of(row), row, by)
    }
}

/// Groups rows and returns one row for each group.
pub(super) fn aggregate<T>(
    rows: impl Iterator<Item = (Map<String, Value>, T)>,
    sum_up: impl Fn(&[T]) -> Value,
) -> Vec<Value> {
    let mut groups = BTreeMap::<String, (Map<String, Value>, Vec<T>)>::new();
    for (group, row) in rows {
        let key = Value::Object(group.clone()).to_string();
        let members = groups.entry(key).or_insert_with(|| (group, Vec::new()));
        members.1.push(row);
    }
    let answer = |(mut group, rows): (Map<String, Value>, Vec<T>)| {
        group.extend(object(sum_up(&rows)));
        Value::Object(group)
    };
    groups.into_values().map(answer).collect()
}

/// Returns the start date of an execution and the named columns of one of its rows.
pub(super) fn group(execution: &Value, row: &Value, by: &[&str]) -> Map<String, Value> {
    let columns = by
        .iter()
        .map(|column| ((*column).to_owned(), row[*column].clone()));
    let day = ("start_date".to_owned(), day(execution).into());
    columns.chain([day]).collect()
}

pub(super) fn day(execution: &Value) -> String {
    let start = int(execution, "start_ts").unwrap_or(0);
    date_of(from_ms(start / 1_000)).to_string()
}

pub(super) fn root(execution: &Value) -> &str {
    let root = execution["retry_root_execution_id"].as_str();
    root.unwrap_or_else(|| text(execution, "plan_execution_id"))
}

pub(super) fn is(row: &Value, category: &str) -> bool {
    row["status_category"] == category
}

pub(super) fn has_outcome(row: &Value) -> bool {
    ["success", "failure", "expired"]
        .iter()
        .any(|category| is(row, category))
}

pub(super) fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}

pub(super) fn int(row: &Value, column: &str) -> Option<i64> {
    row[column].as_i64()
}

#[expect(clippy::cast_precision_loss, reason = "counts of a simulated account")]
pub(super) fn share(part: usize, total: usize) -> f64 {
    part as f64 / total as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "durations of a simulated account"
)]
fn ratio(part: i64, total: i64) -> f64 {
    part as f64 / total as f64
}

/// Returns a percentile, interpolated linearly.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "durations of a simulated account"
)]
pub(super) fn percentile(values: &[i64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let index = share * sorted.len().checked_sub(1)? as f64;
    let (below, above) = (index.floor() as usize, index.ceil() as usize);
    let (low, high) = (sorted[below] as f64, sorted[above] as f64);
    Some(low + (high - low) * index.fract())
}
