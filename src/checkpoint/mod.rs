//! The committed state of a lake, and the changes that runs make to it. Pure.
//!
//! A run never replaces the state: it applies a [`Delta`] to the newest one. Deltas are unions, so
//! order and repetition do not matter, and two runs may read the same windows.

mod counted;
mod gaps;
mod listing;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{PlanExecutionId, Scope};
use crate::window::{Coverage, Window};

pub use counted::CountedRows;
pub use gaps::GapFailure;
pub use listing::{Listed, Listing};

/// Members that a later version added to a JSON object. They survive when this version rewrites it.
pub type UnknownFields = Map<String, Value>;

/// The committed state of a lake.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The scopes that were read.
    pub scopes: BTreeMap<Scope, ScopeState>,
    /// Open executions of all scopes.
    pub open: BTreeMap<PlanExecutionId, OpenExecution>,
    /// The last complete listing of organizations and projects.
    #[serde(default)]
    pub listing: Listing,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// The committed state of one scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScopeState {
    /// Windows that were read completely; the newest end is the watermark.
    #[serde(default)]
    pub coverage: Coverage,
    /// Windows that were requested but could not be read completely; never overlaps `coverage`.
    #[serde(default)]
    pub gaps: Coverage,
    /// Windows before the watermark that a backfill or a copy skipped; never overlaps `coverage` or `gaps`.
    /// The next `sync` reads them.
    #[serde(
        default,
        alias = "passed_over",
        skip_serializing_if = "Coverage::is_empty"
    )]
    pub skipped: Coverage,
    /// Covered windows that could not be read completely again; part of `coverage`.
    #[serde(default, skip_serializing_if = "Coverage::is_empty")]
    pub rereads: Coverage,
    /// Gaps that an operator has accepted: no `sync` reads or reports them. Reading one completely removes it.
    #[serde(default, skip_serializing_if = "Coverage::is_empty")]
    pub accepted: Coverage,
    /// The failures of windows in `gaps` and `rereads` that failed though the source was up, by window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gap_failures: Vec<GapFailure>,
    /// Covered windows that are to be read again, for late edits: a run ended before it did so.
    #[serde(default, skip_serializing_if = "Coverage::is_empty")]
    pub lookback: Coverage,
    /// Windows with rows that a backfill has counted and not read completely yet, by window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<CountedRows>,
    /// Start of the last run that moved the watermark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read: Option<Timestamp>,
    /// `start_ts` of the newest row ever received.
    #[serde(default)]
    pub last_row_start: Option<Timestamp>,
    /// Time of the last run that read all windows of the scope completely.
    #[serde(default)]
    pub last_success: Option<Timestamp>,
    /// The last error, until a later run succeeds and no window is left that failed.
    #[serde(default)]
    pub last_error: Option<ScopeError>,
    /// Bytes of an average row: determines the page size.
    #[serde(default)]
    pub row_bytes: Option<u32>,
    /// The largest page that succeeds, if larger ones have failed.
    #[serde(default)]
    pub page_limit: Option<u32>,
    /// Rows and hours of the last long window: a lookback with many rows is read apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_rows: Option<(u32, u32)>,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// An error that ended the reading of a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeError {
    /// Time of the error.
    pub at: Timestamp,
    /// The error code, such as `invalid_permissions`.
    pub code: String,
    /// The error message.
    pub message: String,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// An execution that is not known to be terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenExecution {
    /// The scope that last listed it.
    pub scope: Scope,
    /// Its `start_ts`; `None` if the summary has none, and so no partition.
    pub start: Option<Timestamp>,
    /// Time of the last response that contained it.
    pub observed: Timestamp,
    /// The revision of its raw partition that shows it open; 0 without a partition.
    #[serde(default)]
    pub revision: u64,
    /// Later complete polls that did not return it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<Timestamp>,
    /// The summary, if no partition can hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

