//! Observations that are not committed yet: spooled, then merged, derived and committed.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::HumanCount;
use jiff::Timestamp;
use tokio::time::Instant;

use super::cadence::Cadence;
use super::run::{CommitPart, LakeSummary, ScopeResults};
use super::{Limits, StopSignal};
use crate::causes::chain;
use crate::checkpoint::{Delta, GapFailure, OpenUpdate, ScopeError, ScopeUpdate, UnknownFields};
use crate::error::{Code, Error, code_of_source};
use crate::extract::{Complete, Event, Incomplete, ScopeDone};
use crate::ids::Scope;
use crate::lake::log::Record;
use crate::lake::spool::Spool;
use crate::lake::store::LockGuard;
use crate::lake::{LOCK_TIMEOUT, Lake};
use crate::observation::Observation;
use crate::progress::Progress;
use crate::report::{Failure, SuspiciouslyEmpty, all_failed};
use crate::source::SourceError;

/// Bytes on disk at which a spool is committed.
const SPOOL_BYTES: u64 = 1 << 30;

/// Observations at which a spool is committed: the delta keeps some bytes of each in memory.
const SPOOL_ROWS: usize = 600_000;

/// Age at which a spool is committed.
const SPOOL_TIME: Duration = Duration::from_secs(300);

/// Time for merging after a signal. Schedulers kill a process after ten seconds at the soonest, and requests in
/// flight took a second.
const GRACE_PERIOD: Duration = Duration::from_secs(5);

/// Collects the events of a run and commits them in batches.
pub(super) struct Committer<'a> {
    /// Changes of the checkpoint since the last commit.
    pub(super) delta: Delta,
    part: &'a mut CommitPart,
    spool: Spool,
    cadence: Cadence,
    run_id: &'a str,
    commits: u32,
    lake: &'a Lake,
    limits: Limits,
    now: Timestamp,
    /// The time of the latest response that ended a scope.
    latest: Timestamp,
    /// Whether windows that fail though the source is up are accepted as gaps for good.
    pub(super) accept_gaps: bool,
    /// The incomplete windows of scopes that are being read.
    incomplete: BTreeMap<Scope, IncompleteWindows>,
    /// Projects without a visible execution, and the start of their newest known one.
    suspicious: BTreeMap<Scope, Timestamp>,
    /// Whether a signal or an error ended a merge. The rest of that spool is lost to this run, so the
    /// windows in `delta` must not be committed as covered.
    has_uncommitted_merge: bool,
}

impl<'a> Committer<'a> {
    /// Creates an empty committer. `now` is the time by the clock of the source.
    pub(super) fn new(
        lake: &'a Lake,
        run_id: &'a str,
        limits: Limits,
        now: Timestamp,
        part: &'a mut CommitPart,
    ) -> Self {
        Self {
            delta: Delta::default(),
            part,
            spool: Spool::new(lake.scratch()),
            cadence: Cadence::new(),
            run_id,
            commits: 0,
            lake,
            limits,
            now,
            latest: now,
            accept_gaps: false,
            incomplete: BTreeMap::new(),
            suspicious: BTreeMap::new(),
            has_uncommitted_merge: false,
        }
    }

    /// Returns the lake that is written.
    pub(super) fn lake(&self) -> &Lake {
        self.lake
    }

    /// Adds an event; commits when the spool is full or old, or enough was read since the last commit.
    pub(super) async fn add(&mut self, event: Event, progress: &Progress) -> Result<(), Error> {
        self.record(event, progress)?;
        let is_full = self.spool.on_disk() >= SPOOL_BYTES || self.spool.rows() >= SPOOL_ROWS;
        let is_old = self.cadence.elapsed() >= SPOOL_TIME;
        let has_news = !self.delta.covered.is_empty() || !self.delta.counted.is_empty();
        if is_full || is_old || (has_news && self.cadence.is_due()) {
            self.flush(progress).await?;
        }
        Ok(())
    }

