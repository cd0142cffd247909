//! A panic at any step of the protocol: reported as a bug, and the next run completes the lake.

use std::fs;

use crate::support::{Lake, Run, Sim};

/// Runs `sync` with a panic at a step.
fn panic_at(sim: &Sim, lake: &Lake, step: &str, arguments: &[&str]) -> Run {
    let sync = ["sync", "--lake", lake.path()];
    let mut command = sim.command(&[&sync, arguments].concat());
    command
        .env("HARNESS_LAKE_FAILPOINT", step)
        .env("HARNESS_LAKE_FAILPOINT_PANICS", "1");
    let run = Run::of(command.output().unwrap()).expect(1);
    let message = format!(
        "internal error: failpoint {}",
        step.split(':').next().unwrap()
    );
    assert!(run.stderr.contains(&message), "{run:?}");
    assert!(
        run.stderr.contains("report it with this message"),
        "{run:?}"
    );
    run
}

#[test]
fn panic_is_reported_as_a_bug_and_resumed() {
    // `after-stage` and `after-rename` are on blocking threads.
    for step in [
        "before-raw",
        "after-stage:2",
        "after-rename:4",
        "before-table",
        "before-record",
    ] {
        let (sim, lake) = (Sim::small(), Lake::new());
        let (scratch, metrics) = (lake.beside("scratch"), lake.beside("run.prom"));
        fs::create_dir(&scratch).unwrap();
        let arguments = [
            "--output",
            "json",
            "--scratch",
            &scratch,
            "--metrics-file",
            &metrics,
        ];
        let run = panic_at(&sim, &lake, step, &arguments);
        assert_eq!(run.error_code(), "failure", "one document: {run:?}");
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "{step}");
        let metrics = fs::read_to_string(&metrics).unwrap();
        assert!(
            !metrics.contains("last_success_timestamp_seconds{"),
            "{metrics}"
        );
        sim.sync(&lake, &[]).expect(3);
        sim.assert_truth(&lake);
    }
}

#[test]
fn panic_is_one_line_of_a_json_log() {
    let (sim, lake) = (Sim::small(), Lake::new());
    let run = panic_at(&sim, &lake, "before-raw", &["--log-format", "json"]);
    assert_eq!(run.stdout, "", "{run:?}");
    for line in run.stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string(), "{run:?}");
    }
}
