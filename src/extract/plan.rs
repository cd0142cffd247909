//! Plans a `sync`: for each scope its pending windows, one new window, and polls of open executions. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::idle::is_skipped;
use super::{PageHints, ReadPlan};
use crate::checkpoint::{OpenExecution, OpenUpdate, ScopeState, State};
use crate::ids::{PlanExecutionId, Scope};
use crate::window::{Coverage, Window};

/// Age after which an open execution is abandoned: the source ends them after 37 days.
const ABANDON_AGE: SignedDuration = SignedDuration::from_hours(38 * 24);

/// Complete polls that miss an open execution before it is abandoned.
const ABANDON_MISSES: usize = 3;

/// The settings and times that all plans of a `sync` depend on, besides the checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct SyncRules {
    /// Now, by the source's clock.
    pub now: Timestamp,
    /// How long before now windows end: the maximum lag of the source's replicas.
    pub window_lag: SignedDuration,
    /// How far before the watermark windows begin, to find edits of terminal rows.
    pub lookback: SignedDuration,
    /// How often projects without a new execution for a week are asked for new data; zero for each run.
    pub idle_interval: SignedDuration,
    /// Start of the coverage of a new scope.
    pub start_date: Timestamp,
    /// The source has deleted everything before this.
    pub retained_from: Timestamp,
    /// The source has everything from this on, however long its months are.
    pub surely_retained_from: Timestamp,
    /// The maximum page size.
    pub largest_page: u32,
}

impl SyncRules {
    /// Returns everything that the source retains and that can be read completely.
    pub fn retained(&self) -> Option<Window> {
        Window::new(self.retained_from, self.now - self.window_lag).ok()
    }

    /// Returns the end of the newest window.
    pub fn end(&self) -> Timestamp {
        self.now - self.window_lag
    }
}

/// Plans a `sync` of each scope. Returns the plans in the order of reading, and the open executions to abandon.
/// Idle scopes without anything else to read have no plan.
///
/// Scopes that were never read go first, then those that were not read for longest. So runs that are cut short
/// reach every scope.
pub fn plan_sync(
    state: &State,
    scopes: &[Scope],
    rules: &SyncRules,
) -> (
    Vec<(Scope, ReadPlan)>,
    BTreeMap<PlanExecutionId, OpenUpdate>,
) {
    let mut plans: BTreeMap<Scope, ReadPlan> = scopes
        .iter()
        .map(|scope| (scope.clone(), plan_windows(state, scope, rules)))
        .collect();
    let mut abandoned = BTreeMap::new();
    for (id, open) in &state.open {
        if is_abandoned(open, rules.now) {
            let update = OpenUpdate::Closed {
                observed: rules.now,
                revision: open.revision,
            };
            abandoned.insert(id.clone(), update);
        } else if let (Some(plan), Some(start)) = (plans.get_mut(&open.scope), open.start) {
            let mut windows = plan.windows.iter().chain(&plan.lookback);
            if windows.any(|window| window.contains(start)) {
                plan.expected.push((id.clone(), start));
            } else if is_due(open, start, rules.now) {
                plan.open.push((id.clone(), start));
            }
        }
    }
    let watermark = |scope: &Scope| state.scopes.get(scope)?.coverage.end();
    let mut plans: Vec<_> = plans.into_iter().collect();
    let is_idle = |scope: &Scope| {
        let known = state.scopes.get(scope);
        known.is_some_and(|known| is_skipped(known, scope, rules))
    };
    plans.retain(|(scope, plan)| !(plan.is_empty() && is_idle(scope)));
    plans.sort_by_key(|(scope, _)| watermark(scope));
    (plans, abandoned)
}

fn plan_windows(state: &State, scope: &Scope, rules: &SyncRules) -> ReadPlan {
    let new = ScopeState::default();
    let known = state.scopes.get(scope).unwrap_or(&new);
    let hints = PageHints::of(state, scope);
    let Windows {
        new: windows,
        lookback,
        pending,
    } = if is_skipped(known, scope, rules) {
        due_windows(known, rules)
    } else {
        windows_to_read(known, hints, rules)
    };
    let retained_from = rules.surely_retained_from;
    let expected_row_start = windows
        .iter()
        .chain(&lookback)
        .chain(&pending)
        .find_map(|window| known.expected_row_start(*window, retained_from));
    ReadPlan {
        windows,
        lookback,
        pending,
        pages: hints,
        expected_row_start,
        history: expected_row_start.and_then(|_| rules.retained()),
        ..ReadPlan::default()
    }
}

