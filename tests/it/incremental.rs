//! Runs after the first: unchanged objects stay as they are, and changes are correct.

use std::collections::{BTreeSet, HashSet};

use harness_sim::{AccountSpec, Vintage};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{Lake, Sim, now, rows};

const WHOLE_HISTORY: &str = "37d";

/// A small account with ten days of future.
fn sim_with_a_future(vintage: Vintage) -> Sim {
    let spec = AccountSpec {
        future_hours: 240,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |options| options.vintage = vintage)
}

fn count(report: &Value, key: &str) -> u64 {
    report["executions"][key].as_u64().unwrap()
}

#[test]
fn second_run_at_the_same_instant_changes_no_data() {
    let sim = Sim::small();
    let lake = Lake::new();
    let first = sim.sync(&lake, &[]).expect(3).json();
    let (before, records) = (lake.data_objects(), lake.checkpoints());
    let scopes = lake.files()["scopes/v1/part-0-of-1.parquet"].clone();

    let second = sim
        .sync(&lake, &["--lookback", WHOLE_HISTORY])
        .expect(3)
        .json();

    assert_eq!(lake.data_objects(), before);
    assert!(lake.checkpoints() > records);
    assert_ne!(lake.files()["scopes/v1/part-0-of-1.parquet"], scopes);
    let runs: BTreeSet<String> = [&first, &second]
        .map(|report| format!("_runs/{}.json", report["run_id"].as_str().unwrap()))
        .into();
    let files = lake.files();
    let reports = files.keys().filter(|path| path.starts_with("_runs/"));
    assert_eq!(reports.cloned().collect::<BTreeSet<_>>(), runs);

    let observed = count(&first, "observed");
    assert_eq!(count(&first, "inserted"), observed);
    assert_eq!(count(&second, "unchanged"), observed);
    assert_eq!(
        [count(&second, "inserted"), count(&second, "updated")],
        [0, 0]
    );
    assert_eq!(second["dates_changed"], json!([]));
    let written = second["files"].as_array().unwrap();
    assert!(
        written
            .iter()
            .all(|file| file["path"] == "scopes/v1/part-0-of-1.parquet")
    );
}

#[test]
fn report_has_every_documented_key_and_is_stored() {
    let sim = Sim::small();
    let lake = Lake::new();
    let file = lake.beside("report.json");
    let run = sim.sync(&lake, &["--report", &file]).expect(3);
    let report = run.json();
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert_eq!(written, report);
    let kept = &lake.files()[&format!("_runs/{}.json", report["run_id"].as_str().unwrap())];
    assert_eq!(serde_json::from_slice::<Value>(kept).unwrap(), report);

    for pointer in [
        "/run_id",
        "/command",
        "/outcome",
        "/account_id",
        "/schema_version",
        "/started_at",
        "/finished_at",
        "/covered_to",
        "/scopes/total",
        "/scopes/ok",
        "/scopes/failed",
        "/requests/total",
        "/requests/retried",
        "/requests/rate_limited",
        "/requests/by_endpoint/orgs",
        "/requests/by_endpoint/projects",
        "/requests/by_endpoint/executions",
        "/executions/observed",
        "/executions/inserted",
        "/executions/updated",
        "/executions/unchanged",
        "/dates_changed/0",
        "/files/0/path",
        "/files/0/rows",
        "/files/0/bytes",
        "/open_executions",
        "/gaps",
        "/watermark/min",
        "/watermark/max",
        "/failures/0/org",
        "/failures/0/project",
        "/failures/0/code",
        "/failures/0/message",
        "/drift/unknown_fields",
        "/drift/unknown_statuses",
        "/drift/odd_values",
    ] {
        assert!(report.pointer(pointer).is_some(), "{pointer} is missing");
    }
    assert_eq!(report["command"], "sync");
    assert_eq!(report["outcome"], "partial");
    assert_eq!(report["account_id"], json!(sim.account().id()));
    assert_eq!(report["covered_to"], "2026-11-24T14:55:00Z");
    assert_eq!(report["watermark"]["max"], "2026-11-24T14:55:00Z");
    let (all, readable) = (sim.account().scopes_at(now()).len(), sim.readable().len());
    assert_eq!(
        report["scopes"],
        json!({"total": all, "ok": readable, "failed": 1})
    );
    assert_eq!(report["failures"][0]["code"], "invalid_permissions");
    assert_eq!(report["open_executions"], sim.open_now().len());

    // The reported objects and requests are correct.
    let files = lake.files();
    let written = report["files"].as_array().unwrap();
    let counts: Vec<String> = written
        .iter()
        .map(|file| {
            let path = file["path"].as_str().unwrap();
            assert_eq!(
                file["bytes"].as_u64(),
                Some(files[path].len() as u64),
                "{path}"
            );
            format!(
                "SELECT count(*) FROM read_parquet('{}/{path}')",
                lake.path()
            )
        })
        .collect();
    let counts: Vec<&str> = counts.iter().map(String::as_str).collect();
    for (file, counted) in written.iter().zip(rows(&counts)) {
        assert_eq!(file["rows"], counted[0][0], "{file}");
    }
    let received: u64 = sim.server().requests().by_endpoint.values().sum();
    assert_eq!(report["requests"]["total"].as_u64(), Some(received));
}

