//! What goes over the wire: the request for executions, and lenient readers of JSON members.

use std::borrow::Cow;

use serde::de::{Error as _, IgnoredAny};
use serde_json::json;

use crate::ids::{PlanExecutionId, Scope};
use crate::scan::{Document, Scanner, Value};
use crate::window::{Window, is_sound};

/// What to ask the summary endpoint for.
#[derive(Clone, Copy, Debug)]
pub struct ExecutionsQuery<'a> {
    /// The project.
    pub scope: &'a Scope,
    /// The window of `startTs`. It becomes an explicit, inclusive `timeRange`.
    pub window: Window,
    /// Only these, where the server honours it (older ones give the whole window); empty for all.
    pub ids: &'a [PlanExecutionId],
    /// The page, from 0.
    pub page: u32,
    /// Rows a page, 1 to 1000.
    pub size: u32,
}

impl ExecutionsQuery<'_> {
    /// The parameters of the URL: oldest first, and every attempt of every execution.
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

    /// The body that gives the same rows on every vintage of the server: both ends of the range,
    /// the type discriminator, every execution mode.
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

/// The members of a JSON object that have these names; null is as if absent. `None` for a value that is
/// no object.
///
/// Names are matched without regard to ASCII case; the exact spelling goes before others. One that
/// cannot be read, for half a surrogate pair in it, is no reason to lose the row.
pub(super) fn members<'a, const N: usize>(
    object: Value<'a>,
    names: [&str; N],
) -> Option<[Option<Value<'a>>; N]> {
    let mut found = [None; N];
    for (name, value) in object.pairs()? {
        let name = name.string();
        for (known, found) in names.iter().zip(&mut found) {
            if is_meant(known, name.as_deref(), found.is_some()) && !value.is_null() {
                *found = Some(value);
            }
        }
    }
    Some(found)
}

/// Whether a member is read for the one that is called `name`: in any casing, but the exact spelling goes
/// before what is known already.
pub(super) fn is_meant(name: &str, found: Option<&str>, is_known: bool) -> bool {
    found.is_some_and(|found| found == name || (!is_known && found.eq_ignore_ascii_case(name)))
}

/// Reads a body that is to be JSON.
///
/// # Errors
///
/// Where it stops being JSON, as the library tells it.
pub(super) fn scan<'a>(
    body: &'a [u8],
    scanner: &'a mut Scanner,
) -> Result<Document<'a>, serde_json::Error> {
    let json = str::from_utf8(body).ok();
    let document = json.and_then(|json| scanner.scan(json));
    document.ok_or_else(|| malformed(body))
}

/// Why a body could not be read: where it stops being JSON, else that it is no object.
pub(super) fn malformed(body: &[u8]) -> serde_json::Error {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(error) => error,
        Ok(_) => missing("object"),
    }
}

/// The error of a body that lacks something.
pub(super) fn missing(what: &str) -> serde_json::Error {
    serde_json::Error::custom(format_args!("no {what}"))
}

/// Text, or a number as text; `None` for anything else and for the empty text.
pub(super) fn text(value: Option<Value<'_>>) -> Option<Cow<'_, str>> {
    let is_boolean = |value: &Value<'_>| matches!(value.scalar(), Some("true" | "false"));
    let text = value.filter(|value| !is_boolean(value))?.text()?;
    (!text.is_empty()).then_some(text)
}

/// A time in ms since the epoch that can be one.
pub(super) fn sound_ms(value: Option<Value<'_>>) -> Option<i64> {
    value?.integer().filter(|ms| is_sound(*ms))
}

/// What the error bodies of all Harness envelopes share, each part of it optional.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ErrorBody {
    pub(super) code: String,
    pub(super) message: String,
}

impl ErrorBody {
    /// Reads an error envelope; `None` where the body is no whole JSON.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let mut scanner = Scanner::default();
        let document = scan(body, &mut scanner).ok()?;
        let names = ["code", "message", "detailedMessage", "correlationId"];
        // JSON that is no object came from Harness, too, and says nothing.
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
    fn a_window_becomes_an_inclusive_range() {
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
    fn members_are_found_in_any_case_and_the_exact_spelling_goes_first() {
        let object =
            leaked(r#"{"STATUS":1,"\ud800":0,"status":2,"Status":3,"endts":null,"x":{"endTs":4}}"#);
        let [status, end] = members(object.unwrap(), ["status", "endTs"]).unwrap();
        assert_eq!(status.map(Value::json), Some("2"));
        assert!(end.is_none());
        assert!(members(leaked("[]").unwrap(), ["status"]).is_none());
    }

    #[test]
    fn numbers_and_text_stand_for_each_other() {
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
    fn an_error_body_is_read_from_any_envelope() {
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
