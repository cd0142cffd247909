//! Finds the windows of a backfill. Pure.

use jiff::Timestamp;

use super::SyncRules;
use super::plan::unread_from;
use crate::checkpoint::{ScopeState, State};
use crate::ids::Scope;
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
