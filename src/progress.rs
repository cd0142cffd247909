//! How far a run is: a bar on a terminal, lines in the log elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::extract::fanout::ScopeDone;

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    scopes: AtomicU64,
    rows: AtomicU64,
    last_line: Mutex<Option<Instant>>,
}

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

impl Progress {
    /// A bar on standard error where that is a terminal (`is_terminal`), lines elsewhere.
    pub fn new(is_terminal: bool) -> Self {
        let bar = is_terminal.then(|| {
            let style = "{spinner} {pos}/{len} projects, {msg} executions  {wide_bar}  {elapsed}";
            let style = ProgressStyle::with_template(style).expect("the template is a constant");
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
        });
        let (scopes, rows) = (AtomicU64::new(0), AtomicU64::new(0));
        Self {
            bar,
            scopes,
            rows,
            last_line: Mutex::new(None),
        }
    }

    /// The scopes are known.
    pub fn begin(&self, scopes: usize) {
        tracing::debug!(scopes, "reading");
        if let Some(bar) = &self.bar {
            bar.set_length(scopes as u64);
            bar.set_message("0");
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// Rows came.
    pub fn rows(&self, rows: usize) {
        let rows = self.rows.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        if let Some(bar) = &self.bar {
            bar.set_message(rows.to_string());
        }
    }

    /// A scope is done.
    pub fn scope(&self, done: &ScopeDone) {
        let scopes = self.scopes.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
            return;
        }
        let mut last = self
            .last_line
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_due = last.get_or_insert_with(Instant::now).elapsed() >= LINE_EVERY;
        if is_due {
            *last = Some(Instant::now());
            let rows = self.rows.load(Ordering::Relaxed);
            tracing::info!(
                scopes,
                rows,
                "read {} and {scopes} projects in all",
                done.scope
            );
        }
    }

    /// Nothing more comes.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
