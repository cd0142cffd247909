//! A run from its start to its report.
//!
//! Each stage writes its own part. The report is built from the parts when the run ends, also after
//! a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::Date;
use tokio::time::Instant;

use super::period::ChosenPeriod;
use crate::causes::chain;
use crate::checkpoint::{ScopeState, State};
use crate::drift::Drift;
use crate::error::Error;
use crate::ids::{AccountId, Scope};
use crate::lake::commit::MergeResult;
use crate::lake::derive::{Derived, WrittenFile};
use crate::lake::identity::Identity;
use crate::lake::layout::Partition;
use crate::lake::log::Record;
use crate::lake::store::Store;
use crate::lake::{LakeError, layout, views};
use crate::report::{
    ExecutionCounts, ExpiredUnread, Failure, Outcome, Report, ScopeCounts, SuspiciouslyEmpty,
    UNREAD, Watermarks,
};
use crate::schema::VERSION;
use crate::source::{Client, RequestCounts};

/// Time to save the report after a signal: schedulers kill the process soon after it.
const SAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A run that has started.
pub(super) struct Run {
    pub(super) id: String,
    command: &'static str,
    account: AccountId,
    pub(super) clock: fn() -> Timestamp,
    started_at: Timestamp,
}

/// Results of a run so far. Each part is written by one stage.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) requests: RequestsPart,
    pub(super) session: SessionPart,
    pub(super) plan: PlanPart,
    pub(super) committed: CommitPart,
    /// Tables rebuilt by `replay`.
    pub(super) replayed: Changes,
}

/// Counters of the client.
#[derive(Debug, Default)]
pub(super) struct RequestsPart {
    counts: RequestCounts,
    drift: Drift,
}

/// Results of opening the session.
#[derive(Debug, Default)]
pub(super) struct SessionPart {
    pub(super) clock_skew_seconds: Option<i64>,
    pub(super) scopes: usize,
    /// Organizations whose projects could not be listed.
    pub(super) unlisted: Vec<Failure>,
    /// The period of the lake that this run created.
    pub(super) chosen_period: Option<ChosenPeriod>,
    /// Projects that an earlier run listed and this one did not.
    pub(super) vanished: Vec<Scope>,
    /// Changes that orphaned runs had left to finish.
    pub(super) recovered: Changes,
}

/// Results of planning.
#[derive(Debug, Default)]
pub(super) struct PlanPart {
    pub(super) covered_to: Option<Timestamp>,
    pub(super) expired_unread: Vec<ExpiredUnread>,
    pub(super) abandoned: usize,
    /// Idle scopes that the run does not ask for new data.
    pub(super) idle: BTreeSet<Scope>,
}

/// Results of reading and committing.
#[derive(Debug, Default)]
pub(super) struct CommitPart {
    pub(super) changes: Changes,
    pub(super) scopes: ScopeResults,
    /// The state of the last commit.
    pub(super) lake: Option<LakeSummary>,
}

/// Results by scope. A `backfill` reads a scope in several slices.
#[derive(Debug, Default)]
pub(super) struct ScopeResults {
    pub(super) ok: BTreeSet<Scope>,
    pub(super) failed: BTreeSet<Scope>,
    /// The first failure of each failed scope.
    pub(super) failures: Vec<Failure>,
    pub(super) suspiciously_empty: Vec<SuspiciouslyEmpty>,
    /// Scopes that were not read completely, since the source was down.
    pub(super) unread: BTreeSet<Scope>,
}

/// Rows and objects that a run changed.
#[derive(Debug, Default)]
pub(super) struct Changes {
    executions: ExecutionCounts,
    dates: BTreeSet<Date>,
    /// By path: an object that is replaced twice counts once.
    files: BTreeMap<String, WrittenFile>,
    pub(super) drift: Drift,
    /// Drift of derived partitions: one that is derived twice counts once.
    derived_drift: BTreeMap<Partition, Drift>,
}

/// Totals of the committed state of a lake.
#[derive(Clone, Debug, Default)]
pub(super) struct LakeSummary {
    open_executions: usize,
    gaps: usize,
    gaps_by_reason: BTreeMap<String, usize>,
    pending_windows: usize,
    watermark: Watermarks,
    empty_scopes: usize,
}

