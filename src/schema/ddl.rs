//! The tables and views as statements for DuckDB, Spark and Trino: absolute paths, comments. Pure.

use super::views::VIEWS;
use super::{Column, ColumnType, Definition, Table, VERSION};

/// The engines whose statements are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Views over `read_parquet`.
    DuckDb,
    /// Tables over a location.
    Spark,
    /// External tables of the Hive connector.
    Trino,
}

/// The statements that open every table and view of the lake at `lake` (a path or an object-store
/// URL) by its name.
pub fn ddl(engine: Engine, lake: &str) -> String {
    let table = |table: &Table| {
        let definition = table.definition();
        let folder = format!("{}/{}/v{VERSION}", lake.trim_end_matches('/'), table.name());
        match engine {
            Engine::DuckDb => duckdb(definition, &folder),
            Engine::Spark => spark(definition, &folder),
            Engine::Trino => trino(definition, &folder),
        }
    };
    let first = match engine {
        Engine::DuckDb => "",
        Engine::Spark => REFRESH,
        Engine::Trino => PARTITIONS,
    };
    let tables = Table::ALL.iter().map(table);
    let views = VIEWS.iter().map(|view| view.statement(engine));
    let statements: Vec<String> = tables.chain(views).collect();
    format!("{first}{}", statements.join("\n"))
}

const REFRESH: &str = "\
-- A session remembers the files of a table, and how long they are. After each run of harness-lake, before the next query, say
-- REFRESH TABLE for every table (read a DataFrame anew), and MSCK REPAIR TABLE for those with start_date, which finds new dates.
";

const PARTITIONS: &str = "\
-- Times are UTC, in ms: what the Hive connector takes as it comes (hive.timestamp-precision).
-- New dates are found by CALL system.sync_partition_metadata(CURRENT_SCHEMA, 'executions', 'ADD'), the same for stages, deployments
-- and commits.
";

fn duckdb(definition: &Definition, folder: &str) -> String {
    let name = &definition.table;
    let files = if definition.partitioned {
        "**/*.parquet"
    } else {
        "*.parquet"
    };
    let hive = definition.partitioned;
    let mut text = format!(
        "CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet({}, hive_partitioning = {hive});\n\
         COMMENT ON VIEW {name} IS {};\n",
        quoted(&format!("{}/{files}", literal_in_glob(folder))),
        quoted(&definition.description),
    );
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

/// A path that a glob takes as it stands.
fn literal_in_glob(path: &str) -> String {
    let escaped = path.chars().map(|c| match c {
        '[' | '*' | '?' => format!("[{c}]"),
        c => c.to_string(),
    });
    escaped.collect()
}

fn spark(definition: &Definition, folder: &str) -> String {
    let mut columns = columns(definition, spark_type, |column| {
        format!(" COMMENT {}", spark_quoted(&comment(column)))
    });
    let mut clauses = String::from("USING parquet");
    if definition.partitioned {
        columns.push("  start_date DATE COMMENT 'UTC date of start_ts'".to_owned());
        clauses.push_str("\nPARTITIONED BY (start_date)");
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

fn trino(definition: &Definition, folder: &str) -> String {
    let mut columns = columns(definition, trino_type, |column| {
        format!(" COMMENT {}", quoted(&comment(column)))
    });
    let mut with = format!("format = 'PARQUET', external_location = {}", quoted(folder));
    if definition.partitioned {
        columns.push("  start_date DATE COMMENT 'UTC date of start_ts'".to_owned());
        with.push_str(", partitioned_by = ARRAY['start_date']");
    }
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n{}\n)\nCOMMENT {}\nWITH ({with});\n",
        definition.table,
        columns.join(",\n"),
        quoted(&definition.description),
    )
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

fn comment(column: &Column) -> String {
    match &column.unit {
        Some(unit) => format!("{} ({unit}). Source: {}", column.meaning, column.source),
        None => format!("{}. Source: {}", column.meaning, column.source),
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
        // The Hive connector knows no time zones, and no other precision unless told.
        ColumnType::Timestamp => "TIMESTAMP(3)",
        ColumnType::Utf8List => "ARRAY(VARCHAR)",
        ColumnType::Utf8Map => "MAP(VARCHAR, VARCHAR)",
    }
}

/// A text as standard SQL spells it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A text as Spark spells it, which knows backslashes.
fn spark_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_the_characters_of_globs_is_no_glob() {
        let text = ddl(Engine::DuckDb, "/lakes/a[1]*?{b}");
        assert!(
            text.contains("'/lakes/a[[]1][*][?]{b}/executions/v1/**/*.parquet'"),
            "{text}"
        );
    }

    #[test]
    fn every_table_and_view_is_opened_by_its_name() {
        for engine in [Engine::DuckDb, Engine::Spark, Engine::Trino] {
            let text = ddl(engine, "s3://bucket/it's/");
            for table in Table::ALL {
                assert!(
                    text.contains(&format!("{}/v1", table.name())),
                    "{engine:?} {text}"
                );
            }
            for view in VIEWS {
                let create = format!("CREATE OR REPLACE VIEW {} AS", view.name);
                assert!(text.contains(&create), "{engine:?} {}", view.name);
            }
            let told = text.contains("REFRESH TABLE");
            assert_eq!(told, engine == Engine::Spark, "{engine:?}");
            assert!(
                !text.contains("it's"),
                "{engine:?}: a quote within a text is escaped"
            );
        }
    }
}
