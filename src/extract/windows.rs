//! Reads one window of one scope whole: again, then in halves, and at last leaves a gap.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;

use super::fanout::{Event, ReadEnd, ScopeReader};
use crate::ids::PlanExecutionId;
use crate::source::{Page, RetryState, SourceError};
use crate::window::Window;

/// Windows that are not halved any more, in milliseconds.
const LEAST_WINDOW_MS: i64 = 60_000;

/// Rows of a window that some servers page through at most.
const ROW_CAP: u64 = 10_000;

/// Times that a total of one scope is not believed: it was not met, or both halves announce as many rows as
/// the whole. What is not whole then is a gap. A total that lies for ever must not cost for ever.
const SUSPICIONS: u32 = 24;

/// Pages of a window at most: with the largest pages and totals this is never met.
const PAGES: u32 = 20_000;

/// How a reading of a window ended.
enum Reading {
    /// All rows came: distinct ids are as many as the total told, first and last.
    Whole,
    /// Rows came, but not as many as the total told.
    NotWhole,
    /// More rows than can be paged through; how many, where the total told.
    TooMany(Option<u64>),
    /// A page of this size does not come.
    PageTooLarge,
}

/// A window that is still to be read.
#[derive(Clone, Copy)]
struct Part {
    window: Window,
    /// Whether it was read before and did not come whole.
    is_second: bool,
    /// Rows that the window announced of which this is a half, where they were too many.
    announced: Option<u64>,
    /// Whether the older half of that window announced as many.
    is_sibling_odd: bool,
}

impl Part {
    fn new(window: Window, announced: Option<u64>) -> Self {
        Self {
            window,
            is_second: false,
            announced,
            is_sibling_odd: false,
        }
    }

    /// The newer and the older half, each to be read for the first time.
    fn halves(self, announced: Option<u64>) -> Option<[Self; 2]> {
        let (older, newer) = self.window.bisect(LEAST_WINDOW_MS)?;
        Some([newer, older].map(|half| Self::new(half, announced)))
    }
}

