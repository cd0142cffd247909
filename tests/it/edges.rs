//! Unusual places and clocks: a lake below a Hive folder, a server clock that is ahead for one run.

use harness_sim::{AccountSpec, Clock};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::support::{Lake, Sim, rows};

#[test]
fn views_ignore_hive_folders_above_the_lake() {
    let parent = Lake::new();
    let sim = Sim::small();
    let plain = parent.beside("plain");
    sim.run(&["sync", "--lake", &plain]).expect(3);
    let select = "SELECT plan_execution_id, org_id, status, start_date::VARCHAR FROM executions \
                  WHERE start_date >= '2026-11-20' ORDER BY ALL";
    let read = |lake: &str| {
        let views = std::fs::read_to_string(format!("{lake}/_views/duckdb.sql")).unwrap();
        let rows = rows(&[
            &views,
            select,
            "SELECT column_name FROM (DESCRIBE executions)",
        ]);
        rows[rows.len() - 2..].to_vec()
    };
    let expected = read(&plain);
    assert!(!expected[0].is_empty());
    for folder in [
        "org_id=acme",
        "status=raw",
        "start_date=2020-01-01",
        "team=a",
    ] {
        let lake = parent.beside(&format!("{folder}/lake"));
        sim.run(&["replay", "--lake", &plain, "--into", &lake])
            .expect(0);
        let found = read(&lake);
        assert_eq!(found[0], expected[0], "{folder}");
        let sorted = |columns: &[Vec<serde_json::Value>]| {
            let mut columns = columns.to_vec();
            columns.sort_by_key(|column| column[0].to_string());
            columns
        };
        assert_eq!(sorted(&found[1]), sorted(&expected[1]), "{folder}");
    }
}

#[test]
fn clock_ahead_for_one_run_dates_no_row_ahead() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the skew is against the local clock"
    )]
    let local = Timestamp::now();
    let spec = AccountSpec {
        forbidden_project: false,
        executions: 2_000,
        ..AccountSpec::small(local)
    };
    let sim = Sim::start(&spec, |options| options.clock = Clock::fixed(local));
    let lake = Lake::new();
    let ahead = SignedDuration::from_hours(26);
    sim.server()
        .clock()
        .set(local - SignedDuration::from_mins(30));
    sim.sync(&lake, &[]).expect(0);
    sim.server().clock().set(local + ahead);
    let run = sim.sync(&lake, &[]).expect(0);
    assert!(
        run.stderr.contains("ahead of the local clock"),
        "{}",
        run.stderr
    );
    let future = format!(
        "SELECT count(*) FROM {} WHERE observed_ts > now() + INTERVAL 11 MINUTE",
        lake.table("executions")
    );
    assert_eq!(rows(&[&future])[0], [[json!(0)]]);
}
