//! The clock of the server, read from the `Date` headers of its responses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Dates of one run that differ by more than this are not all correct.
const MAX_DIFFERENCE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The clock of the server. It ignores dates that contradict the others.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    reference: Mutex<Option<Reference>>,
    /// Whether an ignored date was logged.
    has_warned: AtomicBool,
}

/// The date that later ones are compared with.
#[derive(Clone, Copy, Debug)]
struct Reference {
    /// A trusted date.
    date: Timestamp,
    /// The local time of its receipt.
    at: Instant,
    /// The latest trusted date.
    latest: Timestamp,
}

impl ServerClock {
    /// Records the `Date` of a response, and returns the time of the response. A date far from the others is
    /// ignored, unless it is nearer to the local clock than they are: an observation from a wrong, far future
    /// would win over all later ones.
    pub(super) fn observe(&self, date: Timestamp, local: Timestamp) -> Timestamp {
        let at = Instant::now();
        let distance = |one: Timestamp, other: Timestamp| one.duration_since(other).abs();
        let mut reference = self.reference();
        let expected = reference.map_or(local, |known| known.now(at.duration_since(known.at)));
        let is_far = distance(date, expected) > MAX_DIFFERENCE;
        let is_nearer = distance(date, local) < distance(expected, local);
        if reference.is_some() && is_far && !is_nearer {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(%date, %expected, "ignored the date of a response");
            }
            return expected;
        }
        *reference = Some(match *reference {
            Some(known) if !is_far => Reference {
                latest: known.latest.max(date),
                ..known
            },
            _ => Reference {
                date,
                at,
                latest: date,
            },
        });
        date
    }

    /// Returns the latest trusted date.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.reference().map(|reference| reference.latest)
    }

    fn reference(&self) -> MutexGuard<'_, Option<Reference>> {
        self.reference
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reference {
    fn now(self, passed: Duration) -> Timestamp {
        self.date.saturating_add(passed).unwrap_or(self.date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_far_from_the_others_is_ignored() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let local = at("2026-11-24T12:00:00Z");
        // A skew of hours is trusted, whatever the local clock shows.
        let (early, late) = (at("2026-11-24T07:00:00Z"), at("2026-11-24T17:00:00Z"));
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        assert_eq!(
            [early, late].map(|date| clock.observe(date, local)),
            [early, late]
        );
        let wrong = at("2066-11-24T12:00:00Z");
        let trusted = clock.observe(wrong, local);
        assert!(early <= trusted && trusted < late, "{trusted}");
        assert_eq!(clock.now(), Some(late));
        // The first date is the wrong one.
        let clock = ServerClock::default();
        assert_eq!(
            [wrong, late].map(|date| clock.observe(date, local)),
            [wrong, late]
        );
        assert_eq!(clock.now(), Some(late));
        assert!(clock.observe(wrong, local) < wrong);
    }
}