/// The changes of a run, to be applied to the newest state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Windows that were read completely and whose rows are in the tables.
    pub covered: BTreeMap<Scope, Coverage>,
    /// Windows that were requested and could not be read completely.
    pub gaps: BTreeMap<Scope, Coverage>,
    /// Failures of windows in `gaps`, where the source was up.
    pub gap_failures: BTreeMap<Scope, Vec<GapFailure>>,
    /// Gaps that the operator accepts.
    pub accepted: BTreeMap<Scope, Coverage>,
    /// Windows that were not requested, older than a covered one.
    pub skipped: BTreeMap<Scope, Coverage>,
    /// Covered windows that are to be read again, for late edits.
    pub lookback: BTreeMap<Scope, Coverage>,
    /// Windows with rows that were counted.
    pub counted: BTreeMap<Scope, Vec<CountedRows>>,
    /// Other changes of scopes.
    pub scope_updates: BTreeMap<Scope, ScopeUpdate>,
    /// Changes of open executions, from the merged raw partitions and from polls.
    pub open_updates: BTreeMap<PlanExecutionId, OpenUpdate>,
    /// A complete listing of organizations and projects.
    pub listing: Option<Listing>,
}

/// Changes of a scope other than its windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScopeUpdate {
    /// `start_ts` of the newest row received.
    pub last_row_start: Option<Timestamp>,
    /// Start of the run, if it read a window completely.
    pub last_read: Option<Timestamp>,
    /// Time at which the scope was read completely.
    pub success: Option<Timestamp>,
    /// The error, if it was not.
    pub error: Option<ScopeError>,
    /// Bytes of an average row.
    pub row_bytes: Option<u32>,
    /// The largest page that succeeds, if larger ones have failed.
    pub page_limit: Option<u32>,
    /// The newest known row, if it is now in another scope.
    pub moved_row: Option<MovedRow>,
    /// Rows and hours of the last long window.
    pub window_rows: Option<(u32, u32)>,
}

/// The start of an execution that is now in another scope, and that of the newest remaining one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedRow {
    /// `start_ts` of the moved execution.
    pub start: Timestamp,
    /// `start_ts` of the newest execution that the scope still has.
    pub remaining: Option<Timestamp>,
}

/// A change of an open execution.
#[derive(Clone, Debug, PartialEq)]
pub enum OpenUpdate {
    /// The execution is open.
    Open(Box<OpenExecution>),
    /// The execution is terminal, or abandoned.
    Closed {
        /// Time of the last response that shows it.
        observed: Timestamp,
        /// The revision of its raw partition that shows it closed. A later revision may show it open
        /// again, while a lagging replica still serves the older one.
        revision: u64,
    },
    /// A complete poll at this time did not return the execution.
    Missing(Timestamp),
}

impl State {
    /// Applies the changes of a run.
    pub fn apply(&mut self, delta: &Delta) {
        for (scope, lookback) in &delta.lookback {
            self.scope(scope).lookback.union(lookback);
        }
        for (scope, covered) in &delta.covered {
            let update = delta.scope_updates.get(scope);
            let scope = self.scope(scope);
            if covered.end() > scope.coverage.end() {
                let last_read = update.and_then(|update| update.last_read);
                scope.last_read = scope.last_read.max(last_read);
            }
            scope.lookback = scope.lookback.minus(covered);
            scope.coverage.union(covered);
            scope.rereads = scope.rereads.minus(covered);
            scope.accepted = scope.accepted.minus(covered);
        }
        for (scope, gaps) in &delta.gaps {
            let scope = self.scope(scope);
            scope.gaps.union(gaps);
            scope.rereads.union(&gaps.intersection(&scope.coverage));
        }
        for (scope, failures) in &delta.gap_failures {
            let known = &mut self.scope(scope).gap_failures;
            for failure in failures {
                gaps::add(known, failure);
            }
        }
        for (scope, accepted) in &delta.accepted {
            self.scope(scope).accepted.union(accepted);
        }
        for (scope, skipped) in &delta.skipped {
            self.scope(scope).skipped.union(skipped);
        }
        for (scope, counts) in &delta.counted {
            let known = &mut self.scope(scope).counted;
            for count in counts {
                counted::add(known, *count);
            }
        }
        for scope in self.scopes.values_mut() {
            scope.rereads = scope.rereads.minus(&scope.accepted);
            scope.gaps = scope.gaps.minus(&scope.coverage).minus(&scope.accepted);
            let unread = scope.unread_gaps();
            gaps::retain_unread(&mut scope.gap_failures, &unread);
            counted::retain_useful(&mut scope.counted, &scope.coverage, &unread);
            let unread = scope.skipped.minus(&scope.coverage);
            scope.skipped = unread.minus(&scope.gaps);
        }
        for (scope, update) in &delta.scope_updates {
            self.scope(scope).apply(update);
        }
        for (id, update) in &delta.open_updates {
            self.update_open(id, update);
        }
        if let Some(listing) = &delta.listing {
            self.listing.merge(listing);
        }
    }

