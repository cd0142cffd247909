//! Retries the requests of an object store that is away for a while.
//!
//! `object_store` counts attempts and not time, gives up a listing that breaks off, and knows no signals. So its own
//! retries are off, and each request is retried below it until its response is complete.

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use reqwest::header::{CONTENT_LENGTH, HeaderMap};
use reqwest::{Method, StatusCode};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::causes::chain;
use crate::{failpoint, mutex};

/// Time for which a request is retried.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time for which a request is retried after the deadline of the user.
const AFTER_DEADLINE: Duration = Duration::from_secs(5);

/// Time for which requests go on after a signal. Schedulers kill a process after ten seconds at the soonest.
const AFTER_SIGNAL: Duration = Duration::from_secs(7);

/// Time for which the metadata service of a cloud is asked for credentials. Elsewhere it does not exist.
const METADATA_PATIENCE: Duration = Duration::from_secs(5);

/// Additional time per MiB that a request transfers.
const TIME_PER_MIB: Duration = Duration::from_secs(1);

/// The maximum of the first delay, and of all. It doubles with each attempt.
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(5);

/// Duration from which an outage is logged. Shorter ones are usual.
const LOGGED_OUTAGE: Duration = Duration::from_secs(2);

/// The reason why a request is not retried any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GaveUp {
    /// The store was away for too long.
    #[error("unavailable for {seconds} s: {cause}")]
    Unavailable {
        /// The time since the first failure.
        seconds: u64,
        /// The last failure.
        cause: String,
    },
    /// The metadata service does not respond.
    #[error("no response from the metadata service: {cause}")]
    NoCredentials {
        /// The last failure.
        cause: String,
    },
    /// A signal arrived.
    #[error("interrupted by a signal")]
    Interrupted,
}

impl GaveUp {
    /// Finds the reason in the causes of an error.
    pub(super) fn of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let reason = error.downcast_ref();
            if reason.is_some() {
                return reason;
            }
            cause = error.source();
        }
        None
    }
}

impl From<GaveUp> for HttpError {
    fn from(reason: GaveUp) -> Self {
        Self::new(HttpErrorKind::Unknown, reason)
    }
}

/// The state that all requests to a store share. It connects the clients of `object_store`.
#[derive(Clone, Debug, Default)]
pub(super) struct Patience(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limits: OnceLock<Limits>,
    /// The time when a request first noticed the signal.
    signalled_at: OnceLock<Instant>,
    /// The failures since the last response.
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Limits {
    stop: watch::Receiver<bool>,
    deadline: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Outage {
    since: Instant,
    last_failure: Instant,
    is_logged: bool,
}

fn patience() -> Duration {
    failpoint::store_patience().unwrap_or(PATIENCE)
}

/// Returns an outage unless its last failure is old: the run needed no store since, and this one may be over.
fn current(outage: Option<Outage>, now: Instant) -> Option<Outage> {
    outage.filter(|outage| now.duration_since(outage.last_failure) < patience())
}

impl Patience {
    /// Sets the signal and the deadline of the run that uses the store.
    pub(super) fn set_limits(&self, stop: watch::Receiver<bool>, deadline: Option<Instant>) {
        // A store is used by one run, so its limits never change.
        self.0.limits.get_or_init(|| Limits { stop, deadline });
    }

    /// Runs `work`, at most until some seconds after a signal.
    async fn until_signal<T>(
        &self,
        work: impl Future<Output = Result<T, HttpError>>,
    ) -> Result<T, HttpError> {
        tokio::select! {
            biased;
            result = work => result,
            () = self.signal_passed() => Err(GaveUp::Interrupted.into()),
        }
    }

    async fn signal_passed(&self) {
        let Some(limits) = self.0.limits.get() else {
            return std::future::pending().await;
        };
        let mut stop = limits.stop.clone();
        if stop.wait_for(|stopped| *stopped).await.is_err() {
            // A closed channel cannot signal any more.
            return std::future::pending().await;
        }
        let signalled_at = *self.0.signalled_at.get_or_init(Instant::now);
        sleep_until(signalled_at + AFTER_SIGNAL).await;
    }

    /// Returns when the retries of a request end that began at `began` and fails since `since`.
    fn end(&self, began: Instant, since: Instant) -> Instant {
        let end = since + patience();
        match self.0.limits.get().and_then(|limits| limits.deadline) {
            Some(deadline) => end.min(deadline.max(began + AFTER_DEADLINE)),
            None => end,
        }
    }

    /// Returns the time within which a request that begins now must be answered. An outage has time for two such
    /// attempts, and afterwards for a short one.
    fn response_time(&self) -> Duration {
        let now = Instant::now();
        let since = current(*mutex::lock(&self.0.outage), now).map_or(now, |outage| outage.since);
        let left = self.end(now, since).duration_since(now);
        (left / 2).max(patience() / 12)
    }

    fn record_response(&self) {
        let outage = mutex::lock(&self.0.outage).take();
        if outage.is_some_and(|outage| outage.is_logged) {
            tracing::info!("the store responds again");
        }
    }

    /// Records a failure that began at `since`, and logs the outage once. Returns the start of the outage.
    fn record_failure(&self, since: Instant, cause: &str) -> Instant {
        tracing::debug!("a request to the store failed: {cause}");
        let now = Instant::now();
        let mut outage = mutex::lock(&self.0.outage);
        let mut known = current(*outage, now).unwrap_or(Outage {
            since,
            last_failure: now,
            is_logged: false,
        });
        known.last_failure = now;
        if !known.is_logged && now.duration_since(known.since) >= LOGGED_OUTAGE {
            known.is_logged = true;
            let seconds = patience().as_secs();
            tracing::warn!("the store is unavailable; retrying for up to {seconds} s: {cause}");
        }
        *outage = Some(known);
        known.since
    }
}

impl HttpConnector for Patience {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let http = ReqwestConnector::default().connect(options)?;
        let patience = self.clone();
        Ok(HttpClient::new(Client { http, patience }))
    }
}

/// A client that retries.
#[derive(Debug)]
struct Client {
    http: HttpClient,
    patience: Patience,
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = async {
            if is_for_metadata(&request) {
                self.request_credentials(request).await
            } else {
                self.request(request).await
            }
        };
        self.patience.until_signal(response).await
    }
}

