//! Derives tables from raw objects: step 4 of the protocol in `ARCHITECTURE.md`.
//!
//! A table object carries the revision of each raw object that it was derived from. Only an object of
//! a higher revision replaces the rows of a day; the rows of other days are kept. So once all runs
//! have ended, a table depends on its raw objects alone.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::civil::Date;
use serde::Serialize;

use super::diff::{equal_except_write_id, equal_rows};
pub use super::encode::Threads;
use super::encode::{EncodedTables, Encoder, Replaced, TableEncoder};
use super::finding::run_backfill;
use super::layout::{Partition, Period, TablePartition};
use super::metadata::{DayOfTable, Days, FileMetadata, read_metadata};
use super::parquet::{FileKind, ParsedObject};
use super::replay::Dates;
use super::rows::RawObject;
use super::store::{Expected, PutOutcome, Tag};
use super::writer::Encoded;
use super::{Lake, LakeError, back_off, blocking};
use crate::drift::Drift;
use crate::failpoint::hit;
use crate::schema::Table;

/// An object that a run wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct WrittenFile {
    /// Its path within the lake.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// The tables to derive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Missing tables, and tables older than the raw object.
    Stale,
    /// Also tables that an older version of this program wrote (`replay`).
    Outdated,
    /// All tables (`replay --all`).
    All,
}

/// The result of deriving a partition.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// The replaced objects.
    pub files: Vec<WrittenFile>,
    /// The number of days that were checked.
    pub checked_days: usize,
    /// The days that were decoded for the replaced objects.
    pub dates: BTreeSet<Date>,
    /// Unexpected fields and values of the raw objects that were decoded.
    pub drift: BTreeMap<Partition, Drift>,
}

/// A raw object to derive tables from.
#[derive(Clone, Debug)]
pub struct RawDay {
    /// Its revision.
    pub revision: u64,
    /// Its rows.
    pub rows: u64,
    /// The object; `None` to read it when it is decoded, because a month of raw objects does not fit
    /// in memory.
    pub object: Option<RawObject>,
}

/// Raw objects of one partition of the tables.
pub type RawDays = BTreeMap<Date, RawDay>;

/// Maximum bytes of raw objects of one partition that are held in memory.
const HELD_BYTES: usize = 12 << 20;

impl From<RawObject> for RawDay {
    fn from(raw: RawObject) -> Self {
        Self {
            revision: raw.revision,
            rows: raw.rows,
            object: Some(raw),
        }
    }
}

/// Adds a raw object. Drops its bytes if too many others are held in memory.
pub(super) fn add_day(days: &mut RawDays, date: Date, raw: RawObject) {
    let held = |day: &RawDay| day.object.as_ref().map_or(0, |raw| raw.bytes.len());
    let others: usize = days.values().map(held).sum();
    let mut day = RawDay::from(raw);
    if !days.is_empty() && others + held(&day) > HELD_BYTES {
        day.object = None;
    }
    days.insert(date, day);
}

/// A table object to replace.
#[derive(Clone, Debug)]
struct Target {
    table: Table,
    current: Option<Current>,
    /// The days to derive. The other days of the current object are kept.
    due: BTreeSet<Date>,
}

/// The current object of a table.
#[derive(Clone, Debug)]
struct Current {
    /// `None` if the object is damaged.
    metadata: Option<FileMetadata>,
    tag: Tag,
}

impl Target {
    /// Returns the metadata and days of the current object if some of its days are kept.
    fn kept(&self, start: Date) -> Option<(&FileMetadata, Days)> {
        let metadata = self.current.as_ref()?.metadata.as_ref()?;
        let days = metadata.days_from(start);
        let keeps = days.keys().any(|date| !self.due.contains(date));
        keeps.then_some((metadata, days))
    }
}

