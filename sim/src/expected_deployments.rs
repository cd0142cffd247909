//! The expected rows of the views over deployments.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::expected_views::{
    Index, aggregate, group, has_outcome, int, is, percentile, share, text,
};

const BY_TARGET: [&str; 5] = [
    "org_id",
    "project_id",
    "service_id",
    "environment_id",
    "environment_type",
];

/// The columns of a target that another run of the same stage can supply.
const INFERRED: [&str; 5] = [
    "service_id",
    "service_key",
    "environment_id",
    "environment_key",
    "environment_type",
];

/// A service, its environment and infrastructure, unique within the account.
type Target = [String; 4];

/// A deployment that an execution ran itself.
#[derive(Clone)]
pub(super) struct Attempt<'a> {
    deployment: Value,
    execution: &'a Value,
    root: &'a str,
    is_inferred: bool,
}

/// The rollback or revert of a deployment.
pub(super) struct Rollback<'a> {
    run: Attempt<'a>,
    kind: &'static str,
    undone: Option<String>,
}

/// The deployments of an account.
pub(super) struct Deployments<'a> {
    pub(super) attempts: Vec<Attempt<'a>>,
    pub(super) finals: Vec<Attempt<'a>>,
    pub(super) rollbacks: Vec<Rollback<'a>>,
    undone: HashSet<(String, Target)>,
}

impl<'a> Deployments<'a> {
    pub(super) fn of(facts: &Index<'a>) -> Self {
        let ran = |row: &&Value| row["ran_in_this_execution"] == true;
        let attempt = |deployment: &Value| {
            let execution = facts.execution_of(deployment);
            Attempt {
                deployment: deployment.clone(),
                execution,
                root: facts.root_of_chain(execution),
                is_inferred: false,
            }
        };
        let runs: Vec<_> = facts
            .truth
            .deployments
            .iter()
            .filter(ran)
            .map(attempt)
            .collect();
        let rollbacks = rollbacks(&runs);
        let mut attempts: Vec<_> = runs.into_iter().filter(|run| !run.undoes()).collect();
        infer(&mut attempts);
        let succeeded = rollbacks
            .iter()
            .filter(|rollback| rollback.run.is("success") && rollback.kind != "stage");
        let undone = succeeded
            .filter_map(|rollback| Some((rollback.undone.clone()?, rollback.run.target()?)))
            .collect();
        Self {
            finals: final_attempts(&attempts),
            attempts,
            rollbacks,
            undone,
        }
    }

    fn is_undone(&self, attempt: &Attempt<'_>) -> bool {
        let id = attempt.id().to_owned();
        attempt
            .target()
            .is_some_and(|target| self.undone.contains(&(id, target)))
    }

    fn is_failed_change(&self, attempt: &Attempt<'_>) -> bool {
        !attempt.is("success")
            || attempt.deployment["was_rolled_back"] == true
            || self.is_undone(attempt)
    }

