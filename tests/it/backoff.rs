//! A source that never answers well, as a whole or for one project: retries end, and tell why.
//!
//! The waits between retries are real, so all cases wait at the same time.

use std::collections::HashSet;
use std::thread;

use harness_lake::sim::{FaultKind, Match};
use jiff::SignedDuration;
use serde_json::json;

use crate::support::{Lake, Run, Sim, compare};

#[test]
fn what_never_answers_is_given_up_after_retries() {
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
        assert_eq!(run.error_code(), "source_unavailable");
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
    assert_eq!(failure["code"], "source_unavailable", "{kind:?}");
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
