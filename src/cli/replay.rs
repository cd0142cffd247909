//! The `replay` command.

use indicatif::HumanCount;

use super::output::{self, count};
use super::{Context, ReplayArgs, open_store};
use crate::config::ConfigError;
use crate::error::Error;
use crate::job::copy::copy;
use crate::job::{keep_report, or_stop, sum_up};
use crate::lake::Lake;
use crate::lake::derive::{Derived, Refresh};
use crate::lake::layout::Partition;
use crate::lake::replay::Dates;
use crate::progress::Progress;
use crate::report::Report;

pub(super) async fn run(args: &ReplayArgs, context: &Context) -> Result<(), Error> {
    let files = args.output_files.start("replay", context)?;
    let opened = or_stop(&mut context.stop.clone(), open(args, context)).await;
    // An interruption this early leaves no report to print.
    let opened = opened.inspect_err(|error| output::print_error_document(error, context.output));
    let OpenedLakes {
        source,
        lake,
        dates,
    } = files.metrics_on_error(opened.flatten())?;
    let run_id = ulid::Ulid::generate().to_string();
    let mut report = Report::begin(run_id, "replay", lake.account().clone(), (context.clock)());
    let refresh = if args.all {
        Refresh::All
    } else {
        Refresh::Outdated
    };
    let mut partitions_checked = 0;
    let result = async {
        if let Some(source) = &source {
            merge(source, &lake, dates, context, &mut report).await?;
        }
        let checked = &mut partitions_checked;
        replay(&lake, dates, refresh, context, &mut report, checked).await
    }
    .await;
    // A process that received a signal has no time to read the state.
    if !matches!(result, Err(Error::Interrupted)) {
        sum_up(lake.store(), &mut report).await;
    }
    report.finished_at = (context.clock)();
    report.end(result.as_ref().err());
    keep_report(lake.store(), &report).await;
    let result = files.write(&report, result);
    output::print_report(context.output, &report, &result, || {
        summary(&report, partitions_checked, &lake, source.as_ref())
    })?;
    result
}

/// The lakes and dates of a replay.
struct OpenedLakes {
    /// With `--into`, the lake that is merged into the other one.
    source: Option<Lake>,
    /// The lake whose tables are rebuilt.
    lake: Lake,
    dates: Dates,
}

async fn open(args: &ReplayArgs, context: &Context) -> Result<OpenedLakes, Error> {
    let dates = args.dates()?;
    let target = args.into.as_deref().map(open_store).transpose()?;
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let Some(target) = target else {
        return Ok(OpenedLakes {
            source: None,
            lake,
            dates,
        });
    };
    if target.location() == lake.store().location() {
        let message = "--into is the same lake as --lake: omit --into to rebuild its tables";
        return Err(ConfigError::Range(message.to_owned()).into());
    }
    let now = (context.clock)();
    Ok(OpenedLakes {
        lake: lake.open_like(target, now, args.buckets).await?,
        source: Some(lake),
        dates,
    })
}

/// Merges the raw partitions and the checkpoint of `source` into `lake`.
async fn merge(
    source: &Lake,
    lake: &Lake,
    dates: Dates,
    context: &Context,
    report: &mut Report,
) -> Result<(), Error> {
    let progress = Progress::new(false);
    let (now, stop) = ((context.clock)(), context.stop.clone());
    copy(source, lake, dates, now, &progress, stop, report).await
}

/// Rebuilds tables from raw partitions. Adds each partition to `report` and `partitions_checked` as it
/// completes, so that both are right when a signal interrupts the loop.
async fn replay(
    lake: &Lake,
    dates: Dates,
    refresh: Refresh,
    context: &Context,
    report: &mut Report,
    partitions_checked: &mut u64,
) -> Result<(), Error> {
    let mut stop = context.stop.clone();
    let on_derived = |partition: Partition, derived: Derived| {
        *partitions_checked += 1;
        if !derived.files.is_empty() {
            report.dates_changed.insert(partition.date);
        }
        report.add_files(derived.files);
        report.drift.add(derived.drift);
    };
    let replayed = async {
        let partitions = lake.raw_partitions(dates).await?;
        lake.replay(&partitions, refresh, on_derived).await
    };
    Ok(or_stop(&mut stop, replayed).await??)
}

fn summary(report: &Report, partitions_checked: u64, lake: &Lake, source: Option<&Lake>) -> String {
    let duration = report.finished_at.duration_since(report.started_at);
    let rebuilt = format!(
        "Checked {} of {} in {} ms: wrote {} for {}",
        count(partitions_checked, "raw partition"),
        lake.store().location(),
        duration.as_millis(),
        count(report.files.len() as u64, "object"),
        count(report.dates_changed.len() as u64, "changed date"),
    );
    let Some(source) = source else {
        return rebuilt;
    };
    let executions = &report.executions;
    format!(
        "Merged {} from {}: {} new, {} updated, {} unchanged\n{rebuilt}",
        count(executions.observed, "execution"),
        source.store().location(),
        HumanCount(executions.inserted),
        HumanCount(executions.updated),
        HumanCount(executions.unchanged),
    )
}
