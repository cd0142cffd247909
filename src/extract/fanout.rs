//! Reads all scopes at once, bounded: one task a scope, one channel, one budget of bytes in flight.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::paging::Paging;
use super::{PageHints, ReadPlan};
use crate::checkpoint::OpenExecution;
use crate::drift::Drift;
use crate::ids::{PlanExecutionId, Scope};
use crate::observation::{Observation, Version};
use crate::source::{Client, Endpoint, ExecutionsQuery, Page, Place, RetryState, SourceError};
use crate::window::Window;

/// What reading tells, in the order in which it happened within a scope.
#[derive(Debug)]
pub enum Event {
    /// Rows of a page, with their share of the budget: it is given back when they are taken in.
    Rows(Rows),
    /// A window came whole; its rows were told before.
    WindowComplete(Scope, Window),
    /// A window did not come whole.
    WindowIncomplete(Scope, Window),
    /// A whole poll at this time did not show an open execution.
    PollMissed(PlanExecutionId, Timestamp),
    /// A scope is done.
    Done(Box<ScopeDone>),
}

/// The rows of a page.
#[derive(Debug)]
pub struct Rows {
    /// Rows with a start, and so with a partition.
    pub observations: Vec<Observation>,
    /// Rows without one.
    pub undated: Vec<(PlanExecutionId, OpenExecution)>,
    /// What was odd about the page.
    pub drift: Drift,
    _share: Option<OwnedSemaphorePermit>,
}

impl Rows {
    /// Rows that no page of now holds: what was observed earlier and kept.
    pub fn of(observations: Vec<Observation>) -> Self {
        Self {
            observations,
            undated: Vec::new(),
            drift: Drift::default(),
            _share: None,
        }
    }
}

/// How the reading of a scope ended.
#[derive(Debug)]
pub struct ScopeDone {
    /// The scope.
    pub scope: Scope,
    /// When it was last answered.
    pub observed: Option<Timestamp>,
    /// `start_ts` of its newest row.
    pub last_row_start: Option<Timestamp>,
    /// Rows that came, repeated ones included.
    pub rows: u64,
    /// Windows that did not come whole.
    pub gaps: u32,
    /// What was learned of its pages.
    pub pages: PageHints,
    /// `start_ts` of a row that should have been among them, where none came at all.
    pub missing_row: Option<Timestamp>,
    /// Why it was not read to its end.
    pub failure: Option<SourceError>,
}

/// Why the reading of a scope stops.
#[derive(Debug)]
pub(super) enum ReadEnd {
    /// The source does not answer.
    Source(SourceError),
    /// Nobody listens any more: the run is ending.
    Abandoned,
}

/// What all scopes of a run share.
pub(super) struct Shared<'a> {
    client: &'a Client,
    largest_page: u32,
    /// Kilobytes of pages in flight that are left.
    budget: Arc<Semaphore>,
    /// Whether the server acts on lists of ids, until it shows otherwise.
    pub(super) ids_are_honoured: AtomicBool,
    /// Rows that the server gives in a page at most, whatever it is asked for.
    page_cap: AtomicU32,
    /// What seems to be that, and the window that showed it: one short page may be a row that is hidden.
    supposed_cap: Mutex<Option<(u32, Scope, Window)>>,
    /// The largest average row of any scope so far, 0 before: what a scope has that no run has seen.
    row_bytes: AtomicU32,
    /// Executions without a start that were told.
    undated: Mutex<HashSet<PlanExecutionId>>,
}

impl Shared<'_> {
    /// Takes note of a page's executions without a start; false, and none, where they are too many.
    fn has_room_for_undated(&self, page: &Page) -> bool {
        let mut undated = self.undated.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = page.rows.iter().filter(|row| row.start.is_none());
        let new = rows.filter(|row| !undated.contains(&row.id));
        let new: Vec<_> = new.map(|row| row.id.clone()).collect();
        let has_room = new.is_empty() || undated.len() + new.len() <= UNDATED;
        if has_room {
            undated.extend(new);
        }
        has_room
    }
}

/// Reads one scope.
pub(super) struct ScopeReader<'a> {
    pub(super) scope: Scope,
    pub(super) run: &'a Shared<'a>,
    pub(super) suspicions: u32,
    pub(super) paging: Paging,
    /// What the window that is read has cost in vain so far: all its pages share one patience.
    pub(super) tried: RetryState,
    events: mpsc::Sender<Event>,
    done: ScopeDone,
    seen: HashSet<PlanExecutionId>,
    watched: HashSet<PlanExecutionId>,
    /// Whether the source has shown rows of the scope, so that an answer of nothing is to be doubted.
    has_history: bool,
    /// Windows that came empty before any row did.
    doubtful: Vec<Window>,
    /// The share of the page that is asked for, or was answered last.
    share: Option<OwnedSemaphorePermit>,
}

