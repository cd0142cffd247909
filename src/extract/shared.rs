//! State that all scopes of a run share: the memory budget, and what the server has shown of itself.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::fanout::Reading;
use super::outage::Outage;
use super::paging::PageCap;
use super::turns::Turns;
use crate::ids::{PlanExecutionId, Scope};
use crate::source::{Client, Page};
use crate::window::Window;

/// Kilobytes of pages in flight.
const MEMORY_KB: u32 = 32 << 10;

/// Maximum executions without a start per run: the checkpoint keeps each, and every run reads all of it.
pub(super) const MAX_UNDATED: usize = 1_000;

/// State that all scopes of a run share.
pub(super) struct Shared<'a> {
    client: &'a Client,
    largest_page: u32,
    /// One permit per free kilobyte.
    memory: Arc<Semaphore>,
    /// Whether the server has ignored a list of execution ids.
    ignores_ids: AtomicBool,
    page_cap: Mutex<PageCap>,
    /// The largest average row of any scope so far; 0 before the first row.
    row_bytes: AtomicU32,
    /// Executions without a start that were emitted.
    undated: Mutex<HashSet<PlanExecutionId>>,
    pub(super) outage: Outage,
    turns: Turns,
    /// Turns true when the run is ending.
    stop: watch::Receiver<bool>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        reading: &Reading<'a>,
        slots: usize,
        unread: usize,
        scopes: Vec<Scope>,
    ) -> Self {
        Self {
            client: reading.client,
            largest_page: reading.largest_page,
            memory: Arc::new(Semaphore::new(MEMORY_KB as usize)),
            ignores_ids: AtomicBool::new(false),
            page_cap: Mutex::default(),
            row_bytes: AtomicU32::new(0),
            undated: Mutex::default(),
            outage: Outage::new(slots, scopes),
            turns: Turns::new(slots, unread),
            stop: reading.stop.clone(),
        }
    }

    pub(super) fn client(&self) -> &'a Client {
        self.client
    }

    /// Returns the turns of all scopes.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Returns whether the run is ending: no reader starts a further slice.
    pub(super) fn is_ending(&self) -> bool {
        *self.stop.borrow()
    }

    /// Returns the maximum page size that the user allows.
    pub(super) fn largest_page(&self) -> u32 {
        self.largest_page
    }

    /// Waits until `bytes` of the memory budget are free, and reserves them.
    pub(super) async fn reserve(&self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let kilobytes = (bytes >> 10).clamp(1, MEMORY_KB);
        // The semaphore is never closed.
        Arc::clone(&self.memory)
            .acquire_many_owned(kilobytes)
            .await
            .ok()
    }

    /// Returns whether the server filters by execution id, as far as known.
    pub(super) fn filters_by_id(&self) -> bool {
        !self.ignores_ids.load(Ordering::Relaxed)
    }

    /// Records that the server ignored a list of execution ids.
    pub(super) fn note_ids_ignored(&self) {
        if !self.ignores_ids.swap(true, Ordering::Relaxed) {
            tracing::info!("the server ignores lists of execution ids; polling by time instead");
        }
    }

    /// Returns the largest average row of any scope so far.
    pub(super) fn row_bytes(&self) -> Option<u32> {
        Some(self.row_bytes.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Records the average row of a scope.
    pub(super) fn note_row_bytes(&self, bytes: u32) {
        self.row_bytes.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Returns the largest page that the server is known to return.
    pub(super) fn page_cap(&self) -> u32 {
        lock(&self.page_cap).limit()
    }

    /// Records that the server returned only `rows` rows per page of a window; see [`PageCap::observe`].
    pub(super) fn observe_page_cap(&self, rows: u32, scope: &Scope, window: Window) -> bool {
        let mut cap = lock(&self.page_cap);
        let before = cap.limit();
        let is_confirmed = cap.observe(rows, scope, window);
        if cap.limit() < before {
            tracing::info!(rows, "the server returns smaller pages than requested");
        }
        is_confirmed
    }

    /// Records the executions of a page that have no start. Returns false, and records none, if a run
    /// would exceed [`MAX_UNDATED`].
    pub(super) fn accept_undated(&self, page: &Page) -> bool {
        let mut undated = lock(&self.undated);
        let rows = page.rows.iter().filter(|row| row.start.is_none());
        let new = rows.filter(|row| !undated.contains(&row.id));
        let new: Vec<_> = new.map(|row| row.id.clone()).collect();
        let is_accepted = new.is_empty() || undated.len() + new.len() <= MAX_UNDATED;
        if is_accepted {
            undated.extend(new);
        }
        is_accepted
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
