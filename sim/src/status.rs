//! The statuses of the simulated account, from the API documentation. They are independent of the
//! product's table, because the simulator judges the product.

/// A status of an execution or of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Status {
    NotStarted,
    Queued,
    QueuedLicenseLimitReached,
    QueuedExecutionConcurrencyReached,
    Running,
    AsyncWaiting,
    ApprovalWaiting,
    InterventionWaiting,
    InputWaiting,
    ResourceWaiting,
    Success,
    IgnoreFailed,
    Failed,
    Errored,
    Expired,
    Aborted,
    AbortedByFreeze,
    ApprovalRejected,
    Skipped,
    Suspended,
}

impl Status {
    /// Returns the current spelling.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::Queued => "Queued",
            Self::QueuedLicenseLimitReached => "QueuedLicenseLimitReached",
            Self::QueuedExecutionConcurrencyReached => "QueuedExecutionConcurrencyReached",
            Self::Running => "Running",
            Self::AsyncWaiting => "AsyncWaiting",
            Self::ApprovalWaiting => "ApprovalWaiting",
            Self::InterventionWaiting => "InterventionWaiting",
            Self::InputWaiting => "InputWaiting",
            Self::ResourceWaiting => "ResourceWaiting",
            Self::Success => "Success",
            Self::IgnoreFailed => "IgnoreFailed",
            Self::Failed => "Failed",
            Self::Errored => "Errored",
            Self::Expired => "Expired",
            Self::Aborted => "Aborted",
            Self::AbortedByFreeze => "AbortedByFreeze",
            Self::ApprovalRejected => "ApprovalRejected",
            Self::Skipped => "Skipped",
            Self::Suspended => "Suspended",
        }
    }

    /// Returns the spelling in a row; four statuses are spelled differently in legacy rows.
    pub(super) fn spelled(self, legacy: bool) -> &'static str {
        match self {
            Self::NotStarted if legacy => "NOT_STARTED",
            Self::InterventionWaiting if legacy => "INTERVENTION_WAITING",
            Self::ApprovalWaiting if legacy => "APPROVAL_WAITING",
            Self::ApprovalRejected if legacy => "APPROVAL_REJECTED",
            _ => self.word(),
        }
    }

    /// Returns the value of the `status_category` columns.
    pub(super) fn category(self) -> &'static str {
        match self {
            Self::NotStarted
            | Self::Queued
            | Self::QueuedLicenseLimitReached
            | Self::QueuedExecutionConcurrencyReached => "queued",
            Self::Running | Self::AsyncWaiting => "running",
            Self::ApprovalWaiting
            | Self::InterventionWaiting
            | Self::InputWaiting
            | Self::ResourceWaiting => "waiting",
            Self::Success | Self::IgnoreFailed => "success",
            Self::Failed | Self::Errored => "failure",
            Self::Expired => "expired",
            Self::Aborted | Self::AbortedByFreeze => "aborted",
            Self::ApprovalRejected => "rejected",
            Self::Skipped | Self::Suspended => "skipped",
        }
    }

    /// Returns whether the status is terminal.
    pub(super) fn terminal(self) -> bool {
        !matches!(self.category(), "queued" | "running" | "waiting")
    }
}

/// Every status that today's server accepts in a filter, spelled as in its documentation.
pub(super) const STATUSES: [&str; 30] = [
    "Success",
    "Failed",
    "Errored",
    "IgnoreFailed",
    "Expired",
    "Aborted",
    "AbortedByFreeze",
    "ApprovalRejected",
    "Skipped",
    "Suspended",
    "NotStarted",
    "Queued",
    "QueuedLicenseLimitReached",
    "QueuedExecutionConcurrencyReached",
    "QueuedGlobalInfraCapacityReached",
    "QUEUED_PLAN_CREATION",
    "Running",
    "AsyncWaiting",
    "TaskWaiting",
    "TimedWaiting",
    "WaitStepRunning",
    "UploadWaiting",
    "ResourceWaiting",
    "InterventionWaiting",
    "ApprovalWaiting",
    "InputWaiting",
    "Waiting",
    "Paused",
    "Pausing",
    "Discontinuing",
];

/// Compares two spellings of a status, ignoring case and underscores.
pub(super) fn is_same_status(one: &str, other: &str) -> bool {
    let letters = |word: &str| word.replace('_', "").to_ascii_lowercase();
    letters(one) == letters(other)
}

/// A status and the time from which it applies, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Phase {
    pub(super) from: i64,
    pub(super) status: Status,
}

/// Returns the status at an instant; `NotStarted` before the first phase.
pub(super) fn status_at(phases: &[Phase], at: i64) -> Status {
    phases
        .iter()
        .rev()
        .find(|phase| phase.from <= at)
        .map_or(Status::NotStarted, |phase| phase.status)
}