    /// Adds an event without committing.
    pub(super) fn record(&mut self, event: Event, progress: &Progress) -> Result<(), Error> {
        match event {
            Event::Rows(rows) => {
                self.cadence.add_call();
                progress.add_executions(rows.observations.len());
                self.part.changes.drift.add(rows.drift);
                for (id, open) in rows.undated {
                    self.delta
                        .open_updates
                        .insert(id, OpenUpdate::Open(Box::new(open)));
                }
                for observation in rows.observations {
                    self.spool(observation)?;
                }
            }
            Event::WindowComplete(complete) => self.add_complete(complete),
            Event::LookbackDue(scope, window) => {
                self.delta.lookback.entry(scope).or_default().add(window);
            }
            Event::Counted(counted) => {
                self.cadence.add_call();
                progress.add_parts(counted.outcomes);
                progress.finish_part();
                let counts = self.delta.counted.entry(counted.scope);
                counts.or_default().extend(counted.with_rows);
            }
            Event::WindowIncomplete(incomplete) => self.add_incomplete(incomplete),
            Event::PollMissed(id, at) => {
                self.delta.open_updates.insert(id, OpenUpdate::Missing(at));
            }
            Event::Done(done) => {
                progress.finish_part();
                self.add_scope(*done);
            }
        }
        Ok(())
    }

    fn add_complete(&mut self, complete: Complete) {
        let Complete {
            scope,
            window,
            last_row_start,
            pages,
        } = complete;
        let update = ScopeUpdate {
            last_row_start,
            last_read: Some(self.now),
            row_bytes: pages.row_bytes,
            page_limit: pages.page_limit,
            window_rows: pages.window_rows,
            ..ScopeUpdate::default()
        };
        let updates = self.delta.scope_updates.entry(scope.clone());
        updates.or_default().add(update);
        self.delta.covered.entry(scope).or_default().add(window);
    }

    fn add_incomplete(&mut self, incomplete: Incomplete) {
        let Incomplete {
            scope,
            window,
            reason,
        } = incomplete;
        if self.accept_gaps && reason.is_some() {
            tracing::warn!(project = %scope, %window, reason, "accepted a gap");
            self.delta.accepted.entry(scope).or_default().add(window);
            return;
        }
        let windows = self.incomplete.entry(scope.clone()).or_default();
        windows.count += 1;
        if let Some(reason) = reason {
            windows.example = Some(format!("{window}: {reason}"));
            let failure = GapFailure::new(window, reason, self.now);
            let failures = self.delta.gap_failures.entry(scope.clone());
            failures.or_default().push(failure);
        }
        self.delta.gaps.entry(scope).or_default().add(window);
    }

    fn spool(&mut self, observation: Observation) -> Result<(), Error> {
        let identity = self.lake.identity();
        let partition = identity.partition(&observation.id, observation.start);
        let pushed = self.spool.push(partition, observation);
        Ok(pushed.map_err(|error| self.lake.scratch_error(error))?)
    }

    fn add_scope(&mut self, done: ScopeDone) {
        // Times never decrease within a run, so no earlier success replaces a failure.
        self.latest = self.latest.max(done.observed.unwrap_or(self.now));
        let incomplete = self.incomplete.remove(&done.scope).unwrap_or_default();
        if matches!(done.failure, Some(SourceError::Outage { .. })) {
            self.part.scopes.unread.insert(done.scope);
            return;
        }
        let failure = failure_of(&done, &incomplete);
        let error = failure.as_ref().map(|(code, message)| ScopeError {
            at: self.latest,
            code: code.name().to_owned(),
            message: message.clone(),
            unknown: UnknownFields::new(),
        });
        let is_complete = error.is_none() && done.missing_row.is_none();
        let is_success = is_complete && !self.part.scopes.failed.contains(&done.scope);
        let news = ScopeUpdate {
            last_row_start: done.last_row_start,
            last_read: None,
            success: done.observed.filter(|_| is_success),
            error,
            row_bytes: done.pages.row_bytes,
            page_limit: done.pages.page_limit,
            moved_row: None,
            window_rows: done.pages.window_rows,
        };
        self.part.scopes.add(&done, failure);
        if let Some(last_row_start) = done.missing_row {
            self.suspicious.insert(done.scope.clone(), last_row_start);
        }
        self.delta
            .scope_updates
            .entry(done.scope)
            .or_default()
            .add(news);
    }

