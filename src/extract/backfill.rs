//! What of history to read: uncovered parts, measured by one small question each, then sliced.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};

use super::fanout::{Event, ScopeDone};
use super::{PageHints, ReadPlan, SyncRules, begins};
use crate::checkpoint::{ScopeState, State};
use crate::ids::Scope;
use crate::source::{Client, SourceError};
use crate::window::{Coverage, Window, from_ms};

/// What the source holds of the windows asked about.
#[derive(Debug, Default)]
pub struct Measured {
    /// Windows without any row: read whole by the question itself.
    pub idle: Vec<(Scope, Window)>,
    /// Windows with rows, and how many.
    pub busy: Vec<(Scope, Window, u64)>,
    /// Bytes of a row of a scope, by its first one.
    pub row_bytes: BTreeMap<Scope, u32>,
    /// When a scope was last answered.
    pub observed: BTreeMap<Scope, Timestamp>,
    /// Windows that were not answered for.
    pub failed: Vec<(Window, ScopeDone)>,
}

/// Rows that a slice should have about: one to a few pages.
const SLICE_ROWS: u64 = 2_000;

/// The shortest slice, and the grid on which slices of all scopes lie, so that the dates that are
/// merged at one time are few.
const SLICE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The parts of `[from, to)` that are not covered, or all of it with `refetch`; not before what the
/// source keeps.
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
    let whole = Coverage::from_iter([window]);
    let nothing = Coverage::default();
    let parts = |scope: &Scope| {
        let covered = state
            .scopes
            .get(scope)
            .map_or(&nothing, |known| &known.coverage);
        let parts = if refetch {
            whole.clone()
        } else {
            whole.minus(covered)
        };
        parts
            .windows()
            .iter()
            .map(|part| (scope.clone(), *part))
            .collect::<Vec<_>>()
    };
    scopes.iter().flat_map(parts).collect()
}

/// What the next `sync` would read before `to`: from the watermarks on, of a new scope from the start date on.
/// A backfill that goes beyond moves the watermarks, the newest part first: what is not read by its end is
/// passed over, and no `sync` would ever look there unless told.
pub fn beyond(
    state: &State,
    scopes: &[Scope],
    to: Timestamp,
    rules: &SyncRules,
) -> Vec<(Scope, Window)> {
    let beyond = |scope: &Scope| {
        let known = state.scopes.get(scope);
        let from = begins(known.unwrap_or(&ScopeState::default()), rules);
        Some((scope.clone(), Window::new(from, to).ok()?))
    };
    scopes.iter().filter_map(beyond).collect()
}

/// Counts the rows of each window, `concurrency` at a time.
///
/// # Errors
///
/// [`SourceError::Unauthorized`]: the key was refused. Any other failure is one scope's.
pub async fn measure(
    client: &Client,
    windows: Vec<(Scope, Window)>,
    concurrency: usize,
) -> Result<Measured, SourceError> {
    let mut measured = Measured::default();
    let mut answers = futures::stream::iter(windows)
        .map(|(scope, window)| async move {
            let answer = client.count(&scope, window).await;
            (scope, window, answer)
        })
        .buffer_unordered(concurrency.max(1));
    while let Some((scope, window, answer)) = answers.next().await {
        if let Ok(page) = &answer {
            let observed = measured.observed.entry(scope.clone());
            let latest = observed.or_insert(page.observed);
            *latest = page.observed.max(*latest);
        }
        match answer {
            Ok(page) if !page.shows_any() => measured.idle.push((scope, window)),
            Ok(page) => {
                let rows = page.total.unwrap_or(SLICE_ROWS).max(1);
                let bytes = u32::try_from(page.bytes).unwrap_or(u32::MAX);
                measured.row_bytes.insert(scope.clone(), bytes);
                measured.busy.push((scope, window, rows));
            }
            Err(error) if error.is_unauthorized() => return Err(error),
            Err(error) => measured
                .failed
                .push((window, ScopeDone::failed(scope, error))),
        }
    }
    Ok(measured)
}

