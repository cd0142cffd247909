//! The `executions` table: one row per execution.

use super::columns::{columns, set_head};
use super::json::object;
use super::modules::Modules;
use super::origin::Origin;
use super::stages::{Progress, Totals};
use super::summary::{self, Field, Fieldset, Head, Summary};
use crate::drift::Drift;
use crate::scan::Value;
use crate::schema::Table;
use crate::status;

columns! {
    Executions of Table::Executions => {
        account_id: Text,
        org_id: Text,
        project_id: Text,
        pipeline_id: Text,
        pipeline_name: Text,
        plan_execution_id: Text,
        execution_url: Text,
        run_sequence: Int,
        status: Text,
        status_category: Text,
        is_terminal: Flag,
        is_failure_ignored: Flag,
        created_ts: Time,
        start_ts: Time,
        end_ts: Time,
        duration_ms: Int,
        queued_ms: Int,
        timeout_ts: Time,
        trigger_type: Text,
        trigger_id: Text,
        triggered_by_id: Text,
        triggered_by_name: Text,
        triggered_by_email: Text,
        execution_mode: Text,
        is_retry: Flag,
        retry_root_execution_id: Text,
        retry_parent_execution_id: Text,
        is_rerun: Flag,
        rerun_of_execution_id: Text,
        rerun_root_execution_id: Text,
        parent_pipeline_execution_id: Text,
        parent_stage_node_id: Text,
        parent_pipeline_id: Text,
        parent_org_id: Text,
        parent_project_id: Text,
        was_rolled_back: Flag,
        modules: TextList,
        tags: TextMap,
        store_type: Text,
        yaml_repo_name: Text,
        yaml_branch: Text,
        yaml_file_path: Text,
        yaml_commit_sha: Text,
        yaml_version: Text,
        repo_name: Text,
        branch: Text,
        commit_sha: Text,
        pr_number: Int,
        ci_event: Text,
        services: TextList,
        environments: TextList,
        environment_types: TextList,
        infrastructures: TextList,
        stage_count: Int,
        succeeded_stage_count: Int,
        failed_stage_count: Int,
        running_stage_count: Int,
        error_message: Text,
        failure_types: TextList,
        aborted_by_name: Text,
        aborted_by_email: Text,
        aborted_ts: Time,
        module_info: Text,
        extra: Text,
        first_observed_ts: Time,
        observed_ts: Time,
    }
}

object! {
    GitDetails of GitField at "gitDetails." {
        Branch = "branch",
        FilePath = "filePath",
        RepoName = "repoName",
        CommitId = "commitId",
    } others Keep
}

object! {
    AbortedBy of AbortedByField at "abortedBy." {
        Email = "email",
        UserName = "userName",
        CreatedAt = "createdAt",
    } others CountUnknown
}

impl Executions {
    /// Adds the row of an execution. Sets every column exactly once.
    pub(super) fn push(
        &mut self,
        head: &Head<'_>,
        summary: &mut Summary<'_>,
        modules: &Modules<'_>,
        origin: Origin<'_>,
        totals: &Totals,
        drift: &mut Drift,
    ) {
        set_head!(self, head);
        self.first_observed_ts.set_ms(head.row.first_observed_ms);
        self.execution_url.write(|out| head.write_url(out));
        self.push_origin(origin);
        self.push_totals(head, totals);
        self.push_modules(modules);

        let fields = &mut summary.fields;
        self.pipeline_name.push(fields.text(Field::Name, drift));
        self.run_sequence
            .push(fields.integer(Field::RunSequence, drift));
        self.store_type.push(fields.text(Field::StoreType, drift));
        self.modules.push(&fields.texts(Field::Modules, drift));
        self.module_info
            .push(fields.take(Field::ModuleInfo).map(Value::json));
        self.push_progress(head, fields, drift);
        self.push_yaml(fields, drift);
        self.push_end(fields, drift);
        self.extra.write(|out| summary.write_extra(out));
    }

    fn push_totals(&mut self, head: &Head<'_>, totals: &Totals) {
        let queued = |start: i64| start.checked_sub(head.row.start_ms);
        self.queued_ms.push(totals.first_start_ms.and_then(queued));
        self.was_rolled_back.set(totals.was_rolled_back);
        self.stage_count.count(totals.stages);
        self.succeeded_stage_count.count(totals.succeeded);
        self.failed_stage_count.count(totals.failed);
        self.running_stage_count.count(totals.running);
    }

