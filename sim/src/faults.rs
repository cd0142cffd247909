//! Faults that a test can inject: the kind, the requests and the number of times.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::request::{ApiRequest, Endpoint};
use super::routes::RowFault;
use crate::scope::Scope;

/// A fault to inject.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The requests it applies to.
    pub when: Match,
    /// The kind of fault.
    pub kind: FaultKind,
    /// The number of times; `None` for always.
    pub times: Option<u32>,
}

/// A filter of requests. An unset field matches all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Only requests to this endpoint.
    pub endpoint: Option<Endpoint>,
    /// Only summary requests for this project.
    pub scope: Option<Scope>,
    /// Only requests for this page.
    pub page: Option<u32>,
}

/// The kind of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// This status with an error body; for 502 to 504 an HTML body, as a gateway sends it.
    Status(u16),
    /// Status 200 with an HTML login page.
    Html200,
    /// The connection closes before the announced length is sent.
    TruncatedBody,
    /// A complete HTTP response with truncated JSON.
    MalformedJson,
    /// The connection is reset in the middle of a chunked response.
    ResetMidBody,
    /// The second half of the response is delayed by this duration.
    SlowBody(Duration),
    /// Status 200 with an empty body.
    EmptyBody,
    /// Status 429, optionally with `Retry-After`.
    TooManyRequests {
        /// The value of the header, in seconds.
        retry_after: Option<u64>,
    },
    /// Status 400 with the code `TOO_MANY_REQUESTS`.
    TooManyRequestsAs400,
    /// The total is wrong by this number.
    WrongTotal(i64),
    /// The total is missing, and a page has at most this many rows.
    NoTotal(usize),
    /// The total is this number, whatever the window.
    FixedTotal(u64),
    /// The last row is repeated.
    DuplicateLastRow,
    /// Each page but the first begins one row early, as if a row had been inserted.
    ShiftedPage,
    /// Every page is the first page.
    RepeatPage,
    /// Status 403 with the code `NG_ACCESS_DENIED`.
    Forbidden,
    /// Status 401 with the code `INVALID_TOKEN`.
    Unauthorized,
    /// The first row has an unknown status: `Frobnicating`.
    UnknownStatus,
    /// Unknown fields at every level.
    ExtraField,
    /// Every nullable field is null.
    NullEverywhere,
    /// No row has `startTs`.
    NoStart,
    /// The response comes from a replica that lags by this duration. The `Date` header does not
    /// lag.
    StaleAnswer(Duration),
    /// Every third row is missing and not counted.
    RowsVanish,
    /// The gzip stream is truncated; no length is announced.
    TruncatedGzip,
    /// A page has at most this many rows, whatever size is requested. The number of pages is
    /// consistent with it.
    CappedPage(usize),
    /// No rows and a total of 0, as some servers answer a key without permission.
    NoRows,
    /// The simulated clock advances by this duration before the response is made.
    TimePasses(Duration),
}

/// The active faults. The first that matches a request is injected.
#[derive(Debug, Default)]
pub struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// Executions that no response can contain, and the fault instead.
    poisoned: Vec<(String, FaultKind)>,
    injected: u64,
}

impl Match {
    /// Matches every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Matches requests to one endpoint.
    pub fn endpoint(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Some(endpoint),
            ..Self::default()
        }
    }

    /// Matches summary requests.
    pub fn executions() -> Self {
        Self::endpoint(Endpoint::Executions)
    }

    /// Restricts the filter to one project.
    #[must_use]
    pub fn of(self, scope: Scope) -> Self {
        Self {
            scope: Some(scope),
            ..self
        }
    }

    /// Restricts the filter to one page.
    #[must_use]
    pub fn page(self, page: u32) -> Self {
        Self {
            page: Some(page),
            ..self
        }
    }

    fn matches(&self, request: &ApiRequest) -> bool {
        self.endpoint
            .is_none_or(|endpoint| endpoint == request.endpoint())
            && (self.scope.is_none() || self.scope == request.scope())
            && (self.page.is_none() || self.page == request.page())
    }
}

