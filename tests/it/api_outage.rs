//! A source that answers no request at all: the run ends soon, whatever the number of projects.

use std::fs;
use std::time::Duration;

use harness_sim::{AccountSpec, FaultKind, Match, Scope};
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, now};

/// A backfill of a part of the history of the account.
const BACKFILL: &[&str] = &["backfill", "--from", "2026-11-01", "--to", "2026-11-24"];

fn sim_of_100_projects() -> Sim {
    let spec = AccountSpec {
        orgs: 4,
        projects_per_org: 25,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |_| {})
}

/// Runs a command that waits only a thirtieth of the usual time for its retries.
fn hurried(sim: &Sim, lake: &Lake, command: &[&str]) -> Run {
    let more = ["--output", "json", "--lake", lake.path()];
    let mut command = sim.command(&[command, &more].concat());
    command.env("HARNESS_LAKE_HURRY", "30");
    command.env("HARNESS_LAKE_REPORT", report_file(lake));
    Run::of(command.output().unwrap())
}

fn report_file(lake: &Lake) -> String {
    lake.beside("report.json")
}

fn requests(sim: &Sim) -> u64 {
    sim.server().requests().by_endpoint.values().sum()
}

#[track_caller]
fn run_has_ended_soon(sim: &Sim, run: &Run) {
    assert_eq!(run.code, Some(9), "{run:?}");
    // Three rounds of 16 requests with six attempts at most, lists and some probes.
    assert!(requests(sim) < 330, "{} requests", requests(sim));
    let lines = run.stderr.lines();
    let warnings = lines.filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert!(warnings.count() <= 10, "{}", run.stderr);
}

#[test]
fn outage_of_the_api_ends_a_run_with_few_requests() {
    for kind in [
        FaultKind::Status(503),
        FaultKind::SlowBody(Duration::from_secs(10)),
    ] {
        let (sim, lake) = (sim_of_100_projects(), Lake::new());
        sim.faults().always(Match::executions(), kind);
        for command in [&["sync"][..], BACKFILL] {
            sim.server().clear_requests();
            let run = hurried(&sim, &lake, command);
            run_has_ended_soon(&sim, &run);
            let report = fs::read_to_string(report_file(&lake)).unwrap();
            let report: Value = serde_json::from_str(&report).unwrap();
            let scopes = json!({ "total": 100, "ok": 0, "failed": 0 });
            assert_eq!(report["scopes"], scopes, "the rest is unread: {report}");
        }
        sim.faults().clear();
        sim.sync(&lake, &[]).expect(0);
        sim.assert_truth(&lake);
    }
}

#[test]
fn check_and_plan_end_soon_in_an_outage() {
    let (sim, lake) = (sim_of_100_projects(), Lake::new());
    sim.faults()
        .always(Match::executions(), FaultKind::Status(503));
    for command in [&["check"][..], &["plan", "sync"]] {
        sim.server().clear_requests();
        run_has_ended_soon(&sim, &hurried(&sim, &lake, command));
    }
}

#[test]
fn outage_that_begins_during_a_check_fails_it() {
    let (sim, lake) = (sim_of_100_projects(), Lake::new());
    let check = hurried(&sim, &lake, &["check"]).expect(0).json();
    let first = &check["scopes"][0]["scope"];
    let is_first = |scope: &Scope| *first == scope.to_string();
    for scope in sim.readable() {
        if !is_first(&scope) {
            let of_scope = Match::executions().of(scope);
            sim.faults().always(of_scope, FaultKind::Status(503));
        }
    }
    let run = hurried(&sim, &lake, &["check"]).expect(9);
    let error = run.json()["error"]["message"].to_string();
    assert!(error.contains("the API is unavailable"), "{error}");
}

#[test]
fn no_lake_is_created_while_its_period_cannot_be_chosen() {
    let (sim, lake) = (sim_of_100_projects(), Lake::new());
    sim.faults()
        .always(Match::executions(), FaultKind::Status(503));
    hurried(&sim, &lake, &["sync", "--period", "auto"]).expect(9);
    assert!(!fs::exists(lake.path()).unwrap());
    sim.faults().clear();
    let report = hurried(&sim, &lake, &["sync", "--period", "auto"]).expect(0);
    assert_eq!(report.json()["chosen_period"]["period"], "month");
    sim.assert_truth(&lake);
}

#[test]
fn short_outage_does_not_end_a_run() {
    let (sim, lake) = (sim_of_100_projects(), Lake::new());
    sim.faults()
        .times(34, Match::executions(), FaultKind::Status(503));
    let report = hurried(&sim, &lake, &["sync"]).expect(0).json();
    assert_eq!(report["gaps"], 0, "{report}");
    assert_eq!(report["failures"], Value::from([Value::Null; 0]));
    sim.assert_truth(&lake);
}

#[test]
fn project_that_times_out_is_no_outage() {
    let sim = Sim::start(
        &AccountSpec {
            forbidden_project: false,
            ..AccountSpec::small(now())
        },
        |_| {},
    );
    let lake = Lake::new();
    let bad = sim.busy()[1].clone();
    let hang = FaultKind::SlowBody(Duration::from_secs(30));
    sim.faults()
        .always(Match::executions().of(bad.clone()), hang);
    let run = hurried(&sim, &lake, &["sync", "--deadline", "100s"]).expect(3);
    let failures = run.json()["failures"].clone();
    assert_eq!(failures.as_array().unwrap().len(), 1, "{failures}");
    assert_eq!(failures[0]["project"], json!(bad.project));
}
