//! Runs that are cut short: each builds on the last, and together they make hardly more requests than one that is
//! not disturbed.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness_sim::{AccountSpec, Endpoint};

use crate::support::{Lake, Run, Sim, now, rows, signal};

/// Runs after which a test fails.
const MAX_RUNS: u64 = 60;

/// A backfill of most of the history of the account.
const BACKFILL: &[&str] = &["backfill", "--from", "2026-10-20", "--to", "2026-11-24"];

/// An account of 24 projects on a server with this latency.
fn slow_sim(latency: Duration) -> Sim {
    let spec = AccountSpec {
        orgs: 1,
        projects_per_org: 24,
        executions: 1_200,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |options| {
        options.latency = latency;
    })
}

fn calls(sim: &Sim) -> u64 {
    let requests = sim.server().requests();
    let executions = requests.by_endpoint.get(&Endpoint::Executions);
    executions.copied().unwrap_or_default()
}

fn arguments<'a>(command: &'a [&'a str], lake: &'a Lake) -> Vec<&'a str> {
    let more = [
        "--lake",
        lake.path(),
        "--page-size",
        "10",
        "--concurrency",
        "2",
        "--output",
        "json",
    ];
    [command, &more].concat()
}

/// Runs a command again and again, each time cut short by `end`, until it succeeds. Returns the runs.
fn run_until_complete(sim: &Sim, lake: &Lake, command: &[&str], end: impl Fn(&Sim, &Child)) -> u64 {
    for run in 1..=MAX_RUNS {
        let mut child = sim.command(&arguments(command, lake));
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        end(sim, &child);
        let ended = Run::of(child.wait_with_output().unwrap());
        match ended.code {
            Some(0) => return run,
            Some(10) | None => {}
            _ => panic!("{ended:?}"),
        }
    }
    panic!("no run of {MAX_RUNS} was complete");
}

/// Sends a signal once a run has made so many calls.
fn signal_after(name: &'static str, more: u64) -> impl Fn(&Sim, &Child) {
    move |sim, child| {
        let (before, begun) = (calls(sim), Instant::now());
        while calls(sim) < before + more && begun.elapsed() < Duration::from_secs(20) {
            thread::sleep(Duration::from_millis(2));
        }
        signal(child, name);
    }
}

/// Compares runs that are cut short with one that is not.
fn compare(command: &[&str], limit: &[&str], end: impl Fn(&Sim, &Child)) {
    let sim = slow_sim(Duration::from_millis(100));
    let undisturbed = Lake::new();
    sim.run(&arguments(command, &undisturbed)).expect(0);
    let once = calls(&sim);
    sim.server().clear_requests();
    let lake = Lake::new();
    let runs = run_until_complete(&sim, &lake, &[command, limit].concat(), end);
    let together = calls(&sim);
    assert!(runs > 2, "{runs} runs");
    assert!(
        together * 10 <= once * 13 + runs * 50,
        "{runs} runs made {together} calls instead of {once}"
    );
    let executions =
        |lake: &Lake| rows(&[&format!("FROM {} ORDER BY 1", lake.table("executions"))]);
    assert_eq!(
        executions(&lake)[0].len(),
        executions(&undisturbed)[0].len()
    );
}

fn keep(_: &Sim, _: &Child) {}

#[test]
fn sync_builds_on_runs_that_ended_by_deadline() {
    compare(&["sync"], &["--deadline", "3s"], keep);
}

#[test]
fn sync_builds_on_runs_that_were_terminated() {
    compare(&["sync"], &[], signal_after("TERM", 50));
}

#[test]
fn backfill_builds_on_runs_that_ended_by_deadline() {
    compare(BACKFILL, &["--deadline", "3s"], keep);
}

#[test]
fn backfill_builds_on_runs_that_were_terminated() {
    compare(BACKFILL, &[], signal_after("TERM", 50));
}

#[test]
fn first_run_chooses_a_period_and_reads_before_its_deadline() {
    let sim = slow_sim(Duration::from_millis(500));
    let lake = Lake::new();
    let limits = ["sync", "--period", "auto", "--deadline", "8s"];
    // A quarter of it is too short to count all 24 projects.
    let run = sim.run(&arguments(&limits, &lake)).expect(10);
    let report = run.json();
    let reason = report["chosen_period"]["reason"].as_str().unwrap();
    assert!(reason.contains("of 24 projects"), "{reason}");
    assert!(
        report["executions"]["inserted"].as_u64() > Some(0),
        "{report}"
    );
}

#[test]
fn backfill_reads_while_it_counts() {
    let sim = slow_sim(Duration::from_millis(100));
    let lake = Lake::new();
    let mut child = sim.command(&arguments(BACKFILL, &lake));
    child.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().unwrap();
    // Fewer calls than projects.
    signal_after("TERM", 20)(&sim, &child);
    let run = Run::of(child.wait_with_output().unwrap()).expect(10);
    let report = run.json();
    assert!(
        report["executions"]["inserted"].as_u64() > Some(0),
        "{report}"
    );
    let counted = report["requests"]["by_endpoint"]["executions"].as_u64();
    assert_eq!(counted, Some(calls(&sim)));
}

#[test]
fn sync_completes_what_killed_runs_left() {
    // Commits while reading are at least two seconds apart.
    let sim = slow_sim(Duration::from_millis(250));
    let lake = Lake::new();
    for run in 0..3 {
        let mut child = sim.command(&arguments(&["sync"], &lake));
        child.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = child.spawn().unwrap();
        signal_after("KILL", 80)(&sim, &child);
        let code = Run::of(child.wait_with_output().unwrap()).code;
        // A later run has less to read, and may end first.
        assert!(code.is_none() || (run > 0 && code == Some(0)), "{code:?}");
    }
    // A run of that length commits while it reads.
    assert!(!lake.data_objects().is_empty());
    sim.run(&arguments(&["sync"], &lake)).expect(0);
    sim.assert_truth(&lake);
}
