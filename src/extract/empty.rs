//! Distrust of empty responses.
//!
//! A key that loses its rights gets empty responses, not errors. So a scope that has shown rows before,
//! and shows none now, is trusted only if it still shows any row, of whatever age. Its empty windows are
//! then counted once more. The window of the newest known row stays uncovered until it shows a row.

use jiff::Timestamp;

use super::ReadPlan;
use super::reader::{ReadEnd, ScopeReader};
use crate::window::Window;

/// The windows of one scope that were empty before any row was received.
pub(super) struct EmptyWindows {
    /// A window in which the source has shown rows; without one, empty responses are trusted.
    history: Option<Window>,
    /// `start_ts` of a row that the windows should contain.
    expected_row_start: Option<Timestamp>,
    /// Empty windows that are not confirmed yet.
    unconfirmed: Vec<Window>,
}

impl EmptyWindows {
    pub(super) fn new(plan: &ReadPlan) -> Self {
        Self {
            history: plan.history,
            expected_row_start: plan.expected_row_start,
            unconfirmed: Vec::new(),
        }
    }

    /// Keeps an empty window for confirmation. Returns false if it is trusted as it is.
    pub(super) fn distrust(&mut self, window: Window) -> bool {
        if self.has_history() {
            self.unconfirmed.push(window);
        }
        self.has_history()
    }

    /// Returns whether the source has shown rows of the scope to an earlier run.
    pub(super) fn has_history(&self) -> bool {
        self.history.is_some()
    }

    fn should_contain_row(&self, window: Window) -> bool {
        self.expected_row_start
            .is_some_and(|start| window.contains(start))
    }
}

impl ScopeReader<'_> {
    /// Confirms the empty windows and emits their outcome. Returns whether the scope is trusted.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`] if the source does not answer: then the empty windows stay uncovered.
    pub(super) async fn confirm_empty(&mut self) -> Result<bool, ReadEnd> {
        let confirmed = self.count_again().await;
        if confirmed.is_err() {
            self.leave_empty_uncovered().await?;
        }
        confirmed
    }

    async fn count_again(&mut self) -> Result<bool, ReadEnd> {
        let empty = self.empty_windows();
        let Some(history) = empty.history.filter(|_| !empty.unconfirmed.is_empty()) else {
            return Ok(true);
        };
        let expected_row_start = empty.expected_row_start;
        let mut windows = empty.unconfirmed.iter();
        let lacks_row = windows.any(|window| empty.should_contain_row(*window));
        let is_bare = !self.has_received_rows();
        let is_trusted = !is_bare || self.count_has_rows(history).await?;
        if !is_trusted || (is_bare && lacks_row) {
            self.set_missing_row(expected_row_start);
        }
        if !is_trusted {
            self.leave_empty_uncovered().await?;
            return Ok(false);
        }
        while let Some(window) = self.empty_windows().unconfirmed.last().copied() {
            if !is_bare || !self.empty_windows().should_contain_row(window) {
                let has_rows = self.count_has_rows(window).await?;
                self.empty_windows().unconfirmed.pop();
                if has_rows {
                    self.emit_incomplete(window).await?;
                } else {
                    self.emit_complete(window).await?;
                }
            } else {
                self.empty_windows().unconfirmed.pop();
            }
        }
        Ok(!self.has_missing_row())
    }

    /// Leaves the unconfirmed windows of a `sync` uncovered: the next run reads them from the newest row on.
    /// Those of a backfill become gaps, since a count has found rows in them.
    pub(super) async fn leave_empty_uncovered(&mut self) -> Result<(), ReadEnd> {
        let empty = self.empty_windows();
        let windows = std::mem::take(&mut empty.unconfirmed);
        if empty.expected_row_start.is_none() {
            for window in windows {
                self.emit_incomplete(window).await?;
            }
        }
        Ok(())
    }

    async fn count_has_rows(&self, window: Window) -> Result<bool, ReadEnd> {
        self.has_rows(window).await.map_err(ReadEnd::Source)
    }
}
