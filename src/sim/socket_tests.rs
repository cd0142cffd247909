//! What only a socket shows: headers, limits, broken bodies.

use std::sync::Arc;

use jiff::SignedDuration;
use tokio::net::TcpListener;

use super::*;

fn account() -> Account {
    Account::generate(&AccountSpec::small("2026-11-24T15:00:00Z".parse().unwrap()))
}

async fn serve(options: ServerOptions) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Server::start(Arc::new(account()), options, listener)
        .await
        .unwrap()
}

fn request(server: &Server) -> reqwest::RequestBuilder {
    let url = format!("{}/v1/orgs?limit=100", server.base_url());
    reqwest::Client::new()
        .get(url)
        .header("x-api-key", server.api_key())
        .header("Harness-Account", server.account().id().as_str())
}

#[tokio::test]
async fn a_real_client_gets_the_simulated_date() {
    let server = serve(ServerOptions::new(&account())).await;
    server.clock().advance(SignedDuration::from_hours(1));
    let response = request(&server).send().await.unwrap();
    assert_eq!(response.headers()["date"], "Tue, 24 Nov 2026 16:00:00 GMT");
    assert_eq!(response.headers()["x-total-elements"], "3");
    assert!(response.text().await.unwrap().starts_with("[{"));
    assert_eq!(server.requests().by_endpoint[&Endpoint::Orgs], 1);
    assert_eq!(
        server.requests().log[0].query,
        [("limit".to_owned(), "100".to_owned())]
    );
    server.shutdown().await;
}

#[tokio::test]
async fn too_many_requests_are_throttled() {
    let options = ServerOptions {
        requests_per_minute: Some(2),
        ..ServerOptions::new(&account())
    };
    let server = serve(options).await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(request(&server).send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429, 400, 429]);
}

#[tokio::test]
async fn broken_bodies_are_broken() {
    let server = serve(ServerOptions::new(&account())).await;
    for kind in [FaultKind::TruncatedBody, FaultKind::ResetMidBody] {
        server.faults().times(1, Match::any(), kind.clone());
        let response = request(&server).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.text().await.is_err(), "{kind:?}");
    }
    for (kind, status, start) in [
        (FaultKind::Html200, 200, "<!DOCTYPE"),
        (FaultKind::Status(502), 502, "<!DOCTYPE"),
        (FaultKind::Status(500), 500, "{"),
        (FaultKind::MalformedJson, 200, "[{"),
        (FaultKind::EmptyBody, 200, ""),
        (
            FaultKind::TooManyRequests {
                retry_after: Some(3),
            },
            429,
            "{",
        ),
        (FaultKind::TooManyRequestsAs400, 400, "{"),
        (FaultKind::Unauthorized, 401, "{"),
    ] {
        server.faults().times(1, Match::any(), kind.clone());
        let response = request(&server).send().await.unwrap();
        assert_eq!(response.status(), status, "{kind:?}");
        assert!(response.headers().contains_key("date"));
        assert!(
            response.text().await.unwrap().starts_with(start),
            "{kind:?}"
        );
    }
    assert!(
        request(&server)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .ends_with("}]")
    );
}
