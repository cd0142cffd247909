//! Findings of `verify`, and the command that repairs each.

use std::borrow::Cow;

use jiff::civil::Date;
use serde::Serialize;

/// The result of checking a lake.
#[derive(Debug, Default, Serialize)]
pub struct Audit {
    /// Raw partitions read.
    pub partitions: usize,
    /// Executions in them.
    pub executions: u64,
    /// The findings.
    pub findings: Vec<Finding>,
}

/// A stale, foreign, damaged or missing object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// The kind.
    pub kind: FindingKind,
    /// The object. For a difference from the API: the project and the day.
    pub path: String,
    /// The problem.
    pub problem: String,
    /// The command that repairs it.
    pub repair: Cow<'static, str>,
}

/// The kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A run is active or was interrupted, or another version wrote the object; the next run or `replay` updates
    /// it.
    Stale,
    /// The file does not belong to the lake, but queries may read it.
    Foreign,
    /// The object violates a guarantee of the lake.
    Damage,
}

/// Repair of stale data that the next run updates.
pub const RUN_SYNC: &str = "harness-lake sync";
pub(super) const RUN_REPLAY: &str = "harness-lake replay";
pub(super) const REBUILD: &str = "harness-lake replay --all";
pub(super) const UPGRADE: &str = "upgrade harness-lake";
pub(super) const MOVE_FILE: &str = "move the file out of the lake";
pub(super) const DELETE_THEN_SYNC: &str = "delete the file, then run: harness-lake sync";
pub(super) const DELETE_RECORD: &str =
    "delete the file; the next run continues from the previous record";

/// Returns the command that fetches the raw partitions of a date again. Executions that Harness no
/// longer has can only come from a backup.
pub(super) fn run_backfill(date: Date) -> String {
    let next = date.tomorrow().unwrap_or(date);
    format!(
        "harness-lake backfill --refetch --from {date} --to {next}; for executions that Harness no longer has, restore _raw from a backup, then run: harness-lake replay --all"
    )
}

impl Audit {
    /// Adds a finding.
    pub fn add(
        &mut self,
        kind: FindingKind,
        path: &str,
        problem: impl Into<String>,
        repair: impl Into<Cow<'static, str>>,
    ) {
        self.findings.push(Finding {
            kind,
            path: path.to_owned(),
            problem: problem.into(),
            repair: repair.into(),
        });
    }

    /// Returns true if there is a finding for an object.
    pub(super) fn has_finding(&self, path: &str) -> bool {
        self.findings.iter().any(|finding| finding.path == path)
    }

    /// Returns the number of findings that fail the command: all but stale objects.
    pub fn failures(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.kind != FindingKind::Stale)
            .count()
    }
}
