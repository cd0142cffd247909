//! Faults of the source and the network, for both server versions: no row is lost or duplicated,
//! each run ends, and its message is clear.
//!
//! The waits between retries are real, so many cases wait at the same time.

mod table;

use std::collections::HashSet;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use harness_sim::{AccountSpec, Clock, Execution, FaultKind, Match, Scope, Vintage};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use table::{Ends, Place, Row, TENS};

use crate::support::{Lake, Run, Sim, bare_command, compare, now, rows};

fn sim_of(vintage: Vintage) -> Sim {
    let spec = AccountSpec {
        forbidden_project: false,
        executions: 160,
        days: 7,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |options| options.vintage = vintage)
}

#[test]
fn faults_of_the_current_server_lose_or_duplicate_no_row() {
    every_row(Vintage::Saas);
}

#[test]
fn faults_of_an_older_server_lose_or_duplicate_no_row() {
    every_row(Vintage::Older);
}

fn every_row(vintage: Vintage) {
    for some in table::rows().chunks(9) {
        thread::scope(|scope| {
            for row in some {
                scope.spawn(move || meet(row, vintage));
            }
        });
    }
}

fn meet(row: &Row, vintage: Vintage) {
    let (sim, lake) = (sim_of(vintage), Lake::new());
    let bad = sim.busy()[1].clone();
    let executions = Match::executions();
    let when = match row.place {
        Place::Anywhere => executions,
        Place::SecondPages => executions.page(1),
        Place::OneProject => executions.of(bad.clone()),
    };
    match (&row.kind, row.times) {
        (Some(kind), Some(times)) => sim.faults().times(times, when, kind.clone()),
        (Some(kind), None) => sim.faults().always(when, kind.clone()),
        (None, _) => {}
    }
    let name = format!("{} ({vintage:?})", row.name);
    let run = sim.sync(&lake, row.arguments);
    let struck = sim.faults().injected();
    assert_eq!(row.kind.is_some(), 0 < struck, "{name}: {struck}");
    is_once(&lake, &name);
    match row.ends {
        Ends::Right => {
            let report = run.expect(0).json();
            assert_eq!(report["gaps"], 0, "{name}: {report}");
            let difference = compare(lake.path(), &sim.truth(), &HashSet::new());
            assert_eq!(difference, None, "{name}");
        }
        Ends::Partial(code, words) => {
            failed_alone(&run, &bad, code, words, &name);
            let others = sim.truth_without(std::slice::from_ref(&bad));
            let ids = others
                .executions
                .iter()
                .map(|row| &row["plan_execution_id"]);
            let stored_ids = stored_ids(&lake);
            assert!(
                ids.into_iter()
                    .all(|id| stored_ids.contains(&id.to_string())),
                "{name}"
            );
        }
        Ends::PartialButAllRows(code, words) => {
            failed_alone(&run, &bad, code, words, &name);
            let difference = compare(lake.path(), &sim.truth(), &HashSet::new());
            assert_eq!(difference, None, "{name}");
        }
        Ends::Fails(exit, code) => {
            let run = run.expect(exit);
            assert_eq!(run.error_code(), code, "{name}");
        }
    }
    sim.faults().clear();
    sim.advance(SignedDuration::from_mins(10));
    let report = sim.sync(&lake, &[]).expect(0).json();
    assert_eq!(report["gaps"], 0, "{name}: {report}");
    let difference = compare(lake.path(), &sim.truth(), &HashSet::new());
    assert_eq!(difference, None, "{name}: after the fault");
}

/// Fails unless only the bad project is reported as failed, at a bounded cost.
#[track_caller]
fn failed_alone(run: &Run, bad: &Scope, code: &str, words: &str, name: &str) {
    assert_eq!(run.code, Some(3), "{name}: {}", run.stderr);
    let report = run.json();
    let failures = report["failures"].as_array().unwrap();
    let [failure] = &failures[..] else {
        panic!("{name}: {report}");
    };
    assert_eq!(failure["project"], json!(bad.project), "{name}");
    assert_eq!(failure["code"], code, "{name}: {failure}");
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains(words), "{name}: {message}");
    let retried = report["requests"]["retried"].as_u64().unwrap();
    assert!(retried < 6, "{name}: {retried}");
}

/// Returns the ids of the executions in the lake as JSON strings.
fn stored_ids(lake: &Lake) -> HashSet<String> {
    let query = format!("SELECT plan_execution_id FROM {}", lake.table("executions"));
    rows(&[&query])[0]
        .iter()
        .map(|row| row[0].to_string())
        .collect()
}

