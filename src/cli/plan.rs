//! The `plan` command: counts what another command would do, with one request per window.

use clap::Subcommand;
use indicatif::HumanCount;
use jiff::civil::Date;
use jiff::{SignedDuration, Span, Timestamp};
use serde::Serialize;

use super::output::{self, count, table};
use super::{BackfillArgs, Context, Format, ReplayArgs, SyncArgs};
use crate::config::is_midnight;
use crate::error::Error;
use crate::ids::Scope;
use crate::job::plan::{Plan, plan_of_backfill, plan_of_sync};
use crate::lake::Lake;
use crate::lake::identity::Identity;
use crate::lake::layout::{Period, date_of};
use crate::window::Window;

#[derive(Debug, Subcommand)]
pub(super) enum PlanCommand {
    /// Show what `sync` would read
    Sync(SyncArgs),
    /// Show what `backfill` would read
    Backfill {
        #[command(flatten)]
        args: BackfillArgs,
        /// Cut the range into N ranges for parallel tasks and print them as JSON
        #[arg(long, value_name = "N", help_heading = "Range",
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        units: Option<u32>,
    },
    /// Show what `replay` would check
    Replay {
        #[command(flatten)]
        args: ReplayArgs,
        /// Cut the dates into N ranges for parallel tasks and print them as JSON
        #[arg(long, value_name = "N", help_heading = "Range",
              value_parser = clap::value_parser!(u32).range(1..=10_000))]
        units: Option<u32>,
    },
}

/// The plan of a `sync` or `backfill`, as it is printed.
#[derive(Debug, Serialize)]
struct PlannedRead {
    command: &'static str,
    scopes: usize,
    /// Idle projects that the run would not ask for new data (`--idle-interval`).
    idle_scopes: usize,
    windows: Vec<PlannedWindow>,
    /// Executions in the windows.
    executions: u64,
    /// Requests of the planned run, without those of this plan.
    calls: u64,
    /// Minutes that the calls take at the request limit.
    minutes: u64,
    open_executions: usize,
    units: Vec<Unit>,
}

#[derive(Debug, Serialize)]
struct PlannedWindow {
    scope: Scope,
    from: Timestamp,
    to: Timestamp,
    /// `None` if counting failed.
    executions: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PlannedReplay {
    command: &'static str,
    partitions: usize,
    units: Vec<Unit>,
}

/// `--from` and `--to` of one task: dates, or RFC 3339 where the range starts or ends within a date.
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
            show(
                &planned_read("sync", plan, rate, Vec::new()),
                context.output,
            )
        }
        PlanCommand::Backfill { args, units } => {
            let config = args.config()?;
            let range = args.range.range()?;
            let rate = config.source.requests_per_minute.get();
            let lake = Identity::read(&config.store).await?;
            let period = lake.map_or(config.period.unwrap_or_default(), |(lake, _)| lake.period);
            let cut = units.map_or_else(Vec::new, |units| {
                cut_range(range.from, range.to, units, period)
            });
            let plan = plan_of_backfill(&config, range, context.clock).await?;
            show(
                &planned_read("backfill", plan, rate, cut),
                format(*units, context),
            )
        }
        PlanCommand::Replay { args, units } => replay(args, *units, context).await,
    }
}

fn planned_read(command: &'static str, plan: Plan, rate: u32, units: Vec<Unit>) -> PlannedRead {
    let window = |(scope, window, executions): (Scope, Window, Option<u64>)| PlannedWindow {
        scope,
        from: window.from(),
        to: window.to(),
        executions,
    };
    PlannedRead {
        command,
        scopes: plan.scopes,
        idle_scopes: plan.idle_scopes,
        executions: plan.windows.iter().filter_map(|(_, _, rows)| *rows).sum(),
        windows: plan.windows.into_iter().map(window).collect(),
        calls: plan.calls,
        minutes: plan.calls.div_ceil(u64::from(rate.max(1))),
        open_executions: plan.open_executions,
        units,
    }
}

