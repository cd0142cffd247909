//! Reads the windows of one scope: page by page, split into halves if need be.

use jiff::Timestamp;

use super::paging::HOUR_MS;
use super::reader::{ReadEnd, ScopeReader};
use super::split::{MIN_WINDOW_MS, Part, PendingReads};
use super::tally::Tally;
use crate::ids::PlanExecutionId;
use crate::source::SourceError;
use crate::window::{Window, from_ms};

/// Maximum rows of a window that every server pages through.
const MAX_ROWS: u64 = 10_000;

/// Pages after which a window is cut: the older part is then complete, and is never read again by a later run.
pub(super) const SLICE_PAGES: u32 = 4;

/// Maximum pages of a window: never reached with the largest pages and totals.
const MAX_PAGES: u32 = 20_000;

/// The outcome of reading a window once.
enum Reading {
    /// All rows were received: as many distinct ids as the first and the last page reported.
    Complete,
    /// Rows were received, but not as many as reported.
    Incomplete,
    /// The window has more rows than can be paged through; how many, if reported.
    TooMany(Option<u64>),
    /// The window goes on after the newest start received; it is cut there.
    Cut(Part),
    /// A page of this size cannot be fetched.
    PageTooLarge,
}

impl ScopeReader<'_> {
    /// Reads `window`, and emits for each part of it whether it is complete.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`] if the source fails: all unread parts are emitted as incomplete first.
    pub(super) async fn read_window(&mut self, window: Window) -> Result<(), ReadEnd> {
        let mut pending = PendingReads::new(window);
        self.isolation().end();
        self.reset_retries();
        while let Some(mut read) = pending.pop() {
            let reading = self.read_pages(read.window, &mut read.older).await;
            if let Some(older) = read.older
                && !matches!(reading, Ok(Reading::PageTooLarge) | Err(ReadEnd::Stopped))
            {
                self.stop_cutting();
                // If the run ends before the older part is read again, it must not be lost behind the newer one.
                self.emit_lookback(&[older.window]).await?;
                pending.push_unconfirmed(older.window);
            }
            let gap = match reading {
                Ok(Reading::Complete) => {
                    self.complete_window(read.window).await?;
                    None
                }
                Ok(Reading::Cut(older)) => {
                    self.cut(read.window, older, &mut pending).await?;
                    None
                }
                Ok(Reading::PageTooLarge) => {
                    pending.push(read);
                    None
                }
                Ok(Reading::Incomplete) => pending.after_incomplete(read, self.suspicions()),
                Ok(Reading::TooMany(total)) => {
                    pending.after_too_many(read, total, self.suspicions())
                }
                Err(ReadEnd::Source(error)) => {
                    let isolated = self.isolate(read.window, error, &mut pending).await;
                    let end = match isolated {
                        Ok(None) => continue,
                        Ok(Some(error)) => ReadEnd::Source(error),
                        Err(end) => end,
                    };
                    self.emit_incomplete(read.window).await?;
                    for window in pending.into_windows() {
                        self.emit_incomplete(window).await?;
                    }
                    return Err(end);
                }
                Err(end) => return Err(end),
            };
            if let Some(gap) = gap {
                let reason = "the rows do not match the reported total".to_owned();
                self.emit_failed(gap, reason).await?;
            }
        }
        Ok(())
    }

    /// Goes on with the newer part of a window that was cut.
    ///
    /// The first page of the newer part confirms the older part. If the run is ending, or other scopes wait for
    /// their turn, a count confirms it instead.
    async fn cut(
        &mut self,
        window: Window,
        older: Part,
        pending: &mut PendingReads,
    ) -> Result<(), ReadEnd> {
        let Ok(newer) = Window::new(older.window.to(), window.to()) else {
            return Ok(());
        };
        self.reset_retries();
        if !self.is_ending() && !self.is_turn_over() {
            pending.push_newer(newer, Some(older));
            return Ok(());
        }
        match self.count_rows(newer).await {
            Ok(rows) if older.is_complete(rows) => {
                self.emit_complete(older.window).await?;
                pending.push_newer(newer, None);
            }
            Ok(_) => {
                self.stop_cutting();
                pending.push_newer(newer, None);
                pending.push_unconfirmed(older.window);
            }
            // The next page confirms it, or fails as well.
            Err(_) => pending.push_newer(newer, Some(older)),
        }
        self.next_turn().await
    }

    /// Reads the pages of a window once. Emits rows as they are received, even if the window turns out to be
    /// incomplete. Emits `older` as complete if the first page confirms it.
    async fn read_pages(
        &mut self,
        window: Window,
        older: &mut Option<Part>,
    ) -> Result<Reading, ReadEnd> {
        let mut tally = Tally::default();
        let (mut offset, mut size) = (0_u32, self.page_size());
        // Rows of a short page that others followed.
        let mut short_size = None;
        for _ in 0..MAX_PAGES {
            let page = match self.fetch_page(window, &[], offset / size, size).await {
                Ok(page) => page,
                // The first page is never too deep.
                Err(SourceError::TooDeep { .. }) if offset == 0 => return Ok(Reading::Incomplete),
                Err(SourceError::TooDeep { .. }) => return Ok(Reading::TooMany(None)),
                Err(SourceError::PageGone { .. }) => return Ok(Reading::Incomplete),
                Err(error) if self.shrink_page(&error, size) => return Ok(Reading::PageTooLarge),
                Err(error) => return Err(ReadEnd::Source(error)),
            };
            let rows = page.rows.len() as u64 + page.unidentified;
            let has_new = tally.add(offset, &page);
            if offset == 0
                && let Some(total) = page.total
            {
                self.note_rows(window, total);
            }
            if let Some(part) = older.take_if(|part| part.is_complete(page.total)) {
                self.emit_complete(part.window).await?;
            }
            self.emit_rows(page, window).await?;
            if let Some(total) = tally.first_total().filter(|total| *total > MAX_ROWS) {
                return Ok(Reading::TooMany(Some(total)));
            }
            let is_short = rows < u64::from(size);
            // Without a total, pages are requested until one contains nothing new.
            let is_last = tally.total().is_none() && is_short && !has_new;
            if rows == 0 || tally.has_all() || is_last {
                return Ok(if tally.is_complete() {
                    Reading::Complete
                } else {
                    Reading::Incomplete
                });
            }
            if is_short {
                // More rows are reported, or may follow: the server may return smaller pages than requested.
                // It then numbers pages by the smaller size, so this may have been another page.
                size = u32::try_from(rows).unwrap_or(size);
                offset = u32::try_from(tally.distinct()).unwrap_or(u32::MAX) / size * size;
                short_size = Some(size);
                continue;
            }
            if !has_new {
                // The same page again: more requests would not end.
                return Ok(Reading::Incomplete);
            }
            offset += size;
            if let Some(part) = self.part_to_cut(window, &tally, size, short_size.is_some())? {
                return Ok(Reading::Cut(part));
            }
            if short_size == Some(size) {
                self.observe_page_cap(size, window);
            } else {
                (offset, size) = self.next_page(size, offset, tally.rest());
            }
        }
        Ok(Reading::TooMany(None))
    }

    /// Returns the older part of a window that is to be cut after its last page.
    ///
    /// # Errors
    ///
    /// [`ReadEnd::Stopped`] if the run is ending and there is nothing to cut.
    fn part_to_cut(
        &self,
        window: Window,
        tally: &Tally,
        size: u32,
        is_capped: bool,
    ) -> Result<Option<Part>, ReadEnd> {
        let (page, rest) = (u64::from(size), tally.rest());
        // One more page completes the window.
        let is_ending = self.is_ending() && rest > page;
        let (pages, pages_left) = if is_ending { (2, 1) } else { (SLICE_PAGES, 2) };
        let is_slice = tally.distinct() >= page * u64::from(pages);
        let is_slice = is_slice && rest > page * pages_left && !is_capped;
        let part = || {
            let total = tally
                .total()
                .filter(|_| tally.first_total() == tally.total())?;
            let newest = tally
                .newest_start()
                .filter(|start| window.contains(*start))?;
            let window = Window::new(window.from(), newest).ok()?;
            let rows = tally.rows_before(newest);
            Some(Part {
                window,
                rows,
                total,
            })
        };
        match (is_slice && self.may_cut()).then(part).flatten() {
            None if is_ending => Err(ReadEnd::Stopped),
            part => Ok(part),
        }
    }

    /// Polls executions by windows around their starts, if the server ignores lists of ids. Emits a missed poll
    /// for each that a complete window does not contain.
    ///
    /// # Errors
    ///
    /// As [`ScopeReader::read_window`].
    pub(super) async fn poll_by_time(
        &mut self,
        open: &[(PlanExecutionId, Timestamp)],
    ) -> Result<(), ReadEnd> {
        self.watch(open);
        let starts: Vec<_> = open.iter().map(|(_, start)| *start).collect();
        let mut rest = windows_around(&starts, Spacing::of(self.rows_per_hour(), self.page_size()));
        let has_start = |half: &Window| starts.iter().any(|start| half.contains(*start));
        let halves = |window: Window| {
            let halves = window.bisect(MIN_WINDOW_MS).into_iter();
            let halves = halves.flat_map(|(older, newer)| [older, newer]);
            halves.filter(has_start).collect::<Vec<_>>()
        };
        while let Some(window) = rest.pop() {
            self.stop_if_ending()?;
            let reading = match self.read_pages(window, &mut None).await {
                Ok(reading) => reading,
                Err(ReadEnd::Source(error)) => {
                    if !self.may_isolate(&error).await? {
                        return Err(ReadEnd::Source(error));
                    }
                    let parts = halves(window);
                    if parts.is_empty() {
                        self.note_failed_poll(&error);
                    }
                    rest.extend(parts);
                    continue;
                }
                Err(end) => return Err(end),
            };
            // Not emitted as complete: a narrow window adds nothing to the coverage.
            match reading {
                Reading::Complete => {
                    self.reset_retries();
                    let inside = open.iter().filter(|(_, start)| window.contains(*start));
                    self.emit_missing(inside.map(|(id, _)| id)).await?;
                }
                Reading::PageTooLarge => rest.push(window),
                // What follows is another window.
                Reading::Cut(part) => rest.extend(Window::new(part.window.to(), window.to())),
                Reading::Incomplete | Reading::TooMany(_) if self.suspicions().is_spent() => {}
                Reading::Incomplete | Reading::TooMany(_) => {
                    self.suspicions().spend();
                    rest.extend(halves(window));
                }
            }
        }
        Ok(())
    }
}

