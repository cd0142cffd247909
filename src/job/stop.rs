//! What ends a run early: a signal, or the deadline that the user set.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;

/// Tells a run that a signal has come.
pub type StopSignal = watch::Receiver<bool>;

/// Waits for `work`, unless a signal comes first.
pub(crate) async fn or_stop<T>(
    stop: &mut StopSignal,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        // A sender that is gone cannot signal any more: the work goes on.
        Ok(_) = stop.wait_for(|stopped| *stopped) => Err(Error::Interrupted),
        done = work => Ok(done),
    }
}

/// When reading ends, whole or not; what was read is landed and committed in any case.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    after: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    pub(super) fn begin(after: Option<Duration>) -> Self {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        Self { after, at }
    }

    /// Waits for `work`, unless the deadline comes first.
    pub(super) async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let (Some(at), Some(after)) = (self.at, self.after) else {
            return Ok(work.await);
        };
        let late = |_| Error::Deadline { after };
        tokio::time::timeout_at(at, work).await.map_err(late)
    }
}
