//! Runs against object stores: servers of S3 and Azure, and a stub of Google Cloud Storage; and stores that must be
//! refused.

use std::fmt;
use std::io::Write;
use std::path::Path as FsPath;
use std::process::{Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use futures::stream::BoxStream;
use harness_lake::lake::store::{Expected, ProbeError, PutOutcome, Store};
use jiff::SignedDuration;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tempfile::TempDir;

use crate::support::lab::{Source, decoded, ended, observed, text};
use crate::support::stores::{ObjectServer, runtime};
use crate::support::{Run, bare_command, interpreter};

#[track_caller]
pub(crate) fn assert_same(server: &ObjectServer, folder: &FsPath) {
    let (ours, theirs) = (server.tables(), decoded(folder));
    assert!(ours.keys().eq(theirs.keys()), "{ours:?}");
    for (path, (_, rows)) in &ours {
        assert!(*rows == theirs[path], "{path} is not as in a folder");
    }
}

/// Creates a lake on a server, syncs it again, and syncs it with two concurrent runs.
fn keeps_a_lake(server: &ObjectServer) {
    runtime().block_on(server.store("probe").probe()).unwrap();

    let source = Source::start();
    let folder = TempDir::new().unwrap();
    source.sync(folder.path());
    ended(&server.command(&source, "sync").output().unwrap(), 0);
    assert_same(server, folder.path());

    let before = server.tables();
    ended(&server.command(&source, "sync").output().unwrap(), 0);
    for (path, (tag, _)) in server.tables() {
        let is_of_runs = path.starts_with("scopes/");
        assert!(is_of_runs || tag == before[&path].0, "{path} was put again");
    }
    let status = ended(&server.command(&source, "status").output().unwrap(), 0);
    assert!(status.is_object(), "{status}");

    source.server.clock().advance(SignedDuration::from_hours(9));
    let start = || {
        let mut run = server.command(&source, "sync");
        run.stdout(Stdio::null()).stderr(Stdio::piped());
        run.spawn().unwrap()
    };
    for run in [start(), start()] {
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 8)), "{said}");
    }
    ended(&server.command(&source, "sync").output().unwrap(), 0);
    source.sync(folder.path());
    assert_same(server, folder.path());
    let lake = server.tables();
    let executions = observed(lake.iter().map(|(path, (_, rows))| (path, rows)));
    assert_eq!(executions, observed(&decoded(folder.path())));
    replaces_its_newest_record(server, &source);
}

/// Deletes the newest record, as for a damaged one. The next record has its number, but another watermark.
fn replaces_its_newest_record(server: &ObjectServer, source: &Source) {
    let files = server.files();
    let records = files
        .keys()
        .filter(|path| path.starts_with("_state/checkpoints/"));
    server.delete(records.max().into_iter());
    source.server.clock().advance(SignedDuration::from_hours(1));
    ended(&server.command(source, "sync").output().unwrap(), 0);
    ended(&server.command(source, "verify").output().unwrap(), 0);
}

#[test]
fn lake_works_on_moto() {
    keeps_a_lake(&ObjectServer::moto());
}

#[test]
fn a_lake_moves_from_a_folder_to_a_bucket() {
    let server = ObjectServer::moto();
    let source = Source::start();
    let folder = TempDir::new().unwrap();
    source.sync(folder.path());
    let mut copy = server.at(source.command("replay", text(folder.path())));
    copy.args(["--into", &server.lake()]);
    ended(&copy.output().unwrap(), 0);
    let (ours, theirs) = (server.tables(), decoded(folder.path()));
    assert!(ours.keys().eq(theirs.keys()));
    for (path, (_, rows)) in &ours {
        assert!(rows.columns() == theirs[path].columns(), "{path}");
    }
    let report = ended(&server.command(&source, "sync").output().unwrap(), 0);
    assert_eq!(report["executions"]["inserted"], 0);
}

#[test]
fn lake_works_on_seaweedfs() {
    keeps_a_lake(&ObjectServer::seaweed());
}

#[test]
fn lake_works_on_azurite() {
    keeps_a_lake(&ObjectServer::azurite());
}

