//! The run on one screen: discover, ask, spool, merge, derive, commit, sum up.

pub mod backfill;
pub mod compare;
pub mod copy;
mod landing;
pub mod plan;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::causes::chain;
use crate::checkpoint::{Fate, Listing};
use crate::config::{ConfigError, SyncConfig};
use crate::error::Error;
use crate::extract::discover::{Discovery, discover};
use crate::extract::fanout::fan_out;
use crate::extract::{Ask, SyncRules, plan_sync};
use crate::ids::{PlanExecutionId, Scope};
use crate::lake::identity::Identity;
use crate::lake::land::Recovered;
use crate::lake::layout;
use crate::lake::log::Record;
use crate::lake::store::Store;
use crate::lake::views;
use crate::lake::{LOCK_PATIENCE, Lake, LakeError};
use crate::progress::Progress;
use crate::report::{BeyondRetention, Report};
use crate::source::Client;
use crate::tables::{OrgRow, ProjectRow};
use landing::Landing;

/// Tells a run that a signal has come.
pub type StopSignal = watch::Receiver<bool>;

/// Events that wait for the spool. Their bytes are bounded by the fan-out's budget.
const EVENTS: usize = 64;

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
    let session = Session::open(config, clock, stop, report).await?;
    let rules = session.rules().await?;
    let (asks, given_up) = plan_sync(&session.record.state, &session.scopes, &rules);
    report.given_up = given_up.len();
    report.covered_to = Some(rules.now - rules.window_lag);
    report.beyond_retention = beyond_retention(&asks, rules.retained_from);
    let mut landing = session.landing(report);
    landing.delta.fates.extend(given_up);
    progress.begin(asks.len(), "projects");
    session
        .read(asks.into_iter().collect(), landing, progress, clock)
        .await
}

/// A run that has connected: what it sees, the lake that it writes, and what is committed there.
struct Session<'a> {
    config: &'a SyncConfig,
    client: Client,
    found: Discovery,
    /// Now, by the source's clock.
    now: Timestamp,
    scopes: Vec<Scope>,
    lake: Lake,
    record: Record,
    /// What runs that died had found open, and may not have committed.
    recovered: BTreeMap<PlanExecutionId, Fate>,
    /// The lists of partitions that they had left.
    lists: Vec<String>,
    stop: StopSignal,
    deadline: Deadline,
}

impl<'a> Session<'a> {
    /// Connects, lists what the key can see, opens the lake, and finishes what dead runs left.
    async fn open(
        config: &'a SyncConfig,
        clock: fn() -> Timestamp,
        mut stop: StopSignal,
        report: &mut Report,
    ) -> Result<Self, Error> {
        let deadline = Deadline::begin(config.deadline);
        let client = config.source.client(clock)?;
        let found = deadline.or(discover(&client, &config.filter, config.concurrency()));
        let found = or_stop(&mut stop, found).await;
        report.count(&client);
        let found = found???;
        let now = client.now().unwrap_or_else(clock);
        report.clock_skew_seconds = Some(now.duration_since(clock()).as_secs());
        let (found, scopes) = found.require_scopes(&config.filter)?;
        report.scopes.total = scopes.len();
        let store = config.store.clone();
        let account = &config.source.account;
        let (buckets, pii) = (config.buckets, &config.pii);
        let lake = Lake::open_for(store, account, now, buckets, pii, &config.scratch);
        // Another run may hold the lock for minutes.
        let lake = or_stop(&mut stop, lake).await??;
        let treatment = lake.identity().treatment(lake.store(), pii)?;
        let client = client.treating(treatment);
        let age_at = age_at(&lake, clock(), now);
        let Recovered { mut landed, lists } = recover(&lake, age_at, &mut stop).await?;
        let recovered = std::mem::take(&mut landed.fates);
        report.add(landed);
        let record = Record::newest(lake.store()).await?;
        Ok(Self {
            config,
            client,
            found,
            now,
            scopes,
            lake,
            record,
            recovered,
            lists,
            stop,
            deadline,
        })
    }

    async fn rules(&self) -> Result<SyncRules, Error> {
        self.or_stop(sync_rules(self.config, &self.client, self.now))
            .await?
    }

    fn landing<'b>(&'b self, report: &'b mut Report) -> Landing<'b> {
        let mut landing = Landing::new(&self.lake, report, self.stop.clone(), self.now);
        landing.delta.fates.clone_from(&self.recovered);
        landing.unlisted(&self.found.unlisted);
        landing.delta.listing = self.listing();
        if let Some(listing) = &landing.delta.listing {
            let (vanished, are_many) = self.record.state.listing.vanished(listing);
            if are_many {
                let projects = vanished.len();
                tracing::warn!(
                    projects,
                    "so many projects are not listed any more; has the key lost rights?"
                );
            }
            landing.report.vanished = vanished.iter().map(Scope::to_string).collect();
        }
        landing
    }

    /// The listing, if it is of everything that the key can see.
    fn listing(&self) -> Option<Listing> {
        let key = self.config.source.key_fingerprint();
        let is_whole = self.found.unlisted.is_empty() && self.client.lists_are_whole();
        (self.config.is_everything && is_whole).then(|| listing(&self.found, self.now, key))
    }

