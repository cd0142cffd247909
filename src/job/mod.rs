//! The commands that change a lake: `sync`, `backfill`, `replay`; and `plan` and `verify --source`.
//!
//! A run discovers projects, plans what to read, reads it, commits it and reports what it did.

pub mod backfill;
mod cadence;
mod committer;
pub mod compare;
mod copy;
mod limits;
mod period;
pub mod plan;
pub mod replay;
mod rules;
mod run;
mod session;

use jiff::Timestamp;

use crate::config::SyncConfig;
use crate::error::Error;
use crate::extract::{ReadPlan, fan_out, idle_scopes, plan_sync};
use crate::ids::Scope;
use crate::progress::Progress;
use crate::report::{ExpiredUnread, Report};
pub(crate) use limits::Limits;
pub use limits::StopSignal;
pub use period::ChosenPeriod;
pub(crate) use rules::{START_DAYS, fully_retained_from};
use run::{Parts, PlanPart, Run};
use session::Session;

/// Reads all executions since the watermark with a lookback, gaps and open executions; commits them.
///
/// Returns the report also after a failure. `clock` is the local clock: it dates the report and the
/// files of orphaned runs. Everything else goes by the clock of the source.
pub async fn sync(
    config: &SyncConfig,
    run_id: String,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: StopSignal,
) -> (Report, Result<(), Error>) {
    let run = Run::start("sync", run_id, config.source.account.clone(), clock);
    run_in_session(
        run,
        config,
        progress,
        stop,
        async |session, run_id, parts| {
            let rules = session.rules().await?;
            let (state, scopes) = (&session.record.state, &session.scopes);
            let (plans, abandoned) = plan_sync(state, scopes, &rules);
            let idle = idle_scopes(state, scopes, &rules);
            let watermarks = idle.iter().map(|(_, watermark)| *watermark);
            parts.plan = PlanPart {
                covered_to: watermarks.chain([rules.end()]).min(),
                idle: idle.iter().map(|(scope, _)| (*scope).clone()).collect(),
                expired_unread: expired_unread(&plans, rules.retained_from),
                abandoned: abandoned.len(),
            };
            let mut committer = session.committer(run_id, &mut parts.committed);
            committer.delta.open_updates.extend(abandoned);
            progress.start(plans.len(), "projects");
            let read = async |reading| fan_out(reading, plans).await;
            session.read(read, committer, progress).await
        },
    )
    .await
}

/// Opens a session, does `work` in it, and builds the report.
async fn run_in_session(
    run: Run,
    config: &SyncConfig,
    progress: &Progress,
    stop: StopSignal,
    work: impl AsyncFnOnce(&Session<'_>, &str, &mut Parts) -> Result<(), Error>,
) -> (Report, Result<(), Error>) {
    config.store.set_run(&run.id);
    let mut parts = Parts::default();
    let limits = Limits::new(stop, config.deadline);
    limits.bound(&config.store);
    // Boxed, because the futures of runs are large.
    let session = Box::pin(async {
        let session = Session::open(config, run.clock, limits, &mut parts).await?;
        let result = work(&session, &run.id, &mut parts).await;
        parts.requests = session.requests();
        result
    });
    let result = progress.show_during(session).await;
    progress.finish();
    let report = run
        .finish(parts, &config.store, result.as_ref().err())
        .await;
    (report, result)
}

/// Returns the parts of the planned windows that have expired at the source.
fn expired_unread(plans: &[(Scope, ReadPlan)], retained_from: Timestamp) -> Vec<ExpiredUnread> {
    let mut expired = Vec::new();
    for (scope, plan) in plans {
        for window in plan.windows.iter().chain(&plan.pending) {
            let (from, to) = (window.from(), window.to().min(retained_from));
            if from < to {
                tracing::warn!(%scope, %from, %to, "executions expired at the source before they were read");
                expired.push(ExpiredUnread {
                    org: scope.org.to_string(),
                    project: scope.project.to_string(),
                    from,
                    to,
                });
            }
        }
    }
    expired
}
