//! The inputs of a plan besides the checkpoint: the settings, the time, the retention of the source.

use jiff::{SignedDuration, Timestamp};

use crate::config::{ConfigError, SyncConfig};
use crate::error::Error;
use crate::extract::SyncRules;
use crate::source::Client;

/// Days of history that the first `sync` of a project reads by default.
pub(crate) const START_DAYS: i64 = 30;

/// Retention of a source that does not report it.
const RETENTION_MONTHS: u32 = 6;

/// Returns the rules of a plan. Asks the source for its retention.
///
/// # Errors
///
/// [`ConfigError::Range`] for a start date in the future; errors of the request.
pub(super) async fn sync_rules(
    config: &SyncConfig,
    client: &Client,
    now: Timestamp,
) -> Result<SyncRules, Error> {
    if let Some(start) = config.start_date.filter(|start| *start > now) {
        let what = format!("--start-date {start} is in the future");
        return Err(ConfigError::Range(what).into());
    }
    let default_start = now - SignedDuration::from_hours(24 * START_DAYS);
    let months = client.retention_months().await?;
    Ok(SyncRules {
        now,
        window_lag: config.window_lag,
        lookback: config.lookback,
        idle_interval: config.idle_interval,
        start_date: config.start_date.unwrap_or(default_start),
        retained_from: retained_from(months, now),
        surely_retained_from: fully_retained_from(months, now),
        largest_page: config.source.page_size,
    })
}

/// Returns the instant before which every execution has expired, for a retention in months.
pub(super) fn retained_from(months: Option<u32>, now: Timestamp) -> Timestamp {
    // The longest month: requesting an expired day costs one request and misses nothing.
    days_ago(31, months, now)
}

/// Returns the instant from which no execution has expired, for a retention in months.
pub(crate) fn fully_retained_from(months: Option<u32>, now: Timestamp) -> Timestamp {
    // The shortest month.
    days_ago(28, months, now)
}

fn days_ago(days_per_month: i64, months: Option<u32>, now: Timestamp) -> Timestamp {
    let days = days_per_month * i64::from(months.unwrap_or(RETENTION_MONTHS).min(600));
    now.saturating_sub(SignedDuration::from_hours(24 * days))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}
