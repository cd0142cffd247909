//! Finds out whether a store keeps the promise that everything rests on: conditional puts.

use bytes::Bytes;
use futures::future::join_all;
use ulid::Ulid;

use super::{Expected, PutOutcome, Store, StoreError};
use crate::lake::layout;

/// A store that a lake cannot be kept in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The store accepts a put whose condition does not hold: runs would overwrite each other.
    #[error(
        "`{store}` ignores conditional puts ({what}), so runs would overwrite each other's data"
    )]
    Unconditional {
        /// The lake.
        store: String,
        /// Which condition was ignored.
        what: &'static str,
    },
    /// The store cannot be written or read.
    #[error("write and read a probe")]
    Store(#[from] StoreError),
}

/// Creations that race for one name.
const RACERS: usize = 8;

impl Store {
    /// Writes, replaces, races and deletes probe objects below `_state/tmp`.
    ///
    /// # Errors
    ///
    /// [`ProbeError::Unconditional`] for a store that ignores a condition, [`ProbeError::Store`]
    /// for one that cannot be written or read.
    pub async fn probe(&self) -> Result<(), ProbeError> {
        let _lock = self.lock(super::super::LOCK_PATIENCE).await?;
        let path = layout::probe(&Ulid::generate().to_string());
        let outcome = self.probe_at(&path).await;
        // Also after a failure, whose own error is the one worth telling.
        let swept = self.delete(&path).await;
        outcome.and(swept.map_err(ProbeError::from))
    }

    async fn probe_at(&self, path: &str) -> Result<(), ProbeError> {
        let ignored = |what| ProbeError::Unconditional {
            store: self.shown().to_owned(),
            what,
        };
        let body = |n: usize| Bytes::from(format!("probe {n} {}", Ulid::generate()));
        let racers = (0..RACERS).map(|n| self.put(path, body(n), &Expected::Absent));
        let mut winners = Vec::new();
        for landing in join_all(racers).await {
            if let PutOutcome::Written(tag) = landing? {
                winners.push(tag);
            }
        }
        let [first] = winners.as_slice() else {
            return Err(ignored("several creations of one object were accepted"));
        };
        if self.put(path, body(RACERS), &Expected::Absent).await? != PutOutcome::Lost {
            return Err(ignored("a creation over an existing object was accepted"));
        }
        let expected = Expected::Version(first.clone());
        if self.put(path, body(RACERS + 1), &expected).await? == PutOutcome::Lost {
            return Err(ignored("an update of the current version was refused"));
        }
        if self.put(path, body(RACERS + 2), &expected).await? != PutOutcome::Lost {
            return Err(ignored("an update of an outdated version was accepted"));
        }
        Ok(())
    }
}
