//! Shared helpers: a simulated server, the binary under test, and lakes read by DuckDB.

mod duckdb;
pub(crate) mod faulty_store;
mod google;
pub(crate) mod lab;
mod lake;
mod processes;
#[cfg(feature = "failpoints")]
pub(crate) mod proxy;
mod sim;
pub(crate) mod stores;

pub(crate) use duckdb::{compare, described, interpreter, rows};
pub(crate) use lake::Lake;
pub(crate) use sim::{SECRET, Sim, bare_command, now};

use std::process::{Child, Command};

use serde_json::Value;

/// Sends a signal, by its `kill` name, to a child process.
#[track_caller]
pub(crate) fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    kill.args(["-s", name, &child.id().to_string()]);
    assert!(kill.status().unwrap().success());
}

/// A finished run of the binary.
#[derive(Debug)]
pub(crate) struct Run {
    /// The exit code; unset if a signal killed the run.
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
        // No run of any test may print the key.
        for text in [&run.stdout, &run.stderr] {
            assert!(
                !text.contains(SECRET),
                "the secret of the key is printed: {run:?}"
            );
        }
        run
    }

    /// Fails the test and prints all output unless the run exited with `code`.
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

    /// Parses standard output, which must be one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON document: {error}\n{self:?}"))
    }

    /// Returns `error.code` of the JSON of a failure; its message and hint must not be empty.
    #[track_caller]
    pub(crate) fn error_code(&self) -> String {
        let error = self.json()["error"].take();
        for key in ["message", "hint"] {
            assert_ne!(error[key].as_str().unwrap_or_default(), "", "{self:?}");
        }
        error["code"].as_str().unwrap_or_default().to_owned()
    }
}
