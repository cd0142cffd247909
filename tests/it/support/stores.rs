//! Object stores for tests: servers of S3 and Azure, and a stub of Google Cloud Storage.
//!
//! `scripts/test` installs the servers and names their Python in `HARNESS_LAKE_TEST_PYTHON`.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arrow_array::RecordBatch;
use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use harness_lake::lake::store::Store;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{ObjectStore, ObjectStoreExt};

use super::google::{self, Google};
use super::lab::{Source, decode};
use super::processes::{Process, node};

const BUCKET: &str = "bucket";
pub(super) const KEY: &str = "testing";
pub(super) const SECRET: &str = "testing-secret";

/// The account of Azurite, and its published key.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The API of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Api {
    S3,
    Azure,
    Google,
}

/// A bucket or container on a running server.
pub(crate) struct ObjectServer {
    api: Api,
    bucket: String,
    endpoint: String,
    /// Keeps the server running.
    _server: Running,
}

/// What a server runs in. The field is only dropped.
enum Running {
    Process { _process: Arc<Process> },
    Stub { _stub: Google },
}

/// The number of containers of Azurite.
static CONTAINERS: AtomicU32 = AtomicU32::new(0);

impl ObjectServer {
    /// Starts a server of S3 in Python, which checks no signatures.
    pub(crate) fn moto() -> Self {
        Self::s3(Process::moto())
    }

    /// Starts a real server of S3.
    pub(crate) fn seaweed() -> Self {
        Self::s3(Process::seaweed())
    }

    fn s3(process: Process) -> Self {
        let process = Arc::new(process);
        let server = Self {
            api: Api::S3,
            bucket: BUCKET.to_owned(),
            endpoint: format!("http://127.0.0.1:{}", process.port),
            _server: Running::Process {
                _process: Arc::clone(&process),
            },
        };
        process.wait(|| runtime().block_on(server.make_bucket()));
        server
    }

    /// Returns a new container on Microsoft's emulator of Azure.
    pub(crate) fn azurite() -> Self {
        let process = Process::azurite();
        let number = CONTAINERS.fetch_add(1, Ordering::SeqCst);
        let server = Self {
            api: Api::Azure,
            bucket: format!("container-{number}"),
            endpoint: format!("http://127.0.0.1:{}/{ACCOUNT}", process.port),
            _server: Running::Process {
                _process: Arc::clone(&process),
            },
        };
        process.wait(|| server.azurite_script(&["container"]).status.success());
        server
    }

    /// Starts the stub of Google Cloud Storage.
    pub(crate) fn google() -> Self {
        Self::of_google(Google::start())
    }

    /// Starts the stub, which denies a permission such as `storage.objects.get`.
    pub(crate) fn google_without(denied: String) -> Self {
        Self::of_google(Google::without(denied))
    }

    fn of_google(stub: Google) -> Self {
        Self {
            api: Api::Google,
            bucket: google::BUCKET.to_owned(),
            endpoint: stub.endpoint().to_owned(),
            _server: Running::Stub { _stub: stub },
        }
    }

