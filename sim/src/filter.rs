//! The parameters of a summary request, validated as strictly as each vintage does.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde_json::{Map, Value};

use super::Vintage;
use super::request::{ApiError, ApiRequest};
use super::rng::Id;
use super::status::STATUSES;
use crate::scope::Scope;

/// The validated parameters of a summary request.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) scope: Scope,
    pub(super) page: usize,
    pub(super) size: usize,
    pub(super) sort: Sort,
    pub(super) descending: bool,
    /// Bounds of `startTs`, both inclusive.
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) ids: Option<HashSet<Id>>,
    pub(super) statuses: Vec<String>,
    pub(super) pipelines: Vec<String>,
    pub(super) superseded: bool,
    pub(super) mode: Mode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Start,
    Name,
    Status,
}

/// The value of `executionModeFilter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Excludes pipeline rollbacks and child executions.
    Default,
    /// Only pipeline rollbacks.
    Rollback,
    All,
}

const IDS: [&str; 3] = ["accountIdentifier", "orgIdentifier", "projectIdentifier"];
const USED: [&str; 7] = [
    "page",
    "size",
    "sort",
    "pipelineIdentifier",
    "status",
    "showAllExecutions",
    "routingId",
];
/// Parameters of the real server that are not simulated. They are rejected, because ignoring them
/// would return unfiltered rows.
const NOT_SIMULATED: [&str; 8] = [
    "searchTerm",
    "filterIdentifier",
    "module",
    "myDeployments",
    "branch",
    "repoName",
    "repoIdentifier",
    "getDefaultFromOtherRepo",
];
const FILTERS_NOT_SIMULATED: [&str; 12] = [
    "pipelineName",
    "pipelineTags",
    "pipelineTagsV2",
    "pipelineLabels",
    "moduleProperties",
    "triggerTypes",
    "triggerIdentifiers",
    "myDeployments",
    "branchName",
    "repo",
    "inputSetIdentifiers",
    "executionNotes",
];
/// Filters that older servers do not support and therefore ignore.
const NEWER: [&str; 5] = [
    "pipelineIdentifiers",
    "planExecutionIds",
    "branchName",
    "repo",
    "inputSetIdentifiers",
];

impl Filter {
    /// Validates a request.
    ///
    /// # Errors
    ///
    /// 400 `INVALID_REQUEST` for parameters that a server of the vintage rejects, or that are not
    /// simulated.
    pub(super) fn parse(
        request: &ApiRequest,
        vintage: Vintage,
        now: Timestamp,
    ) -> Result<Self, ApiError> {
        let known = [IDS.as_slice(), &USED, &NOT_SIMULATED].concat();
        request.only(&known)?;
        if let Some(missing) = IDS
            .iter()
            .find(|id| request.parameter(id).is_none_or(str::is_empty))
        {
            return Err(ApiError::invalid(format!(
                "query param {missing} must not be null"
            )));
        }
        let body = body(request, vintage)?;
        if request.parameter("filterIdentifier").is_some() && body.is_some() {
            return Err(ApiError::invalid(
                "Can not apply both filter properties and saved filter together",
            ));
        }
        let unsimulated = |name: &&&str| {
            request
                .parameter(name)
                .is_some_and(|value| value != "false")
        };
        if let Some(name) = NOT_SIMULATED.iter().find(unsimulated) {
            return Err(ApiError::invalid(format!("{name} is not simulated")));
        }
        let (page, size) = (request.number("page", 0)?, request.number("size", 10)?);
        let (Ok(page), 1..=1000) = (usize::try_from(page), size) else {
            return Err(ApiError::invalid(
                "Please Verify Executions list parameters for page and size, page should be >= 0 \
                 and size should be > 0 and <=1000",
            ));
        };
        let (sort, descending) = sort(request, vintage)?;
        let (from, to) = window(body.as_ref(), vintage, now)?;
        let list = |key: &str| texts(body.as_ref(), key);
        let ids = list("planExecutionIds")?.filter(|ids| !ids.is_empty());
        let mut pipelines = list("pipelineIdentifiers")?.unwrap_or_default();
        pipelines.extend(request.parameter("pipelineIdentifier").map(str::to_owned));
        let mut statuses: Vec<String> = request.parameters("status").map(str::to_owned).collect();
        if statuses.is_empty() || vintage == Vintage::Older {
            statuses.extend(list("status")?.unwrap_or_default());
        }
        Ok(Self {
            scope: Scope::new(
                request.parameter(IDS[1]).unwrap_or_default(),
                request.parameter(IDS[2]).unwrap_or_default(),
            ),
            page,
            size: usize::try_from(size).unwrap_or(10),
            sort,
            descending,
            from,
            to,
            // An invalid id matches nothing.
            ids: ids.map(|ids| ids.iter().filter_map(|id| Id::parse(id)).collect()),
            statuses: known_statuses(statuses)?,
            mode: mode(body.as_ref(), vintage, &pipelines)?,
            pipelines,
            superseded: vintage == Vintage::Saas || flag(request, "showAllExecutions")?,
        })
    }
}

