//! The function that sends every request: throttle, send, classify, back off.

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

use super::body::Body;
use super::clock::ServerClock;
use super::counts::Counters;
use super::error::{Cause, Resource, SourceError};
use super::retry::{
    Attempts, ErrorResponse, RetryPolicy, RetryState, Verdict, classify, http_date, retry_after,
};
use super::silence::Silence;
use super::throttle::{Permit, Throttle};
use super::wire::ErrorBody;

/// The maximum size of a body. A larger page is requested again with fewer rows.
const BODY_LIMIT: usize = 256 << 20;

/// Larger bodies are decoded on a blocking thread, so that they delay no other request.
const INLINE_LIMIT: usize = 64 << 10;

/// The maximum length of a server message in an error, in characters.
const MESSAGE_LIMIT: usize = 300;

/// Failures in a row that are logged as warnings: an outage must not fill the log.
const LOGGED_FAILURES: u32 = 5;

/// Shorter account identifiers are not redacted from messages: they could be common words.
const MIN_REDACTED_ACCOUNT: usize = 8;

/// Some gateways send a byte order mark before the JSON.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const TOTAL: HeaderName = HeaderName::from_static("x-total-elements");

/// The HTTP client and the state that all requests of a run share.
pub(super) struct Http {
    pub(super) client: reqwest::Client,
    pub(super) api_key: SecretString,
    pub(super) account: AccountId,
    pub(super) throttle: Throttle,
    pub(super) counters: Counters,
    pub(super) clock: fn() -> Timestamp,
    /// Follows the `Date` headers of all responses.
    pub(super) server_clock: ServerClock,
    pub(super) silence: Silence,
}

/// One request, which may take several attempts.
pub(super) struct Request {
    pub(super) resource: Resource,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Option<Bytes>,
    pub(super) retry: RetryPolicy,
    /// The timeout of one attempt, if it is shorter than that of the client.
    pub(super) timeout: Option<Duration>,
    /// Whether the caller can request a smaller page instead.
    pub(super) allows_smaller_page: bool,
    /// Earlier failed attempts for the same purpose.
    pub(super) retry_state: RetryState,
}

/// A complete response.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) status: u16,
    pub(super) body: Bytes,
    pub(super) total: Option<u64>,
    pub(super) observed: Timestamp,
    pub(super) retry_after: Duration,
}

/// A response with a success status that cannot be used.
#[derive(Debug)]
pub(super) enum DecodeError {
    /// It is truncated or has an unexpected structure.
    Malformed(serde_json::Error),
    /// It contains an error envelope.
    ErrorEnvelope(ErrorBody),
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error)
    }
}

