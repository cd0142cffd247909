//! Windows that failed to be read though the source was up: why, how often, and when each is due again. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::UnknownFields;
use crate::window::{Coverage, Window};

/// Runs that retry a failed window without delay.
const PROMPT_RETRIES: usize = 3;

/// Age up to which a failed window is retried hourly, then daily.
const HOURLY_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Slightly less than an hour and a day: a schedule must not miss its turn by seconds.
const HOURLY: SignedDuration = SignedDuration::from_mins(55);
const DAILY: SignedDuration = SignedDuration::from_hours(23);

/// Attempts that are remembered per window.
const MAX_ATTEMPTS: usize = 100;

/// The failed reads of one window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GapFailure {
    /// The window.
    pub window: Window,
    /// The reason of the last failure, such as `503 UNKNOWN_ERROR`.
    pub reason: String,
    /// Start of the first run that failed to read it.
    pub since: Timestamp,
    /// Starts of the runs that failed to read it, at most the last 100.
    pub attempts: BTreeSet<Timestamp>,
    /// Members of later versions.
    #[serde(flatten)]
    pub unknown: UnknownFields,
}

impl GapFailure {
    /// Returns the failure of one run that started at `at`.
    pub fn new(window: Window, reason: String, at: Timestamp) -> Self {
        Self {
            window,
            reason,
            since: at,
            attempts: [at].into(),
            unknown: UnknownFields::new(),
        }
    }

    /// Returns the start of the last run that failed.
    pub fn last_attempt(&self) -> Timestamp {
        self.attempts.last().copied().unwrap_or(self.since)
    }

    /// Returns whether a run that starts now retries the window: each of the next runs, then hourly for a day,
    /// then daily.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let interval = if self.attempts.len() <= PROMPT_RETRIES {
            SignedDuration::ZERO
        } else if now.duration_since(self.since) < HOURLY_AGE {
            HOURLY
        } else {
            DAILY
        };
        now.duration_since(self.last_attempt()) >= interval
    }

    /// Adds the attempts of another record of the same window. Order and repetition do not matter.
    fn merge(&mut self, other: &Self) {
        let (this, that) = (
            (self.last_attempt(), &self.reason),
            (other.last_attempt(), &other.reason),
        );
        if that > this {
            self.reason.clone_from(&other.reason);
        }
        self.since = self.since.min(other.since);
        self.attempts.extend(&other.attempts);
        while self.attempts.len() > MAX_ATTEMPTS {
            self.attempts.pop_first();
        }
    }
}

/// Adds a failure to a list sorted by window.
pub(super) fn add(failures: &mut Vec<GapFailure>, new: &GapFailure) {
    match failures.binary_search_by_key(&new.window, |failure| failure.window) {
        Ok(at) => failures[at].merge(new),
        Err(at) => failures.insert(at, new.clone()),
    }
}

/// Removes the failures of windows that are not unread any more.
pub(super) fn retain_unread(failures: &mut Vec<GapFailure>, unread: &Coverage) {
    let is_unread = |window: Window| {
        let mut windows = unread.windows().iter();
        windows.any(|other| other.intersect(window).is_some())
    };
    failures.retain(|failure| is_unread(failure.window));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::from_ms;

    fn minutes(minutes: i64) -> Timestamp {
        from_ms(minutes * 60_000)
    }

    fn failed_at(times: &[i64]) -> GapFailure {
        let window = Window::new(minutes(0), minutes(1)).unwrap();
        let mut failures = Vec::new();
        for at in times {
            let failure = GapFailure::new(window, format!("at {at}"), minutes(*at));
            add(&mut failures, &failure);
        }
        failures.remove(0)
    }

    #[test]
    fn retries_are_prompt_then_hourly_then_daily() {
        assert!(failed_at(&[10, 11, 12]).is_due(minutes(13)));
        let hourly = failed_at(&[10, 11, 12, 13]);
        assert!(!hourly.is_due(minutes(60)) && hourly.is_due(minutes(70)));
        let day = 24 * 60;
        let daily = failed_at(&[10, 11, 12, day + 20]);
        assert!(!daily.is_due(minutes(day + 120)) && daily.is_due(minutes(2 * day)));
    }

    #[test]
    fn failures_merge_in_any_order() {
        let (first, second) = (failed_at(&[10, 20]), failed_at(&[20, 30]));
        let merged = |one: &GapFailure, other: &GapFailure| {
            let mut failures = vec![one.clone()];
            add(&mut failures, other);
            add(&mut failures, one);
            failures.remove(0)
        };
        let both = merged(&first, &second);
        assert_eq!(both, merged(&second, &first));
        assert_eq!((both.attempts.len(), both.since), (3, minutes(10)));
        assert_eq!(both.reason, "at 30");
    }

    #[test]
    fn failures_of_windows_that_were_read_are_removed() {
        let mut failures = vec![failed_at(&[1])];
        let window = failures[0].window;
        retain_unread(&mut failures, &Coverage::from_iter([window]));
        assert_eq!(failures.len(), 1);
        retain_unread(&mut failures, &Coverage::default());
        assert!(failures.is_empty());
    }
}
