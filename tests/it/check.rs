//! `check`, and the exit codes that it shares with `sync`.

use harness_sim::{AccountSpec, FaultKind, Match};
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, now};

/// Runs both commands with JSON output. They refuse the same settings.
fn both(sim: &Sim, lake: &Lake, environment: &[(&str, &str)]) -> [Run; 2] {
    ["check", "sync"].map(|command| {
        let mut command = sim.command(&[command, "--output", "json", "--lake", lake.path()]);
        command.envs(environment.iter().copied());
        Run::of(command.output().unwrap())
    })
}

fn refused(sim: &Sim, lake: &Lake, key: &str, exit: i32, code: &str) {
    for run in both(sim, lake, &[("HARNESS_API_KEY", key)]) {
        let run = run.expect(exit);
        assert_eq!(run.error_code(), code);
        assert!(run.stderr.contains("error: ") && run.stderr.contains("\n hint: "));
    }
}

#[test]
fn invalid_key_exits_with_invalid_credentials() {
    let sim = Sim::small();
    let key = sim.key_of("wrong");
    refused(&sim, &Lake::new(), &key, 4, "invalid_credentials");
}

#[test]
fn key_without_permissions_exits_with_invalid_permissions() {
    let sim = Sim::small();
    let key = sim.key_of("forbidden");
    refused(&sim, &Lake::new(), &key, 5, "invalid_permissions");
}

#[test]
fn key_without_projects_exits_with_no_resources() {
    let sim = Sim::small();
    let lake = Lake::new();
    let key = sim.key_of("norights");
    refused(&sim, &lake, &key, 6, "no_resources");
    for run in [
        sim.run(&["check", "--output", "json", "--org", "nowhere"]),
        sim.sync(&lake, &["--project", "nowhere/*"]),
    ] {
        assert_eq!(run.expect(6).error_code(), "no_resources");
    }
}

#[test]
fn check_succeeds_with_one_forbidden_project() {
    let sim = Sim::small();
    let lake = Lake::new();
    let forbidden = sim.account().forbidden_scope().unwrap();

    let run = sim
        .run(&["check", "--output", "json", "--lake", lake.path()])
        .expect(0);
    let checked = run.json();
    assert_eq!(checked["account_id"], json!(sim.account().id()));
    assert_eq!(checked["lake"]["is_new"], true);
    let scopes = checked["scopes"].as_array().unwrap();
    assert_eq!(scopes.len(), sim.account().scopes_at(now()).len());
    for scope in scopes {
        let is_forbidden = scope["scope"] == forbidden.to_string();
        assert_eq!(scope["state"] == "forbidden", is_forbidden, "{scope}");
        assert_eq!(scope["message"].is_string(), is_forbidden, "{scope}");
        let is_counted = scope["executions"].is_u64();
        assert_eq!(is_counted, !is_forbidden, "{scope}");
    }

    let text = sim.run(&["check", "--lake", lake.path()]).expect(0).stdout;
    for expected in [
        "the key is valid",
        "1 forbidden",
        &forbidden.to_string(),
        lake.path(),
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let left: Vec<_> = lake.files().into_keys().collect();
    assert_eq!(left, ["_state/lock"], "check creates no lake");
}

#[test]
fn unwritable_location_is_a_lake_error() {
    let sim = Sim::small();
    let file = Lake::new();
    std::fs::write(file.path(), "no folder").unwrap();
    let below = format!("{}/lake", file.path());
    for place in [file.path(), &below] {
        for command in ["check", "sync"] {
            let run = sim.run(&[command, "--output", "json", "--lake", place]);
            assert_eq!(run.expect(7).error_code(), "lake", "{command} {place}");
        }
    }
    for command in ["check", "sync"] {
        let run = sim.run(&[command, "--output", "json", "--lake", "ftp://host/lake"]);
        assert_eq!(run.expect(2).error_code(), "usage", "{command}");
    }
}

#[test]
fn lake_of_another_account_is_refused_and_unchanged() {
    let lake = Lake::new();
    Sim::small().sync(&lake, &[]).expect(3);
    let before = lake.files();
    let other = Sim::start(
        &AccountSpec {
            account_id: "anotherAccount-0123456".to_owned(),
            ..AccountSpec::small(now())
        },
        |_| {},
    );
    for run in both(&other, &lake, &[]) {
        let run = run.expect(7);
        assert_eq!(run.error_code(), "lake");
        let error = run.json()["error"].take();
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("anotherAccount-0123456") && message.contains("simAccount_01"));
        assert!(error["hint"].as_str().unwrap().contains("another --lake"));
    }
    let files = lake.files();
    for (path, bytes) in &before {
        assert_eq!(files.get(path), Some(bytes), "{path}");
    }
    assert_eq!(files.len(), before.len(), "{:?}", files.keys());
}

#[test]
fn check_succeeds_with_one_failing_project() {
    let sim = Sim::small();
    let bad = sim.readable()[0].clone();
    let when = Match::executions().of(bad.clone());
    sim.faults().always(when, FaultKind::Status(400));
    let checked = sim.run(&["check", "--output", "json"]).expect(0).json();
    assert_eq!(checked["lake"], Value::Null);
    let scopes = checked["scopes"].as_array().unwrap();
    let of_bad = scopes
        .iter()
        .find(|scope| scope["scope"] == bad.to_string())
        .unwrap();
    assert_eq!(of_bad["state"], "failed");
    assert!(of_bad["message"].is_string());
}

#[test]
fn check_fails_if_every_project_fails() {
    let sim = Sim::small();
    // The forbidden project returns 403, so the projects fail for different reasons.
    for scope in sim.readable() {
        let when = Match::executions().of(scope);
        sim.faults().always(when, FaultKind::Status(400));
    }
    for command in ["check", "sync"] {
        let lake = Lake::new();
        let arguments = [command, "--output", "json", "--lake", lake.path()];
        let run = sim.run(&arguments).expect(1);
        assert_eq!(run.error_code(), "failure", "{command}");
        let message = run.json()["error"]["message"].to_string();
        assert!(message.contains("for example "), "{command}: {message}");
        assert!(message.contains(": 400"), "{command}: {message}");
    }
}
