//! `status`: what a lake covers, and how far behind it is.

use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, number, table};
use super::{Context, StatusArgs};
use crate::checkpoint::ScopeError;
use crate::error::Error;
use crate::ids::{AccountId, Scope};
use crate::lake::log::Record;
use crate::lake::{Lake, LakeError};

#[derive(Debug, Serialize)]
struct Status {
    lake: String,
    account_id: AccountId,
    checkpoint: u64,
    written_at: Option<Timestamp>,
    last_run_id: String,
    open_executions: usize,
    gaps: usize,
    scopes: Vec<ScopeStatus>,
}

#[derive(Debug, Serialize)]
struct ScopeStatus {
    scope: Scope,
    covered_from: Option<Timestamp>,
    watermark: Option<Timestamp>,
    /// From the watermark to now.
    lag_seconds: Option<i64>,
    open_executions: usize,
    gaps: usize,
    last_row_start: Option<Timestamp>,
    last_success: Option<Timestamp>,
    last_error: Option<ScopeError>,
}

pub(super) async fn run(args: &StatusArgs, context: &Context) -> Result<(), Error> {
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let record = Record::newest(lake.store())
        .await
        .map_err(LakeError::from)?;
    let status = status(&lake, &record, (context.clock)());
    output::result(context.output, &status, || text(&status))
}

fn status(lake: &Lake, record: &Record, now: Timestamp) -> Status {
    let state = &record.state;
    let scopes = state.scopes.iter().map(|(scope, known)| ScopeStatus {
        scope: scope.clone(),
        covered_from: known.coverage.start(),
        watermark: known.coverage.end(),
        lag_seconds: known
            .coverage
            .end()
            .map(|end| now.duration_since(end).as_secs()),
        open_executions: state
            .open
            .values()
            .filter(|open| open.scope == *scope)
            .count(),
        gaps: known.gaps.windows().len(),
        last_row_start: known.last_row_start,
        last_success: known.last_success,
        last_error: known.last_error.clone(),
    });
    Status {
        lake: lake.store().shown().to_owned(),
        account_id: lake.account().clone(),
        checkpoint: record.number,
        written_at: (0 < record.number).then_some(record.written_at),
        last_run_id: record.run_id.clone(),
        open_executions: state.open.len(),
        gaps: state.gap_count(),
        scopes: scopes.collect(),
    }
}

fn text(status: &Status) -> String {
    let head = format!(
        "{} holds account {}\ncheckpoint {} of run {}, {} executions open, {} gaps\n\n",
        status.lake,
        status.account_id,
        status.checkpoint,
        status.last_run_id,
        number(status.open_executions as u64),
        status.gaps,
    );
    let names = [
        "project",
        "covered from",
        "watermark",
        "lag",
        "open",
        "gaps",
        "last error",
    ];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    let minute = |at: Option<Timestamp>| {
        at.map_or_else(
            || "-".to_owned(),
            |at| at.strftime("%Y-%m-%d %H:%M").to_string(),
        )
    };
    rows.extend(status.scopes.iter().map(|scope| {
        vec![
            scope.scope.to_string(),
            minute(scope.covered_from),
            minute(scope.watermark),
            scope.lag_seconds.map_or_else(|| "-".to_owned(), lag),
            scope.open_executions.to_string(),
            scope.gaps.to_string(),
            scope
                .last_error
                .as_ref()
                .map_or_else(String::new, |error| error.code.clone()),
        ]
    }));
    head + &table(&rows)
}

fn lag(seconds: i64) -> String {
    match seconds {
        // A source whose clock is ahead of ours.
        ..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
