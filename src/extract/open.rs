//! Polls open executions: by id, in batches; by time if the server ignores ids.

use std::collections::HashSet;

use jiff::Timestamp;

use super::reader::{ReadEnd, ScopeReader};
use crate::ids::PlanExecutionId;
use crate::source::SourceError;
use crate::window::{Window, from_ms};

/// Maximum ids of a request.
pub(super) const BATCH: usize = 100;

impl ScopeReader<'_> {
    /// Polls executions by id, within the time range that covers them. Emits a missed poll for each that a
    /// complete response does not contain.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`] if the source fails.
    pub(super) async fn poll(
        &mut self,
        open: &[(PlanExecutionId, Timestamp)],
    ) -> Result<(), ReadEnd> {
        self.isolation().end();
        self.reset_retries();
        let mut by_time = Vec::new();
        for batch in open.chunks(BATCH) {
            by_time.extend(self.poll_batch(batch).await?);
        }
        // All at once: executions of several batches share a window.
        self.poll_by_time(&by_time).await
    }

    /// Polls executions by id. Returns those that the server does not filter by id.
    async fn poll_batch(
        &mut self,
        batch: &[(PlanExecutionId, Timestamp)],
    ) -> Result<Vec<(PlanExecutionId, Timestamp)>, ReadEnd> {
        let mut rest = batch.to_vec();
        // Fewer ids after a failure, twice as many after a success.
        let mut limit = BATCH;
        while !rest.is_empty() && self.filters_by_id() {
            let size = self
                .page_size()
                .min(u32::try_from(BATCH).unwrap_or(u32::MAX));
            let polled: Vec<_> = rest
                .drain(..rest.len().min(size as usize).min(limit))
                .collect();
            let (ids, starts): (Vec<_>, Vec<_>) = polled.iter().cloned().unzip();
            let Some(window) = covering(&starts) else {
                continue;
            };
            let page = match self.fetch_page(window, &ids, 0, size).await {
                Ok(page) => page,
                Err(SourceError::PageGone { .. }) => continue,
                Err(error) if self.shrink_page(&error, size) => {
                    rest.extend(polled);
                    continue;
                }
                Err(error) if !self.may_isolate(&error).await? => {
                    return Err(ReadEnd::Source(error));
                }
                Err(error) if polled.len() == 1 => {
                    self.note_failed_poll(&error);
                    continue;
                }
                Err(_) => {
                    limit = polled.len() / 2;
                    rest.extend(polled);
                    continue;
                }
            };
            limit = (limit * 2).min(BATCH);
            self.reset_retries();
            let requested: HashSet<_> = ids.iter().collect();
            let is_filtered = page.rows.iter().all(|row| requested.contains(&row.id));
            let observed = page.observed;
            let received: HashSet<_> = page.rows.iter().map(|row| row.id.clone()).collect();
            // Without a total, the missing ones are requested until a response is empty.
            let is_complete = page
                .total
                .map_or(received.is_empty(), |total| total == received.len() as u64);
            self.emit_rows(page, window).await?;
            if !is_filtered {
                self.note_ids_ignored();
                rest.extend(polled);
            } else if is_complete {
                for id in ids.iter().filter(|id| !received.contains(id)) {
                    self.emit_poll_missed(id, observed).await?;
                }
            } else if !received.is_empty() {
                // The server may return smaller pages than requested: the others come next.
                rest.extend(polled.into_iter().filter(|(id, _)| !received.contains(id)));
            }
        }
        Ok(rest)
    }
}

/// Returns the window that contains all instants.
fn covering(starts: &[Timestamp]) -> Option<Window> {
    let (first, last) = (starts.iter().min()?, starts.iter().max()?);
    Window::new(*first, from_ms(last.as_millisecond() + 1)).ok()
}
