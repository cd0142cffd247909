//! The request for executions, and lenient readers of JSON members.

use std::borrow::Cow;

use serde::de::{Error as _, IgnoredAny};
use serde_json::json;

use crate::ids::{PlanExecutionId, Scope};
use crate::scan::{Document, Scanner, Value};
use crate::window::{Window, is_sound};

/// A request to the summary endpoint.
#[derive(Clone, Copy, Debug)]
pub struct ExecutionsQuery<'a> {
    /// The project.
    pub scope: &'a Scope,
    /// The window of `startTs`. It is sent as an inclusive `timeRange`.
    pub window: Window,
    /// Restricts the result to these executions; empty for all. Old servers ignore it and return the window.
    pub ids: &'a [PlanExecutionId],
    /// The page, from 0.
    pub page: u32,
    /// Rows per page, 1 to 1000.
    pub size: u32,
}

impl ExecutionsQuery<'_> {
    /// Returns the URL parameters: oldest first, and every attempt of every execution.
    pub(super) fn parameters(&self) -> [(&'static str, String); 6] {
        [
            ("orgIdentifier", self.scope.org.to_string()),
            ("projectIdentifier", self.scope.project.to_string()),
            ("page", self.page.to_string()),
            ("size", self.size.to_string()),
            ("sort", "startTs,ASC".to_owned()),
            ("showAllExecutions", "true".to_owned()),
        ]
    }

    /// Returns the body. Both ends of the range, the filter type and the execution mode are explicit, so
    /// that servers of every version return the same rows.
    pub(super) fn body(&self) -> serde_json::Value {
        let mut filter = json!({
            "filterType": "PipelineExecution",
            "timeRange": {
                "startTime": self.window.from().as_millisecond(),
                "endTime": self.window.to().as_millisecond() - 1,
            },
            "executionModeFilter": "ALL",
        });
        if !self.ids.is_empty() {
            filter["planExecutionIds"] = json!(self.ids);
        }
        filter
    }
}

/// Returns the members of a JSON object with these names; null counts as absent. `None` for a value that
/// is not an object.
///
/// Names match ignoring ASCII case; an exact match wins. A name with half a surrogate pair is ignored, so
/// that it does not cost the row.
pub(super) fn members<'a, const N: usize>(
    object: Value<'a>,
    names: [&str; N],
) -> Option<[Option<Value<'a>>; N]> {
    let mut found = [None; N];
    for (name, value) in object.pairs()? {
        let name = name.string();
        for (known, found) in names.iter().zip(&mut found) {
            if matches_name(known, name.as_deref(), found.is_some()) && !value.is_null() {
                *found = Some(value);
            }
        }
    }
    Some(found)
}

/// Returns whether a member with the name `found` is the member `name`. Any casing matches, but once a
/// member was read, only the exact name replaces it.
pub(super) fn matches_name(name: &str, found: Option<&str>, is_known: bool) -> bool {
    found.is_some_and(|found| found == name || (!is_known && found.eq_ignore_ascii_case(name)))
}

/// Tokenizes a body.
///
/// # Errors
///
/// The position of the first syntax error, as `serde_json` reports it.
pub(super) fn scan<'a>(
    body: &'a [u8],
    scanner: &'a mut Scanner,
) -> Result<Document<'a>, serde_json::Error> {
    let json = str::from_utf8(body).ok();
    let document = json.and_then(|json| scanner.scan(json));
    document.ok_or_else(|| malformed(body))
}

/// Returns the error of an invalid body: its first syntax error, or that it is not an object.
pub(super) fn malformed(body: &[u8]) -> serde_json::Error {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(error) => error,
        Ok(_) => missing("object"),
    }
}

/// Returns the error of a body without a required value.
pub(super) fn missing(what: &str) -> serde_json::Error {
    serde_json::Error::custom(format_args!("no {what}"))
}

