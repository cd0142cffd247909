//! Tests that a store honours conditional puts, on which the protocol of a run depends.

use bytes::Bytes;
use futures::future::join_all;
use ulid::Ulid;

use super::{Expected, PutOutcome, Store, StoreError};
use crate::lake::layout;

/// A store that cannot hold a lake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The store accepts a put whose condition does not hold, so runs would overwrite each other.
    #[error("{store} does not support conditional writes: {what}")]
    Unconditional {
        /// The lake.
        store: String,
        /// The violated condition.
        what: &'static str,
    },
    /// The store cannot be written or read.
    #[error("failed to test conditional writes")]
    Store(#[from] StoreError),
}

/// Concurrent puts that create the same object.
const RACERS: usize = 8;

impl Store {
    /// Creates, replaces and deletes a probe object below `_state/tmp`.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Unconditional`] if the store ignores a condition, [`ProbeError::Store`] if it
    /// cannot be written or read.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let _lock = self.lock(crate::lake::LOCK_TIMEOUT).await?;
        let path = layout::probe(&Ulid::generate().to_string());
        let outcome = self.probe_at(&path).await;
        // Deletes the probe after a failure, too, and reports the first error.
        let deleted = self.delete(&path).await;
        outcome.and(deleted.map_err(ProbeError::from))
    }

    async fn probe_at(&self, path: &str) -> Result<(), ProbeError> {
        let ignored = |what| ProbeError::Unconditional {
            store: self.location().to_owned(),
            what,
        };
        let body = |n: usize| Bytes::from(format!("probe {n} {}", Ulid::generate()));
        let racers = (0..RACERS).map(|n| self.put(path, body(n), &Expected::Absent));
        let mut winners = Vec::new();
        for outcome in join_all(racers).await {
            if let PutOutcome::Written(tag) = outcome? {
                winners.push(tag);
            }
        }
        let [first] = winners.as_slice() else {
            return Err(ignored("it accepted several creations of one object"));
        };
        if self.put(path, body(RACERS), &Expected::Absent).await? != PutOutcome::Lost {
            return Err(ignored("it accepted the creation of an existing object"));
        }
        let expected = Expected::Version(first.clone());
        if self.put(path, body(RACERS + 1), &expected).await? == PutOutcome::Lost {
            return Err(ignored("it refused an update of the current version"));
        }
        if self.put(path, body(RACERS + 2), &expected).await? != PutOutcome::Lost {
            return Err(ignored("it accepted an update of an outdated version"));
        }
        Ok(())
    }
}
