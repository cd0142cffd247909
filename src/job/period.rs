//! Chooses the period of a new lake by the number of executions of the account.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

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

/// Chooses the period of the lake of `config`; `None` if the lake exists.
///
/// # Errors
///
/// An error if the lake cannot be read, the key was rejected, or the source went down: the choice is final, so it
/// must not follow from a part of the counts.
pub(super) async fn choose(
    config: &SyncConfig,
    client: &Client,
    scopes: &[Scope],
    now: Timestamp,
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
    let windows = Window::new(now - COUNTED, now).into_iter();
    let windows =
        windows.flat_map(|window| scopes.iter().map(move |scope| (scope.clone(), window)));
    let counts = count_windows(client, windows.collect(), config.concurrency()).await?;
    Ok(Some(by_counts(&counts)))
}

fn by_counts(counts: &WindowCounts) -> ChosenPeriod {
    let executions: u64 = counts.non_empty.iter().map(|counted| counted.rows).sum();
    let period = if executions < MONTH_LIMIT {
        Period::Month
    } else {
        Period::Day
    };
    let uncounted = match counts.failed.len() {
        0 => String::new(),
        failed => format!(", without {failed} projects that could not be counted"),
    };
    ChosenPeriod {
        period,
        reason: format!("{executions} executions in the last 30 days{uncounted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extract::count::CountedWindow;
    use crate::window::from_ms;

    #[test]
    fn small_accounts_get_a_month_in_one_object() {
        let window = Window::new(from_ms(0), from_ms(1)).unwrap();
        let counted = |rows| CountedWindow {
            scope: Scope::new("org", "project"),
            window,
            history: window,
            rows,
        };
        for (rows, period) in [
            (vec![], Period::Month),
            (vec![20_000, 9_999], Period::Month),
            (vec![20_000, 10_000], Period::Day),
        ] {
            let counts = WindowCounts {
                non_empty: rows.into_iter().map(counted).collect(),
                ..WindowCounts::default()
            };
            assert_eq!(by_counts(&counts).period, period, "{counts:?}");
        }
    }
}
