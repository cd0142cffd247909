//! The invariants of the protocol.

use harness_lake::ids::Scope;
use harness_lake::observation::REOPEN_AFTER_MS;

use super::rules::{id, version, window};
use super::state::{CLEAN, EXECUTIONS, Next, Object, SEEN_LAST, World};
use super::steps::Model;

impl Model<'_> {
    /// Checks the invariants of a state and of the transition to it.
    pub(super) fn check(&self, old: &World, new: &World) -> Result<(), String> {
        for date in 0..self.setup.dates {
            check_raw(date, old.raw[date], new.raw[date])?;
            let revision =
                |object: &Option<Object>| object.map_or(0, |object| object.revision[date]);
            let period = self.setup.period(date);
            for (was, is) in old.tables[period].iter().zip(&new.tables[period]) {
                if revision(is) < revision(was) {
                    return Err("a table has an older revision than before".into());
                }
                if revision(&new.raw[date]) < revision(is) {
                    return Err("a table is ahead of raw".into());
                }
                if let Some(table) = is
                    && table.shows[date] != new.history[date][usize::from(table.revision[date])]
                {
                    return Err("a table does not match its raw revision".into());
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
        let raw = world.raw[date].map_or(0, |raw| raw.revision[date]);
        let tables = &world.tables[self.setup.period(date)];
        let executions = tables[EXECUTIONS].map_or(0, |table| table.revision[date]);
        for run in [0, 1, CLEAN] {
            let covered = newest
                .scopes
                .get(&Scope::new("o", "p"))
                .is_some_and(|scope| scope.coverage.covers(window(run)));
            if !covered {
                continue;
            }
            let (merged, _) = world.runs[run].raw[date];
            // `executions` is written last; the clean run checks the other tables.
            if executions < merged {
                return Err(format!(
                    "coverage of run {run} includes rows missing from the tables"
                ));
            }
            let is_open = world.raw[date].is_some_and(|raw| !version(raw.shows[date]).is_terminal);
            if merged == raw && is_open && !newest.open.contains_key(&id(date)) {
                return Err(format!("run {run} lost an open execution"));
            }
        }
        let is_open = world.raw[date].is_some_and(|raw| !version(raw.shows[date]).is_terminal);
        let is_read_again = newest.scopes.is_empty() && self.setup.before[date].is_none();
        if is_open
            && !is_read_again
            && !newest.open.contains_key(&id(date))
            && !world.pending.iter().any(|pending| *pending)
        {
            return Err("an open execution is in no list".into());
        }
        if executions < raw && !world.pending.iter().any(|pending| *pending) {
            return Err("a table is stale without a pending list".into());
        }
        Ok(())
    }

    /// Checks the state after a clean run over the same windows, with all other runs stopped.
    pub(super) fn check_clean_run(&mut self, world: &World) -> Result<(), String> {
        for last in SEEN_LAST {
            let mut world = world.clone();
            world.runs[CLEAN].next = Next::PutList;
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
                if version(raw.shows[date]).content_hash != version(last).content_hash {
                    return Err("the observation of the clean run was not merged".into());
                }
                let differs = |table: &Object| table.revision[date] != raw.revision[date];
                if world.tables[self.setup.period(date)]
                    .iter()
                    .any(|table| table.as_ref().is_none_or(differs))
                {
                    return Err("after a clean run a table differs from raw".into());
                }
                let is_open = !version(raw.shows[date]).is_terminal;
                if newest.open.contains_key(&id(date)) != is_open {
                    return Err("after a clean run the open list differs from raw".into());
                }
            }
        }
        Ok(())
    }
}

fn check_raw(date: usize, was: Option<Object>, is: Option<Object>) -> Result<(), String> {
    if was == is {
        return Ok(());
    }
    let Some(is) = is else {
        return Err("raw vanished".into());
    };
    if is.revision[date] != was.map_or(0, |was| was.revision[date]) + 1 {
        return Err("a revision of raw was skipped or repeated".into());
    }
    let Some(was) = was else {
        return Ok(());
    };
    let (old, new) = (version(was.shows[date]), version(is.shows[date]));
    let later = new.observed.as_millisecond() - old.observed.as_millisecond();
    if later < 0 || (old.is_terminal && !new.is_terminal && later < REOPEN_AFTER_MS) {
        return Err("an older copy of an execution replaced a newer one".into());
    }
    Ok(())
}
