//! The time at the source, from the `Date` headers of its responses as long as they are plausible.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

use crate::mutex::lock;

/// Distance from the other dates of a run beyond which a date is implausible.
const MAX_DISTANCE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How far the time of an observation may be ahead of both the local clock and the newest observation
/// of the lake.
pub const MAX_AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// Maximum latency after which the local clock still refines a `Date`.
const MAX_LATENCY: SignedDuration = SignedDuration::from_secs(5);

/// The clock of the source.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    reading: Mutex<Option<Reading>>,
    /// Time of the newest observation in the lake.
    newest_observation: Mutex<Option<Timestamp>>,
    /// True once an implausible date was logged.
    has_warned: AtomicBool,
    /// True once a date ahead of the local clock was logged.
    has_warned_of_bound: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    /// A plausible date.
    date: Timestamp,
    /// When it was received.
    at: Instant,
    /// The latest plausible date.
    latest: Timestamp,
}

impl ServerClock {
    /// Sets the time of the newest observation in the lake.
    pub(super) fn set_newest_observation(&self, newest: Option<Timestamp>) {
        *lock(&self.newest_observation) = newest;
    }

    /// Returns the time of a response with this `Date`.
    ///
    /// A date that is far from the others is replaced by the expected one, unless it is nearer to the
    /// local clock: an observation in the far future would replace all that follow.
    pub(super) fn observe(&self, date: Timestamp, local: Timestamp) -> Timestamp {
        let date = self.plausible(date, local);
        self.bounded(date, local)
            .unwrap_or_else(|| refined(date, local))
    }

    /// Returns the latest time of the source, from the dates of its responses.
    pub(super) fn now(&self) -> Option<Timestamp> {
        lock(&self.reading).map(|reading| reading.latest)
    }

    fn plausible(&self, date: Timestamp, local: Timestamp) -> Timestamp {
        let at = Instant::now();
        let distance = |one: Timestamp, other: Timestamp| one.duration_since(other).abs();
        let mut reading = lock(&self.reading);
        let expected = reading.map_or(local, |known| known.now(at.duration_since(known.at)));
        let is_far = distance(date, expected) > MAX_DISTANCE;
        let is_nearer = distance(date, local) < distance(expected, local);
        if reading.is_some() && is_far && !is_nearer {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "ignored the implausible date {date} of a response; used {expected}"
                );
            }
            return expected;
        }
        *reading = Some(match *reading {
            Some(known) if !is_far => Reading {
                latest: known.latest.max(date),
                ..known
            },
            _ => Reading {
                date,
                at,
                latest: date,
            },
        });
        date
    }

    /// Returns the time to use instead of a date that is too far ahead.
    ///
    /// Observations of a server that is hours ahead would replace the right ones of later runs for as long.
    fn bounded(&self, date: Timestamp, local: Timestamp) -> Option<Timestamp> {
        let newest = *lock(&self.newest_observation);
        let next = newest.and_then(|newest| newest.checked_add(SignedDuration::from_secs(1)).ok());
        let bound = next.map_or(local, |next| next.max(local));
        if date.duration_since(bound) <= MAX_AHEAD {
            return None;
        }
        if !self.has_warned_of_bound.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "responses are dated {date}, ahead of the local clock ({local}); used {bound} as the \
                 time of their observations. Check the clocks of this machine and of any proxy"
            );
        }
        Some(bound)
    }
}

impl Reading {
    fn now(self, passed: Duration) -> Timestamp {
        self.date.saturating_add(passed).unwrap_or(self.date)
    }
}

/// Returns a `Date` with the milliseconds of the local clock, if the two agree.
///
/// A `Date` has whole seconds. Without the milliseconds, the merge could not order two runs within one
/// second. The result never leaves the second of the `Date`.
fn refined(date: Timestamp, local: Timestamp) -> Timestamp {
    let last_ms = SignedDuration::from_millis(999);
    match local.duration_since(date) {
        ahead if ahead.is_negative() || ahead > MAX_LATENCY => date,
        ahead => {
            let ms = i64::try_from(ahead.min(last_ms).as_millis()).unwrap_or_default();
            date.saturating_add(SignedDuration::from_millis(ms))
                .unwrap_or(date)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn implausible_date_is_ignored() {
        let local = at("2026-11-24T18:00:00Z");
        let (early, late) = (at("2026-11-24T07:00:00Z"), at("2026-11-24T17:00:00Z"));
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        assert_eq!(
            [early, late].map(|date| clock.observe(date, local)),
            [early, late],
            "hours behind the local clock"
        );
        let future = at("2066-11-24T12:00:00Z");
        let used = clock.observe(future, local);
        assert!(early <= used && used < late, "{used}");
        assert_eq!(clock.now(), Some(late));
        // The first date is the implausible one.
        let clock = ServerClock::default();
        assert_eq!(
            [future, late].map(|date| clock.observe(date, local)),
            [local, late]
        );
        assert_eq!(clock.now(), Some(late));
        assert!(clock.observe(future, local) < future);
    }

    #[test]
    fn observations_are_never_far_ahead() {
        let local = at("2026-11-24T12:00:00Z");
        let hours = |hours| local + SignedDuration::from_hours(hours);
        let clock = ServerClock::default();
        let near = local + MAX_AHEAD;
        assert_eq!(clock.observe(near, local), near);
        assert_eq!(clock.observe(hours(2), local), local);
        assert_eq!(clock.observe(hours(26), local), local);
        // The local clock is behind: the lake has later observations.
        clock.set_newest_observation(Some(hours(2)));
        let next = hours(2) + SignedDuration::from_secs(1);
        assert_eq!(
            clock.observe(hours(2) + MAX_AHEAD, local),
            hours(2) + MAX_AHEAD
        );
        assert_eq!(clock.observe(hours(5), local), next);
    }

    #[test]
    fn responses_of_one_second_are_ordered_by_the_local_clock() {
        let date = at("2026-11-24T12:00:00Z");
        let clock = ServerClock::default();
        let read = |ms| {
            let local = date + SignedDuration::from_millis(ms);
            clock.observe(date, local).duration_since(date).as_millis()
        };
        assert_eq!([0, 40, 999, 1_200].map(read), [0, 40, 999, 999]);
        assert_eq!([-1, 60_000].map(read), [0, 0], "the clocks differ");
    }
}
