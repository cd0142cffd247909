//! The log of a run: its last line, the ID in every line, and nothing else on either stream.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Lake, Run, SECRET, Sim, bare_command};

/// Runs a command with a JSON log and no `--output`. Returns its log.
#[track_caller]
fn logged(command: &mut Command, code: i32) -> Vec<Value> {
    let run = Run::of(command.output().unwrap());
    assert_eq!(run.code, Some(code), "{}", run.stderr);
    assert_eq!(run.stdout, "", "only the log is written");
    let lines = run.stderr.lines();
    let parsed = lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")));
    parsed.collect()
}

fn command(sim: &Sim, lake: &Lake, arguments: &[&str]) -> Command {
    let logged = ["--log-format", "json", "--lake", lake.path()];
    sim.command(&[arguments, &logged].concat())
}

/// Returns the fields of the line that ends a run.
#[track_caller]
fn end(log: &[Value]) -> &Value {
    let fields = log.iter().map(|line| &line["fields"]);
    let mut ends = fields.filter(|fields| fields["outcome"].is_string());
    let end = ends.next().unwrap_or_else(|| panic!("{log:?}"));
    assert_eq!(ends.next(), None, "one line ends the run");
    end
}

#[test]
fn every_line_has_the_run_id_and_one_ends_the_run() {
    let sim = Sim::small();
    let lake = Lake::new();
    let backfill = ["backfill", "--from", "2026-10-01", "--to", "2026-10-03"];
    for (arguments, code, outcome) in [
        (&["sync"][..], 3, "partial"),
        (&backfill, 3, "partial"),
        (&["replay", "--all"], 0, "success"),
    ] {
        let log = logged(&mut command(&sim, &lake, arguments), code);
        let end = end(&log);
        let message = format!("{} ended: {outcome}", arguments[0]);
        assert_eq!(
            (&end["message"], &end["exit_code"]),
            (&json!(message), &json!(code))
        );
        let run_id = end["run_id"].as_str().unwrap();
        for line in &log {
            let ids = [&line["spans"][0]["run_id"], &line["fields"]["run_id"]];
            assert!(ids.iter().any(|id| **id == *run_id), "{line}");
        }
        let report = fs::read(format!("{}/_runs/{run_id}.json", lake.path())).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(end["covered_to"], report["covered_to"]);
        assert_eq!(end["gaps"], report["gaps"]);
        assert_eq!(end["executions.inserted"], report["executions"]["inserted"]);
        assert_eq!(end["scopes.failed"], report["scopes"]["failed"]);
    }
}

#[test]
fn runs_that_fail_early_log_their_end() {
    let sim = Sim::small();
    let lake = Lake::new();
    let wrong_key = format!("pat.{}.other.{SECRET}", sim.account().id());
    let mut refused = command(&sim, &lake, &["sync"]);
    let log = logged(refused.env("HARNESS_API_KEY", wrong_key), 4);
    assert_eq!(
        (&end(&log)["outcome"], &end(&log)["exit_code"]),
        (&json!("failed"), &json!(4))
    );

    let mut keyless = command(&sim, &lake, &["sync"]);
    let log = logged(keyless.env_remove("HARNESS_API_KEY"), 2);
    assert_eq!(end(&log)["exit_code"], 2);
    let [.., error] = &log[..] else {
        panic!("{log:?}")
    };
    assert_eq!(error["fields"]["code"], "usage");
    assert_eq!(error["fields"]["run_id"], end(&log)["run_id"]);
}

#[test]
fn usage_error_is_a_line_of_the_json_log() {
    let log = logged(
        &mut bare_command(&["sync", "--log-format", "json", "--typo"]),
        2,
    );
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["fields"]["code"], "usage");
    let message = log[0]["fields"]["message"].as_str().unwrap();
    assert!(message.contains("--typo"), "{message}");
}

#[test]
fn json_result_is_one_line_in_a_pipe() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    for arguments in [&["status"][..], &["replay", "--log-format", "json"]] {
        let output = ["--output", "json", "--lake", lake.path()];
        let run = sim.run(&[arguments, &output].concat()).expect(0);
        assert_eq!(run.stdout.lines().count(), 1, "{}", run.stdout);
        assert!(run.json().is_object());
    }
}
