//! The client: base URL, key and account; one method an endpoint.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Method};
use secrecy::{ExposeSecret, SecretString};
use tracing::warn;
use url::Url;

use crate::causes::chain;
use crate::drift::Drift;
use crate::ids::{AccountId, OrgId, Scope};
use crate::pii::Treatment;
use crate::scan::{Scanner, Value};
use crate::window::Window;

use super::canonical;
use super::clock::ServerClock;
use super::counts::{Counters, RequestCounts};
use super::error::{Endpoint, Place, SourceError};
use super::http::{Http, Request};
use super::listing::{Element, ListPage, OrgEntry, ProjectEntry};
use super::page::Page;
use super::retry::{RetryPolicy, RetryState};
use super::throttle::Throttle;
use super::wire::{ExecutionsQuery, members, missing, scan};

/// Elements asked for in one page of a list: what every server allows, whichever text is right.
pub const LIST_LIMIT: usize = 100;

/// How drift names a total of a list that its elements do not come up to.
const LIST_TOTAL: &str = "X-Total-Elements";

/// Pages of a list after which it is taken to repeat for ever.
const LIST_PAGES: usize = 1_000;

/// Times that a list is read, where fewer elements came than were announced.
const LIST_READS: usize = 2;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const ACCOUNT: HeaderName = HeaderName::from_static("harness-account");

/// Where to ask, as whom, and how politely.
pub struct SourceSettings {
    /// The API's root, taken as it stands: no `/gateway` is added.
    pub base_url: Url,
    /// The account.
    pub account: AccountId,
    /// The key.
    pub api_key: SecretString,
    /// The ceiling of the whole run, retries included.
    pub requests_per_minute: NonZeroU32,
    /// The most requests under way at once.
    pub concurrency: NonZeroU32,
    /// How often, and how patiently, a request is tried.
    pub retry: RetryPolicy,
    /// The deadline of one attempt, its body included; 60 s is usual.
    pub request_timeout: Duration,
    /// Certificates in PEM that are trusted besides those of the system.
    pub ca_certificate: Option<Vec<u8>>,
    /// The local time, for answers that tell none.
    pub clock: fn() -> Timestamp,
}

/// A connection to one Harness account, shared by all tasks of a run, since the budget is one.
///
/// Every method can be dropped at any time; nothing of it goes on but the decoding of a page.
pub struct Client {
    http: Http,
    base_url: Url,
    retry: RetryPolicy,
    treatment: Treatment,
    drift: Mutex<Drift>,
}

