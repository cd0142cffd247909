//! SQL statements that open the tables and views in DuckDB, Spark and Trino. Pure.

use super::place;
use super::views::VIEWS;
use super::{Column, ColumnType, Definition, Table, VERSION};
use crate::lake::layout::{DELTA, Period};

/// A supported SQL engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Views over `read_parquet`.
    DuckDb,
    /// Tables over a location.
    Spark,
    /// External tables of the Hive connector.
    Trino,
}

impl Engine {
    /// Quotes a text.
    pub(super) fn quoted(self, text: &str) -> String {
        match self {
            Self::Spark => spark_quoted(text),
            Self::DuckDb | Self::Trino => quoted(text),
        }
    }
}

/// Returns the statements that create every table and view of a lake.
///
/// `lake` is an absolute path or an object-store URL; Spark and Trino need the account of Azure in it.
pub fn ddl(engine: Engine, lake: &str, period: Period) -> String {
    statements(engine, lake, period, Rows::Any)
}

/// Returns true if the statements depend on the period of the lake.
pub fn depends_on_period(engine: Engine, lake: &str) -> bool {
    engine != Engine::DuckDb || has_hive_keys(lake)
}

/// Returns the statements of [`ddl`] in `DuckDB` for a lake that has no execution yet. `DuckDB` rejects a view over no
/// files, so these views are empty by definition.
pub fn ddl_without_rows(lake: &str, period: Period) -> String {
    statements(Engine::DuckDb, lake, period, Rows::None)
}

/// Returns the statements that create every table and view over the Delta tables of a lake.
pub fn ddl_of_delta(engine: Engine, lake: &str) -> String {
    let place = place::location(engine, lake.trim_end_matches('/'));
    let table = |table: &Table| {
        let definition = table.definition();
        let name = &definition.table;
        let folder = engine.quoted(&format!("{place}/{DELTA}/{name}/v{VERSION}"));
        match engine {
            Engine::DuckDb => format!(
                "CREATE OR REPLACE VIEW {name} AS SELECT * FROM delta_scan({folder});\n{}",
                duckdb_comments(definition)
            ),
            Engine::Spark => {
                format!("CREATE TABLE IF NOT EXISTS {name} USING DELTA LOCATION {folder};\n")
            }
            Engine::Trino => format!(
                "CALL system.register_table(schema_name => CURRENT_SCHEMA, table_name => '{name}', table_location => {folder});\n"
            ),
        }
    };
    let first = match engine {
        Engine::DuckDb => "-- Install and load the extension `delta` first.\n",
        Engine::Spark => "",
        Engine::Trino => {
            "-- In a catalog of the Delta Lake connector with delta.register-table-procedure.enabled.\n"
        }
    };
    let tables = Table::ALL.iter().map(table);
    let views = VIEWS.iter().map(|view| view.statements(engine));
    let statements: Vec<String> = tables.chain(views).collect();
    let setup = place::setup(engine, lake);
    format!("{setup}{first}{}", statements.join("\n"))
}

/// The rows of the partitioned tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rows {
    /// The tables have no file.
    None,
    /// The tables have files.
    Any,
}

fn statements(engine: Engine, lake: &str, period: Period, rows: Rows) -> String {
    let place = place::location(engine, lake.trim_end_matches('/'));
    let table = |table: &Table| {
        let definition = table.definition();
        let folder = format!("{place}/{}/v{VERSION}", table.name());
        match engine {
            Engine::DuckDb => duckdb(definition, &folder, period, rows),
            Engine::Spark => spark(definition, &folder, period),
            Engine::Trino => trino(definition, &folder, period),
        }
    };
    let first = match engine {
        Engine::DuckDb => "",
        Engine::Spark => REFRESH,
        Engine::Trino => PARTITIONS,
    };
    let tables = Table::ALL.iter().map(table);
    let views = VIEWS.iter().map(|view| view.statements(engine));
    let statements: Vec<String> = tables.chain(views).collect();
    let setup = place::setup(engine, lake);
    format!("{setup}{first}{}", statements.join("\n"))
}

