//! One page of execution summaries. Rows keep the JSON text of the response.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use crate::drift::Drift;
use crate::ids::PlanExecutionId;
use crate::pii::Redactor;
use crate::scan::{Cursor, Scanner, Value};
use crate::status::categorize;
use crate::window::from_ms;

use super::canonical::ScopeHash;
use super::http::{DecodeError, Response};
use super::persons;
use super::wire::{ErrorBody, malformed, matches_name, members, missing, text, valid_ms};

/// A complete page of `POST /pipeline/api/pipelines/execution/summary`.
#[derive(Clone, Debug)]
pub struct Page {
    /// The rows with a `planExecutionId`, in the order of the response.
    pub rows: Vec<PageRow>,
    /// `totalElements`: executions in the window, over all pages. `None` if missing or invalid.
    pub total: Option<u64>,
    /// The time of the response: its `Date` header, else the local clock.
    pub observed: Timestamp,
    /// Size of the decompressed body.
    pub bytes: usize,
    /// Rows without `planExecutionId`, which are dropped.
    pub unidentified: u64,
    /// Invalid values in the rows.
    pub drift: Drift,
}

/// One row of a page.
#[derive(Clone, Debug)]
pub struct PageRow {
    /// `planExecutionId`.
    pub id: PlanExecutionId,
    /// `startTs`; `None` if missing or outside 2000 to 2100, which is counted as drift.
    pub start: Option<Timestamp>,
    /// Whether `status` is terminal; an unknown status is terminal if `endTs` is present.
    pub is_terminal: bool,
    /// The JSON text of the row, after redaction. Usually a slice that keeps the response body in memory.
    pub summary: Bytes,
    /// The hash of the summary's canonical form: see [`content_hash`](super::content_hash).
    pub content_hash: i64,
}

impl Page {
    /// Reads the envelope, splits it into rows, and redacts personal data.
    pub(super) fn decode(
        response: &Response,
        scope: ScopeHash,
        redactor: &Redactor,
    ) -> Result<Self, DecodeError> {
        let body = &response.body;
        let Ok(json) = str::from_utf8(body) else {
            // Invalid UTF-8 in one row must not fail the other rows.
            let repaired = Response {
                body: String::from_utf8_lossy(body).into_owned().into(),
                ..response.clone()
            };
            let mut page = Self::decode(&repaired, scope, redactor)?;
            page.drift.odd_value("(bytes that are not UTF-8)", REPLACED);
            return Ok(page);
        };
        let mut reader = Reader {
            response,
            scope,
            redactor,
            page: Self::empty(response),
            status: None,
            has_data: false,
            has_content: false,
            invalid_total: "(none)".to_owned(),
            scanner: Scanner::default(),
            repaired: Scanner::default(),
            redacted: Scanner::default(),
        };
        reader.envelope(json).ok_or_else(|| malformed(body))?;
        let is_error = |status: String| !status.eq_ignore_ascii_case("SUCCESS");
        if reader.status.is_some_and(is_error) {
            return Err(DecodeError::ErrorEnvelope(
                ErrorBody::read(body).unwrap_or_default(),
            ));
        }
        if !reader.has_data {
            return Err(missing("object `data`").into());
        }
        if !reader.has_content {
            return Err(missing("list `data.content`").into());
        }
        let mut page = reader.page;
        if page.total.is_none() {
            page.drift.odd_value("totalElements", &reader.invalid_total);
        }
        Ok(page)
    }

    /// Returns whether the window contains any execution.
    pub fn has_executions(&self) -> bool {
        !self.rows.is_empty() || self.unidentified > 0 || self.total.is_some_and(|total| total > 0)
    }

    fn empty(response: &Response) -> Self {
        Self {
            rows: Vec::new(),
            total: None,
            observed: response.observed,
            bytes: response.body.len(),
            unidentified: 0,
            drift: Drift::default(),
        }
    }

    fn push(&mut self, row: Value<'_>, summary: Bytes, scope: ScopeHash) {
        let names = ["planExecutionId", "startTs", "status", "endTs"];
        // A row that is not an object has no members.
        let [id, start, status, end] = members(row, names).unwrap_or_default();
        let Some(plan_execution_id) = text(id) else {
            self.unidentified += 1;
            self.drift.odd_value("planExecutionId", spelling(id));
            return;
        };
        let start_ms = valid_ms(start);
        if start_ms.is_none() {
            self.drift.odd_value("startTs", spelling(start));
        }
        let category = categorize(&text(status).unwrap_or_default());
        self.rows.push(PageRow {
            id: PlanExecutionId::new(plan_execution_id),
            start: start_ms.map(from_ms),
            is_terminal: category.is_terminal(valid_ms(end).is_some()),
            content_hash: scope.content_hash(row),
            summary,
        });
    }
}

