//! Checkpoint records: complete states with increasing numbers. A record is created once and never
//! replaced.

use std::collections::BTreeSet;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::features::{self, FORMAT, Newer, first_format};
use super::store::{Expected, ObjectInfo, PutOutcome, Store, StoreError};
use super::{back_off, layout};
use crate::checkpoint::{Delta, State, UnknownFields};
use crate::failpoint::hit;
use crate::schema::Table;

/// One committed state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number; 0 for a lake without records.
    #[serde(skip)]
    pub number: u64,
    /// The version of its layout.
    #[serde(default = "first_format")]
    pub format: u32,
    /// The features that a program must know: those of the lake, and of all earlier records.
    #[serde(default)]
    pub features: BTreeSet<String>,
    /// The run that wrote it.
    pub run_id: String,
    /// Unique to this put.
    pub write_id: String,
    /// The time of the write, by the clock of the source.
    pub written_at: Timestamp,
    /// The number of the record in which the listing of organizations and projects last changed.
    pub listing_revision: u64,
    /// The state.
    pub state: State,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// A failure to read or write the checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A newer version of this program wrote a record.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// A record is damaged.
    #[error("failed to decode {path}: {reason}")]
    Damaged {
        /// The record.
        path: String,
        /// The cause.
        reason: String,
    },
    /// Other runs took the next number in every attempt.
    #[error("failed to commit the checkpoint: other runs committed first in {attempts} attempts")]
    Contended {
        /// Attempts made.
        attempts: u32,
    },
}

/// Attempts to take the next number. Each failed attempt means that another run committed.
const ATTEMPTS: u32 = 32;

/// Number of newest records that are kept.
const MIN_RECORDS: usize = 100;

/// Age in days up to which all records are kept.
const MIN_DAYS: i64 = 7;

impl Record {
    /// Returns the revision of a dimension derived from this record. For `orgs` and `projects` it is
    /// the number of the last record in which the listing changed.
    pub fn dimension_revision(&self, dimension: Table) -> u64 {
        match dimension {
            Table::Scopes => self.number,
            _ => self.listing_revision,
        }
    }

    /// Returns the newest record. A lake without records has the empty state and number 0.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`], [`CheckpointError::Newer`], [`CheckpointError::Damaged`].
    pub async fn newest(store: &Store) -> Result<Self, CheckpointError> {
        loop {
            let Some((number, path)) = newest_of(&store.list(layout::CHECKPOINTS).await?) else {
                return Ok(Self::empty());
            };
            // A record pruned between the listing and the read has a newer successor.
            if let Some((bytes, _)) = store.get(&path).await? {
                return Self::decode(&bytes, number, &path).map_err(|error| match error {
                    CheckpointError::Newer(newer) => newer.at(store).into(),
                    other => other,
                });
            }
        }
    }

