//! Other programs read a lake: during writes, and every column.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use harness_sim::AccountSpec;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::stores::ObjectServer;
use crate::support::{Lake, Run, Sim, interpreter, now};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/readers.py");

/// Timeout for the start of a JVM, or for a read, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Consecutive reads of which one must succeed. `DuckDB` opens an object more than once and fails
/// if it was replaced in between; the next read can meet another replacement.
const ATTEMPTS: usize = 3;

/// The location of the lake.
enum Place {
    Folder(Lake),
    Bucket(ObjectServer),
}

impl Place {
    fn url(&self) -> String {
        match self {
            Self::Folder(lake) => lake.path().to_owned(),
            Self::Bucket(server) => server.lake(),
        }
    }

    fn command(&self, sim: &Sim, arguments: &[&str]) -> Command {
        let command = sim.command(&[arguments, &["--lake", &self.url()]].concat());
        match self {
            Self::Folder(_) => command,
            Self::Bucket(server) => server.at(command),
        }
    }

    fn sync(&self, sim: &Sim) {
        let synced = self.command(sim, &["sync"]).output().unwrap();
        Run::of(synced).expect(3);
    }

    /// Returns the objects of the table that is read.
    fn executions(&self) -> BTreeMap<String, Vec<u8>> {
        let mut files = match self {
            Self::Folder(lake) => lake.files(),
            Self::Bucket(server) => server.files(),
        };
        files.retain(|path, _| path.starts_with("executions/"));
        files
    }
}

#[test]
fn duckdb_reads_correctly_during_writes() {
    read_while_written("duckdb", &Place::Folder(Lake::new()), 6, 60);
}

#[test]
fn duckdb_reads_a_bucket_correctly_during_writes() {
    read_while_written("duckdb", &Place::Bucket(ObjectServer::seaweed()), 4, 12);
}

#[test]
fn spark_reads_correctly_during_writes() {
    read_while_written("spark", &Place::Folder(Lake::new()), 4, 8);
}

/// Writes to a lake at least `rounds` times, and until it was read `reads` times meanwhile.
#[expect(
    clippy::print_stdout,
    reason = "how much was read shows with --nocapture"
)]
fn read_while_written(engine: &str, place: &Place, rounds: usize, reads: usize) {
    let spec = AccountSpec {
        executions: 1_600,
        future_hours: 240,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    place.sync(&sim);
    let mut reader = Reader::start(engine, place);
    reader.await_read();

    let before = reader.seen.len();
    let (mut round, mut replaced) = (0, 0);
    while round < rounds || reader.seen.len() < before + reads {
        assert!(round < 140, "too slow a reader: {:?}", reader.seen);
        let old = place.executions();
        sim.advance(SignedDuration::from_mins(100));
        let mut replay = place.command(&sim, &["replay", "--all"]);
        replay.stdout(Stdio::piped()).stderr(Stdio::piped());
        let replay = replay.spawn().unwrap();
        place.sync(&sim);
        Run::of(replay.wait_with_output().unwrap()).expect(0);
        let new = place.executions();
        for (path, body) in old {
            replaced += usize::from(new[&path] != body);
            // Spark reads an object only up to the length in its listing. It silently
            // ignores row groups that begin beyond that.
            assert!(new[&path].len() < 2 * body.len(), "{path} grew by too much");
        }
        reader.catch_up();
        round += 1;
    }
    let meanwhile = reader.seen.len() - before;
    assert!(rounds <= replaced, "{replaced} objects were replaced");

    let seen = reader.finish();
    let wrong: Vec<&Seen> = seen.iter().filter(|seen| !seen.wrong.is_empty()).collect();
    assert!(wrong.is_empty(), "{engine}: {wrong:?}");
    let failed: Vec<&str> = seen
        .iter()
        .filter_map(|seen| seen.error.as_deref())
        .collect();
    let in_vain = seen
        .windows(ATTEMPTS)
        .find(|seen| seen.iter().all(|seen| seen.error.is_some()));
    assert_eq!(in_vain, None, "{engine}");
    let counts: BTreeSet<usize> = seen.iter().filter_map(|seen| seen.count).collect();
    let truth = sim.truth().executions.len();
    assert_eq!(seen.last().unwrap().count, Some(truth));
    assert!(counts.len() > 1, "{engine} saw nothing but {counts:?}");
    println!(
        "{engine} of {}: {round} rounds replaced {replaced} objects of executions; of {} reads, \
         {meanwhile} meanwhile, {} failed {failed:?} and none was wrong; {} counts were seen",
        place.url(),
        seen.len(),
        failed.len(),
        counts.len()
    );
}

/// The report of one read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Seen {
    error: Option<String>,
    wrong: Vec<String>,
    count: Option<usize>,
}

