//! The data files of a Delta table: their names, statistics and schema. Pure.
//!
//! A file is a copy of one version of a table object, under a name that is used once.

use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use jiff::Timestamp;
use jiff::civil::Date;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::statistics::Statistics;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::action::{Add, Format, Metadata, TextMap};
use super::snapshot::Snapshot;
use crate::lake::layout::Period;
use crate::lake::metadata::FileMetadata;
use crate::lake::parquet::FileError;
use crate::schema::Table;

/// Columns with statistics: those that readers skip files by.
const STATS_COLUMNS: [&str; 3] = ["start_ts", "execution_start_ts", "start_date"];

/// A copy of one version of a table object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::lake) struct DataFile {
    /// The path of the table object below the folder of its table.
    pub object: String,
    /// The revision of the table object. That of a month is the sum of the revisions of its days: each
    /// replacement increases it.
    pub revision: u64,
    /// The copy.
    pub add: Add,
}

/// The statistics of a file, in the JSON of the Delta protocol.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Stats {
    num_records: u64,
    min_values: Map<String, Value>,
    max_values: Map<String, Value>,
    null_count: Map<String, Value>,
}

/// Returns the revision of a table object.
pub(super) fn revision_of(metadata: &FileMetadata) -> u64 {
    match &metadata.days {
        None => metadata.revision,
        Some(days) => days.values().map(|day| day.revision).sum(),
    }
}

/// Returns the path of the copy of a table object. `attempt` distinguishes copies of the same version.
pub(super) fn path_of(object: &str, metadata: &FileMetadata, attempt: u32) -> String {
    let stem = object.strip_suffix(".parquet").unwrap_or(object);
    let (revision, write_id) = (revision_of(metadata), &metadata.write_id);
    match attempt {
        0 => format!("{stem}-r{revision}-{write_id}.parquet"),
        attempt => format!("{stem}-r{revision}-{write_id}-{attempt}.parquet"),
    }
}

/// Returns the table object and the revision of the copy at `path`; `None` for a file of another program.
pub(super) fn parse(path: &str) -> Option<(String, u64)> {
    let (folder, name) = path
        .rsplit_once('/')
        .map_or(("", path), |(folder, name)| (folder, name));
    let mut parts = name.strip_suffix(".parquet")?.split('-');
    let object: Vec<&str> = parts.by_ref().take(4).collect();
    let ["part", _, "of", _] = object[..] else {
        return None;
    };
    let revision = parts.next()?.strip_prefix('r')?.parse().ok()?;
    let object = format!("{}.parquet", object.join("-"));
    let object = if folder.is_empty() {
        object
    } else {
        format!("{folder}/{object}")
    };
    Some((object, revision))
}

/// Describes a copy of a table object with these bytes. Its commit sets the time.
///
/// # Errors
///
/// [`FileError`] if it is not a table object.
pub(super) fn describe(
    object: &str,
    bytes: &Bytes,
    snapshot: &Snapshot,
) -> Result<DataFile, FileError> {
    let metadata = FileMetadata::of(object, bytes)?;
    let footer = ParquetMetaDataReader::new()
        .parse_and_finish(bytes)
        .map_err(FileError::parquet::<ParquetError>(object))?;
    let add = Add {
        path: snapshot.unused_path(object, &metadata),
        partition_values: partition_values(object),
        size: i64::try_from(bytes.len()).unwrap_or(i64::MAX),
        modification_time: 0,
        data_change: true,
        stats: serde_json::to_string(&stats(&footer)).ok(),
    };
    Ok(DataFile {
        object: object.to_owned(),
        revision: revision_of(&metadata),
        add,
    })
}

/// Returns the value of the path column of a table object.
fn partition_values(object: &str) -> TextMap {
    let folder = object.split_once('/').map(|(folder, _)| folder);
    let pair = folder.and_then(|folder| folder.split_once('='));
    let pair = pair.map(|(column, value)| (column.to_owned(), Some(value.to_owned())));
    pair.into_iter().collect()
}

