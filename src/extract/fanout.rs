//! Reads all scopes concurrently, within bounds: one task per scope or slice, one channel, one memory budget.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use super::count::CountedWindow;
use super::counter::ScopeCounter;
use super::queue::{BackfillQueue, Job};
use super::reader::{ReadEnd, ScopeReader};
use super::shared::Shared;
use super::turns::Unread;
use super::{Event, ReadPlan, ScopeDone};
use crate::ids::Scope;
use crate::source::{Client, SourceError};
use crate::window::Window;

/// The source and the settings of a reading, and the receiver of what happens.
pub struct Reading<'a> {
    /// The source.
    pub client: &'a Client,
    /// Scopes to read at once.
    pub concurrency: usize,
    /// The maximum page size.
    pub largest_page: u32,
    /// The receiver. If it is dropped, reading ends.
    pub events: mpsc::Sender<Event>,
    /// Once it is true, each scope ends its current slice and starts no other.
    pub stop: watch::Receiver<bool>,
}

/// Carries out every plan, and sends what happens.
///
/// Scopes are started in the order of `plans`. One that has read many pages waits until the others had their turn.
/// Lookbacks, polls and pending windows follow when the new data of all scopes is read.
///
/// Ends when all plans are carried out, when the receiver is dropped, or when the key is rejected.
///
/// # Errors
///
/// [`SourceError::Unauthorized`]: no request can succeed. Any other failure concerns one scope and
/// is part of its [`ScopeDone`].
pub async fn fan_out(
    reading: Reading<'_>,
    plans: Vec<(Scope, ReadPlan)>,
) -> Result<(), SourceError> {
    let slots = reading.concurrency.clamp(1, plans.len().max(1));
    let scopes = plans.iter().map(|(scope, _)| scope.clone()).collect();
    let shared = Shared::new(&reading, slots, plans.len(), scopes);
    let events = reading.events;
    let mut scopes: FuturesUnordered<_> = plans
        .into_iter()
        .map(|(scope, plan)| read_scope(&shared, scope, plan, events.clone()))
        .collect();
    drop(events);
    while let Some(read) = scopes.next().await {
        read?;
    }
    Ok(())
}

/// Counts and reads the windows of a backfill, and sends what happens.
///
/// The slices of a window join the queue as soon as it is counted.
///
/// # Errors
///
/// As [`fan_out`].
pub async fn read_backfill(
    reading: Reading<'_>,
    mut queue: BackfillQueue<'_>,
) -> Result<(), SourceError> {
    let slots = reading.concurrency.max(1);
    let shared = Shared::new(&reading, slots, 0, queue.scopes());
    let events = reading.events;
    let mut jobs = FuturesUnordered::new();
    loop {
        while jobs.len() < slots
            && !shared.is_ending()
            && !events.is_closed()
            && let Some(job) = queue.next()
        {
            jobs.push(run_job(&shared, job, events.clone()));
        }
        let Some(counted) = jobs.next().await else {
            return Ok(());
        };
        for window in counted? {
            queue.add(&window);
        }
    }
}

/// Runs a job of a backfill. Returns the windows to read that it has counted.
async fn run_job(
    shared: &Shared<'_>,
    job: Job,
    events: mpsc::Sender<Event>,
) -> Result<Vec<CountedWindow>, SourceError> {
    let plan = match job {
        Job::Count(plan) => plan,
        Job::Read(scope, plan) => {
            read_scope(shared, scope, plan, events).await?;
            return Ok(Vec::new());
        }
    };
    if let Err(outage) = shared.outage.check() {
        let done = ScopeDone::failed(plan.scope, outage);
        // A dropped receiver means that the run is ending.
        drop(events.send(Event::Done(Box::new(done))).await);
        return Ok(Vec::new());
    }
    let counter = ScopeCounter::new(shared, plan.scope.clone(), events);
    match counter.run(&plan).await {
        Ok(windows) => Ok(windows),
        Err(ReadEnd::Stopped) => Ok(Vec::new()),
        Err(ReadEnd::Source(error)) => Err(error),
    }
}

#[tracing::instrument(name = "scope", skip_all, fields(org.id = %scope.org, project.id = %scope.project))]
async fn read_scope(
    shared: &Shared<'_>,
    scope: Scope,
    plan: ReadPlan,
    events: mpsc::Sender<Event>,
) -> Result<(), SourceError> {
    let unread = shared.turns().unread();
    let mut reader = ScopeReader::new(shared, scope, &plan, events);
    if reader.next_turn().await.is_err() {
        return Ok(());
    }
    if let Err(outage) = shared.outage.check() {
        reader.finish(Some(outage)).await;
        return Ok(());
    }
    let failure = match read_plan(&mut reader, &plan, unread).await {
        Ok(()) => None,
        Err(ReadEnd::Stopped) => return Ok(()),
        Err(ReadEnd::Source(error)) if error.is_unauthorized() => return Err(error),
        Err(ReadEnd::Source(error)) => Some(error),
    };
    reader.finish(failure).await;
    Ok(())
}

/// Reads the new windows of a plan. When the new data of all scopes is read, reads its lookback, polls its open
/// executions and reads its pending windows.
async fn read_plan(
    reader: &mut ScopeReader<'_>,
    plan: &ReadPlan,
    unread: Unread<'_>,
) -> Result<(), ReadEnd> {
    reader.watch(&plan.expected);
    reader.emit_lookback(&plan.lookback).await?;
    read_windows(reader, &plan.windows, &plan.lookback).await?;
    // The lookback may show the rows that the new windows lack.
    if plan.lookback.is_empty() && !reader.confirm_empty().await? {
        return Ok(());
    }
    drop(unread);
    if !plan.lookback.is_empty() || !plan.open.is_empty() || !plan.pending.is_empty() {
        reader.wait_for_new_data().await?;
    }
    if !plan.lookback.is_empty() {
        read_windows(reader, &plan.lookback, &[]).await?;
        if !reader.confirm_empty().await? {
            return Ok(());
        }
    }
    Box::pin(reader.poll(&plan.open)).await?;
    // A gap may contain the executions that no row showed.
    if !reader.has_gaps() {
        reader
            .emit_missing(plan.expected.iter().map(|(id, _)| id))
            .await?;
    }
    reader.start_pending();
    read_windows(reader, &plan.pending, &[]).await?;
    reader.confirm_empty().await?;
    Ok(())
}

/// Reads windows. If that fails, emits the others and `later` as incomplete.
async fn read_windows(
    reader: &mut ScopeReader<'_>,
    windows: &[Window],
    later: &[Window],
) -> Result<(), ReadEnd> {
    for (at, window) in windows.iter().enumerate() {
        reader.stop_if_ending()?;
        // Boxed, so that a scope that waits for its turn takes little memory.
        if let Err(end) = Box::pin(reader.read_window(*window)).await {
            if matches!(end, ReadEnd::Stopped) {
                return Err(end);
            }
            for unread in windows[at + 1..].iter().chain(later) {
                reader.emit_incomplete(*unread).await?;
            }
            reader.leave_empty_uncovered().await?;
            return Err(end);
        }
    }
    Ok(())
}