const REFRESH: &str = "\
-- Spark caches the file list of a table. After each run of harness-lake, before the next query, run REFRESH TABLE for every table
-- (load DataFrames again), and MSCK REPAIR TABLE for the tables with start_date, which adds new folders.
";

const PARTITIONS: &str = "\
-- Times are UTC with millisecond precision, the default of the Hive connector (hive.timestamp-precision).
-- To add new folders, run CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'executions', 'ADD'), and the same for stages, deployments
-- and commits.
";

/// Reads `start_date` from the last folder of a path. `DuckDB` skips files by it, as it does by Hive keys.
///
/// A lake below a folder such as `org_id=acme` needs it: with `hive_partitioning`, `DuckDB` would return
/// `acme` for every row of the column `org_id`.
const DATE_OF_PATH: &str =
    r"CAST(regexp_extract(filename, '[/\\]start_date=([^/\\]*)[/\\][^/\\]*$', 1) AS DATE)";

/// Returns true if `DuckDB` would read folders of a path as columns.
fn has_hive_keys(path: &str) -> bool {
    path.contains('=')
}

fn duckdb(definition: &Definition, folder: &str, period: Period, rows: Rows) -> String {
    let name = &definition.table;
    let files = if definition.partitioned {
        "**/*.parquet"
    } else {
        "*.parquet"
    };
    let glob = quoted(&format!("{}/{files}", literal_in_glob(folder)));
    let select = match (rows, definition.partitioned) {
        (Rows::None, true) => duckdb_empty(definition, period),
        (_, true) if has_hive_keys(folder) && period == Period::Day => format!(
            "SELECT * EXCLUDE (filename), {DATE_OF_PATH} AS start_date \
             FROM read_parquet({glob}, hive_partitioning = false, filename = true)"
        ),
        (_, partitioned) => {
            let hive = partitioned && !has_hive_keys(folder);
            format!("SELECT * FROM read_parquet({glob}, hive_partitioning = {hive})")
        }
    };
    format!(
        "CREATE OR REPLACE VIEW {name} AS {select};\n{}",
        duckdb_comments(definition)
    )
}

fn duckdb_comments(definition: &Definition) -> String {
    let name = &definition.table;
    let description = quoted(&definition.description);
    let mut text = format!("COMMENT ON VIEW {name} IS {description};\n");
    for column in &definition.columns {
        let comment = quoted(&comment(column));
        text.push_str(
            &[
                "COMMENT ON COLUMN ",
                name,
                ".",
                &column.name,
                " IS ",
                &comment,
                ";\n",
            ]
            .concat(),
        );
    }
    text
}

/// Returns a query with the columns of a partitioned table and no rows.
fn duckdb_empty(definition: &Definition, period: Period) -> String {
    let columns = definition.columns.iter();
    let columns = columns.map(|column| (column.name.as_str(), duckdb_type(column.kind)));
    let columns: Vec<String> = columns
        .chain([("start_date", "DATE")])
        .chain((period == Period::Month).then_some((period.column(), "DATE")))
        .map(|(name, kind)| format!("CAST(NULL AS {kind}) AS {name}"))
        .collect();
    format!("SELECT {} WHERE false", columns.join(", "))
}

/// Escapes the glob characters of a path.
fn literal_in_glob(path: &str) -> String {
    let escaped = path.chars().map(|c| match c {
        '[' | '*' | '?' => format!("[{c}]"),
        c => c.to_string(),
    });
    escaped.collect()
}

fn spark(definition: &Definition, folder: &str, period: Period) -> String {
    let mut columns = columns(definition, spark_type, |column| {
        format!(" COMMENT {}", spark_quoted(&comment(column)))
    });
    let mut clauses = String::from("USING parquet");
    if definition.partitioned {
        columns.extend(date_columns(period));
        clauses.push_str(&["\nPARTITIONED BY (", period.column(), ")"].concat());
    }
    let name = &definition.table;
    let repair = if definition.partitioned {
        format!("MSCK REPAIR TABLE {name};\n")
    } else {
        String::new()
    };
    format!(
        "CREATE TABLE IF NOT EXISTS {name} (\n{}\n)\n{clauses}\nCOMMENT {}\nLOCATION {};\n{repair}",
        columns.join(",\n"),
        spark_quoted(&definition.description),
        spark_quoted(folder),
    )
}

