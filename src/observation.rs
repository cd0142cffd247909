//! An observation of an execution, and the rule by which one observation replaces another. Pure.

use std::cmp::Ordering;

use bytes::Bytes;
use jiff::Timestamp;

use crate::ids::{PlanExecutionId, Scope};

/// A summary, with the time of the response that contained it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The execution.
    pub id: PlanExecutionId,
    /// The scope that listed it.
    pub scope: Scope,
    /// `start_ts`; its UTC date is the partition.
    pub start: Timestamp,
    /// The version: decides whether it replaces the stored one.
    pub version: Version,
    /// Time of the first known response that contained the execution, with any content. Not after
    /// `version.observed`.
    pub first_observed: Timestamp,
    /// The summary as received: one JSON object.
    pub summary: Bytes,
}

impl Observation {
    /// Returns the sort key of raw partitions: organization, project, start in microseconds, id.
    pub fn order(&self) -> (&str, &str, i64, &str) {
        (
            self.scope.org.as_str(),
            self.scope.project.as_str(),
            self.start.as_microsecond(),
            self.id.as_str(),
        )
    }
}

/// The part of an observation that decides which of two is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Time of the response that contained it.
    pub observed: Timestamp,
    /// Hash of the content; equal content never replaces.
    pub content_hash: i64,
    /// Whether the execution is terminal.
    pub is_terminal: bool,
}

/// Minimum time after which an open observation replaces a terminal one, in milliseconds. Replicas of
/// the source lag by less.
pub const REOPEN_AFTER_MS: i64 = 10 * 60 * 1000;

/// Returns whether `new` replaces `old`.
///
/// The later observation wins. At equal times (the `Date` of a response has a precision of seconds) the
/// terminal one wins, then the greater hash: the result does not depend on the order. An open observation
/// replaces a terminal one only if it is at least [`REOPEN_AFTER_MS`] later.
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
            later >= REOPEN_AFTER_MS
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
    fn terminal_row_is_reopened_only_ten_minutes_later() {
        let done = version(0, 1, true);
        assert!(!wins(&version(9, 2, false), &done));
        assert!(wins(&version(10, 2, false), &done));
        assert!(
            wins(&version(1, 2, true), &done),
            "an edit of a terminal row replaces it at once"
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
        fn two_versions_never_replace_each_other(a in any_version(), b in any_version()) {
            prop_assert!(!(wins(&a, &b) && wins(&b, &a)));
        }

        #[test]
        fn repeated_versions_change_nothing(versions in prop::collection::vec(any_version(), 1..6)) {
            let once = last(&versions);
            prop_assert!(!wins(&once, &once));
            for version in &versions {
                let again = last(&[once, *version]);
                prop_assert!(again == once || once.observed <= again.observed);
            }
        }

        #[test]
        fn kept_version_is_never_older(versions in prop::collection::vec(any_version(), 1..6)) {
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
