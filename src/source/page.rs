//! One page of execution summaries: the envelope is opened, the rows stay as they came.

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;

use crate::drift::Drift;
use crate::ids::PlanExecutionId;
use crate::pii::Treatment;
use crate::scan::{Cursor, Scanner, Value};
use crate::status::categorize;
use crate::window::from_ms;

use super::canonical::ScopeHash;
use super::http::{Answer, Unusable};
use super::persons;
use super::wire::{ErrorBody, is_meant, malformed, members, missing, sound_ms, text};

/// A page of `POST /pipeline/api/pipelines/execution/summary`, checked to be whole.
#[derive(Clone, Debug)]
pub struct Page {
    /// The rows that can be told apart, in the order of the answer.
    pub rows: Vec<PageRow>,
    /// `totalElements`: executions in the window, over all pages. `None` where it is not told.
    pub total: Option<u64>,
    /// When the answer was made: its `Date` header, else the local clock.
    pub observed: Timestamp,
    /// Bytes of the answer, decompressed.
    pub bytes: usize,
    /// Rows without `planExecutionId`, which are left out.
    pub unidentified: u64,
    /// What was odd about the rows.
    pub drift: Drift,
}

/// One execution as a page gives it.
#[derive(Clone, Debug)]
pub struct PageRow {
    /// `planExecutionId`.
    pub id: PlanExecutionId,
    /// `startTs`; `None` where it is missing or outside 2000 to 2100, which is counted as drift.
    pub start: Option<Timestamp>,
    /// Whether the execution is over, by its `status`; an unknown one is over if `endTs` is told.
    pub is_terminal: bool,
    /// The JSON of the row as it came, but for personal data that is not kept: a part of the answer,
    /// which it keeps in memory.
    pub summary: Bytes,
    /// The hash of the summary's canonical form: see [`content_hash`](super::content_hash).
    pub content_hash: i64,
}

impl Page {
    /// Opens the envelope, splits the rows, and treats the personal data in them.
    pub(super) fn decode(
        answer: &Answer,
        scope: ScopeHash,
        treatment: &Treatment,
    ) -> Result<Self, Unusable> {
        let body = &answer.body;
        let Ok(json) = str::from_utf8(body) else {
            // Bytes that no text has must not hold up all the rows around them.
            let repaired = Answer {
                body: String::from_utf8_lossy(body).into_owned().into(),
                ..answer.clone()
            };
            let mut page = Self::decode(&repaired, scope, treatment)?;
            page.drift.odd_value("(bytes that are not UTF-8)", REPLACED);
            return Ok(page);
        };
        let mut reader = Reader {
            answer,
            scope,
            treatment,
            page: Self::empty(answer),
            status: None,
            has_data: false,
            has_content: false,
            odd_total: "(none)".to_owned(),
            scanner: Scanner::default(),
            changed: Scanner::default(),
        };
        reader.envelope(json).ok_or_else(|| malformed(body))?;
        let refuses = |status: String| !status.eq_ignore_ascii_case("SUCCESS");
        if reader.status.is_some_and(refuses) {
            return Err(Unusable::Refused(ErrorBody::read(body).unwrap_or_default()));
        }
        if !reader.has_data {
            return Err(missing("object `data`").into());
        }
        if !reader.has_content {
            return Err(missing("list `data.content`").into());
        }
        let mut page = reader.page;
        if page.total.is_none() {
            page.drift.odd_value("totalElements", &reader.odd_total);
        }
        Ok(page)
    }

    /// Whether the window of the page holds any execution.
    pub fn shows_any(&self) -> bool {
        !self.rows.is_empty() || 0 < self.unidentified || self.total.is_some_and(|total| 0 < total)
    }

    fn empty(answer: &Answer) -> Self {
        Self {
            rows: Vec::new(),
            total: None,
            observed: answer.observed,
            bytes: answer.body.len(),
            unidentified: 0,
            drift: Drift::default(),
        }
    }