    /// Reports the projects that are suspiciously empty, unless the lake has their newest row in another
    /// project. Then commits their newest remaining row, and the next run trusts them again.
    pub(super) async fn finish_suspicious(&mut self, progress: &Progress) -> Result<(), Error> {
        let suspicious = std::mem::take(&mut self.suspicious);
        let moved = if *self.limits.stop().borrow() {
            BTreeMap::new()
        } else {
            self.lake.moved_rows(suspicious.clone()).await?
        };
        for (scope, last_row_start) in &suspicious {
            if moved.contains_key(scope) {
                let (org, project) = (scope.org.as_str(), scope.project.as_str());
                tracing::info!(
                    org.id = org,
                    project.id = project,
                    "the newest known execution, started {last_row_start}, moved to another project"
                );
            } else {
                self.add_suspiciously_empty(scope, *last_row_start);
            }
        }
        if moved.is_empty() {
            return Ok(());
        }
        for (scope, moved_row) in moved {
            let update = ScopeUpdate {
                moved_row: Some(moved_row),
                ..ScopeUpdate::default()
            };
            self.delta
                .scope_updates
                .entry(scope)
                .or_default()
                .add(update);
        }
        self.flush(progress).await.map(drop)
    }

    fn add_suspiciously_empty(&mut self, scope: &Scope, last_row_start: Timestamp) {
        let (org, project) = (scope.org.to_string(), scope.project.to_string());
        tracing::warn!(
            org.id = org,
            project.id = project,
            "suspiciously empty: no execution since {last_row_start} is visible any more; check \
             that the API key can view pipelines of the project"
        );
        self.part.scopes.suspiciously_empty.push(SuspiciouslyEmpty {
            org,
            project,
            last_row_start,
        });
    }

    /// Merges and derives what is spooled, then commits: tables first, checkpoint last.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] when the time after a signal was too short. Nothing of this spool is
    /// committed then, and the next run reads it again.
    pub(super) async fn flush(&mut self, progress: &Progress) -> Result<Record, Error> {
        if self.has_uncommitted_merge {
            return Err(Error::Interrupted);
        }
        let begun = Instant::now();
        let _lock = self.lock().await?;
        self.has_uncommitted_merge = true;
        let mut may_go_on = grace_period(self.limits.stop().clone());
        let may_merge_next = || {
            progress.start_partition();
            may_go_on()
        };
        progress.start_commit();
        let merged = self
            .lake
            .merge_spool(self.run_id, self.commits, &mut self.spool, may_merge_next)
            .await?;
        let mut merged = merged.ok_or(Error::Interrupted)?;
        self.delta.open_updates.append(&mut merged.open_updates);
        let (record, files) = self.lake.commit(self.run_id, self.now, &self.delta).await?;
        progress.finish_commit();
        self.part.changes.add_merge(merged);
        self.part.changes.add_files(files);
        self.part.lake = Some(LakeSummary::of(&record.state));
        self.delta = Delta::default();
        self.has_uncommitted_merge = false;
        self.cadence.committed(begun.elapsed());
        self.commits += 1;
        Ok(record)
    }