    fn ended(&self) -> impl Iterator<Item = &Attempt<'a>> {
        self.finals
            .iter()
            .filter(|attempt| has_outcome(&attempt.deployment))
    }

    pub(super) fn frequency(&self) -> Vec<Value> {
        const ENDS: [&str; 5] = ["success", "failure", "expired", "aborted", "rejected"];
        let over = self
            .finals
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

    pub(super) fn failure_rate(&self) -> Vec<Value> {
        let ended = self.ended().map(|attempt| (attempt.group(), attempt));
        aggregate(ended, |attempts| {
            let failed = attempts
                .iter()
                .filter(|attempt| !attempt.is("success"))
                .count();
            json!({
                "deployments": attempts.len(),
                "failed_deployments": failed,
                "failure_rate": share(failed, attempts.len()),
            })
        })
    }

    pub(super) fn change_failure_rate(&self) -> Vec<Value> {
        let ended = self.ended().map(|attempt| (attempt.group(), attempt));
        aggregate(ended, |attempts| {
            let count = |test: &dyn Fn(&Attempt<'_>) -> bool| {
                attempts.iter().filter(|attempt| test(attempt)).count()
            };
            let failed = count(&|attempt| self.is_failed_change(attempt));
            json!({
                "deployments": attempts.len(),
                "failed_deployments": failed,
                "undone_deployments": count(&|attempt| self.is_undone(attempt)),
                "failure_rate": share(failed, attempts.len()),
            })
        })
    }

    pub(super) fn current_versions(&self) -> Vec<Value> {
        let mut newest = BTreeMap::<Target, &Attempt<'_>>::new();
        for attempt in self
            .ended()
            .filter(|attempt| !self.is_failed_change(attempt))
        {
            if let (Some(target), Some(_)) = (attempt.target(), attempt.end()) {
                let newest = newest.entry(target).or_insert(attempt);
                if (newest.end(), newest.id()) < (attempt.end(), attempt.id()) {
                    *newest = attempt;
                }
            }
        }
        let rows = newest.into_values().map(|attempt| {
            let mut row = attempt.group();
            for column in [
                "service_key",
                "environment_key",
                "infrastructure_id",
                "artifact",
            ] {
                row.insert(column.to_owned(), attempt.deployment[column].clone());
            }
            row.insert("plan_execution_id".to_owned(), attempt.id().into());
            row.into()
        });
        rows.collect()
    }

    /// Returns the outages: the failed deployment, and the time until the service was restored.
    fn outages(&self) -> Vec<(&Attempt<'a>, Option<i64>)> {
        let mut events = BTreeMap::<Target, Vec<(i64, &str, bool, &Attempt<'a>)>>::new();
        let attempts = self
            .attempts
            .iter()
            .filter(|attempt| has_outcome(&attempt.deployment));
        let attempts =
            attempts.map(|attempt| (attempt, attempt.is("success") && !self.is_undone(attempt)));
        let is_repair = |rollback: &&Rollback<'a>| {
            rollback.run.is("success") && ["pipeline", "post_deployment"].contains(&rollback.kind)
        };
        let restored = self.rollbacks.iter().filter(is_repair);
        for (attempt, is_good) in attempts.chain(restored.map(|rollback| (&rollback.run, true))) {
            if let (Some(target), Some(end)) = (attempt.target(), attempt.end()) {
                let line = events.entry(target).or_default();
                line.push((end, attempt.id(), is_good, attempt));
            }
        }
        let mut outages = Vec::new();
        for mut line in events.into_values() {
            line.sort_by_key(|(end, id, ..)| (*end, *id));
            let mut broken: Option<(i64, &Attempt<'a>)> = None;
            for (end, _, is_good, attempt) in line {
                if !is_good {
                    broken.get_or_insert((end, attempt));
                } else if let Some((since, first)) = broken.take() {
                    outages.push((first, Some(end / 1_000 - since / 1_000)));
                }
            }
            outages.extend(broken.map(|(_, first)| (first, None)));
        }
        outages
    }

    pub(super) fn time_to_restore(&self) -> Vec<Value> {
        let outages = self.outages();
        let outages = outages.iter().map(|(first, time)| (first.group(), *time));
        aggregate(outages, |outages| {
            let restored: Vec<i64> = outages.iter().copied().flatten().collect();
            json!({
                "outages": outages.len(),
                "restored_outages": restored.len(),
                "median_restore_ms": percentile(&restored, 0.5),
                "longest_restore_ms": restored.iter().max(),
            })
        })
    }

    /// Returns the lead times of the commits of a deployment. An unknown time is `None`.
    fn lead_times(facts: &Index<'a>, attempt: &Attempt<'_>) -> Vec<Option<i64>> {
        let row = &attempt.deployment;
        let sources = [
            Some(attempt.id()),
            row["retry_root_execution_id"].as_str(),
            row["parent_pipeline_execution_id"].as_str(),
            Some(attempt.root),
        ];
        let commits = sources
            .into_iter()
            .flatten()
            .find_map(|id| facts.commits.get(id));
        let lead_time = |commit: &&Value| {
            let (from, to) = (int(commit, "committed_ts")?, attempt.end()?);
            (from <= to).then_some(to / 1_000 - from / 1_000)
        };
        commits.into_iter().flatten().map(lead_time).collect()
    }

    pub(super) fn lead_time(&self, facts: &Index<'a>) -> Vec<Value> {
        let successful = self.finals.iter().filter(|attempt| attempt.is("success"));
        let rows = successful.map(|attempt| (attempt.group(), Self::lead_times(facts, attempt)));
        aggregate(rows, |deployments| {
            let known: Vec<i64> = deployments.iter().flatten().copied().flatten().collect();
            let covered = deployments
                .iter()
                .filter(|times| times.iter().any(Option::is_some));
            let covered = covered.count();
            json!({
                "deployments": deployments.len(),
                "covered_deployments": covered,
                "covered_share": share(covered, deployments.len()),
                "changes": known.len(),
                "median_lead_time_ms": percentile(&known, 0.5),
                "p90_lead_time_ms": percentile(&known, 0.9),
            })
        })
    }
}

impl Attempt<'_> {
    fn id(&self) -> &str {
        text(self.execution, "plan_execution_id")
    }

    fn is(&self, category: &str) -> bool {
        is(&self.deployment, category)
    }

    fn end(&self) -> Option<i64> {
        int(&self.deployment, "end_ts")
    }

    fn undoes(&self) -> bool {
        self.deployment["is_rollback"] == true
    }

    fn group(&self) -> Map<String, Value> {
        group(self.execution, &self.deployment, &BY_TARGET)
    }

    fn attempted(&self) -> (Option<i64>, &str) {
        (int(&self.deployment, "attempted_ts"), self.id())
    }

    /// Returns what is deployed, and where; `None` if it was never resolved.
    fn target(&self) -> Option<Target> {
        let row = &self.deployment;
        let service = row["service_key"].as_str()?.to_owned();
        let environment = row["environment_key"].as_str()?.to_owned();
        let is_of_org = service.starts_with("org.") || environment.starts_with("org.");
        let org = if is_of_org { text(row, "org_id") } else { "" };
        let infrastructure = text(row, "infrastructure_id").to_owned();
        Some([org.to_owned(), service, environment, infrastructure])
    }

    /// Returns whether another attempt stands for this one.
    fn is_replaced_by(&self, other: &Self) -> bool {
        let column = |name: &str| {
            (
                self.deployment[name].clone(),
                other.deployment[name].clone(),
            )
        };
        let may_equal = |name: &str| {
            let (one, other) = column(name);
            one.is_null() || other.is_null() || one == other
        };
        let (parent, other_parent) = column("parent_pipeline_execution_id");
        let (retried, other_retried) = column("retry_root_execution_id");
        let is_later = self.attempted() < other.attempted();
        let (has_ended, other_has_ended) = (
            has_outcome(&self.deployment),
            has_outcome(&other.deployment),
        );
        if self.id() == other.id() || !may_equal("service_id") || !may_equal("environment_id") {
            return false;
        }
        if retried != other_retried {
            let same_parent = !parent.is_null() && parent == other_parent;
            let created = (self.attempted().0, other.attempted().0);
            return !self.is("success") && other_has_ended && created.0 < created.1 && !same_parent;
        }
        if has_ended == other_has_ended {
            is_later
        } else {
            other_has_ended
        }
    }

    pub(super) fn row(&self) -> Value {
        let mut row = group(self.execution, &self.deployment, &INFERRED);
        for column in [
            "stage_node_id",
            "status_category",
            "strategy_instance",
            "strategy_stage_id",
        ] {
            row.insert(column.to_owned(), self.deployment[column].clone());
        }
        row.insert("plan_execution_id".to_owned(), self.id().into());
        row.insert("root_execution_id".to_owned(), self.root.into());
        row.insert(
            "is_environment_inferred".to_owned(),
            self.is_inferred.into(),
        );
        row.into()
    }
}

