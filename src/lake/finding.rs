//! What an audit finds, and what repairs it.

use std::borrow::Cow;

use jiff::civil::Date;
use serde::Serialize;

/// What an audit found.
#[derive(Debug, Default, Serialize)]
pub struct Audit {
    /// Raw partitions looked at.
    pub partitions: usize,
    /// Executions in them.
    pub executions: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub kind: FindingKind,
    /// The object; of what the source says otherwise: the project and the day.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
    /// The command that repairs it.
    pub repair: Cow<'static, str>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A run died or is at work: the next one finishes it.
    Ahead,
    /// No file of this lake, yet where a query may meet it.
    Foreign,
    /// A promise of the lake is broken.
    Damage,
}

/// The command for what the next run finds by itself.
pub const BY_SYNC: &str = "harness-lake sync";
pub(super) const BY_EITHER: &str = "harness-lake sync (where a run died) or replay";
pub(super) const BY_REPLAY: &str = "harness-lake replay --all";
pub(super) const BY_HAND: &str = "move the object away";
pub(super) const BY_NEXT_SYNC: &str = "remove the object, then harness-lake sync";
pub(super) const BY_RECORD_BEFORE: &str = "remove the record: the one before it is taken up";

/// What reads the raw partitions of a date again. What the source keeps no more is in a backup, if anywhere.
pub(super) fn by_backfill(date: Date) -> String {
    let next = date.tomorrow().unwrap_or(date);
    format!(
        "harness-lake backfill --refetch --from {date} --to {next}; what Harness has no more: _raw from a backup, then replay --all"
    )
}

impl Audit {
    /// Adds a finding.
    pub fn add(
        &mut self,
        kind: FindingKind,
        path: &str,
        what: impl Into<String>,
        repair: impl Into<Cow<'static, str>>,
    ) {
        self.findings.push(Finding {
            kind,
            path: path.to_owned(),
            what: what.into(),
            repair: repair.into(),
        });
    }

    /// Whether something was found about an object.
    pub(super) fn tells_of(&self, path: &str) -> bool {
        self.findings.iter().any(|finding| finding.path == path)
    }

    /// Findings that are no work in progress: a promise is broken, or a foreign file is in the way.
    pub fn bad(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.kind != FindingKind::Ahead)
            .count()
    }
}
