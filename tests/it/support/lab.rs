//! Helpers of the protocol tests: a small simulated account with a fixed clock, the binary under
//! test, and decoded Parquet files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use harness_sim::{Account, AccountSpec, Server, ServerOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// A server with its own runtime, so that tests are plain functions.
pub(crate) struct Source {
    pub(crate) server: Server,
    period: &'static str,
    // Dropped last: the server runs on it.
    _runtime: Runtime,
}

impl Source {
    /// Starts a server with four projects and about sixty executions in three days of a month.
    pub(crate) fn start() -> Self {
        Self::with_period("day")
    }

    /// Does the same for lakes that are created with a period.
    pub(crate) fn with_period(period: &'static str) -> Self {
        let account = Account::generate(&AccountSpec {
            projects_per_org: 2,
            executions: 60,
            days: 3,
            future_hours: 24,
            forbidden_project: false,
            ..AccountSpec::small("2026-11-24T15:00:00Z".parse().unwrap())
        });
        let options = ServerOptions::new(&account);
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            Server::start(account, options, listener).await.unwrap()
        });
        Self {
            server,
            period,
            _runtime: runtime,
        }
    }

    /// Returns the binary's command, with arguments after it, and only the connection in its environment.
    pub(crate) fn command(&self, command: &str, lake: &str) -> Command {
        let mut binary = Command::new(assert_cmd::cargo::cargo_bin("harness-lake"));
        binary
            .env_clear()
            .env("HARNESS_API_KEY", self.server.api_key())
            .env("HARNESS_BASE_URL", self.server.base_url())
            .env("HARNESS_LAKE_REQUESTS_PER_MINUTE", "60000")
            .env("HARNESS_LAKE_PERIOD", self.period)
            .args(command.split(' '))
            .args(["--output", "json", "--lake", lake]);
        binary
    }

    /// Runs a `sync` that must succeed and returns its report.
    #[track_caller]
    pub(crate) fn sync(&self, lake: &Path) -> serde_json::Value {
        let output = self.command("sync", text(lake)).output().unwrap();
        ended(&output, 0)
    }
}

/// Parses the JSON standard output of a run that must exit with `code`.
#[track_caller]
pub(crate) fn ended(output: &Output, code: i32) -> serde_json::Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Decodes every Parquet file below `folder`, keyed by relative path.
pub(crate) fn decoded(folder: &Path) -> BTreeMap<String, RecordBatch> {
    files(folder)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|it| it == "parquet"))
        .filter(|path| !text(path).contains("_delta_log/"))
        .map(|path| {
            let name = text(path.strip_prefix(folder).unwrap()).to_owned();
            (name, decode(fs::read(&path).unwrap().into()))
        })
        .collect()
}

/// Fails unless two lakes hold the same Parquet files with the same columns and rows, except for
/// paths that start with one of `but`.
#[track_caller]
pub(crate) fn assert_same_rows(one: &str, other: &str, but: &[&str]) {
    let [one, other] = [one, other].map(|lake| decoded(Path::new(lake)));
    assert!(
        one.keys().eq(other.keys()),
        "{:?} {:?}",
        one.keys(),
        other.keys()
    );
    for (path, batch) in &one {
        let is_compared = !but.iter().any(|start| path.starts_with(start));
        assert!(
            !is_compared || batch.columns() == other[path].columns(),
            "{path}"
        );
    }
}

/// Decodes a Parquet file into one batch. Removes the metadata that differs between equal writes:
/// the write id and, for dimensions, the number of the checkpoint record.
pub(crate) fn decode(file: Bytes) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let schema = reader.schema().clone();
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    let mut batch = concat_batches(&schema, &batches).unwrap();
    let metadata = batch.schema_metadata_mut();
    assert!(metadata.remove("harness_lake.write_id").is_some());
    if ["orgs", "projects", "scopes"].contains(&&*metadata["harness_lake.table"]) {
        metadata.remove("harness_lake.revision");
    }
    batch
}

/// Returns when each execution of the table was observed; fails on a duplicate.
#[track_caller]
pub(crate) fn observed<'a>(
    objects: impl IntoIterator<Item = (&'a String, &'a RecordBatch)>,
) -> BTreeMap<String, i64> {
    let mut observed = BTreeMap::new();
    for (path, batch) in objects {
        if !path.starts_with("executions/v1/") {
            continue;
        }
        let ids = batch["plan_execution_id"].as_string::<i32>();
        let times = batch["observed_ts"].as_primitive::<TimestampMicrosecondType>();
        for (id, at) in ids.iter().zip(times.values()) {
            let id = id.unwrap().to_owned();
            assert_eq!(observed.insert(id.clone(), *at), None, "{id} is duplicated");
        }
    }
    observed
}

/// Returns every file below `folder`.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}
