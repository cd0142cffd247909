//! What the program says of its tables and of itself.

use serde_json::json;

use crate::support::{Lake, Run, Sim, bare_command, rows};

fn says(arguments: &[&str]) -> Run {
    Run::of(bare_command(arguments).output().unwrap()).expect(0)
}

#[test]
fn the_data_dictionary_is_that_of_the_schemas() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/schema.md");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == says(&["schema", "docs"]).stdout,
        "docs/schema.md is out of date: run `cargo run -- schema docs > docs/schema.md`"
    );
}

#[test]
fn the_statements_for_duckdb_open_every_table_by_its_name() {
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
