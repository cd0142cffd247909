//! Gives the stages of an execution their times, and both their statuses over time.

use super::account::Execution;
use super::detail::Instance;
use super::detail::{Detail, Failure, Node, What, push, rolls_back};
use super::dice::Dice;
use super::names;
use super::plan::{Kind, Strategy};
use super::state::{Phase, State};

const TIMED_OUT: Failure = Failure {
    message: "Stage timed out. \"timeout\" of the stage was exceeded",
    types: &["EXPIRED"],
};

/// Where in time a part of an execution lies, and how it ends.
#[derive(Clone, Copy)]
struct Span {
    from: i64,
    to: i64,
    ending: State,
}

/// Lays out everything after the first `carried` links of the chain.
pub(super) fn lay_out(
    detail: &mut Detail<'_>,
    execution: &Execution,
    carried: usize,
    dice: &mut Dice,
) {
    let nothing_ran = matches!(execution.outcome, State::Skipped | State::Suspended);
    let never_ran = execution.run == execution.end;
    if nothing_ran {
        for node in detail
            .nodes
            .iter_mut()
            .filter(|node| node.children.is_empty())
        {
            node.phases.push(phase(execution.end, State::Skipped));
        }
    } else if !never_ran {
        stages(detail, execution, carried, dice);
    }
    if detail.rollback.is_none() && dice.chance(500) && !rolls_back(execution.origin) {
        detail.rollback = Some(push(&mut detail.nodes, What::PipelineRollback, None, dice));
    }
    detail.phases = phases(detail, execution, nothing_ran || never_ran, dice);
}

fn stages(detail: &mut Detail<'_>, execution: &Execution, carried: usize, dice: &mut Dice) {
    let links = detail.chain.len();
    let stop = usize::from(execution.stop);
    let active = carried..(stop + 1).min(links);
    let ignored = if execution.outcome == State::IgnoreFailed {
        carried + dice.below(links - carried)
    } else {
        usize::MAX
    };
    let borders = borders(detail, execution, active.clone(), dice);
    for (link, border) in active.zip(borders.windows(2)) {
        let length = border[1] - border[0];
        let mut span = Span {
            from: border[0] + (length / 10).min(250),
            to: border[1] - (length / 10).min(250),
            ending: State::Success,
        };
        if link == stop {
            span.ending = execution.outcome;
        } else if link == ignored {
            span.ending = State::IgnoreFailed;
        }
        let node = detail.chain[link];
        let rolls = link == stop && may_roll_back(detail, node, execution);
        let rollback = if rolls { dice.below(100) } else { 100 };
        if rollback < 50 {
            let to = span.to;
            span.to = span.from + length * 6 / 10;
            roll_back(
                detail,
                node,
                Span {
                    from: span.to,
                    to,
                    ending: State::Success,
                },
                rollback < 30,
                dice,
            );
        }
        lay(&mut detail.nodes, node, span, dice);
    }
    if execution.last_outcome == State::IgnoreFailed && execution.edit != 0 {
        for node in &mut detail.nodes {
            if node
                .phases
                .last()
                .is_some_and(|last| last.state == State::Failed)
            {
                node.phases.push(phase(execution.edit, State::IgnoreFailed));
            }
        }
    } else if execution.edit != 0 {
        reopen(detail, execution, dice);
    }
}

/// The instants between the active links: the waiting one takes what the execution waits.
fn borders(
    detail: &Detail<'_>,
    execution: &Execution,
    active: std::ops::Range<usize>,
    dice: &mut Dice,
) -> Vec<i64> {
    let asks = |link: &usize| detail.nodes[detail.chain[*link]].is_kind(Kind::Approval);
    let waits = active
        .clone()
        .find(asks)
        .unwrap_or(active.end.saturating_sub(1));
    let weights: Vec<i64> = active.clone().map(|_| dice.between(1, 10)).collect();
    let total = weights.iter().sum::<i64>().max(1);
    let work = (execution.end - execution.run - execution.wait).max(0);
    let mut at = execution.run;
    let mut borders = vec![at];
    for (link, weight) in active.zip(weights) {
        at += work * weight / total + if link == waits { execution.wait } else { 0 };
        borders.push(at);
    }
    borders
}

fn may_roll_back(detail: &Detail<'_>, node: usize, execution: &Execution) -> bool {
    let deploys = |node: usize| detail.nodes[node].is_kind(Kind::Deployment);
    let node = &detail.nodes[node];
    execution.outcome == State::Failed
        && !rolls_back(execution.origin)
        && (node.is_kind(Kind::Deployment) || node.children.iter().any(|child| deploys(*child)))
}

/// Either the whole pipeline rolls back, or one rollback stage runs, off the chain.
fn roll_back(detail: &mut Detail<'_>, of: usize, span: Span, pipeline: bool, dice: &mut Dice) {
    let stage = detail.nodes[detail.nodes[of].children.first().copied().unwrap_or(of)].what;
    let what = if pipeline {
        What::PipelineRollback
    } else {
        stage
    };
    let node = push(&mut detail.nodes, what, None, dice);
    detail.nodes[node].is_rollback = true;
    if pipeline {
        detail.rollback = Some(node);
    }
    run(&mut detail.nodes[node], span, dice);
}

