//! Deriving tables again from the raw partitions that a lake holds, with no request to the source.

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::civil::Date;

use super::derive::{Derived, Which};
use super::layout::{self, Partition};
use super::log::Record;
use super::rows::RawObject;
use super::{LOCK_PATIENCE, Lake, LakeError};

/// Dates, both ends possibly open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dates {
    /// The first date.
    pub from: Option<Date>,
    /// The first date after.
    pub to: Option<Date>,
}

impl Dates {
    /// Whether `date` is one of them.
    pub fn hold(self, date: Date) -> bool {
        self.from.is_none_or(|from| from <= date) && self.to.is_none_or(|to| date < to)
    }
}

impl Lake {
    /// The raw partitions of the lake, oldest first.
    ///
    /// # Errors
    ///
    /// [`LakeError::Store`].
    pub async fn raw_partitions(&self, dates: Dates) -> Result<Vec<Partition>, LakeError> {
        let found = self.store.list(layout::RAW).await?;
        let within = |path: &str| {
            path.strip_prefix(layout::RAW)?
                .strip_prefix('/')
                .map(str::to_owned)
        };
        let mut partitions: Vec<Partition> = found
            .iter()
            .filter_map(|found| Partition::parse(&within(&found.path)?))
            .filter(|partition| dates.hold(partition.date))
            .collect();
        partitions.sort();
        Ok(partitions)
    }

    /// Derives the tables of the given partitions, `at_once` at a time, and the dimensions.
    /// `told` hears of each partition.
    ///
    /// # Errors
    ///
    /// [`LakeError`]; what was derived by then stays, and is right.
    pub async fn replay(
        &self,
        partitions: &[Partition],
        which: Which,
        at_once: usize,
        mut told: impl FnMut(Partition, Derived),
    ) -> Result<(), LakeError> {
        // The lock of a local lake is given up now and then, so that a sync need not wait for hours.
        for some in partitions.chunks(at_once.max(1) * 8) {
            let _lock = self.store.lock(LOCK_PATIENCE).await?;
            let mut derived = stream::iter(some.iter().copied())
                .map(|partition| async move {
                    Ok::<_, LakeError>((partition, self.derive_stored(partition, which).await?))
                })
                .buffer_unordered(at_once.max(1));
            while let Some((partition, derived)) = derived.try_next().await? {
                told(partition, derived);
            }
        }
        let _lock = self.store.lock(LOCK_PATIENCE).await?;
        let record = Record::newest(&self.store).await?;
        if 0 < record.number {
            self.derive_dimensions(&record).await?;
        }
        Ok(())
    }

    /// Derives the tables of a partition from the raw object that is stored.
    pub(super) async fn derive_stored(
        &self,
        partition: Partition,
        which: Which,
    ) -> Result<Derived, LakeError> {
        let path = partition.raw();
        let Some((bytes, _)) = self.store.get(&path).await? else {
            return Ok(Derived::default());
        };
        let raw = RawObject::new(&path, bytes)?;
        self.derive(partition, &raw, which).await
    }
}
