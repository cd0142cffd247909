//! Checks a lake: every file, every execution, tables against raw partitions, the checkpoint against
//! both.
//!
//! Other runs may be active. So derived objects are listed before their sources (the checkpoint and
//! tables before raw partitions), and are read again before they are reported as damaged.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;

use super::diff::difference;
use super::encode::{Expectation, expectation, rows_of_days};
use super::finding::{
    Audit, DELETE_RECORD, DELETE_THEN_SYNC, FindingKind, MOVE_FILE, REBUILD, RUN_REPLAY, RUN_SYNC,
    UPGRADE, run_backfill,
};
use super::inventory::hash;
use super::layout::{self, Partition, Period, TablePartition, date_of};
use super::log::{CheckpointError, Record};
use super::metadata::{DayOfTable, FileMetadata, read_metadata};
use super::parquet::{FileError, FileKind};
use super::rows::{RawObject, each_row};
use super::store::ObjectInfo;
use super::{Lake, LakeError, blocking};
use crate::causes::chain;
use crate::ids::PlanExecutionId;
use crate::schema::{Table, VERSION};
use crate::window::from_ms;

/// The executions of the raw partitions.
#[derive(Default)]
struct RawIndex {
    /// The partition of each execution, by the hash of its id.
    partitions: HashMap<u128, Partition>,
    /// Executions that are not terminal.
    open: HashSet<PlanExecutionId>,
}

/// The objects of one partition of the tables, read before its raw objects.
struct StoredTables {
    partition: TablePartition,
    objects: HashMap<Table, Bytes>,
}

impl StoredTables {
    /// Returns the metadata of a table, and a day with its rows in the object; `None` if the object is missing or lacks
    /// the day.
    fn day(
        &self,
        table: Table,
        date: Date,
    ) -> Result<Option<(FileMetadata, DayOfTable, Range<usize>)>, FileError> {
        let Some(bytes) = self.objects.get(&table) else {
            return Ok(None);
        };
        let path = self.partition.path(table);
        let metadata = FileMetadata::of(&path, bytes)?;
        let metadata = metadata.require_period(self.partition.period, &path)?;
        let days = metadata.days_from(self.partition.start);
        let rows = rows_of_days(&days).find(|(day, _)| *day == date);
        Ok(rows.map(|(_, rows)| (metadata, days[&date], rows)))
    }
}

impl Lake {
    /// Checks the lake:
    ///
    /// - the names, schema and metadata of all files;
    /// - each execution is stored once, in its partition;
    /// - tables equal the tables derived from their raw object;
    /// - the checkpoint and the dimensions derived from it;
    /// - the Delta tables. `now` shows which of their files are leftover.
    ///
    /// # Errors
    ///
    /// [`LakeError`] if the store cannot be read. A problem of a single file is a finding.
    pub async fn verify(&self, now: Timestamp) -> Result<Audit, LakeError> {
        let mut audit = Audit::default();
        let record = self.newest_record(&mut audit).await?;
        if let Some(record) = &record {
            self.verify_dimensions(record, &mut audit).await?;
        }
        let mut derived = BTreeMap::new();
        for table in Table::PARTITIONED {
            let (kind, folder) = (FileKind::Table(table), layout::table_folder(table));
            let found = self
                .files_in(kind, &folder, self.period(), &mut audit)
                .await?;
            derived.extend(
                found
                    .into_iter()
                    .map(|(partition, days)| ((partition, table), days)),
            );
        }
        let raw = self
            .files_in(FileKind::Raw, layout::RAW, Period::Day, &mut audit)
            .await?;
        for ((partition, table), days) in &derived {
            let path = partition.path(*table);
            for date in days {
                if !raw.contains_key(&partition.raw(*date).tables(Period::Day))
                    && !audit.has_finding(&path)
                {
                    let what = format!("the raw partition of {date} is missing");
                    let repair = run_backfill(*date);
                    audit.add(FindingKind::Damage, &path, what, repair);
                }
            }
        }
        let mut by_tables: BTreeMap<TablePartition, Vec<Partition>> = BTreeMap::new();
        for file in raw.into_keys() {
            let partition = file.raw(file.start);
            let tables = partition.tables(self.period());
            by_tables.entry(tables).or_default().push(partition);
        }
        let mut seen = RawIndex::default();
        for (tables, raw_partitions) in by_tables {
            let tables = self.stored_tables(tables).await?;
            for partition in raw_partitions {
                self.verify_partition(partition, &tables, &mut seen, &mut audit)
                    .await?;
            }
        }
        if let Some(record) = &record {
            self.verify_record(record, &seen, &mut audit);
        }
        self.verify_delta(now, &mut audit).await?;
        audit.findings.sort();
        Ok(audit)
    }

