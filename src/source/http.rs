//! The one way to Harness: permit, pause, slot, request, verdict, back-off.

use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::Method;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use secrecy::{ExposeSecret, SecretString};
use tracing::{debug, warn};
use url::Url;

use crate::causes::chain;
use crate::ids::AccountId;
use crate::worker;

use super::clock::ServerClock;
use super::counts::Counters;
use super::error::{Cause, Place, SourceError};
use super::retry::{
    Attempts, Refusal, RetryPolicy, RetryState, Verdict, classify, http_date, retry_after,
};
use super::throttle::{Permit, Throttle};
use super::wire::ErrorBody;

/// The most that is read of one answer. Pages shrink when theirs is larger.
const BODY_LIMIT: usize = 256 << 20;

/// Answers larger than this are decoded where they hold up no other request.
const INLINE_LIMIT: usize = 64 << 10;

/// How much of the server's words an error repeats, in characters.
const WORDS_LIMIT: usize = 300;

/// Account identifiers shorter than this are not blotted out of the server's words.
const ACCOUNT_LEAST: usize = 8;

/// What some gateways put before JSON, which has none.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const TOTAL: HeaderName = HeaderName::from_static("x-total-elements");

/// What `send` needs, shared by all requests of a run.
pub(super) struct Http {
    pub(super) client: reqwest::Client,
    pub(super) api_key: SecretString,
    pub(super) account: AccountId,
    pub(super) throttle: Throttle,
    pub(super) counters: Counters,
    pub(super) clock: fn() -> Timestamp,
    /// By the `Date` of all answers.
    pub(super) server_clock: ServerClock,
}

/// One request, to be sent as often as it takes.
pub(super) struct Request {
    pub(super) place: Place,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Option<Bytes>,
    pub(super) retry: RetryPolicy,
    /// Whether the reader can ask for a smaller page instead.
    pub(super) can_shrink: bool,
    /// What was tried in vain before, for the same purpose.
    pub(super) tried: RetryState,
}

/// An answer that came whole.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) total: Option<u64>,
    pub(super) observed: Timestamp,
    pub(super) retry_after: Duration,
}

/// An answer with a good status that does not hold what was asked for.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is cut short or of another shape.
    Malformed(serde_json::Error),
    /// It is an error envelope.
    Refused(ErrorBody),
}

impl From<serde_json::Error> for Unusable {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error)
    }
}

