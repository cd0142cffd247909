//! Decides when a 401 is checked with another request: the key may be valid, and only one resource reject it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Checks of a run before any request for executions succeeds. If the source rejects the key for executions
/// everywhere, not every project is tried.
const MAX_EARLY_CHECKS: u32 = 3;

/// What a run knows of its key.
#[derive(Debug, Default)]
pub(super) struct KeyCheck {
    /// Whether a request for executions has succeeded.
    executions_answered: AtomicBool,
    early_checks: AtomicU32,
}

impl KeyCheck {
    /// Records that a request for executions has succeeded.
    pub(super) fn executions_answered(&self) {
        self.executions_answered.store(true, Ordering::Relaxed);
    }

    /// Returns whether to find out if the key still works, after a 401.
    pub(super) fn is_due(&self) -> bool {
        self.executions_answered.load(Ordering::Relaxed)
            || self.early_checks.fetch_add(1, Ordering::Relaxed) < MAX_EARLY_CHECKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_few_until_executions_are_answered() {
        let check = KeyCheck::default();
        assert_eq!(
            [(); 5].map(|()| check.is_due()),
            [true, true, true, false, false]
        );
        check.executions_answered();
        assert_eq!([(); 5].map(|()| check.is_due()), [true; 5]);
    }
}
