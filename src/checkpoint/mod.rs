//! What a lake has committed, and how runs add to it. Pure.
//!
//! A run never writes a state of its own: it applies a [`Delta`] to the newest one. Deltas are sums
//! and unions, so order and repetition do not matter, and two runs over the same windows are both
//! right.

mod listing;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{PlanExecutionId, Scope};
use crate::window::{Coverage, Window};

pub use listing::{Listed, Listing};

/// The committed state of a lake.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Per scope: what has been read.
    pub scopes: BTreeMap<Scope, ScopeState>,
    /// Executions that are not known to be over, wherever they stand now.
    pub open: BTreeMap<PlanExecutionId, OpenExecution>,
    /// The organizations and projects last listed whole.
    #[serde(default)]
    pub listing: Listing,
}

/// What has been read of one scope.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScopeState {
    /// Windows read whole; the newest end is the watermark.
    #[serde(default)]
    pub coverage: Coverage,
    /// Windows asked for that could not be read whole; never overlaps `coverage`.
    #[serde(default)]
    pub gaps: Coverage,
    /// Windows before the watermark that nobody asked for, since a backfill or a copy of dates passed them
    /// over; never overlaps `coverage` or `gaps`. The next `sync` asks for them.
    #[serde(
        default,
        alias = "passed_over",
        skip_serializing_if = "Coverage::is_empty"
    )]
    pub skipped: Coverage,
    /// `start_ts` of the newest row ever seen.
    #[serde(default)]
    pub last_row_start: Option<Timestamp>,
    /// When everything asked of the scope was last answered whole.
    #[serde(default)]
    pub last_success: Option<Timestamp>,
    /// Why the last reading failed, until one succeeds.
    #[serde(default)]
    pub last_error: Option<ScopeError>,
    /// Bytes of an average row, for the choice of the page size.
    #[serde(default)]
    pub row_bytes: Option<u32>,
    /// The largest page that the server gave without trouble, where it had some.
    #[serde(default)]
    pub page_limit: Option<u32>,
}

/// Why a scope could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeError {
    /// When.
    pub at: Timestamp,
    /// The code of the contract, such as `invalid_permissions`.
    pub code: String,
    /// What happened.
    pub message: String,
}

/// An execution that is not known to be over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenExecution {
    /// The scope that it was last seen in.
    pub scope: Scope,
    /// Its `start_ts`; `None` where the summary had none, and so no partition.
    pub start: Option<Timestamp>,
    /// When it was last seen.
    pub observed: Timestamp,
    /// The revision of its raw partition that said so; 0 where it has no partition.
    #[serde(default)]
    pub revision: u64,
    /// Whole polls since then that did not show it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missed: BTreeSet<Timestamp>,
    /// The summary, where there is no partition to keep it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
}

/// What a run learned, to be added to whatever is committed by then.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Windows read whole, whose rows are in the tables.
    pub covered: BTreeMap<Scope, Coverage>,
    /// Windows asked for and not read whole.
    pub gaps: BTreeMap<Scope, Coverage>,
    /// Windows not asked for, behind which something is covered.
    pub skipped: BTreeMap<Scope, Coverage>,
    /// What else was seen of a scope.
    pub seen: BTreeMap<Scope, ScopeNews>,
    /// Of each execution observed: what the raw partition says of it now.
    pub open_updates: BTreeMap<PlanExecutionId, OpenUpdate>,
    /// A listing of organizations and projects, where one was whole.
    pub listing: Option<Listing>,
}

/// What was seen of a scope besides windows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScopeNews {
    /// `start_ts` of the newest row.
    pub last_row_start: Option<Timestamp>,
    /// When the scope was answered whole.
    pub success: Option<Timestamp>,
    /// Why it was not.
    pub error: Option<ScopeError>,
    /// Bytes of an average row.
    pub row_bytes: Option<u32>,
    /// The largest page without trouble.
    pub page_limit: Option<u32>,
}

/// What is to become of an entry of the open list.
#[derive(Clone, Debug, PartialEq)]
pub enum OpenUpdate {
    /// It is open.
    Open(Box<OpenExecution>),
    /// It is over, or given up.
    Closed {
        /// When the source was last seen to say so.
        observed: Timestamp,
        /// The revision of its raw partition that says so: a later one may say that it is open
        /// again, and a replica that lags lets an older observation say so.
        revision: u64,
    },
    /// A whole poll at this time did not show it.
    Missing(Timestamp),
}

