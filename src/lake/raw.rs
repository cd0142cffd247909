//! Merges observations into a raw partition, which keeps the winning observation of each execution.
//! Steps 1 to 3 of the protocol in `ARCHITECTURE.md`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;

use arrow_array::StringViewArray;
use jiff::Timestamp;

use super::layout::Partition;
use super::metadata::FileMetadata;
use super::parquet::{FileError, FileKind, read_raw};
use super::rows::{KEY_COLUMNS, RawBuilders, RawColumns, RawObject, micros, summaries};
use super::runs::{RunPosition, SortedRuns, Summaries};
use super::writer::ObjectWriter;
use crate::ids::{PlanExecutionId, Scope};
use crate::observation::wins;
use crate::observation::{Observation, Version};

/// The version of an execution in its raw partition after a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredVersion {
    /// The scope of the stored observation.
    pub scope: Scope,
    /// The time of the last observation of this content.
    pub observed: Timestamp,
    /// Set if the execution is terminal.
    pub is_terminal: bool,
    /// The revision of the raw object.
    pub revision: u64,
}

/// The result of merging observations into a raw object.
#[derive(Debug)]
pub struct MergedPartition {
    /// The new object; `None` if no observation won.
    pub replacement: Option<RawObject>,
    /// Set if an observation won.
    pub has_winners: bool,
    /// The outcome of each observed execution, and its stored version.
    pub executions: HashMap<PlanExecutionId, (Outcome, StoredVersion)>,
}

/// The outcome of merging an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not stored before.
    Inserted,
    /// Stored with other content before.
    Updated,
    /// Stored with the same content, or with a later observation.
    Unchanged,
}

/// The number of executions by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// Not stored before.
    pub inserted: u64,
    /// Stored with other content before.
    pub updated: u64,
    /// Stored with the same content, or with a later observation.
    pub unchanged: u64,
}

impl MergeCounts {
    /// Counts an execution.
    pub fn add(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Inserted => self.inserted += 1,
            Outcome::Updated => self.updated += 1,
            Outcome::Unchanged => self.unchanged += 1,
        }
    }
}

/// Maximum bytes of summaries in a batch.
pub(super) const BATCH_BYTES: usize = 4 << 20;

/// Maximum executions in a batch.
pub(super) const BATCH_ROWS: usize = 1_024;

/// Merges the observations of one partition into its raw object.
///
/// First compares keys only, then streams old rows and winners in order into a new object. So memory
/// does not grow with the object. The new revision is `previous + 1`, where `previous` is the
/// revision of the old object, or of the tables derived from a lost one.
///
/// # Errors
///
/// [`FileError`] if the old object is damaged or the new one cannot be written to `scratch`.
pub fn merge(
    partition: Partition,
    old: Option<&RawObject>,
    previous: u64,
    runs: &SortedRuns,
    scratch: &Path,
) -> Result<MergedPartition, FileError> {
    let path = partition.raw();
    let mut best: HashMap<&PlanExecutionId, Candidate<'_>> = HashMap::new();
    for (position, observation) in runs.observations() {
        best.entry(&observation.id)
            .and_modify(|candidate| candidate.add(observation, position))
            .or_insert(Candidate {
                observation,
                position,
                first_observed: observation.first_observed,
                existing: None,
            });
    }
    if let Some(old) = old {
        find_existing(&path, old, &mut best)?;
    }
    let mut executions = HashMap::with_capacity(best.len());
    let mut winners = Vec::new();
    for (id, candidate) in best {
        let outcome = candidate.outcome();
        executions.insert(id.clone(), (outcome, candidate.stored_version(outcome)));
        if outcome != Outcome::Unchanged {
            winners.push(candidate);
        }
    }
    let has_winners = !winners.is_empty();
    let replacement = if winners.is_empty() {
        None
    } else {
        Some(rewrite(&path, old, previous + 1, winners, runs, scratch)?)
    };
    let current = replacement.as_ref().or(old);
    let revision = current.map_or(0, |raw| raw.revision);
    for (_, stored) in executions.values_mut() {
        stored.revision = revision;
    }
    Ok(MergedPartition {
        replacement,
        has_winners,
        executions,
    })
}

/// The winning observation of one execution, and its row in the old object.
struct Candidate<'a> {
    observation: &'a Observation,
    position: RunPosition,
    first_observed: Timestamp,
    existing: Option<ExistingRow>,
}

struct ExistingRow {
    version: Version,
    scope: Scope,
}

impl<'a> Candidate<'a> {
    fn add(&mut self, other: &'a Observation, position: RunPosition) {
        self.first_observed = self.first_observed.min(other.first_observed);
        if wins(&other.version, &self.observation.version) {
            (self.observation, self.position) = (other, position);
        }
    }

    fn outcome(&self) -> Outcome {
        match &self.existing {
            None => Outcome::Inserted,
            Some(existing) if wins(&self.observation.version, &existing.version) => {
                Outcome::Updated
            }
            Some(_) => Outcome::Unchanged,
        }
    }