impl Client {
    /// Builds a client; no request is made.
    ///
    /// # Errors
    ///
    /// [`SourceError::InvalidKey`], [`SourceError::InvalidAccount`] or
    /// [`SourceError::InvalidBaseUrl`] for settings that cannot be sent, and
    /// [`SourceError::Setup`] where TLS cannot be set up with these certificates.
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
            },
            base_url,
            retry: settings.retry,
            treatment: Treatment::Keep,
            drift: Mutex::default(),
        })
    }

    /// The same client, which treats personal data in executions before anyone else sees them.
    #[must_use]
    pub fn treating(self, treatment: Treatment) -> Self {
        Self { treatment, ..self }
    }

    /// Lists the organizations that the key may see, by identifier. An empty list may mean missing
    /// rights.
    pub async fn orgs(&self) -> Result<Vec<OrgEntry>, SourceError> {
        let place = place(Endpoint::Orgs, None);
        let orgs = self.list(&place, &["v1", "orgs"], "org").await?;
        Ok(orgs.into_iter().map(Element::into_org).collect())
    }

    /// Lists the projects of `org` that the key may see, by identifier. An empty list may mean
    /// missing rights.
    pub async fn projects(&self, org: &OrgId) -> Result<Vec<ProjectEntry>, SourceError> {
        let place = place(Endpoint::Projects, Some(org.to_string()));
        let path = ["v1", "orgs", org.as_str(), "projects"];
        let projects = self.list(&place, &path, "project").await?;
        let project = |element: Element| element.into_project(org);
        Ok(projects.into_iter().map(project).collect())
    }

    /// Asks for one page of the executions of a scope, oldest `startTs` first: every attempt of
    /// every execution, on both vintages of the server.
    ///
    /// # Errors
    ///
    /// [`SourceError::TooDeep`] beyond 10,000 rows of a window, [`SourceError::PageGone`] where
    /// rows vanished meanwhile; see also [`SourceError::wants_smaller_page`].
    pub async fn executions(&self, query: &ExecutionsQuery<'_>) -> Result<Page, SourceError> {
        self.executions_after(query, RetryState::default()).await
    }

    /// Asks for the oldest execution of a window, and so for how many it holds.
    ///
    /// # Errors
    ///
    /// As [`Client::executions`].
    pub async fn count(&self, scope: &Scope, window: Window) -> Result<Page, SourceError> {
        let query = ExecutionsQuery {
            scope,
            window,
            ids: &[],
            page: 0,
            size: 1,
        };
        self.executions(&query).await
    }

    /// The same after requests that failed, and that count as attempts at this one: pages of one
    /// window that are asked for in ever smaller sizes share one patience.
    ///
    /// # Errors
    ///
    /// As [`Client::executions`].
    pub async fn executions_after(
        &self,
        query: &ExecutionsQuery<'_>,
        tried: RetryState,
    ) -> Result<Page, SourceError> {
        let mut url = self.url(&["pipeline", "api", "pipelines", "execution", "summary"]);
        url.query_pairs_mut()
            .append_pair("accountIdentifier", self.http.account.as_str())
            .extend_pairs(query.parameters());
        let ask = Request {
            place: place(Endpoint::Executions, Some(query.scope.to_string())),
            method: Method::POST,
            url,
            body: Some(Bytes::from(query.body().to_string())),
            retry: self.retry,
            can_shrink: 1 < query.size,
            tried,
        };
        let scope = canonical::of_scope(query.scope);
        let treatment = self.treatment.clone();
        let decode = move |answer: &_| Page::decode(answer, scope, &treatment);
        self.http.send(ask, decode).await
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
        let response = self.executions_after(&query, self.attempts_left(1)).await;
        response.map(|_| ())
    }

    /// Whether a further request may follow those that failed.
    pub fn has_patience(&self, tried: RetryState) -> bool {
        self.retry.allows(tried)
    }

    /// Asks for how many months executions are kept. `None` where the server does not tell.
    ///
    /// # Errors
    ///
    /// [`SourceError::Unauthorized`] only.
    pub async fn retention_months(&self) -> Result<Option<u32>, SourceError> {
        let account = self.http.account.as_str();
        let ask = Request {
            retry: RetryPolicy {
                attempts: self.retry.attempts.min(2),
                ..self.retry
            },
            ..self.get(
                place(Endpoint::Retention, None),
                self.url(&["pipeline", "api", "pipelines", "retention", account]),
            )
        };
        let months = self.http.send(ask, |answer| {
            let mut scanner = Scanner::default();
            let document = scan(&answer.body, &mut scanner)?;
            let [months] =
                members(document.root(), ["resource"]).ok_or_else(|| missing("object"))?;
            Ok(months
                .and_then(Value::integer)
                .and_then(|months| u32::try_from(months).ok()))
        });
        match months.await {
            Ok(months) => Ok(months.filter(|months| 0 < *months)),
            Err(error) if error.is_unauthorized() => Err(error),
            Err(error) => {
                warn!(error = chain(&error), "the retention is not known");
                Ok(None)
            }
        }
    }

    /// The latest time that the server told, in the `Date` header of any answer.
    pub fn now(&self) -> Option<Timestamp> {
        self.http.now()
    }

    /// Requests made so far.
    pub fn counts(&self) -> RequestCounts {
        self.http.counters.read()
    }

    /// What was odd about the lists so far; a page tells its own.
    pub fn drift(&self) -> Drift {
        let drift = self.drift.lock();
        drift.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether every list held as many elements as were announced.
    pub fn lists_are_whole(&self) -> bool {
        !self.drift().odd_values.contains_key(LIST_TOTAL)
    }

    /// Reads a list to its end, once more where fewer elements came than were announced: one may
    /// have slipped from page to page.
    async fn list(
        &self,
        place: &Place,
        path: &[&str],
        inner: &'static str,
    ) -> Result<Vec<Element>, SourceError> {
        let (mut found, mut skipped, mut missing) = (BTreeMap::new(), 0, None);
        for _ in 0..LIST_READS {
            let read = self.read_list(place, path, inner).await?;
            skipped = read.skipped;
            found.extend(read.elements);
            let known = found.len() as u64 + skipped;
            missing = read.total.filter(|total| known < *total);
            let Some(total) = missing else { break };
            warn!(%place, known, total, "the list holds less than was announced");
        }
        let mut drift = self.drift.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(total) = missing {
            let known = found.len();
            drift.odd_value(
                LIST_TOTAL,
                &format!("{total} of {place}, which holds {known}"),
            );
        }
        (0..skipped).for_each(|_| drift.odd_value(&format!("{inner}.identifier"), "(none)"));
        Ok(found.into_values().collect())
    }

    async fn read_list(
        &self,
        place: &Place,
        path: &[&str],
        inner: &'static str,
    ) -> Result<ListRead, SourceError> {
        let mut read = ListRead::default();
        let mut received = 0;
        for page in 0..LIST_PAGES {
            let mut url = self.url(path);
            // The default order is by last change, which shifts under a reader.
            url.query_pairs_mut()
                .append_pair("page", &page.to_string())
                .append_pair("limit", &LIST_LIMIT.to_string())
                .append_pair("sort", "identifier")
                .append_pair("order", "ASC");
            let ask = self.get(place.clone(), url);
            let decode = move |answer: &_| ListPage::decode(answer, inner);
            let next = self.http.send(ask, decode).await?;
            let known = read.elements.len() as u64 + read.skipped;
            received += next.received as u64;
            read.skipped += next.skipped;
            read.total = next.total.or(read.total);
            let elements = next.elements.into_iter();
            read.elements
                .extend(elements.map(|element| (element.id.clone(), element)));
            // A server that gives the same page for ever brings nothing new.
            let is_new = known < read.elements.len() as u64 + read.skipped;
            let is_last = match read.total {
                Some(total) => total <= received,
                None => next.received < LIST_LIMIT,
            };
            if is_last || !is_new {
                break;
            }
        }
        Ok(read)
    }

    fn get(&self, place: Place, url: Url) -> Request {
        Request {
            place,
            method: Method::GET,
            url,
            body: None,
            retry: self.retry,
            can_shrink: false,
            tried: RetryState::default(),
        }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base_url.clone();
        url.path_segments_mut()
            .expect("`new` refuses a base URL that cannot have a path")
            .pop_if_empty()
            .extend(path);
        url
    }
}

/// A list as one reading found it.
#[derive(Default)]
struct ListRead {
    elements: BTreeMap<String, Element>,
    /// Elements without an identifier.
    skipped: u64,
    /// Elements that were announced.
    total: Option<u64>,
}

fn place(endpoint: Endpoint, of: Option<String>) -> Place {
    Place { endpoint, of }
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
    ]))
}