/// Reads a page row by row: the spans of one row are few and still cached while it is hashed.
struct Reader<'a> {
    response: &'a Response,
    scope: ScopeHash,
    redactor: &'a Redactor,
    page: Page,
    /// `status`.
    status: Option<String>,
    /// Whether an object `data` was read.
    has_data: bool,
    /// Whether a list `data.content` was read.
    has_content: bool,
    /// The JSON text of `data.totalElements`, for drift if it is invalid.
    invalid_total: String,
    scanner: Scanner,
    /// For rows with repaired surrogate pairs.
    repaired: Scanner,
    /// For rows with redacted values.
    redacted: Scanner,
}

impl Reader<'_> {
    fn envelope(&mut self, json: &str) -> Option<()> {
        let mut cursor = Cursor::new(json)?;
        cursor.object(|cursor, name| {
            if matches_name("data", name.as_deref(), self.has_data)
                && cursor.next_byte() == Some(b'{')
            {
                self.page = Page::empty(self.response);
                (self.has_data, self.has_content) = (true, false);
                return self.data(cursor);
            }
            let document = cursor.value(&mut self.scanner)?;
            let value = document.root();
            if matches_name("status", name.as_deref(), self.status.is_some()) && !value.is_null() {
                self.status = text(Some(value)).map(Cow::into_owned);
            }
            Some(())
        })?;
        cursor.end()
    }

    fn data(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        cursor.object(|cursor, name| {
            if matches_name("content", name.as_deref(), self.has_content)
                && cursor.next_byte() == Some(b'[')
            {
                let total = self.page.total;
                self.page = Page::empty(self.response);
                self.page.total = total;
                self.has_content = true;
                return cursor.list(|cursor| self.row(cursor));
            }
            let document = cursor.value(&mut self.scanner)?;
            let value = document.root();
            if matches_name("totalElements", name.as_deref(), self.page.total.is_some())
                && !value.is_null()
            {
                let total = value.integer();
                self.page.total = total.and_then(|total| u64::try_from(total).ok());
                value.json().clone_into(&mut self.invalid_total);
            }
            Some(())
        })
    }

    fn row(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let mut document = cursor.value(&mut self.scanner)?;
        let received = document.root().json().as_bytes();
        let mut summary = self.response.body.slice_ref(received);
        let repaired = document.repaired().map(Bytes::from);
        if let Some(text) = &repaired {
            let path = "(halves of surrogate pairs)";
            self.page.drift.odd_value(path, REPLACED);
            document = self.repaired.scan(str::from_utf8(text).ok()?)?;
            summary = text.clone();
        }
        let redacted = persons::redact(document.root(), self.redactor);
        if let Some(text) = &redacted {
            document = self.redacted.scan(str::from_utf8(text).ok()?)?;
            summary = text.clone();
        }
        self.page.push(document.root(), summary, self.scope);
        Some(())
    }
}

/// The drift example for invalid text.
const REPLACED: &str = "replaced by U+FFFD";

fn spelling(value: Option<Value<'_>>) -> &str {
    value.map_or("(none)", Value::json)
}

#[cfg(test)]
mod tests {
    use super::super::canonical::content_hash;
    use super::*;
    use crate::ids::Scope;

    fn decode(json: &str) -> Result<Page, DecodeError> {
        decode_with(json, &Redactor::Keep)
    }

    fn decode_with(json: &str, redactor: &Redactor) -> Result<Page, DecodeError> {
        let scope = Scope::new("default", "web");
        let response = Response {
            status: 200,
            body: Bytes::copy_from_slice(json.as_bytes()),
            total: None,
            observed: Timestamp::UNIX_EPOCH,
            retry_after: std::time::Duration::ZERO,
        };
        Page::decode(&response, ScopeHash::new(&scope), redactor)
    }

    #[test]
    fn rows_are_slices_of_the_response() {
        let first = r#"{"planExecutionId":"a", "startTs":1700000000000,"status":"Running"}"#;
        let second = r#"{"planexecutionid":"b","startTs":"1700000000001","status":"FAILED"}"#;
        let page = decode(&format!(
            r#"{{"status":"SUCCESS","data":{{"content":[ {first} ,{second}],"totalElements":"2"}},"new":1}}"#
        ))
        .unwrap();
        assert_eq!((page.total, page.unidentified), (Some(2), 0));
        assert_eq!(page.rows[0].summary, first);
        assert_eq!(page.rows[0].id, PlanExecutionId::new("a"));
        assert!(!page.rows[0].is_terminal && page.rows[1].is_terminal);
        assert_eq!(page.rows[1].start, Some(from_ms(1_700_000_000_001)));
        let scope = Scope::new("default", "web");
        assert_eq!(page.rows[0].content_hash, content_hash(&scope, first));
        assert!(page.drift.is_empty());
    }

