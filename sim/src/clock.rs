//! The simulated clock that a server and its test share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A clock that is either fixed or runs with real time. Clones share their state.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    at: Timestamp,
    running_since: Option<Instant>,
}

impl Clock {
    /// Creates a clock that moves only by [`Clock::advance`] and [`Clock::set`].
    pub fn fixed(at: Timestamp) -> Self {
        Self::of(at, None)
    }

    /// Creates a clock that starts at `at` and runs with real time.
    pub fn running(at: Timestamp) -> Self {
        Self::of(at, Some(Instant::now()))
    }

    fn of(at: Timestamp, running_since: Option<Instant>) -> Self {
        Self(Arc::new(Mutex::new(State { at, running_since })))
    }

    /// Returns the simulated time.
    pub fn now(&self) -> Timestamp {
        let state = self.state();
        let gone = state.running_since.map_or(SignedDuration::ZERO, |since| {
            SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::MAX)
        });
        state.at.saturating_add(gone).unwrap_or(Timestamp::MAX)
    }

    /// Moves the clock forward, or back if `by` is negative.
    pub fn advance(&self, by: SignedDuration) {
        let mut state = self.state();
        state.at = state.at.saturating_add(by).unwrap_or(Timestamp::MAX);
    }

    /// Sets the clock to `at`. A running clock continues from there.
    pub fn set(&self, at: Timestamp) {
        let mut state = self.state();
        state.at = at;
        state.running_since = state.running_since.map(|_| Instant::now());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the instant `ms` milliseconds after the epoch, clamped to the range of a timestamp.
pub(super) fn from_ms(ms: i64) -> Timestamp {
    let limit = if ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_millisecond(ms).unwrap_or(limit)
}

/// Returns the date of an instant in UTC.
pub(super) fn date_of(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_state() {
        let clock = Clock::fixed(Timestamp::UNIX_EPOCH);
        clock.clone().advance(SignedDuration::from_hours(2));
        assert_eq!(clock.now().as_second(), 7_200);
        clock.set(Timestamp::UNIX_EPOCH);
        assert_eq!(clock.now(), Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn running_clock_is_monotonic() {
        let clock = Clock::running(Timestamp::UNIX_EPOCH);
        let first = clock.now();
        assert!(first <= clock.now() && Timestamp::UNIX_EPOCH <= first);
    }
}
