//! Isolates what the source cannot return: a window that fails while the source is up is split until a minute
//! is left, so that one bad execution costs its own minute and nothing else.
//!
//! ```text
//! read fails, retries included --probe fails--> the source is down for this project: stop reading it
//!                              --probe succeeds--> halve the window, one attempt per part
//!                              --a minute fails--> read it row by row, then leave a gap
//! ```

use std::time::Duration;

use tokio::time::Instant;

use super::reader::{ReadEnd, ScopeReader};
use super::split::PendingReads;
use crate::causes::chain;
use crate::source::SourceError;
use crate::window::Window;

/// Failed reads of one scope in a run, after which its remaining windows become gaps without further splitting.
const MAX_FAILURES: u32 = 64;

/// Time that one scope spends on failed reads in a run. A source that hangs costs a minute per request.
const MAX_TIME: Duration = Duration::from_mins(10);

/// Attempts at a window that cannot be split further.
const LAST_ATTEMPTS: u32 = 3;

/// Rows of a minute that are read one by one, and those in a row that may fail.
const MAX_SINGLE_ROWS: u32 = 200;
const MAX_SINGLE_FAILURES: u32 = 3;

/// Failed reads in a row, after which the source is probed again.
const MAX_FAILURES_PER_PROBE: u32 = 8;

/// The failed reads of one scope while the source was up.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Whether parts of a failed window are being read: with one attempt each.
    is_active: bool,
    failures: u32,
    /// Failed reads since the source last answered.
    failures_in_a_row: u32,
    since: Option<Instant>,
}

impl Isolation {
    /// Returns whether parts of a failed window are being read.
    pub(super) fn is_active(&self) -> bool {
        self.is_active
    }

    /// Ends the isolation of one window. The failed reads still count.
    pub(super) fn end(&mut self) {
        self.is_active = false;
    }

    /// Records that the source answered.
    pub(super) fn answered(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// Returns whether the source has to be probed before a window is split.
    fn needs_probe(&self) -> bool {
        !self.is_active || self.failures_in_a_row >= MAX_FAILURES_PER_PROBE
    }

    /// Records a failed read. Returns false once no further one is allowed.
    fn spend(&mut self) -> bool {
        self.is_active = true;
        self.failures += 1;
        self.failures_in_a_row += 1;
        let since = *self.since.get_or_insert_with(Instant::now);
        self.failures <= MAX_FAILURES && since.elapsed() < MAX_TIME
    }
}

impl ScopeReader<'_> {
    /// Decides what follows a window that failed, retries included. Returns the error if reading the scope has to
    /// end: the source is down for it, or too many reads failed.
    ///
    /// # Errors
    ///
    /// [`ReadEnd`] if the receiver was dropped or the key is rejected meanwhile.
    pub(super) async fn isolate(
        &mut self,
        window: Window,
        error: SourceError,
        pending: &mut PendingReads,
    ) -> Result<Option<SourceError>, ReadEnd> {
        if !self.may_isolate(&error).await? {
            return Ok(Some(error));
        }
        if pending.halve(window) {
            return Ok(None);
        }
        self.limit_attempts(LAST_ATTEMPTS);
        self.read_single_rows(window).await?;
        self.reset_retries();
        self.emit_failed(window, chain(&error)).await?;
        Ok(None)
    }

    /// Returns whether what failed may be split and read in parts, and records the failure.
    ///
    /// # Errors
    ///
    /// As [`ScopeReader::isolate`].
    pub(super) async fn may_isolate(&mut self, error: &SourceError) -> Result<bool, ReadEnd> {
        // Projects that were never readable cost no probe each run.
        let may_be_one_page = error.is_forbidden() && self.was_readable();
        if !(error.may_concern_single_rows() || may_be_one_page) || !self.probe_source().await? {
            return Ok(false);
        }
        if !self.isolation().is_active() {
            tracing::warn!(
                cause = chain(error),
                "failed to read; reading smaller parts"
            );
        }
        let may_go_on = self.isolation().spend();
        self.reset_retries();
        Ok(may_go_on)
    }

    /// Returns whether the source answers at all for this scope.
    async fn probe_source(&mut self) -> Result<bool, ReadEnd> {
        if !self.isolation().needs_probe() {
            return Ok(true);
        }
        match self.probe().await {
            Ok(()) => Ok(true),
            Err(error) if error.is_unauthorized() => Err(ReadEnd::Source(error)),
            Err(_) => Ok(false),
        }
    }

    /// Emits the rows of the shortest window one by one, without those that fail.
    async fn read_single_rows(&mut self, window: Window) -> Result<(), ReadEnd> {
        let mut failures_in_a_row = 0;
        for page in 0..MAX_SINGLE_ROWS {
            match self.fetch_page(window, &[], page, 1).await {
                Ok(row) => {
                    failures_in_a_row = 0;
                    let is_last = row.rows.is_empty() && row.unidentified == 0;
                    let total = row.total;
                    self.emit_rows(row, window).await?;
                    if is_last || total.is_some_and(|total| u64::from(page) + 1 >= total) {
                        return Ok(());
                    }
                }
                Err(error) if error.is_unauthorized() => return Err(ReadEnd::Source(error)),
                Err(_) => {
                    failures_in_a_row += 1;
                    self.reset_retries();
                    if failures_in_a_row == MAX_SINGLE_FAILURES {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failed_reads_are_bounded_in_number_and_time() {
        let mut isolation = Isolation::default();
        let spent = (0..1_000).take_while(|_| isolation.spend()).count();
        assert_eq!(u32::try_from(spent), Ok(MAX_FAILURES));

        let mut isolation = Isolation::default();
        assert!(isolation.spend());
        tokio::time::advance(MAX_TIME).await;
        assert!(!isolation.spend());
    }

    #[test]
    fn source_is_probed_first_and_after_failures_in_a_row() {
        let mut isolation = Isolation::default();
        assert!(isolation.needs_probe());
        isolation.spend();
        assert!(!isolation.needs_probe());
        for _ in 0..MAX_FAILURES_PER_PROBE {
            isolation.spend();
        }
        assert!(isolation.needs_probe());
        isolation.answered();
        assert!(!isolation.needs_probe());
    }
}
