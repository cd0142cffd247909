//! The summary of an execution, decoded once for all tables: which fields the server sends, and
//! what those say that more than one table asks for.

use std::borrow::Cow;
use std::fmt;

use crate::scan::Value;

use super::RawRow;
use super::columns::Entries;
use super::json::{Fields, Object, object};
use super::leaf;
use super::members;
use crate::drift::Drift;

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
    } others Known [
        "yamlVersion",
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
    Failing of FailingField at "failureInfo." {
        Message = "message",
        Types = "failureTypeList",
        Responses = "responseMessages",
    } others Known
}

object! {
    FailureResponse of ResponseField at "failureInfo.responseMessages[]." {
        Types = "failureTypes",
    } others Held
}

object! {
    Tag of TagField at "tags[]." {
        Key = "key",
        Value = "value",
    } others Known
}

/// What every table repeats of an execution.
pub(super) struct Head<'a> {
    pub(super) account: &'a str,
    pub(super) row: &'a RawRow<'a>,
    pub(super) pipeline_id: Option<Cow<'a, str>>,
}

/// One execution's summary.
pub(super) struct Summary<'a> {
    pub(super) fields: Fieldset<'a>,
    /// The summary as JSON text where it is no object.
    undecoded: Option<Cow<'a, str>>,
}

impl<'a> Summary<'a> {
    /// Reads the summary of a row, which is `json` if it is JSON at all; one that is no object has
    /// no fields.
    pub(super) fn read(row: &'a RawRow<'a>, json: Option<Value<'a>>, drift: &mut Drift) -> Self {
        let decoded = json.and_then(|json| Fieldset::read(json, drift));
        let undecoded = decoded.is_none().then(|| {
            drift.odd_value("(summary)", row.summary);
            match json {
                Some(json) => Cow::Borrowed(json.json()),
                None => Cow::Owned(members::string(row.summary)),
            }
        });
        let mut fields = decoded.unwrap_or_else(Object::empty);
        for (field, id) in [
            (Field::PlanExecutionId, row.plan_execution_id),
            (Field::OrgId, row.org_id),
            (Field::ProjectId, row.project_id),
        ] {
            drop_if_same(&mut fields, field, id, drift);
        }
        if let Some(raw) = fields.take(Field::StartTs)
            && raw.integer() != Some(row.start_ms)
        {
            fields.refuse(Field::StartTs, drift);
        }
        Self { fields, undecoded }
    }

    /// Writes what no table took as JSON text; false where nothing is left.
    pub(super) fn write_extra(&self, out: &mut impl fmt::Write) -> bool {
        let Some(undecoded) = &self.undecoded else {
            return self.fields.write_left(out);
        };
        members::put(out, undecoded);
        true
    }

    /// The pipeline's tags: a list of `{key, value}`, or an object in newer spellings.
    pub(super) fn tags(&mut self, drift: &mut Drift) -> Entries<'a> {
        let Some(raw) = self.fields.take(Field::Tags) else {
            return Vec::new();
        };
        let read = if raw.json().starts_with('{') {
            tag_map(raw)
        } else {
            tag_list(raw, drift)
        };
        let (mut tags, is_whole) = read.unwrap_or_default();
        if !is_whole {
            self.fields.refuse(Field::Tags, drift);
        }
        if last_counts(&mut tags, "tags[].key", drift) && is_whole {
            self.fields.keep(Field::Tags);
        }
        tags
    }
}

/// Passes over an identifier that stands in a column already; another one stays.
pub(super) fn drop_if_same<F: Fields, const N: usize>(
    fields: &mut Object<'_, F, N>,
    field: F,
    id: &str,
    drift: &mut Drift,
) {
    if let Some(text) = fields.text(field, drift)
        && text != id
    {
        fields.keep(field);
    }
}

/// The entries of a list of tags, and whether they hold all that the list held.
fn tag_list<'a>(raw: Value<'a>, drift: &mut Drift) -> Option<(Entries<'a>, bool)> {
    let mut tags = Vec::new();
    let mut is_whole = true;
    for item in raw.items()? {
        let Some(mut tag) = Tag::read(item, drift) else {
            is_whole &= item.is_null();
            continue;
        };
        let value = tag.take(TagField::Value);
        let text = value.and_then(Value::text);
        is_whole &= value.is_some() == text.is_some();
        match tag.take(TagField::Key).and_then(Value::text) {
            Some(key) => tags.push((key, text)),
            None => is_whole = false,
        }
        is_whole &= tag.is_empty();
    }
    Some((tags, is_whole))
}

/// The entries of an object of texts, and whether they hold all that the object held.
fn tag_map(raw: Value<'_>) -> Option<(Entries<'_>, bool)> {
    let mut tags = Vec::new();
    let mut is_whole = true;
    for (key, value) in raw.members()? {
        let text = value.text();
        is_whole &= text.is_some() || value.is_null();
        tags.push((key, text));
    }
    Some((tags, is_whole))
}

/// Of a repeated key the last value counts; the others are counted. Whether there were any.
pub(super) fn last_counts(entries: &mut Entries<'_>, path: &str, drift: &mut Drift) -> bool {
    let before = entries.len();
    leaf::last_of_each(entries, |key, _| drift.odd_value(path, &key));
    entries.len() < before
}

/// More types than a failure has as a rule.
const MANY_TYPES: usize = 32;

/// Why something failed.
pub(super) struct FailureInfo<'a> {
    pub(super) message: Option<Cow<'a, str>>,
    pub(super) types: Vec<Cow<'a, str>>,
}

/// Takes a failure: told in detail by the field `detailed`, else, in older answers, by the message
/// alone in the field `brief`.
pub(super) fn failure<'a, F: Fields, const N: usize>(
    object: &mut Object<'a, F, N>,
    detailed: F,
    brief: F,
    drift: &mut Drift,
) -> FailureInfo<'a> {
    let mut info: Failing<'a> = object.object(detailed, drift);
    let message = info.text(FailingField::Message, drift);
    let mut types = info.texts(FailingField::Types, drift);
    info.take_if_empty(FailingField::Responses);
    if let Some(raw) = info.peek(FailingField::Responses) {
        let mut all = Vec::with_capacity(MANY_TYPES);
        all.append(&mut types);
        for response in raw.items().into_iter().flatten() {
            if let Some(mut response) = FailureResponse::read(response, drift) {
                all.append(&mut response.texts(ResponseField::Types, drift));
            }
        }
        leaf::first_of_each(&mut all, |kind| kind);
        types = all;
    }
    object.put_back(detailed, info);

    let mut info: Failing<'a> = object.object(brief, drift);
    let other = info.text(FailingField::Message, drift);
    if let (Some(one), Some(other)) = (&message, &other)
        && one != other
    {
        info.keep_instead(FailingField::Message, members::string(other));
    }
    object.put_back(brief, info);
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
    fn the_last_of_a_repeated_tag_counts() {
        let json = r#"[{"key":"a","value":"1"},{"key":"b"},{"key":"a","value":null}]"#;
        let (tags, extra, drift) = tags(json);
        assert_eq!(tags, [(Cow::from("b"), None), (Cow::from("a"), None)]);
        assert_eq!(extra.unwrap(), format!(r#"{{"tags":{json}}}"#));
        assert_eq!(drift.odd_values["tags[].key"].count, 1);
    }

    #[test]
    fn tags_that_are_no_tags_are_kept_whole() {
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
