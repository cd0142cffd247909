//! Explores every interleaving of the protocol of `lake::commit`, using its real functions.
//!
//! A run is a state machine whose steps are single requests to a store. The explorer takes each
//! step of each run in every order. It loses responses to committed puts, fails puts, and delays
//! puts until after their run has stopped waiting. An interrupted run takes no further step: in
//! every state, all runs stop, and a clean run must repair the lake. The decisions of a run come
//! from `lake::raw::merge`, `lake::commit::open_update` and `checkpoint::State::apply`.
//!
//! The execution is open at first, ends, and is reopened (a retry in place) or edited. Runs observe
//! it at different times, some through a lagging replica.

mod broken;
mod explore;
mod properties;
mod rules;
mod state;
mod steps;

use explore::{ORDER_SENSITIVE, all, explore, months, setups};
use state::{Protocol, Setup, Third};

/// Fails on a violation, or if at most `least` states are explored.
fn holds(setups: impl IntoIterator<Item = Setup>, least: usize) {
    let states = explore(setups).unwrap_or_else(|trace| panic!("{trace}"));
    assert!(states > least, "only {states} states were explored");
}

#[test]
fn two_runs_in_any_order_keep_all_invariants() {
    let setups = setups(&all(), Protocol::AsWritten, Third::Nothing, 0);
    holds(setups, 80_000);
}

#[test]
fn one_faulty_put_keeps_all_invariants() {
    let setups = setups(&ORDER_SENSITIVE, Protocol::AsWritten, Third::Nothing, 1);
    holds(setups, 150_000);
}

#[test]
fn two_faulty_puts_keep_all_invariants() {
    let setups = setups(
        &ORDER_SENSITIVE[7..8],
        Protocol::AsWritten,
        Third::Nothing,
        2,
    );
    holds(setups, 20_000);
}

#[test]
fn concurrent_replay_keeps_all_invariants() {
    let setups = setups(
        &ORDER_SENSITIVE[7..8],
        Protocol::AsWritten,
        Third::Replays,
        0,
    );
    holds(setups, 50_000);
}

#[test]
fn concurrent_recovery_keeps_all_invariants() {
    let setups = setups(
        &ORDER_SENSITIVE[7..8],
        Protocol::AsWritten,
        Third::Recovers,
        0,
    );
    holds(setups, 50_000);
}

#[test]
fn two_dates_keep_all_invariants() {
    let two = [[[1, 0], [0, 3]], [[3, 1], [4, 3]]].map(|sees| Setup {
        protocol: Protocol::AsWritten,
        dates: 2,
        is_month: false,
        before: [Some(1), None],
        sees,
        third: Third::Nothing,
        faults: 0,
    });
    holds(two, 10_000);
}

#[test]
fn month_keeps_all_invariants() {
    holds(months(Protocol::AsWritten, Third::Nothing, 0), 5_000);
}

#[test]
fn month_with_a_faulty_put_keeps_all_invariants() {
    let setups = months(Protocol::AsWritten, Third::Nothing, 1);
    holds(setups.into_iter().take(3), 5_000);
}

#[test]
fn month_with_replay_keeps_all_invariants() {
    holds(months(Protocol::AsWritten, Third::Replays, 1), 1_000);
}

#[test]
fn month_with_recovery_keeps_all_invariants() {
    holds(months(Protocol::AsWritten, Third::Recovers, 1), 1_000);
}