impl Http {
    /// Sends a request until it is answered, refused for good, or out of tries.
    ///
    /// `decode` runs within the attempt, so that a truncated answer is asked for again.
    pub(super) async fn send<T, D>(&self, ask: Request, decode: D) -> Result<T, SourceError>
    where
        T: Send + 'static,
        D: Fn(&Answer) -> Result<T, Unusable> + Clone + Send + 'static,
    {
        let mut tries = Attempts::new(ask.retry, ask.can_shrink, ask.tried);
        let mut was_refused = false;
        tokio::time::sleep(ask.tried.wait()).await;
        loop {
            let permit = self.throttle.acquire().await;
            let is_repeated = 0 < tries.made() || !ask.tried.wait().is_zero();
            self.counters.count(ask.place.endpoint, is_repeated);
            let began = Instant::now();
            let (cause, at_least) = match self.attempt(&ask, decode.clone()).await {
                Ok(value) => {
                    self.throttle.responded();
                    return Ok(value);
                }
                // A hiccup of the token service looks like a wrong key: one slow retry, no more.
                Err(Verdict::Fatal(SourceError::Unauthorized { message, .. })) if !was_refused => {
                    was_refused = true;
                    (unauthorized(message), tries.slow_wait())
                }
                Err(Verdict::Fatal(error)) => return Err(error),
                Err(Verdict::Retry { cause, at_least }) => (cause, at_least),
            };
            let wait = tries.fail(&cause, began.elapsed(), at_least, fastrand::f64());
            let goes_on = tries.go_on(&cause);
            if goes_on {
                self.note(&permit, &ask.place, tries.made(), wait, &cause);
            }
            // Given back before waiting: a sleeper holds up nobody.
            drop(permit);
            if !goes_on {
                let so_far = tries.tried();
                return Err(SourceError::Unavailable {
                    place: ask.place,
                    attempts: so_far.attempts(),
                    cause,
                    so_far: Box::new(so_far),
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The latest time that the server told.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.server_clock.now()
    }

    async fn attempt<T, D>(&self, ask: &Request, decode: D) -> Result<T, Verdict>
    where
        T: Send + 'static,
        D: FnOnce(&Answer) -> Result<T, Unusable> + Send + 'static,
    {
        let answer = self.fetch(ask).await?;
        if !(200..300).contains(&answer.status) {
            let refusal = self.refusal(&answer, ErrorBody::read(&answer.body));
            return Err(classify(&ask.place, refusal));
        }
        match decoded(decode, answer.clone()).await {
            Ok(value) => Ok(value),
            Err(Unusable::Refused(body)) => {
                Err(classify(&ask.place, self.refusal(&answer, Some(body))))
            }
            Err(Unusable::Malformed(error)) => Err(match answer.body.trim_ascii_start().first() {
                Some(b'{' | b'[') => Cause::Malformed(error).into(),
                _ => classify(&ask.place, self.refusal(&answer, None)),
            }),
        }
    }

    async fn fetch(&self, ask: &Request) -> Result<Answer, Cause> {
        let mut request = self.client.request(ask.method.clone(), ask.url.clone());
        if let Some(body) = &ask.body {
            request = request.body(body.clone());
        }
        let mut response = request.send().await?;
        let status = response.status().as_u16();
        let local = (self.clock)();
        let date = header(response.headers(), &DATE).and_then(http_date);
        let observed = date.map_or(local, |date| self.server_clock.tell(date, local));
        let total = header(response.headers(), &TOTAL).and_then(|text| text.trim().parse().ok());
        let retry_after = retry_after(header(response.headers(), &RETRY_AFTER), observed);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if BODY_LIMIT < body.len() + chunk.len() {
                return Err(Cause::TooLarge { limit: BODY_LIMIT });
            }
            body.extend_from_slice(&chunk);
        }
        if body.starts_with(BYTE_ORDER_MARK) {
            body.drain(..BYTE_ORDER_MARK.len());
        }
        debug!(place = %ask.place, status, bytes = body.len(), "answered");
        Ok(Answer {
            status,
            // Rows keep the body alive: no more of it than there is.
            body: body.into_boxed_slice().into(),
            total,
            observed,
            retry_after,
        })
    }

    /// What decides about an answer: `body` is the error envelope, `None` where it is no JSON.
    fn refusal(&self, answer: &Answer, body: Option<ErrorBody>) -> Refusal {
        let is_json = body.is_some();
        let body = body.unwrap_or_else(|| {
            let start = &answer.body[..answer.body.len().min(8 * WORDS_LIMIT)];
            ErrorBody {
                code: String::new(),
                message: String::from_utf8_lossy(start).into_owned(),
            }
        });
        Refusal {
            status: answer.status,
            is_json,
            code: self.words(&body.code),
            message: self.words(&body.message),
            retry_after: answer.retry_after,
        }
    }

    /// The server's words, fit for a log: printable, short, and without key and account, which a
    /// gateway's error page may well repeat.
    fn words(&self, text: &str) -> String {
        let mut text = text.replace(self.api_key.expose_secret(), "***");
        if ACCOUNT_LEAST <= self.account.as_str().len() {
            text = text.replace(self.account.as_str(), "***");
        }
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let clipped: String = printable.take(WORDS_LIMIT).collect();
        clipped.trim().to_owned()
    }

    fn note(
        &self,
        permit: &Permit<'_>,
        place: &Place,
        attempt: u32,
        wait: Duration,
        cause: &Cause,
    ) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        if cause.is_rate_limit() {
            self.counters.count_rate_limited();
            self.throttle.rate_limited(permit, wait);
            let per_minute = self.throttle.per_minute();
            warn!(%place, attempt, wait_ms, per_minute, "rate limited, slowing down");
        } else {
            warn!(%place, attempt, wait_ms, cause = chain(cause), "request failed");
        }
    }
}

/// Decodes a small answer here and a large one on a thread that may block.
async fn decoded<T, D>(decode: D, answer: Answer) -> Result<T, Unusable>
where
    T: Send + 'static,
    D: FnOnce(&Answer) -> Result<T, Unusable> + Send + 'static,
{
    if answer.body.len() <= INLINE_LIMIT {
        return decode(&answer);
    }
    worker::spawn(move || decode(&answer)).await
}

fn unauthorized(message: String) -> Cause {
    Cause::Status {
        status: 401,
        code: String::new(),
        message,
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
