//! One page of execution summaries: the envelope is opened, the rows stay as they came.

use bytes::Bytes;
use jiff::Timestamp;

use crate::drift::Drift;
use crate::ids::PlanExecutionId;
use crate::pii::Treatment;
use crate::scan::{Scanner, Value};
use crate::status::categorize;
use crate::window::from_ms;

use super::canonical::ScopeHash;
use super::http::{Answer, Unusable};
use super::persons;
use super::wire::{ErrorBody, integer, members, missing, sane_ms, scan, text};

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
        let mut scanner = Scanner::default();
        let document = scan(body, &mut scanner)?;
        let envelope = document.root();
        let [status, data] =
            members(envelope, ["status", "data"]).ok_or_else(|| missing("object"))?;
        if text(status).is_some_and(|status| !status.eq_ignore_ascii_case("SUCCESS")) {
            return Err(Unusable::Refused(ErrorBody::of(envelope)));
        }
        let [content, total] = data
            .and_then(|data| members(data, ["content", "totalElements"]))
            .ok_or_else(|| missing("object `data`"))?;
        let content = content
            .and_then(Value::items)
            .ok_or_else(|| missing("list `data.content`"))?;
        let mut page = Self {
            rows: Vec::new(),
            total: integer(total).and_then(|total| u64::try_from(total).ok()),
            observed: answer.observed,
            bytes: body.len(),
            unidentified: 0,
            drift: Drift::default(),
        };
        let mut scrubbed = Scanner::default();
        for row in content {
            let summary = body.slice_ref(row.json().as_bytes());
            match persons::scrub(&summary, treatment) {
                None => page.push(row, summary, scope),
                Some(summary) => {
                    let row = scan(&summary, &mut scrubbed)?;
                    page.push(row.root(), summary.clone(), scope);
                }
            }
        }
        Ok(page)
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
        let start_ms = sane_ms(start);
        if start_ms.is_none() {
            self.drift.odd_value("startTs", shown(start));
        }
        let category = categorize(&text(status).unwrap_or_default());
        self.rows.push(PageRow {
            id: PlanExecutionId::new(plan_execution_id),
            start: start_ms.map(from_ms),
            is_terminal: category.is_terminal(sane_ms(end).is_some()),
            content_hash: scope.content_hash(row),
            summary,
        });
    }
}

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
    fn odd_rows_are_counted_and_never_fail_the_page() {
        let page = decode(
            r#"{"data":{"content":[{"planExecutionId":null},{"planExecutionId":7,"startTs":-62135596800000},3,
            {"planExecutionId":"b","startTs":[],"status":"New","endTs":1700000000000},{"planExecutionId":"c","startTs":1}],"totalElements":null}}"#,
        )
        .unwrap();
        assert_eq!((page.total, page.unidentified), (None, 2));
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
    fn a_page_cut_anywhere_is_malformed() {
        let whole = r#"{"status":"SUCCESS","data":{"content":[{"planExecutionId":"a"}],"totalElements":1}}"#;
        assert!(decode(whole).is_ok());
        for end in 0..whole.len() {
            let cut = decode(&whole[..end]);
            assert!(matches!(cut, Err(Unusable::Malformed(_))), "cut at {end}");
        }
    }
}