impl Http {
    /// Sends a request until it succeeds, fails permanently, or has no attempts left.
    ///
    /// `decode` is part of the attempt, so a truncated body is retried.
    pub(super) async fn send<T, D>(&self, request: Request, decode: D) -> Result<T, SourceError>
    where
        T: Send + 'static,
        D: Fn(&Response) -> Result<T, DecodeError> + Clone + Send + 'static,
    {
        let mut attempts = Attempts::new(
            request.retry,
            request.allows_smaller_page,
            request.retry_state,
        );
        let mut was_unauthorized = false;
        tokio::time::sleep(request.retry_state.wait()).await;
        loop {
            let permit = self.throttle.acquire().await;
            let is_retry = attempts.made() > 0 || !request.retry_state.wait().is_zero();
            self.counters.count(request.resource.endpoint, is_retry);
            let started = Instant::now();
            let (cause, at_least) = match self.attempt(&request, decode.clone()).await {
                Ok(value) => {
                    self.throttle.responded();
                    self.silence.answered();
                    return Ok(value);
                }
                // An outage of the token service looks like an invalid key: retry once, slowly.
                Err(Verdict::Fatal(SourceError::Unauthorized { message, .. }))
                    if !was_unauthorized =>
                {
                    was_unauthorized = true;
                    (unauthorized(message), attempts.slow_wait())
                }
                Err(Verdict::Fatal(error)) => {
                    self.silence.answered();
                    return Err(error);
                }
                Err(Verdict::Retry { cause, at_least }) => (cause, at_least),
            };
            let failed_in_a_row = if cause.is_rate_limit() {
                self.silence.answered();
                0
            } else {
                self.silence.failed(started)
            };
            let wait =
                attempts.record_failure(&cause, started.elapsed(), at_least, fastrand::f64());
            let may_retry = attempts.may_retry(&cause) && !self.is_silent(request.retry.patience);
            if may_retry {
                let is_loud = failed_in_a_row <= LOGGED_FAILURES;
                let attempt = attempts.made();
                self.log_retry(&permit, &request.resource, attempt, wait, &cause, is_loud);
            }
            // Released before waiting, so that other requests can proceed.
            drop(permit);
            if !may_retry {
                let retry_state = attempts.state();
                return Err(SourceError::Unavailable {
                    resource: request.resource,
                    attempts: retry_state.attempts(),
                    cause,
                    retry_state: Box::new(retry_state),
                });
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Returns whether no request was answered for so long.
    pub(super) fn is_silent(&self, patience: Duration) -> bool {
        let failures = self.silence.failures();
        failures.is_some_and(|(_, time)| time >= patience)
    }

    /// Returns the latest trusted `Date` of the server.
    pub(super) fn now(&self) -> Option<Timestamp> {
        self.server_clock.now()
    }

    async fn attempt<T, D>(&self, request: &Request, decode: D) -> Result<T, Verdict>
    where
        T: Send + 'static,
        D: FnOnce(&Response) -> Result<T, DecodeError> + Send + 'static,
    {
        let response = self.fetch(request).await?;
        if !(200..300).contains(&response.status) {
            let error = self.error_response(&response, ErrorBody::read(&response.body));
            return Err(classify(&request.resource, error));
        }
        match decoded(decode, response.clone()).await {
            Ok(value) => Ok(value),
            Err(DecodeError::ErrorEnvelope(body)) => {
                let error = self.error_response(&response, Some(body));
                Err(classify(&request.resource, error))
            }
            Err(DecodeError::Malformed(error)) => {
                Err(match response.body.trim_ascii_start().first() {
                    Some(b'{' | b'[') => Cause::Malformed(error).into(),
                    _ => classify(&request.resource, self.error_response(&response, None)),
                })
            }
        }
    }

    async fn fetch(&self, request: &Request) -> Result<Response, Cause> {
        let mut builder = self
            .client
            .request(request.method.clone(), request.url.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        if let Some(timeout) = request.timeout {
            builder = builder.timeout(timeout);
        }
        let mut response = builder.send().await?;
        let status = response.status().as_u16();
        let local = (self.clock)();
        let date = header(response.headers(), &DATE).and_then(http_date);
        let observed = date.map_or(local, |date| self.server_clock.observe(date, local));
        let total = header(response.headers(), &TOTAL).and_then(|text| text.trim().parse().ok());
        let retry_after = retry_after(
            header(response.headers(), &RETRY_AFTER),
            date.unwrap_or(local),
        );
        let mut body = Body::new(response.headers()).map_err(Cause::Encoding)?;
        while let Some(chunk) = response.chunk().await? {
            if !body.push(&chunk, BODY_LIMIT).map_err(Cause::Encoding)? {
                return Err(Cause::TooLarge { limit: BODY_LIMIT });
            }
        }
        let mut body = body.finish().map_err(Cause::Encoding)?;
        if body.starts_with(BYTE_ORDER_MARK) {
            body.drain(..BYTE_ORDER_MARK.len());
        }
        debug!(resource = %request.resource, status, bytes = body.len(), "received a response");
        Ok(Response {
            status,
            // Rows keep the body in memory: free the spare capacity.
            body: body.into_boxed_slice().into(),
            total,
            observed,
            retry_after,
        })
    }

    /// Describes an error response for `classify`; `body` is `None` if it is not JSON.
    fn error_response(&self, response: &Response, body: Option<ErrorBody>) -> ErrorResponse {
        let is_json = body.is_some();
        let body = body.unwrap_or_else(|| {
            let start = &response.body[..response.body.len().min(8 * MESSAGE_LIMIT)];
            ErrorBody {
                code: String::new(),
                message: String::from_utf8_lossy(start).into_owned(),
            }
        });
        ErrorResponse {
            status: response.status,
            is_json,
            code: self.sanitize(&body.code),
            message: self.sanitize(&body.message),
            retry_after: response.retry_after,
        }
    }

    /// Makes text of the server fit for a log: printable, short, and without key and account, which an
    /// error page may repeat.
    fn sanitize(&self, text: &str) -> String {
        let mut text = text.replace(self.api_key.expose_secret(), "***");
        if self.account.as_str().len() >= MIN_REDACTED_ACCOUNT {
            text = text.replace(self.account.as_str(), "***");
        }
        let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let clipped: String = printable.take(MESSAGE_LIMIT).collect();
        clipped.trim().to_owned()
    }

    fn log_retry(
        &self,
        permit: &Permit<'_>,
        resource: &Resource,
        attempt: u32,
        wait: Duration,
        cause: &Cause,
        is_loud: bool,
    ) {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        if cause.is_rate_limit() {
            self.counters.count_rate_limited();
            self.throttle.rate_limited(permit, wait);
            let per_minute = self.throttle.per_minute();
            warn!(%resource, attempt, wait_ms, per_minute, "rate limited; reducing the request rate");
        } else if is_loud {
            warn!(%resource, attempt, wait_ms, cause = chain(cause), "request failed; retrying");
        } else {
            debug!(%resource, attempt, wait_ms, cause = chain(cause), "request failed; retrying");
        }
    }
}

/// Decodes a small body on this thread, and a large one on a blocking thread.
async fn decoded<T, D>(decode: D, response: Response) -> Result<T, DecodeError>
where
    T: Send + 'static,
    D: FnOnce(&Response) -> Result<T, DecodeError> + Send + 'static,
{
    if response.body.len() <= INLINE_LIMIT {
        return decode(&response);
    }
    worker::spawn(move || decode(&response)).await
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
