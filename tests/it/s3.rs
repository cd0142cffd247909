//! Runs against real S3 servers, and stores that must be refused.
//!
//! The servers come with `scripts/requirements.txt`; `scripts/test` installs them and names their
//! Python in `HARNESS_LAKE_TEST_PYTHON`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path as FsPath, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use harness_lake::lake::store::{ProbeError, Store};
use jiff::SignedDuration;
use object_store::aws::AmazonS3Builder;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tempfile::TempDir;

use crate::support::interpreter;
use crate::support::lab::{Source, decode, decoded, ended, observed, text};

const BUCKET: &str = "bucket";
/// The lake of all tests in this file.
pub(crate) const LAKE: &str = "s3://bucket/some/lake";

const KEY: &str = "testing";
const SECRET: &str = "testing-secret";

/// Timeout for the start of a server.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server process; it is killed when dropped.
pub(crate) struct S3 {
    child: Child,
    endpoint: String,
    _folder: TempDir,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3 {
    pub(crate) fn moto() -> Self {
        let [port] = free_ports();
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/it/support/serial_moto.py"
        );
        let arguments = [script, "-H", "127.0.0.1", "-p", &port];
        Self::start(FsPath::new(&interpreter()), &arguments, &port)
    }

    pub(crate) fn seaweed() -> Self {
        let ports: [String; 10] = free_ports();
        let names = [
            "s3.port",
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "admin.port",
            "admin.port.grpc",
        ];
        let mut arguments = ["mini", "-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
            .map(str::to_owned)
            .to_vec();
        arguments
            .extend(["-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"].map(Into::into));
        for (name, port) in names.iter().zip(&ports) {
            arguments.push(format!("-{name}={port}"));
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let weed = PathBuf::from(interpreter()).with_file_name("weed");
        Self::start(&weed, &arguments, &ports[0])
    }

    fn start(program: &FsPath, arguments: &[&str], port: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let log = folder.path().join("log");
        let child = Command::new(program)
            .args(arguments)
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(File::create(&log).unwrap())
            .stderr(File::create(folder.path().join("errors")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self {
            child,
            endpoint: format!("http://127.0.0.1:{port}"),
            _folder: folder,
        };
        server.wait(program, &log);
        server
    }

    /// Waits until the bucket exists and can be read.
    fn wait(&mut self, program: &FsPath, log: &FsPath) {
        let began = Instant::now();
        while !runtime().block_on(self.make_bucket()) {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && began.elapsed() < PATIENCE,
                "`{}` does not serve S3 on {} ({ended:?}): {}",
                program.display(),
                self.endpoint,
                fs::read_to_string(log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    async fn make_bucket(&self) -> bool {
        // A put of the empty path creates the bucket, signed like every request.
        let bucket = self.builder().with_bucket_name(BUCKET).build().unwrap();
        let (nowhere, valid) = (Path::default(), Duration::from_secs(60));
        let signed = bucket.signed_url(reqwest::Method::PUT, &nowhere, valid);
        let url = signed.await.unwrap();
        let put = reqwest::Client::new()
            .put(url)
            .header("content-length", "0");
        let Ok(response) = put.send().await else {
            return false;
        };
        response.status().is_success() || response.status() == reqwest::StatusCode::CONFLICT
    }

    /// Returns host and port of the server.
    #[cfg(feature = "failpoints")]
    pub(crate) fn address(&self) -> &str {
        self.endpoint.trim_start_matches("http://")
    }

    fn builder(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
    }

    fn objects(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.builder().with_bucket_name(BUCKET).build().unwrap())
    }

    pub(crate) fn command(&self, source: &Source, command: &str) -> Command {
        self.at(source.command(command, LAKE))
    }

    /// Adds the settings that a command needs to reach the server.
    pub(crate) fn at(&self, binary: Command) -> Command {
        at(&self.endpoint, binary)
    }

    /// Deletes objects of the lake by relative path.
    pub(crate) fn delete<'a>(&self, paths: impl Iterator<Item = &'a String>) {
        let objects = self.objects();
        for path in paths {
            let path = Path::from(format!("some/lake/{path}"));
            runtime().block_on(objects.delete(&path)).unwrap();
        }
    }

    /// Returns the version and bytes of every object of the lake, by relative path.
    fn read(&self) -> Vec<(String, String, Bytes)> {
        let objects = self.objects();
        let read = async {
            let prefix = Path::from("some/lake");
            let metas: Vec<_> = objects.list(Some(&prefix)).try_collect().await.unwrap();
            let mut found = Vec::new();
            for meta in metas {
                let path = meta.location.as_ref().strip_prefix("some/lake/").unwrap();
                let object = objects.get(&meta.location).await.unwrap();
                let bytes = object.bytes().await.unwrap();
                found.push((path.to_owned(), meta.e_tag.unwrap(), bytes));
            }
            found
        };
        runtime().block_on(read)
    }

    /// Returns every object of the lake by relative path.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let read = self.read().into_iter();
        read.map(|(path, _, bytes)| (path, bytes.into())).collect()
    }

    /// Returns the version and rows of every Parquet object of the lake.
    fn lake(&self) -> BTreeMap<String, (String, RecordBatch)> {
        let read = self.read().into_iter().inspect(|(path, ..)| {
            assert!(
                !path.starts_with("_views"),
                "a bucket has no use for {path}"
            );
        });
        read.filter(|(path, ..)| path.ends_with(".parquet"))
            .map(|(path, tag, bytes)| (path, (tag, decode(bytes))))
            .collect()
    }
}

/// Adds the settings that a command needs to reach the server at an endpoint.
pub(crate) fn at(endpoint: &str, mut binary: Command) -> Command {
    binary
        .env("AWS_ENDPOINT_URL", endpoint)
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET);
    binary
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

fn free_ports<const N: usize>() -> [String; N] {
    // All ports are bound at the same time, so that none is returned twice.
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port().to_string())
}

#[track_caller]
pub(crate) fn assert_same(s3: &S3, folder: &FsPath) {
    let (ours, theirs) = (s3.lake(), decoded(folder));
    assert!(ours.keys().eq(theirs.keys()), "{ours:?}");
    for (path, (_, rows)) in &ours {
        assert!(*rows == theirs[path], "{path} is not as in a folder");
    }
}

/// Creates a lake on a server, syncs it again, and syncs it with two concurrent runs.
fn keeps_a_lake(s3: &S3) {
    let probed =
        runtime().block_on(Store::from_object_store(s3.objects(), "probe".into(), "s3").probe());
    probed.unwrap();

    let source = Source::start();
    let folder = TempDir::new().unwrap();
    source.sync(folder.path());
    ended(&s3.command(&source, "sync").output().unwrap(), 0);
    assert_same(s3, folder.path());

    let before = s3.lake();
    ended(&s3.command(&source, "sync").output().unwrap(), 0);
    for (path, (tag, _)) in s3.lake() {
        let is_of_runs = path.starts_with("scopes/");
        assert!(is_of_runs || tag == before[&path].0, "{path} was put again");
    }
    let status = ended(&s3.command(&source, "status").output().unwrap(), 0);
    assert!(status.is_object(), "{status}");

    source.server.clock().advance(SignedDuration::from_hours(9));
    let start = || {
        let mut run = s3.command(&source, "sync");
        run.stdout(Stdio::null()).stderr(Stdio::piped());
        run.spawn().unwrap()
    };
    for run in [start(), start()] {
        let output = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 8)), "{said}");
    }
    ended(&s3.command(&source, "sync").output().unwrap(), 0);
    source.sync(folder.path());
    assert_same(s3, folder.path());
    let lake = s3.lake();
    let executions = observed(lake.iter().map(|(path, (_, rows))| (path, rows)));
    assert_eq!(executions, observed(&decoded(folder.path())));
    replaces_its_newest_record(s3, &source);
}

