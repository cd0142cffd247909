//! Outputs that fail or are no regular files: the log, standard output, the report and the metrics.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Lake, Run, Sim, bare_command};

/// Runs a shell command. `$BIN` is the binary, connected to `sim`; `$LAKE` is a new lake.
fn shell(sim: &Sim, lake: &Lake, script: &str) -> Run {
    let binary = sim.command(&[]);
    let mut command = Command::new("bash");
    command
        .args(["-c", &format!("set -o pipefail; {script}")])
        .env("BIN", binary.get_program())
        .env("LAKE", lake.path())
        .env("RUST_LOG", "trace");
    let variables = binary.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    Run::of(command.output().unwrap())
}

#[test]
fn log_that_cannot_be_written_does_not_end_a_run() {
    for tail in ["2>/dev/full", "2> >(true)", "2>&-", "2>&1 | head -1"] {
        let (sim, lake) = (Sim::small(), Lake::new());
        shell(&sim, &lake, &format!("$BIN sync --lake $LAKE {tail}")).expect(3);
        sim.assert_truth(&lake);
    }
}

#[test]
fn standard_output_that_cannot_be_written_is_an_error() {
    let (sim, lake) = (Sim::small(), Lake::new());
    for command in [
        "sync --lake $LAKE",
        "sync --lake $LAKE --output json",
        "status --lake $LAKE",
        "schema list",
        "man",
        "completions bash",
        "--help",
        "sync --help",
        "--version",
    ] {
        let full = shell(&sim, &lake, &format!("$BIN {command} >/dev/full")).expect(1);
        assert!(full.stderr.contains("No space left"), "{command}: {full:?}");
        // Nowhere to report the error.
        shell(&sim, &lake, &format!("$BIN {command} >/dev/full 2>&1")).expect(1);
    }
    sim.assert_truth(&lake);
    for command in [
        "status --lake $LAKE",
        "schema show executions",
        "man",
        "--help",
    ] {
        shell(&sim, &lake, &format!("$BIN {command} 2>&1 | head -c 1")).expect(0);
    }
}

