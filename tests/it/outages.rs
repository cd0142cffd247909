//! An object store that is away, for a while or for ever.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tempfile::TempDir;

use crate::s3::{LAKE, S3, assert_same, at};
use crate::support::lab::{Source, ended};
use crate::support::proxy::{Fault, Proxy};
use crate::support::{Run, signal};

/// The commands that use a lake.
const COMMANDS: [&str; 7] = [
    "check",
    "plan sync",
    "status",
    "verify",
    "replay --all",
    "sync",
    "backfill --from 2026-11-24 --to 2026-11-25 --refetch",
];

/// Returns a command on the lake at an endpoint.
fn command(source: &Source, name: &str, endpoint: &str) -> Command {
    at(endpoint, source.command(name, LAKE))
}

#[test]
fn broken_requests_to_a_store_are_retried() {
    const KINDS: [Fault; 3] = [Fault::Reset, Fault::Cut, Fault::Busy];
    let (s3, source) = (S3::moto(), Source::start());
    let folder = TempDir::new().unwrap();
    source.sync(folder.path());
    let proxy = Proxy::start(s3.address(), |number, _| {
        (number % 4 == 1).then(|| KINDS[number / 4 % KINDS.len()])
    });
    for name in ["sync", "replay --all", "status", "verify", "check"] {
        let output = command(&source, name, proxy.url()).output();
        ended(&output.unwrap(), 0);
    }
    assert!(proxy.failed() > 20, "only {} requests", proxy.failed());
    assert_same(&s3, folder.path());
}

#[test]
fn store_that_stays_away_ends_a_run_with_9() {
    let source = Source::start();
    for name in COMMANDS {
        let mut command = command(&source, name, "http://127.0.0.1:1");
        command.env("HARNESS_LAKE_STORE_PATIENCE", "1");
        let run = Run::of(command.output().unwrap()).expect(9);
        assert_eq!(run.error_code(), "unavailable", "{name}");
        assert!(run.stdout.contains("the store was unavailable"), "{run:?}");
    }
}

#[test]
fn signal_ends_a_run_whose_store_hangs() {
    let (s3, source) = (S3::moto(), Source::start());
    let folder = TempDir::new().unwrap();
    source.sync(folder.path());
    ended(&s3.command(&source, "sync").output().unwrap(), 0);
    source.server.clock().advance(SignedDuration::from_hours(9));
    let started: Vec<(&str, Proxy, Child)> = COMMANDS
        .into_iter()
        .map(|name| {
            // These two are in the middle of a commit then.
            let commits = name == "sync" || name.starts_with("backfill");
            let proxy = Proxy::start(s3.address(), move |number, method| {
                let hangs = number >= 2 && (!commits || method == "PUT");
                hangs.then_some(Fault::Hang)
            });
            let mut command = command(&source, name, proxy.url());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            (name, proxy, child)
        })
        .collect();
    for (_, proxy, _) in &started {
        proxy.await_failure();
    }
    let began = Instant::now();
    for (_, _, child) in &started {
        signal(child, "TERM");
    }
    for (name, _, child) in started {
        let run = Run::of(child.wait_with_output().unwrap());
        assert_eq!(run.code, Some(10), "{name}: {run:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{name}");
    }
    ended(&s3.command(&source, "sync").output().unwrap(), 0);
    source.sync(folder.path());
    assert_same(&s3, folder.path());
}

#[test]
fn missing_bucket_is_named_and_not_retried() {
    let (s3, source) = (S3::moto(), Source::start());
    for name in ["status", "sync", "check"] {
        let mut command = s3.at(source.command(name, "s3://nowhere/lake"));
        let run = Run::of(command.output().unwrap()).expect(7);
        assert_eq!(run.error_code(), "lake", "{name}");
        assert!(run.stdout.contains("create the bucket"), "{name}: {run:?}");
    }
}
