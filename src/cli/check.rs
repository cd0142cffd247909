//! The `check` command.

use futures::StreamExt;
use indicatif::HumanCount;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::output::{self, count, table};
use super::{CheckArgs, Context, DEFAULT_RATE, Format, open_store};
use crate::causes::chain;
use crate::checkpoint::State;
use crate::config::SourceConfig;
use crate::error::{Code, Error, code_of_source};
use crate::extract::discover::discover;
use crate::ids::{AccountId, Scope};
use crate::job::{START_DAYS, fully_retained_from};
use crate::lake::check_not_newer;
use crate::lake::create::check_can_create;
use crate::lake::identity::Identity;
use crate::lake::log::Record;
use crate::pii::PiiRequest;
use crate::report::{Failure, all_failed};
use crate::source::{Client, SourceError};
use crate::window::Window;

/// Projects that `check` asks by default.
const SAMPLE: usize = 100;

/// The result of `check`, as it is printed.
#[derive(Debug, Serialize)]
struct CheckResult {
    account_id: AccountId,
    orgs: usize,
    projects: usize,
    /// True if only a sample of the projects was checked.
    is_sample: bool,
    scopes: Vec<ScopeCheck>,
    /// Organizations whose projects could not be listed.
    unlisted: Vec<Failure>,
    lake: Option<LakeCheck>,
}