    /// Locks the lake. After a signal it waits only a part of the grace period.
    async fn lock(&self) -> Result<LockGuard, Error> {
        let store = self.lake.store();
        if *self.limits.stop().borrow() {
            let lock = store.lock(GRACE_PERIOD / 3).await;
            return lock.map_err(|_| Error::Interrupted);
        }
        let limits = self.limits.without_deadline();
        limits.run(store.lock(LOCK_TIMEOUT)).await
    }

    /// Returns how a run of `scopes` ended that could not list `unlisted` organizations.
    pub(super) fn result(
        self,
        scopes: usize,
        unlisted: usize,
        partial_exit_code: u8,
    ) -> Result<(), Error> {
        self.part.scopes.result(scopes, unlisted, partial_exit_code)
    }
}

/// The incomplete windows of one scope.
#[derive(Debug, Default)]
struct IncompleteWindows {
    count: u32,
    /// One that failed though the source was up, and the reason.
    example: Option<String>,
}

/// Returns the reason why a scope was not read completely.
fn failure_of(done: &ScopeDone, incomplete: &IncompleteWindows) -> Option<(Code, String)> {
    if let Some(error) = &done.failure {
        return Some((code_of_source(error), chain(error)));
    }
    let mut reasons = Vec::new();
    let example = incomplete.example.as_ref();
    let example = example.map_or_else(String::new, |example| format!(" ({example})"));
    match incomplete.count {
        0 => {}
        1 => reasons.push(format!("1 window is incomplete{example}")),
        windows => {
            let windows = HumanCount(windows.into());
            reasons.push(format!("{windows} windows are incomplete{example}"));
        }
    }
    if let Some(reason) = &done.poll_failure {
        let polls = HumanCount(done.failed_polls.into());
        reasons.push(format!(
            "polls of open executions failed: {polls} ({reason})"
        ));
    }
    let message = format!("{}; later runs retry", reasons.join(", and "));
    (!reasons.is_empty()).then_some((Code::Partial, message))
}

/// Returns a check that is true until the grace period after a signal is over.
fn grace_period(stop: StopSignal) -> impl FnMut() -> bool {
    let mut signalled_at: Option<Instant> = None;
    move || {
        !*stop.borrow() || signalled_at.get_or_insert_with(Instant::now).elapsed() < GRACE_PERIOD
    }
}

impl ScopeResults {
    fn add(&mut self, done: &ScopeDone, failure: Option<(Code, String)>) {
        let Some((code, message)) = failure else {
            self.ok.insert(done.scope.clone());
            return;
        };
        if self.failed.insert(done.scope.clone()) {
            let failure = Failure::of(&done.scope, code, message);
            failure.log();
            self.failures.push(failure);
        }
    }

