//! The checkpoint's records: full states under rising numbers, each created once and never replaced.

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::store::{Expected, ObjectInfo, PutOutcome, Store, StoreError};
use super::{back_off, layout};
use crate::checkpoint::{Delta, State};
use crate::failpoint::hit;
use crate::schema::Table;

/// One committed state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number; 0 stands for a lake without any record.
    #[serde(skip)]
    pub number: u64,
    /// The run that wrote it.
    pub run_id: String,
    /// Unique to this put.
    pub write_id: String,
    /// When it was written, by the clock of the source.
    pub written_at: Timestamp,
    /// The number of the record in which the listing of organizations and projects last changed.
    pub listing_revision: u64,
    /// The state.
    pub state: State,
}

/// A checkpoint that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The store failed.
    #[error("use the checkpoint")]
    Store(#[from] StoreError),
    /// A record is damaged, or of a newer version of this program.
    #[error("decode `{path}`: {reason}")]
    Damaged {
        /// The record.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Other runs kept taking the next number.
    #[error("other runs committed {attempts} times before this one could")]
    Contended {
        /// Attempts made.
        attempts: u32,
    },
}

/// Attempts to take the next number: each failed one means that another run got through.
const ATTEMPTS: u32 = 32;

/// As many of the newest records stay, however old.
const KEPT: usize = 100;

/// Records that are younger than these days stay, however many.
const KEPT_DAYS: i64 = 7;

impl Record {
    /// The number of the record that a dimension follows from: `orgs` and `projects` from the last one in which
    /// a listing changed.
    pub fn dimension_revision(&self, dimension: Table) -> u64 {
        match dimension {
            Table::Scopes => self.number,
            _ => self.listing_revision,
        }
    }

    /// The newest record; the empty state under number 0 where there is none.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`], [`CheckpointError::Damaged`].
    pub async fn newest(store: &Store) -> Result<Self, CheckpointError> {
        loop {
            let Some((number, path)) = newest_of(&store.list(layout::CHECKPOINTS).await?) else {
                return Ok(Self::none());
            };
            // None: pruned between the listing and the reading, so a newer one is there.
            if let Some((bytes, _)) = store.get(&path).await? {
                return Self::decode(&bytes, number, &path);
            }
        }
    }

    /// Adds `delta` to the newest state and commits the sum under the next number.
    ///
    /// # Errors
    ///
    /// As [`Record::newest`]; [`CheckpointError::Contended`] after many lost races.
    pub async fn append(
        store: &Store,
        run_id: &str,
        now: Timestamp,
        delta: &Delta,
    ) -> Result<Self, CheckpointError> {
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let next = Self::newest(store).await?.next(run_id, now, delta);
            let path = layout::checkpoint(next.number);
            // A number is taken once, so whoever takes one has read the record before it: what
            // has landed stays in the sum of all later records, also where a listing lags.
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

    /// Deletes old records: the last hundred stay, and those of seven days.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Store`].
    pub async fn prune(store: &Store, now: Timestamp) -> Result<(), CheckpointError> {
        let mut records = store.list(layout::CHECKPOINTS).await?;
        records.sort_by(|a, b| b.path.cmp(&a.path));
        let oldest = now.as_millisecond() - KEPT_DAYS * 86_400_000;
        for record in records.iter().skip(KEPT) {
            if record.modified.as_millisecond() < oldest {
                store.delete(&record.path).await?;
            }
        }
        Ok(())
    }

    fn none() -> Self {
        Self {
            number: 0,
            run_id: String::new(),
            write_id: String::new(),
            written_at: Timestamp::UNIX_EPOCH,
            listing_revision: 0,
            state: State::default(),
        }
    }

    fn next(&self, run_id: &str, now: Timestamp, delta: &Delta) -> Self {
        let mut state = self.state.clone();
        state.apply(delta);
        let number = self.number + 1;
        let listing_changed = !state.listing.shows_the_same(&self.state.listing);
        Self {
            number,
            run_id: run_id.to_owned(),
            write_id: Ulid::generate().to_string(),
            written_at: now.max(self.written_at),
            listing_revision: if listing_changed {
                number
            } else {
                self.listing_revision
            },
            state,
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
    async fn runs_at_once_lose_nothing() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "".into(), "memory");
        let deltas: Vec<_> = (0..8)
            .map(|n| delta(if n % 2 == 0 { "a" } else { "b" }, n * 100))
            .collect();
        let commits = deltas
            .iter()
            .map(|delta| Record::append(&store, "run", from_ms(0), delta));
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
    async fn a_damaged_record_is_named() {
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