    fn push(&mut self, row: Value<'_>, summary: Bytes, scope: ScopeHash) {
        let names = ["planExecutionId", "startTs", "status", "endTs"];
        // A row that is no object has none of them.
        let [id, start, status, end] = members(row, names).unwrap_or_default();
        let Some(plan_execution_id) = text(id) else {
            self.unidentified += 1;
            self.drift.odd_value("planExecutionId", shown(id));
            return;
        };
        let start_ms = sound_ms(start);
        if start_ms.is_none() {
            self.drift.odd_value("startTs", shown(start));
        }
        let category = categorize(&text(status).unwrap_or_default());
        self.rows.push(PageRow {
            id: PlanExecutionId::new(plan_execution_id),
            start: start_ms.map(from_ms),
            is_terminal: category.is_terminal(sound_ms(end).is_some()),
            content_hash: scope.content_hash(row),
            summary,
        });
    }
}

/// A page that is read row by row: the spans of one row are small, and at hand while it is hashed.
struct Reader<'a> {
    answer: &'a Answer,
    scope: ScopeHash,
    treatment: &'a Treatment,
    page: Page,
    /// `status`.
    status: Option<String>,
    /// Whether there was an object `data`.
    has_data: bool,
    /// Whether there was a list `data.content`.
    has_content: bool,
    /// `data.totalElements` as it came, in case it tells no total.
    odd_total: String,
    scanner: Scanner,
    changed: Scanner,
}

impl Reader<'_> {
    fn envelope(&mut self, json: &str) -> Option<()> {
        let mut cursor = Cursor::new(json)?;
        cursor.object(|cursor, name| {
            if is_meant("data", name.as_deref(), self.has_data) && cursor.next_byte() == Some(b'{')
            {
                self.page = Page::empty(self.answer);
                (self.has_data, self.has_content) = (true, false);
                return self.data(cursor);
            }
            let document = cursor.value(&mut self.scanner)?;
            let value = document.root();
            if is_meant("status", name.as_deref(), self.status.is_some()) && !value.is_null() {
                self.status = text(Some(value)).map(Cow::into_owned);
            }
            Some(())
        })?;
        cursor.end()
    }

    fn data(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        cursor.object(|cursor, name| {
            if is_meant("content", name.as_deref(), self.has_content)
                && cursor.next_byte() == Some(b'[')
            {
                let total = self.page.total;
                self.page = Page::empty(self.answer);
                self.page.total = total;
                self.has_content = true;
                return cursor.list(|cursor| self.row(cursor));
            }
            let document = cursor.value(&mut self.scanner)?;
            let value = document.root();
            if is_meant("totalElements", name.as_deref(), self.page.total.is_some())
                && !value.is_null()
            {
                let total = value.integer();
                self.page.total = total.and_then(|total| u64::try_from(total).ok());
                value.json().clone_into(&mut self.odd_total);
            }
            Some(())
        })
    }

    fn row(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let document = cursor.value(&mut self.scanner)?;
        let row = document.root();
        let repaired = document.repaired().map(Bytes::from);
        if repaired.is_some() {
            let path = "(halves of surrogate pairs)";
            self.page.drift.odd_value(path, REPLACED);
        }
        let came = self.answer.body.slice_ref(row.json().as_bytes());
        let summary = repaired.as_ref().unwrap_or(&came);
        let scrubbed = persons::scrub(summary, self.treatment);
        match scrubbed.or(repaired) {
            None => self.page.push(row, came, self.scope),
            Some(changed) => {
                let document = self.changed.scan(str::from_utf8(&changed).ok()?)?;
                let summary = changed.clone();
                self.page.push(document.root(), summary, self.scope);
            }
        }
        Some(())
    }
}

/// What became of what no text has.
const REPLACED: &str = "replaced by U+FFFD";

