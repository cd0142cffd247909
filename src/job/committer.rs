//! What was read and is not committed yet: spooled, then merged, derived and committed.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{StopSignal, or_stop};
use crate::causes::chain;
use crate::checkpoint::{Delta, OpenUpdate, ScopeError, ScopeNews};
use crate::error::{Code, Error, code_of_source};
use crate::extract::discover::Unlisted;
use crate::extract::fanout::{Event, ScopeDone};
use crate::ids::Scope;
use crate::lake::log::Record;
use crate::lake::spool::Spool;
use crate::lake::store::LockGuard;
use crate::lake::{LOCK_TIMEOUT, Lake};
use crate::observation::Observation;
use crate::progress::Progress;
use crate::report::{Failure, Report, SuspiciouslyEmpty};

/// Bytes of scratch after which a spool is merged.
const SPOOL_BYTES: u64 = 1 << 30;

/// Observations after which a spool is merged: what is told of each stays in memory until the commit.
const SPOOL_ROWS: usize = 600_000;

/// Time after which a spool is merged.
const SPOOL_TIME: Duration = Duration::from_secs(300);

/// Time that is left for merging after a signal: a scheduler kills after ten seconds at the soonest.
const AFTER_SIGNAL: Duration = Duration::from_secs(6);

/// Takes in what a run reads.
pub(super) struct Committer<'a> {
    pub(super) delta: Delta,
    pub(super) report: &'a mut Report,
    spool: Spool,
    since: Instant,
    part: u32,
    lake: &'a Lake,
    stop: StopSignal,
    now: Timestamp,
    /// The latest answer that a scope ended with.
    latest: Timestamp,
    outcomes: Outcomes,
    /// Whether a signal cut a merge short: what was spooled then is lost to this run, so nothing that
    /// it made whole may be claimed any more.
    is_cut_short: bool,
}

impl<'a> Committer<'a> {
    /// Begins with nothing. `now` is by the source's clock.
    pub(super) fn new(
        lake: &'a Lake,
        report: &'a mut Report,
        stop: StopSignal,
        now: Timestamp,
    ) -> Self {
        Self {
            delta: Delta::default(),
            report,
            spool: Spool::new(lake.scratch()),
            since: Instant::now(),
            part: 0,
            lake,
            stop,
            now,
            latest: now,
            outcomes: Outcomes::default(),
            is_cut_short: false,
        }
    }

    /// Takes in one event; merges and commits when the spool is full or old.
    pub(super) async fn take(&mut self, event: Event, progress: &Progress) -> Result<(), Error> {
        match event {
            Event::Rows(rows) => {
                progress.add_executions(rows.observations.len());
                self.report.drift.add(rows.drift);
                for (id, open) in rows.undated {
                    self.delta
                        .open_updates
                        .insert(id, OpenUpdate::Open(Box::new(open)));
                }
                for observation in rows.observations {
                    self.push(observation)?;
                }
            }
            Event::WindowComplete(scope, window) => {
                self.delta.covered.entry(scope).or_default().add(window);
            }
            Event::WindowIncomplete(scope, window) => {
                self.delta.gaps.entry(scope).or_default().add(window);
            }
            Event::PollMissed(id, at) => {
                self.delta.open_updates.insert(id, OpenUpdate::Missing(at));
            }
            Event::Done(done) => {
                progress.finish_part();
                self.done(*done);
            }
        }
        let is_full = SPOOL_BYTES <= self.spool.on_disk() || SPOOL_ROWS <= self.spool.rows();
        if is_full || SPOOL_TIME <= self.since.elapsed() {
            self.flush().await?;
        }
        Ok(())
    }

    /// Takes note of organizations whose projects could not be listed.
    pub(super) fn unlisted(&mut self, orgs: &[Unlisted]) {
        for unlisted in orgs {
            let failure = Failure::from(unlisted);
            warn_of(&failure);
            self.report.failures.push(failure);
        }
        self.outcomes.unlisted = orgs.len();
    }

    fn push(&mut self, observation: Observation) -> Result<(), Error> {
        let identity = self.lake.identity();
        let partition = identity.partition(&observation.id, observation.start);
        let pushed = self.spool.push(partition, observation);
        Ok(pushed.map_err(|error| self.lake.scratch_error(error))?)
    }