#[test]
fn duckdb_reads_azure_through_the_printed_statements() {
    let (server, source) = (ObjectServer::azurite(), Source::start());
    let sync = server.command(&source, "sync --delta on").output().unwrap();
    let inserted = ended(&sync, 0)["executions"]["inserted"].take();
    // The name of the account is in the location, as Spark and Trino need it.
    let lake = server.lake().replace("az://", "");
    let (container, prefix) = lake.split_once('/').unwrap();
    let lake = format!("abfss://{container}@account.dfs.core.windows.net/{prefix}");
    for options in [&[][..], &["--delta"]] {
        let ddl = ["schema", "ddl", "duckdb", "--lake", &lake];
        let ddl = bare_command(&[&ddl, options].concat()).output().unwrap();
        let ddl = Run::of(ddl).expect(0).stdout;
        assert!(ddl.contains("ACCOUNT_NAME 'account'"), "{ddl}");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/azure.py");
        let mut python = Command::new(interpreter());
        python.arg(script).stdin(Stdio::piped());
        python.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut python = server.at(python).spawn().unwrap();
        let statements = python.stdin.take().unwrap().write_all(ddl.as_bytes());
        statements.unwrap();
        let counted = Run::of(python.wait_with_output().unwrap()).expect(0);
        assert_eq!(counted.stdout.trim(), inserted.to_string(), "{options:?}");
    }
}

#[test]
fn lake_works_on_a_stub_of_google() {
    keeps_a_lake(&ObjectServer::google());
}

/// Creates an object and replaces it, each time by one of many concurrent puts.
async fn one_of_many_racers_wins(server: &ObjectServer) {
    let store = server.store("race");
    let mut expected = Expected::Absent;
    for round in 0..5 {
        let body = |racer| Bytes::from(format!("round {round} racer {racer}"));
        let racers = (0..16).map(|racer| store.put("folder/object", body(racer), &expected));
        let outcomes = join_all(racers).await.into_iter().map(|put| put.unwrap());
        let written = outcomes
            .enumerate()
            .filter_map(|(racer, outcome)| match outcome {
                PutOutcome::Written(tag) => Some((racer, tag)),
                PutOutcome::Lost => None,
            });
        let [(winner, tag)] = written.collect::<Vec<_>>().try_into().unwrap();
        let (current, found) = store.get("folder/object").await.unwrap().unwrap();
        assert_eq!((current, &found), (body(winner), &tag));
        let info = store.head("folder/object").await.unwrap().unwrap();
        assert_eq!(info.tag, tag);
        let range = store.get_range("folder/object", 0..5, &tag).await;
        assert_eq!(range.unwrap(), "round");
        if let Expected::Version(outdated) = &expected {
            let range = store.get_range("folder/object", 0..5, outdated).await;
            assert!(range.is_err(), "it read another version");
        }
        expected = Expected::Version(info.tag);
    }
    store.delete("folder/object").await.unwrap();
    store.delete("folder/object").await.unwrap();
    assert!(store.get("folder/object").await.unwrap().is_none());
    let outcome = store.put("folder/object", Bytes::from("late"), &expected);
    assert_eq!(outcome.await.unwrap(), PutOutcome::Lost);
}

#[test]
fn one_of_many_racers_wins_on_azurite() {
    runtime().block_on(one_of_many_racers_wins(&ObjectServer::azurite()));
}

#[test]
fn one_of_many_racers_wins_on_a_stub_of_google() {
    runtime().block_on(one_of_many_racers_wins(&ObjectServer::google()));
}

/// Fails unless a run is refused with the exit code 7 and a hint, and returns what it printed.
#[track_caller]
fn refused(mut command: Command, hint: &str) -> String {
    let run = Run::of(command.output().unwrap()).expect(7);
    assert_eq!(run.error_code(), "lake", "{run:?}");
    assert!(run.stdout.contains(hint), "{hint}: {run:?}");
    run.stdout + &run.stderr
}

