//! Faults that a test can order: what goes wrong, for which requests, how often.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::request::{ApiRequest, Endpoint};
use super::routes::RowFault;
use crate::scope::Scope;

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// For which requests.
    pub when: Match,
    /// What.
    pub kind: FaultKind,
    /// How often; none for always.
    pub times: Option<u32>,
}

/// Which requests; what is none matches all.
#[derive(Clone, Debug, Default)]
pub struct Match {
    /// Of this endpoint.
    pub endpoint: Option<Endpoint>,
    /// About this project. Only summary requests are.
    pub scope: Option<Scope>,
    /// For this page.
    pub page: Option<u32>,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// This status with an error body: 502 to 504 in HTML, as a gateway sends it.
    Status(u16),
    /// A login page.
    Html200,
    /// The connection closes before the announced length is sent.
    TruncatedBody,
    /// A whole answer whose JSON is cut off.
    MalformedJson,
    /// The connection breaks in the middle of a chunked answer.
    ResetMidBody,
    /// The second half of the answer comes so much later.
    SlowBody(Duration),
    /// 200 and nothing.
    EmptyBody,
    /// 429, with `Retry-After` in seconds or without.
    TooManyRequests {
        /// The header's value.
        retry_after: Option<u64>,
    },
    /// Code `TOO_MANY_REQUESTS` at status 400.
    TooManyRequestsAs400,
    /// The total is off by so many.
    WrongTotal(i64),
    /// No total is told, and pages have no more rows than this.
    NoTotal(usize),
    /// The total is this, whatever the window.
    FixedTotal(u64),
    /// The last row comes twice.
    DuplicateLastRow,
    /// Each page but the first begins one row early, as after a new row.
    ShiftedPage,
    /// Whatever page is asked for, it is the first.
    RepeatPage,
    /// 403 `NG_ACCESS_DENIED`.
    Forbidden,
    /// 401 `INVALID_TOKEN`.
    Unauthorized,
    /// The first row has a status that nobody knows: `Frobnicating`.
    UnknownStatus,
    /// Fields that nobody knows, at every level.
    ExtraField,
    /// What may be null is null.
    NullEverywhere,
    /// No row tells when it started.
    NoStart,
    /// Answers from a replica that lags by so much. The `Date` header does not lag.
    StaleAnswer(Duration),
    /// Every third row is missing, and not counted either.
    RowsVanish,
    /// The compressed answer ends before its end; no length is announced.
    TruncatedGzip,
    /// Pages have no more rows than this, whatever is asked for; total and number of pages say so.
    CappedPage(usize),
    /// No row at all, and a total of none: what some servers answer a key without the right.
    NoRows,
    /// The simulated clock goes on by so much before the answer is made.
    TimePasses(Duration),
}

/// The faults in force. The first that matches a request strikes.
#[derive(Debug, Default)]
pub struct Faults(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    injected: u64,
}

impl Match {
    /// Every request.
    pub fn any() -> Self {
        Self::default()
    }

    /// Requests of one endpoint.
    pub fn endpoint(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Some(endpoint),
            ..Self::default()
        }
    }

    /// Summary requests.
    pub fn executions() -> Self {
        Self::endpoint(Endpoint::Executions)
    }

    /// Only those about one project.
    #[must_use]
    pub fn of(self, scope: Scope) -> Self {
        Self {
            scope: Some(scope),
            ..self
        }
    }

    /// Only those for one page.
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
    /// Orders a fault.
    pub fn add(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Orders a fault that strikes so often.
    pub fn times(&self, times: u32, when: Match, kind: FaultKind) {
        let times = Some(times);
        self.add(Fault { when, kind, times });
    }

    /// Orders a fault that strikes until [`Faults::clear`].
    pub fn always(&self, when: Match, kind: FaultKind) {
        let times = None;
        self.add(Fault { when, kind, times });
    }

    /// Ends all faults.
    pub fn clear(&self) {
        self.state().faults.clear();
    }

    /// How many requests were struck.
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

    /// Changes the content of a good summary answer; leaves any other as it is.
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

/// All but what identifies a row, its status, its times and its stages; of those the same.
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
    fn a_fault_strikes_what_it_matches_as_often_as_asked() {
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
    fn nulls_leave_what_identifies() {
        let body = json!({"data": {"content": [{
            "planExecutionId": "x", "tags": [], "layoutNodeMap": {"n": {"name": "y", "status": "z"}}
        }]}});
        let spoiled = FaultKind::NullEverywhere.corrupt_body(body.to_string());
        let value: Value = serde_json::from_str(&spoiled).unwrap();
        let row = &value["data"]["content"][0];
        assert_eq!(row["planExecutionId"], "x");
        assert_eq!(row["tags"], Value::Null);
        assert_eq!(
            row["layoutNodeMap"]["n"],
            json!({"name": null, "status": "z"})
        );
    }
}
