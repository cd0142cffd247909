//! The expected rows of the views over deployments.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::expected_views::{
    Index, aggregate, day, group, has_outcome, int, is, percentile, root, share, text,
};
use super::truth::object;

const BY_TARGET: [&str; 5] = [
    "org_id",
    "project_id",
    "service_id",
    "environment_id",
    "environment_type",
];
/// A deployment that an execution ran itself.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    deployment: &'a Value,
    execution: &'a Value,
    stage: &'a Value,
}

impl<'a> Index<'a> {
    pub(super) fn attempts(&self) -> Vec<Attempt<'a>> {
        let ran =
            |row: &&Value| row["ran_in_this_execution"] == true && row["is_rollback"] == false;
        let attempt = |deployment: &'a Value| {
            let execution = self.execution_of(deployment);
            let node = text(deployment, "stage_node_id");
            Attempt {
                deployment,
                execution,
                stage: self.stages[&(text(execution, "plan_execution_id"), node)],
            }
        };
        let rolls_back = |attempt: &Attempt<'_>| {
            let mode = attempt.execution["execution_mode"].as_str();
            mode.is_some_and(|mode| mode.ends_with("ROLLBACK"))
        };
        let deployments = self.truth.deployments.iter().filter(ran).map(attempt);
        deployments.filter(|attempt| !rolls_back(attempt)).collect()
    }

    pub(super) fn lead_time(&self, finals: &[Attempt<'_>]) -> Vec<Value> {
        let mut committed = HashMap::new();
        for row in &self.truth.commits {
            let key = (text(row, "plan_execution_id"), text(row, "commit_sha"));
            committed.insert(key, int(row, "committed_ts"));
        }
        let lead_time = |attempt: &Attempt<'_>| {
            let execution = attempt.execution;
            let sha = execution["commit_sha"].as_str()?;
            let from = (*committed.get(&(text(execution, "plan_execution_id"), sha))?)?;
            let to = int(attempt.deployment, "end_ts")?;
            (from <= to).then_some(to / 1_000 - from / 1_000)
        };
        let successful = finals.iter().filter(|attempt| attempt.is("success"));
        let rows = successful.map(|attempt| (attempt.group(), lead_time(attempt)));
        aggregate(rows, |times| {
            let known: Vec<i64> = times.iter().copied().flatten().collect();
            json!({
                "deployments": times.len(),
                "covered_deployments": known.len(),
                "covered_share": share(known.len(), times.len()),
                "median_lead_time_ms": percentile(&known, 0.5),
                "p90_lead_time_ms": percentile(&known, 0.9),
            })
        })
    }
}

impl Attempt<'_> {
    fn is(&self, category: &str) -> bool {
        is(self.deployment, category)
    }

    fn group(&self) -> Map<String, Value> {
        group(self.execution, self.deployment, &BY_TARGET)
    }

    /// Returns the iteration of a strategy, as text.
    fn instance(&self) -> String {
        let axes = object(self.stage["matrix"].clone());
        let pair = |(name, value): (&String, &Value)| {
            format!("{name}={}", value.as_str().unwrap_or_default())
        };
        let axes: Vec<String> = axes.iter().map(pair).collect();
        if axes.is_empty() {
            int(self.stage, "iteration").map_or(String::new(), |iteration| iteration.to_string())
        } else {
            axes.join(",")
        }
    }

    fn attempted(&self) -> (Option<i64>, &str) {
        let id = text(self.execution, "plan_execution_id");
        (int(self.execution, "created_ts"), id)
    }

    /// Returns whether two attempts may have the same target. An unknown target may be any.
    fn may_be(&self, other: &Self) -> bool {
        let target = |attempt: &Self| {
            ["service_id", "environment_id"].map(|column| attempt.deployment[column].clone())
        };
        let mut pairs = target(self).into_iter().zip(target(other));
        pairs.all(|(one, other)| one.is_null() || other.is_null() || one == other)
    }

    pub(super) fn row(&self) -> Value {
        json!({
            "start_date": day(self.execution),
            "plan_execution_id": self.execution["plan_execution_id"],
            "stage_node_id": self.deployment["stage_node_id"],
            "service_id": self.deployment["service_id"],
            "environment_id": self.deployment["environment_id"],
            "status_category": self.deployment["status_category"],
            "strategy_instance": self.instance(),
            "root_execution_id": root(self.execution),
        })
    }
}

