//! Reads a lake with DuckDB, independently of the code that wrote it.

use std::collections::HashSet;
use std::io::Write;
use std::process::{Command, Stdio};

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

fn python(task: &str, input: &Value) -> Result<Value, String> {
    let interpreter = interpreter();
    let mut child = Command::new(&interpreter)
        .args([SCRIPT, task])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{interpreter}: {error}: run ./scripts/test"))?;
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
