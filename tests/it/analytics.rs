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

/// Views of which only the most important columns are compared.
const KEEP_A_TABLE: [&str; 10] = [
    "executions_latest",
    "deployment_runs",
    "deployment_attempts",
    "deployments_once",
    "deployment_failures",
    "rollbacks",
    "change_failures",
    "outages",
    "changes",
    "current_versions",
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
        assert!(VIEWS.iter().all(|view| answers.contains_key(view.name)));
        assert_eq!(answers.len(), VIEWS.len());
        if vintage == Vintage::Saas {
            assert_something_to_see(&answers);
        }
        let ddl = |engine| ddl(engine, &lake);
        // Spark takes a minute, and reads the same SQL.
        let spark = (vintage == Vintage::Saas).then(|| ddl("spark"));
        let task = json!({
            "name": name,
            "duckdb": ddl("duckdb"),
            "spark": spark,
            "answers": answers,
            "keep_a_table": KEEP_A_TABLE,
        });
        (task, lake)
    });
    let task: Value = lakes.iter().map(|(task, _)| task.clone()).collect();
    let problems = ask(&task);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Deployments of one pipeline that nobody simulates. Times are seconds after midnight.
const CRAFTED: &str = "
CREATE MACRO seconds(n) AS TIMESTAMPTZ '2026-11-24 00:00:00+00' + to_seconds(n);
CREATE TABLE executions (start_date DATE, plan_execution_id VARCHAR, retry_root_execution_id VARCHAR,
    rerun_root_execution_id VARCHAR, created_ts TIMESTAMPTZ, start_ts TIMESTAMPTZ);
CREATE TABLE deployments (
    plan_execution_id VARCHAR, stage_node_id VARCHAR, strategy_stage_id VARCHAR, strategy_instance VARCHAR DEFAULT '',
    service_id VARCHAR DEFAULT 's', environment_id VARCHAR DEFAULT 'e', status_category VARCHAR DEFAULT 'success',
    attempted_ts TIMESTAMPTZ, retry_root_execution_id VARCHAR, rerun_root_execution_id VARCHAR,
    parent_pipeline_execution_id VARCHAR, execution_mode VARCHAR DEFAULT 'NORMAL', start_ts TIMESTAMPTZ,
    end_ts TIMESTAMPTZ, infrastructure_id VARCHAR, reverts_execution_id VARCHAR, was_rolled_back BOOLEAN DEFAULT false,
    project_id VARCHAR DEFAULT 'p', artifact VARCHAR, pipeline_id VARCHAR DEFAULT 'deploy',
    is_rollback BOOLEAN AS (execution_mode <> 'NORMAL'), ran_in_this_execution BOOLEAN DEFAULT true, org_id VARCHAR DEFAULT 'o',
    environment_type VARCHAR DEFAULT 'Production', start_date DATE DEFAULT DATE '2026-11-24',
    stage_id VARCHAR, status VARCHAR, rollback_ms BIGINT, triggered_by_name VARCHAR, deployed_date DATE,
    duration_ms BIGINT, observed_ts TIMESTAMPTZ,
    service_key VARCHAR AS (CASE WHEN service_id LIKE 'org.%' THEN service_id ELSE project_id || '/' || service_id END),
    environment_key VARCHAR AS (CASE WHEN environment_id LIKE 'org.%' THEN environment_id ELSE project_id || '/' || environment_id END)
);
";

/// Queries the views over crafted deployments.
fn crafted(columns: &str, values: &str, statements: &[&str]) -> Vec<Vec<Vec<Value>>> {
    let asked = VIEWS.iter().filter(|view| !NEEDS_MORE.contains(&view.name));
    let views: String = asked.map(|view| view.statements(Engine::DuckDb)).collect();
    let filled = format!("INSERT INTO deployments ({columns}) VALUES {values}");
    let opened = [CRAFTED, &filled, &views];
    let mut answers = rows(&[&opened[..], statements].concat());
    answers.split_off(opened.len())
}