impl Client {
    /// Sends a request until its response is complete, a failure is permanent, or the patience ends.
    async fn request(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let server = request.uri().authority().map(ToString::to_string);
        let server = server.unwrap_or_default();
        let (began, limit) = (Instant::now(), self.patience.response_time());
        let mut first_failure = None;
        let mut attempts = 1;
        loop {
            let attempt_began = Instant::now();
            let cause = match attempt(&self.http, request.clone(), limit).await {
                Ok(response) => {
                    self.patience.record_response();
                    return Ok(response);
                }
                Err(Failure::Permanent(error)) => return Err(error),
                Err(Failure::Transient(cause)) => format!("{server}: {cause}"),
            };
            let now = Instant::now();
            // A long transfer may have failed in its last seconds only.
            let since = attempt_began.max(now - limit);
            let since = *first_failure.get_or_insert(since);
            let since = since.min(self.patience.record_failure(since, &cause));
            let end = self.patience.end(began, since);
            if now >= end {
                let seconds = now.duration_since(since).as_secs();
                return Err(GaveUp::Unavailable { seconds, cause }.into());
            }
            sleep_until(end.min(now + delay(attempts))).await;
            attempts += 1;
        }
    }

    /// Sends a request to the metadata service. Without a response it is missing, and not away for a while.
    async fn request_credentials(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let end = Instant::now() + METADATA_PATIENCE;
        let mut attempts = 1;
        loop {
            match attempt(&self.http, request.clone(), METADATA_PATIENCE).await {
                Ok(response) => return Ok(response),
                Err(Failure::Permanent(error)) => return Err(error),
                Err(Failure::Transient(cause)) if Instant::now() >= end => {
                    return Err(GaveUp::NoCredentials { cause }.into());
                }
                Err(Failure::Transient(_)) => {
                    sleep_until(end.min(Instant::now() + delay(attempts))).await;
                }
            }
            attempts += 1;
        }
    }
}

/// The failure of one attempt.
enum Failure {
    /// Another attempt may succeed.
    Transient(String),
    /// Every attempt would fail.
    Permanent(HttpError),
}

impl Failure {
    fn of(error: HttpError) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref());
        let is_invalid =
            cause.is_some_and(|cause: &reqwest::Error| cause.is_builder() || cause.is_redirect());
        let text = chain(&error);
        // The libraries below have no kinds for these errors.
        let is_tls = ["certificate", "corrupt message"].map(|part| text.contains(part));
        if is_invalid || is_tls.contains(&true) {
            Self::Permanent(error)
        } else {
            Self::Transient(text)
        }
    }
}

/// Sends a request once, and receives the complete response.
async fn attempt(
    http: &HttpClient,
    request: HttpRequest,
    limit: Duration,
) -> Result<HttpResponse, Failure> {
    let is_post = request.method() == Method::POST;
    let time = limit + transfer_time(request.headers());
    let response = within(time, http.execute(request)).await?;
    let (parts, body) = response.map_err(Failure::of)?.into_parts();
    let time = limit + transfer_time(&parts.headers);
    let body = within(time, body.bytes()).await?;
    let body = body.map_err(|error| {
        Failure::Transient(format!("the response broke off: {}", chain(&error)))
    })?;
    if is_transient(parts.status, is_post, &body) {
        let status = parts.status;
        let start: String = String::from_utf8_lossy(&body).chars().take(300).collect();
        return Err(Failure::Transient(format!("{status} {start}")));
    }
    Ok(HttpResponse::from_parts(parts, body.into()))
}