/// Executions without a start that a run tells at most: each stays in the checkpoint, which every run reads whole.
const UNDATED: usize = 1_000;

/// Rows that servers give in a page at most.
const USUAL_CAPS: [u32; 8] = [10, 20, 25, 50, 100, 200, 250, 500];

/// Kilobytes of pages in flight.
const BUDGET_KB: u32 = 32 << 10;

/// Reads every ask, `concurrency` scopes at a time, and tells what happens to `events`.
///
/// Ends when all is read, when nobody listens any more, or when a failure shows that no request
/// will ever succeed (the key was refused).
///
/// # Errors
///
/// [`SourceError`] of that last kind. Any other failure is one scope's, told in its [`ScopeDone`].
pub async fn fan_out(
    client: &Client,
    asks: Vec<(Scope, ReadPlan)>,
    concurrency: usize,
    largest_page: u32,
    events: mpsc::Sender<Event>,
) -> Result<(), SourceError> {
    let run = Shared {
        client,
        largest_page,
        budget: Arc::new(Semaphore::new(BUDGET_KB as usize)),
        ids_are_honoured: AtomicBool::new(true),
        page_cap: AtomicU32::new(u32::MAX),
        supposed_cap: Mutex::new(None),
        row_bytes: AtomicU32::new(0),
        undated: Mutex::new(HashSet::new()),
    };
    let mut scopes = futures::stream::iter(asks)
        .map(|(scope, ask)| read_scope(&run, scope, ask, events.clone()))
        .buffer_unordered(concurrency.max(1));
    while let Some(read) = scopes.next().await {
        read?;
    }
    Ok(())
}

#[tracing::instrument(name = "scope", skip_all, fields(org.id = %scope.org, project.id = %scope.project))]
async fn read_scope(
    run: &Shared<'_>,
    scope: Scope,
    ask: ReadPlan,
    events: mpsc::Sender<Event>,
) -> Result<(), SourceError> {
    let mut reader = ScopeReader {
        done: ScopeDone::new(scope.clone(), ask.pages),
        scope,
        run,
        suspicions: 0,
        paging: Paging::new(ask.pages, run.largest_page),
        tried: RetryState::default(),
        events,
        seen: HashSet::new(),
        watched: HashSet::new(),
        has_history: ask.history.is_some(),
        doubtful: Vec::new(),
        share: None,
    };
    let failure = match reader.read(&ask).await {
        Ok(()) => None,
        Err(ReadEnd::Abandoned) => return Ok(()),
        Err(ReadEnd::Source(error)) if error.is_unauthorized() => return Err(error),
        Err(ReadEnd::Source(error)) => Some(error),
    };
    let ScopeReader {
        done,
        events,
        paging,
        ..
    } = reader;
    let done = ScopeDone {
        failure,
        pages: paging.hints(),
        ..done
    };
    tracing::debug!(rows = done.rows, gaps = done.gaps, "read a scope");
    // Nobody listening means that the run is ending.
    drop(events.send(Event::Done(Box::new(done))).await);
    Ok(())
}