fn trino(definition: &Definition, folder: &str, period: Period) -> String {
    let mut columns = columns(definition, trino_type, |column| {
        format!(" COMMENT {}", quoted(&comment(column)))
    });
    let mut with = format!("format = 'PARQUET', external_location = {}", quoted(folder));
    if definition.partitioned {
        columns.extend(date_columns(period));
        with.push_str(&[", partitioned_by = ARRAY['", period.column(), "']"].concat());
    }
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n{}\n)\nCOMMENT {}\nWITH ({with});\n",
        definition.table,
        columns.join(",\n"),
        quoted(&definition.description),
    )
}

/// Returns the definitions of `start_date` and of the column of the path, which is the last one.
fn date_columns(period: Period) -> Vec<String> {
    let date = "  start_date DATE COMMENT 'UTC date of start_ts'".to_owned();
    match period {
        Period::Day => vec![date],
        Period::Month => vec![
            date,
            "  start_month DATE COMMENT 'First date of the UTC month of start_ts'".to_owned(),
        ],
    }
}

fn columns(
    definition: &Definition,
    kind: impl Fn(ColumnType) -> &'static str,
    comment: impl Fn(&Column) -> String,
) -> Vec<String> {
    let line =
        |column: &Column| format!("  {} {}{}", column.name, kind(column.kind), comment(column));
    definition.columns.iter().map(line).collect()
}

/// Returns the comment of a column. It has no semicolon, so that the statements can be split at semicolons.
fn comment(column: &Column) -> String {
    let text = match &column.unit {
        Some(unit) => format!("{} ({unit}). Source: {}", column.meaning, column.source),
        None => format!("{}. Source: {}", column.meaning, column.source),
    };
    text.replace(';', ",")
}

fn duckdb_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Utf8 => "VARCHAR",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Int32 => "INTEGER",
        ColumnType::Int64 => "BIGINT",
        ColumnType::Double => "DOUBLE",
        ColumnType::Timestamp => "TIMESTAMP WITH TIME ZONE",
        ColumnType::Date => "DATE",
        ColumnType::Utf8List => "VARCHAR[]",
        ColumnType::Utf8Map => "MAP(VARCHAR, VARCHAR)",
    }
}

fn spark_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Utf8 => "STRING",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Int32 => "INT",
        ColumnType::Int64 => "BIGINT",
        ColumnType::Double => "DOUBLE",
        ColumnType::Timestamp => "TIMESTAMP",
        ColumnType::Date => "DATE",
        ColumnType::Utf8List => "ARRAY<STRING>",
        ColumnType::Utf8Map => "MAP<STRING, STRING>",
    }
}

fn trino_type(kind: ColumnType) -> &'static str {
    match kind {
        ColumnType::Utf8 => "VARCHAR",
        ColumnType::Boolean => "BOOLEAN",
        ColumnType::Int32 => "INTEGER",
        ColumnType::Int64 => "BIGINT",
        ColumnType::Double => "DOUBLE",
        // The Hive connector supports no time zones, and only milliseconds by default.
        ColumnType::Timestamp => "TIMESTAMP(3)",
        ColumnType::Date => "DATE",
        ColumnType::Utf8List => "ARRAY(VARCHAR)",
        ColumnType::Utf8Map => "MAP(VARCHAR, VARCHAR)",
    }
}