    /// Returns the partitions below a folder, with the days of each file. Adds findings for files with
    /// unknown names, and for files whose metadata does not match their path.
    async fn files_in(
        &self,
        kind: FileKind,
        folder: &str,
        period: Period,
        audit: &mut Audit,
    ) -> Result<BTreeMap<TablePartition, BTreeSet<Date>>, LakeError> {
        let mut partitions = BTreeMap::new();
        for ObjectInfo { path, .. } in self.store.list(folder).await? {
            let inner = path
                .strip_prefix(folder)
                .and_then(|path| path.strip_prefix('/'));
            let parse = |path| TablePartition::parse(period, path);
            let Some(partition) = inner.and_then(parse) else {
                foreign(&path, audit);
                continue;
            };
            let buckets = self.identity.buckets_of(partition.start);
            if partition.buckets != buckets {
                let what = format!(
                    "wrong number of buckets: _state/lake.json has {buckets} for this date"
                );
                audit.add(FindingKind::Damage, &path, what, MOVE_FILE);
            }
            let metadata = read_metadata(&self.store, &path).await?;
            let metadata = metadata.map(|(metadata, _)| match kind {
                FileKind::Raw => metadata,
                _ => metadata.and_then(|found| found.require_period(period, &path)),
            });
            let days = match &metadata {
                Some(Ok(metadata)) => metadata.days_from(partition.start).into_keys().collect(),
                _ => BTreeSet::from([partition.start]),
            };
            if let Some(metadata) = metadata
                && let Some(what) = mismatch(kind, metadata)?
            {
                match kind {
                    FileKind::Raw => damaged_raw(&path, partition.start, what, audit),
                    _ => audit.add(FindingKind::Damage, &path, what, REBUILD),
                }
            }
            partitions.insert(partition, days);
        }
        Ok(partitions)
    }

    /// Reads the objects of a partition of the tables.
    async fn stored_tables(&self, partition: TablePartition) -> Result<StoredTables, LakeError> {
        let mut objects = HashMap::new();
        for table in Table::PARTITIONED {
            if let Some((bytes, _)) = self.store.get(&partition.path(table)).await? {
                objects.insert(table, bytes);
            }
        }
        Ok(StoredTables { partition, objects })
    }

    async fn verify_partition(
        &self,
        partition: Partition,
        tables: &StoredTables,
        seen: &mut RawIndex,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let path = partition.raw();
        if audit.has_finding(&path) {
            return Ok(());
        }
        let Some((bytes, _)) = self.store.get(&path).await? else {
            return Ok(());
        };
        let raw = match RawObject::new(&path, bytes) {
            Ok(raw) => raw,
            Err(error) => {
                damaged_raw(&path, partition.date, damage(error)?, audit);
                return Ok(());
            }
        };
        audit.partitions += 1;
        audit.executions += raw.rows;
        if let Err(error) = self.verify_rows(partition, &raw, seen, audit) {
            damaged_raw(&path, partition.date, chain(&error), audit);
            return Ok(());
        }
        self.verify_tables(partition, raw, tables, audit).await
    }

    /// Checks that each execution is stored once, in the partition of its start and id.
    fn verify_rows(
        &self,
        partition: Partition,
        raw: &RawObject,
        seen: &mut RawIndex,
        audit: &mut Audit,
    ) -> Result<(), FileError> {
        each_row(&partition.raw(), raw, |row, is_terminal| {
            let id = PlanExecutionId::new(row.plan_execution_id);
            let start = from_ms(row.start_ms);
            if self.identity.partition(&id, start) != partition {
                let what = format!(
                    "execution {id} of {} belongs to another partition",
                    date_of(start)
                );
                damaged_raw(&partition.raw(), partition.date, what, audit);
            }
            if let Some(other) = seen.partitions.insert(hash(id.as_str()), partition) {
                let what = format!("execution {id} is also in {}", other.raw());
                damaged_raw(&partition.raw(), partition.date, what, audit);
            }
            if !is_terminal {
                seen.open.insert(id);
            }
            Ok(())
        })
    }