impl State {
    /// Adds what a run learned.
    pub fn apply(&mut self, delta: &Delta) {
        for (scope, covered) in &delta.covered {
            self.scope(scope).coverage.union(covered);
        }
        for (scope, gaps) in &delta.gaps {
            self.scope(scope).gaps.union(gaps);
        }
        for (scope, skipped) in &delta.skipped {
            self.scope(scope).skipped.union(skipped);
        }
        for (scope, seen) in &delta.seen {
            self.scope(scope).see(seen);
        }
        for scope in self.scopes.values_mut() {
            scope.gaps = scope.gaps.minus(&scope.coverage);
            let unread = scope.skipped.minus(&scope.coverage);
            scope.skipped = unread.minus(&scope.gaps);
        }
        for (id, update) in &delta.open_updates {
            self.decide(id, update);
        }
        if let Some(listing) = &delta.listing {
            self.listing.absorb(listing);
        }
    }

    fn scope(&mut self, scope: &Scope) -> &mut ScopeState {
        self.scopes.entry(scope.clone()).or_default()
    }

    fn decide(&mut self, id: &PlanExecutionId, open_update: &OpenUpdate) {
        let entry = self.open.get_mut(id);
        match (open_update, entry) {
            (OpenUpdate::Open(open), None) => {
                self.open.insert(id.clone(), OpenExecution::clone(open));
            }
            (OpenUpdate::Open(open), Some(entry)) => {
                let revision = entry.revision.max(open.revision);
                if entry.observed < open.observed {
                    let later = |at: &Timestamp| open.observed < *at;
                    let missed = entry.missed.iter().copied().filter(later).collect();
                    *entry = OpenExecution {
                        missed,
                        ..OpenExecution::clone(open)
                    };
                }
                entry.revision = revision;
            }
            (OpenUpdate::Closed { observed, revision }, Some(entry))
                if entry.observed <= *observed && entry.revision <= *revision =>
            {
                self.open.remove(id);
            }
            (OpenUpdate::Missing(at), Some(entry)) if entry.observed < *at => {
                entry.missed.insert(*at);
            }
            (OpenUpdate::Closed { .. } | OpenUpdate::Missing(_), _) => {}
        }
    }

    /// The oldest and the newest watermark of the scopes that have one.
    pub fn watermarks(&self) -> Option<(Timestamp, Timestamp)> {
        let ends = || {
            self.scopes
                .values()
                .filter_map(|scope| scope.coverage.end())
        };
        Some((ends().min()?, ends().max()?))
    }

    /// Open executions of each scope that has some.
    pub fn open_counts(&self) -> BTreeMap<&Scope, usize> {
        let mut counts = BTreeMap::new();
        for open in self.open.values() {
            *counts.entry(&open.scope).or_default() += 1;
        }
        counts
    }

    /// Windows that were passed over and that the next `sync` asks for, over all scopes.
    pub fn skipped_count(&self) -> usize {
        let scopes = self.scopes.values();
        scopes.map(|scope| scope.skipped.windows().len()).sum()
    }

    /// Windows that could not be read whole, over all scopes.
    pub fn gap_count(&self) -> usize {
        self.scopes
            .values()
            .map(|scope| scope.gaps.windows().len())
            .sum()
    }
}

impl ScopeState {
    /// Windows to be read before anything new: gaps, and what was passed over.
    pub fn pending_windows(&self) -> Coverage {
        let mut pending = self.gaps.clone();
        pending.union(&self.skipped);
        pending
    }

    /// Up to where the scope was read or is pending; what lies behind it was never asked for.
    pub fn requested_until(&self) -> Option<Timestamp> {
        self.coverage.end().or_else(|| self.pending_windows().end())
    }

    /// The newest row ever seen, where the source keeps it still and `asked` holds it: then an answer
    /// of no row at all contradicts it. A project that is merely quiet shows this row.
    pub fn expected_row_start(&self, asked: Window, retained_from: Timestamp) -> Option<Timestamp> {
        self.last_row_start
            .filter(|start| asked.contains(*start) && retained_from <= *start)
    }

