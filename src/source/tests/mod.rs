//! Tests of the client against a server on a real socket.

mod server;

use std::io::Write;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use super::*;
use crate::causes::chain;
use crate::ids::{AccountId, OrgId, Scope};
use crate::window::{Window, from_ms};
use server::{Response, Server};

const KEY: &str = "pat.account-of-tests.token.very-secret";
const ACCOUNT: &str = "account-of-tests";
const PAGE: &str = r#"{"status":"SUCCESS","data":{"content":[{"planExecutionId":"e1","startTs":1700000000000,"status":"Success"}],"totalElements":1}}"#;
const HTML: &str = "<!doctype html><title>Sign in</title>";
const DENIED: &str = r#"{"status":"ERROR","code":"NG_ACCESS_DENIED","message":"no"}"#;
const BAD_TOKEN: &str =
    r#"{"status":"ERROR","code":"INVALID_TOKEN","message":"Token is not valid."}"#;

/// `PAGE`, compressed with `gzip -9`.
const GZIPPED: &[u8] =
    b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4d\x8c\xb1\x0a\x02\x31\x10\x05\xff\
\xe5\xd5\x29\xbc\x4a\x48\x7b\xa4\xb8\x3a\x5a\x89\xc5\x92\xdb\xe2\x20\x26\x62\x5e\x40\x08\xf9\x77\
\xd7\x4a\xa7\x9e\x99\x81\x46\x61\x6f\xf0\x88\xd7\x75\x0d\x31\xc2\x61\x17\x0a\xfc\x40\xaa\x85\x5a\
\x08\x7f\x1b\x78\x66\x29\xe1\xad\xa9\xf3\xa8\x65\xdb\xcd\xd7\xc5\x54\xab\x5f\xbc\x58\xbe\x9c\x4f\
\x3f\xdc\xdf\xb5\xa7\xa4\xad\x61\xde\x1d\x58\x29\x39\x64\x7d\xd8\xf4\x9b\xcc\xf9\x01\x93\x6a\xdd\
\x87\x7f\x00\x00\x00";

fn settings(server: &Server) -> SourceSettings {
    SourceSettings {
        base_url: server.url(),
        account: AccountId::new(ACCOUNT),
        api_key: KEY.into(),
        requests_per_minute: 600_000.try_into().unwrap(),
        concurrency: 4.try_into().unwrap(),
        retry: RetryPolicy {
            first_delay: Duration::from_millis(1),
            ..RetryPolicy::default()
        },
        request_timeout: Duration::from_secs(10),
        ca_certificate: None,
        clock: || Timestamp::UNIX_EPOCH,
    }
}

fn client(server: &Server) -> Client {
    Client::new(settings(server)).unwrap()
}

async fn page(client: &Client, size: u32) -> Result<Page, SourceError> {
    let query = ExecutionsQuery {
        scope: &Scope::new("default", "web$1"),
        window: Window::new(from_ms(1_000), from_ms(2_000)).unwrap(),
        ids: &[],
        page: 0,
        size,
    };
    client.executions(&query).await
}

/// Reads a page from a server with these responses; returns the outcome and the number of requests.
async fn outcome(
    responses: impl IntoIterator<Item = Response>,
) -> (Result<Page, SourceError>, usize) {
    let server = Server::start(responses);
    let outcome = page(&client(&server), 100).await;
    (outcome, server.requests().len())
}

