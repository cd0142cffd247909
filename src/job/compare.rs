//! `verify --source`: compares the lake with the source by project and day.
//!
//! A day with more executions at the source is read again before any is reported as missing: the
//! lake may store an execution under another project, since projects can be moved. A day with more
//! executions in the lake is correct: the lake keeps what is deleted at the source.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::{mpsc, watch};

use super::rules::{START_DAYS, retained_from};
use super::session::EVENTS;
use crate::causes::chain;
use crate::checkpoint::State;
use crate::config::{ConfigError, SourceConfig};
use crate::error::{Code, Error, code_of_source};
use crate::extract::count::count_windows;
use crate::extract::discover::{Filter, Unlisted, discover};
use crate::extract::{Event, Reading, ScopeDone, fan_out};
use crate::extract::{PageHints, ReadPlan};
use crate::ids::{PlanExecutionId, Scope};
use crate::lake::Lake;
use crate::lake::finding::{Audit, FindingKind, RUN_SYNC};
use crate::lake::inventory::Inventory;
use crate::lake::layout::date_of;
use crate::lake::log::Record;
use crate::lake::replay::Dates;
use crate::report::Failure;
use crate::source::Client;
use crate::window::{Window, from_ms};

/// Maximum ids in the text of a finding.
const NAMED: usize = 3;

/// The default lookback: the next `sync` reads this time before the watermark again.
const LOOKBACK: SignedDuration = SignedDuration::from_hours(24);

const DAY_MS: i64 = 86_400_000;

/// The range and the projects to compare.
#[derive(Clone, Debug)]
pub struct CompareOptions {
    /// The projects.
    pub filter: Filter,
    /// The first instant; `None` for 30 days ago.
    pub from: Option<Timestamp>,
    /// The first instant after; `None` for the watermark of each project.
    pub to: Option<Timestamp>,
}

/// The result of a comparison.
#[derive(Debug, Default, Serialize)]
pub struct SourceComparison {
    /// Projects that were counted.
    pub scopes: usize,
    /// Days that were compared, summed over the projects.
    pub days: usize,
    /// Executions at the source.
    pub at_source: u64,
    /// Executions in the lake.
    pub in_lake: u64,
    /// Days with different counts.
    pub differences: Vec<DayDifference>,
    /// Projects of the lake that are not visible any more. Their executions stay in the lake.
    pub not_visible: Vec<Scope>,
    /// Projects that could not be compared completely.
    pub not_compared: Vec<Failure>,
}

/// A day of a project with different counts.
#[derive(Debug, Serialize)]
pub struct DayDifference {
    /// The project.
    pub scope: Scope,
    /// The day, or its covered part.
    pub window: Window,
    /// Executions at the source.
    pub at_source: u64,
    /// Executions in the lake.
    pub in_lake: u64,
    /// Executions at the source that are nowhere in the lake.
    pub missing: Vec<PlanExecutionId>,
}

/// Compares the covered windows of `lake` with the source, and adds missing executions to `audit`.
///
/// # Errors
///
/// Errors of connecting, of listing and of reading the lake. The failure of one project is in
/// [`SourceComparison::not_compared`].
pub async fn compare_with_source(
    lake: &Lake,
    source: &SourceConfig,
    options: &CompareOptions,
    clock: fn() -> Timestamp,
    audit: &mut Audit,
) -> Result<SourceComparison, Error> {
    lake.identity()
        .check_account(lake.store(), &source.account)?;
    let client = source.client(clock)?;
    let concurrency = source.concurrency.get() as usize;
    let found = discover(&client, &options.filter, concurrency).await?;
    let (found, scopes) = found.require_scopes(&options.filter)?;
    let now = client.now().unwrap_or_else(clock);
    let retained = retained_from(client.retention_months().await?, now);
    let from = options
        .from
        .unwrap_or(now - SignedDuration::from_hours(24 * START_DAYS));
    // Checkpoint first: every execution that it covers is then in the inventory.
    let state = Record::newest(lake.store()).await?.state;
    let to = options.to.unwrap_or(now).min(now);
    let range = Window::new(from.max(retained), to).map_err(|empty| {
        let text = format!("the range to compare is empty: {empty}");
        Error::Config(ConfigError::Range(text))
    })?;
    let dates = Dates {
        from: Some(date_of(range.from())),
        to: date_of(range.to()).tomorrow().ok(),
    };
    let mut comparer = Comparer {
        client: &client,
        concurrency,
        page_size: source.page_size,
        state: &state,
        inventory: lake.inventory(dates).await?,
        result: SourceComparison::default(),
    };
    comparer.add_unread_scopes(&scopes, &found.unlisted, &options.filter, audit);
    let counts = comparer
        .count(covered_windows(&state, &scopes, range))
        .await?;
    let rows_at_source = comparer.read(&counts).await?;
    Ok(comparer.finish(counts, &rows_at_source, audit))
}

