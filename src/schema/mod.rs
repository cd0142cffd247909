//! The tables of the lake: `schemas/v1/*.json` read into Arrow schemas.
//!
//! The JSON files are the only definition of the columns. Building a batch checks the code against
//! them, and so does a test next to each table's builders.

pub mod ddl;
pub mod dictionary;
#[cfg(test)]
mod frozen;
mod place;
pub mod views;

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};

/// The version of every table that this program writes.
pub const VERSION: u32 = 1;

/// A table of the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Table {
    /// One row per execution.
    Executions,
    /// One row per stage node of an execution.
    Stages,
    /// One row per service and environment of a deployment stage.
    Deployments,
    /// One row per commit of an execution.
    Commits,
    /// One row per organization.
    Orgs,
    /// One row per project.
    Projects,
    /// One row per scope: its coverage and its latest error.
    Scopes,
}

impl Table {
    /// Every table, `executions` first.
    pub const ALL: [Self; 7] = [
        Self::Executions,
        Self::Stages,
        Self::Deployments,
        Self::Commits,
        Self::Orgs,
        Self::Projects,
        Self::Scopes,
    ];

    /// The tables stored under `start_date=...` or `start_month=...`, in the order in which the
    /// objects of a period are replaced. `executions` comes last, so that its child rows are visible before it.
    pub const PARTITIONED: [Self; 4] = [
        Self::Stages,
        Self::Deployments,
        Self::Commits,
        Self::Executions,
    ];

    /// The tables derived from the checkpoint.
    pub const DIMENSIONS: [Self; 3] = [Self::Orgs, Self::Projects, Self::Scopes];

    /// Returns the name of the table: its folder in the lake and its file in `schemas/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Executions => "executions",
            Self::Stages => "stages",
            Self::Deployments => "deployments",
            Self::Commits => "commits",
            Self::Orgs => "orgs",
            Self::Projects => "projects",
            Self::Scopes => "scopes",
        }
    }

    /// Returns the definition of the table in the current version.
    pub fn definition(self) -> &'static Definition {
        &TABLES[self as usize].0
    }

    /// Returns the Arrow schema of the table's files in the current version.
    pub fn arrow_schema(self) -> &'static SchemaRef {
        &TABLES[self as usize].1
    }

    /// Returns the Arrow schema of the table's files in a lake by month: `start_date` is the last
    /// column.
    pub fn month_schema(self) -> &'static SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 7]> = LazyLock::new(|| {
            let start_date = Arc::new(Field::new("start_date", DataType::Date32, false));
            Table::ALL.map(|table| {
                let fields = table.arrow_schema().fields().iter().cloned();
                let fields: Vec<_> = fields.chain([start_date.clone()]).collect();
                Arc::new(Schema::new(fields))
            })
        });
        &SCHEMAS[self as usize]
    }
}

/// Returns the definition of the raw partitions, `_raw`, in the current version.
pub fn raw_definition() -> &'static Definition {
    &RAW.0
}

/// Returns the Arrow schema of the raw partitions' files in the current version.
pub fn raw_schema() -> &'static SchemaRef {
    &RAW.1
}

/// The definition of a table: one file of `schemas/`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The name of the table.
    pub table: String,
    /// The version of the schema.
    pub version: u32,
    /// The meaning of a row.
    pub description: String,
    /// The source of the rows.
    pub source: String,
    /// True if objects are stored by period, under `start_date=...` or `start_month=...`.
    pub partitioned: bool,
    /// The columns that are unique together.
    pub key: Vec<String>,
    /// The columns that order the rows of an object.
    pub sort: Vec<String>,
    /// The columns, in the order of the files.
    pub columns: Vec<Column>,
}

/// One column of a table.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// The column's type.
    #[serde(rename = "type")]
    pub kind: ColumnType,
    /// True if the column can be null.
    pub nullable: bool,
    /// The unit of a number or a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// The upstream field, or a description of how the value is derived.
    pub source: String,
    /// The meaning of the value.
    pub meaning: String,
}

/// The column types. `DuckDB` and Spark read all of them without a conversion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnType {
    /// Text.
    #[serde(rename = "utf8")]
    Utf8,
    /// True or false.
    #[serde(rename = "boolean")]
    Boolean,
    /// 32-bit signed.
    #[serde(rename = "int32")]
    Int32,
    /// 64-bit signed.
    #[serde(rename = "int64")]
    Int64,
    /// 64-bit floating point.
    #[serde(rename = "double")]
    Double,
    /// Microseconds since the epoch, UTC.
    #[serde(rename = "timestamp")]
    Timestamp,
    /// Days since the epoch, UTC.
    #[serde(rename = "date")]
    Date,
    /// A list of texts without nulls.
    #[serde(rename = "list<utf8>")]
    Utf8List,
    /// A map from text to text; a value may be null.
    #[serde(rename = "map<utf8,utf8>")]
    Utf8Map,
}

