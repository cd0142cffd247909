//! The steps of runs: single requests to the store, with their outcomes.

use harness_lake::checkpoint::{Delta, OpenUpdate, State};
use harness_lake::ids::{PlanExecutionId, Scope};
use harness_lake::lake::commit::open_update as commit_open_update;
use harness_lake::lake::raw::StoredVersion;
use harness_lake::window::{Coverage, from_ms};

use super::rules::{Rules, id, version, window};
use super::state::{
    CLEAN, DATES, EXECUTIONS, Next, Object, Place, Protocol, Put, RUNS, Replaces, Run, Setup,
    TABLES, THIRD, Third, UNSEEN, World, apply_put, object, only,
};

/// A step: its description and the world after it.
pub(super) type Step = (&'static str, World);

pub(super) struct Model<'a> {
    pub(super) setup: Setup,
    pub(super) rules: &'a mut Rules,
}

impl Model<'_> {
    pub(super) fn start(&mut self) -> World {
        let idle = Run {
            number: 0,
            next: Next::Absent,
            date: 0,
            puts: 0,
            raw: [(0, 0); DATES],
            stored: [None; DATES],
            targets: [None; TABLES],
            merged: false,
            owner: None,
        };
        let mut runs = [idle; RUNS];
        for (number, run) in (0..).zip(&mut runs) {
            run.number = number;
        }
        for (run, sees) in self.setup.sees.iter().enumerate() {
            if sees.iter().any(|seen| *seen != UNSEEN) {
                runs[run].next = Next::PutList;
            }
        }
        runs[THIRD].next = match self.setup.third {
            Third::Nothing => Next::Absent,
            Third::Replays => Next::ReadRaw,
            Third::Recovers => Next::FindLists,
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
                revision: only(date, 1),
                shows: only(date, shows),
            };
            world.raw[date] = Some(object);
            world.history[date][1] = shows;
            for table in &mut world.tables[self.setup.period(date)] {
                let table = table.get_or_insert(object);
                (table.revision[date], table.shows[date]) = (1, shows);
            }
            let (_, stored) = self.rules.merge(None, shows);
            delta.open_updates.extend(open_update(date, stored, 1));
        }
        if !delta.open_updates.is_empty() {
            let state = self.rules.apply(empty, delta);
            world.records.push((state, (9, 1)));
        }
        world
    }

    /// Returns every possible step: the next one of each run, or a late put.
    pub(super) fn steps(&mut self, world: &World) -> Vec<Step> {
        let mut steps = Vec::new();
        for run in 0..RUNS {
            self.step(world, run, &mut steps);
        }
        if let Some(put) = world.late {
            let mut after = world.clone();
            after.late = None;
            apply_put(&mut after, put);
            steps.push(("a delayed put reaches the store", after));
        }
        steps
    }

    /// Adds every outcome of the next request of a run.
    pub(super) fn step(&mut self, world: &World, run: usize, steps: &mut Vec<Step>) {
        let mut after = world.clone();
        let date = usize::from(world.runs[run].date);
        let here = &mut after.runs[run];
        match here.next {
            Next::Absent | Next::Done | Next::Stopped => {}
            Next::FindLists => {
                for owner in (0..THIRD).filter(|owner| world.pending[*owner]) {
                    let mut after = world.clone();
                    after.runs[run].owner = Some((owner, self.removes_list_of_live_run()));
                    after.runs[run].next = Next::ReadRaw;
                    let mut orphaned = after.clone();
                    steps.push(("a run finds a list of dates", after));
                    let is_late = |put: Put| usize::from(put.write_id.0) == owner;
                    if !world.late.is_some_and(is_late) {
                        orphaned.runs[run].owner = Some((owner, true));
                        orphaned.runs[owner].next = Next::Stopped;
                        steps.push(("a run finds the list of an orphaned run", orphaned));
                    }
                }
            }
            Next::PutList => {
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
                    self.put_confirmed(&mut after, run, put);
                } else if there.map(|there| there.tag) == put.expected {
                    here.next = Next::Send(put);
                } else {
                    lost(&mut after, run, put);
                }
                steps.push(("a run reads back", after));
            }
            Next::CheckExecutions => {
                let executions = world.tables[self.setup.period(date)][EXECUTIONS];
                let is_current = |date: usize| {
                    executions.map_or(0, |there| there.revision[date]) >= here.raw[date].0
                };
                let are_current = self.setup.dates_of_period(date).all(is_current);
                if are_current && !self.replays(run) {
                    self.next_date(&mut after, run);
                } else {
                    here.targets = [None; TABLES];
                    here.next = Next::CheckTable(0);
                }
                steps.push(("a run checks executions", after));
            }
            Next::CheckTable(table) => {
                let table = usize::from(table);
                let there = world.tables[self.setup.period(date)][table];
                let is_due = |date: usize| {
                    let (revision, _) = here.raw[date];
                    let derived = there.map_or(0, |there| there.revision[date]);
                    derived < revision || (self.replays(run) && derived == revision)
                };
                let is_due = self.setup.dates_of_period(date).any(is_due);
                here.targets[table] = is_due.then_some(Replaces(there));
                if table + 1 < TABLES {
                    here.next = Next::CheckTable(u8::try_from(table).unwrap() + 1);
                } else {
                    self.next_table(&mut after, run, None);
                }
                steps.push(("a run checks a table", after));
            }
            Next::RemoveList => {
                let (whose, removes) = here.owner.unwrap_or((run, true));
                after.pending[whose] &= !removes;
                here.next = match self.setup.protocol {
                    Protocol::RemovesListEarly => Next::ReadNewest,
                    _ => Next::Done,
                };
                steps.push(("a run removes its list of dates", after));
            }
            Next::ReadNewest => {
                self.newest(&mut after, run);
                steps.push(("a run reads the newest record", after));
            }
        }
    }

    fn removes_list_of_live_run(&self) -> bool {
        self.setup.protocol == Protocol::RemovesListOfLiveRun
    }

    fn replays(&self, run: usize) -> bool {
        run == THIRD && self.setup.third == Third::Replays
    }

    /// Returns true if a run reads raw of a date. Runs that see nothing read all dates.
    fn reads(&self, run: usize, date: usize) -> bool {
        self.setup
            .sees
            .get(run)
            .is_none_or(|sees| sees[date] != UNSEEN)
    }

    fn sees(&self, run: usize, date: usize, last: u8) -> Option<u8> {
        match run {
            0 | 1 => Some(self.setup.sees[run][date]).filter(|seen| *seen != UNSEEN),
            CLEAN => Some(last),
            _ => None,
        }
    }

    fn read_raw(&mut self, world: &mut World, run: usize, date: usize) {
        if !self.reads(run, date) {
            self.merged(world, run);
            return;
        }
        let there = world.raw[date];
        let seen = self.sees(run, date, world.last);
        let here = &mut world.runs[run];
        here.stored[date] = there.map(|there| there.shows[date]);
        let replaces = seen.is_some_and(|seen| self.rules.merge(here.stored[date], seen).0);
        match (there, seen) {
            (there, Some(shows)) if replaces => {
                let put = here.new_put(Place::Raw(date));
                here.next = Next::Send(Put {
                    expected: there.map(|there| there.tag),
                    revision: only(date, there.map_or(0, |there| there.revision[date]) + 1),
                    shows: only(date, shows),
                    ..put
                });
            }
            (Some(there), _) => {
                here.raw[date] = (there.revision[date], there.shows[date]);
                self.merged(world, run);
            }
            // Nothing to derive.
            (None, _) if !self.setup.is_month => self.next_date(world, run),
            (None, _) => self.merged(world, run),
        }
    }

    /// Continues after the raw object of this date is merged. All dates of a period are merged
    /// before its tables are derived.
    fn merged(&mut self, world: &mut World, run: usize) {
        let here = &mut world.runs[run];
        let commits_first = self.setup.protocol == Protocol::CheckpointFirst && run < THIRD;
        let has_more = usize::from(here.date) + 1 < self.setup.dates;
        if (commits_first || self.setup.is_month) && has_more {
            here.date += 1;
            here.next = Next::ReadRaw;
        } else if commits_first {
            here.next = Next::ReadNewest;
        } else {
            here.next = Next::CheckExecutions;
        }
    }

    fn next_date(&mut self, world: &mut World, run: usize) {
        let here = &mut world.runs[run];
        let is_last = self.setup.dates_of_period(here.date.into()).end == self.setup.dates;
        if !is_last {
            here.date += 1;
            here.next = if here.merged {
                Next::CheckExecutions
            } else {
                Next::ReadRaw
            };
        } else if run == THIRD && here.owner.is_none() {
            here.next = Next::Done;
        } else if here.merged || self.setup.protocol == Protocol::RemovesListEarly {
            here.next = Next::RemoveList;
        } else {
            here.next = Next::ReadNewest;
        }
    }

    /// Writes the next stale table after `done`, in writing order.
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
        let Some((table, Replaces(there))) = due else {
            self.next_date(world, run);
            return;
        };
        let mut put = here.new_put(Place::Table(self.setup.period(date), table));
        put.expected = there.map(|there| there.tag);
        if let Some(there) = there
            && self.setup.protocol != Protocol::DropsOtherDates
        {
            (put.revision, put.shows) = (there.revision, there.shows);
        }
        for date in self.setup.dates_of_period(date) {
            let (revision, shows) = here.raw[date];
            let replaces_newer =
                self.setup.protocol == Protocol::ReplacesNewerDates && revision > 0;
            if revision >= put.revision[date] || replaces_newer {
                (put.revision[date], put.shows[date]) = (revision, shows);
            }
        }
        here.next = Next::Send(put);
    }

    /// Adds the outcomes of a put: committed, response lost, failed, delayed.
    fn send(&mut self, world: &World, run: usize, put: Put, steps: &mut Vec<Step>) {
        let mut after = world.clone();
        if !apply_put(&mut after, put) {
            after.runs[run].next = Next::ReadBack(put);
            steps.push(("a put is refused", after));
            return;
        }
        let mut confirmed = after.clone();
        self.put_confirmed(&mut confirmed, run, put);
        steps.push(("a put is committed", confirmed));
        if world.faults == 0 || run == CLEAN {
            return;
        }
        after.faults -= 1;
        after.runs[run].next = Next::ReadBack(put);
        steps.push(("a put is committed and its response is lost", after));
        let mut failed = world.clone();
        failed.faults -= 1;
        failed.runs[run].next = Next::ReadBack(put);
        if world.late.is_none() {
            let mut late = failed.clone();
            late.late = Some(put);
            steps.push(("a put times out and is delayed", late));
        }
        steps.push(("a put fails", failed));
    }

    /// Continues after a run has confirmed its put.
    fn put_confirmed(&mut self, world: &mut World, run: usize, put: Put) {
        let here = &mut world.runs[run];
        match put.place {
            Place::Raw(date) => {
                here.raw[date] = (put.revision[date], put.shows[date]);
                self.merged(world, run);
            }
            Place::Table(_, table) => self.next_table(world, run, Some(table)),
            Place::Record(_) if self.setup.protocol == Protocol::CheckpointFirst && run < THIRD => {
                here.date = 0;
                here.merged = true;
                here.next = Next::CheckExecutions;
            }
            Place::Record(_) if self.setup.protocol == Protocol::RemovesListEarly => {
                here.next = Next::Done;
            }
            Place::Record(_) => here.next = Next::RemoveList,
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
        here.next = Next::Send(Put {
            shows: [sum; DATES],
            ..put
        });
    }

    fn delta(&mut self, world: &World, run: usize) -> Delta {
        let here = &world.runs[run];
        let mut delta = Delta {
            covered: [(Scope::new("o", "p"), Coverage::from_iter([window(run)]))].into(),
            ..Delta::default()
        };
        for date in 0..self.setup.dates {
            if !self.reads(run, date) {
                continue;
            }
            let Some(seen) = self.sees(run, date, world.last) else {
                // A run that recovers adds open executions, but no coverage.
                let (revision, shows) = here.raw[date];
                delta.covered.clear();
                if revision != 0 && !version(shows).is_terminal {
                    let (_, stored) = self.rules.merge(Some(shows), shows);
                    delta
                        .open_updates
                        .extend(open_update(date, stored, revision));
                }
                continue;
            };
            let (_, stored) = match self.setup.protocol {
                Protocol::OwnObservations => self.rules.merge(None, seen),
                _ => self.rules.merge(here.stored[date], seen),
            };
            delta
                .open_updates
                .extend(open_update(date, stored, here.raw[date].0));
        }
        delta
    }
}

/// Returns the checkpoint update for the execution of a date.
fn open_update(
    date: usize,
    mut stored: StoredVersion,
    revision: u8,
) -> Vec<(PlanExecutionId, OpenUpdate)> {
    stored.revision = revision.into();
    vec![(id(date), commit_open_update(from_ms(0), stored))]
}

/// Restarts a step after another run has written first.
fn lost(world: &mut World, run: usize, put: Put) {
    world.runs[run].next = match put.place {
        Place::Raw(_) => Next::ReadRaw,
        Place::Table(..) => Next::CheckTable(0),
        Place::Record(_) => Next::ReadNewest,
    };
}
