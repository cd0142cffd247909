//! The run on one screen: discover, ask, spool, merge, derive, commit, sum up.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::checkpoint::{Delta, Fate, Listing, Seen};
use crate::config::SyncConfig;
use crate::error::{Code, Error, chain, code_of_source};
use crate::extract::discover::{Discovery, discover};
use crate::extract::fanout::{Event, ScopeDone, fan_out};
use crate::extract::spool::Spool;
use crate::extract::{Observation, SyncRules, plan_sync};
use crate::lake::land::{Landed, fates};
use crate::lake::layout::{self, Partition};
use crate::lake::log::Record;
use crate::lake::store::StoreError;
use crate::lake::{LOCK_PATIENCE, Lake, LakeError};
use crate::progress::Progress;
use crate::report::{Failure, Outcome, Report, Watermarks};
use crate::source::Client;
use crate::tables::{OrgRow, ProjectRow};

/// Tells a run that a signal has come.
pub type Stop = watch::Receiver<bool>;

/// Bytes of summaries after which a spool is merged.
const SPOOL_BYTES: u64 = 512 << 20;

/// Time after which a spool is merged.
const SPOOL_TIME: Duration = Duration::from_secs(300);

/// Events that wait for the spool. Their bytes are bounded by the fan-out's budget.
const EVENTS: usize = 64;

/// Where coverage of a new scope begins, if the user names no date.
const START_DAYS: i64 = 30;

/// Reads everything new since the watermark, gaps, open executions and a lookback, and commits.
///
/// The report tells what was done in any case; the error says why that was not all. `clock` is the
/// local clock, for the report and for the age of what dead runs left; all else goes by the source's.
pub async fn sync(
    config: &SyncConfig,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: Stop,
) -> (Report, Result<(), Error>) {
    let run_id = ulid::Ulid::generate().to_string();
    let account = config.source.account.clone();
    let mut report = Report::begin(run_id, "sync", account, clock());
    let result = run(config, clock, progress, stop, &mut report).await;
    progress.finish();
    report.finished_at = clock();
    report.outcome = match &result {
        Ok(()) => Outcome::Success,
        Err(Error::Partial { .. }) => Outcome::Partial,
        Err(Error::Interrupted) => Outcome::Interrupted,
        Err(error) => {
            report.failures.push(failure_of(error));
            Outcome::Failed
        }
    };
    keep_report(config, &report).await;
    (report, result)
}

async fn run(
    config: &SyncConfig,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: Stop,
    report: &mut Report,
) -> Result<(), Error> {
    let client = config.source.client(clock)?;
    let outcome = read_and_land(config, &client, clock, progress, stop, report).await;
    report.requests = client.counts();
    report.drift.add(client.drift());
    outcome
}

async fn read_and_land(
    config: &SyncConfig,
    client: &Client,
    clock: fn() -> Timestamp,
    progress: &Progress,
    mut stop: Stop,
    report: &mut Report,
) -> Result<(), Error> {
    let found = or_stop(&mut stop, discover(client, concurrency(config))).await??;
    let now = client.now().unwrap_or_else(clock);
    report.clock_skew_seconds = Some(now.duration_since(clock()).as_secs());
    let scopes = found.scopes(&config.filter);
    report.scopes.total = scopes.len();
    found.refuse_nothing(&scopes)?;

    let store = config.store.clone();
    let account = &config.source.account;
    let lake = Lake::open(store, account, now, config.buckets, &config.scratch).await?;
    let recovered = recover(&lake, clock()).await?;
    let record = Record::newest(lake.store())
        .await
        .map_err(LakeError::from)?;

    let rules = rules(config, client, now).await?;
    let (asks, given_up) = plan_sync(&record.state, &scopes, &rules);
    report.given_up = given_up.len();
    let mut known: BTreeMap<_, _> = fates(&recovered).collect();
    known.extend(given_up);
    report.add(recovered);
    report.covered_to = Some(now - config.window_lag);
    let mut landing = Landing {
        delta: Delta {
            fates: known,
            ..Delta::default()
        },
        spool: Spool::new(&config.scratch),
        since: Instant::now(),
        part: 0,
        lake: &lake,
        report,
        stop: stop.clone(),
        now,
        failures: Failures::default(),
    };
    if config.is_everything {
        landing.delta.listing = Some(listing(&found, now, config.source.key_fingerprint()));
    }

    progress.begin(scopes.len());
    let (events, mut told) = mpsc::channel(EVENTS);
    let size = config.source.page_size;
    let reading = fan_out(client, asks, concurrency(config), size, events);
    let taking = async {
        while let Some(event) = or_stop(&mut stop, told.recv()).await? {
            landing.take(event, progress).await?;
        }
        Ok::<_, Error>(())
    };
    // Where taking fails, reading is dropped with all its requests.
    let ((), read) = tokio::try_join!(taking, async { Ok(reading.await) })?;
    let record = landing.commit().await?;
    let failures = landing.failures;
    sum_up(report, &record);
    prune(&lake, clock()).await;
    read?;
    failures.verdict(report, config.partial_exit_code)
}

