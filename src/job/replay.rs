//! `replay`: rebuilds tables from raw partitions, and copies one lake into another.

use jiff::Timestamp;

use super::committer::Committer;
use super::copy::copy;
use super::run::{Changes, Parts, Run};
use super::{Limits, StopSignal};
use crate::error::Error;
use crate::lake::Lake;
use crate::lake::derive::{Derived, Refresh};
use crate::lake::replay::Dates;
use crate::progress::Progress;
use crate::report::Report;

/// The work of a replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayTask<'a> {
    /// The lake to copy from (`--into`).
    pub source: Option<&'a Lake>,
    /// The lake whose tables are rebuilt.
    pub lake: &'a Lake,
    /// The dates to replay.
    pub dates: Dates,
    /// The tables to rebuild.
    pub refresh: Refresh,
}

/// A replay that ended.
#[derive(Debug)]
pub struct Replayed {
    /// The report of the run.
    pub report: Report,
    /// Partitions whose tables were checked.
    pub partitions: u64,
    /// The error that ended the run early.
    pub result: Result<(), Error>,
}

/// Copies the source, if there is one, then rebuilds the tables.
pub async fn replay(
    task: ReplayTask<'_>,
    run_id: String,
    clock: fn() -> Timestamp,
    progress: &Progress,
    stop: StopSignal,
) -> Replayed {
    let run = Run::start("replay", run_id, task.lake.account().clone(), clock);
    task.lake.store().set_run(&run.id);
    let limits = Limits::new(stop, None);
    for lake in task.source.into_iter().chain([task.lake]) {
        limits.bound(lake.store());
    }
    let (mut parts, mut partitions) = (Parts::default(), 0);
    let work = Box::pin(async {
        if let Some(source) = task.source {
            let part = &mut parts.committed;
            let committer = Committer::new(task.lake, &run.id, limits.clone(), clock(), part);
            copy(source, task.dates, committer, progress, &limits).await?;
        }
        let changes = &mut parts.replayed;
        rebuild(
            task,
            (&run.id, clock()),
            &limits,
            progress,
            changes,
            &mut partitions,
        )
        .await
    });
    let result = progress.show_during(work).await;
    let error = result.as_ref().err();
    let report = run.finish(parts, task.lake.store(), error).await;
    Replayed {
        report,
        partitions,
        result,
    }
}

async fn rebuild(
    task: ReplayTask<'_>,
    (run_id, now): (&str, Timestamp),
    limits: &Limits,
    progress: &Progress,
    changes: &mut Changes,
    partitions: &mut u64,
) -> Result<(), Error> {
    let record = |derived: Derived| {
        *partitions += derived.checked_days as u64;
        (0..derived.checked_days).for_each(|_| progress.finish_part());
        changes.add_replayed(derived);
    };
    let rebuilt = async {
        let raw = task.lake.raw_partitions(task.dates).await?;
        progress.start(raw.len(), "raw partitions");
        // After a copy, whose commits delete the pending lists of the run.
        task.lake.begin_replay(run_id).await?;
        task.lake.replay(&raw, task.refresh, record).await?;
        task.lake.finish_replay(run_id, task.dates, now).await
    };
    limits.run(rebuilt).await
}
