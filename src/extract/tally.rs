//! Counts the rows of one window and compares them with the totals that the server reports. Pure.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::ids::PlanExecutionId;
use crate::source::Page;

/// The rows and totals of the pages of one window so far.
#[derive(Default)]
pub(super) struct Tally {
    /// Distinct executions, with their starts.
    starts: HashMap<PlanExecutionId, Option<Timestamp>>,
    /// Rows without an id, by the offset of their page.
    unidentified: BTreeMap<u32, u64>,
    has_pages: bool,
    /// Total that the first page reported.
    first_total: Option<u64>,
    /// Total that the last page reported.
    total: Option<u64>,
}

impl Tally {
    /// Adds the page at `offset`. Returns whether it contains an execution that is new.
    pub(super) fn add(&mut self, offset: u32, page: &Page) -> bool {
        if !self.has_pages {
            (self.first_total, self.has_pages) = (page.total, true);
        }
        self.total = page.total;
        // A page that is requested again is not counted again.
        self.unidentified.retain(|at, _| *at < offset);
        self.unidentified.insert(offset, page.unidentified);
        let before = self.starts.len();
        let starts = page.rows.iter().map(|row| (row.id.clone(), row.start));
        self.starts.extend(starts);
        self.starts.len() > before
    }

    /// Returns the distinct rows received.
    pub(super) fn distinct(&self) -> u64 {
        self.starts.len() as u64 + self.unidentified.values().sum::<u64>()
    }

    /// Returns the total that the first page reported.
    pub(super) fn first_total(&self) -> Option<u64> {
        self.first_total
    }

    /// Returns the total that the last page reported.
    pub(super) fn total(&self) -> Option<u64> {
        self.total
    }

    /// Returns whether as many rows were received as the last page reported.
    pub(super) fn has_all(&self) -> bool {
        self.total.is_some_and(|total| self.distinct() >= total)
    }

    /// Returns the rows that were reported and not received.
    pub(super) fn rest(&self) -> u64 {
        self.total.map_or(u64::from(u32::MAX), |total| {
            total.saturating_sub(self.distinct())
        })
    }

    /// Returns the newest start, before which all rows were probably received: pages are sorted by start.
    /// `None` if a row has no start or no id.
    pub(super) fn newest_start(&self) -> Option<Timestamp> {
        let identified = self.unidentified.values().all(|rows| *rows == 0);
        let starts: Option<Vec<_>> = self.starts.values().copied().collect();
        starts.filter(|_| identified)?.into_iter().max()
    }

    /// Returns the distinct rows that start before an instant.
    pub(super) fn rows_before(&self, at: Timestamp) -> u64 {
        let starts = self.starts.values().flatten();
        starts.filter(|start| **start < at).count() as u64
    }

    /// Returns whether the window is complete, after its last page: the total did not change, and exactly as
    /// many distinct rows were received.
    pub(super) fn is_complete(&self) -> bool {
        let is_exact = self.total.is_none_or(|total| total == self.distinct());
        is_exact && self.first_total == self.total
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::drift::Drift;
    use crate::source::PageRow;
    use crate::window::from_ms;

    fn page(ids: &[&str], unidentified: u64, total: Option<u64>) -> Page {
        let row = |id: &&str| PageRow {
            id: PlanExecutionId::new(*id),
            start: None,
            is_terminal: true,
            summary: Bytes::new(),
            content_hash: 0,
        };
        Page {
            rows: ids.iter().map(row).collect(),
            total,
            observed: from_ms(0),
            bytes: 0,
            unidentified,
            drift: Drift::default(),
        }
    }

    #[test]
    fn duplicate_rows_do_not_complete_a_window() {
        let mut tally = Tally::default();
        assert!(tally.add(0, &page(&["a", "b"], 0, Some(4))));
        assert!(tally.add(2, &page(&["b", "c"], 0, Some(4))));
        assert!(!tally.has_all() && !tally.is_complete());
        assert_eq!(tally.rest(), 1);
        assert!(!tally.add(4, &page(&["a"], 0, Some(4))));
    }

    #[test]
    fn changed_total_makes_a_window_incomplete() {
        let mut tally = Tally::default();
        tally.add(0, &page(&["a"], 0, Some(3)));
        tally.add(1, &page(&["b"], 0, Some(2)));
        assert!(tally.has_all() && !tally.is_complete());
    }

    #[test]
    fn rows_without_an_id_count_once_per_page() {
        let mut tally = Tally::default();
        tally.add(0, &page(&["a"], 1, Some(4)));
        tally.add(2, &page(&["b"], 1, Some(4)));
        assert!(tally.is_complete());
        // A larger page from the beginning replaces both.
        tally.add(0, &page(&["a", "b"], 2, Some(4)));
        assert_eq!(tally.distinct(), 4);
        assert!(tally.is_complete());
    }

    #[test]
    fn window_without_a_total_is_complete_after_its_last_page() {
        let mut tally = Tally::default();
        tally.add(0, &page(&["a"], 0, None));
        assert!(!tally.has_all() && tally.is_complete());
    }
}
