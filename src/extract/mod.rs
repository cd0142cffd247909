//! Stage 2 of 4: plans what to read from the source, and reads it.
//!
//! ```text
//! State + now --plan--> ReadPlan (one per scope) --fan_out--> Event (rows, window complete, poll missed)
//! ```
//!
//! | file | subject |
//! |---|---|
//! | `discover` | organizations and projects that the key can see |
//! | `plan` | the plan of a `sync` |
//! | `backfill`, `queue`, `slices` | the work of a backfill: uncovered windows, counts, slices |
//! | `count`, `counter` | counts of windows; those of a backfill, with distrust of empty ones |
//! | `fanout`, `turns`, `shared` | all scopes at once, their turns, and what they share |
//! | `reader` | one scope: requests pages, emits rows |
//! | `windows`, `tally`, `split` | one window: its pages, whether it is complete, how it is split |
//! | `isolate`, `outage` | what the source cannot return; a source that is down |
//! | `paging` | page sizes, and servers that return smaller pages than requested |
//! | `empty` | distrust of empty responses |
//! | `open` | polls of open executions |

pub mod backfill;
pub mod count;
mod counter;
pub mod discover;
mod empty;
mod event;
mod fanout;
mod idle;
mod isolate;
mod open;
mod outage;
mod paging;
mod plan;
mod queue;
mod reader;
mod shared;
mod slices;
mod split;
mod tally;
mod turns;
mod windows;

use jiff::Timestamp;

use crate::checkpoint::State;
use crate::ids::{PlanExecutionId, Scope};
use crate::window::Window;
use paging::Paging;

pub use event::{Complete, Counted, Event, Incomplete, Rows, ScopeDone};
pub use fanout::{Reading, fan_out, read_backfill};
pub use idle::idle_scopes;
pub use plan::{SyncRules, plan_sync};
pub use queue::BackfillQueue;
pub use slices::slice_count;

/// The windows to read and the executions to poll in one scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadPlan {
    /// New windows of `start_ts`, in the order of reading.
    pub windows: Vec<Window>,
    /// Windows to read again, for late edits: after the new windows of all scopes.
    pub lookback: Vec<Window>,
    /// Gaps that are due and skipped windows: read after all else.
    pub pending: Vec<Window>,
    /// Open executions outside the windows, with their `start_ts`: polled by id.
    pub open: Vec<(PlanExecutionId, Timestamp)>,
    /// Open executions inside the windows: a row shows each, or it is missing.
    pub expected: Vec<(PlanExecutionId, Timestamp)>,
    /// Page hints of earlier runs.
    pub pages: PageHints,
    /// `start_ts` of the newest known row, if a window contains it: an empty response contradicts it.
    pub expected_row_start: Option<Timestamp>,
    /// A window in which the source has shown rows before. Without one, empty responses are trusted.
    pub history: Option<Window>,
}

impl ReadPlan {
    /// Returns true if there is nothing to read or poll.
    fn is_empty(&self) -> bool {
        let windows = [&self.windows, &self.lookback, &self.pending];
        windows.iter().all(|windows| windows.is_empty())
            && self.open.is_empty()
            && self.expected.is_empty()
    }

    /// Returns the requests that poll open executions by id.
    pub fn polls(&self) -> usize {
        self.open.len().div_ceil(open::BATCH)
    }
}

/// What earlier runs learned about the pages of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageHints {
    /// Bytes of an average row.
    pub row_bytes: Option<u32>,
    /// The largest page that succeeds, if larger ones have failed.
    pub page_limit: Option<u32>,
    /// Rows and hours of the last long window.
    pub window_rows: Option<(u32, u32)>,
}

impl PageHints {
    /// Returns the hints that the checkpoint holds for a scope.
    pub fn of(state: &State, scope: &Scope) -> Self {
        state
            .scopes
            .get(scope)
            .map_or_else(Self::default, |known| Self {
                row_bytes: known.row_bytes,
                page_limit: known.page_limit,
                window_rows: known.window_rows,
            })
    }

    /// Returns whether a window probably has more rows than one slice.
    pub fn exceeds_slice(self, window: Window, largest_page: u32) -> bool {
        let Some((rows, hours)) = self.window_rows else {
            return false;
        };
        // One busy day says little of a month.
        let wanted = (window.millis() / paging::HOUR_MS).min(2 * i64::from(hours));
        let rows = i64::from(rows) * wanted / i64::from(hours.max(1));
        let page = Paging::new(self, largest_page).size();
        rows > i64::from(page) * i64::from(windows::SLICE_PAGES)
    }

    /// Estimates the requests that read a window of `rows` rows. `row_bytes` applies if no run has seen a row of
    /// the scope.
    pub fn requests(self, rows: u64, row_bytes: Option<u32>, largest_page: u32) -> u64 {
        let mut paging = Paging::new(self, largest_page);
        if let Some(bytes) = row_bytes {
            paging.assume_row_bytes(bytes);
        }
        paging.requests(rows)
    }
}