    #[test]
    fn personal_data_is_redacted_before_hashing() {
        let ada = r#"{"planExecutionId":"a","abortedBy":{"userName":"Ada"}}"#;
        let bo = ada.replace("Ada", "Bo");
        let nobody = ada.replace("\"Ada\"", "null");
        let json = format!(r#"{{"data":{{"content":[{ada},{bo}]}}}}"#);
        let page = decode_with(&json, &Redactor::Drop).unwrap();
        let hash = content_hash(&Scope::new("default", "web"), &nobody);
        for row in page.rows {
            // Also without a start: the checkpoint stores such rows.
            assert_eq!((row.start, row.content_hash), (None, hash));
            assert_eq!(row.summary, nobody);
        }
    }

    #[test]
    fn half_surrogate_pairs_are_repaired() {
        let row = r#"{"planExecutionId":"a","notes":"cut \ud83d","by":{"author":"Ada"}}"#;
        let json = format!(r#"{{"data":{{"content":[{row},{{"planExecutionId":"b"}}]}}}}"#);
        for (redactor, author) in [(Redactor::Keep, r#""Ada""#), (Redactor::Drop, "null")] {
            let page = decode_with(&json, &redactor).unwrap();
            let repaired = row
                .replace(r"\ud83d", r"\ufffd")
                .replace(r#""Ada""#, author);
            assert_eq!(page.rows[0].summary, repaired);
            let hash = content_hash(&Scope::new("default", "web"), &repaired);
            assert_eq!(page.rows[0].content_hash, hash);
            assert_eq!(page.rows[1].summary, r#"{"planExecutionId":"b"}"#);
            assert_eq!(
                page.drift.odd_values["(halves of surrogate pairs)"].count,
                1
            );
        }
    }

    #[test]
    fn invalid_rows_are_counted_as_drift() {
        let page = decode(
            r#"{"data":{"content":[{"planExecutionId":null},{"planExecutionId":7,"startTs":-62135596800000},3,
            {"planExecutionId":"b","startTs":[],"status":"New","endTs":1700000000000},{"planExecutionId":"c","startTs":1}],"totalElements":null}}"#,
        )
        .unwrap();
        assert_eq!((page.total, page.unidentified), (None, 2));
        assert_eq!(page.drift.odd_values["totalElements"].count, 1);
        let ids: Vec<_> = page.rows.iter().map(|row| row.id.as_str()).collect();
        assert_eq!(ids, ["7", "b", "c"]);
        assert!(page.rows.iter().all(|row| row.start.is_none()));
        assert!(page.rows[1].is_terminal && !page.rows[2].is_terminal);
        assert_eq!(page.drift.odd_values["startTs"].count, 3);
        assert_eq!(page.drift.odd_values["planExecutionId"].count, 2);
    }

    #[test]
    fn error_envelope_with_status_200_is_detected() {
        let refused = decode(r#"{"status":"ERROR","code":"INVALID_REQUEST","message":"no"}"#);
        assert!(
            matches!(refused, Err(DecodeError::ErrorEnvelope(e)) if e.code == "INVALID_REQUEST")
        );
        // Null counts as absent, in any casing.
        let refused = decode(r#"{"Status":"ERROR","status":null,"data":{"content":[]}}"#);
        assert!(matches!(refused, Err(DecodeError::ErrorEnvelope(_))));
    }

    #[test]
    fn envelope_without_content_is_malformed() {
        for body in [
            "{}",
            "[]",
            r#"{"status":"SUCCESS","data":null}"#,
            r#"{"status":"SUCCESS","data":{"content":null}}"#,
            r#"{"status":"SUCCESS","data":{"totalElements":0}}"#,
        ] {
            assert!(
                matches!(decode(body), Err(DecodeError::Malformed(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn exact_member_name_wins_in_any_order() {
        let [odd, even] = ["odd", "even"].map(|id| format!(r#"[{{"planExecutionId":"{id}"}}]"#));
        for data in [
            format!(r#""Data":{{"content":{odd}}},"data":{{"content":{even}}}"#),
            format!(r#""data":{{"content":{even}}},"DATA":{{"content":{odd}}}"#),
            format!(r#""data":{{"totalElements":7,"Content":{odd},"content":{even}}}"#),
            format!(r#""data":{{"content":{even},"CONTENT":{odd},"TotalElements":7}}"#),
            format!(
                r#""data":{{"TotalElements":7,"totalElements":null,"content":{even},"Content":null}}"#
            ),
            format!(r#""\ud800":0,"Data":null,"data":{{"content":null,"Content":{even}}}"#),
        ] {
            let page = decode(&format!("{{{data}}}")).unwrap();
            let ids: Vec<_> = page.rows.iter().map(|row| row.id.as_str()).collect();
            assert_eq!(ids, ["even"], "{data}");
            let has_total = data.to_lowercase().contains("totalelements");
            assert_eq!(page.total, has_total.then_some(7), "{data}");
        }
    }

    #[test]
    fn page_truncated_anywhere_is_malformed() {
        let whole = r#"{"status":"SUCCESS","data":{"content":[{"planExecutionId":"a"}],"totalElements":1}}"#;
        assert!(decode(whole).is_ok());
        for end in 0..whole.len() {
            let cut = decode(&whole[..end]);
            assert!(
                matches!(cut, Err(DecodeError::Malformed(_))),
                "cut at {end}"
            );
        }
    }
}
