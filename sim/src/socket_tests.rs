//! Tests over a real socket: headers, limits, broken bodies.

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
        .header("Harness-Account", server.account().id())
}

#[tokio::test]
async fn client_receives_the_simulated_date() {
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
async fn faults_break_the_body() {
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

async fn page(server: &Server, page: u32) -> serde_json::Value {
    let account = server.account();
    let scope = account.scopes_at(account.spec().now)[1].clone();
    let base = format!(
        "{}/pipeline/api/pipelines/execution/summary",
        server.base_url()
    );
    let page = page.to_string();
    let query = [
        ("accountIdentifier", account.id()),
        ("orgIdentifier", scope.org.as_str()),
        ("projectIdentifier", scope.project.as_str()),
        ("page", &page),
        ("size", "10"),
    ];
    let response = reqwest::Client::new()
        .post(url::Url::parse_with_params(&base, query).unwrap())
        .header("x-api-key", server.api_key())
        .header("Content-Type", "application/json")
        .body(r#"{"filterType":"PipelineExecution","timeRange":{"startTime":0,"endTime":4000000000000}}"#)
        .send()
        .await
        .unwrap();
    let text = response.text().await.unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["data"].take()
}

#[tokio::test]
async fn faults_change_the_rows_of_a_page() {
    let server = serve(ServerOptions::new(&account())).await;
    let good = [page(&server, 0).await, page(&server, 1).await];
    let bent = async |kind| {
        server.faults().times(1, Match::executions().page(1), kind);
        page(&server, 1).await
    };
    let rows = |data: &serde_json::Value| data["content"].as_array().unwrap().clone();
    let wrong = bent(FaultKind::WrongTotal(-1)).await;
    let total = |data: &serde_json::Value| data["totalElements"].as_i64().unwrap();
    assert_eq!(total(&wrong) + 1, total(&good[1]));
    assert_eq!(rows(&bent(FaultKind::DuplicateLastRow).await).len(), 11);
    assert_eq!(rows(&bent(FaultKind::RepeatPage).await), rows(&good[0]));
    assert_eq!(
        rows(&bent(FaultKind::ShiftedPage).await)[0],
        rows(&good[0])[9]
    );
    assert!(total(&bent(FaultKind::RowsVanish).await) < total(&good[1]));
    let day = std::time::Duration::from_hours(24);
    assert!(total(&bent(FaultKind::StaleAnswer(day)).await) < total(&good[1]));
    assert_eq!(
        rows(&bent(FaultKind::UnknownStatus).await)[0]["status"],
        "Frobnicating"
    );
    assert!(rows(&bent(FaultKind::ExtraField).await)[3]["brandNewField"].is_object());
    let nulls = rows(&bent(FaultKind::NullEverywhere).await);
    assert!(nulls[0]["moduleInfo"].is_null() && nulls[0]["planExecutionId"].is_string());
    let pause = std::time::Duration::from_millis(30);
    assert_eq!(bent(FaultKind::SlowBody(pause)).await, good[1]);
    assert_eq!(page(&server, 1).await, good[1]);
}
