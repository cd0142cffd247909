//! The protocol of a run: list partitions, merge, derive, commit. `ARCHITECTURE.md` explains why it is
//! correct.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::derive::{Derived, RawDays, Refresh, Threads, WrittenFile, add_day};
use super::features::{FORMAT, first_format};
use super::layout::{self, Partition, Period, TablePartition};
use super::log::Record;
use super::parquet::FileError;
use super::raw::{MergeCounts, MergedPartition, StoredVersion, merge};
use super::rows::RawObject;
use super::runs::SortedRuns;
use super::spool::Spool;
use super::store::{Expected, PutOutcome};
use super::{Lake, LakeError, back_off, blocking, check_size};
use crate::checkpoint::{Delta, OpenExecution, OpenUpdate, UnknownFields};
use crate::drift::Drift;
use crate::failpoint::hit;
use crate::ids::PlanExecutionId;
use crate::schema::Table;

/// The result of merging and deriving partitions.
#[derive(Debug, Default)]
pub struct MergeResult {
    /// Executions by the outcome of their merge.
    pub counts: MergeCounts,
    /// The state of each execution in its raw partition after the merge. It can differ from the
    /// observation of this run: another run may have merged a later one.
    pub open_updates: BTreeMap<PlanExecutionId, OpenUpdate>,
    /// The replaced table objects.
    pub files: Vec<WrittenFile>,
    /// The partitions with a replaced raw object.
    pub changed: Vec<Partition>,
    /// Unexpected fields and values of each partition that was derived. A later derivation replaces them.
    pub drift: BTreeMap<Partition, Drift>,
}

/// `_state/pending/<run>-<n>.json`: the partitions that a run is about to merge.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PendingList {
    #[serde(default = "first_format")]
    pub(super) format: u32,
    pub(super) run_id: String,
    pub(super) partitions: Vec<Partition>,
    /// True if the run is a replay, which can change every object.
    #[serde(default)]
    pub(super) is_replay: bool,
}

impl MergeResult {
    /// Adds the tables of a partition, if they were derived.
    pub(super) fn add_derived(&mut self, derived: Derived) {
        if !derived.files.is_empty() {
            self.drift.extend(derived.drift);
        }
        self.files.extend(derived.files);
    }
}

impl Lake {
    /// Merges and derives every partition of a spool. Steps 1 to 4.
    ///
    /// `flush` numbers the spools of the run. The list of partitions stays pending until
    /// [`Lake::commit`]: if the run is killed before, only this list names the new open executions.
    ///
    /// Calls `may_continue` before each partition, and returns `None` once it returns false. The
    /// merged partitions are correct then, but others are missing, so the run must not commit
    /// anything about this spool.
    ///
    /// # Errors
    ///
    /// [`LakeError`]. Partitions that were merged before the error stay, and are correct.
    pub async fn merge_spool(
        &self,
        run_id: &str,
        flush: u32,
        spool: &mut Spool,
        mut may_continue: impl FnMut() -> bool,
    ) -> Result<Option<MergeResult>, LakeError> {
        let mut result = MergeResult::default();
        if spool.is_empty() {
            return Ok(Some(result));
        }
        let list = PendingList {
            format: FORMAT,
            run_id: run_id.to_owned(),
            partitions: spool.partitions().collect(),
            is_replay: false,
        };
        hit("before-pending");
        let path = layout::pending(run_id, flush);
        self.store.overwrite(&path, json(&list)).await?;
        hit("after-pending");
        let mut merged: BTreeMap<TablePartition, RawDays> = BTreeMap::new();
        while may_continue() {
            let next = spool.pop().map_err(|error| self.scratch_error(error))?;
            let Some((partition, runs)) = next else {
                return Ok(Some(result));
            };
            // Each object of a month is written once, after all days of the month are merged.
            let start = |partition: Partition| partition.tables(self.period()).start;
            let is_same = |next: Partition| start(next) == start(partition);
            let has_more = spool.partitions().next().is_some_and(is_same);
            let is_last = self.period() == Period::Day || !has_more;
            let step = async {
                if let Some(raw) = self.merge_one(partition, runs, &mut result).await? {
                    let days = merged.entry(partition.tables(self.period())).or_default();
                    add_day(days, partition.date, raw);
                }
                if is_last {
                    for (partition, days) in std::mem::take(&mut merged) {
                        self.derive_merged(partition, days, &mut result).await?;
                        hit("after-partition");
                    }
                }
                Ok(())
            };
            if let Err(error) = step.await {
                let error: LakeError = error;
                if error.is_newer() && result.changed.is_empty() {
                    // A lake of a newer version is left unchanged.
                    self.store.delete(&path).await?;
                }
                return Err(error);
            }
        }
        Ok(spool.is_empty().then_some(result))
    }

