//! `backfill`: reads the uncovered parts of a date range, newest first over all projects.

use jiff::Timestamp;

use super::run::{PlanPart, Run};
use super::{StopSignal, run_in_session};
use crate::config::SyncConfig;
use crate::error::Error;
use crate::extract::backfill::{skipped_before, uncovered};
use crate::extract::{BackfillQueue, read_backfill};
use crate::progress::Progress;
use crate::report::Report;

/// The range that a backfill reads.
#[derive(Clone, Copy, Debug)]
pub struct BackfillRange {
    /// The first instant.
    pub from: Timestamp,
    /// The first instant after; cut to the time up to which the source is complete.
    pub to: Timestamp,
    /// Whether to read covered parts again.
    pub refetch: bool,
    /// Whether windows that fail though the source is up are accepted as gaps for good.
    pub accept_gaps: bool,
}

/// Reads the uncovered parts of `range` in slices, newest first.
///
/// Counts and reads at the same time, and commits meanwhile, so that the next backfill resumes an interrupted one.
/// Returns the report also after a failure.
pub async fn backfill(
    config: &SyncConfig,
    range: BackfillRange,
    run_id: String,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: StopSignal,
) -> (Report, Result<(), Error>) {
    let run = Run::start("backfill", run_id, config.source.account.clone(), clock);
    run_in_session(
        run,
        config,
        progress,
        stop,
        async |session, run_id, parts| {
            let rules = session.rules().await?;
            let to = range.to.min(rules.now - rules.window_lag);
            let from = range.from.max(rules.retained_from);
            parts.plan = PlanPart {
                covered_to: (from < to).then_some(to),
                ..PlanPart::default()
            };
            if to <= range.from {
                tracing::warn!("no part of the range can be read yet: it starts after {to}");
            } else if from > range.from {
                tracing::warn!("executions before {from} have expired: the range starts there");
            }
            let (state, scopes) = (&session.record.state, &session.scopes);
            let windows = uncovered(state, scopes, range.from, to, &rules, range.refetch);
            let queue = BackfillQueue::new(state, windows, &rules, range.refetch);
            let mut committer = session.committer(run_id, &mut parts.committed);
            committer.accept_gaps = range.accept_gaps;
            for (scope, window) in skipped_before(state, scopes, to, &rules) {
                let skipped = committer.delta.skipped.entry(scope);
                skipped.or_default().add(window);
            }
            progress.start(queue.len(), "counts and slices");
            let read = async |reading| read_backfill(reading, queue).await;
            session.read(read, committer, progress).await
        },
    )
    .await
}