async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Result<T, Failure> {
    let result = timeout(time, work).await;
    let seconds = time.as_secs();
    result.map_err(|_| Failure::Transient(format!("no response within {seconds} s")))
}

/// Returns whether a request is for the metadata service of a cloud. It has such an address in every cloud; Google and
/// Azure want such a header.
fn is_for_metadata(request: &HttpRequest) -> bool {
    let host = request.uri().host().map(str::parse::<Ipv4Addr>);
    matches!(host, Some(Ok(ip)) if ip.is_link_local())
        || ["metadata-flavor", "metadata"].map(|name| request.headers().contains_key(name))
            != [false; 2]
}

/// Returns whether the same request may succeed later.
fn is_transient(status: StatusCode, is_post: bool, body: &[u8]) -> bool {
    let has = |part: &str| String::from_utf8_lossy(body).contains(part);
    let has_code = |code: &str| has(&format!("<Code>{code}</Code>"));
    match status.as_u16() {
        // A deletion of several objects reports failures in its body. S3 has codes, Azure one response for each object.
        200 => is_post && (has_code("InternalError") || has_code("SlowDown")),
        202 => is_post && (has("HTTP/1.1 5") || has("HTTP/1.1 429")),
        400 => has_code("RequestTimeout"),
        408 | 425 | 429 => true,
        // Not implemented, an unsupported version of HTTP, a full disk.
        501 | 505 | 507 => false,
        status => status >= 500,
    }
}

/// Returns the time that the body of a request or a response may take.
fn transfer_time(headers: &HeaderMap) -> Duration {
    let length = headers.get(CONTENT_LENGTH);
    let bytes: Option<u64> = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let mebibytes = bytes.unwrap_or_default() >> 20;
    TIME_PER_MIB * u32::try_from(mebibytes).unwrap_or(u32::MAX)
}