    /// Checks that the rows of a day in every table equal those derived from its raw object, at the
    /// same revision.
    async fn verify_tables(
        &self,
        partition: Partition,
        raw: RawObject,
        tables: &StoredTables,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let date = partition.date;
        let last = tables.partition.path(Table::Executions);
        if let Ok(Some((_, derived, _))) = tables.day(Table::Executions, date)
            && raw.rows < derived.rows
            && self.raw_has_fewer_rows(partition, &derived).await?
        {
            let what = format!(
                "has {} executions of {date}, but the raw partition has only {}",
                derived.rows, raw.rows
            );
            audit.add(FindingKind::Damage, &last, what, run_backfill(date));
            return Ok(());
        }
        let (account, scratch) = (self.identity.table_account(), self.scratch.clone());
        let (revision, of) = (raw.revision, tables.partition);
        let expected = blocking(move || expectation(&account, of, (date, &raw), &scratch)).await?;
        let mut missing = Vec::new();
        // `executions` is written last: if it is current, the others must exist.
        let mut is_current = false;
        for Expectation { table, body } in expected {
            let path = tables.partition.path(table);
            if audit.has_finding(&path) {
                continue;
            }
            let (metadata, derived, rows) = match tables.day(table, date) {
                Ok(Some(day)) => day,
                Ok(None) => {
                    missing.push((table, path));
                    continue;
                }
                Err(error) => {
                    audit.add(FindingKind::Damage, &path, damage(error)?, REBUILD);
                    continue;
                }
            };
            let derived = derived.revision;
            is_current = table == Table::Executions && derived == revision;
            if derived < revision {
                let what = stale(date, derived, revision);
                audit.add(FindingKind::Stale, &path, what, RUN_REPLAY);
            } else if derived > revision {
                if self.is_newer_than_raw(partition, derived).await? {
                    let what = format!(
                        "derived from revision {derived} of the raw partition of {date}, which has only {revision}"
                    );
                    audit.add(FindingKind::Damage, &path, what, REBUILD);
                }
            } else if let Some(what) =
                difference(&path, (tables.objects[&table].clone(), rows), body).await?
            {
                let by_other = format!("derived by version {}: {what}", metadata.writer_version);
                match metadata.writer_order() {
                    Ordering::Less => audit.add(FindingKind::Stale, &path, by_other, RUN_REPLAY),
                    Ordering::Equal => audit.add(FindingKind::Damage, &path, what, REBUILD),
                    Ordering::Greater => audit.add(FindingKind::Stale, &path, by_other, UPGRADE),
                }
            }
        }
        for (table, path) in missing {
            let tables = self.stored_tables(tables.partition).await?;
            if !matches!(tables.day(table, date), Ok(None)) {
                continue;
            }
            if is_current {
                let what =
                    format!("has no rows of {date}, although the executions table is current");
                audit.add(FindingKind::Damage, &path, what, REBUILD);
            } else {
                let what = format!("not derived from the raw partition of {date} yet");
                audit.add(FindingKind::Stale, &path, what, RUN_REPLAY);
            }
        }
        Ok(())
    }