    async fn derive_merged(
        &self,
        partition: TablePartition,
        days: RawDays,
        result: &mut MergeResult,
    ) -> Result<(), LakeError> {
        let derived = self
            .derive(partition, days, Refresh::Stale, Threads::Two)
            .await?;
        result.add_derived(derived);
        Ok(())
    }

    /// Merges one partition. Returns its raw object after the merge, if there is one.
    async fn merge_one(
        &self,
        partition: Partition,
        runs: SortedRuns,
        result: &mut MergeResult,
    ) -> Result<Option<RawObject>, LakeError> {
        let starts: HashMap<PlanExecutionId, Timestamp> = runs
            .observations()
            .map(|(_, observation)| (observation.id.clone(), observation.start))
            .collect();
        let (raw, merged) = self.merge_partition(partition, runs).await?;
        if merged.has_winners {
            result.changed.push(partition);
        }
        for (id, (outcome, stored)) in merged.executions {
            let start = starts.get(&id).copied().unwrap_or_default();
            result.open_updates.insert(id, open_update(start, stored));
            result.counts.add(outcome);
        }
        Ok(raw)
    }

    /// Merges one partition. Steps 1 to 3. Returns the raw object after the merge, if there is one.
    async fn merge_partition(
        &self,
        partition: Partition,
        runs: SortedRuns,
    ) -> Result<(Option<RawObject>, MergedPartition), LakeError> {
        let runs = Arc::new(runs);
        let path = partition.raw();
        let mut derived = 0;
        for attempt in 0..super::ATTEMPTS {
            back_off(attempt).await;
            let current = self.store.get(&path).await?;
            let expected = if let Some((_, tag)) = &current {
                Expected::Version(tag.clone())
            } else {
                derived = self
                    .derived_revision(partition, &Table::PARTITIONED)
                    .await?;
                Expected::Absent
            };
            let (runs, scratch) = (Arc::clone(&runs), self.scratch.clone());
            let raw_path = path.clone();
            let (old, mut merged) = blocking(move || {
                let old = current
                    .map(|(bytes, _)| RawObject::new(&raw_path, bytes))
                    .transpose()?;
                let previous = old.as_ref().map_or(0, |old| old.revision).max(derived);
                let merged = merge(partition, old.as_ref(), previous, &runs, &scratch)?;
                Ok((old, merged))
            })
            .await?;
            let Some(new) = merged.replacement.take() else {
                return Ok((old, merged));
            };
            check_size(&path, new.bytes.len())?;
            if old.is_some() {
                derived = self
                    .derived_revision(partition, &[Table::Executions])
                    .await?;
                if new.revision <= derived {
                    // Another run was faster, or the raw object was restored from a backup. Its
                    // tables would not follow, so the next attempt uses a higher revision.
                    continue;
                }
            }
            hit("before-raw");
            let body = new.bytes.clone();
            if let PutOutcome::Written(_) = self.store.put(&path, body, &expected).await? {
                hit("after-raw");
                return Ok((Some(new), merged));
            }
        }
        Err(LakeError::Contended { what: path })
    }

    /// Returns the error of a failed access to the scratch directory.
    pub fn scratch_error(&self, source: std::io::Error) -> LakeError {
        let folder = self.scratch.display().to_string();
        LakeError::File(FileError::Scratch { folder, source })
    }

    /// Commits the changes of a run, derives the dimensions, and deletes its pending lists. Steps 5 and 6.
    ///
    /// # Errors
    ///
    /// [`LakeError`]. If the commit failed, the next run reads the same windows again.
    pub async fn commit(
        &self,
        run_id: &str,
        now: Timestamp,
        delta: &Delta,
    ) -> Result<(Record, Vec<WrittenFile>), LakeError> {
        let record =
            Record::append(&self.store, run_id, now, delta, &self.identity.features).await?;
        // The pending list stays until the end, so that other runs complete an interrupted update.
        let dimensions = self.commit_delta(run_id, &record, now).await?;
        let files = self.derive_dimensions(&record).await?;
        self.commit_delta_dimensions(dimensions, &record, now)
            .await?;
        self.delete_pending(run_id).await?;
        hit("after-delete-pending");
        Ok((record, files))
    }

    pub(super) async fn delete_pending(&self, run_id: &str) -> Result<(), LakeError> {
        let prefix = layout::pending_prefix(run_id);
        for list in self.store.list(layout::PENDING).await? {
            if list.path.starts_with(&prefix) {
                self.store.delete(&list.path).await?;
            }
        }
        Ok(())
    }
}

