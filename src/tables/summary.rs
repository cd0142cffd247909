//! The summary of an execution, decoded once for all tables: the known fields, and the readers that
//! several tables share.

use std::borrow::Cow;
use std::fmt;

use super::RawRow;
use super::columns::Entries;
use super::dedup;
use super::json::{Fields, Object, object};
use super::writer;
use crate::drift::Drift;
use crate::scan::Value;

object! {
    Fieldset of Field at "" {
        PipelineId = "pipelineIdentifier",
        OrgId = "orgIdentifier",
        ProjectId = "projectIdentifier",
        PlanExecutionId = "planExecutionId",
        Name = "name",
        Status = "status",
        Tags = "tags",
        TriggerInfo = "executionTriggerInfo",
        ErrorInfo = "executionErrorInfo",
        FailureInfo = "failureInfo",
        ModuleInfo = "moduleInfo",
        LayoutNodeMap = "layoutNodeMap",
        Modules = "modules",
        StartingNodeId = "startingNodeId",
        StartingNodeIds = "startingNodeIds",
        StartTs = "startTs",
        EndTs = "endTs",
        CreatedAt = "createdAt",
        TimeoutTs = "pipelineTimeoutTs",
        RunSequence = "runSequence",
        GitDetails = "gitDetails",
        StoreType = "storeType",
        ParentStageInfo = "parentStageInfo",
        AbortedBy = "abortedBy",
        ExecutionMode = "executionMode",
        IsRetried = "isRetriedExecution",
        Retried = "retriedExecution",
        RetryMetadata = "retryExecutionMetadata",
        YamlVersion = "yamlVersion",
    } others CountUnknown [
        "labels",
        "governanceMetadata",
        "canRetry",
        "canReExecute",
        "showRetryHistory",
        "successfulStagesCount",
        "runningStagesCount",
        "failedStagesCount",
        "totalStagesCount",
        "isDagEnabled",
        "dependencyGraph",
        "connectorRef",
        "executionInputConfigured",
        "allowStageExecutions",
        "stagesExecution",
        "isStagesExecution",
        "stagesExecuted",
        "stagesExecutedNames",
        "notesExistForPlanExecutionId",
        "notes",
        "shouldUseSimplifiedKey",
        "isDynamicExecution",
        "dynamicExecution",
        "isOriginalYamlUsedOnRerun",
        "originalYamlUsedOnRerun",
        "inputSetIdentifiers",
        "queuedType",
        "queuedReason",
        "templateReferenceSummary",
        "opaOnSaveStatus",
        "accountId",
    ]
}

object! {
    Failure of FailureField at "failureInfo." {
        Message = "message",
        Types = "failureTypeList",
        Responses = "responseMessages",
    } others CountUnknown
}

object! {
    FailureResponse of ResponseField at "failureInfo.responseMessages[]." {
        Types = "failureTypes",
    } others Ignore
}

object! {
    Tag of TagField at "tags[]." {
        Key = "key",
        Value = "value",
    } others CountUnknown
}

/// The values that all tables of an execution share.
pub(super) struct Head<'a> {
    pub(super) account: &'a str,
    /// The page of the account in the Harness UI.
    pub(super) account_url: &'a str,
    pub(super) row: &'a RawRow<'a>,
    pub(super) pipeline_id: Option<Cow<'a, str>>,
}

impl Head<'_> {
    /// Writes the address of the execution in the Harness UI. Returns false if its pipeline is unknown.
    pub(super) fn write_url(&self, out: &mut impl fmt::Write) -> bool {
        let Some(pipeline) = self.pipeline_id.as_deref() else {
            return false;
        };
        let row = self.row;
        writer::put(out, self.account_url);
        for part in [
            "/all/orgs/",
            row.org_id,
            "/projects/",
            row.project_id,
            "/pipelines/",
            pipeline,
            "/executions/",
            row.plan_execution_id,
            "/pipeline",
        ] {
            writer::put(out, part);
        }
        true
    }
}

