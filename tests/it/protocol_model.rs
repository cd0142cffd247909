//! Every interleaving of the protocol of `lake::commit`, over the functions that really decide.
//!
//! Runs are little machines whose steps are single requests to a store; the explorer takes each
//! step of each run in every order, loses answers to puts that landed, fails puts that did not, and
//! lets a put land after its run gave it up. A run that dies is one that takes no further step, so in
//! every state all runs are taken for dead, and a clean run must make the lake right. What a run
//! decides comes from `lake::raw::merge`, `lake::commit::open_update` and `checkpoint::State::apply`.
//!
//! An execution was open at first, ended, and was opened again (a retry in place) or edited; runs
//! see it as of different times, some through a replica that lags.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

use harness_lake::checkpoint::{Delta, OpenUpdate, State};
use harness_lake::ids::{PlanExecutionId, Scope};
use harness_lake::lake::commit::open_update as fate_of;
use harness_lake::lake::layout::Partition;
use harness_lake::lake::raw::{StoredVersion, merge};
use harness_lake::lake::runs::SortedRuns;
use harness_lake::observation::REOPEN_AFTER_MS;
use harness_lake::observation::{Observation, Version};
use harness_lake::window::{Coverage, Window, from_ms};

/// Two partitions at most, each with one execution.
const DATES: usize = 2;

/// Tables of a partition: one of the children, and `executions`.
const TABLES: usize = 2;
const EXECUTIONS: usize = 1;

/// Two runs that read the source, one that replays or recovers, and the clean run at the end.
const RUNS: usize = 4;
const THIRD: usize = 2;
const CLEAN: usize = 3;

/// An observation that a run may make: (minute of the answer, content, whether it is over).
const OBSERVATIONS: [(i64, i64, bool); 8] = [
    (0, 1, false),
    (5, 2, true),
    // A replica that lags: the content of the first, later than the second.
    (6, 1, false),
    // Opened again.
    (16, 3, false),
    // A replica that lags: over, as before it was opened again.
    (17, 2, true),
    // Within the same second as it was opened again.
    (16, 4, true),
    // What the clean run may see.
    (40, 4, true),
    (40, 3, false),
];

/// Which of them the two runs may make, and the clean run.
const SEEN: std::ops::Range<u8> = 0..6;
const SEEN_LAST: std::ops::Range<u8> = 6..8;

/// A protocol: as written, or with one rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    AsWritten,
    /// The checkpoint takes what the run itself saw, not what raw says.
    AsThisRunSaw,
    /// `executions` is put before the other tables.
    ExecutionsFirst,
    /// The checkpoint is committed before the tables are put.
    CheckpointFirst,
    /// The list of dates is removed before the checkpoint is committed.
    ForgetsEarly,
    /// What a run left pending is derived and removed though the run still works.
    ForgetsTheLiving,
}

/// What the third run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Third {
    Nothing,
    /// Derives all tables again.
    Replays,
    /// Derives what any run left pending, as if it were old.
    Recovers,
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
struct Setup {
    protocol: Protocol,
    dates: usize,
    /// What raw, tables and checkpoint hold of each date at the start.
    before: [Option<u8>; DATES],
    /// What the two runs see of each date.
    sees: [[u8; DATES]; 2],
    third: Third,
    /// Puts that may go wrong.
    faults: u8,
}

/// An object, and the put that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Object {
    /// The version: counts the puts that landed.
    tag: u8,
    /// The put: run and its number.
    write_id: (u8, u8),
    /// Of the raw object.
    revision: u8,
    /// The observation that it shows.
    shows: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Raw(usize),
    Table(usize, usize),
    /// A checkpoint record by its number, which shows a state.
    Record(u8),
}

/// A put on its way: it takes effect only where `expected` stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Put {
    place: Place,
    expected: Option<u8>,
    write_id: (u8, u8),
    revision: u8,
    shows: u8,
}