impl Lake {
    /// Derives the tables of a partition from raw objects of its days.
    ///
    /// Keeps the rows of other days. Writes `executions` last: if it is current, so are the other
    /// tables. At most one partition per core is encoded at a time.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`] if other runs kept replacing the same objects.
    pub async fn derive(
        &self,
        partition: TablePartition,
        mut days: RawDays,
        refresh: Refresh,
        threads: Threads,
    ) -> Result<Derived, LakeError> {
        let mut derived = Derived {
            checked_days: days.len(),
            ..Derived::default()
        };
        for attempt in 0..super::ATTEMPTS {
            back_off(attempt).await;
            let targets = self.targets(partition, &mut days, refresh).await?;
            if targets.is_empty() {
                return Ok(derived);
            }
            let encoded = self.encode(partition, &days, &targets, threads).await?;
            let Some((bodies, drift)) = encoded else {
                continue;
            };
            derived.drift = drift;
            if self
                .replace(partition, refresh, targets, bodies, &mut derived)
                .await?
            {
                return Ok(derived);
            }
        }
        Err(LakeError::Contended {
            what: format!("the tables of {}", partition.start),
        })
    }

    /// Returns the tables of the partition to replace, in the order of writing. Removes the days that
    /// must not be derived.
    async fn targets(
        &self,
        partition: TablePartition,
        days: &mut RawDays,
        refresh: Refresh,
    ) -> Result<Vec<Target>, LakeError> {
        let mut last = Some(self.current(partition, Table::Executions).await?);
        let executions = last.as_ref().and_then(known_days(partition.start));
        self.skip_lost_days(partition, executions.as_ref(), refresh, days)
            .await?;
        let is_current = |(date, day): (&Date, &RawDay)| {
            let derived = executions.as_ref().and_then(|days| days.get(date));
            derived.is_some_and(|derived| derived.revision >= day.revision)
        };
        if days.is_empty() || (refresh == Refresh::Stale && days.iter().all(is_current)) {
            return Ok(Vec::new());
        }
        let mut tables = Vec::new();
        for table in Table::PARTITIONED {
            let current = match last.take_if(|_| table == Table::Executions) {
                Some(last) => last,
                None => self.current(partition, table).await?,
            };
            tables.push((table, current));
        }
        let is_missing = |(_, current): &(Table, Option<Current>)| {
            known_days(partition.start)(current).is_none()
        };
        if partition.period != Period::Day && tables.iter().any(is_missing) {
            // A new object must hold all days, not only those of this run.
            self.add_other_days(partition, days).await?;
            self.skip_lost_days(partition, executions.as_ref(), refresh, days)
                .await?;
        }
        let mut targets = Vec::new();
        for (table, current) in tables {
            let due = self.due(partition, current.as_ref(), refresh, days).await?;
            if !due.is_empty() {
                targets.push(Target {
                    table,
                    current,
                    due,
                });
            }
        }
        Ok(targets)
    }

    /// Reads the metadata of the object of a table; `None` if there is no object.
    async fn current(
        &self,
        partition: TablePartition,
        table: Table,
    ) -> Result<Option<Current>, LakeError> {
        let path = partition.path(table);
        let found = read_metadata(&self.store, &path).await?;
        Ok(found.map(|(metadata, tag)| {
            let metadata =
                metadata.and_then(|metadata| metadata.require_period(partition.period, &path));
            Current {
                metadata: metadata.ok(),
                tag,
            }
        }))
    }

    /// Returns the days to derive for a table.
    async fn due(
        &self,
        partition: TablePartition,
        current: Option<&Current>,
        refresh: Refresh,
        days: &RawDays,
    ) -> Result<BTreeSet<Date>, LakeError> {
        let metadata = current.and_then(|current| current.metadata.as_ref());
        let derived = metadata.map(|metadata| metadata.days_from(partition.start));
        let derived = derived.unwrap_or_default();
        let is_refreshed = match refresh {
            Refresh::Stale => false,
            Refresh::Outdated => {
                metadata.is_some_and(|table| table.writer_order() == Ordering::Less)
            }
            Refresh::All => true,
        };
        let mut due = BTreeSet::new();
        for (date, day) in days {
            let is_due = match derived.get(date) {
                None => true,
                Some(derived) if derived.revision > day.revision => {
                    // Another run merged after us and derives this table, unless the raw object was
                    // restored from a backup.
                    refresh != Refresh::Stale
                        && self
                            .is_newer_than_raw(partition.raw(*date), derived.revision)
                            .await?
                }
                Some(derived) => derived.revision < day.revision || is_refreshed,
            };
            if is_due {
                due.insert(*date);
            }
        }
        Ok(due)
    }

