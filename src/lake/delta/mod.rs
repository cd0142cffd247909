//! The Delta tables of a lake: copies of the table objects under `delta/`, and a log of which copies are live.
//!
//! A table object is replaced, so a reader that has opened the old one can fail or lose rows. A copy is written
//! once and stays for seven days after its replacement. Every commit of the log is one state of a table over all
//! periods.
//!
//! The log is derived, like the dimensions: a commit compares its newest version with the table objects and
//! changes what differs. So a log that is stale is harmless, and any run can update it.

mod action;
mod checkpoint;
mod cleanup;
mod commit;
mod copies;
mod file;
#[cfg(test)]
mod model;
mod snapshot;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use self::file::{Copy, describe};
use self::snapshot::Snapshot;
use super::commit::{PendingList, json};
use super::features::FORMAT;
use super::identity::Identity;
use super::layout::{self, TablePartition};
use super::log::Record;
use super::metadata::Days;
use super::replay::Dates;
use super::{LOCK_TIMEOUT, Lake, LakeError};
use crate::mutex;
use crate::schema::Table;

/// Time that replaced files, and the versions that use them, can be read.
const RETENTION_MS: i64 = 7 * 86_400_000;

/// Time that checkpoints name replaced files: until they are deleted.
const TOMBSTONES_MS: i64 = RETENTION_MS + 86_400_000;

/// The table objects that a run derived or found current.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    partitions: BTreeMap<TablePartition, TouchedPartition>,
    /// True if every object must be compared.
    is_complete: bool,
}

#[derive(Clone, Debug, Default)]
struct TouchedPartition {
    /// The revision of the tables; `None` if it is not known.
    revision: Option<u64>,
    /// The copies of the objects that the run wrote.
    copies: BTreeMap<Table, Copy>,
}

/// A table object to compare.
#[derive(Clone, Debug, Default)]
struct Due {
    /// Its revision at least; `None` if it is not known.
    revision: Option<u64>,
    /// Its copy, if this run wrote the object.
    copy: Option<Copy>,
}

/// The table objects to compare, by path below the folder of the table.
#[derive(Clone, Debug)]
enum Scope {
    All,
    Objects(BTreeMap<String, Due>),
}

impl Touched {
    fn of(&self, table: Table) -> Scope {
        let due = |(partition, touched): (&TablePartition, &TouchedPartition)| {
            let due = Due {
                revision: touched.revision,
                copy: touched.copies.get(&table).cloned(),
            };
            (partition.to_string(), due)
        };
        Scope::Objects(self.partitions.iter().map(due).collect())
    }
}

impl Lake {
    /// Turns the Delta tables on or off; `None` changes nothing. The next commit fills tables that are turned on.
    pub(super) async fn turn_delta(&mut self, on: Option<bool>) -> Result<(), LakeError> {
        let Some(on) = on.filter(|on| *on != self.identity.has_delta()) else {
            return Ok(());
        };
        self.identity = Identity::set_delta(&self.store, on).await?;
        if on {
            tracing::info!("turned on the Delta tables: the next commit copies all tables");
        } else {
            let folder = layout::DELTA;
            tracing::info!(
                folder,
                "turned off the Delta tables: their folder can be deleted"
            );
        }
        Ok(())
    }

    /// Prepares a replay: turns the Delta tables on or off; `None` changes nothing. A replay of all dates leaves a
    /// pending list until its end, so that later runs compare everything if it is killed.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`], [`LakeError::Store`].
    pub async fn prepare_replay(
        mut self,
        run_id: &str,
        delta: Option<bool>,
        dates: Dates,
    ) -> Result<Self, LakeError> {
        if delta.is_some_and(|on| on != self.identity.has_delta()) {
            let _lock = self.store.lock(LOCK_TIMEOUT).await?;
            self.turn_delta(delta).await?;
        }
        if self.identity.has_delta() && dates.are_all() {
            let list = PendingList {
                format: FORMAT,
                run_id: run_id.to_owned(),
                partitions: Vec::new(),
                is_replay: true,
            };
            let path = layout::pending(run_id, 0);
            self.store.overwrite(&path, json(&list)).await?;
        }
        Ok(self)
    }

    /// Remembers what a pending list names. If its run was killed, the Delta tables may be stale though the tables
    /// are current.
    pub(super) fn touch_pending(&self, list: &PendingList) {
        for partition in &list.partitions {
            self.touch_current(partition.tables(self.period()), None);
        }
        mutex::lock(&self.touched).is_complete |= list.is_replay;
    }

    /// Remembers the tables of a partition of which this run has written these copies.
    pub(super) fn touch_written(&self, partition: TablePartition, copies: BTreeMap<Table, Copy>) {
        let mut touched = mutex::lock(&self.touched);
        let touched = touched.partitions.entry(partition).or_default();
        touched.revision = None;
        touched.copies.extend(copies);
    }

    /// Remembers a partition whose tables were current, and so have at least the revisions of `executions`.
    pub(super) fn touch_current(&self, partition: TablePartition, executions: Option<&Days>) {
        let revision = executions.map(|days| days.values().map(|day| day.revision).sum());
        let mut touched = mutex::lock(&self.touched);
        touched.partitions.entry(partition).or_default().revision = revision;
    }

    /// Copies a table object that this run has just written, if the lake has Delta tables.
    pub(super) async fn copy_to_delta(
        &self,
        table: Table,
        partition: TablePartition,
        body: &Bytes,
    ) -> Result<Option<Copy>, LakeError> {
        if !self.identity.has_delta() {
            return Ok(None);
        }
        let copy = describe(&partition.to_string(), body, &Snapshot::default())?;
        self.put_copy(table, &copy, body.clone()).await?;
        Ok(Some(copy))
    }

    /// Updates the Delta tables of the periods after a commit of the checkpoint.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] if another program changed a table so that this version cannot write it.
    pub(super) async fn commit_delta(
        &self,
        record: &Record,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        let touched = std::mem::take(&mut *mutex::lock(&self.touched));
        if !self.identity.has_delta() {
            return Ok(());
        }
        if touched.is_complete {
            return self.commit_delta_completely(record, now).await;
        }
        for table in Table::PARTITIONED {
            self.commit_table(table, &touched.of(table), record.number, now)
                .await?;
        }
        Ok(())
    }

    /// Updates the Delta tables of the dimensions.
    pub(super) async fn commit_delta_dimensions(
        &self,
        record: &Record,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        if !self.identity.has_delta() {
            return Ok(());
        }
        for table in Table::DIMENSIONS {
            let due = Due {
                revision: Some(record.dimension_revision(table)),
                copy: None,
            };
            let objects = BTreeMap::from([(layout::DIMENSION_OBJECT.to_owned(), due)]);
            self.commit_table(table, &Scope::Objects(objects), record.number, now)
                .await?;
        }
        Ok(())
    }

    /// Compares all table objects with the Delta tables and updates these.
    pub(super) async fn commit_delta_completely(
        &self,
        record: &Record,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        for table in Table::ALL {
            self.commit_table(table, &Scope::All, record.number, now)
                .await?;
        }
        Ok(())
    }
}