#[test]
fn missing_bucket_is_named_and_not_retried() {
    let source = Source::start();
    for (server, hint) in [
        (ObjectServer::moto(), "create the bucket"),
        (ObjectServer::azurite(), "create the container"),
        (ObjectServer::google(), "create the bucket"),
    ] {
        for name in ["status", "sync", "check"] {
            refused(server.at(source.command(name, &server.nowhere())), hint);
        }
    }
}

#[test]
fn azure_refuses_a_key_of_another_account() {
    let (server, source) = (ObjectServer::azurite(), Source::start());
    let mut command = server.command(&source, "sync");
    command.env("AZURE_STORAGE_ACCOUNT_KEY", "b3RoZXIga2V5");
    refused(command, "replace the AZURE_* credentials");
}

#[test]
fn shared_access_signature_needs_four_permissions() {
    let (server, source) = (ObjectServer::azurite(), Source::start());
    let with = |permissions| {
        let mut command = server.command(&source, "sync");
        command
            .env_remove("AZURE_STORAGE_ACCOUNT_KEY")
            .env("AZURE_STORAGE_SAS_TOKEN", server.signature(permissions));
        command
    };
    ended(&with("rcwdl").output().unwrap(), 0);
    source.server.clock().advance(SignedDuration::from_hours(9));
    for (permissions, hint) in [
        ("rcwd", "needs `l`"),
        ("rcdl", "needs `c` and `w`"),
        ("rcwl", "needs `d`"),
        ("cwdl", "needs `r`"),
    ] {
        let printed = refused(with(permissions), hint);
        assert!(!printed.contains("sig="), "{printed}");
    }
    ended(&with("rcwdl").output().unwrap(), 0);
}

#[test]
fn google_needs_four_permissions() {
    let source = Source::start();
    for permission in ["list", "get", "create", "delete"] {
        let permission = format!("storage.objects.{permission}");
        let server = ObjectServer::google_without(permission.clone());
        refused(server.command(&source, "sync"), &permission);
    }
}

#[test]
fn roles_have_the_permissions_that_are_needed() {
    let read = |name: &str| {
        let path = format!("{}/deploy/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let role = read("gcp/writer-role.yaml");
    let granted = role
        .lines()
        .filter_map(|line| line.strip_prefix("- storage.objects."));
    let granted: Vec<_> = granted.collect();
    assert_eq!(granted, ["create", "delete", "get", "list"]);
    let role: serde_json::Value = serde_json::from_str(&read("azure/writer-role.json")).unwrap();
    let blobs = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs";
    let needed = ["read", "write", "delete"].map(|action| format!("{blobs}/{action}"));
    assert_eq!(role["DataActions"], serde_json::json!(needed));
    assert_eq!(role["Actions"], serde_json::json!([]));
}

#[test]
fn google_takes_tokens_of_the_metadata_service() {
    let (server, source) = (ObjectServer::google(), Source::start());
    let mut command = server.command(&source, "check");
    command
        .env_remove("GOOGLE_BEARER_TOKEN")
        .env("GCE_METADATA_HOST", server.address());
    ended(&command.output().unwrap(), 0);
}

/// A store that accepts every put of a kind, regardless of its condition.
#[derive(Debug)]
struct Careless {
    objects: InMemory,
    creates: bool,
    updates: bool,
}

impl fmt::Display for Careless {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "careless")
    }
}

#[async_trait]
impl ObjectStore for Careless {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        mut opts: PutOptions,
    ) -> Result<PutResult> {
        let ignored = match opts.mode {
            PutMode::Overwrite => false,
            PutMode::Create => self.creates,
            PutMode::Update(_) => self.updates,
        };
        if ignored {
            opts.mode = PutMode::Overwrite;
        }
        self.objects.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn store_that_ignores_conditions_is_refused() {
    for (creates, updates) in [(true, false), (false, true), (true, true)] {
        let objects = InMemory::new();
        let careless = Careless {
            objects,
            creates,
            updates,
        };
        let store = Store::from_object_store(Arc::new(careless), "lake".into(), "careless");
        let refused = store.probe().await.unwrap_err();
        assert!(
            matches!(refused, ProbeError::Unconditional { .. }),
            "{refused}"
        );
        assert!(store.list("").await.unwrap().is_empty(), "no probe stays");
    }
}
