//! Chooses the period of a new lake by the number of executions of the account.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use tokio::time::Instant;

use super::Limits;
use crate::config::SyncConfig;
use crate::error::Error;
use crate::extract::count::{WindowCounts, count_windows};
use crate::ids::Scope;
use crate::lake::identity::Identity;
use crate::lake::layout::Period;
use crate::source::Client;
use crate::window::Window;

/// Executions in [`COUNTED`] from which a lake is created by day. An object of a month then has 30,000
/// rows or more, and a run that changes one day rewrites it.
const MONTH_LIMIT: u64 = 30_000;

/// The time before now whose executions are counted.
const COUNTED: SignedDuration = SignedDuration::from_hours(24 * 30);

/// Maximum number of projects to count, with one request each.
const MAX_COUNTED_SCOPES: usize = 200;

/// The period of a lake that a run creates, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChosenPeriod {
    /// The period.
    pub period: Period,
    /// The reason.
    pub reason: String,
}

/// The part of the time until the deadline that counting may take: a run that ended before it has chosen would
/// leave nothing for the next one.
const DEADLINE_SHARE: u32 = 4;

/// Chooses the period of the lake of `config`; `None` if the lake exists.
///
/// Counts until the limit is reached, or until a part of the time until the deadline has passed. Then it estimates.
///
/// # Errors
///
/// An error if the lake cannot be read, the key was rejected, or the source went down: the choice is final, so it
/// must not follow from failures.
pub(super) async fn choose(
    config: &SyncConfig,
    client: &Client,
    scopes: &[Scope],
    now: Timestamp,
    limits: &Limits,
) -> Result<Option<ChosenPeriod>, Error> {
    if Identity::read(&config.store).await?.is_some() {
        return Ok(None);
    }
    if let Some(period) = config.period {
        let reason = format!("--period {period}");
        return Ok(Some(ChosenPeriod { period, reason }));
    }
    if scopes.len() > MAX_COUNTED_SCOPES {
        return Ok(Some(ChosenPeriod {
            period: Period::Day,
            reason: format!("more than {MAX_COUNTED_SCOPES} projects"),
        }));
    }
    let window = Window::new(now - COUNTED, now).expect("30 days are not empty");
    let mut sample = Sample {
        scopes: scopes.len(),
        ..Sample::default()
    };
    let until = limits.share_of_deadline(DEADLINE_SHARE);
    let concurrency = config.concurrency();
    for some in scopes.chunks(concurrency.max(1)) {
        let windows = some.iter().map(|scope| (scope.clone(), window));
        sample.add(&count_windows(client, windows.collect(), concurrency).await?);
        let is_late = until.is_some_and(|until| Instant::now() >= until);
        if is_late || sample.executions >= MONTH_LIMIT {
            break;
        }
    }
    Ok(Some(sample.choose()))
}

/// The executions of some scopes.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// All scopes.
    scopes: usize,
    counted: usize,
    failed: usize,
    executions: u64,
}

impl Sample {
    fn add(&mut self, counts: &WindowCounts) {
        self.counted += counts.empty.len() + counts.non_empty.len();
        self.failed += counts.failed.len();
        let rows = counts.non_empty.iter().map(|counted| counted.rows);
        self.executions += rows.sum::<u64>();
    }

    /// Returns the executions of all scopes, which have as many as the counted ones on average.
    fn estimate(self) -> u64 {
        let uncounted = (self.scopes - self.counted - self.failed) as u64;
        let average = self.executions.div_ceil((self.counted as u64).max(1));
        self.executions + average * uncounted
    }

    fn choose(self) -> ChosenPeriod {
        let executions = self.estimate();
        let period = if executions < MONTH_LIMIT {
            Period::Month
        } else {
            Period::Day
        };
        let uncounted = match self.failed {
            0 => String::new(),
            failed => format!(", without {failed} projects that could not be counted"),
        };
        let counted = self.counted + self.failed;
        let reason = if self.executions >= MONTH_LIMIT && counted < self.scopes {
            format!("{MONTH_LIMIT} executions or more in the last 30 days")
        } else if counted < self.scopes {
            let scopes = self.scopes;
            format!(
                "about {executions} executions in the last 30 days, estimated from {counted} of {scopes} projects \
                 because of --deadline{uncounted}"
            )
        } else {
            format!("{executions} executions in the last 30 days{uncounted}")
        };
        ChosenPeriod { period, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_accounts_get_a_month_in_one_object() {
        let all = |executions| Sample {
            scopes: 2,
            counted: 2,
            failed: 0,
            executions,
        };
        let some = |executions| Sample {
            scopes: 40,
            ..all(executions)
        };
        for (sample, period, reason) in [
            (all(0), Period::Month, "0 executions in the last 30 days"),
            (all(29_999), Period::Month, "29999 executions in"),
            (all(30_000), Period::Day, "30000 executions in"),
            (some(100), Period::Month, "about 2000 executions in"),
            (some(1_600), Period::Day, "estimated from 2 of 40 projects"),
            (some(30_000), Period::Day, "30000 executions or more"),
        ] {
            let chosen = sample.choose();
            assert_eq!(chosen.period, period, "{sample:?}");
            assert!(chosen.reason.contains(reason), "{}", chosen.reason);
        }
    }
}
