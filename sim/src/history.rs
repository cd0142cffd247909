//! Generates the executions of an account: start times, outcomes, and the retries, re-runs,
//! children and rollbacks that follow.

use super::account::{AccountSpec, Execution, NO_EXECUTION, Origin};
use super::detail::{self, stage_window};
use super::plan::{Pipeline, Plan, Shape, Slot, StageKind};
use super::rng::{Id, Rng, Stream};
use super::status::Status;

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Executions that result from 1,000 fresh ones, including those that follow from them.
const WITH_FOLLOW_UPS: usize = 1_310;

struct History<'a> {
    seed: u64,
    plan: &'a Plan,
    rng: Rng,
    horizon: i64,
    executions: Vec<Execution>,
}

/// Generates all executions, sorted by start time.
pub(super) fn generate(spec: &AccountSpec, plan: &Plan) -> Vec<Execution> {
    let now = spec.now.as_millisecond();
    let (past, future) = (
        i64::from(spec.days.max(1)) * 24,
        i64::from(spec.future_hours),
    );
    let hours = Hours::new(now - past * HOUR_MS, past + future);
    let fresh = spec.executions * 1_000 / WITH_FOLLOW_UPS;
    let total = fresh * hours.weight_of(past + future) / hours.weight_of(past).max(1);
    let mut history = History {
        seed: spec.seed,
        plan,
        rng: Rng::new(spec.seed, Stream::History, Id(0)),
        horizon: now + future * HOUR_MS,
        executions: Vec::with_capacity(total * WITH_FOLLOW_UPS / 1_000),
    };
    let choice: Vec<(u32, u32)> = (0_u32..)
        .zip(&plan.pipelines)
        .map(|(index, pipeline)| (pipeline.weight, index))
        .filter(|(weight, _)| *weight > 0)
        .collect();
    let mut twin = None;
    for _ in 0..total {
        // Some executions of a project start in the same millisecond.
        let (pipeline, start) = match twin.take() {
            Some(twin) if history.rng.chance(30) => twin,
            _ => (history.rng.weighted(&choice), hours.pick(&mut history.rng)),
        };
        twin = Some((pipeline, start));
        history.add(pipeline, start, Origin::Fresh);
    }
    sorted(&history.executions, plan)
}

/// Cumulative hourly weights: working hours of a team in Europe and one in America.
struct Hours {
    from: i64,
    sums: Vec<usize>,
}

impl Hours {
    fn new(from: i64, count: i64) -> Self {
        let mut sum = 0;
        let sums = (0..count.max(1))
            .map(|hour| {
                let since_epoch = (from + hour * HOUR_MS).div_euclid(HOUR_MS);
                // The epoch was a Thursday.
                let weekend = (since_epoch.div_euclid(24) + 3).rem_euclid(7) >= 5;
                let weight = match since_epoch.rem_euclid(24) {
                    7..=10 | 13..=16 => 20,
                    11 | 12 | 17..=20 => 14,
                    5 | 6 | 21 | 22 => 5,
                    _ => 2,
                };
                sum += if weekend { weight / 4 + 1 } else { weight };
                sum
            })
            .collect();
        Self { from, sums }
    }

    fn weight_of(&self, hours: i64) -> usize {
        let last = usize::try_from(hours - 1).unwrap_or(0);
        self.sums.get(last).copied().unwrap_or(0)
    }

    fn pick(&self, rng: &mut Rng) -> i64 {
        let point = rng.below(self.sums.last().copied().unwrap_or(1));
        let hour = self.sums.partition_point(|sum| *sum <= point);
        self.from + i64::try_from(hour).unwrap_or(0) * HOUR_MS + rng.between(0, HOUR_MS - 1)
    }
}