/// What was read and is not committed yet.
struct Landing<'a> {
    delta: Delta,
    spool: Spool<Partition>,
    since: Instant,
    part: u32,
    lake: &'a Lake,
    report: &'a mut Report,
    stop: Stop,
    now: Timestamp,
    failures: Failures,
}

impl Landing<'_> {
    async fn take(&mut self, event: Event, progress: &Progress) -> Result<(), Error> {
        match event {
            Event::Rows(rows) => {
                progress.rows(rows.observations.len());
                self.report.drift.add(rows.drift);
                for (id, open) in rows.undated {
                    self.delta.fates.insert(id, Fate::Open(open));
                }
                for observation in rows.observations {
                    self.push(observation)?;
                }
            }
            Event::Whole(scope, window) => self.delta.covered.entry(scope).or_default().add(window),
            Event::Gap(scope, window) => self.delta.gaps.entry(scope).or_default().add(window),
            Event::Missed(id, at) => {
                self.delta.fates.insert(id, Fate::Missed(at));
            }
            Event::Done(done) => {
                progress.scope(&done);
                self.done(*done);
            }
        }
        if SPOOL_BYTES <= self.spool.bytes() || SPOOL_TIME <= self.since.elapsed() {
            self.commit().await?;
        }
        Ok(())
    }

    fn push(&mut self, observation: Observation) -> Result<(), Error> {
        let partition = self
            .lake
            .identity()
            .partition(&observation.id, observation.start);
        let scratch = |source| Error::Output {
            path: "scratch".to_owned(),
            source,
        };
        self.spool.push(partition, observation).map_err(scratch)
    }

    fn done(&mut self, done: ScopeDone) {
        let error = done.error(self.now);
        let seen = Seen {
            last_row_start: done.last_row_start,
            success: done.observed.filter(|_| error.is_none() && done.gaps == 0),
            error,
            row_bytes: done.pages.row_bytes,
            page_limit: done.pages.page_limit,
        };
        self.failures.note(&done, self.report);
        self.delta.seen.insert(done.scope, seen);
    }

    /// Merges and derives what is spooled, then commits it: tables first, checkpoint last.
    async fn commit(&mut self) -> Result<Record, Error> {
        let _lock = self
            .lake
            .store()
            .lock(LOCK_PATIENCE)
            .await
            .map_err(LakeError::from)?;
        let run_id = &self.report.run_id;
        let landed = self
            .lake
            .land(run_id, self.part, &mut self.spool, &self.stop)
            .await?;
        let Some(landed) = landed else {
            return Err(Error::Interrupted);
        };
        self.delta.fates.extend(fates(&landed));
        let (record, files) = self.lake.commit(run_id, self.now, &self.delta).await?;
        self.report.add(landed);
        self.report.add_files(files);
        self.delta = Delta::default();
        self.since = Instant::now();
        self.part += 1;
        Ok(record)
    }
}

/// The scopes that were not read whole, and why.
#[derive(Debug, Default)]
struct Failures {
    failed: usize,
    /// The codes of those that failed, each once.
    codes: Vec<Code>,
}

