//! Stage 4 of 4: writes observations to raw objects, derives tables, commits the checkpoint.
//!
//! Invariants:
//!
//! - Tables are derived from raw partitions and from nothing else.
//! - A checkpoint is committed after the tables of all dates that it covers.
//! - Every put that another run could also make is conditional ([`store`]).

pub mod commit;
pub mod create;
pub mod delta;
pub mod derive;
mod diff;
pub mod dimensions;
mod encode;
pub mod error;
pub mod features;
pub mod finding;
pub mod identity;
pub mod inventory;
pub mod layout;
pub mod log;
pub mod metadata;
mod moved;
pub mod parquet;
pub mod raw;
pub mod recover;
pub mod replay;
pub mod rows;
pub mod runs;
pub mod size;
pub mod spool;
pub mod store;
pub mod verify;
pub mod views;
pub mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::ids::AccountId;
use crate::pii::PiiRequest;
use crate::schema::Table;
use crate::worker;
use create::check_can_create;
use delta::Touched;
pub use error::LakeError;
use identity::Identity;
use layout::Period;
use log::{CheckpointError, Record};
use metadata::read_metadata;
use store::{LockGuard, Store};

/// Maximum time that a run waits for the lock of a local lake before it ends with a conflict.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(600);

/// Attempts at a step of the protocol that loses a race against other runs.
const ATTEMPTS: u32 = 10;

/// Object size that logs a warning: a put keeps the complete object in memory.
const LARGE_OBJECT_BYTES: usize = 64 << 20;

/// Maximum object size.
const MAX_OBJECT_BYTES: usize = 512 << 20;

/// Maximum number of threads that encode, decode and use the disk. More threads cost memory and
/// gain little.
pub const BLOCKING: usize = 4;

/// An open lake: its store and its identity.
#[derive(Clone, Debug)]
pub struct Lake {
    store: Store,
    identity: Identity,
    scratch: PathBuf,
    /// Limits concurrent decoding and encoding to the number of cores.
    encode_slots: Arc<Semaphore>,
    /// The tables derived since the last commit: the Delta tables must follow them.
    touched: Arc<Mutex<Touched>>,
}

/// The account and settings that a run opens a lake with.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions<'a> {
    /// The account that the lake must hold.
    pub account: &'a AccountId,
    /// The base URL of the API, which a new lake keeps.
    pub base_url: &'a str,
    /// The current time, by the clock of the source.
    pub now: Timestamp,
    /// Buckets of new periods; `None` keeps the setting of the lake.
    pub buckets: Option<u32>,
    /// The period that the lake must have; `None` accepts any.
    pub period: Option<Period>,
    /// The period of a new lake.
    pub new_period: Period,
    /// Whether to update Delta tables; `None` keeps the setting of the lake.
    pub delta: Option<bool>,
    /// The requested handling of personal data.
    pub pii: &'a PiiRequest,
    /// The scratch directory.
    pub scratch: &'a Path,
}

impl Lake {
    fn new(store: Store, identity: Identity, scratch: &Path) -> Self {
        Self {
            store,
            identity,
            scratch: scratch.to_path_buf(),
            encode_slots: Arc::new(Semaphore::new(cores())),
            touched: Arc::default(),
        }
    }

    /// Opens the lake of an account. Creates it if it does not exist and the store honours
    /// conditional writes.
    ///
    /// # Errors
    ///
    /// [`LakeError::Newer`], [`LakeError::OtherAccount`], [`LakeError::Pii`], [`LakeError::OtherPeriod`],
    /// [`LakeError::Probe`], [`LakeError::Identity`].
    pub async fn open(store: Store, options: &OpenOptions<'_>) -> Result<Self, LakeError> {
        let _lock = check_and_lock(&store).await?;
        let (identity, is_new) = Identity::open_or_create(&store, options).await?;
        if is_new {
            tracing::info!(lake = store.location(), account.id = %options.account, "created the lake");
        }
        let mut lake = Self::new(store, identity, options.scratch);
        lake.turn_delta(options.delta).await?;
        Ok(lake)
    }

