//! The expected rows of the views over deployments.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Value, json};

use super::expected_attempts::{Attempt, Rollback, Target, final_attempts, infer, rollbacks};
use super::expected_views::{Index, aggregate, has_outcome, int, percentile, share};

/// The deployments of an account.
pub(super) struct Deployments<'a> {
    pub(super) runs: Vec<Attempt<'a>>,
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
        let attempts = runs.iter().filter(|run| !run.undoes());
        let mut attempts: Vec<_> = attempts.cloned().collect();
        infer(&mut attempts);
        let succeeded = rollbacks
            .iter()
            .filter(|rollback| rollback.run.is("success") && rollback.kind != "stage");
        let undone = succeeded
            .filter_map(|rollback| Some((rollback.undone.clone()?, rollback.run.target()?)))
            .collect();
        Self {
            runs,
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

    pub(super) fn is_failed_change(&self, attempt: &Attempt<'_>) -> bool {
        !attempt.is("success")
            || attempt.deployment["was_rolled_back"] == true
            || self.is_undone(attempt)
    }

    pub(super) fn ended(&self) -> impl Iterator<Item = &Attempt<'a>> {
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
    pub(super) fn outages(&self) -> Vec<(&Attempt<'a>, Option<i64>)> {
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

    pub(super) fn successful(&self) -> impl Iterator<Item = &Attempt<'a>> {
        self.finals.iter().filter(|attempt| attempt.is("success"))
    }

    /// Returns the commits of a deployment, each with its lead time if that is known.
    pub(super) fn changes<'f>(
        facts: &'f Index<'a>,
        attempt: &Attempt<'_>,
    ) -> Vec<(&'f Value, Option<i64>)> {
        let row = &attempt.deployment;
        let sources = [
            Some(attempt.id()),
            row["retry_root_execution_id"].as_str(),
            row["parent_pipeline_execution_id"].as_str(),
            Some(attempt.root),
        ];
        let mut sources = sources.into_iter().flatten();
        let commits = sources.find_map(|id| facts.commits.get(id));
        let lead_time = |commit: &Value| {
            let (from, to) = (int(commit, "committed_ts")?, attempt.end()?);
            (from <= to).then_some(to / 1_000 - from / 1_000)
        };
        let commits = commits.into_iter().flatten();
        commits.map(|commit| (*commit, lead_time(commit))).collect()
    }

    pub(super) fn change_rows(&self, facts: &Index<'a>) -> Vec<Value> {
        let rows = self.successful().flat_map(|attempt| {
            let mut changes: Vec<_> = Self::changes(facts, attempt)
                .into_iter()
                .map(|(commit, time)| (commit["commit_sha"].clone(), time))
                .collect();
            if changes.is_empty() {
                changes.push((Value::Null, None));
            }
            changes.into_iter().map(|(sha, time)| {
                let mut row = attempt.keyed_group();
                row.insert("commit_sha".to_owned(), sha);
                row.insert("lead_time_ms".to_owned(), time.into());
                Value::Object(row)
            })
        });
        rows.collect()
    }

    pub(super) fn failure_rows(&self, facts: &Index<'a>) -> Vec<Value> {
        let failed = self
            .attempts
            .iter()
            .filter(|attempt| attempt.is("failure") || attempt.is("expired"));
        let rows = failed.map(|attempt| {
            let mut row = attempt.keyed_group();
            let stage = facts.stage_of(&attempt.deployment);
            row.insert("error_message".to_owned(), stage["error_message"].clone());
            Value::Object(row)
        });
        rows.collect()
    }

    pub(super) fn change_failure_rows(&self) -> Vec<Value> {
        let rows = self.ended().map(|attempt| {
            let mut row = attempt.keyed_group();
            for (column, value) in [
                ("is_failed", !attempt.is("success")),
                ("is_undone", self.is_undone(attempt)),
                ("is_failed_change", self.is_failed_change(attempt)),
            ] {
                row.insert(column.to_owned(), value.into());
            }
            Value::Object(row)
        });
        rows.collect()
    }

    pub(super) fn outage_rows(&self) -> Vec<Value> {
        let rows = self.outages().into_iter().map(|(first, time)| {
            let mut row = first.group();
            row.insert("plan_execution_id".to_owned(), first.id().into());
            row.insert("restore_ms".to_owned(), time.into());
            Value::Object(row)
        });
        rows.collect()
    }

    pub(super) fn undone_rows(&self) -> Vec<Value> {
        let rows = self.undone.iter().map(|(id, target)| {
            let [_, service, environment, infrastructure] = target;
            json!({
                "plan_execution_id": id,
                "service_key": service,
                "environment_key": environment,
                "infrastructure_key": infrastructure,
            })
        });
        rows.collect()
    }

    pub(super) fn lead_time(&self, facts: &Index<'a>) -> Vec<Value> {
        let lead_times = |attempt: &Attempt<'_>| {
            let changes = Self::changes(facts, attempt).into_iter();
            changes.map(|(_, time)| time).collect::<Vec<_>>()
        };
        let rows = self
            .successful()
            .map(|attempt| (attempt.group(), lead_times(attempt)));
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
