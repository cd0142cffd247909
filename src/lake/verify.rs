//! An audit of a lake: every file, every execution, tables against raw, checkpoint against both.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use serde::Serialize;

use super::derive::{Expectation, expectation, same_rows};
use super::layout::{self, Partition, date_of};
use super::log::Record;
use super::parquet::{Kind, Stamp, schema_of, stamp};
use super::rows::{RawObject, each_row};
use super::store::Found;
use super::{Lake, LakeError, blocking};
use crate::ids::PlanExecutionId;
use crate::schema::{Table, VERSION};
use crate::window::from_ms;

/// What an audit found.
#[derive(Debug, Default, Serialize)]
pub struct Audit {
    /// Raw partitions looked at.
    pub partitions: usize,
    /// Executions in them.
    pub executions: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub kind: FindingKind,
    /// The object; of what the source says otherwise: the project and the day.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// The command that repairs it.
    pub repair: Cow<'static, str>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A run died or is at work: the next one finishes it.
    Ahead,
    /// No file of this lake, yet where a query may meet it.
    Foreign,
    /// A promise of the lake is broken.
    Damage,
}

/// The command for what the next run finds by itself.
pub const BY_SYNC: &str = "harness-lake sync";
const BY_EITHER: &str = "harness-lake sync (where a run died) or replay";
const BY_REPLAY: &str = "harness-lake replay --again";
const BY_BACKFILL: &str =
    "remove the object, then `harness-lake sync --lookback 37d` as far as the source keeps it";
const BY_HAND: &str = "move the object away";

impl Audit {
    /// Adds a finding.
    pub fn add(
        &mut self,
        kind: FindingKind,
        path: &str,
        what: impl Into<String>,
        repair: impl Into<Cow<'static, str>>,
    ) {
        self.findings.push(Finding {
            kind,
            path: path.to_owned(),
            what: what.into(),
            repair: repair.into(),
        });
    }

    /// Findings that are no work in progress: a promise is broken, or a foreign file is in the way.
    pub fn bad(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.kind != FindingKind::Ahead)
            .count()
    }
}

impl Lake {
    /// Audits the lake: what each folder holds, schema and stamp of every file, each execution once
    /// and in its own partition, tables equal to what their raw object gives, the checkpoint.
    ///
    /// # Errors
    ///
    /// [`LakeError`] where the store cannot be read at all; what is wrong with a file is a finding.
    pub async fn verify(&self) -> Result<Audit, LakeError> {
        let mut audit = Audit::default();
        let raw = self
            .partitions_in(Kind::Raw, layout::RAW, &mut audit)
            .await?;
        let mut tables = BTreeMap::new();
        for table in Table::PARTITIONED {
            let folder = layout::table_folder(table);
            let there = self
                .partitions_in(Kind::Table(table), &folder, &mut audit)
                .await?;
            for partition in there.iter().filter(|partition| !raw.contains(*partition)) {
                let what = "there is no raw partition that it could have been derived from";
                audit.add(FindingKind::Damage, &partition.table(table), what, BY_HAND);
            }
            tables.insert(table, there);
        }
        let mut seen = HashMap::new();
        let mut open = HashSet::new();
        for partition in &raw {
            self.verify_partition(*partition, &tables, &mut seen, &mut open, &mut audit)
                .await?;
        }
        self.verify_checkpoint(&open, &mut audit).await?;
        audit.findings.sort();
        Ok(audit)
    }

    /// The partitions below a folder; files of other names, and files that are not what their place
    /// says, are findings.
    async fn partitions_in(
        &self,
        kind: Kind,
        folder: &str,
        audit: &mut Audit,
    ) -> Result<HashSet<Partition>, LakeError> {
        let mut partitions = HashSet::new();
        let mut found: Vec<Found> = self.store.list(folder).await?;
        found.sort_by(|a, b| a.path.cmp(&b.path));
        for Found { path, .. } in found {
            let inner = path
                .strip_prefix(folder)
                .and_then(|path| path.strip_prefix('/'));
            let Some(partition) = inner.and_then(Partition::parse) else {
                audit.add(
                    FindingKind::Foreign,
                    &path,
                    "no run makes an object of this name",
                    BY_HAND,
                );
                continue;
            };
            if partition.buckets != self.identity.buckets_of(partition.date) {
                let what = format!(
                    "this date has {} buckets by `_state/lake.json`",
                    self.identity.buckets_of(partition.date)
                );
                audit.add(FindingKind::Damage, &path, what, BY_HAND);
            }
            match self.stamp_finding(kind, &path).await? {
                None => {
                    partitions.insert(partition);
                }
                Some(what) => {
                    let repair = if kind == Kind::Raw {
                        BY_BACKFILL
                    } else {
                        BY_REPLAY
                    };
                    audit.add(FindingKind::Damage, &path, what, repair);
                }
            }
        }
        Ok(partitions)
    }

    /// What is wrong with the stamp or the schema of a file.
    async fn stamp_finding(&self, kind: Kind, path: &str) -> Result<Option<String>, LakeError> {
        let stamp = match stamp(&self.store, path).await? {
            Some((Ok(stamp), _)) => stamp,
            Some((Err(error), _)) => return Ok(Some(crate::error::chain(&error))),
            None => return Ok(None),
        };
        if stamp.table != kind.name() || stamp.schema_version != VERSION {
            let Stamp {
                table,
                schema_version,
                ..
            } = stamp;
            return Ok(Some(format!(
                "it says that it holds `{table}` v{schema_version}"
            )));
        }
        Ok(None)
    }

