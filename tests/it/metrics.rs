//! `--metrics-file`, parsed by the Prometheus client library.
#![expect(
    clippy::float_cmp,
    reason = "counts are integers, and a carried time is the same text"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use harness_sim::AccountSpec;
use jiff::SignedDuration;
use serde_json::Value;

use crate::support::{Lake, Run, SECRET, Sim, interpreter, now};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/metrics.py");

/// Returns the metric families of a file.
struct Metrics(Value);

impl Metrics {
    #[track_caller]
    fn read(path: &str) -> Self {
        let text = fs::read_to_string(path).unwrap();
        assert!(!text.contains(SECRET), "{text}");
        let output = Command::new(interpreter())
            .args([SCRIPT, path])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{text}");
        let mut files: Value = serde_json::from_slice(&output.stdout).unwrap();
        Self(files[0].take())
    }

    fn has(&self, name: &str) -> bool {
        !self.0[name].is_null()
    }

    /// Returns the value of the sample that has all these labels.
    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.0[name]["samples"].as_array();
        let samples = samples.unwrap_or_else(|| panic!("no {name} in {}", self.0));
        let is_it = |sample: &&Value| labels.iter().all(|(key, value)| sample[0][key] == *value);
        let found: Vec<&Value> = samples.iter().filter(is_it).collect();
        assert_eq!(found.len(), 1, "{name} with {labels:?}: {samples:?}");
        found[0][1].as_f64().unwrap()
    }
}

#[track_caller]
fn assert_same(metric: f64, reported: &Value) {
    assert_eq!(Some(metric), reported.as_f64());
}

#[test]
fn metrics_match_the_report() {
    let sim = Sim::small();
    let lake = Lake::new();
    let file = lake.beside("sync.prom");
    let report = sim.sync(&lake, &["--metrics-file", &file]).expect(3).json();
    let metrics = Metrics::read(&file);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"));
    let page = page.unwrap();
    for (name, family) in metrics.0.as_object().unwrap() {
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/metrics.md lacks {name}"
        );
        assert_eq!(family["type"], "gauge", "{family}");
        assert_ne!(family["help"], "", "{family}");
    }
    for endpoint in ["orgs", "projects", "executions"] {
        let asked = metrics.value("harness_lake_run_requests", &[("endpoint", endpoint)]);
        assert_same(asked, &report["requests"]["by_endpoint"][endpoint]);
    }
    for change in ["inserted", "updated", "unchanged"] {
        let seen = metrics.value("harness_lake_run_executions", &[("change", change)]);
        assert_same(seen, &report["executions"][change]);
    }
    for result in ["ok", "failed"] {
        let scopes = metrics.value("harness_lake_run_scopes", &[("result", result)]);
        assert_same(scopes, &report["scopes"][result]);
    }
    let one = |name: &str| metrics.value(name, &[("command", "sync")]);
    assert_same(
        one("harness_lake_open_executions"),
        &report["open_executions"],
    );
    assert_same(one("harness_lake_gaps"), &report["gaps"]);
    assert!(0.0 < one("harness_lake_run_written_bytes"));
    assert!(0.0 <= one("harness_lake_run_duration_seconds"));

    let outcome = |name: &str| metrics.value("harness_lake_run_outcome", &[("outcome", name)]);
    let outcomes = ["success", "partial", "failed", "interrupted"].map(outcome);
    assert_eq!(outcomes, [0.0, 1.0, 0.0, 0.0], "one project is forbidden");
    let failures = |code: &str| metrics.value("harness_lake_run_failures", &[("code", code)]);
    assert_eq!(failures("invalid_permissions"), 1.0);
    assert_eq!(failures("unavailable"), 0.0);
    assert!(metrics.has("harness_lake_last_completion_timestamp_seconds"));
    assert!(!metrics.has("harness_lake_last_success_timestamp_seconds"));

    // Measured with the clock of the API: the default window lag plus the duration of the run.
    let lag = metrics.value("harness_lake_lag_seconds", &[("scope", "newest")]);
    assert!((299.0..900.0).contains(&lag), "{lag}");
}

#[test]
fn last_success_survives_a_failed_run() {
    let sim = Sim::small();
    let lake = Lake::new();
    let file = lake.beside("run.prom");
    let forbidden = sim.account().forbidden_scope().unwrap().to_string();
    let sync = ["--metrics-file", &file, "--exclude", &forbidden];
    sim.sync(&lake, &sync).expect(0);
    let name = "harness_lake_last_success_timestamp_seconds";
    let success = Metrics::read(&file).value(name, &[("command", "sync")]);

    sim.advance(SignedDuration::from_hours(1));
    let norights = sim.key_of("norights");
    let arguments = [&["sync", "--lake", lake.path()], &sync[..]].concat();
    let mut refused = sim.command(&arguments);
    Run::of(refused.env("HARNESS_API_KEY", norights).output().unwrap()).expect(6);
    let metrics = Metrics::read(&file);
    assert_eq!(metrics.value(name, &[("command", "sync")]), success);
    let failed = metrics.value("harness_lake_run_outcome", &[("outcome", "failed")]);
    let named = metrics.value("harness_lake_run_failures", &[("code", "no_resources")]);
    assert_eq!((failed, named), (1.0, 1.0));
    let lag = metrics.value("harness_lake_lag_seconds", &[("scope", "newest")]);
    assert!(3_600.0 < lag, "{lag}: as an hour ago");

    // An alert must see usage errors, too.
    let mut keyless = sim.command(&arguments);
    Run::of(keyless.env_remove("HARNESS_API_KEY").output().unwrap()).expect(2);
    let metrics = Metrics::read(&file);
    assert_eq!(
        metrics.value("harness_lake_run_failures", &[("code", "usage")]),
        1.0
    );
    assert_eq!(metrics.value(name, &[("command", "sync")]), success);
}

