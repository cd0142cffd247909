//! Serves a simulated account over HTTP.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use jiff::SignedDuration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_http::compression::{CompressionLayer, CompressionLevel};

use super::Vintage;
use super::account::Account;
use super::clock::Clock;
use super::faults::{FaultKind, Faults};
use super::request::{ApiError, ApiRequest, Endpoint};
use super::routes::{Backend, RowFault};
use super::transport;
use crate::scope::Scope;

/// The behaviour of a server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The version of the server.
    pub vintage: Vintage,
    /// The key with all permissions. With `norights` as its last part it sees nothing; with
    /// `forbidden` it sees organizations and projects, but no executions.
    pub api_key: String,
    /// The maximum number of requests within 60 real seconds; further ones are answered with 429.
    pub requests_per_minute: Option<u32>,
    /// The delay of each response.
    pub latency: Duration,
    /// The simulated clock.
    pub clock: Clock,
    /// Paging ends after 10,000 rows, as in some accounts. Older servers have no such cap.
    pub row_cap: bool,
}

impl ServerOptions {
    /// Returns options for today's server without limits, with a clock fixed at the account's
    /// `now`.
    pub fn new(account: &Account) -> Self {
        Self {
            vintage: Vintage::Saas,
            api_key: format!("pat.{}.sim.secret", account.id()),
            requests_per_minute: None,
            latency: Duration::ZERO,
            clock: Clock::fixed(account.spec().now),
            row_cap: true,
        }
    }
}

/// A running server. Dropping it stops it.
pub struct Server {
    inner: Arc<Inner>,
    base_url: String,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The requests that a server received.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// Number of requests by endpoint, including rejected ones.
    pub by_endpoint: BTreeMap<Endpoint, u64>,
    /// The last requests, at most 10,000, oldest first.
    pub log: VecDeque<LoggedRequest>,
}

/// One request as received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedRequest {
    /// `GET` or `POST`.
    pub method: String,
    /// As sent, percent-encoded.
    pub path: String,
    /// Decoded, in order.
    pub query: Vec<(String, String)>,
    /// The body's text.
    pub body: String,
}

struct Inner {
    account: Arc<Account>,
    options: ServerOptions,
    faults: Faults,
    requests: Mutex<Requests>,
    forbidden: Mutex<BTreeSet<Scope>>,
    recent: Mutex<VecDeque<Instant>>,
}

const LOG: usize = 10_000;
const BODY_BYTES: usize = 4 << 20;

