//! A run that has connected: what it sees, the lake that it writes, and how it reads into it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::committer::Committer;
use super::stop::{Deadline, StopSignal, or_stop};
use super::sync_rules;
use crate::causes::chain;
use crate::checkpoint::{Listing, OpenUpdate};
use crate::config::SyncConfig;
use crate::error::Error;
use crate::extract::discover::{Discovery, discover};
use crate::extract::fanout::fan_out;
use crate::extract::{ReadPlan, SyncRules};
use crate::ids::{PlanExecutionId, Scope};
use crate::lake::log::Record;
use crate::lake::recover::Recovery;
use crate::lake::{LOCK_TIMEOUT, Lake, OpenOptions};
use crate::progress::Progress;
use crate::report::Report;
use crate::source::Client;
use crate::tables::{OrgRow, ProjectRow};

/// Events that wait for the spool. Their bytes are bounded by the fan-out's budget.
pub(super) const EVENTS: usize = 64;

/// A run that has connected: what it sees, the lake that it writes, and what is committed there.
pub(super) struct Connected<'a> {
    config: &'a SyncConfig,
    pub(super) client: Client,
    found: Discovery,
    /// Now, by the source's clock.
    now: Timestamp,
    pub(super) scopes: Vec<Scope>,
    lake: Lake,
    pub(super) record: Record,
    /// What runs that died had found open, and may not have committed.
    recovered: BTreeMap<PlanExecutionId, OpenUpdate>,
    /// The lists of partitions that they had left.
    lists: Vec<String>,
    stop: StopSignal,
    deadline: Deadline,
}

impl<'a> Connected<'a> {
    /// Connects, lists what the key can see, opens the lake, and finishes what dead runs left.
    pub(super) async fn open(
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
        let pii = &config.pii;
        let options = OpenOptions {
            account: &config.source.account,
            now,
            buckets: config.buckets,
            pii,
            scratch: &config.scratch,
        };
        let lake = Lake::open(store, &options);
        // Another run may hold the lock for minutes.
        let lake = or_stop(&mut stop, lake).await??;
        let treatment = lake.identity().treatment(lake.store(), pii)?;
        let client = client.treating(treatment);
        let age_at = age_at(&lake, clock(), now);
        let Recovery { mut result, lists } = recover(&lake, age_at, &mut stop).await?;
        let recovered = std::mem::take(&mut result.open_updates);
        report.add(result);
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

    pub(super) async fn rules(&self) -> Result<SyncRules, Error> {
        self.or_stop(sync_rules(self.config, &self.client, self.now))
            .await?
    }

    pub(super) fn committer<'b>(&'b self, report: &'b mut Report) -> Committer<'b> {
        let mut committer = Committer::new(&self.lake, report, self.stop.clone(), self.now);
        committer.delta.open_updates.clone_from(&self.recovered);
        committer.unlisted(&self.found.unlisted);
        committer.delta.listing = self.listing();
        if let Some(listing) = &committer.delta.listing {
            let (vanished, are_many) = self.record.state.listing.vanished(listing);
            if are_many {
                let projects = vanished.len();
                tracing::warn!(
                    projects,
                    "so many projects are not listed any more; has the key lost rights?"
                );
            }
            committer.report.vanished = vanished.iter().map(Scope::to_string).collect();
        }
        committer
    }

    /// The listing, if it is of everything that the key can see.
    fn listing(&self) -> Option<Listing> {
        let key = self.config.source.key_fingerprint();
        let is_whole = self.config.is_everything && self.found.unlisted.is_empty();
        is_whole.then(|| Listing {
            is_short: !self.client.lists_are_whole(),
            ..listing(&self.found, self.now, key)
        })
    }

    /// Reads the asks, lands what comes, commits, and tells how the run ends.
    pub(super) async fn read(
        &self,
        asks: Vec<(Scope, ReadPlan)>,
        mut committer: Committer<'_>,
        progress: &Progress,
        clock: fn() -> Timestamp,
    ) -> Result<(), Error> {
        let (events, mut told) = mpsc::channel(EVENTS);
        let (concurrency, size) = (self.config.concurrency(), self.config.source.page_size);
        let reading = fan_out(&self.client, asks, concurrency, size, events);
        let mut stop = self.stop.clone();
        let taking = async {
            while let Some(event) = or_stop(&mut stop, self.deadline.or(told.recv())).await?? {
                committer.take(event, progress).await?;
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
        let flushed = committer.flush().await;
        committer.report.count(&self.client);
        committer.report.drift.add(self.client.drift());
        flushed?;
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
        committer.verdict(self.config.partial_exit_code)
    }

    pub(super) async fn or_stop<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        or_stop(&mut self.stop.clone(), self.deadline.or(work)).await?
    }
}

async fn recover(lake: &Lake, now: Timestamp, stop: &mut StopSignal) -> Result<Recovery, Error> {
    let lock = or_stop(stop, lake.store().lock(LOCK_TIMEOUT)).await?;
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
