//! `replay`: the tables again, from the raw partitions.

use super::files::Files;
use super::output::{self, number};
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
    let (told, measured) = (args.report.as_deref(), args.metrics_file.as_deref());
    let files = Files::begin("replay", told, measured, context);
    files.check()?;
    let opened = or_stop(&mut context.stop.clone(), open(args, context)).await;
    // Interrupted so early, there is no report to print.
    let opened = opened.inspect_err(|error| output::error_document(error, context.output));
    let Opened {
        source,
        lake,
        dates,
    } = files.needs(opened.flatten())?;
    let run_id = ulid::Ulid::generate().to_string();
    let mut report = Report::begin(run_id, "replay", lake.account().clone(), (context.clock)());
    let refresh = if args.all {
        Refresh::All
    } else {
        Refresh::Outdated
    };
    let ended = match &source {
        Some(source) => fill(source, &lake, dates, context, &mut report).await,
        None => Ok(()),
    };
    let mut looked_at = 0;
    let ended = match ended {
        Ok(()) => replay(&lake, dates, refresh, context, &mut report, &mut looked_at).await,
        ended => ended,
    };
    // A signal leaves no time for it.
    if !matches!(ended, Err(Error::Interrupted)) {
        sum_up(lake.store(), &mut report).await;
    }
    report.finished_at = (context.clock)();
    report.end(ended.as_ref().err());
    keep_report(lake.store(), &report).await;
    let ended = files.write(&report, ended);
    output::ended(context.output, &report, &ended, || {
        summary(&report, looked_at, &lake, source.as_ref())
    })?;
    ended
}

/// What a replay works on.
struct Opened {
    /// The lake that is read, where it is another one.
    source: Option<Lake>,
    /// The lake whose tables are derived.
    lake: Lake,
    dates: Dates,
}

async fn open(args: &ReplayArgs, context: &Context) -> Result<Opened, Error> {
    let dates = args.dates()?;
    let into = args.into.as_deref().map(open_store).transpose()?;
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let Some(into) = into else {
        return Ok(Opened {
            source: None,
            lake,
            dates,
        });
    };
    if into.shown() == lake.store().shown() {
        let same = "--into names the lake that is read: leave it out to derive its tables again";
        return Err(ConfigError::Range(same.to_owned()).into());
    }
    let now = (context.clock)();
    Ok(Opened {
        lake: lake.open_like(into, now, args.buckets).await?,
        source: Some(lake),
        dates,
    })
}

/// Merges what one lake holds into another.
async fn fill(
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

async fn replay(
    lake: &Lake,
    dates: Dates,
    refresh: Refresh,
    context: &Context,
    report: &mut Report,
    looked_at: &mut u64,
) -> Result<(), Error> {
    let mut stop = context.stop.clone();
    let told = |partition: Partition, derived: Derived| {
        *looked_at += 1;
        if !derived.files.is_empty() {
            report.dates_changed.insert(partition.date);
        }
        report.add_files(derived.files);
        report.drift.add(derived.drift);
    };
    let replayed = async {
        let partitions = lake.raw_partitions(dates).await?;
        lake.replay(&partitions, refresh, told).await
    };
    Ok(or_stop(&mut stop, replayed).await??)
}

fn summary(report: &Report, looked_at: u64, lake: &Lake, source: Option<&Lake>) -> String {
    let took_ms = report
        .finished_at
        .duration_since(report.started_at)
        .as_millis();
    let replayed = format!(
        "{} partitions of {} looked at in {took_ms} ms, {} objects written, {} dates changed",
        number(looked_at),
        lake.store().shown(),
        number(report.files.len() as u64),
        report.dates_changed.len(),
    );
    let Some(source) = source else {
        return replayed;
    };
    let executions = &report.executions;
    format!(
        "{} executions of {}: {} new, {} newer, {} there already\n{replayed}",
        number(executions.observed),
        source.store().shown(),
        number(executions.inserted),
        number(executions.updated),
        number(executions.unchanged),
    )
}
