//! The category of a Harness status, and whether it is terminal. Pure.
//!
//! The list grows with the server, so an unknown status is kept as received and counted as drift.

/// A value of the `status_category` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// Succeeded, ignored failures included.
    Success,
    /// Failed, or ended with an error.
    Failure,
    /// Timed out.
    Expired,
    /// Aborted by a person, the system or a freeze.
    Aborted,
    /// Rejected at an approval.
    Rejected,
    /// Did not run.
    Skipped,
    /// Running.
    Running,
    /// Waiting for a person or a resource.
    Waiting,
    /// Not started.
    Queued,
    /// A status that this version does not know, or no status.
    Unknown,
}

impl Category {
    /// Returns the value in the `status_category` columns.
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

    /// Returns whether the category is terminal. An unknown status is terminal if the summary has an end
    /// (`has_end`: `endTs` is present); for a known status the end does not matter.
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

/// The known statuses, as Harness spells them today, with their categories.
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

/// Returns the category of a status. Ignores case and underscores: `ApprovalWaiting` equals
/// `APPROVAL_WAITING`.
pub fn categorize(status: &str) -> Category {
    KNOWN
        .iter()
        .find(|(known, _)| same_word(known, status))
        .map_or(Category::Unknown, |(_, category)| *category)
}

/// Returns whether the status is `IgnoreFailed`.
pub fn is_failure_ignored(status: &str) -> bool {
    same_word("IgnoreFailed", status)
}

/// Returns whether two words are equal, ignoring case and underscores.
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
    fn older_spellings_have_the_same_category() {
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
    fn unknown_status_is_terminal_only_with_an_end() {
        for status in ["", "Succes", "SuccessLater", "_", "Erfolg"] {
            assert_eq!(categorize(status), Category::Unknown, "{status}");
        }
        assert!(Category::Unknown.is_terminal(true) && !Category::Unknown.is_terminal(false));
        assert!(Category::Success.is_terminal(false) && !Category::Running.is_terminal(true));
    }

    #[test]
    fn known_statuses_are_distinct() {
        for (at, (word, _)) in KNOWN.iter().enumerate() {
            let twins = KNOWN
                .iter()
                .filter(|(other, _)| same_word(word, other))
                .count();
            assert_eq!(twins, 1, "{at} {word}");
        }
    }
}
