//! The run report: the results of a run as JSON.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use crate::causes::chain;
use crate::drift::Drift;
use crate::error::{Code, Error, code_of_source};
use crate::extract::discover::Unlisted;
use crate::ids::{AccountId, Scope};
use crate::job::ChosenPeriod;
use crate::lake::derive::WrittenFile;
use crate::source::RequestCounts;

/// The results of a run. Its JSON is the run report.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The run.
    pub run_id: String,
    /// The command, such as `sync`.
    pub command: &'static str,
    /// The way the run ended.
    pub outcome: Outcome,
    /// The account.
    pub account_id: AccountId,
    /// The version of the table schemas.
    pub schema_version: u32,
    /// The start of the run, by the local clock.
    pub started_at: Timestamp,
    /// The end of the run, by the local clock.
    pub finished_at: Timestamp,
    /// The end of the range that was read, by the clock of the source; `None` if the run did not finish.
    pub covered_to: Option<Timestamp>,
    /// Seconds by which the clock of the source is ahead of the local one.
    pub clock_skew_seconds: Option<i64>,
    /// Projects of the run.
    pub scopes: ScopeCounts,
    /// Requests to the source.
    pub requests: RequestCounts,
    /// Executions read, each counted once per commit.
    pub executions: ExecutionCounts,
    /// The period that was chosen for the lake that this run created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chosen_period: Option<ChosenPeriod>,
    /// Dates with changed rows.
    pub dates_changed: BTreeSet<Date>,
    /// Table objects that were written, by path.
    pub files: Vec<WrittenFile>,
    /// Open executions in the lake.
    pub open_executions: usize,
    /// Open executions that this run stopped polling: too old, or missing from complete polls.
    pub abandoned: usize,
    /// Gaps in the lake, of all runs so far.
    pub gaps: usize,
    /// The same by reason; [`UNREAD`] if the API was unavailable. For metrics only.
    #[serde(skip)]
    pub gaps_by_reason: BTreeMap<String, usize>,
    /// Skipped ranges in the lake, which the next `sync` reads before new data.
    pub pending_windows: usize,
    /// Oldest and newest watermark of all projects.
    pub watermark: Watermarks,
    /// Projects that were read completely and never had an execution.
    pub empty_scopes: usize,
    /// Projects without a new execution for a week that this run did not ask for one (`--idle-interval`).
    pub idle_scopes: usize,
    /// Projects that no longer show executions that they showed before.
    pub suspiciously_empty: Vec<SuspiciouslyEmpty>,
    /// Windows that expired at the source before they were read.
    pub expired_unread: Vec<ExpiredUnread>,
    /// Projects, as `org/project`, that are no longer listed. Their rows stay in the lake.
    pub vanished: Vec<String>,
    /// Failures: one per project or organization, and the one that ended the run.
    pub failures: Vec<Failure>,
    /// Unknown fields, statuses and values in the responses.
    pub drift: Drift,
}

/// The reason of gaps that failed because the API was unavailable.
pub const UNREAD: &str = "unavailable";

/// The way a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was read and committed.
    Success,
    /// Some projects failed, the rest is committed.
    Partial,
    /// A failure ended the run.
    Failed,
    /// A signal or the deadline ended the run.
    Interrupted,
}

/// Projects of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScopeCounts {
    /// All.
    pub total: usize,
    /// Read completely. Idle projects that were not asked are not among them.
    pub ok: usize,
    /// Failed, or read with gaps.
    pub failed: usize,
}

/// Executions of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExecutionCounts {
    /// Executions read and merged, duplicates within a commit excluded.
    pub observed: u64,
    /// New executions.
    pub inserted: u64,
    /// Executions with changed content.
    pub updated: u64,
    /// Executions with the same content as before.
    pub unchanged: u64,
}

/// Watermarks over all projects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Watermarks {
    /// The oldest.
    pub min: Option<Timestamp>,
    /// The newest.
    pub max: Option<Timestamp>,
}

/// A project that no longer shows executions that it showed before.
///
/// Some servers hide executions instead of refusing a key without permission. A project that was
/// emptied looks the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuspiciouslyEmpty {
    /// The organization.
    pub org: String,
    /// The project.
    pub project: String,
    /// `start_ts` of the newest execution in the lake.
    pub last_row_start: Timestamp,
}

/// A window that expired at the source before any run read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpiredUnread {
    /// The organization.
    pub org: String,
    /// The project.
    pub project: String,
    /// The first instant.
    pub from: Timestamp,
    /// The first instant after.
    pub to: Timestamp,
}

/// A failure of a project, of an organization or of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The organization; empty for a failure of the run.
    pub org: String,
    /// The project; empty for a failure of an organization or of the run.
    pub project: String,
    /// The code of the failure.
    pub code: Code,
    /// The error and its causes.
    pub message: String,
}

impl Failure {
    /// Creates the failure of a project.
    pub fn of(scope: &Scope, code: Code, message: impl Into<String>) -> Self {
        Self {
            org: scope.org.to_string(),
            project: scope.project.to_string(),
            code,
            message: message.into(),
        }
    }

    /// Creates the failure of a run.
    pub fn of_run(error: &Error) -> Self {
        Self {
            org: String::new(),
            project: String::new(),
            code: error.code(),
            message: chain(error),
        }
    }

    /// Logs the failure as a warning.
    pub(crate) fn log(&self) {
        let (org, project, code) = (&self.org, &self.project, self.code.name());
        tracing::warn!(org.id = org, project.id = project, code, "{}", self.message);
    }
}

impl From<&Unlisted> for Failure {
    fn from(Unlisted { org, error }: &Unlisted) -> Self {
        Self {
            org: org.to_string(),
            project: String::new(),
            code: code_of_source(error),
            message: chain(error),
        }
    }
}

/// Returns the error of a command whose projects all failed like this.
///
/// `None` without a failure, or where a project was read in part.
pub fn all_failed(failures: &[Failure]) -> Option<Error> {
    let codes: Vec<_> = failures.iter().map(|failure| failure.code).collect();
    let code = Code::common(&codes)?;
    let first = codes.iter().position(|each| *each == code);
    let example = &failures[first.unwrap_or_default()];
    Some(Error::AllFailed {
        scopes: codes.len(),
        code,
        example: format!("{}/{}: {}", example.org, example.project, example.message),
    })
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [
        Self::Success,
        Self::Partial,
        Self::Failed,
        Self::Interrupted,
    ];

    /// Returns the name in reports and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// Returns the outcome of a run that ended with this error, or without one.
    pub fn of(error: Option<&Error>) -> Self {
        match error {
            None => Self::Success,
            Some(Error::Partial { .. }) => Self::Partial,
            Some(Error::Interrupted | Error::Deadline { .. }) => Self::Interrupted,
            Some(_) => Self::Failed,
        }
    }
}
