//! Explores every interleaving of runs that commit to the log of a Delta table of one object, with a crash at every
//! step. The runs decide by [`Source::of`].

use std::collections::BTreeSet;

use super::action::{Add, Remove};
use super::copies::Source;
use super::file::{DataFile, parse};
use super::snapshot::Snapshot;

/// A version of the table object: its revision, and a number of its content.
type Version = (u64, u8);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Merges into the raw object, and replaces the table object.
    Sync,
    /// Derives the table object again, with other content, and compares completely.
    Replay,
    /// Changes other objects, and compares this one only if a pending list names it.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Start,
    Put,
    ReadPending,
    ReadLog,
    ReadObject,
    Commit,
    End,
    Ended,
    Crashed,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    kind: Kind,
    step: Step,
    /// The version that this run wrote.
    written: Option<Version>,
    /// Whether the pending list of another run names the object.
    is_named: bool,
    /// Whether the run compares every object.
    is_complete: bool,
    /// The number of entries that were read.
    entries: usize,
    wanted: Option<Version>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    object: Option<Version>,
    next_content: u8,
    /// The live version after each entry.
    log: Vec<Version>,
    /// The runs with a pending list.
    pending: BTreeSet<usize>,
    runs: Vec<Run>,
}

/// A part of the protocol that a test breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    Nothing,
    OlderCopiesWin,
    EqualRevisionsUseTheirOwnCopy,
    ObjectIsReadBeforeTheLog,
    PendingListIsDeletedFirst,
    EntriesAreOverwritten,
    ReplayHasNoPendingList,
}

fn path((revision, content): Version) -> String {
    format!("part-0-of-1-r{revision}-{content}.parquet")
}

fn copy_of(version: Version) -> DataFile {
    DataFile {
        object: "part-0-of-1.parquet".to_owned(),
        revision: version.0,
        add: Add {
            path: path(version),
            ..Add::default()
        },
    }
}

fn snapshot(log: &[Version]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (at, version) in log.iter().enumerate() {
        if let Some(old) = at.checked_sub(1) {
            let path = path(log[old]);
            let remove = Remove {
                path,
                ..Remove::default()
            };
            snapshot.apply(remove.into());
        }
        snapshot.apply(copy_of(*version).add.into());
    }
    snapshot
}

impl State {
    fn new(kinds: &[Kind]) -> Self {
        let run = |kind: &Kind| Run {
            kind: *kind,
            step: Step::Start,
            written: None,
            is_named: false,
            is_complete: false,
            entries: 0,
            wanted: None,
        };
        Self {
            object: None,
            next_content: 0,
            log: Vec::new(),
            pending: BTreeSet::new(),
            runs: kinds.iter().map(run).collect(),
        }
    }

    fn put(&mut self, at: usize, revision: u64) {
        let version = (revision, self.next_content);
        self.next_content += 1;
        self.object = Some(version);
        self.runs[at].written = Some(version);
    }

    /// Returns the states after the next step of a run.
    fn next(&self, at: usize, broken: Break) -> Vec<Self> {
        let mut next = self.clone();
        let run = self.runs[at].clone();
        match (run.step, run.kind) {
            (Step::Start, Kind::Sync) => {
                next.pending.insert(at);
                next.runs[at].step = Step::Put;
            }
            (Step::Start, Kind::Replay) => {
                if broken != Break::ReplayHasNoPendingList {
                    next.pending.insert(at);
                }
                next.runs[at].step = Step::Put;
            }
            (Step::Start | Step::Put, Kind::Other) => next.runs[at].step = Step::ReadPending,
            (Step::Put, Kind::Sync) => {
                next.runs[at].step = Step::ReadPending;
                // Another run may have derived the tables from the rows of this one.
                let current = self.object.is_some().then(|| next.clone());
                next.put(at, self.object.map_or(0, |(revision, _)| revision) + 1);
                return [next].into_iter().chain(current).collect();
            }
            (Step::ReadPending, _) => {
                let mut others = self.pending.iter().filter(|other| **other != at);
                next.runs[at].is_named = others.clone().next().is_some();
                next.runs[at].is_complete = run.kind == Kind::Replay
                    || others.any(|other| self.runs[*other].kind == Kind::Replay);
                let run = &next.runs[at];
                let is_touched = run.is_complete || run.is_named || run.written.is_some();
                next.runs[at].step = if is_touched { Step::ReadLog } else { Step::End };
            }
            (Step::Put, Kind::Replay) => {
                if let Some((revision, _)) = self.object {
                    next.put(at, revision);
                }
                next.runs[at].step = Step::ReadPending;
            }
            (Step::ReadLog, _) => {
                next.runs[at].entries = self.log.len();
                if broken == Break::ObjectIsReadBeforeTheLog && run.wanted.is_some() {
                    next.runs[at].step = Step::Commit;
                } else {
                    next.read_log(at, broken);
                }
            }
            (Step::ReadObject, _) => {
                next.runs[at].wanted = self.object;
                next.runs[at].step = Step::Commit;
            }
            (Step::Commit, _) => next.commit(at, broken),
            (Step::End, _) => {
                next.pending.remove(&at);
                next.runs[at].step = Step::Ended;
            }
            (Step::Ended | Step::Crashed, _) => return Vec::new(),
        }
        vec![next]
    }