    fn push_modules(&mut self, modules: &Modules<'_>) {
        let build = &modules.build;
        self.repo_name.push(build.repo_name.as_ref());
        self.branch.push(build.branch.as_ref());
        self.commit_sha
            .push(build.commits.first().map(|commit| &commit.sha));
        self.pr_number.push(build.pr_number);
        self.ci_event.push(build.event.as_ref());
        self.services.push(&modules.services);
        self.environments.push(&modules.environments);
        self.environment_types.push(&modules.environment_types);
        self.infrastructures.push(&modules.infrastructures);
    }

    fn push_progress(&mut self, head: &Head<'_>, fields: &mut Fieldset<'_>, drift: &mut Drift) {
        let end_ms = fields.time(Field::EndTs, drift);
        let status = fields.text(Field::Status, drift);
        let progress = Progress::new(status, Some(head.row.start_ms), end_ms, drift);
        let word = progress.status.as_deref().unwrap_or_default();
        self.is_failure_ignored
            .set(status::is_failure_ignored(word));
        self.status.push(progress.status.as_ref());
        self.status_category.set(progress.category.as_str());
        self.is_terminal.set(progress.is_terminal);
        self.start_ts.set_ms(head.row.start_ms);
        self.end_ts.push_ms(end_ms);
        self.duration_ms.push(progress.duration_ms());
        self.timeout_ts
            .push_ms(fields.time(Field::TimeoutTs, drift));
    }

    fn push_origin(&mut self, origin: Origin<'_>) {
        self.tags.push(origin.tags);
        self.created_ts.push_ms(origin.created_ms);
        self.execution_mode.push(origin.execution_mode);
        let trigger = origin.trigger;
        self.trigger_type.push(trigger.kind);
        self.trigger_id.push(trigger.id);
        self.triggered_by_id.push(trigger.by_id);
        self.triggered_by_name.push(trigger.by_name);
        self.triggered_by_email.push(trigger.by_email);
        self.is_rerun.set(trigger.is_rerun);
        self.rerun_of_execution_id.push(trigger.rerun_of);
        self.rerun_root_execution_id.push(trigger.rerun_root);
        self.is_retry.set(origin.retry.is_marked);
        self.retry_root_execution_id.push(origin.retry.root);
        self.retry_parent_execution_id.push(origin.retry.parent);
        let parent = origin.parent;
        self.parent_pipeline_execution_id.push(parent.execution);
        self.parent_stage_node_id.push(parent.stage_node);
        self.parent_pipeline_id.push(parent.pipeline);
        self.parent_org_id.push(parent.org);
        self.parent_project_id.push(parent.project);
    }

    fn push_yaml(&mut self, fields: &mut Fieldset<'_>, drift: &mut Drift) {
        let mut git: GitDetails<'_> = fields.object(Field::GitDetails, drift);
        self.yaml_version
            .push(fields.text(Field::YamlVersion, drift));
        self.yaml_repo_name
            .push(git.text(GitField::RepoName, drift));
        self.yaml_branch.push(git.text(GitField::Branch, drift));
        self.yaml_file_path
            .push(git.text(GitField::FilePath, drift));
        self.yaml_commit_sha
            .push(git.text(GitField::CommitId, drift));
        fields.restore_object(Field::GitDetails, git);
    }

    fn push_end(&mut self, fields: &mut Fieldset<'_>, drift: &mut Drift) {
        let failure = summary::take_failure(fields, Field::FailureInfo, Field::ErrorInfo, drift);
        self.error_message.push(failure.message);
        self.failure_types.push(&failure.types);
        let mut aborted: AbortedBy<'_> = fields.object(Field::AbortedBy, drift);
        self.aborted_by_name
            .push(aborted.text(AbortedByField::UserName, drift));
        self.aborted_by_email
            .push(aborted.text(AbortedByField::Email, drift));
        self.aborted_ts
            .push_ms(aborted.time(AbortedByField::CreatedAt, drift));
        fields.restore_object(Field::AbortedBy, aborted);
    }
}
