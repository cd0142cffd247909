//! The protocol of a run: pending, merge, derive, commit. `ARCHITECTURE.md` says why it is right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::derive::{Refresh, Threads, WrittenFile};
use super::layout::{self, Partition};
use super::log::Record;
use super::parquet::FileError;
use super::raw::{Merge, MergeCounts, StoredVersion, merge};
use super::rows::{RawObject, open_rows};
use super::store::{Expected, PutOutcome};
use super::{Lake, LakeError, blocking, check_size, pause};
use crate::checkpoint::{Delta, OpenExecution, OpenUpdate};
use crate::drift::Drift;
use crate::failpoint::hit;
use crate::ids::PlanExecutionId;
use crate::lake::runs::SortedRuns;
use crate::lake::spool::Spool;
use crate::schema::Table;

/// What landing the observations of a spool, or of one partition of it, came to.
#[derive(Debug, Default)]
pub struct MergeResult {
    /// What became of the executions.
    pub counts: MergeCounts,
    /// The fate of each execution: open or closed as its raw partition says now, not as this run saw
    /// it, since another run may have landed a later observation meanwhile.
    pub open_updates: BTreeMap<PlanExecutionId, OpenUpdate>,
    /// The table objects that were replaced.
    pub files: Vec<WrittenFile>,
    /// The partitions whose raw object was replaced.
    pub changed: Vec<Partition>,
    /// What was surprising in the partitions that were derived.
    pub drift: Drift,
}

/// What dead runs had left.
#[derive(Debug, Default)]
pub struct Recovered {
    /// What finishing their work came to.
    pub landed: MergeResult,
    /// Their lists of partitions.
    pub lists: Vec<String>,
}

/// `_state/pending/<run>-<n>.json`: the partitions that a run is about to merge.
#[derive(Debug, Serialize, Deserialize)]
struct Pending {
    run_id: String,
    partitions: Vec<Partition>,
}

/// After this long a list of pending partitions is taken for a dead run's and its partitions are
/// derived, which is harmless if the run lives.
const PENDING_AGE_MS: i64 = 15 * 60 * 1000;

/// After this long its run is surely gone, and the list is removed: without it nobody would know
/// that a run which dies yet may leave tables behind their raw partition.
const GONE_AGE_MS: i64 = 2 * 60 * 60 * 1000;

/// How long run reports are kept.
const REPORTS_MS: i64 = 90 * 86_400_000;

impl Lake {
    /// Lands observations: every partition is merged and derived, each once. Steps 1 to 4.
    ///
    /// The list of partitions stays pending until [`Lake::commit`]: should the run die before, the
    /// open executions among them are in no list but that.
    ///
    /// `may_go_on` is asked before each partition. `None` where it said no: what has landed is right,
    /// but the rest is missing, so nothing of this spool may be committed.
    ///
    /// # Errors
    ///
    /// [`LakeError`]; what had landed by then stays, and is right.
    pub async fn merge_spool(
        &self,
        run_id: &str,
        part: u32,
        spool: &mut Spool<Partition>,
        mut may_go_on: impl FnMut() -> bool,
    ) -> Result<Option<MergeResult>, LakeError> {
        let mut landed = MergeResult::default();
        if spool.is_empty() {
            return Ok(Some(landed));
        }
        let pending = layout::pending(run_id, part);
        let partitions = spool.partitions().collect();
        let list = Pending {
            run_id: run_id.to_owned(),
            partitions,
        };
        hit("before-pending");
        self.store.overwrite(&pending, json(&list)).await?;
        hit("after-pending");
        while may_go_on() {
            let next = spool.pop().map_err(|error| self.scratch_error(error))?;
            let Some((partition, runs)) = next else {
                return Ok(Some(landed));
            };
            self.merge_and_derive(partition, runs, &mut landed).await?;
            hit("after-date");
        }
        Ok(spool.is_empty().then_some(landed))
    }

