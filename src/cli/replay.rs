//! `replay`: the tables again, from the raw partitions.

use super::metrics::Measured;
use super::output::{self, number};
use super::{Context, ReplayArgs, sync};
use crate::error::Error;
use crate::job::{failure_of, keep_report};
use crate::lake::Lake;
use crate::lake::derive::{Derived, Which};
use crate::lake::layout::Partition;
use crate::report::{Outcome, Report};

pub(super) async fn run(args: &ReplayArgs, context: &Context) -> Result<(), Error> {
    let measured = Measured::begin("replay", args.metrics_file.as_deref(), context);
    let (lake, partitions) = measured.needs(open(args).await)?;
    let run_id = ulid::Ulid::generate().to_string();
    let mut report = Report::begin(run_id, "replay", lake.account().clone(), (context.clock)());
    let which = if args.again {
        Which::All
    } else {
        Which::Outdated
    };
    let ended = replay(&lake, &partitions, which, context, &mut report).await;
    report.finished_at = (context.clock)();
    match &ended {
        Ok(()) => report.outcome = Outcome::Success,
        Err(Error::Interrupted) => {}
        Err(error) => report.failures.push(failure_of(error)),
    }
    keep_report(lake.store(), &report).await;
    measured.write(Some(&report), &ended)?;
    if let Some(path) = &args.report {
        sync::write(path, &report)?;
    }
    if ended.is_ok() || matches!(ended, Err(Error::Interrupted)) {
        output::result(context.output, &report, || {
            summary(&report, partitions.len(), &lake)
        })?;
    }
    ended
}

async fn open(args: &ReplayArgs) -> Result<(Lake, Vec<Partition>), Error> {
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()).await?;
    let partitions = lake.raw_partitions(args.dates()?).await?;
    Ok((lake, partitions))
}

async fn replay(
    lake: &Lake,
    partitions: &[Partition],
    which: Which,
    context: &Context,
    report: &mut Report,
) -> Result<(), Error> {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut stop = context.stop.clone();
    let told = |partition: Partition, derived: Derived| {
        if !derived.files.is_empty() {
            report.dates_changed.insert(partition.date);
        }
        report.add_files(derived.files);
        report.drift.add(derived.drift);
    };
    let interrupted = tokio::select! {
        biased;
        Ok(_) = stop.wait_for(|stopped| *stopped) => true,
        done = lake.replay(partitions, which, at_once, told) => {
            done?;
            false
        }
    };
    if interrupted {
        report.outcome = Outcome::Interrupted;
        return Err(Error::Interrupted);
    }
    Ok(())
}

fn summary(report: &Report, partitions: usize, lake: &Lake) -> String {
    let took_ms = report
        .finished_at
        .duration_since(report.started_at)
        .as_millis();
    format!(
        "{} partitions of {} looked at in {took_ms} ms, {} objects written, {} dates changed",
        number(partitions as u64),
        lake.store().shown(),
        number(report.files.len() as u64),
        report.dates_changed.len(),
    )
}