    fn see(&mut self, seen: &ScopeNews) {
        self.last_row_start = self.last_row_start.max(seen.last_row_start);
        self.last_success = self.last_success.max(seen.success);
        let newer = |one: &ScopeError, other: &ScopeError| one.at < other.at;
        if let Some(error) = &seen.error
            && self
                .last_error
                .as_ref()
                .is_none_or(|known| newer(known, error))
        {
            self.last_error = Some(error.clone());
        }
        if self
            .last_error
            .as_ref()
            .is_some_and(|error| Some(error.at) < self.last_success)
        {
            self.last_error = None;
        }
        self.row_bytes = seen.row_bytes.or(self.row_bytes);
        self.page_limit = seen.page_limit.or(self.page_limit);
    }
}

impl ScopeNews {
    /// Adds what was seen later.
    pub fn add(&mut self, later: Self) {
        self.last_row_start = self.last_row_start.max(later.last_row_start);
        self.success = later.success.max(self.success);
        self.error = later.error.or(self.error.take());
        self.row_bytes = later.row_bytes.or(self.row_bytes);
        self.page_limit = later.page_limit.or(self.page_limit);
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

    /// Facts about one execution agree: at one time it was seen open or closed, never both.
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
    fn what_was_opened_again_stays_though_a_replica_lags() {
        let id = PlanExecutionId::new("x");
        let told = |update| Delta {
            open_updates: [(id.clone(), update)].into(),
            ..Delta::default()
        };
        let open = told(OpenUpdate::Open(Box::new(OpenExecution {
            scope: Scope::new("org", "a"),
            start: Some(from_ms(0)),
            observed: from_ms(16),
            revision: 2,
            missed: BTreeSet::new(),
            summary: None,
        })));
        let closed = |at, revision| {
            let observed = from_ms(at);
            told(OpenUpdate::Closed { observed, revision })
        };
        // Over as of revision 1, seen again later than it was opened, in a replica that lags.
        let state = applied(&[&open, &closed(17, 1)]);
        assert!(state.open.contains_key(&id));
        assert!(applied(&[&open, &closed(17, 2)]).open.is_empty());
        assert!(applied(&[&open, &closed(15, 3)]).open.contains_key(&id));
    }

    proptest! {
        #[test]
        fn coverage_and_gaps_do_not_depend_on_order_or_repetition(a in any_delta(), b in any_delta()) {
            prop_assert_eq!(applied(&[&a, &b]).scopes, applied(&[&b, &a]).scopes);
            prop_assert_eq!(applied(&[&a, &b, &a]).scopes, applied(&[&a, &b]).scopes);
        }

        #[test]
        fn an_execution_seen_open_last_stays_in_the_list(deltas in prop::collection::vec(any_delta(), 1..6)) {
            let refs: Vec<_> = deltas.iter().collect();
            let state = applied(&refs);
            for id in ["x", "y", "z"].map(PlanExecutionId::new) {
                let open_updates = || deltas.iter().filter_map(|delta| delta.open_updates.get(&id));
                let opened = open_updates().filter_map(|update| match update { OpenUpdate::Open(open) => Some(open.observed), _ => None }).max();
                let closed = open_updates().filter_map(|update| match update { OpenUpdate::Closed { observed, .. } => Some(*observed), _ => None }).max();
                // Where an older "open" is applied last an entry may be too many; it costs a poll.
                if closed < opened {
                    prop_assert!(state.open.contains_key(&id));
                }
            }
        }

        #[test]
        fn a_gap_is_never_covered_and_what_was_passed_over_is_no_gap(deltas in prop::collection::vec(any_delta(), 1..6)) {
            let refs: Vec<_> = deltas.iter().collect();
            for scope in applied(&refs).scopes.values() {
                prop_assert_eq!(scope.gaps.minus(&scope.coverage), scope.gaps.clone());
                let others = scope.skipped.minus(&scope.coverage).minus(&scope.gaps);
                prop_assert_eq!(others, scope.skipped.clone());
            }
        }

        #[test]
        fn a_state_survives_its_json(deltas in prop::collection::vec(any_delta(), 1..4)) {
            let state = applied(&deltas.iter().collect::<Vec<_>>());
            let json = serde_json::to_string(&state).unwrap();
            prop_assert_eq!(serde_json::from_str::<State>(&json).unwrap(), state);
        }
    }
}
