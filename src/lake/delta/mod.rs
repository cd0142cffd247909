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
mod file;
mod snapshot;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::time::Instant;
use ulid::Ulid;

use self::action::{Action, CommitInfo, Remove, Txn, encode_entry};
use self::file::Copy;
use self::file::{describe, parse, path_of, revision_of, table_metadata};
use self::snapshot::{LastCheckpoint, PROTOCOL, Snapshot};
use super::identity::Identity;
use super::layout::{self, TablePartition};
use super::log::Record;
use super::metadata::{Days, WRITER, read_metadata};
use super::replay::Dates;
use super::store::{Expected, PutOutcome};
use super::{LOCK_TIMEOUT, Lake, LakeError, back_off, blocking};
use crate::failpoint::hit;
use crate::mutex;
use crate::schema::Table;

/// The name under which a table keeps the number of the newest checkpoint record whose rows it has.
const RECORD: &str = "harness-lake";

/// The name under which a table keeps the number of the newest complete comparison with the lake.
const COMPARISON: &str = "harness-lake-comparison";

/// Time that replaced files, and the versions that use them, can be read.
const RETENTION_MS: i64 = 7 * 86_400_000;

/// Time that checkpoints name replaced files: until they are deleted.
const TOMBSTONES_MS: i64 = RETENTION_MS + 86_400_000;

/// Attempts at a commit. Each failed attempt means that another run committed.
const ATTEMPTS: u32 = 32;

/// Time after which a commit is checked again: its process slept, and the entries after it may be cleaned up.
const MAX_COMMIT_TIME: Duration = Duration::from_secs(3600);

/// Table objects that are compared at a time.
const CONCURRENCY: usize = 8;

