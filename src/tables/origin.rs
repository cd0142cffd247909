//! The origin of an execution: its trigger, the execution that it retries, reruns or reverts, and its parent.

use std::borrow::Cow;

use super::columns::Entries;
use super::json::object;
use super::summary::{Field, Fieldset, Head, Summary};
use crate::drift::Drift;

/// The tag by which a pipeline names the execution that it reverts.
const REVERT_TAG: &str = "revert_execution_id";

object! {
    TriggerInfo of TriggerField at "executionTriggerInfo." {
        Type = "triggerType",
        TriggeredBy = "triggeredBy",
        IsRerun = "isRerun",
        RerunInfo = "rerunInfo",
    } others CountUnknown ["buildInfo"]
}

object! {
    TriggeredBy of TriggeredByField at "executionTriggerInfo.triggeredBy." {
        Uuid = "uuid",
        Identifier = "identifier",
        ExtraInfo = "extraInfo",
        TriggerIdentifier = "triggerIdentifier",
        TriggerName = "triggerName",
    } others CountUnknown
}

object! {
    ExtraInfo of ExtraInfoField at "executionTriggerInfo.triggeredBy.extraInfo." {
        Email = "email",
    } others Keep
}

object! {
    RerunInfo of RerunField at "executionTriggerInfo.rerunInfo." {
        Previous = "prevExecutionId",
        Root = "rootExecutionId",
    } others CountUnknown ["rootTriggerType", "prevTriggerType"]
}

object! {
    RetryMetadata of RetryField at "retryExecutionMetadata." {
        Parent = "parentExecutionId",
        Root = "rootExecutionId",
    } others Keep
}

object! {
    ParentStage of ParentField at "parentStageInfo." {
        HasParent = "hasparentpipeline",
        StageNodeId = "stagenodeid",
        ExecutionId = "executionid",
        PipelineId = "identifier",
        ProjectId = "projectid",
        OrgId = "orgid",
        RunSequence = "runsequence",
    } others CountUnknown ["triggerinfo", "triggerpayload"]
}

type Text<'a> = Option<Cow<'a, str>>;

/// The origin of an execution.
pub(super) struct Origin<'a> {
    pub(super) tags: Entries<'a>,
    pub(super) created_ms: Option<i64>,
    pub(super) execution_mode: Text<'a>,
    pub(super) trigger: Trigger<'a>,
    pub(super) retry: Retry<'a>,
    pub(super) parent: Parent<'a>,
}

/// What started an execution.
pub(super) struct Trigger<'a> {
    pub(super) kind: Text<'a>,
    pub(super) id: Text<'a>,
    pub(super) by_id: Text<'a>,
    pub(super) by_name: Text<'a>,
    pub(super) by_email: Text<'a>,
    pub(super) is_rerun: bool,
    pub(super) rerun_of: Text<'a>,
    pub(super) rerun_root: Text<'a>,
}

/// The execution that an execution retries.
pub(super) struct Retry<'a> {
    /// True if the server says that it is a retry, or names what it retries.
    pub(super) is_marked: bool,
    pub(super) root: Text<'a>,
    pub(super) parent: Text<'a>,
}

/// The execution whose stage started an execution.
#[derive(Default)]
pub(super) struct Parent<'a> {
    pub(super) execution: Text<'a>,
    pub(super) stage_node: Text<'a>,
    pub(super) pipeline: Text<'a>,
    pub(super) org: Text<'a>,
    pub(super) project: Text<'a>,
}

impl<'a> Origin<'a> {
    /// Takes the origin out of a summary.
    pub(super) fn take(head: &Head<'_>, summary: &mut Summary<'a>, drift: &mut Drift) -> Self {
        let tags = summary.tags(drift);
        let fields = &mut summary.fields;
        Self {
            tags,
            created_ms: fields.time(Field::CreatedAt, drift),
            execution_mode: fields.text(Field::ExecutionMode, drift),
            trigger: Trigger::take(fields, drift),
            retry: Retry::take(head, fields, drift),
            parent: Parent::take(fields, drift),
        }
    }

    /// Returns true if the execution only rolls back another one.
    pub(super) fn rolls_back(&self) -> bool {
        let mode = self.execution_mode.as_deref();
        mode.is_some_and(|mode| ["POST_EXECUTION_ROLLBACK", "PIPELINE_ROLLBACK"].contains(&mode))
    }

