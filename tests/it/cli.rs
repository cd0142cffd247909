//! The command line: help, usage errors, outputs, `status`, `demo` and `sim`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, bare_command, rows, signal};

const COMMANDS: [&str; 5] = ["check", "sync", "status", "demo", "sim"];

fn bare(arguments: &[&str]) -> Run {
    Run::of(bare_command(arguments).output().unwrap())
}

#[test]
fn help_shows_commands_and_examples() {
    let help = bare(&["--help"]).expect(0);
    assert_eq!(help.stderr, "");
    for command in COMMANDS {
        assert!(
            help.stdout.contains(&format!("\n  {command} ")),
            "{command}"
        );
        let of_command = bare(&[command, "--help"]).expect(0).stdout;
        assert!(of_command.contains(&format!("Usage: harness-lake {command}")));
    }
    let (_, examples) = help.stdout.split_once("Examples:\n").unwrap();
    for command in ["demo", "check --lake ", "sync --lake ", "status --lake "] {
        assert!(
            examples.contains(&format!("harness-lake {command}")),
            "{command}"
        );
    }
}

#[test]
fn help_never_shows_the_key() {
    let sim = Sim::small();
    for command in COMMANDS {
        sim.run(&[command, "--help"]).expect(0);
    }
}

#[test]
fn unparsable_arguments_are_usage_errors() {
    let lake = Lake::new();
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["sync"],
        &["status"],
        &["sync", "--lake", lake.path(), "--frobnicate"],
        &["sync", "--lake", lake.path(), "--page-size", "0"],
        &["sync", "--lake", lake.path(), "--page-size", "1001"],
        &["sync", "--lake", lake.path(), "--buckets", "0"],
        &["sync", "--lake", lake.path(), "--concurrency", "0"],
        &["sync", "--lake", lake.path(), "--requests-per-minute", "0"],
        &["sync", "--lake", lake.path(), "--output", "xml"],
        &["sync", "--lake", lake.path(), "--partial-exit-code", "256"],
        &["status", "--lake", lake.path(), "--org", "default"],
    ] {
        let run = bare(arguments).expect(2);
        assert_eq!(run.stdout, "", "{arguments:?}");
        assert!(run.stderr.contains("--help"), "{arguments:?}: {run:?}");
    }
}

#[test]
fn invalid_settings_are_usage_errors() {
    let sim = Sim::small();
    let lake = Lake::new();
    for (arguments, expected) in [
        (["--lookback", "5"], "invalid duration `5`"),
        (["--lookback", "-5m"], "`-5m`"),
        (["--lake", ""], "invalid lake location"),
        (["--lake", "s3://"], "invalid lake location"),
        (["--lake", "file://elsewhere/lake"], "invalid lake location"),
        (["--lake", "s3://bucket/team#1"], "takes no `?`, `#`"),
        (["--lake", "s3://bucket/team?a=b"], "takes no `?`, `#`"),
        (
            ["--lake", "s3://id:secret@bucket/team"],
            "takes no `?`, `#`",
        ),
        (
            ["--lake", "gs://id:secret@bucket/team"],
            "gs://bucket/prefix takes no `?`, `#`",
        ),
        (["--window-lag", "soon"], "invalid duration `soon`"),
        (["--window-lag", "7000000d"], "7000000d is too long"),
        (["--start-date", "yesterday"], "invalid date `yesterday`"),
        (["--project", "a["], "invalid glob `a[`"),
        (["--base-url", "http://harness.example"], "--insecure-http"),
        (["--base-url", "app.harness.io"], "invalid base URL"),
        (["--api-key-file", "/no/such/file"], "/no/such/file"),
    ] {
        let mut command = sim.command(&["sync", "--output", "json"]);
        if arguments[0] != "--lake" {
            command.args(["--lake", lake.path()]);
        }
        // The variable takes precedence over the file of the environment.
        if arguments[0] == "--api-key-file" {
            command.env_remove("HARNESS_API_KEY");
        }
        let argument = arguments.join("=");
        let run = Run::of(command.arg(&argument).output().unwrap()).expect(2);
        assert_eq!(run.error_code(), "usage", "{argument}");
        let message = run.json()["error"]["message"].to_string();
        assert!(message.contains(expected), "{argument}: {message}");
    }
    let mut command = bare_command(&["check", "--output", "json"]);
    let run = Run::of(command.output().unwrap()).expect(2);
    assert!(run.stdout.contains("HARNESS_API_KEY"), "{}", run.stdout);
    let invalid = command.env("HARNESS_API_KEY", "no-account-within").output();
    let run = Run::of(invalid.unwrap()).expect(2);
    assert!(run.stdout.contains("--account-id"), "{}", run.stdout);
    assert_eq!(sim.server().requests().log.len(), 0, "no request was sent");
}

