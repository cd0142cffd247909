//! A stub of Google Cloud Storage: the part of its XML API that a lake uses, with generations and preconditions.
//!
//! It follows the documentation of the API. It has not been compared with the real store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use xxhash_rust::xxh3::xxh3_128;

/// The token that every request must have.
pub(crate) const TOKEN: &str = "testing-token";

/// The only bucket.
pub(crate) const BUCKET: &str = "bucket";

/// Objects on one page of a listing. The real store has 1,000.
const PAGE: usize = 7;

/// Puts of one object of which one is refused, as the real store does with more than one update per second.
const PUTS_PER_REFUSAL: u64 = 5;

/// A running stub; it stops when dropped.
pub(crate) struct Google {
    endpoint: String,
    _runtime: Runtime,
}

#[derive(Default)]
struct Shared {
    /// The denied permission.
    denied: String,
    objects: Mutex<Objects>,
}

#[derive(Default)]
struct Objects {
    by_path: BTreeMap<String, Object>,
    /// Puts by path.
    puts: BTreeMap<String, u64>,
    /// The newest generation.
    generation: u64,
}

#[derive(Clone)]
struct Object {
    body: Bytes,
    generation: u64,
    modified: Timestamp,
}

impl Object {
    /// Returns a hash of the content, as the real store does: equal bodies have equal tags.
    fn e_tag(&self) -> String {
        format!("\"{:032x}\"", xxh3_128(&self.body))
    }
}

impl Google {
    pub(crate) fn start() -> Self {
        Self::without(String::new())
    }

    /// Starts a stub that denies a permission, such as `storage.objects.get`.
    pub(crate) fn without(denied: String) -> Self {
        let shared = Arc::new(Shared {
            denied,
            ..Shared::default()
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(respond).with_state(shared);
        runtime.spawn(async { axum::serve(listener, app).await });
        Self {
            endpoint,
            _runtime: runtime,
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

async fn respond(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    if parts.uri.path() == "/computeMetadata/v1/instance/service-accounts/default/token" {
        let token = format!(r#"{{"access_token": "{TOKEN}", "expires_in": 3600}}"#);
        return token.into_response();
    }
    if parts.headers.get(header::AUTHORIZATION) != Some(&format!("Bearer {TOKEN}").parse().unwrap())
    {
        return failed(StatusCode::UNAUTHORIZED, "AuthenticationRequired");
    }
    let path = percent_decode_str(parts.uri.path()).decode_utf8().unwrap();
    let (bucket, path) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    if bucket != BUCKET {
        return failed(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let mut objects = shared.objects.lock().unwrap();
    let exists = objects.by_path.contains_key(path);
    let needed = match parts.method {
        Method::GET if path.is_empty() => &["storage.objects.list"][..],
        Method::GET | Method::HEAD if exists => &["storage.objects.get"],
        // Who must not list must not know, either, that an object does not exist.
        Method::GET | Method::HEAD => &["storage.objects.get", "storage.objects.list"],
        Method::PUT if exists => &["storage.objects.create", "storage.objects.delete"],
        Method::PUT => &["storage.objects.create"],
        _ => &["storage.objects.delete"],
    };
    if needed.contains(&shared.denied.as_str()) {
        return failed(StatusCode::FORBIDDEN, "AccessDenied");
    }
    match parts.method {
        Method::GET if path.is_empty() => objects.list(&parts.uri),
        Method::GET => objects.get(path, &parts.headers, true),
        Method::HEAD => objects.get(path, &parts.headers, false),
        Method::PUT => objects.put(path, &parts.headers, body),
        Method::DELETE => match objects.by_path.remove(path) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => failed(StatusCode::NOT_FOUND, "NoSuchKey"),
        },
        _ => failed(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    }
}

impl Objects {
    fn put(&mut self, path: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let puts = self.puts.entry(path.to_owned()).or_default();
        *puts += 1;
        if (*puts).is_multiple_of(PUTS_PER_REFUSAL) {
            return failed(StatusCode::TOO_MANY_REQUESTS, "SlowDown");
        }
        let current = self.by_path.get(path).map_or(0, |object| object.generation);
        let expected = headers.get("x-goog-if-generation-match");
        let expected: Option<u64> = expected.map(|value| value.to_str().unwrap().parse().unwrap());
        if expected.is_some_and(|expected| expected != current) {
            return failed(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        self.generation += 1;
        let object = Object {
            body,
            generation: self.generation,
            modified: now(),
        };
        let headers = described(&object);
        self.by_path.insert(path.to_owned(), object);
        headers.into_response()
    }

    fn get(&self, path: &str, headers: &HeaderMap, with_body: bool) -> Response {
        let Some(object) = self.by_path.get(path) else {
            return failed(StatusCode::NOT_FOUND, "NoSuchKey");
        };
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap());
        if text(header::IF_MATCH).is_some_and(|tag| tag != object.e_tag()) {
            return failed(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let described = described(object);
        if !with_body {
            let length = [(header::CONTENT_LENGTH, object.body.len())];
            return (described, length, Body::empty()).into_response();
        }
        let Some(range) = text(header::RANGE) else {
            return (described, object.body.clone()).into_response();
        };
        let (start, end) = range.trim_start_matches("bytes=").split_once('-').unwrap();
        let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
        let length = object.body.len();
        let end = end.min(length - 1);
        let range = [(
            header::CONTENT_RANGE,
            format!("bytes {start}-{end}/{length}"),
        )];
        let body = object.body.slice(start..=end);
        (StatusCode::PARTIAL_CONTENT, described, range, body).into_response()
    }

    fn list(&self, uri: &Uri) -> Response {
        let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
        let query: BTreeMap<_, _> = query.into_owned().collect();
        let text = |name: &str| query.get(name).map_or("", String::as_str);
        let prefix = text("prefix");
        let after = text("continuation-token").max(text("start-after"));
        let matching = self.by_path.iter();
        let matching =
            matching.filter(|(path, _)| path.starts_with(prefix) && path.as_str() > after);
        let page: Vec<_> = matching.take(PAGE).collect();
        let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
        for (path, object) in &page {
            write!(
                xml,
                "<Contents><Key>{path}</Key><Generation>{}</Generation><LastModified>{}</LastModified>\
                 <ETag>{}</ETag><Size>{}</Size></Contents>",
                object.generation,
                object.modified,
                object.e_tag(),
                object.body.len()
            )
            .unwrap();
        }
        if let (PAGE, Some((last, _))) = (page.len(), page.last()) {
            write!(xml, "<NextContinuationToken>{last}</NextContinuationToken>").unwrap();
        }
        xml.push_str("</ListBucketResult>");
        xml.into_response()
    }
}

fn described(object: &Object) -> [(&'static str, String); 3] {
    let modified = object.modified.strftime("%a, %d %b %Y %H:%M:%S GMT");
    [
        ("etag", object.e_tag()),
        ("x-goog-generation", object.generation.to_string()),
        ("last-modified", modified.to_string()),
    ]
}

fn failed(status: StatusCode, code: &str) -> Response {
    let body = format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code></Error>");
    (status, body).into_response()
}

#[expect(clippy::disallowed_methods, reason = "a store has its own clock")]
fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).unwrap()
}
