//! Stage 2 of 4: what to ask the source for, and whether it came whole.
//!
//! ```text
//! State + now --plan--> ReadPlan (one a scope) --fanout--> Event (rows; a window is whole; an execution is gone)
//! ```

pub mod backfill;
pub mod discover;
pub mod fanout;
mod open;
mod paging;
mod windows;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::checkpoint::{OpenExecution, OpenUpdate, ScopeState, State};
use crate::ids::{PlanExecutionId, Scope};
use crate::window::Window;
use paging::Paging;

/// What a run is to read of one scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadPlan {
    /// Windows of `start_ts`, in the order of reading: gaps first.
    pub windows: Vec<Window>,
    /// Open executions that no window holds, with their `start_ts`.
    pub open: Vec<(PlanExecutionId, Timestamp)>,
    /// Open executions that a window holds: it shows them, or they are gone.
    pub expected: Vec<(PlanExecutionId, Timestamp)>,
    /// What is known of the pages of the scope.
    pub pages: PageHints,
    /// `start_ts` of a row that the windows show unless something is wrong.
    pub expected_row_start: Option<Timestamp>,
    /// A window in which the source has shown rows: an answer of nothing is believed if it shows one still.
    pub history: Option<Window>,
}

impl ReadPlan {
    /// Requests that poll the executions which no window holds.
    pub fn polls(&self) -> usize {
        self.open.len().div_ceil(open::BATCH)
    }
}

/// What earlier runs learned of the pages of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageHints {
    /// Bytes of an average row.
    pub row_bytes: Option<u32>,
    /// The largest page without trouble.
    pub page_limit: Option<u32>,
}

impl PageHints {
    /// What earlier runs learned of a scope.
    pub fn of(state: &State, scope: &Scope) -> Self {
        state
            .scopes
            .get(scope)
            .map_or_else(Self::default, |known| Self {
                row_bytes: known.row_bytes,
                page_limit: known.page_limit,
            })
    }

    /// Requests that read a window of `rows` rows whole, if nothing goes wrong; `row_bytes` is what a
    /// row has where no run has seen one.
    pub fn calls(self, rows: u64, row_bytes: Option<u32>, largest_page: u32) -> u64 {
        let mut paging = Paging::new(self, largest_page);
        if let Some(bytes) = row_bytes {
            paging.suppose(bytes);
        }
        paging.calls(rows)
    }
}

/// What all asks of a `sync` follow from, besides the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct SyncRules {
    /// Now, by the source's clock.
    pub now: Timestamp,
    /// How long before now windows end: what the source's replicas may lag.
    pub window_lag: SignedDuration,
    /// How far before the watermark windows begin, for edits of terminal rows.
    pub lookback: SignedDuration,
    /// Where the coverage of a new scope begins.
    pub start_date: Timestamp,
    /// Before this the source keeps nothing.
    pub retained_from: Timestamp,
    /// From this on it keeps everything, however long its months are.
    pub surely_retained_from: Timestamp,
}

impl SyncRules {
    /// All that the source keeps and can be read whole.
    pub fn retained(&self) -> Option<Window> {
        Window::new(self.retained_from, self.now - self.window_lag).ok()
    }
}

/// How old an open execution gets before it is given up: the source ends them after 37 days.
const ABANDON_AFTER: SignedDuration = SignedDuration::from_hours(38 * 24);

/// Whole polls without an open execution after which it is given up.
const MISSES: usize = 3;

/// Plans a `sync`: for each scope its gaps, one window that ends now and begins early enough, and
/// its open executions. Beside the asks: open executions that are given up.
pub fn plan_sync(
    state: &State,
    scopes: &[Scope],
    rules: &SyncRules,
) -> (
    BTreeMap<Scope, ReadPlan>,
    BTreeMap<PlanExecutionId, OpenUpdate>,
) {
    let unknown = ScopeState::default();
    let mut asks: BTreeMap<Scope, ReadPlan> = scopes
        .iter()
        .map(|scope| {
            let known = state.scopes.get(scope).unwrap_or(&unknown);
            let windows = windows_of(known, rules);
            let kept_from = rules.surely_retained_from;
            let expected = |window: &Window| known.expected_row_start(*window, kept_from);
            let expected_row_start = windows.iter().find_map(expected);
            (
                scope.clone(),
                ReadPlan {
                    expected_row_start,
                    history: expected_row_start.and_then(|_| rules.retained()),
                    windows,
                    pages: PageHints::of(state, scope),
                    ..ReadPlan::default()
                },
            )
        })
        .collect();
    let mut abandoned = BTreeMap::new();
    for (id, open) in &state.open {
        if is_abandoned(open, rules.now) {
            let update = OpenUpdate::Closed {
                observed: rules.now,
                revision: open.revision,
            };
            abandoned.insert(id.clone(), update);
        } else if let (Some(ask), Some(start)) = (asks.get_mut(&open.scope), open.start) {
            if ask.windows.iter().any(|window| window.contains(start)) {
                ask.expected.push((id.clone(), start));
            } else if is_due(open, start, rules.now) {
                ask.open.push((id.clone(), start));
            }
        }
    }
    (asks, abandoned)
}

