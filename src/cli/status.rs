//! The `status` command.

use indicatif::HumanCount;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::output::{self, count, table};
use super::{Context, StatusArgs};
use crate::checkpoint::{ScopeError, ScopeState, State};
use crate::error::Error;
use crate::ids::{AccountId, Scope};
use crate::lake::log::Record;
use crate::lake::size::SizeAdvice;
use crate::lake::{Lake, LakeError, layout};

#[derive(Debug, Serialize)]
struct Status {
    lake: String,
    account_id: AccountId,
    checkpoint: u64,
    written_at: Option<Timestamp>,
    last_run_id: String,
    open_executions: usize,
    gaps: usize,
    /// Advice about the sizes of objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<SizeAdvice>,
    /// Newest first.
    last_runs: Vec<LastRun>,
    scopes: Vec<ScopeStatus>,
    /// Projects that are no longer listed: deleted, or hidden from the key. They count in no lag or gap.
    not_visible: Vec<HiddenScope>,
}

#[derive(Debug, Serialize)]
struct HiddenScope {
    scope: Scope,
    since: Timestamp,
    covered_from: Option<Timestamp>,
    watermark: Option<Timestamp>,
    last_row_start: Option<Timestamp>,
}

/// The part of a run report that `status` shows.
#[derive(Debug, Serialize, Deserialize)]
struct LastRun {
    run_id: String,
    command: String,
    outcome: String,
    started_at: Timestamp,
    finished_at: Timestamp,
    executions: ChangedExecutions,
}

#[derive(Debug, Serialize, Deserialize)]
struct ChangedExecutions {
    inserted: u64,
    updated: u64,
}

/// Number of runs that are shown.
const LAST_RUNS: usize = 5;

#[derive(Debug, Serialize)]
struct ScopeStatus {
    scope: Scope,
    covered_from: Option<Timestamp>,
    watermark: Option<Timestamp>,
    /// Time from the watermark to now.
    lag_seconds: Option<i64>,
    open_executions: usize,
    gaps: usize,
    /// Skipped windows before the watermark, which the next `sync` reads.
    pending_windows: usize,
    /// Windows that failed though the API was up, with the reason.
    failed_windows: Vec<FailedWindow>,
    /// Gaps that were accepted with `backfill --accept-gaps`.
    accepted_gaps: usize,
    last_row_start: Option<Timestamp>,
    last_success: Option<Timestamp>,
    last_error: Option<ScopeError>,
}

/// A window that runs retry ever more rarely.
#[derive(Debug, Serialize)]
struct FailedWindow {
    from: Timestamp,
    to: Timestamp,
    reason: String,
    since: Timestamp,
    last_attempt: Timestamp,
    attempts: usize,
    age_seconds: i64,
}

pub(super) async fn run(args: &StatusArgs, context: &Context) -> Result<(), Error> {
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let record = Record::newest(lake.store()).await?;
    let last_runs = last_runs(&lake).await?;
    let advice = lake.size_advice().await?;
    let status = Status {
        advice,
        ..status(&lake, &record, last_runs, (context.clock)())
    };
    output::print_result(context.output, &status, || text(&status))
}

/// Returns the newest runs. Report names begin with the time; a report that cannot be parsed is skipped.
async fn last_runs(lake: &Lake) -> Result<Vec<LastRun>, LakeError> {
    let found = lake.store().list(layout::RUNS).await?;
    let mut paths: Vec<_> = found.into_iter().map(|report| report.path).collect();
    paths.sort_unstable_by(|a, b| b.cmp(a));
    let mut runs = Vec::new();
    for path in paths.iter().take(LAST_RUNS) {
        let report = lake.store().get(path).await?;
        runs.extend(report.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok()));
    }
    Ok(runs)
}

fn status(lake: &Lake, record: &Record, last_runs: Vec<LastRun>, now: Timestamp) -> Status {
    let state = &record.state;
    let open = state.open_counts();
    let is_visible = |scope: &Scope| state.not_visible_since(scope).is_none();
    let visible = state.scopes.iter().filter(|(scope, _)| is_visible(scope));
    let scopes = visible.map(|(scope, scope_state)| ScopeStatus {
        scope: scope.clone(),
        covered_from: scope_state.coverage.start(),
        watermark: scope_state.coverage.end(),
        lag_seconds: scope_state
            .coverage
            .end()
            .map(|end| now.duration_since(end).as_secs()),
        open_executions: open.get(scope).copied().unwrap_or_default(),
        gaps: scope_state.unread_gaps().windows().len(),
        pending_windows: scope_state.skipped.windows().len(),
        failed_windows: failed_windows(scope_state, now),
        accepted_gaps: scope_state.accepted.windows().len(),
        last_row_start: scope_state.last_row_start,
        last_success: scope_state.last_success,
        last_error: scope_state.last_error.clone(),
    });
    Status {
        lake: lake.store().location().to_owned(),
        account_id: lake.account().clone(),
        checkpoint: record.number,
        written_at: (record.number > 0).then_some(record.written_at),
        last_run_id: record.run_id.clone(),
        open_executions: state.open.len(),
        gaps: state.gap_count(),
        advice: None,
        last_runs,
        scopes: scopes.collect(),
        not_visible: hidden_scopes(state),
    }
}

