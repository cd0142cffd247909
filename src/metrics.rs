//! The figures of a run in Prometheus' text format, for `--metrics-file`.
//!
//! A run is a process of its own, so every figure is a gauge that holds until the next run. What a
//! run did not learn, it does not tell; the times of the last successes are carried over from the
//! file that it replaces.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::error::{Code, Error};
use crate::report::{Outcome, Report};

/// A run that ended, with or without a report.
#[derive(Clone, Copy, Debug)]
pub struct Ending<'a> {
    /// The command, such as `sync`.
    pub command: &'static str,
    /// When it began, by the local clock.
    pub began: Timestamp,
    /// When it ended, by the local clock.
    pub ended: Timestamp,
    /// What it did; `None` where it failed before there was something to tell.
    pub report: Option<&'a Report>,
    /// Why it did not do all.
    pub error: Option<&'a Error>,
}

/// Replaces the metrics file at once, whole: a reader never meets half of it.
///
/// # Errors
///
/// Where the folder of `path` cannot be written.
pub fn write(path: &Path, ending: &Ending<'_>) -> io::Result<()> {
    // Whatever else stands there is replaced.
    let before = fs::read_to_string(path).unwrap_or_default();
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Collectors read `*.prom`, as another user.
    let mut file = tempfile::Builder::new()
        .prefix(".harness-lake-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(0o644))
        .tempfile_in(folder)?;
    file.write_all(render(ending, &before).as_bytes())?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The text of the file. `before` is that of the file that it replaces.
pub fn render(ending: &Ending<'_>, before: &str) -> String {
    let mut text = Exposition::new(ending.command);
    text.run(ending);
    text.last(ending, before);
    if let Some(report) = ending.report {
        text.work(report);
        if report.command != "replay" {
            text.reading(report);
            text.state(report);
        }
    }
    text.text
}

const LAST_SUCCESS: &str = "harness_lake_last_success_timestamp_seconds";
const LAST_COMPLETION: &str = "harness_lake_last_completion_timestamp_seconds";

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

    fn head(&mut self, name: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge");
    }

    /// A family with one sample.
    fn one(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, help);
        let command = self.command;
        let _ = writeln!(self.text, "{name}{{command=\"{command}\"}} {value}");
    }

    /// A family with a sample for each value of one more label.
    fn many<L: Display, V: Display>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) {
        self.head(name, help);
        let command = self.command;
        for (of, value) in samples {
            let _ = writeln!(
                self.text,
                "{name}{{command=\"{command}\",{label}=\"{of}\"}} {value}"
            );
        }
    }

    fn run(&mut self, ending: &Ending<'_>) {
        self.head("harness_lake_info", "The version that ran.");
        let _ = writeln!(
            self.text,
            "harness_lake_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        self.one(
            "harness_lake_run_start_timestamp_seconds",
            "When the run began.",
            seconds(ending.began),
        );
        self.one(
            "harness_lake_run_end_timestamp_seconds",
            "When the run ended.",
            seconds(ending.ended),
        );
        let took = ending.ended.duration_since(ending.began);
        self.one(
            "harness_lake_run_duration_seconds",
            "How long the run took.",
            decimal(took.as_millis()),
        );
        let is = Outcome::of(ending.error);
        let outcomes = [
            (Outcome::Success, "success"),
            (Outcome::Partial, "partial"),
            (Outcome::Failed, "failed"),
            (Outcome::Interrupted, "interrupted"),
        ];
        self.many(
            "harness_lake_run_outcome",
            "How the run ended: 1 for its outcome, 0 for the others.",
            "outcome",
            outcomes.map(|(outcome, name)| (name, u8::from(outcome == is))),
        );
        self.many(
            "harness_lake_run_failures",
            "Failures of the run by code: one a project, or the one that ended the run.",
            "code",
            failures(ending),
        );
    }

    fn last(&mut self, ending: &Ending<'_>, before: &str) {
        let outcome = Outcome::of(ending.error);
        let completed = matches!(outcome, Outcome::Success | Outcome::Partial);
        for (name, help, is_now) in [
            (
                LAST_SUCCESS,
                "When a run last did all that it was asked for.",
                outcome == Outcome::Success,
            ),
            (
                LAST_COMPLETION,
                "When a run last came to its end, whether or not some projects failed.",
                completed,
            ),
        ] {
            let mut times = carried(name, before);
            if is_now {
                times.insert(ending.command, seconds(ending.ended));
            }
            if times.is_empty() {
                continue;
            }
            self.head(name, help);
            for (command, time) in times {
                let _ = writeln!(self.text, "{name}{{command=\"{command}\"}} {time}");
            }
        }
    }

    fn work(&mut self, report: &Report) {
        self.one(
            "harness_lake_run_dates_changed",
            "Dates whose rows changed.",
            report.dates_changed.len(),
        );
        self.one(
            "harness_lake_run_objects_written",
            "Table objects that were replaced.",
            report.files.len(),
        );
        self.one(
            "harness_lake_run_written_bytes",
            "Bytes of those objects.",
            report.files.iter().map(|file| file.bytes).sum::<u64>(),
        );
        let drift = &report.drift;
        self.many(
            "harness_lake_run_drift",
            "Paths and values of the source that this version does not know.",
            "kind",
            [
                ("unknown_field", drift.unknown_fields.len()),
                ("unknown_status", drift.unknown_statuses.len()),
                ("odd_value", drift.odd_values.len()),
            ],
        );
    }

    fn reading(&mut self, report: &Report) {
        self.many(
            "harness_lake_run_scopes",
            "Projects of the run: read whole, or not.",
            "result",
            [("ok", report.scopes.ok), ("failed", report.scopes.failed)],
        );
        let requests = &report.requests;
        let of = &requests.by_endpoint;
        self.many(
            "harness_lake_run_requests",
            "Requests to the source, repetitions included.",
            "endpoint",
            [
                ("orgs", of.orgs),
                ("projects", of.projects),
                ("executions", of.executions),
                ("retention", of.retention),
            ],
        );
        self.one(
            "harness_lake_run_requests_retried",
            "Requests that repeated an earlier one.",
            requests.retried,
        );
        self.one(
            "harness_lake_run_requests_rate_limited",
            "Requests that the source refused as too many.",
            requests.rate_limited,
        );
        let executions = &report.executions;
        self.many(
            "harness_lake_run_executions",
            "Executions that were read, by what they were to the lake.",
            "change",
            [
                ("inserted", executions.inserted),
                ("updated", executions.updated),
                ("unchanged", executions.unchanged),
            ],
        );
        self.one(
            "harness_lake_run_executions_given_up",
            "Open executions that are not asked for any more.",
            report.abandoned,
        );
        if let Some(skew) = report.clock_skew_seconds {
            self.one(
                "harness_lake_run_clock_skew_seconds",
                "How far the source's clock is ahead of this machine's.",
                skew,
            );
        }
    }

    /// What is committed, by this run or before; nothing where there is no lake yet, or it cannot be read.
    fn state(&mut self, report: &Report) {
        let (Some(oldest), Some(newest)) = (report.watermark.min, report.watermark.max) else {
            return;
        };
        self.one(
            "harness_lake_open_executions",
            "Executions of the lake that are not known to be over.",
            report.open_executions,
        );
        self.one(
            "harness_lake_gaps",
            "Windows of the lake that were asked for and did not come whole; the next run reads them first.",
            report.gaps,
        );
        let bounds = [("oldest", oldest), ("newest", newest)];
        self.many(
            "harness_lake_watermark_timestamp_seconds",
            "Up to when projects are read: the project furthest behind, and the one furthest ahead.",
            "scope",
            bounds.map(|(bound, at)| (bound, seconds(at))),
        );
        let skew = SignedDuration::from_secs(report.clock_skew_seconds.unwrap_or_default());
        let now = report
            .finished_at
            .saturating_add(skew)
            .unwrap_or(report.finished_at);
        let lag = |at: Timestamp| decimal(now.duration_since(at).as_millis());
        self.many(
            "harness_lake_lag_seconds",
            "From the watermark to the end of the run, by the source's clock.",
            "scope",
            bounds.map(|(bound, at)| (bound, lag(at))),
        );
    }
}

