//! Cuts the windows of a backfill into slices. Pure.

use jiff::SignedDuration;

use super::count::CountedWindow;
use super::{PageHints, ReadPlan};
use crate::checkpoint::State;
use crate::window::{Window, from_ms};

/// Target size of a slice in rows: one to a few pages.
pub(super) const SLICE_ROWS: u64 = 2_000;

/// The shortest slice, and the grid that the slices of all scopes share: a merge then touches few dates.
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Returns the number of slices of a window.
pub fn slice_count(counted: &CountedWindow) -> usize {
    cut(counted.window, counted.rows).len()
}

/// Cuts a window into slices of about 2,000 rows on a grid of weeks.
pub(super) fn slices(state: &State, counted: &CountedWindow) -> Vec<(Window, ReadPlan)> {
    let pages = PageHints::of(state, &counted.scope);
    let plan = |slice| ReadPlan {
        windows: vec![slice],
        pages,
        history: Some(counted.history),
        ..ReadPlan::default()
    };
    let slices = cut(counted.window, counted.rows).into_iter();
    slices.map(|slice| (slice, plan(slice))).collect()
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