impl ScopeReader<'_> {
    async fn read(&mut self, ask: &ReadPlan) -> Result<(), ReadEnd> {
        self.watch(&ask.expected);
        for (at, window) in ask.windows.iter().enumerate() {
            let read = self.read_window(*window).await;
            if let Err(stop) = read {
                for window in &ask.windows[at + 1..] {
                    self.tell(Event::WindowIncomplete(self.scope.clone(), *window))
                        .await?;
                }
                let doubtful = std::mem::take(&mut self.doubtful);
                self.disbelieve(ask, doubtful).await?;
                return Err(stop);
            }
        }
        if !self.settle(ask).await? {
            return Ok(());
        }
        self.poll(&ask.open).await?;
        // A gap may hold what no row showed.
        if self.done.gaps == 0 {
            self.emit_missing(ask.expected.iter().map(|(id, _)| id))
                .await?;
        }
        Ok(())
    }

    /// Watches for rows of these executions, so that their absence can be told.
    pub(super) fn watch(&mut self, open: &[(PlanExecutionId, Timestamp)]) {
        self.watched.extend(open.iter().map(|(id, _)| id.clone()));
    }

    /// Tells as missed what was watched for and no row has shown.
    pub(super) async fn emit_missing(
        &mut self,
        watched: impl Iterator<Item = &PlanExecutionId>,
    ) -> Result<(), ReadEnd> {
        let Some(observed) = self.done.observed else {
            return Ok(());
        };
        for id in watched {
            if !self.seen.contains(id) {
                self.tell(Event::PollMissed(id.clone(), observed)).await?;
            }
        }
        Ok(())
    }

    /// Asks for a page, once the budget has room for it.
    pub(super) async fn ask(
        &mut self,
        window: Window,
        ids: &[PlanExecutionId],
        page: u32,
        size: u32,
    ) -> Result<Page, SourceError> {
        // The share of an earlier page goes with its rows, or ends here.
        self.share = None;
        self.share = self.take_share(self.paging.bytes(size)).await;
        let query = ExecutionsQuery {
            scope: &self.scope,
            window,
            ids,
            page,
            size,
        };
        let asked = self.run.client.executions_after(&query, self.tried).await;
        let page = asked.inspect_err(|error| {
            if let SourceError::Unavailable { so_far, .. } = error {
                self.tried = **so_far;
            }
        })?;
        self.tried.answered();
        self.done.observed = self.done.observed.max(Some(page.observed));
        self.paging.came(size, page.rows.len(), page.bytes);
        if let Some(row_bytes) = self.paging.hints().row_bytes {
            self.run.row_bytes.fetch_max(row_bytes, Ordering::Relaxed);
        }
        Ok(page)
    }

    /// Tells the rows of a page, each with the time of its answer.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`] where too many have no start.
    pub(super) async fn emit_rows(&mut self, page: Page, window: Window) -> Result<(), ReadEnd> {
        if !self.run.has_room_for_undated(&page) {
            let place = Place {
                endpoint: Endpoint::Executions,
                of: Some(self.scope.to_string()),
            };
            let limit = UNDATED;
            return Err(ReadEnd::Source(SourceError::Undated { place, limit }));
        }
        let mut rows = Rows {
            observations: Vec::with_capacity(page.rows.len()),
            undated: Vec::new(),
            drift: page.drift,
            _share: self.share.take(),
        };
        self.done.rows += page.rows.len() as u64;
        for row in page.rows {
            if self.watched.contains(&row.id) {
                self.seen.insert(row.id.clone());
            }
            let Some(start) = row.start else {
                let open = OpenExecution {
                    scope: self.scope.clone(),
                    start: None,
                    observed: page.observed,
                    revision: 0,
                    missed: [].into(),
                    summary: Some(String::from_utf8_lossy(&row.summary).into_owned()),
                };
                rows.undated.push((row.id, open));
                continue;
            };
            if !window.contains(start) {
                rows.drift
                    .odd_value("start (outside of the window asked for)", row.id.as_str());
            }
            self.done.last_row_start = self.done.last_row_start.max(Some(start));
            rows.observations.push(Observation {
                id: row.id,
                scope: self.scope.clone(),
                start,
                version: Version {
                    observed: page.observed,
                    content_hash: row.content_hash,
                    is_terminal: row.is_terminal,
                },
                first_observed: page.observed,
                summary: row.summary,
            });
        }
        self.tell(Event::Rows(rows)).await
    }

    /// Tells that a window came whole. Whether one without rows did is seen when all are read.
    pub(super) async fn emit_complete(&mut self, window: Window) -> Result<(), ReadEnd> {
        if self.done.rows == 0 && self.has_history {
            self.doubtful.push(window);
            return Ok(());
        }
        self.tell(Event::WindowComplete(self.scope.clone(), window))
            .await
    }

    /// Tells of the windows that came empty, and whether the scope is to be believed.
    ///
    /// They are believed where the scope shows any row, of whatever age, and they are empty still when counted
    /// again. The window of the newest row ever seen is not: it stays open until it shows one.
    async fn settle(&mut self, ask: &ReadPlan) -> Result<bool, ReadEnd> {
        let mut doubtful = std::mem::take(&mut self.doubtful);
        let Some(history) = ask.history.filter(|_| !doubtful.is_empty()) else {
            return Ok(true);
        };
        let is_bare = self.done.rows == 0;
        let shown = if is_bare {
            self.shows_any(history).await
        } else {
            Ok(true)
        };
        let is_shown = match shown {
            Ok(is_shown) => is_shown,
            Err(error) => return self.unsettled(ask, doubtful, error).await,
        };
        let holds_row = |window: &Window| {
            ask.expected_row_start
                .is_some_and(|row| window.contains(row))
        };
        if !is_shown || (is_bare && doubtful.iter().any(holds_row)) {
            self.done.missing_row = ask.expected_row_start;
        }
        if !is_shown {
            self.disbelieve(ask, doubtful).await?;
            return Ok(false);
        }
        while let Some(window) = doubtful.pop() {
            if is_bare && holds_row(&window) {
                continue;
            }
            let event = match self.shows_any(window).await {
                Ok(true) => Event::WindowIncomplete,
                Ok(false) => Event::WindowComplete,
                Err(error) => {
                    doubtful.push(window);
                    return self.unsettled(ask, doubtful, error).await;
                }
            };
            self.tell(event(self.scope.clone(), window)).await?;
        }
        Ok(self.done.missing_row.is_none())
    }

    async fn unsettled(
        &mut self,
        ask: &ReadPlan,
        doubtful: Vec<Window>,
        error: SourceError,
    ) -> Result<bool, ReadEnd> {
        self.disbelieve(ask, doubtful).await?;
        Err(ReadEnd::Source(error))
    }

    /// Whether a window holds any row, by a count.
    async fn shows_any(&self, window: Window) -> Result<bool, SourceError> {
        let page = self.run.client.count(&self.scope, window).await?;
        Ok(page.shows_any())
    }

    /// What a `sync` asked for stays as it was, open back to the newest row; what was counted as full is a gap.
    async fn disbelieve(&mut self, ask: &ReadPlan, windows: Vec<Window>) -> Result<(), ReadEnd> {
        if ask.expected_row_start.is_none() {
            for window in windows {
                self.tell(Event::WindowIncomplete(self.scope.clone(), window))
                    .await?;
            }
        }
        Ok(())
    }

    pub(super) async fn tell(&mut self, event: Event) -> Result<(), ReadEnd> {
        if matches!(event, Event::WindowIncomplete(..)) {
            self.done.gaps += 1;
        }
        self.events
            .send(event)
            .await
            .map_err(|_| ReadEnd::Abandoned)
    }

    async fn take_share(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let kilobytes = (bytes >> 10).clamp(1, BUDGET_KB);
        // The semaphore is never closed.
        Arc::clone(&self.run.budget)
            .acquire_many_owned(kilobytes)
            .await
            .ok()
    }

    /// Rows of the first page of a window.
    pub(super) fn page_size(&mut self) -> u32 {
        let row_bytes = self.run.row_bytes.load(Ordering::Relaxed);
        if 0 < row_bytes {
            self.paging.suppose(row_bytes);
        }
        let cap = self.run.page_cap.load(Ordering::Relaxed);
        self.paging.size().min(cap)
    }

    /// Offset and size of the next page of a window.
    pub(super) fn next_page(&self, size: u32, offset: u32, rest: u64) -> (u32, u32) {
        let next = self.paging.next(size, offset, rest);
        if next.1 <= self.run.page_cap.load(Ordering::Relaxed) {
            next
        } else {
            (offset, size)
        }
    }

    /// The server gave no more than `rows` rows a page where it was asked for more. Where that is a number
    /// that people choose, or another window shows the same, all scopes ask for no more from then on. Else a row
    /// may have been hidden.
    pub(super) fn seems_capped(&mut self, rows: u32, window: Window) {
        let shown = (rows, self.scope.clone(), window);
        let before = {
            let mut supposed = self
                .run
                .supposed_cap
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            supposed.replace(shown.clone())
        };
        let is_known = before.is_some_and(|before| before.0 == rows && before != shown);
        if !is_known && !USUAL_CAPS.contains(&rows) {
            return;
        }
        self.paging.capped(rows);
        if rows < self.run.page_cap.fetch_min(rows, Ordering::Relaxed) {
            tracing::info!(rows, "this server gives smaller pages than it is asked for");
        }
    }

    /// Whether a page of `size` rows that failed this way is to be asked for again in a smaller size.
    pub(super) fn shrinks(&mut self, error: &SourceError, size: u32) -> bool {
        let is_sure = matches!(error, SourceError::Rejected { .. });
        let is_affordable = is_sure || self.run.client.has_patience(self.tried);
        error.wants_smaller_page() && is_affordable && self.paging.too_large(size, is_sure)
    }
}

impl ScopeDone {
    /// A scope that failed before anything was read of it.
    pub fn failed(scope: Scope, failure: SourceError) -> Self {
        Self {
            failure: Some(failure),
            ..Self::new(scope, PageHints::default())
        }
    }

    /// A scope of which windows were counted and found empty.
    pub fn counted(scope: Scope, observed: Timestamp) -> Self {
        Self {
            observed: Some(observed),
            ..Self::new(scope, PageHints::default())
        }
    }

    fn new(scope: Scope, pages: PageHints) -> Self {
        Self {
            scope,
            observed: None,
            last_row_start: None,
            rows: 0,
            gaps: 0,
            pages,
            missing_row: None,
            failure: None,
        }
    }
}
