//! A session: a client, the discovered projects, an open lake, and reading from one into the other.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::Limits;
use super::committer::Committer;
use super::period::{self, ChosenPeriod};
use super::rules::sync_rules;
use super::run::{Changes, CommitPart, Parts, RequestsPart, SessionPart};
use crate::causes::chain;
use crate::checkpoint::{Listing, OpenUpdate, State};
use crate::config::SyncConfig;
use crate::error::Error;
use crate::extract::discover::{Discovery, discover};
use crate::extract::{Event, Reading, SyncRules};
use crate::ids::{PlanExecutionId, Scope};
use crate::lake::layout::Period;
use crate::lake::log::Record;
use crate::lake::recover::Recovery;
use crate::lake::{LOCK_TIMEOUT, Lake, OpenOptions};
use crate::pii::Redactor;
use crate::progress::Progress;
use crate::report::Failure;
use crate::source::{Client, MAX_AHEAD, SourceError};
use crate::tables::{OrgRow, ProjectRow};

/// Capacity of the channel from the fan-out to the committer. The fan-out bounds the bytes in it.
pub(super) const EVENTS: usize = 64;

/// Time for readers to finish their slices after the deadline, and for requests in flight after a signal.
const DEADLINE_DRAIN: Duration = Duration::from_secs(5);
const SIGNAL_DRAIN: Duration = Duration::from_secs(1);

/// A connected run.
pub(super) struct Session<'a> {
    config: &'a SyncConfig,
    clock: fn() -> Timestamp,
    pub(super) limits: Limits,
    pub(super) client: Client,
    opened: Opened,
    /// The projects to read.
    pub(super) scopes: Vec<Scope>,
    /// The checkpoint when the session was opened.
    pub(super) record: Record,
}

/// The results of discovery and of opening the lake.
struct Opened {
    /// The time by the clock of the source.
    now: Timestamp,
    /// Organizations whose projects could not be listed.
    unlisted: usize,
    lake: Lake,
    listing: Option<Listing>,
    /// Open executions of orphaned runs, which may not have committed them.
    open_updates: BTreeMap<PlanExecutionId, OpenUpdate>,
    /// Lists of pending partitions of orphaned runs.
    pending_lists: Vec<String>,
}

impl<'a> Session<'a> {
    /// Discovers projects, opens the lake and finishes the work of orphaned runs.
    pub(super) async fn open(
        config: &'a SyncConfig,
        clock: fn() -> Timestamp,
        limits: Limits,
        parts: &mut Parts,
    ) -> Result<Self, Error> {
        let client = config.source.client(clock)?;
        let opened = open(config, clock, &limits, &client, &mut parts.session).await;
        parts.requests = RequestsPart::of(&client);
        let (opened, scopes, record, treatment) = opened?;
        Ok(Self {
            config,
            clock,
            limits,
            client: client.with_redactor(treatment),
            opened,
            scopes,
            record,
        })
    }

    /// Returns the counters of the client.
    pub(super) fn requests(&self) -> RequestsPart {
        RequestsPart::of(&self.client)
    }

    /// Returns the rules of a plan; asks the source for its retention.
    pub(super) async fn rules(&self) -> Result<SyncRules, Error> {
        let rules = sync_rules(self.config, &self.client, self.opened.now);
        self.limits.run(rules).await
    }

