//! The reader of one scope: requests pages and emits their rows.

use std::collections::HashSet;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::empty::EmptyWindows;
use super::isolate::Isolation;
use super::paging::Paging;
use super::shared::{MAX_UNDATED, Shared};
use super::split::SuspicionBudget;
use super::{Complete, Event, Incomplete, ReadPlan, Rows, ScopeDone};
use crate::causes::chain;
use crate::checkpoint::{OpenExecution, UnknownFields};
use crate::ids::{PlanExecutionId, Scope};
use crate::observation::{Observation, Version};
use crate::source::{Endpoint, ExecutionsQuery, Page, PageRow, Resource, RetryState, SourceError};
use crate::window::Window;

/// Pages of a turn, after which a scope waits for the others.
const TURN_PAGES: u32 = 16;

/// Attempts at a pending window.
const PENDING_ATTEMPTS: u32 = 3;

/// The reason why the reading of a scope ends early.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// The source failed, retries included.
    Source(SourceError),
    /// The run is ending: it asked to stop, or dropped the receiver of the events.
    Stopped,
}

/// The reader of one scope.
pub(super) struct ScopeReader<'a> {
    scope: Scope,
    shared: &'a Shared<'a>,
    events: mpsc::Sender<Event>,
    done: ScopeDone,
    paging: Paging,
    suspicions: SuspicionBudget,
    isolation: Isolation,
    empty: EmptyWindows,
    /// Failed attempts at the current window: all its pages share one retry policy.
    retries: RetryState,
    /// Whether pending windows are being read: they have failed before, so few attempts are made.
    reads_pending: bool,
    /// Executions whose absence is to be noticed.
    watched: HashSet<PlanExecutionId>,
    /// Those of them that a row showed.
    seen: HashSet<PlanExecutionId>,
    /// Memory reserved for the page that is requested, or was received last.
    memory: Option<OwnedSemaphorePermit>,
    /// The current turn.
    turn: Option<OwnedSemaphorePermit>,
    /// Pages received in it.
    turn_pages: u32,
    /// Whether long windows may be cut after some pages.
    may_cut: bool,
}

impl<'a> ScopeReader<'a> {
    pub(super) fn new(
        shared: &'a Shared<'a>,
        scope: Scope,
        plan: &ReadPlan,
        events: mpsc::Sender<Event>,
    ) -> Self {
        Self {
            done: ScopeDone::new(scope.clone(), plan.pages),
            scope,
            shared,
            events,
            paging: Paging::new(plan.pages, shared.largest_page()),
            suspicions: SuspicionBudget::default(),
            isolation: Isolation::default(),
            empty: EmptyWindows::new(plan),
            retries: RetryState::default(),
            reads_pending: false,
            watched: HashSet::new(),
            seen: HashSet::new(),
            memory: None,
            turn: None,
            turn_pages: 0,
            may_cut: true,
        }
    }

    /// Emits the outcome of the scope.
    pub(super) async fn finish(self, failure: Option<SourceError>) {
        let done = ScopeDone {
            failure,
            pages: self.paging.hints(),
            ..self.done
        };
        tracing::debug!(rows = done.rows, gaps = done.gaps, "read a project");
        // A dropped receiver means that the run is ending.
        drop(self.events.send(Event::Done(Box::new(done))).await);
    }
}

