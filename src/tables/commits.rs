//! The `commits` table: one row per commit of an execution.

use super::columns::{columns, set_head};
use super::modules::Build;
use super::summary::Head;
use crate::schema::Table;

columns! {
    Commits of Table::Commits => {
        account_id: Text,
        org_id: Text,
        project_id: Text,
        pipeline_id: Text,
        plan_execution_id: Text,
        execution_start_ts: Time,
        commit_index: Int,
        commit_sha: Text,
        author_name: Text,
        author_email: Text,
        message: Text,
        committed_ts: Time,
        link: Text,
        repo_name: Text,
        branch: Text,
        pr_number: Int,
        observed_ts: Time,
    }
}

impl Commits {
    /// Adds the commits of an execution.
    pub(super) fn push(&mut self, head: &Head<'_>, build: &Build<'_>) {
        for (at, commit) in build.commits.iter().enumerate() {
            set_head!(self, head);
            self.execution_start_ts.set_ms(head.row.start_ms);
            self.commit_index.count(at);
            self.commit_sha.set(&commit.sha);
            self.author_name.push(commit.author_name.as_ref());
            self.author_email.push(commit.author_email.as_ref());
            self.message.push(commit.message.as_ref());
            self.committed_ts.push_ms(commit.committed_ms);
            self.link.push(commit.link.as_ref());
            self.repo_name.push(build.repo_name.as_ref());
            self.branch.push(build.branch.as_ref());
            self.pr_number.push(build.pr_number);
        }
    }
}
