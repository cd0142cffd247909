//! Derives tables from raw objects: step 4 of the protocol in `ARCHITECTURE.md`.
//!
//! A table object carries the raw revision that it was derived from. Only an object of a higher
//! revision replaces it. So once all runs have ended, a table depends on its raw object alone.

use std::cmp::Ordering;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use serde::Serialize;

use super::diff::{equal_except_write_id, equal_rows};
use super::finding::run_backfill;
use super::layout::Partition;
use super::metadata::{FileMetadata, read_metadata};
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

/// The number of threads that derive a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One thread, for when other partitions are derived at the same time. Threads that exchange
    /// batches wait for each other, and for memory.
    One,
    /// One thread decodes and one encodes.
    Two,
}

/// The result of deriving a partition.
#[derive(Clone, Debug, Default)]
pub struct Derived {
    /// The replaced objects.
    pub files: Vec<WrittenFile>,
    /// Unexpected fields and values of the decoded summaries.
    pub drift: Drift,
}

/// A table object to replace.
#[derive(Clone, Debug)]
struct Target {
    table: Table,
    /// The current object, if there is one. The metadata of a damaged object is `None`.
    current: Option<(Option<FileMetadata>, Tag)>,
}

impl Lake {
    /// Derives the tables of a partition from `raw`.
    ///
    /// Writes `executions` last: if it is current, so are the other tables. At most one partition
    /// per core is encoded at a time.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`] if other runs kept replacing the same objects.
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
            what: format!("the tables of {}", partition.date),
        })
    }

    /// Returns the tables of the partition to replace, in the order of writing.
    async fn targets(
        &self,
        partition: Partition,
        raw: &RawObject,
        refresh: Refresh,
    ) -> Result<Vec<Target>, LakeError> {
        let is_due = |table: &FileMetadata| {
            table.revision < raw.revision
                || match refresh {
                    Refresh::Stale => false,
                    Refresh::Outdated => table.writer_order() == Ordering::Less,
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
                    "skipped the tables of {}: the raw partition has fewer executions; to repair it, run: {}",
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
            let current = match table {
                Table::Executions => last.take(),
                _ => read_metadata(&self.store, &partition.table(table)).await?,
            };
            if let Some((Ok(metadata), _)) = &current {
                let is_skipped = if metadata.revision > raw.revision {
                    // Another run merged after us and derives this table, unless the raw object was
                    // restored from a backup.
                    refresh == Refresh::Stale
                        || !self.is_newer_than_raw(partition, metadata.revision).await?
                } else {
                    !is_due(metadata)
                };
                if is_skipped {
                    continue;
                }
            }
            let current = current.map(|(metadata, tag)| (metadata.ok(), tag));
            targets.push(Target { table, current });
        }
        Ok(targets)
    }

    /// Returns true if the current raw object has fewer executions than the table derived from it. A
    /// merge never removes one, so the raw object was lost. The table may hold the only copy of some.
    pub(super) async fn raw_has_fewer_rows(
        &self,
        partition: Partition,
        executions: &FileMetadata,
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
        let mut highest = 0;
        for table in tables.iter().copied() {
            if let Some((Ok(metadata), _)) =
                read_metadata(&self.store, &partition.table(table)).await?
            {
                highest = highest.max(metadata.revision);
            }
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
        let _slot = self.encode_slots.acquire().await;
        blocking(move || encode(&account, partition, &raw, &tables, threads, &scratch)).await
    }

    /// Writes the bodies in order. Returns false if another run replaced one of the objects first.
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
            if refresh != Refresh::Stale && self.is_unchanged(&path, &target, &body).await? {
                continue;
            }
            let expected = match target.current {
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

    /// Returns true if the current object has the rows, the revision and the writer of `body`.
    async fn is_unchanged(
        &self,
        path: &str,
        target: &Target,
        body: &Bytes,
    ) -> Result<bool, LakeError> {
        let Some((Some(current), _)) = &target.current else {
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
        blocking(move || equal_rows(&path, bytes, body)).await
    }
}

/// Encodes `tables` of one partition in a single pass over its raw object.
///
/// # Shape
///
/// One file per table, in the order of `tables`, with the current schema.
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
            // Capacity 0 bounds memory: one batch is decoded while one is encoded.
            let (sender, receiver) = mpsc::sync_channel::<Batches>(0);
            let encoding = scope.spawn(move || receiver.into_iter().try_for_each(&mut write));
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
    let files = writers.into_iter().map(|(_, writer)| writer.finish());
    Ok((files.collect::<Result<_, _>>()?, drift))
}

/// Decodes a raw object, and passes the rows of every table to `each` in batches.
fn decode(
    account: &AccountId,
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

/// A table object derived from a raw object.
pub(super) struct Expectation {
    /// The table.
    pub(super) table: Table,
    /// The file.
    pub(super) body: Bytes,
}

/// Derives all tables of a partition from its raw object.
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
