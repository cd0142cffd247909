//! The commands that describe the tables and the program itself.

use std::sync::Arc;

use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use harness_lake::lake::Lake as LakeRoot;
use harness_lake::lake::replay::Dates;
use harness_lake::lake::rows::{RawObject, each_row};
use harness_lake::lake::store::Store;
use harness_lake::schema::Table;
use harness_lake::tables::{Account, ExecutionTables};
use jiff::SignedDuration;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, bare_command, described, rows};

fn says(arguments: &[&str]) -> Run {
    Run::of(bare_command(arguments).output().unwrap()).expect(0)
}

#[test]
fn data_dictionary_matches_the_schemas() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema.md");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == says(&["schema", "docs"]).stdout,
        "docs/schema.md is out of date: run `cargo run -- schema docs > docs/schema.md`"
    );
}

#[test]
fn duckdb_statements_open_every_table() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let ddl = says(&["schema", "ddl", "duckdb", "--lake", lake.path()]).stdout;
    let truth = sim.truth();
    for (table, rows_of_truth) in [
        ("executions", truth.executions.len()),
        ("stages", truth.stages.len()),
        ("deployments", truth.deployments.len()),
        ("commits", truth.commits.len()),
    ] {
        let count = format!("SELECT count(*) FROM {table}");
        let answers = rows(&[&ddl, &count]);
        assert_eq!(
            answers.last().unwrap()[0][0],
            json!(rows_of_truth),
            "{table}"
        );
    }
    for table in ["orgs", "projects", "scopes"] {
        let count = format!("SELECT count(*) FROM {table}");
        assert_ne!(
            rows(&[&ddl, &count]).last().unwrap()[0][0],
            json!(0),
            "{table}"
        );
    }
}

#[test]
fn every_table_is_listed_and_shown() {
    let list = says(&["schema", "list", "--output", "json"]).json();
    for definition in list.as_array().unwrap() {
        let table = definition["table"].as_str().unwrap();
        let text = says(&["schema", "show", table]).stdout;
        for column in definition["columns"].as_array().unwrap() {
            let row = format!("| {} |", column["name"].as_str().unwrap());
            assert!(text.contains(&row), "{table} lacks {row}");
        }
    }
    let unknown = bare_command(&["schema", "show", "steps"]).output().unwrap();
    Run::of(unknown).expect(2);
}

#[test]
fn completions_and_the_manual_name_the_commands() {
    for arguments in [
        &["completions", "bash"][..],
        &["completions", "zsh"],
        &["man"],
    ] {
        let text = says(arguments).stdout;
        for command in ["backfill", "verify"] {
            assert!(text.contains(command), "{arguments:?} lacks {command}");
        }
    }
}

/// A version of `executions` that a later program might have: all columns of version 1, and one more.
const TOY: &str = "executions/v2";

/// The column that the example version adds, from a field that version 1 keeps in `extra`.
fn connector_ref(summary: &str) -> Option<String> {
    let summary: Value = serde_json::from_str(summary).unwrap();
    Some(summary["connectorRef"].as_str()?.to_owned())
}

/// Fills the example version from the raw partitions, as `replay` of a later program would.
fn fill_next_version(lake: &Lake) {
    let store = Store::open(lake.path()).unwrap();
    let lake = block_on(LakeRoot::open_existing(store, &std::env::temp_dir())).unwrap();
    for raw in block_on(lake.raw_partitions(Dates::default())).unwrap() {
        let partition = raw.partition;
        let path = partition.raw();
        let (bytes, _) = block_on(lake.store().get(&path)).unwrap().unwrap();
        let raw = RawObject::new(&path, bytes).unwrap();
        let mut tables =
            ExecutionTables::new(&Account::new(lake.account(), &lake.identity().base_url));
        let mut added = Vec::new();
        each_row(&path, &raw, |row, _| {
            tables.push(row);
            added.push(connector_ref(row.summary));
            Ok(())
        })
        .unwrap();
        let [_, _, _, (table, executions)] = tables.finish();
        assert_eq!(table, Table::Executions);

        let mut fields = executions.schema().fields().to_vec();
        fields.push(Arc::new(Field::new("connector_ref", DataType::Utf8, true)));
        let mut columns = executions.columns().to_vec();
        columns.push(Arc::new(StringArray::from(added)));
        let schema = Arc::new(Schema::new(fields));
        let next = RecordBatch::try_new(schema.clone(), columns).unwrap();
        let mut file = ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
        file.write(&next).unwrap();
        let file = file.into_inner().unwrap();
        block_on(
            lake.store()
                .overwrite(&format!("{TOY}/{partition}"), file.into()),
        )
        .unwrap();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

#[test]
fn next_table_version_is_derived_beside_the_first() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let before = lake.data_objects();
    fill_next_version(&lake);
    let mut after = lake.data_objects();
    after.retain(|path, _| !path.starts_with(TOY));
    assert_eq!(after, before, "version 1 stays to the byte");

    let first = lake.table("executions");
    let next = first.replace("executions/v1", TOY);
    assert_ne!(first, next);
    let (mut columns, next_columns) = (described(&first), described(&next));
    let date = columns.len() - 1;
    columns.insert(date, ("connector_ref".to_owned(), "VARCHAR".to_owned()));
    assert_eq!(next_columns, columns);

    let of_first = format!("SELECT count(*) FROM {first}");
    let differ = format!(
        "SELECT count(*) FROM (SELECT * EXCLUDE (connector_ref) FROM {next} EXCEPT ALL SELECT * FROM {first})"
    );
    let filled = format!(
        "SELECT count(*) FROM {first} JOIN {next} n USING (plan_execution_id)
         WHERE n.connector_ref IS NOT NULL AND n.connector_ref = {first_extra}",
        first = first.clone() + " f",
        first_extra = "json_extract_string(f.extra, '$.connectorRef')"
    );
    let answers = rows(&[&of_first, &differ, &filled]);
    assert_eq!(answers[0][0][0], json!(sim.truth().executions.len()));
    assert_eq!(answers[1][0][0], json!(0));
    assert_ne!(answers[2][0][0], json!(0), "the new column has values");

    // Readers and writers of version 1 are not affected.
    sim.advance(SignedDuration::from_hours(2));
    sim.sync(&lake, &[]).expect(3);
    sim.run(&["replay", "--lake", lake.path()]).expect(0);
    sim.assert_truth(&lake);
}
