//! The cadence of commits while a run reads: a crash loses what was read since the last one.

use std::time::Duration;

use tokio::time::Instant;

/// Calls since the last commit, and their share of all calls of the run, after which a commit is due.
const MIN_CALLS: u32 = 5;
const CALLS_SHARE: u32 = 5;

/// Time between commits, in multiples of the last one. Reading goes on meanwhile.
const COMMIT_TIME_SHARE: u32 = 4;

/// The shortest time between commits: short runs commit once, at their end.
const MIN_INTERVAL: Duration = Duration::from_secs(2);

/// The calls and the time since the last commit.
#[derive(Debug)]
pub(super) struct Cadence {
    calls: u32,
    all_calls: u32,
    since: Instant,
    interval: Duration,
}

impl Cadence {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self {
            calls: 0,
            all_calls: 0,
            since: Instant::now(),
            interval: MIN_INTERVAL,
        }
    }

    /// Counts a call that was answered.
    pub(super) fn add_call(&mut self) {
        self.calls += 1;
        self.all_calls += 1;
    }

    /// Returns the time since the last commit.
    pub(super) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    /// Returns whether so much was read since the last commit that a crash must not lose it.
    pub(super) fn is_due(&self) -> bool {
        self.calls >= MIN_CALLS
            && self.calls >= self.all_calls / CALLS_SHARE
            && self.elapsed() >= self.interval
    }

    /// Records a commit that took so long.
    pub(super) fn committed(&mut self, took: Duration) {
        self.calls = 0;
        self.since = Instant::now();
        self.interval = (took * COMMIT_TIME_SHARE).max(MIN_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn commits_follow_calls_and_time() {
        let mut cadence = Cadence::new();
        let add = |cadence: &mut Cadence, calls| (0..calls).for_each(|_| cadence.add_call());
        add(&mut cadence, MIN_CALLS);
        assert!(!cadence.is_due());
        tokio::time::advance(MIN_INTERVAL).await;
        assert!(cadence.is_due());
        cadence.committed(MIN_INTERVAL);
        add(&mut cadence, 100);
        tokio::time::advance(MIN_INTERVAL).await;
        assert!(!cadence.is_due(), "commits take a part of the time only");
        tokio::time::advance(MIN_INTERVAL * COMMIT_TIME_SHARE).await;
        assert!(cadence.is_due());
        cadence.committed(Duration::ZERO);
        add(&mut cadence, MIN_CALLS);
        tokio::time::advance(MIN_INTERVAL).await;
        assert!(!cadence.is_due(), "few calls of many");
    }
}
