//! How many rows a page is asked for: what was learned of a scope's rows and of the server. Pure.
//!
//! A page that did not come may have been too large, or the server may have been down for a moment.
//! So a smaller one is asked for, and once it has come the size that failed is tried again: only what
//! fails twice is remembered for later runs, and only once a window came whole.

use super::PageHints;

/// Bytes that a page should have at most.
const PAGE_BYTES: u32 = 4 << 20;

/// Rows of the first page of a scope that nothing is known of.
const FIRST_PAGE: u32 = 100;

/// More rows than any window holds: a total that lies is not counted through.
const TOO_MANY: u64 = 1 << 24;

/// The size of the pages of one scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paging {
    hints: PageHints,
    /// Bytes of a row, where the scope itself has shown none.
    supposed: Option<u32>,
    /// What the user allows.
    largest: u32,
    /// A size that failed once.
    doubt: Option<Doubt>,
    /// A limit that showed itself in this run, to be remembered with the next whole window.
    shown: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Doubt {
    failed: u32,
    smaller_came: bool,
}

impl Paging {
    /// Begins with what earlier runs learned.
    pub(super) fn new(hints: PageHints, largest: u32) -> Self {
        Self {
            hints,
            supposed: None,
            largest,
            doubt: None,
            shown: None,
        }
    }

    /// What is known now, for later runs.
    pub(super) fn hints(&self) -> PageHints {
        self.hints
    }

    /// Bytes that a page of `size` rows has about.
    pub(super) fn bytes(&self, size: u32) -> u32 {
        let row = self.row_bytes().unwrap_or(PAGE_BYTES / FIRST_PAGE);
        row.saturating_mul(size)
    }

    /// Rows of a page: as many as the user allows, as give a page of the wanted size, and as came
    /// without trouble.
    pub(super) fn size(&self) -> u32 {
        let by_bytes = self
            .row_bytes()
            .map_or(FIRST_PAGE, |bytes| PAGE_BYTES / bytes.max(1));
        let doubted = self.doubt.map(|doubt| {
            if doubt.smaller_came {
                doubt.failed
            } else {
                doubt.failed / 2
            }
        });
        [self.hints.page_limit, self.shown, doubted]
            .into_iter()
            .flatten()
            .fold(by_bytes.min(self.largest), u32::min)
            .max(1)
    }

    /// Offset and size of the page after one of `size` rows that ended at `offset`, where `rest` rows
    /// are left. A page is asked for by its number, so a larger one begins at a multiple of its size:
    /// the first, which may be small since nothing was known, is then asked for once more.
    pub(super) fn next(&self, size: u32, offset: u32, rest: u64) -> (u32, u32) {
        let (full, twice) = (self.size(), size.saturating_mul(2));
        if full < twice {
            (offset, size)
        } else if offset == size && u64::from(size) < rest {
            (0, full)
        } else if offset.is_multiple_of(twice) {
            (offset, twice)
        } else {
            (offset, size)
        }
    }

    /// A page came that was asked for with `size` rows.
    pub(super) fn came(&mut self, size: u32, rows: usize, bytes: usize) {
        let Some(rows) = u32::try_from(rows).ok().filter(|rows| 0 < *rows) else {
            return;
        };
        let average = u32::try_from(bytes).unwrap_or(u32::MAX) / rows;
        self.hints.row_bytes = Some(average.max(1));
        self.doubt = self
            .doubt
            .filter(|doubt| size < doubt.failed)
            .map(|doubt| Doubt {
                smaller_came: true,
                ..doubt
            });
    }

    /// A page of `size` rows did not come, maybe for its size; `is_sure` where the server said so.
    /// False where it cannot be smaller.
    pub(super) fn too_large(&mut self, size: u32, is_sure: bool) -> bool {
        if is_sure || self.doubt.is_some_and(|doubt| doubt.smaller_came) {
            self.shown = Some((size / 2).max(1));
            self.doubt = None;
        } else {
            self.doubt = Some(Doubt {
                failed: size,
                smaller_came: false,
            });
        }
        1 < size
    }