/// A program that reads the executions of a lake in a loop.
struct Reader {
    child: Child,
    stdin: Option<ChildStdin>,
    reads: Receiver<Seen>,
    stderr: Option<JoinHandle<String>>,
    seen: Vec<Seen>,
    _scratch: TempDir,
}

impl Reader {
    fn start(engine: &str, place: &Place) -> Self {
        let scratch = TempDir::new().unwrap();
        let mut reader = python(&["watch", engine, &place.url()], scratch.path());
        if let Place::Bucket(server) = place {
            reader = server.at(reader);
        }
        let mut child = reader.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut errors = child.stderr.take().unwrap();
        let (sender, reads) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                let line = line.unwrap();
                let seen = serde_json::from_str(&line).unwrap_or_else(|error| {
                    panic!("{error}: {line}");
                });
                if sender.send(seen).is_err() {
                    break;
                }
            }
        });
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            child,
            stdin,
            reads,
            stderr: Some(stderr),
            seen: Vec::new(),
            _scratch: scratch,
        }
    }

    fn await_read(&mut self) {
        match self.reads.recv_timeout(PATIENCE) {
            Ok(seen) => self.seen.push(seen),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    fn catch_up(&mut self) {
        self.seen.extend(self.reads.try_iter());
        if let Some(status) = self.child.try_wait().unwrap() {
            self.fail(&status.to_string());
        }
    }

    /// Waits for one more read after the last write.
    fn finish(mut self) -> Vec<Seen> {
        self.stdin.take();
        loop {
            match self.reads.recv_timeout(PATIENCE) {
                Ok(seen) => self.seen.push(seen),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.fail("it does not end"),
            }
        }
        let status = self.child.wait().unwrap();
        if !status.success() {
            self.fail(&status.to_string());
        }
        std::mem::take(&mut self.seen)
    }

    fn fail(&mut self, why: &str) -> ! {
        self.end();
        let said = self.stderr.take().map(|said| said.join().unwrap());
        panic!("the reader: {why}\n{}", said.unwrap_or_default());
    }

    fn end(&mut self) {
        self.stdin.take();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.end();
    }
}

fn python(arguments: &[&str], scratch: &Path) -> Command {
    let mut command = Command::new(interpreter());
    command
        .arg(SCRIPT)
        .args(arguments)
        .arg(scratch)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A table as two engines see it.
#[derive(Deserialize)]
struct Table {
    types: Vec<(String, String)>,
    spark: BTreeMap<String, Value>,
    duckdb: BTreeMap<String, Value>,
}

#[test]
fn spark_reads_every_column_as_its_type_and_as_duckdb_does() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let schemas = schemas();
    let scratch = TempDir::new().unwrap();
    let mut tables = python(&["tables", lake.path()], scratch.path());
    let mut child = tables.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(Value::from(schemas.clone()).to_string().as_bytes())
        .unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let tables: BTreeMap<String, Table> = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(tables.len(), 8);
    for schema in &schemas {
        let name = schema["table"].as_str().unwrap();
        let table = &tables[name];
        assert_eq!(table.types, spark_types(schema), "{name}");
        assert_eq!(table.spark, table.duckdb, "{name}");
        assert_ne!(table.spark["rows"], 0, "{name} is empty");
        assert!(table.types.len() < table.spark.len(), "{name}");
    }
    let truth = sim.truth().executions.len();
    assert_eq!(tables["executions"].spark["rows"], truth);
    assert_ne!(
        tables["executions"].spark["sum of duration_ms"],
        Value::Null
    );
}

fn schemas() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/v1");
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap()
        })
        .collect()
}

/// Returns the columns that Spark should find, with the partition column last.
fn spark_types(schema: &Value) -> Vec<(String, String)> {
    let columns = schema["columns"].as_array().unwrap().iter().map(|column| {
        let kind = match column["type"].as_str().unwrap() {
            "utf8" => "string",
            "int64" => "bigint",
            "list<utf8>" => "array<string>",
            "map<utf8,utf8>" => "map<string,string>",
            same @ ("timestamp" | "date" | "boolean" | "double") => same,
            other => panic!("no type of Spark is known for {other}"),
        };
        (column["name"].as_str().unwrap(), kind)
    });
    let partition = schema["partitioned"].as_bool().unwrap();
    columns
        .chain(partition.then_some(("start_date", "date")))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect()
}
