//! `verify --source`: per project and day, what the source counts against what the lake claims to hold.
//!
//! A day on which the source counts more is read again by id before anything is called missing: an
//! execution may stand under another project, since projects are moved. More in the lake than at the
//! source is as it should be: the lake keeps what is deleted there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tokio::sync::mpsc;

use super::connected::EVENTS;
use super::{START_DAYS, retained_from};
use crate::causes::chain;
use crate::checkpoint::State;
use crate::config::{ConfigError, SourceConfig};
use crate::error::{Code, Error, code_of_source};
use crate::extract::backfill::measure;
use crate::extract::discover::{Filter, Unlisted, discover};
use crate::extract::fanout::{Event, ScopeDone, fan_out};
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

/// Ids that a finding names.
const NAMED: usize = 3;

/// Within this time before the watermark the next `sync` looks back by itself.
const LOOKBACK: SignedDuration = SignedDuration::from_hours(24);

const DAY_MS: i64 = 86_400_000;

/// What is compared.
#[derive(Clone, Debug)]
pub struct Scrutiny {
    /// Which scopes.
    pub filter: Filter,
    /// The first instant; `None` for 30 days ago.
    pub from: Option<Timestamp>,
    /// The first instant after; `None` for each scope's watermark.
    pub to: Option<Timestamp>,
}

/// What the source counts of what the lake covers.
#[derive(Debug, Default, Serialize)]
pub struct Compared {
    /// Scopes that answered.
    pub scopes: usize,
    /// Days of scopes that were compared.
    pub days: usize,
    /// Executions that the source counts there.
    pub at_source: u64,
    /// Executions that the lake holds there.
    pub in_lake: u64,
    /// Days on which the two differ.
    pub differences: Vec<Difference>,
    /// Scopes that did not answer, in whole or in part.
    pub not_compared: Vec<Failure>,
}

/// A day of a scope on which source and lake differ.
#[derive(Debug, Serialize)]
pub struct Difference {
    /// The scope.
    pub scope: Scope,
    /// The day, or the part of it that is covered.
    pub window: Window,
    /// Executions that the source counts.
    pub at_source: u64,
    /// Executions that the lake holds.
    pub in_lake: u64,
    /// Executions that the source shows and the lake holds nowhere.
    pub missing: Vec<PlanExecutionId>,
}

/// Asks the source what it holds of the windows that `lake` covers; what is missing is added to
/// `audit` as findings.
///
/// # Errors
///
/// Those of connecting, listing, and reading the lake; a scope that does not answer is told in
/// [`Compared::not_compared`].
pub async fn compare_with_source(
    lake: &Lake,
    source: &SourceConfig,
    scrutiny: &Scrutiny,
    clock: fn() -> Timestamp,
    audit: &mut Audit,
) -> Result<Compared, Error> {
    lake.identity()
        .check_account(lake.store(), &source.account)?;
    let client = source.client(clock)?;
    let concurrency = source.concurrency.get() as usize;
    let found = discover(&client, &scrutiny.filter, concurrency).await?;
    let (found, scopes) = found.require_scopes(&scrutiny.filter)?;
    let now = client.now().unwrap_or_else(clock);
    let retained = retained_from(client.retention_months().await?, now);
    let from = scrutiny
        .from
        .unwrap_or(now - SignedDuration::from_hours(24 * START_DAYS));
    // The checkpoint before the rows: what it claims is in them.
    let state = Record::newest(lake.store()).await?.state;
    let to = scrutiny.to.unwrap_or(now).min(now);
    let range = Window::new(from.max(retained), to).map_err(|empty| {
        let text = format!("nothing can be compared: {empty}");
        Error::Config(ConfigError::Range(text))
    })?;
    let dates = Dates {
        from: Some(date_of(range.from())),
        to: date_of(range.to()).tomorrow().ok(),
    };
    let mut comparison = Comparison {
        client: &client,
        concurrency,
        page_size: source.page_size,
        state: &state,
        inventory: lake.inventory(dates).await?,
        compared: Compared::default(),
    };
    comparison.note_unseen(&scopes, &found.unlisted, &scrutiny.filter, audit);
    let counts = comparison.count(claimed(&state, &scopes, range)).await?;
    let seen = comparison.read(&counts).await?;
    Ok(comparison.conclude(counts, &seen, audit))
}

