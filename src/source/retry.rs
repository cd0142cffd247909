//! Classification of error responses, and the retry policy. Pure.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

use super::error::{Cause, Resource, SourceError};
use crate::failpoint::hurried;
use crate::window::is_sound;

/// The maximum wait that a server may request.
const MAX_RETRY_AFTER: Duration = Duration::from_mins(2);

/// Attempts at a page that may be too large, before its caller requests a smaller one.
const LARGE_PAGE_ATTEMPTS: u32 = 2;

/// The limits of the retries of a request.
#[derive(Clone, Copy, Debug)]
pub struct RetryPolicy {
    /// Maximum attempts that fail for other reasons than a rate limit.
    pub attempts: u32,
    /// Maximum attempts that are rate limited: these show that we are too fast, not an outage.
    pub rate_limited_attempts: u32,
    /// The maximum of the first delay. It doubles with each further attempt.
    pub first_delay: Duration,
    /// The maximum delay, unless the server requests a longer one.
    pub max_delay: Duration,
    /// The time after which no attempt is started. Waiting for the throttle does not count.
    pub max_elapsed: Duration,
    /// The time without an answer to any request, after which no attempt is started: the source may be down.
    pub patience: Duration,
}

impl Default for RetryPolicy {
    /// Six attempts within five minutes, with delays of up to 1 s, 2 s, 4 s and so on.
    fn default() -> Self {
        Self {
            attempts: 6,
            rate_limited_attempts: 20,
            first_delay: hurried(Duration::from_secs(1)),
            max_delay: Duration::from_mins(1),
            max_elapsed: Duration::from_mins(5),
            patience: hurried(Duration::from_secs(30)),
        }
    }
}

/// The failed attempts for one purpose so far. Requests with the same purpose share their limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetryState {
    failed: u32,
    rate_limited: u32,
    spent: Duration,
    /// The wait before the next attempt.
    wait: Duration,
}

/// An error response, as far as its classification needs it.
#[derive(Debug, Default)]
pub(super) struct ErrorResponse {
    pub(super) status: u16,
    /// Whether the body is JSON. Other bodies come from a gateway or proxy, not from Harness.
    pub(super) is_json: bool,
    pub(super) code: String,
    /// The message of the server, printable and short.
    pub(super) message: String,
    pub(super) retry_after: Duration,
}

/// The decision about an error response.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Retry after a wait of at least `at_least`.
    Retry { cause: Cause, at_least: Duration },
    /// Retrying would not help. Only `Unauthorized` is retried once, since an outage of the token
    /// service looks the same.
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

