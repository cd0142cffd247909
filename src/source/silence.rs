//! The time for which the source has not answered any request: distinguishes an outage from the fault of one scope.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::mutex::lock;

/// Failed attempts since the last answer to any request.
#[derive(Debug, Default)]
pub(super) struct Silence {
    failures: Mutex<Option<Failures>>,
    answers: AtomicU64,
}

/// Failed attempts in a row.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    /// Start of the first one.
    since: Instant,
}

impl Silence {
    /// Records an answer, of whatever kind.
    pub(super) fn answered(&self) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        *lock(&self.failures) = None;
    }

    /// Returns the number of answers so far.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Records an attempt without an answer. Returns how many there were in a row.
    pub(super) fn failed(&self, started: Instant) -> u32 {
        let mut failures = lock(&self.failures);
        let count = failures.map_or(0, |failures| failures.count) + 1;
        let since = failures.map_or(started, |failures| failures.since);
        *failures = Some(Failures { count, since });
        count
    }

    /// Returns the number of failed attempts since the last answer, and the time since the first of them began.
    pub(super) fn failures(&self) -> Option<(u32, Duration)> {
        lock(&self.failures).map(|failures| (failures.count, failures.since.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_ends_the_silence() {
        let silence = Silence::default();
        let minute_ago = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
        assert_eq!(silence.failed(minute_ago), 1);
        assert_eq!(silence.failed(Instant::now()), 2);
        let (count, time) = silence.failures().unwrap();
        assert!(count == 2 && time >= Duration::from_mins(1));
        silence.answered();
        assert!(silence.failures().is_none());
        assert_eq!(silence.answers(), 1);
        assert_eq!(silence.failed(Instant::now()), 1);
    }
}