/// The windows of one scope.
struct Windows {
    new: Vec<Window>,
    lookback: Vec<Window>,
    pending: Vec<Window>,
}

/// Returns the windows to read of a scope.
///
/// The new ones are one window that ends now, without the parts that failed before: these are retried ever more
/// rarely. If it probably has more rows than one slice, or if the last run ended within it, new data and lookback
/// are read apart. Otherwise one window needs fewer requests.
///
/// It begins at the watermark less the lookback, or at the newest known row if that is
/// earlier. So if a key loses its rights and the project looks empty, it is read again from its newest
/// row on as soon as rows return. Without any row it begins where the coverage begins.
fn windows_to_read(known: &ScopeState, hints: PageHints, rules: &SyncRules) -> Windows {
    let to = rules.end();
    let last_row = known.last_row_start.or(known.coverage.start());
    // Coverage after now stems from a clock that was ahead: it does not cover the time until then.
    let watermark = known.coverage.end().map(|end| end.min(to));
    let is_ahead = known.coverage.start().is_some_and(|start| start >= to);
    let unread_from = unread_from(known, rules);
    let watermark = watermark.filter(|_| !is_ahead);
    let from = match watermark {
        None if is_ahead => rules.start_date.max(rules.retained_from),
        None => unread_from,
        Some(watermark) => {
            let lookback = watermark
                .saturating_sub(rules.lookback)
                .unwrap_or(watermark);
            let from = last_row.map_or(lookback, |at| at.min(lookback));
            from.max(rules.retained_from.min(unread_from))
        }
    };
    let joined = Window::new(from, to).ok();
    let was_cut = was_cut(known);
    let is_long = joined.is_some_and(|window| hints.exceeds_slice(window, rules.largest_page));
    let apart = watermark.filter(|_| was_cut || is_long);
    let newest = Coverage::from_iter(Window::new(apart.unwrap_or(from), to));
    let mature = known.last_read.filter(|_| was_cut);
    let mature = mature.and_then(|read| (read - rules.window_lag).checked_sub(rules.lookback).ok());
    let young_from = mature.map_or(from, |at| from.max(at));
    let lookback = apart.and_then(|watermark| Window::new(young_from, watermark).ok());
    let mut lookback = Coverage::from_iter(lookback);
    lookback.union(&known.lookback);
    without_failed(known, rules, &newest, &lookback)
}

/// Returns the windows to read of an idle scope: what earlier runs left to read.
fn due_windows(known: &ScopeState, rules: &SyncRules) -> Windows {
    without_failed(known, rules, &Coverage::default(), &known.lookback)
}

/// Removes the windows that failed before from the new windows and the lookback. Adds the pending windows, and the
/// failed ones that are due.
fn without_failed(
    known: &ScopeState,
    rules: &SyncRules,
    newest: &Coverage,
    lookback: &Coverage,
) -> Windows {
    let failures = || known.gap_failures.iter();
    let failed: Coverage = failures().map(|failure| failure.window).collect();
    let due = failures().filter(|failure| failure.is_due(rules.now));
    let new = newest.minus(&failed).minus(&known.accepted);
    let lookback = lookback.minus(newest).minus(&failed);
    let lookback = lookback.minus(&known.accepted);
    // Includes windows past the retention: an empty response closes them.
    let pending = known.pending_windows().minus(&failed).minus(&lookback);
    let pending = pending.windows().iter().copied();
    let pending = pending.filter(|window| !new.covers(*window));
    let pending = pending.chain(due.map(|failure| failure.window)).collect();
    Windows {
        new: new.windows().to_vec(),
        lookback: lookback.windows().to_vec(),
        pending,
    }
}

/// Returns whether the last run ended within the newest window: it received rows after the watermark.
fn was_cut(known: &ScopeState) -> bool {
    let last_row = known.last_row_start;
    last_row.is_some_and(|last_row| Some(last_row) >= known.coverage.end())
        && !known.coverage.is_empty()
}

/// Returns the start of what no run has requested of a scope.
///
/// For a new scope that is the start date, within the retention. For a scope that was not read for
/// longer than the retention it is the old watermark.
pub(super) fn unread_from(known: &ScopeState, rules: &SyncRules) -> Timestamp {
    let start = rules.start_date.max(rules.retained_from);
    match known.coverage.end() {
        Some(watermark) => watermark,
        None => known
            .requested_until()
            .map_or(start, |until| until.min(start)),
    }
}