    fn stored_version(&self, outcome: Outcome) -> StoredVersion {
        let (version, scope) = match (&self.existing, outcome) {
            (Some(existing), Outcome::Unchanged) => (&existing.version, &existing.scope),
            _ => (&self.observation.version, &self.observation.scope),
        };
        // An observation of the same content extends the time for which the version is valid.
        let is_same = version.content_hash == self.observation.version.content_hash;
        let observed = if is_same {
            self.observation.version.observed
        } else {
            version.observed
        };
        StoredVersion {
            scope: scope.clone(),
            observed: version.observed.max(observed),
            is_terminal: version.is_terminal,
            revision: 0,
        }
    }
}

/// Reads the existing row of each candidate, without its summary.
fn find_existing(
    path: &str,
    old: &RawObject,
    best: &mut HashMap<&PlanExecutionId, Candidate<'_>>,
) -> Result<(), FileError> {
    for batch in read_raw(path, old.bytes.clone(), &KEY_COLUMNS)? {
        let batch = batch?;
        let rows = RawColumns::of(path, &batch)?;
        for at in 0..batch.num_rows() {
            let id = PlanExecutionId::new(rows.id.value(at));
            let Some(candidate) = best.get_mut(&id) else {
                continue;
            };
            let version = rows.version(at);
            let scope = Scope::new(rows.org.value(at), rows.project.value(at));
            let first = micros(rows.first_observed.value(at));
            candidate.first_observed = candidate.first_observed.min(first);
            candidate.existing = Some(ExistingRow { version, scope });
        }
    }
    Ok(())
}

/// Streams old rows and winners, ordered by (org, project, start, id), into a new object.
fn rewrite(
    path: &str,
    old: Option<&RawObject>,
    revision: u64,
    mut winners: Vec<Candidate<'_>>,
    runs: &SortedRuns,
    scratch: &Path,
) -> Result<RawObject, FileError> {
    winners.sort_by(|a, b| a.observation.order().cmp(&b.observation.order()));
    let replaced: HashSet<&str> = winners
        .iter()
        .filter(|winner| winner.existing.is_some())
        .map(|winner| winner.observation.id.as_str())
        .collect();
    let executions = old.map_or(0, |old| old.rows) + winners.len() as u64;
    let writer = ObjectWriter::new(FileKind::Raw, path, executions, scratch)?;
    let mut sink = Sink {
        writer,
        batch: RawBuilders::new(),
        summaries: runs.summaries(),
        scratch,
    };
    let mut waiting = winners.iter().peekable();
    if let Some(old) = old {
        for batch in read_raw(path, old.bytes.clone(), &[])? {
            let batch = batch?;
            let rows = RawColumns::of(path, &batch)?;
            let summaries = summaries(path, &batch)?;
            for at in (0..batch.num_rows()).filter(|at| !replaced.contains(rows.id.value(*at))) {
                while let Some(winner) =
                    waiting.next_if(|winner| winner.observation.order() < rows.order(at))
                {
                    sink.push_winner(winner)?;
                }
                sink.push_old(&rows, summaries, at)?;
            }
        }
    }
    for winner in waiting {
        sink.push_winner(winner)?;
    }
    sink.flush()?;
    let encoded = sink
        .writer
        .finish(&FileMetadata::new(FileKind::Raw, revision))?;
    Ok(RawObject {
        rows: encoded.rows() as u64,
        bytes: encoded.into_bytes()?,
        revision,
    })
}

struct Sink<'a> {
    writer: ObjectWriter,
    batch: RawBuilders,
    summaries: Summaries<'a>,
    scratch: &'a Path,
}

impl Sink<'_> {
    fn push_winner(&mut self, winner: &Candidate<'_>) -> Result<(), FileError> {
        let Observation {
            id,
            scope,
            start,
            version,
            ..
        } = winner.observation;
        let summary = self.summaries.at(winner.position);
        let summary = summary.map_err(unreadable(self.scratch))?;
        // Validation is several times faster than lossy conversion, and JSON text is valid already.
        let text = str::from_utf8(&summary)
            .map_or_else(|_| String::from_utf8_lossy(&summary), Cow::Borrowed);
        self.batch.push(
            [
                id.as_str(),
                scope.org.as_str(),
                scope.project.as_str(),
                &text,
            ],
            [*start, version.observed, winner.first_observed].map(Timestamp::as_microsecond),
            version.content_hash,
            version.is_terminal,
        );
        self.flush_if_large()
    }

    fn push_old(
        &mut self,
        rows: &RawColumns<'_>,
        summaries: &StringViewArray,
        at: usize,
    ) -> Result<(), FileError> {
        let [id, org, project] = [rows.id, rows.org, rows.project].map(|column| column.value(at));
        self.batch.push(
            [id, org, project, summaries.value(at)],
            [rows.start, rows.observed, rows.first_observed].map(|column| column.value(at)),
            rows.content_hash.value(at),
            rows.is_terminal.value(at),
        );
        self.flush_if_large()
    }

    fn flush_if_large(&mut self) -> Result<(), FileError> {
        if self.batch.bytes < BATCH_BYTES && self.batch.rows < BATCH_ROWS {
            return Ok(());
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), FileError> {
        self.writer.write(&self.batch.finish())
    }
}

fn unreadable(scratch: &Path) -> impl FnOnce(io::Error) -> FileError {
    let folder = scratch.display().to_string();
    move |source| FileError::Scratch { folder, source }
}