/// Returns the covered windows of each scope within a range.
fn covered_windows(state: &State, scopes: &[Scope], range: Window) -> Vec<(Scope, Vec<Window>)> {
    let covered = |scope: &Scope| {
        let coverage = state.scopes.get(scope)?.coverage.windows().iter();
        let parts: Vec<_> = coverage.filter_map(|part| part.intersect(range)).collect();
        (!parts.is_empty()).then(|| (scope.clone(), parts))
    };
    scopes.iter().filter_map(covered).collect()
}

/// Executions at the source by window. No window crosses midnight.
type Counts = BTreeMap<(Scope, Window), u64>;

/// Executions of the days with more at the source, with their `start_ts`.
type RowsAtSource = BTreeMap<Scope, BTreeMap<PlanExecutionId, Timestamp>>;

struct Comparer<'a> {
    client: &'a Client,
    concurrency: usize,
    page_size: u32,
    state: &'a State,
    inventory: Inventory,
    result: SourceComparison,
}

impl Comparer<'_> {
    /// Adds projects of the lake that are no longer listed, and listed ones that were never read.
    fn add_unread_scopes(
        &mut self,
        listed: &[Scope],
        unlisted: &[Unlisted],
        filter: &Filter,
        audit: &mut Audit,
    ) {
        let not_compared = &mut self.result.not_compared;
        not_compared.extend(unlisted.iter().map(Failure::from));
        let is_unlisted = |scope: &Scope| unlisted.iter().any(|each| each.org == scope.org);
        let is_read = |scope: &Scope| {
            let known = self.state.scopes.get(scope);
            known.is_some_and(|known| !known.coverage.is_empty())
        };
        for scope in listed.iter().filter(|scope| !is_read(scope)) {
            let what = "it was never read completely";
            audit.add(FindingKind::Stale, &scope.to_string(), what, RUN_SYNC);
        }
        let of_lake = self
            .state
            .scopes
            .keys()
            .filter(|scope| filter.passes(scope) && !is_unlisted(scope));
        for scope in of_lake.filter(|scope| !listed.contains(scope)) {
            if self.client.lists_are_complete() {
                self.result.not_visible.push(scope.clone());
            } else {
                let message = "the list of projects was incomplete and did not contain it";
                let failure = Failure::of(scope, Code::Partial, message);
                self.result.not_compared.push(failure);
            }
        }
    }

    /// Counts the executions of each scope: with one request if it has none, else one per day.
    async fn count(&mut self, covered: Vec<(Scope, Vec<Window>)>) -> Result<Counts, Error> {
        let span = |(scope, parts): &(Scope, Vec<Window>)| {
            let (first, last) = (parts.first()?, parts.last()?);
            Some((scope.clone(), Window::new(first.from(), last.to()).ok()?))
        };
        let spans = covered.iter().filter_map(span).collect();
        let by_scope = count_windows(self.client, spans, self.concurrency).await?;
        self.add_failures(by_scope.failed.into_iter().map(|(_, done)| done));
        let busy: BTreeSet<_> = by_scope
            .non_empty
            .into_iter()
            .map(|counted| counted.scope)
            .collect();
        let idle: BTreeSet<_> = by_scope.empty.into_iter().map(|(scope, _)| scope).collect();
        self.result.scopes = busy.len() + idle.len();
        let mut counts = Counts::new();
        let mut busy_days = Vec::new();
        for (scope, parts) in covered {
            let days = parts
                .into_iter()
                .flat_map(days)
                .map(|day| (scope.clone(), day));
            if busy.contains(&scope) {
                busy_days.extend(days);
            } else if idle.contains(&scope) {
                counts.extend(days.map(|day| (day, 0)));
            }
        }
        let by_day = count_windows(self.client, busy_days, self.concurrency).await?;
        self.add_failures(by_day.failed.into_iter().map(|(_, done)| done));
        counts.extend(by_day.empty.into_iter().map(|day| (day, 0)));
        let busy = by_day.non_empty.into_iter();
        counts.extend(busy.map(|counted| ((counted.scope, counted.window), counted.rows)));
        Ok(counts)
    }

    /// Reads the days with more executions at the source than in the lake.
    async fn read(&mut self, counts: &Counts) -> Result<RowsAtSource, Error> {
        let mut plans: BTreeMap<Scope, ReadPlan> = BTreeMap::new();
        for ((scope, day), rows) in counts {
            if *rows > self.inventory.count(scope, *day) {
                let plan = || ReadPlan {
                    pages: PageHints::of(self.state, scope),
                    ..ReadPlan::default()
                };
                plans
                    .entry(scope.clone())
                    .or_insert_with(plan)
                    .windows
                    .push(*day);
            }
        }
        let plans = plans.into_iter().collect();
        let (sender, mut events) = mpsc::channel(EVENTS);
        let (_stop, never) = watch::channel(false);
        let reading = Reading {
            client: self.client,
            concurrency: self.concurrency,
            largest_page: self.page_size,
            events: sender,
            stop: never,
        };
        let reading = fan_out(reading, plans);
        let receiving = async {
            let (mut rows_at_source, mut failed) = (RowsAtSource::new(), Vec::new());
            while let Some(event) = events.recv().await {
                match event {
                    Event::Rows(page) => page.observations.into_iter().for_each(|row| {
                        rows_at_source
                            .entry(row.scope)
                            .or_default()
                            .insert(row.id, row.start);
                    }),
                    Event::Done(done) => {
                        let is_complete = done.failure.is_none() && done.gaps == 0;
                        failed.extend((!is_complete).then_some(*done));
                    }
                    Event::WindowComplete(..)
                    | Event::LookbackDue(..)
                    | Event::Counted(..)
                    | Event::WindowIncomplete(..)
                    | Event::PollMissed(..) => {}
                }
            }
            (rows_at_source, failed)
        };
        let (read, (rows_at_source, mut failed)) = tokio::join!(reading, receiving);
        read?;
        let outage = |done: &mut ScopeDone| done.failure.take_if(|it| it.concerns_all_scopes());
        if let Some(outage) = failed.iter_mut().find_map(outage) {
            return Err(outage.into());
        }
        self.add_failures(failed);
        Ok(rows_at_source)
    }

    fn add_failures(&mut self, failed: impl IntoIterator<Item = ScopeDone>) {
        for done in failed {
            let (org, project) = (done.scope.org.as_str(), done.scope.project.as_str());
            let is_known = |known: &Failure| known.org == org && known.project == project;
            if self.result.not_compared.iter().any(is_known) {
                continue;
            }
            let (code, message) = match &done.failure {
                Some(error) => (code_of_source(error), chain(error)),
                None => (
                    Code::Partial,
                    "some days could not be read completely".to_owned(),
                ),
            };
            let failure = Failure::of(&done.scope, code, message);
            self.result.not_compared.push(failure);
        }
    }

    fn finish(
        mut self,
        counts: Counts,
        rows_at_source: &RowsAtSource,
        audit: &mut Audit,
    ) -> SourceComparison {
        self.result.days = counts.len();
        for ((scope, window), counted) in counts {
            let in_lake = self.inventory.count(&scope, window);
            let rows = rows_at_source.get(&scope).into_iter().flatten();
            let inside: Vec<_> = rows.filter(|(_, start)| window.contains(**start)).collect();
            let at_source = if counted > in_lake && !inside.is_empty() {
                inside.len() as u64
            } else {
                counted
            };
            let missing = inside
                .into_iter()
                .map(|(id, _)| id)
                .filter(|id| !self.inventory.contains(id));
            let missing: Vec<_> = missing.cloned().collect();
            self.result.at_source += at_source;
            self.result.in_lake += in_lake;
            if !missing.is_empty() {
                self.add_finding(&scope, window, &missing, audit);
            }
            if at_source != in_lake || !missing.is_empty() {
                self.result.differences.push(DayDifference {
                    scope,
                    window,
                    at_source,
                    in_lake,
                    missing,
                });
            }
        }
        self.result
    }

    fn add_finding(
        &self,
        scope: &Scope,
        window: Window,
        missing: &[PlanExecutionId],
        audit: &mut Audit,
    ) {
        let date = date_of(window.from());
        let watermark = self
            .state
            .scopes
            .get(scope)
            .and_then(|known| known.coverage.end());
        let is_in_lookback = watermark.is_some_and(|at| window.from() >= at - LOOKBACK);
        let named: Vec<_> = missing
            .iter()
            .take(NAMED)
            .map(PlanExecutionId::as_str)
            .collect();
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let what = format!(
            "{} executions at the source are missing in the lake: {}{more}",
            missing.len(),
            named.join(", "),
        );
        let place = format!("{scope} {date}");
        if is_in_lookback {
            audit.add(FindingKind::Stale, &place, what, RUN_SYNC);
        } else {
            let next = date.tomorrow().unwrap_or(date);
            let repair = format!(
                "harness-lake backfill --refetch --project '{scope}' --from {date} --to {next}"
            );
            audit.add(FindingKind::Damage, &place, what, repair);
        }
    }
}