fn stats(footer: &ParquetMetaData) -> Stats {
    let rows = footer.file_metadata().num_rows();
    let mut stats = Stats {
        num_records: u64::try_from(rows).unwrap_or_default(),
        min_values: Map::new(),
        max_values: Map::new(),
        null_count: Map::new(),
    };
    for column in STATS_COLUMNS {
        let Some((min, max, nulls)) = range(footer, column) else {
            continue;
        };
        let text = |value, is_max| Value::from(bound(column, value, is_max));
        stats.min_values.insert(column.to_owned(), text(min, false));
        stats.max_values.insert(column.to_owned(), text(max, true));
        stats.null_count.insert(column.to_owned(), json!(nulls));
    }
    stats
}

/// Returns the least and the greatest value of a column, and its nulls. `None` if a row group has no statistics.
fn range(footer: &ParquetMetaData, column: &str) -> Option<(i64, i64, u64)> {
    let mut range: Option<(i64, i64, u64)> = None;
    for group in footer.row_groups() {
        let mut columns = group.columns().iter();
        let chunk = columns.find(|chunk| chunk.column_path().string() == column)?;
        let statistics = chunk.statistics()?;
        let (min, max) = match statistics {
            Statistics::Int64(values) => (*values.min_opt()?, *values.max_opt()?),
            Statistics::Int32(values) => {
                (i64::from(*values.min_opt()?), i64::from(*values.max_opt()?))
            }
            _ => return None,
        };
        let nulls = statistics.null_count_opt()?;
        range = Some(match range {
            None => (min, max, nulls),
            Some((least, greatest, sum)) => (least.min(min), greatest.max(max), sum + nulls),
        });
    }
    range
}

/// Returns a bound as text: a date, or a time in milliseconds, the maximum rounded up, as a truncated maximum
/// would hide the rows of the last millisecond.
pub(super) fn bound(column: &str, value: i64, is_max: bool) -> String {
    if column == "start_date" {
        let days = i32::try_from(value).unwrap_or_default();
        let epoch = Date::constant(1970, 1, 1);
        return epoch
            .saturating_add(jiff::Span::new().days(days))
            .to_string();
    }
    let ms = if is_max {
        value.div_euclid(1_000) + i64::from(value.rem_euclid(1_000) > 0)
    } else {
        value.div_euclid(1_000)
    };
    let at = crate::window::from_ms(ms);
    format!("{at:.3}")
}

/// Returns the metadata of the Delta table of a table.
pub(super) fn table_metadata(table: Table, period: Period, id: String, now: Timestamp) -> Metadata {
    let definition = table.definition();
    let column = definition.partitioned.then(|| period.column());
    let schema = match period {
        Period::Month if definition.partitioned => table.month_schema(),
        Period::Day | Period::Month => table.arrow_schema(),
    };
    Metadata {
        id,
        name: Some(table.name().to_owned()),
        description: Some(definition.description.clone()),
        format: Format {
            provider: "parquet".to_owned(),
            options: TextMap::new(),
        },
        schema_string: schema_json(schema, column).to_string(),
        partition_columns: column.map(str::to_owned).into_iter().collect(),
        configuration: TextMap::new(),
        created_time: Some(now.as_millisecond()),
    }
}

fn schema_json(schema: &Schema, partition_column: Option<&str>) -> Value {
    let field = |field: &Field| {
        json!({
            "name": field.name(),
            "type": type_json(field.data_type()),
            "nullable": field.is_nullable(),
            "metadata": {},
        })
    };
    let mut fields: Vec<Value> = schema.fields().iter().map(|one| field(one)).collect();
    let date = partition_column.map(|name| field(&Field::new(name, DataType::Date32, true)));
    fields.extend(date);
    json!({"type": "struct", "fields": fields})
}

fn type_json(kind: &DataType) -> Value {
    match kind {
        DataType::Boolean => json!("boolean"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float64 => json!("double"),
        DataType::Date32 => json!("date"),
        DataType::Timestamp(_, _) => json!("timestamp"),
        DataType::List(item) => json!({
            "type": "array",
            "elementType": type_json(item.data_type()),
            "containsNull": item.is_nullable(),
        }),
        DataType::Map(_, _) => json!({
            "type": "map",
            "keyType": "string",
            "valueType": "string",
            "valueContainsNull": true,
        }),
        _ => json!("string"),
    }
}