/// The version that a put is to replace; `None` where it creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Replaces(Option<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Next {
    Absent,
    /// Looks for lists of dates that other runs left.
    List,
    Pending,
    ReadRaw,
    Send(Put),
    ReadBack(Put),
    Vouch,
    Stamp(u8),
    Unpend,
    Newest,
    Done,
    Dead,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Run {
    number: u8,
    next: Next,
    date: u8,
    puts: u8,
    /// The raw object as the run knows it: revision and observation.
    raw: [(u8, u8); DATES],
    /// What is kept of each date: from which stored observation it follows.
    stored: [Option<u8>; DATES],
    /// Versions of the tables that are to be replaced.
    targets: [Option<Replaces>; TABLES],
    /// `CheckpointFirst`: the merge of all dates is behind it.
    merged: bool,
    /// The run whose list of dates is recovered, and whether it was gone for sure by then.
    victim: Option<(usize, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    raw: [Option<Object>; DATES],
    /// The observation that each revision of raw showed.
    history: [[u8; 8]; DATES],
    tables: [[Option<Object>; TABLES]; DATES],
    /// States by number, and who put them.
    records: Vec<(u8, (u8, u8))>,
    pending: [bool; RUNS],
    late: Option<Put>,
    runs: [Run; RUNS],
    faults: u8,
    /// What the clean run sees.
    last: u8,
}

/// The real functions, each asked once for each question.
#[derive(Default)]
struct Rules {
    merges: HashMap<(Option<u8>, u8), (bool, StoredVersion)>,
    states: Vec<State>,
    deltas: Vec<Delta>,
    applied: HashMap<(u8, usize), u8>,
}

fn id(date: usize) -> PlanExecutionId {
    PlanExecutionId::new(["x", "y"][date])
}

fn version(seen: u8) -> Version {
    let (minute, content_hash, is_terminal) = OBSERVATIONS[usize::from(seen)];
    Version {
        observed: from_ms(minute * 60_000),
        content_hash,
        is_terminal,
    }
}

fn observation(seen: u8) -> Observation {
    Observation {
        id: id(0),
        scope: Scope::new("o", "p"),
        start: from_ms(0),
        version: version(seen),
        first_observed: version(seen).observed,
        summary: "{}".into(),
    }
}

/// Each run asks for a window of its own, so that its coverage can be told.
fn window(run: usize) -> Window {
    let from = i64::try_from(run).unwrap() * 10;
    Window::new(from_ms(from), from_ms(from + 5)).unwrap()
}

impl Rules {
    /// Whether an observation replaces the stored one, and what is kept.
    fn merge(&mut self, stored: Option<u8>, seen: u8) -> (bool, StoredVersion) {
        self.merges
            .entry((stored, seen))
            .or_insert_with(|| {
                let partition = Partition {
                    date: "1970-01-01".parse().unwrap(),
                    bucket: 0,
                    buckets: 1,
                };
                let scratch = std::env::temp_dir();
                let old = stored.map(|stored| {
                    let merged = merge(
                        partition,
                        None,
                        0,
                        &SortedRuns::of(vec![observation(stored)]),
                        &scratch,
                    )
                    .unwrap();
                    merged.replacement.unwrap()
                });
                let mut merged = merge(
                    partition,
                    old.as_ref(),
                    old.as_ref().map_or(0, |old| old.revision),
                    &SortedRuns::of(vec![observation(seen)]),
                    &scratch,
                )
                .unwrap();
                (
                    merged.replacement.is_some(),
                    merged.executions.remove(&id(0)).unwrap().1,
                )
            })
            .clone()
    }

    fn state(&mut self, state: State) -> u8 {
        let known = self.states.iter().position(|known| *known == state);
        let at = known.unwrap_or_else(|| {
            self.states.push(state);
            self.states.len() - 1
        });
        u8::try_from(at).unwrap()
    }

    fn apply(&mut self, state: u8, delta: Delta) -> u8 {
        let known = self.deltas.iter().position(|known| *known == delta);
        let at = known.unwrap_or_else(|| {
            self.deltas.push(delta);
            self.deltas.len() - 1
        });
        if let Some(applied) = self.applied.get(&(state, at)) {
            return *applied;
        }
        let mut sum = self.states[usize::from(state)].clone();
        sum.apply(&self.deltas[at]);
        let sum = self.state(sum);
        self.applied.insert((state, at), sum);
        sum
    }
}

/// A step: what happened, and the world after it.
type Step = (&'static str, World);

struct Model<'a> {
    setup: Setup,
    rules: &'a mut Rules,
}

impl Model<'_> {
    fn start(&mut self) -> World {
        let idle = Run {
            number: 0,
            next: Next::Absent,
            date: 0,
            puts: 0,
            raw: [(0, 0); DATES],
            stored: [None; DATES],
            targets: [None; TABLES],
            merged: false,
            victim: None,
        };
        let mut runs = [idle; RUNS];
        for (number, run) in (0..).zip(&mut runs) {
            run.number = number;
        }
        runs[0].next = Next::Pending;
        runs[1].next = Next::Pending;
        runs[THIRD].next = match self.setup.third {
            Third::Nothing => Next::Absent,
            Third::Replays => Next::ReadRaw,
            Third::Recovers => Next::List,
        };
        let empty = self.rules.state(State::default());
        let mut world = World {
            raw: [None; DATES],
            history: [[0; 8]; DATES],
            tables: [[None; TABLES]; DATES],
            records: vec![(empty, (9, 0))],
            pending: [false; RUNS],
            late: None,
            runs,
            faults: self.setup.faults,
            last: 0,
        };
        let mut delta = Delta::default();
        for date in 0..self.setup.dates {
            let Some(shows) = self.setup.before[date] else {
                continue;
            };
            let object = Object {
                tag: 1,
                write_id: (9, 0),
                revision: 1,
                shows,
            };
            world.raw[date] = Some(object);
            world.history[date][1] = shows;
            world.tables[date] = [Some(object); TABLES];
            let (_, kept) = self.rules.merge(None, shows);
            delta.open_updates.extend(open_update(date, kept, 1));
        }
        if !delta.open_updates.is_empty() {
            let state = self.rules.apply(empty, delta);
            world.records.push((state, (9, 1)));
        }
        world
    }

    /// Every step that can be taken: each run's next one, a late put.
    fn steps(&mut self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for run in 0..RUNS {
            self.step(world, run, &mut steps);
        }
        if let Some(put) = world.late {
            let mut landed = world.clone();
            landed.late = None;
            apply_put(&mut landed, put);
            steps.push(("a put that was given up reaches the store", landed));
        }
        steps
    }

    /// The next request of a run, with each of its outcomes.
    fn step(&mut self, world: &World, run: usize, steps: &mut Vec<Step>) {
        let mut after = world.clone();
        let date = usize::from(world.runs[run].date);
        let here = &mut after.runs[run];
        match here.next {
            Next::Absent | Next::Done | Next::Dead => {}
            Next::List => {
                for victim in (0..THIRD).filter(|victim| world.pending[*victim]) {
                    let mut after = world.clone();
                    after.runs[run].victim = Some((victim, self.forgets_the_living()));
                    after.runs[run].next = Next::ReadRaw;
                    let mut gone = after.clone();
                    steps.push(("a run finds a list of dates", after));
                    let is_late = |put: Put| usize::from(put.write_id.0) == victim;
                    if !world.late.is_some_and(is_late) {
                        gone.runs[run].victim = Some((victim, true));
                        gone.runs[victim].next = Next::Dead;
                        steps.push(("a run finds the list of one that is dead", gone));
                    }
                }
            }
            Next::Pending => {
                after.pending[run] = true;
                here.next = Next::ReadRaw;
                steps.push(("a run puts its list of dates", after));
            }
            Next::ReadRaw => {
                self.read_raw(&mut after, run, date);
                steps.push(("a run reads raw and merges", after));
            }
            Next::Send(put) => self.send(world, run, put, steps),
            Next::ReadBack(put) => {
                let there = object(world, put.place);
                if there.is_some_and(|there| there.write_id == put.write_id) {
                    self.landed(&mut after, run, put);
                } else if there.map(|there| there.tag) == put.expected {
                    here.next = Next::Send(put);
                } else {
                    lost(&mut after, run, put);
                }
                steps.push(("a run reads back", after));
            }
            Next::Vouch => {
                let (revision, _) = here.raw[date];
                let executions = world.tables[date][EXECUTIONS];
                let is_current = executions.is_some_and(|object| revision <= object.revision);
                if is_current && !self.replays(run) {
                    self.next_date(&mut after, run);
                } else {
                    here.targets = [None; TABLES];
                    here.next = Next::Stamp(0);
                }
                steps.push(("a run looks at executions", after));
            }
            Next::Stamp(table) => {
                let table = usize::from(table);
                let (revision, _) = here.raw[date];
                let there = world.tables[date][table];
                let due = there.is_none_or(|there| {
                    there.revision < revision || (self.replays(run) && there.revision == revision)
                });
                here.targets[table] = due.then_some(Replaces(there.map(|there| there.tag)));
                if table + 1 < TABLES {
                    here.next = Next::Stamp(u8::try_from(table).unwrap() + 1);
                } else {
                    self.next_table(&mut after, run, None);
                }
                steps.push(("a run looks at a table", after));
            }
            Next::Unpend => {
                let (whose, removes) = here.victim.unwrap_or((run, true));
                after.pending[whose] &= !removes;
                here.next = match self.setup.protocol {
                    Protocol::ForgetsEarly => Next::Newest,
                    _ => Next::Done,
                };
                steps.push(("a run removes its list of dates", after));
            }
            Next::Newest => {
                self.newest(&mut after, run);
                steps.push(("a run reads the newest record", after));
            }
        }
    }

    fn forgets_the_living(&self) -> bool {
        self.setup.protocol == Protocol::ForgetsTheLiving
    }

    fn replays(&self, run: usize) -> bool {
        run == THIRD && self.setup.third == Third::Replays
    }

    fn sees(&self, run: usize, date: usize, last: u8) -> Option<u8> {
        match run {
            0 | 1 => Some(self.setup.sees[run][date]),
            CLEAN => Some(last),
            _ => None,
        }
    }

    fn read_raw(&mut self, world: &mut World, run: usize, date: usize) {
        let there = world.raw[date];
        let seen = self.sees(run, date, world.last);
        let here = &mut world.runs[run];
        here.stored[date] = there.map(|there| there.shows);
        let replaces = seen.is_some_and(|seen| self.rules.merge(here.stored[date], seen).0);
        match (there, seen) {
            (there, Some(shows)) if replaces => {
                let put = here.new_put(Place::Raw(date));
                here.next = Next::Send(Put {
                    expected: there.map(|there| there.tag),
                    revision: there.map_or(0, |there| there.revision) + 1,
                    shows,
                    ..put
                });
            }
            (Some(there), _) => {
                here.raw[date] = (there.revision, there.shows);
                self.merged(world, run);
            }
            // Nothing to derive.
            (None, _) => self.next_date(world, run),
        }
    }

    /// Raw is as it shall be, for this date.
    fn merged(&mut self, world: &mut World, run: usize) {
        let here = &mut world.runs[run];
        if self.setup.protocol == Protocol::CheckpointFirst && run < THIRD {
            if usize::from(here.date) + 1 < self.setup.dates {
                here.date += 1;
                here.next = Next::ReadRaw;
            } else {
                here.next = Next::Newest;
            }
        } else {
            here.next = Next::Vouch;
        }
    }

    fn next_date(&mut self, world: &mut World, run: usize) {
        let here = &mut world.runs[run];
        if usize::from(here.date) + 1 < self.setup.dates {
            here.date += 1;
            here.next = if here.merged {
                Next::Vouch
            } else {
                Next::ReadRaw
            };
        } else if run == THIRD && here.victim.is_none() {
            here.next = Next::Done;
        } else if here.merged || self.setup.protocol == Protocol::ForgetsEarly {
            here.next = Next::Unpend;
        } else {
            here.next = Next::Newest;
        }
    }

    /// Puts the next table that is due after `done`, in the order of writing.
    fn next_table(&mut self, world: &mut World, run: usize, done: Option<usize>) {
        let order = match self.setup.protocol {
            Protocol::ExecutionsFirst => [EXECUTIONS, 0],
            _ => [0, EXECUTIONS],
        };
        let at = done.map_or(0, |done| order.iter().position(|t| *t == done).unwrap() + 1);
        let here = &mut world.runs[run];
        let date = usize::from(here.date);
        let due = order[at..]
            .iter()
            .find_map(|table| Some((*table, here.targets[*table]?)));
        match due {
            Some((table, Replaces(expected))) => {
                let (revision, shows) = here.raw[date];
                let put = here.new_put(Place::Table(date, table));
                here.next = Next::Send(Put {
                    expected,
                    revision,
                    shows,
                    ..put
                });
            }
            None => self.next_date(world, run),
        }
    }

    /// The outcomes of a put: done and told; done and not told; not done; done later.
    fn send(&mut self, world: &World, run: usize, put: Put, steps: &mut Vec<Step>) {
        let mut after = world.clone();
        if !apply_put(&mut after, put) {
            after.runs[run].next = Next::ReadBack(put);
            steps.push(("a put is refused", after));
            return;
        }
        let mut told = after.clone();
        self.landed(&mut told, run, put);
        steps.push(("a put lands", told));
        if world.faults == 0 || run == CLEAN {
            return;
        }
        after.faults -= 1;
        after.runs[run].next = Next::ReadBack(put);
        steps.push(("a put lands and its answer is lost", after));
        let mut failed = world.clone();
        failed.faults -= 1;
        failed.runs[run].next = Next::ReadBack(put);
        if world.late.is_none() {
            let mut late = failed.clone();
            late.late = Some(put);
            steps.push(("a put times out on its way", late));
        }
        steps.push(("a put fails", failed));
    }

    /// A run knows that its put stands, or stood.
    fn landed(&mut self, world: &mut World, run: usize, put: Put) {
        let here = &mut world.runs[run];
        match put.place {
            Place::Raw(date) => {
                here.raw[date] = (put.revision, put.shows);
                self.merged(world, run);
            }
            Place::Table(_, table) => self.next_table(world, run, Some(table)),
            Place::Record(_) if self.setup.protocol == Protocol::CheckpointFirst && run < THIRD => {
                here.date = 0;
                here.merged = true;
                here.next = Next::Vouch;
            }
            Place::Record(_) if self.setup.protocol == Protocol::ForgetsEarly => {
                here.next = Next::Done;
            }
            Place::Record(_) => here.next = Next::Unpend,
        }
    }

    /// Commits the delta on top of the newest record.
    fn newest(&mut self, world: &mut World, run: usize) {
        let number = u8::try_from(world.records.len()).unwrap() - 1;
        let (newest, _) = world.records[usize::from(number)];
        let delta = self.delta(world, run);
        let sum = self.rules.apply(newest, delta);
        let here = &mut world.runs[run];
        let put = here.new_put(Place::Record(number + 1));
        here.next = Next::Send(Put { shows: sum, ..put });
    }

    fn delta(&mut self, world: &World, run: usize) -> Delta {
        let here = &world.runs[run];
        let mut delta = Delta {
            covered: [(Scope::new("o", "p"), Coverage::from_iter([window(run)]))].into(),
            ..Delta::default()
        };
        for date in 0..self.setup.dates {
            let Some(seen) = self.sees(run, date, world.last) else {
                // A run that recovers tells what is open.
                let (revision, shows) = here.raw[date];
                delta.covered.clear();
                if revision != 0 && !version(shows).is_terminal {
                    let (_, kept) = self.rules.merge(Some(shows), shows);
                    delta.open_updates.extend(open_update(date, kept, revision));
                }
                continue;
            };
            let (_, kept) = match self.setup.protocol {
                Protocol::AsThisRunSaw => self.rules.merge(None, seen),
                _ => self.rules.merge(here.stored[date], seen),
            };
            delta
                .open_updates
                .extend(open_update(date, kept, here.raw[date].0));
        }
        delta
    }

    /// What must hold in every state, and between a state and the next.
    fn check(&self, old: &World, new: &World) -> Result<(), String> {
        for date in 0..self.setup.dates {
            raw_goes_on(old.raw[date], new.raw[date])?;
            for (was, is) in old.tables[date].iter().zip(&new.tables[date]) {
                let revision = |object: &Option<Object>| object.map_or(0, |object| object.revision);
                if revision(is) < revision(was) {
                    return Err("a table went back".into());
                }
                if revision(&new.raw[date]) < revision(is) {
                    return Err("a table is ahead of raw".into());
                }
                if let Some(table) = is
                    && table.shows != new.history[date][usize::from(table.revision)]
                {
                    return Err("a table is no function of raw".into());
                }
            }
            self.check_date(new, date)?;
        }
        let numbers = old.records.len()..=old.records.len() + 1;
        if !numbers.contains(&new.records.len()) {
            return Err("a record vanished".into());
        }
        Ok(())
    }

    fn check_date(&self, world: &World, date: usize) -> Result<(), String> {
        let newest = &self.rules.states[usize::from(world.records.last().unwrap().0)];
        let raw = world.raw[date].map_or(0, |raw| raw.revision);
        let executions = world.tables[date][EXECUTIONS].map_or(0, |table| table.revision);
        for run in [0, 1, CLEAN] {
            let covered = newest
                .scopes
                .get(&Scope::new("o", "p"))
                .is_some_and(|scope| scope.coverage.covers(window(run)));
            if !covered {
                continue;
            }
            let (claimed, _) = world.runs[run].raw[date];
            let behind = |table: &Option<Object>| table.map_or(0, |table| table.revision) < claimed;
            // `executions` vouches for the others, until a clean run shows that it does not.
            if behind(&world.tables[date][EXECUTIONS]) {
                return Err(format!("coverage of run {run} claims what no table holds"));
            }
            let is_open = world.raw[date].is_some_and(|raw| !version(raw.shows).is_terminal);
            if claimed == raw && is_open && !newest.open.contains_key(&id(date)) {
                return Err(format!("run {run} lost an open execution"));
            }
        }
        let is_open = world.raw[date].is_some_and(|raw| !version(raw.shows).is_terminal);
        let is_asked_again = newest.scopes.is_empty() && self.setup.before[date].is_none();
        if is_open
            && !is_asked_again
            && !newest.open.contains_key(&id(date))
            && !world.pending.iter().any(|pending| *pending)
        {
            return Err("an open execution is in no list".into());
        }
        if executions < raw && !world.pending.iter().any(|pending| *pending) {
            return Err("a table is behind and nobody knows".into());
        }
        Ok(())
    }

    /// What must hold after a clean run over the same windows, where all others are dead.
    fn check_clean_run(&mut self, world: &World) -> Result<(), String> {
        for last in SEEN_LAST {
            let mut world = world.clone();
            world.runs[CLEAN].next = Next::Pending;
            world.last = last;
            while world.runs[CLEAN].is_at_work() {
                let mut steps = Vec::new();
                self.step(&world, CLEAN, &mut steps);
                let (_, after) = steps.swap_remove(0);
                self.check(&world, &after)?;
                world = after;
            }
            let newest = &self.rules.states[usize::from(world.records.last().unwrap().0)];
            for date in 0..self.setup.dates {
                let raw = world.raw[date].expect("the clean run saw it");
                if version(raw.shows).content_hash != version(last).content_hash {
                    return Err("the clean run was not believed".into());
                }
                if world.tables[date]
                    .iter()
                    .any(|table| table.is_none_or(|table| table.revision != raw.revision))
                {
                    return Err("after a clean run a table is not what raw says".into());
                }
                let is_open = !version(raw.shows).is_terminal;
                if newest.open.contains_key(&id(date)) != is_open {
                    return Err("after a clean run the open list is not what raw says".into());
                }
            }
        }
        Ok(())
    }

    /// Takes every step in every order; gives the number of states, or the way to a violation.
    fn explore(&mut self) -> Result<usize, String> {
        let start = self.start();
        let mut visited = HashSet::from([fingerprint(&start)]);
        let mut stores = HashSet::new();
        let mut worlds = vec![(start, 0, "the beginning")];
        let mut at = 0;
        while at < worlds.len() {
            let world = worlds[at].0.clone();
            let steps = self.steps(&world);
            let left = world.left_by_the_dead();
            if stores.insert(fingerprint(&left)) {
                self.check_clean_run(&left)
                    .map_err(|what| self.story(&worlds, at, &what))?;
            }
            for (what, mut after) in steps {
                after.runs.iter_mut().for_each(Run::forget);
                let outcome = self.check(&world, &after);
                if visited.insert(fingerprint(&after)) || outcome.is_err() {
                    worlds.push((after, at, what));
                }
                outcome.map_err(|what| self.story(&worlds, worlds.len() - 1, &what))?;
            }
            at += 1;
        }
        Ok(visited.len())
    }

    fn story(&self, worlds: &[(World, usize, &'static str)], at: usize, violation: &str) -> String {
        let mut lines = vec![violation.to_owned()];
        let mut at = at;
        while at != 0 {
            let (world, before, what) = &worlds[at];
            let moved = (0..RUNS).find(|run| world.runs[*run] != worlds[*before].0.runs[*run]);
            lines.push(format!("{moved:?} {what}"));
            at = *before;
        }
        lines.push(format!("{:?}", self.setup));
        lines.reverse();
        lines.join("\n")
    }
}

impl World {
    /// The world if all runs died now.
    fn left_by_the_dead(&self) -> Self {
        let mut left = self.clone();
        for run in &mut left.runs {
            run.next = Next::Dead;
            run.forget();
        }
        left.late = None;
        left.faults = 0;
        left
    }
}

impl Run {
    /// Forgets what no later step depends on, so that equal worlds are found to be equal.
    fn forget(&mut self) {
        if !matches!(
            self.next,
            Next::Send(_) | Next::ReadBack(_) | Next::Stamp(_)
        ) {
            self.targets = [None; TABLES];
        }
        if !self.is_at_work() {
            (self.date, self.puts, self.victim, self.merged) = (0, 0, None, false);
            self.stored = [None; DATES];
        }
    }

    fn is_at_work(&self) -> bool {
        !matches!(
            self.next,
            Next::Absent | Next::List | Next::Done | Next::Dead
        )
    }

    fn new_put(&mut self, place: Place) -> Put {
        self.puts += 1;
        Put {
            place,
            expected: None,
            write_id: (self.number, self.puts),
            revision: 0,
            shows: 0,
        }
    }
}

/// What the checkpoint is told of the execution of a date.
fn open_update(
    date: usize,
    mut kept: StoredVersion,
    revision: u8,
) -> Vec<(PlanExecutionId, OpenUpdate)> {
    kept.revision = revision.into();
    vec![(id(date), fate_of(from_ms(0), kept))]
}

fn object(world: &World, place: Place) -> Option<Object> {
    match place {
        Place::Raw(date) => world.raw[date],
        Place::Table(date, table) => world.tables[date][table],
        Place::Record(number) => {
            let (shows, write_id) = *world.records.get(usize::from(number))?;
            Some(Object {
                tag: 1,
                write_id,
                revision: 0,
                shows,
            })
        }
    }
}

/// Takes a put as a store does: only where what it expects stands.
fn apply_put(world: &mut World, put: Put) -> bool {
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
            world.history[date][usize::from(put.revision)] = put.shows;
        }
        Place::Table(date, table) => world.tables[date][table] = object,
        Place::Record(number) => {
            assert_eq!(usize::from(number), world.records.len());
            world.records.push((put.shows, put.write_id));
        }
    }
    true
}