#[derive(Debug, Serialize)]
struct ScopeCheck {
    scope: Scope,
    state: ScopeHealth,
    /// Executions of the last 30 days, or since the newest one in the lake if that is older.
    executions: Option<u64>,
    message: Option<String>,
    /// The failure code if the request failed.
    code: Option<Code>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ScopeHealth {
    Ok,
    Empty,
    /// The API returned no executions, although the lake has one that Harness still keeps.
    SuspiciouslyEmpty,
    Forbidden,
    Failed,
}

#[derive(Debug, Serialize)]
struct LakeCheck {
    lake: String,
    /// False if a lake exists there.
    is_new: bool,
}

pub(super) async fn run(args: &CheckArgs, context: &Context) -> Result<(), Error> {
    let source = args.source.config(DEFAULT_RATE)?;
    let filter = args.scopes.filter()?;
    let client = source.client(context.clock)?;
    let found = discover(&client, &filter, source.concurrency.get() as usize).await?;
    let now = client.now().unwrap_or_else(context.clock);
    let (found, scopes) = found.require_scopes(&filter)?;
    let (lake, state) = match &args.lake {
        Some(url) => {
            let (lake, state) = check_lake(url, &source.account, &args.pii.request()?).await?;
            (Some(lake), state)
        }
        None => (None, State::default()),
    };
    let retained_from = fully_retained_from(client.retention_months().await?, now);
    let sample = if args.all_projects {
        scopes.len()
    } else {
        SAMPLE
    };
    let is_sample = sample < scopes.len();
    let probes = sampled(scopes, sample)
        .map(|scope| ScopeProbe::new(scope, &state, now, retained_from))
        .collect();
    let scopes = check_scopes(&client, &source, probes).await?;
    let check = CheckResult {
        account_id: source.account,
        orgs: found.orgs.len(),
        projects: found.projects.len(),
        is_sample,
        scopes,
        unlisted: found.unlisted.iter().map(Failure::from).collect(),
        lake,
    };
    let result = result_of(&check.scopes);
    // With JSON output, the error is the only document.
    if context.output == Format::Text || result.is_ok() {
        output::print_result(context.output, &check, || text(&check))?;
    }
    result
}

/// Returns at most `size` scopes at equal distances, so that all organizations are represented.
fn sampled(scopes: Vec<Scope>, size: usize) -> impl Iterator<Item = Scope> {
    let total = scopes.len();
    let is_taken = move |at: usize| total <= size || at * size / total != (at + 1) * size / total;
    let numbered = scopes.into_iter().enumerate();
    numbered.filter_map(move |(at, scope)| is_taken(at).then_some(scope))
}

/// The request that checks one scope.
struct ScopeProbe {
    scope: Scope,
    window: Window,
    /// `start_ts` of a row that a correct response counts.
    expected_row_start: Option<Timestamp>,
}

impl ScopeProbe {
    /// Covers the last 30 days, or more to include the newest row in the lake.
    fn new(scope: Scope, state: &State, now: Timestamp, retained_from: Timestamp) -> Self {
        let month_ago = now - SignedDuration::from_hours(24 * START_DAYS);
        let state = state.scopes.get(&scope);
        let last_row = state
            .and_then(|state| state.last_row_start)
            .filter(|start| *start >= retained_from);
        let from = last_row.map_or(month_ago, |start| start.min(month_ago));
        let window = Window::new(from, now).expect("30 days are not empty");
        let expected_row_start =
            state.and_then(|state| state.expected_row_start(window, retained_from));
        Self {
            scope,
            window,
            expected_row_start,
        }
    }
}

/// Sends one small request for each scope.
///
/// # Errors
///
/// [`Error::Source`] if the source went down or rejected the key.
async fn check_scopes(
    client: &Client,
    source: &SourceConfig,
    probes: Vec<ScopeProbe>,
) -> Result<Vec<ScopeCheck>, Error> {
    let mut responses = futures::stream::iter(probes)
        .map(|probe| async move {
            let response = client.count_unless_down(&probe.scope, probe.window).await;
            (probe, response)
        })
        .buffered(source.concurrency.get() as usize);
    let mut checks = Vec::new();
    while let Some((probe, response)) = responses.next().await {
        let code = response.as_ref().err().map(code_of_source);
        let (state, executions, message) = match response {
            Ok(page) if page.has_executions() => (ScopeHealth::Ok, page.total, None),
            Ok(_) => match probe.expected_row_start {
                None => (ScopeHealth::Empty, Some(0), None),
                Some(row_start) => {
                    let message = format!(
                        "the API returned no executions, although the lake has one that started at {row_start}"
                    );
                    (ScopeHealth::SuspiciouslyEmpty, Some(0), Some(message))
                }
            },
            Err(error) if error.concerns_all_scopes() => return Err(error.into()),
            Err(error @ SourceError::Forbidden { .. }) => {
                (ScopeHealth::Forbidden, None, Some(chain(&error)))
            }
            Err(error) => (ScopeHealth::Failed, None, Some(chain(&error))),
        };
        checks.push(ScopeCheck {
            scope: probe.scope,
            state,
            executions,
            message,
            code,
        });
    }
    Ok(checks)
}

/// Checks that a lake can be written at `url`, and returns its committed state.
async fn check_lake(
    url: &str,
    account: &AccountId,
    pii: &PiiRequest,
) -> Result<(LakeCheck, State), Error> {
    let store = open_store(url)?;
    check_not_newer(&store).await?;
    let identity = Identity::read(&store).await?;
    if identity.is_none() {
        check_can_create(&store).await?;
    }
    store.probe().await?;
    let lake = store.location().to_owned();
    let Some((identity, _)) = identity else {
        return Ok((LakeCheck { lake, is_new: true }, State::default()));
    };
    identity.check_account(&store, account)?;
    identity.treatment(&store, pii)?;
    let record = Record::newest(&store).await?;
    let is_new = false;
    Ok((LakeCheck { lake, is_new }, record.state))
}

/// Returns an error if no scope could be read. Failures of some scopes are only reported.
fn result_of(scopes: &[ScopeCheck]) -> Result<(), Error> {
    let failure = |check: &ScopeCheck| {
        let message = check.message.clone().unwrap_or_default();
        Some(Failure::of(&check.scope, check.code?, message))
    };
    let failures: Vec<_> = scopes.iter().filter_map(failure).collect();
    let all_failed = all_failed(&failures);
    match all_failed.filter(|_| failures.len() == scopes.len()) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn text(check: &CheckResult) -> String {
    let scopes_in = |state| {
        check
            .scopes
            .iter()
            .filter(|scope| scope.state == state)
            .count()
    };
    let mut text = format!(
        "account {}: the key is valid and can see {} and {}\n\
         {} with executions, {} empty, {} suspiciously empty, {} forbidden, {} failed\n\n",
        check.account_id,
        count(check.orgs as u64, "organization"),
        count(check.projects as u64, "project"),
        count(scopes_in(ScopeHealth::Ok) as u64, "project"),
        scopes_in(ScopeHealth::Empty),
        scopes_in(ScopeHealth::SuspiciouslyEmpty),
        scopes_in(ScopeHealth::Forbidden),
        scopes_in(ScopeHealth::Failed),
    );
    let mut rows = vec![
        ["project", "state", "executions", "message"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(check.scopes.iter().map(|scope| {
        let state = match scope.state {
            ScopeHealth::Ok => "ok",
            ScopeHealth::Empty => "empty",
            ScopeHealth::SuspiciouslyEmpty => "suspiciously empty",
            ScopeHealth::Forbidden => "forbidden",
            ScopeHealth::Failed => "failed",
        };
        let executions = scope.executions.map(HumanCount);
        vec![
            scope.scope.to_string(),
            state.to_owned(),
            executions.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            scope.message.clone().unwrap_or_default(),
        ]
    }));
    if check.is_sample {
        let sample = count(check.scopes.len() as u64, "project");
        let line = format!("Checked a sample of {sample}; --all-projects checks every one\n\n");
        text.push_str(&line);
    }
    text.push_str(&table(&rows));
    for Failure {
        org, code, message, ..
    } in &check.unlisted
    {
        let line = format!("\nfailed to list the projects of {org}: {code}: {message}\n");
        text.push_str(&line);
    }
    if let Some(lake) = &check.lake {
        let state = if lake.is_new {
            "writable, and the first sync can create a lake there"
        } else {
            "writable, and a lake of this account"
        };
        text.extend(["\n", &lake.lake, ": ", state]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_spread_over_all_projects() {
        let scopes = |total: usize| -> Vec<Scope> {
            let project = |n: usize| Scope::new("org", format!("p{n:04}").as_str());
            (0..total).map(project).collect()
        };
        for (total, size) in [(0, 100), (1, 100), (100, 100), (101, 100), (5_000, 100)] {
            let all = scopes(total);
            let taken: Vec<_> = sampled(all.clone(), size).collect();
            assert_eq!(taken.len(), total.min(size), "{total}");
            let positions = taken
                .iter()
                .map(|scope| all.iter().position(|it| it == scope));
            let positions: Vec<_> = positions.flatten().collect();
            let widest = total.div_ceil(size);
            assert!(positions.windows(2).all(|pair| pair[1] - pair[0] <= widest));
        }
    }
}