    /// Opens a lake that receives the rows of this one. Creates it if it does not exist.
    ///
    /// `buckets` and `period` apply to a new lake only; by default it has those of this lake.
    ///
    /// # Errors
    ///
    /// [`LakeError::Newer`], [`LakeError::OtherAccount`], [`LakeError::OtherPii`],
    /// [`LakeError::OtherPeriod`], [`LakeError::Probe`].
    pub async fn open_like(
        &self,
        store: Store,
        now: Timestamp,
        settings: (Option<u32>, Option<Period>),
    ) -> Result<Self, LakeError> {
        let _lock = check_and_lock(&store).await?;
        let identity = Identity::open_or_create_like(&store, &self.identity, now, settings).await?;
        Ok(Self::new(store, identity, &self.scratch))
    }

    /// Opens an existing lake.
    ///
    /// # Errors
    ///
    /// [`LakeError::Missing`] if it does not exist, [`LakeError::Newer`].
    pub async fn open_existing(store: Store, scratch: &Path) -> Result<Self, LakeError> {
        check_not_newer(&store).await?;
        match Identity::read(&store).await? {
            Some((identity, _)) => Ok(Self::new(store, identity, scratch)),
            None => Err(LakeError::Missing {
                store: store.location().to_owned(),
            }),
        }
    }

    /// The account of the lake.
    pub fn account(&self) -> &AccountId {
        &self.identity.account_id
    }

    /// The period of the table objects.
    pub fn period(&self) -> Period {
        self.identity.period
    }

    /// The identity of the lake.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The scratch directory.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The store of the lake.
    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// Checks that no newer version of this program wrote the lake, before anything is written there.
///
/// Every run that commits replaces `scopes`, so its footer shows a newer schema of the tables.
///
/// # Errors
///
/// [`LakeError::Newer`]. A damaged checkpoint is no error here: its reader reports it.
pub async fn check_not_newer(store: &Store) -> Result<(), LakeError> {
    if Identity::read(store).await?.is_none() {
        return Ok(());
    }
    match Record::newest(store).await {
        Ok(_) | Err(CheckpointError::Damaged { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    read_metadata(store, &layout::dimension(Table::Scopes)).await?;
    Ok(())
}

/// Takes the lock of a lake, after checking that the lake exists or can be created.
async fn check_and_lock(store: &Store) -> Result<LockGuard, LakeError> {
    check_not_newer(store).await?;
    if Identity::read(store).await?.is_none() {
        check_can_create(store).await?;
        store.probe().await?;
    }
    Ok(store.lock(LOCK_TIMEOUT).await?)
}

/// Runs slow work on a blocking thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LakeError> + Send + 'static,
) -> Result<T, LakeError> {
    worker::spawn(work).await
}

/// Returns the number of cores.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Waits before a further attempt. The maximum doubles each time; jitter separates racing runs.
async fn back_off(attempt: u32) {
    if attempt == 0 {
        return;
    }
    let max_ms = 50_u64 << attempt.min(6);
    tokio::time::sleep(Duration::from_millis(fastrand::u64(..max_ms))).await;
}

/// Returns an error if an object is too large to write, and logs a warning if it is large.
fn check_size(path: &str, bytes: usize) -> Result<(), LakeError> {
    let megabytes = bytes >> 20;
    if bytes >= MAX_OBJECT_BYTES {
        let path = path.to_owned();
        return Err(LakeError::TooLarge { path, megabytes });
    }
    if bytes >= LARGE_OBJECT_BYTES {
        let buckets = bytes.div_ceil(LARGE_OBJECT_BYTES);
        tracing::warn!(
            path,
            megabytes,
            "large object: set --buckets {buckets} to split new periods"
        );
    }
    Ok(())
}