/// Views that read columns or tables which the crafted ones lack.
const NEEDS_MORE: [&str; 11] = [
    "busiest_hours",
    "deployment_failures",
    "changes",
    "approvals_waited",
    "failure_types",
    "lead_time_for_changes",
    "dora_metrics",
    "build_durations",
    "queue_and_wait_time",
    "failed_stages",
    "flakiest_pipelines",
];

const CHAIN: &str = "plan_execution_id, retry_root_execution_id, attempted_ts, stage_node_id, strategy_stage_id, \
                     strategy_instance, service_id, environment_id, status_category, ran_in_this_execution, \
                     execution_mode, rerun_root_execution_id, parent_pipeline_execution_id";

#[test]
fn deployment_is_counted_once_in_rare_chains() {
    let chains = "
        -- Of two instances of a matrix one is retried twice, and at last never learns its target.
        ('1', '1', seconds(1), 'n1', 'matrix', 'eu', 's', 'e', 'success', true, 'NORMAL', NULL, NULL),
        ('1', '1', seconds(1), 'n2', 'matrix', 'us', 's', 'e', 'failure', true, 'NORMAL', NULL, NULL),
        ('2', '1', seconds(2), 'n3', 'matrix', 'us', 's', 'e', 'failure', true, 'NORMAL', NULL, NULL),
        ('3', '1', seconds(3), 'n4', 'matrix', 'us', NULL, NULL, 'failure', true, 'NORMAL', NULL, NULL),
        -- An aborted or a running retry hides no failure.
        ('1', '1', seconds(1), 'n5', 'hidden', '', 's', 'f', 'failure', true, 'NORMAL', NULL, NULL),
        ('2', '1', seconds(2), 'n6', 'hidden', '', 's', 'f', 'aborted', true, 'NORMAL', NULL, NULL),
        ('3', '1', seconds(3), 'n7', 'hidden', '', 's', 'f', 'running', true, 'NORMAL', NULL, NULL),
        -- What is carried over is no attempt, nor is what undoes it.
        ('1', '1', seconds(1), 'n8', 'one', '', 't', 'e', 'success', true, 'NORMAL', NULL, NULL),
        ('3', '1', seconds(3), 'n9', 'one', '', 't', 'e', 'success', false, 'NORMAL', NULL, NULL),
        ('undo', 'undo', seconds(9), 'n10', 'one', '', 't', 'e', 'success', true, 'POST_EXECUTION_ROLLBACK', NULL, NULL),
        -- Of two at the same time the greater id is the later. Another target is another deployment.
        ('3', '1', seconds(3), 'n11', 'tie', '', 't', 'g', 'failure', true, 'NORMAL', NULL, NULL),
        ('3b', '1', seconds(3), 'n12', 'tie', '', 't', 'g', 'success', true, 'NORMAL', NULL, NULL),
        ('2', '1', seconds(2), 'n13', 'tie', '', 'u', 'g', 'success', true, 'NORMAL', NULL, NULL),
        -- A rerun repairs a failure. The rerun of a success is another deployment.
        ('4', '4', seconds(4), 'n14', 'again', '', 's', 'e', 'failure', true, 'NORMAL', NULL, NULL),
        ('5', '5', seconds(5), 'n15', 'again', '', 's', 'e', 'success', true, 'NORMAL', '4', NULL),
        ('6', '6', seconds(6), 'n16', 'again', '', 's', 'e', 'success', true, 'NORMAL', '4', NULL),
        -- A retry of a failed rerun belongs to the first execution, too.
        ('4', '4', seconds(4), 'n21', 'both', '', 's', 'e', 'failure', true, 'NORMAL', NULL, NULL),
        ('6b', '6b', seconds(6), 'n22', 'both', '', 's', 'e', 'failure', true, 'NORMAL', '4', NULL),
        ('7', '6b', seconds(7), 'n23', 'both', '', 's', 'e', 'success', true, 'NORMAL', NULL, NULL),
        -- The retry of a parent runs its child again. One parent may run two children.
        ('c1', 'c1', seconds(1), 'n17', 'child', '', 's', 'e', 'failure', true, 'NORMAL', NULL, 'p1'),
        ('c2', 'c2', seconds(2), 'n18', 'child', '', 's', 'e', 'success', true, 'NORMAL', NULL, 'p2'),
        ('d1', 'd1', seconds(1), 'n19', 'twin', '', 's', 'e', 'failure', true, 'NORMAL', NULL, 'p1'),
        ('d2', 'd2', seconds(2), 'n20', 'twin', '', 's', 'e', 'success', true, 'NORMAL', NULL, 'p1')";
    let parents = "INSERT INTO executions (plan_execution_id, retry_root_execution_id) VALUES ('p1', NULL), ('p2', 'p1'), ('2', '1'), ('3', '1'), ('3b', '1'), ('7', '6b')";
    let reruns = "INSERT INTO executions (plan_execution_id, rerun_root_execution_id) VALUES ('5', '4'), ('6', '4'), ('6b', '4')";
    let once = "SELECT plan_execution_id, stage_node_id, strategy_instance FROM deployments_once
                ORDER BY length(stage_node_id), stage_node_id";
    let answers = crafted(CHAIN, chains, &[parents, reruns, once]);
    let expected = json!([
        ["1", "n1", "eu"],
        ["3", "n4", "us"],
        ["1", "n5", ""],
        ["1", "n8", ""],
        ["3b", "n12", ""],
        ["2", "n13", ""],
        ["5", "n15", ""],
        ["6", "n16", ""],
        ["c2", "n18", ""],
        ["d1", "n19", ""],
        ["d2", "n20", ""],
        ["7", "n23", ""],
    ]);
    assert_eq!(json!(answers[2]), expected);
}