/// The windows of one scope: what is pending, then one from early enough until now.
///
/// It begins at the watermark less the lookback, or at the last row ever seen where that is
/// earlier; so a project that looked empty while a key had lost its rights is read again from its
/// last row on, as soon as rows come back. Without any row it begins where coverage does.
fn windows_of(known: &ScopeState, rules: &SyncRules) -> Vec<Window> {
    let to = rules.now - rules.window_lag;
    let last_row = known.last_row_start.or(known.coverage.start());
    // What was covered while a clock was far ahead says nothing of what comes up to then.
    let watermark = known.coverage.end().map(|end| end.min(to));
    let is_ahead = known.coverage.start().is_some_and(|start| to <= start);
    let begins = begins(known, rules);
    let from = match watermark.filter(|_| !is_ahead) {
        None if is_ahead => rules.start_date.max(rules.retained_from),
        None => begins,
        Some(watermark) => {
            let lookback = watermark
                .saturating_sub(rules.lookback)
                .unwrap_or(watermark);
            let from = last_row.map_or(lookback, |at| at.min(lookback));
            from.max(rules.retained_from.min(begins))
        }
    };
    let newest = Window::new(from, to).ok();
    let inside = |gap: &Window| {
        newest.is_some_and(|newest| newest.from() <= gap.from() && gap.to() <= newest.to())
    };
    // Also those that the source keeps no more: an answer of nothing closes them.
    let pending = known.pending_windows();
    let pending = pending.windows().iter().copied();
    pending.filter(|gap| !inside(gap)).chain(newest).collect()
}

/// Where what no run has asked for of a scope begins. Of a new one that is the start date, if the source keeps
/// so much; of one that was left alone for longer than that, it is where it was left.
fn begins(known: &ScopeState, rules: &SyncRules) -> Timestamp {
    let start = rules.start_date.max(rules.retained_from);
    match known.coverage.end() {
        Some(watermark) => watermark,
        None => known.asked_until().map_or(start, |until| until.min(start)),
    }
}

fn is_abandoned(open: &OpenExecution, now: Timestamp) -> bool {
    let since = open.start.unwrap_or(open.observed);
    ABANDON_AFTER < now.duration_since(since) || MISSES <= open.missed.len()
}