/// Quotes a text in standard SQL.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Quotes a text for Spark, which treats backslashes as escapes.
fn spark_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glob_characters_in_paths_are_escaped() {
        let text = ddl(Engine::DuckDb, "/lakes/a[1]*?{b}", Period::Day);
        assert!(
            text.contains("'/lakes/a[[]1][*][?]{b}/executions/v1/**/*.parquet'"),
            "{text}"
        );
    }

    #[test]
    fn duckdb_ignores_hive_keys_above_the_lake() {
        for (period, filenames) in [(Period::Day, 4), (Period::Month, 0)] {
            let text = ddl(Engine::DuckDb, "/data/org_id=acme/lake", period);
            assert!(!text.contains("hive_partitioning = true"), "{text}");
            let found = text.matches("filename = true").count();
            assert_eq!(found, filenames, "{period}: {text}");
            let text = ddl(Engine::DuckDb, "/data/lake", period);
            assert_eq!(text.matches("hive_partitioning = true").count(), 4);
            assert!(!text.contains("filename"), "{text}");
        }
    }

    #[test]
    fn statements_can_be_split_at_semicolons() {
        for engine in [Engine::DuckDb, Engine::Spark, Engine::Trino] {
            let lake = "s3://bucket/lake";
            for text in [
                ddl(engine, lake, Period::Day),
                ddl(engine, lake, Period::Month),
                ddl_of_delta(engine, lake),
            ] {
                for statement in text.split(';') {
                    let lines = statement.lines().filter(|line| !line.starts_with("--"));
                    let code: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
                    let code = code.join("\n");
                    let is_statement = ["CREATE ", "COMMENT ", "MSCK ", "CALL "]
                        .iter()
                        .any(|verb| code.starts_with(verb));
                    assert!(is_statement || code.is_empty(), "{engine:?}: {code}");
                }
            }
        }
    }

    #[test]
    fn ddl_of_delta_reads_the_folder_of_each_table() {
        for (engine, start) in [
            (Engine::DuckDb, "FROM delta_scan("),
            (Engine::Spark, "USING DELTA LOCATION "),
            (Engine::Trino, "table_location => "),
        ] {
            let text = ddl_of_delta(engine, "s3://bucket/lake/");
            for table in Table::ALL {
                let folder = format!("{start}'s3://bucket/lake/delta/{}/v1'", table.name());
                assert!(text.contains(&folder), "{engine:?}: {folder}");
            }
            assert!(text.contains("VIEW dora_metrics"), "{engine:?}");
        }
    }

    #[test]
    fn every_engine_reads_every_store_in_its_own_spelling() {
        let azure = "abfss://container@account.dfs.core.windows.net/a";
        for (engine, lake, place) in [
            (Engine::DuckDb, azure, "az://container/a"),
            (Engine::DuckDb, "az://container/a/", "az://container/a"),
            (Engine::DuckDb, "gs://bucket/a", "gs://bucket/a"),
            (Engine::Spark, azure, azure),
            (Engine::Spark, "gs://bucket/a", "gs://bucket/a"),
            (Engine::Trino, azure, azure),
            (Engine::Trino, "gs://bucket/a", "gs://bucket/a"),
        ] {
            let text = ddl(engine, lake, Period::Day);
            assert!(text.contains(&format!("'{place}/executions/v1")), "{text}");
            assert!(text.starts_with(&place::setup(engine, lake)), "{text}");
            let text = ddl_of_delta(engine, lake);
            assert!(
                text.contains(&format!("'{place}/delta/executions/v1'")),
                "{text}"
            );
        }
    }

    #[test]
    fn ddl_creates_every_table_and_view() {
        for engine in [Engine::DuckDb, Engine::Spark, Engine::Trino] {
            let text = ddl(engine, "s3://bucket/it's/", Period::Day);
            for table in Table::ALL {
                assert!(
                    text.contains(&format!("{}/v1", table.name())),
                    "{engine:?} {text}"
                );
            }
            for view in VIEWS {
                let end = if engine == Engine::Spark { "" } else { " AS" };
                let create = format!("CREATE OR REPLACE VIEW {}{end}\n", view.name);
                assert!(text.contains(&create), "{engine:?} {}", view.name);
            }
            let month = ddl(engine, "s3://bucket/lake", Period::Month);
            let partitioned = month.matches("start_month DATE").count();
            assert_eq!(partitioned > 0, engine != Engine::DuckDb, "{engine:?}");
            let has_refresh = text.contains("REFRESH TABLE");
            assert_eq!(has_refresh, engine == Engine::Spark, "{engine:?}");
            assert!(!text.contains("it's"), "{engine:?}: quotes are escaped");
        }
    }
}
