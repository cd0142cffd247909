//! What a run leaves besides the lake: the run report, the metrics, and the last line of its log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;

use super::{Context, output};
use crate::causes::chain;
use crate::config::ConfigError;
use crate::error::Error;
use crate::metrics::push::PushUrl;
use crate::metrics::{self, FinishedRun};
use crate::output_file;
use crate::report::{Outcome, Report};

/// Time to push metrics. The next scheduled run waits for it.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The same after a signal: schedulers kill the process soon after it.
const SIGNALLED_PUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct RunOutputArgs {
    /// Write the run report to this file, as JSON
    #[arg(long, env = "HARNESS_LAKE_REPORT", value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the metrics of the run to this file in Prometheus text format, even if the run fails
    #[arg(long, env = "HARNESS_LAKE_METRICS_FILE", value_name = "FILE")]
    metrics_file: Option<PathBuf>,
    /// Send the metrics to this URL, such as that of a Prometheus Pushgateway; `{command}` in it is replaced.
    /// A failure is only logged
    #[arg(
        long,
        env = "HARNESS_LAKE_METRICS_PUSH",
        value_name = "URL",
        hide_env_values = true
    )]
    metrics_push: Option<SecretString>,
}

/// The output of one run.
pub(super) struct RunOutput<'a> {
    args: &'a RunOutputArgs,
    push_url: Option<PushUrl>,
    command: &'static str,
    context: &'a Context,
    started_at: Timestamp,
}

impl RunOutputArgs {
    /// Starts a run. Checks the directories of its files first, because a run may take hours.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Range`] if a directory does not exist, if a file is a directory, or if the URL is invalid.
    pub(super) async fn start<'a>(
        &'a self,
        command: &'static str,
        context: &'a Context,
    ) -> Result<RunOutput<'a>, Error> {
        let push_url = self.metrics_push.as_ref().and_then(PushUrl::parse);
        let run = RunOutput {
            args: self,
            push_url,
            command,
            context,
            started_at: (context.clock)(),
        };
        run.end_on_error(self.check(run.push_url.as_ref())).await?;
        Ok(run)
    }

    fn check(&self, push_url: Option<&PushUrl>) -> Result<(), ConfigError> {
        check_path("--report", self.report.as_deref())?;
        check_path("--metrics-file", self.metrics_file.as_deref())?;
        if self.metrics_push.is_some() && push_url.is_none() {
            let message = "--metrics-push must be a URL that begins with http:// or https://";
            return Err(ConfigError::Range(message.to_owned()));
        }
        Ok(())
    }
}

fn check_path(flag: &str, file: Option<&Path>) -> Result<(), ConfigError> {
    let Some(file) = file else { return Ok(()) };
    let checked = output_file::check(file);
    checked.map_err(|error| ConfigError::Range(format!("{flag}: {error}")))
}

impl RunOutput<'_> {
    /// Passes on the result of a step before the run has a report. Ends the run if it is an error.
    pub(super) async fn end_on_error<T>(
        &self,
        result: Result<T, impl Into<Error>>,
    ) -> Result<T, Error> {
        match result {
            Ok(value) => Ok(value),
            Err(error) => {
                let error = error.into();
                let run = self.finished(None, Some(&error));
                // The error that ended the run matters more than a file that cannot be written.
                let _ = self.write_metrics(&run);
                self.end(&run).await;
                Err(error)
            }
        }
    }

    /// Writes the files of a run, prints its report, ends the run and returns its result. A file that cannot be
    /// written fails a run that had no other error.
    pub(super) async fn finish(
        &self,
        report: &Report,
        result: Result<(), Error>,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        let report_error = self.write_report(report);
        let metrics_error = self.write_metrics(&self.finished(Some(report), result.as_ref().err()));
        let result = match report_error.or(metrics_error) {
            Some(error) => result.and(Err(error)),
            None => result,
        };
        let printed = if self.context.prints_report {
            output::print_report(self.context.output, report, &result, text)
        } else {
            Ok(())
        };
        let result = printed.and(result);
        self.end(&self.finished(Some(report), result.as_ref().err()))
            .await;
        result
    }

    fn finished<'b>(
        &self,
        report: Option<&'b Report>,
        error: Option<&'b Error>,
    ) -> FinishedRun<'b> {
        FinishedRun {
            command: self.command,
            started_at: self.started_at,
            finished_at: (self.context.clock)(),
            report,
            error,
        }
    }

    fn write_report(&self, report: &Report) -> Option<Error> {
        let path = self.args.report.as_deref()?;
        let json = serde_json::to_vec_pretty(report).expect("all keys of a report are text");
        write_error(path, output_file::write(path, &json))
    }

    fn write_metrics(&self, run: &FinishedRun<'_>) -> Option<Error> {
        let path = self.args.metrics_file.as_deref()?;
        write_error(path, metrics::write(path, run))
    }

    /// Sends the metrics of a run and logs its end.
    async fn end(&self, run: &FinishedRun<'_>) {
        if let Some(url) = &self.push_url {
            let timeout = if matches!(run.error, Some(Error::Interrupted)) {
                SIGNALLED_PUSH_TIMEOUT
            } else {
                PUSH_TIMEOUT
            };
            if let Err(error) = url
                .send(run.command, metrics::render(run, ""), timeout)
                .await
            {
                tracing::warn!("{}", chain(&error));
            }
        }
        log_end(run, &self.context.run_id);
    }
}

fn write_error(path: &Path, result: std::io::Result<()>) -> Option<Error> {
    let source = result.err()?;
    let path = path.display().to_string();
    tracing::warn!(file = path, "failed to write the file: {}", chain(&source));
    Some(Error::Unwritten { path, source })
}

/// Logs the outcome and the main figures of a run in one line. A figure that the run does not know is absent.
fn log_end(run: &FinishedRun<'_>, run_id: &str) {
    let report = run.report;
    let figure = |of: fn(&Report) -> usize| report.map(|report| of(report) as u64);
    let outcome = Outcome::of(run.error).name();
    let duration = run.finished_at.duration_since(run.started_at);
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or_default();
    tracing::info!(
        run_id,
        command = run.command,
        outcome,
        exit_code = run.error.map_or(0, Error::exit_code),
        duration_ms,
        covered_to = report.and_then(|report| report.covered_to).map(display),
        scopes.ok = figure(|report| report.scopes.ok),
        scopes.failed = figure(|report| report.scopes.failed),
        executions.inserted = report.map(|report| report.executions.inserted),
        executions.updated = report.map(|report| report.executions.updated),
        executions.unchanged = report.map(|report| report.executions.unchanged),
        requests = report.map(|report| report.requests.total),
        dates_changed = figure(|report| report.dates_changed.len()),
        files = figure(|report| report.files.len()),
        open_executions = figure(|report| report.open_executions),
        gaps = figure(|report| report.gaps),
        pending_windows = figure(|report| report.pending_windows),
        suspiciously_empty = figure(|report| report.suspiciously_empty.len()),
        vanished = figure(|report| report.vanished.len()),
        "{} ended: {outcome}",
        run.command
    );
}
