//! The client of one Harness account, with one method per endpoint.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method};
use secrecy::{ExposeSecret, SecretString};
use tracing::warn;
use url::Url;

use crate::causes::chain;
use crate::drift::Drift;
use crate::failpoint::hurried;
use crate::ids::{AccountId, OrgId, Scope};
use crate::pii::Redactor;
use crate::scan::{Scanner, Value};
use crate::window::Window;

use super::body;
use super::canonical;
use super::clock::ServerClock;
use super::counts::{Counters, RequestCounts};
use super::error::{Endpoint, Resource, SourceError};
use super::http::{DecodeError, Http, Request, Response};
use super::key_check::KeyCheck;
use super::listing::{Element, ListPage, OrgEntry, ProjectEntry};
use super::page::Page;
use super::retry::{RetryPolicy, RetryState};
use super::silence::Silence;
use super::throttle::Throttle;
use super::wire::{ExecutionsQuery, members, missing, scan};

/// Elements per page of a list: the largest size that every server accepts.
pub const LIST_LIMIT: usize = 100;

/// The drift key of a list with fewer elements than announced.
const LIST_TOTAL: &str = "X-Total-Elements";

/// Maximum pages of a list, in case a server never ends it.
const MAX_LIST_PAGES: usize = 1_000;

/// Maximum reads of a list that has fewer elements than announced.
const MAX_LIST_READS: usize = 2;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The timeout of lists and probes: several fit into the patience of a run.
const SMALL_TIMEOUT: Duration = Duration::from_secs(20);

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ACCOUNT: HeaderName = HeaderName::from_static("harness-account");

/// The settings of a [`Client`].
pub struct SourceSettings {
    /// The root of the API. It is used unchanged: no `/gateway` is added.
    pub base_url: Url,
    /// The account.
    pub account: AccountId,
    /// The key.
    pub api_key: SecretString,
    /// Maximum requests per minute, including retries.
    pub requests_per_minute: NonZeroU32,
    /// Maximum concurrent requests.
    pub concurrency: NonZeroU32,
    /// The limits of retries.
    pub retry: RetryPolicy,
    /// The timeout of one attempt, including its body.
    pub request_timeout: Duration,
    /// PEM certificates to trust in addition to those of the system.
    pub ca_certificate: Option<Vec<u8>>,
    /// The local clock, for responses without a date.
    pub clock: fn() -> Timestamp,
}

/// A client of one Harness account. All tasks of a run share it, since they share one request budget.
///
/// The future of every method can be dropped at any time; only the decoding of a page then continues.
pub struct Client {
    http: Http,
    base_url: Url,
    retry: RetryPolicy,
    /// The timeout of requests with a small response.
    small_timeout: Duration,
    redactor: Redactor,
    drift: Mutex<Drift>,
    key_check: KeyCheck,
}

