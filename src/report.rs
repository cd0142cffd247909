//! The run report: what a run did, as JSON for machines and in a few lines for people.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff::civil::Date;
use serde::Serialize;

use crate::causes::chain;
use crate::checkpoint::{ScopeState, State};
use crate::drift::Drift;
use crate::error::{Code, Error, code_of_source};
use crate::extract::discover::Unlisted;
use crate::ids::{AccountId, Scope};
use crate::lake::commit::MergeResult;
use crate::lake::derive::WrittenFile;
use crate::schema::VERSION;
use crate::source::{Client, RequestCounts};

/// What a run did. Serialized, it is the report of the contract.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The run.
    pub run_id: String,
    /// The command, such as `sync`.
    pub command: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The account.
    pub account_id: AccountId,
    /// The version of the tables' schema.
    pub schema_version: u32,
    /// When it began, by the local clock.
    pub started_at: Timestamp,
    /// When it ended, by the local clock.
    pub finished_at: Timestamp,
    /// Up to where it read, by the source's clock; `None` where it read nothing.
    pub covered_to: Option<Timestamp>,
    /// How far the source's clock, which is used, is ahead of the local one, in seconds.
    pub clock_skew_seconds: Option<i64>,
    /// Scopes of the run.
    pub scopes: ScopeCounts,
    /// Requests to the source.
    pub requests: RequestCounts,
    /// Executions observed, each counted once a spool.
    pub executions: ExecutionCounts,
    /// Dates whose rows changed.
    pub dates_changed: BTreeSet<Date>,
    /// Table objects that were replaced.
    pub files: BTreeSet<WrittenFile>,
    /// Executions that are not known to be over.
    pub open_executions: usize,
    /// Open executions that were given up: too old, or missing from whole polls.
    pub abandoned: usize,
    /// Windows that could not be read whole, of all runs so far.
    pub gaps: usize,
    /// Windows before the watermarks that nobody asked for, since a backfill or a copy of dates passed them over:
    /// the next `sync` asks for them.
    pub pending_windows: usize,
    /// Oldest and newest watermark of all scopes.
    pub watermark: Watermarks,
    /// Scopes of the lake that were read whole and in which no row was ever seen.
    pub empty_scopes: usize,
    /// Scopes that answer as if they were empty, though a row was seen in them that should be there
    /// still: a lost right looks like that on some servers, and so does a project that was emptied.
    pub suspiciously_empty: Vec<SuspiciouslyEmpty>,
    /// What was asked for too late: the source keeps nothing of that age, so what was not read is lost.
    pub expired_unread: Vec<ExpiredUnread>,
    /// Projects, as `org/project`, that were listed up to now and are not any more; their rows stay.
    pub vanished: Vec<String>,
    /// What failed, a line a scope.
    pub failures: Vec<Failure>,
    /// What the source sent that this version does not know.
    pub drift: Drift,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All done.
    Success,
    /// Some scopes failed, the rest is committed.
    Partial,
    /// Nothing more was done after a failure.
    Failed,
    /// A signal ended it.
    Interrupted,
}

/// Scopes of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScopeCounts {
    /// All.
    pub total: usize,
    /// Read whole.
    pub ok: usize,
    /// Failed, or not read whole.
    pub failed: usize,
}

/// Executions of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExecutionCounts {
    /// Rows that came from the source and landed, repetitions within a spool left out.
    pub observed: u64,
    /// Seen for the first time.
    pub inserted: u64,
    /// Seen with other content than before.
    pub updated: u64,
    /// Seen as they were.
    pub unchanged: u64,
}

/// Watermarks over all scopes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Watermarks {
    /// The oldest.
    pub min: Option<Timestamp>,
    /// The newest.
    pub max: Option<Timestamp>,
}

/// A scope that shows nothing from the newest row on that was ever seen in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SuspiciouslyEmpty {
    /// The organization.
    pub org: String,
    /// The project.
    pub project: String,
    /// `start_ts` of the newest row that was ever seen.
    pub last_row_start: Timestamp,
}

/// A window of a scope that the source keeps no more, and that no run has read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExpiredUnread {
    /// The organization.
    pub org: String,
    /// The project.
    pub project: String,
    /// Its first instant.
    pub from: Timestamp,
    /// The first instant after.
    pub to: Timestamp,
}