#[test]
fn empty_variable_counts_as_unset() {
    let sim = Sim::small();
    let lake = Lake::new();
    let mut command = sim.command(&["sync", "--lake", lake.path()]);
    for name in [
        "REPORT",
        "PAGE_SIZE",
        "LOOKBACK",
        "OUTPUT",
        "PII",
        "SCRATCH",
        "START_DATE",
    ] {
        command.env(format!("HARNESS_LAKE_{name}"), "");
    }
    Run::of(command.output().unwrap()).expect(3);
    let mut command = bare_command(&["status"]);
    let run = Run::of(command.env("HARNESS_LAKE", "").output().unwrap()).expect(2);
    assert!(run.stderr.contains("--lake <LAKE>"), "{}", run.stderr);
}

#[test]
fn json_log_contains_the_failure() {
    let command = ["status", "--lake", "/no/such/lake", "--log-format", "json"];
    let run = bare(&command).expect(7);
    let line: Value = serde_json::from_str(run.stderr.trim()).unwrap();
    assert_eq!(line["fields"]["code"], "lake");
    assert!(line["fields"]["hint"].is_string());
}

#[test]
fn start_date_in_the_future_is_a_usage_error() {
    let sim = Sim::small();
    let run = sim.sync(&Lake::new(), &["--start-date", "2062-01-01"]);
    assert_eq!(run.expect(2).error_code(), "usage");
}

