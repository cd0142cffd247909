//! An audit of a lake: every file, every execution, tables against raw, checkpoint against both.
//!
//! Runs may be at work meanwhile. So what follows is listed before what it follows from (the checkpoint and
//! tables before raw), and looked at again before it is called damage.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::derive::{Expectation, expectation, same_rows};
use super::finding::{
    Audit, BY_EITHER, BY_HAND, BY_NEXT_SYNC, BY_RECORD_BEFORE, BY_REPLAY, BY_SYNC, FindingKind,
    by_backfill,
};
use super::inventory::hash;
use super::layout::{self, Partition, date_of};
use super::log::{CheckpointError, Record};
use super::parquet::{FileError, FileKind, schema_of};
use super::rows::{RawObject, each_row};
use super::stamp::{Stamp, stamp};
use super::store::Found;
use super::{Lake, LakeError, blocking};
use crate::causes::chain;
use crate::ids::PlanExecutionId;
use crate::schema::{Table, VERSION};
use crate::window::from_ms;

/// What the raw partitions hold.
#[derive(Default)]
struct RawIndex {
    /// Where an execution stands, by the hash of its id.
    partitions: HashMap<u128, Partition>,
    /// Executions that are not over.
    open: HashSet<PlanExecutionId>,
}

impl Lake {
    /// Audits the lake: what each folder holds, schema and stamp of every file, each execution once
    /// and in its own partition, tables equal to what their raw object gives, the checkpoint and what follows
    /// from it.
    ///
    /// # Errors
    ///
    /// [`LakeError`] where the store cannot be read at all; what is wrong with a file is a finding.
    pub async fn verify(&self) -> Result<Audit, LakeError> {
        let mut audit = Audit::default();
        let record = self.newest_record(&mut audit).await?;
        if let Some(record) = &record {
            self.verify_dimensions(record, &mut audit).await?;
        }
        let mut derived = BTreeSet::new();
        for table in Table::PARTITIONED {
            let (kind, folder) = (FileKind::Table(table), layout::table_folder(table));
            let there = self.partitions_in(kind, &folder, &mut audit).await?;
            derived.extend(there.into_iter().map(|partition| (partition, table)));
        }
        let raw = self
            .partitions_in(FileKind::Raw, layout::RAW, &mut audit)
            .await?;
        for (partition, table) in &derived {
            let path = partition.table(*table);
            if !raw.contains(partition) && !audit.tells_of(&path) {
                let what = "there is no raw partition that it could have been derived from";
                let repair = by_backfill(partition.date);
                audit.add(FindingKind::Damage, &path, what, repair);
            }
        }
        let mut seen = RawIndex::default();
        for partition in &raw {
            self.verify_partition(*partition, &mut seen, &mut audit)
                .await?;
        }
        if let Some(record) = &record {
            self.verify_record(record, &seen, &mut audit);
        }
        audit.findings.sort();
        Ok(audit)
    }

    /// The partitions below a folder; files of other names, and files that are not what their place
    /// says, are findings.
    async fn partitions_in(
        &self,
        kind: FileKind,
        folder: &str,
        audit: &mut Audit,
    ) -> Result<BTreeSet<Partition>, LakeError> {
        let mut partitions = BTreeSet::new();
        for Found { path, .. } in self.store.list(folder).await? {
            let inner = path
                .strip_prefix(folder)
                .and_then(|path| path.strip_prefix('/'));
            let Some(partition) = inner.and_then(Partition::parse) else {
                foreign(&path, audit);
                continue;
            };
            partitions.insert(partition);
            let buckets = self.identity.buckets_of(partition.date);
            if partition.buckets != buckets {
                let what = format!("this date has {buckets} buckets by `_state/lake.json`");
                audit.add(FindingKind::Damage, &path, what, BY_HAND);
            }
            let Some((stamp, _)) = stamp(&self.store, &path).await? else {
                continue;
            };
            if let Some(what) = oddity(kind, &stamp) {
                match kind {
                    FileKind::Raw => damaged_raw(partition, what, audit),
                    FileKind::Table(_) => audit.add(FindingKind::Damage, &path, what, BY_REPLAY),
                }
            }
        }
        Ok(partitions)
    }

