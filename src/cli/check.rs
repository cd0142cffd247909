//! `check`: is the connection good, and can the lake be written?

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::output::{self, table};
use super::{CheckArgs, Context, Format, open_store};
use crate::causes::chain;
use crate::checkpoint::State;
use crate::config::SourceConfig;
use crate::error::{Code, Error, code_of_source};
use crate::extract::discover::discover;
use crate::ids::{AccountId, Scope};
use crate::job::{START_DAYS, surely_retained_from};
use crate::lake::identity::{Identity, refuse_birth};
use crate::lake::log::Record;
use crate::pii::PiiRequest;
use crate::report::Failure;
use crate::source::{Client, SourceError};
use crate::window::Window;

#[derive(Debug, Serialize)]
struct Checked {
    account_id: AccountId,
    orgs: usize,
    projects: usize,
    scopes: Vec<ScopeCheck>,
    /// Organizations whose projects could not be listed.
    unlisted: Vec<Failure>,
    lake: Option<LakeCheck>,
}

#[derive(Debug, Serialize)]
struct ScopeCheck {
    scope: Scope,
    state: ScopeHealth,
    /// Executions of the last 30 days, or since the newest that the lake knows.
    executions: Option<u64>,
    message: Option<String>,
    /// Why it did not answer.
    code: Option<Code>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ScopeHealth {
    Ok,
    Empty,
    /// A row was seen that should be there still, and none is.
    SuspiciouslyEmpty,
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
    let found = discover(&client, &filter, source.concurrency.get() as usize).await?;
    let now = client.now().unwrap_or_else(context.clock);
    let (found, scopes) = found.require_scopes(&filter)?;
    let (lake, known) = match &args.lake {
        Some(url) => {
            let (lake, known) = check_lake(url, &source.account, &args.pii.wish()?).await?;
            (Some(lake), known)
        }
        None => (None, State::default()),
    };
    let retained_from = surely_retained_from(client.retention_months().await?, now);
    let asks = scopes
        .into_iter()
        .map(|scope| Question::new(scope, &known, now, retained_from))
        .collect();
    let scopes = check_scopes(&client, &source, asks).await?;
    let checked = Checked {
        account_id: source.account,
        orgs: found.orgs.len(),
        projects: found.projects.len(),
        scopes,
        unlisted: found.unlisted.iter().map(Failure::from).collect(),
        lake,
    };
    let verdict = verdict(&checked.scopes);
    // With JSON a failure is the one document.
    if context.output == Format::Text || verdict.is_ok() {
        output::result(context.output, &checked, || text(&checked))?;
    }
    verdict
}

/// What is asked of one scope.
struct Question {
    scope: Scope,
    window: Window,
    /// `start_ts` of a row that the answer counts unless something is wrong.
    expected_row_start: Option<Timestamp>,
}

impl Question {
    /// Asks for 30 days, or from the newest row on that any run has seen.
    fn new(scope: Scope, known: &State, now: Timestamp, retained_from: Timestamp) -> Self {
        let month = now - SignedDuration::from_hours(24 * START_DAYS);
        let known = known.scopes.get(&scope);
        let last_row = known
            .and_then(|known| known.last_row_start)
            .filter(|start| retained_from <= *start);
        let from = last_row.map_or(month, |start| start.min(month));
        let window = Window::new(from, now).expect("a month is no empty window");
        let expected_row_start =
            known.and_then(|known| known.expected_row_start(window, retained_from));
        Self {
            scope,
            window,
            expected_row_start,
        }
    }
}

/// One small question to each scope.
async fn check_scopes(
    client: &Client,
    source: &SourceConfig,
    asks: Vec<Question>,
) -> Result<Vec<ScopeCheck>, Error> {
    let mut answers = futures::stream::iter(asks)
        .map(|ask| async move {
            let answer = client.count(&ask.scope, ask.window).await;
            (ask, answer)
        })
        .buffered(source.concurrency.get() as usize);
    let mut checks = Vec::new();
    while let Some((ask, answer)) = answers.next().await {
        let code = answer.as_ref().err().map(code_of_source);
        let (state, executions, message) = match answer {
            Ok(page) if page.shows_any() => (ScopeHealth::Ok, page.total, None),
            Ok(_) => match ask.expected_row_start {
                None => (ScopeHealth::Empty, Some(0), None),
                Some(row) => {
                    let message = format!("nothing is shown from the execution of {row} on");
                    (ScopeHealth::SuspiciouslyEmpty, Some(0), Some(message))
                }
            },
            Err(error) if error.is_unauthorized() => return Err(error.into()),
            Err(error @ SourceError::Forbidden { .. }) => {
                (ScopeHealth::Forbidden, None, Some(chain(&error)))
            }
            Err(error) => (ScopeHealth::Failed, None, Some(chain(&error))),
        };
        checks.push(ScopeCheck {
            scope: ask.scope,
            state,
            executions,
            message,
            code,
        });
    }
    Ok(checks)
}

/// Whether the lake can be written, and what it knows.
async fn check_lake(
    url: &str,
    account: &AccountId,
    pii: &PiiRequest,
) -> Result<(LakeCheck, State), Error> {
    let store = open_store(url)?;
    let found = Identity::read(&store).await?;
    if found.is_none() {
        refuse_birth(&store).await?;
    }
    store.probe().await?;
    let lake = store.shown().to_owned();
    let Some((identity, _)) = found else {
        return Ok((LakeCheck { lake, is_new: true }, State::default()));
    };
    identity.is_of(&store, account)?;
    identity.treatment(&store, pii)?;
    let record = Record::newest(&store).await?;
    let is_new = false;
    Ok((LakeCheck { lake, is_new }, record.state))
}

/// Good where some scope answers: a single forbidden one is that scope's matter.
fn verdict(scopes: &[ScopeCheck]) -> Result<(), Error> {
    let failure = |check: &ScopeCheck| {
        let message = check.message.clone().unwrap_or_default();
        Some(Failure::of(&check.scope, check.code?, message))
    };
    let failures: Vec<_> = scopes.iter().filter_map(failure).collect();
    let none_read = Error::none_read(&failures);
    match none_read.filter(|_| failures.len() == scopes.len()) {
        Some(none_read) => Err(none_read),
        None => Ok(()),
    }
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
         {} projects with executions, {} empty, {} suspiciously empty, {} forbidden, {} failed\n\n",
        checked.account_id,
        checked.orgs,
        checked.projects,
        count(ScopeHealth::Ok),
        count(ScopeHealth::Empty),
        count(ScopeHealth::SuspiciouslyEmpty),
        count(ScopeHealth::Forbidden),
        count(ScopeHealth::Failed),
    );
    let mut rows = vec![
        ["project", "state", "executions", ""]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(checked.scopes.iter().map(|check| {
        let state = match check.state {
            ScopeHealth::Ok => "ok",
            ScopeHealth::Empty => "empty",
            ScopeHealth::SuspiciouslyEmpty => "suspiciously empty",
            ScopeHealth::Forbidden => "forbidden",
            ScopeHealth::Failed => "failed",
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
    for Failure {
        org, code, message, ..
    } in &checked.unlisted
    {
        let told = format!("\nprojects of {org} cannot be listed: {code}: {message}\n");
        text.push_str(&told);
    }
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
