//! The throttle that every attempt passes: concurrency, back-off and rate.
//!
//! One throttle serves a run, since the API limits requests per key. Attempts are spaced evenly, so
//! no minute exceeds the budget. A rate-limited response makes all tasks wait and halves the rate;
//! successful responses raise it again step by step.

use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::{Semaphore, SemaphorePermit};

/// Responses in a row that raise the rate by one step.
const RESPONSES_PER_STEP: u32 = 10;

/// Steps from zero to the maximum rate.
const STEPS: u32 = 20;

/// The minimum rate after repeated rate limits, in requests per minute.
const MIN_PER_MINUTE: NonZeroU32 = NonZeroU32::new(6).unwrap();

pub(super) struct Throttle {
    permits: Semaphore,
    /// Keeps waiting attempts in order: only the first one waits for the pacer.
    queue: tokio::sync::Mutex<()>,
    pacer: Mutex<Pacer<MonotonicClock>>,
}

/// Permission to send one attempt; dropped when its response is complete.
pub(super) struct Permit<'a> {
    _permit: SemaphorePermit<'a>,
    sent: Instant,
}

impl Throttle {
    pub(super) fn new(requests_per_minute: NonZeroU32, concurrency: NonZeroU32) -> Self {
        let concurrency = usize::try_from(concurrency.get()).unwrap_or(usize::MAX);
        Self {
            permits: Semaphore::new(concurrency.min(Semaphore::MAX_PERMITS)),
            queue: tokio::sync::Mutex::default(),
            pacer: Mutex::new(Pacer::new(requests_per_minute, MonotonicClock)),
        }
    }