/// Fails if an execution is duplicated. A lake without objects has no executions.
fn is_once(lake: &Lake, name: &str) {
    if lake
        .data_objects()
        .keys()
        .all(|path| !path.starts_with("executions/"))
    {
        return;
    }
    let twice = format!(
        "SELECT plan_execution_id FROM {} GROUP BY ALL HAVING 1 < count(*)",
        lake.table("executions")
    );
    assert_eq!(rows(&[&twice])[0], Vec::<Vec<Value>>::new(), "{name}");
}

#[test]
fn an_hour_of_clock_skew_either_way_costs_no_row() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the skew is against the local clock"
    )]
    let local = Timestamp::now();
    for (vintage, hours) in [
        (Vintage::Saas, 1),
        (Vintage::Saas, -1),
        (Vintage::Older, 1),
        (Vintage::Older, -1),
    ] {
        let at = local + SignedDuration::from_hours(hours);
        let spec = AccountSpec {
            forbidden_project: false,
            ..AccountSpec::small(at)
        };
        let (lake, sim) = (
            Lake::new(),
            Sim::start(&spec, |options| {
                options.vintage = vintage;
                options.clock = Clock::fixed(at);
            }),
        );
        let run = sim.sync(&lake, &[]).expect(0);
        let skew = run.json()["clock_skew_seconds"].as_i64().unwrap();
        assert!((skew - hours * 3_600).abs() < 600, "{skew}");
        assert!(
            run.stderr.contains("differs from the clock of the API"),
            "{}",
            run.stderr
        );
        sim.assert_truth(&lake);
        sim.advance(SignedDuration::from_hours(2));
        sim.sync(&lake, &[]).expect(0);
        sim.assert_truth(&lake);
    }
}

#[test]
fn project_moved_to_another_org_during_a_run_is_found() {
    for vintage in [Vintage::Saas, Vintage::Older] {
        let (sim, lake) = (sim_of(vintage), Lake::new());
        let (from, to, moved) = sim.account().moving_scope().unwrap();
        sim.sync(&lake, &[]).expect(0);
        sim.server()
            .clock()
            .set(moved - SignedDuration::from_mins(1));
        let soon = FaultKind::TimePasses(Duration::from_secs(120));
        sim.faults().times(1, Match::executions(), soon);
        let run = sim.sync(&lake, &[]);
        match vintage {
            Vintage::Saas => failed_alone(&run, &from, "failure", "404", "moved"),
            Vintage::Older => drop(run.expect(0)),
        }
        is_once(&lake, "moved");
        sim.advance(SignedDuration::from_mins(10));
        sim.sync(&lake, &["--lookback", "37d"]).expect(0);
        sim.assert_truth(&lake);
        let elsewhere = format!(
            "SELECT count(*) FROM {} WHERE project_id = '{}' AND org_id <> '{}'",
            lake.table("executions"),
            to.project,
            to.org
        );
        assert_eq!(rows(&[&elsewhere])[0], [[json!(0)]]);
    }
}

#[test]
fn rows_expired_during_a_backfill_are_no_gap() {
    for vintage in [Vintage::Saas, Vintage::Older] {
        let spec = AccountSpec {
            orgs: 1,
            projects_per_org: 1,
            ..AccountSpec::small(now())
        };
        let sim = Sim::start(&spec, |options| options.vintage = vintage);
        let lake = Lake::new();
        let from = (sim.now() - SignedDuration::from_hours(24 * 40)).to_string();
        let to = (sim.now() + SignedDuration::from_hours(24)).to_string();
        // By then, the older half of the history is past the retention.
        let months = FaultKind::TimePasses(Duration::from_secs(86_400 * 176));
        sim.faults().times(1, Match::executions().page(1), months);
        let backfill = |more: &[&str]| {
            let fixed = [
                "backfill",
                "--output",
                "json",
                "--lake",
                lake.path(),
                "--from",
                &from,
                "--to",
                &to,
                "--requests-per-minute",
                "60000",
            ];
            sim.run(&[&fixed[..], more].concat())
        };
        let report = backfill(TENS).expect(0).json();
        assert_eq!(sim.faults().injected(), 1);
        assert_eq!(report["gaps"], 0, "{report}");
        is_once(&lake, "retention");
        let stored_ids = stored_ids(&lake);
        let end = (now() - SignedDuration::from_mins(5)).as_millisecond();
        let is_read = |execution: &Execution| execution.start_ms() < end;
        let left = sim.account().truth_where(sim.now(), vintage, is_read);
        let ids = left
            .executions
            .iter()
            .map(|row| row["plan_execution_id"].to_string());
        let lost: Vec<_> = ids.filter(|id| !stored_ids.contains(id)).collect();
        assert_eq!(lost, Vec::<String>::new(), "{vintage:?}");
        assert!(left.executions.len() > 20, "something is kept still");
    }
}

