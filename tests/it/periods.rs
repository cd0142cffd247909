//! Lakes that hold a month in one object of a table.

use std::collections::BTreeMap;

use harness_sim::AccountSpec;
use jiff::SignedDuration;

use crate::support::lab::assert_same_rows;
use crate::support::{Lake, Run, Sim, bare_command, rows};

const TABLES: [&str; 4] = ["executions", "stages", "deployments", "commits"];

fn run(arguments: &[&str]) -> Run {
    Run::of(bare_command(arguments).output().unwrap())
}

/// Fails unless `verify` finds nothing in a lake.
#[track_caller]
fn assert_sound(lake: &Lake) {
    let audit = run(&["verify", "--lake", lake.path(), "--output", "json"]);
    assert_eq!(audit.expect(0).json()["findings"], serde_json::json!([]));
}

/// Returns the number of objects of each table and month.
fn objects_by_month(lake: &Lake) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for path in lake.data_objects().into_keys() {
        if let Some((folder, _)) = path.split_once("/part-") {
            *counts.entry(folder.to_owned()).or_default() += 1;
        }
    }
    counts.retain(|folder, _| folder.contains("/v1/start_month="));
    counts
}

/// Returns the number of rows that only one of two lakes has, by day and by month, in all tables.
fn different_rows(by_day: &Lake, by_month: &Lake) -> i64 {
    let differences = TABLES.map(|table| {
        let one = format!("SELECT * FROM {}", by_day.table(table));
        let other = format!("SELECT * EXCLUDE (start_month) FROM {}", by_month.table(table));
        format!(
            "(SELECT count(*) FROM (({one} EXCEPT ALL {other}) UNION ALL ({other} EXCEPT ALL {one})))"
        )
    });
    let count = format!("SELECT {}", differences.join(" + "));
    rows(&[&count])[0][0][0].as_i64().unwrap()
}

#[test]
fn month_lake_matches_the_account_over_several_runs() {
    let spec = AccountSpec::small("2026-12-06T15:00:00Z".parse().unwrap());
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    sim.sync(&lake, &["--period", "month"]).expect(3);
    sim.assert_truth(&lake);
    let objects = objects_by_month(&lake);
    assert_eq!(objects.len(), 2 * TABLES.len(), "{objects:?}");
    for hours in [5, 30] {
        sim.advance(SignedDuration::from_hours(hours));
        sim.sync(&lake, &["--period", "auto"]).expect(3);
        assert_sound(&lake);
    }
    let objects = objects_by_month(&lake);
    assert!(objects.values().all(|count| *count == 1), "{objects:?}");
    let rebuilt = run(&["replay", "--all", "--lake", lake.path(), "--output", "json"]);
    let report = rebuilt.expect(0).json();
    assert_eq!(report["files"], serde_json::json!([]), "no row differs");
}

#[test]
fn unchanged_month_is_not_written_again() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &["--period", "month"]).expect(3);
    let before = lake.data_objects();
    sim.sync(&lake, &["--period", "month"]).expect(3);
    assert_eq!(lake.data_objects(), before);
}

#[test]
fn replay_into_converts_between_day_and_month() {
    let sim = Sim::small();
    let [by_day, by_month, back] = [(); 3].map(|()| Lake::new());
    sim.sync(&by_day, &[]).expect(3);
    let copy = |from: &Lake, to: &Lake, more: &[&str]| {
        let copy = ["replay", "--lake", from.path(), "--into", to.path()];
        run(&[&copy, more].concat())
    };
    copy(&by_day, &by_month, &["--period", "month", "--buckets", "2"]).expect(0);
    assert_eq!(different_rows(&by_day, &by_month), 0);
    assert_sound(&by_month);
    copy(&by_month, &back, &["--period", "day", "--buckets", "1"]).expect(0);
    assert_same_rows(by_day.path(), back.path(), &["scopes/"]);
    copy(&by_day, &back, &["--period", "month"]).expect(7);
}

#[test]
fn replay_repairs_some_days_and_lost_objects_of_a_month() {
    let sim = Sim::small();
    let [lake, copy] = [(); 2].map(|()| Lake::new());
    sim.sync(&lake, &["--period", "month"]).expect(3);
    run(&["replay", "--lake", lake.path(), "--into", copy.path()]).expect(0);
    for table in ["stages", "executions"] {
        std::fs::remove_dir_all(format!("{}/{table}", lake.path())).unwrap();
    }
    // A run of one day derives all days of an object that it creates.
    let days = ["--from", "2026-11-20", "--to", "2026-11-21"];
    run(&[&["replay", "--lake", lake.path()], &days[..]].concat()).expect(0);
    run(&["replay", "--lake", lake.path()]).expect(0);
    assert_same_rows(lake.path(), copy.path(), &["scopes/"]);
    assert_sound(&lake);
}

#[test]
fn auto_chooses_a_month_for_a_small_account() {
    let sim = Sim::small();
    let lake = Lake::new();
    let report = sim.sync(&lake, &["--period", "auto"]).expect(3).json();
    let chosen = &report["chosen_period"];
    assert_eq!(chosen["period"], "month", "{chosen}");
    let reason = chosen["reason"].as_str().unwrap();
    assert!(
        reason.contains("executions in the last 30 days"),
        "{reason}"
    );
    let later = sim.sync(&lake, &["--period", "auto"]).expect(3).json();
    assert!(later.get("chosen_period").is_none(), "{later}");
    let other = sim.sync(&lake, &["--period", "day"]).expect(7);
    assert_eq!(other.error_code(), "lake");
}
