//! A simulated account: compact facts of each execution; everything else is derived from the seed.

use jiff::Timestamp;

use super::history;
use super::plan::{Pipeline, Plan};
use super::rng::Id;
use super::status::Status;
use crate::scope::Scope;

/// The parameters of an account. Equal parameters give equal accounts on every machine.
#[derive(Clone, Debug)]
pub struct AccountSpec {
    /// The seed of the random number generator.
    pub seed: u64,
    /// The account's identifier.
    pub account_id: String,
    /// The simulated current time at the start. Executions exist before and after it.
    pub now: Timestamp,
    /// Number of organizations with projects, `default` first. One more organization is empty.
    pub orgs: usize,
    /// Number of projects in each organization.
    pub projects_per_org: usize,
    /// Approximate number of executions before `now`.
    pub executions: usize,
    /// Days of history.
    pub days: u32,
    /// Hours after `now` in which executions start, at the same rate as before.
    pub future_hours: u32,
    /// The size of a summary.
    pub size: RowSize,
    /// One project answers 403 to every key. Needs at least four projects.
    pub forbidden_project: bool,
}

/// The size of summaries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowSize {
    /// 3 to 8 kB.
    #[default]
    Small,
    /// 3 to 26 kB with a long tail.
    Realistic,
}

impl AccountSpec {
    /// Returns a spec for tests: about 400 executions of six projects in two weeks.
    pub fn small(now: Timestamp) -> Self {
        Self {
            seed: 1,
            account_id: "simAccount_01-AbCdEfGh".to_owned(),
            now,
            orgs: 2,
            projects_per_org: 3,
            executions: 400,
            days: 14,
            future_hours: 48,
            size: RowSize::Small,
            forbidden_project: true,
        }
    }

    /// Returns a spec for demos: about 5,000 executions of nine readable projects in 30 days.
    pub fn demo(now: Timestamp) -> Self {
        Self {
            orgs: 3,
            executions: 5_000,
            days: 30,
            forbidden_project: false,
            ..Self::small(now)
        }
    }
}

/// A simulated account with all its executions, past and future.
pub struct Account {
    pub(super) spec: AccountSpec,
    pub(super) plan: Plan,
    /// Sorted by start time.
    pub(super) executions: Vec<Execution>,
    /// Indexes into `executions` for each project, sorted by start time.
    pub(super) by_project: Vec<Vec<u32>>,
}

/// The stored facts of one execution. Times are in milliseconds since the epoch.
#[derive(Clone, Debug)]
pub struct Execution {
    pub(super) id: Id,
    pub(super) start: i64,
    /// Time at which the queue ends and the first stage may start.
    pub(super) run: i64,
    /// Time of the first end.
    pub(super) end: i64,
    /// Time at which the terminal status is edited; 0 if never.
    pub(super) edit: i64,
    /// Time of the last end; equal to `end` without an edit.
    pub(super) last_end: i64,
    /// Milliseconds spent in the approval stage or, without one, in the last stage.
    pub(super) wait: i64,
    pub(super) pipeline: u32,
    pub(super) run_sequence: u32,
    pub(super) origin: Origin,
    /// The index of the execution that retries this one, or [`NO_EXECUTION`].
    pub(super) retried_by: u32,
    /// The index of the slot at which it stopped; the number of slots if it ran to the end.
    pub(super) stop: u8,
    pub(super) created_lag: u8,
    pub(super) outcome: Status,
    pub(super) last_outcome: Status,
    /// Stored by an older server: no org, no project, other spellings of statuses.
    pub(super) legacy: bool,
    /// The execution ended, but the server never reports `endTs`.
    pub(super) end_unreported: bool,
}

/// Marks an index that refers to no execution.
pub(super) const NO_EXECUTION: u32 = u32::MAX;

/// The reason why an execution exists. Numbers are indexes into the list of executions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Fresh,
    /// A retry from the stage that failed.
    Retry {
        of: u32,
        root: u32,
    },
    /// A re-run of all stages.
    Rerun {
        of: u32,
        root: u32,
    },
    /// Started by a stage of another pipeline.
    Child {
        of: u32,
    },
    /// Rolls back a successful deployment.
    PostRollback {
        of: u32,
    },
    /// Rolls back a failed pipeline.
    PipelineRollback {
        of: u32,
    },
}

impl Execution {
    /// Returns `planExecutionId`.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    /// Returns `startTs`, in milliseconds since the epoch.
    pub fn start_ms(&self) -> i64 {
        self.start
    }

    /// Returns `createdAt`, in milliseconds since the epoch. The server lists the row from then on.
    pub fn created_ms(&self) -> i64 {
        self.start + i64::from(self.created_lag)
    }

    /// Returns the time of the last status change, in milliseconds since the epoch.
    pub fn last_change_ms(&self) -> i64 {
        self.last_end
    }
}

/// The retention period of the server: six months.
pub(super) const RETENTION_MS: i64 = 183 * 24 * 3_600_000;

impl Account {
    /// Generates an account. Each execution takes a few microseconds and about 100 bytes, twice
    /// that during generation.
    pub fn generate(spec: &AccountSpec) -> Self {
        let plan = Plan::of(spec);
        let executions = history::generate(spec, &plan);
        let mut by_project = vec![Vec::new(); plan.projects.len()];
        for (index, execution) in (0_u32..).zip(&executions) {
            let project = plan.pipelines[execution.pipeline as usize].project;
            by_project[project].push(index);
        }
        Self {
            spec: spec.clone(),
            plan,
            executions,
            by_project,
        }
    }

