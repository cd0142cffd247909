//! The page size: what is known of a scope's rows and of the server's limits. Pure.
//!
//! A page that fails may have been too large, or the server may have been down for a moment. So a
//! smaller page is requested, and then the size that failed once more. Only a size that fails twice is
//! remembered for later runs, and only after a complete window.

use super::PageHints;
use crate::ids::Scope;
use crate::window::Window;

/// Milliseconds of an hour.
pub(super) const HOUR_MS: i64 = 3_600_000;

/// The shortest window, in hours, from which the rows of others are estimated.
const MIN_HOURS: i64 = 12;

/// Target size of a page, in bytes.
const PAGE_BYTES: u32 = 4 << 20;

/// Rows of the first page of an unknown scope.
const FIRST_PAGE: u32 = 100;

/// More rows than any window contains: the requests for a larger total are estimated, not simulated.
const MAX_SIMULATED_ROWS: u64 = 1 << 24;

/// Maximum page sizes that servers commonly have.
const COMMON_CAPS: [u32; 8] = [10, 20, 25, 50, 100, 200, 250, 500];

/// The page size of one scope.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paging {
    hints: PageHints,
    /// Bytes of a row of other scopes, as long as this one has shown none.
    assumed_row_bytes: Option<u32>,
    /// Maximum that the user allows.
    largest: u32,
    /// A size that failed once and is to be tried once more.
    failure: Option<SizeFailure>,
    /// A limit found in this run, remembered after the next complete window.
    limit: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SizeFailure {
    size: u32,
    smaller_succeeded: bool,
}

impl Paging {
    /// Starts with the hints of earlier runs.
    pub(super) fn new(hints: PageHints, largest: u32) -> Self {
        Self {
            hints,
            assumed_row_bytes: None,
            largest,
            failure: None,
            limit: None,
        }
    }

    /// Returns the hints for later runs.
    pub(super) fn hints(&self) -> PageHints {
        self.hints
    }

    /// Records the rows of a window.
    pub(super) fn note_rows(&mut self, window: Window, rows: u64) {
        let hours = window.millis() / HOUR_MS;
        if hours >= MIN_HOURS {
            let limit = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
            let rows = u32::try_from(rows).unwrap_or(u32::MAX);
            self.hints.window_rows = Some((rows, limit(hours)));
        }
    }

    /// Estimates the bytes of a page of `size` rows.
    pub(super) fn page_bytes(&self, size: u32) -> u32 {
        let row = self.row_bytes().unwrap_or(PAGE_BYTES / FIRST_PAGE);
        row.saturating_mul(size)
    }

    /// Returns the rows of a full page: the least of the user's maximum, the target size and all limits.
    pub(super) fn size(&self) -> u32 {
        let by_bytes = self
            .row_bytes()
            .map_or(FIRST_PAGE, |bytes| PAGE_BYTES / bytes.max(1));
        let by_failure = self.failure.map(|failure| {
            if failure.smaller_succeeded {
                failure.size
            } else {
                failure.size / 2
            }
        });
        [self.hints.page_limit, self.limit, by_failure]
            .into_iter()
            .flatten()
            .fold(by_bytes.min(self.largest), u32::min)
            .max(1)
    }

    /// Returns offset and size of the page that follows one of `size` rows, if it begins at `offset` and
    /// `rest` rows are unread.
    ///
    /// Pages are requested by number, so a larger page begins at a multiple of its size. The first page,
    /// which may be small since nothing was known, is then requested again.
    pub(super) fn next(&self, size: u32, offset: u32, rest: u64) -> (u32, u32) {
        let (full, double) = (self.size(), size.saturating_mul(2));
        if full < double {
            (offset, size)
        } else if offset == size && rest > u64::from(size) {
            (0, full)
        } else if offset.is_multiple_of(double) {
            (offset, double)
        } else {
            (offset, size)
        }
    }

    /// Records a page that was requested with `size` rows.
    pub(super) fn received(&mut self, size: u32, rows: usize, bytes: usize) {
        let Some(rows) = u32::try_from(rows).ok().filter(|rows| *rows > 0) else {
            return;
        };
        let average = u32::try_from(bytes).unwrap_or(u32::MAX) / rows;
        self.hints.row_bytes = Some(average.max(1));
        self.failure = self
            .failure
            .filter(|failure| size < failure.size)
            .map(|failure| SizeFailure {
                smaller_succeeded: true,
                ..failure
            });
    }

    /// Records that a page of `size` rows failed, maybe for its size; `is_certain` if the server said so.
    /// Returns false if the page cannot be smaller.
    pub(super) fn page_failed(&mut self, size: u32, is_certain: bool) -> bool {
        if is_certain
            || self
                .failure
                .is_some_and(|failure| failure.smaller_succeeded)
        {
            self.limit = Some((size / 2).max(1));
            self.failure = None;
        } else {
            self.failure = Some(SizeFailure {
                size,
                smaller_succeeded: false,
            });
        }
        size > 1
    }

    /// Limits pages to `rows` rows: the server returns no more.
    pub(super) fn limit_to(&mut self, rows: u32) {
        self.limit = Some(rows.max(1));
    }

    /// Records a complete window: the limit of this run is now worth remembering.
    pub(super) fn window_complete(&mut self) {
        self.hints.page_limit = self.limit.or(self.hints.page_limit);
    }

    /// Assumes the average row of other scopes, as long as this one has shown none.
    pub(super) fn assume_row_bytes(&mut self, row_bytes: u32) {
        self.assumed_row_bytes = Some(row_bytes);
    }

    fn row_bytes(&self) -> Option<u32> {
        self.hints.row_bytes.or(self.assumed_row_bytes)
    }

