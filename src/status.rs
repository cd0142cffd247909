//! What a Harness status means: its category, and whether an execution that has it is over. Pure.
//!
//! The list grows with the server, so an unknown word is kept as it came and counted as drift.

/// The closed vocabulary of the `status_category` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// Ended well, ignored failures included.
    Success,
    /// Ended with a failure or an error.
    Failure,
    /// Ran out of its time.
    Expired,
    /// Stopped by a person, the system or a freeze.
    Aborted,
    /// Refused at an approval.
    Rejected,
    /// Never had to run.
    Skipped,
    /// At work.
    Running,
    /// Held up by a person or a resource.
    Waiting,
    /// Not started.
    Queued,
    /// A word that this version does not know, or none.
    Unknown,
}

impl Category {
    /// The word in the `status_category` columns.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Expired => "expired",
            Self::Aborted => "aborted",
            Self::Rejected => "rejected",
            Self::Skipped => "skipped",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Unknown => "unknown",
        }
    }

    /// Whether what has a status of this category is over. An unknown status is over where the
    /// summary tells an end (`has_end`: `endTs` is present); a known one is believed whatever its end.
    pub const fn is_terminal(self, has_end: bool) -> bool {
        match self {
            Self::Success
            | Self::Failure
            | Self::Expired
            | Self::Aborted
            | Self::Rejected
            | Self::Skipped => true,
            Self::Running | Self::Waiting | Self::Queued => false,
            Self::Unknown => has_end,
        }
    }
}

/// Every status that this version knows, as Harness spells it today, with its category.
pub const KNOWN: &[(&str, Category)] = &[
    ("Success", Category::Success),
    ("IgnoreFailed", Category::Success),
    ("Failed", Category::Failure),
    ("Errored", Category::Failure),
    ("Expired", Category::Expired),
    ("Aborted", Category::Aborted),
    ("AbortedByFreeze", Category::Aborted),
    ("ApprovalRejected", Category::Rejected),
    ("Skipped", Category::Skipped),
    ("Suspended", Category::Skipped),
    ("Running", Category::Running),
    ("AsyncWaiting", Category::Running),
    ("TaskWaiting", Category::Running),
    ("TimedWaiting", Category::Running),
    ("WaitStepRunning", Category::Running),
    ("UploadWaiting", Category::Running),
    ("Pausing", Category::Running),
    ("Discontinuing", Category::Running),
    ("ApprovalWaiting", Category::Waiting),
    ("InterventionWaiting", Category::Waiting),
    ("InputWaiting", Category::Waiting),
    ("ResourceWaiting", Category::Waiting),
    ("Waiting", Category::Waiting),
    ("Paused", Category::Waiting),
    ("NotStarted", Category::Queued),
    ("Queued", Category::Queued),
    ("QueuedLicenseLimitReached", Category::Queued),
    ("QueuedExecutionConcurrencyReached", Category::Queued),
    ("QueuedGlobalInfraCapacityReached", Category::Queued),
    ("QUEUED_PLAN_CREATION", Category::Queued),
];

/// Classifies a status, without regard to case and underscores (`ApprovalWaiting`,
/// `APPROVAL_WAITING`).
pub fn categorize(status: &str) -> Category {
    KNOWN
        .iter()
        .find(|(known, _)| same_word(known, status))
        .map_or(Category::Unknown, |(_, category)| *category)
}

/// Whether the status says that failures were ignored (`IgnoreFailed`).
pub fn is_failure_ignored(status: &str) -> bool {
    same_word("IgnoreFailed", status)
}

/// Whether both are the same word, without regard to case and underscores.
pub fn same_word(one: &str, other: &str) -> bool {
    letters(one).eq(letters(other))
}

fn letters(word: &str) -> impl Iterator<Item = u8> {
    word.bytes()
        .filter(|byte| *byte != b'_')
        .map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn historical_spellings_mean_the_same() {
        for (status, category) in [
            ("Success", Category::Success),
            ("RUNNING", Category::Running),
            ("NOT_STARTED", Category::Queued),
            ("APPROVAL_REJECTED", Category::Rejected),
            ("QueuedPlanCreation", Category::Queued),
            ("Suspended", Category::Skipped),
        ] {
            assert_eq!(categorize(status), category, "{status}");
        }
    }

    #[test]
    fn an_unknown_word_is_over_only_where_an_end_is_told() {
        for status in ["", "Succes", "SuccessLater", "_", "Erfolg"] {
            assert_eq!(categorize(status), Category::Unknown, "{status}");
        }
        assert!(Category::Unknown.is_terminal(true) && !Category::Unknown.is_terminal(false));
        assert!(Category::Success.is_terminal(false) && !Category::Running.is_terminal(true));
    }

    #[test]
    fn no_word_is_known_twice() {
        for (at, (word, _)) in KNOWN.iter().enumerate() {
            let twins = KNOWN
                .iter()
                .filter(|(other, _)| same_word(word, other))
                .count();
            assert_eq!(twins, 1, "{at} {word}");
        }
    }
}
