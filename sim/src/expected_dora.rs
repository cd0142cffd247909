//! The expected rows of `dora_metrics`.

use std::collections::BTreeSet;

use jiff::ToSpan;
use jiff::civil::{Date, Weekday};
use serde_json::{Map, Value, json};

use super::expected_attempts::Attempt;
use super::expected_deployments::Deployments;
use super::expected_views::{Index, aggregate, day, percentile, share};

/// What a row of a view adds to the metrics of its date.
#[derive(Clone, Copy)]
enum Fact {
    /// A date without anything.
    Nothing,
    Deployment {
        succeeded: bool,
        failed: bool,
    },
    Change(i64),
    Outage(Option<i64>),
}

/// Returns the metrics by day, week and month.
pub(super) fn dora_metrics<'a>(deployments: &Deployments<'a>, facts: &Index<'a>) -> Vec<Value> {
    let mut found = Vec::new();
    for attempt in deployments.ended() {
        let failed = deployments.is_failed_change(attempt);
        let succeeded = attempt.is("success");
        found.push((group(attempt), Fact::Deployment { succeeded, failed }));
    }
    for attempt in deployments.successful() {
        let changes = Deployments::changes(facts, attempt);
        let times = changes.into_iter().filter_map(|(_, time)| time);
        found.extend(times.map(|time| (group(attempt), Fact::Change(time))));
    }
    let outages = deployments.outages();
    found.extend(
        outages
            .into_iter()
            .map(|(first, time)| (group(first), Fact::Outage(time))),
    );
    found.extend(calendar(facts).into_iter().map(|row| (row, Fact::Nothing)));
    let by_grain = found.into_iter().flat_map(|(row, fact)| {
        ["day", "week", "month"].map(|grain| (at_grain(&row, grain), fact))
    });
    aggregate(by_grain, sum_up)
}

fn sum_up(facts: &[Fact]) -> Value {
    let count = |test: &dyn Fn(&Fact) -> bool| facts.iter().filter(|fact| test(fact)).count();
    let deployments = count(&|fact| matches!(fact, Fact::Deployment { .. }));
    let failed = count(&|fact| matches!(fact, Fact::Deployment { failed: true, .. }));
    let changes = facts.iter().filter_map(|fact| match fact {
        Fact::Change(time) => Some(*time),
        _ => None,
    });
    let restored = facts.iter().filter_map(|fact| match fact {
        Fact::Outage(time) => *time,
        _ => None,
    });
    let (changes, restored): (Vec<i64>, Vec<i64>) = (changes.collect(), restored.collect());
    json!({
        "deployments": deployments,
        "successful_deployments":
            count(&|fact| matches!(fact, Fact::Deployment { succeeded: true, .. })),
        "failed_deployments": failed,
        "change_failure_rate": (deployments > 0).then(|| share(failed, deployments)),
        "median_lead_time_ms": percentile(&changes, 0.5),
        "outages": count(&|fact| matches!(fact, Fact::Outage(_))),
        "restored_outages": restored.len(),
        "median_restore_ms": percentile(&restored, 0.5),
    })
}

fn group(attempt: &Attempt<'_>) -> Map<String, Value> {
    let mut row = attempt.group();
    row.retain(|column, _| !["service_id", "environment_id"].contains(&column.as_str()));
    row
}

/// Returns a row without deployments for each date, project and type of environment.
fn calendar(facts: &Index<'_>) -> Vec<Map<String, Value>> {
    let days: BTreeSet<Date> = facts
        .truth
        .executions
        .iter()
        .map(|row| date(&day(row)))
        .collect();
    let (Some(first), Some(last)) = (days.first(), days.last()) else {
        return Vec::new();
    };
    let columns = ["org_id", "project_id", "environment_type"];
    let places: BTreeSet<String> = (facts.truth.deployments.iter())
        .map(|row| json!(columns.map(|column| &row[column])).to_string())
        .collect();
    let dates = first.series(1.day()).take_while(|date| date <= last);
    let rows = dates.flat_map(|date| {
        places.iter().map(move |place| {
            let values: Vec<Value> = serde_json::from_str(place).unwrap_or_default();
            let columns = columns.iter().map(|column| (*column).to_owned());
            let mut row: Map<String, Value> = columns.zip(values).collect();
            row.insert("start_date".to_owned(), date.to_string().into());
            row
        })
    });
    rows.collect()
}

fn at_grain(row: &Map<String, Value>, grain: &str) -> Map<String, Value> {
    let mut row = row.clone();
    let date = date(row["start_date"].as_str().unwrap_or_default());
    let start = match grain {
        "week" if date.weekday() != Weekday::Monday => {
            date.nth_weekday(-1, Weekday::Monday).unwrap_or(date)
        }
        "month" => date.first_of_month(),
        _ => date,
    };
    row.remove("start_date");
    row.insert("grain".to_owned(), grain.into());
    row.insert("period_start".to_owned(), start.to_string().into());
    row
}

fn date(text: &str) -> Date {
    text.parse().unwrap_or(Date::ZERO)
}
