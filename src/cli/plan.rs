//! `plan`: what a command would do, with one cheap count per window; changes nothing.

use clap::Subcommand;
use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp};
use serde::Serialize;

use super::output::{self, count, number, table};
use super::{BackfillArgs, Context, Format, ReplayArgs, SyncArgs};
use crate::config::is_midnight;
use crate::error::Error;
use crate::ids::Scope;
use crate::job::plan::{Plan, plan_of_backfill, plan_of_sync};
use crate::lake::Lake;
use crate::lake::layout::date_of;
use crate::window::Window;

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// What `sync` would read
    Sync(SyncArgs),
    /// What `backfill` would read
    Backfill {
        #[command(flatten)]
        args: BackfillArgs,
        /// Cut the range into N date ranges for mapped tasks, as JSON
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        units: Option<u32>,
    },
    /// What `replay` would derive
    Replay {
        #[command(flatten)]
        args: ReplayArgs,
        /// Cut the dates into N ranges for mapped tasks, as JSON
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        units: Option<u32>,
    },
}

#[derive(Debug, Serialize)]
struct Planned {
    command: &'static str,
    scopes: usize,
    windows: Vec<PlannedWindow>,
    /// Executions that the windows hold.
    executions: u64,
    /// Requests, this plan's own left out.
    calls: u64,
    /// How long they take at the budget.
    minutes: u64,
    open_executions: usize,
    units: Vec<Unit>,
}

#[derive(Debug, Serialize)]
struct PlannedWindow {
    scope: Scope,
    from: Timestamp,
    to: Timestamp,
    /// `None` where the project did not answer.
    executions: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PlannedReplay {
    command: &'static str,
    partitions: usize,
    units: Vec<Unit>,
}

/// `--from` and `--to` of one task: dates, but where a range begins or ends within one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Unit {
    from: String,
    to: String,
}

pub(super) async fn run(command: &PlanCommand, context: &Context) -> Result<(), Error> {
    match command {
        PlanCommand::Sync(args) => {
            let config = args.config()?;
            let rate = config.source.requests_per_minute.get();
            let plan = plan_of_sync(&config, context.clock).await?;
            show(&planned("sync", plan, rate, Vec::new()), context.output)
        }
        PlanCommand::Backfill { args, units } => {
            let config = args.config()?;
            let range = args.range.range()?;
            let rate = config.source.requests_per_minute.get();
            let cut = units.map_or_else(Vec::new, |units| cut_range(range.from, range.to, units));
            let plan = plan_of_backfill(&config, range, context.clock).await?;
            show(
                &planned("backfill", plan, rate, cut),
                format(*units, context),
            )
        }
        PlanCommand::Replay { args, units } => replay(args, *units, context).await,
    }
}

fn planned(command: &'static str, plan: Plan, rate: u32, units: Vec<Unit>) -> Planned {
    let window = |(scope, window, executions): (Scope, Window, Option<u64>)| PlannedWindow {
        scope,
        from: window.from(),
        to: window.to(),
        executions,
    };
    Planned {
        command,
        scopes: plan.scopes,
        executions: plan.windows.iter().filter_map(|(_, _, rows)| *rows).sum(),
        windows: plan.windows.into_iter().map(window).collect(),
        calls: plan.calls,
        minutes: plan.calls.div_ceil(u64::from(rate.max(1))),
        open_executions: plan.open_executions,
        units,
    }
}

fn show(planned: &Planned, format: Format) -> Result<(), Error> {
    output::result(format, planned, || {
        let head = format!(
            "{} would read {} of {} with {}: {} at the budget\n\n",
            planned.command,
            count(planned.executions, "execution"),
            count(planned.scopes as u64, "project"),
            count(planned.calls, "call"),
            count(planned.minutes, "minute"),
        );
        let mut rows = vec![
            ["project", "from", "to", "executions"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let minute = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
        rows.extend(planned.windows.iter().map(|window| {
            let executions = window.executions.map_or_else(|| "?".to_owned(), number);
            vec![
                window.scope.to_string(),
                minute(window.from),
                minute(window.to),
                executions,
            ]
        }));
        head + &table(&rows)
    })
}

/// Units are for programs: they come as JSON, whatever is asked for.
fn format(units: Option<u32>, context: &Context) -> Format {
    units.map_or(context.output, |_| Format::Json)
}

async fn replay(args: &ReplayArgs, units: Option<u32>, context: &Context) -> Result<(), Error> {
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let partitions = lake.raw_partitions(args.dates()?).await?;
    let mut dates: Vec<Date> = partitions.iter().map(|raw| raw.partition.date).collect();
    dates.dedup();
    let planned = PlannedReplay {
        command: "replay",
        partitions: partitions.len(),
        units: cut_dates(&dates, units.unwrap_or(1)),
    };
    output::result(format(units, context), &planned, || {
        let partitions = count(planned.partitions as u64, "partition");
        format!("replay would look at {partitions}")
    })
}

/// Dates that hold something, cut into at most `units` ranges of about as many dates each.
fn cut_dates(dates: &[Date], units: u32) -> Vec<Unit> {
    let size = dates.len().div_ceil(units as usize).max(1);
    let unit = |some: &[Date]| {
        let (first, last) = (some.first()?, some.last()?);
        Some(Unit {
            from: first.to_string(),
            to: last.tomorrow().ok()?.to_string(),
        })
    };
    dates.chunks(size).filter_map(unit).collect()
}

/// A range of time, cut at midnight into at most `units` ranges.
fn cut_range(from: Timestamp, to: Timestamp, units: u32) -> Vec<Unit> {
    let end = date_of(to - SignedDuration::from_millis(1));
    let days = date_of(from).series(Span::new().days(1));
    let dates: Vec<Date> = days.take_while(|date| *date <= end).collect();
    let mut cut = cut_dates(&dates, units);
    let bound = |at: Timestamp| (!is_midnight(at)).then(|| at.to_string());
    if let (Some(first), Some(from)) = (cut.first_mut(), bound(from)) {
        first.from = from;
    }
    if let (Some(last), Some(to)) = (cut.last_mut(), bound(to)) {
        last.to = to;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_make_the_whole_and_do_not_overlap() {
        let at = |text: &str| crate::config::instant(text).unwrap();
        for units in [1, 2, 3, 7, 100] {
            let cut = cut_range(at("2026-01-01"), at("2026-01-11"), units);
            assert!(cut.len() <= units as usize && cut.len() <= 10);
            assert_eq!(cut.first().unwrap().from, "2026-01-01");
            assert_eq!(cut.last().unwrap().to, "2026-01-11");
            assert!(cut.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
        let cut = cut_range(at("2026-01-01T12:00:00Z"), at("2026-01-03T06:00:00Z"), 2);
        let bounds = cut.iter().map(|unit| (&*unit.from, &*unit.to));
        let expected = [
            ("2026-01-01T12:00:00Z", "2026-01-03"),
            ("2026-01-03", "2026-01-03T06:00:00Z"),
        ];
        assert_eq!(bounds.collect::<Vec<_>>(), expected);
    }
}