impl History<'_> {
    /// Adds a random execution and those that follow from it.
    fn add(&mut self, pipeline: u32, start: i64, origin: Origin) {
        let of = &self.plan.pipelines[pipeline as usize];
        let execution = self.random_execution(of, pipeline, start, origin);
        self.push(&execution);
    }

    /// Adds an execution and those that follow from it, if it starts before the horizon.
    fn push(&mut self, execution: &Execution) {
        if execution.start >= self.horizon {
            return;
        }
        let index = u32::try_from(self.executions.len()).unwrap_or(NO_EXECUTION);
        if let Origin::Retry { of, .. } = execution.origin {
            self.executions[of as usize].retried_by = index;
        }
        self.executions.push(execution.clone());
        self.children(index, execution);
        self.follow_ups(index, execution);
    }

    fn random_execution(
        &mut self,
        of: &Pipeline,
        pipeline: u32,
        start: i64,
        origin: Origin,
    ) -> Execution {
        let rng = &mut self.rng;
        let slots = of.slots.len();
        let carried = match origin {
            Origin::Retry { of, .. } => usize::from(self.executions[of as usize].stop),
            _ => 0,
        };
        let outcome = outcome(of, carried, rng);
        let approval = approval_slot(of).filter(|at| carried <= *at);
        let stop = match outcome {
            Status::Success | Status::IgnoreFailed | Status::Skipped | Status::Suspended => slots,
            Status::ApprovalRejected => approval.unwrap_or(0),
            _ => carried + rng.below(slots - carried),
        };
        let queue = if rng.chance(850) {
            rng.between(80, 1_500)
        } else {
            rng.long_tail(5_000, 40 * MINUTE_MS)
        };
        let stages = i64::try_from(slots - carried).unwrap_or(1).max(1);
        let work = stages * rng.long_tail(20_000, 12 * MINUTE_MS);
        let needs_approval = approval.is_some_and(|at| at <= stop);
        let wait = match outcome {
            // The server expires an execution after 37 days.
            Status::Expired if rng.chance(60) => 37 * DAY_MS,
            Status::Expired => rng.between(HOUR_MS, 2 * DAY_MS),
            Status::Skipped | Status::Suspended => 0,
            _ if needs_approval && rng.chance(350) => rng.long_tail(8 * HOUR_MS, 5 * DAY_MS),
            _ if needs_approval => rng.long_tail(2 * MINUTE_MS, 8 * HOUR_MS),
            _ => 0,
        };
        let nothing_ran = matches!(outcome, Status::Skipped | Status::Suspended);
        let run = start + queue;
        let stopped_in_queue = outcome == Status::Aborted && rng.chance(80);
        let stop = if stopped_in_queue { carried } else { stop };
        let end = match outcome {
            _ if stopped_in_queue => run,
            _ if nothing_ran => run + 400,
            _ => run + work + wait,
        };
        let mut execution = Execution {
            id: rng.id(),
            start,
            run,
            end,
            edit: 0,
            last_end: end,
            wait,
            pipeline,
            run_sequence: 0,
            origin,
            retried_by: NO_EXECUTION,
            stop: u8::try_from(stop).unwrap_or(u8::MAX),
            created_lag: u8::try_from(rng.between(20, 90)).unwrap_or(0),
            outcome,
            last_outcome: outcome,
            legacy: rng.chance(25),
            end_unreported: outcome == Status::Aborted && rng.chance(150),
        };
        edit(&mut execution, rng);
        execution
    }

    /// Adds the executions that stages of this one start.
    fn children(&mut self, index: u32, parent: &Execution) {
        let of = &self.plan.pipelines[parent.pipeline as usize];
        if of.child.is_none() && of.shape != Shape::Cd && of.shape != Shape::Mixed {
            return;
        }
        let detail = detail::detail(self.seed, self.plan, &self.executions, parent);
        let windows: Vec<_> = detail.nodes.iter().filter_map(stage_window).collect();
        drop(detail);
        for window in windows {
            let (pipeline, origin) = match of.child {
                Some(child) if !window.rollback => (
                    u32::try_from(child).unwrap_or(0),
                    Origin::Child { of: index },
                ),
                _ if window.rollback => (parent.pipeline, Origin::PipelineRollback { of: index }),
                _ => continue,
            };
            let pipeline_of = &self.plan.pipelines[pipeline as usize];
            let lag = ((window.end - window.start) / 10).min(900);
            let mut child =
                self.random_execution(pipeline_of, pipeline, window.start + lag, origin);
            child.id = window.child;
            child.run = child.start + lag.min(200);
            child.end = (window.end - lag / 2).max(child.run);
            child.outcome = window.outcome;
            child.stop =
                u8::try_from(detail::stop_of(pipeline_of, origin, window.outcome)).unwrap_or(0);
            child.wait = if child.outcome == Status::Success && origin_is_child(origin) {
                (child.end - child.run) / 2
            } else {
                0
            };
            child.edit = 0;
            child.last_end = child.end;
            child.last_outcome = child.outcome;
            child.end_unreported = false;
            child.legacy = parent.legacy;
            self.push(&child);
        }
    }

    /// Adds the executions that people start after this one has ended.
    fn follow_ups(&mut self, index: u32, execution: &Execution) {
        if matches!(
            execution.origin,
            Origin::Child { .. } | Origin::PipelineRollback { .. } | Origin::PostRollback { .. }
        ) {
            return;
        }
        let failed = matches!(
            execution.outcome,
            Status::Failed | Status::Errored | Status::Aborted | Status::Expired
        );
        let of = &self.plan.pipelines[execution.pipeline as usize];
        let later = execution.end + self.rng.long_tail(MINUTE_MS, 20 * HOUR_MS);
        if failed && self.rng.chance(550) {
            let root = match execution.origin {
                Origin::Retry { root, .. } => root,
                _ => index,
            };
            self.add(execution.pipeline, later, Origin::Retry { of: index, root });
        } else if self.rng.chance(if failed { 400 } else { 40 }) {
            let root = match execution.origin {
                Origin::Rerun { root, .. } => root,
                _ => index,
            };
            self.add(execution.pipeline, later, Origin::Rerun { of: index, root });
        } else if execution.outcome == Status::Success
            && matches!(of.shape, Shape::Cd | Shape::Mixed)
            && self.rng.chance(50)
        {
            let origin = Origin::PostRollback { of: index };
            let mut rollback = self.random_execution(of, execution.pipeline, later, origin);
            rollback.outcome = if self.rng.chance(900) {
                Status::Success
            } else {
                Status::Failed
            };
            rollback.stop =
                u8::try_from(detail::stop_of(of, origin, rollback.outcome)).unwrap_or(0);
            rollback.wait = 0;
            rollback.end = rollback.run + self.rng.long_tail(20_000, 10 * MINUTE_MS);
            rollback.edit = 0;
            rollback.last_end = rollback.end;
            rollback.last_outcome = rollback.outcome;
            rollback.end_unreported = false;
            self.push(&rollback);
        }
    }
}

