//! How far a run is: a bar on a terminal, lines in the log elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// What the run reads, in parts: `projects`, or `slices` of them.
    parts: Mutex<(usize, &'static str)>,
    done: AtomicU64,
    rows: AtomicU64,
    last_line: Mutex<Instant>,
}

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

impl Progress {
    /// A bar on standard error where that is a terminal (`is_terminal`), lines elsewhere.
    pub fn new(is_terminal: bool) -> Self {
        let bar = is_terminal.then(|| {
            let style = "{spinner} {pos}/{len} {prefix}, {msg} executions  {wide_bar}  {elapsed}";
            let style = ProgressStyle::with_template(style).expect("the template is a constant");
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
        });
        Self {
            bar,
            parts: Mutex::new((0, "projects")),
            done: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            last_line: Mutex::new(Instant::now()),
        }
    }

    /// The parts are known, and what they are.
    pub fn begin(&self, parts: usize, what: &'static str) {
        tracing::debug!(parts, "reading {what}");
        *held(&self.parts) = (parts, what);
        if let Some(bar) = &self.bar {
            bar.set_length(parts as u64);
            bar.set_prefix(what);
            bar.set_message("0");
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// Rows came.
    pub fn rows(&self, rows: usize) {
        let rows = self.rows.fetch_add(rows as u64, Ordering::Relaxed) + rows as u64;
        match &self.bar {
            Some(bar) => bar.set_message(rows.to_string()),
            None => self.line(),
        }
    }

    /// A part is done.
    pub fn part(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => self.line(),
        }
    }

    /// Writes a line, if the last one was written long enough ago.
    fn line(&self) {
        let mut last = held(&self.last_line);
        if LINE_EVERY <= last.elapsed() {
            *last = Instant::now();
            let (parts, what) = *held(&self.parts);
            let [rows, done] = [&self.rows, &self.done].map(|of| of.load(Ordering::Relaxed));
            tracing::info!("{rows} executions read, {done} of {parts} {what} done");
        }
    }

    /// Nothing more comes.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn held<T>(one: &Mutex<T>) -> MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}