    async fn verify_partition(
        &self,
        partition: Partition,
        tables: &BTreeMap<Table, HashSet<Partition>>,
        seen: &mut HashMap<u128, Partition>,
        open: &mut HashSet<PlanExecutionId>,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let path = partition.raw();
        let Some((bytes, _)) = self.store.get(&path).await? else {
            return Ok(());
        };
        let raw = match RawObject::new(&path, bytes) {
            Ok(raw) => raw,
            Err(error) => {
                audit.add(
                    FindingKind::Damage,
                    &path,
                    crate::error::chain(&error),
                    BY_BACKFILL,
                );
                return Ok(());
            }
        };
        audit.partitions += 1;
        audit.executions += raw.rows;
        self.verify_rows(partition, &raw, seen, open, audit);
        for table in Table::PARTITIONED {
            let path = partition.table(table);
            let is_told = audit.findings.iter().any(|finding| finding.path == path);
            if !tables[&table].contains(&partition) && !is_told {
                let what = "it is not derived from its raw partition yet";
                audit.add(FindingKind::Ahead, &path, what, BY_EITHER);
            }
        }
        self.verify_tables(partition, raw, tables, audit).await
    }

    /// Each execution once over all dates, in the partition of its start and id.
    fn verify_rows(
        &self,
        partition: Partition,
        raw: &RawObject,
        seen: &mut HashMap<u128, Partition>,
        open: &mut HashSet<PlanExecutionId>,
        audit: &mut Audit,
    ) {
        let path = partition.raw();
        let read = each_row(&path, raw, |row, is_terminal| {
            let id = PlanExecutionId::new(row.plan_execution_id);
            let start = from_ms(row.start_ms);
            if self.identity.partition(&id, start) != partition {
                let what = format!("execution {id} of {} does not belong there", date_of(start));
                audit.add(FindingKind::Damage, &path, what, BY_BACKFILL);
            }
            let hash = xxhash_rust::xxh3::xxh3_128(row.plan_execution_id.as_bytes());
            if let Some(other) = seen.insert(hash, partition) {
                let what = format!("execution {id} stands in `{}` also", other.raw());
                audit.add(FindingKind::Damage, &path, what, BY_BACKFILL);
            }
            if !is_terminal {
                open.insert(id);
            }
            Ok(())
        });
        if let Err(error) = read {
            audit.add(
                FindingKind::Damage,
                &path,
                crate::error::chain(&error),
                BY_BACKFILL,
            );
        }
    }

    /// Every table is what its raw object gives, at the same revision.
    async fn verify_tables(
        &self,
        partition: Partition,
        raw: RawObject,
        tables: &BTreeMap<Table, HashSet<Partition>>,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let (account, scratch) = (self.account().clone(), self.scratch.clone());
        let revision = raw.revision;
        let expected = blocking(move || expectation(&account, partition, &raw, &scratch)).await?;
        for Expectation { table, body } in expected {
            if !tables[&table].contains(&partition) {
                continue;
            }
            let path = partition.table(table);
            let Some((bytes, _)) = self.store.get(&path).await? else {
                continue;
            };
            let there = Stamp::of(&path, &bytes)?;
            if there.revision < revision {
                let what = format!("of revision {}, raw has {revision}", there.revision);
                audit.add(FindingKind::Ahead, &path, what, BY_EITHER);
            } else if revision < there.revision {
                let what = format!("of revision {}, raw has {revision} only", there.revision);
                audit.add(FindingKind::Damage, &path, what, BY_REPLAY);
            } else if let Some(what) = difference(&path, bytes, body).await? {
                audit.add(FindingKind::Damage, &path, what, BY_REPLAY);
            }
        }
        Ok(())
    }

    async fn verify_checkpoint(
        &self,
        open: &HashSet<PlanExecutionId>,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let record = match Record::newest(&self.store).await {
            Ok(record) => record,
            Err(super::log::CheckpointError::Damaged { path, reason }) => {
                audit.add(
                    FindingKind::Damage,
                    &path,
                    reason,
                    "remove the record: the one before it is taken up",
                );
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let path = layout::checkpoint(record.number);
        if record.number == 0 && 0 < audit.partitions {
            let what = "no run has committed yet";
            audit.add(FindingKind::Ahead, layout::CHECKPOINTS, what, BY_SYNC);
        }
        for id in record
            .state
            .open
            .iter()
            .filter(|(_, known)| known.start.is_some())
            .map(|(id, _)| id)
        {
            // Open here and over there costs a poll; unknown there is a claim without a row.
            if !open.contains(id) {
                let what = format!("execution {id} is open here and over in its raw partition");
                audit.add(FindingKind::Ahead, &path, what, BY_SYNC);
            }
        }
        Ok(())
    }
}

async fn difference(
    path: &str,
    there: Bytes,
    expected: Bytes,
) -> Result<Option<String>, LakeError> {
    let named = path.to_owned();
    blocking(move || {
        if schema_of(&named, there.clone())? != schema_of(&named, expected.clone())? {
            return Ok(Some("its columns are not those of its schema".to_owned()));
        }
        let same = same_rows(&named, there, expected)?;
        Ok((!same).then(|| "its rows are not those that its raw partition gives".to_owned()))
    })
    .await
}