    /// Returns a committer that begins with the listing and the work of orphaned runs.
    pub(super) fn committer<'b>(
        &'b self,
        run_id: &'b str,
        part: &'b mut CommitPart,
    ) -> Committer<'b> {
        let Opened { lake, now, .. } = &self.opened;
        let mut committer = Committer::new(lake, run_id, self.limits.clone(), *now, part);
        let delta = &mut committer.delta;
        delta.open_updates.clone_from(&self.opened.open_updates);
        delta.listing.clone_from(&self.opened.listing);
        committer
    }

    /// Reads, commits what was read, and returns how the run ended.
    pub(super) async fn read<'b>(
        &'b self,
        read: impl AsyncFnOnce(Reading<'b>) -> Result<(), SourceError>,
        mut committer: Committer<'_>,
        progress: &Progress,
    ) -> Result<(), Error> {
        let (sender, mut events) = mpsc::channel(EVENTS);
        let (stopping, stop) = watch::channel(false);
        let reading = read(Reading {
            client: &self.client,
            concurrency: self.config.concurrency(),
            largest_page: self.config.source.page_size,
            events: sender,
            stop,
        });
        let receiving = async {
            loop {
                match self.limits.run(next(&mut events)).await {
                    Ok(Some(event)) => committer.add(event, progress).await?,
                    Ok(None) => return Ok(()),
                    Err(end) => {
                        stopping.send_replace(true);
                        return Err(self
                            .drain(end, &mut events, &mut committer, progress)
                            .await?);
                    }
                }
            }
        };
        // An error of the committer drops the fan-out with all its requests.
        let read = match tokio::try_join!(receiving, async { Ok(reading.await) }) {
            Ok(((), read)) => read.map_err(Error::from),
            // Windows that were complete before the signal or the deadline are still committed.
            Err(end @ (Error::Interrupted | Error::Deadline { .. })) => Err(end),
            Err(error) => return Err(error),
        };
        committer.flush(progress).await?;
        committer.finish_suspicious(progress).await?;
        // After a signal there is no time to prune. A deadline may end every run of a schedule.
        if !matches!(read, Err(Error::Interrupted)) {
            self.prune().await;
        }
        read?;
        let (scopes, unlisted) = (self.scopes.len(), self.opened.unlisted);
        committer.result(scopes, unlisted, self.config.partial_exit_code)
    }

    /// Receives what the readers still finish after a signal or the deadline. Returns the reason of the end.
    async fn drain(
        &self,
        end: Error,
        events: &mut mpsc::Receiver<Event>,
        committer: &mut Committer<'_>,
        progress: &Progress,
    ) -> Result<Error, Error> {
        let limits = self.limits.without_deadline();
        let is_signalled = matches!(end, Error::Interrupted);
        let time = if is_signalled {
            SIGNAL_DRAIN
        } else {
            DEADLINE_DRAIN
        };
        let until = Instant::now() + time;
        loop {
            let event = tokio::time::timeout_at(until, async {
                if is_signalled {
                    next(events).await
                } else {
                    limits.run(next(events)).await
                }
            });
            match event.await {
                Ok(Ok(Some(event))) => committer.record(event, progress)?,
                Ok(Err(signal)) => return Ok(signal),
                Ok(Ok(None)) | Err(_) => return Ok(end),
            }
        }
    }

    /// Deletes old checkpoints and reports. A failure only costs space.
    async fn prune(&self) {
        let Opened {
            lake,
            now,
            pending_lists,
            ..
        } = &self.opened;
        let now = file_clock(lake, (self.clock)(), *now);
        if let Err(error) = lake.prune(now, pending_lists).await {
            tracing::warn!(
                "failed to delete old checkpoints and reports: {}",
                chain(&error)
            );
        }
    }
}

async fn next<T>(events: &mut mpsc::Receiver<T>) -> Result<Option<T>, Error> {
    Ok(events.recv().await)
}

