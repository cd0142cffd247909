//! The gate that every attempt passes: how many at once, not before when, and how often.
//!
//! One governor serves the whole run, since the budget belongs to the key. Attempts are spaced
//! evenly: each takes the next free slot, so no minute holds more than the budget. A rate limit met
//! by one task closes the gate for all and halves the rate once; the rate creeps back with success.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Answers in a row that earn one step back towards the ceiling.
const ANSWERS_PER_STEP: u32 = 10;

/// Steps from nothing to the ceiling.
const STEPS: u32 = 20;

/// The rate that even a storm of rate limits does not undercut, in requests a minute.
const FLOOR: u32 = 6;

pub(super) struct Governor {
    permits: Semaphore,
    pace: Mutex<Pace>,
}

/// Leave to send one attempt; dropped when its answer is in.
pub(super) struct Pass<'a> {
    _permit: SemaphorePermit<'a>,
    sent: Instant,
}

impl Governor {
    pub(super) fn new(requests_per_minute: NonZeroU32, concurrency: NonZeroU32) -> Self {
        let concurrency = usize::try_from(concurrency.get()).unwrap_or(usize::MAX);
        Self {
            permits: Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)),
            pace: Mutex::new(Pace::new(requests_per_minute.get(), Instant::now())),
        }
    }

    /// Waits for a permit, for the pause to end and for a slot, in this order.
    pub(super) async fn pass(&self) -> Pass<'_> {
        let permit = self.permits.acquire().await;
        let permit = permit.expect("the semaphore is never closed");
        loop {
            let slot = self.pace().slot(Instant::now());
            tokio::time::sleep_until(slot.into()).await;
            // The gate may have been closed meanwhile; then the slot is void.
            let sent = Instant::now();
            if self.pace().not_before <= sent {
                return Pass {
                    _permit: permit,
                    sent,
                };
            }
        }
    }

    /// Closes the gate for all until `wait` is over, and halves the rate once a storm.
    pub(super) fn rate_limited(&self, pass: &Pass<'_>, wait: Duration) {
        self.pace().rate_limited(pass.sent, Instant::now(), wait);
    }

    /// Counts an answer that was no rate limit.
    pub(super) fn answered(&self) {
        self.pace().answered();
    }

    /// The rate in force, in requests a minute.
    pub(super) fn per_minute(&self) -> u32 {
        self.pace().per_minute
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the next attempt may go, and what was learned of the server's patience. Pure.
#[derive(Debug)]
struct Pace {
    ceiling: u32,
    per_minute: u32,
    next_slot: Instant,
    not_before: Instant,
    last_cut: Option<Instant>,
    answers: u32,
}

impl Pace {
    fn new(ceiling: u32, now: Instant) -> Self {
        Self {
            ceiling,
            per_minute: ceiling,
            next_slot: now,
            not_before: now,
            last_cut: None,
            answers: 0,
        }
    }

    /// Takes the next free slot. Slots that nobody took are lost: there is no burst.
    fn slot(&mut self, now: Instant) -> Instant {
        let slot = self.next_slot.max(self.not_before).max(now);
        self.next_slot = slot + Duration::from_mins(1) / self.per_minute;
        slot
    }

    /// Attempts that were under way when the rate was last cut say nothing new, and cut nothing.
    fn rate_limited(&mut self, sent: Instant, now: Instant, wait: Duration) {
        self.not_before = self.not_before.max(now + wait);
        self.answers = 0;
        if self.last_cut.is_none_or(|cut| cut < sent) {
            self.last_cut = Some(now);
            let floor = FLOOR.min(self.ceiling);
            self.per_minute = (self.per_minute / 2).max(floor);
        }
    }

    fn answered(&mut self) {
        self.answers += 1;
        if ANSWERS_PER_STEP <= self.answers {
            self.answers = 0;
            let step = (self.ceiling / STEPS).max(1);
            self.per_minute = self.per_minute.saturating_add(step).min(self.ceiling);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_storm_halves_the_rate_once() {
        let start = Instant::now();
        let mut pace = Pace::new(360, start);
        pace.rate_limited(start, start + SECOND, SECOND);
        pace.rate_limited(start, start + SECOND, SECOND);
        assert_eq!(pace.per_minute, 180);
        pace.rate_limited(start + 3 * SECOND, start + 4 * SECOND, SECOND);
        assert_eq!(pace.per_minute, 90);
    }

    #[test]
    fn the_rate_creeps_back_to_the_ceiling_and_no_further() {
        let start = Instant::now();
        let mut pace = Pace::new(360, start);
        pace.rate_limited(start, start, Duration::ZERO);
        (0..ANSWERS_PER_STEP).for_each(|_| pace.answered());
        assert_eq!(pace.per_minute, 198);
        (0..100 * ANSWERS_PER_STEP).for_each(|_| pace.answered());
        assert_eq!(pace.per_minute, 360);
    }

    #[test]
    fn no_storm_stops_it_for_good() {
        let start = Instant::now();
        for (ceiling, least) in [(360, 6), (1, 1)] {
            let mut pace = Pace::new(ceiling, start);
            for n in 1..20 {
                pace.rate_limited(start + n * SECOND, start + n * SECOND, SECOND);
            }
            assert_eq!(pace.per_minute, least);
        }
    }

    #[test]
    fn a_pause_only_ever_grows_and_holds_up_everyone() {
        let start = Instant::now();
        let mut pace = Pace::new(60, start);
        pace.rate_limited(start, start, 60 * SECOND);
        pace.rate_limited(start, start, Duration::ZERO);
        assert_eq!(pace.slot(start), start + 60 * SECOND);
        assert_eq!(pace.slot(start), start + 62 * SECOND);
    }

    proptest! {
        #[test]
        fn no_minute_exceeds_the_budget(
            ceiling in 1_u32..500,
            steps in prop::collection::vec((0_u64..3_000, 0_u8..10), 1..1_500),
        ) {
            let start = Instant::now();
            let (mut pace, mut now) = (Pace::new(ceiling, start), start);
            let mut slots = Vec::new();
            for (idle_ms, event) in steps {
                now += Duration::from_millis(idle_ms / 10);
                match event {
                    0 => pace.rate_limited(now, now, Duration::from_millis(idle_ms)),
                    _ => pace.answered(),
                }
                slots.push(pace.slot(now));
            }
            let budget = usize::try_from(ceiling).unwrap();
            // A division cut to whole nanoseconds may bring the slot after the last a little early.
            let minute = Duration::from_mins(1) - Duration::from_micros(1);
            for pair in slots.windows(budget + 1) {
                prop_assert!(minute <= pair[budget] - pair[0]);
            }
        }
    }

    #[tokio::test]
    async fn permits_limit_what_is_under_way() {
        let governor = Governor::new(NonZeroU32::MAX, NonZeroU32::new(2).unwrap());
        let (one, two) = (governor.pass().await, governor.pass().await);
        assert_eq!(governor.permits.available_permits(), 0);
        drop((one, two));
        assert_eq!(governor.permits.available_permits(), 2);
    }
}
