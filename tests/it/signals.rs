//! A run that is interrupted leaves a lake that the next run completes.

use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use harness_sim::{AccountSpec, Endpoint, FaultKind, Match};
use jiff::SignedDuration;

use crate::support::{Lake, Run, Sim, now, rows, signal};

/// Returns a slow server.
fn slow_sim() -> Sim {
    Sim::start(&AccountSpec::small(now()), |options| {
        options.latency = Duration::from_millis(150);
    })
}

/// Starts a run of about 40 sequential requests and waits until it reads executions.
fn begun(sim: &Sim, lake: &Lake) -> Child {
    let sync = ["sync", "--output", "json", "--lake", lake.path()];
    let child = sim
        .command(&sync)
        .args(["--page-size", "10", "--concurrency", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    await_requests(sim, Endpoint::Executions, 5);
    child
}

#[test]
fn signal_ends_a_run_soon_and_the_next_completes_it() {
    for name in ["TERM", "INT"] {
        let sim = slow_sim();
        let lake = Lake::new();
        let child = begun(&sim, &lake);
        let asked = Instant::now();
        signal(&child, name);
        let run = Run::of(child.wait_with_output().unwrap()).expect(10);
        assert!(asked.elapsed() < Duration::from_secs(10));
        assert_eq!(run.json()["outcome"], "interrupted");
        assert!(run.stderr.contains("interrupted"), "{}", run.stderr);

        sim.run(&["status", "--lake", lake.path()]).expect(0);
        sim.sync(&lake, &[]).expect(3);
        sim.assert_truth(&lake);
    }
}

#[test]
fn signal_keeps_a_complete_lake_complete() {
    let sim = slow_sim();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    sim.advance(SignedDuration::from_hours(30));
    sim.server().clear_requests();
    let child = begun(&sim, &lake);
    signal(&child, "TERM");
    Run::of(child.wait_with_output().unwrap()).expect(10);
    let query = format!("SELECT count(*) FROM {}", lake.table("executions"));
    assert_ne!(rows(&[&query])[0][0][0], 0);
    sim.sync(&lake, &["--lookback", "37d"]).expect(3);
    sim.assert_truth(&lake);
}

#[test]
fn killed_run_does_not_block_the_next() {
    let sim = slow_sim();
    let lake = Lake::new();
    let child = begun(&sim, &lake);
    signal(&child, "KILL");
    assert_eq!(Run::of(child.wait_with_output().unwrap()).code, None);
    sim.sync(&lake, &[]).expect(3);
    sim.assert_truth(&lake);
}

/// Spreads the kills over reading, merging, deriving and committing.
#[test]
fn run_killed_at_any_moment_duplicates_nothing() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let twice = format!(
        "SELECT count(*) - count(DISTINCT plan_execution_id) FROM {}",
        lake.table("executions")
    );
    let mut killed = 0;
    for moment in 0..16 {
        sim.advance(SignedDuration::from_mins(150));
        let sync = ["sync", "--lake", lake.path(), "--lookback", "37d"];
        let mut command = sim.command(&sync);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        thread::sleep(Duration::from_millis(moment * 40));
        signal(&child, "KILL");
        let run = Run::of(child.wait_with_output().unwrap());
        killed += usize::from(run.code.is_none());
        assert_eq!(rows(&[&twice])[0][0][0], 0, "at moment {moment}");
    }
    assert!(killed > 2, "{killed} runs were killed before their end");
    sim.sync(&lake, &["--lookback", "37d"]).expect(3);
    sim.assert_truth(&lake);
}

/// Another run can keep the lock of a local lake for minutes.
#[test]
fn signal_ends_a_run_that_waits_for_another() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let lock = std::fs::File::open(format!("{}/_state/lock", lake.path())).unwrap();
    lock.lock().unwrap();
    sim.server().clear_requests();
    let child = spawned(&sim, &["sync", "--output", "json", "--lake", lake.path()]);
    ends_on_a_signal(&sim, child, Endpoint::Projects);
    drop(lock);
    sim.sync(&lake, &[]).expect(3);
    sim.assert_truth(&lake);
}

#[test]
fn signal_ends_any_wait_for_a_response() {
    let minute = Duration::from_secs(60);
    for (command, endpoint) in [
        ("sync", Endpoint::Orgs),
        ("sync", Endpoint::Retention),
        ("sync", Endpoint::Executions),
        ("check", Endpoint::Projects),
        ("check", Endpoint::Executions),
    ] {
        let sim = Sim::small();
        let lake = Lake::new();
        let when = Match::endpoint(endpoint);
        sim.faults().always(when, FaultKind::SlowBody(minute));
        let child = spawned(&sim, &[command, "--lake", lake.path()]);
        ends_on_a_signal(&sim, child, endpoint);
    }
}

fn spawned(sim: &Sim, arguments: &[&str]) -> Child {
    let mut command = sim.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Sends the signal some time after the first request to an endpoint, so that the run is waiting.
fn ends_on_a_signal(sim: &Sim, child: Child, asked: Endpoint) {
    await_requests(sim, asked, 1);
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    signal(&child, "TERM");
    Run::of(child.wait_with_output().unwrap()).expect(10);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{asked:?}: {took:?}");
}

fn await_requests(sim: &Sim, endpoint: Endpoint, count: u64) {
    let began = Instant::now();
    let asked = || sim.server().requests().by_endpoint.get(&endpoint).copied();
    while asked().unwrap_or_default() < count {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it does not begin"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
