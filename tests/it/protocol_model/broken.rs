//! Protocols with one rule broken: the model must find the violation of each.

use super::explore::{ORDER_SENSITIVE, all, explore, months, setups};
use super::state::{Protocol, Setup, Third};

/// Fails unless a violation is found whose message ends with `what`.
fn breaks(setups: impl IntoIterator<Item = Setup>, what: &str) {
    let trace = explore(setups).expect_err("the model must find a violation of this protocol");
    assert!(trace.ends_with(what), "{trace}");
}

#[test]
fn checkpoint_of_own_observations_loses_an_open_execution() {
    let setups = setups(&all(), Protocol::OwnObservations, Third::Nothing, 0);
    breaks(setups, "lost an open execution");
}

#[test]
fn checkpoint_before_tables_covers_missing_rows() {
    let setups = setups(
        &ORDER_SENSITIVE,
        Protocol::CheckpointFirst,
        Third::Nothing,
        0,
    );
    breaks(setups, "includes rows missing from the tables");
}

#[test]
fn executions_before_other_tables_leaves_one_stale() {
    let setups = setups(
        &ORDER_SENSITIVE,
        Protocol::ExecutionsFirst,
        Third::Nothing,
        0,
    );
    breaks(setups, "after a clean run a table differs from raw");
}

#[test]
fn removing_the_list_of_a_live_run_leaves_a_stale_table() {
    let setups = setups(
        &ORDER_SENSITIVE,
        Protocol::RemovesListOfLiveRun,
        Third::Recovers,
        0,
    );
    breaks(setups, "a table is stale without a pending list");
}

#[test]
fn list_removed_before_checkpoint_loses_an_open_execution() {
    let setups = setups(
        &ORDER_SENSITIVE,
        Protocol::RemovesListEarly,
        Third::Nothing,
        0,
    );
    breaks(setups, "an open execution is in no list");
}

#[test]
fn month_without_other_dates_loses_rows() {
    let setups = months(Protocol::DropsOtherDates, Third::Nothing, 0);
    breaks(setups, "a table has an older revision than before");
}

#[test]
fn month_with_own_dates_only_loses_newer_rows() {
    let setups = months(Protocol::ReplacesNewerDates, Third::Nothing, 0);
    breaks(setups, "a table has an older revision than before");
}