/// Splits a window at every midnight, UTC.
fn days(window: Window) -> Vec<Window> {
    let (first, end) = (window.from().as_millisecond(), window.to().as_millisecond());
    let midnights = first.div_euclid(DAY_MS) + 1..=(end - 1).div_euclid(DAY_MS);
    let cuts = midnights.map(|day| day * DAY_MS);
    let mut days = Vec::new();
    let mut from = first;
    for to in cuts.chain([end]) {
        days.extend(Window::new(from_ms(from), from_ms(to)));
        from = to;
    }
    days
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::window::Coverage;

    #[test]
    fn window_is_split_at_midnight() {
        let cut = |from, to| {
            let window = Window::new(from_ms(from), from_ms(to)).unwrap();
            let ends = |day: Window| (day.from().as_millisecond(), day.to().as_millisecond());
            days(window).into_iter().map(ends).collect::<Vec<_>>()
        };
        assert_eq!(cut(5, DAY_MS), [(5, DAY_MS)]);
        assert_eq!(cut(5, DAY_MS + 1), [(5, DAY_MS), (DAY_MS, DAY_MS + 1)]);
        assert_eq!(cut(-1, 1), [(-1, 0), (0, 1)]);
    }

    proptest! {
        #[test]
        fn days_add_up_to_the_window(from in -3 * DAY_MS..3 * DAY_MS, length in 1..4 * DAY_MS) {
            let window = Window::new(from_ms(from), from_ms(from + length)).unwrap();
            let days = days(window);
            prop_assert!(days.iter().all(|day| date_of(day.from()) == date_of(from_ms(day.to().as_millisecond() - 1))));
            prop_assert_eq!(Coverage::from_iter(days), Coverage::from_iter([window]));
        }
    }
}