/// Returns the update of the open list for an execution, by its version in the raw partition.
pub fn open_update(start: Timestamp, stored: StoredVersion) -> OpenUpdate {
    if stored.is_terminal {
        return OpenUpdate::Closed {
            observed: stored.observed,
            revision: stored.revision,
        };
    }
    OpenUpdate::Open(Box::new(OpenExecution {
        scope: stored.scope,
        start: Some(start),
        observed: stored.observed,
        revision: stored.revision,
        missed: BTreeSet::new(),
        summary: None,
        unknown: UnknownFields::new(),
    }))
}

pub(super) fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value)
        .expect("the value has text keys only")
        .into()
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use object_store::memory::InMemory;

    use super::*;
    use crate::ids::{AccountId, Scope};
    use crate::lake::OpenOptions;
    use crate::lake::metadata::FileMetadata;
    use crate::lake::store::Store;
    use crate::observation::{Observation, Version};
    use crate::pii::PiiRequest;
    use crate::window::from_ms;

    /// Returns version `n` of the execution `id`.
    pub(in crate::lake) fn observation(n: i64, id: i64, start: Timestamp) -> Observation {
        let observed = from_ms(start.as_millisecond() + 100_000 + n);
        Observation {
            id: PlanExecutionId::new(format!("e{id}")),
            scope: Scope::new("org", "project"),
            start,
            version: Version {
                observed,
                content_hash: n,
                is_terminal: true,
            },
            first_observed: observed,
            summary: format!(r#"{{"name":"{n:1000}"}}"#).into(),
        }
    }

    /// Creates a lake in memory.
    pub(in crate::lake) async fn new_lake(scratch: &Path) -> Lake {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "".into(), "memory");
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
            scratch,
        };
        Lake::open(store, &options).await.unwrap()
    }

    #[tokio::test]
    async fn spilled_partition_is_merged_with_one_put() {
        let scratch = tempfile::tempdir().unwrap();
        let lake = new_lake(scratch.path()).await;
        let mut spool = Spool::with_memory(2_000, scratch.path());
        let start = from_ms(1_763_971_200_000);
        let partition = lake
            .identity()
            .partition(&PlanExecutionId::new("e0"), start);
        // The last two repeat executions of the first run.
        for (n, id) in (0..12).chain([0, 1]).enumerate() {
            let n = i64::try_from(n).unwrap();
            spool.push(partition, observation(n, id, start)).unwrap();
        }
        let result = lake
            .merge_spool("run", 0, &mut spool, || true)
            .await
            .unwrap();
        let result = result.unwrap();
        let counts = MergeCounts {
            inserted: 12,
            ..MergeCounts::default()
        };
        assert_eq!(result.counts, counts);
        assert_eq!(result.open_updates.len(), 12);
        assert_eq!(result.changed, [partition]);
        assert_eq!(result.files.len(), Table::PARTITIONED.len());
        let (raw, _) = lake.store().get(&partition.raw()).await.unwrap().unwrap();
        let path = partition.tables(Period::Day).path(Table::Executions);
        let (table, _) = lake.store().get(&path).await.unwrap().unwrap();
        let [raw, table] = [raw, table].map(|bytes| FileMetadata::of(&path, &bytes).unwrap());
        assert_eq!((raw.rows, table.rows), (12, 12));
        assert_eq!(raw.revision, 1, "one put for all runs");
        assert_eq!(table.revision, raw.revision);
    }

    #[tokio::test]
    async fn tables_follow_a_restored_or_lost_raw_object() {
        let scratch = tempfile::tempdir().unwrap();
        let lake = new_lake(scratch.path()).await;
        let start = from_ms(1_763_971_200_000);
        let observed = |version| observation(version, 0, start);
        let partition = lake.identity().partition(&observed(0).id, start);
        let (raw, table) = (
            partition.raw(),
            partition.tables(Period::Day).path(Table::Executions),
        );
        let merge = async |version| {
            let mut spool = Spool::new(scratch.path());
            spool.push(partition, observed(version)).unwrap();
            lake.merge_spool("run", 0, &mut spool, || true)
                .await
                .unwrap();
            let [raw, table] = [&raw, &table].map(|path| lake.store().get(path));
            let (raw, table) = (raw.await.unwrap().unwrap(), table.await.unwrap().unwrap());
            let metadata =
                [&raw.0, &table.0].map(|bytes| FileMetadata::of("a file", bytes).unwrap());
            (raw.0, metadata.map(|metadata| metadata.revision))
        };
        let (old, revisions) = merge(1).await;
        assert_eq!(revisions, [1, 1]);
        assert_eq!(merge(2).await.1, [2, 2]);
        lake.store().overwrite(&raw, old).await.unwrap();
        assert_eq!(
            merge(3).await.1,
            [3, 3],
            "revision 2 would have other content"
        );
        lake.store().delete(&raw).await.unwrap();
        assert_eq!(merge(4).await.1, [4, 4]);
    }
}
