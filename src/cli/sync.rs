//! `sync`: the scheduled job.

use super::files::Files;
use super::output::{self, count, number};
use super::{Context, SyncArgs};
use crate::error::Error;
use crate::job;
use crate::progress::Progress;
use crate::report::Report;

/// The clock skew that is warned of.
const SKEW_SECONDS: i64 = 120;

pub(super) async fn run(args: &SyncArgs, context: &Context) -> Result<(), Error> {
    let files = args.run.files("sync", context)?;
    let config = files.needs(args.config())?;
    let progress = Progress::new(context.is_terminal);
    let (report, ended) = job::sync(&config, context.clock, &progress, context.stop.clone()).await;
    conclude(&files, &report, ended, config.store.shown(), context)
}

/// Tells what a run did: to the files that the user named, and to standard output.
pub(super) fn conclude(
    files: &Files<'_>,
    report: &Report,
    ended: Result<(), Error>,
    lake: &str,
    context: &Context,
) -> Result<(), Error> {
    if let Some(skew_s) = report
        .clock_skew_seconds
        .filter(|skew| SKEW_SECONDS < skew.abs())
    {
        tracing::warn!(
            skew_s,
            "this machine's clock differs from the source's, which is used"
        );
    }
    let ended = files.write(report, ended);
    output::ended(context.output, report, &ended, || summary(report, lake))?;
    ended
}

/// What a run did, in a few lines.
pub(super) fn summary(report: &Report, lake: &str) -> String {
    let executions = &report.executions;
    let bytes: u64 = report.files.iter().map(|file| file.bytes).sum();
    let mut lines = vec![
        format!(
            "{} read: {} new, {} changed, {} as they were",
            count(executions.observed, "execution"),
            number(executions.inserted),
            number(executions.updated),
            number(executions.unchanged),
        ),
        format!(
            "{} of {} read with {} ({} repeated, {} rate limited)",
            report.scopes.ok,
            count(report.scopes.total as u64, "project"),
            count(report.requests.total, "request"),
            report.requests.retried,
            report.requests.rate_limited,
        ),
        format!(
            "{} changed, {} written ({:.1} MB); {} still open, {}",
            count(report.dates_changed.len() as u64, "date"),
            count(report.files.len() as u64, "object"),
            megabytes(bytes),
            count(report.open_executions as u64, "execution"),
            count(report.gaps as u64, "gap"),
        ),
    ];
    if let Some(at) = report.covered_to {
        lines.push(format!(
            "covered to {} in {lake}",
            at.strftime("%Y-%m-%d %H:%M:%SZ")
        ));
    }
    for (what, map) in [
        ("unknown field", &report.drift.unknown_fields),
        ("unknown status", &report.drift.unknown_statuses),
        ("odd value", &report.drift.odd_values),
    ] {
        for (path, seen) in map {
            let (count, example) = (number(seen.count), &seen.example);
            lines.push(format!(
                "drift: {what} `{path}`, seen {count} times, such as {example:?}"
            ));
        }
    }
    for scope in &report.suspiciously_empty {
        let (org, project, at) = (&scope.org, &scope.project, scope.last_row_start);
        lines.push(format!(
            "suspiciously empty: {org}/{project}: nothing is shown from the execution of {at} on"
        ));
    }
    for lost in &report.expired_unread {
        lines.push(format!(
            "beyond the retention: {}/{} from {} to {}: what no run read there is lost",
            lost.org, lost.project, lost.from, lost.to
        ));
    }
    if !report.vanished.is_empty() {
        lines.push(format!(
            "not listed any more: {}",
            report.vanished.join(", ")
        ));
    }
    for failure in &report.failures {
        let (org, project) = (&failure.org, &failure.project);
        lines.push(format!(
            "failed: {org}/{project}: {}: {}",
            failure.code, failure.message
        ));
    }
    lines.join("\n")
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a size for people, with one digit"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