/// Classifies an error response by HTTP status, then by code, then by message.
pub(super) fn classify(resource: &Resource, error: ErrorResponse) -> Verdict {
    let ErrorResponse {
        status,
        is_json,
        code,
        message,
        retry_after: at_least,
    } = error;
    let resource = resource.clone();
    let retry = |cause| Verdict::Retry { cause, at_least };
    match (status, code.as_str()) {
        (429, _) | (_, "TOO_MANY_REQUESTS") => retry(Cause::RateLimited(message)),
        (401, _) | (200 | 400, "INVALID_TOKEN" | "EXPIRED_TOKEN") => {
            Verdict::Fatal(SourceError::Unauthorized { resource, message })
        }
        (403, _) | (200, "NG_ACCESS_DENIED" | "ACCESS_DENIED") if is_json => {
            Verdict::Fatal(SourceError::Forbidden { resource, message })
        }
        (300..=399, _) => Verdict::Fatal(SourceError::Rejected {
            resource,
            status,
            code: "REDIRECT".to_owned(),
            message: "redirects are not followed, since they could send the key to another host; \
                      check the base URL"
                .to_owned(),
        }),
        (413, _) => Verdict::Fatal(SourceError::Rejected {
            resource,
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
        _ => Verdict::Fatal(classify_message(resource, status, code, message)),
    }
}

/// Classifies by message: two errors of a page have no code of their own.
fn classify_message(resource: Resource, status: u16, code: String, message: String) -> SourceError {
    let text = message.to_ascii_lowercase();
    if text.contains("add more filters to page through") || text.contains("more than 10000 rec") {
        SourceError::TooDeep { resource, message }
    } else if text.contains("seems to have been deleted") {
        SourceError::PageGone { resource, message }
    } else {
        SourceError::Rejected {
            resource,
            status,
            code,
            message,
        }
    }
}

/// Parses `Retry-After`, in seconds or as a date, and caps it; zero if absent or invalid.
pub(super) fn retry_after(header: Option<&str>, now: Timestamp) -> Duration {
    let Some(text) = header.map(str::trim) else {
        return Duration::ZERO;
    };
    // RFC 9110 allows only integers; some gateways send decimals.
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds >= 0.0);
    let wait = match seconds {
        Some(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(MAX_RETRY_AFTER),
        None => http_date(text)
            .and_then(|until| Duration::try_from(until.duration_since(now)).ok())
            .unwrap_or_default(),
    };
    wait.min(MAX_RETRY_AFTER)
}

/// Parses a date such as `Tue, 24 Nov 2026 10:00:00 GMT`; `None` if the year is not plausible.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    let date = DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    is_sound(date.as_millisecond()).then_some(date)
}

/// The attempts of one request, limited in number and in time.
#[derive(Debug)]
pub(super) struct Attempts {
    policy: RetryPolicy,
    /// Whether the caller can request a smaller page instead.
    allows_smaller_page: bool,
    /// Failures of earlier requests for the same purpose.
    earlier: RetryState,
    now: RetryState,
}

impl Attempts {
    pub(super) fn new(policy: RetryPolicy, allows_smaller_page: bool, earlier: RetryState) -> Self {
        Self {
            policy,
            allows_smaller_page,
            earlier,
            now: earlier,
        }
    }

    /// Returns the failed attempts of this request.
    pub(super) fn made(&self) -> u32 {
        self.now.attempts() - self.earlier.attempts()
    }

    /// Returns the failed attempts so far, including those of earlier requests.
    pub(super) fn state(&self) -> RetryState {
        self.now
    }

    /// Counts a failed attempt of duration `took`, and returns the wait before the next one.
    ///
    /// `random`, in `[0, 1)`, picks a delay below an exponential bound (full jitter). After a rate
    /// limit the delay is at least half of the bound: all tasks wait together, so there is no herd.
    pub(super) fn record_failure(
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
            .map_or(self.policy.max_delay, |delay| {
                delay.min(self.policy.max_delay)
            });
        let wait = bound.mul_f64(share).max(at_least);
        self.now.spent += took + wait;
        self.now.wait = wait;
        wait
    }

    /// Returns the wait before a rejected key is tried once more.
    pub(super) fn slow_wait(&self) -> Duration {
        self.policy.first_delay * 3
    }

    /// Returns whether another attempt may follow a failure with this `cause`.
    pub(super) fn may_retry(&self, cause: &Cause) -> bool {
        let failed_here = self.now.failed - self.earlier.failed;
        let at_this_size = match self.earlier.failed {
            0 => LARGE_PAGE_ATTEMPTS,
            _ => 1,
        };
        let needs_smaller_page =
            self.allows_smaller_page && cause.wants_smaller_page() && failed_here >= at_this_size;
        !needs_smaller_page && self.policy.allows(self.now)
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

    /// Returns whether another attempt may follow.
    pub(super) fn allows(&self, state: RetryState) -> bool {
        state.failed < self.attempts
            && state.rate_limited < self.rate_limited_attempts
            && state.spent < self.max_elapsed
    }
}

impl RetryState {
    /// Returns the failed attempts, including rate-limited ones.
    pub(super) fn attempts(self) -> u32 {
        self.failed + self.rate_limited
    }

    /// Clears the wait: after a success, the next request need not wait.
    pub fn clear_wait(&mut self) {
        self.wait = Duration::ZERO;
    }

    /// Returns the wait before the next attempt.
    pub(super) fn wait(self) -> Duration {
        self.wait
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::error::Endpoint;
    use super::*;

    fn verdict(status: u16, is_json: bool, code: &str, message: &str) -> &'static str {
        let resource = Resource {
            endpoint: Endpoint::Executions,
            within: None,
        };
        let error = ErrorResponse {
            status,
            is_json,
            code: code.to_owned(),
            message: message.to_owned(),
            retry_after: Duration::ZERO,
        };
        match classify(&resource, error) {
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
    fn classifies_by_status_code_and_message() {
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
            let found = verdict(status, is_json, code, message);
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
            (Some("3.0"), 3),
            (Some("inf"), 120),
            (Some("NaN"), 0),
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
    fn rate_limits_do_not_count_as_attempts() {
        let policy = RetryPolicy {
            first_delay: Duration::from_millis(1),
            ..RetryPolicy::default()
        };
        let mut tries = Attempts::new(policy, false, RetryState::default());
        for _ in 0..10 {
            tries.record_failure(&rate_limit(), Duration::ZERO, Duration::ZERO, 0.0);
            assert!(tries.may_retry(&rate_limit()));
        }
        for _ in 0..5 {
            tries.record_failure(&broken(), Duration::ZERO, Duration::ZERO, 0.0);
            assert!(tries.may_retry(&broken()));
        }
        tries.record_failure(&broken(), Duration::ZERO, Duration::ZERO, 0.0);
        assert!(!tries.may_retry(&broken()));
        assert_eq!(tries.made(), 16);
    }

    #[test]
    fn large_page_is_retried_at_most_once() {
        let cause = Cause::TooLarge { limit: 1 };
        for (allows_smaller_page, attempts) in [(true, 2), (false, 6)] {
            let mut tries = Attempts::new(
                RetryPolicy::default(),
                allows_smaller_page,
                RetryState::default(),
            );
            let mut count = 0;
            while tries.may_retry(&cause) {
                tries.record_failure(&cause, Duration::ZERO, Duration::ZERO, 0.0);
                count += 1;
            }
            assert_eq!(count, attempts);
        }
    }

    #[test]
    fn smaller_pages_share_the_retry_limits() {
        let cause = Cause::TooLarge { limit: 1 };
        let policy = RetryPolicy::default();
        let (mut retry_state, mut attempts, mut waited) =
            (RetryState::default(), Vec::new(), Duration::ZERO);
        while policy.allows(retry_state) {
            let mut tries = Attempts::new(policy, true, retry_state);
            while tries.may_retry(&cause) {
                waited += tries.record_failure(&cause, Duration::ZERO, Duration::ZERO, 1.0);
            }
            attempts.push(tries.made());
            retry_state = tries.state();
        }
        assert_eq!(attempts, [2, 1, 1, 1, 1]);
        assert!(waited <= retry_state.wait() + Duration::from_secs(31));
    }

    proptest! {
        #[test]
        fn attempts_and_waits_are_bounded(
            steps in prop::collection::vec((any::<bool>(), 0_u64..200, 0.0..1.0_f64), 0..60)
        ) {
            let policy = RetryPolicy::default();
            let mut tries = Attempts::new(policy, false, RetryState::default());
            let mut spent = Duration::ZERO;
            for (is_rate_limit, floor, random) in steps {
                let cause = if is_rate_limit { rate_limit() } else { broken() };
                let floor = Duration::from_secs(floor);
                let wait = tries.record_failure(&cause, Duration::ZERO, floor, random);
                spent += wait;
                prop_assert!(floor <= wait && wait <= floor.max(policy.max_delay));
                if spent >= policy.max_elapsed || tries.made() >= 26 {
                    prop_assert!(!tries.may_retry(&cause));
                }
            }
        }
    }
}
