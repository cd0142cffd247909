//! Errors of a lake, by the action that the operator takes.

use super::features::Newer;
use super::layout::Period;
use super::log::CheckpointError;
use super::parquet::FileError;
use super::store::{ProbeError, StoreError};
use crate::ids::AccountId;
use crate::pii::Mismatch;

/// A failed operation on a lake.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A newer version of this program wrote an object.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// A file is damaged or foreign, or cannot be encoded.
    #[error(transparent)]
    File(#[from] FileError),
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The store cannot hold a lake.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The lake does not exist.
    #[error("no lake found in {store}")]
    Missing {
        /// The location.
        store: String,
    },
    /// The location lies inside another lake.
    #[error("{store} is inside another lake: {outer}")]
    Nested {
        /// The location.
        store: String,
        /// The lake that contains it.
        outer: String,
    },
    /// `_state/lake.json` is missing or damaged.
    #[error("failed to open the lake {store}: _state/lake.json {reason}")]
    Identity {
        /// The lake.
        store: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// The lake holds another account.
    #[error("{store} holds account {theirs}, not {ours}")]
    OtherAccount {
        /// The lake.
        store: String,
        /// The account of the lake.
        theirs: AccountId,
        /// The requested account.
        ours: AccountId,
    },
    /// The lake handles personal data differently from the request.
    #[error("{store} was created with another setting for personal data")]
    Pii {
        /// The lake.
        store: String,
        /// The difference.
        source: Mismatch,
    },
    /// Two lakes handle personal data differently.
    #[error("{store} handles personal data differently from the source lake, or uses another key")]
    OtherPii {
        /// The target lake.
        store: String,
    },
    /// The lake has another period than requested.
    #[error("{store} holds one {theirs} in an object, not one {ours}")]
    OtherPeriod {
        /// The lake.
        store: String,
        /// The period of the lake.
        theirs: Period,
        /// The requested period.
        ours: Period,
    },
    /// The log of a Delta table is damaged, or another program changed the table.
    #[error("failed to update the Delta table {path}: {reason}")]
    Delta {
        /// The table, or the file of its log.
        path: String,
        /// Why it cannot be updated.
        reason: String,
    },
    /// An object exceeds the size limit of a single write.
    #[error("failed to write {path}: its size of {megabytes} MiB exceeds the limit of {limit} MiB", limit = super::MAX_OBJECT_BYTES >> 20)]
    TooLarge {
        /// The object.
        path: String,
        /// Its size.
        megabytes: usize,
    },
    /// Other runs kept changing the same objects.
    #[error(
        "failed to update {what}: other runs changed it {} times in a row",
        super::ATTEMPTS
    )]
    Contended {
        /// The objects.
        what: String,
    },
}

impl LakeError {
    /// Returns true if the scratch directory failed and not the lake.
    pub fn is_scratch(&self) -> bool {
        matches!(self, Self::File(FileError::Scratch { .. }))
    }

    /// Returns true if a newer version of this program wrote an object of the lake.
    pub fn is_newer(&self) -> bool {
        matches!(
            self,
            Self::Newer(_)
                | Self::File(FileError::Newer(_))
                | Self::Checkpoint(CheckpointError::Newer(_))
        )
    }

    /// Returns true if other runs caused the error, so that the same run may succeed later.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Contended { .. } | Self::Checkpoint(CheckpointError::Contended { .. }) => true,
            _ => self.store_error().is_some_and(StoreError::is_conflict),
        }
    }

    /// Returns the error of the store, if it caused this one.
    pub fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error)
            | Self::Checkpoint(CheckpointError::Store(error))
            | Self::Probe(ProbeError::Store(error)) => Some(error),
            _ => None,
        }
    }
}
