//! Checkpoints of a Delta log: the actions of one version as a Parquet file. Pure.
//!
//! The columns mirror the JSON of [`Action`], so both directions go through JSON values.

use std::sync::{Arc, LazyLock};

use arrow_array::builder::{
    ListBuilder, MapBuilder, MapFieldNames, NullBufferBuilder, StringBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, StructArray,
};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value, json};

use super::action::Action;
use crate::lake::parquet::{FileError, read};
use crate::schema::{list_item, map_entries};

/// The columns of a checkpoint and their members, in the order of the protocol.
static FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    let format = fields(&[("provider", "text"), ("options", "map")]);
    let columns = [
        ("txn", "appId:text version:long lastUpdated:long"),
        (
            "add",
            "path:text partitionValues:map size:long modificationTime:long dataChange:flag stats:text",
        ),
        (
            "remove",
            "path:text deletionTimestamp:long dataChange:flag extendedFileMetadata:flag \
             partitionValues:map size:long",
        ),
        (
            "metaData",
            "id:text name:text description:text format:format schemaString:text \
             partitionColumns:list configuration:map createdTime:long",
        ),
        ("protocol", "minReaderVersion:int minWriterVersion:int"),
    ];
    let column = |(name, members): (&str, &str)| {
        let members = members
            .split_whitespace()
            .filter_map(|member| member.split_once(':'));
        let members = members.map(|(name, kind)| match kind {
            "format" => Field::new(name, DataType::Struct(format.clone()), true),
            kind => field(name, kind),
        });
        Field::new(name, DataType::Struct(members.collect()), true)
    };
    columns.into_iter().map(column).collect()
});

fn fields(members: &[(&str, &str)]) -> Fields {
    members
        .iter()
        .map(|(name, kind)| field(name, kind))
        .collect()
}

fn field(name: &str, kind: &str) -> Field {
    let kind = match kind {
        "long" => DataType::Int64,
        "int" => DataType::Int32,
        "flag" => DataType::Boolean,
        "map" => DataType::Map(map_entries(), false),
        "list" => DataType::List(list_item()),
        _ => DataType::Utf8,
    };
    Field::new(name, kind, true)
}

/// Encodes a checkpoint.
///
/// # Errors
///
/// [`FileError::Parquet`].
pub(super) fn encode(path: &str, actions: &[Action]) -> Result<Bytes, FileError> {
    let rows: Vec<Value> = actions.iter().map(|action| json!(action)).collect();
    let rows: Vec<&Value> = rows.iter().collect();
    let columns = FIELDS.iter().map(|field| column(field, &rows)).collect();
    let schema = Arc::new(Schema::new(FIELDS.clone()));
    let batch = RecordBatch::try_new(schema, columns);
    let batch = batch.map_err(FileError::parquet::<ArrowError>(path))?;
    let failed = FileError::parquet::<ParquetError>(path);
    let level = ZstdLevel::try_new(1).map_err(&failed)?;
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level));
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties.build()))
        .map_err(&failed)?;
    writer.write(&batch).map_err(&failed)?;
    writer.close().map_err(&failed)?;
    Ok(file.into())
}

/// Decodes a checkpoint, also of another program. Ignores columns that this version does not know.
///
/// # Errors
///
/// [`FileError::Parquet`] if it is not a checkpoint.
pub(super) fn decode(path: &str, bytes: Bytes) -> Result<Vec<Action>, FileError> {
    let mut actions = Vec::new();
    for batch in read(path, bytes)? {
        let batch = StructArray::from(batch.map_err(FileError::parquet::<ArrowError>(path))?);
        for row in 0..batch.len() {
            let action = serde_json::from_value(value(&batch, row));
            let invalid = |error: serde_json::Error| ParquetError::General(error.to_string());
            actions.push(action.map_err(|error| FileError::parquet(path)(invalid(error)))?);
        }
    }
    Ok(actions)
}

/// Builds a column from the members of JSON objects. A missing or null member is a null.
fn column(field: &FieldRef, rows: &[&Value]) -> ArrayRef {
    let members: Vec<&Value> = rows.iter().map(|row| &row[field.name()]).collect();
    let members = members.as_slice();
    match field.data_type() {
        DataType::Struct(fields) => {
            let columns = fields.iter().map(|field| column(field, members));
            let mut nulls = NullBufferBuilder::new(members.len());
            for member in members {
                nulls.append(!member.is_null());
            }
            Arc::new(StructArray::new(
                fields.clone(),
                columns.collect(),
                nulls.finish(),
            ))
        }
        DataType::Map(_, _) => maps(members),
        DataType::List(_) => lists(members),
        DataType::Boolean => {
            let flags = members.iter().map(|member| member.as_bool());
            Arc::new(flags.collect::<BooleanArray>())
        }
        DataType::Int64 => {
            let longs = members.iter().map(|member| member.as_i64());
            Arc::new(longs.collect::<Int64Array>())
        }
        DataType::Int32 => {
            let numbers = members
                .iter()
                .map(|member| member.as_i64()?.try_into().ok());
            Arc::new(numbers.collect::<Int32Array>())
        }
        _ => {
            let texts = members.iter().map(|member| member.as_str());
            Arc::new(texts.collect::<StringArray>())
        }
    }
}

fn maps(members: &[&Value]) -> ArrayRef {
    let names = MapFieldNames {
        entry: "key_value".to_owned(),
        key: "key".to_owned(),
        value: "value".to_owned(),
    };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for member in members {
        for (key, value) in member.as_object().into_iter().flatten() {
            builder.keys().append_value(key);
            builder.values().append_option(value.as_str());
        }
        builder
            .append(member.is_object())
            .expect("each key has a value");
    }
    Arc::new(builder.finish())
}

fn lists(members: &[&Value]) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new()).with_field(list_item());
    for member in members {
        for text in member.as_array().into_iter().flatten() {
            builder
                .values()
                .append_value(text.as_str().unwrap_or_default());
        }
        builder.append(member.is_array());
    }
    Arc::new(builder.finish())
}

/// Returns a row as JSON, without nulls and without columns of types that actions do not have.
fn value(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Struct(fields) => {
            let columns = column.as_struct().columns().iter();
            let members = columns
                .zip(fields)
                .map(|(column, field)| (field.name(), value(column, row)));
            let members = members.filter(|(_, member)| !member.is_null());
            Value::Object(
                members
                    .map(|(name, member)| (name.clone(), member))
                    .collect(),
            )
        }
        DataType::Map(_, _) => {
            let entries = column.as_map().value(row);
            let text = |column: usize, entry| value(entries.column(column), entry);
            let entries = (0..entries.len())
                .filter_map(|entry| Some((text(0, entry).as_str()?.to_owned(), text(1, entry))));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|item| value(&items, item)).collect()
        }
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        _ => Value::Null,
    }
}