/// Another run was faster: the run begins the step again.
fn lost(world: &mut World, run: usize, put: Put) {
    world.runs[run].next = match put.place {
        Place::Raw(_) => Next::ReadRaw,
        Place::Table(..) => Next::Stamp(0),
        Place::Record(_) => Next::Newest,
    };
}

fn raw_goes_on(was: Option<Object>, is: Option<Object>) -> Result<(), String> {
    if was == is {
        return Ok(());
    }
    let Some(is) = is else {
        return Err("raw vanished".into());
    };
    if is.revision != was.map_or(0, |was| was.revision) + 1 {
        return Err("a revision of raw was left out or repeated".into());
    }
    let Some(was) = was else {
        return Ok(());
    };
    let (old, new) = (version(was.shows), version(is.shows));
    let later = new.observed.as_millisecond() - old.observed.as_millisecond();
    if later < 0 || (old.is_terminal && !new.is_terminal && later < REOPEN_AFTER_MS) {
        return Err("an older copy of an execution replaced a newer one".into());
    }
    Ok(())
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Explores every setup; the states, or the way to the first violation.
fn explore(setups: impl IntoIterator<Item = Setup>) -> Result<usize, String> {
    let mut rules = Rules::default();
    let mut states = 0;
    for setup in setups {
        let n = Model {
            setup,
            rules: &mut rules,
        }
        .explore()?;
        states += n;
    }
    Ok(states)
}

/// What was there before, and what the two runs see, of one date: all that there is.
fn all() -> Vec<(Option<u8>, u8, u8)> {
    let before = [None, Some(0), Some(1), Some(3)];
    let pairs = |before| SEEN.flat_map(move |a| (a..SEEN.end).map(move |b| (before, a, b)));
    before.into_iter().flat_map(pairs).collect()
}

/// The same, where the order matters most.
const TELLING: [(Option<u8>, u8, u8); 10] = [
    (None, 0, 1),
    (None, 1, 3),
    (None, 3, 4),
    (Some(0), 1, 2),
    (Some(0), 1, 3),
    (Some(0), 3, 5),
    (Some(1), 3, 3),
    (Some(1), 3, 4),
    (Some(1), 3, 5),
    (Some(3), 4, 5),
];

fn setups(of: &[(Option<u8>, u8, u8)], protocol: Protocol, third: Third, faults: u8) -> Vec<Setup> {
    let setup = |&(before, a, b): &(Option<u8>, u8, u8)| Setup {
        protocol,
        dates: 1,
        before: [before, None],
        sees: [[a, 0], [b, 0]],
        third,
        faults,
    };
    of.iter().map(setup).collect()
}

/// Explores without a violation, and at least so many states.
fn holds(setups: impl IntoIterator<Item = Setup>, least: usize) {
    let states = explore(setups).unwrap_or_else(|story| panic!("{story}"));
    assert!(least < states, "only {states} states were explored");
}

/// Explores until a violation that says `what`.
fn breaks(setups: impl IntoIterator<Item = Setup>, what: &str) {
    let story = explore(setups).expect_err("the model must find what is wrong with this protocol");
    assert!(story.ends_with(what), "{story}");
}

#[test]
fn two_runs_in_any_order_keep_all_invariants() {
    let setups = setups(&all(), Protocol::AsWritten, Third::Nothing, 0);
    holds(setups, 80_000);
}

#[test]
fn one_faulty_put_keeps_all_invariants() {
    let setups = setups(&TELLING, Protocol::AsWritten, Third::Nothing, 1);
    holds(setups, 150_000);
}

#[test]
fn two_faulty_puts_keep_all_invariants() {
    let setups = setups(&TELLING[7..8], Protocol::AsWritten, Third::Nothing, 2);
    holds(setups, 20_000);
}

#[test]
fn concurrent_replay_keeps_all_invariants() {
    let setups = setups(&TELLING[7..8], Protocol::AsWritten, Third::Replays, 0);
    holds(setups, 50_000);
}

#[test]
fn concurrent_recovery_keeps_all_invariants() {
    let setups = setups(&TELLING[7..8], Protocol::AsWritten, Third::Recovers, 0);
    holds(setups, 50_000);
}

#[test]
fn two_dates_keep_all_invariants() {
    let two = [[[1, 0], [0, 3]], [[3, 1], [4, 3]]].map(|sees| Setup {
        protocol: Protocol::AsWritten,
        dates: 2,
        before: [Some(1), None],
        sees,
        third: Third::Nothing,
        faults: 0,
    });
    holds(two, 10_000);
}

#[test]
fn checkpoint_of_own_observations_loses_an_open_execution() {
    let setups = setups(&all(), Protocol::AsThisRunSaw, Third::Nothing, 0);
    breaks(setups, "lost an open execution");
}

#[test]
fn checkpoint_before_tables_covers_missing_rows() {
    let setups = setups(&TELLING, Protocol::CheckpointFirst, Third::Nothing, 0);
    breaks(setups, "claims what no table holds");
}

#[test]
fn executions_before_other_tables_leaves_one_stale() {
    let setups = setups(&TELLING, Protocol::ExecutionsFirst, Third::Nothing, 0);
    breaks(setups, "after a clean run a table is not what raw says");
}

#[test]
fn removing_the_list_of_a_live_run_leaves_a_stale_table() {
    let setups = setups(&TELLING, Protocol::ForgetsTheLiving, Third::Recovers, 0);
    breaks(setups, "a table is behind and nobody knows");
}

#[test]
fn list_removed_before_checkpoint_loses_an_open_execution() {
    let setups = setups(&TELLING, Protocol::ForgetsEarly, Third::Nothing, 0);
    breaks(setups, "an open execution is in no list");
}