    /// Waits until one more attempt may be sent.
    pub(super) async fn acquire(&self) -> Permit<'_> {
        let permit = self.permits.acquire().await;
        let permit = permit.expect("the semaphore is never closed");
        let _turn = self.queue.lock().await;
        loop {
            // A rate limit met during the wait changes the answer, so every wait ends in a new check.
            let wait = match self.pacer().check() {
                Ok(sent) => {
                    return Permit {
                        _permit: permit,
                        sent,
                    };
                }
                Err(wait) => wait,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Makes all attempts wait for at least `wait`, and halves the rate once per rate-limit storm.
    pub(super) fn rate_limited(&self, permit: &Permit<'_>, wait: Duration) {
        self.pacer().rate_limited(permit.sent, wait);
    }

    /// Counts a response that was not rate limited.
    pub(super) fn responded(&self) {
        self.pacer().responded();
    }

    /// Returns the current rate in requests per minute.
    pub(super) fn per_minute(&self) -> u32 {
        self.pacer().per_minute.get()
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer<MonotonicClock>> {
        self.pacer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rate in force, adapted to the server: additive increase, multiplicative decrease.
struct Pacer<C: Clock> {
    clock: C,
    limiter: Limiter<C>,
    max_per_minute: NonZeroU32,
    per_minute: NonZeroU32,
    not_before: C::Instant,
    last_cut: Option<C::Instant>,
    responses: u32,
}

/// A limiter of one fixed rate that allows no burst.
type Limiter<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;

impl<C: Clock + Clone> Pacer<C> {
    fn new(max_per_minute: NonZeroU32, clock: C) -> Self {
        Self {
            limiter: limiter(max_per_minute, clock.clone()),
            not_before: clock.now(),
            clock,
            max_per_minute,
            per_minute: max_per_minute,
            last_cut: None,
            responses: 0,
        }
    }

    /// Lets one attempt pass and returns its time, or the minimum wait before the next check.
    fn check(&self) -> Result<C::Instant, Duration> {
        let now = self.clock.now();
        if now < self.not_before {
            return Err(self.not_before.duration_since(now).into());
        }
        match self.limiter.check() {
            Ok(()) => Ok(now),
            Err(refused) => Err(refused.wait_time_from(now)),
        }
    }

    /// Attempts sent before the last cut met the same storm, so they do not cut the rate again.
    fn rate_limited(&mut self, sent: C::Instant, wait: Duration) {
        let now = self.clock.now();
        self.not_before = self.not_before.max(now + Nanos::from(wait));
        self.responses = 0;
        if self.last_cut.is_none_or(|cut| cut < sent) {
            self.last_cut = Some(now);
            let half = NonZeroU32::new(self.per_minute.get() / 2);
            let min = MIN_PER_MINUTE.min(self.max_per_minute);
            self.set_rate(half.map_or(min, |half| half.max(min)));
        }
    }

    fn responded(&mut self) {
        self.responses += 1;
        if self.responses >= RESPONSES_PER_STEP {
            self.responses = 0;
            let step = (self.max_per_minute.get() / STEPS).max(1);
            let raised = self.per_minute.saturating_add(step);
            self.set_rate(raised.min(self.max_per_minute));
        }
    }

    fn set_rate(&mut self, per_minute: NonZeroU32) {
        if per_minute != self.per_minute {
            self.per_minute = per_minute;
            self.limiter = limiter(per_minute, self.clock.clone());
            // A new limiter would let the next attempt pass at once, however recent the last one is.
            let _ = self.limiter.check();
        }
    }
}

fn limiter<C: Clock>(per_minute: NonZeroU32, clock: C) -> Limiter<C> {
    let quota = Quota::per_minute(per_minute).allow_burst(NonZeroU32::MIN);
    RateLimiter::direct_with_clock(quota, clock)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pacer(max_per_minute: u32) -> (FakeRelativeClock, Pacer<FakeRelativeClock>) {
        let clock = FakeRelativeClock::default();
        let max_per_minute = NonZeroU32::new(max_per_minute).unwrap();
        (clock.clone(), Pacer::new(max_per_minute, clock))
    }

    #[test]
    fn one_storm_halves_the_rate_once() {
        let (clock, mut pacer) = pacer(360);
        let start = clock.now();
        clock.advance(SECOND);
        pacer.rate_limited(start, SECOND);
        pacer.rate_limited(start, SECOND);
        assert_eq!(pacer.per_minute.get(), 180);
        clock.advance(2 * SECOND);
        let sent = clock.now();
        clock.advance(SECOND);
        pacer.rate_limited(sent, SECOND);
        assert_eq!(pacer.per_minute.get(), 90);
    }

    #[test]
    fn rate_recovers_up_to_the_maximum() {
        let (clock, mut pacer) = pacer(360);
        pacer.rate_limited(clock.now(), Duration::ZERO);
        (0..RESPONSES_PER_STEP).for_each(|_| pacer.responded());
        assert_eq!(pacer.per_minute.get(), 198);
        (0..100 * RESPONSES_PER_STEP).for_each(|_| pacer.responded());
        assert_eq!(pacer.per_minute.get(), 360);
    }

    #[test]
    fn rate_never_falls_to_zero() {
        for (max, least) in [(360, 6), (1, 1)] {
            let (clock, mut pacer) = pacer(max);
            for _ in 1..20 {
                clock.advance(SECOND);
                pacer.rate_limited(clock.now(), SECOND);
            }
            assert_eq!(pacer.per_minute.get(), least);
        }
    }

    #[test]
    fn longest_wait_applies_to_every_attempt() {
        let (clock, mut pacer) = pacer(60);
        pacer.rate_limited(clock.now(), 60 * SECOND);
        pacer.rate_limited(clock.now(), Duration::ZERO);
        assert_eq!(pacer.check(), Err(60 * SECOND));
        clock.advance(60 * SECOND);
        assert_eq!(pacer.check(), Ok(clock.now()));
        assert_eq!(pacer.check(), Err(2 * SECOND));
    }

    #[test]
    fn unused_time_allows_no_burst() {
        let (clock, pacer) = pacer(60);
        clock.advance(100 * SECOND);
        assert_eq!(pacer.check(), Ok(clock.now()));
        assert_eq!(pacer.check(), Err(SECOND));
    }

    #[test]
    fn changed_rate_allows_no_burst() {
        let (clock, mut pacer) = pacer(60);
        assert!(pacer.check().is_ok());
        pacer.rate_limited(clock.now(), Duration::ZERO);
        assert_eq!(pacer.check(), Err(2 * SECOND));
        (0..RESPONSES_PER_STEP).for_each(|_| pacer.responded());
        assert!(pacer.check().unwrap_err() > SECOND);
    }

    proptest! {
        #[test]
        fn no_minute_exceeds_the_budget(
            max in 1_u32..500,
            steps in prop::collection::vec((0_u64..3_000, 0_u8..10, any::<bool>()), 1..1_500),
        ) {
            let (clock, mut pacer) = pacer(max);
            let mut sent = Vec::new();
            for (idle_ms, event, sends_at_once) in steps {
                // Sends all that may be sent, either at the first moment possible or later.
                let mut idle = Duration::from_millis(idle_ms / 10);
                loop {
                    match pacer.check() {
                        Ok(now) => sent.push(now),
                        Err(wait) if sends_at_once => {
                            idle = wait;
                            break;
                        }
                        Err(_) => break,
                    }
                }
                clock.advance(idle);
                match event {
                    0 => pacer.rate_limited(clock.now(), Duration::from_millis(idle_ms)),
                    _ => pacer.responded(),
                }
            }
            let budget = usize::try_from(max).unwrap();
            // Intervals are rounded down to nanoseconds, which moves an attempt slightly forward.
            let minute = Duration::from_mins(1) - Duration::from_micros(1);
            for pair in sent.windows(budget + 1) {
                prop_assert!(Duration::from(pair[budget].duration_since(pair[0])) >= minute);
            }
        }
    }

    #[tokio::test]
    async fn permits_limit_concurrency() {
        let throttle = Throttle::new(NonZeroU32::MAX, NonZeroU32::new(2).unwrap());
        let (one, two) = (throttle.acquire().await, throttle.acquire().await);
        assert_eq!(throttle.permits.available_permits(), 0);
        drop((one, two));
        assert_eq!(throttle.permits.available_permits(), 2);
    }
}
