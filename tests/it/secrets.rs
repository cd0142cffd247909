//! The key's secret appears in no output, log, report or file of a lake.
//!
//! The support code searches the output of every test run. Here the log is at its most verbose, and
//! the decompressed files are searched too.

use std::thread;

use harness_sim::{FaultKind, Match};

use crate::support::{Lake, Run, SECRET, Sim, rows};

/// Runs a command with the most verbose log level.
fn loud(sim: &Sim, key: &str, arguments: &[&str]) -> Run {
    let mut command = sim.command(arguments);
    command.env("RUST_LOG", "trace").env("HARNESS_API_KEY", key);
    Run::of(command.output().unwrap())
}

#[test]
fn lake_and_verbose_log_contain_no_secret() {
    let sim = Sim::small();
    let lake = Lake::new();
    let report = lake.beside("report.json");
    sim.faults()
        .times(2, Match::executions(), FaultKind::Html200);
    let key = sim.server().api_key();
    let metrics = lake.beside("run.prom");
    let sync = ["sync", "--lake", lake.path(), "--report", &report];
    let sync = [&sync[..], &["--metrics-file", &metrics]].concat();
    let run = loud(&sim, key, &sync).expect(3);
    assert!(run.stderr.contains("TRACE"), "the log is loud");
    let check = ["check", "--lake", lake.path(), "--log-format", "json"];
    loud(&sim, key, &check).expect(0);
    loud(&sim, key, &["status", "--lake", lake.path()]).expect(0);

    for file in [report, metrics] {
        assert!(!std::fs::read_to_string(file).unwrap().contains(SECRET));
    }
    for (path, bytes) in lake.files() {
        let text = if path.starts_with("_state/checkpoints/") {
            zstd::decode_all(bytes.as_slice()).unwrap()
        } else {
            bytes
        };
        assert!(!String::from_utf8_lossy(&text).contains(SECRET), "{path}");
    }
    let tables = [
        "_raw",
        "executions",
        "stages",
        "deployments",
        "commits",
        "orgs",
        "projects",
        "scopes",
    ];
    let searches = tables.map(|table| {
        let from = lake.table(table);
        format!("SELECT count(*), count_if(to_json(t)::VARCHAR LIKE '%{SECRET}%') FROM {from} t")
    });
    let searches: Vec<&str> = searches.iter().map(String::as_str).collect();
    for (search, found) in searches.iter().zip(rows(&searches)) {
        assert_ne!(found[0][0], 0, "{search}");
        assert_eq!(found[0][1], 0, "{search}");
    }
}

#[test]
fn refused_key_is_not_printed() {
    let sim = Sim::small();
    let lake = Lake::new();
    let account = sim.account().id();
    let cases = [
        (format!("pat.{account}.other.{SECRET}"), 4),
        (format!("pat.{account}.\u{1}.{SECRET}"), 4),
        (format!("pat.another.tests.{SECRET}"), 4),
        (format!("{SECRET}-of-an-old-kind"), 2),
    ];
    // A key counts as invalid only after a second refusal, some seconds later.
    thread::scope(|scope| {
        for (key, exit) in &cases {
            for output in ["text", "json"] {
                let sync = ["sync", "--lake", lake.path(), "--output", output];
                let sim = &sim;
                scope.spawn(move || loud(sim, key, &sync).expect(*exit));
            }
        }
    });
}

#[test]
fn key_as_an_argument_is_refused_and_not_printed() {
    let sim = Sim::small();
    let key = sim.server().api_key();
    for flag in ["--api-key", "--key", "--token"] {
        sim.run(&["check", &format!("{flag}={key}")]).expect(2);
        sim.run(&["check", flag, key]).expect(2);
    }
}
