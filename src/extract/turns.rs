//! Turns: the scopes that are read at once, and the order in which the others follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The turns of all scopes of a run. Waiting scopes are served in the order of their arrival.
pub(super) struct Turns {
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// Scopes whose new data is not read yet.
    unread: watch::Sender<usize>,
}

/// A scope whose new data is not read yet; dropping it ends that.
pub(super) struct Unread<'a>(&'a watch::Sender<usize>);

impl Turns {
    pub(super) fn new(slots: usize, scopes: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots)),
            waiting: AtomicUsize::new(0),
            unread: watch::channel(scopes).0,
        }
    }

    /// Returns one of the scopes whose new data is not read yet.
    pub(super) fn unread(&self) -> Unread<'_> {
        Unread(&self.unread)
    }

    /// Waits for a turn. It ends when the permit is dropped.
    pub(super) async fn next(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        // The semaphore is never closed.
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        slot
    }

    /// Returns whether any scope waits for its turn.
    pub(super) fn are_awaited(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Waits until the new data of all scopes is read.
    pub(super) async fn all_read(&self) {
        // The sender lives as long as `self`.
        drop(self.unread.subscribe().wait_for(|left| *left == 0).await);
    }
}

impl Drop for Unread<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|left| *left = left.saturating_sub(1));
    }
}