/// Turns.
impl ScopeReader<'_> {
    /// Waits for the next turn, after all scopes that wait already.
    pub(super) async fn next_turn(&mut self) -> Result<(), ReadEnd> {
        self.memory = None;
        self.turn = None;
        self.turn_pages = 0;
        self.turn = self.shared.turns().next().await;
        self.stop_if_ending()
    }

    /// Returns whether other scopes wait while this one has read many pages.
    pub(super) fn is_turn_over(&self) -> bool {
        self.turn_pages >= TURN_PAGES && self.shared.turns().are_awaited()
    }

    /// Waits until the new data of all scopes is read.
    pub(super) async fn wait_for_new_data(&mut self) -> Result<(), ReadEnd> {
        self.memory = None;
        self.turn = None;
        self.shared.turns().all_read().await;
        self.next_turn().await
    }

    /// Returns whether the run is ending.
    pub(super) fn is_ending(&self) -> bool {
        self.shared.is_ending()
    }

    /// Ends the reading if the run is ending.
    pub(super) fn stop_if_ending(&self) -> Result<(), ReadEnd> {
        if self.is_ending() {
            Err(ReadEnd::Stopped)
        } else {
            Ok(())
        }
    }

    /// Returns whether long windows may be cut after some pages.
    pub(super) fn may_cut(&self) -> bool {
        self.may_cut
    }

    /// Stops cutting windows: the totals of the server do not add up.
    pub(super) fn stop_cutting(&mut self) {
        self.may_cut = false;
    }
}

/// Requests.
impl ScopeReader<'_> {
    /// Requests a page, once the memory budget has space for it.
    pub(super) async fn fetch_page(
        &mut self,
        window: Window,
        ids: &[PlanExecutionId],
        page: u32,
        size: u32,
    ) -> Result<Page, SourceError> {
        // The reservation of an earlier page went with its rows, or ends here.
        self.memory = None;
        self.memory = self.shared.reserve(self.paging.page_bytes(size)).await;
        let query = ExecutionsQuery {
            scope: &self.scope,
            window,
            ids,
            page,
            size,
        };
        let client = self.shared.client();
        let send = async |retries| client.executions_after(&query, retries).await;
        let page = self
            .shared
            .request(&self.scope, &mut self.retries, send)
            .await?;
        self.turn_pages += 1;
        self.retries.clear_wait();
        self.isolation.answered();
        self.done.observed = self.done.observed.max(Some(page.observed));
        self.paging.received(size, page.rows.len(), page.bytes);
        if let Some(row_bytes) = self.paging.hints().row_bytes {
            self.shared.note_row_bytes(row_bytes);
        }
        Ok(page)
    }

    /// Counts a window and returns whether it contains a row.
    pub(super) async fn has_rows(&self, window: Window) -> Result<bool, SourceError> {
        let page = self.shared.count(&self.scope, window).await?;
        Ok(page.has_executions())
    }

    /// Returns the rows that the source counts in a window, if it reports them.
    pub(super) async fn count_rows(&self, window: Window) -> Result<Option<u64>, SourceError> {
        let page = self.shared.count(&self.scope, window).await?;
        Ok(page.total)
    }

    /// Remembers how many rows a day has.
    pub(super) fn note_rows(&mut self, window: Window, rows: u64) {
        if !self.reads_pending {
            self.paging.note_rows(window, rows);
        }
    }

    /// Returns the rows of an hour, if a long window has shown them.
    pub(super) fn rows_per_hour(&self) -> Option<i64> {
        let (rows, hours) = self.paging.hints().window_rows?;
        Some(i64::from(rows) / i64::from(hours.max(1)))
    }

    /// Returns the size of the first page of a window.
    pub(super) fn page_size(&mut self) -> u32 {
        if let Some(row_bytes) = self.shared.row_bytes() {
            self.paging.assume_row_bytes(row_bytes);
        }
        self.paging.size().min(self.shared.page_cap())
    }

    /// Returns offset and size of the next page of a window, of which `rest` rows are unread.
    pub(super) fn next_page(&self, size: u32, offset: u32, rest: u64) -> (u32, u32) {
        let next = self.paging.next(size, offset, rest);
        if next.1 <= self.shared.page_cap() {
            next
        } else {
            (offset, size)
        }
    }

    /// Records that the server returned only `rows` rows per page of a window.
    pub(super) fn observe_page_cap(&mut self, rows: u32, window: Window) {
        if self.shared.observe_page_cap(rows, &self.scope, window) {
            self.paging.limit_to(rows);
        }
    }

    /// Returns whether a page of `size` rows that failed with `error` is to be requested in a smaller
    /// size, and records the failure.
    pub(super) fn shrink_page(&mut self, error: &SourceError, size: u32) -> bool {
        let is_certain = matches!(error, SourceError::Rejected { .. });
        let may_retry = is_certain || self.shared.client().may_retry(self.retries);
        error.wants_smaller_page() && may_retry && self.paging.page_failed(size, is_certain)
    }

    /// Resets the retries before the next window. The parts of a failed window get one attempt each.
    pub(super) fn reset_retries(&mut self) {
        self.retries = RetryState::default();
        if self.isolation.is_active() {
            self.limit_attempts(1);
        } else if self.reads_pending {
            self.limit_attempts(PENDING_ATTEMPTS);
        }
    }

    /// Limits the attempts at the windows that follow: they are pending, so they may have failed before.
    pub(super) fn start_pending(&mut self) {
        self.reads_pending = true;
    }

    /// Limits the failed attempts of the next reads.
    pub(super) fn limit_attempts(&mut self, attempts: u32) {
        self.retries = self.shared.client().attempts_left(attempts);
    }

    /// Requests once what must be empty, to learn whether the source answers for this scope.
    pub(super) async fn probe(&mut self) -> Result<(), SourceError> {
        self.shared.client().probe(&self.scope).await?;
        self.isolation.answered();
        Ok(())
    }

    pub(super) fn isolation(&mut self) -> &mut Isolation {
        &mut self.isolation
    }

    /// Returns whether the server filters by execution id, as far as known.
    pub(super) fn filters_by_id(&self) -> bool {
        self.shared.filters_by_id()
    }

    /// Records that the server ignored a list of execution ids.
    pub(super) fn note_ids_ignored(&self) {
        self.shared.note_ids_ignored();
    }

    pub(super) fn suspicions(&mut self) -> &mut SuspicionBudget {
        &mut self.suspicions
    }

    pub(super) fn empty_windows(&mut self) -> &mut EmptyWindows {
        &mut self.empty
    }

    /// Returns whether any row was received.
    pub(super) fn has_received_rows(&self) -> bool {
        self.done.rows > 0
    }

    /// Returns whether the source has answered for this scope in this run, or shown rows of it to an earlier one.
    pub(super) fn was_readable(&self) -> bool {
        self.done.observed.is_some() || self.empty.has_history()
    }

    /// Records an open execution that could not be polled though the source is up.
    pub(super) fn note_failed_poll(&mut self, error: &SourceError) {
        self.done.failed_polls += 1;
        self.done.poll_failure = Some(chain(error));
    }

    /// Returns whether any window is incomplete.
    pub(super) fn has_gaps(&self) -> bool {
        self.done.gaps > 0
    }
}