/// Returns the body without the keys that the vintage ignores; `None` without a body.
fn body(request: &ApiRequest, vintage: Vintage) -> Result<Option<Map<String, Value>>, ApiError> {
    if request.body.trim().is_empty() {
        return Ok(None);
    }
    let is_json = |kind: &String| kind.starts_with("application/json");
    if !request.content_type.as_ref().is_some_and(is_json) {
        return Err(ApiError::new(
            415,
            "INVALID_REQUEST",
            "HTTP 415 Unsupported Media Type",
        ));
    }
    let Ok(Value::Object(mut body)) = serde_json::from_str(&request.body) else {
        return Err(ApiError::invalid("Unable to process JSON"));
    };
    if body.get("filterType").and_then(Value::as_str) != Some("PipelineExecution") {
        return Err(ApiError::invalid(
            "Unable to process JSON: missing or unknown filterType",
        ));
    }
    if vintage == Vintage::Older {
        body.retain(|key, _| !NEWER.contains(&key.as_str()));
    }
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match FILTERS_NOT_SIMULATED
        .iter()
        .find(|key| body.get(**key).is_some_and(|value| !empty(value)))
    {
        Some(key) => Err(ApiError::invalid(format!("{key} is not simulated"))),
        None => Ok(Some(body)),
    }
}

fn sort(request: &ApiRequest, vintage: Vintage) -> Result<(Sort, bool), ApiError> {
    let Some(text) = request.parameter("sort") else {
        return Ok((Sort::Start, true));
    };
    let (field, direction) = text.split_once(',').unwrap_or((text, "ASC"));
    let descending = match direction.to_ascii_uppercase().as_str() {
        "ASC" => false,
        "DESC" => true,
        _ => {
            return Err(ApiError::invalid(format!(
                "Invalid sort direction: {direction}"
            )));
        }
    };
    match field {
        // Every simulated execution has the same timeout, so both keys sort alike.
        "startTs" | "pipelineTimeoutTs" => Ok((Sort::Start, descending)),
        "name" => Ok((Sort::Name, descending)),
        "status" => Ok((Sort::Status, descending)),
        "createdAt" if vintage == Vintage::Older => Ok((Sort::Start, descending)),
        _ => Err(ApiError::invalid(format!(
            "Sorting by {field} is not supported"
        ))),
    }
}

/// Returns the bounds of `startTs`. Without a `timeRange` today's server uses one calendar month.
fn window(
    body: Option<&Map<String, Value>>,
    vintage: Vintage,
    now: Timestamp,
) -> Result<(i64, i64), ApiError> {
    let all = (i64::MIN, i64::MAX);
    let range = match body.and_then(|body| body.get("timeRange")) {
        None | Some(Value::Null) if vintage == Vintage::Older => return Ok(all),
        None | Some(Value::Null) => {
            let today = TimeZone::UTC.to_datetime(now).date();
            let from = today.saturating_sub(1.month()).at(0, 0, 0, 0);
            let from = TimeZone::UTC.to_timestamp(from);
            let from = from.map_or(i64::MIN, Timestamp::as_millisecond);
            return Ok((from, now.as_millisecond()));
        }
        Some(Value::Object(range)) => range,
        Some(_) => return Err(ApiError::invalid("Unable to process JSON: timeRange")),
    };
    let named = |key: &str| vintage == Vintage::Saas && range.contains_key(key);
    if named("timeRangeFilterType") || named("relativeTime") {
        return Err(ApiError::invalid("relative time ranges are not simulated"));
    }
    let bound = |key: &str| match range.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(ms) => Ok(Some(ms)),
            None => Err(ApiError::invalid(format!("Unable to process JSON: {key}"))),
        },
    };
    match (bound("startTime")?, bound("endTime")?) {
        (Some(from), Some(to)) => Ok((from, to)),
        (None, None) => Ok(all),
        _ => Err(ApiError::invalid(
            "startTime or endTime is not provided in TimeRange filter. Either add the missing \
             field or remove the timeRange filter",
        )),
    }
}

fn mode(
    body: Option<&Map<String, Value>>,
    vintage: Vintage,
    pipelines: &[String],
) -> Result<Mode, ApiError> {
    let Some(body) = body else {
        let children_too = vintage == Vintage::Saas || !pipelines.is_empty();
        return Ok(if children_too {
            Mode::All
        } else {
            Mode::Default
        });
    };
    match body.get("executionModeFilter") {
        None | Some(Value::Null) => Ok(Mode::All),
        Some(Value::String(mode)) => match (mode.as_str(), vintage) {
            ("DEFAULT" | "ROLLBACK", Vintage::Saas) | ("ALL", _) => Ok(Mode::All),
            ("DEFAULT", Vintage::Older) => Ok(Mode::Default),
            ("ROLLBACK", Vintage::Older) => Ok(Mode::Rollback),
            _ => Err(ApiError::invalid(
                "Unable to process JSON: executionModeFilter",
            )),
        },
        Some(_) => Err(ApiError::invalid(
            "Unable to process JSON: executionModeFilter",
        )),
    }
}

fn texts(body: Option<&Map<String, Value>>, key: &str) -> Result<Option<Vec<String>>, ApiError> {
    let wrong = || ApiError::invalid(format!("Unable to process JSON: {key}"));
    match body.and_then(|body| body.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => list
            .iter()
            .map(|one| one.as_str().map(str::to_owned).ok_or_else(wrong))
            .collect::<Result<_, _>>()
            .map(Some),
        Some(_) => Err(wrong()),
    }
}

fn flag(request: &ApiRequest, name: &str) -> Result<bool, ApiError> {
    match request.parameter(name) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(ApiError::invalid(format!(
            "Invalid value for query param {name}: {other}"
        ))),
    }
}

/// Rejects unknown statuses. Case is ignored.
fn known_statuses(words: Vec<String>) -> Result<Vec<String>, ApiError> {
    let known = |word: &String| {
        STATUSES
            .iter()
            .any(|status| status.eq_ignore_ascii_case(word))
    };
    match words.iter().find(|word| !known(word)) {
        Some(word) => Err(ApiError::invalid(format!(
            "Unable to process JSON: status {word}"
        ))),
        None => Ok(words),
    }
}
