//! Counts the windows of one scope of a backfill, and distrusts empty counts as [`super::empty`] does empty pages.

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::count::{CountedWindow, rows_of};
use super::queue::CountPlan;
use super::reader::ReadEnd;
use super::shared::Shared;
use super::slices::{SLICE_ROWS, slice_count};
use super::{Complete, Counted, Event, Incomplete, ScopeDone};
use crate::checkpoint::CountedRows;
use crate::ids::Scope;
use crate::source::SourceError;
use crate::window::Window;

/// The counts of one scope so far.
pub(super) struct ScopeCounter<'a> {
    shared: &'a Shared<'a>,
    scope: Scope,
    events: mpsc::Sender<Event>,
    empty: Vec<Window>,
    with_rows: Vec<CountedRows>,
    /// Windows whose count failed because of single rows: reading them isolates the failure.
    uncountable: Vec<Window>,
    failed: Vec<(Window, SourceError)>,
    /// Time of the last response.
    observed: Option<Timestamp>,
}

impl<'a> ScopeCounter<'a> {
    pub(super) fn new(shared: &'a Shared<'a>, scope: Scope, events: mpsc::Sender<Event>) -> Self {
        Self {
            shared,
            scope,
            events,
            empty: Vec::new(),
            with_rows: Vec::new(),
            uncountable: Vec::new(),
            failed: Vec::new(),
            observed: None,
        }
    }

    /// Counts the windows. Emits the empty ones as complete, if they are trusted, and returns those to read.
    ///
    /// If a scope has shown rows before and shows none in these windows, it is trusted only if it shows any within
    /// the retention. Its windows are then counted once more; otherwise they are gaps.
    ///
    /// # Errors
    ///
    /// [`ReadEnd::Source`] if the key is rejected, [`ReadEnd::Stopped`] if the run is ending. Any other failure is
    /// part of the [`ScopeDone`].
    pub(super) async fn run(mut self, plan: &CountPlan) -> Result<Vec<CountedWindow>, ReadEnd> {
        self.count(&plan.windows).await?;
        let shows_none = self.with_rows.is_empty() && self.uncountable.is_empty();
        if shows_none
            && !self.empty.is_empty()
            && let (Some(known_row), Some(retained)) = (plan.known_row, plan.retained)
        {
            if self.shared.is_ending() {
                return Err(ReadEnd::Stopped);
            }
            // A single response may be wrong, so only a second empty count is trusted.
            match self.request(retained).await {
                Ok(Some(_)) => {
                    let empty = std::mem::take(&mut self.empty);
                    self.count(&empty).await?;
                }
                Ok(None) => return self.distrust(Some(known_row), None).await,
                Err(error) if error.is_unauthorized() => return Err(ReadEnd::Source(error)),
                Err(error) => return self.distrust(None, Some(error)).await,
            }
        }
        self.conclude().await
    }

    /// Counts windows until the run is ending.
    async fn count(&mut self, windows: &[Window]) -> Result<(), ReadEnd> {
        for window in windows.iter().copied() {
            if self.shared.is_ending() {
                return Ok(());
            }
            match self.request(window).await {
                Ok(Some(rows)) => self.with_rows.push(CountedRows { window, rows }),
                Ok(None) => self.empty.push(window),
                Err(error) if error.is_unauthorized() => return Err(ReadEnd::Source(error)),
                Err(error) if error.may_concern_single_rows() => self.uncountable.push(window),
                Err(error) => self.failed.push((window, error)),
            }
        }
        Ok(())
    }

    /// Counts a window. Returns its rows, or `None` if it has none.
    async fn request(&mut self, window: Window) -> Result<Option<u64>, SourceError> {
        let page = self.shared.count(&self.scope, window).await?;
        self.observed = self.observed.max(Some(page.observed));
        Ok(page.has_executions().then(|| rows_of(&page)))
    }

    /// Emits the empty windows as gaps, since the source shows no row at all or fails.
    async fn distrust(
        mut self,
        missing_row: Option<Timestamp>,
        failure: Option<SourceError>,
    ) -> Result<Vec<CountedWindow>, ReadEnd> {
        let windows = std::mem::take(&mut self.empty);
        let gaps = u32::try_from(windows.len()).unwrap_or(u32::MAX);
        self.emit_counted(1 + self.failed.len()).await?;
        for window in windows {
            self.emit_incomplete(window).await?;
        }
        self.emit_failed().await?;
        let done = ScopeDone {
            observed: self.observed,
            gaps,
            missing_row,
            failure,
            ..ScopeDone::counted(self.scope.clone())
        };
        self.emit(Event::Done(Box::new(done))).await?;
        Ok(Vec::new())
    }

    /// Emits the outcome of the counts. Returns the windows to read.
    async fn conclude(mut self) -> Result<Vec<CountedWindow>, ReadEnd> {
        let read = |window, rows| CountedWindow {
            scope: self.scope.clone(),
            window,
            rows,
            history: window,
        };
        let with_rows = self.with_rows.iter();
        let counted = with_rows.map(|count| read(count.window, count.rows));
        let uncountable = self.uncountable.iter();
        let uncountable = uncountable.map(|window| read(*window, SLICE_ROWS));
        let to_read: Vec<_> = counted.chain(uncountable).collect();
        let is_empty = to_read.is_empty() && self.failed.is_empty() && !self.empty.is_empty();
        let slices: usize = to_read.iter().map(slice_count).sum();
        self.emit_counted(slices + self.failed.len() + usize::from(is_empty))
            .await?;
        for window in std::mem::take(&mut self.empty) {
            let complete = Complete::counted(self.scope.clone(), window);
            self.emit(Event::WindowComplete(complete)).await?;
        }
        self.emit_failed().await?;
        if is_empty {
            let done = ScopeDone {
                observed: self.observed,
                ..ScopeDone::counted(self.scope.clone())
            };
            self.emit(Event::Done(Box::new(done))).await?;
        }
        Ok(to_read)
    }

    async fn emit_counted(&mut self, outcomes: usize) -> Result<(), ReadEnd> {
        let counted = Counted {
            scope: self.scope.clone(),
            with_rows: std::mem::take(&mut self.with_rows),
            outcomes,
        };
        self.emit(Event::Counted(counted)).await
    }

    async fn emit_failed(&mut self) -> Result<(), ReadEnd> {
        for (window, error) in std::mem::take(&mut self.failed) {
            self.emit_incomplete(window).await?;
            let done = ScopeDone::failed(self.scope.clone(), error);
            self.emit(Event::Done(Box::new(done))).await?;
        }
        Ok(())
    }

    async fn emit_incomplete(&self, window: Window) -> Result<(), ReadEnd> {
        let scope = self.scope.clone();
        let reason = None;
        let incomplete = Incomplete {
            scope,
            window,
            reason,
        };
        self.emit(Event::WindowIncomplete(incomplete)).await
    }

    async fn emit(&self, event: Event) -> Result<(), ReadEnd> {
        self.events.send(event).await.map_err(|_| ReadEnd::Stopped)
    }
}
