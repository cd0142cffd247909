//! A source that fails for a while: no row is lost or duplicated, and runs end.

use std::collections::HashSet;
use std::thread;
use std::time::Duration;

use harness_sim::{AccountSpec, Endpoint, FaultKind, Match};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{Lake, Sim, compare, now, rows};

/// A lookback longer than the account's history.
const ALL: [&str; 2] = ["--lookback", "37d"];

const SMALL_PAGES: [&str; 2] = ["--page-size", "10"];

/// Runs cases with real waits concurrently, each with its own server and lake.
fn at_once<T: Sync>(cases: &[T], case: impl Fn(&T) + Sync) {
    let case = &case;
    for some in cases.chunks(10) {
        thread::scope(|scope| {
            for one in some {
                scope.spawn(move || case(one));
            }
        });
    }
}

/// Runs once and expects every row, and a failure of the forbidden project only.
fn one_run_is_right(sim: &Sim, kind: &FaultKind, arguments: &[&str]) -> Value {
    let lake = Lake::new();
    let run = sim.sync(&lake, arguments).expect(3);
    let report = run.json();
    assert_ne!(sim.faults().injected(), 0, "{kind:?}");
    assert_eq!(report["scopes"]["failed"], 1, "{kind:?}: {report}");
    assert_eq!(report["gaps"], 1, "{kind:?}: {report}");
    sim.assert_truth(&lake);
    report
}

#[test]
fn responses_that_fail_once_are_retried() {
    let kinds = [
        FaultKind::Html200,
        FaultKind::TruncatedBody,
        FaultKind::MalformedJson,
        FaultKind::ResetMidBody,
        FaultKind::EmptyBody,
        FaultKind::Status(500),
        FaultKind::Status(503),
        FaultKind::TooManyRequests {
            retry_after: Some(1),
        },
        FaultKind::TooManyRequests { retry_after: None },
        FaultKind::TooManyRequestsAs400,
    ];
    at_once(&kinds, |kind| {
        let sim = Sim::small();
        // Faults do not change refusals, so the forbidden project must not consume the fault.
        let readable = Match::executions().of(sim.readable()[0].clone());
        let lists = [Endpoint::Orgs, Endpoint::Projects].map(Match::endpoint);
        for when in lists.into_iter().chain([readable]) {
            sim.faults().times(1, when, kind.clone());
        }
        let report = one_run_is_right(&sim, kind, &[]);
        assert_eq!(sim.faults().injected(), 3);
        let is_throttled = matches!(
            kind,
            FaultKind::TooManyRequests { .. } | FaultKind::TooManyRequestsAs400
        );
        let throttled = report["requests"]["rate_limited"].as_u64();
        assert_eq!(
            throttled,
            Some(if is_throttled { 3 } else { 0 }),
            "{kind:?}"
        );
        // If the connection breaks before a response has begun, the HTTP library may retry.
        let least = match kind {
            FaultKind::TruncatedBody | FaultKind::ResetMidBody => 1,
            _ => 3,
        };
        let retried = report["requests"]["retried"].as_u64().unwrap();
        assert!((least..=3).contains(&retried), "{kind:?}: {retried}");
    });
}

#[test]
fn inconsistent_pages_are_read_again() {
    let page = Match::executions().page(1);
    let cases = [
        (2, Match::executions(), FaultKind::WrongTotal(2)),
        (2, Match::executions(), FaultKind::WrongTotal(-1)),
        (9, Match::executions(), FaultKind::DuplicateLastRow),
        (9, page.clone(), FaultKind::ShiftedPage),
        (2, page.clone(), FaultKind::RepeatPage),
        (2, page, FaultKind::RowsVanish),
        (1, Match::executions(), FaultKind::Unauthorized),
    ];
    at_once(&cases, |(times, when, kind)| {
        let sim = Sim::small();
        sim.faults().times(*times, when.clone(), kind.clone());
        one_run_is_right(&sim, kind, &SMALL_PAGES);
    });
}

#[test]
fn persistently_inconsistent_pages_lose_nothing() {
    for kind in [FaultKind::DuplicateLastRow, FaultKind::ShiftedPage] {
        let sim = Sim::small();
        sim.faults().always(Match::executions(), kind.clone());
        one_run_is_right(&sim, &kind, &SMALL_PAGES);
    }
}