impl Server {
    /// Serves an account on a listener until the server is dropped or shut down.
    ///
    /// # Errors
    ///
    /// Fails if the listener has no address.
    #[expect(
        clippy::unused_async,
        reason = "spawning needs a runtime, so callers must be async"
    )]
    pub async fn start(
        account: impl Into<Arc<Account>>,
        options: ServerOptions,
        listener: TcpListener,
    ) -> std::io::Result<Self> {
        let account = account.into();
        let base_url = format!("http://{}", listener.local_addr()?);
        let forbidden = account.forbidden_scope().into_iter().collect();
        let inner = Arc::new(Inner {
            account,
            options,
            faults: Faults::default(),
            requests: Mutex::default(),
            forbidden: Mutex::new(forbidden),
            recent: Mutex::default(),
        });
        let router = Router::new()
            .fallback(serve)
            .layer(CompressionLayer::new().quality(CompressionLevel::Fastest))
            .with_state(Arc::clone(&inner));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
        #[expect(
            clippy::disallowed_methods,
            reason = "the server must outlive `start`; `Server` ends the task"
        )]
        let task = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::warn!(%error, "the simulated server failed");
            }
        });
        Ok(Self {
            inner,
            base_url,
            stop,
            task,
        })
    }

    /// Returns `http://` and the address, without a trailing slash.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Returns the key with all permissions.
    pub fn api_key(&self) -> &str {
        &self.inner.options.api_key
    }

    /// Returns the simulated clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.options.clock
    }

    /// Returns the simulated account.
    pub fn account(&self) -> &Arc<Account> {
        &self.inner.account
    }

    /// Returns the faults to inject.
    pub fn faults(&self) -> &Faults {
        &self.inner.faults
    }

    /// Returns the requests received so far.
    pub fn requests(&self) -> Requests {
        lock(&self.inner.requests).clone()
    }

    /// Clears the recorded requests.
    pub fn clear_requests(&self) {
        *lock(&self.inner.requests) = Requests::default();
    }

    /// Answers 403 to summary requests for a project from now on.
    pub fn forbid(&self, scope: Scope) {
        lock(&self.inner.forbidden).insert(scope);
    }

    /// Answers summary requests for a project again, even for the account's forbidden project.
    pub fn allow(&self, scope: &Scope) {
        lock(&self.inner.forbidden).remove(scope);
    }

    /// Stops the server and waits until all connections are closed.
    pub async fn shutdown(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(State(inner): State<Arc<Inner>>, http_request: Request) -> Response {
    let (parts, body) = http_request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES).await else {
        let error = ApiError::new(413, "INVALID_REQUEST", "HTTP 413 Request Entity Too Large");
        return transport::error_response(&error, Endpoint::Unknown, &inner.options.clock);
    };
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    let request = ApiRequest {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: url::form_urlencoded::parse(query).into_owned().collect(),
        key: text(&parts.headers, "x-api-key"),
        account: text(&parts.headers, "harness-account"),
        content_type: text(&parts.headers, header::CONTENT_TYPE.as_str()),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    inner.log(&request);
    if inner.options.latency != Duration::ZERO {
        tokio::time::sleep(inner.options.latency).await;
    }
    inner.respond(&request)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

impl Inner {
    fn log(&self, request: &ApiRequest) {
        let mut requests = lock(&self.requests);
        *requests.by_endpoint.entry(request.endpoint()).or_default() += 1;
        if requests.log.len() == LOG {
            requests.log.pop_front();
        }
        requests.log.push_back(LoggedRequest {
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            body: request.body.clone(),
        });
    }

    fn respond(&self, request: &ApiRequest) -> Response {
        let (endpoint, clock) = (request.endpoint(), &self.options.clock);
        if let Some(over) = self.over_limit() {
            // The real service answers in three forms: 429, 400 with the code, and HTML from a
            // gateway.
            return match over % 5 {
                3 => transport::error_response(&ApiError::throttled(400), endpoint, clock),
                4 => transport::html(429, clock),
                _ => transport::error_response(&ApiError::throttled(429), endpoint, clock),
            };
        }
        let fault = self.faults.take_match(request);
        if let Some(response) = fault
            .as_ref()
            .and_then(|fault| transport::replacement(fault, endpoint, clock))
        {
            return response;
        }
        let lag = match fault {
            Some(FaultKind::StaleAnswer(lag)) => SignedDuration::try_from(lag).unwrap_or_default(),
            _ => SignedDuration::ZERO,
        };
        if let Some(FaultKind::TimePasses(time)) = &fault {
            clock.advance(SignedDuration::try_from(*time).unwrap_or_default());
        }
        let now = clock.now();
        let forbidden = lock(&self.forbidden).clone();
        let backend = Backend {
            account: &self.account,
            vintage: self.options.vintage,
            row_cap: self.options.row_cap,
            now: now.saturating_sub(lag).unwrap_or(now),
            api_key: &self.options.api_key,
            forbidden: &forbidden,
            row_fault: fault.as_ref().map_or(RowFault::None, FaultKind::row_fault),
        };
        match backend.respond(request) {
            Ok(answer) => {
                let fault = self.faults.poison_in(&answer.body).or(fault);
                let replacement = fault
                    .as_ref()
                    .and_then(|fault| transport::replacement(fault, endpoint, clock));
                replacement
                    .unwrap_or_else(|| transport::success_response(answer, fault.as_ref(), clock))
            }
            Err(error) => transport::error_response(&error, endpoint, clock),
        }
    }

    /// Returns the number of requests over the limit; `None` within the limit.
    fn over_limit(&self) -> Option<usize> {
        let limit = usize::try_from(self.options.requests_per_minute?).unwrap_or(usize::MAX);
        let mut recent = lock(&self.recent);
        let now = Instant::now();
        let minute = Duration::from_mins(1);
        while recent.front().is_some_and(|first| now - *first >= minute) {
            recent.pop_front();
        }
        recent.push_back(now);
        recent.len().checked_sub(limit + 1)
    }
}
