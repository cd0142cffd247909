//! Tables from raw objects: step 4 of the protocol in `ARCHITECTURE.md`.
//!
//! A table's object carries the raw revision that it was derived from, and is replaced only by one
//! of a higher revision; so at rest a table is a function of its raw object, whoever wrote it.

use std::path::Path;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use serde::Serialize;

use super::diff::{equal_except_write_id, equal_rows};
use super::finding::run_backfill;
use super::layout::Partition;
use super::metadata::{FileMetadata, WRITER, read_metadata};
use super::parquet::{Encoded, FileError, FileKind, ObjectWriter};
use super::raw::{BATCH_BYTES, BATCH_ROWS};
use super::rows::{RawObject, each_row};
use super::store::{Expected, PutOutcome, Tag};
use super::{Lake, LakeError, back_off, blocking};
use crate::drift::Drift;
use crate::failpoint::hit;
use crate::ids::AccountId;
use crate::schema::Table;
use crate::tables::{Batches, ExecutionTables};

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

/// Which tables are derived again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Those that are missing, or behind the raw object.
    Stale,
    /// Also those that another version of this program wrote (`replay`).
    Outdated,
    /// All (`replay --all`).
    All,
}

/// How many threads derive a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One, where other partitions are derived at the same time: threads that hand over batches wait for
    /// each other, and for memory.
    One,
    /// One decodes and one encodes.
    Two,
}

/// What deriving a partition came to.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// The objects that were replaced.
    pub files: Vec<WrittenFile>,
    /// What was surprising in the summaries of the partition, where they were decoded.
    pub drift: Drift,
}

/// A table's object that is to be replaced.
#[derive(Clone, Debug)]
struct Target {
    table: Table,
    /// The version that is to be replaced; `None` where there is none. Its stamp is `None` where it
    /// is damaged.
    there: Option<(Option<FileMetadata>, Tag)>,
}

impl Lake {
    /// Brings the tables of a partition up to `raw`, children first and `executions` last, so that a
    /// current `executions` object vouches for the others. No more partitions at once than there are cores.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`] where other runs kept replacing the same objects.
    pub async fn derive(
        &self,
        partition: Partition,
        raw: &RawObject,
        refresh: Refresh,
        threads: Threads,
    ) -> Result<Derived, LakeError> {
        let mut derived = Derived::default();
        for attempt in 0..super::ATTEMPTS {
            back_off(attempt).await;
            let targets = self.targets(partition, raw, refresh).await?;
            if targets.is_empty() {
                return Ok(derived);
            }
            let (bodies, drift) = self
                .encode(partition, raw.clone(), &targets, threads)
                .await?;
            derived.drift = drift;
            if self
                .replace(partition, refresh, targets, bodies, &mut derived.files)
                .await?
            {
                return Ok(derived);
            }
        }
        Err(LakeError::Contended {
            what: format!("tables of {}", partition.date),
        })
    }

    /// The tables of the partition that are to be replaced, in the order of writing.
    async fn targets(
        &self,
        partition: Partition,
        raw: &RawObject,
        refresh: Refresh,
    ) -> Result<Vec<Target>, LakeError> {
        let is_due = |stamp: &FileMetadata| {
            stamp.revision < raw.revision
                || match refresh {
                    Refresh::Stale => false,
                    Refresh::Outdated => stamp.writer_version != WRITER,
                    Refresh::All => true,
                }
        };
        let mut last = read_metadata(&self.store, &partition.table(Table::Executions)).await?;
        if let Some((Ok(last), _)) = &last {
            if refresh != Refresh::All
                && raw.rows < last.rows
                && self.raw_has_fewer_rows(partition, last).await?
            {
                tracing::warn!(
                    "the raw object of {} holds less executions than the tables, which are left: {}",
                    partition.date,
                    run_backfill(partition.date)
                );
                return Ok(Vec::new());
            }
            if refresh == Refresh::Stale && !is_due(last) {
                return Ok(Vec::new());
            }
        }
        let mut targets = Vec::new();
        for table in Table::PARTITIONED {
            let there = match table {
                Table::Executions => last.take(),
                _ => read_metadata(&self.store, &partition.table(table)).await?,
            };
            if let Some((Ok(stamp), _)) = &there {
                let is_left = if raw.revision < stamp.revision {
                    // A newer raw revision than ours is the business of whoever wrote it, if anyone did.
                    refresh == Refresh::Stale
                        || !self.is_newer_than_raw(partition, stamp.revision).await?
                } else {
                    !is_due(stamp)
                };
                if is_left {
                    continue;
                }
            }
            let there = there.map(|(stamp, tag)| (stamp.ok(), tag));
            targets.push(Target { table, there });
        }
        Ok(targets)
    }