#[test]
fn unmet_total_leaves_a_gap_that_the_next_run_fills() {
    for wrong in [3, -1] {
        let sim = Sim::small();
        let lake = Lake::new();
        let bad = sim.busy()[0].clone();
        let when = Match::executions().of(bad.clone());
        sim.faults().always(when, FaultKind::WrongTotal(wrong));

        let report = sim.sync(&lake, &[]).expect(3).json();
        assert_eq!(report["scopes"]["failed"], 2, "{report}");
        assert!(2 <= report["gaps"].as_u64().unwrap(), "{report}");
        let failure = failure_of(&report, bad.project.as_str());
        assert_eq!(failure["code"], "partial");
        let message = failure["message"].as_str().unwrap();
        assert!(message.contains("are incomplete"), "{message}");
        sim.assert_truth(&lake);
        let status = sim.run(&["status", "--lake", lake.path()]).expect(0);
        assert!(
            status.stdout.contains(&bad.to_string()),
            "{}",
            status.stdout
        );

        sim.faults().clear();
        sim.server().clear_requests();
        sim.advance(SignedDuration::from_mins(1));
        let report = sim.sync(&lake, &[]).expect(3).json();
        assert_eq!([&report["gaps"], &report["scopes"]["failed"]], [1, 1]);
        sim.assert_truth(&lake);
    }
}

#[test]
fn all_pages_are_read_if_the_server_sends_no_total() {
    for rows in [7, 1_000] {
        let sim = Sim::small();
        let lake = Lake::new();
        sim.faults()
            .always(Match::executions(), FaultKind::NoTotal(rows));
        let report = sim.sync(&lake, &[]).expect(3).json();
        assert_eq!(report["gaps"], 1, "the forbidden project's");
        assert!(report["drift"]["odd_values"]["totalElements"].is_object());
        sim.assert_truth(&lake);
        sim.advance(SignedDuration::from_hours(30));
        sim.sync(&lake, &ALL).expect(3);
        sim.assert_truth(&lake);
    }
}

#[test]
fn total_that_ignores_the_window_costs_bounded_requests() {
    let sim = Sim::small();
    let lake = Lake::new();
    let bad = sim.busy()[0].clone();
    let when = Match::executions().of(bad.clone());
    sim.faults().always(when, FaultKind::FixedTotal(50_000));
    let report = sim.sync(&lake, &[]).expect(3).json();
    assert_eq!(failure_of(&report, bad.project.as_str())["code"], "partial");
    let requests = report["requests"]["total"].as_u64().unwrap();
    assert!(requests < 100, "{requests}");

    sim.faults().clear();
    sim.advance(SignedDuration::from_mins(1));
    let report = sim.sync(&lake, &[]).expect(3).json();
    assert_eq!(report["gaps"], 1, "the forbidden project's");
    sim.assert_truth(&lake);
}

#[test]
fn missing_start_times_fail_only_their_project() {
    let spec = AccountSpec {
        orgs: 1,
        projects_per_org: 2,
        executions: 3_000,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    let [bad, good] = &sim.readable()[..] else {
        panic!("two projects");
    };
    let of_bad = Match::executions().of(bad.clone());
    sim.faults().always(of_bad, FaultKind::NoStart);
    let report = sim.sync(&lake, &[]).expect(3).json();
    let message = report["failures"][0]["message"].as_str().unwrap();
    assert!(message.contains("have no `startTs`"), "{message}");
    let others = sim.truth_without(std::slice::from_ref(bad));
    let is_others = format!("project_id = '{}'", good.project);
    assert_eq!(
        executions(&lake, &is_others),
        others.executions.len() as u64
    );
    assert!(report["open_executions"].as_u64().unwrap() <= 1_000);

    sim.faults().clear();
    let report = sim.sync(&lake, &[]).expect(0).json();
    assert_eq!(report["gaps"], 0);
    sim.assert_truth(&lake);
}

fn failure_of<'a>(report: &'a Value, project: &str) -> &'a Value {
    let failures = report["failures"].as_array().unwrap();
    let of_it = |failure: &&Value| failure["project"] == *project;
    failures
        .iter()
        .find(of_it)
        .unwrap_or_else(|| panic!("{report}"))
}