/// Lays a node, and all its members, into a span.
fn lay(nodes: &mut [Node<'_>], node: usize, span: Span, dice: &mut Dice) {
    let members = nodes[node].children.clone();
    if members.is_empty() {
        let skipped = nodes[node].stage().map_or(0, |stage| stage.skipped);
        if span.ending == State::Success && dice.chance(skipped) {
            nodes[node].phases.push(phase(span.from, State::Skipped));
        } else {
            run(&mut nodes[node], span, dice);
        }
        return;
    }
    let count = i64::try_from(members.len()).unwrap_or(1);
    let one_by_one = matches!(nodes[node].what, What::Strategy(Strategy::Loop(_), _));
    let length = span.to - span.from;
    let bad = if span.ending == State::Success {
        usize::MAX
    } else if one_by_one {
        members.len() - 1
    } else {
        dice.below(members.len())
    };
    for ((place, member), turn) in members.into_iter().enumerate().zip(0..) {
        let (from, to) = if one_by_one {
            (
                span.from + length * turn / count,
                span.from + length * (turn + 1) / count,
            )
        } else if place == bad || (bad == usize::MAX && turn == count - 1) {
            (span.from, span.to)
        } else {
            let late = (length / 20).min(dice.between(0, 900));
            (
                span.from + late,
                span.from + late + length * dice.between(40, 90) / 100,
            )
        };
        let ending = if place == bad {
            span.ending
        } else {
            State::Success
        };
        lay(nodes, member, Span { from, to, ending }, dice);
    }
}

/// One stage runs through a span.
fn run(node: &mut Node<'_>, span: Span, dice: &mut Dice) {
    let length = span.to - span.from;
    let (early, late) = (span.from + length / 5, span.to - length / 5);
    node.start = Some(span.from);
    node.phases.push(phase(span.from, State::Running));
    if node.is_kind(Kind::Approval) {
        let asked = span.from + (length / 10).min(1_500);
        node.phases.push(phase(asked, State::ApprovalWaiting));
    } else if node.is_kind(Kind::Deployment) && dice.chance(60) {
        let held_up = dice.pick(&[
            State::ResourceWaiting,
            State::InterventionWaiting,
            State::InputWaiting,
        ]);
        node.phases.push(phase(early, held_up));
        node.phases.push(phase(late, State::Running));
    } else if node.is_kind(Kind::Ci) && dice.chance(40) {
        node.phases.push(phase(early, State::AsyncWaiting));
    }
    node.phases.push(phase(span.to, span.ending));
    node.ends = Some((span.to, span.to));
    let (message, types) = dice.pick(names::FAILURES);
    node.failure = match span.ending {
        State::Failed | State::Errored | State::IgnoreFailed => Some(Failure { message, types }),
        State::Expired => Some(TIMED_OUT),
        _ => None,
    };
}

/// A rejected approval is taken up again, granted, and the rest of the chain runs.
fn reopen(detail: &mut Detail<'_>, execution: &Execution, dice: &mut Dice) {
    let stop = usize::from(execution.stop);
    let granted = execution.edit + (execution.last_end - execution.edit) / 4;
    let approval = &mut detail.nodes[detail.chain[stop]];
    approval.phases.push(phase(execution.edit, State::Running));
    approval.phases.push(phase(granted, State::Success));
    approval.ends = approval.ends.map(|(first, _)| (first, granted));
    let rest = detail.chain[stop + 1..].to_vec();
    let count = i64::try_from(rest.len()).unwrap_or(1).max(1);
    let share = (execution.last_end - granted) / count;
    for (node, turn) in rest.into_iter().zip(0..) {
        let from = granted + turn * share;
        let span = Span {
            from: from + share / 50,
            to: from + share * 49 / 50,
            ending: State::Success,
        };
        lay(&mut detail.nodes, node, span, dice);
    }
}

/// The statuses of the execution itself.
fn phases(detail: &Detail<'_>, execution: &Execution, idle: bool, dice: &mut Dice) -> Vec<Phase> {
    let queued = dice.pick(&[
        State::Queued,
        State::QueuedExecutionConcurrencyReached,
        State::QueuedLicenseLimitReached,
        State::NotStarted,
    ]);
    let long = 3_000 < execution.run - execution.start || idle;
    let mut phases = vec![phase(
        execution.start,
        if long { queued } else { State::Running },
    )];
    if !idle {
        phases.push(phase(execution.run, State::Running));
    }
    let waiting = |state: State| state.category() == "waiting";
    for link in &detail.chain {
        let node = &detail.nodes[*link];
        for pair in node.phases.windows(2) {
            if waiting(pair[0].state) && !node.carried {
                phases.push(pair[0]);
                phases.push(phase(pair[1].from, State::Running));
            }
        }
    }
    phases.push(phase(execution.end, execution.outcome));
    if execution.edit != 0 && execution.last_outcome == State::Success {
        phases.retain(|one| one.from <= execution.end);
        phases.push(phase(execution.edit, State::Running));
        phases.push(phase(execution.last_end, State::Success));
    } else if execution.edit != 0 {
        phases.push(phase(execution.edit, execution.last_outcome));
    }
    phases
}

fn phase(from: i64, state: State) -> Phase {
    Phase { from, state }
}

/// The instances of a strategy; of a matrix every combination of its axes.
pub(super) fn instances(strategy: &Strategy) -> Vec<Instance> {
    let combinations = match strategy {
        Strategy::Loop(count) | Strategy::Parallelism(count) => {
            (0..*count).map(|_| Vec::new()).collect()
        }
        Strategy::Matrix(axes) => axes.iter().fold(vec![Vec::new()], |combinations, axis| {
            let values = names::AXES[*axis].1.len();
            combinations
                .iter()
                .flat_map(|so_far: &Vec<usize>| {
                    (0..values).map(|value| [so_far.as_slice(), &[value]].concat())
                })
                .collect()
        }),
    };
    let total = i64::try_from(combinations.len()).unwrap_or(0);
    combinations
        .into_iter()
        .zip(0..)
        .map(|(combination, place)| Instance {
            place,
            total,
            combination,
        })
        .collect()
}
