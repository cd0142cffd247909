//! Stage 3 of 4: derives the tables of a date from its raw rows. Pure.
//!
//! ```text
//!                             +-> graph --> stages, deployments
//! RawRow --> summary (once) --+-> modules -> commits           --> four record batches
//!                             +-> executions <- totals of both
//! ```
//!
//! Every raw row becomes exactly one row of `executions`, even if its summary is invalid. The tables of
//! a date depend only on its raw rows. Every upstream field is stored in a column, in `module_info`, in
//! `extra` or in `stages`. Fields and values that this version does not know are counted as drift.

use arrow_array::RecordBatch;

use crate::drift::Drift;
use crate::ids::AccountId;
use crate::scan;
use crate::schema::Table;

mod buffers;
mod columns;
mod commits;
mod convert;
mod dedup;
mod deployments;
mod dimensions;
mod executions;
mod graph;
mod json;
mod modules;
mod names;
mod origin;
mod stages;
mod summary;
#[cfg(test)]
mod tests;
mod writer;

pub use dimensions::{OrgRow, ProjectRow, ScopeRow, orgs, projects, scopes};

/// Estimated bytes of a row of `executions` in addition to its summary.
const ROW_BYTES: usize = 512;

/// One row of a raw partition. Times are ms since the epoch, UTC.
#[derive(Clone, Copy, Debug)]
pub struct RawRow<'a> {
    /// The execution ID.
    pub plan_execution_id: &'a str,
    /// The organization under which it was listed.
    pub org_id: &'a str,
    /// The project under which it was listed.
    pub project_id: &'a str,
    /// `startTs`.
    pub start_ms: i64,
    /// When this version was first observed.
    pub observed_ms: i64,
    /// When any version of the execution was first observed.
    pub first_observed_ms: i64,
    /// The summary as received.
    pub summary: &'a str,
}

/// The base URL of Harness' own service.
pub const DEFAULT_BASE_URL: &str = "https://app.harness.io";

/// The account of a lake: its identifier, and its page in the Harness UI.
#[derive(Clone, Debug)]
pub struct Account {
    id: AccountId,
    /// The page of the account in the Harness UI.
    url: String,
}

impl Account {
    /// Returns the account at a base URL of the API, such as [`DEFAULT_BASE_URL`].
    ///
    /// The UI has the same base URL, but for the prefix `/gateway`.
    pub fn new(id: &AccountId, base_url: &str) -> Self {
        let base = base_url.trim_end_matches('/');
        let base = base.strip_suffix("/gateway").unwrap_or(base);
        Self {
            id: id.clone(),
            url: format!("{base}/ng/account/{id}"),
        }
    }
}

/// One batch per partitioned table, in the order of [`Table::PARTITIONED`].
pub type Batches = [(Table, RecordBatch); 4];

/// Builders of the four tables that are derived from raw rows.
pub struct ExecutionTables {
    account: Account,
    scanner: scan::Scanner,
    graph_buffers: graph::GraphBuffers,
    commit_buffers: modules::CommitBuffers,
    stages: stages::Stages,
    deployments: deployments::Deployments,
    commits: commits::Commits,
    executions: executions::Executions,
    rows: usize,
    bytes: usize,
    drift: Drift,
}

impl ExecutionTables {
    /// Creates empty builders for one account.
    pub fn new(account: &Account) -> Self {
        Self {
            account: account.clone(),
            scanner: scan::Scanner::default(),
            graph_buffers: graph::GraphBuffers::default(),
            commit_buffers: modules::CommitBuffers::default(),
            stages: stages::Stages::default(),
            deployments: deployments::Deployments::default(),
            commits: commits::Commits::default(),
            executions: executions::Executions::default(),
            rows: 0,
            bytes: 0,
            drift: Drift::default(),
        }
    }

    /// Adds the rows of one execution to all four tables.
    ///
    /// Never fails: a missing value becomes null, and an invalid value is kept in `extra` and counted.
    /// Rows keep the order of the calls.
    pub fn push(&mut self, row: &RawRow<'_>) {
        let drift = &mut self.drift;
        let document = self.scanner.scan(row.summary);
        let json = document.as_ref().map(scan::Document::root);
        let mut summary = summary::Summary::read(row, json, drift);
        let head = summary::Head {
            account: self.account.id.as_str(),
            account_url: &self.account.url,
            row,
            pipeline_id: summary.fields.text(summary::Field::PipelineId, drift),
        };
        let module_info = summary.fields.peek(summary::Field::ModuleInfo);
        let modules = modules::Modules::read(module_info, &mut self.commit_buffers, drift);
        let origin = origin::Origin::take(&head, &mut summary, drift);
        let graph = graph::Graph::take(&mut summary, &mut self.graph_buffers, drift);
        let mut totals = stages::Totals::default();
        graph.for_each_stage(&mut self.graph_buffers, |stage, fields| {
            self.stages.push(
                (&head, &origin),
                &stage,
                fields,
                &mut totals,
                &mut self.deployments,
                drift,
            );
        });
        self.commits.push(&head, &modules.build);
        self.executions
            .push(&head, &mut summary, &modules, origin, &totals, drift);
        self.graph_buffers.recycle(summary);
        self.commit_buffers.recycle(modules.build.commits);
        self.rows += 1;
        self.bytes += row.summary.len() + ROW_BYTES;
    }

    /// Returns the number of executions added since the last [`finish`](Self::finish).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the estimated size of the rows in bytes. An Arrow text column is limited to 2 GiB, so
    /// call [`finish`](Self::finish) long before.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the rows as one batch per table and resets the builders.
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

    /// Returns the drift counted since the last call.
    pub fn take_drift(&mut self) -> Drift {
        std::mem::take(&mut self.drift)
    }
}
