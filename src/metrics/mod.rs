//! The metrics of a run in Prometheus text format, for `--metrics-file` and `--metrics-push`.
//!
//! Each run is a process of its own, so every metric is a gauge that keeps its value until the next run.
//! A metric that the run could not measure is absent. The times of the last success and completion are
//! carried over from the file that is replaced.

pub mod push;

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::io;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::error::{Code, Error};
use crate::output_file;
use crate::report::{Outcome, Report};

/// A finished run, with or without a report.
#[derive(Clone, Copy, Debug)]
pub struct FinishedRun<'a> {
    /// The command, such as `sync`.
    pub command: &'static str,
    /// The start of the run, by the local clock.
    pub started_at: Timestamp,
    /// The end of the run, by the local clock.
    pub finished_at: Timestamp,
    /// The report; `None` if the run failed before it had one.
    pub report: Option<&'a Report>,
    /// The error of the run, if any.
    pub error: Option<&'a Error>,
}

/// Writes the metrics to a file.
///
/// # Errors
///
/// As `output_file::write`.
pub fn write(path: &Path, run: &FinishedRun<'_>) -> io::Result<()> {
    let previous = output_file::previous(path);
    output_file::write(path, render(run, &previous).as_bytes())
}

/// Returns the content of the metrics file. `previous` is the content of the file that it replaces.
pub fn render(run: &FinishedRun<'_>, previous: &str) -> String {
    let mut text = Exposition::new(run.command);
    text.run(run);
    text.last_times(run, previous);
    if let Some(report) = run.report {
        text.writes(report);
        if report.command != "replay" {
            text.reads(report);
            text.lake(report);
        }
    }
    text.text
}

const LAST_SUCCESS: &str = "harness_lake_last_success_timestamp_seconds";
const LAST_COMPLETION: &str = "harness_lake_last_completion_timestamp_seconds";

/// Metrics in text format, all labelled with one command.
struct Exposition {
    text: String,
    command: &'static str,
}

impl Exposition {
    fn new(command: &'static str) -> Self {
        Self {
            text: String::new(),
            command,
        }
    }

    fn header(&mut self, name: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    /// Adds a gauge with one sample.
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.header(name, help);
        let command = self.command;
        let _ = writeln!(self.text, "{name}{{command=\"{command}\"}} {value}");
    }