#[test]
fn every_command_writes_readable_metrics() {
    let sim = Sim::small();
    let lake = Lake::new();
    let file = lake.beside("run.prom");
    sim.sync(&lake, &[]).expect(3);
    let backfill = [
        "backfill",
        "--from",
        "2026-11-01",
        "--to",
        "2026-11-02",
        "--lake",
    ];
    for (arguments, command) in [
        (&backfill[..], "backfill"),
        (&["replay", "--lake"], "replay"),
    ] {
        let mut run = sim.command(arguments);
        run.arg(lake.path()).env("HARNESS_LAKE_METRICS_FILE", &file);
        Run::of(run.output().unwrap());
        let metrics = Metrics::read(&file);
        let ended = "harness_lake_run_end_timestamp_seconds";
        assert!(0.0 < metrics.value(ended, &[("command", command)]));
    }
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o444, 0o444, "{mode:o}");
    let folder = Path::new(&file).parent().unwrap();
    let hidden = fs::read_dir(folder).unwrap();
    let names = hidden.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains(".tmp")).count(), 0);
}

#[test]
fn unwritable_output_file_fails_a_successful_run() {
    let sim = Sim::small();
    let lake = Lake::new();
    // The name is too long for a file system.
    let file = lake.beside(&"x".repeat(300));
    for flag in ["--metrics-file", "--report"] {
        let run = sim.sync(&lake, &[flag, &file]).expect(3);
        assert!(run.stderr.contains(&file), "{}", run.stderr);
        let replay = [
            "replay",
            "--output",
            "json",
            "--lake",
            lake.path(),
            flag,
            &file,
        ];
        let run = sim.run(&replay).expect(1);
        assert_eq!(run.error_code(), "failure");
        assert!(run.stderr.contains(&file), "{}", run.stderr);
    }
}

#[test]
fn missing_directory_fails_before_the_run() {
    let sim = Sim::small();
    let lake = Lake::new();
    let nowhere = lake.beside("missing");
    let folder = lake.beside("");
    let run = sim.sync(&lake, &["--report", &folder]).expect(2);
    assert!(run.stderr.contains("is a directory"), "{}", run.stderr);
    let file = format!("{nowhere}/file");
    for (flag, value) in [
        ("--metrics-file", &file),
        ("--report", &file),
        ("--scratch", &nowhere),
    ] {
        let run = sim.sync(&lake, &[flag, value]).expect(2);
        assert!(
            run.stderr
                .contains(&format!("{flag}: directory `{nowhere}` does not exist"))
        );
        assert_eq!(run.error_code(), "usage");
    }
    assert!(!fs::exists(lake.path()).unwrap(), "no lake is created");
}

#[test]
fn deleted_project_counts_in_no_lag() {
    let spec = AccountSpec {
        future_hours: 100,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    // A project that moves to another organization is deleted in the old one.
    let (from, _, at) = sim.account().moving_scope().unwrap();
    sim.advance(at.duration_since(sim.now()) - SignedDuration::from_hours(1));
    let file = lake.beside("run.prom");
    let sync = || sim.sync(&lake, &["--metrics-file", &file]).expect(3);
    let lag = || Metrics::read(&file).value("harness_lake_lag_seconds", &[("scope", "oldest")]);
    let vanished = || Metrics::read(&file).value("harness_lake_run_vanished_scopes", &[]);
    sync();
    sim.advance(SignedDuration::from_hours(2));
    sync();
    assert!(lag() > 3_600.0, "one listing may be wrong: {}", lag());
    assert_eq!(vanished(), 1.0);
    for _ in 0..2 {
        sim.advance(SignedDuration::from_hours(1));
        sync();
    }
    assert!(lag() < 3_600.0, "{}", lag());

    let status = sim.run(&["status", "--output", "json", "--lake", lake.path()]);
    let status = status.expect(0).json();
    let hidden = &status["not_visible"][0];
    assert_eq!(hidden["scope"], from.to_string());
    assert!(hidden["since"].is_string() && hidden["watermark"].is_string());
    let visible = status["scopes"].as_array().unwrap();
    assert!(
        visible
            .iter()
            .all(|scope| scope["scope"] != hidden["scope"])
    );
    let status = sim.run(&["status", "--lake", lake.path()]).expect(0);
    assert!(
        status.stdout.contains("\nnot visible any more"),
        "{}",
        status.stdout
    );
}
