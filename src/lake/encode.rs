//! Encodes the tables of one period: days decoded from their raw objects, and the rows of other days
//! from the objects that are replaced.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use arrow_array::{ArrayRef, Date32Array, RecordBatch};
use bytes::Bytes;
use jiff::civil::Date;

use super::LakeError;
use super::layout::{Partition, Period, TablePartition};
use super::metadata::{DayOfTable, Days, FileMetadata, WRITER};
use super::parquet::{FileError, FileKind, ParsedObject};
use super::raw::{BATCH_BYTES, BATCH_ROWS};
use super::rows::{RawObject, each_row};
use super::writer::{Encoded, ObjectWriter};
use crate::drift::Drift;
use crate::schema::Table;
use crate::tables::{Account, Batches, ExecutionTables};

/// The number of threads that derive a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One thread, for when other partitions are derived at the same time. Threads that exchange
    /// batches wait for each other, and for memory.
    One,
    /// One thread decodes and one encodes.
    Two,
}

/// Encoded objects in the order of their tables, and the drift of each decoded raw object.
pub(super) type EncodedTables = (Vec<Encoded>, BTreeMap<Partition, Drift>);

/// Encodes one object of each of some tables, day by day.
pub(super) struct Encoder {
    account: Account,
    partition: TablePartition,
    tables: Vec<TableEncoder>,
    drift: BTreeMap<Partition, Drift>,
}

/// The object of one table.
pub(super) struct TableEncoder {
    table: Table,
    writer: ObjectWriter,
    /// The days to decode.
    due: BTreeSet<Date>,
    replaced: Option<Replaced>,
    days: Days,
}

/// The rows that are taken from the object that is replaced.
pub(super) struct Replaced {
    object: ParsedObject,
    /// The version of the program that derived the oldest of its rows.
    writer_version: String,
    /// The days that are not written yet, with their rows in the object.
    kept: BTreeMap<Date, (DayOfTable, Range<usize>)>,
}

impl Replaced {
    /// Returns the rows of all days of an object except those in `due`.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the object does not have the columns of the table.
    pub(super) fn new(
        kind: FileKind,
        path: &str,
        (bytes, metadata, days): (Bytes, &FileMetadata, Days),
        due: &BTreeSet<Date>,
    ) -> Result<Self, FileError> {
        let object = ParsedObject::new(path, bytes)?;
        if object.schema() != **kind.schema() {
            return Err(FileError::foreign(path, "columns"));
        }
        let kept = rows_of_days(&days)
            .filter(|(date, _)| !due.contains(date))
            .map(|(date, rows)| (date, (days[&date], rows)));
        Ok(Self {
            writer_version: match metadata.writer_order() {
                Ordering::Less => metadata.writer_version.clone(),
                _ => WRITER.to_owned(),
            },
            kept: kept.collect(),
            object,
        })
    }
}

/// Returns the range of rows of each day of an object.
pub(super) fn rows_of_days(days: &Days) -> impl Iterator<Item = (Date, Range<usize>)> + '_ {
    let mut start = 0;
    days.iter().map(move |(date, day)| {
        let end = start + usize::try_from(day.rows).unwrap_or_default();
        let rows = start..end;
        start = end;
        (*date, rows)
    })
}

impl TableEncoder {
    /// Starts the object of a table. `executions` is the number of executions of the period.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`].
    pub(super) fn new(
        partition: TablePartition,
        table: Table,
        due: BTreeSet<Date>,
        replaced: Option<Replaced>,
        (executions, scratch): (u64, &Path),
    ) -> Result<Self, FileError> {
        let kind = FileKind::of_table(table, partition.period);
        let writer = ObjectWriter::new(kind, &partition.path(table), executions, scratch)?;
        Ok(Self {
            table,
            writer,
            due,
            replaced,
            days: Days::new(),
        })
    }

    /// Writes the kept days before `end`, or all of them.
    fn copy_until(&mut self, end: Option<Date>) -> Result<(), FileError> {
        let Some(Replaced { object, kept, .. }) = &mut self.replaced else {
            return Ok(());
        };
        let later = end.map_or_else(BTreeMap::new, |end| kept.split_off(&end));
        let earlier = std::mem::replace(kept, later);
        let mut rows = 0..0;
        for (date, (day, of_day)) in earlier {
            self.days.insert(date, day);
            if of_day.start != rows.end {
                self.writer.copy(object, &rows)?;
                rows.start = of_day.start;
            }
            rows.end = of_day.end;
        }
        self.writer.copy(object, &rows)
    }

    fn write(&mut self, batch: &RecordBatch, date: Date, period: Period) -> Result<(), FileError> {
        match period {
            Period::Day => self.writer.write(batch),
            Period::Month => self.writer.write(&with_date(self.table, batch, date)),
        }
    }

    fn finish(mut self, period: Period) -> Result<Encoded, FileError> {
        self.copy_until(None)?;
        let kind = FileKind::of_table(self.table, period);
        let metadata = match period {
            Period::Day => {
                let day = self.days.values().next();
                FileMetadata::new(kind, day.map_or(0, |day| day.revision))
            }
            Period::Month => {
                let oldest = self.replaced.filter(|_| self.due.len() < self.days.len());
                let version = oldest.map_or(WRITER.to_owned(), |old| old.writer_version);
                FileMetadata::of_month(kind, self.days, &version)
            }
        };
        self.writer.finish(&metadata)
    }
}

