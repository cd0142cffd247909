//! The cadence of commits while a run reads: a crash loses what was read since the last one.

use std::time::Duration;

use tokio::time::Instant;

/// Calls since the last commit, and their share of all calls of the run, after which a commit is due.
const MIN_CALLS: u32 = 5;
const CALLS_SHARE: u32 = 5;

/// The calls and the time since the last commit.
#[derive(Debug)]
pub(super) struct Cadence {
    calls: u32,
    all_calls: u32,
    since: Instant,
    /// The time that the last commit took. Reading goes on meanwhile.
    last: Duration,
}

impl Cadence {
    /// Begins now.
    pub(super) fn new() -> Self {
        Self {
            calls: 0,
            all_calls: 0,
            since: Instant::now(),
            last: Duration::ZERO,
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

    /// Returns whether so much was read since the last commit that a crash must not lose it. Commits become rarer with
    /// the calls of a run, so a run of 1,000 calls commits about 20 times.
    pub(super) fn is_due(&self) -> bool {
        self.calls >= MIN_CALLS
            && self.calls >= self.all_calls / CALLS_SHARE
            && self.elapsed() >= self.last
    }

    /// Records a commit that took so long.
    pub(super) fn committed(&mut self, took: Duration) {
        self.calls = 0;
        self.since = Instant::now();
        self.last = took;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn commits_follow_calls_and_time() {
        let mut cadence = Cadence::new();
        let add = |cadence: &mut Cadence, calls| (0..calls).for_each(|_| cadence.add_call());
        add(&mut cadence, MIN_CALLS - 1);
        assert!(!cadence.is_due());
        add(&mut cadence, 1);
        assert!(cadence.is_due());
        cadence.committed(Duration::from_secs(2));
        add(&mut cadence, 100);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!cadence.is_due(), "commits take half of the time at most");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(cadence.is_due());
        cadence.committed(Duration::ZERO);
        add(&mut cadence, MIN_CALLS);
        assert!(!cadence.is_due(), "few calls of many");
    }
}