    /// Returns the newest checkpoint record. A damaged record is a finding.
    async fn newest_record(&self, audit: &mut Audit) -> Result<Option<Record>, LakeError> {
        match Record::newest(&self.store).await {
            Ok(record) => Ok(Some(record)),
            Err(CheckpointError::Damaged { path, reason }) => {
                audit.add(FindingKind::Damage, &path, reason, DELETE_RECORD);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that `orgs`, `projects` and `scopes` equal the dimensions derived from the record.
    async fn verify_dimensions(&self, record: &Record, audit: &mut Audit) -> Result<(), LakeError> {
        for table in Table::DIMENSIONS {
            let path = layout::dimension(table);
            for ObjectInfo { path: found, .. } in
                self.store.list(&layout::table_folder(table)).await?
            {
                if found != path {
                    foreign(&found, audit);
                }
            }
            let Some((bytes, _)) = self.store.get(&path).await? else {
                if record.dimension_revision(table) > 0 {
                    let what = "not derived from the checkpoint yet";
                    audit.add(FindingKind::Stale, &path, what, RUN_SYNC);
                }
                continue;
            };
            let metadata = FileMetadata::of(&path, &bytes);
            let dimension = metadata.as_ref().ok().cloned();
            if let Some(what) = mismatch(FileKind::Table(table), metadata)? {
                audit.add(FindingKind::Damage, &path, what, DELETE_THEN_SYNC);
            } else if let Some(dimension) = dimension {
                self.verify_dimension(table, record, (dimension, bytes), audit)
                    .await?;
            }
        }
        Ok(())
    }

    async fn verify_dimension(
        &self,
        table: Table,
        record: &Record,
        (metadata, bytes): (FileMetadata, Bytes),
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let path = layout::dimension(table);
        let (derived, revision) = (metadata.revision, record.dimension_revision(table));
        match derived.cmp(&revision) {
            Ordering::Less => {
                let what = format!("derived from checkpoint {derived}; current is {revision}");
                audit.add(FindingKind::Stale, &path, what, RUN_SYNC);
            }
            Ordering::Greater => {
                let newest = self.newest_dimension_revision(table).await?;
                if newest < derived {
                    let what = format!("derived from checkpoint {derived}; the newest is {newest}");
                    audit.add(FindingKind::Damage, &path, what, RUN_SYNC);
                }
            }
            Ordering::Equal => {
                let (body, _) = self.encode_dimension(table, record)?;
                let rows = 0..usize::try_from(metadata.rows).unwrap_or_default();
                if let Some(what) = difference(&path, (bytes, rows), body).await? {
                    audit.add(FindingKind::Damage, &path, what, DELETE_THEN_SYNC);
                }
            }
        }
        Ok(())
    }

    /// Checks that every open execution of the record is open in its raw partition.
    fn verify_record(&self, record: &Record, seen: &RawIndex, audit: &mut Audit) {
        let path = layout::checkpoint(record.number);
        if record.number == 0 && audit.partitions > 0 {
            let what = "no run has committed a checkpoint yet";
            audit.add(FindingKind::Stale, layout::CHECKPOINTS, what, RUN_SYNC);
        }
        for (id, known) in &record.state.open {
            let Some(start) = known.start.filter(|_| !seen.open.contains(id)) else {
                continue;
            };
            if seen.partitions.contains_key(&hash(id.as_str())) {
                // The next run polls it once and closes it.
                let what = format!(
                    "execution {id} is open in the checkpoint but terminal in its raw partition"
                );
                audit.add(FindingKind::Stale, &path, what, RUN_SYNC);
                continue;
            }
            let partition = self.identity.partition(id, start);
            let tables = partition.tables(self.period());
            let [raw, table] = [partition.raw(), tables.path(Table::Executions)];
            // A missing or damaged raw object, or its tables, already has a finding.
            if !audit.has_finding(&raw) && !audit.has_finding(&table) {
                let what =
                    format!("execution {id} is open in the checkpoint but in no raw partition");
                let repair = run_backfill(partition.date);
                audit.add(FindingKind::Damage, &path, what, repair);
            }
        }
    }
}

/// Returns a description of how the metadata of a file does not match its path.
///
/// # Errors
///
/// [`LakeError::File`] for a file of a newer version.
fn mismatch(
    kind: FileKind,
    metadata: Result<FileMetadata, FileError>,
) -> Result<Option<String>, LakeError> {
    let metadata = match metadata {
        Ok(metadata) => metadata,
        Err(error) => return Ok(Some(damage(error)?)),
    };
    let matches = metadata.table == kind.name() && metadata.schema_version == VERSION;
    Ok((!matches).then(|| {
        format!(
            "its metadata names another table: {} v{}",
            metadata.table, metadata.schema_version
        )
    }))
}

/// Returns a description of a damaged file. A file of a newer version is an error: it is not damaged.
fn damage(error: FileError) -> Result<String, LakeError> {
    match error {
        FileError::Newer(_) => Err(error.into()),
        _ => Ok(chain(&error)),
    }
}

fn foreign(path: &str, audit: &mut Audit) {
    let what = "not a file of the lake";
    audit.add(FindingKind::Foreign, path, what, MOVE_FILE);
}

fn damaged_raw(path: &str, date: Date, what: String, audit: &mut Audit) {
    let repair = format!("delete the file, then run: {}", run_backfill(date));
    audit.add(FindingKind::Damage, path, what, repair);
}

fn stale(date: Date, derived: u64, revision: u64) -> String {
    format!("derived from revision {derived} of the raw partition of {date}; current is {revision}")
}
