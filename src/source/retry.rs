//! What an answer means: accept it, try again, or give up; and how long to wait before. Pure.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::error::{Cause, Place, SourceError};
use crate::window::is_sound;

/// The longest wait that a server may ask for.
const RETRY_AFTER_LIMIT: Duration = Duration::from_mins(2);

/// Attempts at a page that may be too large, before its reader is told to ask for a smaller one.
const ATTEMPTS_AT_A_LARGE_PAGE: u32 = 2;

/// How often, and how patiently, a request is tried.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Attempts in all, those that were rate limited aside.
    pub attempts: u32,
    /// Attempts that may end rate limited; they say that we are too fast, not that it is broken.
    pub rate_limited_attempts: u32,
    /// The first delay; each further one may be twice as long.
    pub first_delay: Duration,
    /// The longest delay, unless the server asks for more.
    pub longest_delay: Duration,
    /// The time after which no attempt is begun. Waiting for one's turn does not count.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts within five minutes, after 1 s, 2 s, 4 s and so on.
    fn default() -> Self {
        Self {
            attempts: 6,
            rate_limited_attempts: 20,
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_mins(1),
            patience: Duration::from_mins(5),
        }
    }
}

/// What was tried in vain for one purpose so far: requests that share it share one patience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryState {
    failed: u32,
    rate_limited: u32,
    spent: Duration,
    /// The wait that is due before the next attempt.
    wait: Duration,
}

/// What decides about an answer that is not what was asked for.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// Whether Harness itself spoke; what is no JSON comes from something before it.
    pub(super) is_json: bool,
    pub(super) code: String,
    /// The server's words, printable and short.
    pub(super) message: String,
    pub(super) retry_after: Duration,
}

/// What to do about it.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Try again, no sooner than `at_least`.
    Retry { cause: Cause, at_least: Duration },
    /// Asking again would give the same. `Unauthorized` is believed the second time only, since a
    /// hiccup of the token service looks like it.
    Fatal(SourceError),
}

impl From<Cause> for Verdict {
    fn from(cause: Cause) -> Self {
        Self::Retry {
            cause,
            at_least: Duration::ZERO,
        }
    }
}

/// Judges an answer by HTTP status, then code, then words.
pub(super) fn classify(place: &Place, refusal: Refusal) -> Verdict {
    let Refusal {
        status,
        is_json,
        code,
        message,
        retry_after: at_least,
    } = refusal;
    let place = place.clone();
    let retry = |cause| Verdict::Retry { cause, at_least };
    match (status, code.as_str()) {
        (429, _) | (_, "TOO_MANY_REQUESTS") => retry(Cause::RateLimited(message)),
        (401, _) | (200 | 400, "INVALID_TOKEN" | "EXPIRED_TOKEN") => {
            Verdict::Fatal(SourceError::Unauthorized { place, message })
        }
        (403, _) | (200, "NG_ACCESS_DENIED" | "ACCESS_DENIED") if is_json => {
            Verdict::Fatal(SourceError::Forbidden { place, message })
        }
        (300..=399, _) => Verdict::Fatal(SourceError::Rejected {
            place,
            status,
            code: "REDIRECT".to_owned(),
            message: "a redirect, which is not followed since it could carry the key elsewhere; \
                      make sure that the base URL is the API's own"
                .to_owned(),
        }),
        (413, _) => Verdict::Fatal(SourceError::Rejected {
            place,
            status,
            code,
            message,
        }),
        _ if !is_json => retry(Cause::NotJson {
            status,
            start: message,
        }),
        (408 | 423 | 425 | 499 | 500..=599, _)
        | (200, "UNKNOWN_ERROR" | "GENERAL_ERROR")
        | (200 | 400, "DEFAULT_ERROR_CODE") => retry(Cause::Status {
            status,
            code,
            message,
        }),
        _ => Verdict::Fatal(by_words(place, status, code, message)),
    }
}

/// Two refusals of a page have no code of their own.
fn by_words(place: Place, status: u16, code: String, message: String) -> SourceError {
    let words = message.to_ascii_lowercase();
    if words.contains("add more filters to page through") || words.contains("more than 10000 rec") {
        SourceError::TooDeep { place, message }
    } else if words.contains("seems to have been deleted") {
        SourceError::PageGone { place, message }
    } else {
        SourceError::Rejected {
            place,
            status,
            code,
            message,
        }
    }
}

/// `Retry-After`, in seconds or as a date, capped; zero where it is absent or makes no sense.
pub(super) fn retry_after(header: Option<&str>, now: Timestamp) -> Duration {
    let Some(text) = header.map(str::trim) else {
        return Duration::ZERO;
    };
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => http_date(text)
            .and_then(|until| Duration::try_from(until.duration_since(now)).ok())
            .unwrap_or_default(),
    };
    wait.min(RETRY_AFTER_LIMIT)
}

/// A date as HTTP writes it, `Tue, 24 Nov 2026 10:00:00 GMT`, of a sane year.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    let date = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    is_sound(date.as_millisecond()).then_some(date)
}