    async fn merge_and_derive(
        &self,
        partition: Partition,
        runs: SortedRuns,
        landed: &mut MergeResult,
    ) -> Result<(), LakeError> {
        let starts: HashMap<PlanExecutionId, Timestamp> = runs
            .observations()
            .map(|(_, seen)| (seen.id.clone(), seen.start))
            .collect();
        let (raw, merged) = self.merge_partition(partition, runs).await?;
        if let Some(raw) = raw {
            let derived = self
                .derive(partition, &raw, Refresh::Stale, Threads::Two)
                .await?;
            landed.files.extend(derived.files);
            landed.drift.add(derived.drift);
        }
        if merged.has_winners {
            landed.changed.push(partition);
        }
        for (id, (outcome, kept)) in merged.kept {
            let start = starts.get(&id).copied().unwrap_or_default();
            landed.open_updates.insert(id, open_update(start, kept));
            landed.counts.add(outcome);
        }
        Ok(())
    }

    /// Steps 1 to 3 for one partition: the raw object as it stands then, and what was merged.
    async fn merge_partition(
        &self,
        partition: Partition,
        runs: SortedRuns,
    ) -> Result<(Option<RawObject>, Merge), LakeError> {
        let runs = Arc::new(runs);
        let path = partition.raw();
        let mut derived = 0;
        for attempt in 0..super::ATTEMPTS {
            pause(attempt).await;
            let found = self.store.get(&path).await?;
            let expected = if let Some((_, tag)) = &found {
                Expected::Version(tag.clone())
            } else {
                derived = self.revision_of(partition, &Table::PARTITIONED).await?;
                Expected::Absent
            };
            let (runs, scratch) = (Arc::clone(&runs), self.scratch.clone());
            let named = path.clone();
            let (old, mut merged) = blocking(move || {
                let old = found
                    .map(|(bytes, _)| RawObject::new(&named, bytes))
                    .transpose()?;
                let before = old.as_ref().map_or(0, |old| old.revision).max(derived);
                let merged = merge(partition, old.as_ref(), before, &runs, &scratch)?;
                Ok((old, merged))
            })
            .await?;
            let Some(new) = merged.replacement.take() else {
                return Ok((old, merged));
            };
            check_size(&path, new.bytes.len())?;
            if old.is_some() {
                derived = self.revision_of(partition, &[Table::Executions]).await?;
                if new.revision <= derived {
                    // Another run was faster, or the object was put back, and its tables would not follow.
                    continue;
                }
            }
            hit("before-raw");
            if let PutOutcome::Written(_) =
                self.store.put(&path, new.bytes.clone(), &expected).await?
            {
                hit("after-raw");
                return Ok((Some(new), merged));
            }
        }
        Err(LakeError::Contended { what: path })
    }

    /// Derives the partitions that dead runs left pending, and tells the open executions in them,
    /// which those runs may not have committed. Every run begins with it; the lists go once they
    /// are two hours old ([`Lake::prune`]).
    ///
    /// `may_go_on` is asked before each partition; `None` where it said no: the rest is left to the next run.
    ///
    /// # Errors
    ///
    /// As [`Lake::derive`].
    pub async fn recover(
        &self,
        now: Timestamp,
        mut may_go_on: impl FnMut() -> bool,
    ) -> Result<Option<Recovered>, LakeError> {
        let Recovered {
            mut landed,
            mut lists,
        } = Recovered::default();
        for found in self.store.list(layout::PENDING).await? {
            let age = now.as_millisecond() - found.modified.as_millisecond();
            if age < PENDING_AGE_MS {
                continue;
            }
            let Some((bytes, _)) = self.store.get(&found.path).await? else {
                continue;
            };
            // A list that cannot be read was never whole: its run had merged nothing yet.
            if let Ok(list) = serde_json::from_slice::<Pending>(&bytes) {
                for partition in list.partitions {
                    if !may_go_on() {
                        return Ok(None);
                    }
                    self.recover_partition(partition, &list.run_id, &mut landed)
                        .await?;
                }
            }
            lists.push(found.path);
        }
        Ok(Some(Recovered { landed, lists }))
    }

