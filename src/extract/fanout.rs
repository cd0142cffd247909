//! Reads all scopes concurrently, within bounds: one task per scope, one channel, one memory budget.

use futures::StreamExt;
use tokio::sync::mpsc;

use super::reader::{ReadEnd, ScopeReader};
use super::shared::Shared;
use super::{Event, ReadPlan};
use crate::ids::Scope;
use crate::source::{Client, SourceError};
use crate::window::Window;

/// Carries out every plan, `concurrency` scopes at a time, and sends what happens to `events`.
///
/// Ends when all plans are carried out, when the receiver is dropped, or when the key is rejected.
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
) -> Result<(), SourceError> {
    let slots = concurrency.clamp(1, plans.len().max(1));
    let shared = Shared::new(client, largest_page, slots);
    let mut scopes = futures::stream::iter(plans)
        .map(|(scope, plan)| read_scope(&shared, scope, plan, events.clone()))
        .buffer_unordered(concurrency.max(1));
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
    let mut reader = ScopeReader::new(shared, scope, &plan, events);
    if let Some(failures) = shared.outage() {
        reader
            .finish(Some(SourceError::NotRequested { failures }))
            .await;
        return Ok(());
    }
    let failure = match read_plan(&mut reader, &plan).await {
        Ok(()) => None,
        Err(ReadEnd::ReceiverDropped) => return Ok(()),
        Err(ReadEnd::Source(error)) if error.is_unauthorized() => return Err(error),
        Err(ReadEnd::Source(error)) => Some(error),
    };
    if failure.as_ref().is_some_and(SourceError::is_unavailable) {
        shared.note_failed_scope();
    }
    reader.finish(failure).await;
    Ok(())
}

/// Reads the new windows of a plan, then polls its open executions, then reads its pending windows.
async fn read_plan(reader: &mut ScopeReader<'_>, plan: &ReadPlan) -> Result<(), ReadEnd> {
    reader.watch(&plan.expected);
    if !read_windows(reader, &plan.windows).await? {
        return Ok(());
    }
    reader.poll(&plan.open).await?;
    // A gap may contain the executions that no row showed.
    if !reader.has_gaps() {
        reader
            .emit_missing(plan.expected.iter().map(|(id, _)| id))
            .await?;
    }
    reader.start_pending();
    read_windows(reader, &plan.pending).await?;
    Ok(())
}

/// Reads windows. Returns whether the scope is trusted, see [`ScopeReader::confirm_empty`].
async fn read_windows(reader: &mut ScopeReader<'_>, windows: &[Window]) -> Result<bool, ReadEnd> {
    for (at, window) in windows.iter().enumerate() {
        if let Err(end) = reader.read_window(*window).await {
            for unread in &windows[at + 1..] {
                reader.emit_incomplete(*unread).await?;
            }
            reader.leave_empty_uncovered().await?;
            return Err(end);
        }
    }
    reader.confirm_empty().await
}
