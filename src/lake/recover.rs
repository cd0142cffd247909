//! Recovery of the work of killed runs, and deletion of old state.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::commit::{MergeResult, PendingList, open_update};
use super::derive::{RawDays, Refresh, Threads, add_day};
use super::features;
use super::layout::{self, Partition, TablePartition};
use super::log::Record;
use super::rows::{RawObject, open_rows};
use super::{Lake, LakeError, blocking};

/// The recovered work of killed runs.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The derived tables and the open executions.
    pub result: MergeResult,
    /// The recovered lists of pending partitions.
    pub lists: Vec<String>,
}

/// Age from which a pending list counts as orphaned and its partitions are derived. If its run is
/// still alive, that does no harm.
const PENDING_AGE_MS: i64 = 15 * 60 * 1000;

/// Age from which a pending list is deleted, because its run has certainly ended. A list that is
/// deleted too early hides stale tables if its run is killed later.
const GONE_AGE_MS: i64 = 2 * 60 * 60 * 1000;

/// Time that run reports are kept.
const REPORTS_MS: i64 = 90 * 86_400_000;

impl Lake {
    /// Derives the partitions that killed runs left pending, and returns their open executions,
    /// which those runs may not have committed. Every run calls it first. [`Lake::prune`] deletes
    /// the lists after two hours.
    ///
    /// Calls `may_continue` before each partition, and returns `None` once it returns false: the
    /// next run recovers the rest.
    ///
    /// # Errors
    ///
    /// As [`Lake::derive`]; [`LakeError::Newer`] for a list of a newer version, before anything is derived.
    pub async fn recover(
        &self,
        now: Timestamp,
        mut may_continue: impl FnMut() -> bool,
    ) -> Result<Option<Recovery>, LakeError> {
        let mut recovery = Recovery::default();
        for list in self.orphaned_lists(now, &mut recovery.lists).await? {
            let mut by_tables: BTreeMap<TablePartition, Vec<Partition>> = BTreeMap::new();
            for partition in list.partitions {
                let tables = partition.tables(self.period());
                by_tables.entry(tables).or_default().push(partition);
            }
            for (tables, partitions) in by_tables {
                if !may_continue() {
                    return Ok(None);
                }
                self.recover_partition(tables, partitions, &list.run_id, &mut recovery.result)
                    .await?;
            }
        }
        Ok(Some(recovery))
    }

    /// Reads the lists of killed runs, and adds their paths to `paths`.
    async fn orphaned_lists(
        &self,
        now: Timestamp,
        paths: &mut Vec<String>,
    ) -> Result<Vec<PendingList>, LakeError> {
        let mut lists = Vec::new();
        for object in self.store.list(layout::PENDING).await? {
            let age = now.as_millisecond() - object.modified.as_millisecond();
            if age < PENDING_AGE_MS {
                continue;
            }
            let Some((bytes, _)) = self.store.get(&object.path).await? else {
                continue;
            };
            features::check(&object.path, &bytes).map_err(|newer| newer.at(&self.store))?;
            // An unreadable list was not written completely, so its run had merged nothing yet.
            lists.extend(serde_json::from_slice::<PendingList>(&bytes));
            paths.push(object.path);
        }
        Ok(lists)
    }

    async fn recover_partition(
        &self,
        partition: TablePartition,
        raw_partitions: Vec<Partition>,
        run_id: &str,
        result: &mut MergeResult,
    ) -> Result<(), LakeError> {
        let mut days = RawDays::new();
        for raw_partition in raw_partitions {
            let path = raw_partition.raw();
            let Some((bytes, _)) = self.store.get(&path).await? else {
                continue;
            };
            let raw = RawObject::new(&path, bytes)?;
            add_day(&mut days, raw_partition.date, raw.clone());
            let open = blocking(move || Ok(open_rows(&path, &raw)?)).await?;
            let open = open.into_iter();
            result
                .open_updates
                .extend(open.map(|(id, (start, stored))| (id, open_update(start, stored))));
        }
        let derived = self
            .derive(partition, days, Refresh::Stale, Threads::Two)
            .await?;
        if !derived.files.is_empty() {
            tracing::warn!(run.id = run_id, %partition, "finished the work of an interrupted run");
        }
        result.add_derived(derived);
        Ok(())
    }

    /// Deletes old state: checkpoint records, reports after 90 days, and pending lists after two
    /// hours.
    ///
    /// Of the pending lists it deletes only those in `recovered`, from [`Lake::recover`]. Call it
    /// after the run has committed their open executions.
    ///
    /// # Errors
    ///
    /// [`LakeError::Checkpoint`], [`LakeError::Store`].
    pub async fn prune(&self, now: Timestamp, recovered: &[String]) -> Result<(), LakeError> {
        Record::prune(&self.store, now).await?;
        let oldest = now.as_millisecond() - REPORTS_MS;
        for report in self.store.list(layout::RUNS).await? {
            if report.modified.as_millisecond() < oldest {
                self.store.delete(&report.path).await?;
            }
        }
        let oldest = now.as_millisecond() - GONE_AGE_MS;
        for list in self.store.list(layout::PENDING).await? {
            if list.modified.as_millisecond() < oldest && recovered.contains(&list.path) {
                self.store.delete(&list.path).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::commit::tests::{new_lake, observation};
    use crate::lake::spool::Spool;
    use crate::window::from_ms;

    #[tokio::test]
    async fn prune_deletes_only_recovered_lists() {
        let scratch = tempfile::tempdir().unwrap();
        let lake = new_lake(scratch.path()).await;
        let observation = observation(0, 0, from_ms(1_763_971_200_000));
        let partition = lake
            .identity()
            .partition(&observation.id, observation.start);
        let mut spool = Spool::new(scratch.path());
        spool.push(partition, observation).unwrap();
        lake.merge_spool("killed", 0, &mut spool, || true)
            .await
            .unwrap();
        let pending = async || lake.store().list(layout::PENDING).await.unwrap();
        let created = pending().await[0].modified.as_millisecond();
        let later = |minutes: i64| from_ms(created + minutes * 60_000);
        let recovered = async |at| lake.recover(at, || true).await.unwrap().unwrap();
        let lists = recovered(later(5)).await.lists;
        assert!(lists.is_empty(), "the run may still be alive");
        lake.prune(later(180), &lists).await.unwrap();
        assert_eq!(pending().await.len(), 1, "no run has recovered it");
        let stopped = lake.recover(later(180), || false).await.unwrap();
        assert!(stopped.is_none(), "the rest is left to the next run");
        let lists = recovered(later(180)).await.lists;
        lake.prune(later(180), &lists).await.unwrap();
        assert!(pending().await.is_empty());
    }
}