    /// Adds a gauge with one sample for each value of `label`.
    fn gauge_by<L: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        self.header(name, help);
        let command = self.command;
        for (label_value, value) in samples {
            let _ = writeln!(
                self.text,
                "{name}{{command=\"{command}\",{label}=\"{label_value}\"}} {value}"
            );
        }
    }

    /// Adds the duration and the outcome of the run.
    fn run(&mut self, run: &FinishedRun<'_>) {
        self.header("harness_lake_info", "The version of harness-lake.");
        let _ = writeln!(
            self.text,
            "harness_lake_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        self.gauge(
            "harness_lake_run_start_timestamp_seconds",
            "Start time of the run.",
            seconds(run.started_at),
        );
        self.gauge(
            "harness_lake_run_end_timestamp_seconds",
            "End time of the run.",
            seconds(run.finished_at),
        );
        let duration = run.finished_at.duration_since(run.started_at);
        self.gauge(
            "harness_lake_run_duration_seconds",
            "Duration of the run.",
            decimal(duration.as_millis()),
        );
        let outcome = Outcome::of(run.error);
        self.gauge_by(
            "harness_lake_run_outcome",
            "Outcome of the run: 1 for the actual outcome, 0 for the others.",
            "outcome",
            Outcome::ALL.map(|other| (other.name(), u8::from(other == outcome))),
        );
        self.gauge_by(
            "harness_lake_run_failures",
            "Failures of the run by code: projects that failed, or the error that ended the run.",
            "code",
            failures(run),
        );
    }

    /// Adds the times of the last success and completion by command.
    fn last_times(&mut self, run: &FinishedRun<'_>, previous: &str) {
        let outcome = Outcome::of(run.error);
        let is_complete = matches!(outcome, Outcome::Success | Outcome::Partial);
        for (name, help, is_this_run) in [
            (
                LAST_SUCCESS,
                "End time of the last run with outcome success.",
                outcome == Outcome::Success,
            ),
            (
                LAST_COMPLETION,
                "End time of the last run with outcome success or partial.",
                is_complete,
            ),
        ] {
            let mut times = previous_samples(name, previous);
            if is_this_run {
                times.insert(run.command, seconds(run.finished_at));
            }
            if times.is_empty() {
                continue;
            }
            self.header(name, help);
            for (command, time) in times {
                let _ = writeln!(self.text, "{name}{{command=\"{command}\"}} {time}");
            }
        }
    }

    /// Adds what the run wrote.
    fn writes(&mut self, report: &Report) {
        self.gauge(
            "harness_lake_run_dates_changed",
            "Dates whose rows changed.",
            report.dates_changed.len(),
        );
        self.gauge(
            "harness_lake_run_objects_written",
            "Table objects that were written.",
            report.files.len(),
        );
        self.gauge(
            "harness_lake_run_written_bytes",
            "Total size of the table objects that were written.",
            report.files.iter().map(|file| file.bytes).sum::<u64>(),
        );
        let drift = &report.drift;
        self.gauge_by(
            "harness_lake_run_drift",
            "Fields and values in API responses that this version does not know.",
            "kind",
            [
                ("unknown_field", drift.unknown_fields.len()),
                ("unknown_status", drift.unknown_statuses.len()),
                ("odd_value", drift.odd_values.len()),
            ],
        );
    }

    /// Adds what the run read from the API.
    fn reads(&mut self, report: &Report) {
        self.gauge_by(
            "harness_lake_run_scopes",
            "Projects that were read completely, and projects that were not.",
            "result",
            [("ok", report.scopes.ok), ("failed", report.scopes.failed)],
        );
        let requests = &report.requests;
        let by_endpoint = &requests.by_endpoint;
        self.gauge_by(
            "harness_lake_run_requests",
            "Requests to the API, including retries.",
            "endpoint",
            [
                ("orgs", by_endpoint.orgs),
                ("projects", by_endpoint.projects),
                ("executions", by_endpoint.executions),
                ("retention", by_endpoint.retention),
            ],
        );
        self.gauge(
            "harness_lake_run_requests_retried",
            "Requests that were retries.",
            requests.retried,
        );
        self.gauge(
            "harness_lake_run_requests_rate_limited",
            "Requests that the API rejected because of its rate limit.",
            requests.rate_limited,
        );
        let executions = &report.executions;
        self.gauge_by(
            "harness_lake_run_executions",
            "Executions that were read, by the change that they made in the lake.",
            "change",
            [
                ("inserted", executions.inserted),
                ("updated", executions.updated),
                ("unchanged", executions.unchanged),
            ],
        );
        self.gauge(
            "harness_lake_run_executions_abandoned",
            "Open executions that the run stopped polling.",
            report.abandoned,
        );
        self.gauge(
            "harness_lake_run_suspiciously_empty_scopes",
            "Projects that no longer show executions that they showed before.",
            report.suspiciously_empty.len(),
        );
        self.gauge(
            "harness_lake_run_vanished_scopes",
            "Projects that the run before listed and this one did not.",
            report.vanished.len(),
        );
        self.gauge(
            "harness_lake_run_expired_unread_windows",
            "Windows that expired at the source before they were read.",
            report.expired_unread.len(),
        );
        if let Some(skew) = report.clock_skew_seconds {
            self.gauge(
                "harness_lake_run_clock_skew_seconds",
                "Clock of the API minus the local clock.",
                skew,
            );
        }
    }

    /// Adds the committed state of the lake, unless there is no lake yet or it cannot be read.
    fn lake(&mut self, report: &Report) {
        let (Some(oldest), Some(newest)) = (report.watermark.min, report.watermark.max) else {
            return;
        };
        self.gauge(
            "harness_lake_open_executions",
            "Executions in the lake that are not known to be terminal.",
            report.open_executions,
        );
        self.gauge(
            "harness_lake_gaps",
            "Windows that were requested but could not be read completely; the next run retries them.",
            report.gaps,
        );
        self.gauge_by(
            "harness_lake_gaps_by_reason",
            "The same by reason, such as the error of the API.",
            "reason",
            report
                .gaps_by_reason
                .iter()
                .map(|(reason, gaps)| (escaped(reason), gaps)),
        );
        self.gauge(
            "harness_lake_pending_windows",
            "Windows that a backfill skipped; the next sync reads them.",
            report.pending_windows,
        );
        let watermarks = [("oldest", oldest), ("newest", newest)];
        self.gauge_by(
            "harness_lake_watermark_timestamp_seconds",
            "Oldest and newest watermark of all projects.",
            "scope",
            watermarks.map(|(bound, at)| (bound, seconds(at))),
        );
        let skew = SignedDuration::from_secs(report.clock_skew_seconds.unwrap_or_default());
        let now = report
            .finished_at
            .saturating_add(skew)
            .unwrap_or(report.finished_at);
        let lag = |at: Timestamp| decimal(now.duration_since(at).as_millis());
        self.gauge_by(
            "harness_lake_lag_seconds",
            "Time from the watermark to the end of the run, by the clock of the API.",
            "scope",
            watermarks.map(|(bound, at)| (bound, lag(at))),
        );
    }
}