/// Open executions are polled by each run in their first day, then hourly, then a few times a day.
fn is_due(open: &OpenExecution, start: Timestamp, now: Timestamp) -> bool {
    let polled = open
        .missed
        .last()
        .copied()
        .unwrap_or(open.observed)
        .max(open.observed);
    let spacing = match now.duration_since(start).as_hours() {
        ..24 => SignedDuration::ZERO,
        24..168 => SignedDuration::from_mins(55),
        168.. => SignedDuration::from_hours(6),
    };
    spacing <= now.duration_since(polled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::Coverage;

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    fn rules() -> SyncRules {
        SyncRules {
            now: at("24T12:00"),
            window_lag: SignedDuration::from_mins(5),
            lookback: SignedDuration::from_hours(24),
            start_date: at("01T00:00"),
            retained_from: at("01T00:00") - SignedDuration::from_hours(24 * 90),
            surely_retained_from: at("01T00:00") - SignedDuration::from_hours(24 * 80),
        }
    }

    fn window(from: &str, to: &str) -> Window {
        Window::new(at(from), at(to)).unwrap()
    }

    fn windows(known: &ScopeState) -> Vec<Window> {
        windows_of(known, &rules())
    }

    #[test]
    fn coverage_that_lies_ahead_says_nothing_of_what_comes_before() {
        let ahead = |from, to| ScopeState {
            coverage: Coverage::from_iter([window(from, to)]),
            ..ScopeState::default()
        };
        // A clock that was far ahead saw the scope first, or read it last.
        let first = windows(&ahead("28T00:00", "29T00:00"));
        assert_eq!(first, [window("01T00:00", "24T11:55")]);
        let last = ScopeState {
            last_row_start: Some(at("20T00:00")),
            ..ahead("10T00:00", "29T00:00")
        };
        assert_eq!(windows(&last), [window("20T00:00", "24T11:55")]);
    }

    #[test]
    fn a_new_scope_begins_at_the_start_date() {
        assert_eq!(
            windows(&ScopeState::default()),
            [window("01T00:00", "24T11:55")]
        );
    }

    #[test]
    fn a_known_scope_looks_back_from_its_watermark() {
        let coverage = Coverage::from_iter([window("01T00:00", "24T11:00")]);
        let last_row_start = Some(at("24T10:59"));
        let known = ScopeState {
            coverage,
            last_row_start,
            ..ScopeState::default()
        };
        assert_eq!(windows(&known), [window("23T11:00", "24T11:55")]);
    }

    #[test]
    fn a_scope_that_fell_silent_is_read_from_its_last_row() {
        let coverage = Coverage::from_iter([window("01T00:00", "24T11:00")]);
        let last_row_start = Some(at("17T08:00"));
        let known = ScopeState {
            coverage,
            last_row_start,
            ..ScopeState::default()
        };
        assert_eq!(windows(&known), [window("17T08:00", "24T11:55")]);
    }

    #[test]
    fn gaps_come_first_unless_the_window_holds_them() {
        let coverage = Coverage::from_iter([
            window("01T00:00", "05T00:00"),
            window("06T00:00", "24T11:00"),
        ]);
        let gaps = Coverage::from_iter([
            window("05T00:00", "06T00:00"),
            window("24T03:00", "24T04:00"),
        ]);
        let last_row_start = Some(at("24T10:59"));
        let known = ScopeState {
            coverage,
            gaps,
            last_row_start,
            ..ScopeState::default()
        };
        assert_eq!(
            windows(&known),
            [
                window("05T00:00", "06T00:00"),
                window("23T11:00", "24T11:55")
            ]
        );
    }

    #[test]
    fn no_time_is_left_out_however_long_a_scope_was_not_read() {
        let ago = |days: i64| rules().now - SignedDuration::from_hours(24 * days);
        let between = |from, to| Coverage::from_iter([Window::new(from, to).unwrap()]);
        let until_now = |from| Window::new(from, at("24T11:55")).unwrap();
        // Longer than the source keeps anything.
        let left = ScopeState {
            coverage: between(ago(300), ago(200)),
            last_row_start: Some(ago(250)),
            ..ScopeState::default()
        };
        assert_eq!(windows(&left), [until_now(ago(200))]);
        // A quiet one is not asked for again from before that.
        let quiet = ScopeState {
            coverage: between(ago(300), ago(0)),
            last_row_start: Some(ago(250)),
            ..ScopeState::default()
        };
        assert_eq!(windows(&quiet), [until_now(rules().retained_from)]);
        // Never read, though it was asked for.
        let failed = ScopeState {
            gaps: between(ago(80), ago(50)),
            ..ScopeState::default()
        };
        let gap = Window::new(ago(80), ago(50)).unwrap();
        assert_eq!(windows(&failed), [gap, until_now(ago(50))]);
    }

    #[test]
    fn what_was_passed_over_is_asked_for_first() {
        let known = ScopeState {
            coverage: Coverage::from_iter([window("10T00:00", "24T11:00")]),
            skipped: Coverage::from_iter([window("02T00:00", "10T00:00")]),
            last_row_start: Some(at("24T10:59")),
            ..ScopeState::default()
        };
        let expected = [
            window("02T00:00", "10T00:00"),
            window("23T11:00", "24T11:55"),
        ];
        assert_eq!(windows(&known), expected);
    }

    #[test]
    fn a_gap_that_the_source_keeps_no_more_is_asked_for_still() {
        let old = at("01T00:00") - SignedDuration::from_hours(24 * 100);
        let gap = Window::new(old, old + SignedDuration::from_hours(24 * 20)).unwrap();
        let known = ScopeState {
            gaps: Coverage::from_iter([gap]),
            ..ScopeState::default()
        };
        assert_eq!(windows(&known)[0], gap);
    }

    fn open(start: Timestamp, observed: Timestamp) -> OpenExecution {
        let scope = Scope::new("o", "p");
        OpenExecution {
            scope,
            start: Some(start),
            observed,
            revision: 1,
            missed: [].into(),
            summary: None,
        }
    }

    #[test]
    fn open_executions_are_polled_less_often_as_they_age() {
        let now = rules().now;
        let ago = |hours: i64| now - SignedDuration::from_hours(hours);
        for (age, polled, due) in [
            (2, 0, true),
            (30, 0, false),
            (30, 1, true),
            (200, 3, false),
            (200, 6, true),
        ] {
            assert_eq!(
                is_due(&open(ago(age), ago(polled)), ago(age), now),
                due,
                "{age} {polled}"
            );
        }
    }

    #[test]
    fn an_open_execution_is_polled_expected_or_given_up() {
        let scope = Scope::new("o", "p");
        let coverage = Coverage::from_iter([window("01T00:00", "24T11:00")]);
        let last_row_start = Some(at("24T10:59"));
        let known = ScopeState {
            coverage,
            last_row_start,
            ..ScopeState::default()
        };
        let old = rules().now - SignedDuration::from_hours(39 * 24);
        let mut state = State {
            scopes: [(scope.clone(), known)].into(),
            ..State::default()
        };
        state.open = [
            ("in", open(at("24T01:00"), at("24T11:00"))),
            ("before", open(at("20T01:00"), at("24T02:00"))),
            ("old", open(old, at("24T02:00"))),
        ]
        .map(|(id, open)| (PlanExecutionId::new(id), open))
        .into();
        let (asks, abandoned) = plan_sync(&state, std::slice::from_ref(&scope), &rules());
        let ids = |list: &[(PlanExecutionId, Timestamp)]| {
            list.iter()
                .map(|(id, _)| id.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&asks[&scope].expected), ["in"]);
        assert_eq!(ids(&asks[&scope].open), ["before"]);
        assert_eq!(
            abandoned
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["old"]
        );
    }
}
