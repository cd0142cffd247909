//! An execution that the source can never return costs its own minute and nothing else.

use std::collections::HashSet;

use harness_sim::{AccountSpec, FaultKind, Vintage};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, compare, now, rows};

fn sim_of(vintage: Vintage) -> Sim {
    let spec = AccountSpec {
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |options| options.vintage = vintage)
}

/// A terminal execution of a busy project, in the middle of the first window, and its start.
fn victim(sim: &Sim) -> (String, Timestamp) {
    let project = &sim.busy()[1];
    let middle = sim.now() - SignedDuration::from_hours(24 * 12);
    let executions = sim.account().executions_at(sim.now());
    let of_project = executions.filter(|execution| {
        sim.account().scope_of(execution, sim.now()) == *project
            && sim.account().is_terminal_at(execution, sim.now())
    });
    let distance = |start: i64| (start - middle.as_millisecond()).abs();
    let victim = of_project.min_by_key(|execution| distance(execution.start_ms()));
    let victim = victim.unwrap();
    let start = Timestamp::from_millisecond(victim.start_ms()).unwrap();
    (victim.id(), start)
}

fn status(sim: &Sim, lake: &Lake) -> Value {
    let arguments = ["status", "--output", "json", "--lake", lake.path()];
    sim.run(&arguments).expect(0).json()
}

/// Returns the windows that failed, from `status`.
fn failed_windows(sim: &Sim, lake: &Lake) -> Vec<Value> {
    let status = status(sim, lake);
    let scopes = status["scopes"].as_array().unwrap();
    let failed = scopes
        .iter()
        .flat_map(|scope| scope["failed_windows"].as_array().unwrap());
    failed.cloned().collect()
}

#[track_caller]
fn only_minute_is_missing(
    run: &Run,
    sim: &Sim,
    lake: &Lake,
    (bad, start): &(String, Timestamp),
    name: &str,
) {
    let report = run.json();
    assert_eq!(run.code, Some(3), "{name}: {report}");
    assert_eq!(report["gaps"], 1, "{name}: {report}");
    assert_eq!(report["scopes"]["failed"], 1, "{name}: {report}");
    let but = HashSet::from([bad.clone()]);
    let difference = compare(lake.path(), &sim.truth_except(&but), &but);
    assert_eq!(difference, None, "{name}: {but:?}");
    let failed = failed_windows(sim, lake);
    let [window] = &failed[..] else {
        panic!("{name}: {failed:?}");
    };
    let at = |key: &str| window[key].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(
        at("from") <= *start && *start < at("to"),
        "{name}: {window}"
    );
    let length = at("to").duration_since(at("from"));
    assert!(length < SignedDuration::from_mins(2), "{name}: {window}");
}

#[test]
fn bad_execution_costs_its_minute_only() {
    let kinds = [
        FaultKind::Status(500),
        FaultKind::Status(504),
        FaultKind::Status(404),
        FaultKind::Status(418),
        FaultKind::MalformedJson,
        FaultKind::TruncatedBody,
        FaultKind::EmptyBody,
        FaultKind::Html200,
    ];
    let cases = kinds
        .into_iter()
        .flat_map(|kind| [Vintage::Saas, Vintage::Older].map(|vintage| (kind.clone(), vintage)));
    std::thread::scope(|scope| {
        for (kind, vintage) in cases {
            scope.spawn(move || {
                let name = format!("{kind:?} ({vintage:?})");
                let (sim, lake) = (sim_of(vintage), Lake::new());
                let victim = victim(&sim);
                sim.faults().poison(&victim.0, kind);
                let run = sim.sync(&lake, &[]);
                only_minute_is_missing(&run, &sim, &lake, &victim, &name);
                let requests = run.json()["requests"]["total"].as_u64().unwrap();
                assert!(requests < 150, "{name}: {requests} requests");

                // New executions arrive, and the gap is read once more without being searched again.
                sim.advance(SignedDuration::from_hours(5));
                let run = sim.sync(&lake, &["--lookback", "37d"]);
                only_minute_is_missing(&run, &sim, &lake, &victim, &name);
                sim.faults().clear();
                sim.advance(SignedDuration::from_mins(10));
                let report = sim.sync(&lake, &["--lookback", "37d"]).expect(0).json();
                assert_eq!(report["gaps"], 0, "{name}: {report}");
                sim.assert_truth(&lake);
                assert_eq!(failed_windows(&sim, &lake), Vec::<Value>::new(), "{name}");
            });
        }
    });
}