/// Events.
impl ScopeReader<'_> {
    /// Emits the rows of a page, each with the time of its response.
    ///
    /// # Errors
    ///
    /// [`SourceError::Undated`] if too many have no start.
    pub(super) async fn emit_rows(&mut self, page: Page, window: Window) -> Result<(), ReadEnd> {
        if !self.shared.accept_undated(&page) {
            let resource = Resource {
                endpoint: Endpoint::Executions,
                within: Some(self.scope.to_string()),
            };
            let limit = MAX_UNDATED;
            return Err(ReadEnd::Source(SourceError::Undated { resource, limit }));
        }
        let mut rows = Rows::with_memory(self.memory.take());
        rows.observations.reserve_exact(page.rows.len());
        rows.drift = page.drift;
        self.done.rows += page.rows.len() as u64;
        for row in page.rows {
            if self.watched.contains(&row.id) {
                self.seen.insert(row.id.clone());
            }
            let Some(start) = row.start else {
                rows.undated.push(self.undated(row, page.observed));
                continue;
            };
            if !window.contains(start) {
                rows.drift
                    .odd_value("startTs (outside the requested window)", row.id.as_str());
            }
            self.done.last_row_start = self.done.last_row_start.max(Some(start));
            rows.observations
                .push(self.observation(row, start, page.observed));
        }
        self.emit(Event::Rows(rows)).await
    }

    fn undated(&self, row: PageRow, observed: Timestamp) -> (PlanExecutionId, OpenExecution) {
        let open = OpenExecution {
            scope: self.scope.clone(),
            start: None,
            observed,
            revision: 0,
            missed: [].into(),
            summary: Some(String::from_utf8_lossy(&row.summary).into_owned()),
            unknown: UnknownFields::new(),
        };
        (row.id, open)
    }

    fn observation(&self, row: PageRow, start: Timestamp, observed: Timestamp) -> Observation {
        Observation {
            id: row.id,
            scope: self.scope.clone(),
            start,
            version: Version {
                observed,
                content_hash: row.content_hash,
                is_terminal: row.is_terminal,
            },
            first_observed: observed,
            summary: row.summary,
        }
    }

    /// Emits that a window is complete.
    pub(super) async fn emit_complete(&mut self, window: Window) -> Result<(), ReadEnd> {
        self.emit(Event::WindowComplete(Complete {
            scope: self.scope.clone(),
            window,
            last_row_start: self.done.last_row_start,
            pages: self.paging.hints(),
        }))
        .await
    }

    /// Emits that the lookback follows when the new data of all scopes is read.
    pub(super) async fn emit_lookback(&mut self, windows: &[Window]) -> Result<(), ReadEnd> {
        for window in windows {
            self.emit(Event::LookbackDue(self.scope.clone(), *window))
                .await?;
        }
        Ok(())
    }

    /// Emits that reading ended before a window was complete: the next run reads it.
    pub(super) async fn emit_incomplete(&mut self, window: Window) -> Result<(), ReadEnd> {
        self.emit_gap(window, None).await
    }

    /// Emits that a window failed though the source is up.
    pub(super) async fn emit_failed(
        &mut self,
        window: Window,
        reason: String,
    ) -> Result<(), ReadEnd> {
        self.emit_gap(window, Some(reason)).await
    }

    async fn emit_gap(&mut self, window: Window, reason: Option<String>) -> Result<(), ReadEnd> {
        self.done.gaps += 1;
        let scope = self.scope.clone();
        self.emit(Event::WindowIncomplete(Incomplete {
            scope,
            window,
            reason,
        }))
        .await
    }

    /// Emits that a complete poll did not return an execution.
    pub(super) async fn emit_poll_missed(
        &mut self,
        id: &PlanExecutionId,
        observed: Timestamp,
    ) -> Result<(), ReadEnd> {
        self.emit(Event::PollMissed(id.clone(), observed)).await
    }

    /// Ends the current window as complete, unless it is suspiciously empty: then it waits for
    /// [`ScopeReader::confirm_empty`].
    pub(super) async fn complete_window(&mut self, window: Window) -> Result<(), ReadEnd> {
        self.reset_retries();
        self.paging.window_complete();
        if !self.has_received_rows() && self.empty.distrust(window) {
            return Ok(());
        }
        self.emit_complete(window).await
    }

    /// Records the newest known row as missing from the source.
    pub(super) fn set_missing_row(&mut self, start: Option<Timestamp>) {
        self.done.missing_row = start;
    }

    /// Returns whether the newest known row is missing from the source.
    pub(super) fn has_missing_row(&self) -> bool {
        self.done.missing_row.is_some()
    }

    /// Watches for rows of these executions, so that their absence is noticed.
    pub(super) fn watch(&mut self, open: &[(PlanExecutionId, Timestamp)]) {
        self.watched.extend(open.iter().map(|(id, _)| id.clone()));
    }

    /// Emits a missed poll for each watched execution that no row showed.
    pub(super) async fn emit_missing(
        &mut self,
        watched: impl Iterator<Item = &PlanExecutionId>,
    ) -> Result<(), ReadEnd> {
        let Some(observed) = self.done.observed else {
            return Ok(());
        };
        for id in watched {
            if !self.seen.contains(id) {
                self.emit_poll_missed(id, observed).await?;
            }
        }
        Ok(())
    }

    async fn emit(&mut self, event: Event) -> Result<(), ReadEnd> {
        self.events.send(event).await.map_err(|_| ReadEnd::Stopped)
    }
}