/// How often each code was met, the codes that were not included.
fn failures(ending: &Ending<'_>) -> BTreeMap<&'static str, usize> {
    let mut counts: BTreeMap<_, usize> = Code::ALL.iter().map(|code| (code.name(), 0)).collect();
    let told = ending.report.map_or(&[][..], |report| &report.failures);
    for failure in told {
        *counts.entry(failure.code.name()).or_default() += 1;
    }
    if let Some(error) = ending.error
        && Outcome::of(ending.error) != Outcome::Partial
    {
        let count = counts.entry(error.code().name()).or_default();
        *count = (*count).max(1);
    }
    counts
}

/// The samples of a family by command, as an earlier run of whatever command wrote them.
fn carried<'a>(name: &str, before: &'a str) -> BTreeMap<&'a str, String> {
    let sample = |line: &'a str| {
        let rest = line.strip_prefix(name)?.strip_prefix("{command=\"")?;
        let (command, value) = rest.split_once("\"} ")?;
        value.parse::<f64>().ok()?;
        Some((command, value.to_owned()))
    };
    before.lines().filter_map(sample).collect()
}

fn seconds(at: Timestamp) -> String {
    decimal(at.as_millisecond().into())
}

/// Milliseconds as seconds.
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

    fn ending<'a>(command: &'static str, error: Option<&'a Error>) -> Ending<'a> {
        Ending {
            command,
            began: at("2026-11-24T15:00:00Z"),
            ended: at("2026-11-24T15:00:01.5Z"),
            report: None,
            error,
        }
    }

    #[test]
    fn times_are_seconds_with_three_digits() {
        assert_eq!(decimal(1_500), "1.500");
        assert_eq!(decimal(-20), "-0.020");
        assert_eq!(seconds(at("1970-01-01T00:00:01.002Z")), "1.002");
    }

    #[test]
    fn the_last_success_outlives_failures_and_other_commands() {
        let sync = "harness_lake_last_success_timestamp_seconds{command=\"sync\"} ";
        let replay = "harness_lake_last_success_timestamp_seconds{command=\"replay\"} ";
        let first = render(&ending("sync", None), "not a metrics file\n");
        assert!(
            first.contains(&format!("{sync}1795532401.500\n")),
            "{first}"
        );
        let second = render(&ending("replay", None), &first);
        let failed = render(&ending("sync", Some(&Error::Interrupted)), &second);
        assert!(failed.contains(sync) && failed.contains(replay), "{failed}");
        let none = render(&ending("sync", Some(&Error::Interrupted)), "");
        assert!(!none.contains(LAST_SUCCESS), "{none}");
        assert!(none.contains("code=\"interrupted\"} 1\n"), "{none}");
    }
}