impl Failures {
    fn note(&mut self, done: &ScopeDone, report: &mut Report) {
        if done.failure.is_none() && done.gaps == 0 {
            report.scopes.ok += 1;
            return;
        }
        report.scopes.failed += 1;
        self.failed += 1;
        let code = done.failure.as_ref().map_or(Code::Partial, code_of_source);
        if !self.codes.contains(&code) {
            self.codes.push(code);
        }
        let gaps = done.gaps;
        let message = done.failure.as_ref().map_or_else(
            || format!("{gaps} windows did not come whole; they are read first next time"),
            |error| chain(error),
        );
        let code = code.name();
        tracing::warn!(
            org.id = %done.scope.org, project.id = %done.scope.project, code, "{message}"
        );
        report.failures.push(Failure {
            org: done.scope.org.to_string(),
            project: done.scope.project.to_string(),
            code: code.to_owned(),
            message,
        });
    }

    fn verdict(self, report: &Report, exit: u8) -> Result<(), Error> {
        let total = report.scopes.total;
        match (self.failed, self.codes.as_slice()) {
            (0, _) => Ok(()),
            (failed, [code]) if failed == total && *code != Code::Partial => Err(Error::NoneRead {
                scopes: total,
                code: *code,
            }),
            (failed, _) => Err(Error::Partial {
                failed,
                total,
                exit,
            }),
        }
    }
}

/// Waits for `work`, unless a signal comes first.
async fn or_stop<T>(stop: &mut Stop, work: impl Future<Output = T>) -> Result<T, Error> {
    tokio::select! {
        biased;
        // A sender that is gone cannot signal any more: the work goes on.
        Ok(_) = stop.wait_for(|stopped| *stopped) => Err(Error::Interrupted),
        done = work => Ok(done),
    }
}

async fn recover(lake: &Lake, now: Timestamp) -> Result<Landed, Error> {
    let _lock = lake
        .store()
        .lock(LOCK_PATIENCE)
        .await
        .map_err(LakeError::from)?;
    Ok(lake.recover(now).await?)
}

async fn rules(config: &SyncConfig, client: &Client, now: Timestamp) -> Result<SyncRules, Error> {
    // Months are at most 31 days: asking for a little more than is kept costs nothing.
    let months = client.retention_months().await?.unwrap_or(6);
    let retained = SignedDuration::from_hours(24 * 31 * i64::from(months.min(600)));
    let thirty_days = now - SignedDuration::from_hours(24 * START_DAYS);
    Ok(SyncRules {
        now,
        window_lag: config.window_lag,
        lookback: config.lookback,
        start_date: config.start_date.unwrap_or(thirty_days),
        retained_from: now
            .saturating_sub(retained)
            .unwrap_or(Timestamp::UNIX_EPOCH),
    })
}

fn concurrency(config: &SyncConfig) -> usize {
    config.source.concurrency.get() as usize
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

fn sum_up(report: &mut Report, record: &Record) {
    let (min, max) = record.state.watermarks().unzip();
    report.watermark = Watermarks { min, max };
    report.open_executions = record.state.open.len();
    report.gaps = record.state.gap_count();
}

/// Deletes old records and reports; a failure costs space only.
async fn prune(lake: &Lake, now: Timestamp) {
    if let Err(error) = lake.prune(now).await {
        tracing::warn!("old records stay: {}", chain(&error));
    }
}

/// Puts the report into the lake, where there is one; a failure is not the run's.
async fn keep_report(config: &SyncConfig, report: &Report) {
    let body = serde_json::to_vec_pretty(report).expect("a report has text keys only");
    let kept = async {
        if config.store.head(layout::LAKE).await?.is_some() {
            config
                .store
                .overwrite(&layout::run_report(&report.run_id), body.into())
                .await?;
        }
        Ok::<_, StoreError>(())
    };
    if let Err(error) = kept.await {
        tracing::warn!("the report is not in the lake: {}", chain(&error));
    }
}

fn failure_of(error: &Error) -> Failure {
    let code = error.code().name().to_owned();
    Failure {
        org: String::new(),
        project: String::new(),
        code,
        message: chain(error),
    }
}