    fn done(&mut self, done: ScopeDone) {
        // No success of this run is later than its failure, nor hides it.
        self.latest = self.latest.max(done.observed.unwrap_or(self.now));
        let error = scope_error(&done, self.latest);
        let is_read = error.is_none() && done.gaps == 0 && done.missing_row.is_none();
        let is_whole = is_read && !self.outcomes.has_failed(&done.scope);
        let seen = ScopeNews {
            last_row_start: done.last_row_start,
            success: done.observed.filter(|_| is_whole),
            error,
            row_bytes: done.pages.row_bytes,
            page_limit: done.pages.page_limit,
        };
        self.outcomes.note(&done, self.report);
        if let Some(last_row_start) = done.missing_row {
            self.suspect(&done.scope, last_row_start);
        }
        self.delta.seen.entry(done.scope).or_default().add(seen);
    }

    /// Tells of a scope that does not show its newest row any more.
    fn suspect(&mut self, scope: &Scope, last_row_start: Timestamp) {
        let (org, project) = (scope.org.to_string(), scope.project.to_string());
        tracing::warn!(
            org.id = org,
            project.id = project,
            "suspiciously empty: nothing is shown from the execution of {last_row_start} on; does \
             the key still have the right to view pipelines there?"
        );
        self.report.suspiciously_empty.push(SuspiciouslyEmpty {
            org,
            project,
            last_row_start,
        });
    }

    /// Merges and derives what is spooled, then commits it: tables first, checkpoint last.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] where a signal came and the time after it did not suffice: nothing of
    /// this spool is committed, and the next run reads it again.
    pub(super) async fn flush(&mut self) -> Result<Record, Error> {
        if self.is_cut_short {
            return Err(Error::Interrupted);
        }
        let _lock = self.lock().await?;
        let run_id = &self.report.run_id;
        let may_go_on = may_go_on(self.stop.clone());
        let landed = self
            .lake
            .merge_spool(run_id, self.part, &mut self.spool, may_go_on)
            .await?;
        let Some(mut landed) = landed else {
            self.is_cut_short = true;
            return Err(Error::Interrupted);
        };
        self.delta.open_updates.append(&mut landed.open_updates);
        let (record, files) = self.lake.commit(run_id, self.now, &self.delta).await?;
        self.report.add(landed);
        self.report.add_files(files);
        self.report.sum_up(&record.state);
        self.delta = Delta::default();
        self.since = Instant::now();
        self.part += 1;
        Ok(record)
    }

    /// Takes the lock of the lake. A signal ends a long wait, and begins a short one.
    async fn lock(&mut self) -> Result<LockGuard, Error> {
        let store = self.lake.store();
        if *self.stop.borrow() {
            let lock = store.lock(AFTER_SIGNAL / 3).await;
            return lock.map_err(|_| Error::Interrupted);
        }
        let lock = or_stop(&mut self.stop, store.lock(LOCK_TIMEOUT)).await?;
        Ok(lock?)
    }

    /// How the run ends, from how its scopes did.
    pub(super) fn verdict(self, exit: u8) -> Result<(), Error> {
        // A scope with nothing left to ask for is as good as one that answered.
        self.report.scopes.ok = self.report.scopes.total - self.report.scopes.failed;
        self.outcomes.verdict(self.report, exit)
    }
}

fn warn_of(failure: &Failure) {
    let (org, project, code) = (&failure.org, &failure.project, failure.code.name());
    tracing::warn!(
        org.id = org,
        project.id = project,
        code,
        "{}",
        failure.message
    );
}

/// The failure of a scope as the checkpoint keeps it.
fn scope_error(done: &ScopeDone, at: Timestamp) -> Option<ScopeError> {
    let failure = done.failure.as_ref()?;
    Some(ScopeError {
        at,
        code: code_of_source(failure).name().to_owned(),
        message: chain(failure),
    })
}

/// Says yes until some seconds after a signal.
fn may_go_on(stop: StopSignal) -> impl FnMut() -> bool {
    let mut noticed: Option<Instant> = None;
    move || !*stop.borrow() || noticed.get_or_insert_with(Instant::now).elapsed() < AFTER_SIGNAL
}

/// How the scopes of a run did. A `backfill` reads a scope in several asks.
#[derive(Debug, Default)]
struct Outcomes {
    ok: BTreeSet<Scope>,
    failed: BTreeSet<Scope>,
    /// Organizations whose projects could not be listed.
    unlisted: usize,
}