/// The table objects that a run derived or found current.
#[derive(Clone, Debug, Default)]
pub(super) struct Touched(BTreeMap<TablePartition, TouchedPartition>);

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
        Scope::Objects(self.0.iter().map(due).collect())
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

    /// Turns the Delta tables on or off before a replay; `None` changes nothing. If the replay is of all dates, the
    /// next commit compares them completely, also if the replay is killed.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`], [`LakeError::Store`].
    pub async fn prepare_delta(
        mut self,
        on: Option<bool>,
        dates: Dates,
    ) -> Result<Self, LakeError> {
        let had_delta = self.identity.has_delta();
        if on.is_none_or(|on| on == had_delta) && !(had_delta && dates.are_all()) {
            return Ok(self);
        }
        let _lock = self.store.lock(LOCK_TIMEOUT).await?;
        self.turn_delta(on).await?;
        if had_delta && self.identity.has_delta() {
            self.identity = Identity::set_delta(&self.store, true).await?;
        }
        Ok(self)
    }

    /// Remembers the tables of a partition of which this run has written these copies.
    pub(super) fn touch_written(&self, partition: TablePartition, copies: BTreeMap<Table, Copy>) {
        let mut touched = mutex::lock(&self.touched);
        let touched = touched.0.entry(partition).or_default();
        touched.revision = None;
        touched.copies.extend(copies);
    }

    /// Remembers a partition whose tables were current, and so have at least the revisions of `executions`.
    pub(super) fn touch_current(&self, partition: TablePartition, executions: Option<&Days>) {
        let revision = executions.map(|days| days.values().map(|day| day.revision).sum());
        let mut touched = mutex::lock(&self.touched);
        touched.0.entry(partition).or_default().revision = revision;
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
        let copy = describe(&partition.to_string(), body, 0)?;
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

    async fn commit_table(
        &self,
        table: Table,
        scope: &Scope,
        record: u64,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        let comparison = self.identity.delta_comparison();
        for attempt in 0..ATTEMPTS {
            back_off(attempt).await;
            let begun = Instant::now();
            let mut snapshot = Snapshot::newest(&self.store, table).await?;
            // Table objects are read after the log: a copy that is live is never newer than its object.
            let is_compared = snapshot.number(COMPARISON) >= comparison;
            let is_complete =
                matches!(scope, Scope::All) || !is_compared || snapshot.has_foreign_files();
            let copies = match scope {
                Scope::Objects(objects) if !is_complete => {
                    self.due_copies(table, objects, &snapshot).await?
                }
                _ => self.all_copies(table, &snapshot).await?,
            };
            let metadata = self.new_metadata(table, &snapshot, now);
            let changes = changes(&snapshot, &copies, is_complete, now);
            if changes.is_empty() && metadata.is_none() && is_compared {
                return Ok(());
            }
            let number = |app_id: &str, ours: u64| Txn {
                app_id: app_id.to_owned(),
                version: i64::try_from(snapshot.number(app_id).max(ours)).unwrap_or(i64::MAX),
                last_updated: Some(now.as_millisecond()),
            };
            let compared = if is_complete { comparison } else { 0 };
            let mut actions: Vec<Action> = vec![
                commit_info(now).into(),
                number(RECORD, record).into(),
                number(COMPARISON, compared).into(),
            ];
            if snapshot.version.is_none() {
                actions.push(PROTOCOL.into());
            }
            actions.extend(metadata);
            actions.extend(changes);
            let version = snapshot.version.map_or(0, |version| version + 1);
            let path = layout::delta_entry(table, version);
            hit("before-delta-entry");
            let body = encode_entry(&actions).into();
            let put = self.store.put(&path, body, &Expected::Absent).await?;
            if put == PutOutcome::Lost || begun.elapsed() > MAX_COMMIT_TIME {
                continue;
            }
            hit("after-delta-entry");
            for action in actions {
                snapshot.apply(action);
            }
            snapshot.version = Some(version);
            self.write_checkpoint(table, version, &snapshot, now)
                .await?;
            return self.clean_up(table, version, &snapshot, now).await;
        }
        Err(LakeError::Contended {
            what: layout::delta_log(table),
        })
    }

    /// Returns the metadata to write: for a new table, or one whose columns changed.
    fn new_metadata(&self, table: Table, snapshot: &Snapshot, now: Timestamp) -> Option<Action> {
        let current = snapshot.metadata.as_ref();
        let id = current.map_or_else(new_id, |metadata| metadata.id.clone());
        let new = table_metadata(table, self.period(), id, now);
        let is_same = current.is_some_and(|current| {
            current.schema_string == new.schema_string
                && current.partition_columns == new.partition_columns
        });
        (!is_same).then(|| new.into())
    }

    async fn write_checkpoint(
        &self,
        table: Table,
        version: u64,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        let actions = snapshot.actions(now.as_millisecond() - TOMBSTONES_MS);
        let hint = LastCheckpoint {
            version,
            size: actions.len(),
        };
        let path = layout::delta_checkpoint(table, version);
        let of = path.clone();
        let body = blocking(move || Ok(checkpoint::encode(&of, &actions)?)).await?;
        self.store.overwrite(&path, body).await?;
        hit("after-delta-checkpoint");
        let hint = serde_json::to_vec(&hint).expect("the hint has text keys only");
        let path = layout::delta_last_checkpoint(table);
        Ok(self.store.overwrite(&path, hint.into()).await?)
    }

    /// Returns what should be live of the given table objects, as far as it differs.
    async fn due_copies(
        &self,
        table: Table,
        objects: &BTreeMap<String, Due>,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<String, Copy>, LakeError> {
        let live: BTreeMap<String, u64> = snapshot
            .live
            .keys()
            .filter_map(|path| parse(path))
            .collect();
        let mut copies = BTreeMap::new();
        for (object, due) in objects {
            let live = live.get(object).copied();
            let copy = match &due.copy {
                Some(copy) if snapshot.live.contains_key(&copy.add.path) => continue,
                Some(copy) if live.is_some_and(|live| live > copy.revision) => continue,
                Some(copy)
                    if live != Some(copy.revision)
                        && !snapshot.removed.contains_key(&copy.add.path) =>
                {
                    Some(copy.clone())
                }
                None if due.revision.is_some() && live >= due.revision => continue,
                // Only the table object shows which version is the newer one.
                _ => self.current_copy(table, object, snapshot, None).await?,
            };
            copies.extend(copy.map(|copy| (object.clone(), copy)));
        }
        Ok(copies)
    }

    /// Returns what should be live of all table objects.
    async fn all_copies(
        &self,
        table: Table,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<String, Copy>, LakeError> {
        let stored = &self.stored_files(table).await?;
        let objects = self.table_objects(table).await?;
        let copies: Vec<_> = stream::iter(objects)
            .map(|object| async move {
                let copy = self.current_copy(table, &object, snapshot, Some(stored));
                Ok::<_, LakeError>(copy.await?.map(|copy| (object, copy)))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(copies.into_iter().flatten().collect())
    }

    /// Lists the objects of a table, below its folder.
    async fn table_objects(&self, table: Table) -> Result<Vec<String>, LakeError> {
        let folder = layout::table_folder(table) + "/";
        let is_object = |object: &String| {
            if table.definition().partitioned {
                TablePartition::parse(self.period(), object).is_some()
            } else {
                object == layout::DIMENSION_OBJECT
            }
        };
        let found = self.store.list(&layout::table_folder(table)).await?;
        let objects = found
            .iter()
            .filter_map(|found| found.path.strip_prefix(&folder));
        Ok(objects.map(str::to_owned).filter(is_object).collect())
    }

    /// Returns the sizes of the data files of a Delta table, by path below its folder.
    async fn stored_files(&self, table: Table) -> Result<BTreeMap<String, u64>, LakeError> {
        let folder = layout::delta_folder(table) + "/";
        let found = self.store.list(&layout::delta_folder(table)).await?;
        let files = found.iter().filter_map(|found| {
            let path = found.path.strip_prefix(&folder)?;
            let is_data = !path.starts_with(layout::DELTA_LOG);
            is_data.then(|| (path.to_owned(), found.size))
        });
        Ok(files.collect())
    }

    /// Returns the copy of a table object as it is now. Writes the copy if it is not live, or if it is not `stored`
    /// with its size.
    async fn current_copy(
        &self,
        table: Table,
        object: &str,
        snapshot: &Snapshot,
        stored: Option<&BTreeMap<String, u64>>,
    ) -> Result<Option<Copy>, LakeError> {
        let path = format!("{}/{object}", layout::table_folder(table));
        let Some((Ok(metadata), _)) = read_metadata(&self.store, &path).await? else {
            // A damaged object: `verify` reports it, and its last copy stays.
            return Ok(live_copy(object, snapshot));
        };
        let attempt = unused_attempt(snapshot, |attempt| path_of(object, &metadata, attempt));
        if let Some(add) = snapshot.live.get(&path_of(object, &metadata, attempt)) {
            let size = |stored: &BTreeMap<String, u64>| stored.get(&add.path).copied();
            let is_stored = stored.is_none_or(|stored| {
                size(stored).and_then(|size| i64::try_from(size).ok()) == Some(add.size)
            });
            if is_stored {
                return Ok(Some(Copy {
                    object: object.to_owned(),
                    revision: revision_of(&metadata),
                    add: add.clone(),
                }));
            }
        }
        let Some((bytes, _)) = self.store.get(&path).await? else {
            return Ok(live_copy(object, snapshot));
        };
        // The object may have been replaced after its footer was read.
        let mut copy = describe(object, &bytes, 0)?;
        if snapshot.removed.contains_key(&copy.add.path) {
            copy = describe(object, &bytes, attempt)?;
        }
        self.put_copy(table, &copy, bytes).await?;
        Ok(Some(copy))
    }

    /// Writes a data file. Its name determines its bytes.
    async fn put_copy(&self, table: Table, copy: &Copy, bytes: Bytes) -> Result<(), LakeError> {
        let path = format!("{}/{}", layout::delta_folder(table), copy.add.path);
        hit("before-delta-file");
        let put = self
            .store
            .put(&path, bytes.clone(), &Expected::Absent)
            .await?;
        if put == PutOutcome::Lost {
            // The file is damaged.
            self.store.overwrite(&path, bytes).await?;
        }
        hit("after-delta-file");
        Ok(())
    }
}

/// Returns the first number of a copy whose path was not removed: readers would not see the file again.
fn unused_attempt(snapshot: &Snapshot, path: impl Fn(u32) -> String) -> u32 {
    let mut attempt = 0;
    while snapshot.removed.contains_key(&path(attempt)) {
        attempt += 1;
    }
    attempt
}

fn live_copy(object: &str, snapshot: &Snapshot) -> Option<Copy> {
    let is_of = |path: &String| parse(path).filter(|(of, _)| of == object);
    snapshot.live.iter().find_map(|(path, add)| {
        let (object, revision) = is_of(path)?;
        Some(Copy {
            object,
            revision,
            add: add.clone(),
        })
    })
}

/// Returns the actions that make these copies live. If they are of all table objects, removes all other files.
fn changes(
    snapshot: &Snapshot,
    copies: &BTreeMap<String, Copy>,
    is_complete: bool,
    now: Timestamp,
) -> Vec<Action> {
    let now = now.as_millisecond();
    let is_replaced = |path: &String| {
        let copy = parse(path).and_then(|(object, _)| copies.get(&object));
        copy.map_or(is_complete, |copy| copy.add.path != *path)
    };
    let removed = snapshot.live.iter().filter(|(path, _)| is_replaced(path));
    let remove = |(path, add): (&String, &action::Add)| Remove {
        path: path.clone(),
        deletion_timestamp: Some(now),
        data_change: true,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
    };
    let added = copies
        .values()
        .filter(|copy| !snapshot.live.contains_key(&copy.add.path));
    let add = |copy: &Copy| action::Add {
        modification_time: now,
        ..copy.add.clone()
    };
    let changes = removed.map(remove).map(Action::from);
    changes.chain(added.map(add).map(Action::from)).collect()
}

fn commit_info(now: Timestamp) -> CommitInfo {
    CommitInfo {
        timestamp: now.as_millisecond(),
        operation: "WRITE".to_owned(),
        engine_info: format!("harness-lake/{WRITER}"),
        txn_id: new_id(),
    }
}

fn new_id() -> String {
    Ulid::generate().to_string()
}
