//! The work queue of a backfill: counts and slices alternate, slices newest first over all scopes. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use super::count::CountedWindow;
use super::slices::slices;
use super::{ReadPlan, SyncRules};
use crate::checkpoint::State;
use crate::ids::Scope;
use crate::window::Window;

/// The work of a backfill that is left.
pub struct BackfillQueue<'a> {
    state: &'a State,
    uncounted: VecDeque<CountPlan>,
    /// By end, newest first.
    slices: BTreeMap<(Reverse<Timestamp>, Scope), ReadPlan>,
    /// Whether a count follows, if any is left.
    count_follows: bool,
}

/// The windows to count in one scope.
#[derive(Debug, PartialEq)]
pub(super) struct CountPlan {
    pub(super) scope: Scope,
    pub(super) windows: Vec<Window>,
    /// `start_ts` of the newest known row, if the source still retains it: that all windows are empty is then
    /// suspicious.
    pub(super) known_row: Option<Timestamp>,
    /// All that the source retains.
    pub(super) retained: Option<Window>,
}

/// The next work of a backfill.
#[derive(Debug, PartialEq)]
pub(super) enum Job {
    Count(CountPlan),
    Read(Scope, ReadPlan),
}

impl<'a> BackfillQueue<'a> {
    /// Queues the windows of a backfill. Those that an earlier run has counted become slices at once, unless
    /// `refetch`.
    ///
    /// Scopes that were never read are counted first, then those that were not read for longest.
    pub fn new(
        state: &'a State,
        windows: Vec<(Scope, Window)>,
        rules: &SyncRules,
        refetch: bool,
    ) -> Self {
        let mut queue = Self {
            state,
            uncounted: VecDeque::new(),
            slices: BTreeMap::new(),
            count_follows: true,
        };
        let mut uncounted: BTreeMap<Scope, Vec<Window>> = BTreeMap::new();
        for (scope, window) in windows {
            let known = state.scopes.get(&scope).filter(|_| !refetch);
            match known.and_then(|known| known.estimate_rows(window)) {
                Some((count, rows)) => queue.add(&CountedWindow {
                    scope,
                    window,
                    rows,
                    history: count.window,
                }),
                None => uncounted.entry(scope).or_default().push(window),
            }
        }
        let plan = |(scope, windows)| {
            let known: Option<_> = state.scopes.get(&scope);
            let known_row = known.and_then(|known| known.last_row_start);
            CountPlan {
                known_row: known_row.filter(|row| *row >= rules.surely_retained_from),
                retained: rules.retained(),
                scope,
                windows,
            }
        };
        let watermark = |plan: &CountPlan| state.scopes.get(&plan.scope)?.coverage.end();
        let mut plans: Vec<_> = uncounted.into_iter().map(plan).collect();
        plans.sort_by_key(watermark);
        queue.uncounted = plans.into();
        queue
    }

    /// Returns the scopes with work that is left.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        let counted = self.slices.keys().map(|(_, scope)| scope);
        let scopes = self.uncounted.iter().map(|plan| &plan.scope);
        let scopes: BTreeSet<_> = scopes.chain(counted).cloned().collect();
        scopes.into_iter().collect()
    }

    /// Returns the counts and slices that are left, as far as known.
    pub fn len(&self) -> usize {
        self.uncounted.len() + self.slices.len()
    }

    /// Returns whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the slices of a window that was counted.
    pub(super) fn add(&mut self, counted: &CountedWindow) {
        for (slice, plan) in slices(self.state, counted) {
            let key = (Reverse(slice.to()), counted.scope.clone());
            self.slices.insert(key, plan);
        }
    }

    /// Takes the next job: a count after each slice, while any is left.
    pub(super) fn next(&mut self) -> Option<Job> {
        let counts = self.count_follows || self.slices.is_empty();
        self.count_follows = !counts;
        let count = if counts {
            self.uncounted.pop_front()
        } else {
            None
        };
        count.map(Job::Count).or_else(|| {
            let ((_, scope), plan) = self.slices.pop_first()?;
            Some(Job::Read(scope, plan))
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::checkpoint::{CountedRows, ScopeState};
    use crate::window::{Coverage, from_ms};

    const WEEK: i64 = 7 * 86_400_000;

    fn weeks(from: i64, to: i64) -> Window {
        Window::new(from_ms(from * WEEK), from_ms(to * WEEK)).unwrap()
    }

    fn rules() -> SyncRules {
        SyncRules {
            now: from_ms(10 * WEEK),
            window_lag: SignedDuration::ZERO,
            lookback: SignedDuration::ZERO,
            idle_interval: SignedDuration::ZERO,
            start_date: from_ms(0),
            retained_from: from_ms(0),
            surely_retained_from: from_ms(0),
            largest_page: 1_000,
        }
    }

    fn queue<'a>(state: &'a State, projects: &[&str]) -> BackfillQueue<'a> {
        let window = |project: &&str| (Scope::new("o", *project), weeks(0, 3));
        BackfillQueue::new(
            state,
            projects.iter().map(window).collect(),
            &rules(),
            false,
        )
    }

    fn counted(project: &str) -> CountedWindow {
        CountedWindow {
            scope: Scope::new("o", project),
            window: weeks(0, 3),
            rows: 1_000_000,
            history: weeks(0, 3),
        }
    }

    /// Takes all jobs; returns the project of each, and the last week of a slice.
    fn jobs(queue: &mut BackfillQueue<'_>) -> Vec<String> {
        let name = |job| match job {
            Job::Count(plan) => format!("count {}", plan.scope.project),
            Job::Read(scope, plan) => {
                let week = plan.windows[0].to().as_millisecond() / WEEK;
                format!("read {} {week}", scope.project)
            }
        };
        std::iter::from_fn(|| queue.next().map(name)).collect()
    }

    #[test]
    fn counts_and_slices_alternate_newest_slice_first() {
        let state = State::default();
        let mut queue = queue(&state, &["c", "d"]);
        queue.add(&counted("a"));
        queue.add(&counted("b"));
        let expected = [
            "count c", "read a 3", "count d", "read b 3", "read a 2", "read b 2", "read a 1",
            "read b 1",
        ];
        assert_eq!(jobs(&mut queue), expected);
    }

    #[test]
    fn window_that_a_run_has_counted_is_not_counted_again() {
        let mut state = State::default();
        let count = CountedRows {
            window: weeks(0, 4),
            rows: 10,
        };
        let known = ScopeState {
            counted: vec![count],
            ..ScopeState::default()
        };
        state.scopes.insert(Scope::new("o", "a"), known);
        assert_eq!(
            jobs(&mut queue(&state, &["a", "b"])),
            ["count b", "read a 3"]
        );
    }

    #[test]
    fn scopes_that_were_never_read_are_counted_first() {
        let read = ScopeState {
            coverage: Coverage::from_iter([weeks(5, 6)]),
            ..ScopeState::default()
        };
        let state = State {
            scopes: [(Scope::new("o", "a"), read)].into(),
            ..State::default()
        };
        assert_eq!(
            jobs(&mut queue(&state, &["a", "b"])),
            ["count b", "count a"]
        );
    }
}
