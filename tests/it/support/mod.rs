//! Shared helpers: a simulated server, the binary under test, and lakes read by DuckDB.

mod duckdb;
pub(crate) mod faulty_store;
pub(crate) mod lab;
mod lake;
mod sim;

pub(crate) use duckdb::{compare, described, interpreter, rows};
pub(crate) use lake::Lake;
pub(crate) use sim::{SECRET, Sim, bare_command, now};

use std::process::{Child, Command};

use serde_json::Value;

/// Sends a signal, named as `kill` names it, to a process of ours.
#[track_caller]
pub(crate) fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name, &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
}

/// A run of the binary that ended.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit status; none where a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(output: std::process::Output) -> Self {
        let run = Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        // No run of any test may tell the key, whatever happens to it.
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(SECRET), "the key's secret is told: {run:?}");
        }
        run
    }

    /// Fails the test, showing all that was said, unless it ended with this exit status.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "\n--- standard output\n{}\n--- standard error\n{}",
            self.stdout,
            self.stderr
        );
        self
    }

    /// Standard output, which must be one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON document: {error}\n{self:?}"))
    }

    /// `error.code` of the JSON that a failure prints; message and hint must say something.
    #[track_caller]
    pub(crate) fn error_code(&self) -> String {
        let error = self.json()["error"].take();
        for key in ["message", "hint"] {
            assert_ne!(error[key].as_str().unwrap_or_default(), "", "{self:?}");
        }
        error["code"].as_str().unwrap_or_default().to_owned()
    }
}
