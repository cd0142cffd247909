//! Reads all scopes concurrently, within bounds: one task per scope, one channel, one memory budget.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use super::reader::{ReadEnd, ScopeReader};
use super::shared::Shared;
use super::turns::Unread;
use super::{Event, ReadPlan};
use crate::ids::Scope;
use crate::source::{Client, SourceError};
use crate::window::Window;

/// Carries out every plan, `concurrency` scopes at a time, and sends what happens to `events`.
///
/// Scopes are started in the order of `plans`. One that has read many pages waits until the others had their turn.
/// Lookbacks, polls and pending windows follow when the new data of all scopes is read.
///
/// Ends when all plans are carried out, when the receiver is dropped, or when the key is rejected. Once `stop` is
/// true, each scope ends its current slice and starts no other.
///
/// # Errors
///
/// [`SourceError::Unauthorized`]: no request can succeed. Any other failure concerns one scope and
/// is part of its [`ScopeDone`](super::ScopeDone).
pub async fn fan_out(
    client: &Client,
    plans: Vec<(Scope, ReadPlan)>,
    concurrency: usize,
    largest_page: u32,
    events: mpsc::Sender<Event>,
    stop: watch::Receiver<bool>,
) -> Result<(), SourceError> {
    let slots = concurrency.clamp(1, plans.len().max(1));
    let shared = Shared::new(client, largest_page, slots, plans.len(), stop);
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
    if let Some(failures) = shared.outage() {
        reader
            .finish(Some(SourceError::NotRequested { failures }))
            .await;
        return Ok(());
    }
    let failure = match read_plan(&mut reader, &plan, unread).await {
        Ok(()) => None,
        Err(ReadEnd::Stopped) => return Ok(()),
        Err(ReadEnd::Source(error)) if error.is_unauthorized() => return Err(error),
        Err(ReadEnd::Source(error)) => Some(error),
    };
    if failure.as_ref().is_some_and(SourceError::is_unavailable) {
        shared.note_failed_scope();
    }
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