impl ScopeReader<'_> {
    /// Reads `window` and tells which parts of it came whole and which did not.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`] where the source does not answer: the rest of the window is told as a gap first.
    pub(super) async fn read_window(&mut self, window: Window) -> Result<(), ReadEnd> {
        // Oldest half on top, so that coverage grows from the old end.
        let mut rest = vec![Part::new(window, None)];
        while let Some(part) = rest.pop() {
            let window = part.window;
            let reading = match self.read_pages(window).await {
                Ok(reading) => reading,
                Err(stop) => {
                    self.gap(window).await?;
                    for part in rest {
                        self.gap(part.window).await?;
                    }
                    return Err(stop);
                }
            };
            let is_believed = self.suspicions < SUSPICIONS;
            let halves = match reading {
                Reading::Whole => {
                    self.tried = RetryState::default();
                    self.paging.whole();
                    self.emit_complete(window).await?;
                    continue;
                }
                Reading::PageTooLarge => {
                    rest.push(part);
                    continue;
                }
                Reading::NotWhole if is_believed && !part.is_second => {
                    self.suspicions += 1;
                    rest.push(Part {
                        is_second: true,
                        ..part
                    });
                    continue;
                }
                Reading::NotWhole => part.halves(None).filter(|_| is_believed),
                Reading::TooMany(total) => {
                    // All rows may lie in one half, but not in each.
                    let is_odd = part.announced.is_some() && part.announced <= total;
                    if let Some(sibling) = rest.last_mut()
                        && sibling.window.from() == window.to()
                    {
                        sibling.is_sibling_odd |= is_odd;
                    }
                    self.suspicions += u32::from(is_odd && part.is_sibling_odd);
                    part.halves(total).filter(|_| is_believed || !is_odd)
                }
            };
            match halves {
                Some(halves) => rest.extend(halves),
                None => self.gap(window).await?,
            }
        }
        Ok(())
    }

    async fn gap(&mut self, window: Window) -> Result<(), ReadEnd> {
        self.tell(Event::WindowIncomplete(self.scope.clone(), window))
            .await
    }

    /// Reads the pages of a window, once. Rows are told as they come, whole or not.
    async fn read_pages(&mut self, window: Window) -> Result<Reading, ReadEnd> {
        let mut tally = Tally::default();
        let (mut offset, mut size) = (0_u32, self.page_size());
        // What the server seems to give at most, whatever it is asked for.
        let mut cap = None;
        for _ in 0..PAGES {
            let page = match self.ask(window, &[], offset / size, size).await {
                Ok(page) => page,
                // The first page is never too deep.
                Err(SourceError::TooDeep { .. }) if offset == 0 => return Ok(Reading::NotWhole),
                Err(SourceError::TooDeep { .. }) => return Ok(Reading::TooMany(None)),
                Err(SourceError::PageGone { .. }) => return Ok(Reading::NotWhole),
                Err(error) if self.shrinks(&error, size) => return Ok(Reading::PageTooLarge),
                Err(error) => return Err(ReadEnd::Source(error)),
            };
            let rows = page.rows.len() as u64 + page.unidentified;
            let is_new = tally.add(offset, &page);
            self.emit_rows(page, window).await?;
            if let Some(total) = tally.first_total.filter(|total| ROW_CAP < *total) {
                return Ok(Reading::TooMany(Some(total)));
            }
            let is_short = rows < u64::from(size);
            // Without a total, pages are asked for until one shows nothing new.
            if rows == 0 || tally.is_met() || (tally.total.is_none() && is_short && !is_new) {
                return Ok(tally.verdict());
            }
            if is_short {
                // More are announced, or may follow: the server may give smaller pages than it is asked for. Its
                // pages are then numbered by what it gives, so this one may have been another.
                size = u32::try_from(rows).unwrap_or(size);
                offset = u32::try_from(tally.distinct()).unwrap_or(u32::MAX) / size * size;
                cap = Some(size);
                continue;
            }
            if !is_new {
                // The same page again: paging on would not end.
                return Ok(Reading::NotWhole);
            }
            offset += size;
            if cap == Some(size) {
                self.seems_capped(size, window);
            } else {
                (offset, size) = self.next_page(size, offset, tally.rest());
            }
        }
        Ok(Reading::TooMany(None))
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
    ) -> Result<(), ReadEnd> {
        self.watch(open);
        let starts: Vec<_> = open.iter().map(|(_, start)| *start).collect();
        let mut rest = clusters(&starts);
        while let Some(window) = rest.pop() {
            let holds = |window: &Window| starts.iter().any(|start| window.contains(*start));
            // Not told as coverage: a narrow window adds nothing to what is covered.
            match self.read_pages(window).await? {
                Reading::Whole => {
                    self.tried = RetryState::default();
                    let inside = open.iter().filter(|(_, start)| window.contains(*start));
                    self.emit_missing(inside.map(|(id, _)| id)).await?;
                }
                Reading::PageTooLarge => rest.push(window),
                Reading::NotWhole | Reading::TooMany(_) if SUSPICIONS <= self.suspicions => {}
                Reading::NotWhole | Reading::TooMany(_) => {
                    self.suspicions += 1;
                    let halves = window.bisect(LEAST_WINDOW_MS);
                    let halves = halves.into_iter().flat_map(|(older, newer)| [older, newer]);
                    rest.extend(halves.filter(holds));
                }
            }
        }
        Ok(())
    }
}

/// What the pages of one reading told so far.
#[derive(Default)]
struct Tally {
    seen: HashSet<PlanExecutionId>,
    /// Rows without an id, by the offset of their page.
    unidentified: BTreeMap<u32, u64>,
    /// Rows of the window, as the first page told.
    first_total: Option<u64>,
    /// The same, as the last page told.
    total: Option<u64>,
    is_begun: bool,
}

impl Tally {
    /// Adds the page at `offset`; whether it shows an execution that none before did.
    fn add(&mut self, offset: u32, page: &Page) -> bool {
        if !self.is_begun {
            (self.first_total, self.is_begun) = (page.total, true);
        }
        self.total = page.total;
        // What is asked for again is not counted again.
        self.unidentified.retain(|at, _| *at < offset);
        self.unidentified.insert(offset, page.unidentified);
        let before = self.seen.len();
        self.seen.extend(page.rows.iter().map(|row| row.id.clone()));
        before < self.seen.len()
    }

    fn distinct(&self) -> u64 {
        self.seen.len() as u64 + self.unidentified.values().sum::<u64>()
    }

    /// Whether as many rows came as are announced.
    fn is_met(&self) -> bool {
        self.total.is_some_and(|total| total <= self.distinct())
    }

    /// Rows that are announced and have not come.
    fn rest(&self) -> u64 {
        self.total.map_or(u64::from(u32::MAX), |total| {
            total.saturating_sub(self.distinct())
        })
    }

    /// How the reading ended, after its last page.
    fn verdict(&self) -> Reading {
        let is_exact = self.total.is_none_or(|total| total == self.distinct());
        if is_exact && self.first_total == self.total {
            Reading::Whole
        } else {
            Reading::NotWhole
        }
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
