//! A source that fails every request, for all projects or for one: retries end with the cause.
//!
//! The waits between retries are real, so all cases wait at the same time.

use std::collections::HashSet;
use std::thread;

use harness_sim::{AccountSpec, Endpoint, FaultKind, Match};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, compare, now, rows};

#[test]
fn unanswered_requests_are_abandoned_after_retries() {
    thread::scope(|cases| {
        cases.spawn(nothing_listens);
        for kind in [
            FaultKind::Html200,
            FaultKind::MalformedJson,
            FaultKind::Status(500),
        ] {
            cases.spawn(move || one_project_never_answers(&kind));
        }
    });
}

fn nothing_listens() {
    let sim = Sim::small();
    let lake = Lake::new();
    let commands = ["check", "sync"]
        .map(|command| sim.command(&[command, "--output", "json", "--lake", lake.path()]));
    sim.stop();
    let children = commands.map(|mut command| {
        use std::process::Stdio;
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    for child in children {
        let run = Run::of(child.wait_with_output().unwrap()).expect(9);
        assert_eq!(run.error_code(), "unavailable");
        assert!(run.stderr.contains("request failed"), "{}", run.stderr);
    }
    assert!(
        !std::path::Path::new(lake.path())
            .join("_state/lake.json")
            .exists()
    );
}

fn one_project_never_answers(kind: &FaultKind) {
    let sim = Sim::small();
    let lake = Lake::new();
    let bad = sim.busy()[1].clone();
    let when = Match::executions().of(bad.clone());
    sim.faults().always(when, kind.clone());

    let report = sim.sync(&lake, &[]).expect(3).json();

    let failures = report["failures"].as_array().unwrap();
    let failure = failures
        .iter()
        .find(|failure| failure["project"] == json!(bad.project));
    let failure = failure.unwrap_or_else(|| panic!("{kind:?}: {report}"));
    assert_eq!(failure["code"], "unavailable", "{kind:?}");
    assert_ne!(failure["message"], "");
    assert_eq!(
        report["scopes"]["failed"], 2,
        "this one and the forbidden one"
    );
    assert!(report["requests"]["retried"].as_u64().unwrap() >= 3);
    let truth = sim.truth_without(&[bad]);
    assert_eq!(
        compare(lake.path(), &truth, &HashSet::new()),
        None,
        "{kind:?}"
    );

    sim.faults().clear();
    sim.advance(SignedDuration::from_mins(10));
    let report = sim.sync(&lake, &[]).expect(3).json();
    assert_eq!(report["scopes"]["failed"], 1, "{kind:?}");
    assert_eq!(report["gaps"], 1, "the forbidden project's");
    sim.assert_truth(&lake);
}

#[test]
fn unlistable_organization_does_not_block_others() {
    let sim = Sim::small();
    let lake = Lake::new();
    let lists = Match::endpoint(Endpoint::Projects);
    sim.faults().times(1, lists.clone(), FaultKind::Forbidden);
    let run = sim.sync(&lake, &[]).expect(3);
    assert!(run.stderr.contains("1 organizations could not be listed"));
    let failures = run.json()["failures"].as_array().unwrap().clone();
    let of_org = |failure: &&Value| failure["project"] == "" && failure["org"] != "";
    let failure = failures.iter().find(of_org).unwrap();
    assert_eq!(failure["code"], "invalid_permissions");
    let listed = format!(
        "SELECT count(*) FROM '{}/projects/v1/*.parquet'",
        lake.path()
    );
    assert_eq!(rows(&[&listed])[0][0][0], 0, "a part is no listing");
    sim.sync(&lake, &[]).expect(3);
    sim.assert_truth(&lake);

    sim.faults().always(lists, FaultKind::Forbidden);
    assert_eq!(
        sim.sync(&lake, &[]).expect(5).error_code(),
        "invalid_permissions"
    );
    // Requests that cannot succeed are not sent.
    assert_eq!(
        sim.sync(&lake, &["--org", "nope"]).expect(6).error_code(),
        "no_resources"
    );
}

#[test]
fn forbidden_projects_do_not_hide_failing_ones() {
    let sim = Sim::small();
    let lake = Lake::new();
    let forbidden = sim.account().forbidden_scope().unwrap();
    let plan = ["plan", "sync", "--output", "json", "--lake", lake.path()];
    let plan = sim.run(&plan).expect(0).json();
    let windows = plan["windows"].as_array().unwrap();
    let of_forbidden = |window: &&Value| window["scope"] == forbidden.to_string();
    let window = windows.iter().find(of_forbidden).unwrap();
    assert_eq!(window["executions"], Value::Null);

    for scope in sim.readable() {
        let when = Match::executions().of(scope);
        sim.faults().always(when, FaultKind::Status(501));
    }
    let run = sim.sync(&lake, &["--partial-exit-code", "0"]);
    assert_eq!(run.expect(9).error_code(), "unavailable");
}

#[test]
fn received_page_is_not_waited_for() {
    let sim = Sim::start(
        &AccountSpec {
            orgs: 1,
            projects_per_org: 1,
            ..AccountSpec::small(now())
        },
        |_| {},
    );
    let lake = Lake::new();
    sim.faults()
        .times(2, Match::executions(), FaultKind::Status(504));
    let report = sim.sync(&lake, &["--page-size", "20"]).expect(0).json();
    let requests = &report["requests"];
    assert!(requests["by_endpoint"]["executions"].as_u64().unwrap() > 10);
    assert_eq!(requests["retried"], 2, "only what followed on a failure");
    sim.assert_truth(&lake);
}