#[test]
fn permissions_lost_for_a_week_lose_no_row() {
    for (vintage, kind) in [
        (Vintage::Saas, FaultKind::Forbidden),
        (Vintage::Older, FaultKind::NoRows),
    ] {
        let spec = AccountSpec {
            forbidden_project: false,
            future_hours: 240,
            ..AccountSpec::small(now())
        };
        let sim = Sim::start(&spec, |options| options.vintage = vintage);
        let lake = Lake::new();
        sim.sync(&lake, &[]).expect(0);
        let (moving, _, _) = sim.account().moving_scope().unwrap();
        let lost = sim
            .busy()
            .into_iter()
            .find(|scope| *scope != moving)
            .unwrap();
        sim.faults()
            .always(Match::executions().of(lost.clone()), kind.clone());
        for _ in 0..7 {
            sim.advance(SignedDuration::from_hours(24));
            let run = sim.sync(&lake, &[]);
            if kind == FaultKind::Forbidden {
                failed_alone(&run, &lost, "invalid_permissions", "access denied", "lost");
            } else {
                is_suspicious(&sim, &lake, &run.expect(0), &lost);
            }
        }
        sim.faults().clear();
        sim.advance(SignedDuration::from_mins(15));
        sim.sync(&lake, &["--lookback", "37d"]).expect(0);
        sim.assert_truth(&lake);
    }
}

#[test]
fn lost_permissions_keep_gaps_and_open_executions() {
    let spec = AccountSpec {
        forbidden_project: false,
        future_hours: 240,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |options| options.vintage = Vintage::Older);
    let lake = Lake::new();
    let (moving, _, _) = sim.account().moving_scope().unwrap();
    let mut others = sim.busy().into_iter().filter(|scope| *scope != moving);
    let lost = others.next().unwrap();
    let of_it = || Match::executions().of(lost.clone());
    sim.faults().always(of_it(), FaultKind::WrongTotal(3));
    let gaps = sim.sync(&lake, &[]).expect(3).json()["gaps"].take();
    assert!(gaps.as_u64().unwrap() > 0);
    sim.faults().clear();
    sim.faults().always(of_it(), FaultKind::NoRows);
    for _ in 0..4 {
        sim.advance(SignedDuration::from_hours(1));
        let report = sim.sync(&lake, &[]).expect(0).json();
        assert_eq!((&report["gaps"], &report["abandoned"]), (&gaps, &json!(0)));
    }
    sim.faults().clear();
    sim.advance(SignedDuration::from_mins(15));
    let report = sim.sync(&lake, &["--lookback", "37d"]).expect(0).json();
    assert_eq!(report["gaps"], 0);
    sim.assert_truth(&lake);
}

/// Fails unless both `sync` and `check` report the project, and no other.
fn is_suspicious(sim: &Sim, lake: &Lake, run: &Run, lost: &Scope) {
    let report = run.json();
    let [suspicious] = &report["suspiciously_empty"].as_array().unwrap()[..] else {
        panic!("{report}");
    };
    assert_eq!(suspicious["project"], json!(lost.project));
    let check = ["check", "--output", "json", "--lake", lake.path()];
    let checked = sim.run(&check).expect(0).json();
    for scope in checked["scopes"].as_array().unwrap() {
        let is_lost = scope["scope"] == lost.to_string();
        assert_eq!(scope["state"] == "suspiciously_empty", is_lost, "{scope}");
    }
}

/// Expects exit code 9, a list of attempts and no lake if no server responds.
fn unreachable(url: &str, words: &[&str]) {
    let lake = Lake::new();
    let mut command = bare_command(&["sync", "--output", "json", "--lake", lake.path()]);
    command
        .env("HARNESS_API_KEY", "pat.someAccount.id.secret")
        .env("HARNESS_BASE_URL", url);
    let run = Run::of(command.output().unwrap()).expect(9);
    assert_eq!(run.error_code(), "unavailable");
    let error = run.json()["error"].take();
    let message = error["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{url}: {message}");
    }
    assert!(
        !std::path::Path::new(lake.path())
            .join("_state/lake.json")
            .exists()
    );
}

#[test]
fn unknown_host_and_missing_tls_are_reported() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in plain.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    thread::scope(|cases| {
        cases.spawn(|| {
            unreachable(
                "https://no-such-host.invalid",
                &["GET /v1/orgs", "host of the base URL was not found"],
            );
        });
        cases.spawn(move || {
            unreachable(
                &format!("https://127.0.0.1:{port}"),
                &["GET /v1/orgs", "does not use TLS"],
            );
        });
    });
}