/// Returns the last attempt of each deployment.
pub(super) fn final_attempts<'a>(attempts: &[Attempt<'a>]) -> Vec<Attempt<'a>> {
    let mut chains = BTreeMap::<_, Vec<Attempt<'a>>>::new();
    for attempt in attempts {
        let stage = text(attempt.stage, "stage_id");
        let key = (root(attempt.execution), stage, attempt.instance());
        chains.entry(key).or_default().push(*attempt);
    }
    let last = |chain: Vec<Attempt<'a>>| {
        let is_last = |attempt: &Attempt<'a>| {
            let mut rest = chain.iter();
            !rest.any(|later| attempt.attempted() < later.attempted() && attempt.may_be(later))
        };
        chain.iter().copied().filter(is_last).collect::<Vec<_>>()
    };
    chains.into_values().flat_map(last).collect()
}

pub(super) fn frequency(finals: &[Attempt<'_>]) -> Vec<Value> {
    const ENDS: [&str; 5] = ["success", "failure", "expired", "aborted", "rejected"];
    let over = finals
        .iter()
        .filter(|attempt| ENDS.iter().any(|end| attempt.is(end)));
    aggregate(over.map(|attempt| (attempt.group(), attempt)), |attempts| {
        let count = |ends: &[&str]| {
            let ended = |attempt: &&&Attempt<'_>| ends.iter().any(|end| attempt.is(end));
            attempts.iter().filter(ended).count()
        };
        json!({
            "deployments": attempts.len(),
            "successful_deployments": count(&["success"]),
            "failed_deployments": count(&["failure", "expired"]),
            "stopped_deployments": count(&["aborted", "rejected"]),
        })
    })
}

pub(super) fn failure_rate(finals: &[Attempt<'_>]) -> Vec<Value> {
    let ended = finals
        .iter()
        .filter(|attempt| has_outcome(attempt.deployment));
    aggregate(
        ended.map(|attempt| (attempt.group(), attempt)),
        |attempts| {
            let failed = attempts
                .iter()
                .filter(|attempt| !attempt.is("success"))
                .count();
            json!({
                "deployments": attempts.len(),
                "failed_deployments": failed,
                "failure_rate": share(failed, attempts.len()),
            })
        },
    )
}

pub(super) fn time_to_restore(finals: &[Attempt<'_>]) -> Vec<Value> {
    let mut lines = BTreeMap::<String, Vec<(i64, Attempt<'_>)>>::new();
    for attempt in finals
        .iter()
        .filter(|attempt| has_outcome(attempt.deployment))
    {
        let row = attempt.deployment;
        let target = [&row["service_id"], &row["environment_id"]];
        let end = int(row, "end_ts").filter(|_| target.iter().all(|part| !part.is_null()));
        if let Some(end) = end {
            let key = json!([row["org_id"], row["project_id"], target, attempt.instance()]);
            lines
                .entry(key.to_string())
                .or_default()
                .push((end, *attempt));
        }
    }
    let mut outages = Vec::new();
    for mut line in lines.into_values() {
        let node = |attempt: &Attempt<'_>| attempt.deployment["stage_node_id"].to_string();
        line.sort_by_key(|(end, attempt)| {
            let id = text(attempt.execution, "plan_execution_id").to_owned();
            (*end, id, node(attempt))
        });
        let mut broken: Option<(i64, Attempt<'_>)> = None;
        for (end, attempt) in line {
            if !attempt.is("success") {
                broken.get_or_insert((end, attempt));
            } else if let Some((since, first)) = broken.take() {
                outages.push((first.group(), Some(end / 1_000 - since / 1_000)));
            }
        }
        outages.extend(broken.map(|(_, first)| (first.group(), None)));
    }
    aggregate(outages.into_iter(), |outages| {
        let restored: Vec<i64> = outages.iter().copied().flatten().collect();
        json!({
            "outages": outages.len(),
            "restored_outages": restored.len(),
            "median_restore_ms": percentile(&restored, 0.5),
            "longest_restore_ms": restored.iter().max(),
        })
    })
}
