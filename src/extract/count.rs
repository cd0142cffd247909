//! Counts the rows of windows, with one small request each.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use jiff::Timestamp;

use super::ScopeDone;
use super::slices::SLICE_ROWS;
use crate::ids::Scope;
use crate::source::{Client, SourceError};
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
/// [`SourceError::Unauthorized`]: the key was rejected. Any other failure concerns one scope.
pub async fn count_windows(
    client: &Client,
    windows: Vec<(Scope, Window)>,
    concurrency: usize,
) -> Result<WindowCounts, SourceError> {
    let mut counts = WindowCounts::default();
    let mut responses = futures::stream::iter(windows)
        .map(|(scope, window)| async move {
            let response = client.count(&scope, window).await;
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
                    rows: page.total.unwrap_or(SLICE_ROWS).max(1),
                });
            }
            Err(error) if error.is_unauthorized() => return Err(error),
            Err(error) => counts
                .failed
                .push((window, ScopeDone::failed(scope, error))),
        }
    }
    Ok(counts)
}

impl WindowCounts {
    /// Adds later counts.
    pub(super) fn add(&mut self, later: Self) {
        self.empty.extend(later.empty);
        self.non_empty.extend(later.non_empty);
        self.failed.extend(later.failed);
        self.row_bytes.extend(later.row_bytes);
        self.observed.extend(later.observed);
    }

    /// Treats windows whose count failed because of single rows as windows with rows: reading them isolates the
    /// failure.
    pub(super) fn read_what_was_not_counted(&mut self) {
        let is_readable = |done: &ScopeDone| {
            let failure = done.failure.as_ref();
            failure.is_some_and(SourceError::may_concern_single_rows)
        };
        let failed = std::mem::take(&mut self.failed).into_iter();
        let (readable, failed): (Vec<_>, Vec<_>) = failed.partition(|(_, done)| is_readable(done));
        self.failed = failed;
        self.non_empty
            .extend(readable.into_iter().map(|(window, done)| CountedWindow {
                scope: done.scope,
                window,
                rows: SLICE_ROWS,
            }));
    }

    /// Returns the scopes with empty windows and without any row.
    pub(super) fn scopes_without_rows(&self) -> BTreeSet<Scope> {
        let with_rows: BTreeSet<_> = self
            .non_empty
            .iter()
            .map(|counted| &counted.scope)
            .collect();
        let empty = self.empty.iter().map(|(scope, _)| scope);
        empty
            .filter(|scope| !with_rows.contains(scope))
            .cloned()
            .collect()
    }

    /// Returns the scopes of which all windows are empty.
    pub(super) fn empty_scopes(&self) -> BTreeSet<Scope> {
        let mut empty = self.scopes_without_rows();
        for (_, done) in &self.failed {
            empty.remove(&done.scope);
        }
        empty
    }
}
