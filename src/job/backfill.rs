//! `backfill`: what of a range of history is not covered yet, newest first over all scopes.

use jiff::Timestamp;

use super::connected::Connected;
use super::{StopSignal, conclude};
use crate::config::SyncConfig;
use crate::error::Error;
use crate::extract::backfill::{beyond, count, slices, uncovered};
use crate::progress::Progress;
use crate::report::Report;

/// What a backfill reads.
#[derive(Clone, Copy, Debug)]
pub struct BackfillRange {
    /// The first instant.
    pub from: Timestamp,
    /// The first instant after; cut where it cannot be read whole yet.
    pub to: Timestamp,
    /// True to read covered parts again.
    pub refetch: bool,
}

/// Reads what of `range` no run has read whole, in slices, newest first; commits as it goes, so that
/// a run that dies is taken up where it stopped.
pub async fn backfill(
    config: &SyncConfig,
    range: BackfillRange,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: StopSignal,
) -> (Report, Result<(), Error>) {
    let mut report = config.begin_report("backfill", clock);
    let result = run(config, range, clock, progress, stop, &mut report).await;
    conclude(config, clock, progress, &mut report, &result).await;
    (report, result)
}

async fn run(
    config: &SyncConfig,
    range: BackfillRange,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: StopSignal,
    report: &mut Report,
) -> Result<(), Error> {
    let connected = Connected::open(config, clock, stop, report).await?;
    let rules = connected.rules().await?;
    let to = range.to.min(rules.now - rules.window_lag);
    let from = range.from.max(rules.retained_from);
    report.covered_to = (from < to).then_some(to);
    if to <= range.from {
        tracing::warn!("nothing of the range can be read yet: it begins after {to}");
    } else if range.from < from {
        tracing::warn!("the source keeps nothing from before {from}: the range begins there");
    }
    let (state, scopes) = (&connected.record.state, &connected.scopes);
    let wanted = uncovered(state, scopes, range.from, to, &rules, range.refetch);
    let counting = count(
        &connected.client,
        state,
        wanted,
        &rules,
        config.concurrency(),
    );
    let counted = connected.or_stop(counting).await??;
    let asks = slices(state, counted.busy);
    let mut committer = connected.committer(report);
    for (scope, window) in beyond(state, scopes, to, &rules) {
        let skipped = committer.delta.skipped.entry(scope);
        skipped.or_default().add(window);
    }
    for event in counted.events {
        committer.take(event, progress).await?;
    }
    progress.start(asks.len(), "slices");
    connected.read(asks, committer, progress, clock).await
}
