//! The `replay` command.

use indicatif::HumanCount;

use super::args::{DeltaArg, PeriodArg};
use super::output::{self, count};
use super::{Context, ReplayArgs, open_store, panics};
use crate::config::ConfigError;
use crate::error::Error;
use crate::job::replay::{ReplayTask, Replayed};
use crate::job::{self, Limits};
use crate::lake::Lake;
use crate::lake::derive::Refresh;
use crate::lake::replay::Dates;
use crate::progress::Progress;
use crate::report::Report;

pub(super) async fn run(args: &ReplayArgs, context: &Context) -> Result<(), Error> {
    let run_output = args.run_output.start("replay", context).await?;
    let limits = Limits::new(context.stop.clone(), None);
    let opened = limits.run(open(args, context)).await.inspect_err(|error| {
        // An interruption this early leaves no report to print.
        if matches!(error, Error::Interrupted) {
            output::print_error_document(error, context.output);
        }
    });
    let OpenedLakes {
        source,
        lake,
        dates,
    } = run_output.end_on_error(opened).await?;
    let task = ReplayTask {
        source: source.as_ref(),
        lake: &lake,
        dates,
        refresh: if args.all {
            Refresh::All
        } else {
            Refresh::Outdated
        },
    };
    // Log lines only: the bar counts executions, which `replay` does not.
    let progress = Progress::new(false);
    let run = job::replay::replay(
        task,
        context.run_id.clone(),
        context.clock,
        &progress,
        context.stop.clone(),
    );
    let Replayed {
        report,
        partitions,
        result,
    } = run_output.end_on_error(panics::catch(run).await).await?;
    let text = || summary(&report, partitions, &lake, source.as_ref());
    run_output.finish(&report, result, text).await
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
    let delta = args.delta.map(DeltaArg::is_on);
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let Some(target) = target else {
        return Ok(OpenedLakes {
            source: None,
            lake: lake.with_delta(delta).await?,
            dates,
        });
    };
    if target.location() == lake.store().location() {
        let message = "--into is the same lake as --lake: omit --into to rebuild its tables";
        return Err(ConfigError::Range(message.to_owned()).into());
    }
    let now = (context.clock)();
    let period = args.period.and_then(PeriodArg::period);
    let target = lake.open_like(target, now, (args.buckets, period)).await?;
    Ok(OpenedLakes {
        lake: target.with_delta(delta).await?,
        source: Some(lake),
        dates,
    })
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