/// Returns a non-empty text, or a number as text; `None` for anything else.
pub(super) fn text(value: Option<Value<'_>>) -> Option<Cow<'_, str>> {
    let is_boolean = |value: &Value<'_>| matches!(value.scalar(), Some("true" | "false"));
    let text = value.filter(|value| !is_boolean(value))?.text()?;
    (!text.is_empty()).then_some(text)
}

/// Returns a plausible time in milliseconds since the epoch.
pub(super) fn valid_ms(value: Option<Value<'_>>) -> Option<i64> {
    value?.integer().filter(|ms| is_sound(*ms))
}

/// The fields that all error bodies of Harness share. Each is optional.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) code: String,
    pub(super) message: String,
}

impl ErrorBody {
    /// Parses an error envelope; `None` if the body is not valid JSON.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut scanner = Scanner::default();
        let document = scan(body, &mut scanner).ok()?;
        let names = ["code", "message", "detailedMessage", "correlationId"];
        // Other JSON comes from Harness, too, but has no message.
        let found = members(document.root(), names);
        let [code, message, detail, correlation] = found.unwrap_or_default();
        let mut message = text(message)
            .or_else(|| text(detail))
            .map_or_else(|| "no message".to_owned(), Cow::into_owned);
        if let Some(id) = text(correlation) {
            message = format!("{message} (correlation id {id})");
        }
        Some(Self {
            code: text(code).unwrap_or_default().into_owned(),
            message,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::leaked;
    use crate::window::from_ms;

    #[test]
    fn window_is_sent_as_inclusive_range() {
        let query = ExecutionsQuery {
            scope: &Scope::new("default", "web"),
            window: Window::new(from_ms(1_000), from_ms(2_000)).unwrap(),
            ids: &[PlanExecutionId::new("e1")],
            page: 3,
            size: 200,
        };
        assert_eq!(
            query.body(),
            json!({
                "filterType": "PipelineExecution",
                "timeRange": {"startTime": 1_000, "endTime": 1_999},
                "executionModeFilter": "ALL",
                "planExecutionIds": ["e1"],
            })
        );
        let all = ExecutionsQuery { ids: &[], ..query };
        assert_eq!(all.body().get("planExecutionIds"), None);
    }

    #[test]
    fn exact_member_name_wins_over_other_casing() {
        let object =
            leaked(r#"{"STATUS":1,"\ud800":0,"status":2,"Status":3,"endts":null,"x":{"endTs":4}}"#);
        let [status, end] = members(object.unwrap(), ["status", "endTs"]).unwrap();
        assert_eq!(status.map(Value::json), Some("2"));
        assert!(end.is_none());
        assert!(members(leaked("[]").unwrap(), ["status"]).is_none());
    }

    #[test]
    fn numbers_and_text_are_interchangeable() {
        for (json, as_text, as_integer) in [
            (r#""7""#, Some("7"), Some(7)),
            ("7", Some("7"), Some(7)),
            ("-7", Some("-7"), Some(-7)),
            ("1.7e12", Some("1.7e12"), Some(1_700_000_000_000)),
            ("1.5", Some("1.5"), None),
            (r#""""#, None, None),
            (r#""soon""#, Some("soon"), None),
            ("true", None, None),
            ("[7]", None, None),
        ] {
            let value = leaked(json);
            assert_eq!(text(value).as_deref(), as_text, "{json}");
            assert_eq!(value.and_then(Value::integer), as_integer, "{json}");
        }
    }

    #[test]
    fn error_body_is_parsed_from_any_envelope() {
        for (body, code, message) in [
            (
                r#"{"code":"A","message":"b","correlationId":"c"}"#,
                "A",
                "b (correlation id c)",
            ),
            (r#"{"message":null,"detailedMessage":"d"}"#, "", "d"),
            (r#"{"code":7}"#, "7", "no message"),
            ("[]", "", "no message"),
        ] {
            let error = ErrorBody::read(body.as_bytes()).unwrap();
            assert_eq!(
                (error.code.as_str(), error.message.as_str()),
                (code, message)
            );
        }
        assert_eq!(ErrorBody::read(b"{broken"), None);
        assert_eq!(ErrorBody::read(b"<html>"), None);
    }
}
