//! Exploration of every reachable state.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::rules::Rules;
use super::state::{DATES, Protocol, RUNS, Run, SEEN, Setup, Third, UNSEEN, World};
use super::steps::Model;

impl Model<'_> {
    /// Takes every step in every order. Returns the number of states, or a trace to a violation.
    fn explore(&mut self) -> Result<usize, String> {
        let start = self.start();
        let mut visited = HashSet::from([fingerprint(&start)]);
        let mut stores = HashSet::new();
        let mut worlds = vec![(start, 0, "the beginning")];
        let mut at = 0;
        while at < worlds.len() {
            let world = worlds[at].0.clone();
            let steps = self.steps(&world);
            let left = world.after_all_runs_stop();
            if stores.insert(fingerprint(&left)) {
                self.check_clean_run(&left)
                    .map_err(|what| self.trace(&worlds, at, &what))?;
            }
            for (what, mut after) in steps {
                after.runs.iter_mut().for_each(Run::normalize);
                let outcome = self.check(&world, &after);
                if visited.insert(fingerprint(&after)) || outcome.is_err() {
                    worlds.push((after, at, what));
                }
                outcome.map_err(|what| self.trace(&worlds, worlds.len() - 1, &what))?;
            }
            at += 1;
        }
        Ok(visited.len())
    }

    fn trace(&self, worlds: &[(World, usize, &'static str)], at: usize, violation: &str) -> String {
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

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Explores every setup. Returns the number of states, or a trace to the first violation.
pub(super) fn explore(setups: impl IntoIterator<Item = Setup>) -> Result<usize, String> {
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

/// Returns every combination of a stored observation and those of two runs, for one date.
pub(super) fn all() -> Vec<(Option<u8>, u8, u8)> {
    let before = [None, Some(0), Some(1), Some(3)];
    let pairs = |before| SEEN.flat_map(move |a| (a..SEEN.end).map(move |b| (before, a, b)));
    before.into_iter().flat_map(pairs).collect()
}

/// The combinations that depend most on order.
pub(super) const ORDER_SENSITIVE: [(Option<u8>, u8, u8); 10] = [
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

/// Returns setups of two dates in one object of each table. Each run sees one date or both. With a
/// third run, only one other run is active.
pub(super) fn months(protocol: Protocol, third: Third, faults: u8) -> Vec<Setup> {
    let month = |(before, sees)| Setup {
        protocol,
        dates: 2,
        is_month: true,
        before,
        sees,
        third,
        faults,
    };
    if third != Third::Nothing {
        let idle = [UNSEEN; DATES];
        return vec![
            month(([Some(1), Some(0)], [[3, UNSEEN], idle])),
            month(([Some(1), None], [[3, 0], idle])),
        ];
    }
    let setups = [
        ([None, None], [[0, UNSEEN], [UNSEEN, 3]]),
        ([Some(1), Some(0)], [[3, UNSEEN], [UNSEEN, 1]]),
        ([Some(1), None], [[3, 0], [4, UNSEEN]]),
        ([Some(1), None], [[3, 1], [4, 3]]),
    ];
    setups.map(month).to_vec()
}

pub(super) fn setups(
    of: &[(Option<u8>, u8, u8)],
    protocol: Protocol,
    third: Third,
    faults: u8,
) -> Vec<Setup> {
    let setup = |&(before, a, b): &(Option<u8>, u8, u8)| Setup {
        protocol,
        dates: 1,
        is_month: false,
        before: [before, None],
        sees: [[a, 0], [b, 0]],
        third,
        faults,
    };
    of.iter().map(setup).collect()
}