#[test]
fn latest_attempt_is_the_last_created() {
    let filled = "INSERT INTO executions (plan_execution_id, retry_root_execution_id, created_ts) VALUES
        ('1', NULL, seconds(1)), ('2', '1', seconds(2)), ('3', '1', seconds(3)), ('3b', '1', seconds(3)),
        ('undo', NULL, seconds(9))";
    let last = "SELECT plan_execution_id FROM executions_latest WHERE is_latest_attempt ORDER BY 1";
    let latest = VIEWS.iter().find(|view| view.name == "executions_latest");
    let view = latest.unwrap().statements(Engine::DuckDb);
    let answers = rows(&[CRAFTED, filled, &view, last]);
    assert_eq!(json!(answers[3]), json!([["3b"], ["undo"]]));
}

const OUTAGE: &str = "plan_execution_id, retry_root_execution_id, attempted_ts, start_ts, end_ts, status_category, \
                      service_id, environment_id, project_id, pipeline_id, execution_mode, reverts_execution_id, artifact";

#[test]
fn outage_ends_with_the_next_good_deployment() {
    let time = |n: u32| format!("seconds({n}), seconds({n}), seconds({n} + 1)");
    let row = |id: &str, n: u32, status: &str, more: &str| {
        format!("('{id}', '{id}', {}, '{status}', {more})", time(n))
    };
    let plain =
        |service: &str| format!("'{service}', 'e', 'p', 'deploy', 'NORMAL', NULL, '{service}:1'");
    let values = [
        // Two failures in a row, an abort, and a success: one outage.
        row("a1", 10, "failure", &plain("a")),
        row("a2", 20, "expired", &plain("a")),
        row("a3", 30, "aborted", &plain("a")),
        row("a4", 40, "success", &plain("a")),
        // A hotfix from another pipeline.
        row("b1", 10, "failure", &plain("b")),
        row(
            "b2",
            50,
            "success",
            "'b', 'e', 'p', 'hotfix', 'NORMAL', NULL, 'b:2'",
        ),
        // Another project repairs a service of the organization.
        row(
            "c1",
            10,
            "failure",
            "'org.c', 'org.e', 'p', 'deploy', 'NORMAL', NULL, 'c:1'",
        ),
        row(
            "c2",
            60,
            "success",
            "'org.c', 'org.e', 'q', 'deploy', 'NORMAL', NULL, 'c:2'",
        ),
        // A success that is rolled back was broken from its end.
        row(
            "d0",
            5,
            "success",
            "'d', 'e', 'p', 'deploy', 'NORMAL', NULL, 'd:0'",
        ),
        row("d1", 10, "success", &plain("d")),
        row(
            "d2",
            70,
            "success",
            "'d', 'e', 'p', 'deploy', 'POST_EXECUTION_ROLLBACK', NULL, 'd:1'",
        ),
        // One that is reverted, too.
        row("f1", 10, "success", &plain("f")),
        row(
            "f2",
            80,
            "success",
            "'f', 'e', 'p', 'deploy', 'NORMAL', 'f1', 'f:0'",
        ),
        // Nothing repairs the last one. Another environment is no repair.
        row("g1", 10, "failure", &plain("g")),
        row(
            "g2",
            90,
            "success",
            "'g', 'other', 'p', 'deploy', 'NORMAL', NULL, 'g:1'",
        ),
    ];
    let outages = "SELECT service_id, plan_execution_id, restore_ms FROM outages ORDER BY 1";
    let sums = "SELECT service_id, sum(deployments)::INT, sum(failed_deployments)::INT, sum(undone_deployments)::INT
                FROM change_failure_rate WHERE environment_id <> 'other' GROUP BY 1 ORDER BY 1";
    let versions = "SELECT service_id, artifact FROM current_versions
                    WHERE environment_id <> 'other' ORDER BY 1";
    let undone = "SELECT kind, plan_execution_id, undone_execution_id FROM rollbacks ORDER BY 1";
    let answers = crafted(
        OUTAGE,
        &values.join(","),
        &[outages, sums, versions, undone],
    );
    let expected = json!([
        ["a", "a1", 30_000],
        ["b", "b1", 40_000],
        ["d", "d1", 60_000],
        ["f", "f1", 70_000],
        ["g", "g1", null],
        ["org.c", "c1", 50_000],
    ]);
    assert_eq!(json!(answers[0]), expected);
    let expected = json!([
        ["a", 3, 2, 0],
        ["b", 2, 1, 0],
        ["d", 2, 1, 1],
        ["f", 2, 1, 1],
        ["g", 1, 1, 0],
        ["org.c", 2, 1, 0],
    ]);
    assert_eq!(json!(answers[1]), expected);
    let expected = json!([
        ["a", "a:1"],
        ["b", "b:2"],
        ["d", "d:0"],
        ["f", "f:0"],
        ["org.c", "c:2"],
    ]);
    assert_eq!(json!(answers[2]), expected);
    let expected = json!([["post_deployment", "d2", "d1"], ["revert", "f2", "f1"]]);
    assert_eq!(json!(answers[3]), expected);
}

