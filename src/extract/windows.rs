//! Reads one window of one scope whole: again, then in halves, and at last leaves a gap.

use std::collections::HashSet;

use jiff::Timestamp;

use super::fanout::{Event, ScopeReader, Stop};
use crate::ids::PlanExecutionId;
use crate::source::{SourceError, Tried};
use crate::window::Window;

/// Windows that are not halved any more, in milliseconds.
const LEAST_WINDOW_MS: i64 = 60_000;

/// Rows of a window that some servers page through at most.
const ROW_CAP: u64 = 10_000;

/// Times that windows of one scope are read again because a total was not met; what is not whole
/// then is a gap. A total that lies for ever must not cost for ever.
const SUSPICIONS: u32 = 24;

/// Pages of a window at most: with the largest pages and totals this is never met.
const PAGES: u32 = 20_000;

/// How a reading of a window ended.
enum Reading {
    /// All rows came: distinct ids are as many as the total told, first and last.
    Whole,
    /// Rows came, but not as many as the total told.
    NotWhole,
    /// More rows than can be paged through.
    TooMany,
    /// A page of this size does not come.
    PageTooLarge,
}

impl ScopeReader<'_> {
    /// Reads `window` and tells which parts of it came whole and which did not.
    ///
    /// # Errors
    ///
    /// [`Stop`] where the source does not answer: the rest of the window is told as a gap first.
    pub(super) async fn read_window(&mut self, window: Window) -> Result<(), Stop> {
        // Oldest half on top, so that coverage grows from the old end.
        let mut rest = vec![(window, 0_u32)];
        while let Some((window, readings)) = rest.pop() {
            let reading = match self.read_pages(window).await {
                Ok(reading) => reading,
                Err(stop) => {
                    self.gap(window).await?;
                    for (window, _) in rest {
                        self.gap(window).await?;
                    }
                    return Err(stop);
                }
            };
            match reading {
                Reading::Whole => {
                    self.tried = Tried::default();
                    self.paging.whole();
                    self.tell(Event::Whole(self.scope.clone(), window)).await?;
                }
                Reading::PageTooLarge => rest.push((window, readings)),
                Reading::NotWhole if readings == 0 && self.suspicions < SUSPICIONS => {
                    self.suspicions += 1;
                    rest.push((window, 1));
                }
                Reading::NotWhole if SUSPICIONS <= self.suspicions => self.gap(window).await?,
                Reading::NotWhole | Reading::TooMany => match window.bisect(LEAST_WINDOW_MS) {
                    Some((older, newer)) => rest.extend([(newer, 0), (older, 0)]),
                    None => self.gap(window).await?,
                },
            }
        }
        Ok(())
    }

    async fn gap(&mut self, window: Window) -> Result<(), Stop> {
        self.tell(Event::Gap(self.scope.clone(), window)).await
    }

    /// Reads the pages of a window, once. Rows are told as they come, whole or not.
    async fn read_pages(&mut self, window: Window) -> Result<Reading, Stop> {
        let mut seen: HashSet<PlanExecutionId> = HashSet::new();
        let mut unidentified = 0;
        let mut first_total = None;
        let (mut offset, mut size) = (0_u32, self.page_size());
        // Whether the server seems to give smaller pages than it is asked for.
        let mut is_capped = false;
        for _ in 0..PAGES {
            let page = match self.ask(window, &[], offset / size, size).await {
                Ok(page) => page,
                Err(SourceError::TooDeep { .. }) => return Ok(Reading::TooMany),
                Err(SourceError::PageGone { .. }) => return Ok(Reading::NotWhole),
                Err(error) if self.shrinks(&error, size) => return Ok(Reading::PageTooLarge),
                Err(error) => return Err(Stop::Source(error)),
            };
            let total = page.total;
            let first = *first_total.get_or_insert(total);
            if first.is_some_and(|total| ROW_CAP < total) {
                self.tell_rows(page, window).await?;
                return Ok(Reading::TooMany);
            }
            let rows = page.rows.len() as u64 + page.unidentified;
            unidentified += page.unidentified;
            let before = seen.len();
            seen.extend(page.rows.iter().map(|row| row.id.clone()));
            self.tell_rows(page, window).await?;
            let distinct = seen.len() as u64 + unidentified;
            let is_short = rows < u64::from(size);
            if is_short && 0 < rows && total.is_some_and(|total| distinct < total) {
                // More are announced: the server may give smaller pages than it is asked for. Its
                // pages are then numbered by what it gives, so this one may have been another.
                size = u32::try_from(rows).unwrap_or(size);
                offset = u32::try_from(distinct).unwrap_or(u32::MAX) / size * size;
                is_capped = true;
                continue;
            }
            let is_last = is_short || total.is_some_and(|total| total <= distinct);
            if is_last {
                // Without a total the short page is all there is to go by.
                let is_whole = first == total && total.is_none_or(|total| total == distinct);
                return Ok(if is_whole {
                    Reading::Whole
                } else {
                    Reading::NotWhole
                });
            }
            if seen.len() == before {
                // The same page again: paging on would not end.
                return Ok(Reading::NotWhole);
            }
            offset += size;
            if is_capped {
                // A full page of that size: so it is.
                self.capped(size);
            } else {
                let rest = total.map_or(u64::from(u32::MAX), |total| total - distinct);
                (offset, size) = self.next_page(size, offset, rest);
            }
        }
        Ok(Reading::TooMany)
    }

    /// Reads narrow windows around executions: what a server gives that ignores lists of ids. Those
    /// that a whole window does not show are told as missed.
    ///
    /// # Errors
    ///
    /// As [`ScopeReader::read_window`].
    pub(super) async fn read_around(
        &mut self,
        open: &[(PlanExecutionId, Timestamp)],
    ) -> Result<(), Stop> {
        self.watch(open);
        let starts: Vec<_> = open.iter().map(|(_, start)| *start).collect();
        let mut rest = clusters(&starts);
        while let Some(window) = rest.pop() {
            let holds = |window: &Window| starts.iter().any(|start| window.contains(*start));
            // Not told as coverage: a narrow window adds nothing to what is covered.
            match self.read_pages(window).await? {
                Reading::Whole => {
                    self.tried = Tried::default();
                    let inside = open.iter().filter(|(_, start)| window.contains(*start));
                    self.tell_missed(inside.map(|(id, _)| id)).await?;
                }
                Reading::PageTooLarge => rest.push(window),
                Reading::NotWhole if SUSPICIONS <= self.suspicions => {}
                reading @ (Reading::NotWhole | Reading::TooMany) => {
                    self.suspicions += u32::from(matches!(reading, Reading::NotWhole));
                    let halves = window.bisect(LEAST_WINDOW_MS);
                    let halves = halves.into_iter().flat_map(|(older, newer)| [older, newer]);
                    rest.extend(halves.filter(holds));
                }
            }
        }
        Ok(())
    }
}

/// Windows around instants; instants within ten minutes share one.
fn clusters(starts: &[Timestamp]) -> Vec<Window> {
    const NEAR_MS: i64 = 10 * 60 * 1000;
    let mut sorted: Vec<i64> = starts.iter().map(|at| at.as_millisecond()).collect();
    sorted.sort_unstable();
    let near = |a: &i64, b: &i64| b - a <= NEAR_MS;
    let window = |cluster: &[i64]| {
        let (first, last) = (cluster.first()?, cluster.last()?);
        Window::new(
            crate::window::from_ms(*first),
            crate::window::from_ms(last + 1),
        )
        .ok()
    };
    sorted.chunk_by(near).filter_map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::from_ms;

    #[test]
    fn near_instants_share_a_window() {
        let minutes = [0, 5, 14, 40, 41].map(|minute| from_ms(minute * 60_000));
        let windows = clusters(&minutes);
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