/// Counts the failures of a run by code. Includes the codes that did not occur.
fn failures(run: &FinishedRun<'_>) -> BTreeMap<&'static str, usize> {
    let mut counts: BTreeMap<_, usize> = Code::ALL.iter().map(|code| (code.name(), 0)).collect();
    let reported = run.report.map_or(&[][..], |report| &report.failures);
    for failure in reported {
        *counts.entry(failure.code.name()).or_default() += 1;
    }
    if let Some(error) = run.error
        && Outcome::of(run.error) != Outcome::Partial
    {
        let count = counts.entry(error.code().name()).or_default();
        *count = (*count).max(1);
    }
    counts
}

/// Returns the samples of a metric by command from the previous file, which a run of any command wrote.
fn previous_samples<'a>(name: &str, previous: &'a str) -> BTreeMap<&'a str, String> {
    let sample = |line: &'a str| {
        let rest = line.strip_prefix(name)?.strip_prefix("{command=\"")?;
        let (command, value) = rest.split_once("\"} ")?;
        value.parse::<f64>().ok()?;
        Some((command, value.to_owned()))
    };
    previous.lines().filter_map(sample).collect()
}

/// Escapes the value of a label.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    value.replace('\n', r"\n")
}

fn seconds(at: Timestamp) -> String {
    decimal(at.as_millisecond().into())
}

/// Formats milliseconds as seconds.
fn decimal(ms: i128) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn finished<'a>(command: &'static str, error: Option<&'a Error>) -> FinishedRun<'a> {
        FinishedRun {
            command,
            started_at: at("2026-11-24T15:00:00Z"),
            finished_at: at("2026-11-24T15:00:01.5Z"),
            report: None,
            error,
        }
    }

    #[test]
    fn times_are_seconds_with_three_decimals() {
        assert_eq!(decimal(1_500), "1.500");
        assert_eq!(decimal(-20), "-0.020");
        assert_eq!(seconds(at("1970-01-01T00:00:01.002Z")), "1.002");
    }

    #[test]
    fn label_values_are_escaped() {
        assert_eq!(escaped("a \\ \"b\"\nc"), r#"a \\ \"b\"\nc"#);
    }

    #[test]
    fn last_success_survives_failures_and_other_commands() {
        let sync = "harness_lake_last_success_timestamp_seconds{command=\"sync\"} ";
        let replay = "harness_lake_last_success_timestamp_seconds{command=\"replay\"} ";
        let first = render(&finished("sync", None), "not a metrics file\n");
        assert!(
            first.contains(&format!("{sync}1795532401.500\n")),
            "{first}"
        );
        let second = render(&finished("replay", None), &first);
        let failed = render(&finished("sync", Some(&Error::Interrupted)), &second);
        assert!(failed.contains(sync) && failed.contains(replay), "{failed}");
        let none = render(&finished("sync", Some(&Error::Interrupted)), "");
        assert!(!none.contains(LAST_SUCCESS), "{none}");
        assert!(none.contains("code=\"interrupted\"} 1\n"), "{none}");
    }
}
