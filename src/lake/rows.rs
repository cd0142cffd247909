//! Rows of a raw object: written through the builders of a batch, read by column or one by one.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Int64Builder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::metadata::{FileMetadata, TABLE};
use super::parquet::{FileError, FileKind, read_raw};
use super::raw::StoredVersion;
use crate::ids::{PlanExecutionId, Scope};
use crate::observation::{Observation, Version};
use crate::schema::raw_schema;
use crate::tables::RawRow;
use crate::window::from_ms;

/// One version of a raw object, in memory.
#[derive(Clone, Debug)]
pub struct RawObject {
    /// The file.
    pub bytes: Bytes,
    /// Its revision, which each replacement increments.
    pub revision: u64,
    /// Its rows.
    pub rows: u64,
}

/// The columns of a raw object except the summary.
pub(super) const KEY_COLUMNS: [&str; 8] = [
    "plan_execution_id",
    "org_id",
    "project_id",
    "start_ts",
    "observed_ts",
    "first_observed_ts",
    "content_hash",
    "is_terminal",
];

impl RawObject {
    /// Reads the metadata of a raw object.
    ///
    /// # Errors
    ///
    /// [`FileError`] if it is not a raw object.
    pub fn new(path: &str, bytes: Bytes) -> Result<Self, FileError> {
        let metadata = FileMetadata::of(path, &bytes)?;
        if metadata.table != FileKind::Raw.name() {
            return Err(FileError::foreign(path, TABLE));
        }
        Ok(Self {
            bytes,
            revision: metadata.revision,
            rows: metadata.rows,
        })
    }
}

/// The builders of a batch of raw rows.
pub(super) struct RawBuilders {
    /// Execution, organization, project, summary.
    texts: [StringBuilder; 4],
    /// Start, observed, first observed, in microseconds.
    times: [TimestampMicrosecondBuilder; 3],
    content_hash: Int64Builder,
    is_terminal: BooleanBuilder,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl RawBuilders {
    pub(super) fn new() -> Self {
        let time = || TimestampMicrosecondBuilder::new().with_timezone("UTC");
        Self {
            texts: std::array::from_fn(|_| StringBuilder::new()),
            times: std::array::from_fn(|_| time()),
            content_hash: Int64Builder::new(),
            is_terminal: BooleanBuilder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(super) fn push(
        &mut self,
        texts: [&str; 4],
        times: [i64; 3],
        content_hash: i64,
        is_terminal: bool,
    ) {
        self.rows += 1;
        self.bytes += texts.iter().map(|text| text.len()).sum::<usize>();
        self.texts
            .iter_mut()
            .zip(texts)
            .for_each(|(column, text)| column.append_value(text));
        self.times
            .iter_mut()
            .zip(times)
            .for_each(|(column, time)| column.append_value(time));
        self.content_hash.append_value(content_hash);
        self.is_terminal.append_value(is_terminal);
    }

    pub(super) fn finish(&mut self) -> RecordBatch {
        (self.rows, self.bytes) = (0, 0);
        let [id, org, project, summary] = self
            .texts
            .each_mut()
            .map(|column| Arc::new(column.finish()) as ArrayRef);
        let [start, observed, first_observed] = self
            .times
            .each_mut()
            .map(|column| Arc::new(column.finish()) as ArrayRef);
        let content_hash = Arc::new(self.content_hash.finish());
        let is_terminal = Arc::new(self.is_terminal.finish());
        let columns = vec![
            id,
            org,
            project,
            start,
            observed,
            first_observed,
            content_hash,
            is_terminal,
            summary,
        ];
        RecordBatch::try_new(raw_schema().clone(), columns)
            .expect("push fills every column, and a test compares the columns with the schema")
    }
}

/// The columns of a batch of raw rows, except the summary.
pub(super) struct RawColumns<'a> {
    pub(super) id: &'a StringArray,
    pub(super) org: &'a StringArray,
    pub(super) project: &'a StringArray,
    pub(super) start: &'a TimestampMicrosecondArray,
    pub(super) observed: &'a TimestampMicrosecondArray,
    pub(super) first_observed: &'a TimestampMicrosecondArray,
    pub(super) content_hash: &'a Int64Array,
    pub(super) is_terminal: &'a BooleanArray,
}

impl<'a> RawColumns<'a> {
    pub(super) fn of(path: &str, batch: &'a RecordBatch) -> Result<Self, FileError> {
        let foreign = |key| FileError::foreign(path, key);
        let column = |name| batch.column_by_name(name).ok_or_else(|| foreign(name));
        let text = |name| {
            column(name)?
                .as_string_opt::<i32>()
                .ok_or_else(|| foreign(name))
        };
        let time = |name| {
            column(name)?
                .as_primitive_opt::<TimestampMicrosecondType>()
                .ok_or_else(|| foreign(name))
        };
        Ok(Self {
            id: text("plan_execution_id")?,
            org: text("org_id")?,
            project: text("project_id")?,
            start: time("start_ts")?,
            observed: time("observed_ts")?,
            first_observed: time("first_observed_ts")?,
            content_hash: column("content_hash")?
                .as_primitive_opt::<Int64Type>()
                .ok_or_else(|| foreign("content_hash"))?,
            is_terminal: column("is_terminal")?
                .as_boolean_opt()
                .ok_or_else(|| foreign("is_terminal"))?,
        })
    }

    pub(super) fn version(&self, at: usize) -> Version {
        Version {
            observed: micros(self.observed.value(at)),
            content_hash: self.content_hash.value(at),
            is_terminal: self.is_terminal.value(at),
        }
    }

    pub(super) fn order(&self, at: usize) -> (&str, &str, i64, &str) {
        (
            self.org.value(at),
            self.project.value(at),
            self.start.value(at),
            self.id.value(at),
        )
    }
}

pub(super) fn summaries<'a>(
    path: &str,
    batch: &'a RecordBatch,
) -> Result<&'a StringViewArray, FileError> {
    batch
        .column_by_name("summary")
        .and_then(|column| column.as_string_view_opt())
        .ok_or_else(|| FileError::foreign(path, "summary"))
}