    /// Returns the requests that a window of `rows` rows takes.
    pub(super) fn requests(self, rows: u64) -> u64 {
        let (mut requests, mut offset, mut size) = (1, 0_u32, self.size());
        if rows > MAX_SIMULATED_ROWS {
            return rows.div_ceil(u64::from(size));
        }
        loop {
            offset += size;
            let rest = rows.saturating_sub(u64::from(offset));
            if rest == 0 {
                return requests;
            }
            (offset, size) = self.next(size, offset, rest);
            requests += 1;
        }
    }
}

/// The largest page that the server returns, whatever size is requested.
///
/// One short page proves nothing: a row may be hidden from it. So a size counts only if it is a common
/// maximum, or if two windows show it in a row.
#[derive(Debug, Default)]
pub(super) struct PageCap {
    limit: Option<u32>,
    /// The last short pages: their rows, and the window that showed them.
    last: Option<(u32, Scope, Window)>,
}

impl PageCap {
    /// Returns the largest page that the server is known to return.
    pub(super) fn limit(&self) -> u32 {
        self.limit.unwrap_or(u32::MAX)
    }

    /// Records that the server returned only `rows` rows per page of a window. Returns whether that is
    /// confirmed as its maximum.
    pub(super) fn observe(&mut self, rows: u32, scope: &Scope, window: Window) -> bool {
        let observed = (rows, scope.clone(), window);
        let last = self.last.replace(observed.clone());
        let is_repeated = last.is_some_and(|last| last.0 == rows && last != observed);
        let is_confirmed = is_repeated || COMMON_CAPS.contains(&rows);
        if is_confirmed {
            self.limit = Some(self.limit().min(rows));
        }
        is_confirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::from_ms;

    const SMALL_ROWS: PageHints = PageHints {
        window_rows: None,
        row_bytes: Some(4_000),
        page_limit: None,
    };

    #[test]
    fn size_that_fails_once_is_retried_and_forgotten() {
        let mut paging = Paging::new(SMALL_ROWS, 1_000);
        assert!(paging.page_failed(1_000, false));
        assert_eq!(paging.size(), 500);
        paging.received(500, 500, 2_000_000);
        assert_eq!(paging.size(), 1_000);
        paging.received(1_000, 1_000, 4_000_000);
        paging.window_complete();
        assert_eq!((paging.size(), paging.hints().page_limit), (1_000, None));
    }

    #[test]
    fn size_that_fails_twice_is_kept_after_a_complete_window() {
        let mut paging = Paging::new(SMALL_ROWS, 1_000);
        paging.page_failed(1_000, false);
        paging.page_failed(500, false);
        paging.received(250, 250, 1_000_000);
        assert_eq!(paging.size(), 500);
        paging.page_failed(500, false);
        assert_eq!((paging.size(), paging.hints().page_limit), (250, None));
        paging.received(250, 250, 1_000_000);
        paging.window_complete();
        assert_eq!((paging.size(), paging.hints().page_limit), (250, Some(250)));
    }

    #[test]
    fn size_that_the_server_rejects_is_not_retried() {
        let mut paging = Paging::new(SMALL_ROWS, 1_000);
        paging.page_failed(1_000, true);
        paging.received(500, 500, 2_000_000);
        paging.window_complete();
        assert_eq!((paging.size(), paging.hints().page_limit), (500, Some(500)));
        assert!(!paging.page_failed(1, true));
        assert_eq!(paging.size(), 1);
    }

    #[test]
    fn estimated_requests_match_the_reading() {
        let known = Paging::new(SMALL_ROWS, 1_000);
        for (rows, requests) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (2_000, 2)] {
            assert_eq!(known.requests(rows), requests, "{rows}");
        }
        assert_eq!(
            known.requests(u64::from(u32::MAX)),
            4_294_968,
            "an absurd total"
        );
    }

    #[test]
    fn small_first_page_is_requested_again_if_that_saves_requests() {
        let paging = Paging::new(SMALL_ROWS, 1_000);
        assert_eq!(paging.next(100, 100, 100), (100, 100));
        assert_eq!(paging.next(100, 100, 101), (0, 1_000));
        assert_eq!(paging.next(1_000, 1_000, 5_000), (1_000, 1_000));
        // In the middle of a window, after a smaller size was needed for a while.
        assert_eq!(paging.next(500, 2_000, 5_000), (2_000, 1_000));
        assert_eq!(paging.next(500, 2_500, 5_000), (2_500, 500));
    }

    #[test]
    fn common_page_cap_is_confirmed_at_once() {
        let window = Window::new(from_ms(0), from_ms(1)).unwrap();
        let mut cap = PageCap::default();
        assert_eq!(cap.limit(), u32::MAX);
        assert!(cap.observe(100, &Scope::new("o", "a"), window));
        assert_eq!(cap.limit(), 100);
        assert!(cap.observe(250, &Scope::new("o", "a"), window));
        assert_eq!(cap.limit(), 100, "a cap never grows");
    }

    #[test]
    fn uncommon_page_cap_needs_a_second_window() {
        let [first, second] = [0, 1].map(|at| Window::new(from_ms(at), from_ms(at + 1)).unwrap());
        let scope = Scope::new("o", "a");
        let mut cap = PageCap::default();
        assert!(!cap.observe(99, &scope, first));
        assert!(!cap.observe(99, &scope, first), "the same window again");
        assert!(!cap.observe(98, &scope, second), "another size");
        assert_eq!(cap.limit(), u32::MAX);
        assert!(cap.observe(98, &scope, first));
        assert_eq!(cap.limit(), 98);
    }
}
