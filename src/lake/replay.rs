//! Rebuilds tables from the raw partitions of a lake, without API requests.

use std::collections::BTreeMap;
use std::iter::{self, Peekable};
use std::time::{Duration, Instant};

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use jiff::civil::Date;
use tokio::sync::Semaphore;

use super::commit::{PendingList, json};
use super::derive::{Derived, RawDay, RawDays, Refresh, Threads, add_day};
use super::features::FORMAT;
use super::layout::{self, Partition, TablePartition};
use super::log::Record;
use super::metadata::read_metadata;
use super::rows::RawObject;
use super::{BLOCKING, LOCK_TIMEOUT, Lake, LakeError, cores};

/// A range of dates. Each end may be open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dates {
    /// The first date.
    pub from: Option<Date>,
    /// The end, exclusive.
    pub to: Option<Date>,
}

/// A stored raw partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawPartition {
    /// The partition.
    pub partition: Partition,
    /// Bytes of its object.
    pub bytes: u64,
}

/// Maximum kilobytes of raw objects derived at once. A larger object is derived alone.
const MAX_CONCURRENT_KB: u32 = 12 << 10;

/// Time after which `replay` yields the lock of a local lake, once it has finished the partitions in
/// progress.
const LOCK_TURN: Duration = Duration::from_secs(10);

impl Dates {
    /// Returns true if the range has no end.
    pub fn are_all(self) -> bool {
        self.from.or(self.to).is_none()
    }

    /// Returns true if the range contains `date`.
    pub fn contains(self, date: Date) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date < to)
    }
}

impl Lake {
    /// Lists the raw partitions of the lake, oldest first.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`].
    pub async fn raw_partitions(&self, dates: Dates) -> Result<Vec<RawPartition>, LakeError> {
        let found = self.store.list(layout::RAW).await?;
        let relative = |path: &str| {
            path.strip_prefix(layout::RAW)?
                .strip_prefix('/')
                .map(str::to_owned)
        };
        let mut partitions: Vec<RawPartition> = found
            .iter()
            .filter_map(|found| {
                let partition = Partition::parse(&relative(&found.path)?)?;
                let bytes = found.size;
                Some(RawPartition { partition, bytes })
            })
            .filter(|raw| dates.contains(raw.partition.date))
            .collect();
        partitions.sort_by_key(|raw| raw.partition);
        Ok(partitions)
    }

    /// Derives the tables of the given partitions, and the dimensions. Cores and memory limit how many
    /// partitions it derives at once. Calls `on_derived` after each partition of the tables.
    ///
    /// # Errors
    ///
    /// [`LakeError`]. Tables that were derived before the error stay, and are correct.
    pub async fn replay(
        &self,
        partitions: &[RawPartition],
        refresh: Refresh,
        on_derived: impl FnMut(Derived),
    ) -> Result<(), LakeError> {
        self.replay_in_turns(partitions, refresh, LOCK_TURN, on_derived)
            .await
    }

    /// Leaves a pending list until [`Lake::finish_replay`], if the lake has Delta tables: a replay can change objects
    /// without a new revision, so other runs compare everything if it is killed.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`].
    pub async fn begin_replay(&self, run_id: &str) -> Result<(), LakeError> {
        if !self.identity.has_delta() {
            return Ok(());
        }
        let list = PendingList {
            format: FORMAT,
            run_id: run_id.to_owned(),
            partitions: Vec::new(),
            is_replay: true,
        };
        let path = layout::pending(run_id, 0);
        Ok(self.store.overwrite(&path, json(&list)).await?)
    }

    /// Updates the Delta tables after a replay, if the lake has any: completely after one of all dates, which also
    /// repairs them.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`], [`LakeError::Contended`].
    pub async fn finish_replay(
        &self,
        run_id: &str,
        dates: Dates,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        if !self.identity.has_delta() {
            return Ok(());
        }
        let _lock = self.store.lock(LOCK_TIMEOUT).await?;
        let record = Record::newest(&self.store).await?;
        if dates.are_all() {
            self.compare_delta_completely();
        }
        let dimensions = self.commit_delta(run_id, &record, now).await?;
        self.commit_delta_dimensions(dimensions, &record, now)
            .await?;
        self.delete_pending(run_id).await
    }

    async fn replay_in_turns(
        &self,
        partitions: &[RawPartition],
        refresh: Refresh,
        turn: Duration,
        mut on_derived: impl FnMut(Derived),
    ) -> Result<(), LakeError> {
        let mut by_tables: BTreeMap<TablePartition, Vec<RawPartition>> = BTreeMap::new();
        for raw in partitions {
            let tables = raw.partition.tables(self.period());
            by_tables.entry(tables).or_default().push(*raw);
        }
        let mut waiting = by_tables.into_iter().peekable();
        let mut lock = self.store.lock(LOCK_TIMEOUT).await?;
        loop {
            self.derive_for(turn, &mut waiting, refresh, &mut on_derived)
                .await?;
            if waiting.peek().is_none() {
                break;
            }
            // Lets a waiting sync run in between.
            lock = self.store.yield_lock(lock, LOCK_TIMEOUT).await?;
        }
        let record = Record::newest(&self.store).await?;
        if record.number > 0 {
            self.derive_dimensions(&record).await?;
        }
        drop(lock);
        Ok(())
    }

