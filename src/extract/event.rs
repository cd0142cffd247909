//! The events that reading emits, in the order in which they happened within a scope.

use jiff::Timestamp;
use tokio::sync::OwnedSemaphorePermit;

use super::PageHints;
use crate::checkpoint::{CountedRows, OpenExecution};
use crate::drift::Drift;
use crate::ids::{PlanExecutionId, Scope};
use crate::observation::Observation;
use crate::source::SourceError;
use crate::window::Window;

/// One step of reading a scope.
#[derive(Debug)]
pub enum Event {
    /// The rows of one page, emitted before it is known if their window is complete.
    Rows(Rows),
    /// All rows of the window were received and emitted.
    WindowComplete(Complete),
    /// The window was read before; reading it again is due until it is complete.
    LookbackDue(Scope, Window),
    /// The windows of a scope of a backfill were counted.
    Counted(Counted),
    /// The window could not be read completely: it becomes a gap.
    WindowIncomplete(Incomplete),
    /// A complete poll at this time did not return this open execution.
    PollMissed(PlanExecutionId, Timestamp),
    /// The last event of a scope, or of one slice of it.
    Done(Box<ScopeDone>),
}

/// A window that was read completely, and what was learned from it.
#[derive(Debug)]
pub struct Complete {
    /// The scope.
    pub scope: Scope,
    /// The window.
    pub window: Window,
    /// `start_ts` of the newest row received so far.
    pub last_row_start: Option<Timestamp>,
    /// Page hints for later runs.
    pub pages: PageHints,
}

impl Complete {
    /// Returns a window that a count found empty.
    pub fn counted(scope: Scope, window: Window) -> Self {
        Self {
            scope,
            window,
            last_row_start: None,
            pages: PageHints::default(),
        }
    }
}

/// The counts of one scope of a backfill.
#[derive(Debug)]
pub struct Counted {
    /// The scope.
    pub scope: Scope,
    /// Windows with rows: they are read later.
    pub with_rows: Vec<CountedRows>,
    /// The outcomes that follow: one per slice, or one of the scope if no slice is read.
    pub outcomes: usize,
}

/// A window that could not be read completely.
#[derive(Debug)]
pub struct Incomplete {
    /// The scope.
    pub scope: Scope,
    /// The window.
    pub window: Window,
    /// The reason, if the window itself failed while the source was up: it is then retried ever more rarely.
    /// `None` if reading ended before the window was complete: the next run reads it.
    pub reason: Option<String>,
}

/// The rows of one page.
#[derive(Debug)]
pub struct Rows {
    /// Executions with a start, and so with a partition.
    pub observations: Vec<Observation>,
    /// Executions without a start: the checkpoint keeps them.
    pub undated: Vec<(PlanExecutionId, OpenExecution)>,
    /// Unknown and invalid values of the page.
    pub drift: Drift,
    /// Memory reserved for the page; dropping the rows releases it.
    _memory: Option<OwnedSemaphorePermit>,
}

impl Rows {
    /// Wraps observations that were read from a lake, not from a page.
    pub fn of(observations: Vec<Observation>) -> Self {
        Self {
            observations,
            undated: Vec::new(),
            drift: Drift::default(),
            _memory: None,
        }
    }

    /// Returns no rows yet, with the memory reserved for them.
    pub(super) fn with_memory(memory: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            _memory: memory,
            ..Self::of(Vec::new())
        }
    }
}

/// The outcome of reading a scope.
#[derive(Debug)]
pub struct ScopeDone {
    /// The scope.
    pub scope: Scope,
    /// Time of the last response.
    pub observed: Option<Timestamp>,
    /// `start_ts` of the newest row received.
    pub last_row_start: Option<Timestamp>,
    /// Rows received, duplicates included.
    pub rows: u64,
    /// Windows that are incomplete.
    pub gaps: u32,
    /// Open executions that could not be polled though the source is up.
    pub failed_polls: u32,
    /// The reason of the last of them.
    pub poll_failure: Option<String>,
    /// Page hints for later runs.
    pub pages: PageHints,
    /// `start_ts` of the newest known row, if a suspiciously empty response did not contain it.
    pub missing_row: Option<Timestamp>,
    /// Error that ended the reading early.
    pub failure: Option<SourceError>,
}

impl ScopeDone {
    /// Returns the outcome of a scope that failed before any row was read.
    pub fn failed(scope: Scope, failure: SourceError) -> Self {
        Self {
            failure: Some(failure),
            ..Self::new(scope, PageHints::default())
        }
    }

    /// Returns the outcome of a scope of which no row was read, since it was counted.
    pub(super) fn counted(scope: Scope) -> Self {
        Self::new(scope, PageHints::default())
    }

    pub(super) fn new(scope: Scope, pages: PageHints) -> Self {
        Self {
            scope,
            observed: None,
            last_row_start: None,
            rows: 0,
            gaps: 0,
            failed_polls: 0,
            poll_failure: None,
            pages,
            missing_row: None,
            failure: None,
        }
    }
}
