//! Stage 4 of 4: observations to raw objects, to tables, to the checkpoint.
//!
//! Invariants: tables are derived from raw partitions and from nothing else; the checkpoint is
//! committed after the tables of all dates that it claims; every put that another run could also
//! make is conditional ([`store`]).

pub mod commit;
pub mod derive;
pub mod dimensions;
pub mod finding;
pub mod identity;
pub mod inventory;
pub mod layout;
pub mod log;
pub mod parquet;
pub mod raw;
pub mod replay;
pub mod rows;
pub mod runs;
pub mod spool;
pub mod stamp;
pub mod store;
pub mod verify;
pub mod views;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::ids::AccountId;
use crate::pii::{Mismatch, PiiRequest};
use identity::{Identity, refuse_birth};
use log::CheckpointError;
use parquet::FileError;
use store::{LockGuard, ProbeError, Store, StoreError};

/// How long a run waits for the lock of a local lake before it gives up with a conflict.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(600);

/// Times that a step of the protocol begins again after losing a race.
const ATTEMPTS: u32 = 10;

/// The size from which an object is warned of: put whole, it stays in memory while it lasts.
const LARGE: usize = 64 << 20;

/// The size from which an object is refused.
const TOO_LARGE: usize = 512 << 20;

/// An open lake: a place, and the account that it holds.
#[derive(Clone, Debug)]
pub struct Lake {
    store: Store,
    identity: Identity,
    scratch: PathBuf,
    /// Turns at decoding and encoding: as many as there are cores.
    turns: Arc<Semaphore>,
}

/// What went wrong with a lake, by what the operator does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LakeError {
    /// The place cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is damaged, foreign or cannot be encoded.
    #[error(transparent)]
    File(#[from] FileError),
    /// The checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The place cannot hold a lake.
    #[error("probe the store")]
    Probe(#[from] ProbeError),
    /// There is no lake.
    #[error("there is no lake in `{store}`")]
    Missing {
        /// The place.
        store: String,
    },
    /// The place lies within another lake.
    #[error("`{store}` lies within the lake `{outer}`")]
    Within {
        /// The place.
        store: String,
        /// The lake around it.
        outer: String,
    },
    /// `_state/lake.json` is damaged, or of a newer version of this program.
    #[error("`_state/lake.json` of `{store}` cannot be used: {reason}")]
    Identity {
        /// The lake.
        store: String,
        /// What is wrong.
        reason: String,
    },
    /// The lake holds another account.
    #[error("`{store}` holds account `{theirs}`, not `{ours}`")]
    OtherAccount {
        /// The lake.
        store: String,
        /// The account that it holds.
        theirs: AccountId,
        /// The account asked for.
        ours: AccountId,
    },
    /// The lake treats personal data in another way than is asked for.
    #[error("`{store}` treats personal data in another way")]
    Pii {
        /// The lake.
        store: String,
        /// How it differs.
        source: Mismatch,
    },
    /// Two lakes treat personal data in different ways.
    #[error(
        "`{store}` treats personal data in another way, or with another key, than the lake that is read"
    )]
    OtherPii {
        /// The lake that was to take in rows.
        store: String,
    },
    /// An object would be too large to be put whole.
    #[error("`{path}` would have {megabytes} MB, more than is put in one piece")]
    TooLarge {
        /// The object.
        path: String,
        /// Its size.
        megabytes: usize,
    },
    /// Other runs kept changing the same objects.
    #[error("other runs kept changing {what}")]
    Contended {
        /// What they changed.
        what: String,
    },
    /// Work on another thread failed, which is a defect.
    #[error("work on the lake broke off")]
    Broken(#[source] tokio::task::JoinError),
}

impl LakeError {
    /// Whether it is scratch, and not the lake, that failed.
    pub fn is_scratch(&self) -> bool {
        matches!(self, Self::File(FileError::Scratch { .. }))
    }

    /// Whether other runs are the cause, so that the same run may succeed later.
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Contended { .. } | Self::Checkpoint(CheckpointError::Contended { .. }) => true,
            Self::Store(error)
            | Self::Checkpoint(CheckpointError::Store(error))
            | Self::Probe(ProbeError::Store(error)) => error.is_conflict(),
            _ => false,
        }
    }
}

