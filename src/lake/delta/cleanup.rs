//! Deletes versions of a Delta table that were replaced more than seven days ago, and their files.

use jiff::Timestamp;

use super::action::{Action, Remove, decode_entry};
use super::file::parse;
use super::snapshot::Snapshot;
use super::{RETENTION_MS, TOMBSTONES_MS};
use crate::lake::layout::{self, DeltaLogFile};
use crate::lake::{Lake, LakeError};
use crate::schema::Table;

/// Commits between two cleanups: each lists the complete log.
const INTERVAL: u64 = 8;

/// Entries that one cleanup deletes: more than are written between two.
const MAX_ENTRIES: usize = 64;

impl Lake {
    /// Deletes old versions after every eighth commit, and of a table with fewer commits after every one.
    ///
    /// Keeps the newest checkpoint that is older than the retention, and all after it: they are the versions that
    /// were current within it. Deletes the files before the entry that names them, and checkpoints last. So an
    /// interrupted cleanup is continued by the next one, and two may overlap.
    pub(super) async fn clean_up(
        &self,
        table: Table,
        version: u64,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<(), LakeError> {
        let expired = now.as_millisecond() - TOMBSTONES_MS;
        let is_expired = |remove: &Remove| remove.deletion_timestamp < Some(expired);
        if !version.is_multiple_of(INTERVAL) && !snapshot.removed.values().any(is_expired) {
            return Ok(());
        }
        let oldest = now.as_millisecond() - RETENTION_MS;
        let mut entries = Vec::new();
        let mut checkpoints = Vec::new();
        let mut first_kept = 0;
        for object in self.store.list(&layout::delta_log(table)).await? {
            match layout::parse_delta_log(table, &object.path) {
                Some((at, DeltaLogFile::Entry)) => entries.push((at, object.path)),
                Some((at, DeltaLogFile::Checkpoint)) => {
                    if at < version && object.modified.as_millisecond() < oldest {
                        first_kept = first_kept.max(at);
                    }
                    checkpoints.push((at, object.path));
                }
                None => {}
            }
        }
        entries.retain(|(version, _)| *version <= first_kept);
        checkpoints.retain(|(version, _)| *version < first_kept);
        entries.sort();
        let is_last = entries.len() <= MAX_ENTRIES;
        for (version, path) in entries.into_iter().take(MAX_ENTRIES) {
            if let Some((bytes, _)) = self.store.get(&path).await? {
                self.delete_removed(table, &bytes, snapshot).await?;
            }
            if version < first_kept {
                self.store.delete(&path).await?;
            }
        }
        if is_last {
            for (_, path) in checkpoints {
                self.store.delete(&path).await?;
            }
        }
        Ok(())
    }

    /// Deletes the files that an entry removed.
    async fn delete_removed(
        &self,
        table: Table,
        entry: &[u8],
        snapshot: &Snapshot,
    ) -> Result<(), LakeError> {
        // Files of a damaged entry stay, and `verify` reports them.
        let actions: Vec<Action> = decode_entry(entry).unwrap_or_default();
        let removed = actions.into_iter().filter_map(|action| action.remove);
        for path in removed.map(|remove| remove.path) {
            if !snapshot.live.contains_key(&path) && parse(&path).is_some() {
                let path = format!("{}/{path}", layout::delta_folder(table));
                self.store.delete(&path).await?;
            }
        }
        Ok(())
    }
}