impl Run {
    /// Starts a run. `clock` is the local clock.
    pub(super) fn start(
        command: &'static str,
        id: String,
        account: AccountId,
        clock: fn() -> Timestamp,
    ) -> Self {
        Self {
            id,
            command,
            account,
            clock,
            started_at: clock(),
        }
    }

    /// Builds the report and saves it in the lake.
    pub(super) async fn finish(
        self,
        mut parts: Parts,
        store: &Store,
        error: Option<&Error>,
    ) -> Report {
        let finished_at = (self.clock)();
        let until =
            matches!(error, Some(Error::Interrupted)).then(|| Instant::now() + SAVE_TIMEOUT);
        let lake = match parts.committed.lake.take() {
            Some(lake) => Some(lake),
            None => within(until, LakeSummary::read(store, &self.account))
                .await
                .flatten(),
        };
        let is_newer = matches!(error, Some(Error::Lake(lake)) if lake.is_newer());
        let report = self.report(parts, lake.unwrap_or_default(), error, finished_at);
        if is_newer {
            // A lake of a newer version is left unchanged.
            return report;
        }
        if within(until, save(store, &report)).await.is_none() {
            tracing::warn!("failed to save the run report: the lake did not respond in time");
        }
        report
    }

    fn report(
        self,
        parts: Parts,
        lake: LakeSummary,
        error: Option<&Error>,
        finished_at: Timestamp,
    ) -> Report {
        let Parts {
            requests,
            session,
            plan,
            committed,
            replayed,
        } = parts;
        let outcome = Outcome::of(error);
        let is_finished = matches!(outcome, Outcome::Success | Outcome::Partial);
        let scopes = committed
            .scopes
            .counts(session.scopes, &plan.idle, is_finished);
        let mut failures = session.unlisted;
        failures.extend(committed.scopes.failures);
        if outcome == Outcome::Failed {
            failures.extend(error.map(Failure::of_run));
        }
        let mut changes = session.recovered;
        changes.add(committed.changes);
        changes.add(replayed);
        changes.drift.add(requests.drift);
        for drift in changes.derived_drift.into_values() {
            changes.drift.add(drift);
        }
        Report {
            run_id: self.id,
            command: self.command,
            outcome,
            account_id: self.account,
            schema_version: VERSION,
            started_at: self.started_at,
            finished_at,
            // A run that ended early read less; the watermarks say how far.
            covered_to: plan.covered_to.filter(|_| is_finished),
            clock_skew_seconds: session.clock_skew_seconds,
            scopes,
            requests: requests.counts,
            executions: changes.executions,
            chosen_period: session.chosen_period,
            dates_changed: changes.dates,
            files: changes.files.into_values().collect(),
            open_executions: lake.open_executions,
            abandoned: plan.abandoned,
            gaps: lake.gaps,
            gaps_by_reason: lake.gaps_by_reason,
            pending_windows: lake.pending_windows,
            watermark: lake.watermark,
            empty_scopes: lake.empty_scopes,
            idle_scopes: plan.idle.len(),
            suspiciously_empty: committed.scopes.suspiciously_empty,
            expired_unread: plan.expired_unread,
            vanished: session.vanished.iter().map(Scope::to_string).collect(),
            failures,
            drift: changes.drift,
        }
    }
}

impl RequestsPart {
    /// Returns the current counters of a client.
    pub(super) fn of(client: &Client) -> Self {
        Self {
            counts: client.counts(),
            drift: client.drift(),
        }
    }
}

impl ScopeResults {
    /// Counts the scopes of a run. A finished run has nothing left to read in the others.
    fn counts(&self, total: usize, idle: &BTreeSet<Scope>, is_finished: bool) -> ScopeCounts {
        let failed = self.failed.len();
        let ok = if is_finished {
            total - self.failed.union(idle).count()
        } else {
            self.ok.difference(&self.failed).count()
        };
        ScopeCounts { total, ok, failed }
    }
}

