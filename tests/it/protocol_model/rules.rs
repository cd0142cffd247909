//! The functions under test, as functions of observation and state numbers.

use std::collections::HashMap;

use harness_lake::checkpoint::{Delta, State};
use harness_lake::ids::{PlanExecutionId, Scope};
use harness_lake::lake::layout::Partition;
use harness_lake::lake::raw::{StoredVersion, merge};
use harness_lake::lake::runs::SortedRuns;
use harness_lake::observation::{Observation, Version};
use harness_lake::window::{Window, from_ms};

use super::state::OBSERVATIONS;

/// The real functions, with cached results.
#[derive(Default)]
pub(super) struct Rules {
    merges: HashMap<(Option<u8>, u8), (bool, StoredVersion)>,
    pub(super) states: Vec<State>,
    deltas: Vec<Delta>,
    applied: HashMap<(u8, usize), u8>,
}

pub(super) fn id(date: usize) -> PlanExecutionId {
    PlanExecutionId::new(["x", "y"][date])
}

pub(super) fn version(seen: u8) -> Version {
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

/// Returns the window of a run. Each run has its own, so that coverage identifies runs.
pub(super) fn window(run: usize) -> Window {
    let from = i64::try_from(run).unwrap() * 10;
    Window::new(from_ms(from), from_ms(from + 5)).unwrap()
}

impl Rules {
    /// Returns whether an observation replaces the stored one, and the stored version.
    pub(super) fn merge(&mut self, stored: Option<u8>, seen: u8) -> (bool, StoredVersion) {
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

    pub(super) fn state(&mut self, state: State) -> u8 {
        let known = self.states.iter().position(|known| *known == state);
        let at = known.unwrap_or_else(|| {
            self.states.push(state);
            self.states.len() - 1
        });
        u8::try_from(at).unwrap()
    }

    pub(super) fn apply(&mut self, state: u8, delta: Delta) -> u8 {
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