impl ColumnType {
    /// Returns the name used in the schema files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "utf8",
            Self::Boolean => "boolean",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Double => "double",
            Self::Timestamp => "timestamp",
            Self::Date => "date",
            Self::Utf8List => "list<utf8>",
            Self::Utf8Map => "map<utf8,utf8>",
        }
    }

    /// Returns the Arrow type, with the field names that the Parquet specification requires.
    pub fn data_type(self) -> DataType {
        match self {
            Self::Utf8 => DataType::Utf8,
            Self::Boolean => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Double => DataType::Float64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::Utf8List => DataType::List(list_item()),
            Self::Utf8Map => DataType::Map(map_entries(), false),
        }
    }
}

/// Returns the child field of a `list<utf8>` column.
pub fn list_item() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Utf8, false))
}

/// Returns the child field of a `map<utf8,utf8>` column.
pub fn map_entries() -> Arc<Field> {
    let entry = Fields::from(vec![map_key(), map_value()]);
    Arc::new(Field::new("key_value", DataType::Struct(entry), false))
}

/// Returns the key field of a `map<utf8,utf8>` column.
pub fn map_key() -> Arc<Field> {
    Arc::new(Field::new("key", DataType::Utf8, false))
}

/// Returns the value field of a `map<utf8,utf8>` column.
pub fn map_value() -> Arc<Field> {
    Arc::new(Field::new("value", DataType::Utf8, true))
}

type Loaded = (Definition, SchemaRef);

/// In the order of the variants of [`Table`].
static TABLES: LazyLock<[Loaded; 7]> = LazyLock::new(|| {
    [
        include_str!("../../schemas/v1/executions.json"),
        include_str!("../../schemas/v1/stages.json"),
        include_str!("../../schemas/v1/deployments.json"),
        include_str!("../../schemas/v1/commits.json"),
        include_str!("../../schemas/v1/orgs.json"),
        include_str!("../../schemas/v1/projects.json"),
        include_str!("../../schemas/v1/scopes.json"),
    ]
    .map(load)
});

static RAW: LazyLock<Loaded> = LazyLock::new(|| load(include_str!("../../schemas/v1/_raw.json")));

fn load(json: &str) -> Loaded {
    let definition: Definition = serde_json::from_str(json)
        .expect("the schemas are compiled in, and a test parses them all");
    let field = |c: &Column| Field::new(&c.name, c.kind.data_type(), c.nullable);
    let fields: Vec<_> = definition.columns.iter().map(field).collect();
    (definition, Arc::new(Schema::new(fields)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn definitions() -> impl Iterator<Item = &'static Definition> {
        let tables = Table::ALL.into_iter().map(Table::definition);
        tables.chain([raw_definition()])
    }

    #[test]
    fn each_table_loads_its_own_file() {
        for (at, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, at);
            assert_eq!(table.definition().table, table.name());
            let partitioned = Table::PARTITIONED.contains(&table);
            assert_eq!(table.definition().partitioned, partitioned);
            assert_ne!(Table::DIMENSIONS.contains(&table), partitioned);
        }
        assert_eq!(raw_definition().table, "_raw");
        assert!(definitions().all(|definition| definition.version == VERSION));
    }

    #[test]
    fn columns_are_unique_and_keys_exist() {
        for definition in definitions() {
            let names: HashSet<_> = definition.columns.iter().map(|c| &*c.name).collect();
            assert_eq!(
                names.len(),
                definition.columns.len(),
                "{}",
                definition.table
            );
            for key in definition.key.iter().chain(&definition.sort) {
                assert!(names.contains(&**key), "{}.{key}", definition.table);
            }
            assert!(
                !names.contains("start_date"),
                "start_date exists only in the path"
            );
        }
    }

    #[test]
    fn lists_and_maps_are_never_null() {
        for definition in definitions() {
            for column in &definition.columns {
                if matches!(column.kind, ColumnType::Utf8List | ColumnType::Utf8Map) {
                    assert!(!column.nullable, "{}.{}", definition.table, column.name);
                }
            }
        }
    }

    #[test]
    fn every_column_is_documented() {
        for definition in definitions() {
            for column in &definition.columns {
                let name = format!("{}.{}", definition.table, column.name);
                assert!(!column.meaning.is_empty(), "{name} has no meaning");
                let has_source = !["", "derived"].contains(&column.source.as_str());
                assert!(has_source, "{name} has no source");
                let is_number = matches!(
                    column.kind,
                    ColumnType::Int32
                        | ColumnType::Int64
                        | ColumnType::Double
                        | ColumnType::Timestamp
                );
                assert_eq!(column.unit.is_some(), is_number, "the unit of {name}");
            }
        }
    }

    #[test]
    fn raw_columns_are_never_null() {
        assert!(
            raw_schema()
                .fields()
                .iter()
                .all(|field| !field.is_nullable())
        );
    }
}
