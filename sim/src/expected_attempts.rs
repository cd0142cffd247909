//! Deployments that executions ran: attempts, the rollbacks that undid them, and the attempt that stands for each.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::expected_views::{group, has_outcome, int, is, text};

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
pub(super) type Target = [String; 4];

/// A deployment that an execution ran itself.
#[derive(Clone)]
pub(super) struct Attempt<'a> {
    pub(super) deployment: Value,
    pub(super) execution: &'a Value,
    pub(super) root: &'a str,
    pub(super) is_inferred: bool,
}

/// The rollback or revert of a deployment.
pub(super) struct Rollback<'a> {
    pub(super) run: Attempt<'a>,
    pub(super) kind: &'static str,
    pub(super) undone: Option<String>,
}

impl Attempt<'_> {
    pub(super) fn id(&self) -> &str {
        text(self.execution, "plan_execution_id")
    }

    pub(super) fn is(&self, category: &str) -> bool {
        is(&self.deployment, category)
    }

    pub(super) fn end(&self) -> Option<i64> {
        int(&self.deployment, "end_ts")
    }

    pub(super) fn undoes(&self) -> bool {
        self.deployment["is_rollback"] == true
    }

    pub(super) fn group(&self) -> Map<String, Value> {
        group(self.execution, &self.deployment, &BY_TARGET)
    }

    /// Returns the group with the key of the deployment.
    pub(super) fn keyed_group(&self) -> Map<String, Value> {
        let mut row = self.group();
        for column in ["plan_execution_id", "stage_node_id"] {
            row.insert(column.to_owned(), self.deployment[column].clone());
        }
        row
    }

    /// Returns the row of `deployment_runs`.
    pub(super) fn run_row(&self) -> Value {
        let mut row = self.keyed_group();
        row.insert("is_rollback".to_owned(), self.undoes().into());
        row.insert("root_execution_id".to_owned(), self.root.into());
        row.into()
    }

    fn attempted(&self) -> (Option<i64>, &str) {
        (int(&self.deployment, "attempted_ts"), self.id())
    }

    /// Returns what is deployed, and where; `None` if it was never resolved.
    pub(super) fn target(&self) -> Option<Target> {
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
pub(super) fn rollbacks<'a>(runs: &[Attempt<'a>]) -> Vec<Rollback<'a>> {
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
pub(super) fn infer(attempts: &mut [Attempt<'_>]) {
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
pub(super) fn final_attempts<'a>(attempts: &[Attempt<'a>]) -> Vec<Attempt<'a>> {
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
