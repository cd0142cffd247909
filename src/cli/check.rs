//! `check`: is the connection good, and can the lake be written?

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::output::{self, table};
use super::{CheckArgs, Context, Format, open_store};
use crate::config::SourceConfig;
use crate::error::{Code, Error, chain, code_of_source};
use crate::extract::discover::discover;
use crate::ids::{AccountId, Scope};
use crate::lake::LakeError;
use crate::lake::identity::Identity;
use crate::source::{Client, ExecutionsQuery, SourceError};
use crate::window::Window;

#[derive(Debug, Serialize)]
struct Checked {
    account_id: AccountId,
    orgs: usize,
    projects: usize,
    scopes: Vec<ScopeCheck>,
    lake: Option<LakeCheck>,
}

#[derive(Debug, Serialize)]
struct ScopeCheck {
    scope: Scope,
    state: ScopeState,
    /// Executions of the last 30 days.
    executions: Option<u64>,
    message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ScopeState {
    Ok,
    Empty,
    Forbidden,
    Failed,
}

#[derive(Debug, Serialize)]
struct LakeCheck {
    lake: String,
    /// False where a lake is there already.
    is_new: bool,
}

pub(super) async fn run(args: &CheckArgs, context: &Context) -> Result<(), Error> {
    let source = args.source.config(super::RATE)?;
    let filter = args.scopes.filter()?;
    let client = source.client(context.clock)?;
    let found = discover(&client, source.concurrency.get() as usize).await?;
    let now = client.now().unwrap_or_else(context.clock);
    let scopes = found.scopes(&filter);
    found.refuse_nothing(&scopes)?;
    let scopes = check_scopes(&client, &source, scopes, now).await?;
    let lake = match &args.lake {
        Some(url) => Some(check_lake(url, &source.account).await?),
        None => None,
    };
    let checked = Checked {
        account_id: source.account,
        orgs: found.orgs.len(),
        projects: found.projects.len(),
        scopes,
        lake,
    };
    let verdict = verdict(&checked.scopes);
    // With JSON a failure is the one document.
    if context.output == Format::Text || verdict.is_ok() {
        output::result(context.output, &checked, || text(&checked))?;
    }
    verdict
}

/// One small question to each scope.
async fn check_scopes(
    client: &Client,
    source: &SourceConfig,
    scopes: Vec<Scope>,
    now: Timestamp,
) -> Result<Vec<ScopeCheck>, Error> {
    let month = now - SignedDuration::from_hours(30 * 24);
    let window = Window::new(month, now).expect("a month is no empty window");
    let mut answers = futures::stream::iter(scopes)
        .map(|scope| async move {
            let query = ExecutionsQuery {
                scope: &scope,
                window,
                ids: &[],
                page: 0,
                size: 1,
            };
            let answer = client.executions(&query).await;
            (scope, answer)
        })
        .buffered(source.concurrency.get() as usize);
    let mut checks = Vec::new();
    while let Some((scope, answer)) = answers.next().await {
        let (state, executions, message) = match answer {
            Ok(page) if page.rows.is_empty() => (ScopeState::Empty, Some(0), None),
            Ok(page) => (ScopeState::Ok, page.total, None),
            Err(error) if error.is_unauthorized() => return Err(error.into()),
            Err(error @ SourceError::Forbidden { .. }) => {
                (ScopeState::Forbidden, None, Some(chain(&error)))
            }
            Err(error) => {
                let message = format!("{}: {}", code_of_source(&error).name(), chain(&error));
                (ScopeState::Failed, None, Some(message))
            }
        };
        checks.push(ScopeCheck {
            scope,
            state,
            executions,
            message,
        });
    }
    Ok(checks)
}

async fn check_lake(url: &str, account: &AccountId) -> Result<LakeCheck, Error> {
    let store = open_store(url)?;
    store.probe().await.map_err(LakeError::from)?;
    let identity = Identity::read(&store).await?;
    let shown = store.shown().to_owned();
    match identity {
        Some((identity, _)) if identity.account_id != *account => {
            Err(Error::Lake(LakeError::OtherAccount {
                store: shown,
                theirs: identity.account_id,
                ours: account.clone(),
            }))
        }
        found => Ok(LakeCheck {
            lake: shown,
            is_new: found.is_none(),
        }),
    }
}

/// Good where some scope answers: a single forbidden one is that scope's matter.
fn verdict(scopes: &[ScopeCheck]) -> Result<(), Error> {
    let answers = |check: &ScopeCheck| matches!(check.state, ScopeState::Ok | ScopeState::Empty);
    let is_forbidden = |check: &ScopeCheck| check.state == ScopeState::Forbidden;
    let code = match () {
        () if scopes.iter().any(answers) => return Ok(()),
        () if scopes.iter().all(is_forbidden) => Code::InvalidPermissions,
        () => Code::SourceUnavailable,
    };
    Err(Error::NoneRead {
        scopes: scopes.len(),
        code,
    })
}

fn text(checked: &Checked) -> String {
    let count = |state| {
        checked
            .scopes
            .iter()
            .filter(|check| check.state == state)
            .count()
    };
    let mut text = format!(
        "account {}: the key is valid and sees {} organizations and {} projects\n\
         {} projects with executions in the last 30 days, {} empty, {} forbidden, {} failed\n\n",
        checked.account_id,
        checked.orgs,
        checked.projects,
        count(ScopeState::Ok),
        count(ScopeState::Empty),
        count(ScopeState::Forbidden),
        count(ScopeState::Failed),
    );
    let mut rows = vec![
        ["project", "state", "executions", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(checked.scopes.iter().map(|check| {
        let state = match check.state {
            ScopeState::Ok => "ok",
            ScopeState::Empty => "empty",
            ScopeState::Forbidden => "forbidden",
            ScopeState::Failed => "failed",
        };
        vec![
            check.scope.to_string(),
            state.to_owned(),
            check
                .executions
                .map_or_else(|| "-".to_owned(), output::number),
            check.message.clone().unwrap_or_default(),
        ]
    }));
    text.push_str(&table(&rows));
    if let Some(lake) = &checked.lake {
        let what = if lake.is_new {
            "can become a lake"
        } else {
            "is a lake of this account"
        };
        text.extend(["\n", &lake.lake, " can be written and ", what]);
    }
    text
}