#[test]
fn endlessly_repeated_first_page_does_not_block_a_run() {
    let sim = Sim::small();
    let lake = Lake::new();
    let bad = sim.busy()[0].clone();
    let when = Match::executions().of(bad.clone());
    sim.faults().always(when, FaultKind::RepeatPage);
    sim.sync(&lake, &SMALL_PAGES).expect(3);
    let others = sim.truth_without(std::slice::from_ref(&bad));
    let is_others = format!("project_id <> '{}'", bad.project);
    assert_eq!(
        executions(&lake, &is_others),
        others.executions.len() as u64
    );
    let twice = format!(
        "SELECT plan_execution_id FROM {} GROUP BY ALL HAVING 1 < count(*)",
        lake.table("executions")
    );
    assert_eq!(rows(&[&twice])[0], Vec::<Vec<Value>>::new());

    sim.faults().clear();
    sim.advance(SignedDuration::from_mins(1));
    let report = sim.sync(&lake, &[]).expect(3).json();
    assert_eq!(report["gaps"], 1);
    sim.assert_truth(&lake);
}

/// Returns the number of `executions` rows that match a condition.
fn executions(lake: &Lake, condition: &str) -> u64 {
    let query = format!(
        "SELECT count(*) FROM {} WHERE {condition}",
        lake.table("executions")
    );
    rows(&[&query])[0][0][0].as_u64().unwrap()
}

#[test]
fn unknown_status_is_kept_and_counted() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.faults()
        .always(Match::executions(), FaultKind::UnknownStatus);
    let report = sim.sync(&lake, &SMALL_PAGES).expect(3).json();
    let unknown = executions(&lake, "status = 'Frobnicating'");
    assert!(unknown > 10);
    let as_promised = "status = 'Frobnicating' AND status_category = 'unknown'
                       AND is_terminal = (end_ts IS NOT NULL)";
    assert_eq!(executions(&lake, as_promised), unknown);
    assert_eq!(
        executions(&lake, "true"),
        sim.truth().executions.len() as u64
    );
    let counted = &report["drift"]["unknown_statuses"]["Frobnicating"]["count"];
    assert_eq!(counted.as_u64(), Some(unknown), "{}", report["drift"]);
    heals(&sim, &lake);
}

/// Heals the source and expects every row after all windows are read again.
fn heals(sim: &Sim, lake: &Lake) {
    sim.faults().clear();
    sim.advance(SignedDuration::from_mins(15));
    sim.sync(lake, &ALL).expect(3);
    sim.assert_truth(lake);
}

#[test]
fn unknown_fields_are_kept_and_counted() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.faults()
        .always(Match::executions(), FaultKind::ExtraField);
    let report = sim.sync(&lake, &[]).expect(3).json();
    sim.assert_truth(&lake);
    let all = sim.truth().executions.len() as u64;
    let field = r#"{"of":["a",null,1.5],"yes":true}"#;
    let holds = |path: &str| format!("json_extract(extra, '{path}')::VARCHAR = '{field}'");
    assert_eq!(executions(&lake, &holds("$.brandNewField")), all);
    let of_trigger = "$.executionTriggerInfo.brandNewModule";
    let triggered = format!(
        "SELECT count(*) FROM {} WHERE json_exists(summary, '{of_trigger}')",
        lake.table("_raw")
    );
    let triggered = rows(&[&triggered])[0][0][0].as_u64().unwrap();
    assert!(triggered > 0);
    assert_eq!(executions(&lake, &holds(of_trigger)), triggered);
    let of_module = format!("json_extract(module_info, '$.brandNewModule')::VARCHAR = '{field}'");
    assert!(0 < executions(&lake, &of_module));
    let stages = format!(
        "SELECT count(*), count_if({}) FROM {}",
        holds("$.brandNewField"),
        lake.table("stages")
    );
    let stages = &rows(&[&stages])[0][0];
    assert_eq!(stages[0], stages[1], "every stage keeps it");

    let unknown = report["drift"]["unknown_fields"].as_object().unwrap();
    assert_eq!(unknown["brandNewField"]["count"].as_u64(), Some(all));
    assert!(
        unknown.contains_key("layoutNodeMap.*.brandNewField"),
        "{unknown:?}"
    );
    heals(&sim, &lake);
}

