//! Cuts the windows of a backfill into slices, newest first over all scopes. Pure.

use jiff::SignedDuration;

use super::count::CountedWindow;
use super::{PageHints, ReadPlan};
use crate::checkpoint::State;
use crate::ids::Scope;
use crate::window::{Window, from_ms};

/// Target size of a slice in rows: one to a few pages.
pub(super) const SLICE_ROWS: u64 = 2_000;

/// The shortest slice, and the grid that the slices of all scopes share: a merge then touches few dates.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Cuts windows into slices of about 2,000 rows on a grid of weeks. Orders them newest first over all
/// scopes.
pub fn slices(state: &State, windows: Vec<CountedWindow>) -> Vec<(Scope, ReadPlan)> {
    let mut slices = Vec::new();
    for CountedWindow {
        scope,
        window,
        rows,
    } in windows
    {
        for slice in cut(window, rows) {
            let plan = ReadPlan {
                windows: vec![slice],
                pages: PageHints::of(state, &scope),
                history: Some(window),
                ..ReadPlan::default()
            };
            slices.push((slice.to(), scope.clone(), plan));
        }
    }
    slices.sort_by(|(a_end, a, _), (b_end, b, _)| b_end.cmp(a_end).then_with(|| a.cmp(b)));
    slices
        .into_iter()
        .map(|(_, scope, plan)| (scope, plan))
        .collect()
}

/// Cuts a window at multiples of a week, into as few slices as give about [`SLICE_ROWS`] rows each.
fn cut(window: Window, rows: u64) -> Vec<Window> {
    let week = i64::try_from(WEEK.as_millis()).unwrap_or(i64::MAX);
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
    use crate::window::Coverage;

    const WEEK: i64 = 7 * 86_400_000;

    #[test]
    fn window_with_few_rows_is_one_slice() {
        let window = Window::new(from_ms(0), from_ms(10 * WEEK)).unwrap();
        assert_eq!(cut(window, 100), [window]);
        assert_eq!(cut(window, 1_000_000).len(), 10);
    }

    #[test]
    fn slices_are_ordered_newest_first_over_all_scopes() {
        let window = Window::new(from_ms(0), from_ms(3 * WEEK)).unwrap();
        let windows = ["a", "b"].map(|project| CountedWindow {
            scope: Scope::new("o", project),
            window,
            rows: 1_000_000,
        });
        let order: Vec<_> = slices(&State::default(), windows.into())
            .into_iter()
            .map(|(scope, plan)| {
                (
                    plan.windows[0].to().as_millisecond() / WEEK,
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
        fn slices_cover_the_window_once(from in 0_i64..100, length in 1_i64..400, rows in 1_u64..1_000_000) {
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
