//! The state of a Delta table at one version, read from its newest checkpoint and the entries after it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::action::{Action, Add, Metadata, Protocol, Remove, Txn, decode_entry};
use super::file::DataFile;
use super::{checkpoint, file};
use crate::lake::LakeError;
use crate::lake::layout;
use crate::lake::metadata::FileMetadata;
use crate::lake::store::Store;
use crate::schema::Table;

/// The protocol of the tables: the oldest that has all their types.
pub(super) const PROTOCOL: Protocol = Protocol {
    min_reader_version: 1,
    min_writer_version: 2,
};

/// The state of a Delta table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    /// The version; `None` if the table does not exist.
    pub version: Option<u64>,
    protocol: Option<Protocol>,
    /// The schema and the partition column.
    pub metadata: Option<Metadata>,
    txns: BTreeMap<String, Txn>,
    /// The live files by path.
    pub live: BTreeMap<String, Add>,
    /// The files that were removed lately, by path.
    pub removed: BTreeMap<String, Remove>,
}

/// `_last_checkpoint`: a hint where to begin to list the log.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LastCheckpoint {
    pub(super) version: u64,
    pub(super) size: usize,
}

impl Snapshot {
    /// Reads the newest version of a table: with a checkpoint at every commit, one listing and two objects.
    ///
    /// # Errors
    ///
    /// [`LakeError::Delta`] if the log is damaged, or if another program gave the table a newer protocol.
    pub(super) async fn newest(store: &Store, table: Table) -> Result<Self, LakeError> {
        let hint = store.get(&layout::delta_last_checkpoint(table)).await?;
        // The hint may be missing, torn, or older than what was cleaned up.
        let hint =
            hint.and_then(|(bytes, _)| serde_json::from_slice::<LastCheckpoint>(&bytes).ok());
        let found = match hint {
            Some(hint) => Self::from(store, table, hint.version).await?,
            None => None,
        };
        let snapshot = match found {
            Some(snapshot) => snapshot,
            None => Self::from(store, table, 0).await?.unwrap_or_default(),
        };
        snapshot.check_protocol(table)?;
        Ok(snapshot)
    }

    /// Reads the newest version, knowing that version `first` or a later one has a checkpoint. Returns `None` if there
    /// is none, unless the log begins at 0.
    async fn from(store: &Store, table: Table, first: u64) -> Result<Option<Self>, LakeError> {
        let log = layout::delta_log(table);
        let objects = store.list_from(&log, &format!("{first:020}")).await?;
        let mut entries = Vec::new();
        let mut newest = None;
        for object in &objects {
            match layout::parse_delta_log(table, &object.path) {
                Some((version, layout::DeltaLogFile::Entry)) => entries.push(version),
                Some((version, layout::DeltaLogFile::Checkpoint)) => {
                    newest = newest.max(Some(version));
                }
                None => {}
            }
        }
        entries.sort_unstable();
        let mut snapshot = Self::default();
        if let Some(version) = newest {
            let path = layout::delta_checkpoint(table, version);
            let Some((bytes, _)) = store.get(&path).await? else {
                return Ok(None);
            };
            for action in checkpoint::decode(&path, bytes)? {
                snapshot.apply(action);
            }
            snapshot.version = Some(version);
        } else if first > 0 {
            return Ok(None);
        }
        for version in entries {
            let next = snapshot.version.map_or(0, |version| version + 1);
            if version < next {
                continue;
            }
            let path = layout::delta_entry(table, version);
            if version > next {
                let missing = layout::delta_entry(table, next);
                return Err(damaged(&path, format!("{missing} is missing before it")));
            }
            let Some((bytes, _)) = store.get(&path).await? else {
                return Err(damaged(&path, "it was deleted meanwhile".to_owned()));
            };
            let actions =
                decode_entry(&bytes).map_err(|error| damaged(&path, error.to_string()))?;
            for action in actions {
                snapshot.apply(action);
            }
            snapshot.version = Some(version);
        }
        Ok(Some(snapshot))
    }