/// Returns the time before the attempt after `attempts` failed ones, with jitter.
fn delay(attempts: u32) -> Duration {
    let bound = FIRST_DELAY * (1 << attempts.min(6)) / 2;
    bound.min(MAX_DELAY).mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;

    use super::*;

    /// A store that does not respond for a while, in one of several ways.
    #[derive(Debug)]
    struct Away {
        until: Instant,
        how: How,
        calls: Arc<AtomicU32>,
    }

    #[derive(Clone, Copy, Debug)]
    enum How {
        Broken,
        Hanging,
        /// Breaks after a long transfer.
        Late,
        Status(u16, &'static str),
    }

    fn response(status: u16, body: &'static str) -> HttpResponse {
        let mut response = HttpResponse::new(Bytes::from_static(body.as_bytes()).into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    #[async_trait]
    impl HttpService for Away {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            self.calls.fetch_add(1, Ordering::SeqCst);
            if Instant::now() >= self.until {
                return Ok(response(200, "here"));
            }
            match self.how {
                How::Broken | How::Late => {
                    let seconds = if matches!(self.how, How::Late) {
                        200
                    } else {
                        0
                    };
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
                    Err(HttpError::new(HttpErrorKind::Interrupted, reset))
                }
                How::Hanging => std::future::pending().await,
                How::Status(status, body) => Ok(response(status, body)),
            }
        }
    }

    struct Tried {
        result: Result<StatusCode, Option<GaveUp>>,
        calls: u32,
        seconds: u64,
    }

    async fn try_at(url: &str, patience: &Patience, how: How, seconds: u64) -> Tried {
        let (started, calls) = (Instant::now(), Arc::new(AtomicU32::new(0)));
        let until = started + Duration::from_secs(seconds);
        let http = HttpClient::new(Away {
            until,
            how,
            calls: Arc::clone(&calls),
        });
        let client = Client {
            http,
            patience: patience.clone(),
        };
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.uri_mut() = url.parse().unwrap();
        if matches!(how, How::Late) {
            let length = (300_u64 << 20).into();
            request.headers_mut().insert(CONTENT_LENGTH, length);
        }
        let result = client.call(request).await;
        Tried {
            result: result
                .map(|response| response.status())
                .map_err(|error| GaveUp::of(&error).cloned()),
            calls: calls.load(Ordering::SeqCst),
            seconds: started.elapsed().as_secs(),
        }
    }

    async fn try_for(patience: &Patience, how: How, seconds: u64) -> Tried {
        try_at("http://store:9000/b", patience, how, seconds).await
    }

    const FOREVER: u64 = 1_000_000;

    const AWAY: [How; 4] = [
        How::Broken,
        How::Hanging,
        How::Status(503, "<Code>SlowDown</Code>"),
        How::Status(400, "<Code>RequestTimeout</Code>"),
    ];

    #[tokio::test(start_paused = true)]
    async fn requests_survive_an_outage() {
        for how in AWAY {
            let tried = try_for(&Patience::default(), how, 29).await;
            assert_eq!(tried.result, Ok(StatusCode::OK), "{how:?}");
            assert!((2..20).contains(&tried.calls), "{how:?}: {}", tried.calls);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn long_transfers_are_retried() {
        let tried = try_for(&Patience::default(), How::Late, 200).await;
        assert_eq!((tried.result, tried.calls), (Ok(StatusCode::OK), 2));
    }

    #[tokio::test(start_paused = true)]
    async fn store_that_stays_away_is_given_up() {
        for how in AWAY {
            let patience = Patience::default();
            let first = try_for(&patience, how, FOREVER).await;
            assert!(
                matches!(first.result, Err(Some(GaveUp::Unavailable { .. }))),
                "{how:?}: {:?}",
                first.result
            );
            assert!((60..62).contains(&first.seconds), "{how:?}");
            let second = try_for(&patience, how, FOREVER).await;
            assert!(
                second.seconds <= 5,
                "{how:?} took {} s again",
                second.seconds
            );
            tokio::time::sleep(PATIENCE).await;
            let later = try_for(&patience, how, 10).await;
            assert_eq!(later.result, Ok(StatusCode::OK), "a new outage: {how:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn permanent_failures_are_not_retried() {
        for status in [301, 400, 401, 403, 404, 409, 412, 416, 501, 507] {
            let how = How::Status(status, "<Code>AccessDenied</Code>");
            let tried = try_for(&Patience::default(), how, FOREVER).await;
            assert_eq!(tried.result.map(|status| status.as_u16()), Ok(status));
            assert_eq!(tried.calls, 1, "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn signal_and_deadline_end_the_retries() {
        for how in AWAY {
            let (_signal, stop) = watch::channel(true);
            let patience = Patience::default();
            patience.set_limits(stop, None);
            let tried = try_for(&patience, how, FOREVER).await;
            assert_eq!(tried.result, Err(Some(GaveUp::Interrupted)), "{how:?}");
            assert_eq!(tried.seconds, AFTER_SIGNAL.as_secs(), "{how:?}");

            let (_signal, stop) = watch::channel(false);
            let patience = Patience::default();
            patience.set_limits(stop, Some(Instant::now()));
            let tried = try_for(&patience, how, FOREVER).await;
            assert!(tried.seconds <= 10, "{how:?} took {} s", tried.seconds);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn missing_metadata_service_is_no_outage() {
        let patience = Patience::default();
        let url = "http://169.254.169.254/latest/api/token";
        let tried = try_at(url, &patience, How::Hanging, FOREVER).await;
        let expected = matches!(tried.result, Err(Some(GaveUp::NoCredentials { .. })));
        assert!(expected && tried.seconds <= 10, "{:?}", tried.result);
    }

    #[test]
    fn metadata_services_are_known_by_address_or_header() {
        let request = |url: &str, header: Option<&'static str>| {
            let mut request = HttpRequest::new(Bytes::new().into());
            *request.uri_mut() = url.parse().unwrap();
            let value = "true".parse().unwrap();
            header.map(|name| request.headers_mut().insert(name, value));
            is_for_metadata(&request)
        };
        assert!(request("http://169.254.170.2/v2/credentials", None));
        let google = "http://metadata.google.internal/computeMetadata/v1/instance";
        assert!(request(google, Some("metadata-flavor")));
        assert!(request(
            "http://localhost:41741/msi/token",
            Some("metadata")
        ));
        assert!(!request("https://account.blob.core.windows.net/c/x", None));
    }

    #[test]
    fn deletions_report_failures_in_their_body() {
        let body = b"<Error><Code>SlowDown</Code></Error>";
        assert!(is_transient(StatusCode::OK, true, body));
        assert!(!is_transient(StatusCode::OK, false, body));
        let part = |status| format!("--batch\r\nContent-ID: 0\r\n\r\nHTTP/1.1 {status}\r\n");
        for (status, expected) in [
            ("503 Server Busy", true),
            ("429 Too Many Requests", true),
            ("202 Accepted", false),
            ("404 The specified blob does not exist.", false),
            ("403 This request is not authorized.", false),
        ] {
            let body = part(status);
            let found = is_transient(StatusCode::ACCEPTED, true, body.as_bytes());
            assert_eq!(found, expected, "{status}");
        }
    }
}