    /// Whether the raw object, as it stands now, has less executions than the table that was derived from it. It
    /// never loses one, so it was lost itself, and the table may be the last copy of some.
    pub(super) async fn raw_has_fewer_rows(
        &self,
        partition: Partition,
        executions: &FileMetadata,
    ) -> Result<bool, LakeError> {
        self.raw_is(partition, |raw| raw.rows < executions.rows)
            .await
    }

    /// The highest revision that one of some tables of the partition is of; 0 where there is none. Tables whose raw
    /// object was lost or put back must be behind the next one.
    pub(super) async fn derived_revision(
        &self,
        partition: Partition,
        tables: &[Table],
    ) -> Result<u64, LakeError> {
        let mut highest = 0;
        for table in tables.iter().copied() {
            if let Some((Ok(stamp), _)) =
                read_metadata(&self.store, &partition.table(table)).await?
            {
                highest = highest.max(stamp.revision);
            }
        }
        Ok(highest)
    }

    /// Whether a table of `revision` is ahead of its raw object, as it stands now: since raw comes first, one of
    /// them was put back from a backup.
    pub(super) async fn is_newer_than_raw(
        &self,
        partition: Partition,
        revision: u64,
    ) -> Result<bool, LakeError> {
        self.raw_is(partition, |raw| raw.revision < revision).await
    }

    /// Whether the raw object, as it stands now, can be read and is so.
    async fn raw_is(
        &self,
        partition: Partition,
        so: impl FnOnce(&FileMetadata) -> bool,
    ) -> Result<bool, LakeError> {
        let raw = read_metadata(&self.store, &partition.raw()).await?;
        Ok(raw.is_some_and(|(raw, _)| raw.is_ok_and(|raw| so(&raw))))
    }

    async fn encode(
        &self,
        partition: Partition,
        raw: RawObject,
        targets: &[Target],
        threads: Threads,
    ) -> Result<(Vec<Encoded>, Drift), LakeError> {
        let tables: Vec<Table> = targets.iter().map(|target| target.table).collect();
        let (account, scratch) = (self.account().clone(), self.scratch.clone());
        // The semaphore is never closed.
        let _turn = self.encode_slots.acquire().await;
        blocking(move || encode(&account, partition, &raw, &tables, threads, &scratch)).await
    }