    fn scope(&mut self, scope: &Scope) -> &mut ScopeState {
        self.scopes.entry(scope.clone()).or_default()
    }

    fn update_open(&mut self, id: &PlanExecutionId, update: &OpenUpdate) {
        let entry = self.open.get_mut(id);
        match (update, entry) {
            (OpenUpdate::Open(open), None) => {
                self.open.insert(id.clone(), OpenExecution::clone(open));
            }
            (OpenUpdate::Open(open), Some(entry)) => {
                let revision = entry.revision.max(open.revision);
                if open.observed > entry.observed {
                    let later = |at: &Timestamp| *at > open.observed;
                    let missed = entry.missed.iter().copied().filter(later).collect();
                    *entry = OpenExecution {
                        missed,
                        unknown: std::mem::take(&mut entry.unknown),
                        ..OpenExecution::clone(open)
                    };
                }
                entry.revision = revision;
            }
            (OpenUpdate::Closed { observed, revision }, Some(entry))
                if *observed >= entry.observed && *revision >= entry.revision =>
            {
                self.open.remove(id);
            }
            (OpenUpdate::Missing(at), Some(entry)) if *at > entry.observed => {
                entry.missed.insert(*at);
            }
            (OpenUpdate::Closed { .. } | OpenUpdate::Missing(_), _) => {}
        }
    }

    /// Returns since when a scope is not listed any more; `None` for a visible one.
    pub fn not_visible_since(&self, scope: &Scope) -> Option<Timestamp> {
        let listed = self.listing.projects.get(scope)?;
        listed.row.not_visible_since_ts
    }

    /// Returns the states of all visible scopes. Runs cannot read the others.
    pub fn visible_scopes(&self) -> impl Iterator<Item = &ScopeState> {
        let scopes = self.scopes.iter();
        let visible = scopes.filter(|(scope, _)| self.not_visible_since(scope).is_none());
        visible.map(|(_, state)| state)
    }

    /// Returns the oldest and the newest watermark of all visible scopes.
    pub fn watermarks(&self) -> Option<(Timestamp, Timestamp)> {
        let ends = || {
            self.visible_scopes()
                .filter_map(|scope| scope.coverage.end())
        };
        Some((ends().min()?, ends().max()?))
    }

    /// Returns the time of the newest observation that the checkpoint knows.
    pub fn newest_observation(&self) -> Option<Timestamp> {
        let successes = self.scopes.values().filter_map(|scope| scope.last_success);
        let open = self.open.values().map(|open| open.observed);
        successes.chain(open).max()
    }

    /// Returns the number of open executions per scope.
    pub fn open_counts(&self) -> BTreeMap<&Scope, usize> {
        let mut counts = BTreeMap::new();
        for open in self.open.values() {
            *counts.entry(&open.scope).or_default() += 1;
        }
        counts
    }

    /// Returns the number of skipped windows of all visible scopes.
    pub fn skipped_count(&self) -> usize {
        let scopes = self.visible_scopes();
        scopes.map(|scope| scope.skipped.windows().len()).sum()
    }

    /// Returns the number of gaps of all visible scopes.
    pub fn gap_count(&self) -> usize {
        self.visible_scopes()
            .map(|scope| scope.unread_gaps().windows().len())
            .sum()
    }
}

impl ScopeState {
    /// Returns the windows to read before new data: gaps and skipped windows.
    pub fn pending_windows(&self) -> Coverage {
        let mut pending = self.unread_gaps();
        pending.union(&self.skipped);
        pending
    }

    /// Returns the windows that could not be read completely, covered or not.
    pub fn unread_gaps(&self) -> Coverage {
        let mut unread = self.gaps.clone();
        unread.union(&self.rereads);
        unread
    }

    /// Returns the end of what was requested of the scope: covered or pending.
    pub fn requested_until(&self) -> Option<Timestamp> {
        self.coverage.end().or_else(|| self.pending_windows().end())
    }