/// The covered parts of each scope within a range.
fn claimed(state: &State, scopes: &[Scope], range: Window) -> Vec<(Scope, Vec<Window>)> {
    let claim = |scope: &Scope| {
        let covered = state.scopes.get(scope)?.coverage.windows().iter();
        let parts: Vec<_> = covered.filter_map(|part| part.intersect(range)).collect();
        (!parts.is_empty()).then(|| (scope.clone(), parts))
    };
    scopes.iter().filter_map(claim).collect()
}

/// What the source says of one window: none of them crosses midnight.
type Counts = BTreeMap<(Scope, Window), u64>;

/// Executions of the days on which the source counts more, with their `start_ts`.
type RowsAtSource = BTreeMap<Scope, BTreeMap<PlanExecutionId, Timestamp>>;

struct Comparison<'a> {
    client: &'a Client,
    concurrency: usize,
    page_size: u32,
    state: &'a State,
    inventory: Inventory,
    compared: Compared,
}

impl Comparison<'_> {
    /// Scopes of the lake that are not listed any more, and listed ones that were never read.
    fn note_unseen(
        &mut self,
        listed: &[Scope],
        unlisted: &[Unlisted],
        filter: &Filter,
        audit: &mut Audit,
    ) {
        let not_compared = &mut self.compared.not_compared;
        not_compared.extend(unlisted.iter().map(Failure::from));
        let is_told = |scope: &Scope| unlisted.iter().any(|told| told.org == scope.org);
        let is_read = |scope: &Scope| {
            let known = self.state.scopes.get(scope);
            known.is_some_and(|known| !known.coverage.is_empty())
        };
        for scope in listed.iter().filter(|scope| !is_read(scope)) {
            let what = "it was never read whole";
            audit.add(FindingKind::Stale, &scope.to_string(), what, RUN_SYNC);
        }
        let of_lake = self
            .state
            .scopes
            .keys()
            .filter(|scope| filter.passes(scope) && !is_told(scope));
        for scope in of_lake.filter(|scope| !listed.contains(scope)) {
            let message = "the key does not see this project any more";
            self.compared
                .not_compared
                .push(Failure::of(scope, Code::NoResources, message));
        }
    }

    /// Asks for the rows of each claim: one question for a scope that has none, else one a day.
    async fn count(&mut self, claims: Vec<(Scope, Vec<Window>)>) -> Result<Counts, Error> {
        let hull = |(scope, parts): &(Scope, Vec<Window>)| {
            let (first, last) = (parts.first()?, parts.last()?);
            Some((scope.clone(), Window::new(first.from(), last.to()).ok()?))
        };
        let hulls = claims.iter().filter_map(hull).collect();
        let whole = measure(self.client, hulls, self.concurrency).await?;
        self.note_failures(whole.failed.into_iter().map(|(_, done)| done));
        let busy: BTreeSet<_> = whole.busy.into_iter().map(|(scope, ..)| scope).collect();
        let idle: BTreeSet<_> = whole.idle.into_iter().map(|(scope, _)| scope).collect();
        self.compared.scopes = busy.len() + idle.len();
        let mut counts = Counts::new();
        let mut asked = Vec::new();
        for (scope, parts) in claims {
            let days = parts
                .into_iter()
                .flat_map(days)
                .map(|day| (scope.clone(), day));
            if busy.contains(&scope) {
                asked.extend(days);
            } else if idle.contains(&scope) {
                counts.extend(days.map(|day| (day, 0)));
            }
        }
        let each = measure(self.client, asked, self.concurrency).await?;
        self.note_failures(each.failed.into_iter().map(|(_, done)| done));
        counts.extend(each.idle.into_iter().map(|day| (day, 0)));
        let busy = each.busy.into_iter();
        counts.extend(busy.map(|(scope, day, rows)| ((scope, day), rows)));
        Ok(counts)
    }

    /// Reads the days of which the source counts more than the lake holds.
    async fn read(&mut self, counts: &Counts) -> Result<RowsAtSource, Error> {
        let mut asks: BTreeMap<Scope, ReadPlan> = BTreeMap::new();
        for ((scope, day), rows) in counts {
            if self.inventory.count(scope, *day) < *rows {
                let ask = || ReadPlan {
                    pages: PageHints::of(self.state, scope),
                    ..ReadPlan::default()
                };
                asks.entry(scope.clone())
                    .or_insert_with(ask)
                    .windows
                    .push(*day);
            }
        }
        let asks = asks.into_iter().collect();
        let (events, mut told) = mpsc::channel(EVENTS);
        let reading = fan_out(self.client, asks, self.concurrency, self.page_size, events);
        let taking = async {
            let (mut seen, mut failed) = (RowsAtSource::new(), Vec::new());
            while let Some(event) = told.recv().await {
                match event {
                    Event::Rows(rows) => rows.observations.into_iter().for_each(|row| {
                        seen.entry(row.scope).or_default().insert(row.id, row.start);
                    }),
                    Event::Done(done) => {
                        let is_whole = done.failure.is_none() && done.gaps == 0;
                        failed.extend((!is_whole).then_some(*done));
                    }
                    Event::WindowComplete(..)
                    | Event::WindowIncomplete(..)
                    | Event::PollMissed(..) => {}
                }
            }
            (seen, failed)
        };
        let (read, (seen, failed)) = tokio::join!(reading, taking);
        read?;
        self.note_failures(failed);
        Ok(seen)
    }

    fn note_failures(&mut self, failed: impl IntoIterator<Item = ScopeDone>) {
        for done in failed {
            let (org, project) = (done.scope.org.as_str(), done.scope.project.as_str());
            let is_known = |known: &Failure| known.org == org && known.project == project;
            if self.compared.not_compared.iter().any(is_known) {
                continue;
            }
            let (code, message) = match &done.failure {
                Some(error) => (code_of_source(error), chain(error)),
                None => (Code::Partial, "some days did not come whole".to_owned()),
            };
            let failure = Failure::of(&done.scope, code, message);
            self.compared.not_compared.push(failure);
        }
    }

    fn conclude(mut self, counts: Counts, seen: &RowsAtSource, audit: &mut Audit) -> Compared {
        self.compared.days = counts.len();
        for ((scope, window), counted) in counts {
            let in_lake = self.inventory.count(&scope, window);
            let rows = seen.get(&scope).into_iter().flatten();
            let inside: Vec<_> = rows.filter(|(_, start)| window.contains(**start)).collect();
            let at_source = if in_lake < counted && !inside.is_empty() {
                inside.len() as u64
            } else {
                counted
            };
            let missing = inside
                .into_iter()
                .map(|(id, _)| id)
                .filter(|id| !self.inventory.contains(id));
            let missing: Vec<_> = missing.cloned().collect();
            self.compared.at_source += at_source;
            self.compared.in_lake += in_lake;
            if !missing.is_empty() {
                self.add_finding(&scope, window, &missing, audit);
            }
            if at_source != in_lake || !missing.is_empty() {
                self.compared.differences.push(Difference {
                    scope,
                    window,
                    at_source,
                    in_lake,
                    missing,
                });
            }
        }
        self.compared
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
        let is_looked_back_on = watermark.is_some_and(|at| at - LOOKBACK <= window.from());
        let named: Vec<_> = missing
            .iter()
            .take(NAMED)
            .map(PlanExecutionId::as_str)
            .collect();
        let more = if NAMED < missing.len() { ", …" } else { "" };
        let what = format!(
            "{} executions that the source shows are not in the lake: {}{more}",
            missing.len(),
            named.join(", "),
        );
        let place = format!("{scope} {date}");
        if is_looked_back_on {
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

/// Cuts a window at every midnight, UTC.
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
    fn a_window_is_cut_at_midnight() {
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
        fn days_make_the_window_and_none_crosses_midnight(from in -3 * DAY_MS..3 * DAY_MS, length in 1..4 * DAY_MS) {
            let window = Window::new(from_ms(from), from_ms(from + length)).unwrap();
            let days = days(window);
            prop_assert!(days.iter().all(|day| date_of(day.from()) == date_of(from_ms(day.to().as_millisecond() - 1))));
            prop_assert_eq!(Coverage::from_iter(days), Coverage::from_iter([window]));
        }
    }
}