    /// The server gives no more than `rows` rows a page, whatever it is asked for.
    pub(super) fn capped(&mut self, rows: u32) {
        self.shown = Some(rows.max(1));
    }

    /// A window came whole: what showed itself is worth remembering.
    pub(super) fn whole(&mut self) {
        self.hints.page_limit = self.shown.or(self.hints.page_limit);
    }

    /// Supposes what a row has, where no run has seen one of the scope: as other scopes' rows.
    pub(super) fn suppose(&mut self, row_bytes: u32) {
        self.supposed = Some(row_bytes);
    }

    fn row_bytes(&self) -> Option<u32> {
        self.hints.row_bytes.or(self.supposed)
    }

    /// Requests that a window of `rows` rows takes.
    pub(super) fn calls(self, rows: u64) -> u64 {
        let (mut calls, mut offset, mut size) = (1, 0_u32, self.size());
        if TOO_MANY < rows {
            return rows.div_ceil(u64::from(size));
        }
        loop {
            offset += size;
            let rest = rows.saturating_sub(u64::from(offset));
            if rest == 0 {
                return calls;
            }
            (offset, size) = self.next(size, offset, rest);
            calls += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL_ROWS: PageHints = PageHints {
        row_bytes: Some(4_000),
        page_limit: None,
    };

    #[test]
    fn a_size_that_fails_once_is_tried_again_and_forgotten() {
        let mut paging = Paging::new(SMALL_ROWS, 1_000);
        assert!(paging.too_large(1_000, false));
        assert_eq!(paging.size(), 500);
        paging.came(500, 500, 2_000_000);
        assert_eq!(paging.size(), 1_000);
        paging.came(1_000, 1_000, 4_000_000);
        paging.whole();
        assert_eq!((paging.size(), paging.hints().page_limit), (1_000, None));
    }

    #[test]
    fn a_size_that_fails_twice_is_remembered_once_a_window_is_whole() {
        let mut paging = Paging::new(SMALL_ROWS, 1_000);
        paging.too_large(1_000, false);
        paging.too_large(500, false);
        paging.came(250, 250, 1_000_000);
        assert_eq!(paging.size(), 500);
        paging.too_large(500, false);
        assert_eq!((paging.size(), paging.hints().page_limit), (250, None));
        paging.came(250, 250, 1_000_000);
        paging.whole();
        assert_eq!((paging.size(), paging.hints().page_limit), (250, Some(250)));
    }

    #[test]
    fn a_size_that_the_server_refuses_needs_no_second_try() {
        let mut paging = Paging::new(SMALL_ROWS, 1_000);
        paging.too_large(1_000, true);
        paging.came(500, 500, 2_000_000);
        paging.whole();
        assert_eq!((paging.size(), paging.hints().page_limit), (500, Some(500)));
        assert!(!paging.too_large(1, true));
        assert_eq!(paging.size(), 1);
    }

    #[test]
    fn calls_are_counted_as_a_window_is_read() {
        let known = Paging::new(SMALL_ROWS, 1_000);
        for (rows, calls) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_000, 2)] {
            assert_eq!(known.calls(rows), calls, "{rows}");
        }
        assert_eq!(
            known.calls(u64::from(u32::MAX)),
            4_294_968,
            "a total that lies"
        );
    }

    #[test]
    fn a_first_page_that_was_small_is_asked_for_again_where_that_saves_calls() {
        let paging = Paging::new(SMALL_ROWS, 1_000);
        assert_eq!(paging.next(100, 100, 100), (100, 100));
        assert_eq!(paging.next(100, 100, 101), (0, 1_000));
        assert_eq!(paging.next(1_000, 1_000, 5_000), (1_000, 1_000));
        // In the middle, where a smaller size was needed for a while.
        assert_eq!(paging.next(500, 2_000, 5_000), (2_000, 1_000));
        assert_eq!(paging.next(500, 2_500, 5_000), (2_500, 500));
    }
}