#[test]
fn ten_days_of_runs_match_the_current_server() {
    ten_days(Vintage::Saas);
}

#[test]
fn ten_days_of_runs_match_an_older_server() {
    ten_days(Vintage::Older);
}

/// Runs at irregular times. In between, approvals end, failures are ignored and a project moves.
fn ten_days(vintage: Vintage) {
    let sim = sim_with_a_future(vintage);
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let (from, to, moved) = sim.account().moving_scope().unwrap();
    let mut unseen = HashSet::new();
    let mut was_open = sim.open_now();
    let mut finished_late = 0;
    for hours in [1, 4, 7, 30, 26, 49, 75, 20] {
        let before = sim.now();
        sim.advance(SignedDuration::from_hours(hours));
        sim.sync(&lake, &[]).expect(3);
        unseen.extend(sim.edited_unseen(before));
        sim.assert_truth_but(&lake, &unseen);
        let open = sim.open_now();
        finished_late += was_open.difference(&open).count();
        was_open = open;
    }
    assert!(finished_late > 0, "some open executions ended between runs");
    assert!(moved < sim.now());
    let scopes = format!(
        "SELECT org_id, count(*) FROM {} WHERE project_id = '{}' GROUP BY ALL",
        lake.table("executions"),
        from.project
    );
    let by_org = &rows(&[&scopes])[0];
    assert!(
        by_org.iter().any(|row| row[0] == json!(to.org)),
        "{by_org:?}"
    );
    assert!(
        by_org.iter().all(|row| row[0] != json!(from.org)),
        "all of the project has moved"
    );

    // A long lookback finds the edits of executions that ended long before.
    sim.sync(&lake, &["--lookback", WHOLE_HISTORY]).expect(3);
    sim.assert_truth(&lake);
}