/// The tries of one request so far: bounded by number and by time.
#[derive(Debug)]
pub(super) struct Attempts {
    policy: RetryPolicy,
    /// Whether the reader can ask for a smaller page instead.
    can_shrink: bool,
    /// Failures before this request that count as its own.
    earlier: RetryState,
    now: RetryState,
}

impl Attempts {
    pub(super) fn new(policy: RetryPolicy, can_shrink: bool, earlier: RetryState) -> Self {
        Self {
            policy,
            can_shrink,
            earlier,
            now: earlier,
        }
    }

    /// Attempts of this request that failed.
    pub(super) fn made(&self) -> u32 {
        self.now.attempts() - self.earlier.attempts()
    }

    /// What was tried so far, earlier requests included.
    pub(super) fn tried(&self) -> RetryState {
        self.now
    }

    /// Counts a failed attempt that took `took`; gives the wait before the next.
    ///
    /// `random`, of `[0, 1)`, picks a delay below an exponential bound (full jitter). After a rate
    /// limit it is at least half of the bound: all tasks pause, so there is no herd to spread.
    pub(super) fn fail(
        &mut self,
        cause: &Cause,
        took: Duration,
        at_least: Duration,
        random: f64,
    ) -> Duration {
        let random = random.clamp(0.0, 1.0);
        let (count, share) = if cause.is_rate_limit() {
            (&mut self.now.rate_limited, 0.5 + random / 2.0)
        } else {
            (&mut self.now.failed, random)
        };
        *count += 1;
        let bound = 2_u32
            .checked_pow(*count - 1)
            .and_then(|factor| self.policy.first_delay.checked_mul(factor))
            .map_or(self.policy.longest_delay, |delay| {
                delay.min(self.policy.longest_delay)
            });
        let wait = bound.mul_f64(share).max(at_least);
        self.now.spent += took + wait;
        self.now.wait = wait;
        wait
    }

    /// The wait before a key that was refused is tried once more.
    pub(super) fn slow_wait(&self) -> Duration {
        self.policy.first_delay * 3
    }

    /// Whether another attempt may follow a failure of this `cause`.
    pub(super) fn go_on(&self, cause: &Cause) -> bool {
        let failed_here = self.now.failed - self.earlier.failed;
        let at_this_size = match self.earlier.failed {
            0 => ATTEMPTS_AT_A_LARGE_PAGE,
            _ => 1,
        };
        let is_to_shrink =
            self.can_shrink && cause.wants_smaller_page() && at_this_size <= failed_here;
        !is_to_shrink && self.policy.allows(self.now)
    }
}

impl RetryPolicy {
    /// Returns the state after which `left` failed attempts are allowed.
    pub(super) fn attempts_left(&self, left: u32) -> RetryState {
        RetryState {
            failed: self.attempts.saturating_sub(left),
            ..RetryState::default()
        }
    }

    /// Whether one more attempt may follow those that failed.
    pub(super) fn allows(&self, tried: RetryState) -> bool {
        tried.failed < self.attempts
            && tried.rate_limited < self.rate_limited_attempts
            && tried.spent < self.patience
    }
}

impl RetryState {
    /// Attempts, those that were rate limited included.
    pub(super) fn attempts(self) -> u32 {
        self.failed + self.rate_limited
    }

    /// What was waited for was answered: what is asked next need not wait.
    pub fn answered(&mut self) {
        self.wait = Duration::ZERO;
    }

    /// The wait that is due before the next attempt.
    pub(super) fn wait(self) -> Duration {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::error::Endpoint;
    use super::*;

    fn word(status: u16, is_json: bool, code: &str, message: &str) -> &'static str {
        let place = Place {
            endpoint: Endpoint::Executions,
            of: None,
        };
        let refusal = Refusal {
            status,
            is_json,
            code: code.to_owned(),
            message: message.to_owned(),
            retry_after: Duration::ZERO,
        };
        match classify(&place, refusal) {
            Verdict::Retry { cause, .. } if cause.is_rate_limit() => "slower",
            Verdict::Retry { .. } => "retry",
            Verdict::Fatal(SourceError::Unauthorized { .. }) => "unauthorized",
            Verdict::Fatal(SourceError::Forbidden { .. }) => "forbidden",
            Verdict::Fatal(SourceError::TooDeep { .. }) => "too deep",
            Verdict::Fatal(SourceError::PageGone { .. }) => "page gone",
            Verdict::Fatal(error) if error.wants_smaller_page() => "smaller page",
            Verdict::Fatal(_) => "rejected",
        }
    }

