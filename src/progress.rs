//! The progress of a run: a bar on a terminal, log lines elsewhere.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::mutex::lock;

/// The progress of a run.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// The number of parts that the run reads, and their name, such as `projects`.
    parts: Mutex<(usize, &'static str)>,
    finished_parts: AtomicU64,
    executions: AtomicU64,
    last_line: Mutex<Instant>,
}

/// The interval of log lines.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

impl Progress {
    /// Shows a bar on standard error if that `is_terminal`, else writes log lines.
    pub fn new(is_terminal: bool) -> Self {
        let bar = is_terminal.then(|| {
            let style = "{spinner} {pos}/{len} {prefix}, {msg} executions  {wide_bar}  {elapsed}";
            let style = ProgressStyle::with_template(style).expect("the template is a constant");
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
        });
        Self {
            bar,
            parts: Mutex::new((0, "projects")),
            finished_parts: AtomicU64::new(0),
            executions: AtomicU64::new(0),
            last_line: Mutex::new(Instant::now()),
        }
    }

    /// Sets the number of parts and their name.
    pub fn start(&self, parts: usize, name: &'static str) {
        tracing::debug!(parts, "reading {name}");
        *lock(&self.parts) = (parts, name);
        if let Some(bar) = &self.bar {
            bar.set_length(parts as u64);
            bar.set_prefix(name);
            bar.set_message("0");
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// Adds parts that became known meanwhile.
    pub fn add_parts(&self, parts: usize) {
        lock(&self.parts).0 += parts;
        if let Some(bar) = &self.bar {
            bar.inc_length(parts as u64);
        }
    }

    /// Adds executions that were read.
    pub fn add_executions(&self, count: usize) {
        let count = count as u64;
        let total = self.executions.fetch_add(count, Ordering::Relaxed) + count;
        match &self.bar {
            Some(bar) => bar.set_message(HumanCount(total).to_string()),
            None => self.log(),
        }
    }

    /// Counts one more part as finished.
    pub fn finish_part(&self) {
        self.finished_parts.fetch_add(1, Ordering::Relaxed);
        match &self.bar {
            Some(bar) => bar.inc(1),
            None => self.log(),
        }
    }

    /// Writes a log line if the interval since the last one has passed.
    fn log(&self) {
        let mut last_line = lock(&self.last_line);
        if last_line.elapsed() >= LINE_INTERVAL {
            *last_line = Instant::now();
            let (parts, name) = *lock(&self.parts);
            let executions = self.executions.load(Ordering::Relaxed);
            let finished = self.finished_parts.load(Ordering::Relaxed);
            tracing::info!("read {executions} executions, finished {finished} of {parts} {name}");
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
