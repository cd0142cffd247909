//! A simulated account: a compact truth for each execution, everything else made on demand.

use jiff::Timestamp;

use super::history;
use super::plan::{Pipeline, Plan};
use super::rng::Id;
use super::status::Status;
use crate::scope::Scope;

/// What to generate. The same specification gives the same account, on every machine.
#[derive(Clone, Debug)]
pub struct AccountSpec {
    /// The seed of all its randomness.
    pub seed: u64,
    /// The account's identifier.
    pub account_id: String,
    /// The simulated now at the start: history lies before it, some future after.
    pub now: Timestamp,
    /// Organizations with projects, `default` first. One more has none.
    pub orgs: usize,
    /// Projects in each of them.
    pub projects_per_org: usize,
    /// Executions in the history, roughly.
    pub executions: usize,
    /// Days of history.
    pub days: u32,
    /// Hours after `now` in which executions start, at the same rate.
    pub future_hours: u32,
    /// How large a summary is.
    pub size: RowSize,
    /// Whether one project answers 403 to everyone. It takes at least four projects.
    pub forbidden_project: bool,
}

/// How large summaries are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowSize {
    /// 3 to 8 kB.
    #[default]
    Small,
    /// 3 to 26 kB with a long tail.
    Realistic,
}

impl AccountSpec {
    /// A few hundred executions of six projects in two weeks: for tests.
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

    /// Some 5,000 executions of nine projects in 30 days, all of them readable.
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

/// A whole account, from before its first execution to the end of its future.
pub struct Account {
    pub(super) spec: AccountSpec,
    pub(super) plan: Plan,
    /// Sorted by start.
    pub(super) executions: Vec<Execution>,
    /// For each project the places of its executions, sorted by start.
    pub(super) by_project: Vec<Vec<u32>>,
}

/// The compact truth of one execution.
#[derive(Clone, Debug)]
pub struct Execution {
    pub(super) id: Id,
    pub(super) start: i64,
    /// When its first stage may start.
    pub(super) run: i64,
    /// When it first ends.
    pub(super) end: i64,
    /// When its ended state is edited, 0 for never.
    pub(super) edit: i64,
    /// When it ends for the last time; `end` without an edit.
    pub(super) last_end: i64,
    /// How long the approval, else the last stage, takes of it.
    pub(super) wait: i64,
    pub(super) pipeline: u32,
    pub(super) run_sequence: u32,
    pub(super) origin: Origin,
    /// The attempt that retries this one, or `NOBODY`.
    pub(super) retried_by: u32,
    /// The slot at which it stopped; the number of slots where it went through.
    pub(super) stop: u8,
    pub(super) created_lag: u8,
    pub(super) outcome: Status,
    pub(super) last_outcome: Status,
    /// A row as an older server stored it: no org, no project, other spellings.
    pub(super) legacy: bool,
    /// Ended, but the server never tells when.
    pub(super) end_unreported: bool,
}

/// No place in the list of executions.
pub(super) const NO_EXECUTION: u32 = u32::MAX;

/// Why an execution exists. Numbers are places in the list of executions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Fresh,
    /// Run again from the stage that failed.
    Retry {
        of: u32,
        root: u32,
    },
    /// Run again as a whole.
    Rerun {
        of: u32,
        root: u32,
    },
    /// Started by a stage of another pipeline.
    Child {
        of: u32,
    },
    /// Rolls a deployment back that had gone well.
    PostRollback {
        of: u32,
    },
    /// Rolls a failed pipeline back.
    PipelineRollback {
        of: u32,
    },
}

impl Execution {
    /// `planExecutionId`.
    pub fn id(&self) -> String {
        self.id.to_string()
    }

    /// `startTs`, in ms since the epoch.
    pub fn start_ms(&self) -> i64 {
        self.start
    }

    /// `createdAt`, in ms since the epoch: the row is there from then on.
    pub fn created_ms(&self) -> i64 {
        self.start + i64::from(self.created_lag)
    }

    /// When its last known change of status happens, in ms since the epoch.
    pub fn last_change_ms(&self) -> i64 {
        self.last_end
    }
}

/// How long the server keeps an execution: six months.
pub(super) const RETENTION_MS: i64 = 183 * 24 * 3_600_000;

impl Account {
    /// Makes the account. Takes some microseconds and about 100 bytes for each execution, twice
    /// that while it is at work.
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

    /// What it was made from.
    pub fn spec(&self) -> &AccountSpec {
        &self.spec
    }

    /// Its identifier.
    pub fn id(&self) -> &str {
        &self.spec.account_id
    }

    /// Every execution that the server holds at an instant, oldest start first.
    pub fn executions_at(&self, at: Timestamp) -> impl Iterator<Item = &Execution> {
        let at = at.as_millisecond();
        self.executions
            .iter()
            .filter(move |execution| is_retained(execution, at))
    }

    /// Every execution that there ever is.
    pub fn executions(&self) -> &[Execution] {
        &self.executions
    }

    /// Every project at an instant, the forbidden one too.
    pub fn scopes_at(&self, at: Timestamp) -> Vec<Scope> {
        (0..self.plan.projects.len())
            .map(|project| self.scope_at(project, at.as_millisecond()))
            .collect()
    }

    /// Where an execution is listed at an instant.
    pub fn scope_of(&self, execution: &Execution, at: Timestamp) -> Scope {
        self.scope_at(self.pipeline(execution).project, at.as_millisecond())
    }

    /// The project that answers 403.
    pub fn forbidden_scope(&self) -> Option<Scope> {
        let project = self.plan.forbidden?;
        Some(self.scope_at(project, self.spec.now.as_millisecond()))
    }

    /// The project that moves: from where, to where, when.
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

    /// The status of an execution at an instant, as Harness spells it.
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

/// Whether the server holds an execution at an instant: created, and not yet past retention.
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
    fn the_same_specification_gives_the_same_account() {
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
    fn the_history_has_about_the_asked_size() {
        let account = Account::generate(&AccountSpec::demo(now()));
        let count = account.executions_at(now()).count();
        assert!((4_500..5_500).contains(&count), "{count}");
        assert!(count < account.executions().len());
    }

    #[test]
    fn an_account_of_one_project_has_no_odd_one() {
        let account = Account::generate(&AccountSpec {
            orgs: 1,
            projects_per_org: 1,
            ..AccountSpec::small(now())
        });
        assert_eq!(account.scopes_at(now()).len(), 1);
        assert_eq!(account.forbidden_scope(), None);
        assert!(account.moving_scope().is_none());
        assert!(300 < account.executions_at(now()).count());
    }

    #[test]
    fn no_execution_ends_before_it_starts_and_no_id_comes_twice() {
        let account = Account::generate(&AccountSpec::demo(now()));
        let mut ids = std::collections::HashSet::new();
        for execution in account.executions() {
            assert!(execution.start <= execution.run && execution.run <= execution.end);
            assert!(execution.end <= execution.last_end);
            assert!(ids.insert(execution.id));
        }
    }
}
