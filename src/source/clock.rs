//! What time it is at the source: by the `Date` of its answers, as long as they agree.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};

/// Dates of one run that differ by more than this are not all right.
const ODD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The clock of the source, as its answers tell it.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    told: Mutex<Option<Told>>,
    /// Whether an odd date was warned of.
    is_told_of: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    /// A date that is believed.
    date: Timestamp,
    /// When it was told.
    at: Instant,
    /// The latest date that is believed.
    latest: Timestamp,
}

impl ServerClock {
    /// When an answer of this `Date` was made. A date that is apart from the others is not believed, unless it is nearer
    /// to the local clock than they are: an observation of a far future would win over all that follow.
    pub(super) fn tell(&self, date: Timestamp, local: Timestamp) -> Timestamp {
        let at = Instant::now();
        let distance = |one: Timestamp, other: Timestamp| one.duration_since(other).abs();
        let mut told = self.told();
        let expected = told.map_or(local, |known| known.now(at.duration_since(known.at)));
        let is_apart = ODD < distance(date, expected);
        let is_nearer = distance(date, local) < distance(expected, local);
        if told.is_some() && is_apart && !is_nearer {
            if !self.is_told_of.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "an answer is dated {date}, which is not believed: it is {expected}"
                );
            }
            return expected;
        }
        *told = Some(match *told {
            Some(known) if !is_apart => Told {
                latest: known.latest.max(date),
                ..known
            },
            _ => Told {
                date,
                at,
                latest: date,
            },
        });
        date
    }

    /// The latest time that an answer told.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.told().map(|told| told.latest)
    }

    fn told(&self) -> MutexGuard<'_, Option<Told>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Told {
    fn now(self, passed: Duration) -> Timestamp {
        self.date.saturating_add(passed).unwrap_or(self.date)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_that_is_far_from_the_others_is_not_believed() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let local = at("2026-11-24T12:00:00Z");
        // Hours of skew are believed, whatever the local clock says.
        let (early, late) = (at("2026-11-24T07:00:00Z"), at("2026-11-24T17:00:00Z"));
        let clock = ServerClock::default();
        assert_eq!(clock.now(), None);
        assert_eq!(
            [early, late].map(|date| clock.tell(date, local)),
            [early, late]
        );
        let odd = at("2066-11-24T12:00:00Z");
        let believed = clock.tell(odd, local);
        assert!(early <= believed && believed < late, "{believed}");
        assert_eq!(clock.now(), Some(late));
        // The first one is the odd one.
        let clock = ServerClock::default();
        assert_eq!([odd, late].map(|date| clock.tell(date, local)), [odd, late]);
        assert_eq!(clock.now(), Some(late));
        assert!(clock.tell(odd, local) < odd);
    }
}
