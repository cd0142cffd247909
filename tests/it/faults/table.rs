//! The table of faults.

use std::time::Duration;

use harness_sim::FaultKind::{self, *};

/// A fault: its kind, place and number of repetitions, and the expected end of the run.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Option<FaultKind>,
    pub(super) place: Place,
    /// Number of repetitions; unlimited if unset.
    pub(super) times: Option<u32>,
    pub(super) arguments: &'static [&'static str],
    pub(super) ends: Ends,
}

#[derive(Clone, Copy)]
pub(super) enum Place {
    Anywhere,
    SecondPages,
    OneProject,
}

/// The expected end of a run that meets the fault.
pub(super) enum Ends {
    /// The run succeeds with every row.
    Right,
    /// One project is incomplete, with this code and message; the others are right.
    Partial(&'static str, &'static str),
    /// The same, although every row was received.
    PartialButAllRows(&'static str, &'static str),
    /// The run ends with this exit code and error code.
    Fails(i32, &'static str),
}

pub(super) const TENS: &[&str] = &["--page-size", "10"];
const ONES: &[&str] = &["--page-size", "1"];
const INCOMPLETE: &str = "incomplete";

pub(super) fn rows() -> Vec<Row> {
    [passing(), lasting()].into_iter().flatten().collect()
}

/// Temporary faults, which have no effect.
fn passing() -> Vec<Row> {
    let throttled = TooManyRequests { retry_after: None };
    vec![
        passes("slow bodies", SlowBody(Duration::from_secs(1)), 6),
        passes("truncated gzip", TruncatedGzip, 4),
        passes("HTML with 200", Html200, 4),
        passes("429 storm", throttled, 12),
        passes("429 in the guise of 400", TooManyRequestsAs400, 6),
        passes("burst of 502", Status(502), 5),
        passes("burst of 500", Status(500), 5),
        passes("resets mid-body", ResetMidBody, 5),
        passes("bodies cut short", TruncatedBody, 5),
        passes("totals that lie", WrongTotal(2), 3),
        in_tens(passes("totals that lie, too small", WrongTotal(-1), 3)),
        between_pages("pages that shift", ShiftedPage, 9),
        between_pages("a page that repeats", RepeatPage, 2),
        between_pages("rows that vanish between pages", RowsVanish, 2),
    ]
}

/// Permanent faults, which fail one project at most.
fn lasting() -> Vec<Row> {
    let equal_starts = Row {
        kind: None,
        arguments: ONES,
        ..harmless("equal starts across a page border", EmptyBody)
    };
    let lies = Row {
        ends: Ends::PartialButAllRows("partial", INCOMPLETE),
        ..stays("totals that lie for ever", WrongTotal(3), INCOMPLETE)
    };
    let deleted = Row {
        ends: Ends::Partial("failure", "404"),
        ..stays("a project that is deleted", Status(404), "404")
    };
    let revoked = Row {
        place: Place::Anywhere,
        ends: Ends::Fails(4, "invalid_credentials"),
        ..stays("a key that is revoked", Unauthorized, "")
    };
    let unauthorized = Row {
        ends: Ends::Partial("invalid_credentials", "401"),
        ..stays("a key that one project rejects", Unauthorized, "401")
    };
    let repeats = Row {
        place: Place::OneProject,
        ..in_tens(harmless("a page that repeats for ever", RepeatPage))
    };
    vec![
        stays(
            "truncated gzip for ever",
            TruncatedGzip,
            "incomplete response",
        ),
        stays("HTML with 200 for ever", Html200, "is not JSON"),
        stays("504 for ever", Status(504), "504"),
        stays("resets for ever", ResetMidBody, "incomplete response"),
        in_tens(harmless("pages that shift for ever", ShiftedPage)),
        in_tens(harmless("ids doubled across pages", DuplicateLastRow)),
        harmless("pages smaller than asked for", CappedPage(10)),
        equal_starts,
        repeats,
        lies,
        deleted,
        revoked,
        unauthorized,
    ]
}

/// Some responses about executions are bad, then all are good.
fn passes(name: &'static str, kind: FaultKind, times: u32) -> Row {
    Row {
        times: Some(times),
        ..harmless(name, kind)
    }
}

/// Some second pages are inconsistent with their first.
fn between_pages(name: &'static str, kind: FaultKind, times: u32) -> Row {
    Row {
        place: Place::SecondPages,
        ..in_tens(passes(name, kind, times))
    }
}

/// Every response is unusual, but the run succeeds.
fn harmless(name: &'static str, kind: FaultKind) -> Row {
    Row {
        name,
        kind: Some(kind),
        place: Place::Anywhere,
        times: None,
        arguments: &[],
        ends: Ends::Right,
    }
}

/// Every response about one project is bad: the project is unavailable.
fn stays(name: &'static str, kind: FaultKind, words: &'static str) -> Row {
    Row {
        place: Place::OneProject,
        ends: Ends::Partial("unavailable", words),
        ..harmless(name, kind)
    }
}

fn in_tens(row: Row) -> Row {
    Row {
        arguments: TENS,
        ..row
    }
}