    /// Returns the common cause if every scope failed, else [`Error::Partial`] if any did.
    fn result(&self, total: usize, unlisted: usize, partial_exit_code: u8) -> Result<(), Error> {
        if !self.unread.is_empty() {
            let unread = self.unread.len();
            return Err(Error::Outage { unread, total });
        }
        let failed = self.failed.len();
        if failed == 0 && unlisted == 0 {
            return Ok(());
        }
        let nothing_read = failed == total && self.ok.is_empty();
        let all_failed = nothing_read.then(|| all_failed(&self.failures)).flatten();
        Err(all_failed.unwrap_or(Error::Partial {
            failed,
            total,
            unlisted,
            exit: partial_exit_code,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use tokio::sync::watch;

    use super::*;
    use crate::ids::{AccountId, PlanExecutionId};
    use crate::lake::OpenOptions;
    use crate::lake::layout::Period;
    use crate::lake::store::Store;
    use crate::observation::Version;
    use crate::pii::PiiRequest;
    use crate::source::SourceError;
    use crate::window::{Window, from_ms};

    async fn lake_in_memory() -> Lake {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "".into(), "memory");
        let account = AccountId::new("account");
        let scratch = std::env::temp_dir();
        let options = OpenOptions {
            account: &account,
            base_url: crate::tables::DEFAULT_BASE_URL,
            now: from_ms(0),
            buckets: None,
            pii: &PiiRequest::default(),
            period: None,
            delta: None,
            new_period: Period::Day,
            scratch: &scratch,
        };
        Lake::open(store, &options).await.unwrap()
    }

    #[tokio::test]
    async fn interrupted_merge_is_never_committed() {
        let lake = lake_in_memory().await;
        let mut part = CommitPart::default();
        let (_signal, stop) = watch::channel(true);
        let limits = Limits::new(stop, None);
        let mut committer = Committer::new(&lake, "run", limits, from_ms(0), &mut part);
        let window = Window::new(from_ms(0), from_ms(1)).unwrap();
        let scope = Scope::new("org", "project");
        committer
            .delta
            .covered
            .entry(scope)
            .or_default()
            .add(window);
        committer.has_uncommitted_merge = true;
        assert!(matches!(
            committer.flush(&Progress::new(false)).await,
            Err(Error::Interrupted)
        ));
        assert_eq!(Record::newest(lake.store()).await.unwrap().number, 0);
        committer.has_uncommitted_merge = false;
        committer.flush(&Progress::new(false)).await.unwrap();
        assert_eq!(Record::newest(lake.store()).await.unwrap().number, 1);
    }

    #[tokio::test]
    async fn project_whose_rows_moved_is_not_suspicious() {
        let lake = lake_in_memory().await;
        let mut part = CommitPart::default();
        let (_signal, stop) = watch::channel(false);
        let limits = Limits::new(stop, None);
        let mut committer = Committer::new(&lake, "run", limits, from_ms(10), &mut part);
        let (old, new) = (Scope::new("org", "old"), Scope::new("org", "new"));
        let observation = Observation {
            id: PlanExecutionId::new("moved"),
            scope: new.clone(),
            start: from_ms(5),
            version: Version {
                observed: from_ms(20),
                content_hash: 1,
                is_terminal: true,
            },
            first_observed: from_ms(20),
            summary: "{}".into(),
        };
        committer.spool(observation).unwrap();
        for scope in [&old, &new] {
            let update = committer
                .delta
                .scope_updates
                .entry(scope.clone())
                .or_default();
            update.last_row_start = Some(from_ms(5));
            committer.suspicious.insert(scope.clone(), from_ms(5));
        }
        committer.flush(&Progress::new(false)).await.unwrap();
        committer
            .finish_suspicious(&Progress::new(false))
            .await
            .unwrap();
        let record = Record::newest(lake.store()).await.unwrap();
        let newest = |scope| record.state.scopes[scope].last_row_start;
        assert_eq!([&old, &new].map(newest), [None, Some(from_ms(5))]);
        let suspicious = part.scopes.suspiciously_empty;
        let projects: Vec<_> = suspicious.iter().map(|one| one.project.as_str()).collect();
        assert_eq!(projects, ["new"], "the lake has its row");
    }

    #[tokio::test]
    async fn success_does_not_hide_failure_of_the_same_run() {
        let lake = lake_in_memory().await;
        let mut part = CommitPart::default();
        let (_signal, stop) = watch::channel(false);
        let limits = Limits::new(stop, None);
        let mut committer = Committer::new(&lake, "run", limits, from_ms(10), &mut part);
        let scope = Scope::new("org", "project");
        let done = |at, failure| ScopeDone {
            observed: Some(from_ms(at)),
            failure,
            ..ScopeDone::failed(scope.clone(), SourceError::InvalidKey)
        };
        committer.add_scope(done(20, None));
        committer.add_scope(done(30, Some(SourceError::InvalidKey)));
        committer.add_scope(done(40, None));
        let record = committer.flush(&Progress::new(false)).await.unwrap();
        let known = &record.state.scopes[&scope];
        assert_eq!(known.last_error.as_ref().unwrap().at, from_ms(30));
        assert_eq!(known.last_success, Some(from_ms(20)));
    }
}