    async fn recover_partition(
        &self,
        partition: Partition,
        run_id: &str,
        landed: &mut MergeResult,
    ) -> Result<(), LakeError> {
        let path = partition.raw();
        if let Some((bytes, _)) = self.store.get(&path).await? {
            let raw = RawObject::new(&path, bytes)?;
            let derived = self
                .derive(partition, &raw, Refresh::Stale, Threads::Two)
                .await?;
            if !derived.files.is_empty() {
                tracing::warn!(run.id = run_id, %partition, "finished the work of a run that died");
            }
            landed.files.extend(derived.files);
            landed.drift.add(derived.drift);
            let open = blocking(move || Ok(open_rows(&path, &raw)?)).await?;
            let open = open.into_iter();
            landed
                .open_updates
                .extend(open.map(|(id, (start, kept))| (id, open_update(start, kept))));
        }
        Ok(())
    }

    /// Deletes what is too old to be of use: checkpoint records, reports of 90 days, and of the `lists` of
    /// partitions that [`Lake::recover`] has seen to, once this run has committed what it told, the old ones.
    ///
    /// # Errors
    ///
    /// [`LakeError::Checkpoint`], [`LakeError::Store`].
    pub async fn prune(&self, now: Timestamp, lists: &[String]) -> Result<(), LakeError> {
        Record::prune(&self.store, now).await?;
        let oldest = now.as_millisecond() - REPORTS_MS;
        for report in self.store.list(layout::RUNS).await? {
            if report.modified.as_millisecond() < oldest {
                self.store.delete(&report.path).await?;
            }
        }
        let gone = now.as_millisecond() - GONE_AGE_MS;
        for list in self.store.list(layout::PENDING).await? {
            if list.modified.as_millisecond() < gone && lists.contains(&list.path) {
                self.store.delete(&list.path).await?;
            }
        }
        Ok(())
    }

    /// What cannot be read from or written to scratch.
    pub fn scratch_error(&self, source: std::io::Error) -> LakeError {
        let folder = self.scratch.display().to_string();
        LakeError::File(FileError::Scratch { folder, source })
    }

    /// Commits what a run learned, removes its pending lists, and derives the dimensions. Step 5.
    ///
    /// # Errors
    ///
    /// [`LakeError`]; without a commit, what was read is read again by the next run.
    pub async fn commit(
        &self,
        run_id: &str,
        now: Timestamp,
        delta: &Delta,
    ) -> Result<(Record, Vec<WrittenFile>), LakeError> {
        let record = Record::append(&self.store, run_id, now, delta).await?;
        let ours = layout::pending_of(run_id);
        for list in self.store.list(layout::PENDING).await? {
            if list.path.starts_with(&ours) {
                self.store.delete(&list.path).await?;
            }
        }
        hit("after-unpend");
        let files = self.derive_dimensions(&record).await?;
        Ok((record, files))
    }
}

/// The fate of an execution that started at `start`, by what its raw partition says of it.
pub fn open_update(start: Timestamp, kept: StoredVersion) -> OpenUpdate {
    if kept.is_terminal {
        return OpenUpdate::Closed {
            observed: kept.observed,
            revision: kept.revision,
        };
    }
    OpenUpdate::Open(Box::new(OpenExecution {
        scope: kept.scope,
        start: Some(start),
        observed: kept.observed,
        revision: kept.revision,
        missed: BTreeSet::new(),
        summary: None,
    }))
}

