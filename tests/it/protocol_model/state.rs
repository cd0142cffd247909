//! The state of the model: parameters, objects in the store, and runs.

/// Maximum number of raw partitions; each has one execution.
pub(super) const DATES: usize = 2;

/// An observation of no execution: the run reads nothing of this date.
pub(super) const UNSEEN: u8 = u8::MAX;

/// Number of tables of a period: a child table and `executions`.
pub(super) const TABLES: usize = 2;
pub(super) const EXECUTIONS: usize = 1;

/// Number of runs: two that read the source, one that replays or recovers, and a final clean run.
pub(super) const RUNS: usize = 4;
pub(super) const THIRD: usize = 2;
pub(super) const CLEAN: usize = 3;

/// The possible observations: (minute of the response, content, is terminal).
pub(super) const OBSERVATIONS: [(i64, i64, bool); 8] = [
    (0, 1, false),
    (5, 2, true),
    // A lagging replica: the content of the first, observed after the second.
    (6, 1, false),
    // Reopened.
    (16, 3, false),
    // A lagging replica: terminal, as before it was reopened.
    (17, 2, true),
    // At the same time as the reopening.
    (16, 4, true),
    // Only for the clean run.
    (40, 4, true),
    (40, 3, false),
];

/// The observations of the two runs, and those of the clean run.
pub(super) const SEEN: std::ops::Range<u8> = 0..6;
pub(super) const SEEN_LAST: std::ops::Range<u8> = 6..8;

/// The protocol as written, or with one rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    AsWritten,
    /// The checkpoint takes the run's own observations instead of the merged raw versions.
    OwnObservations,
    /// `executions` is written before the other tables.
    ExecutionsFirst,
    /// The checkpoint is committed before the tables are written.
    CheckpointFirst,
    /// The list of dates is removed before the checkpoint is committed.
    RemovesListEarly,
    /// The list of a run is recovered and removed while that run is still active.
    RemovesListOfLiveRun,
    /// A run derives every date that it knows, even one that the object has in a higher revision.
    ReplacesNewerDates,
    /// A run does not take the rows of other dates from the object that it replaces.
    DropsOtherDates,
}

/// The task of the third run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Third {
    Nothing,
    /// Rebuilds all tables.
    Replays,
    /// Derives the pending dates of any run, as if that run were orphaned.
    Recovers,
}

/// The parameters of an exploration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) protocol: Protocol,
    pub(super) dates: usize,
    /// All dates share one object of each table.
    pub(super) is_month: bool,
    /// The initial observation of each date in raw, tables and checkpoint.
    pub(super) before: [Option<u8>; DATES],
    /// The observations that the two runs make of each date, or [`UNSEEN`].
    pub(super) sees: [[u8; DATES]; 2],
    pub(super) third: Third,
    /// Number of puts that may fail.
    pub(super) faults: u8,
}

/// A number for each date of an object. An object of one date uses only the number of that date.
pub(super) type ByDate = [u8; DATES];

/// An object and the put that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Object {
    /// The version: the number of committed puts.
    pub(super) tag: u8,
    /// The put: the run and a number within it.
    pub(super) write_id: (u8, u8),
    /// The revision of each raw object.
    pub(super) revision: ByDate,
    /// The observation of each date that the object contains.
    pub(super) shows: ByDate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Raw(usize),
    /// A table object, by its first date and table.
    Table(usize, usize),
    /// A checkpoint record by number; it contains a state.
    Record(u8),
}

/// A put in flight; it takes effect only if the object's version is `expected`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Put {
    pub(super) place: Place,
    pub(super) expected: Option<u8>,
    pub(super) write_id: (u8, u8),
    pub(super) revision: ByDate,
    pub(super) shows: ByDate,
}

