//! What a run would read, with one cheap count per window. Changes nothing, makes no lake.

use jiff::Timestamp;

use super::backfill::BackfillRange;
use super::sync_rules;
use crate::causes::chain;
use crate::checkpoint::State;
use crate::config::SyncConfig;
use crate::error::{Error, code_of_source};
use crate::extract::backfill::{Measured, measure, slices, uncovered};
use crate::extract::discover::{Discovery, Unlisted, discover};
use crate::extract::{PageHints, ReadPlan, SyncRules, plan_sync};
use crate::ids::Scope;
use crate::lake::identity::Identity;
use crate::lake::log::Record;
use crate::report::Failure;
use crate::source::{Client, LIST_LIMIT, OrgEntry};
use crate::window::Window;

/// What a run would read.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Scopes that pass the filters.
    pub scopes: usize,
    /// Windows, and the executions that each holds; `None` where the scope did not answer.
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
/// Those of connecting, listing, and reading the checkpoint.
pub async fn plan_of_sync(config: &SyncConfig, clock: fn() -> Timestamp) -> Result<Plan, Error> {
    let Outlook {
        client,
        found,
        state,
        scopes,
        rules,
    } = look(config, clock).await?;
    let (asks, _) = plan_sync(&state, &scopes, &rules);
    let polls: usize = asks.values().map(ReadPlan::polls).sum();
    let open_executions = asks.values().map(|ask| ask.open.len()).sum();
    let windows = asks.into_iter().flat_map(|(scope, ask)| {
        ask.windows
            .into_iter()
            .map(move |window| (scope.clone(), window))
    });
    let measured = measure(&client, windows.collect(), config.concurrency()).await?;
    let calls = measured.idle.len() as u64
        // They are asked once more, and may answer then.
        + measured.failed.len() as u64
        + pages(&measured, &state, config)
        + polls as u64
        + listing_calls(&found, config);
    Ok(Plan {
        scopes: scopes.len(),
        windows: counted(measured)?,
        calls,
        open_executions,
    })
}

/// Plans a `backfill`.
///
/// # Errors
///
/// As [`plan_of_sync`].
pub async fn plan_of_backfill(
    config: &SyncConfig,
    range: BackfillRange,
    clock: fn() -> Timestamp,
) -> Result<Plan, Error> {
    let Outlook {
        client,
        found,
        state,
        scopes,
        rules,
    } = look(config, clock).await?;
    let to = range.to.min(rules.now - rules.window_lag);
    let wanted = uncovered(&state, &scopes, range.from, to, &rules, range.refetch);
    let counts = wanted.len() as u64;
    let measured = measure(&client, wanted, config.concurrency()).await?;
    let pages = pages(&measured, &state, config);
    let slices = slices(&state, measured.busy.clone()).len() as u64;
    let calls = counts + pages.max(slices) + listing_calls(&found, config);
    Ok(Plan {
        scopes: scopes.len(),
        windows: counted(measured)?,
        calls,
        open_executions: 0,
    })
}

async fn look(config: &SyncConfig, clock: fn() -> Timestamp) -> Result<Outlook, Error> {
    let client = config.source.client(clock)?;
    let found = discover(&client, &config.filter, config.concurrency()).await?;
    warn_of_unlisted(&found);
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
    Ok(Outlook {
        client,
        found,
        state,
        scopes,
        rules,
    })
}

/// What a plan looks at.
struct Outlook {
    client: Client,
    found: Discovery,
    state: State,
    scopes: Vec<Scope>,
    rules: SyncRules,
}

/// Requests that read the windows that hold something.
fn pages(measured: &Measured, state: &State, config: &SyncConfig) -> u64 {
    let calls = |(scope, _, rows): &(Scope, Window, u64)| {
        let row_bytes = measured.row_bytes.get(scope).copied();
        PageHints::of(state, scope).calls(*rows, row_bytes, config.source.page_size)
    };
    measured.busy.iter().map(calls).sum()
}

/// The listing of organizations, one of projects for each, one question for the retention.
fn listing_calls(found: &Discovery, config: &SyncConfig) -> u64 {
    let pages = |elements: usize| elements.div_ceil(LIST_LIMIT).max(1) as u64;
    let of_org = |org: &OrgEntry| {
        let projects = found.projects.iter();
        pages(projects.filter(|project| project.org == org.id).count())
    };
    let orgs = found.orgs.iter();
    let asked = orgs.filter(|org| config.filter.may_hold(&org.id));
    1 + pages(found.orgs.len()) + asked.map(of_org).sum::<u64>()
}

/// The windows with what the source counts in each.
///
/// # Errors
///
/// [`Error::NoneRead`] where no scope answered at all.
fn counted(measured: Measured) -> Result<Vec<(Scope, Window, Option<u64>)>, Error> {
    let Measured {
        idle, busy, failed, ..
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
    if let Some(none_read) = Error::none_read(&failures)
        && idle.is_empty()
        && busy.is_empty()
    {
        return Err(none_read);
    }
    let idle = idle
        .into_iter()
        .map(|(scope, window)| (scope, window, Some(0)));
    let busy = busy
        .into_iter()
        .map(|(scope, window, rows)| (scope, window, Some(rows)));
    let failed = failed
        .into_iter()
        .map(|(window, done)| (done.scope, window, None));
    let mut windows: Vec<_> = idle.chain(busy).chain(failed).collect();
    windows.sort();
    Ok(windows)
}

fn warn_of_unlisted(found: &Discovery) {
    for Unlisted { org, error } in &found.unlisted {
        tracing::warn!(org.id = org.as_str(), "{}", chain(error));
    }
}