    /// Returns a shared access signature with some permissions, such as `rl`, on the container.
    pub(crate) fn signature(&self, permissions: &str) -> String {
        let output = self.azurite_script(&["sas", permissions]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn azurite_script(&self, arguments: &[&str]) -> Output {
        let port = self.address().rsplit(':').next().unwrap().to_owned();
        Command::new(node())
            .arg(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/tests/it/support/azurite.mjs"
            ))
            .args([&port, &self.bucket])
            .args(arguments)
            .env("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
            .env("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY)
            .output()
            .unwrap()
    }

    async fn make_bucket(&self) -> bool {
        // A put of the empty path creates the bucket, signed like every request.
        let bucket = self.s3_builder().build().unwrap();
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
    pub(crate) fn address(&self) -> &str {
        let address = self.endpoint.trim_start_matches("http://");
        address.split('/').next().unwrap()
    }

    /// Returns the location of the lake of most tests.
    pub(crate) fn lake(&self) -> String {
        self.lake_at("some/lake")
    }

    /// Returns the location of a lake below a prefix.
    pub(crate) fn lake_at(&self, prefix: &str) -> String {
        format!("{}{}/{prefix}", self.scheme(), self.bucket)
    }

    /// Returns the location of a bucket that does not exist.
    pub(crate) fn nowhere(&self) -> String {
        format!("{}nowhere/lake", self.scheme())
    }

    fn scheme(&self) -> &str {
        match self.api {
            Api::S3 => "s3://",
            Api::Azure => "az://",
            Api::Google => "gs://",
        }
    }

    fn s3_builder(&self) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(KEY)
            .with_secret_access_key(SECRET)
    }

    pub(crate) fn objects(&self) -> Arc<dyn ObjectStore> {
        match self.api {
            Api::S3 => Arc::new(self.s3_builder().build().unwrap()),
            Api::Azure => {
                let builder = MicrosoftAzureBuilder::new()
                    .with_container_name(&self.bucket)
                    .with_endpoint(self.endpoint.clone())
                    .with_allow_http(true)
                    .with_account(ACCOUNT)
                    .with_access_key(ACCOUNT_KEY);
                Arc::new(builder.build().unwrap())
            }
            Api::Google => {
                let builder = GoogleCloudStorageBuilder::new()
                    .with_bucket_name(&self.bucket)
                    .with_base_url(&self.endpoint)
                    .with_bearer_token(google::TOKEN);
                Arc::new(builder.build().unwrap())
            }
        }
    }

    /// Returns the store of a lake below a prefix.
    pub(crate) fn store(&self, prefix: &str) -> Store {
        Store::from_object_store(self.objects(), prefix.into(), &self.lake_at(prefix))
    }

    pub(crate) fn command(&self, source: &Source, command: &str) -> Command {
        self.at(source.command(command, &self.lake()))
    }

    /// Adds the settings that a command needs to reach the server.
    pub(crate) fn at(&self, binary: Command) -> Command {
        let server = format!("http://{}", self.address());
        self.through(&server, binary)
    }

    /// Does the same for a proxy in front of the server, such as `http://127.0.0.1:1`.
    pub(crate) fn through(&self, proxy: &str, mut binary: Command) -> Command {
        match self.api {
            Api::S3 => binary
                .env("AWS_ENDPOINT_URL", proxy)
                .env("AWS_ALLOW_HTTP", "true")
                .env("AWS_REGION", "us-east-1")
                .env("AWS_ACCESS_KEY_ID", KEY)
                .env("AWS_SECRET_ACCESS_KEY", SECRET),
            Api::Azure => binary
                .env("AZURE_STORAGE_ENDPOINT", format!("{proxy}/{ACCOUNT}"))
                .env("AZURE_ALLOW_HTTP", "true")
                .env("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
                .env("AZURE_STORAGE_ACCOUNT_KEY", ACCOUNT_KEY),
            Api::Google => binary
                .env("GOOGLE_BASE_URL", proxy)
                .env("GOOGLE_BEARER_TOKEN", google::TOKEN),
        };
        binary
    }

    /// Writes objects below a prefix.
    #[cfg(feature = "failpoints")]
    pub(crate) fn upload(&self, prefix: &str, files: &BTreeMap<String, Vec<u8>>) {
        let objects = &self.objects();
        let puts = files.iter().map(async |(path, body)| {
            let path = Path::from(format!("{prefix}/{path}"));
            objects.put(&path, body.clone().into()).await.unwrap();
        });
        runtime().block_on(join_all(puts));
    }

    /// Deletes objects of the lake by relative path.
    pub(crate) fn delete<'a>(&self, paths: impl Iterator<Item = &'a String>) {
        let objects = self.objects();
        for path in paths {
            let path = Path::from(format!("some/lake/{path}"));
            runtime().block_on(objects.delete(&path)).unwrap();
        }
    }

    /// Returns the version and bytes of every object of a lake, by relative path.
    fn read(&self, prefix: &str) -> Vec<(String, String, Bytes)> {
        let objects = self.objects();
        let read = async {
            let listed = objects.list(Some(&Path::from(prefix)));
            let metas: Vec<_> = listed.try_collect().await.unwrap();
            let gets = metas.into_iter().map(async |meta| {
                let path = meta.location.as_ref().strip_prefix(prefix).unwrap();
                let object = objects.get(&meta.location).await.unwrap();
                let bytes = object.bytes().await.unwrap();
                (path[1..].to_owned(), meta.e_tag.unwrap(), bytes)
            });
            join_all(gets).await
        };
        runtime().block_on(read)
    }

    /// Returns every object of the lake by relative path.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let read = self.read("some/lake").into_iter();
        read.map(|(path, _, bytes)| (path, bytes.into())).collect()
    }

    /// Returns the version and rows of every Parquet object of the lake, except for copies in Delta tables.
    pub(crate) fn tables(&self) -> BTreeMap<String, (String, RecordBatch)> {
        let read = self.read("some/lake").into_iter().inspect(|(path, ..)| {
            assert!(
                !path.starts_with("_views"),
                "a bucket has no use for {path}"
            );
        });
        parquet(read)
    }

    /// Returns the rows of the same objects of a lake below a prefix.
    #[cfg(feature = "failpoints")]
    pub(crate) fn rows_at(&self, prefix: &str) -> BTreeMap<String, RecordBatch> {
        let tables = parquet(self.read(prefix).into_iter());
        tables
            .into_iter()
            .map(|(path, (_, rows))| (path, rows))
            .collect()
    }
}

fn parquet(
    objects: impl Iterator<Item = (String, String, Bytes)>,
) -> BTreeMap<String, (String, RecordBatch)> {
    objects
        .filter(|(path, ..)| path.ends_with(".parquet") && !path.starts_with("delta/"))
        .map(|(path, tag, bytes)| (path, (tag, decode(bytes))))
        .collect()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