    #[test]
    fn status_code_and_words_decide_together() {
        let too_deep = "Please add more filters to page through more than 10000 records";
        let gone = "The execution data seems to have been deleted, please reduce the page no.";
        for (status, is_json, code, message, expected) in [
            (200, false, "", "<html>", "retry"),
            (200, true, "INVALID_REQUEST", "", "rejected"),
            (200, true, "TOO_MANY_REQUESTS", "", "slower"),
            (200, true, "NG_ACCESS_DENIED", "", "forbidden"),
            (200, true, "INVALID_TOKEN", "", "unauthorized"),
            (200, true, "UNKNOWN_ERROR", "", "retry"),
            (302, false, "", "<html>", "rejected"),
            (
                400,
                true,
                "INVALID_REQUEST",
                "page and size",
                "smaller page",
            ),
            (400, true, "INVALID_REQUEST", too_deep, "too deep"),
            (400, true, "INVALID_REQUEST", gone, "page gone"),
            (400, true, "RESOURCE_NOT_FOUND_EXCEPTION", "", "rejected"),
            (400, true, "TOO_MANY_REQUESTS", "", "slower"),
            (400, true, "EXPIRED_TOKEN", "", "unauthorized"),
            (400, false, "", "<html>", "retry"),
            (401, true, "INVALID_TOKEN", "", "unauthorized"),
            (401, false, "", "<html>", "unauthorized"),
            (403, true, "NG_ACCESS_DENIED", "", "forbidden"),
            (403, true, "", "", "forbidden"),
            (403, false, "", "<html>", "retry"),
            (404, true, "", "", "rejected"),
            (404, false, "", "<html>", "retry"),
            (413, false, "", "<html>", "smaller page"),
            (429, false, "", "", "slower"),
            (500, true, "UNKNOWN_ERROR", "", "retry"),
            (503, false, "", "upstream", "retry"),
        ] {
            let found = word(status, is_json, code, message);
            assert_eq!(found, expected, "{status} {is_json} {code} {message}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_capped() {
        let now = http_date("Tue, 24 Nov 2026 10:00:00 GMT").unwrap();
        for (header, seconds) in [
            (None, 0),
            (Some("7"), 7),
            (Some("99999"), 120),
            (Some("-1"), 0),
            (Some("soon"), 0),
            (Some("Tue, 24 Nov 2026 10:00:09 GMT"), 9),
            (Some("Tue, 24 Nov 2026 09:00:00 GMT"), 0),
            (Some("Wed, 25 Nov 2026 10:00:00 GMT"), 120),
        ] {
            let wait = retry_after(header, now);
            assert_eq!(wait, Duration::from_secs(seconds), "{header:?}");
        }
    }

    fn rate_limit() -> Cause {
        Cause::RateLimited(String::new())
    }

    fn broken() -> Cause {
        Cause::NotJson {
            status: 502,
            start: String::new(),
        }
    }

    #[test]
    fn rate_limits_do_not_use_up_the_attempts() {
        let policy = RetryPolicy {
            first_delay: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let mut tries = Attempts::new(policy, false, RetryState::default());
        for _ in 0..10 {
            tries.fail(&rate_limit(), Duration::ZERO, Duration::ZERO, 0.0);
            assert!(tries.go_on(&rate_limit()));
        }
        for _ in 0..5 {
            tries.fail(&broken(), Duration::ZERO, Duration::ZERO, 0.0);
            assert!(tries.go_on(&broken()));
        }
        tries.fail(&broken(), Duration::ZERO, Duration::ZERO, 0.0);
        assert!(!tries.go_on(&broken()));
        assert_eq!(tries.made(), 16);
    }

    #[test]
    fn a_page_that_may_be_too_large_is_given_back_soon() {
        let cause = Cause::TooLarge { limit: 1 };
        for (can_shrink, attempts) in [(true, 2), (false, 6)] {
            let mut tries =
                Attempts::new(RetryPolicy::default(), can_shrink, RetryState::default());
            let mut count = 0;
            while tries.go_on(&cause) {
                tries.fail(&cause, Duration::ZERO, Duration::ZERO, 0.0);
                count += 1;
            }
            assert_eq!(count, attempts);
        }
    }

    #[test]
    fn pages_of_ever_smaller_sizes_share_one_patience() {
        let cause = Cause::TooLarge { limit: 1 };
        let policy = RetryPolicy::default();
        let (mut so_far, mut attempts, mut waited) =
            (RetryState::default(), Vec::new(), Duration::ZERO);
        while policy.allows(so_far) {
            let mut tries = Attempts::new(policy, true, so_far);
            while tries.go_on(&cause) {
                waited += tries.fail(&cause, Duration::ZERO, Duration::ZERO, 1.0);
            }
            attempts.push(tries.made());
            so_far = tries.tried();
        }
        assert_eq!(attempts, [2, 1, 1, 1, 1]);
        assert!(waited <= so_far.wait() + Duration::from_secs(31));
    }

    proptest! {
        #[test]
        fn tries_end_and_waits_keep_their_bounds(
            steps in prop::collection::vec((any::<bool>(), 0_u64..200, 0.0..1.0_f64), 0..60)
        ) {
            let policy = RetryPolicy::default();
            let mut tries = Attempts::new(policy, false, RetryState::default());
            let mut spent = Duration::ZERO;
            for (is_rate_limit, floor, random) in steps {
                let cause = if is_rate_limit { rate_limit() } else { broken() };
                let floor = Duration::from_secs(floor);
                let wait = tries.fail(&cause, Duration::ZERO, floor, random);
                spent += wait;
                prop_assert!(floor <= wait && wait <= floor.max(policy.longest_delay));
                if policy.patience <= spent || 26 <= tries.made() {
                    prop_assert!(!tries.go_on(&cause));
                }
            }
        }
    }
}