impl Outcomes {
    fn note(&mut self, done: &ScopeDone, report: &mut Report) {
        let gaps = done.gaps;
        let (code, message) = match &done.failure {
            Some(error) => (code_of_source(error), chain(error)),
            None if 0 < gaps => {
                let message =
                    format!("{gaps} windows did not come whole; the next run reads them first");
                (Code::Partial, message)
            }
            None => {
                self.ok.insert(done.scope.clone());
                self.count(report);
                return;
            }
        };
        let is_known = !self.failed.insert(done.scope.clone());
        self.count(report);
        if is_known {
            return;
        }
        let failure = Failure::of(&done.scope, code, message);
        warn_of(&failure);
        report.failures.push(failure);
    }

    fn has_failed(&self, scope: &Scope) -> bool {
        self.failed.contains(scope)
    }

    fn count(&self, report: &mut Report) {
        report.scopes.failed = self.failed.len();
        report.scopes.ok = self
            .ok
            .iter()
            .filter(|scope| !self.failed.contains(scope))
            .count();
    }

    /// None succeeded and all for one reason: that reason. Some failed: partial.
    fn verdict(&self, report: &Report, exit: u8) -> Result<(), Error> {
        let (failed, total) = (self.failed.len(), report.scopes.total);
        let unlisted = self.unlisted;
        if failed == 0 && unlisted == 0 {
            return Ok(());
        }
        let of_scopes = report
            .failures
            .iter()
            .filter(|told| !told.project.is_empty());
        let is_all = failed == total && self.ok.is_empty();
        let none_read = Error::none_read(of_scopes).filter(|_| is_all);
        Err(none_read.unwrap_or(Error::Partial {
            failed,
            total,
            unlisted,
            exit,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use tokio::sync::watch;

    use super::*;
    use crate::ids::AccountId;
    use crate::lake::OpenOptions;
    use crate::lake::store::Store;
    use crate::pii::PiiRequest;
    use crate::source::SourceError;
    use crate::window::{Window, from_ms};

    /// A lake in memory.
    async fn new_lake() -> Lake {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "".into(), "memory");
        let account = AccountId::new("account");
        let scratch = std::env::temp_dir();
        let options = OpenOptions {
            account: &account,
            now: from_ms(0),
            buckets: None,
            pii: &PiiRequest::default(),
            scratch: &scratch,
        };
        Lake::open(store, &options).await.unwrap()
    }

    #[tokio::test]
    async fn a_merge_that_was_cut_short_is_not_committed_by_a_second_try() {
        let lake = new_lake().await;
        let account = lake.account().clone();
        let mut report = Report::begin("run".to_owned(), "sync", account, from_ms(0));
        let (_signal, stop) = watch::channel(true);
        let mut committer = Committer::new(&lake, &mut report, stop, from_ms(0));
        let window = Window::new(from_ms(0), from_ms(1)).unwrap();
        let scope = Scope::new("org", "project");
        committer
            .delta
            .covered
            .entry(scope)
            .or_default()
            .add(window);
        committer.is_cut_short = true;
        assert!(matches!(committer.flush().await, Err(Error::Interrupted)));
        assert_eq!(Record::newest(lake.store()).await.unwrap().number, 0);
        committer.is_cut_short = false;
        committer.flush().await.unwrap();
        assert_eq!(Record::newest(lake.store()).await.unwrap().number, 1);
    }

    #[tokio::test]
    async fn a_later_success_of_the_same_run_hides_no_failure() {
        let lake = new_lake().await;
        let account = lake.account().clone();
        let mut report = Report::begin("run".to_owned(), "backfill", account, from_ms(0));
        let (_signal, stop) = watch::channel(false);
        let mut committer = Committer::new(&lake, &mut report, stop, from_ms(10));
        let scope = Scope::new("org", "project");
        let done = |at, failure| ScopeDone {
            observed: Some(from_ms(at)),
            failure,
            ..ScopeDone::failed(scope.clone(), SourceError::InvalidKey)
        };
        committer.done(done(20, None));
        committer.done(done(30, Some(SourceError::InvalidKey)));
        committer.done(done(40, None));
        let record = committer.flush().await.unwrap();
        let known = &record.state.scopes[&scope];
        assert_eq!(known.last_error.as_ref().unwrap().at, from_ms(30));
        assert_eq!(known.last_success, Some(from_ms(20)));
    }
}