impl Client {
    /// Creates a client. Sends no request.
    ///
    /// # Errors
    ///
    /// [`SourceError::InvalidKey`], [`SourceError::InvalidAccount`] or
    /// [`SourceError::InvalidBaseUrl`] for invalid settings, and [`SourceError::Setup`] if TLS cannot be
    /// set up with these certificates.
    pub fn new(settings: SourceSettings) -> Result<Self, SourceError> {
        let mut base_url = settings.base_url;
        if !matches!(base_url.scheme(), "http" | "https") || base_url.cannot_be_a_base() {
            return Err(SourceError::InvalidBaseUrl);
        }
        base_url.set_query(None);
        base_url.set_fragment(None);
        let concurrency = usize::try_from(settings.concurrency.get()).unwrap_or(usize::MAX);
        let certificates = match &settings.ca_certificate {
            Some(pem) => Certificate::from_pem_bundle(pem).map_err(SourceError::Setup)?,
            None => Vec::new(),
        };
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("harness-lake/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(&settings.api_key, &settings.account)?)
            .redirect(Policy::none())
            // Another crate may turn these features on.
            .no_gzip()
            .no_zstd()
            .timeout(settings.request_timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(concurrency);
        if !certificates.is_empty() {
            client = client.tls_certs_merge(certificates);
        }
        Ok(Self {
            http: Http {
                client: client.build().map_err(SourceError::Setup)?,
                api_key: settings.api_key,
                account: settings.account,
                throttle: Throttle::new(settings.requests_per_minute, settings.concurrency),
                counters: Counters::default(),
                clock: settings.clock,
                server_clock: ServerClock::default(),
                silence: Silence::default(),
            },
            base_url,
            retry: settings.retry,
            small_timeout: settings.request_timeout.min(hurried(SMALL_TIMEOUT)),
            redactor: Redactor::Keep,
            drift: Mutex::default(),
            key_check: KeyCheck::default(),
        })
    }

    /// Sets the time of the newest observation in the lake, which bounds the times of later ones.
    pub fn set_newest_observation(&self, newest: Option<Timestamp>) {
        self.http.server_clock.set_newest_observation(newest);
    }

    /// Sets the redaction of personal data in executions, which happens before any other code sees them.
    #[must_use]
    pub fn with_redactor(self, redactor: Redactor) -> Self {
        Self { redactor, ..self }
    }

    /// Lists the organizations that are visible to the key, sorted by identifier. An empty list may mean
    /// missing permissions.
    pub async fn orgs(&self) -> Result<Vec<OrgEntry>, SourceError> {
        let resource = resource(Endpoint::Orgs, None);
        let orgs = self.list(&resource, &["v1", "orgs"], "org").await?;
        Ok(orgs.into_iter().map(Element::into_org).collect())
    }

    /// Lists the projects of `org` that are visible to the key, sorted by identifier. An empty list may mean
    /// missing permissions.
    pub async fn projects(&self, org: &OrgId) -> Result<Vec<ProjectEntry>, SourceError> {
        let resource = resource(Endpoint::Projects, Some(org.to_string()));
        let path = ["v1", "orgs", org.as_str(), "projects"];
        let projects = self.list(&resource, &path, "project").await?;
        let project = |element: Element| element.into_project(org);
        Ok(projects.into_iter().map(project).collect())
    }

    /// Reads one page of the executions of a scope, oldest `startTs` first, with every attempt of every
    /// execution.
    ///
    /// # Errors
    ///
    /// [`SourceError::TooDeep`] beyond 10,000 rows of a window, [`SourceError::PageGone`] if rows were
    /// deleted during the read; see also [`SourceError::wants_smaller_page`].
    pub async fn executions(&self, query: &ExecutionsQuery<'_>) -> Result<Page, SourceError> {
        self.executions_after(query, RetryState::default()).await
    }

    /// Reads the oldest execution of a window, and so the total number of executions.
    ///
    /// # Errors
    ///
    /// As [`Client::executions`].
    pub async fn count(&self, scope: &Scope, window: Window) -> Result<Page, SourceError> {
        self.count_after(scope, window, RetryState::default()).await
    }

    /// Counts a window as [`Client::count`] does, unless the source is probably down.
    ///
    /// # Errors
    ///
    /// [`SourceError::Outage`], and as [`Client::executions`].
    pub async fn count_unless_down(
        &self,
        scope: &Scope,
        window: Window,
    ) -> Result<Page, SourceError> {
        self.require_answers()?;
        self.count(scope, window).await
    }

    /// Counts a window as [`Client::count`] does, and counts earlier failures as attempts of this request.
    ///
    /// # Errors
    ///
    /// As [`Client::executions`].
    pub async fn count_after(
        &self,
        scope: &Scope,
        window: Window,
        retry_state: RetryState,
    ) -> Result<Page, SourceError> {
        let query = ExecutionsQuery {
            scope,
            window,
            ids: &[],
            page: 0,
            size: 1,
        };
        self.executions_after(&query, retry_state).await
    }

    /// Reads one page, and counts earlier failures as attempts of this request: smaller pages of one window
    /// share the retry limits.
    ///
    /// # Errors
    ///
    /// As [`Client::executions`].
    pub async fn executions_after(
        &self,
        query: &ExecutionsQuery<'_>,
        retry_state: RetryState,
    ) -> Result<Page, SourceError> {
        self.request_executions(query, retry_state, None).await
    }

    async fn request_executions(
        &self,
        query: &ExecutionsQuery<'_>,
        retry_state: RetryState,
        timeout: Option<Duration>,
    ) -> Result<Page, SourceError> {
        let mut url = self.url(&["pipeline", "api", "pipelines", "execution", "summary"]);
        url.query_pairs_mut()
            .append_pair("accountIdentifier", self.http.account.as_str())
            .extend_pairs(query.parameters());
        let request = Request {
            resource: resource(Endpoint::Executions, Some(query.scope.to_string())),
            method: Method::POST,
            url,
            body: Some(Bytes::from(query.body().to_string())),
            retry: self.retry,
            timeout,
            allows_smaller_page: query.size > 1,
            retry_state,
        };
        let scope = canonical::ScopeHash::new(query.scope);
        let redactor = self.redactor.clone();
        let decode = move |response: &_| Page::decode(response, scope, &redactor);
        let page = self.send(request, decode).await?;
        self.key_check.executions_answered();
        Ok(page)
    }

    /// Sends a request. A 401 that concerns only its resource becomes [`SourceError::Rejected`].
    async fn send<T, D>(&self, request: Request, decode: D) -> Result<T, SourceError>
    where
        T: Send + 'static,
        D: Fn(&Response) -> Result<T, DecodeError> + Clone + Send + 'static,
    {
        // Boxed, so that the futures of the callers stay small.
        match Box::pin(self.http.send(request, decode)).await {
            Err(SourceError::Unauthorized { resource, message })
                if resource.endpoint != Endpoint::Orgs
                    && self.key_check.is_due()
                    && Box::pin(self.first_org()).await.is_ok() =>
            {
                Err(SourceError::Rejected {
                    resource,
                    status: 401,
                    code: String::new(),
                    message,
                })
            }
            outcome => outcome,
        }
    }

    /// Requests one organization, which succeeds with every valid key.
    async fn first_org(&self) -> Result<(), SourceError> {
        let mut url = self.url(&["v1", "orgs"]);
        url.query_pairs_mut()
            .append_pair("page", "0")
            .append_pair("limit", "1");
        let request = Request {
            retry_state: self.attempts_left(1),
            ..self.get(resource(Endpoint::Orgs, None), url)
        };
        let decode = |response: &_| ListPage::decode(response, "org");
        self.http.send(request, decode).await.map(|_| ())
    }

    /// Returns the retry state of a request that may fail `left` times.
    pub fn attempts_left(&self, left: u32) -> RetryState {
        self.retry.attempts_left(left)
    }

    /// Requests once what must be empty, since it lies in the future, to learn whether the source answers for a
    /// scope at all.
    ///
    /// # Errors
    ///
    /// As [`Client::executions`].
    pub async fn probe(&self, scope: &Scope) -> Result<(), SourceError> {
        const DISTANCE: SignedDuration = SignedDuration::from_hours(24);
        const LENGTH: SignedDuration = SignedDuration::from_mins(1);
        let from = self.now().unwrap_or_else(self.http.clock) + DISTANCE;
        let Ok(window) = Window::new(from, from + LENGTH) else {
            return Ok(());
        };
        let query = ExecutionsQuery {
            scope,
            window,
            ids: &[],
            page: 0,
            size: 1,
        };
        let (attempt, timeout) = (self.attempts_left(1), Some(self.small_timeout));
        let response = self.request_executions(&query, attempt, timeout).await;
        response.map(|_| ())
    }

    /// Returns the failed attempts since the last answer to any request, and the time since the first of them.
    pub fn silence(&self) -> Option<(u32, Duration)> {
        self.http.silence.failures()
    }

    /// Returns the number of answered requests so far.
    pub fn answers(&self) -> u64 {
        self.http.silence.answers()
    }

    /// Returns the time without an answer after which the source may be down.
    pub fn patience(&self) -> Duration {
        self.retry.patience
    }

    /// Returns an error if the source is probably down: it has not answered any request for a while.
    ///
    /// # Errors
    ///
    /// [`SourceError::Outage`].
    fn require_answers(&self) -> Result<(), SourceError> {
        match self.silence() {
            Some((failures, time)) if time >= self.retry.patience => {
                Err(SourceError::Outage { failures })
            }
            _ => Ok(()),
        }
    }

    /// Returns whether the retry limits allow another request.
    pub fn may_retry(&self, state: RetryState) -> bool {
        self.retry.allows(state)
    }

    /// Reads the retention period of executions in months. `None` if unknown.
    ///
    /// # Errors
    ///
    /// [`SourceError::Unauthorized`] only.
    pub async fn retention_months(&self) -> Result<Option<u32>, SourceError> {
        let account = self.http.account.as_str();
        let request = Request {
            retry: RetryPolicy {
                attempts: self.retry.attempts.min(2),
                ..self.retry
            },
            ..self.get(
                resource(Endpoint::Retention, None),
                self.url(&["pipeline", "api", "pipelines", "retention", account]),
            )
        };
        let months = self.send(request, |response| {
            let mut scanner = Scanner::default();
            let document = scan(&response.body, &mut scanner)?;
            let [months] =
                members(document.root(), ["resource"]).ok_or_else(|| missing("object"))?;
            Ok(months
                .and_then(Value::integer)
                .and_then(|months| u32::try_from(months).ok()))
        });
        match months.await {
            Ok(months) => Ok(months.filter(|months| *months > 0)),
            Err(error) if error.is_unauthorized() => Err(error),
            Err(error) => {
                warn!(error = chain(&error), "the retention period is unknown");
                Ok(None)
            }
        }
    }

    /// Returns the latest trusted `Date` of the responses.
    pub fn now(&self) -> Option<Timestamp> {
        self.http.now()
    }

    /// Returns the number of requests so far.
    pub fn counts(&self) -> RequestCounts {
        self.http.counters.read()
    }

    /// Returns the drift of the lists read so far. A page has its own drift.
    pub fn drift(&self) -> Drift {
        let drift = self.drift.lock();
        drift.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns whether every list had as many elements as announced.
    pub fn lists_are_complete(&self) -> bool {
        !self.drift().odd_values.contains_key(LIST_TOTAL)
    }

    /// Reads a list to its end. Reads it once more if it has fewer elements than announced: an element may
    /// have moved between pages.
    async fn list(
        &self,
        resource: &Resource,
        path: &[&str],
        inner: &'static str,
    ) -> Result<Vec<Element>, SourceError> {
        let (mut found, mut skipped, mut missing) = (BTreeMap::new(), 0, None);
        for _ in 0..MAX_LIST_READS {
            let read = self.read_list(resource, path, inner).await?;
            skipped = read.skipped;
            found.extend(read.elements);
            let received = found.len() as u64 + skipped;
            missing = read.total.filter(|total| *total > received);
            let Some(total) = missing else { break };
            warn!(%resource, received, total, "the list has fewer elements than announced");
        }
        let mut drift = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(total) = missing {
            let received = found.len();
            drift.odd_value(
                LIST_TOTAL,
                &format!("{total} {resource}, received {received}"),
            );
        }
        (0..skipped).for_each(|_| drift.odd_value(&format!("{inner}.identifier"), "(none)"));
        Ok(found.into_values().collect())
    }

    async fn read_list(
        &self,
        resource: &Resource,
        path: &[&str],
        inner: &'static str,
    ) -> Result<ListRead, SourceError> {
        let mut read = ListRead::default();
        let mut received = 0;
        for page in 0..MAX_LIST_PAGES {
            let mut url = self.url(path);
            // The default order is by last change, so elements would move between pages.
            url.query_pairs_mut()
                .append_pair("page", &page.to_string())
                .append_pair("limit", &LIST_LIMIT.to_string())
                .append_pair("sort", "identifier")
                .append_pair("order", "ASC");
            let request = self.get(resource.clone(), url);
            let decode = move |response: &_| ListPage::decode(response, inner);
            let next = self.send(request, decode).await?;
            let before = read.elements.len() as u64 + read.skipped;
            received += next.received as u64;
            read.skipped += next.skipped;
            read.total = next.total.or(read.total);
            let elements = next.elements.into_iter();
            read.elements
                .extend(elements.map(|element| (element.id.clone(), element)));
            // A server may repeat the same page forever.
            let is_new = read.elements.len() as u64 + read.skipped > before;
            let is_last = match read.total {
                Some(total) => received >= total,
                None => next.received < LIST_LIMIT,
            };
            if is_last || !is_new {
                break;
            }
        }
        Ok(read)
    }

    fn get(&self, resource: Resource, url: Url) -> Request {
        Request {
            resource,
            method: Method::GET,
            url,
            body: None,
            retry: self.retry,
            timeout: Some(self.small_timeout),
            allows_smaller_page: false,
            retry_state: RetryState::default(),
        }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .expect("`new` rejects a base URL that cannot have a path")
            .pop_if_empty()
            .extend(path);
        url
    }
}

/// The result of reading a list once.
#[derive(Default)]
struct ListRead {
    elements: BTreeMap<String, Element>,
    /// Elements without an identifier.
    skipped: u64,
    /// The announced number of elements.
    total: Option<u64>,
}

fn resource(endpoint: Endpoint, within: Option<String>) -> Resource {
    Resource { endpoint, within }
}

fn headers(api_key: &SecretString, account: &AccountId) -> Result<HeaderMap, SourceError> {
    let header = |text: &str| HeaderValue::from_str(text).ok().filter(|it| !it.is_empty());
    let mut key = header(api_key.expose_secret()).ok_or(SourceError::InvalidKey)?;
    key.set_sensitive(true);
    let account = header(account.as_str()).ok_or(SourceError::InvalidAccount)?;
    let json = HeaderValue::from_static("application/json");
    Ok(HeaderMap::from_iter([
        (API_KEY, key),
        (ACCOUNT, account),
        (ACCEPT, json.clone()),
        (CONTENT_TYPE, json),
        (ACCEPT_ENCODING, HeaderValue::from_static(body::ACCEPTED)),
    ]))
}
