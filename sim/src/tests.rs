//! Tests of the server's responses without a socket.

use std::collections::{BTreeSet, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::request::{ApiError, ApiRequest, ApiResponse};
use super::routes::{Backend, RowFault};
use super::*;
use crate::scope::Scope;

fn account() -> Account {
    Account::generate(&AccountSpec::small("2026-11-24T15:00:00Z".parse().unwrap()))
}

fn key(account: &Account, secret: &str) -> String {
    format!("pat.{}.sim.{secret}", account.id())
}

fn get(account: &Account, path: &str, query: &str) -> ApiRequest {
    ApiRequest {
        method: "GET".to_owned(),
        path: path.to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect(),
        key: Some(key(account, "secret")),
        account: Some(account.id().to_string()),
        content_type: None,
        body: String::new(),
    }
}

fn summary_request(
    account: &Account,
    scope: &Scope,
    query: &str,
    body: Option<Value>,
) -> ApiRequest {
    let ids = format!(
        "accountIdentifier={}&orgIdentifier={}&projectIdentifier={}&{query}",
        account.id(),
        scope.org,
        scope.project
    );
    ApiRequest {
        method: "POST".to_owned(),
        content_type: Some("application/json".to_owned()),
        body: body.map_or_else(String::new, |body| body.to_string()),
        ..get(account, "/pipeline/api/pipelines/execution/summary", &ids)
    }
}

fn all_time() -> Value {
    json!({"startTime": 0, "endTime": 4_000_000_000_000_i64})
}

fn respond_at(
    account: &Account,
    vintage: Vintage,
    now: Timestamp,
    request: &ApiRequest,
) -> Result<ApiResponse, ApiError> {
    let forbidden: BTreeSet<Scope> = account.forbidden_scope().into_iter().collect();
    let backend = Backend {
        account,
        vintage,
        row_cap: true,
        now,
        api_key: &key(account, "secret"),
        forbidden: &forbidden,
        row_fault: RowFault::None,
    };
    backend.respond(request)
}

fn respond(
    account: &Account,
    vintage: Vintage,
    request: &ApiRequest,
) -> Result<ApiResponse, ApiError> {
    respond_at(account, vintage, account.spec().now, request)
}

fn data(answer: &ApiResponse) -> Value {
    let mut body: Value = serde_json::from_str(&answer.body).unwrap();
    body["data"].take()
}

fn ids(data: &Value) -> Vec<String> {
    let rows = data["content"].as_array().unwrap().iter();
    rows.map(|row| row["planExecutionId"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns a project with executions.
fn busy(account: &Account) -> Scope {
    account.scopes_at(account.spec().now)[1].clone()
}

#[test]
fn pages_add_up_to_the_total() {
    let account = account();
    let scope = busy(&account);
    let body = json!({"filterType": "PipelineExecution", "timeRange": all_time()});
    let mut seen = HashSet::new();
    for page in 0.. {
        let query = format!("size=7&page={page}&sort=startTs,ASC");
        let request = summary_request(&account, &scope, &query, Some(body.clone()));
        let data = data(&respond(&account, Vintage::Saas, &request).unwrap());
        seen.extend(ids(&data));
        if data["last"] == true {
            assert_eq!(data["totalElements"], seen.len());
            break;
        }
        assert_eq!(data["numberOfElements"], 7);
    }
    let now = account.spec().now;
    let truth = account.truth_where(now, Vintage::Saas, |e| account.scope_of(e, now) == scope);
    assert_eq!(truth.executions.len(), seen.len());
}

#[test]
fn time_range_includes_both_ends() {
    let account = account();
    let now = account.spec().now;
    let execution = account
        .executions_at(now)
        .find(|e| e.start_ms() < now.as_millisecond() - 60_000);
    let execution = execution.unwrap();
    let scope = account.scope_of(execution, now);
    let count = |from: i64, to: i64| {
        let range = json!({"startTime": from, "endTime": to});
        let body = json!({"filterType": "PipelineExecution", "timeRange": range});
        let request = summary_request(&account, &scope, "size=1000", Some(body));
        ids(&data(&respond(&account, Vintage::Older, &request).unwrap())).contains(&execution.id())
    };
    let start = execution.start_ms();
    assert!(count(start, start) && count(start - 5, start) && count(start, start + 5));
    assert!(!count(start - 5, start - 1) && !count(start + 1, start + 5));
}

#[test]
fn invalid_requests_are_rejected() {
    let account = account();
    let scope = busy(&account);
    let good = json!({"filterType": "PipelineExecution", "timeRange": all_time()});
    let half = json!({"filterType": "PipelineExecution", "timeRange": {"startTime": 1}});
    let text =
        json!({"filterType": "PipelineExecution", "timeRange": {"startTime": "a", "endTime": 2}});
    let mode = json!({"filterType": "PipelineExecution", "executionModeFilter": "MOST"});
    for (query, body) in [
        ("size=0", good.clone()),
        ("size=1001", good.clone()),
        ("page=-1", good.clone()),
        ("page=x", good.clone()),
        ("sort=createdAt,DESC", good.clone()),
        ("sort=startTs,UP", good.clone()),
        ("page=10&size=1000", good.clone()),
        ("pagee=1", good.clone()),
        ("showAllExecutions=yes&filterIdentifier=x", good.clone()),
        ("", json!({"timeRange": all_time()})),
        ("", json!([1])),
        ("", half),
        ("", text),
        ("", mode),
    ] {
        let request = summary_request(&account, &scope, query, Some(body.clone()));
        let error = respond(&account, Vintage::Saas, &request).unwrap_err();
        assert_eq!(
            (error.status, error.code),
            (400, "INVALID_REQUEST"),
            "{query} {body}"
        );
    }
    let mut request = summary_request(&account, &scope, "", Some(good.clone()));
    request.query.remove(1);
    assert_eq!(
        respond(&account, Vintage::Saas, &request)
            .unwrap_err()
            .status,
        400
    );
    let request = summary_request(
        &account,
        &scope,
        "sort=createdAt,DESC&page=10&size=1000",
        Some(good),
    );
    assert!(respond(&account, Vintage::Older, &request).is_ok());
}

#[test]
fn credentials_are_checked_in_order() {
    let account = account();
    let scope = busy(&account);
    let status = |request: &ApiRequest| {
        respond(&account, Vintage::Saas, request).map_or_else(|r| r.status, |_| 200)
    };
    let request = summary_request(&account, &scope, "", None);
    assert_eq!(status(&request), 200);
    let with_key = |secret: &str| ApiRequest {
        key: Some(key(&account, secret)),
        ..request.clone()
    };
    assert_eq!(status(&with_key("wrong")), 401);
    assert_eq!(status(&with_key("forbidden")), 403);
    assert_eq!(status(&with_key("norights")), 403);
    assert_eq!(
        status(&ApiRequest {
            key: None,
            ..request.clone()
        }),
        401
    );
    let other = Some("another".to_owned());
    assert_eq!(
        status(&ApiRequest {
            account: other,
            ..request.clone()
        }),
        401
    );
    let mut orgs = get(&account, "/v1/orgs", "");
    orgs.account = None;
    assert_eq!(status(&orgs), 400);
    let forbidden = account.forbidden_scope().unwrap();
    assert_eq!(
        status(&summary_request(&account, &forbidden, "", None)),
        403
    );
    assert_eq!(status(&get(&account, "/v1/organisations", "")), 404);
}

#[test]
fn lists_are_bare_arrays_filtered_by_permission() {
    let account = account();
    let mut request = get(&account, "/v1/orgs", "limit=2&sort=identifier&order=ASC");
    let orgs = respond(&account, Vintage::Saas, &request).unwrap();
    assert!(orgs.headers.contains(&("x-total-elements", "3".to_owned())));
    let rows: Value = serde_json::from_str(&orgs.body).unwrap();
    assert_eq!(rows[0]["org"]["identifier"], "default");
    assert_eq!(
        (
            rows[0]["harness_managed"].clone(),
            rows.as_array().unwrap().len()
        ),
        (true.into(), 2)
    );
    request.key = Some(key(&account, "norights"));
    assert_eq!(
        respond(&account, Vintage::Saas, &request).unwrap().body,
        "[]"
    );
    let empty = get(&account, "/v1/orgs/zz_empty/projects", "");
    assert_eq!(respond(&account, Vintage::Saas, &empty).unwrap().body, "[]");
    let too_many = get(&account, "/v1/orgs", "limit=1001");
    assert_eq!(
        respond(&account, Vintage::Saas, &too_many)
            .unwrap_err()
            .status,
        400
    );
}

#[test]
fn vintages_differ_in_rows_and_filters() {
    let account = Account::generate(&AccountSpec::demo("2026-11-24T15:00:00Z".parse().unwrap()));
    let total = |vintage, query: &str, body: Option<Value>| {
        let scopes = account.scopes_at(account.spec().now);
        scopes
            .iter()
            .map(|scope| {
                let request = summary_request(&account, scope, query, body.clone());
                let data = data(&respond(&account, vintage, &request).unwrap());
                data["totalElements"].as_i64().unwrap()
            })
            .sum::<i64>()
    };
    let all = json!({"filterType": "PipelineExecution", "timeRange": all_time()});
    let (saas, older) = (Vintage::Saas, Vintage::Older);
    let everything = total(older, "showAllExecutions=true", Some(all.clone()));
    assert!(
        total(older, "", Some(all.clone())) < everything,
        "superseded attempts are hidden"
    );
    assert!(
        total(older, "showAllExecutions=true", None) < everything,
        "children are hidden"
    );
    assert!(
        total(saas, "", Some(all.clone())) < everything,
        "pipeline rollbacks are hidden"
    );
    assert_eq!(
        total(saas, "", Some(all.clone())),
        total(saas, "showAllExecutions=true", Some(all))
    );
    let wanted = account
        .executions_at(account.spec().now)
        .next()
        .unwrap()
        .id();
    let one = json!({
        "filterType": "PipelineExecution", "timeRange": all_time(), "planExecutionIds": [wanted]
    });
    assert_eq!(total(saas, "", Some(one.clone())), 1);
    assert_eq!(
        total(older, "showAllExecutions=true", Some(one)),
        everything,
        "ids are ignored"
    );
}

#[test]
fn time_range_defaults_to_one_month() {
    let spec = AccountSpec {
        days: 90,
        ..AccountSpec::small("2026-11-24T15:00:00Z".parse().unwrap())
    };
    let account = Account::generate(&spec);
    let total = |vintage, body| {
        let request = summary_request(
            &account,
            &busy(&account),
            "showAllExecutions=true",
            Some(body),
        );
        data(&respond(&account, vintage, &request).unwrap())["totalElements"]
            .as_i64()
            .unwrap()
    };
    let bare = json!({"filterType": "PipelineExecution"});
    let open = json!({"filterType": "PipelineExecution", "timeRange": {}});
    assert!(total(Vintage::Saas, bare.clone()) < total(Vintage::Saas, open.clone()));
    assert_eq!(total(Vintage::Older, bare), total(Vintage::Older, open));
}

#[test]
fn project_moves_with_its_history() {
    let account = account();
    let (from, to, at) = account.moving_scope().unwrap();
    let before = at.checked_sub(SignedDuration::from_secs(1)).unwrap();
    let body = json!({"filterType": "PipelineExecution", "timeRange": all_time()});
    let ids_in = |scope: &Scope, now| {
        let request = summary_request(
            &account,
            scope,
            "size=1000&sort=startTs,ASC",
            Some(body.clone()),
        );
        respond_at(&account, Vintage::Saas, now, &request).map(|answer| ids(&data(&answer)))
    };
    let old = ids_in(&from, before).unwrap();
    assert!(!old.is_empty() && ids_in(&to, at).unwrap().starts_with(&old));
    assert_eq!(ids_in(&from, at).unwrap_err().status, 404);
    assert!(account.scopes_at(at).contains(&to));
}