    /// Returns the execution that this one reverts.
    pub(super) fn reverts(&self) -> Option<&str> {
        let tag = self.tags.iter().find(|(key, _)| key == REVERT_TAG);
        tag?.1.as_deref().filter(|id| !id.is_empty())
    }
}

impl<'a> Trigger<'a> {
    fn take(fields: &mut Fieldset<'a>, drift: &mut Drift) -> Self {
        let mut trigger: TriggerInfo<'_> = fields.object(Field::TriggerInfo, drift);
        let mut by: TriggeredBy<'_> = trigger.object(TriggerField::TriggeredBy, drift);
        let mut more: ExtraInfo<'_> = by.object(TriggeredByField::ExtraInfo, drift);
        let mut rerun: RerunInfo<'_> = trigger.object(TriggerField::RerunInfo, drift);
        let rerun_of = rerun.text(RerunField::Previous, drift);
        let rerun_root = rerun.text(RerunField::Root, drift);
        let found = Self {
            kind: trigger.text(TriggerField::Type, drift),
            id: by.text(TriggeredByField::TriggerIdentifier, drift),
            by_id: by.text(TriggeredByField::Uuid, drift),
            by_name: by.text(TriggeredByField::Identifier, drift),
            by_email: more.text(ExtraInfoField::Email, drift),
            is_rerun: trigger.boolean(TriggerField::IsRerun, drift) == Some(true),
            rerun_root: rerun_root.or_else(|| rerun_of.clone()),
            rerun_of,
        };
        // The server sends an empty name if there is no trigger.
        by.take_if_empty(TriggeredByField::TriggerName);
        by.restore_object(TriggeredByField::ExtraInfo, more);
        trigger.restore_object(TriggerField::TriggeredBy, by);
        trigger.restore_object(TriggerField::RerunInfo, rerun);
        fields.restore_object(Field::TriggerInfo, trigger);
        found
    }
}

impl<'a> Retry<'a> {
    fn take(head: &Head<'_>, fields: &mut Fieldset<'a>, drift: &mut Drift) -> Self {
        let is_marked = [Field::IsRetried, Field::Retried]
            .map(|field| fields.boolean(field, drift) == Some(true))
            .contains(&true);
        let mut retry: RetryMetadata<'_> = fields.object(Field::RetryMetadata, drift);
        let another = |id: &Cow<'_, str>| id != head.row.plan_execution_id;
        let [root, parent] = [RetryField::Root, RetryField::Parent]
            .map(|field| retry.text(field, drift).filter(another));
        fields.restore_object(Field::RetryMetadata, retry);
        Self {
            is_marked: is_marked || root.is_some() || parent.is_some(),
            root,
            parent,
        }
    }
}

impl<'a> Parent<'a> {
    /// Takes the parent. Without a parent, the server sends empty texts and zeros.
    fn take(fields: &mut Fieldset<'a>, drift: &mut Drift) -> Self {
        let mut parent: ParentStage<'_> = fields.object(Field::ParentStageInfo, drift);
        let has_parent = parent.boolean(ParentField::HasParent, drift) == Some(true);
        let mut found = Self::default();
        for (id, field) in [
            (&mut found.execution, ParentField::ExecutionId),
            (&mut found.stage_node, ParentField::StageNodeId),
            (&mut found.pipeline, ParentField::PipelineId),
            (&mut found.org, ParentField::OrgId),
            (&mut found.project, ParentField::ProjectId),
        ] {
            if has_parent {
                *id = parent.text(field, drift);
            } else {
                parent.take_if_empty(field);
            }
        }
        if has_parent && found.is_unnamed() {
            parent.restore(ParentField::HasParent);
        }
        parent.take_if_empty(ParentField::RunSequence);
        fields.restore_object(Field::ParentStageInfo, parent);
        found
    }

    fn is_unnamed(&self) -> bool {
        let Self {
            execution,
            stage_node,
            pipeline,
            org,
            project,
        } = self;
        let ids = [execution, stage_node, pipeline, org, project];
        ids.iter().all(|id| id.is_none())
    }
}