#[test]
fn start_date_filter_prunes_other_dates() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let opened = ddl("duckdb", &lake);
    for view in [
        "executions_latest",
        "deployment_runs",
        "deployment_attempts",
        "deployment_failures",
        "deployment_frequency",
        "deployment_failure_rate",
        "change_failure_rate",
        "lead_time_for_changes",
        "approvals_waited",
        "failure_types",
        "build_durations",
        "queue_and_wait_time",
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
        ("deployment_failure_rate", "failed_deployments"),
        ("change_failure_rate", "undone_deployments"),
        ("approvals_waited", "waited_ms"),
        ("failure_types", "failures"),
        ("time_to_restore", "restored_outages"),
        ("lead_time_for_changes", "covered_deployments"),
        ("build_durations", "failed_builds"),
        ("queue_and_wait_time", "approved_executions"),
        ("failed_stages", "failures"),
        ("flakiest_pipelines", "flaky_commits"),
        ("busiest_hours", "duration_ms"),
    ] {
        assert_ne!(sum(view, column), 0, "{view}.{column}");
    }
    for kind in ["stage", "revert", "pipeline", "post_deployment"] {
        assert_ne!(count("rollbacks", &|row| row["kind"] == kind), 0, "{kind}");
    }
    let inferred = count("deployments_once", &|row| {
        row["is_environment_inferred"] == true
    });
    assert_ne!(inferred, 0);
    let restored = sum("time_to_restore", "restored_outages");
    assert!(restored < sum("time_to_restore", "outages"));
    let covered = sum("lead_time_for_changes", "covered_deployments");
    assert!(covered < sum("lead_time_for_changes", "deployments"));
}
