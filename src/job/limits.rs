//! The limits of a run: a signal, and the deadline that the user set.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::Error;
use crate::lake::store::Store;

/// A flag that turns true when a signal arrives.
pub type StopSignal = watch::Receiver<bool>;

/// The events that end a run early.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    stop: StopSignal,
    deadline: Option<Deadline>,
}

/// The end of reading. Rows that were read before it are still committed.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    after: Duration,
    at: Instant,
}

impl Limits {
    /// Returns the limits of work that starts now.
    pub(crate) fn new(stop: StopSignal, deadline: Option<Duration>) -> Self {
        let deadline = deadline.and_then(|after| {
            let at = Instant::now().checked_add(after)?;
            Some(Deadline { after, at })
        });
        Self { stop, deadline }
    }

    /// Returns the limits of work that may go on after the deadline.
    pub(crate) fn without_deadline(&self) -> Self {
        Self {
            stop: self.stop.clone(),
            deadline: None,
        }
    }

    /// Makes the requests to the object store of a lake end soon after the limits.
    pub(crate) fn bound(&self, store: &Store) {
        let deadline = self.deadline.map(|deadline| deadline.at);
        store.set_limits(self.stop.clone(), deadline);
    }

    /// Returns the end of a part of the time until the deadline; `None` without a deadline.
    pub(crate) fn share_of_deadline(&self, parts: u32) -> Option<Instant> {
        let now = Instant::now();
        let left = self.deadline?.at.saturating_duration_since(now);
        now.checked_add(left / parts)
    }

    /// Returns the flag of the signal.
    pub(crate) fn stop(&self) -> &StopSignal {
        &self.stop
    }

    /// Runs `work` until it is done, a signal arrives or the deadline passes.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`], [`Error::Deadline`] and the errors of `work`.
    pub(crate) async fn run<T, E>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Error>
    where
        Error: From<E>,
    {
        let mut stop = self.stop.clone();
        tokio::select! {
            biased;
            // A closed channel cannot signal any more: the work goes on.
            Ok(_) = stop.wait_for(|stopped| *stopped) => Err(Error::Interrupted),
            error = self.deadline_passed() => Err(error),
            result = work => Ok(result?),
        }
    }

    async fn deadline_passed(&self) -> Error {
        let Some(Deadline { after, at }) = self.deadline else {
            return std::future::pending().await;
        };
        tokio::time::sleep_until(at).await;
        Error::Deadline { after }
    }
}