impl Encoder {
    /// Creates an encoder of some tables of a period.
    pub(super) fn new(
        account: Account,
        partition: TablePartition,
        tables: Vec<TableEncoder>,
    ) -> Self {
        Self {
            account,
            partition,
            tables,
            drift: BTreeMap::new(),
        }
    }

    /// Decodes a raw object into the tables in which its day is due. Days come in order.
    ///
    /// # Errors
    ///
    /// [`FileError`] if the raw object is damaged or scratch is full.
    pub(super) fn push(
        &mut self,
        date: Date,
        raw: &RawObject,
        threads: Threads,
    ) -> Result<(), FileError> {
        let period = self.partition.period;
        let mut due: Vec<_> = self
            .tables
            .iter_mut()
            .filter(|table| table.due.contains(&date))
            .collect();
        for table in &mut due {
            table.copy_until(Some(date))?;
        }
        let before: Vec<usize> = due.iter().map(|table| table.writer.rows()).collect();
        let mut write = |batches: Batches| {
            for (of, batch) in batches {
                if let Some(table) = due.iter_mut().find(|table| table.table == of) {
                    table.write(&batch, date, period)?;
                }
            }
            Ok::<_, FileError>(())
        };
        let (account, partition) = (&self.account, self.partition.raw(date));
        let drift = match threads {
            Threads::One => decode(account, partition, raw, write)?,
            Threads::Two => thread::scope(|scope| {
                // Capacity 0 bounds memory: one batch is decoded while one is encoded.
                let (sender, receiver) = mpsc::sync_channel::<Batches>(0);
                let write = &mut write;
                let encoding = scope.spawn(move || receiver.into_iter().try_for_each(write));
                let drift = decode(account, partition, raw, |batches| {
                    // Sending fails only after encoding has failed, and that error is returned below.
                    drop(sender.send(batches));
                    Ok(())
                });
                drop(sender);
                let encoded = encoding.join();
                encoded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                drift
            })?,
        };
        self.drift.insert(partition, drift);
        for (table, before) in due.into_iter().zip(before) {
            let day = DayOfTable {
                revision: raw.revision,
                rows: (table.writer.rows() - before) as u64,
            };
            table.days.insert(date, day);
        }
        Ok(())
    }

    /// Finishes the objects, in the order of the tables.
    ///
    /// # Errors
    ///
    /// [`FileError`] if scratch is full.
    pub(super) fn finish(self) -> Result<EncodedTables, FileError> {
        let period = self.partition.period;
        let files = self.tables.into_iter().map(|table| table.finish(period));
        Ok((files.collect::<Result<_, _>>()?, self.drift))
    }
}

/// Adds the column `start_date`.
fn with_date(table: Table, batch: &RecordBatch, date: Date) -> RecordBatch {
    let epoch = Date::constant(1970, 1, 1);
    let days = date.duration_since(epoch).as_hours() / 24;
    let days = i32::try_from(days).unwrap_or_default();
    let dates = Date32Array::from_value(days, batch.num_rows());
    let columns = batch.columns().iter().cloned();
    let columns = columns.chain([Arc::new(dates) as ArrayRef]).collect();
    RecordBatch::try_new(table.month_schema().clone(), columns)
        .expect("the schema of a month only adds this column")
}

/// Decodes a raw object, and passes the rows of every table to `each` in batches.
fn decode(
    account: &Account,
    partition: Partition,
    raw: &RawObject,
    mut each: impl FnMut(Batches) -> Result<(), FileError>,
) -> Result<Drift, FileError> {
    let mut rows = ExecutionTables::new(account);
    each_row(&partition.raw(), raw, |row, _| {
        rows.push(row);
        if rows.rows() >= BATCH_ROWS || rows.bytes() >= BATCH_BYTES {
            each(rows.finish())?;
        }
        Ok(())
    })?;
    each(rows.finish())?;
    Ok(rows.take_drift())
}

/// The rows of one day of a table, derived from a raw object.
pub(super) struct Expectation {
    /// The table.
    pub(super) table: Table,
    /// A file with these rows alone.
    pub(super) body: Bytes,
}

/// Derives all tables of one day from its raw object.
pub(super) fn expectation(
    account: &Account,
    partition: TablePartition,
    (date, raw): (Date, &RawObject),
    scratch: &Path,
) -> Result<Vec<Expectation>, LakeError> {
    let due = BTreeSet::from([date]);
    let open = |table| TableEncoder::new(partition, table, due.clone(), None, (raw.rows, scratch));
    let tables = Table::PARTITIONED.into_iter().map(open);
    let tables = tables.collect::<Result<_, _>>()?;
    let mut encoder = Encoder::new(account.clone(), partition, tables);
    encoder.push(date, raw, Threads::Two)?;
    let (files, _) = encoder.finish()?;
    let tables = Table::PARTITIONED.into_iter().zip(files);
    let expectation = |(table, encoded): (Table, Encoded)| {
        let body = encoded.into_bytes()?;
        Ok(Expectation { table, body })
    };
    tables.map(expectation).collect()
}
