//! The actions of a Delta log: one line of an entry, or one row of a checkpoint. Pure.
//!
//! The names and types are those of the Delta protocol, reader version 1 and writer version 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Texts by key; a value may be null.
pub(in crate::lake) type TextMap = BTreeMap<String, Option<String>>;

/// One action: exactly one member is set. Members of newer protocols are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Action {
    /// The protocol that readers and writers must know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The schema and the partition column.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta_data: Option<Metadata>,
    /// A number that a writer keeps with the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub txn: Option<Txn>,
    /// A file that is live from this version on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<Add>,
    /// A file that is not live from this version on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remove: Option<Remove>,
    /// Information about the commit. Not part of the state of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit_info: Option<CommitInfo>,
}

/// The protocol of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Protocol {
    /// What a reader must know.
    pub min_reader_version: i32,
    /// What a writer must know.
    pub min_writer_version: i32,
}

/// The metadata of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    /// Identifies the table.
    pub id: String,
    /// The name of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The meaning of a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The format of the files.
    pub format: Format,
    /// The schema, as JSON.
    pub schema_string: String,
    /// The columns that are in the path and not in the files.
    pub partition_columns: Vec<String>,
    /// Properties of the table.
    #[serde(default)]
    pub configuration: TextMap,
    /// The time of creation, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_time: Option<i64>,
}

/// The format of the files of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Format {
    /// `parquet`.
    pub provider: String,
    /// Empty.
    #[serde(default)]
    pub options: TextMap,
}

/// A number that a writer keeps with the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Txn {
    /// The meaning of the number.
    pub app_id: String,
    /// The number.
    pub version: i64,
    /// The time of the write, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<i64>,
}

/// A live file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::lake) struct Add {
    /// Its path below the folder of the table.
    pub path: String,
    /// The values of the partition columns.
    pub partition_values: TextMap,
    /// Its size in bytes.
    pub size: i64,
    /// The time of its commit, in milliseconds.
    pub modification_time: i64,
    /// True if the rows of the table change by it.
    pub data_change: bool,
    /// [`Stats`](super::file::Stats) as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stats: Option<String>,
}

/// A file that was live once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Remove {
    /// Its path below the folder of the table.
    pub path: String,
    /// The time of its removal, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<i64>,
    /// True if the rows of the table change by it.
    pub data_change: bool,
    /// True if the next two members are set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extended_file_metadata: Option<bool>,
    /// The values of the partition columns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_values: Option<TextMap>,
    /// Its size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<i64>,
}

/// Information about a commit, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct CommitInfo {
    /// The time of the commit, in milliseconds.
    pub timestamp: i64,
    /// The operation.
    pub operation: String,
    /// The program and its version.
    pub engine_info: String,
    /// Unique to the commit: its writer recognizes it by this.
    pub txn_id: String,
}

macro_rules! action_of {
    ($($member:ident: $kind:ty),*) => {$(
        impl From<$kind> for Action {
            fn from(action: $kind) -> Self {
                Self {
                    $member: Some(action),
                    ..Self::default()
                }
            }
        }
    )*};
}

action_of!(protocol: Protocol, meta_data: Metadata, txn: Txn, add: Add, remove: Remove, commit_info: CommitInfo);

/// Encodes an entry of the log: one action per line.
pub(super) fn encode_entry(actions: &[Action]) -> Vec<u8> {
    let line = |action: &Action| {
        serde_json::to_string(action).expect("an action has text keys only") + "\n"
    };
    actions.iter().map(line).collect::<String>().into_bytes()
}

/// Decodes an entry of the log.
///
/// # Errors
///
/// [`serde_json::Error`] if a line is no action.
pub(super) fn decode_entry(bytes: &[u8]) -> Result<Vec<Action>, serde_json::Error> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.trim_ascii().is_empty());
    lines.map(serde_json::from_slice).collect()
}
