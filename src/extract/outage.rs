//! Distinguishes a source that is down from the fault of one scope.
//!
//! ```text
//! a request fails, retries included --others are answered----------------> fault of the scope
//!                                   --none was answered--> probe --fails for 30 s--> outage: reading ends
//!                                                                --succeeds--> go on
//! ```

use std::time::Duration;

use tokio::sync::{Mutex, watch};

use super::shared::Shared;
use crate::ids::Scope;
use crate::source::{Client, Page, RetryState, SourceError};
use crate::window::Window;

/// Failed attempts in a row, after which the source may be down even if fewer scopes are read at once.
const MIN_FAILURES: u32 = 5;

/// Attempts at a request after the source was silent.
const RESUMED_ATTEMPTS: u32 = 3;

/// Probes within the patience of a run.
const PROBES: u32 = 6;

/// What the scopes of a run know of an outage.
pub(super) struct Outage {
    /// Failed attempts in a row, after which the source may be down: as many as scopes are read at once.
    suspicious_failures: u32,
    /// The failed attempts in a row, once the source counts as down.
    declared: watch::Sender<Option<u32>>,
    /// Scopes to probe. The last one has answered last.
    probed: std::sync::Mutex<Vec<Scope>>,
    /// One scope probes at a time.
    turn: Mutex<()>,
}

/// The state of the source after a request has failed.
enum Health {
    /// It answers other requests.
    Up,
    /// It was silent, and answers again.
    Back,
    /// It answers none.
    Down(SourceError),
}

impl Outage {
    pub(super) fn new(slots: usize, mut scopes: Vec<Scope>) -> Self {
        let slots = slots.min(scopes.len());
        // The first ones are read at once: they fail together.
        scopes.drain(..scopes.len().saturating_sub(2));
        Self {
            suspicious_failures: u32::try_from(slots).unwrap_or(u32::MAX).max(MIN_FAILURES),
            declared: watch::channel(None).0,
            probed: std::sync::Mutex::new(scopes),
            turn: Mutex::new(()),
        }
    }

    /// Returns an error if the source is down.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        let failures = *self.declared.borrow();
        failures.map_or(Ok(()), |failures| Err(SourceError::Outage { failures }))
    }

    /// Waits until the source is down.
    async fn declared(&self) -> SourceError {
        let mut declared = self.declared.subscribe();
        // The sender lives as long as `self`.
        drop(declared.wait_for(Option::is_some).await);
        let failures = declared.borrow().unwrap_or_default();
        SourceError::Outage { failures }
    }

    /// Returns another scope to probe.
    fn other(&self, scope: &Scope) -> Option<Scope> {
        let probed = crate::mutex::lock(&self.probed);
        probed.iter().rev().find(|other| *other != scope).cloned()
    }

    fn note_answer(&self, scope: &Scope) {
        let mut probed = crate::mutex::lock(&self.probed);
        if probed.last() != Some(scope) {
            probed.retain(|other| other != scope);
            probed.push(scope.clone());
            let surplus = probed.len().saturating_sub(2);
            probed.drain(..surplus);
        }
    }

    /// Returns whether the source may be down for all scopes.
    fn is_suspected(&self, client: &Client) -> bool {
        client.silence().is_some_and(|(failures, time)| {
            failures >= self.suspicious_failures || time >= client.patience()
        })
    }

    /// Finds out if the source is down, after a request for `scope` has failed.
    async fn health(&self, client: &Client, scope: &Scope) -> Health {
        if !self.is_suspected(client) {
            return Health::Up;
        }
        let _turn = self.turn.lock().await;
        // Another scope has found out.
        if let Err(outage) = self.check() {
            return Health::Down(outage);
        }
        let mut was_silent = !self.is_suspected(client);
        let answers = client.answers();
        // A scope whose requests always fail may have failed again since another one was answered.
        let silence = || client.silence().filter(|_| client.answers() == answers);
        loop {
            if silence().is_none() {
                return if was_silent { Health::Back } else { Health::Up };
            }
            let other = self.other(scope);
            let probe_other = async {
                if let Some(other) = &other {
                    // An answer of any kind ends the silence.
                    drop(client.probe(other).await);
                }
            };
            drop(tokio::join!(client.probe(scope), probe_other));
            let Some((failures, time)) = silence() else {
                continue;
            };
            let left = client.patience().saturating_sub(time);
            if left.is_zero() {
                tracing::error!(failures, "the API does not answer; stopped reading");
                self.declared.send_replace(Some(failures));
                return Health::Down(SourceError::Outage { failures });
            }
            was_silent = true;
            let interval: Duration = client.patience() / PROBES;
            tokio::time::sleep(left.min(interval)).await;
        }
    }
}

impl Shared<'_> {
    /// Sends a request of a scope. If the source was silent and answers again, sends it once more.
    ///
    /// # Errors
    ///
    /// [`SourceError::Outage`] if the source is down for all scopes; otherwise the error of the request.
    pub(super) async fn request<T>(
        &self,
        scope: &Scope,
        retries: &mut RetryState,
        send: impl AsyncFn(RetryState) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let mut was_resumed = false;
        loop {
            let response = tokio::select! {
                biased;
                outage = self.outage.declared() => return Err(outage),
                response = send(*retries) => response,
            };
            let error = match response {
                Err(error @ SourceError::Unavailable { .. }) => error,
                response => {
                    if response.is_ok() {
                        self.outage.note_answer(scope);
                    }
                    return response;
                }
            };
            if let SourceError::Unavailable { retry_state, .. } = &error {
                *retries = **retry_state;
            }
            match self.outage.health(self.client(), scope).await {
                Health::Down(outage) => return Err(outage),
                Health::Back if !was_resumed => {
                    was_resumed = true;
                    *retries = self.client().attempts_left(RESUMED_ATTEMPTS);
                }
                Health::Back | Health::Up => return Err(error),
            }
        }
    }

    /// Counts the rows of a window of a scope.
    ///
    /// # Errors
    ///
    /// As [`Shared::request`].
    pub(super) async fn count(&self, scope: &Scope, window: Window) -> Result<Page, SourceError> {
        let send = async |retries| self.client().count_after(scope, window, retries).await;
        self.request(scope, &mut RetryState::default(), send).await
    }
}