/// The object that a put replaces; `None` if it creates the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replaces(pub(super) Option<Object>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Next {
    Absent,
    /// Looks for lists of dates left by other runs.
    FindLists,
    PutList,
    ReadRaw,
    Send(Put),
    ReadBack(Put),
    CheckExecutions,
    CheckTable(u8),
    RemoveList,
    ReadNewest,
    Done,
    Stopped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) number: u8,
    pub(super) next: Next,
    pub(super) date: u8,
    pub(super) puts: u8,
    /// The raw object as the run knows it: revision and observation.
    pub(super) raw: [(u8, u8); DATES],
    /// The stored observation that each date's merge started from.
    pub(super) stored: [Option<u8>; DATES],
    /// The table objects to replace.
    pub(super) targets: [Option<Replaces>; TABLES],
    /// `CheckpointFirst`: all dates are merged.
    pub(super) merged: bool,
    /// The run whose list of dates is recovered, and whether its list may be removed.
    pub(super) owner: Option<(usize, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) raw: [Option<Object>; DATES],
    /// The observation in each revision of raw.
    pub(super) history: [[u8; 8]; DATES],
    pub(super) tables: [[Option<Object>; TABLES]; DATES],
    /// States by number, and the puts that wrote them.
    pub(super) records: Vec<(u8, (u8, u8))>,
    pub(super) pending: [bool; RUNS],
    pub(super) late: Option<Put>,
    pub(super) runs: [Run; RUNS],
    pub(super) faults: u8,
    /// The observation of the clean run.
    pub(super) last: u8,
}

impl World {
    /// Returns the world after all runs stop.
    pub(super) fn after_all_runs_stop(&self) -> Self {
        let mut left = self.clone();
        for run in &mut left.runs {
            run.next = Next::Stopped;
            run.normalize();
        }
        left.late = None;
        left.faults = 0;
        left
    }
}

impl Setup {
    /// Returns the first date of the table object that contains `date`.
    pub(super) fn period(&self, date: usize) -> usize {
        if self.is_month { 0 } else { date }
    }

    /// Returns the dates of the table object that contains `date`.
    pub(super) fn dates_of_period(&self, date: usize) -> std::ops::Range<usize> {
        if self.is_month {
            0..self.dates
        } else {
            date..date + 1
        }
    }
}

impl Run {
    /// Resets the fields that no later step depends on, so that equivalent worlds are equal.
    pub(super) fn normalize(&mut self) {
        if !matches!(
            self.next,
            Next::Send(_) | Next::ReadBack(_) | Next::CheckTable(_)
        ) {
            self.targets = [None; TABLES];
        }
        if !self.is_at_work() {
            (self.date, self.puts, self.owner, self.merged) = (0, 0, None, false);
            self.stored = [None; DATES];
        }
    }

    pub(super) fn is_at_work(&self) -> bool {
        !matches!(
            self.next,
            Next::Absent | Next::FindLists | Next::Done | Next::Stopped
        )
    }

    pub(super) fn new_put(&mut self, place: Place) -> Put {
        self.puts += 1;
        Put {
            place,
            expected: None,
            write_id: (self.number, self.puts),
            revision: [0; DATES],
            shows: [0; DATES],
        }
    }
}

/// Returns `value` for one date.
pub(super) fn only(date: usize, value: u8) -> ByDate {
    let mut by_date = [0; DATES];
    by_date[date] = value;
    by_date
}

pub(super) fn object(world: &World, place: Place) -> Option<Object> {
    match place {
        Place::Raw(date) => world.raw[date],
        Place::Table(date, table) => world.tables[date][table],
        Place::Record(number) => {
            let (shows, write_id) = *world.records.get(usize::from(number))?;
            Some(Object {
                tag: 1,
                write_id,
                revision: [0; DATES],
                shows: [shows; DATES],
            })
        }
    }
}

/// Applies a put as a store does: only if its expected version matches.
pub(super) fn apply_put(world: &mut World, put: Put) -> bool {
    let there = object(world, put.place);
    if there.map(|there| there.tag) != put.expected {
        return false;
    }
    let object = Some(Object {
        tag: put.expected.unwrap_or(0) + 1,
        write_id: put.write_id,
        revision: put.revision,
        shows: put.shows,
    });
    match put.place {
        Place::Raw(date) => {
            world.raw[date] = object;
            world.history[date][usize::from(put.revision[date])] = put.shows[date];
        }
        Place::Table(date, table) => world.tables[date][table] = object,
        Place::Record(number) => {
            assert_eq!(usize::from(number), world.records.len());
            world.records.push((put.shows[0], put.write_id));
        }
    }
    true
}