/// What counting the windows of a backfill came to.
#[derive(Debug, Default)]
pub struct Counted {
    /// Windows with rows, and how many.
    pub busy: Vec<(Scope, Window, u64)>,
    /// What is told of the others.
    pub events: Vec<Event>,
}

/// Counts the rows of each window. A scope of which rows were seen, and that shows none in these windows, is
/// believed if it shows any in all that the source keeps; else its windows are gaps.
///
/// # Errors
///
/// As [`measure`].
pub async fn count(
    client: &Client,
    state: &State,
    windows: Vec<(Scope, Window)>,
    rules: &SyncRules,
    concurrency: usize,
) -> Result<Counted, SourceError> {
    let mut measured = measure(client, windows, concurrency).await?;
    let newest_row = |scope: &Scope| {
        let row = state.scopes.get(scope)?.last_row_start;
        row.filter(|row| rules.surely_retained_from <= *row)
    };
    let quiet = measured.quiet_scopes();
    let with_history = quiet.iter().filter(|scope| newest_row(scope).is_some());
    let retained = |scope: &Scope| Some((scope.clone(), rules.retained()?));
    let histories = with_history.filter_map(retained).collect();
    let shown = measure(client, histories, concurrency).await?;
    // An answer may have been odd once: what is empty still when counted again is.
    let shows_rows: BTreeSet<_> = shown.busy.into_iter().map(|(scope, ..)| scope).collect();
    let (idle, again) = (measured.idle, |(scope, _): &(Scope, Window)| {
        shows_rows.contains(scope)
    });
    let (again, idle): (Vec<_>, Vec<_>) = idle.into_iter().partition(again);
    measured.idle = idle;
    measured.add(measure(client, again, concurrency).await?);

    let mut doubted: BTreeMap<Scope, ScopeDone> = BTreeMap::new();
    for (_, done) in shown.failed {
        doubted.insert(done.scope.clone(), done);
    }
    for (scope, _) in shown.idle {
        let done = ScopeDone {
            missing_row: newest_row(&scope),
            ..ScopeDone::counted(scope.clone(), shown.observed[&scope])
        };
        doubted.insert(scope, done);
    }
    let idle_scopes = measured.idle_scopes();

    let mut counted = Counted {
        busy: measured.busy,
        ..Counted::default()
    };
    let events = &mut counted.events;
    for (scope, window) in measured.idle {
        let Some(done) = doubted.get_mut(&scope) else {
            // Counted and found empty: as whole as an answer gets.
            events.push(Event::WindowComplete(scope, window));
            continue;
        };
        done.gaps += 1;
        events.push(Event::WindowIncomplete(scope, window));
    }
    for (window, done) in measured.failed {
        events.push(Event::WindowIncomplete(done.scope.clone(), window));
        events.push(Event::Done(Box::new(done)));
    }
    for scope in idle_scopes {
        let believed = || ScopeDone::counted(scope.clone(), measured.observed[&scope]);
        let done = doubted.remove(&scope).unwrap_or_else(believed);
        events.push(Event::Done(Box::new(done)));
    }
    Ok(counted)
}

impl Measured {
    fn add(&mut self, later: Self) {
        self.idle.extend(later.idle);
        self.busy.extend(later.busy);
        self.row_bytes.extend(later.row_bytes);
        self.observed.extend(later.observed);
        self.failed.extend(later.failed);
    }

    /// Scopes with empty windows and none that holds a row.
    fn quiet_scopes(&self) -> BTreeSet<Scope> {
        let busy: BTreeSet<_> = self.busy.iter().map(|(scope, ..)| scope).collect();
        let idle = self.idle.iter().map(|(scope, _)| scope);
        idle.filter(|scope| !busy.contains(scope))
            .cloned()
            .collect()
    }