impl Changes {
    /// Adds the result of a merge.
    pub(super) fn add_merge(&mut self, merged: MergeResult) {
        let counts = merged.counts;
        self.executions.observed += counts.inserted + counts.updated + counts.unchanged;
        self.executions.inserted += counts.inserted;
        self.executions.updated += counts.updated;
        self.executions.unchanged += counts.unchanged;
        let dates = merged.changed.iter().map(|partition| partition.date);
        self.dates.extend(dates);
        self.add_files(merged.files);
        self.derived_drift.extend(merged.drift);
    }

    /// Adds the tables of a replayed partition.
    pub(super) fn add_replayed(&mut self, derived: Derived) {
        self.dates.extend(derived.dates);
        self.add_files(derived.files);
        self.derived_drift.extend(derived.drift);
    }

    /// Adds replaced objects.
    pub(super) fn add_files(&mut self, files: Vec<WrittenFile>) {
        let by_path = files.into_iter().map(|file| (file.path.clone(), file));
        self.files.extend(by_path);
    }

    fn add(&mut self, later: Self) {
        self.executions.observed += later.executions.observed;
        self.executions.inserted += later.executions.inserted;
        self.executions.updated += later.executions.updated;
        self.executions.unchanged += later.executions.unchanged;
        self.dates.extend(later.dates);
        self.files.extend(later.files);
        self.drift.add(later.drift);
        self.derived_drift.extend(later.derived_drift);
    }
}

impl LakeSummary {
    /// Sums up a committed state.
    pub(super) fn of(state: &State) -> Self {
        let (min, max) = state.watermarks().unzip();
        let is_empty = |scope: &&ScopeState| {
            scope.last_row_start.is_none()
                && scope.last_success.is_some()
                && scope.last_error.is_none()
        };
        Self {
            open_executions: state.open.len(),
            gaps: state.gap_count(),
            gaps_by_reason: gaps_by_reason(state),
            pending_windows: state.skipped_count(),
            watermark: Watermarks { min, max },
            empty_scopes: state.visible_scopes().filter(is_empty).count(),
        }
    }

    /// Reads the state that earlier runs committed; `None` without a readable lake of this account.
    async fn read(store: &Store, account: &AccountId) -> Option<Self> {
        let (identity, _) = Identity::read(store).await.ok()??;
        if identity.account_id != *account {
            return None;
        }
        let record = Record::newest(store).await.ok()?;
        Some(Self::of(&record.state))
    }
}

/// Counts the gaps of a state by reason. Always has [`UNREAD`]: a Pushgateway keeps the samples of a metric without any.
fn gaps_by_reason(state: &State) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::from([(UNREAD.to_owned(), 0)]);
    for scope in state.visible_scopes() {
        for gap in scope.unread_gaps().windows() {
            let mut failures = scope.gap_failures.iter();
            let failure = failures.find(|failure| failure.window.intersect(*gap).is_some());
            let reason = failure.map_or(UNREAD, |failure| &failure.reason);
            *counts.entry(reason.to_owned()).or_default() += 1;
        }
    }
    counts
}

/// Saves the report, and the statements that open the lake, where there is a lake of the account.
/// A failure does not fail the run.
async fn save(store: &Store, report: &Report) {
    let body = serde_json::to_vec_pretty(report).expect("a report has text keys only");
    let saved = async {
        let lake = Identity::read(store).await?;
        let lake = lake.map(|(identity, _)| identity);
        if let Some(lake) = lake.filter(|lake| lake.account_id == report.account_id) {
            let path = layout::run_report(&report.run_id);
            store.overwrite(&path, body.into()).await?;
            views::write(store, lake.period).await?;
        }
        Ok::<_, LakeError>(())
    };
    if let Err(error) = saved.await {
        tracing::warn!(
            "failed to save the run report or the views: {}",
            chain(&error)
        );
    }
}

/// Waits for `work`, at most until an instant; `None` when the time was too short.
async fn within<T>(until: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match until {
        Some(until) => tokio::time::timeout_at(until, work).await.ok(),
        None => Some(work.await),
    }
}