fn shown(value: Option<Value<'_>>) -> &str {
    value.map_or("(none)", Value::json)
}

#[cfg(test)]
mod tests {
    use super::super::canonical::{content_hash, of_scope};
    use super::*;
    use crate::ids::Scope;

    fn decode(json: &str) -> Result<Page, Unusable> {
        decode_treating(json, &Treatment::Keep)
    }

    fn decode_treating(json: &str, treatment: &Treatment) -> Result<Page, Unusable> {
        let scope = Scope::new("default", "web");
        let answer = Answer {
            status: 200,
            body: Bytes::copy_from_slice(json.as_bytes()),
            total: None,
            observed: Timestamp::UNIX_EPOCH,
            retry_after: std::time::Duration::ZERO,
        };
        Page::decode(&answer, of_scope(&scope), treatment)
    }

    #[test]
    fn rows_are_the_very_bytes_of_the_answer() {
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
    fn personal_data_is_treated_before_the_content_is_hashed() {
        let ada = r#"{"planExecutionId":"a","abortedBy":{"userName":"Ada"}}"#;
        let bo = ada.replace("Ada", "Bo");
        let nobody = ada.replace("\"Ada\"", "null");
        let json = format!(r#"{{"data":{{"content":[{ada},{bo}]}}}}"#);
        let page = decode_treating(&json, &Treatment::Drop).unwrap();
        let hash = content_hash(&Scope::new("default", "web"), &nobody);
        for row in page.rows {
            // Without a start, too: such rows are kept in the checkpoint.
            assert_eq!((row.start, row.content_hash), (None, hash));
            assert_eq!(row.summary, nobody);
        }
    }

    #[test]
    fn half_a_surrogate_pair_does_not_get_into_a_lake() {
        let row = r#"{"planExecutionId":"a","notes":"cut \ud83d","by":{"author":"Ada"}}"#;
        let json = format!(r#"{{"data":{{"content":[{row},{{"planExecutionId":"b"}}]}}}}"#);
        for (treatment, author) in [(Treatment::Keep, r#""Ada""#), (Treatment::Drop, "null")] {
            let page = decode_treating(&json, &treatment).unwrap();
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
    fn odd_rows_are_counted_and_never_fail_the_page() {
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
    fn a_refusal_inside_a_200_is_seen() {
        let refused = decode(r#"{"status":"ERROR","code":"INVALID_REQUEST","message":"no"}"#);
        assert!(matches!(refused, Err(Unusable::Refused(e)) if e.code == "INVALID_REQUEST"));
        // Null is as if absent, in any spelling.
        let refused = decode(r#"{"Status":"ERROR","status":null,"data":{"content":[]}}"#);
        assert!(matches!(refused, Err(Unusable::Refused(_))));
    }

    #[test]
    fn an_envelope_without_content_is_malformed() {
        for body in [
            "{}",
            "[]",
            r#"{"status":"SUCCESS","data":null}"#,
            r#"{"status":"SUCCESS","data":{"content":null}}"#,
            r#"{"status":"SUCCESS","data":{"totalElements":0}}"#,
        ] {
            assert!(
                matches!(decode(body), Err(Unusable::Malformed(_))),
                "{body}"
            );
        }
    }

    #[test]
    fn the_exact_spelling_counts_wherever_it_stands() {
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
            let is_told = data.to_lowercase().contains("totalelements");
            assert_eq!(page.total, is_told.then_some(7), "{data}");
        }
    }

    #[test]
    fn a_page_cut_anywhere_is_malformed() {
        let whole = r#"{"status":"SUCCESS","data":{"content":[{"planExecutionId":"a"}],"totalElements":1}}"#;
        assert!(decode(whole).is_ok());
        for end in 0..whole.len() {
            let cut = decode(&whole[..end]);
            assert!(matches!(cut, Err(Unusable::Malformed(_))), "cut at {end}");
        }
    }
}