impl Faults {
    /// Adds a fault.
    pub fn add(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Adds a fault that is injected this many times.
    pub fn times(&self, times: u32, when: Match, kind: FaultKind) {
        let times = Some(times);
        self.add(Fault { when, kind, times });
    }

    /// Adds a fault that is injected until [`Faults::clear`].
    pub fn always(&self, when: Match, kind: FaultKind) {
        let times = None;
        self.add(Fault { when, kind, times });
    }

    /// Injects a fault into every response that would contain this execution.
    pub fn poison(&self, execution_id: &str, kind: FaultKind) {
        self.state().poisoned.push((execution_id.to_owned(), kind));
    }

    /// Removes all faults.
    pub fn clear(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.poisoned.clear();
    }

    /// Returns the number of requests with an injected fault.
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    pub(super) fn take_match(&self, request: &ApiRequest) -> Option<FaultKind> {
        let mut state = self.state();
        let active = |fault: &Fault| fault.times != Some(0);
        let hit = |fault: &Fault| active(fault) && fault.when.matches(request);
        let fault = state.faults.iter_mut().find(|fault| hit(fault))?;
        fault.times = fault.times.map(|times| times - 1);
        let kind = fault.kind.clone();
        state.injected += 1;
        state.faults.retain(active);
        Some(kind)
    }

    /// Returns the fault of a poisoned execution in the body.
    pub(super) fn poison_in(&self, body: &str) -> Option<FaultKind> {
        let mut state = self.state();
        let is_in_body = |(id, _): &&(String, FaultKind)| body.contains(&format!("\"{id}\""));
        let kind = state.poisoned.iter().find(is_in_body)?.1.clone();
        state.injected += 1;
        Some(kind)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultKind {
    pub(super) fn row_fault(&self) -> RowFault {
        match self {
            Self::RepeatPage => RowFault::FirstPage,
            Self::ShiftedPage => RowFault::OneRowEarly,
            Self::RowsVanish => RowFault::ThirdsMissing,
            Self::CappedPage(rows) | Self::NoTotal(rows) => RowFault::SmallPages(*rows),
            Self::NoRows => RowFault::NoRows,
            _ => RowFault::None,
        }
    }

    /// Changes the content of a summary response. Returns other responses unchanged.
    pub(super) fn corrupt_body(&self, body: String) -> String {
        let change: &dyn Fn(&mut Value) = match self {
            Self::WrongTotal(delta) => &move |data| {
                let total = data["totalElements"].as_i64().unwrap_or(0) + delta;
                data["totalElements"] = total.max(0).into();
            },
            Self::NoTotal(_) => &|data| data["totalElements"] = Value::Null,
            Self::FixedTotal(total) => &move |data| data["totalElements"] = (*total).into(),
            Self::DuplicateLastRow => &duplicate_last,
            Self::UnknownStatus => &|data| {
                if let Some(row) = data["content"].get_mut(0) {
                    row["status"] = "Frobnicating".into();
                }
            },
            Self::ExtraField => &|data| each_row(data, extra),
            Self::NullEverywhere => &|data| each_row(data, nulls),
            Self::NoStart => &|data| each_row(data, |row| drop(row.remove("startTs"))),
            _ => return body,
        };
        let Ok(mut value) = serde_json::from_str::<Value>(&body) else {
            return body;
        };
        if let Some(data) = value.get_mut("data") {
            change(data);
        }
        value.to_string()
    }
}

fn duplicate_last(data: &mut Value) {
    let Some(content) = data["content"].as_array_mut() else {
        return;
    };
    content.extend(content.last().cloned());
    let count = content.len();
    data["numberOfElements"] = count.into();
}

fn each_row(data: &mut Value, change: fn(&mut Map<String, Value>)) {
    let rows = data["content"].as_array_mut().into_iter().flatten();
    rows.filter_map(Value::as_object_mut).for_each(change);
}

fn extra(row: &mut Map<String, Value>) {
    let strange = json!({"of": ["a", null, 1.5], "yes": true});
    row.insert("brandNewField".to_owned(), strange.clone());
    for key in ["executionTriggerInfo", "moduleInfo"] {
        if let Some(Value::Object(inner)) = row.get_mut(key) {
            inner.insert("brandNewModule".to_owned(), strange.clone());
        }
    }
    nodes(row, |node| {
        node.insert("brandNewField".to_owned(), strange.clone());
    });
}

/// Sets everything to null except identifiers, status, times and stages; for stages likewise.
fn nulls(row: &mut Map<String, Value>) {
    const KEPT: [&str; 9] = [
        "planExecutionId",
        "pipelineIdentifier",
        "orgIdentifier",
        "projectIdentifier",
        "status",
        "startTs",
        "endTs",
        "layoutNodeMap",
        "startingNodeId",
    ];
    const KEPT_OF_NODE: [&str; 5] = ["nodeType", "status", "startTs", "endTs", "edgeLayoutList"];
    let null = |map: &mut Map<String, Value>, kept: &[&str]| {
        let others = map
            .iter_mut()
            .filter(|(key, _)| !kept.contains(&key.as_str()));
        others.for_each(|(_, value)| *value = Value::Null);
    };
    null(row, &KEPT);
    nodes(row, |node| null(node, &KEPT_OF_NODE));
}

fn nodes(row: &mut Map<String, Value>, change: impl Fn(&mut Map<String, Value>)) {
    let map = row.get_mut("layoutNodeMap").and_then(Value::as_object_mut);
    let nodes = map.into_iter().flat_map(Map::values_mut);
    nodes.filter_map(Value::as_object_mut).for_each(change);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(page: &str) -> ApiRequest {
        ApiRequest {
            method: "POST".to_owned(),
            path: "/pipeline/api/pipelines/execution/summary".to_owned(),
            query: vec![
                ("orgIdentifier".to_owned(), "o".to_owned()),
                ("projectIdentifier".to_owned(), "p".to_owned()),
                ("page".to_owned(), page.to_owned()),
            ],
            key: None,
            account: None,
            content_type: None,
            body: String::new(),
        }
    }

    #[test]
    fn fault_is_injected_into_matching_requests() {
        let faults = Faults::default();
        let when = Match::executions().of(Scope::new("o", "p")).page(1);
        faults.times(1, when, FaultKind::EmptyBody);
        assert_eq!(faults.take_match(&request("0")), None);
        assert_eq!(faults.take_match(&request("1")), Some(FaultKind::EmptyBody));
        assert_eq!(faults.take_match(&request("1")), None);
        faults.always(Match::any(), FaultKind::Forbidden);
        assert_eq!(faults.take_match(&request("7")), Some(FaultKind::Forbidden));
        assert_eq!(faults.injected(), 2);
        faults.clear();
        assert_eq!(faults.take_match(&request("7")), None);
    }

    #[test]
    fn null_everywhere_keeps_identifiers() {
        let body = json!({"data": {"content": [{
            "planExecutionId": "x", "tags": [], "layoutNodeMap": {"n": {"name": "y", "status": "z"}}
        }]}});
        let corrupted = FaultKind::NullEverywhere.corrupt_body(body.to_string());
        let value: Value = serde_json::from_str(&corrupted).unwrap();
        let row = &value["data"]["content"][0];
        assert_eq!(row["planExecutionId"], "x");
        assert_eq!(row["tags"], Value::Null);
        assert_eq!(
            row["layoutNodeMap"]["n"],
            json!({"name": null, "status": "z"})
        );
    }
}