fn show(plan: &PlannedRead, format: Format) -> Result<(), Error> {
    output::print_result(format, plan, || {
        let head = format!(
            "{} would read {} of {} with {}, in {} at the request limit\n\n",
            plan.command,
            count(plan.executions, "execution"),
            count(plan.scopes as u64, "project"),
            count(plan.calls, "call"),
            count(plan.minutes, "minute"),
        ) + &idle_text(plan.idle_scopes);
        let mut rows = vec![
            ["project", "from", "to", "executions"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let minute = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M").to_string();
        rows.extend(plan.windows.iter().map(|window| {
            let executions = window.executions.map(HumanCount);
            vec![
                window.scope.to_string(),
                minute(window.from),
                minute(window.to),
                executions.map_or_else(|| "?".to_owned(), |n| n.to_string()),
            ]
        }));
        head + &table(&rows)
    })
}

/// Returns a line about the idle projects, or nothing if there are none.
fn idle_text(idle: usize) -> String {
    match idle {
        0 => String::new(),
        _ => format!("{} not due yet\n\n", count(idle as u64, "idle project")),
    }
}

/// Returns the output format. Units are for programs, so `--units` implies JSON.
fn format(units: Option<u32>, context: &Context) -> Format {
    units.map_or(context.output, |_| Format::Json)
}

async fn replay(args: &ReplayArgs, units: Option<u32>, context: &Context) -> Result<(), Error> {
    let lake = Lake::open_existing(args.lake.store()?, &args.lake.scratch()?).await?;
    let partitions = lake.raw_partitions(args.dates()?).await?;
    let mut dates: Vec<SizedDate> = Vec::new();
    for raw in &partitions {
        match dates.last_mut() {
            Some((date, bytes)) if *date == raw.partition.date => *bytes += raw.bytes,
            _ => dates.push((raw.partition.date, raw.bytes)),
        }
    }
    let plan = PlannedReplay {
        command: "replay",
        partitions: partitions.len(),
        units: cut_dates(&dates, units.unwrap_or(1), lake.period()),
    };
    output::print_result(format(units, context), &plan, || {
        let partitions = count(plan.partitions as u64, "raw partition");
        format!("replay would check {partitions}")
    })
}

/// A date and the size of its work.
type SizedDate = (Date, u64);

/// Cuts dates into at most `units` ranges of complete periods and of about the same size.
fn cut_dates(dates: &[SizedDate], units: u32, period: Period) -> Vec<Unit> {
    let mut cut = Vec::new();
    let mut remaining: u64 = dates.iter().map(|(_, size)| size).sum();
    let mut units = u64::from(units);
    let (mut first, mut size) = (None, 0);
    let is_same = |one: &SizedDate, other: &SizedDate| period.start(one.0) == period.start(other.0);
    for of_period in dates.chunk_by(is_same) {
        let last = of_period.last().map(|(date, _)| *date);
        first = first.or(of_period.first().map(|(date, _)| *date));
        size += of_period.iter().map(|(_, size)| size).sum::<u64>();
        let end = last.and_then(|last| last.tomorrow().ok());
        if let (Some(from), Some(to)) = (first, end)
            && size.saturating_mul(units) >= remaining
        {
            cut.push(Unit {
                from: from.to_string(),
                to: to.to_string(),
            });
            remaining -= size;
            units -= 1;
            (first, size) = (None, 0);
        }
    }
    cut
}

/// Cuts a range of time at the ends of periods into at most `units` ranges.
fn cut_range(from: Timestamp, to: Timestamp, units: u32, period: Period) -> Vec<Unit> {
    let end = date_of(to - SignedDuration::from_millis(1));
    let days = date_of(from).series(Span::new().days(1));
    let dates = days.take_while(|date| *date <= end).map(|date| (date, 1));
    let mut cut = cut_dates(&dates.collect::<Vec<_>>(), units, period);
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
    fn units_cover_the_range_without_overlap() {
        let at = |text: &str| crate::config::instant(text).unwrap();
        for units in [1, 2, 3, 7, 100] {
            let cut = cut_range(at("2026-01-01"), at("2026-01-11"), units, Period::Day);
            assert!(cut.len() <= units as usize && cut.len() <= 10);
            assert_eq!(cut.first().unwrap().from, "2026-01-01");
            assert_eq!(cut.last().unwrap().to, "2026-01-11");
            assert!(cut.windows(2).all(|pair| pair[0].to == pair[1].from));
        }
        let cut = cut_range(
            at("2026-01-01T12:00:00Z"),
            at("2026-01-03T06:00:00Z"),
            2,
            Period::Day,
        );
        let bounds = cut.iter().map(|unit| (&*unit.from, &*unit.to));
        let expected = [
            ("2026-01-01T12:00:00Z", "2026-01-03"),
            ("2026-01-03", "2026-01-03T06:00:00Z"),
        ];
        assert_eq!(bounds.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn units_are_complete_periods_of_about_the_same_size() {
        let date = |text: &str| text.parse::<Date>().unwrap();
        let dates = [
            (date("2026-01-30"), 5),
            (date("2026-01-31"), 5),
            (date("2026-02-01"), 1),
            (date("2026-02-02"), 1),
            (date("2026-03-01"), 10),
        ];
        let cut = |units, period| {
            let cut = cut_dates(&dates, units, period);
            let from = cut.into_iter().map(|unit| unit.from[5..].to_owned());
            from.collect::<Vec<_>>()
        };
        assert_eq!(cut(2, Period::Day), ["01-30", "02-02"]);
        assert_eq!(cut(2, Period::Month), ["01-30", "03-01"]);
        assert_eq!(cut(9, Period::Month), ["01-30", "02-01", "03-01"]);
    }
}
