//! Polls open executions: by id, in batches; where the server ignores ids, by narrow windows.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::fanout::{Event, ReadEnd, ScopeReader};
use crate::ids::PlanExecutionId;
use crate::source::{RetryState, SourceError};
use crate::window::{Window, from_ms};

/// Ids of a batch.
pub(super) const BATCH: usize = 100;

impl ScopeReader<'_> {
    /// Polls executions by id, with the time range that covers them; those that a whole answer does
    /// not show are told as missed.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`] where the source does not answer.
    pub(super) async fn poll(
        &mut self,
        open: &[(PlanExecutionId, Timestamp)],
    ) -> Result<(), ReadEnd> {
        for batch in open.chunks(BATCH) {
            self.poll_batch(batch).await?;
        }
        Ok(())
    }

    async fn poll_batch(&mut self, batch: &[(PlanExecutionId, Timestamp)]) -> Result<(), ReadEnd> {
        let mut rest = batch.to_vec();
        while !rest.is_empty() && self.run.ids_are_honoured.load(Ordering::Relaxed) {
            let size = self
                .page_size()
                .min(u32::try_from(BATCH).unwrap_or(u32::MAX));
            let now: Vec<_> = rest.drain(..rest.len().min(size as usize)).collect();
            let (ids, starts): (Vec<_>, Vec<_>) = now.iter().cloned().unzip();
            let Some(window) = covering(&starts) else {
                continue;
            };
            let page = match self.ask(window, &ids, 0, size).await {
                Ok(page) => page,
                Err(SourceError::PageGone { .. }) => continue,
                Err(error) if self.shrinks(&error, size) => {
                    rest.extend(now);
                    continue;
                }
                Err(error) => return Err(ReadEnd::Source(error)),
            };
            self.tried = RetryState::default();
            let asked: HashSet<_> = ids.iter().collect();
            let is_honoured = page.rows.iter().all(|row| asked.contains(&row.id));
            let observed = page.observed;
            let shown: HashSet<_> = page.rows.iter().map(|row| row.id.clone()).collect();
            // Without a total, those that were not shown are asked for until none is.
            let is_whole = page
                .total
                .map_or(shown.is_empty(), |total| total == shown.len() as u64);
            self.emit_rows(page, window).await?;
            if !is_honoured {
                tracing::info!("this server ignores lists of ids; polling by narrow windows");
                self.run.ids_are_honoured.store(false, Ordering::Relaxed);
                rest.extend(now);
            } else if !is_whole && !shown.is_empty() {
                // The server may give smaller pages than it is asked for: the others come next.
                rest.extend(now.into_iter().filter(|(id, _)| !shown.contains(id)));
            } else if is_whole {
                for id in ids.iter().filter(|id| !shown.contains(id)) {
                    self.tell(Event::PollMissed(id.clone(), observed)).await?;
                }
            }
        }
        self.read_around(&rest).await
    }
}

/// The range that holds all instants.
fn covering(starts: &[Timestamp]) -> Option<Window> {
    let (first, last) = (starts.iter().min()?, starts.iter().max()?);
    Window::new(*first, from_ms(last.as_millisecond() + 1)).ok()
}