fn json(value: &impl Serialize) -> Bytes {
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
    use crate::lake::stamp::Stamp;
    use crate::lake::store::Store;
    use crate::observation::{Observation, Version};
    use crate::window::from_ms;

    /// Version `n` of the execution `id`.
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

    /// A lake in memory.
    async fn new_lake(scratch: &Path) -> Lake {
        let store = Store::over(Arc::new(InMemory::new()), "".into(), "memory");
        let account = AccountId::new("account");
        let lake = Lake::open(store, &account, from_ms(0), None, scratch);
        lake.await.unwrap()
    }

    #[tokio::test]
    async fn a_partition_in_many_runs_is_merged_once_and_counts_each_execution_once() {
        let scratch = tempfile::tempdir().unwrap();
        let lake = new_lake(scratch.path()).await;
        let mut spool = Spool::holding(2_000, scratch.path());
        let start = from_ms(1_763_971_200_000);
        let partition = lake
            .identity()
            .partition(&PlanExecutionId::new("e0"), start);
        // The last ones are executions of the first run, seen again.
        for (n, id) in (0..12).chain([0, 1]).enumerate() {
            let n = i64::try_from(n).unwrap();
            spool.push(partition, observation(n, id, start)).unwrap();
        }
        let landed = lake
            .merge_spool("run", 0, &mut spool, || true)
            .await
            .unwrap();
        let landed = landed.unwrap();
        let counts = MergeCounts {
            inserted: 12,
            ..MergeCounts::default()
        };
        assert_eq!(landed.counts, counts);
        assert_eq!(landed.open_updates.len(), 12);
        assert_eq!(landed.changed, [partition]);
        assert_eq!(landed.files.len(), Table::PARTITIONED.len());
        let (raw, _) = lake.store().get(&partition.raw()).await.unwrap().unwrap();
        let path = partition.table(Table::Executions);
        let (table, _) = lake.store().get(&path).await.unwrap().unwrap();
        let [raw, table] = [raw, table].map(|bytes| Stamp::of(&path, &bytes).unwrap());
        assert_eq!((raw.rows, table.rows), (12, 12));
        assert_eq!(raw.revision, 1, "one put, however many runs");
        assert_eq!(table.revision, raw.revision);
    }

    #[tokio::test]
    async fn tables_follow_on_a_raw_object_that_was_put_back_or_lost() {
        let scratch = tempfile::tempdir().unwrap();
        let lake = new_lake(scratch.path()).await;
        let start = from_ms(1_763_971_200_000);
        let seen = |version| observation(version, 0, start);
        let partition = lake.identity().partition(&seen(0).id, start);
        let (raw, table) = (partition.raw(), partition.table(Table::Executions));
        let land = async |version| {
            let mut spool = Spool::new(scratch.path());
            spool.push(partition, seen(version)).unwrap();
            lake.merge_spool("run", 0, &mut spool, || true)
                .await
                .unwrap();
            let [raw, table] = [&raw, &table].map(|path| lake.store().get(path));
            let (raw, table) = (raw.await.unwrap().unwrap(), table.await.unwrap().unwrap());
            let stamps = [&raw.0, &table.0].map(|bytes| Stamp::of("a file", bytes).unwrap());
            (raw.0, stamps.map(|stamp| stamp.revision))
        };
        let (old, revisions) = land(1).await;
        assert_eq!(revisions, [1, 1]);
        assert_eq!(land(2).await.1, [2, 2]);
        lake.store().overwrite(&raw, old).await.unwrap();
        assert_eq!(land(3).await.1, [3, 3], "not 2 and 2 of other content");
        lake.store().delete(&raw).await.unwrap();
        assert_eq!(land(4).await.1, [4, 4]);
    }

    #[tokio::test]
    async fn only_lists_that_were_recovered_are_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let lake = new_lake(scratch.path()).await;
        let seen = observation(0, 0, from_ms(1_763_971_200_000));
        let partition = lake.identity().partition(&seen.id, seen.start);
        let mut spool = Spool::new(scratch.path());
        spool.push(partition, seen).unwrap();
        lake.merge_spool("died", 0, &mut spool, || true)
            .await
            .unwrap();
        let pending = async || lake.store().list(layout::PENDING).await.unwrap();
        let made = pending().await[0].modified.as_millisecond();
        let later = |minutes: i64| from_ms(made + minutes * 60_000);
        // Too young to be a dead run's.
        let recovered = async |at| lake.recover(at, || true).await.unwrap().unwrap();
        let lists = recovered(later(5)).await.lists;
        assert!(lists.is_empty());
        lake.prune(later(180), &lists).await.unwrap();
        assert_eq!(pending().await.len(), 1, "nobody has seen to it");
        let stopped = lake.recover(later(180), || false).await.unwrap();
        assert!(stopped.is_none(), "the rest is left to the next run");
        let lists = recovered(later(180)).await.lists;
        lake.prune(later(180), &lists).await.unwrap();
        assert!(pending().await.is_empty());
    }
}