    /// Returns the parameters of the account.
    pub fn spec(&self) -> &AccountSpec {
        &self.spec
    }

    /// Returns the account identifier.
    pub fn id(&self) -> &str {
        &self.spec.account_id
    }

    /// Returns the executions that the server stores at an instant, oldest start first.
    pub fn executions_at(&self, at: Timestamp) -> impl Iterator<Item = &Execution> {
        let at = at.as_millisecond();
        self.executions
            .iter()
            .filter(move |execution| is_retained(execution, at))
    }

    /// Returns all executions, past and future.
    pub fn executions(&self) -> &[Execution] {
        &self.executions
    }

    /// Returns all projects at an instant, including the forbidden one.
    pub fn scopes_at(&self, at: Timestamp) -> Vec<Scope> {
        (0..self.plan.projects.len())
            .map(|project| self.scope_at(project, at.as_millisecond()))
            .collect()
    }

    /// Returns the project of an execution at an instant.
    pub fn scope_of(&self, execution: &Execution, at: Timestamp) -> Scope {
        self.scope_at(self.pipeline(execution).project, at.as_millisecond())
    }

    /// Returns the project that answers 403.
    pub fn forbidden_scope(&self) -> Option<Scope> {
        let project = self.plan.forbidden?;
        Some(self.scope_at(project, self.spec.now.as_millisecond()))
    }

    /// Returns the project that moves to another organization: old scope, new scope, time of the
    /// move.
    pub fn moving_scope(&self) -> Option<(Scope, Scope, Timestamp)> {
        let moving = |project: &super::plan::Project| project.moves.is_some();
        let project = self.plan.projects.iter().position(moving)?;
        let (at, _) = self.plan.projects[project].moves?;
        Some((
            self.scope_at(project, at - 1),
            self.scope_at(project, at),
            crate::clock::from_ms(at),
        ))
    }

    /// Returns the status of an execution at an instant, as Harness spells it.
    pub fn status_at(&self, execution: &Execution, at: Timestamp) -> &'static str {
        let status = self.detail(execution).status_at(at.as_millisecond());
        status.spelled(execution.legacy)
    }

    /// Returns whether an execution has a terminal status at an instant.
    pub fn is_terminal_at(&self, execution: &Execution, at: Timestamp) -> bool {
        let status = self.detail(execution).status_at(at.as_millisecond());
        status.terminal()
    }

    pub(super) fn scope_at(&self, project: usize, at: i64) -> Scope {
        let project = &self.plan.projects[project];
        Scope::new(
            self.plan.orgs[project.org_at(at)].id.as_str(),
            project.id.as_str(),
        )
    }

    pub(super) fn pipeline(&self, execution: &Execution) -> &Pipeline {
        &self.plan.pipelines[execution.pipeline as usize]
    }

    pub(super) fn by_index(&self, index: u32) -> &Execution {
        &self.executions[index as usize]
    }

    pub(super) fn detail(&self, execution: &Execution) -> super::detail::Detail<'_> {
        super::detail::detail(self.spec.seed, &self.plan, &self.executions, execution)
    }
}

/// Returns whether the server stores an execution at an instant: created and within retention.
pub(super) fn is_retained(execution: &Execution, at: i64) -> bool {
    let created = execution.created_ms();
    created <= at && at < created + RETENTION_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn now() -> Timestamp {
        "2026-11-24T15:00:00Z".parse().unwrap()
    }

    #[test]
    fn equal_specs_give_equal_accounts() {
        let spec = AccountSpec::small(now());
        let (one, other) = (Account::generate(&spec), Account::generate(&spec));
        let ids = |account: &Account| -> Vec<_> {
            account
                .executions()
                .iter()
                .map(|e| (e.id(), e.start, e.last_end))
                .collect()
        };
        assert_eq!(ids(&one), ids(&other));
        let third = Account::generate(&AccountSpec { seed: 2, ..spec });
        assert_ne!(ids(&one), ids(&third));
    }

    #[test]
    fn history_has_about_the_requested_size() {
        let account = Account::generate(&AccountSpec::demo(now()));
        let count = account.executions_at(now()).count();
        assert!((4_500..5_500).contains(&count), "{count}");
        assert!(count < account.executions().len());
    }

    #[test]
    fn single_project_is_neither_forbidden_nor_moving() {
        let account = Account::generate(&AccountSpec {
            orgs: 1,
            projects_per_org: 1,
            ..AccountSpec::small(now())
        });
        assert_eq!(account.scopes_at(now()).len(), 1);
        assert_eq!(account.forbidden_scope(), None);
        assert!(account.moving_scope().is_none());
        assert!(account.executions_at(now()).count() > 300);
    }

    #[test]
    fn executions_end_after_start_and_have_unique_ids() {
        let account = Account::generate(&AccountSpec::demo(now()));
        let mut ids = std::collections::HashSet::new();
        for execution in account.executions() {
            assert!(execution.start <= execution.run && execution.run <= execution.end);
            assert!(execution.end <= execution.last_end);
            assert!(ids.insert(execution.id));
        }
    }
}