/// Which instants share a window.
#[derive(Clone, Copy, Debug)]
struct Spacing {
    /// Maximum distance of neighbours.
    near_ms: i64,
    /// Maximum length of a window.
    max_ms: i64,
}

impl Spacing {
    const MIN_NEAR_MS: i64 = 10 * 60 * 1000;

    /// Returns the spacing that needs the fewest requests: the rows between two neighbours are at most half a page,
    /// those of a window some pages. For a project of usual size, that is days.
    fn of(rows_per_hour: Option<i64>, page_size: u32) -> Self {
        let Some(rows_per_hour) = rows_per_hour else {
            return Self {
                near_ms: Self::MIN_NEAR_MS,
                max_ms: i64::MAX,
            };
        };
        let page_ms = i64::from(page_size) * HOUR_MS / rows_per_hour.max(1);
        Self {
            near_ms: (page_ms / 2).max(Self::MIN_NEAR_MS),
            max_ms: (page_ms * i64::from(SLICE_PAGES)).max(Self::MIN_NEAR_MS),
        }
    }
}

/// Returns windows around instants.
fn windows_around(starts: &[Timestamp], spacing: Spacing) -> Vec<Window> {
    let mut sorted: Vec<i64> = starts.iter().map(|at| at.as_millisecond()).collect();
    sorted.sort_unstable();
    let mut bounds: Vec<(i64, i64)> = Vec::new();
    for at in sorted {
        match bounds.last_mut() {
            Some((first, last))
                if at - *last <= spacing.near_ms && at - *first <= spacing.max_ms =>
            {
                *last = at;
            }
            _ => bounds.push((at, at)),
        }
    }
    let window = |(first, last): (i64, i64)| Window::new(from_ms(first), from_ms(last + 1)).ok();
    bounds.into_iter().filter_map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_instants_share_a_window() {
        let minutes = [0, 5, 14, 40, 41].map(|minute| from_ms(minute * 60_000));
        let windows = windows_around(&minutes, Spacing::of(None, 1_000));
        let ends: Vec<_> = windows
            .iter()
            .map(|window| (window.from().as_second() / 60, window.to().as_second() / 60))
            .collect();
        assert_eq!(ends, [(0, 14), (40, 41)]);
        assert!(
            windows
                .iter()
                .all(|w| minutes.iter().any(|at| w.contains(*at)))
        );
    }

    #[test]
    fn windows_are_long_where_pages_hold_days() {
        // An open execution every five minutes, in 30 days.
        let starts: Vec<_> = (0..8_640).map(|n| from_ms(n * 300_000)).collect();
        let sparse: Vec<_> = starts.iter().step_by(12).copied().collect();
        let count = |starts: &[_], rows_per_hour| {
            windows_around(starts, Spacing::of(rows_per_hour, 1_000)).len()
        };
        assert_eq!(count(&sparse, None), 720);
        // 50 rows an hour: 20 hours a page, 80 hours a window.
        assert_eq!(count(&sparse, Some(50)), 9);
        assert_eq!(count(&starts, Some(50)), 9);
        // 4,000 rows an hour: an hour between two of them costs four pages.
        assert_eq!(count(&sparse, Some(4_000)), 720);
        assert_eq!(count(&starts, Some(4_000)), 720 * 12 / 13 + 1);
    }
}
