//! Reads the windows of one scope: page by page, split into halves if need be.

use jiff::Timestamp;

use super::reader::{ReadEnd, ScopeReader};
use super::split::{MIN_WINDOW_MS, PendingReads};
use super::tally::Tally;
use crate::ids::PlanExecutionId;
use crate::source::SourceError;
use crate::window::{Window, from_ms};

/// Maximum rows of a window that every server pages through.
const MAX_ROWS: u64 = 10_000;

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
        while let Some(read) = pending.pop() {
            let gap = match self.read_pages(read.window).await {
                Ok(Reading::Complete) => {
                    self.complete_window(read.window).await?;
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

    /// Reads the pages of a window once. Emits rows as they are received, even if the window turns out to be
    /// incomplete.
    async fn read_pages(&mut self, window: Window) -> Result<Reading, ReadEnd> {
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
            if short_size == Some(size) {
                self.observe_page_cap(size, window);
            } else {
                (offset, size) = self.next_page(size, offset, tally.rest());
            }
        }
        Ok(Reading::TooMany(None))
    }

    /// Polls executions by narrow windows around their starts, if the server ignores lists of ids. Emits a missed
    /// poll for each that a complete window does not contain.
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
        let mut rest = windows_around(&starts);
        let has_start = |half: &Window| starts.iter().any(|start| half.contains(*start));
        let halves = |window: Window| {
            let halves = window.bisect(MIN_WINDOW_MS).into_iter();
            let halves = halves.flat_map(|(older, newer)| [older, newer]);
            halves.filter(has_start).collect::<Vec<_>>()
        };
        while let Some(window) = rest.pop() {
            let reading = match self.read_pages(window).await {
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

/// Returns windows around instants; instants within ten minutes share one.
fn windows_around(starts: &[Timestamp]) -> Vec<Window> {
    const NEAR_MS: i64 = 10 * 60 * 1000;
    let mut sorted: Vec<i64> = starts.iter().map(|at| at.as_millisecond()).collect();
    sorted.sort_unstable();
    let near = |a: &i64, b: &i64| b - a <= NEAR_MS;
    let window = |cluster: &[i64]| {
        let (first, last) = (cluster.first()?, cluster.last()?);
        Window::new(from_ms(*first), from_ms(last + 1)).ok()
    };
    sorted.chunk_by(near).filter_map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_instants_share_a_window() {
        let minutes = [0, 5, 14, 40, 41].map(|minute| from_ms(minute * 60_000));
        let windows = windows_around(&minutes);
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
}