/// One execution's summary.
pub(super) struct Summary<'a> {
    pub(super) fields: Fieldset<'a>,
    /// The summary as JSON text if it is not an object.
    undecoded: Option<Cow<'a, str>>,
}

impl<'a> Summary<'a> {
    /// Reads the summary of a row. `json` is `None` if the summary is not valid JSON.
    ///
    /// A summary that is not an object has no fields.
    pub(super) fn read(row: &'a RawRow<'a>, json: Option<Value<'a>>, drift: &mut Drift) -> Self {
        let decoded = json.and_then(|json| Fieldset::read(json, drift));
        let undecoded = decoded.is_none().then(|| {
            drift.odd_value("(summary)", row.summary);
            match json {
                Some(json) => Cow::Borrowed(json.json()),
                None => Cow::Owned(writer::string(row.summary)),
            }
        });
        let mut fields = decoded.unwrap_or_else(Object::empty);
        for (field, id) in [
            (Field::PlanExecutionId, row.plan_execution_id),
            (Field::OrgId, row.org_id),
            (Field::ProjectId, row.project_id),
        ] {
            drop_if_equal(&mut fields, field, id, drift);
        }
        if let Some(raw) = fields.take(Field::StartTs)
            && raw.integer() != Some(row.start_ms)
        {
            fields.reject(Field::StartTs, drift);
        }
        Self { fields, undecoded }
    }

    /// Writes the values that no table took as JSON text. Returns false if there are none.
    pub(super) fn write_extra(&self, out: &mut impl fmt::Write) -> bool {
        let Some(undecoded) = &self.undecoded else {
            return self.fields.write_rest(out);
        };
        writer::put(out, undecoded);
        true
    }

    /// Takes the tags of the pipeline: a list of `{key, value}`, or an object on newer servers.
    pub(super) fn tags(&mut self, drift: &mut Drift) -> Entries<'a> {
        let Some(raw) = self.fields.take(Field::Tags) else {
            return Vec::new();
        };
        let read = if raw.json().starts_with('{') {
            tag_map(raw)
        } else {
            tag_list(raw, drift)
        };
        let (mut tags, is_complete) = read.unwrap_or_default();
        if !is_complete {
            self.fields.reject(Field::Tags, drift);
        }
        if keep_last_entries(&mut tags, "tags[].key", drift) && is_complete {
            self.fields.restore(Field::Tags);
        }
        tags
    }
}

/// Drops an identifier that is already in a column. A different value is kept.
pub(super) fn drop_if_equal<F: Fields, const N: usize>(
    fields: &mut Object<'_, F, N>,
    field: F,
    id: &str,
    drift: &mut Drift,
) {
    if let Some(text) = fields.text(field, drift)
        && text != id
    {
        fields.restore(field);
    }
}

/// Returns the entries of a list of tags, and true if they contain everything in the list.
fn tag_list<'a>(raw: Value<'a>, drift: &mut Drift) -> Option<(Entries<'a>, bool)> {
    let mut tags = Vec::new();
    let mut is_complete = true;
    for item in raw.items()? {
        let Some(mut tag) = Tag::read(item, drift) else {
            is_complete &= item.is_null();
            continue;
        };
        let value = tag.take(TagField::Value);
        let text = value.and_then(Value::text);
        is_complete &= value.is_some() == text.is_some();
        match tag.take(TagField::Key).and_then(Value::text) {
            Some(key) => tags.push((key, text)),
            None => is_complete = false,
        }
        is_complete &= tag.is_empty();
    }
    Some((tags, is_complete))
}

/// Returns the entries of an object of texts, and true if they contain everything in the object.
fn tag_map(raw: Value<'_>) -> Option<(Entries<'_>, bool)> {
    let mut tags = Vec::new();
    let mut is_complete = true;
    for (key, value) in raw.members()? {
        let text = value.text();
        is_complete &= text.is_some() || value.is_null();
        tags.push((key, text));
    }
    Some((tags, is_complete))
}

