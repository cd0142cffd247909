//! Commits to the log of a Delta table: compares it with the table objects and changes what differs.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use ulid::Ulid;

use super::action::{Action, Add, CommitInfo, Remove, Txn, encode_entry};
use super::file::{DataFile, parse, table_metadata};
use super::snapshot::{LastCheckpoint, PROTOCOL, Snapshot};
use super::{Scope, TOMBSTONES_MS, checkpoint};
use crate::failpoint::hit;
use crate::lake::layout;
use crate::lake::metadata::WRITER;
use crate::lake::store::{Expected, PutOutcome};
use crate::lake::{Lake, LakeError, back_off, blocking};
use crate::schema::Table;

/// The name under which a table keeps the number of the newest checkpoint record whose rows it has.
pub(super) const RECORD: &str = "harness-lake";

/// The name under which a table keeps the number of the newest complete comparison with the lake.
const COMPARISON: &str = "harness-lake-comparison";

/// Attempts at a commit. Each failed attempt means that another run committed.
const ATTEMPTS: u32 = 32;

/// Time after which a commit is checked again: its process slept, and the entries after it may be cleaned up.
const MAX_COMMIT_TIME: Duration = Duration::from_secs(3600);

impl Lake {
    /// Commits to the log of a table until no other run commits first. Does nothing if nothing differs.
    pub(super) async fn commit_table(
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
            let is_compared = self.is_compared(&snapshot);
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

    /// Returns true if a table was compared completely since the Delta tables were turned on.
    pub(super) fn is_compared(&self, snapshot: &Snapshot) -> bool {
        snapshot.version.is_some()
            && snapshot.number(COMPARISON) >= self.identity.delta_comparison()
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

    /// Writes the checkpoint of a version, then the hint to it.
    pub(super) async fn write_checkpoint(
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
}

/// Returns the actions that make these copies live. If they are of all table objects, removes all other files.
fn changes(
    snapshot: &Snapshot,
    copies: &BTreeMap<String, DataFile>,
    is_complete: bool,
    now: Timestamp,
) -> Vec<Action> {
    let now = now.as_millisecond();
    let is_replaced = |path: &String| {
        let copy = parse(path).and_then(|(object, _)| copies.get(&object));
        copy.map_or(is_complete, |copy| copy.add.path != *path)
    };
    let removed = snapshot.live.iter().filter(|(path, _)| is_replaced(path));
    let remove = |(path, add): (&String, &Add)| Remove {
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
    let add = |copy: &DataFile| Add {
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

/// Returns an identifier that is used once.
pub(super) fn new_id() -> String {
    Ulid::generate().to_string()
}