/// Deletes the newest record, as for a damaged one. The next record has its number, but another watermark.
fn replaces_its_newest_record(s3: &S3, source: &Source) {
    let files = s3.files();
    let records = files
        .keys()
        .filter(|path| path.starts_with("_state/checkpoints/"));
    s3.delete(records.max().into_iter());
    source.server.clock().advance(SignedDuration::from_hours(1));
    ended(&s3.command(source, "sync").output().unwrap(), 0);
    ended(&s3.command(source, "verify").output().unwrap(), 0);
}

#[test]
fn lake_works_on_moto() {
    keeps_a_lake(&S3::moto());
}

#[test]
fn a_lake_moves_from_a_folder_to_a_bucket() {
    let s3 = S3::moto();
    let source = Source::start();
    let folder = TempDir::new().unwrap();
    source.sync(folder.path());
    let mut copy = s3.at(source.command("replay", text(folder.path())));
    copy.args(["--into", LAKE]);
    ended(&copy.output().unwrap(), 0);
    let (ours, theirs) = (s3.lake(), decoded(folder.path()));
    assert!(ours.keys().eq(theirs.keys()));
    for (path, (_, rows)) in &ours {
        assert!(rows.columns() == theirs[path].columns(), "{path}");
    }
    let report = ended(&s3.command(&source, "sync").output().unwrap(), 0);
    assert_eq!(report["executions"]["inserted"], 0);
}

#[test]
fn lake_works_on_seaweedfs() {
    keeps_a_lake(&S3::seaweed());
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
