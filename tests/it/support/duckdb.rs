//! Reads a lake with DuckDB, independently of the code that wrote it.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use harness_sim::Truth;
use serde_json::{Value, json};
use tempfile::TempDir;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/lake.py");

/// Runs statements in one connection and returns the rows of each; a row is a list.
#[track_caller]
pub(crate) fn rows(statements: &[&str]) -> Vec<Vec<Vec<Value>>> {
    let answer = python("query", &json!(statements)).unwrap_or_else(|error| panic!("{error}"));
    serde_json::from_value(answer).unwrap()
}

/// Returns the names and types of the columns of a query.
#[track_caller]
pub(crate) fn described(from: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let [described] = <[_; 1]>::try_from(rows(&[&format!("DESCRIBE FROM {from}")])).unwrap();
    described
        .iter()
        .map(|row| (text(&row[0]), text(&row[1])))
        .collect()
}

/// Compares every column of the expected rows and prints the first rows that differ.
#[track_caller]
pub(crate) fn compare(lake: &str, truth: &Truth, but: &HashSet<String>) -> Option<String> {
    let folder = TempDir::new().unwrap();
    truth.write_ndjson(folder.path()).unwrap();
    let task = json!({"lake": lake, "truth": folder.path(), "but": but});
    let difference = python("compare", &task).unwrap_or_else(|error| panic!("{error}"));
    difference.as_str().map(str::to_owned)
}

/// Returns the Python interpreter that has the engines installed.
#[track_caller]
pub(crate) fn interpreter() -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "the test harness names the interpreter"
    )]
    std::env::var("HARNESS_LAKE_TEST_PYTHON").expect(
        "HARNESS_LAKE_TEST_PYTHON is not set: run ./scripts/test, which makes a Python with DuckDB \
         and Spark",
    )
}

/// A Python process that answers requests: to start one for each query costs more than the queries.
struct Reader {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// Idle readers. They end with the test process, which closes their input.
static IDLE: Mutex<Vec<Reader>> = Mutex::new(Vec::new());

impl Reader {
    fn start() -> Result<Self, String> {
        let interpreter = interpreter();
        let child = Command::new(&interpreter)
            .arg(SCRIPT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{interpreter}: {error}: run ./scripts/test"))?;
        Ok(Self {
            stdin: child.stdin.unwrap(),
            stdout: BufReader::new(child.stdout.unwrap()),
        })
    }

    fn answer(&mut self, task: &str, input: &Value) -> Value {
        writeln!(self.stdin, "{}", json!([task, input])).unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{task}: {error}: {line:?}"))
    }
}

fn python(task: &str, input: &Value) -> Result<Value, String> {
    let idle = IDLE.lock().unwrap().pop();
    let mut reader = idle.map_or_else(Reader::start, Ok)?;
    let mut answer = reader.answer(task, input);
    IDLE.lock().unwrap().push(reader);
    match answer.get_mut("error") {
        Some(error) => Err(error.as_str().unwrap().to_owned()),
        None => Ok(answer["answer"].take()),
    }
}
