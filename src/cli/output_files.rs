//! The files that a run writes besides the lake: the run report and the metrics.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::Context;
use crate::causes::chain;
use crate::config::ConfigError;
use crate::error::Error;
use crate::metrics::{self, FinishedRun};
use crate::output_file;
use crate::report::Report;

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputFileArgs {
    /// Write the run report to this file, as JSON
    #[arg(long, env = "HARNESS_LAKE_REPORT", value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the metrics of the run to this file in Prometheus text format, even if the run fails
    #[arg(long, env = "HARNESS_LAKE_METRICS_FILE", value_name = "FILE")]
    metrics_file: Option<PathBuf>,
}

/// The output files of one run.
pub(super) struct OutputFiles<'a> {
    args: &'a OutputFileArgs,
    command: &'static str,
    clock: fn() -> Timestamp,
    started_at: Timestamp,
}

impl OutputFileArgs {
    /// Starts a run that writes these files. Checks their directories first, because a run may take hours.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Range`] if a directory does not exist, or if a file is a directory.
    pub(super) fn start(
        &self,
        command: &'static str,
        context: &Context,
    ) -> Result<OutputFiles<'_>, Error> {
        let files = OutputFiles {
            args: self,
            command,
            clock: context.clock,
            started_at: (context.clock)(),
        };
        files.metrics_on_error(self.check())?;
        Ok(files)
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_path("--report", self.report.as_deref())?;
        check_path("--metrics-file", self.metrics_file.as_deref())
    }
}

fn check_path(flag: &str, file: Option<&Path>) -> Result<(), ConfigError> {
    let Some(file) = file else { return Ok(()) };
    let checked = output_file::check(file);
    checked.map_err(|error| ConfigError::Range(format!("{flag}: {error}")))
}

impl OutputFiles<'_> {
    /// Passes on the result of a step before the run has a report. Writes the metrics of the failed run if it is
    /// an error.
    pub(super) fn metrics_on_error<T>(
        &self,
        result: Result<T, impl Into<Error>>,
    ) -> Result<T, Error> {
        result.map_err(|error| {
            let error = error.into();
            self.write_metrics(None, Some(&error));
            error
        })
    }

    /// Writes the report and the metrics of a run, and returns the result of the run. A file that cannot be
    /// written fails a run that had no other error.
    pub(super) fn write(&self, report: &Report, result: Result<(), Error>) -> Result<(), Error> {
        let report_error = self.write_report(report);
        let metrics_error = self.write_metrics(Some(report), result.as_ref().err());
        match report_error.or(metrics_error) {
            Some(error) => result.and(Err(error)),
            None => result,
        }
    }

    fn write_report(&self, report: &Report) -> Option<Error> {
        let path = self.args.report.as_deref()?;
        let json = serde_json::to_vec_pretty(report).expect("all keys of a report are text");
        write_error(path, output_file::write(path, &json))
    }

    fn write_metrics(&self, report: Option<&Report>, error: Option<&Error>) -> Option<Error> {
        let path = self.args.metrics_file.as_deref()?;
        let run = FinishedRun {
            command: self.command,
            started_at: self.started_at,
            finished_at: (self.clock)(),
            report,
            error,
        };
        write_error(path, metrics::write(path, &run))
    }
}

fn write_error(path: &Path, result: std::io::Result<()>) -> Option<Error> {
    let source = result.err()?;
    let path = path.display().to_string();
    tracing::warn!(file = path, "failed to write the file: {}", chain(&source));
    Some(Error::Unwritten { path, source })
}