async fn open(
    config: &SyncConfig,
    clock: fn() -> Timestamp,
    limits: &Limits,
    client: &Client,
    part: &mut SessionPart,
) -> Result<(Opened, Vec<Scope>, Record, Redactor), Error> {
    let found = discover(client, &config.filter, config.concurrency());
    let found = limits.run(found).await?;
    let now = client.now().unwrap_or_else(clock);
    part.clock_skew_seconds = Some(now.duration_since(clock()).as_secs());
    let (found, scopes) = found.require_scopes(&config.filter)?;
    part.scopes = scopes.len();
    part.unlisted = found.unlisted.iter().map(Failure::from).collect();
    part.unlisted.iter().for_each(Failure::log);
    let chosen = period::choose(config, client, &scopes, now, limits);
    let chosen = limits.run(chosen).await?;
    if let Some(ChosenPeriod { period, reason }) = &chosen {
        tracing::info!(%period, reason, "chose the period of the new lake");
    }
    let options = OpenOptions {
        account: &config.source.account,
        base_url: config.source.base_url.as_str(),
        now,
        buckets: config.buckets,
        pii: &config.pii,
        period: config.period,
        delta: config.delta,
        new_period: chosen.as_ref().map_or(Period::Day, |chosen| chosen.period),
        scratch: &config.scratch,
    };
    let lake = Lake::open(config.store.clone(), &options);
    // Another run may hold the lock for minutes. The deadline is one of reading.
    let lake = limits.without_deadline().run(lake).await?;
    part.chosen_period = chosen.filter(|chosen| chosen.period == lake.period());
    let treatment = lake.identity().treatment(lake.store(), &config.pii)?;
    let recovery = recover(&lake, file_clock(&lake, clock(), now), limits).await?;
    let Recovery { mut result, lists } = recovery;
    let open_updates = std::mem::take(&mut result.open_updates);
    let mut recovered = Changes::default();
    recovered.add_merge(result);
    part.recovered = recovered;
    let record = Record::newest(lake.store()).await?;
    let newest_observation = record.state.newest_observation();
    client.set_newest_observation(newest_observation);
    warn_of_future(newest_observation, now);
    let listing = complete_listing(config, client, &found, now);
    if let Some(listing) = &listing {
        part.vanished = vanished(&record.state, listing);
    }
    let opened = Opened {
        now,
        unlisted: found.unlisted.len(),
        lake,
        listing,
        open_updates,
        pending_lists: lists,
    };
    Ok((opened, scopes, record, treatment))
}

/// Warns if the lake has observations from a clock that was ahead: newer ones do not replace them yet.
fn warn_of_future(newest: Option<Timestamp>, now: Timestamp) {
    if let Some(newest) = newest.filter(|at| at.duration_since(now) > MAX_AHEAD) {
        tracing::warn!(
            "the lake has observations dated {newest}, ahead of the time of the API ({now}); changes \
             of these executions are ignored until then"
        );
    }
}

async fn recover(lake: &Lake, now: Timestamp, limits: &Limits) -> Result<Recovery, Error> {
    let lock = lake.store().lock(LOCK_TIMEOUT);
    let _lock = limits.without_deadline().run(lock).await?;
    let stop = limits.stop().clone();
    let recovered = lake.recover(now, || !*stop.borrow()).await?;
    recovered.ok_or(Error::Interrupted)
}

/// Returns the time to compare modification times with.
///
/// A local folder goes by the local clock. An object store has its own clock: where the local clock
/// is ahead of it, objects must not look older than they are.
fn file_clock(lake: &Lake, local: Timestamp, at_source: Timestamp) -> Timestamp {
    match lake.store().folder() {
        Some(_) => local,
        None => local.min(at_source),
    }
}

/// Returns the listing of the account, if no filter and no failure leaves it incomplete.
fn complete_listing(
    config: &SyncConfig,
    client: &Client,
    found: &Discovery,
    now: Timestamp,
) -> Option<Listing> {
    let key = config.source.key_fingerprint();
    let is_complete = config.is_everything && found.unlisted.is_empty();
    is_complete.then(|| Listing {
        is_short: !client.lists_are_complete(),
        ..listing(found, now, key)
    })
}

/// Returns the projects that the last listing had and this one lacks.
fn vanished(state: &State, listing: &Listing) -> Vec<Scope> {
    let (vanished, are_many) = state.listing.vanished(listing);
    if are_many {
        let projects = vanished.len();
        tracing::warn!(
            projects,
            "many projects are no longer listed; check the permissions of the API key"
        );
    }
    vanished.into_iter().collect()
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