/// Why a scope was not read whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The organization; empty where the failure is no scope's.
    pub org: String,
    /// The project; empty where the failure is no scope's.
    pub project: String,
    /// The code of the contract.
    pub code: Code,
    /// What happened.
    pub message: String,
}

impl Failure {
    /// The failure of one scope.
    pub fn of(scope: &Scope, code: Code, message: impl Into<String>) -> Self {
        Self {
            org: scope.org.to_string(),
            project: scope.project.to_string(),
            code,
            message: message.into(),
        }
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

impl Outcome {
    /// How a run ended that met this error, or none.
    pub fn of(error: Option<&Error>) -> Self {
        match error {
            None => Self::Success,
            Some(Error::Partial { .. }) => Self::Partial,
            Some(Error::Interrupted | Error::Deadline { .. }) => Self::Interrupted,
            Some(_) => Self::Failed,
        }
    }
}

impl Report {
    /// A report of a run that begins now.
    pub fn begin(
        run_id: String,
        command: &'static str,
        account: AccountId,
        now: Timestamp,
    ) -> Self {
        Self {
            run_id,
            command,
            outcome: Outcome::Failed,
            account_id: account,
            schema_version: VERSION,
            started_at: now,
            finished_at: now,
            covered_to: None,
            clock_skew_seconds: None,
            scopes: ScopeCounts::default(),
            requests: RequestCounts::default(),
            executions: ExecutionCounts::default(),
            dates_changed: BTreeSet::new(),
            files: BTreeSet::new(),
            open_executions: 0,
            abandoned: 0,
            gaps: 0,
            pending_windows: 0,
            watermark: Watermarks::default(),
            empty_scopes: 0,
            suspiciously_empty: Vec::new(),
            expired_unread: Vec::new(),
            vanished: Vec::new(),
            failures: Vec::new(),
            drift: Drift::default(),
        }
    }

    /// Tells how the run ended: with this error, or none.
    pub fn end(&mut self, error: Option<&Error>) {
        self.outcome = Outcome::of(error);
        match self.outcome {
            Outcome::Success | Outcome::Partial => {}
            // Not to its end; the watermarks say how far.
            Outcome::Interrupted => self.covered_to = None,
            Outcome::Failed => {
                self.covered_to = None;
                self.failures.extend(error.map(|error| Failure {
                    org: String::new(),
                    project: String::new(),
                    code: error.code(),
                    message: chain(error),
                }));
            }
        }
    }

    /// Adds what landed.
    pub fn add(&mut self, landed: MergeResult) {
        let counts = landed.counts;
        self.executions.observed += counts.inserted + counts.updated + counts.unchanged;
        self.executions.inserted += counts.inserted;
        self.executions.updated += counts.updated;
        self.executions.unchanged += counts.unchanged;
        self.dates_changed
            .extend(landed.changed.iter().map(|partition| partition.date));
        self.add_files(landed.files);
        self.drift.add(landed.drift);
    }

    /// Takes over what the client counted.
    pub fn count(&mut self, client: &Client) {
        self.requests = client.counts();
    }

    /// Sums up the state that is committed now.
    pub fn sum_up(&mut self, state: &State) {
        let (min, max) = state.watermarks().unzip();
        self.watermark = Watermarks { min, max };
        self.open_executions = state.open.len();
        self.gaps = state.gap_count();
        self.pending_windows = state.skipped_count();
        let is_empty = |scope: &&ScopeState| {
            scope.last_row_start.is_none()
                && scope.last_success.is_some()
                && scope.last_error.is_none()
        };
        self.empty_scopes = state.scopes.values().filter(is_empty).count();
    }

    /// Adds objects that were replaced; of one object replaced twice the last counts.
    pub fn add_files(&mut self, files: Vec<WrittenFile>) {
        for file in files {
            let first = WrittenFile {
                rows: 0,
                bytes: 0,
                ..file.clone()
            };
            let known = self.files.range(first..).next();
            if let Some(known) = known.filter(|known| known.path == file.path).cloned() {
                self.files.remove(&known);
            }
            self.files.insert(file);
        }
    }
}
