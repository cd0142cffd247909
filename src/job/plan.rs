//! `plan`: shows what a run would read. Counts each window with one request and changes nothing.

use jiff::Timestamp;

use super::backfill::BackfillRange;
use super::rules::sync_rules;
use crate::causes::chain;
use crate::checkpoint::State;
use crate::config::SyncConfig;
use crate::error::{Error, code_of_source};
use crate::extract::backfill::uncovered;
use crate::extract::count::{CountedWindow, WindowCounts, count_windows};
use crate::extract::discover::{Discovery, Unlisted, discover};
use crate::extract::{PageHints, SyncRules, idle_scopes, plan_sync, slice_count};
use crate::ids::Scope;
use crate::lake::identity::Identity;
use crate::lake::log::Record;
use crate::report::{Failure, all_failed};
use crate::source::{Client, LIST_LIMIT, OrgEntry};
use crate::window::Window;

/// The work of a run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Projects that match the filters.
    pub scopes: usize,
    /// Idle projects that the run would not ask for new data.
    pub idle_scopes: usize,
    /// Windows with their executions; `None` where counting failed.
    pub windows: Vec<(Scope, Window, Option<u64>)>,
    /// Requests of the run.
    pub calls: u64,
    /// Open executions that would be polled by id.
    pub open_executions: usize,
}

/// Plans a `sync`.
///
/// # Errors
///
/// Errors of connecting, of listing and of reading the checkpoint.
pub async fn plan_of_sync(config: &SyncConfig, clock: fn() -> Timestamp) -> Result<Plan, Error> {
    let Inputs {
        client,
        found,
        state,
        scopes,
        rules,
    } = Inputs::read(config, clock).await?;
    let (plans, _) = plan_sync(&state, &scopes, &rules);
    let polls: usize = plans.iter().map(|(_, plan)| plan.polls()).sum();
    let open_executions = plans.iter().map(|(_, plan)| plan.open.len()).sum();
    let windows = plans.into_iter().flat_map(|(scope, plan)| {
        let windows = plan.windows.into_iter().chain(plan.lookback);
        let windows = windows.chain(plan.pending);
        windows.map(move |window| (scope.clone(), window))
    });
    let measured = count_windows(&client, windows.collect(), config.concurrency()).await?;
    let calls = measured.empty.len() as u64
        // The run retries these, and each then costs at least one request.
        + measured.failed.len() as u64
        + pages(&measured, &state, config)
        + polls as u64
        + listing_calls(&found, config);
    Ok(Plan {
        scopes: scopes.len(),
        idle_scopes: idle_scopes(&state, &scopes, &rules).len(),
        windows: counted(measured)?,
        calls,
        open_executions,
    })
}

/// Plans a `backfill`.
///
/// # Errors
///
/// The errors of [`plan_of_sync`].
pub async fn plan_of_backfill(
    config: &SyncConfig,
    range: BackfillRange,
    clock: fn() -> Timestamp,
) -> Result<Plan, Error> {
    let Inputs {
        client,
        found,
        state,
        scopes,
        rules,
    } = Inputs::read(config, clock).await?;
    let to = range.to.min(rules.now - rules.window_lag);
    let windows = uncovered(&state, &scopes, range.from, to, &rules, range.refetch);
    let counts = windows.len() as u64;
    let measured = count_windows(&client, windows, config.concurrency()).await?;
    let pages = pages(&measured, &state, config);
    let slices: usize = measured.non_empty.iter().map(slice_count).sum();
    let calls = counts + pages.max(slices as u64) + listing_calls(&found, config);
    Ok(Plan {
        scopes: scopes.len(),
        idle_scopes: 0,
        windows: counted(measured)?,
        calls,
        open_executions: 0,
    })
}

/// The inputs of a plan.
struct Inputs {
    client: Client,
    found: Discovery,
    state: State,
    scopes: Vec<Scope>,
    rules: SyncRules,
}

impl Inputs {
    /// Lists projects, and reads the checkpoint and the retention.
    async fn read(config: &SyncConfig, clock: fn() -> Timestamp) -> Result<Self, Error> {
        let client = config.source.client(clock)?;
        let found = discover(&client, &config.filter, config.concurrency()).await?;
        log_unlisted(&found);
        let now = client.now().unwrap_or_else(clock);
        let (found, scopes) = found.require_scopes(&config.filter)?;
        let state = match Identity::read(&config.store).await? {
            Some((identity, _)) => {
                identity.check_account(&config.store, &config.source.account)?;
                Record::newest(&config.store).await?.state
            }
            None => State::default(),
        };
        let rules = sync_rules(config, &client, now).await?;
        Ok(Self {
            client,
            found,
            state,
            scopes,
            rules,
        })
    }
}

/// Returns the requests that read the windows with executions.
fn pages(measured: &WindowCounts, state: &State, config: &SyncConfig) -> u64 {
    let calls = |counted: &CountedWindow| {
        let row_bytes = measured.row_bytes.get(&counted.scope).copied();
        let hints = PageHints::of(state, &counted.scope);
        hints.requests(counted.rows, row_bytes, config.source.page_size)
    };
    measured.non_empty.iter().map(calls).sum()
}

/// Returns the requests that list organizations and projects and read the retention.
fn listing_calls(found: &Discovery, config: &SyncConfig) -> u64 {
    let pages = |elements: usize| elements.div_ceil(LIST_LIMIT).max(1) as u64;
    let of_org = |org: &OrgEntry| {
        let projects = found.projects.iter();
        pages(projects.filter(|project| project.org == org.id).count())
    };
    let orgs = found.orgs.iter();
    let read = orgs.filter(|org| config.filter.passes_org(&org.id));
    1 + pages(found.orgs.len()) + read.map(of_org).sum::<u64>()
}

/// Returns the windows with their counts.
///
/// # Errors
///
/// [`Error::AllFailed`] if every project failed.
fn counted(measured: WindowCounts) -> Result<Vec<(Scope, Window, Option<u64>)>, Error> {
    let WindowCounts {
        empty,
        non_empty,
        failed,
        ..
    } = measured;
    let failures = failed.iter().filter_map(|(_, done)| {
        let error = done.failure.as_ref()?;
        let (org, project) = (done.scope.org.as_str(), done.scope.project.as_str());
        tracing::warn!(org.id = org, project.id = project, "{}", chain(error));
        Some(Failure::of(
            &done.scope,
            code_of_source(error),
            chain(error),
        ))
    });
    let failures: Vec<_> = failures.collect();
    if let Some(all_failed) = all_failed(&failures)
        && empty.is_empty()
        && non_empty.is_empty()
    {
        return Err(all_failed);
    }
    let empty = empty
        .into_iter()
        .map(|(scope, window)| (scope, window, Some(0)));
    let non_empty = non_empty
        .into_iter()
        .map(|counted| (counted.scope, counted.window, Some(counted.rows)));
    let failed = failed
        .into_iter()
        .map(|(window, done)| (done.scope, window, None));
    let mut windows: Vec<_> = empty.chain(non_empty).chain(failed).collect();
    windows.sort();
    Ok(windows)
}

fn log_unlisted(found: &Discovery) {
    for Unlisted { org, error } in &found.unlisted {
        tracing::warn!(org.id = org.as_str(), "{}", chain(error));
    }
}