    /// Returns the start of the newest known row, if `window` contains it and the source still retains it. An
    /// empty response then contradicts it: a project that is merely quiet still shows this row.
    pub fn expected_row_start(
        &self,
        window: Window,
        retained_from: Timestamp,
    ) -> Option<Timestamp> {
        self.last_row_start
            .filter(|start| window.contains(*start) && *start >= retained_from)
    }

    /// Returns the count that includes most of `window`, if that is at least half, and the rows that `window`
    /// probably has.
    pub fn estimate_rows(&self, window: Window) -> Option<(CountedRows, u64)> {
        counted::estimate(&self.counted, window)
    }

    fn apply(&mut self, update: &ScopeUpdate) {
        if let Some(moved) = update.moved_row
            && self.last_row_start == Some(moved.start)
        {
            self.last_row_start = moved.remaining;
        }
        self.last_row_start = self.last_row_start.max(update.last_row_start);
        self.last_success = self.last_success.max(update.success);
        if let Some(error) = &update.error
            && self
                .last_error
                .as_ref()
                .is_none_or(|known| error.at > known.at)
        {
            self.last_error = Some(error.clone());
        }
        let error_at = self.last_error.as_ref().map(|error| error.at);
        if self.gap_failures.is_empty() && self.last_success > error_at {
            self.last_error = None;
        }
        self.row_bytes = update.row_bytes.or(self.row_bytes);
        self.page_limit = update.page_limit.or(self.page_limit);
        self.window_rows = update.window_rows.or(self.window_rows);
    }
}