fn hidden_scopes(state: &State) -> Vec<HiddenScope> {
    let hidden = state.scopes.iter().filter_map(|(scope, scope_state)| {
        Some(HiddenScope {
            scope: scope.clone(),
            since: state.not_visible_since(scope)?,
            covered_from: scope_state.coverage.start(),
            watermark: scope_state.coverage.end(),
            last_row_start: scope_state.last_row_start,
        })
    });
    hidden.collect()
}

fn failed_windows(state: &ScopeState, now: Timestamp) -> Vec<FailedWindow> {
    let failures = state.gap_failures.iter();
    let failed = failures.map(|failure| FailedWindow {
        from: failure.window.from(),
        to: failure.window.to(),
        reason: failure.reason.clone(),
        since: failure.since,
        last_attempt: failure.last_attempt(),
        attempts: failure.attempts.len(),
        age_seconds: now.duration_since(failure.since).as_secs(),
    });
    failed.collect()
}

fn text(status: &Status) -> String {
    let head = format!(
        "{}: account {}, checkpoint {} by run {}\n{}, {}\n{}\n",
        status.lake,
        status.account_id,
        status.checkpoint,
        status.last_run_id,
        count(status.open_executions as u64, "open execution"),
        count(status.gaps as u64, "gap"),
        status
            .advice
            .as_ref()
            .map_or_else(String::new, output::advice),
    );
    let names = [
        "project",
        "covered from",
        "watermark",
        "lag",
        "open",
        "gaps",
        "pending",
        "last error",
    ];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(status.scopes.iter().map(|scope| {
        vec![
            scope.scope.to_string(),
            minute(scope.covered_from),
            minute(scope.watermark),
            scope.lag_seconds.map_or_else(|| "-".to_owned(), lag),
            scope.open_executions.to_string(),
            scope.gaps.to_string(),
            scope.pending_windows.to_string(),
            scope
                .last_error
                .as_ref()
                .map_or_else(String::new, |error| error.code.clone()),
        ]
    }));
    let mut runs = vec![
        ["last runs", "started", "outcome", "new", "updated"]
            .map(str::to_owned)
            .to_vec(),
    ];
    runs.extend(status.last_runs.iter().map(|run| {
        let ChangedExecutions { inserted, updated } = run.executions;
        vec![
            run.command.clone(),
            minute(Some(run.started_at)),
            run.outcome.clone(),
            HumanCount(inserted).to_string(),
            HumanCount(updated).to_string(),
        ]
    }));
    let parts = [
        head,
        table(&rows),
        hidden_text(status),
        failures_text(status),
        "\n".to_owned(),
        table(&runs),
    ];
    parts.concat()
}

fn minute(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| at.strftime("%Y-%m-%d %H:%M").to_string(),
    )
}

/// Returns the projects that are not visible, or nothing if there are none.
fn hidden_text(status: &Status) -> String {
    let names = ["not visible any more", "since", "covered from", "watermark"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(status.not_visible.iter().map(|hidden| {
        vec![
            hidden.scope.to_string(),
            minute(Some(hidden.since)),
            minute(hidden.covered_from),
            minute(hidden.watermark),
        ]
    }));
    table_below(&rows)
}

/// Returns the windows that failed, or nothing if there are none.
fn failures_text(status: &Status) -> String {
    let names = ["failed window", "from", "to", "age", "attempts", "reason"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    let second = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S").to_string();
    for scope in &status.scopes {
        rows.extend(scope.failed_windows.iter().map(|failed| {
            vec![
                scope.scope.to_string(),
                second(failed.from),
                second(failed.to),
                lag(failed.age_seconds),
                failed.attempts.to_string(),
                failed.reason.clone(),
            ]
        }));
    }
    table_below(&rows)
}

/// Returns a table after an empty line, or nothing if it has only a header.
fn table_below(rows: &[Vec<String>]) -> String {
    if rows.len() > 1 {
        format!("\n{}", table(rows))
    } else {
        String::new()
    }
}

fn lag(seconds: i64) -> String {
    match seconds {
        // The clock of the API is ahead of the local one.
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