    /// Scopes of which nothing but empty windows were counted.
    fn idle_scopes(&self) -> BTreeSet<Scope> {
        let mut idle = self.quiet_scopes();
        for (_, done) in &self.failed {
            idle.remove(&done.scope);
        }
        idle
    }
}

/// Cuts windows into slices of about 2,000 rows, on a grid of weeks that all scopes share,
/// and orders them newest first over all scopes.
pub fn slices(state: &State, busy: Vec<(Scope, Window, u64)>) -> Vec<(Scope, ReadPlan)> {
    let ask = |scope: &Scope, slice: Window, whole: Window| ReadPlan {
        windows: vec![slice],
        pages: PageHints::of(state, scope),
        history: Some(whole),
        ..ReadPlan::default()
    };
    let mut slices = Vec::new();
    for (scope, window, rows) in busy {
        let of_window = cut(window, rows).into_iter();
        slices.extend(of_window.map(|slice| (scope.clone(), ask(&scope, slice, window))));
    }
    let newest_first = |(a, x): &(Scope, ReadPlan), (b, y): &(Scope, ReadPlan)| {
        let end = |ask: &ReadPlan| ask.windows.last().map(|window| window.to());
        end(y).cmp(&end(x)).then_with(|| a.cmp(b))
    };
    slices.sort_by(newest_first);
    slices
}

/// Slices of a whole number of weeks, as few as give about [`SLICE_ROWS`] rows each.
fn cut(window: Window, rows: u64) -> Vec<Window> {
    let week = i64::try_from(SLICE.as_millis()).unwrap_or(i64::MAX);
    let weeks = window.millis().div_euclid(week) + 1;
    let wanted = i64::try_from(rows.div_ceil(SLICE_ROWS))
        .unwrap_or(i64::MAX)
        .clamp(1, weeks);
    let step = week * weeks.div_euclid(wanted).max(1);
    if wanted == 1 {
        return vec![window];
    }
    let mut slices = Vec::new();
    let mut from = window.from();
    while from < window.to() {
        let next = from_ms((from.as_millisecond().div_euclid(step) + 1) * step).min(window.to());
        slices.extend(Window::new(from, next));
        from = next;
    }
    slices
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WEEK: i64 = 7 * 86_400_000;

    #[test]
    fn a_quiet_window_is_one_slice_and_a_busy_one_is_weeks() {
        let window = Window::new(from_ms(0), from_ms(10 * WEEK)).unwrap();
        assert_eq!(cut(window, 100), [window]);
        assert_eq!(cut(window, 1_000_000).len(), 10);
    }

    #[test]
    fn slices_come_newest_first_over_all_scopes() {
        let window = Window::new(from_ms(0), from_ms(3 * WEEK)).unwrap();
        let busy = ["a", "b"].map(|project| (Scope::new("o", project), window, 1_000_000));
        let order: Vec<_> = slices(&State::default(), busy.into())
            .into_iter()
            .map(|(scope, ask)| {
                (
                    ask.windows[0].to().as_millisecond() / WEEK,
                    scope.project.to_string(),
                )
            })
            .collect();
        let expected = [(3, "a"), (3, "b"), (2, "a"), (2, "b"), (1, "a"), (1, "b")];
        assert_eq!(
            order,
            expected.map(|(week, project)| (week, project.to_owned()))
        );
    }

    proptest! {
        #[test]
        fn slices_make_the_whole(from in 0_i64..100, length in 1_i64..400, rows in 1_u64..1_000_000) {
            let day = 86_400_000;
            let window = Window::new(from_ms(from * day), from_ms((from + length) * day)).unwrap();
            let slices = cut(window, rows);
            let joined = Coverage::from_iter(slices.clone());
            prop_assert_eq!(joined.windows(), [window]);
            let sum: i64 = slices.iter().map(|slice| slice.millis()).sum();
            prop_assert_eq!(sum, window.millis());
        }
    }
}
