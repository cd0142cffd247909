//! The `sync` command, and the summary that it shares with `backfill` and `demo`.

use indicatif::HumanCount;

use super::output::count;
use super::run_output::RunOutput;
use super::{Context, SyncArgs, panics};
use crate::error::Error;
use crate::job;
use crate::report::Report;

/// The clock skew that causes a warning, in seconds.
const SKEW_WARNING_S: i64 = 120;

pub(super) async fn run(args: &SyncArgs, context: &Context) -> Result<(), Error> {
    let output = args.run.output.start("sync", context).await?;
    let config = output.end_on_error(args.config()).await?;
    let progress = context.progress();
    let run = job::sync(
        &config,
        context.run_id.clone(),
        context.clock,
        &progress,
        context.stop.clone(),
    );
    let (report, result) = output.end_on_error(panics::catch(run).await).await?;
    finish_run(&output, &report, result, config.store.location()).await
}

/// Writes the output of a run that read from the API, and returns its result.
pub(super) async fn finish_run(
    output: &RunOutput<'_>,
    report: &Report,
    result: Result<(), Error>,
    lake: &str,
) -> Result<(), Error> {
    if let Some(skew_s) = report
        .clock_skew_seconds
        .filter(|skew_s| skew_s.abs() > SKEW_WARNING_S)
    {
        tracing::warn!(
            skew_s,
            "the clock of this machine differs from the clock of the API; the run used the latter"
        );
    }
    output
        .finish(report, result, || summary(report, lake))
        .await
}

/// Summarizes a run in a few lines of text.
pub(super) fn summary(report: &Report, lake: &str) -> String {
    let executions = &report.executions;
    let bytes: u64 = report.files.iter().map(|file| file.bytes).sum();
    let mut lines = vec![
        format!(
            "Read {}: {} new, {} updated, {} unchanged",
            count(executions.observed, "execution"),
            HumanCount(executions.inserted),
            HumanCount(executions.updated),
            HumanCount(executions.unchanged),
        ),
        format!(
            "Read {} of {} with {} ({} retried, {} rate limited)",
            report.scopes.ok,
            count(report.scopes.total as u64, "project"),
            count(report.requests.total, "request"),
            report.requests.retried,
            report.requests.rate_limited,
        ),
        format!(
            "Wrote {} ({:.1} MB) for {}",
            count(report.files.len() as u64, "object"),
            megabytes(bytes),
            count(report.dates_changed.len() as u64, "changed date"),
        ),
        format!(
            "{} and {} remain",
            count(report.open_executions as u64, "open execution"),
            count(report.gaps as u64, "gap"),
        ),
    ];
    if report.idle_scopes > 0 {
        let idle = count(report.idle_scopes as u64, "idle project");
        lines.push(format!("{idle} not due yet (--idle-interval)"));
    }
    if let Some(at) = report.covered_to {
        lines.push(format!(
            "Covered to {} in {lake}",
            at.strftime("%Y-%m-%d %H:%M:%SZ")
        ));
    }
    lines.extend(warnings(report));
    lines.join("\n")
}

/// Lists what a user should look at, one line each.
fn warnings(report: &Report) -> Vec<String> {
    let mut lines = Vec::new();
    for (kind, values) in [
        ("unknown field", &report.drift.unknown_fields),
        ("unknown status", &report.drift.unknown_statuses),
        ("invalid value", &report.drift.odd_values),
    ] {
        for (path, drift) in values {
            let times = count(drift.count, "time");
            let example = &drift.example;
            lines.push(format!(
                "drift: {kind} `{path}`, received {times}, for example {example:?}"
            ));
        }
    }
    for scope in &report.suspiciously_empty {
        lines.push(format!(
            "suspiciously empty: {}/{}: the API returned no executions, although the lake has one that started \
             at {}",
            scope.org, scope.project, scope.last_row_start
        ));
    }
    for window in &report.expired_unread {
        lines.push(format!(
            "expired unread: {}/{}: Harness no longer keeps executions from {} to {}, and no run read them",
            window.org, window.project, window.from, window.to
        ));
    }
    if !report.vanished.is_empty() {
        let projects = report.vanished.join(", ");
        lines.push(format!("no longer listed: {projects}"));
    }
    for failure in &report.failures {
        lines.push(format!(
            "failed: {}/{}: {}: {}",
            failure.org, failure.project, failure.code, failure.message
        ));
    }
    lines
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the size is shown with one decimal"
)]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
