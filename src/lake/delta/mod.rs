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

use self::commit::RECORD;
use self::file::{DataFile, describe};
use self::snapshot::Snapshot;
use super::commit::PendingList;
use super::identity::Identity;
use super::layout::{self, TablePartition};
use super::log::Record;
use super::{LOCK_TIMEOUT, Lake, LakeError};
use crate::mutex;
use crate::schema::Table;

/// Time that replaced files, and the versions that use them, can be read.
const RETENTION_MS: i64 = 7 * 86_400_000;

/// Time that checkpoints name replaced files: until they are deleted.
const TOMBSTONES_MS: i64 = RETENTION_MS + 86_400_000;

/// The table objects that a run wrote, or that another run may have written.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched {
    /// The partitions, and the copies of the objects that the run wrote.
    partitions: BTreeMap<TablePartition, BTreeMap<Table, DataFile>>,
    /// True if every object must be compared.
    is_complete: bool,
}

/// The table objects to compare.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// All of a table.
    All,
    /// Those below the folder of the table, and the copies of those that this run wrote.
    Objects(BTreeMap<String, Option<DataFile>>),
}

impl Touched {
    fn of(&self, table: Table) -> Scope {
        if self.is_complete {
            return Scope::All;
        }
        let due = |(partition, copies): (&TablePartition, &BTreeMap<Table, DataFile>)| {
            (partition.to_string(), copies.get(&table).cloned())
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

    /// Turns the Delta tables of an open lake on or off; `None` changes nothing.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`], [`LakeError::Store`].
    pub async fn with_delta(mut self, on: Option<bool>) -> Result<Self, LakeError> {
        if on.is_some_and(|on| on != self.identity.has_delta()) {
            let _lock = self.store.lock(LOCK_TIMEOUT).await?;
            self.turn_delta(on).await?;
        }
        Ok(self)
    }

    /// Remembers the tables of a partition of which this run has written these copies.
    pub(super) fn touch(&self, partition: TablePartition, copies: BTreeMap<Table, DataFile>) {
        let mut touched = mutex::lock(&self.touched);
        touched
            .partitions
            .entry(partition)
            .or_default()
            .extend(copies);
    }

    /// Remembers to compare every object.
    pub(super) fn compare_delta_completely(&self) {
        mutex::lock(&self.touched).is_complete = true;
    }

    /// Remembers what the pending lists of other runs name: they may have written table objects without updating the
    /// Delta tables yet, or were killed before.
    async fn touch_pending(&self, run_id: &str) -> Result<(), LakeError> {
        let own = layout::pending_prefix(run_id);
        for list in self.store.list(layout::PENDING).await? {
            if list.path.starts_with(&own) {
                continue;
            }
            let Some((bytes, _)) = self.store.get(&list.path).await? else {
                continue;
            };
            // An unreadable list was not written completely, so its run had written nothing yet.
            let Ok(list) = serde_json::from_slice::<PendingList>(&bytes) else {
                continue;
            };
            for partition in list.partitions {
                self.touch(partition.tables(self.period()), BTreeMap::new());
            }
            mutex::lock(&self.touched).is_complete |= list.is_replay;
        }
        Ok(())
    }

    /// Copies a table object that this run has just written, if the lake has Delta tables.
    pub(super) async fn copy_to_delta(
        &self,
        table: Table,
        partition: TablePartition,
        body: &Bytes,
    ) -> Result<Option<DataFile>, LakeError> {
        if !self.identity.has_delta() {
            return Ok(None);
        }
        let copy = describe(&partition.to_string(), body, &Snapshot::default())?;
        self.put_copy(table, &copy, body.clone()).await?;
        Ok(Some(copy))
    }

    /// Updates the Delta tables of the periods after a commit of the checkpoint. Returns the dimensions to update.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] if another program changed a table so that this version cannot write it.
    pub(super) async fn commit_delta(
        &self,
        run_id: &str,
        record: &Record,
        now: Timestamp,
    ) -> Result<Vec<(Table, Scope)>, LakeError> {
        if !self.identity.has_delta() {
            return Ok(Vec::new());
        }
        self.touch_pending(run_id).await?;
        let mut touched = std::mem::take(&mut *mutex::lock(&self.touched));
        // `scopes` is updated last, and by each record. So it shows if another run did not update all tables.
        let scopes = Snapshot::newest(&self.store, Table::Scopes).await?;
        touched.is_complete |= !self.is_compared(&scopes);
        let is_stale = scopes.number(RECORD) + 1 < record.number;
        if touched.is_complete || !touched.partitions.is_empty() {
            for table in Table::PARTITIONED {
                self.commit_table(table, &touched.of(table), record.number, now)
                    .await?;
            }
        }
        let scope = if touched.is_complete {
            Scope::All
        } else {
            Scope::Objects([(layout::DIMENSION_OBJECT.to_owned(), None)].into())
        };
        let is_due = |table: &Table| {
            let is_changed = record.dimension_revision(*table) == record.number;
            is_changed || is_stale || touched.is_complete
        };
        let due = Table::DIMENSIONS.into_iter().filter(is_due);
        Ok(due.map(|table| (table, scope.clone())).collect())
    }

    /// Updates the Delta tables of dimensions.
    ///
    /// # Errors
    ///
    /// As [`Lake::commit_delta`].
    pub(super) async fn commit_delta_dimensions(
        &self,
        dimensions: Vec<(Table, Scope)>,
        record: &Record,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        for (table, scope) in dimensions {
            self.commit_table(table, &scope, record.number, now).await?;
        }
        Ok(())
    }
}
