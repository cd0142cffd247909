//! The progress of a run: a bar on a terminal, log lines elsewhere.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, interval_at};

use crate::mutex::lock;

/// The progress of a run.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    /// The number of parts that the run reads, and their name, such as `projects`; unset before it is known.
    parts: Mutex<Option<(usize, &'static str)>>,
    finished_parts: AtomicU64,
    executions: AtomicU64,
    /// The number of the raw partition that the current commit merges; unset between commits.
    partition: Mutex<Option<u64>>,
}

/// The interval of log lines.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

impl Progress {
    /// Shows a bar on standard error if `has_bar`, else writes log lines.
    pub fn new(has_bar: bool) -> Self {
        let bar = has_bar.then(|| {
            let style = "{spinner} {pos}/{len} {prefix}, {msg} executions  {wide_bar}  {elapsed}";
            let style = ProgressStyle::with_template(style).expect("the template is a constant");
            ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr()).with_style(style)
        });
        Self {
            bar,
            parts: Mutex::new(None),
            finished_parts: AtomicU64::new(0),
            executions: AtomicU64::new(0),
            partition: Mutex::new(None),
        }
    }

    /// Waits for `work`. Logs the progress at an interval, in every phase, unless there is a bar.
    pub async fn show_during<T>(&self, mut work: Pin<Box<impl Future<Output = T>>>) -> T {
        let mut interval = interval_at(Instant::now() + LINE_INTERVAL, LINE_INTERVAL);
        loop {
            tokio::select! {
                result = &mut work => return result,
                _ = interval.tick(), if self.bar.is_none() => tracing::info!("{}", self.line()),
            }
        }
    }

    /// Sets the number of parts and their name.
    pub fn start(&self, parts: usize, name: &'static str) {
        tracing::debug!(parts, "reading {name}");
        *lock(&self.parts) = Some((parts, name));
        self.finished_parts.store(0, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.set_length(parts as u64);
            bar.set_prefix(name);
            bar.set_message("0");
            bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    /// Adds parts that became known meanwhile.
    pub fn add_parts(&self, parts: usize) {
        if let Some((known, _)) = lock(&self.parts).as_mut() {
            *known += parts;
        }
        if let Some(bar) = &self.bar {
            bar.inc_length(parts as u64);
        }
    }

    /// Adds executions that were read.
    pub fn add_executions(&self, count: usize) {
        let count = count as u64;
        let total = self.executions.fetch_add(count, Ordering::Relaxed) + count;
        if let Some(bar) = &self.bar {
            bar.set_message(HumanCount(total).to_string());
        }
    }

    /// Counts one more part as finished.
    pub fn finish_part(&self) {
        self.finished_parts.fetch_add(1, Ordering::Relaxed);
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// Starts a commit, which merges one raw partition after another.
    pub fn start_commit(&self) {
        *lock(&self.partition) = Some(0);
    }

    /// Counts one more partition that the commit merges.
    pub fn start_partition(&self) {
        if let Some(partition) = lock(&self.partition).as_mut() {
            *partition += 1;
        }
    }

    /// Ends a commit.
    pub fn finish_commit(&self) {
        *lock(&self.partition) = None;
    }

    /// Returns the line to log.
    fn line(&self) -> String {
        let Some((parts, name)) = *lock(&self.parts) else {
            return "listing what to read".to_owned();
        };
        let executions = self.executions.load(Ordering::Relaxed);
        let finished = self.finished_parts.load(Ordering::Relaxed);
        let read = format!("read {executions} executions, finished {finished} of {parts} {name}");
        match *lock(&self.partition) {
            Some(partition) => format!("{read}; committing raw partition {partition}"),
            None => read,
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::Arc;

    use super::*;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn work_of_any_phase_is_logged_every_30_seconds() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        let slow = Box::pin(tokio::time::sleep(Duration::from_secs(100)));
        Progress::new(false).show_during(slow).await;
        let text = String::from_utf8(lock(&log.0).clone()).unwrap();
        assert_eq!(text.matches("listing what to read").count(), 3, "{text}");
    }

    #[test]
    fn line_names_the_phase() {
        let progress = Progress::new(false);
        assert_eq!(progress.line(), "listing what to read");
        progress.start(3, "projects");
        progress.add_executions(20);
        progress.finish_part();
        let reading = "read 20 executions, finished 1 of 3 projects";
        assert_eq!(progress.line(), reading);
        progress.start_commit();
        progress.start_partition();
        let committing = "; committing raw partition 1";
        assert_eq!(progress.line(), format!("{reading}{committing}"));
        progress.finish_commit();
        assert_eq!(progress.line(), reading);
    }
}