    /// Applies `delta` to the newest state and commits the result under the next number. `features` are those
    /// of the lake.
    ///
    /// # Errors
    ///
    /// As [`Record::newest`]; [`CheckpointError::Contended`] after many lost races.
    pub async fn append(
        store: &Store,
        run_id: &str,
        now: Timestamp,
        delta: &Delta,
        features: &BTreeSet<String>,
    ) -> Result<Self, CheckpointError> {
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let mut next = Self::newest(store).await?.next(run_id, now, delta);
            next.features.extend(features.iter().cloned());
            let path = layout::checkpoint(next.number);
            // Each number is taken once, so its writer has read the previous record. So a committed
            // delta stays in all later records, even if a listing lags.
            hit("before-record");
            match store.put(&path, next.encode()?, &Expected::Absent).await? {
                PutOutcome::Written(_) => {
                    hit("after-record");
                    return Ok(next);
                }
                PutOutcome::Lost => {}
            }
        }
        Err(CheckpointError::Contended { attempts: ATTEMPTS })
    }

    /// Deletes old records. Keeps the last hundred, and those of the last seven days.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`].
    pub async fn prune(store: &Store, now: Timestamp) -> Result<(), CheckpointError> {
        let mut records = store.list(layout::CHECKPOINTS).await?;
        records.sort_by(|a, b| b.path.cmp(&a.path));
        let oldest = now.as_millisecond() - MIN_DAYS * 86_400_000;
        for record in records.iter().skip(MIN_RECORDS) {
            if record.modified.as_millisecond() < oldest {
                store.delete(&record.path).await?;
            }
        }
        Ok(())
    }

    fn empty() -> Self {
        Self {
            number: 0,
            format: FORMAT,
            features: BTreeSet::new(),
            run_id: String::new(),
            write_id: String::new(),
            written_at: Timestamp::UNIX_EPOCH,
            listing_revision: 0,
            state: State::default(),
            unknown: UnknownFields::new(),
        }
    }

    fn next(&self, run_id: &str, now: Timestamp, delta: &Delta) -> Self {
        let mut state = self.state.clone();
        state.apply(delta);
        let number = self.number + 1;
        let listing_changed = !state.listing.has_same_rows(&self.state.listing);
        Self {
            number,
            format: FORMAT,
            features: self.features.clone(),
            run_id: run_id.to_owned(),
            write_id: Ulid::generate().to_string(),
            written_at: now.max(self.written_at),
            listing_revision: if listing_changed {
                number
            } else {
                self.listing_revision
            },
            state,
            unknown: self.unknown.clone(),
        }
    }

    fn encode(&self) -> Result<Bytes, CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged {
            path: layout::checkpoint(self.number),
            reason,
        };
        let json = serde_json::to_vec(self).map_err(|error| damaged(error.to_string()))?;
        let packed = zstd::encode_all(&json[..], 3).map_err(|error| damaged(error.to_string()))?;
        Ok(packed.into())
    }

    fn decode(bytes: &[u8], number: u64, path: &str) -> Result<Self, CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let json = zstd::decode_all(bytes).map_err(|error| damaged(error.to_string()))?;
        features::check(path, &json)?;
        let record: Self =
            serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
        Ok(Self { number, ..record })
    }
}

fn newest_of(records: &[ObjectInfo]) -> Option<(u64, String)> {
    let numbered =
        |found: &ObjectInfo| Some((layout::checkpoint_number(&found.path)?, found.path.clone()));
    records.iter().filter_map(numbered).max()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::ids::Scope;
    use crate::window::{Coverage, Window, from_ms};

    fn delta(project: &str, from: i64) -> Delta {
        let window = Window::new(from_ms(from), from_ms(from + 10)).unwrap();
        let covered = [(Scope::new("org", project), Coverage::from_iter([window]))].into();
        Delta {
            covered,
            ..Delta::default()
        }
    }

    #[tokio::test]
    async fn concurrent_runs_lose_no_delta() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "".into(), "memory");
        let deltas: Vec<_> = (0..8)
            .map(|n| delta(if n % 2 == 0 { "a" } else { "b" }, n * 100))
            .collect();
        let features = BTreeSet::new();
        let commits = deltas
            .iter()
            .map(|delta| Record::append(&store, "run", from_ms(0), delta, &features));
        for committed in futures::future::join_all(commits).await {
            committed.unwrap();
        }
        let mut expected = State::default();
        for delta in &deltas {
            expected.apply(delta);
        }
        assert_eq!(Record::newest(&store).await.unwrap().state, expected);
    }

    #[tokio::test]
    async fn error_names_the_damaged_record() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "".into(), "memory");
        store
            .overwrite(&layout::checkpoint(3), Bytes::from_static(b"junk"))
            .await
            .unwrap();
        let error = Record::newest(&store).await.unwrap_err();
        assert!(
            error.to_string().contains("00000000000000000003.json.zst"),
            "{error}"
        );
    }
}