    async fn verify_partition(
        &self,
        partition: Partition,
        seen: &mut RawIndex,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let path = partition.raw();
        if audit.tells_of(&path) {
            return Ok(());
        }
        let Some((bytes, _)) = self.store.get(&path).await? else {
            return Ok(());
        };
        let raw = match RawObject::new(&path, bytes) {
            Ok(raw) => raw,
            Err(error) => {
                damaged_raw(partition, chain(&error), audit);
                return Ok(());
            }
        };
        audit.partitions += 1;
        audit.executions += raw.rows;
        if let Err(error) = self.verify_rows(partition, &raw, seen, audit) {
            damaged_raw(partition, chain(&error), audit);
            return Ok(());
        }
        self.verify_tables(partition, raw, audit).await
    }

    /// Each execution once over all dates, in the partition of its start and id.
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
                let what = format!("execution {id} of {} does not belong there", date_of(start));
                damaged_raw(partition, what, audit);
            }
            if let Some(other) = seen.partitions.insert(hash(id.as_str()), partition) {
                let what = format!("execution {id} stands in `{}` also", other.raw());
                damaged_raw(partition, what, audit);
            }
            if !is_terminal {
                seen.open.insert(id);
            }
            Ok(())
        })
    }

    /// Every table is what its raw object gives, at the same revision.
    async fn verify_tables(
        &self,
        partition: Partition,
        raw: RawObject,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let (account, scratch) = (self.account().clone(), self.scratch.clone());
        let last = partition.table(Table::Executions);
        if let Some((Ok(stamp), _)) = stamp(&self.store, &last).await?
            && raw.rows < stamp.rows
            && self.lacks_rows(partition, &stamp).await?
        {
            let what = format!("holds {} executions, raw has {} only", stamp.rows, raw.rows);
            let repair = by_backfill(partition.date);
            audit.add(FindingKind::Damage, &last, what, repair);
            return Ok(());
        }
        let revision = raw.revision;
        let expected = blocking(move || expectation(&account, partition, &raw, &scratch)).await?;
        let mut missing = Vec::new();
        // The last one, `executions`, vouches for the others.
        let mut is_vouched_for = false;
        for Expectation { table, body } in expected {
            let path = partition.table(table);
            if audit.tells_of(&path) {
                continue;
            }
            let Some((bytes, _)) = self.store.get(&path).await? else {
                missing.push(path);
                continue;
            };
            let there = match Stamp::of(&path, &bytes) {
                Ok(stamp) => stamp.revision,
                Err(error) => {
                    audit.add(FindingKind::Damage, &path, chain(&error), BY_REPLAY);
                    continue;
                }
            };
            is_vouched_for = table == Table::Executions && there == revision;
            if there < revision {
                let what = format!("of revision {there}, raw has {revision}");
                audit.add(FindingKind::Ahead, &path, what, BY_EITHER);
            } else if revision < there {
                if self.is_ahead_of_raw(partition, there).await? {
                    let what = format!("of revision {there}, raw has {revision} only");
                    audit.add(FindingKind::Damage, &path, what, BY_REPLAY);
                }
            } else if let Some(what) = difference(&path, bytes, body).await? {
                audit.add(FindingKind::Damage, &path, what, BY_REPLAY);
            }
        }
        for path in missing {
            if self.store.head(&path).await?.is_some() {
                continue;
            }
            if is_vouched_for {
                let what = "it is missing beside a table that vouches for it";
                audit.add(FindingKind::Damage, &path, what, BY_REPLAY);
            } else {
                let what = "it is not derived from its raw partition yet";
                audit.add(FindingKind::Ahead, &path, what, BY_EITHER);
            }
        }
        Ok(())
    }

    /// The newest record of the checkpoint; one that is damaged is a finding.
    async fn newest_record(&self, audit: &mut Audit) -> Result<Option<Record>, LakeError> {
        match Record::newest(&self.store).await {
            Ok(record) => Ok(Some(record)),
            Err(CheckpointError::Damaged { path, reason }) => {
                audit.add(FindingKind::Damage, &path, reason, BY_RECORD_BEFORE);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// `orgs`, `projects` and `scopes` are what the record gives.
    async fn verify_dimensions(&self, record: &Record, audit: &mut Audit) -> Result<(), LakeError> {
        for table in Table::DIMENSIONS {
            let path = layout::dimension(table);
            for Found { path: found, .. } in self.store.list(&layout::table_folder(table)).await? {
                if found != path {
                    foreign(&found, audit);
                }
            }
            let Some((bytes, _)) = self.store.get(&path).await? else {
                if 0 < record.revision_of(table) {
                    let what = "it is not derived from the checkpoint yet";
                    audit.add(FindingKind::Ahead, &path, what, BY_SYNC);
                }
                continue;
            };
            let stamp = Stamp::of(&path, &bytes);
            if let Some(what) = oddity(FileKind::Table(table), &stamp) {
                audit.add(FindingKind::Damage, &path, what, BY_NEXT_SYNC);
            } else if let Ok(stamp) = stamp {
                self.verify_dimension(table, record, (stamp.revision, bytes), audit)
                    .await?;
            }
        }
        Ok(())
    }

    async fn verify_dimension(
        &self,
        table: Table,
        record: &Record,
        (there, bytes): (u64, Bytes),
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let path = layout::dimension(table);
        let revision = record.revision_of(table);
        match there.cmp(&revision) {
            Ordering::Less => {
                let what = format!("of record {there}, there is {revision}");
                audit.add(FindingKind::Ahead, &path, what, BY_SYNC);
            }
            Ordering::Greater => {
                let newest = self.newest_revision_of(table).await?;
                if newest < there {
                    let what = format!("of record {there}, there is {newest} only");
                    audit.add(FindingKind::Damage, &path, what, BY_SYNC);
                }
            }
            Ordering::Equal => {
                let (body, _) = self.encode_dimension(table, record)?;
                if let Some(what) = difference(&path, bytes, body).await? {
                    audit.add(FindingKind::Damage, &path, what, BY_NEXT_SYNC);
                }
            }
        }
        Ok(())
    }

    /// The open list claims no execution that is in no raw partition.
    fn verify_record(&self, record: &Record, seen: &RawIndex, audit: &mut Audit) {
        let path = layout::checkpoint(record.number);
        if record.number == 0 && 0 < audit.partitions {
            let what = "no run has committed yet";
            audit.add(FindingKind::Ahead, layout::CHECKPOINTS, what, BY_SYNC);
        }
        for (id, known) in &record.state.open {
            let Some(start) = known.start.filter(|_| !seen.open.contains(id)) else {
                continue;
            };
            if seen.partitions.contains_key(&hash(id.as_str())) {
                // Open here and over over there costs a poll.
                let what = format!("execution {id} is open here and over in its raw partition");
                audit.add(FindingKind::Ahead, &path, what, BY_SYNC);
                continue;
            }
            let partition = self.identity.partition(id, start);
            let [raw, table] = [partition.raw(), partition.table(Table::Executions)];
            // Of a raw object that is lost or cannot be read, or of its tables, all is told already.
            if !audit.tells_of(&raw) && !audit.tells_of(&table) {
                let what = format!("execution {id} is open here and in no raw partition");
                let repair = by_backfill(partition.date);
                audit.add(FindingKind::Damage, &path, what, repair);
            }
        }
    }
}

/// What is wrong with the stamp of a file.
fn oddity(kind: FileKind, stamp: &Result<Stamp, FileError>) -> Option<String> {
    match stamp {
        Err(error) => Some(chain(error)),
        Ok(stamp) if stamp.table != kind.name() || stamp.schema_version != VERSION => {
            Some(format!(
                "it says that it holds `{}` v{}",
                stamp.table, stamp.schema_version
            ))
        }
        Ok(_) => None,
    }
}

fn foreign(path: &str, audit: &mut Audit) {
    let what = "no run makes an object of this name";
    audit.add(FindingKind::Foreign, path, what, BY_HAND);
}

fn damaged_raw(partition: Partition, what: String, audit: &mut Audit) {
    let repair = format!("remove the object, then {}", by_backfill(partition.date));
    audit.add(FindingKind::Damage, &partition.raw(), what, repair);
}

/// How the columns or the rows of a file differ from those that are expected.
async fn difference(
    path: &str,
    there: Bytes,
    expected: Bytes,
) -> Result<Option<String>, LakeError> {
    let named = path.to_owned();
    blocking(move || {
        let schema = match schema_of(&named, there.clone()) {
            Ok(schema) => schema,
            Err(error) => return Ok(Some(chain(&error))),
        };
        if schema != schema_of(&named, expected.clone())? {
            return Ok(Some("its columns are not those of its schema".to_owned()));
        }
        let same = same_rows(&named, there, expected)?;
        Ok((!same).then(|| "its rows are not those that it is to be derived from".to_owned()))
    })
    .await
}