impl Lake {
    fn new(store: Store, identity: Identity, scratch: &Path) -> Self {
        Self {
            store,
            identity,
            scratch: scratch.to_path_buf(),
            turns: Arc::new(Semaphore::new(cores())),
        }
    }

    /// Opens the lake of an account, and gives birth to one where there is none, once the store has
    /// shown that it keeps conditions. `buckets` is how many buckets new dates shall have.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`], [`LakeError::Probe`], [`LakeError::Identity`].
    pub async fn open(
        store: Store,
        account: &AccountId,
        now: Timestamp,
        buckets: Option<u32>,
        scratch: &Path,
    ) -> Result<Self, LakeError> {
        Self::open_for(
            store,
            account,
            now,
            buckets,
            &PiiRequest::default(),
            scratch,
        )
        .await
    }

    /// The same, where something is asked for personal data.
    ///
    /// # Errors
    ///
    /// [`LakeError::Pii`] and those of [`Lake::open`].
    pub async fn open_for(
        store: Store,
        account: &AccountId,
        now: Timestamp,
        buckets: Option<u32>,
        pii: &PiiRequest,
        scratch: &Path,
    ) -> Result<Self, LakeError> {
        let _lock = make_way(&store).await?;
        let (identity, born) = Identity::agree(&store, account, now, buckets, pii).await?;
        if born {
            tracing::info!(lake = store.shown(), account.id = %account, "a lake is born");
        }
        Ok(Self::new(store, identity, scratch))
    }

    /// Opens a lake that is to take in rows of this one, and gives birth to it where there is none.
    /// `buckets` is how many its dates shall have at its birth; by default they are as here.
    ///
    /// # Errors
    ///
    /// [`LakeError::OtherAccount`], [`LakeError::OtherPii`], [`LakeError::Probe`].
    pub async fn open_like(
        &self,
        store: Store,
        now: Timestamp,
        buckets: Option<u32>,
    ) -> Result<Self, LakeError> {
        let _lock = make_way(&store).await?;
        let identity = Identity::adopt(&store, &self.identity, now, buckets).await?;
        Ok(Self::new(store, identity, &self.scratch))
    }

    /// Opens a lake that is there.
    ///
    /// # Errors
    ///
    /// [`LakeError::Missing`] where there is none.
    pub async fn open_existing(store: Store, scratch: &Path) -> Result<Self, LakeError> {
        match Identity::read(&store).await? {
            Some((identity, _)) => Ok(Self::new(store, identity, scratch)),
            None => Err(LakeError::Missing {
                store: store.shown().to_owned(),
            }),
        }
    }

    /// The account that the lake holds.
    pub fn account(&self) -> &AccountId {
        &self.identity.account_id
    }

    /// What the lake is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The folder for what memory cannot hold.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Where the lake is.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// Makes sure that a lake can be born in a place, unless one is there; gives its lock.
async fn make_way(store: &Store) -> Result<LockGuard, LakeError> {
    if Identity::read(store).await?.is_none() {
        refuse_birth(store).await?;
        store.probe().await?;
    }
    Ok(store.lock(LOCK_PATIENCE).await?)
}

/// Runs work that takes long on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LakeError> + Send + 'static,
) -> Result<T, LakeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(LakeError::Broken)?
}

/// Threads that encode, decode and use the disk: more of them cost memory and gain little.
pub const BLOCKING: usize = 4;

/// Cores of the machine.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Waits before another attempt, longer and longer, with jitter so that racers part.
async fn pause(attempt: u32) {
    if attempt == 0 {
        return;
    }
    let most = 50_u64 << attempt.min(6);
    let jitter = ulid::Ulid::generate().random() % u128::from(most);
    tokio::time::sleep(Duration::from_millis(u64::try_from(jitter).unwrap_or(most))).await;
}

fn check_size(path: &str, bytes: usize) -> Result<(), LakeError> {
    let buckets = bytes.div_ceil(LARGE);
    match bytes {
        TOO_LARGE.. => Err(LakeError::TooLarge {
            path: path.to_owned(),
            megabytes: bytes >> 20,
        }),
        LARGE.. => {
            let megabytes = bytes >> 20;
            tracing::warn!(
                path,
                megabytes,
                "a large object: `--buckets {buckets}` splits new dates"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}
