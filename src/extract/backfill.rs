//! Finds and counts the windows of a backfill.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::count::{CountedWindow, WindowCounts, count_windows};
use super::plan::unread_from;
use super::{Complete, Event, Incomplete, ScopeDone, SyncRules};
use crate::checkpoint::{ScopeState, State};
use crate::ids::Scope;
use crate::source::{Client, SourceError};
use crate::window::{Coverage, Window};

/// Returns the uncovered parts of `[from, to)` within the retention, or all of it with `refetch`.
pub fn uncovered(
    state: &State,
    scopes: &[Scope],
    from: Timestamp,
    to: Timestamp,
    rules: &SyncRules,
    refetch: bool,
) -> Vec<(Scope, Window)> {
    let Ok(window) = Window::new(from.max(rules.retained_from), to) else {
        return Vec::new();
    };
    let range = Coverage::from_iter([window]);
    let parts = |scope: &Scope| {
        let known = state.scopes.get(scope).filter(|_| !refetch);
        // A covered window that failed when it was read again counts as uncovered.
        let read = known.map(|known| known.coverage.minus(&known.rereads));
        let parts = read.map_or_else(|| range.clone(), |read| range.minus(&read));
        let windows: Vec<_> = parts.windows().to_vec();
        let scope = scope.clone();
        windows.into_iter().map(move |part| (scope.clone(), part))
    };
    scopes.iter().flat_map(parts).collect()
}

/// Returns what the next `sync` would read before `to`: from the watermark on, or from the start date on.
///
/// A backfill up to `to` moves the watermarks there, newest part first. If it ends early, no `sync`
/// would read the rest, unless the checkpoint lists it as skipped.
pub fn skipped_before(
    state: &State,
    scopes: &[Scope],
    to: Timestamp,
    rules: &SyncRules,
) -> Vec<(Scope, Window)> {
    let new = ScopeState::default();
    let skipped = |scope: &Scope| {
        let known = state.scopes.get(scope).unwrap_or(&new);
        Some((
            scope.clone(),
            Window::new(unread_from(known, rules), to).ok()?,
        ))
    };
    scopes.iter().filter_map(skipped).collect()
}

/// The counted windows of a backfill.
#[derive(Debug, Default)]
pub struct BackfillCounts {
    /// Windows with rows: still to be read.
    pub non_empty: Vec<CountedWindow>,
    /// Events of all other windows.
    pub events: Vec<Event>,
}

/// Counts the rows of the windows of a backfill.
///
/// If a scope has shown rows before and shows none in these windows, it is trusted only if it shows any
/// within the retention. Its windows are then counted once more; otherwise they are gaps.
///
/// # Errors
///
/// As [`count_windows`].
pub async fn count_backfill(
    client: &Client,
    state: &State,
    windows: Vec<(Scope, Window)>,
    rules: &SyncRules,
    concurrency: usize,
) -> Result<BackfillCounts, SourceError> {
    let mut counts = count_windows(client, windows, concurrency).await?;
    counts.read_what_was_not_counted();
    let known_row = |scope: &Scope| {
        let row = state.scopes.get(scope)?.last_row_start;
        row.filter(|row| *row >= rules.surely_retained_from)
    };
    let suspicious = counts.scopes_without_rows().into_iter();
    let suspicious = suspicious.filter(|scope| known_row(scope).is_some());
    let histories = suspicious.filter_map(|scope| Some((scope, rules.retained()?)));
    let history = count_windows(client, histories.collect(), concurrency).await?;

    // A single response may be wrong, so only a second empty count is trusted.
    let non_empty = history.non_empty.iter();
    let trusted: BTreeSet<_> = non_empty.map(|counted| counted.scope.clone()).collect();
    let empty = std::mem::take(&mut counts.empty).into_iter();
    let (recounted, empty) = empty.partition(|(scope, _)| trusted.contains(scope));
    counts.empty = empty;
    counts.add(count_windows(client, recounted, concurrency).await?);

    let distrusted = distrusted(history, known_row);
    Ok(conclude(counts, distrusted))
}

/// Returns the outcome of each scope that shows no row within the retention, or failed to answer.
fn distrusted(
    history: WindowCounts,
    known_row: impl Fn(&Scope) -> Option<Timestamp>,
) -> BTreeMap<Scope, ScopeDone> {
    let failed = history.failed.into_iter().map(|(_, done)| done);
    let observed = &history.observed;
    let empty = history.empty.into_iter().map(|(scope, _)| ScopeDone {
        missing_row: known_row(&scope),
        ..ScopeDone::counted(scope.clone(), observed[&scope])
    });
    failed
        .chain(empty)
        .map(|done| (done.scope.clone(), done))
        .collect()
}

fn incomplete(scope: Scope, window: Window) -> Event {
    Event::WindowIncomplete(Incomplete {
        scope,
        window,
        reason: None,
    })
}

/// Turns counts into events, except those of windows with rows.
fn conclude(counts: WindowCounts, mut distrusted: BTreeMap<Scope, ScopeDone>) -> BackfillCounts {
    let empty_scopes = counts.empty_scopes();
    let mut events = Vec::new();
    for (scope, window) in counts.empty {
        if let Some(done) = distrusted.get_mut(&scope) {
            done.gaps += 1;
            events.push(incomplete(scope, window));
        } else {
            events.push(Event::WindowComplete(Complete::counted(scope, window)));
        }
    }
    for (window, done) in counts.failed {
        events.push(incomplete(done.scope.clone(), window));
        events.push(Event::Done(Box::new(done)));
    }
    for scope in empty_scopes {
        let trusted = || ScopeDone::counted(scope.clone(), counts.observed[&scope]);
        let done = distrusted.remove(&scope).unwrap_or_else(trusted);
        events.push(Event::Done(Box::new(done)));
    }
    BackfillCounts {
        non_empty: counts.non_empty,
        events,
    }
}