    /// Derives at least one partition, and starts no further one after `turn`.
    async fn derive_for(
        &self,
        turn: Duration,
        waiting: &mut Peekable<impl Iterator<Item = (TablePartition, Vec<RawPartition>)>>,
        refresh: Refresh,
        on_derived: &mut impl FnMut(Derived),
    ) -> Result<(), LakeError> {
        let first = waiting.next();
        let at_once = cores();
        let memory = &Semaphore::new(MAX_CONCURRENT_KB as usize);
        let since = Instant::now();
        let others = iter::from_fn(|| waiting.next_if(|_| since.elapsed() < turn));
        let some = first.into_iter().chain(others);
        let mut derived = stream::iter(some)
            .map(|(partition, raw)| async move {
                let bytes = raw.iter().map(|raw| raw.bytes).sum();
                let kilobytes = u32::try_from(bytes >> 10).unwrap_or(MAX_CONCURRENT_KB);
                // The semaphore is never closed.
                let _share = memory.acquire_many(kilobytes.min(MAX_CONCURRENT_KB)).await;
                let threads = threads(bytes, at_once);
                self.derive_stored(partition, &raw, refresh, threads).await
            })
            // One more than cores: it is read while the others are encoded and written.
            .buffer_unordered(at_once + 1);
        while let Some(derived) = derived.try_next().await? {
            on_derived(derived);
        }
        Ok(())
    }

    /// Derives the tables of a partition from stored raw objects of its days.
    async fn derive_stored(
        &self,
        partition: TablePartition,
        raw: &[RawPartition],
        refresh: Refresh,
        threads: Threads,
    ) -> Result<Derived, LakeError> {
        let mut days = RawDays::new();
        let mut kilobytes = 0;
        for raw in raw {
            let (path, date) = (raw.partition.raw(), raw.partition.date);
            kilobytes += raw.bytes >> 10;
            if days.is_empty() || kilobytes <= u64::from(MAX_CONCURRENT_KB) {
                if let Some((bytes, _)) = self.store.get(&path).await? {
                    add_day(&mut days, date, RawObject::new(&path, bytes)?);
                }
            } else if let Some((metadata, _)) = read_metadata(&self.store, &path).await? {
                let metadata = metadata?;
                let day = RawDay {
                    revision: metadata.revision,
                    rows: metadata.rows,
                    object: None,
                };
                days.insert(date, day);
            }
        }
        self.derive(partition, days, refresh, threads).await
    }
}

/// Returns the number of threads for a partition, so that all cores are busy. One thread suffices if
/// memory allows one partition of this size per core, and a blocking thread is left for the disk.
fn threads(bytes: u64, cores: usize) -> Threads {
    let all = (bytes >> 10).saturating_mul(cores as u64);
    if cores < BLOCKING && all <= u64::from(MAX_CONCURRENT_KB) {
        Threads::One
    } else {
        Threads::Two
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::ids::AccountId;
    use crate::lake::OpenOptions;
    use crate::lake::commit::tests::observation;
    use crate::lake::layout::Period;
    use crate::lake::spool::Spool;
    use crate::lake::store::Store;
    use crate::pii::PiiRequest;
    use crate::window::from_ms;

    #[tokio::test]
    async fn waiting_sync_gets_the_lock_between_turns() {
        let folder = tempfile::tempdir().unwrap();
        let store = || Store::open(&folder.path().display().to_string()).unwrap();
        let account = AccountId::new("account");
        let options = OpenOptions {
            account: &account,
            base_url: crate::tables::DEFAULT_BASE_URL,
            now: from_ms(0),
            buckets: None,
            pii: &PiiRequest::default(),
            period: None,
            delta: None,
            new_period: Period::Day,
            scratch: folder.path(),
        };
        let lake = Lake::open(store(), &options).await.unwrap();
        let mut spool = Spool::new(folder.path());
        for day in 0..2 {
            let seen = observation(0, day, from_ms(1_763_971_200_000 + day * 86_400_000));
            let partition = lake.identity().partition(&seen.id, seen.start);
            spool.push(partition, seen).unwrap();
        }
        lake.merge_spool("run", 0, &mut spool, || true)
            .await
            .unwrap();
        let partitions = lake.raw_partitions(Dates::default()).await.unwrap();

        let order = RefCell::new(Vec::new());
        let (locked, is_locked) = tokio::sync::oneshot::channel();
        let sync = async {
            is_locked.await.unwrap();
            let _lock = store().lock(Duration::from_secs(60)).await.unwrap();
            order.borrow_mut().push("sync");
        };
        let mut locked = Some(locked);
        let replay = lake.replay_in_turns(&partitions, Refresh::All, Duration::ZERO, |_| {
            order.borrow_mut().push("partition");
            if let Some(locked) = locked.take() {
                locked.send(()).unwrap();
            }
        });
        let ((), replayed) = tokio::join!(sync, replay);
        replayed.unwrap();
        assert_eq!(order.into_inner(), ["partition", "sync", "partition"]);
    }

    #[test]
    fn one_thread_suffices_if_each_core_has_a_partition() {
        for (bytes, cores, expected) in [
            (4 << 20, 2, Threads::One),
            (4 << 20, 3, Threads::One),
            (7 << 20, 2, Threads::Two),
            (40 << 20, 1, Threads::Two),
            (100 << 10, BLOCKING, Threads::Two),
            (u64::MAX, 3, Threads::Two),
        ] {
            assert_eq!(threads(bytes, cores), expected, "{bytes} on {cores}");
        }
    }
}