/// Keeps the last entry of each key and counts the others. Returns true if any were dropped.
pub(super) fn keep_last_entries(entries: &mut Entries<'_>, path: &str, drift: &mut Drift) -> bool {
    let before = entries.len();
    dedup::keep_last(entries, |key, _| drift.odd_value(path, &key));
    entries.len() < before
}

/// Initial capacity for failure types; few failures have more.
const MANY_TYPES: usize = 32;

/// The reason of a failure.
pub(super) struct FailureInfo<'a> {
    pub(super) message: Option<Cow<'a, str>>,
    pub(super) types: Vec<Cow<'a, str>>,
}

/// Takes a failure from the field `detailed`. Older servers send only a message, in the field `brief`.
pub(super) fn take_failure<'a, F: Fields, const N: usize>(
    object: &mut Object<'a, F, N>,
    detailed: F,
    brief: F,
    drift: &mut Drift,
) -> FailureInfo<'a> {
    let mut info: Failure<'a> = object.object(detailed, drift);
    let message = info.text(FailureField::Message, drift);
    let mut types = info.texts(FailureField::Types, drift);
    info.take_if_empty(FailureField::Responses);
    if let Some(raw) = info.peek(FailureField::Responses) {
        let mut all = Vec::with_capacity(MANY_TYPES);
        all.append(&mut types);
        for response in raw.items().into_iter().flatten() {
            if let Some(mut response) = FailureResponse::read(response, drift) {
                all.append(&mut response.texts(ResponseField::Types, drift));
            }
        }
        dedup::keep_first(&mut all, |kind| kind);
        types = all;
    }
    object.restore_object(detailed, info);

    let mut info: Failure<'a> = object.object(brief, drift);
    let other = info.text(FailureField::Message, drift);
    if let (Some(one), Some(other)) = (&message, &other)
        && one != other
    {
        info.replace(FailureField::Message, writer::string(other));
    }
    object.restore_object(brief, info);
    FailureInfo {
        message: message.or(other),
        types,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::Scanner;

    fn tags(json: &str) -> (Entries<'static>, Option<String>, Drift) {
        let summary = format!(r#"{{"tags":{json}}}"#);
        let row = RawRow {
            plan_execution_id: "e1",
            org_id: "default",
            project_id: "web",
            start_ms: 1_700_000_000_000,
            observed_ms: 1_700_000_000_000,
            first_observed_ms: 1_700_000_000_000,
            summary: &summary,
        };
        let mut drift = Drift::default();
        let mut scanner = Scanner::default();
        let document = scanner.scan(row.summary).unwrap();
        let mut summary = Summary::read(&row, Some(document.root()), &mut drift);
        let owned = |(key, value): (Cow<'_, str>, Option<Cow<'_, str>>)| {
            let value = value.map(|value| Cow::Owned(value.into_owned()));
            (Cow::Owned(key.into_owned()), value)
        };
        let tags = summary.tags(&mut drift).into_iter().map(owned).collect();
        let mut extra = String::new();
        let is_some = summary.write_extra(&mut extra);
        (tags, is_some.then_some(extra), drift)
    }

    #[test]
    fn last_value_of_a_repeated_tag_wins() {
        let json = r#"[{"key":"a","value":"1"},{"key":"b"},{"key":"a","value":null}]"#;
        let (tags, extra, drift) = tags(json);
        assert_eq!(tags, [(Cow::from("b"), None), (Cow::from("a"), None)]);
        assert_eq!(extra.unwrap(), format!(r#"{{"tags":{json}}}"#));
        assert_eq!(drift.odd_values["tags[].key"].count, 1);
    }

    #[test]
    fn invalid_tags_are_kept_in_extra() {
        for (json, n) in [
            (r#"[{"key":"a"},3]"#, 1),
            (r#""x""#, 0),
            (r#"{"a":[1],"b":"c"}"#, 2),
        ] {
            let (tags, extra, drift) = tags(json);
            assert_eq!(tags.len(), n, "{json}");
            assert_eq!(extra.unwrap(), format!(r#"{{"tags":{json}}}"#));
            assert_eq!(drift.odd_values["tags"].count, 1);
        }
    }
}
