//! An object store that is away, for a while or for ever.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use tempfile::TempDir;

use crate::stores::assert_same;
use crate::support::lab::{Source, ended};
use crate::support::proxy::{Fault, Proxy};
use crate::support::stores::ObjectServer;
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

/// Returns a command on the lake of a server, through a proxy.
fn command(server: &ObjectServer, source: &Source, name: &str, proxy: &str) -> Command {
    server.through(proxy, source.command(name, &server.lake()))
}

fn retries_broken_requests(server: &ObjectServer, names: &[&str]) {
    const KINDS: [Fault; 3] = [Fault::Reset, Fault::Cut, Fault::Busy];
    let source = Source::start();
    let folder = TempDir::new().unwrap();
    source.sync(folder.path());
    let proxy = Proxy::start(server.address(), |number, _| {
        (number % 4 == 1).then(|| KINDS[number / 4 % KINDS.len()])
    });
    for name in names {
        let output = command(server, &source, name, proxy.url()).output();
        ended(&output.unwrap(), 0);
    }
    assert!(proxy.failed() > 10, "only {} requests", proxy.failed());
    assert_same(server, folder.path());
}

#[test]
fn broken_requests_to_s3_are_retried() {
    let names = ["sync", "replay --all", "status", "verify", "check"];
    retries_broken_requests(&ObjectServer::moto(), &names);
}

#[test]
fn broken_requests_to_azure_are_retried() {
    retries_broken_requests(&ObjectServer::azurite(), &["sync", "check"]);
}

#[test]
fn broken_requests_to_a_stub_of_google_are_retried() {
    retries_broken_requests(&ObjectServer::google(), &["sync", "check"]);
}

#[test]
fn store_that_stays_away_ends_a_run_with_9() {
    let source = Source::start();
    let stays_away = |server: &ObjectServer, name: &str, variable: &str| {
        let mut command = command(server, &source, name, "http://127.0.0.1:1");
        command.env("HARNESS_LAKE_STORE_PATIENCE", "1");
        let run = Run::of(command.output().unwrap()).expect(9);
        assert_eq!(run.error_code(), "unavailable", "{name}");
        assert!(run.stdout.contains("the store was unavailable"), "{run:?}");
        assert!(run.stdout.contains(variable), "{run:?}");
    };
    let s3 = ObjectServer::moto();
    for name in COMMANDS {
        stays_away(&s3, name, "AWS_ENDPOINT_URL");
    }
    stays_away(&ObjectServer::azurite(), "sync", "AZURE_STORAGE_ENDPOINT");
    stays_away(&ObjectServer::google(), "sync", "GOOGLE_BASE_URL");
}

#[test]
fn signal_ends_a_run_whose_store_hangs() {
    let (s3, source) = (ObjectServer::moto(), Source::start());
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
            let mut command = command(&s3, &source, name, proxy.url());
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