    fn read_log(&mut self, at: usize, broken: Break) {
        if broken == Break::PendingListIsDeletedFirst {
            self.pending.remove(&at);
        }
        let run = self.runs[at].clone();
        let snapshot = snapshot(&self.log);
        let live = snapshot
            .live
            .keys()
            .find_map(|path| parse(path))
            .map(|(_, revision)| revision);
        let copy = run.written.map(copy_of);
        let source = match Source::of(copy.as_ref(), live, &snapshot) {
            _ if run.is_complete => Source::Object,
            Source::Log
                if broken == Break::OlderCopiesWin && live != run.written.map(|one| one.0) =>
            {
                Source::Run
            }
            Source::Object if broken == Break::EqualRevisionsUseTheirOwnCopy => Source::Run,
            source => source,
        };
        self.runs[at].step = match source {
            Source::Log => Step::End,
            Source::Run => Step::Commit,
            Source::Object => Step::ReadObject,
        };
        if source == Source::Run {
            self.runs[at].wanted = run.written;
        }
        if broken == Break::ObjectIsReadBeforeTheLog && source == Source::Object {
            self.runs[at].wanted = self.object;
            self.runs[at].step = Step::ReadLog;
        }
    }

    fn commit(&mut self, at: usize, broken: Break) {
        let run = self.runs[at].clone();
        let (Some(wanted), entries) = (run.wanted, run.entries) else {
            self.runs[at].step = Step::End;
            return;
        };
        if self.log.len() != entries && broken != Break::EntriesAreOverwritten {
            self.runs[at].step = Step::ReadLog;
            self.runs[at].wanted = None;
            return;
        }
        self.log.truncate(entries);
        if self.log.last() != Some(&wanted) {
            self.log.push(wanted);
        }
        self.runs[at].step = Step::End;
    }

    /// Returns what is wrong with a state.
    fn problem(&self) -> Option<&'static str> {
        let is_sorted = self.log.is_sorted_by_key(|(revision, _)| *revision);
        let distinct: BTreeSet<_> = self.log.iter().collect();
        let ended = |run: &Run| run.step == Step::Ended;
        let is_current = self.log.last() == self.object.as_ref();
        match () {
            () if !is_sorted => Some("an older version replaced a newer one"),
            () if distinct.len() < self.log.len() => Some("a file was live twice"),
            () if self.runs.iter().all(ended) && !is_current => {
                Some("all runs ended well, and the table is stale")
            }
            () => None,
        }
    }
}

/// Returns the first problem of any interleaving, and the number of states.
fn explore(kinds: &[Kind], broken: Break) -> (Option<&'static str>, usize) {
    let mut seen = BTreeSet::new();
    let mut left = vec![State::new(kinds)];
    while let Some(state) = left.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        if let Some(problem) = state.problem() {
            return (Some(problem), seen.len());
        }
        let is_over = |run: &Run| matches!(run.step, Step::Ended | Step::Crashed);
        if state.runs.iter().all(is_over) && state.runs.len() == kinds.len() {
            // The next run is not disturbed.
            let mut last = state.clone();
            last.runs.extend(State::new(&[Kind::Other]).runs);
            last.runs
                .iter_mut()
                .filter(|run| is_over(run))
                .for_each(|run| run.step = Step::Ended);
            left.push(last);
        }
        for at in 0..state.runs.len() {
            left.extend(state.next(at, broken));
            if at < kinds.len() && !is_over(&state.runs[at]) {
                let mut crashed = state.clone();
                crashed.runs[at].step = Step::Crashed;
                left.push(crashed);
            }
        }
    }
    (None, seen.len())
}

#[test]
fn every_interleaving_ends_with_the_newest_object() {
    let mut explored = 0;
    for kinds in [
        &[Kind::Sync, Kind::Sync][..],
        &[Kind::Replay, Kind::Replay],
        &[Kind::Sync, Kind::Sync, Kind::Replay],
    ] {
        let (problem, states) = explore(kinds, Break::Nothing);
        assert_eq!(problem, None, "{kinds:?}");
        explored += states;
    }
    assert!(explored > 50_000, "{explored}");
}

#[test]
fn broken_protocols_are_detected() {
    for (broken, kinds) in [
        (Break::OlderCopiesWin, [Kind::Sync, Kind::Sync]),
        (
            Break::EqualRevisionsUseTheirOwnCopy,
            [Kind::Replay, Kind::Sync],
        ),
        (Break::ObjectIsReadBeforeTheLog, [Kind::Sync, Kind::Replay]),
        (Break::PendingListIsDeletedFirst, [Kind::Sync, Kind::Sync]),
        (Break::EntriesAreOverwritten, [Kind::Sync, Kind::Sync]),
        (Break::ReplayHasNoPendingList, [Kind::Sync, Kind::Replay]),
    ] {
        let (problem, _) = explore(&kinds, broken);
        assert!(problem.is_some(), "{broken:?}");
    }
}
