//! Stage 3 of 4: raw rows to record batches, pure.
//!
//! ```text
//!                             +-> graph --> stages, deployments
//! RawRow --> summary (once) --+-> modules -> commits           --> four record batches
//!                             +-> executions <- totals of both
//! ```
//!
//! Every raw row gives exactly one row of `executions`, whatever its summary holds, and the tables of
//! a date are a function of its raw rows alone. Every upstream field is found again in a column, in
//! `module_info`, in `extra` or in `stages`; what this version does not know is counted as drift.

use arrow_array::RecordBatch;

use crate::drift::Drift;
use crate::ids::AccountId;
use crate::scan;
use crate::schema::Table;

mod buffers;
mod columns;
mod commits;
mod deployments;
mod dimensions;
mod executions;
mod graph;
mod json;
mod leaf;
mod members;
mod modules;
mod names;
mod stages;
mod summary;
#[cfg(test)]
mod tests;

pub use dimensions::{OrgRow, ProjectRow, ScopeRow, orgs, projects, scopes};

/// Bytes that a row of `executions` takes beside what its summary holds.
const ROW_BYTES: usize = 512;

/// One raw row as the lake keeps it. Times are ms since the epoch, UTC.
#[derive(Clone, Copy, Debug)]
pub struct RawRow<'a> {
    /// The execution.
    pub plan_execution_id: &'a str,
    /// The organization under which it was listed.
    pub org_id: &'a str,
    /// The project under which it was listed.
    pub project_id: &'a str,
    /// `startTs`.
    pub start_ms: i64,
    /// When this content was first seen.
    pub observed_ms: i64,
    /// When the execution was first seen.
    pub first_observed_ms: i64,
    /// The summary as it came.
    pub summary: &'a str,
}

/// Rows of every table of a date, in the order of [`Table::PARTITIONED`].
pub type Batches = [(Table, RecordBatch); 4];

/// The four tables that are derived from raw rows, under construction.
pub struct ExecutionTables {
    account: AccountId,
    scanner: scan::Scanner,
    graph_room: graph::GraphBuffers,
    commit_room: modules::CommitBuffers,
    stages: stages::Stages,
    deployments: deployments::Deployments,
    commits: commits::Commits,
    executions: executions::Executions,
    rows: usize,
    bytes: usize,
    drift: Drift,
}

impl ExecutionTables {
    /// Empty tables of one account.
    pub fn new(account: &AccountId) -> Self {
        Self {
            account: account.clone(),
            scanner: scan::Scanner::default(),
            graph_room: graph::GraphBuffers::default(),
            commit_room: modules::CommitBuffers::default(),
            stages: stages::Stages::default(),
            deployments: deployments::Deployments::default(),
            commits: commits::Commits::default(),
            executions: executions::Executions::default(),
            rows: 0,
            bytes: 0,
            drift: Drift::default(),
        }
    }

    /// Adds one execution with all that hangs on it. Cannot fail: what a summary does not say is
    /// null, and what it says otherwise than expected is kept in `extra` and counted.
    ///
    /// Rows keep the order of the calls; child rows follow their execution's.
    pub fn push(&mut self, row: &RawRow<'_>) {
        let drift = &mut self.drift;
        let document = self.scanner.scan(row.summary);
        let json = document.as_ref().map(scan::Document::root);
        let mut summary = summary::Summary::read(row, json, drift);
        let head = summary::Head {
            account: self.account.as_str(),
            row,
            pipeline_id: summary.fields.text(summary::Field::PipelineId, drift),
        };
        let module_info = summary.fields.peek(summary::Field::ModuleInfo);
        let modules = modules::Modules::read(module_info, &mut self.commit_room, drift);
        let graph = graph::Graph::take(&mut summary, &mut self.graph_room, drift);
        let mut totals = stages::Totals::default();
        graph.each_stage(&mut self.graph_room, |stage, fields| {
            self.stages.push(
                &head,
                &stage,
                fields,
                &mut totals,
                &mut self.deployments,
                drift,
            );
        });
        self.commits.push(&head, &modules.build);
        self.executions
            .push(&head, &mut summary, &modules, &totals, drift);
        self.graph_room.keep(summary);
        self.commit_room.keep(modules.build.commits);
        self.rows += 1;
        self.bytes += row.summary.len() + ROW_BYTES;
    }

    /// Executions added since the last [`finish`](Self::finish).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the rows take. Arrow ends at 2 GiB of text a column: finish long before.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives the rows as one batch a table, in the order of [`Table::PARTITIONED`], and leaves the
    /// builders empty and ready for more.
    pub fn finish(&mut self) -> Batches {
        self.rows = 0;
        self.bytes = 0;
        [
            (Table::Stages, self.stages.finish()),
            (Table::Deployments, self.deployments.finish()),
            (Table::Commits, self.commits.finish()),
            (Table::Executions, self.executions.finish()),
        ]
    }

    /// What was surprising since the last call.
    pub fn take_drift(&mut self) -> Drift {
        std::mem::take(&mut self.drift)
    }
}
