//! An observation of an execution, and the merge rule: which of two observations a raw partition keeps. Pure.

use std::cmp::Ordering;

use bytes::Bytes;
use jiff::Timestamp;

use crate::ids::{PlanExecutionId, Scope};

/// A summary with the time at which the answer that held it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The execution.
    pub id: PlanExecutionId,
    /// The scope that it was listed under.
    pub scope: Scope,
    /// `start_ts`; its UTC date is the partition.
    pub start: Timestamp,
    /// What decides whether it replaces what is stored.
    pub version: Version,
    /// When the execution was first seen, with whatever content, as far as this tells: not after
    /// `version.observed`.
    pub first_observed: Timestamp,
    /// The summary as it came: one JSON object.
    pub summary: Bytes,
}

impl Observation {
    /// What raw partitions are ordered by: organization, project, start in microseconds, id.
    pub fn order(&self) -> (&str, &str, i64, &str) {
        (
            self.scope.org.as_str(),
            self.scope.project.as_str(),
            self.start.as_microsecond(),
            self.id.as_str(),
        )
    }
}

/// What decides between two observations of one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// When the answer that held it was made.
    pub observed: Timestamp,
    /// Hash of the content; equal content never replaces.
    pub content_hash: i64,
    /// Whether the execution is over.
    pub is_terminal: bool,
}

/// How much later than a terminal row an open one must be observed to replace it, in milliseconds:
/// replicas of the source lag by less.
pub const REOPEN_AFTER_MS: i64 = 10 * 60 * 1000;

/// Whether `new` replaces `old`.
///
/// The later observation wins. At equal times (an answer's `Date` has whole seconds) the terminal
/// one wins, then the greater hash, so that the outcome does not depend on who came first. A
/// terminal row is reopened only by an observation [`REOPEN_AFTER_MS`] later.
pub fn wins(new: &Version, old: &Version) -> bool {
    if new.content_hash == old.content_hash {
        return false;
    }
    match new.observed.cmp(&old.observed) {
        Ordering::Less => false,
        Ordering::Equal => {
            (new.is_terminal, new.content_hash) > (old.is_terminal, old.content_hash)
        }
        Ordering::Greater if old.is_terminal && !new.is_terminal => {
            let later = new.observed.as_millisecond() - old.observed.as_millisecond();
            REOPEN_AFTER_MS <= later
        }
        Ordering::Greater => true,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::from_ms;

    fn version(minutes: i64, content_hash: i64, is_terminal: bool) -> Version {
        Version {
            observed: from_ms(minutes * 60_000),
            content_hash,
            is_terminal,
        }
    }

    #[test]
    fn a_terminal_row_is_reopened_only_ten_minutes_later() {
        let done = version(0, 1, true);
        assert!(!wins(&version(9, 2, false), &done));
        assert!(wins(&version(10, 2, false), &done));
        assert!(
            wins(&version(1, 2, true), &done),
            "a late edit of a terminal row needs no wait"
        );
    }

    fn any_version() -> impl Strategy<Value = Version> {
        (0_i64..4, 0_i64..6).prop_map(|(minutes, hash)| version(minutes, hash, hash % 2 == 0))
    }

    fn last(versions: &[Version]) -> Version {
        versions
            .iter()
            .copied()
            .reduce(|old, new| if wins(&new, &old) { new } else { old })
            .unwrap()
    }

    proptest! {
        #[test]
        fn never_both_win(a in any_version(), b in any_version()) {
            prop_assert!(!(wins(&a, &b) && wins(&b, &a)));
        }

        #[test]
        fn repetition_changes_nothing(versions in prop::collection::vec(any_version(), 1..6)) {
            let once = last(&versions);
            prop_assert!(!wins(&once, &once));
            for version in &versions {
                let again = last(&[once, *version]);
                prop_assert!(again == once || once.observed <= again.observed);
            }
        }

        #[test]
        fn what_is_kept_is_never_older(versions in prop::collection::vec(any_version(), 1..6)) {
            let mut kept = versions[0];
            for new in &versions {
                if wins(new, &kept) {
                    prop_assert!(kept.observed <= new.observed);
                    kept = *new;
                }
            }
        }
    }
}