    /// Puts the bodies in order. False where another run was faster with one of them.
    async fn replace(
        &self,
        partition: Partition,
        refresh: Refresh,
        targets: Vec<Target>,
        bodies: Vec<Encoded>,
        files: &mut Vec<WrittenFile>,
    ) -> Result<bool, LakeError> {
        for (target, encoded) in targets.into_iter().zip(bodies) {
            let path = partition.table(target.table);
            let rows = encoded.rows();
            let body = blocking(|| Ok(encoded.into_bytes()?)).await?;
            super::check_size(&path, body.len())?;
            if refresh != Refresh::Stale && self.holds_the_same(&path, &target, &body).await? {
                continue;
            }
            let expected = match target.there {
                Some((_, tag)) => Expected::Version(tag),
                None => Expected::Absent,
            };
            let bytes = body.len() as u64;
            hit("before-table");
            match self.store.put(&path, body, &expected).await? {
                PutOutcome::Written(_) => {
                    hit("after-table");
                    files.push(WrittenFile {
                        path,
                        rows: rows as u64,
                        bytes,
                    });
                }
                PutOutcome::Lost => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Whether the object that stands there has the rows of `body`, and its revision and writer.
    async fn holds_the_same(
        &self,
        path: &str,
        target: &Target,
        body: &Bytes,
    ) -> Result<bool, LakeError> {
        let Some((Some(there), _)) = &target.there else {
            return Ok(false);
        };
        let new = FileMetadata::of(path, body)?;
        let comparable = |stamp: &FileMetadata| FileMetadata {
            write_id: String::new(),
            ..stamp.clone()
        };
        if comparable(there) != comparable(&new) {
            return Ok(false);
        }
        let Some((bytes, _)) = self.store.get(path).await? else {
            return Ok(false);
        };
        // Encoding is a function of the rows: files of one writer that hold the same are the same bytes.
        if equal_except_write_id((&bytes, &there.write_id), (body, &new.write_id)) {
            return Ok(true);
        }
        let (path, body) = (path.to_owned(), body.clone());
        blocking(move || equal_rows(&path, bytes, body)).await
    }
}

/// Encodes `tables` of one partition in one pass over its raw object, which is decoded once.
///
/// # Shape
///
/// One file for each of `tables`, in their order, of the current schema.
fn encode(
    account: &AccountId,
    partition: Partition,
    raw: &RawObject,
    tables: &[Table],
    threads: Threads,
    scratch: &Path,
) -> Result<(Vec<Encoded>, Drift), LakeError> {
    let open = |table: &Table| {
        let path = partition.table(*table);
        let kind = FileKind::Table(*table);
        let writer = ObjectWriter::new(kind, &path, raw.revision, raw.rows, scratch)?;
        Ok::<_, FileError>((*table, writer))
    };
    let mut writers = tables.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    let mut write = |batches: Batches| {
        for (table, batch) in batches {
            if let Some((_, writer)) = writers.iter_mut().find(|(of, _)| *of == table) {
                writer.write(&batch)?;
            }
        }
        Ok::<_, FileError>(())
    };
    let drift = match threads {
        Threads::One => decode(account, partition, raw, write)?,
        Threads::Two => thread::scope(|scope| {
            // Without room for a batch that waits: one is decoded and one encoded, which is memory enough.
            let (decoded, taken) = mpsc::sync_channel::<Batches>(0);
            let encoding = scope.spawn(move || taken.into_iter().try_for_each(&mut write));
            let drift = decode(account, partition, raw, |batches| {
                // Nobody takes what is decoded where encoding has failed, which tells it.
                drop(decoded.send(batches));
                Ok(())
            });
            drop(decoded);
            let encoded = encoding.join();
            encoded.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            drift
        })?,
    };
    let files = writers.into_iter().map(|(_, writer)| writer.finish());
    Ok((files.collect::<Result<_, _>>()?, drift))
}

/// Decodes a raw object, and gives `each` the rows of every table a batch at a time.
fn decode(
    account: &AccountId,
    partition: Partition,
    raw: &RawObject,
    mut each: impl FnMut(Batches) -> Result<(), FileError>,
) -> Result<Drift, FileError> {
    let mut rows = ExecutionTables::new(account);
    each_row(&partition.raw(), raw, |row, _| {
        rows.push(row);
        if BATCH_ROWS <= rows.rows() || BATCH_BYTES <= rows.bytes() {
            each(rows.finish())?;
        }
        Ok(())
    })?;
    each(rows.finish())?;
    Ok(rows.take_drift())
}

/// A table's object as the raw object gives it.
pub(super) struct Expectation {
    /// The table.
    pub(super) table: Table,
    /// The file.
    pub(super) body: Bytes,
}

/// All tables of a partition as its raw object gives them.
pub(super) fn expectation(
    account: &AccountId,
    partition: Partition,
    raw: &RawObject,
    scratch: &Path,
) -> Result<Vec<Expectation>, LakeError> {
    let (files, _) = encode(
        account,
        partition,
        raw,
        &Table::PARTITIONED,
        Threads::Two,
        scratch,
    )?;
    let tables = Table::PARTITIONED.into_iter().zip(files);
    let expectation = |(table, encoded): (Table, Encoded)| {
        let body = encoded.into_bytes()?;
        Ok(Expectation { table, body })
    };
    tables.map(expectation).collect()
}