#[test]
fn failed_gap_is_retried_ever_more_rarely() {
    let (sim, lake) = (sim_of(Vintage::Saas), Lake::new());
    let (bad, _) = victim(&sim);
    sim.faults().poison(&bad, FaultKind::Status(500));
    let mut attempts = Vec::new();
    for _ in 0..8 {
        let run = sim.sync(&lake, &[]);
        attempts.push(run.code.unwrap());
        sim.advance(SignedDuration::from_mins(15));
    }
    // Each of the first runs retries it, then one run an hour.
    assert_eq!(attempts, [3, 3, 3, 3, 0, 0, 0, 3]);
    assert_eq!(failed_windows(&sim, &lake)[0]["attempts"], 5);
}

#[test]
fn accepted_gap_is_not_retried() {
    let (sim, lake) = (sim_of(Vintage::Saas), Lake::new());
    let (bad, start) = victim(&sim);
    sim.faults().poison(&bad, FaultKind::Status(500));
    sim.sync(&lake, &[]).expect(3);
    let day = |days: i64| (start + SignedDuration::from_hours(24 * days)).to_string();
    let backfill = [
        "backfill",
        "--output",
        "json",
        "--lake",
        lake.path(),
        "--from",
        &day(-1),
        "--to",
        &day(1),
    ];
    let report = sim
        .run(&[&backfill[..], &["--accept-gaps"]].concat())
        .expect(0)
        .json();
    assert_eq!(report["gaps"], 0, "{report}");
    let report = sim.sync(&lake, &["--lookback", "37d"]).expect(0).json();
    assert_eq!(report["gaps"], 0, "{report}");
    // A backfill of the range still reads it, and finds it once it can be returned.
    sim.faults().clear();
    sim.run(&backfill).expect(0);
    sim.assert_truth(&lake);
}

#[test]
fn failed_reread_of_a_covered_window_is_recorded() {
    let (sim, lake) = (sim_of(Vintage::Saas), Lake::new());
    let (bad, _) = victim(&sim);
    sim.sync(&lake, &[]).expect(0);
    sim.faults().poison(&bad, FaultKind::Status(500));
    sim.advance(SignedDuration::from_hours(1));
    let run = sim.sync(&lake, &["--lookback", "37d"]).expect(3);
    assert_eq!(run.json()["gaps"], 1, "{}", run.json());
    let failed = failed_windows(&sim, &lake);
    assert_eq!(failed.len(), 1, "{failed:?}");
    let query = format!(
        "SELECT count(*) FROM {} WHERE last_error_message LIKE '%incomplete%'",
        lake.table("scopes")
    );
    assert_eq!(rows(&[&query])[0], [[json!(1)]]);
    sim.faults().clear();
    sim.advance(SignedDuration::from_hours(1));
    let report = sim.sync(&lake, &[]).expect(0).json();
    assert_eq!(report["gaps"], 0, "{report}");
}

#[test]
fn bad_open_execution_does_not_stop_other_polls() {
    for vintage in [Vintage::Saas, Vintage::Older] {
        let (sim, lake) = (sim_of(vintage), Lake::new());
        sim.sync(&lake, &[]).expect(0);
        let open = sim.open_now();
        sim.advance(SignedDuration::from_hours(30));
        let bad = open.iter().min().unwrap().clone();
        sim.faults().poison(&bad, FaultKind::Status(500));
        let run = sim.sync(&lake, &[]);
        assert_eq!(run.code, Some(3), "{vintage:?}: {}", run.stderr);
        let but = [bad].into();
        let difference = compare(lake.path(), &sim.truth(), &but);
        assert_eq!(difference, None, "{vintage:?}");
    }
}