#[test]
fn usage_errors_are_complete_and_redact_keys() {
    for (arguments, expected) in [
        (&["sync"][..], "--lake <LAKE>"),
        (
            &["schema", "ddl", "mysql", "--lake", "x"],
            "duckdb, spark, trino",
        ),
        (&["sync", "--lake", "x", "pat.ACC.id.SeCrEt"], "***"),
    ] {
        let mut command = bare_command(arguments);
        let run = Run::of(command.env("HARNESS_LAKE_OUTPUT", "json").output().unwrap());
        assert!(!format!("{run:?}").contains("SeCrEt"));
        let message = run.expect(2).json()["error"]["message"].to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn lake_is_found_by_path_and_by_url() {
    let sim = Sim::small();
    let lake = Lake::new();
    let parent = lake.beside("other");
    std::fs::create_dir(&parent).unwrap();
    let dotted = format!("{parent}/../lake");
    sim.run(&["sync", "--lake", &dotted]).expect(3);
    sim.assert_truth(&lake);
    let within = format!("{}/executions", lake.path());
    let run = sim.run(&["sync", "--lake", &within]).expect(7);
    assert!(
        run.stderr.contains("is inside another lake"),
        "{}",
        run.stderr
    );
    let spaced = lake.beside("a b");
    let url = format!("file://{}", spaced.replace(' ', "%20"));
    sim.run(&["sync", "--lake", &url]).expect(3);
    bare(&["status", "--lake", &spaced]).expect(0);
}

#[test]
fn manual_lists_flags_variables_and_exit_codes() {
    let page = bare(&["man"]).expect(0).stdout.replace('\\', "");
    for expected in [
        ".SH HARNESS-LAKE PLAN BACKFILL",
        "--requests-per-minute",
        "HARNESS_LAKE_DEADLINE",
        "HARNESS_API_KEY_FILE",
        "invalid_credentials",
        "harness-lake replay --lake ./lake --into s3://bucket/harness",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
}

#[test]
fn key_file_is_read_if_the_variable_is_unset() {
    let sim = Sim::small();
    let file = Lake::new();
    fs::write(file.path(), format!("{}\n", sim.server().api_key())).unwrap();
    let mut command = sim.command(&["check"]);
    command
        .env_remove("HARNESS_API_KEY")
        .env("HARNESS_API_KEY_FILE", file.path());
    Run::of(command.output().unwrap()).expect(0);
    // A flag overrides the environment.
    let mut command = sim.command(&["check", "--api-key-file", file.path()]);
    command.env("HARNESS_API_KEY", "pat.another.of.none");
    Run::of(command.output().unwrap()).expect(0);
}

#[test]
fn text_output_summarizes_the_run() {
    let sim = Sim::small();
    let lake = Lake::new();
    let run = sim.run(&["sync", "--lake", lake.path()]).expect(3);
    let forbidden = sim.account().forbidden_scope().unwrap();
    let rows = sim.truth().executions.len();
    for expected in [
        &format!("Read {rows} executions: {rows} new, 0 updated, 0 unchanged"),
        &format!("Covered to 2026-11-24 14:55:00Z in {}", lake.path()),
        &format!("failed: {forbidden}: invalid_permissions: "),
    ] {
        assert!(
            run.stdout.contains(expected.as_str()),
            "{expected}:\n{}",
            run.stdout
        );
    }
    assert!(
        run.stderr.contains("error: 1 of 6 projects failed"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains(" hint: "));
}

#[test]
fn partial_exit_code_is_configurable() {
    let sim = Sim::small();
    let lake = Lake::new();
    for code in [0, 42] {
        let chosen = code.to_string();
        let run = sim
            .sync(&lake, &["--partial-exit-code", &chosen])
            .expect(code);
        assert_eq!(run.json()["outcome"], "partial");
    }
    let excluded = format!("--exclude={}", sim.account().forbidden_scope().unwrap());
    let report = sim.sync(&lake, &[&excluded]).expect(0).json();
    assert_eq!(report["outcome"], "success");
}

#[test]
fn log_can_be_json() {
    let sim = Sim::small();
    let run = sim.run(&["check", "--log-format", "json"]).expect(0);
    assert!(!run.stderr.is_empty());
    for line in run.stderr.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        assert!(entry["level"].is_string(), "{line}");
    }
}

#[test]
fn output_has_no_colors_without_a_terminal() {
    let run = Sim::small().run(&["check"]).expect(0);
    assert!(run.stderr.contains("received a response"), "there is a log");
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

#[test]
fn filters_select_projects() {
    let sim = Sim::small();
    let lake = Lake::new();
    let picked = sim.busy()[0].clone();
    let report = sim
        .sync(
            &lake,
            &[
                "--project",
                &picked.to_string(),
                "--start-date",
                "2026-11-20",
            ],
        )
        .expect(0)
        .json();
    assert_eq!(report["scopes"], json!({"total": 1, "ok": 1, "failed": 0}));
    let query = format!(
        "SELECT DISTINCT org_id || '/' || project_id, min(start_date) >= '2026-11-20' FROM {} GROUP BY ALL",
        lake.table("executions")
    );
    assert_eq!(
        rows(&[&query])[0],
        [[json!(picked.to_string()), json!(true)]]
    );
    sim.sync(&lake, &[]).expect(3);
    let query = format!(
        "SELECT covered_from_ts = '2026-11-20 00:00:00+00' FROM {} WHERE project_id = '{}'",
        lake.table("scopes"),
        picked.project
    );
    assert_eq!(rows(&[&query])[0], [[json!(true)]]);
}

#[test]
fn status_shows_coverage_and_last_runs() {
    let sim = Sim::small();
    let lake = Lake::new();
    let missing = bare(&["status", "--output", "json", "--lake", lake.path()]).expect(7);
    assert_eq!(missing.error_code(), "lake");
    assert!(!fs::exists(lake.path()).unwrap(), "no directory is created");

    let report = sim.sync(&lake, &[]).expect(3).json();
    // `status` needs neither a key nor the server.
    let status = bare(&["status", "--output", "json", "--lake", lake.path()])
        .expect(0)
        .json();
    assert_eq!(status["account_id"], json!(sim.account().id()));
    assert_eq!(status["last_run_id"], report["run_id"]);
    let last = &status["last_runs"][0];
    for same in ["run_id", "outcome", "command"] {
        assert_eq!(last[same], report[same]);
    }
    assert_eq!(
        last["executions"]["inserted"],
        report["executions"]["inserted"]
    );
    assert_eq!(status["open_executions"], report["open_executions"]);
    assert_eq!(status["gaps"], 1);
    let forbidden = sim.account().forbidden_scope().unwrap();
    let scopes = status["scopes"].as_array().unwrap();
    assert_eq!(scopes.len(), 6);
    for scope in scopes {
        if scope["scope"] == forbidden.to_string() {
            assert_eq!(scope["last_error"]["code"], "invalid_permissions");
            assert_eq!(scope["watermark"], Value::Null);
        } else {
            assert_eq!(scope["last_error"], Value::Null);
            assert_eq!(scope["watermark"], "2026-11-24T14:55:00Z");
            assert_eq!(scope["last_success"], "2026-11-24T15:00:00Z");
        }
    }

    let text = bare(&["status", "--lake", lake.path()]).expect(0).stdout;
    for expected in [
        "account simAccount_01-AbCdEfGh",
        "1 gap\n",
        "2026-11-24 14:55",
        "invalid_permissions",
        &forbidden.to_string(),
    ] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
}

#[test]
fn demo_and_its_queries_run() {
    let lake = Lake::new();
    let demo = bare(&["demo", "--lake", lake.path()]).expect(0);
    let (runs, queries) = demo.stdout.split_once("duckdb -init ").unwrap();
    for run in ["First sync", "Second sync"] {
        assert!(runs.contains(run), "{runs}");
    }
    assert!(runs.contains("Read 9 of 9 projects"), "{runs}");
    let (views, queries) = queries.split_once('\n').unwrap();
    let views = fs::read_to_string(views).unwrap();
    let statements: Vec<&str> = queries
        .split(';')
        .filter(|statement| statement.contains("SELECT"))
        .collect();
    assert_eq!(statements.len(), 4, "{queries}");
    let opened = [vec![views.as_str()], statements.clone()].concat();
    for (statement, rows) in statements.iter().zip(&rows(&opened)[1..]) {
        assert!(!rows.is_empty(), "no rows: {statement}");
    }

    // It refuses a directory that it did not create.
    let foreign = Lake::new();
    fs::create_dir(foreign.path()).unwrap();
    fs::write(format!("{}/precious", foreign.path()), "work").unwrap();
    let refused = bare(&["demo", "--lake", foreign.path()]).expect(1);
    assert!(refused.stderr.contains("not empty"), "{}", refused.stderr);
    assert_eq!(foreign.files().len(), 1);
}

/// Starts the simulated account as a server. Returns the variables that it prints.
fn served(more: &[&str]) -> (Child, BTreeMap<String, String>) {
    let mut server = bare_command(&[&["sim", "--port", "0", "--executions", "200"], more].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut exports = BTreeMap::new();
    while exports.len() < 2 {
        let line = lines.next().unwrap().unwrap();
        if let Some((name, value)) = line
            .strip_prefix("export ")
            .and_then(|it| it.split_once('='))
        {
            exports.insert(name.to_owned(), value.to_owned());
        }
    }
    (server, exports)
}

/// Returns the report of a `sync` from a server, and stops the server with a signal.
fn synced_from(more: &[&str], lake: &Lake) -> Value {
    let (mut server, exports) = served(more);
    let mut sync: Command = bare_command(&["sync", "--output", "json", "--lake", lake.path()]);
    sync.envs(exports)
        .env("HARNESS_LAKE_REQUESTS_PER_MINUTE", "6000");
    let report = Run::of(sync.output().unwrap()).expect(0).json();
    signal(&server, "TERM");
    assert_eq!(server.wait().unwrap().code(), Some(0));
    report
}

#[test]
fn sim_serves_a_sync_and_stops_on_a_signal() {
    let report = synced_from(&[], &Lake::new());
    assert!(report["executions"]["inserted"].as_u64().unwrap() > 100);
}

#[test]
fn sim_can_serve_another_time() {
    let lakes = ["2026-11-20T15:00:00Z", "2026-11-20T16:00:00Z"].map(|now| {
        let lake = Lake::new();
        let report = synced_from(&["--history-until", "2026-11-24", "--now", now], &lake);
        (lake, report["covered_to"].clone())
    });
    for ((_, covered_to), minute) in lakes.iter().zip(["2026-11-20T14:55", "2026-11-20T15:55"]) {
        assert!(covered_to.as_str().unwrap().starts_with(minute));
    }
    // Both lakes show one account, so the later one has every execution of the earlier one.
    let [earlier, later] = lakes.map(|(lake, _)| rows(&[&starts(&lake)]).remove(0));
    assert!(earlier.len() > 100 && earlier.len() <= later.len());
    assert!(earlier.iter().all(|row| later.contains(row)));
}

/// Returns a query for the id and start of each execution.
fn starts(lake: &Lake) -> String {
    let table = lake.table("executions");
    format!("SELECT plan_execution_id, epoch_ms(start_ts) FROM {table}")
}