#[tokio::test]
async fn page_request_has_all_parameters_and_headers() {
    let server = Server::start([Response::new(200, PAGE)]);
    let rows = page(&client(&server), 100).await.unwrap().rows;
    assert_eq!(rows[0].id.as_str(), "e1");
    let request = server.requests().remove(0);
    let (line, rest) = request.split_once("\r\n").unwrap();
    assert_eq!(
        line,
        "POST /pipeline/api/pipelines/execution/summary?accountIdentifier=account-of-tests\
         &orgIdentifier=default&projectIdentifier=web%241&page=0&size=100&sort=startTs%2CASC\
         &showAllExecutions=true HTTP/1.1"
    );
    for header in [
        format!("x-api-key: {KEY}"),
        format!("harness-account: {ACCOUNT}"),
        "content-type: application/json".to_owned(),
        concat!("user-agent: harness-lake/", env!("CARGO_PKG_VERSION")).to_owned(),
    ] {
        assert!(rest.lines().any(|line| line == header), "{header}");
    }
    assert!(rest.contains(r#""startTime":1000"#) && rest.contains(r#""endTime":1999"#));
}

#[tokio::test]
async fn temporary_failures_are_retried() {
    for (failure, first) in [
        (
            "a throttled page",
            Response::new(429, "").header("retry-after", "0"),
        ),
        ("HTML under a 200", Response::new(200, HTML)),
        ("a truncated body", Response::new(200, &PAGE[..40]).cut(80)),
        ("truncated JSON", Response::new(200, &PAGE[..80])),
        ("no content", Response::new(200, r#"{"status":"SUCCESS"}"#)),
        ("an empty body", Response::new(200, "")),
        ("502 of a gateway", Response::new(502, HTML)),
        (
            "500 of the server",
            Response::new(500, r#"{"code":"UNKNOWN_ERROR"}"#),
        ),
        ("one 401", Response::new(401, BAD_TOKEN)),
        (
            "a throttling code",
            Response::new(400, r#"{"code":"TOO_MANY_REQUESTS"}"#),
        ),
        (
            "a throttling code under 200",
            Response::new(200, r#"{"status":"ERROR","code":"TOO_MANY_REQUESTS"}"#),
        ),
    ] {
        let (outcome, requests) = outcome([first, Response::new(200, PAGE)]).await;
        assert_eq!(outcome.unwrap().rows.len(), 1, "{failure}");
        assert_eq!(requests, 2, "{failure}");
    }
}

#[tokio::test]
async fn permanent_failures_are_not_retried() {
    let too_deep = r#"{"status":"ERROR","code":"INVALID_REQUEST","message":"Please add more filters to page through more than 10000 records"}"#;
    let gone = r#"{"status":"ERROR","code":"INVALID_REQUEST","message":"The execution data seems to have been deleted, please reduce the page no. to a valid page"}"#;
    let refused = r#"{"status":"ERROR","code":"INVALID_REQUEST","message":"no"}"#;
    for (response, expected) in [
        (Response::new(403, DENIED), "Forbidden"),
        (Response::new(400, too_deep), "TooDeep"),
        (Response::new(400, gone), "PageGone"),
        (Response::new(400, refused), "Rejected"),
        (Response::new(200, refused), "Rejected"),
        (
            Response::new(302, HTML).header("location", "/v1/orgs"),
            "Rejected",
        ),
    ] {
        let (outcome, requests) = outcome([response, Response::new(200, PAGE)]).await;
        let error = outcome.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?}");
        assert_eq!(requests, 1, "{expected}");
    }
}

#[tokio::test]
async fn second_401_is_final() {
    let refused = Response::new(401, BAD_TOKEN);
    // The last one is for an organization, to learn if the key works at all.
    let (outcome, requests) = outcome(vec![refused; 3]).await;
    assert!(outcome.unwrap_err().is_unauthorized());
    assert_eq!(requests, 3);
}

#[tokio::test]
async fn second_401_of_one_resource_does_not_condemn_the_key() {
    let refused = Response::new(401, BAD_TOKEN);
    let orgs = Response::new(200, r#"[{"org":{"identifier":"default"}}]"#);
    let server = Server::start([refused.clone(), refused, orgs]);
    let error = page(&client(&server), 100).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Rejected { status: 401, .. }),
        "{error:?}"
    );
    assert!(error.may_concern_single_rows());
    assert!(server.requests()[2].starts_with("GET /v1/orgs?page=0&limit=1 "));
}

#[tokio::test]
async fn blocked_responses_may_concern_single_rows() {
    let refused = r#"{"status":"ERROR","code":"NEW_CODE","message":"no"}"#;
    for (status, body) in [
        (200, refused),
        (204, ""),
        (304, ""),
        (302, HTML),
        (403, HTML),
        (404, refused),
        (404, HTML),
        (418, refused),
        (451, HTML),
    ] {
        let (outcome, _) = outcome(vec![Response::new(status, body); 9]).await;
        let error = outcome.unwrap_err();
        assert!(error.may_concern_single_rows(), "{status}: {error:?}");
    }
    let (outcome, _) = outcome([Response::new(403, DENIED)]).await;
    assert!(!outcome.unwrap_err().may_concern_single_rows());
}

#[tokio::test]
async fn html_403_is_unavailable_not_forbidden() {
    let (outcome, requests) = outcome(vec![Response::new(403, HTML); 9]).await;
    let error = outcome.unwrap_err();
    assert!(error.is_unavailable() && !error.is_forbidden(), "{error:?}");
    assert_eq!(requests, 6);
}

#[tokio::test]
async fn slow_page_fails_early_to_be_reduced() {
    let slow = Response::new(200, PAGE).after(Duration::from_millis(400));
    let server = Server::start(vec![slow; 2]);
    let client = Client::new(SourceSettings {
        request_timeout: Duration::from_millis(40),
        ..settings(&server)
    });
    let error = page(&client.unwrap(), 1_000).await.unwrap_err();
    assert!(
        error.wants_smaller_page() && error.is_unavailable(),
        "{error:?}"
    );
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn observation_has_server_time_or_local_time() {
    let server = Server::start([
        Response::new(200, PAGE),
        Response::new(200, PAGE).header("date", "Tue, 24 Nov 2026 10:00:00 GMT"),
        Response::new(200, PAGE).header("date", "Tue, 24 Nov 2026 09:00:00 GMT"),
    ]);
    let client = client(&server);
    let ten: Timestamp = "2026-11-24T10:00:00Z".parse().unwrap();
    let nine = "2026-11-24T09:00:00Z".parse().unwrap();
    // The local clock of these tests is decades behind.
    client.set_newest_observation(Some(ten));
    for (observed, now) in [
        (Timestamp::UNIX_EPOCH, None),
        (ten, Some(ten)),
        (nine, Some(ten)),
    ] {
        assert_eq!(page(&client, 100).await.unwrap().observed, observed);
        assert_eq!(client.now(), now);
    }
}

#[tokio::test]
async fn compressed_page_is_read() {
    let response = Response::new(200, GZIPPED).header("content-encoding", "gzip");
    let (outcome, _) = outcome([response]).await;
    assert_eq!(outcome.unwrap().bytes, PAGE.len());
}

#[tokio::test]
async fn page_of_two_gzip_members_is_read() {
    let (first, second) = PAGE.split_at(PAGE.len() / 2);
    let pack = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let response = Response::new(200, [pack(first), pack(second)].concat());
    let (outcome, requests) = outcome([response.header("content-encoding", "gzip")]).await;
    assert_eq!((outcome.unwrap().bytes, requests), (PAGE.len(), 1));
}

#[tokio::test]
async fn invalid_utf8_and_byte_order_mark_cost_no_row() {
    let mark = format!("\u{feff}{PAGE}").into_bytes();
    let mut invalid = PAGE
        .replace("\"Success\"", "\"Success\",\"name\":\"b?d\"")
        .into_bytes();
    let at = invalid.iter().position(|byte| *byte == b'?').unwrap();
    invalid[at] = 0xff;
    for (body, is_invalid) in [(mark, false), (invalid, true)] {
        let (page, requests) = outcome([Response::new(200, body)]).await;
        let page = page.unwrap();
        assert_eq!((page.rows.len(), requests), (1, 1));
        assert_eq!(!page.drift.is_empty(), is_invalid);
        let summary = str::from_utf8(&page.rows[0].summary).unwrap();
        assert_eq!(summary.contains("b\u{fffd}d"), is_invalid, "{summary}");
    }
}

#[tokio::test]
async fn large_page_keeps_row_order() {
    let rows: Vec<_> = (0..3_000)
        .map(|n| format!(r#"{{"planExecutionId":"e{n}","startTs":1700000000000}}"#))
        .collect();
    let body = format!(r#"{{"data":{{"content":[{}]}}}}"#, rows.join(","));
    let (outcome, _) = outcome([Response::new(200, body)]).await;
    let page = outcome.unwrap();
    assert!(
        page.rows
            .iter()
            .map(|row| &row.summary[..])
            .eq(rows.iter().map(String::as_bytes))
    );
    assert_eq!(page.total, None);
}

#[tokio::test]
async fn rate_limit_makes_all_requests_wait() {
    let server = Server::start([
        Response::new(429, ""),
        Response::new(200, "[]"),
        Response::new(200, "[]"),
    ]);
    let client = Client::new(SourceSettings {
        retry: RetryPolicy {
            first_delay: Duration::from_millis(200),
            ..RetryPolicy::default()
        },
        ..settings(&server)
    })
    .unwrap();
    let other = async {
        while client.counts().rate_limited == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let started = Instant::now();
        client.projects(&OrgId::new("default")).await.unwrap();
        started.elapsed()
    };
    let (orgs, waited) = tokio::join!(client.orgs(), other);
    assert_eq!(orgs.unwrap(), []);
    assert!(waited > Duration::from_millis(80), "{waited:?}");
    let counts = client.counts();
    assert_eq!(
        (counts.total, counts.retried, counts.rate_limited),
        (3, 1, 1)
    );
    assert_eq!(
        (counts.by_endpoint.orgs, counts.by_endpoint.projects),
        (2, 1)
    );
}

fn orgs(ids: impl IntoIterator<Item = u32>) -> String {
    let org = |n| format!(r#"{{"org":{{"identifier":"o{n:03}"}}}}"#);
    let orgs: Vec<_> = ids.into_iter().map(org).collect();
    format!("[{}]", orgs.join(","))
}

#[tokio::test]
async fn list_is_read_to_its_end() {
    for (what, responses, expected) in [
        ("a short page", vec![orgs(0..100), orgs(100..130)], 130),
        ("an empty page", vec![orgs(0..100), orgs(0..0)], 100),
        ("a page that repeats", vec![orgs(0..100), orgs(0..100)], 100),
        ("a row on two pages", vec![orgs(0..100), orgs(99..120)], 120),
    ] {
        let requests = responses.len();
        let server = Server::start(responses.into_iter().map(|body| Response::new(200, body)));
        let found = client(&server).orgs().await.unwrap();
        assert_eq!(found.len(), expected, "{what}");
        assert_eq!(server.requests().len(), requests, "{what}");
        let page = server.requests().last().unwrap().clone();
        assert!(page.starts_with("GET /v1/orgs?page=1&limit=100&sort=identifier&order=ASC "));
    }
}

#[tokio::test]
async fn list_shorter_than_announced_is_read_again() {
    let total = |ids| Response::new(200, orgs(ids)).header("x-total-elements", "101");
    // One org moves from the second page to the first after the first was read.
    let server = Server::start([
        total(0..100),
        total(99..100),
        total(0..100),
        total(100..101),
    ]);
    let complete = client(&server);
    assert_eq!(complete.orgs().await.unwrap().len(), 101);
    assert_eq!(server.requests().len(), 4);
    assert!(complete.lists_are_complete());
    // A server repeats one page forever: the list is read, and reported as incomplete.
    let server = Server::start([total(0..100), total(0..100), total(0..100), total(0..100)]);
    let short = client(&server);
    assert_eq!(short.orgs().await.unwrap().len(), 100);
    assert!(!short.lists_are_complete());
    let drift = &short.drift().odd_values["X-Total-Elements"];
    assert!(
        drift
            .example
            .contains("101 orgs (GET /v1/orgs), received 100"),
        "{drift:?}"
    );
}

#[tokio::test]
async fn elements_without_identifier_are_counted() {
    let server = Server::start([Response::new(
        200,
        r#"[{"project":{"name":"x"}},{"project":{"identifier":"web"}}]"#,
    )]);
    let client = client(&server);
    let projects = client.projects(&OrgId::new("default")).await.unwrap();
    assert_eq!(projects[0].id.as_str(), "web");
    assert_eq!(client.drift().odd_values["project.identifier"].count, 1);
    assert!(server.requests()[0].starts_with("GET /v1/orgs/default/projects?"));
}

#[tokio::test]
async fn retention_is_read_or_unknown() {
    let not_found = Response::new(404, HTML);
    for (responses, expected) in [
        (
            vec![Response::new(200, r#"{"metaData":null,"resource":6}"#)],
            Some(6),
        ),
        (vec![Response::new(200, r#"{"resource":"12"}"#)], Some(12)),
        (vec![Response::new(200, r#"{"resource":0}"#)], None),
        (vec![Response::new(200, r#"{"resource":null}"#)], None),
        (vec![Response::new(403, DENIED)], None),
        (vec![not_found.clone(), not_found], None),
    ] {
        let server = Server::start(responses);
        let client = client(&server);
        assert_eq!(client.retention_months().await.unwrap(), expected);
        assert_eq!(client.counts().total, server.requests().len() as u64);
    }
    let server = Server::start(vec![Response::new(401, BAD_TOKEN); 3]);
    let refused = client(&server).retention_months().await;
    assert!(refused.unwrap_err().is_unauthorized());
}

#[tokio::test]
async fn errors_contain_neither_key_nor_account() {
    let echo = format!("<html>x-api-key: {KEY} of /pipeline?accountIdentifier={ACCOUNT}</html>");
    let json = format!(r#"{{"code":"{KEY}","message":"{ACCOUNT} {KEY}"}}"#);
    let mut errors = Vec::new();
    for response in [
        Response::new(502, echo),
        Response::new(404, json),
        Response::new(200, &PAGE[..30]).cut(9),
    ] {
        errors.push(outcome(vec![response; 6]).await.0.unwrap_err());
    }
    let server = Server::start([]);
    let unreachable = Client::new(SourceSettings {
        base_url: "http://127.0.0.1:1/".parse().unwrap(),
        ..settings(&server)
    });
    errors.push(page(&unreachable.unwrap(), 100).await.unwrap_err());
    for error in errors {
        let text = format!("{error:?} {}", chain(&error));
        assert!(
            !text.contains("secret") && !text.contains(ACCOUNT),
            "{text}"
        );
        assert!(
            text.contains("executions of default/web$1 (POST /pipeline"),
            "{text}"
        );
    }
}

const BROKEN: &[u8] = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

#[test]
fn request_futures_are_send() {
    fn assert_send<T: Send>(future: T) -> T {
        future
    }
    let server = Server::start([]);
    let client = client(&server);
    let org = OrgId::new("default");
    drop((
        assert_send(page(&client, 1)),
        assert_send(client.orgs()),
        assert_send(client.projects(&org)),
        assert_send(client.retention_months()),
    ));
}

#[test]
fn invalid_settings_are_rejected() {
    let server = Server::start([]);
    let rejected = |change: fn(&mut SourceSettings)| {
        let mut settings = settings(&server);
        change(&mut settings);
        Client::new(settings)
            .err()
            .map(|error| format!("{error:?}"))
    };
    assert_eq!(
        rejected(|s| s.api_key = "a\nb".into()).unwrap(),
        "InvalidKey"
    );
    assert_eq!(rejected(|s| s.api_key = "".into()).unwrap(), "InvalidKey");
    assert_eq!(
        rejected(|s| s.account = AccountId::new("")).unwrap(),
        "InvalidAccount"
    );
    assert_eq!(
        rejected(|s| s.base_url = "file:///x".parse().unwrap()).unwrap(),
        "InvalidBaseUrl"
    );
    assert!(
        rejected(|s| s.ca_certificate = Some(BROKEN.to_vec()))
            .unwrap()
            .starts_with("Setup")
    );
}