#[test]
fn nulls_are_read_in_every_nullable_field() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.faults()
        .always(Match::executions(), FaultKind::NullEverywhere);
    sim.sync(&lake, &[]).expect(3);
    let truth = sim.truth();
    assert_eq!(executions(&lake, "true"), truth.executions.len() as u64);
    assert_eq!(
        executions(&lake, "pipeline_name IS NOT NULL OR len(modules) > 0"),
        0
    );
    let stages = format!("SELECT count(*) FROM {}", lake.table("stages"));
    assert_ne!(rows(&[&stages])[0][0][0], 0);
    heals(&sim, &lake);
}

#[test]
fn lagging_replicas_lose_nothing_and_reopen_nothing() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    sim.advance(SignedDuration::from_mins(90));
    sim.sync(&lake, &[]).expect(3);
    let ended = executions(&lake, "is_terminal");

    // Every response is now older than those before, although its date is newer.
    sim.advance(SignedDuration::from_mins(2));
    let lag = Duration::from_secs(280);
    sim.faults()
        .always(Match::executions(), FaultKind::StaleAnswer(lag));
    sim.sync(&lake, &[]).expect(3);
    assert!(
        ended <= executions(&lake, "is_terminal"),
        "what had ended is not reopened"
    );
    let read = sim.truth().executions.len() as u64;
    assert_eq!(
        executions(&lake, "true"),
        read,
        "the window lag covers the replica's"
    );
    heals(&sim, &lake);
}

#[test]
fn key_revoked_during_a_run_ends_it() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.faults()
        .always(Match::executions(), FaultKind::Unauthorized);
    let run = sim.sync(&lake, &[]).expect(4);
    assert_eq!(run.error_code(), "invalid_credentials");
    let reports: Vec<Value> = lake
        .files()
        .iter()
        .filter(|(path, _)| path.starts_with("_runs/"))
        .map(|(_, bytes)| serde_json::from_slice(bytes).unwrap())
        .collect();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0]["outcome"], "failed");
    assert_eq!(failure_of(&reports[0], "")["code"], "invalid_credentials");

    sim.faults().clear();
    sim.sync(&lake, &[]).expect(3);
    sim.assert_truth(&lake);
}

#[test]
fn newly_permitted_project_is_read_from_its_start() {
    let sim = Sim::small();
    let lake = Lake::new();
    let forbidden = sim.account().forbidden_scope().unwrap();
    let taken = sim.busy()[0].clone();
    sim.sync(&lake, &[]).expect(3);

    sim.server().forbid(taken.clone());
    sim.advance(SignedDuration::from_hours(2));
    let report = sim.sync(&lake, &[]).expect(3).json();
    assert_eq!(report["scopes"]["failed"], 2);
    assert_eq!(
        failure_of(&report, taken.project.as_str())["code"],
        "invalid_permissions"
    );

    sim.server().allow(&taken);
    sim.server().allow(&forbidden);
    sim.advance(SignedDuration::from_hours(1));
    let report = sim.sync(&lake, &ALL).expect(0).json();
    assert_eq!(report["outcome"], "success");
    assert_eq!(report["gaps"], json!(0));
    assert_eq!(report["failures"], json!([]));
    let truth = sim.truth_of_all();
    assert!(sim.truth().executions.len() < truth.executions.len());
    assert_eq!(compare(lake.path(), &truth, &HashSet::new()), None);
}

#[test]
fn project_beyond_the_page_cap_is_read_in_parts() {
    let spec = AccountSpec {
        orgs: 1,
        projects_per_org: 1,
        executions: 10_600,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    let report = sim.sync(&lake, &[]).expect(0).json();
    // A window has no gap only if its row count equals the server's total.
    assert_eq!(report["gaps"], 0);
    let all = report["executions"]["inserted"].as_u64().unwrap();
    assert!(all > 10_000);
    let counts = "SELECT count(*), count(DISTINCT plan_execution_id) FROM";
    let counts = format!("{counts} {}", lake.table("executions"));
    assert_eq!(rows(&[&counts])[0], [[json!(all), json!(all)]]);
}
