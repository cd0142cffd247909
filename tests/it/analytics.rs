//! The views of `analytics/sql/`: what they answer in two engines, against what the account knows of itself.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use harness_lake::sim::{AccountSpec, Answers, Vintage};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Lake, Run, Sim, bare_command, interpreter, now};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/analytics.py");

/// Views with all columns of a table besides their own.
const KEEP_A_TABLE: [&str; 3] = [
    "executions_latest",
    "deployment_attempts",
    "deployments_once",
];

fn account(vintage: Vintage) -> (Sim, Lake) {
    let spec = AccountSpec {
        // An account in which one outage lasts until now.
        seed: 2,
        executions: 1_600,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |options| options.vintage = vintage);
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    (sim, lake)
}

#[test]
fn every_view_answers_what_the_account_knows_in_duckdb_and_in_spark() {
    let lakes = [("saas", Vintage::Saas), ("older", Vintage::Older)].map(|(name, vintage)| {
        let (sim, lake) = account(vintage);
        let answers = sim.truth().answers();
        if vintage == Vintage::Saas {
            assert_something_to_see(&answers);
        }
        let ddl = |engine| ddl(engine, &lake);
        let task = json!({
            "name": name,
            "duckdb": ddl("duckdb"),
            "spark": ddl("spark"),
            "answers": answers,
            "keep_a_table": KEEP_A_TABLE,
        });
        (task, lake)
    });
    let task: Value = lakes.iter().map(|(task, _)| task.clone()).collect();
    let problems = ask(&task);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn a_local_lake_holds_the_statements_that_open_it_written_only_where_they_change() {
    let sim = Sim::small();
    let lake = Lake::new();
    let path = format!("{}/_views/duckdb.sql", lake.path());
    let inode = || fs::metadata(&path).unwrap().ino();
    let replay = |lake: &Lake| {
        Run::of(
            sim.command(&["replay", "--lake", lake.path()])
                .output()
                .unwrap(),
        )
    };
    sim.sync(&lake, &[]).expect(3);
    let statements = fs::read_to_string(&path).unwrap();
    assert_eq!(statements, ddl("duckdb", &lake));

    let before = inode();
    sim.sync(&lake, &[]).expect(3);
    replay(&lake).expect(0);
    assert_eq!(inode(), before, "the same statements are not written again");

    fs::write(&path, "of an older version").unwrap();
    replay(&lake).expect(0);
    assert_eq!(fs::read_to_string(&path).unwrap(), statements);
    fs::remove_file(&path).unwrap();
    sim.sync(&lake, &[]).expect(3);
    assert_eq!(fs::read_to_string(&path).unwrap(), statements);

    let verify = bare_command(&["verify", "--lake", lake.path(), "--output", "json"]);
    let audit = Run::of({ verify }.output().unwrap()).expect(0).json();
    assert_eq!(audit["findings"], json!([]), "nothing foreign");
}

#[test]
fn a_lake_without_rows_holds_no_statements_that_would_fail() {
    let spec = AccountSpec {
        executions: 0,
        future_hours: 0,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    assert!(!lake.files().contains_key("_views/duckdb.sql"));
}

fn ddl(engine: &str, lake: &Lake) -> String {
    let mut command = bare_command(&["schema", "ddl", engine, "--lake", lake.path()]);
    Run::of(command.output().unwrap()).expect(0).stdout
}

fn ask(task: &Value) -> Vec<String> {
    let scratch = TempDir::new().unwrap();
    let mut child = Command::new(interpreter())
        .arg(SCRIPT)
        .arg(scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(task.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// An account in which nothing of the kind happens would prove little.
fn assert_something_to_see(answers: &Answers) {
    let sum = |view: &str, column: &str| -> i64 {
        let values = answers[view].iter().map(|row| row[column].as_i64());
        values.map(Option::unwrap_or_default).sum()
    };
    let count = |view: &str, test: &dyn Fn(&Value) -> bool| {
        answers[view].iter().filter(|row| test(row)).count()
    };
    assert_ne!(
        count("executions_latest", &|row| row["is_latest_attempt"]
            == false),
        0
    );
    assert!(answers["deployments_once"].len() < answers["deployment_attempts"].len());
    let is_of_matrix = |row: &Value| row["strategy_instance"].as_str().unwrap().contains('=');
    assert_ne!(count("deployments_once", &is_of_matrix), 0);
    for (view, column) in [
        ("deployment_frequency", "stopped_deployments"),
        ("change_failure_rate", "failed_deployments"),
        ("time_to_restore", "restored_outages"),
        ("lead_time_for_changes", "covered_deployments"),
        ("build_durations", "failed_builds"),
        ("queue_and_approval_time", "approved_executions"),
        ("failed_stages", "failures"),
        ("flakiest_pipelines", "flaky_commits"),
        ("busiest_hours", "duration_ms"),
    ] {
        assert_ne!(sum(view, column), 0, "{view}.{column}");
    }
    let restored = sum("time_to_restore", "restored_outages");
    assert!(restored < sum("time_to_restore", "outages"));
    let covered = sum("lead_time_for_changes", "covered_deployments");
    assert!(covered < sum("lead_time_for_changes", "deployments"));
}