fn is_abandoned(open: &OpenExecution, now: Timestamp) -> bool {
    let since = open.start.unwrap_or(open.observed);
    now.duration_since(since) > ABANDON_AGE || open.missed.len() >= ABANDON_MISSES
}

/// Returns whether an open execution is polled by this run: by each run on its first day, hourly in its first
/// week, then every six hours.
fn is_due(open: &OpenExecution, start: Timestamp, now: Timestamp) -> bool {
    let last_poll = open
        .missed
        .last()
        .copied()
        .unwrap_or(open.observed)
        .max(open.observed);
    let interval = match now.duration_since(start).as_hours() {
        ..24 => SignedDuration::ZERO,
        24..168 => SignedDuration::from_mins(55),
        168.. => SignedDuration::from_hours(6),
    };
    now.duration_since(last_poll) >= interval
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{GapFailure, UnknownFields};

    fn at(text: &str) -> Timestamp {
        format!("2026-11-{text}:00Z").parse().unwrap()
    }

    fn rules() -> SyncRules {
        SyncRules {
            now: at("24T12:00"),
            window_lag: SignedDuration::from_mins(5),
            lookback: SignedDuration::from_hours(24),
            idle_interval: SignedDuration::ZERO,
            start_date: at("01T00:00"),
            retained_from: at("01T00:00") - SignedDuration::from_hours(24 * 90),
            surely_retained_from: at("01T00:00") - SignedDuration::from_hours(24 * 80),
            largest_page: 1_000,
        }
    }

    fn window(from: &str, to: &str) -> Window {
        Window::new(at(from), at(to)).unwrap()
    }

    /// Returns the new windows, then the pending ones.
    fn windows(known: &ScopeState) -> Vec<Window> {
        let windows = windows_to_read(known, PageHints::default(), &rules());
        let rest = windows.lookback.into_iter().chain(windows.pending);
        windows.new.into_iter().chain(rest).collect()
    }

    #[test]
    fn coverage_in_the_future_does_not_hide_earlier_windows() {
        let ahead = |from, to| ScopeState {
            coverage: Coverage::from_iter([window(from, to)]),
            ..ScopeState::default()
        };
        // A clock far ahead made the first reading, or the last.
        let first = windows(&ahead("28T00:00", "29T00:00"));
        assert_eq!(first, [window("01T00:00", "24T11:55")]);
        let last = ScopeState {
            last_row_start: Some(at("20T00:00")),
            ..ahead("10T00:00", "29T00:00")
        };
        assert_eq!(windows(&last), [window("20T00:00", "24T11:55")]);
    }

    #[test]
    fn new_scope_starts_at_the_start_date() {
        assert_eq!(
            windows(&ScopeState::default()),
            [window("01T00:00", "24T11:55")]
        );
    }

    #[test]
    fn known_scope_looks_back_from_its_watermark() {
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
    fn window_that_was_cut_continues_before_its_lookback() {
        let coverage = Coverage::from_iter([window("01T00:00", "24T06:00")]);
        let known = |last_read| ScopeState {
            coverage: coverage.clone(),
            last_row_start: Some(at("24T06:00")),
            last_read: Some(last_read),
            ..ScopeState::default()
        };
        let new = window("24T06:00", "24T11:55");
        // Rows that were a day old when they were read need no lookback.
        let expected = [new, window("23T11:05", "24T06:00")];
        assert_eq!(windows(&known(at("24T11:10"))), expected);
        let mature = at("24T06:05") + SignedDuration::from_hours(24);
        assert_eq!(windows(&known(mature)), [new]);
    }

    #[test]
    fn scopes_are_planned_by_watermark() {
        let known = |to| ScopeState {
            coverage: Coverage::from_iter([window("01T00:00", to)]),
            ..ScopeState::default()
        };
        let scope = |project| Scope::new("o", project);
        let state = State {
            scopes: [
                (scope("a"), known("24T00:00")),
                (scope("b"), known("20T00:00")),
            ]
            .into(),
            ..State::default()
        };
        let scopes = ["a", "b", "new"].map(scope);
        let (plans, _) = plan_sync(&state, &scopes, &rules());
        let order: Vec<_> = plans
            .iter()
            .map(|(scope, _)| scope.project.as_str())
            .collect();
        assert_eq!(order, ["new", "b", "a"]);
    }

    #[test]
    fn silent_scope_is_read_from_its_last_row() {
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
    fn gaps_come_last_unless_the_new_window_contains_them() {
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
                window("23T11:00", "24T11:55"),
                window("05T00:00", "06T00:00")
            ]
        );
    }

    #[test]
    fn no_time_is_skipped_after_a_long_absence() {
        let ago = |days: i64| rules().now - SignedDuration::from_hours(24 * days);
        let between = |from, to| Coverage::from_iter([Window::new(from, to).unwrap()]);
        let until_now = |from| Window::new(from, at("24T11:55")).unwrap();
        // Longer than the retention of the source.
        let left = ScopeState {
            coverage: between(ago(300), ago(200)),
            last_row_start: Some(ago(250)),
            ..ScopeState::default()
        };
        assert_eq!(windows(&left), [until_now(ago(200))]);
        // A quiet scope is not read from before the retention.
        let quiet = ScopeState {
            coverage: between(ago(300), ago(0)),
            last_row_start: Some(ago(250)),
            ..ScopeState::default()
        };
        assert_eq!(windows(&quiet), [until_now(rules().retained_from)]);
        // Requested, but never read.
        let failed = ScopeState {
            gaps: between(ago(80), ago(50)),
            ..ScopeState::default()
        };
        let gap = Window::new(ago(80), ago(50)).unwrap();
        assert_eq!(windows(&failed), [until_now(ago(50)), gap]);
    }

    #[test]
    fn skipped_windows_are_read_after_new_ones() {
        let known = ScopeState {
            coverage: Coverage::from_iter([window("10T00:00", "24T11:00")]),
            skipped: Coverage::from_iter([window("02T00:00", "10T00:00")]),
            last_row_start: Some(at("24T10:59")),
            ..ScopeState::default()
        };
        let expected = [
            window("23T11:00", "24T11:55"),
            window("02T00:00", "10T00:00"),
        ];
        assert_eq!(windows(&known), expected);
    }

    #[test]
    fn gap_past_retention_is_still_requested() {
        let old = at("01T00:00") - SignedDuration::from_hours(24 * 100);
        let gap = Window::new(old, old + SignedDuration::from_hours(24 * 20)).unwrap();
        let known = ScopeState {
            gaps: Coverage::from_iter([gap]),
            ..ScopeState::default()
        };
        assert_eq!(windows(&known)[1], gap);
    }

    #[test]
    fn failed_windows_are_read_apart_and_only_if_due() {
        let minute = window("24T03:00", "24T03:01");
        let around = [
            window("23T11:00", "24T03:00"),
            window("24T03:01", "24T11:55"),
        ];
        let failed_at = |hours: &[i64]| {
            let times = hours
                .iter()
                .map(|hours| rules().now - SignedDuration::from_mins(60 * hours));
            let mut failure =
                GapFailure::new(minute, "503".to_owned(), times.clone().min().unwrap());
            failure.attempts.extend(times);
            ScopeState {
                coverage: Coverage::from_iter([window("01T00:00", "24T11:00")])
                    .minus(&Coverage::from_iter([minute])),
                gaps: Coverage::from_iter([minute]),
                gap_failures: vec![failure],
                last_row_start: Some(at("24T10:59")),
                ..ScopeState::default()
            }
        };
        assert_eq!(windows(&failed_at(&[3, 2])), [around[0], around[1], minute]);
        assert_eq!(windows(&failed_at(&[3, 2, 1, 0])), around);
        let accepted = ScopeState {
            accepted: Coverage::from_iter([minute]),
            gaps: Coverage::default(),
            gap_failures: Vec::new(),
            ..failed_at(&[1])
        };
        assert_eq!(windows(&accepted), around);
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
            unknown: UnknownFields::new(),
        }
    }

    #[test]
    fn open_executions_are_polled_less_often_with_age() {
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
    fn open_execution_is_polled_expected_or_abandoned() {
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
        let (plans, abandoned) = plan_sync(&state, std::slice::from_ref(&scope), &rules());
        let ids = |list: &[(PlanExecutionId, Timestamp)]| {
            list.iter()
                .map(|(id, _)| id.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(&plans[0].1.expected), ["in"]);
        assert_eq!(ids(&plans[0].1.open), ["before"]);
        assert_eq!(
            abandoned
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["old"]
        );
    }
}