#[test]
fn output_files_write_through_links_pipes_and_devices() {
    let (sim, lake) = (Sim::small(), Lake::new());
    let (pipe, link, null) = (
        lake.beside("pipe"),
        lake.beside("link"),
        lake.beside("null"),
    );
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    fs::create_dir(lake.beside("data")).unwrap();
    symlink("data/real.prom", &link).unwrap();
    symlink("/dev/null", &null).unwrap();

    let mut reader = Command::new("cat")
        .arg(&pipe)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sim.sync(&lake, &["--report", &pipe, "--metrics-file", &link])
        .expect(3);
    let report: Value = serde_json::from_reader(reader.stdout.take().unwrap()).unwrap();
    assert_eq!(report["command"], "sync");
    reader.wait().unwrap();
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let metrics = fs::read_to_string(lake.beside("data/real.prom")).unwrap();
    assert!(metrics.contains("harness_lake_last_completion_timestamp_seconds"));

    sim.sync(&lake, &["--report", &null, "--metrics-file", &null])
        .expect(3);
    assert!(
        fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert!(fs::symlink_metadata(&null).unwrap().is_symlink());
}

#[test]
fn pipe_without_a_reader_fails_within_seconds() {
    let (sim, lake) = (Sim::small(), Lake::new());
    let pipe = lake.beside("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let run = sim.run(&["replay", "--lake", lake.path(), "--metrics-file", &pipe]);
    assert!(run.stderr.contains("nothing reads this pipe"), "{run:?}");
    sim.sync(&lake, &[]).expect(3);
    let run = sim.run(&["replay", "--lake", lake.path(), "--metrics-file", &pipe]);
    let run = run.expect(1);
    assert!(run.stderr.contains("the run finished, but"), "{run:?}");
}

#[test]
fn metrics_and_report_can_be_standard_output() {
    let (sim, lake) = (Sim::small(), Lake::new());
    let shown = shell(
        &sim,
        &lake,
        "$BIN sync --lake $LAKE --metrics-file /dev/stdout | cat",
    );
    let shown = shown.expect(3).stdout;
    assert!(shown.starts_with("# HELP harness_lake_"), "{shown}");
    assert!(
        shown.contains("Covered to "),
        "the summary follows: {shown}"
    );

    let file = lake.beside("out");
    let script = format!("$BIN replay --lake $LAKE --report /dev/stdout > {file}");
    shell(&sim, &lake, &script).expect(0);
    let shown = fs::read_to_string(&file).unwrap();
    assert!(
        shown.starts_with("{\n") && shown.contains("Checked "),
        "{shown}"
    );
    assert_eq!(fs::read_dir(lake.beside("")).unwrap().count(), 2);
}

#[test]
fn output_file_that_is_no_file_is_a_usage_error() {
    let (sim, lake) = (Sim::small(), Lake::new());
    symlink("loop", lake.beside("loop")).unwrap();
    symlink("missing/file", lake.beside("dangling")).unwrap();
    for path in ["", "loop", "dangling", "missing/file", "new/"] {
        for flag in ["--report", "--metrics-file"] {
            let run = sim.sync(&lake, &[flag, &lake.beside(path)]).expect(2);
            assert_eq!(run.error_code(), "usage");
            assert!(run.stderr.contains(&format!("error: {flag}: ")), "{run:?}");
        }
    }
    assert!(!fs::exists(lake.path()).unwrap(), "nothing is read first");
}

#[test]
fn progress_survives_a_closed_pipe() {
    let (sim, lake) = (Sim::small(), Lake::new());
    let mut command = sim.command(&["sync", "--lake", lake.path()]);
    let mut run = command
        .env("RUST_LOG", "debug")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(run.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(3));
    sim.assert_truth(&lake);
}

#[test]
fn misspelled_lake_is_a_usage_error_and_no_folder() {
    let (sim, lake) = (Sim::small(), Lake::new());
    let folder = lake.beside("empty");
    fs::create_dir(&folder).unwrap();
    for (name, expected) in [
        ("s3:/bucket/lake", "`s3://bucket/lake`"),
        ("s3:bucket/lake", "`s3://bucket/lake`"),
        ("s3//bucket/lake", "`s3://bucket/lake`"),
        ("S3://bucket/lake", "`s3://bucket/lake`"),
        ("s3a:/bucket/lake", "`s3a://bucket/lake`"),
        ("FILE:/data/lake", "`file:///data/lake`"),
        ("gs:/bucket/lake", "`gs://bucket/lake`"),
        ("gcs://bucket/lake", "`gs://bucket/lake`"),
        ("azure://container/lake", "`az://container/lake`"),
        ("abfss://container/lake", "abfss://container@account.dfs."),
        ("hdfs://host/lake", "a path, file:///path, s3://bucket/"),
    ] {
        let from = ["--from", "2026-11-01", "--to", "2026-11-02"];
        for command in [
            &["sync", "--lake", name][..],
            &[&["backfill", "--lake", name], &from[..]].concat(),
            &["check", "--lake", name],
            &["status", "--lake", name],
            &["verify", "--lake", name],
            &["replay", "--lake", name],
            &["replay", "--lake", lake.path(), "--into", name],
            &["schema", "ddl", "duckdb", "--lake", name],
        ] {
            let command = [command, &["--output", "json"]].concat();
            let mut binary = sim.command(&command);
            let run = Run::of(binary.current_dir(&folder).output().unwrap()).expect(2);
            assert_eq!(run.error_code(), "usage");
            assert!(run.stdout.contains(expected), "{command:?}: {run:?}");
        }
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn unusable_store_variable_is_named() {
    let sim = Sim::small();
    for endpoint in [
        "minio:9000",
        "http://127.0.0.1:1 ",
        "http://127.0.0.1:99999",
        "http://",
    ] {
        for command in ["sync", "check", "status", "verify", "replay"] {
            let mut binary = sim.command(&[command, "--lake", "s3://lake/x", "--output", "json"]);
            let run = Run::of(binary.env("AWS_ENDPOINT_URL", endpoint).output().unwrap()).expect(2);
            assert_eq!(run.error_code(), "usage");
            assert!(run.stdout.contains("invalid AWS_ENDPOINT_URL: "), "{run:?}");
        }
    }
}

#[test]
fn missing_account_of_azure_is_named() {
    let sim = Sim::small();
    let lake = ["--lake", "az://container/x", "--output", "json"];
    for command in [
        &["sync"][..],
        &["status"],
        &["schema", "ddl", "spark", "--period", "day"],
    ] {
        let run = sim.run(&[command, &lake].concat()).expect(2);
        assert_eq!(run.error_code(), "usage");
        let expected = "AZURE_STORAGE_ACCOUNT_NAME is not set";
        assert!(run.stdout.contains(expected), "{run:?}");
    }
    let mut ddl = sim.command(&["schema", "ddl", "trino", "--period", "day"]);
    ddl.args(["--lake", "az://container/x"]);
    ddl.env("AZURE_STORAGE_ACCOUNT_NAME", "account");
    let run = Run::of(ddl.output().unwrap()).expect(0);
    let expected = "'abfss://container@account.dfs.core.windows.net/x/executions/v1'";
    assert!(run.stdout.contains(expected), "{run:?}");
}

#[test]
fn backfill_may_end_with_the_last_date() {
    let (sim, lake) = (Sim::small(), Lake::new());
    for to in ["9999-12-31", "9999-12-31T23:59:59Z"] {
        let arguments = [
            "backfill",
            "--from",
            "2026-11-20",
            "--to",
            to,
            "--lake",
            lake.path(),
        ];
        let report = sim.run(&[&arguments[..], &["--output", "json"]].concat());
        let covered_to = report.expect(3).json()["covered_to"].take();
        assert!(
            covered_to.as_str().unwrap().starts_with("2026-11-24T14:5"),
            "{covered_to}"
        );
        let plan = [&["plan"], &arguments[..]].concat();
        assert_ne!(sim.run(&plan).code, Some(2));
    }
    let replay = [
        "replay",
        "--from",
        "2026-11-20",
        "--to",
        "9999-12-31",
        "--lake",
        lake.path(),
    ];
    Run::of(bare_command(&replay).output().unwrap()).expect(0);
}