    /// Removes the days of which `executions` may hold the only copy of some rows.
    async fn skip_lost_days(
        &self,
        partition: TablePartition,
        executions: Option<&Days>,
        refresh: Refresh,
        days: &mut RawDays,
    ) -> Result<(), LakeError> {
        let Some(executions) = executions.filter(|_| refresh != Refresh::All) else {
            return Ok(());
        };
        for (date, derived) in executions {
            if days.get(date).is_some_and(|day| day.rows < derived.rows)
                && self
                    .raw_has_fewer_rows(partition.raw(*date), derived)
                    .await?
            {
                tracing::warn!(
                    "skipped the tables of {date}: the raw partition has fewer executions; to repair it, run: {}",
                    run_backfill(*date)
                );
                days.remove(date);
            }
        }
        Ok(())
    }

    /// Adds the days of the partition that have a raw object, without reading their rows.
    async fn add_other_days(
        &self,
        partition: TablePartition,
        days: &mut RawDays,
    ) -> Result<(), LakeError> {
        let dates = Dates {
            from: Some(partition.start),
            to: Some(partition.period.end(partition.start)),
        };
        for raw in self.raw_partitions(dates).await? {
            let date = raw.partition.date;
            if raw.partition.tables(partition.period) == partition && !days.contains_key(&date) {
                let found = read_metadata(&self.store, &raw.partition.raw()).await?;
                if let Some((Ok(metadata), _)) = found {
                    let day = RawDay {
                        revision: metadata.revision,
                        rows: metadata.rows,
                        object: None,
                    };
                    days.insert(date, day);
                }
            }
        }
        Ok(())
    }

    /// Returns true if the current raw object has fewer executions than the table derived from it. A
    /// merge never removes one, so the raw object was lost. The table may hold the only copy of some.
    pub(super) async fn raw_has_fewer_rows(
        &self,
        partition: Partition,
        executions: &DayOfTable,
    ) -> Result<bool, LakeError> {
        self.raw_is(partition, |raw| raw.rows < executions.rows)
            .await
    }

    /// Returns the highest raw revision that any of `tables` was derived from, or 0. The next raw
    /// object must exceed it, or the tables of a lost or restored raw object would not follow.
    pub(super) async fn derived_revision(
        &self,
        partition: Partition,
        tables: &[Table],
    ) -> Result<u64, LakeError> {
        let (date, partition) = (partition.date, partition.tables(self.identity.period));
        let mut highest = 0;
        for table in tables.iter().copied() {
            let current = self.current(partition, table).await?;
            let derived = known_days(partition.start)(&current);
            let derived = derived.and_then(|days| days.get(&date).copied());
            highest = highest.max(derived.map_or(0, |day| day.revision));
        }
        Ok(highest)
    }

    /// Returns true if a table of `revision` is newer than the current raw object. Raw objects are
    /// written first, so one of them was restored from a backup.
    pub(super) async fn is_newer_than_raw(
        &self,
        partition: Partition,
        revision: u64,
    ) -> Result<bool, LakeError> {
        self.raw_is(partition, |raw| raw.revision < revision).await
    }

    /// Returns true if the current raw object is readable and matches a condition.
    async fn raw_is(
        &self,
        partition: Partition,
        condition: impl FnOnce(&FileMetadata) -> bool,
    ) -> Result<bool, LakeError> {
        let raw = read_metadata(&self.store, &partition.raw()).await?;
        Ok(raw.is_some_and(|(raw, _)| raw.is_ok_and(|raw| condition(&raw))))
    }

