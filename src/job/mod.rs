//! The run on one screen: discover, ask, spool, merge, derive, commit, sum up.

pub mod backfill;
mod committer;
pub mod compare;
mod connected;
pub mod copy;
pub mod plan;
mod stop;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::causes::chain;
use crate::config::{ConfigError, SyncConfig};
use crate::error::Error;
use crate::extract::{ReadPlan, SyncRules, plan_sync};
use crate::ids::Scope;
use crate::lake::identity::Identity;
use crate::lake::log::Record;
use crate::lake::store::Store;
use crate::lake::{LakeError, layout, views};
use crate::progress::Progress;
use crate::report::{ExpiredUnread, Report};
use crate::source::Client;
use connected::Connected;
pub use stop::StopSignal;
pub(crate) use stop::or_stop;

/// Where coverage of a new scope begins, if the user names no date.
pub(crate) const START_DAYS: i64 = 30;

/// Reads everything new since the watermark, gaps, open executions and a lookback, and commits.
///
/// The report tells what was done in any case; the error says why that was not all. `clock` is the
/// local clock, for the report and for the age of what dead runs left; all else goes by the source's.
pub async fn sync(
    config: &SyncConfig,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: StopSignal,
) -> (Report, Result<(), Error>) {
    let mut report = config.begin_report("sync", clock);
    let result = run(config, clock, progress, stop, &mut report).await;
    conclude(config, clock, progress, &mut report, &result).await;
    (report, result)
}

async fn run(
    config: &SyncConfig,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: StopSignal,
    report: &mut Report,
) -> Result<(), Error> {
    let connected = Connected::open(config, clock, stop, report).await?;
    let rules = connected.rules().await?;
    let (asks, abandoned) = plan_sync(&connected.record.state, &connected.scopes, &rules);
    report.abandoned = abandoned.len();
    report.covered_to = Some(rules.now - rules.window_lag);
    report.expired_unread = expired_unread(&asks, rules.retained_from);
    let mut committer = connected.committer(report);
    committer.delta.open_updates.extend(abandoned);
    progress.start(asks.len(), "projects");
    connected
        .read(asks.into_iter().collect(), committer, progress, clock)
        .await
}

/// What a plan follows from besides the checkpoint; asks the source once for its retention.
async fn sync_rules(
    config: &SyncConfig,
    client: &Client,
    now: Timestamp,
) -> Result<SyncRules, Error> {
    if let Some(start) = config.start_date.filter(|start| now < *start) {
        let what = format!("--start-date {start} lies in the future");
        return Err(ConfigError::Range(what).into());
    }
    let thirty_days = now - SignedDuration::from_hours(24 * START_DAYS);
    let months = client.retention_months().await?;
    Ok(SyncRules {
        now,
        window_lag: config.window_lag,
        lookback: config.lookback,
        start_date: config.start_date.unwrap_or(thirty_days),
        retained_from: retained_from(months, now),
        surely_retained_from: surely_retained_from(months, now),
    })
}

/// What of the windows asked for the source keeps no more.
fn expired_unread(
    asks: &BTreeMap<Scope, ReadPlan>,
    retained_from: Timestamp,
) -> Vec<ExpiredUnread> {
    let mut beyond = Vec::new();
    for (scope, ask) in asks {
        for window in &ask.windows {
            let (from, to) = (window.from(), window.to().min(retained_from));
            if from < to {
                tracing::warn!(%scope, %from, %to, "what no run read there is lost: the source keeps it no more");
                beyond.push(ExpiredUnread {
                    org: scope.org.to_string(),
                    project: scope.project.to_string(),
                    from,
                    to,
                });
            }
        }
    }
    beyond
}

/// Before this the source keeps nothing, by the months that it tells.
pub(crate) fn retained_from(months: Option<u32>, now: Timestamp) -> Timestamp {
    // Months are at most 31 days: asking for a little more than is kept costs nothing.
    days_ago(31, months, now)
}

/// From this on the source keeps everything, by the months that it tells.
pub(crate) fn surely_retained_from(months: Option<u32>, now: Timestamp) -> Timestamp {
    days_ago(28, months, now)
}

fn days_ago(days_a_month: i64, months: Option<u32>, now: Timestamp) -> Timestamp {
    let days = days_a_month * i64::from(months.unwrap_or(6).min(600));
    now.saturating_sub(SignedDuration::from_hours(24 * days))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Fills in how the run ended, and keeps the report in the lake.
async fn conclude(
    config: &SyncConfig,
    clock: fn() -> Timestamp,
    progress: &Progress,
    report: &mut Report,
    result: &Result<(), Error>,
) {
    progress.finish();
    report.finished_at = clock();
    report.end(result.as_ref().err());
    let keeping = async {
        if report.watermark.min.is_none() {
            sum_up(&config.store, report).await;
        }
        keep_report(&config.store, report).await;
    };
    if !matches!(result, Err(Error::Interrupted)) {
        keeping.await;
    } else if tokio::time::timeout(KEEPING, keeping).await.is_err() {
        tracing::warn!("the report is not in the lake, which does not answer");
    }
}

/// How long a run that got a signal tries to keep its report: a scheduler kills soon.
const KEEPING: Duration = Duration::from_secs(2);

/// Sums up what is committed in the lake, which may have been there before the run; a lake that cannot be read
/// leaves the report as it is.
pub(crate) async fn sum_up(store: &Store, report: &mut Report) {
    let is_ours = match Identity::read(store).await {
        Ok(Some((identity, _))) => identity.account_id == report.account_id,
        Ok(None) | Err(_) => false,
    };
    if is_ours && let Ok(record) = Record::newest(store).await {
        report.sum_up(&record.state);
    }
}

/// Puts the report into the lake, and the statements that open it, where there is one and it is of
/// the report's account; a failure is not the run's.
pub(crate) async fn keep_report(store: &Store, report: &Report) {
    let body = serde_json::to_vec_pretty(report).expect("a report has text keys only");
    let kept = async {
        let lake = Identity::read(store).await?;
        if lake.is_some_and(|(identity, _)| identity.account_id == report.account_id) {
            store
                .overwrite(&layout::run_report(&report.run_id), body.into())
                .await?;
            views::write(store).await?;
        }
        Ok::<_, LakeError>(())
    };
    if let Err(error) = kept.await {
        tracing::warn!(
            "the report or the views are not in the lake: {}",
            chain(&error)
        );
    }
}
