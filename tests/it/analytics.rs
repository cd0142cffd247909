//! The views of `analytics/sql/` in two engines, compared with the simulated account.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use harness_lake::schema::ddl::Engine;
use harness_lake::schema::views::VIEWS;
use harness_sim::{AccountSpec, ExpectedViews, Vintage};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Lake, Run, Sim, bare_command, interpreter, now, rows};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/analytics.py");

/// Views that have all columns of a table besides their own.
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
fn every_view_matches_the_account_in_duckdb_and_spark() {
    let lakes = [("saas", Vintage::Saas), ("older", Vintage::Older)].map(|(name, vintage)| {
        let (sim, lake) = account(vintage);
        let answers = sim.truth().expected_views();
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

/// Rare retry chains. Times are seconds after midnight.
const RETRIES: &str = "
CREATE MACRO seconds(n) AS TIMESTAMPTZ '2026-11-24 00:00:00+00' + to_seconds(n);
CREATE TABLE executions AS
SELECT DATE '2026-11-24' AS start_date, id AS plan_execution_id, root AS retry_root_execution_id,
       mode AS execution_mode, seconds(created) AS created_ts, seconds(0) AS start_ts
FROM (VALUES
    ('1', NULL, NULL, 1), ('2', '1', 'NORMAL', 2), ('3', '1', 'NORMAL', 3), ('3b', '1', 'NORMAL', 3),
    ('undo', NULL, 'POST_EXECUTION_ROLLBACK', 9)
) AS t(id, root, mode, created);
CREATE TABLE stages AS
SELECT DATE '2026-11-24' AS start_date, id AS plan_execution_id, node AS stage_node_id, stage AS stage_id,
       CASE WHEN axis IS NULL THEN MAP {} ELSE MAP {'b': axis, 'a': 'x'} END AS matrix, iteration,
       service AS service_id, environment AS environment_id, ran AS ran_in_this_execution, false AS is_rollback
FROM (VALUES
    -- Of two instances of a matrix one is retried twice, and at last never learns its target.
    ('1', 'n1', 'matrix', 'eu', 0, 's', 'e', true),
    ('1', 'n2', 'matrix', 'us', 1, 's', 'e', true),
    ('2', 'n3', 'matrix', 'us', 1, 's', 'e', true),
    ('3', 'n4', 'matrix', 'us', 1, NULL, NULL, true),
    -- Of two instances of a loop one is retried.
    ('1', 'n5', 'loop', NULL, 0, 's', 'f', true),
    ('1', 'n6', 'loop', NULL, 1, 's', 'f', true),
    ('2', 'n7', 'loop', NULL, 1, 's', 'f', true),
    -- What is carried over is no attempt, nor is what undoes it.
    ('1', 'n8', 'one', NULL, NULL, 't', 'e', true),
    ('3', 'n9', 'one', NULL, NULL, 't', 'e', false),
    ('undo', 'n10', 'one', NULL, NULL, 't', 'e', true),
    -- Of two at the same time the greater id is the later. Another target is another deployment.
    ('3', 'n11', 'tie', NULL, NULL, 't', 'g', true),
    ('3b', 'n12', 'tie', NULL, NULL, 't', 'g', true),
    ('2', 'n13', 'tie', NULL, NULL, 'u', 'g', true)
) AS t(id, node, stage, axis, iteration, service, environment, ran);
CREATE TABLE deployments AS SELECT * EXCLUDE (matrix, iteration) FROM stages;
";

#[test]
fn deployment_is_counted_once_in_rare_retry_chains() {
    let once = "SELECT plan_execution_id, stage_node_id, strategy_instance FROM deployments_once
                ORDER BY length(stage_node_id), stage_node_id";
    let last = "SELECT plan_execution_id FROM executions_latest WHERE is_latest_attempt ORDER BY 1";
    let answers = rows(&[RETRIES, &statements(&KEEP_A_TABLE), once, last]);
    let expected = json!([
        ["1", "n1", "a=x,b=eu"],
        ["3", "n4", "a=x,b=us"],
        ["1", "n5", "0"],
        ["2", "n7", "1"],
        ["1", "n8", ""],
        ["3b", "n12", ""],
        ["2", "n13", ""],
    ]);
    assert_eq!(json!(answers[2]), expected);
    assert_eq!(json!(answers[3]), json!([["3b"], ["undo"]]));
}

/// Two instances of a matrix; one of them fails twice in a row.
const OUTAGES: &str = "
CREATE TABLE deployments_once AS
SELECT DATE '2026-11-24' AS start_date, 'o' AS org_id, 'p' AS project_id, 's' AS service_id, 'e' AS environment_id,
       'Production' AS environment_type, region AS strategy_instance, n::VARCHAR AS plan_execution_id,
       'n' AS stage_node_id, status AS status_category, TIMESTAMPTZ '2026-11-24 00:00:00+00' + to_seconds(n) AS end_ts
FROM (VALUES
    (1, 'eu', 'failure'), (2, 'eu', 'expired'), (3, 'us', 'success'), (4, 'eu', 'aborted'), (5, 'eu', 'success'),
    (6, 'eu', 'success'), (7, 'us', 'failure'), (8, 'eu', 'failure'), (9, 'us', 'success')
) AS t(n, region, status);
";

#[test]
fn outage_lasts_until_the_same_instance_succeeds() {
    let asked = "SELECT outages, restored_outages, median_restore_ms, longest_restore_ms
                 FROM time_to_restore";
    let views = statements(&["time_to_restore"]);
    let answers = rows(&[OUTAGES, &views, asked]);
    assert_eq!(json!(answers[2]), json!([[3, 2, 3_000.0, 4_000]]));
}

/// Returns the statements of some views.
fn statements(names: &[&str]) -> String {
    let asked = VIEWS.iter().filter(|view| names.contains(&view.name));
    asked.map(|view| view.statement(Engine::DuckDb)).collect()
}

#[test]
fn start_date_filter_prunes_other_dates() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let opened = ddl("duckdb", &lake);
    for view in [
        "executions_latest",
        "deployment_attempts",
        "deployment_frequency",
        "change_failure_rate",
        "lead_time_for_changes",
        "build_durations",
        "queue_and_approval_time",
        "failed_stages",
        "busiest_hours",
    ] {
        let asked =
            format!("EXPLAIN ANALYZE SELECT * FROM {view} WHERE start_date = DATE '2026-11-20'");
        let plan = rows(&[&opened, &asked]).remove(1).remove(0).remove(1);
        let plan = plan.as_str().unwrap();
        assert!(plan.contains("Scanning Files: 1/"), "{view}: {plan}");
    }
}

#[test]
fn local_lake_stores_its_ddl_and_rewrites_only_changes() {
    let sim = Sim::small();
    let lake = Lake::new();
    let path = format!("{}/_views/duckdb.sql", lake.path());
    let inode = || fs::metadata(&path).unwrap().ino();
    let run = |arguments: &[&str]| {
        let arguments = [arguments, &["--lake", lake.path()]].concat();
        Run::of(sim.command(&arguments).output().unwrap())
    };
    let replay = ["replay"].as_slice();
    let backfill = ["backfill", "--from", "2026-11-23", "--to", "2026-11-24"].as_slice();
    sim.sync(&lake, &[]).expect(3);
    let statements = fs::read_to_string(&path).unwrap();
    assert_eq!(statements, ddl("duckdb", &lake));

    let before = inode();
    for (command, code) in [(["sync"].as_slice(), 3), (replay, 0), (backfill, 3)] {
        run(command).expect(code);
        assert_eq!(
            inode(),
            before,
            "{command:?} writes the same statements again"
        );
    }
    for (command, code) in [(["sync"].as_slice(), 3), (replay, 0), (backfill, 3)] {
        fs::write(&path, "of an older version").unwrap();
        run(command).expect(code);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            statements,
            "{command:?}"
        );
        fs::remove_file(&path).unwrap();
        run(command).expect(code);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            statements,
            "{command:?}"
        );
    }

    let verify = bare_command(&["verify", "--lake", lake.path(), "--output", "json"]);
    let audit = Run::of({ verify }.output().unwrap()).expect(0).json();
    assert_eq!(audit["findings"], json!([]), "nothing foreign");
}

#[test]
fn views_of_a_lake_without_executions_are_empty() {
    let spec = AccountSpec {
        executions: 0,
        future_hours: 0,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let path = format!("{}/_views/duckdb.sql", lake.path());
    let opened = fs::read_to_string(&path).unwrap();
    let counted = "SELECT count(*) FROM executions_latest UNION ALL SELECT count(*) FROM commits";
    assert_eq!(rows(&[&opened, counted]).pop().unwrap(), [[0], [0]]);
    // The types are those of the files.
    let types =
        "SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY ALL";
    let empty = rows(&[&opened, types]).pop().unwrap();
    let full = Lake::new();
    Sim::small().sync(&full, &[]).expect(3);
    assert_eq!(rows(&[&ddl("duckdb", &full), types]).pop().unwrap(), empty);
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

/// Fails unless the account contains the cases that the views are about.
fn assert_something_to_see(answers: &ExpectedViews) {
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