fn origin_is_child(origin: Origin) -> bool {
    matches!(origin, Origin::Child { .. })
}

fn approval_slot(of: &Pipeline) -> Option<usize> {
    of.slots
        .iter()
        .position(|slot| matches!(slot, Slot::One(stage) if stage.kind == StageKind::Approval))
}

fn outcome(of: &Pipeline, carried: usize, rng: &mut Rng) -> Status {
    let needs_approval = approval_slot(of).is_some_and(|at| carried <= at);
    rng.weighted(&[
        (if carried == 0 { 740 } else { 640 }, Status::Success),
        (130, Status::Failed),
        (12, Status::Errored),
        (12, Status::Expired),
        (45, Status::Aborted),
        (6, Status::AbortedByFreeze),
        (
            if needs_approval { 80 } else { 0 },
            Status::ApprovalRejected,
        ),
        (18, Status::IgnoreFailed),
        (if carried == 0 { 5 } else { 0 }, Status::Skipped),
        (if carried == 0 { 2 } else { 0 }, Status::Suspended),
    ])
}

/// Edits a few terminal executions: failures are ignored later, rejected approvals are resumed.
fn edit(execution: &mut Execution, rng: &mut Rng) {
    match execution.outcome {
        Status::Failed if rng.chance(130) => {
            execution.edit = execution.end + rng.long_tail(10 * MINUTE_MS, 40 * HOUR_MS);
            execution.last_end = execution.edit;
            execution.last_outcome = Status::IgnoreFailed;
        }
        Status::ApprovalRejected if rng.chance(300) => {
            execution.edit = execution.end + rng.long_tail(30 * MINUTE_MS, 12 * HOUR_MS);
            execution.last_end = execution.edit + rng.between(5 * MINUTE_MS, 90 * MINUTE_MS);
            execution.last_outcome = Status::Success;
        }
        _ => {}
    }
}

/// Sorts executions by start time and updates their indexes and run sequences.
fn sorted(executions: &[Execution], plan: &Plan) -> Vec<Execution> {
    let mut order: Vec<u32> =
        (0..u32::try_from(executions.len()).unwrap_or(NO_EXECUTION)).collect();
    order.sort_by_key(|index| (executions[*index as usize].start, *index));
    let mut indexes = vec![0; executions.len()];
    for (new, old) in (0_u32..).zip(&order) {
        indexes[*old as usize] = new;
    }
    let index = |old: u32| indexes.get(old as usize).copied().unwrap_or(NO_EXECUTION);
    let mut runs = vec![0_u32; plan.pipelines.len()];
    order
        .iter()
        .map(|old| {
            let mut execution = executions[*old as usize].clone();
            execution.retried_by = index(execution.retried_by);
            execution.origin = match execution.origin {
                Origin::Fresh => Origin::Fresh,
                Origin::Retry { of, root } => Origin::Retry {
                    of: index(of),
                    root: index(root),
                },
                Origin::Rerun { of, root } => Origin::Rerun {
                    of: index(of),
                    root: index(root),
                },
                Origin::Child { of } => Origin::Child { of: index(of) },
                Origin::PostRollback { of } => Origin::PostRollback { of: index(of) },
                Origin::PipelineRollback { of } => Origin::PipelineRollback { of: index(of) },
            };
            let run = &mut runs[execution.pipeline as usize];
            // Leaves a gap now and then, as for an execution whose plan creation failed.
            *run += if execution.id.0.is_multiple_of(37) {
                2
            } else {
                1
            };
            execution.run_sequence = *run;
            execution
        })
        .collect()
}
