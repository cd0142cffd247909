//! Delta tables, read by four other programs: the same rows as the tables, and each read one committed state.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use harness_sim::AccountSpec;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::stores::ObjectServer;
use crate::support::{Lake, Run, Sim, bare_command, interpreter, now};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/delta.py");

/// The readers; Sail has the API of Spark, but is not Spark.
const READERS: [&str; 4] = ["duckdb", "deltalake", "polars", "sail"];

/// Reads beside runs. The goal was measured with 1,000.
const READS: usize = 40;

/// A process that reads Delta tables.
struct Readers {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Drop for Readers {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Readers {
    fn start(server: Option<&ObjectServer>) -> Self {
        let mut command = Command::new(interpreter());
        command.arg(SCRIPT);
        let mut command = match server {
            Some(server) => server.at(command),
            None => command,
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    fn ask(&mut self, request: &Value) {
        writeln!(self.stdin, "{request}").unwrap();
    }

    #[track_caller]
    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(
            answer["error"].is_null(),
            "{}",
            answer["error"].as_str().unwrap_or_default()
        );
        answer["answer"].clone()
    }

    #[track_caller]
    fn get(&mut self, request: &Value) -> Value {
        self.ask(request);
        self.answer()
    }
}

fn account() -> Sim {
    let spec = AccountSpec {
        executions: 300,
        days: 6,
        future_hours: 240,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |_| {})
}

/// Runs `sync` on a lake with Delta tables, after new executions and changes of old ones.
fn sync(sim: &Sim, lake: &Lake) {
    sim.advance(SignedDuration::from_hours(9));
    let mut command = sim.command(&["sync", "--lake", lake.path()]);
    command.env("HARNESS_LAKE_PERIOD", "auto");
    Run::of(command.output().unwrap()).expect(0);
}

fn verified(lake: &Lake) {
    let run = bare_command(&["verify", "--output", "json", "--lake", lake.path()]).output();
    assert_eq!(
        Run::of(run.unwrap()).expect(0).json()["findings"],
        json!([])
    );
}

#[test]
fn delta_tables_equal_the_tables_in_every_reader() {
    let mut readers = Readers::start(None);
    for period in ["day", "month"] {
        let (sim, lake) = (account(), Lake::new());
        let first = [
            "sync",
            "--lake",
            lake.path(),
            "--delta",
            "on",
            "--period",
            period,
        ];
        sim.run(&first).expect(0);
        sync(&sim, &lake);
        assert_eq!(
            readers.get(&json!(["compare", lake.path(), READERS])),
            json!({}),
            "{period}"
        );
        verified(&lake);
        let counts = readers.get(&json!(["count", lake.path(), READERS, 0]));
        let counts: BTreeSet<u64> = counts
            .as_array()
            .unwrap()
            .iter()
            .map(|count| count.as_u64().unwrap())
            .collect();
        assert_eq!(counts.len(), 1, "all readers see the same old version");
        assert_eq!(
            readers.get(&json!(["protocol", lake.path()])),
            json!([1, 2])
        );
    }
}

#[test]
fn pinned_versions_stay_readable_through_replacing_runs() {
    let (sim, lake) = (account(), Lake::new());
    sim.run(&["sync", "--lake", lake.path(), "--delta", "on"])
        .expect(0);
    let mut readers = Readers::start(None);
    let pinned = readers.get(&json!(["pin", lake.path()]));
    for reader in READERS {
        assert_eq!(pinned[reader], pinned["duckdb"], "{reader}");
    }
    for _ in 0..10 {
        sync(&sim, &lake);
    }
    assert_eq!(readers.get(&json!(["pinned"])), pinned);
    let history = readers.get(&json!(["history", lake.path(), "duckdb"]));
    let states: BTreeSet<String> = history
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    assert!(states.len() > 10, "each run replaced objects: {history}");
    // As after seven days: no reader loses rows silently.
    assert_eq!(readers.get(&json!(["lost", lake.path()])), json!([]));
}

#[test]
fn reads_beside_replacing_runs_see_one_committed_state() {
    let (sim, lake) = (account(), Lake::new());
    sim.run(&["sync", "--lake", lake.path(), "--delta", "on"])
        .expect(0);
    let mut readers = Readers::start(None);
    // The first read of each starts its engine.
    readers.get(&json!(["watch", lake.path(), READERS, READERS.len()]));
    readers.ask(&json!(["watch", lake.path(), READERS, READS]));
    for _ in 0..4 {
        sync(&sim, &lake);
        sim.run(&["replay", "--all", "--lake", lake.path()])
            .expect(0);
    }
    let seen = readers.answer();
    let history = readers.get(&json!(["history", lake.path(), "deltalake"]));
    let committed = history.as_array().unwrap();
    let states: BTreeSet<String> = seen
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    assert_eq!(seen.as_array().unwrap().len(), READS);
    assert!(
        states.len() > 1,
        "no run replaced an object meanwhile: {states:?}"
    );
    for state in seen.as_array().unwrap() {
        assert!(
            committed.contains(state),
            "{state} is no committed state of {history}"
        );
    }
}

#[test]
fn tables_continued_by_another_writer_stay_sound() {
    let (sim, lake) = (account(), Lake::new());
    let first = [
        "sync",
        "--lake",
        lake.path(),
        "--delta",
        "on",
        "--buckets",
        "2",
    ];
    sim.run(&first).expect(0);
    let mut readers = Readers::start(None);
    let version = readers.get(&json!(["take_over", lake.path()]));
    assert!(
        version.as_u64() > Some(0),
        "it compacted the table: {version}"
    );
    sync(&sim, &lake);
    assert_eq!(
        readers.get(&json!(["compare", lake.path(), READERS])),
        json!({})
    );
    verified(&lake);
}

#[test]
fn statements_over_delta_tables_open_every_view() {
    let (sim, lake) = (account(), Lake::new());
    sim.run(&["sync", "--lake", lake.path(), "--delta", "on"])
        .expect(0);
    let ddl = ["schema", "ddl", "duckdb", "--delta", "--lake", lake.path()];
    let statements = Run::of(bare_command(&ddl).output().unwrap())
        .expect(0)
        .stdout;
    let mut readers = Readers::start(None);
    let counts = readers.get(&json!(["views", statements]));
    let executions = sim.truth().executions.len();
    assert_eq!(counts["executions"], json!(executions));
    assert!(counts["dora_metrics"].as_u64() > Some(0), "{counts}");
}

#[test]
fn delta_tables_in_a_bucket_equal_the_tables() {
    for server in [ObjectServer::moto(), ObjectServer::seaweed()] {
        let sim = account();
        let run = |arguments: &[&str]| {
            let command = sim.command(&[arguments, &["--lake", &server.lake()]].concat());
            Run::of(server.at(command).output().unwrap()).expect(0)
        };
        run(&["sync", "--delta", "on"]);
        sim.advance(SignedDuration::from_hours(9));
        // Two runs overlap; one may give way to the other.
        let overlapping = [(); 2].map(|()| {
            let mut command = server.at(sim.command(&["sync", "--lake", &server.lake()]));
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        for mut child in overlapping {
            let code = child.wait().unwrap().code();
            assert!([Some(0), Some(8)].contains(&code), "{code:?}");
        }
        run(&["sync"]);
        let mut readers = Readers::start(Some(&server));
        let compared = readers.get(&json!([
            "compare",
            &server.lake(),
            ["duckdb", "deltalake", "polars"]
        ]));
        assert_eq!(compared, json!({}));
        let findings = run(&["verify", "--output", "json"]).json();
        assert_eq!(findings["findings"], json!([]));
    }
}

#[test]
fn setting_is_kept_with_the_lake_until_it_is_turned_off() {
    let (sim, lake) = (account(), Lake::new());
    sim.run(&["sync", "--lake", lake.path()]).expect(0);
    assert!(lake.files().keys().all(|path| !path.starts_with("delta/")));
    let on = ["replay", "--delta", "on", "--lake", lake.path()];
    Run::of(bare_command(&on).output().unwrap()).expect(0);
    verified(&lake);
    let mut readers = Readers::start(None);
    assert_eq!(
        readers.get(&json!(["compare", lake.path(), ["duckdb"]])),
        json!({})
    );
    sync(&sim, &lake);
    assert_eq!(
        readers.get(&json!(["compare", lake.path(), ["duckdb"]])),
        json!({})
    );
    let off = sim
        .run(&["sync", "--delta", "off", "--lake", lake.path()])
        .expect(0);
    assert!(off.stderr.contains("can be deleted"), "{}", off.stderr);
    let delta = |lake: &Lake| {
        let mut files = lake.files();
        files.retain(|path, _| path.starts_with("delta/"));
        files
    };
    let before = delta(&lake);
    sync(&sim, &lake);
    assert!(delta(&lake) == before, "it is not written any more");
    let identity: Value = serde_json::from_slice(&lake.files()["_state/lake.json"]).unwrap();
    assert_eq!(identity["features"], json!([]));
}

#[test]
fn missing_and_damaged_copies_are_found_and_repaired() {
    let (sim, lake) = (account(), Lake::new());
    sim.run(&["sync", "--lake", lake.path(), "--delta", "on"])
        .expect(0);
    let copies: Vec<String> = lake
        .files()
        .into_keys()
        .filter(|path| path.starts_with("delta/stages/v1/start_date="))
        .collect();
    let at = |copy: &str| format!("{}/{copy}", lake.path());
    let newest = |copies: &[String]| copies.iter().rev().take(2).cloned().collect::<Vec<_>>();
    let [missing, short] = <[String; 2]>::try_from(newest(&copies)).unwrap();
    std::fs::remove_file(at(&missing)).unwrap();
    std::fs::write(at(&short), b"short").unwrap();
    let verify = || {
        let run = bare_command(&["verify", "--output", "json", "--lake", lake.path()]).output();
        Run::of(run.unwrap())
    };
    let found = verify().expect(7).json();
    let paths: BTreeSet<&str> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, BTreeSet::from([&*missing, &*short]));
    Run::of(
        bare_command(&["replay", "--lake", lake.path()])
            .output()
            .unwrap(),
    )
    .expect(0);
    verify().expect(0);
    // A damaged file of the same size is deleted first.
    let mut body = std::fs::read(at(&short)).unwrap();
    body[100] ^= 1;
    std::fs::write(at(&short), body).unwrap();
    let found = verify().expect(7).json();
    assert_eq!(
        found["findings"][0]["repair"],
        "delete the file, then run: harness-lake replay"
    );
    std::fs::remove_file(at(&short)).unwrap();
    Run::of(
        bare_command(&["replay", "--lake", lake.path()])
            .output()
            .unwrap(),
    )
    .expect(0);
    verify().expect(0);
}