    /// Reads the asks, lands what comes, commits, and tells how the run ends.
    async fn read(
        &self,
        asks: Vec<(Scope, Ask)>,
        mut landing: Landing<'_>,
        progress: &Progress,
        clock: fn() -> Timestamp,
    ) -> Result<(), Error> {
        let (events, mut told) = mpsc::channel(EVENTS);
        let (concurrency, size) = (self.config.concurrency(), self.config.source.page_size);
        let reading = fan_out(&self.client, asks, concurrency, size, events);
        let mut stop = self.stop.clone();
        let taking = async {
            while let Some(event) = or_stop(&mut stop, self.deadline.or(told.recv())).await?? {
                landing.take(event, progress).await?;
            }
            Ok::<_, Error>(())
        };
        // Where taking fails, reading is dropped with all its requests.
        let read = match tokio::try_join!(taking, async { Ok(reading.await) }) {
            Ok(((), read)) => read.map_err(Error::from),
            // What came whole before the signal or the deadline is committed still.
            Err(end @ (Error::Interrupted | Error::Deadline { .. })) => Err(end),
            Err(error) => return Err(error),
        };
        let committed = landing.commit().await;
        landing.report.count(&self.client);
        landing.report.drift.add(self.client.drift());
        committed?;
        // A signal leaves no time for it; a deadline may be how every run ends.
        if !matches!(read, Err(Error::Interrupted)) {
            prune(
                &self.lake,
                age_at(&self.lake, clock(), self.now),
                &self.lists,
            )
            .await;
        }
        read?;
        landing.verdict(self.config.partial_exit_code)
    }

    async fn or_stop<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        or_stop(&mut self.stop.clone(), self.deadline.or(work)).await?
    }
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
    Ok(SyncRules {
        now,
        window_lag: config.window_lag,
        lookback: config.lookback,
        start_date: config.start_date.unwrap_or(thirty_days),
        retained_from: retained_from(client.retention_months().await?, now),
    })
}

/// What of the windows asked for the source keeps no more.
fn beyond_retention(asks: &BTreeMap<Scope, Ask>, retained_from: Timestamp) -> Vec<BeyondRetention> {
    let mut beyond = Vec::new();
    for (scope, ask) in asks {
        for window in &ask.windows {
            let (from, to) = (window.from(), window.to().min(retained_from));
            if from < to {
                tracing::warn!(%scope, %from, %to, "what no run read there is lost: the source keeps it no more");
                beyond.push(BeyondRetention {
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
    let months = i64::from(months.unwrap_or(6).min(600));
    now.saturating_sub(SignedDuration::from_hours(24 * 31 * months))
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
    if report.watermark.min.is_none() {
        sum_up(&config.store, report).await;
    }
    report.finished_at = clock();
    report.end(result.as_ref().err());
    keep_report(&config.store, report).await;
}

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

/// Waits for `work`, unless a signal comes first.
pub(crate) async fn or_stop<T>(
    stop: &mut StopSignal,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        // A sender that is gone cannot signal any more: the work goes on.
        Ok(_) = stop.wait_for(|stopped| *stopped) => Err(Error::Interrupted),
        done = work => Ok(done),
    }
}

/// When reading ends, whole or not; what was read is landed and committed in any case.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    after: Option<Duration>,
    at: Option<Instant>,
}

impl Deadline {
    fn begin(after: Option<Duration>) -> Self {
        let at = after.and_then(|after| Instant::now().checked_add(after));
        Self { after, at }
    }

    /// Waits for `work`, unless the deadline comes first.
    async fn or<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let (Some(at), Some(after)) = (self.at, self.after) else {
            return Ok(work.await);
        };
        let late = |_| Error::Deadline { after };
        tokio::time::timeout_at(at, work).await.map_err(late)
    }
}

async fn recover(lake: &Lake, now: Timestamp, stop: &mut StopSignal) -> Result<Recovered, Error> {
    let lock = or_stop(stop, lake.store().lock(LOCK_PATIENCE)).await?;
    let _lock = lock?;
    let recovered = lake.recover(now, || !*stop.borrow()).await?;
    recovered.ok_or(Error::Interrupted)
}

/// The time by which the age of objects is told. A folder's are of the local clock; those of an object store
/// are of its own, so where this machine's is ahead it must not make them older than they are.
fn age_at(lake: &Lake, here: Timestamp, at_source: Timestamp) -> Timestamp {
    match lake.store().folder() {
        Some(_) => here,
        None => here.min(at_source),
    }
}

fn listing(found: &Discovery, now: Timestamp, key: String) -> Listing {
    let orgs = found.orgs.iter().map(|org| OrgRow {
        org_id: org.id.to_string(),
        name: Some(org.name.clone()),
        description: org.description.clone(),
        tags: org.tags.clone(),
        created_ts: org.created,
        updated_ts: org.updated,
        is_harness_managed: Some(org.is_harness_managed),
        not_visible_since_ts: None,
    });
    let projects = found.projects.iter().map(|project| ProjectRow {
        org_id: project.org.to_string(),
        project_id: project.id.to_string(),
        name: Some(project.name.clone()),
        description: project.description.clone(),
        tags: project.tags.clone(),
        color: project.color.clone(),
        modules: project.modules.clone(),
        created_ts: project.created,
        updated_ts: project.updated,
        not_visible_since_ts: None,
    });
    Listing::new(now, key, orgs, projects)
}

/// Deletes old records and reports; a failure costs space only.
async fn prune(lake: &Lake, now: Timestamp, lists: &[String]) {
    if let Err(error) = lake.prune(now, lists).await {
        tracing::warn!("old records stay: {}", chain(&error));
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
            views::keep(store).await?;
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