impl Rollback<'_> {
    pub(super) fn row(&self) -> Value {
        let mut row = group(self.run.execution, &self.run.deployment, &BY_TARGET);
        for column in ["status_category", "triggered_by_name"] {
            row.insert(column.to_owned(), self.run.deployment[column].clone());
        }
        row.insert("plan_execution_id".to_owned(), self.run.id().into());
        row.insert("kind".to_owned(), self.kind.into());
        row.insert("undone_execution_id".to_owned(), self.undone.clone().into());
        row.into()
    }
}

/// Returns the rollbacks among all runs, each with the deployment that it undid.
fn rollbacks<'a>(runs: &[Attempt<'a>]) -> Vec<Rollback<'a>> {
    let found = runs.iter().filter_map(|run| {
        let row = &run.deployment;
        let reverts = row["reverts_execution_id"].as_str();
        let (kind, undone) = if row["execution_mode"] == "POST_EXECUTION_ROLLBACK" {
            ("post_deployment", last_success(runs, run))
        } else if run.undoes() {
            ("pipeline", last_success(runs, run))
        } else if let Some(id) = reverts {
            ("revert", Some(id.to_owned()))
        } else if row["was_rolled_back"] == true {
            ("stage", Some(run.id().to_owned()))
        } else {
            return None;
        };
        Some(Rollback {
            run: run.clone(),
            kind,
            undone,
        })
    });
    found.collect()
}

