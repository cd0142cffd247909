//! `backfill`: what of a range of history is not covered yet, newest first over all scopes.

use jiff::Timestamp;

use super::{Session, Stop, conclude};
use crate::config::SyncConfig;
use crate::error::Error;
use crate::extract::backfill::{Measured, beyond, measure, slices, to_expect, uncovered};
use crate::extract::fanout::Event;
use crate::ids::Scope;
use crate::progress::Progress;
use crate::report::Report;

/// What a backfill reads.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// The first instant.
    pub from: Timestamp,
    /// The first instant after; cut where it cannot be read whole yet.
    pub to: Timestamp,
    /// Whether what is covered is read too.
    pub again: bool,
}

/// Reads what of `range` no run has read whole, in slices, newest first; commits as it goes, so that
/// a run that dies is taken up where it stopped.
pub async fn backfill(
    config: &SyncConfig,
    range: Range,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: Stop,
) -> (Report, Result<(), Error>) {
    let mut report = config.begin_report("backfill", clock);
    let result = run(config, range, clock, progress, stop, &mut report).await;
    conclude(config, clock, progress, &mut report, &result).await;
    (report, result)
}

async fn run(
    config: &SyncConfig,
    range: Range,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: Stop,
    report: &mut Report,
) -> Result<(), Error> {
    let session = Session::open(config, clock, stop, report).await?;
    let rules = session.rules().await?;
    let to = range.to.min(rules.now - rules.window_lag);
    report.covered_to = (range.from < to).then_some(to);
    if report.covered_to.is_none() {
        tracing::warn!("nothing of the range can be read yet: it begins after {to}");
    }
    let (state, scopes) = (&session.record.state, &session.scopes);
    let wanted = uncovered(state, scopes, range.from, to, &rules, range.again);
    let count = async |windows| {
        let counted = measure(&session.client, windows, config.concurrency());
        Ok::<_, Error>(session.or_stop(counted).await??)
    };
    let measured = count(wanted).await?;
    let expected = to_expect(state, &measured, rules.retained_from);
    let shown = count(expected.clone()).await?;
    let is_missing = |scope: &Scope| {
        let is_asked = expected.iter().any(|(asked, _)| asked == scope);
        is_asked && !shown.busy.iter().any(|(busy, ..)| busy == scope)
    };
    let Measured {
        idle, busy, failed, ..
    } = measured;
    let asks = slices(state, busy);
    let mut landing = session.landing(report);
    for (scope, window) in beyond(state, scopes, to, &rules) {
        landing.take(Event::Gap(scope, window), progress).await?;
    }
    for (scope, window) in idle {
        // Counted and found empty: as whole as an answer gets, unless the scope shows nothing any more.
        let event = if is_missing(&scope) {
            Event::Gap(scope, window)
        } else {
            Event::Whole(scope, window)
        };
        landing.take(event, progress).await?;
    }
    for (scope, row) in &shown.idle {
        landing.suspect(scope, row.from());
    }
    for (window, done) in failed {
        let gap = Event::Gap(done.scope.clone(), window);
        landing.take(gap, progress).await?;
        landing.take(Event::Done(Box::new(done)), progress).await?;
    }
    progress.begin(asks.len(), "slices");
    session.read(asks, landing, progress, clock).await
}