#[test]
fn observed_times_record_when_content_was_first_seen() {
    // Many executions, so that some are running at the first instant and have ended at the second.
    let spec = AccountSpec {
        executions: 2_000,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let was_open = sim.open_now();
    let before = snapshot(&lake);
    assert!(
        before
            .iter()
            .all(|row| row.observed == micros(&sim) && row.first == row.observed)
    );

    sim.advance(SignedDuration::from_hours(5));
    let report = sim.sync(&lake, &[]).expect(3).json();

    let still_open = sim.open_now();
    let ended: Vec<&String> = was_open.difference(&still_open).collect();
    assert!(!ended.is_empty(), "an execution ends within these hours");
    let (now, old) = (micros(&sim), before[0].observed);
    let known: HashSet<&String> = before.iter().map(|row| &row.id).collect();
    let after = snapshot(&lake);
    for row in &after {
        if known.contains(&row.id) {
            assert_eq!(row.first, old, "{}", row.id);
            assert!(row.observed == old || row.observed == now, "{}", row.id);
        } else {
            assert_eq!((row.first, row.observed), (now, now), "{}", row.id);
        }
        if ended.contains(&&row.id) {
            assert!(
                row.is_terminal && row.observed == now,
                "{} was updated",
                row.id
            );
        }
    }
    let changed = after
        .iter()
        .filter(|row| row.observed == now && row.first == old)
        .count();
    let new = after.iter().filter(|row| row.first == now).count();
    assert_eq!(count(&report, "inserted"), new as u64);
    assert_eq!(count(&report, "updated"), changed as u64);
    assert_eq!(
        count(&report, "observed"),
        ["inserted", "updated", "unchanged"]
            .iter()
            .map(|key| count(&report, key))
            .sum::<u64>()
    );
    assert_eq!(after.len(), before.len() + new);
    assert_eq!(report["open_executions"], still_open.len());
}

struct Row {
    id: String,
    is_terminal: bool,
    first: i64,
    observed: i64,
}

fn snapshot(lake: &Lake) -> Vec<Row> {
    let query = format!(
        "SELECT plan_execution_id, is_terminal, epoch_us(first_observed_ts), epoch_us(observed_ts)
         FROM {} ORDER BY 1",
        lake.table("executions")
    );
    let row = |row: &Vec<Value>| Row {
        id: row[0].as_str().unwrap().to_owned(),
        is_terminal: row[1].as_bool().unwrap(),
        first: row[2].as_i64().unwrap(),
        observed: row[3].as_i64().unwrap(),
    };
    rows(&[&query])[0].iter().map(row).collect()
}

fn micros(sim: &Sim) -> i64 {
    sim.now().as_microsecond()
}

#[test]
fn change_to_one_date_leaves_other_objects_unchanged() {
    let sim = sim_with_a_future(Vintage::Saas);
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let before = lake.data_objects();
    sim.advance(SignedDuration::from_hours(3));
    let report = sim.sync(&lake, &[]).expect(3).json();
    let changed: Vec<&str> = report["dates_changed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|date| date.as_str().unwrap())
        .collect();
    assert!(changed.contains(&"2026-11-24"));
    let after = lake.data_objects();
    for (path, stamp) in &before {
        let may_change =
            !path.contains("start_date=") || changed.iter().any(|date| path.contains(date));
        assert!(may_change || after[path] == *stamp, "{path} was replaced");
    }
    let files: BTreeSet<&str> = report["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["path"].as_str().unwrap())
        .collect();
    for (path, stamp) in &after {
        let is_replaced = before.get(path) != Some(stamp);
        let is_table = !path.starts_with("_raw/");
        if is_table {
            assert_eq!(files.contains(path.as_str()), is_replaced, "{path}");
        }
    }
}

#[test]
fn new_bucket_count_applies_from_the_day_after_tomorrow() {
    let sim = sim_with_a_future(Vintage::Saas);
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    sim.sync(&lake, &["--buckets", "2"]).expect(3);
    for _ in 0..2 {
        sim.advance(SignedDuration::from_hours(60));
        sim.sync(&lake, &["--lookback", WHOLE_HISTORY]).expect(3);
        sim.assert_truth(&lake);
    }
    let objects = lake.data_objects();
    for path in objects.keys().filter(|path| path.contains("start_date=")) {
        let is_new = "start_date=2026-11-26" <= &path[path.find("start_date=").unwrap()..];
        assert_eq!(path.ends_with("-of-2.parquet"), is_new, "{path}");
    }
    for name in ["part-0-of-2.parquet", "part-1-of-2.parquet"] {
        assert!(objects.keys().any(|path| path.ends_with(name)), "{name}");
    }
}
