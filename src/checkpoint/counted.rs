//! Windows that a backfill has counted and not read yet, so that the next one does not count them again. Pure.
//!
//! A count is a hint: it plans slices, and reading proves what is complete.

use serde::{Deserialize, Serialize};

use crate::window::{Coverage, Window};

/// The rows that the source counted in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedRows {
    /// The window.
    pub window: Window,
    /// Its rows, at least 1.
    pub rows: u64,
}

/// Adds a count to a list sorted by window. Of two counts of a window, the greater one stays.
pub(super) fn add(counts: &mut Vec<CountedRows>, new: CountedRows) {
    match counts.binary_search_by_key(&new.window, |count| count.window) {
        Ok(at) => counts[at].rows = counts[at].rows.max(new.rows),
        Err(at) => counts.insert(at, new),
    }
}

/// Removes the counts of windows that are covered. Those of gaps are removed, too: the source did not return what it
/// counted.
pub(super) fn retain_useful(
    counts: &mut Vec<CountedRows>,
    coverage: &Coverage,
    unread_gaps: &Coverage,
) {
    let is_gap = |window: Window| {
        let mut gaps = unread_gaps.windows().iter();
        gaps.any(|gap| gap.intersect(window).is_some())
    };
    counts.retain(|count| !coverage.covers(count.window) && !is_gap(count.window));
}

/// Returns the count that includes most of `window`, if that is at least half, and the rows that `window` probably
/// has.
pub(super) fn estimate(counts: &[CountedRows], window: Window) -> Option<(CountedRows, u64)> {
    let counted = counts.iter().filter_map(|count| {
        let shared = count.window.intersect(window)?;
        Some((shared.millis(), *count))
    });
    let (shared, count) = counted.max_by_key(|(shared, _)| *shared)?;
    if shared.saturating_mul(2) < window.millis() {
        return None;
    }
    let rows = i128::from(count.rows) * i128::from(window.millis());
    let rows = rows / i128::from(count.window.millis());
    Some((count, u64::try_from(rows).unwrap_or(u64::MAX).max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::from_ms;

    fn window(from: i64, to: i64) -> Window {
        Window::new(from_ms(from), from_ms(to)).unwrap()
    }

    fn counts(list: &[(i64, i64, u64)]) -> Vec<CountedRows> {
        let mut counts = Vec::new();
        for (from, to, rows) in list {
            let window = window(*from, *to);
            add(
                &mut counts,
                CountedRows {
                    window,
                    rows: *rows,
                },
            );
        }
        counts
    }

    #[test]
    fn rows_of_a_part_are_estimated_by_its_length() {
        let counts = counts(&[(0, 100, 1_000), (0, 10, 3)]);
        let rows = |from, to| Some(estimate(&counts, window(from, to))?.1);
        assert_eq!(rows(50, 100), Some(500));
        // A window that has grown a little since.
        assert_eq!(rows(50, 110), Some(600));
        assert_eq!(rows(90, 200), None);
    }

    #[test]
    fn counts_of_covered_windows_and_gaps_are_removed() {
        let mut counts = counts(&[(0, 10, 1), (10, 20, 1), (20, 30, 1)]);
        let coverage = Coverage::from_iter([window(0, 12)]);
        retain_useful(
            &mut counts,
            &coverage,
            &Coverage::from_iter([window(25, 40)]),
        );
        let left: Vec<_> = counts.iter().map(|count| count.window).collect();
        assert_eq!(left, [window(10, 20)]);
    }
}