impl ScopeUpdate {
    /// Adds a later update.
    pub fn add(&mut self, later: Self) {
        self.last_row_start = self.last_row_start.max(later.last_row_start);
        self.last_read = later.last_read.max(self.last_read);
        self.success = later.success.max(self.success);
        self.error = later.error.or(self.error.take());
        self.row_bytes = later.row_bytes.or(self.row_bytes);
        self.page_limit = later.page_limit.or(self.page_limit);
        self.moved_row = later.moved_row.or(self.moved_row);
        self.window_rows = later.window_rows.or(self.window_rows);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::from_ms;

    fn any_window() -> impl Strategy<Value = Window> {
        (0_i64..50, 1_i64..20)
            .prop_map(|(from, ms)| Window::new(from_ms(from), from_ms(from + ms)).unwrap())
    }

    fn any_coverage() -> impl Strategy<Value = Coverage> {
        prop::collection::vec(any_window(), 0..4).prop_map(Coverage::from_iter)
    }

    fn any_scope() -> impl Strategy<Value = Scope> {
        "[ab]".prop_map(|project| Scope::new("org", project))
    }

    /// Updates agree: at one time an execution is open or closed, never both.
    fn any_open_update() -> impl Strategy<Value = OpenUpdate> {
        (0_i64..12).prop_map(|at| {
            let observed = from_ms(at);
            match at % 3 {
                0 => OpenUpdate::Open(Box::new(OpenExecution {
                    scope: Scope::new("org", "a"),
                    start: Some(from_ms(0)),
                    observed,
                    revision: 1,
                    missed: BTreeSet::new(),
                    summary: None,
                    unknown: UnknownFields::new(),
                })),
                1 => OpenUpdate::Closed {
                    observed,
                    revision: 1,
                },
                _ => OpenUpdate::Missing(observed),
            }
        })
    }

    fn any_delta() -> impl Strategy<Value = Delta> {
        (
            prop::collection::btree_map(any_scope(), any_coverage(), 0..3),
            prop::collection::btree_map(any_scope(), any_coverage(), 0..3),
            prop::collection::btree_map(any_scope(), any_coverage(), 0..3),
            prop::collection::btree_map(
                "[xyz]".prop_map(PlanExecutionId::new),
                any_open_update(),
                0..4,
            ),
        )
            .prop_map(|(covered, gaps, skipped, open_updates)| Delta {
                covered,
                gaps,
                skipped,
                open_updates,
                ..Delta::default()
            })
    }

    fn applied(deltas: &[&Delta]) -> State {
        let mut state = State::default();
        for delta in deltas {
            state.apply(delta);
        }
        state
    }

    #[test]
    fn lookback_is_due_until_it_is_read() {
        let scope = Scope::new("org", "a");
        let window = |from, to| Coverage::from_iter(Window::new(from_ms(from), from_ms(to)));
        let read = |windows| Delta {
            covered: [(scope.clone(), windows)].into(),
            ..Delta::default()
        };
        let due = Delta {
            lookback: [(scope.clone(), window(5, 10))].into(),
            ..read(window(10, 20))
        };
        let state = applied(&[&read(window(0, 10)), &due, &read(window(5, 7))]);
        assert_eq!(state.scopes[&scope].lookback, window(7, 10));
    }

    #[test]
    fn reopened_execution_stays_open_despite_a_lagging_replica() {
        let id = PlanExecutionId::new("x");
        let delta = |update| Delta {
            open_updates: [(id.clone(), update)].into(),
            ..Delta::default()
        };
        let open = delta(OpenUpdate::Open(Box::new(OpenExecution {
            scope: Scope::new("org", "a"),
            start: Some(from_ms(0)),
            observed: from_ms(16),
            revision: 2,
            missed: BTreeSet::new(),
            summary: None,
            unknown: UnknownFields::new(),
        })));
        let closed = |at, revision| {
            let observed = from_ms(at);
            delta(OpenUpdate::Closed { observed, revision })
        };
        // A lagging replica returns revision 1, in which it is closed, after it was reopened.
        let state = applied(&[&open, &closed(17, 1)]);
        assert!(state.open.contains_key(&id));
        assert!(applied(&[&open, &closed(17, 2)]).open.is_empty());
        assert!(applied(&[&open, &closed(15, 3)]).open.contains_key(&id));
    }

    proptest! {
        #[test]
        fn coverage_ignores_order_and_repetition_of_deltas(a in any_delta(), b in any_delta()) {
            let without_rereads = |deltas: &[&Delta]| {
                let mut scopes = applied(deltas).scopes;
                // If an older gap is applied last, a window too many is read again: it costs a request.
                for scope in scopes.values_mut() {
                    scope.rereads = Coverage::default();
                }
                scopes
            };
            prop_assert_eq!(without_rereads(&[&a, &b]), without_rereads(&[&b, &a]));
            prop_assert_eq!(without_rereads(&[&a, &b, &a]), without_rereads(&[&a, &b]));
        }

        #[test]
        fn rereads_are_covered_windows(deltas in prop::collection::vec(any_delta(), 1..6)) {
            for scope in applied(&deltas.iter().collect::<Vec<_>>()).scopes.values() {
                prop_assert_eq!(scope.rereads.minus(&scope.coverage), Coverage::default());
                prop_assert_eq!(scope.rereads.intersection(&scope.gaps), Coverage::default());
            }
        }

        #[test]
        fn execution_that_was_open_last_stays_listed(deltas in prop::collection::vec(any_delta(), 1..6)) {
            let refs: Vec<_> = deltas.iter().collect();
            let state = applied(&refs);
            for id in ["x", "y", "z"].map(PlanExecutionId::new) {
                let open_updates = || deltas.iter().filter_map(|delta| delta.open_updates.get(&id));
                let opened = open_updates().filter_map(|update| match update { OpenUpdate::Open(open) => Some(open.observed), _ => None }).max();
                let closed = open_updates().filter_map(|update| match update { OpenUpdate::Closed { observed, .. } => Some(*observed), _ => None }).max();
                // If an older "open" is applied last, the list may have one entry too many: it costs a poll.
                if opened > closed {
                    prop_assert!(state.open.contains_key(&id));
                }
            }
        }

        #[test]
        fn coverage_gaps_and_skipped_windows_never_overlap(deltas in prop::collection::vec(any_delta(), 1..6)) {
            let refs: Vec<_> = deltas.iter().collect();
            for scope in applied(&refs).scopes.values() {
                prop_assert_eq!(scope.gaps.minus(&scope.coverage), scope.gaps.clone());
                let others = scope.skipped.minus(&scope.coverage).minus(&scope.gaps);
                prop_assert_eq!(others, scope.skipped.clone());
            }
        }

        #[test]
        fn state_round_trips_through_json(deltas in prop::collection::vec(any_delta(), 1..4)) {
            let state = applied(&deltas.iter().collect::<Vec<_>>());
            let json = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        }
    }
}