    /// Applies an action of the next version.
    pub(super) fn apply(&mut self, action: Action) {
        if let Some(add) = action.add {
            self.removed.remove(&add.path);
            self.live.insert(add.path.clone(), add);
        }
        if let Some(remove) = action.remove {
            self.live.remove(&remove.path);
            self.removed.insert(remove.path.clone(), remove);
        }
        if let Some(txn) = action.txn {
            self.txns.insert(txn.app_id.clone(), txn);
        }
        self.metadata = action.meta_data.or(self.metadata.take());
        self.protocol = action.protocol.or(self.protocol);
    }

    /// Returns the actions of a checkpoint. Removed files stay until `oldest`, in milliseconds.
    pub(super) fn actions(&self, oldest: i64) -> Vec<Action> {
        let is_kept = |remove: &&Remove| remove.deletion_timestamp.is_none_or(|at| at >= oldest);
        let protocol = self.protocol.map(Action::from);
        let metadata = self.metadata.clone().map(Action::from);
        let txns = self.txns.values().cloned().map(Action::from);
        // A checkpoint changes no rows.
        let add = |add: &Add| {
            Add {
                data_change: false,
                ..add.clone()
            }
            .into()
        };
        let remove = |remove: &Remove| {
            Remove {
                data_change: false,
                ..remove.clone()
            }
            .into()
        };
        let removed = self.removed.values().filter(is_kept).map(remove);
        let state = protocol.into_iter().chain(metadata).chain(txns);
        state
            .chain(self.live.values().map(add))
            .chain(removed)
            .collect()
    }

    /// Returns the number that writers keep under a name, or 0.
    pub(super) fn number(&self, app_id: &str) -> u64 {
        let txn = self.txns.get(app_id);
        txn.and_then(|txn| u64::try_from(txn.version).ok())
            .unwrap_or_default()
    }

    /// Returns true if another program wrote a live file: it compacted the table, for example.
    pub(super) fn has_foreign_files(&self) -> bool {
        self.live.keys().any(|path| file::parse(path).is_none())
    }

    /// Returns the path for the copy of a table object: the first one that was not removed, because some readers would
    /// not see that file again.
    pub(super) fn unused_path(&self, object: &str, metadata: &FileMetadata) -> String {
        let mut attempt = 0;
        loop {
            let path = file::path_of(object, metadata, attempt);
            if !self.removed.contains_key(&path) {
                return path;
            }
            attempt += 1;
        }
    }

    /// Returns the live copy of a table object.
    pub(super) fn copy_of(&self, object: &str) -> Option<DataFile> {
        self.live.iter().find_map(|(path, add)| {
            let (of, revision) = file::parse(path)?;
            (of == object).then(|| DataFile {
                object: of,
                revision,
                add: add.clone(),
            })
        })
    }

    fn check_protocol(&self, table: Table) -> Result<(), LakeError> {
        let path = layout::delta_folder(table);
        let Some(protocol) = self.protocol else {
            return if self.version.is_none() {
                Ok(())
            } else {
                Err(damaged(&path, "its log has no protocol".to_owned()))
            };
        };
        let Protocol {
            min_reader_version: reader,
            min_writer_version: writer,
        } = protocol;
        if reader > PROTOCOL.min_reader_version || writer > PROTOCOL.min_writer_version {
            let reason = format!("another program raised its protocol to {reader}/{writer}");
            return Err(damaged(&path, reason));
        }
        let append_only = self
            .metadata
            .as_ref()
            .and_then(|metadata| metadata.configuration.get("delta.appendOnly"));
        if append_only.is_some_and(|value| value.as_deref() == Some("true")) {
            return Err(damaged(
                &path,
                "another program made it append-only".to_owned(),
            ));
        }
        Ok(())
    }
}

fn damaged(path: &str, reason: String) -> LakeError {
    LakeError::Delta {
        path: path.to_owned(),
        reason,
    }
}