    /// Encodes the targets, one day after another. Returns `None` if another run replaced an object
    /// whose rows are kept, or if a raw object is gone.
    async fn encode(
        &self,
        partition: TablePartition,
        days: &RawDays,
        targets: &[Target],
        threads: Threads,
    ) -> Result<Option<EncodedTables>, LakeError> {
        // The semaphore is never closed.
        let _slot = self.encode_slots.acquire().await;
        let executions = days.values().map(|day| day.rows).sum();
        let mut tables = Vec::new();
        for target in targets {
            let path = partition.path(target.table);
            let replaced = match target.kept(partition.start) {
                None => None,
                Some((metadata, kept)) => {
                    let found = self.store.get(&path).await?;
                    let tag = target.current.as_ref().map(|current| &current.tag);
                    let Some((bytes, _)) = found.filter(|(_, found)| Some(found) == tag) else {
                        return Ok(None);
                    };
                    let kind = FileKind::of_table(target.table, partition.period);
                    let object = (bytes, metadata, kept);
                    Some(Replaced::new(kind, &path, object, &target.due)?)
                }
            };
            let size = (executions, self.scratch.as_path());
            let due = target.due.clone();
            tables.push(TableEncoder::new(
                partition,
                target.table,
                due,
                replaced,
                size,
            )?);
        }
        let mut encoder = Encoder::new(self.identity.table_account(), partition, tables);
        let due: BTreeSet<Date> = targets
            .iter()
            .flat_map(|target| target.due.clone())
            .collect();
        for date in due {
            let held = days.get(&date).and_then(|day| day.object.clone());
            let raw = if let Some(raw) = held {
                raw
            } else {
                let path = partition.raw(date).raw();
                let Some((bytes, _)) = self.store.get(&path).await? else {
                    return Ok(None);
                };
                RawObject::new(&path, bytes)?
            };
            let push = move || {
                encoder.push(date, &raw, threads)?;
                Ok(encoder)
            };
            encoder = blocking(push).await?;
        }
        blocking(move || Ok(Some(encoder.finish()?))).await
    }

    /// Writes the bodies in order. Returns false if another run replaced one of the objects first.
    async fn replace(
        &self,
        partition: TablePartition,
        refresh: Refresh,
        targets: Vec<Target>,
        bodies: Vec<Encoded>,
        derived: &mut Derived,
    ) -> Result<bool, LakeError> {
        let mut copies = BTreeMap::new();
        for (target, encoded) in targets.into_iter().zip(bodies) {
            let (table, path) = (target.table, partition.path(target.table));
            let rows = encoded.rows();
            let body = blocking(|| Ok(encoded.into_bytes()?)).await?;
            super::check_size(&path, body.len())?;
            if refresh != Refresh::Stale && self.is_unchanged(&path, &target, &body).await? {
                continue;
            }
            let expected = match target.current {
                Some(current) => Expected::Version(current.tag),
                None => Expected::Absent,
            };
            let bytes = body.len() as u64;
            hit("before-table");
            match self.store.put(&path, body.clone(), &expected).await? {
                PutOutcome::Written(_) => {
                    hit("after-table");
                    if let Some(copy) = self.copy_to_delta(table, partition, &body).await? {
                        copies.insert(table, copy);
                    }
                    derived.dates.extend(target.due);
                    derived.files.push(WrittenFile {
                        path,
                        rows: rows as u64,
                        bytes,
                    });
                }
                PutOutcome::Lost => {
                    self.touch(partition, copies);
                    return Ok(false);
                }
            }
        }
        self.touch(partition, copies);
        Ok(true)
    }

    /// Returns true if the current object has the rows, the revision and the writer of `body`.
    async fn is_unchanged(
        &self,
        path: &str,
        target: &Target,
        body: &Bytes,
    ) -> Result<bool, LakeError> {
        let current = target.current.as_ref();
        let Some(current) = current.and_then(|current| current.metadata.as_ref()) else {
            return Ok(false);
        };
        let new = FileMetadata::of(path, body)?;
        let comparable = |metadata: &FileMetadata| FileMetadata {
            write_id: String::new(),
            ..metadata.clone()
        };
        if comparable(current) != comparable(&new) {
            return Ok(false);
        }
        let Some((bytes, _)) = self.store.get(path).await? else {
            return Ok(false);
        };
        // Encoding is deterministic, so equal rows of one writer usually give equal bytes.
        if equal_except_write_id((&bytes, &current.write_id), (body, &new.write_id)) {
            return Ok(true);
        }
        let (path, body) = (path.to_owned(), body.clone());
        blocking(move || {
            let [current, new] = [bytes, body].map(|bytes| ParsedObject::new(&path, bytes));
            let (current, new) = (current?, new?);
            equal_rows((&current, 0..current.rows()), &new)
        })
        .await
    }
}

/// Returns a function that returns the days of a current object whose period begins at `start`; `None`
/// if it is missing or damaged.
fn known_days(start: Date) -> impl Fn(&Option<Current>) -> Option<Days> {
    move |current| {
        let metadata = current.as_ref()?.metadata.as_ref()?;
        Some(metadata.days_from(start))
    }
}
