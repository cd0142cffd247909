//! Counts the rows of windows, with one small request each.

use std::collections::BTreeMap;

use futures::StreamExt;
use jiff::Timestamp;

use super::ScopeDone;
use super::slices::SLICE_ROWS;
use crate::ids::Scope;
use crate::source::{Client, Page, SourceError};
use crate::window::Window;

/// A window and the rows that the source counts in it.
#[derive(Clone, Debug, PartialEq)]
pub struct CountedWindow {
    /// The scope.
    pub scope: Scope,
    /// The window.
    pub window: Window,
    /// Rows of the window, at least 1.
    pub rows: u64,
    /// The window in which the source has shown rows: the same, or one that was counted by an earlier run.
    pub history: Window,
}

/// The counts of windows.
#[derive(Debug, Default)]
pub struct WindowCounts {
    /// Windows without any row: the count has read them completely.
    pub empty: Vec<(Scope, Window)>,
    /// Windows with rows.
    pub non_empty: Vec<CountedWindow>,
    /// Windows whose count failed.
    pub failed: Vec<(Window, ScopeDone)>,
    /// Bytes of the first row of each scope.
    pub row_bytes: BTreeMap<Scope, u32>,
    /// Time of the last response of each scope.
    pub observed: BTreeMap<Scope, Timestamp>,
}

/// Counts the rows of each window, `concurrency` at a time.
///
/// # Errors
///
/// [`SourceError::Unauthorized`] if the key was rejected, [`SourceError::Outage`] if the source is down. Any other
/// failure concerns one scope.
pub async fn count_windows(
    client: &Client,
    windows: Vec<(Scope, Window)>,
    concurrency: usize,
) -> Result<WindowCounts, SourceError> {
    let mut counts = WindowCounts::default();
    let mut responses = futures::stream::iter(windows)
        .map(|(scope, window)| async move {
            let response = client.count_unless_down(&scope, window).await;
            (scope, window, response)
        })
        .buffer_unordered(concurrency.max(1));
    while let Some((scope, window, response)) = responses.next().await {
        if let Ok(page) = &response {
            let observed = counts.observed.entry(scope.clone());
            let latest = observed.or_insert(page.observed);
            *latest = page.observed.max(*latest);
        }
        match response {
            Ok(page) if !page.has_executions() => counts.empty.push((scope, window)),
            Ok(page) => {
                let bytes = u32::try_from(page.bytes).unwrap_or(u32::MAX);
                counts.row_bytes.insert(scope.clone(), bytes);
                counts.non_empty.push(CountedWindow {
                    scope,
                    window,
                    rows: rows_of(&page),
                    history: window,
                });
            }
            Err(error) if error.concerns_all_scopes() => return Err(error),
            Err(error) => counts
                .failed
                .push((window, ScopeDone::failed(scope, error))),
        }
    }
    Ok(counts)
}

/// Returns the rows that a count reports, at least 1. Without a total, a slice is assumed.
pub(super) fn rows_of(page: &Page) -> u64 {
    page.total.unwrap_or(SLICE_ROWS).max(1)
}