/// Passes every row of a raw object to `take`, in order, and true if its execution is terminal.
///
/// # Errors
///
/// [`FileError`] if the object is damaged, and the errors of `take`.
pub fn each_row(
    path: &str,
    raw: &RawObject,
    mut take: impl FnMut(&RawRow<'_>, bool) -> Result<(), FileError>,
) -> Result<(), FileError> {
    for batch in read_raw(path, raw.bytes.clone(), &[])? {
        let batch = batch?;
        let rows = RawColumns::of(path, &batch)?;
        let summaries = summaries(path, &batch)?;
        for at in 0..batch.num_rows() {
            let row = RawRow {
                plan_execution_id: rows.id.value(at),
                org_id: rows.org.value(at),
                project_id: rows.project.value(at),
                start_ms: rows.start.value(at) / 1_000,
                observed_ms: rows.observed.value(at) / 1_000,
                first_observed_ms: rows.first_observed.value(at) / 1_000,
                summary: summaries.value(at),
            };
            take(&row, rows.is_terminal.value(at))?;
        }
    }
    Ok(())
}

/// Passes the rows of a raw object to `take` as observations, in batches. Stops once `take` returns
/// false.
///
/// # Errors
///
/// [`FileError`] if the object is damaged.
pub fn each_batch(
    path: &str,
    raw: &RawObject,
    mut take: impl FnMut(Vec<Observation>) -> bool,
) -> Result<(), FileError> {
    for batch in read_raw(path, raw.bytes.clone(), &[])? {
        let batch = batch?;
        let rows = RawColumns::of(path, &batch)?;
        let summaries = summaries(path, &batch)?;
        let observation = |at| Observation {
            id: PlanExecutionId::new(rows.id.value(at)),
            scope: Scope::new(rows.org.value(at), rows.project.value(at)),
            start: micros(rows.start.value(at)),
            version: rows.version(at),
            first_observed: micros(rows.first_observed.value(at)),
            summary: Bytes::copy_from_slice(summaries.value(at).as_bytes()),
        };
        if !take((0..batch.num_rows()).map(observation).collect()) {
            break;
        }
    }
    Ok(())
}

/// Returns the open executions of a raw object, with their `start_ts`.
///
/// # Errors
///
/// [`FileError`] if the object is damaged.
pub fn open_rows(
    path: &str,
    raw: &RawObject,
) -> Result<HashMap<PlanExecutionId, (Timestamp, StoredVersion)>, FileError> {
    let mut open = HashMap::new();
    for batch in read_raw(path, raw.bytes.clone(), &KEY_COLUMNS)? {
        let batch = batch?;
        let rows = RawColumns::of(path, &batch)?;
        for at in (0..batch.num_rows()).filter(|at| !rows.is_terminal.value(*at)) {
            let stored = StoredVersion {
                scope: Scope::new(rows.org.value(at), rows.project.value(at)),
                observed: micros(rows.observed.value(at)),
                is_terminal: false,
                revision: raw.revision,
            };
            let id = PlanExecutionId::new(rows.id.value(at));
            open.insert(id, (micros(rows.start.value(at)), stored));
        }
    }
    Ok(open)
}

/// Returns the `start_ts` of the executions of a raw object, by scope.
///
/// # Errors
///
/// [`FileError`] if the object is damaged.
pub(super) fn starts_by_scope(
    path: &str,
    raw: &RawObject,
) -> Result<BTreeMap<Scope, Vec<Timestamp>>, FileError> {
    let mut starts: BTreeMap<Scope, Vec<Timestamp>> = BTreeMap::new();
    for batch in read_raw(path, raw.bytes.clone(), &KEY_COLUMNS)? {
        let batch = batch?;
        let rows = RawColumns::of(path, &batch)?;
        for at in 0..batch.num_rows() {
            let scope = Scope::new(rows.org.value(at), rows.project.value(at));
            let start = micros(rows.start.value(at));
            starts.entry(scope).or_default().push(start);
        }
    }
    Ok(starts)
}

pub(super) fn micros(at: i64) -> Timestamp {
    from_ms(at.div_euclid(1_000))
}