/// Returns the last successful deployment of the same target before a rollback began.
fn last_success(runs: &[Attempt<'_>], rollback: &Attempt<'_>) -> Option<String> {
    let target = rollback.target()?;
    let begin = (int(&rollback.deployment, "start_ts"), rollback.id());
    let ended = |run: &Attempt<'_>| run.end().or_else(|| int(&run.deployment, "start_ts"));
    let before = runs.iter().filter(|run| {
        !run.undoes()
            && run.is("success")
            && run.target().as_ref() == Some(&target)
            && (ended(run), run.id()) < begin
    });
    let last = before.max_by_key(|run| (ended(run), run.id()));
    last.map(|run| run.id().to_owned())
}

/// Fills unknown targets in from other runs of the same stage, if these agree.
fn infer(attempts: &mut [Attempt<'_>]) {
    const STAGE: [&str; 5] = [
        "org_id",
        "project_id",
        "pipeline_id",
        "strategy_stage_id",
        "strategy_instance",
    ];
    let stage = |row: &Value| STAGE.map(|column| text(row, column).to_owned());
    let mut known = HashMap::<_, Vec<Value>>::new();
    for attempt in attempts.iter() {
        if !attempt.deployment["environment_key"].is_null() {
            let rows = known.entry(stage(&attempt.deployment)).or_default();
            rows.push(attempt.deployment.clone());
        }
    }
    for attempt in attempts {
        let row = &mut attempt.deployment;
        let Some(others) = known
            .get(&stage(row))
            .filter(|_| row["environment_key"].is_null())
        else {
            continue;
        };
        let agree = |column: &str| {
            let mut values = others
                .iter()
                .map(|row| &row[column])
                .filter(|value| !value.is_null());
            let first = values.next();
            first
                .filter(|first| values.all(|value| value == *first))
                .cloned()
        };
        if agree("environment_key").is_none() {
            continue;
        }
        attempt.is_inferred = true;
        for column in INFERRED.into_iter().chain(["infrastructure_id"]) {
            if row[column].is_null() {
                row[column] = agree(column).unwrap_or_default();
            }
        }
    }
}

/// Returns the attempt that stands for each deployment.
fn final_attempts<'a>(attempts: &[Attempt<'a>]) -> Vec<Attempt<'a>> {
    let mut chains = BTreeMap::<_, Vec<&Attempt<'a>>>::new();
    for attempt in attempts {
        let column = |name: &str| text(&attempt.deployment, name).to_owned();
        let stage = ["pipeline_id", "strategy_stage_id", "strategy_instance"].map(column);
        chains
            .entry((attempt.root, stage))
            .or_default()
            .push(attempt);
    }
    let last = |chain: Vec<&Attempt<'a>>| {
        let stands =
            |attempt: &&Attempt<'a>| !chain.iter().any(|other| attempt.is_replaced_by(other));
        let stands = chain.iter().copied().filter(stands).cloned();
        stands.collect::<Vec<_>>()
    };
    chains.into_values().flat_map(last).collect()
}
