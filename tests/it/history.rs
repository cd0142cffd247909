//! `backfill`, `replay`, `verify` and `plan`.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use harness_lake::window::from_ms;
use harness_sim::{AccountSpec, FaultKind, Match};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, bare_command, now, rows};

/// Runs a command that needs no source.
fn offline(arguments: &[&str]) -> Run {
    Run::of(bare_command(arguments).output().unwrap())
}

fn verify(lake: &Lake) -> Run {
    offline(&["verify", "--output", "json", "--lake", lake.path()])
}

fn kinds(audit: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let findings = audit["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| (text(finding, "kind"), text(finding, "path")))
        .collect()
}

/// Returns a date in the middle of the history, as in paths.
fn a_date(sim: &Sim) -> String {
    let middle = sim.now().as_millisecond() - 7 * 86_400_000;
    from_ms(middle).strftime("start_date=%Y-%m-%d").to_string()
}

fn days_ago(sim: &Sim, days: i64) -> String {
    from_ms(sim.now().as_millisecond() - days * 86_400_000)
        .strftime("%Y-%m-%d")
        .to_string()
}

fn backfill(sim: &Sim, lake: &Lake, more: &[&str]) -> Run {
    let from = days_ago(sim, 40);
    let to = days_ago(sim, -2);
    let fixed = [
        "backfill",
        "--output",
        "json",
        "--lake",
        lake.path(),
        "--from",
        &from,
        "--to",
        &to,
    ];
    sim.run(&[&fixed[..], &["--requests-per-minute", "60000"], more].concat())
}

#[test]
fn backfill_reads_only_what_is_not_covered() {
    let sim = Sim::small();
    let lake = Lake::new();
    let start = days_ago(&sim, 3);
    let recent = sim.sync(&lake, &["--start-date", &start]).expect(3).json();
    let first = backfill(&sim, &lake, &[]).expect(3).json();
    sim.assert_truth(&lake);
    let observed = |report: &Value| report["executions"]["observed"].as_u64().unwrap();
    let total = sim.truth().executions.len() as u64;
    assert_eq!(
        observed(&recent) + observed(&first),
        total,
        "nothing is read twice"
    );
    assert!(
        first["covered_to"].as_str().unwrap() < days_ago(&sim, -1).as_str(),
        "cut at now"
    );

    let before = lake.data_objects();
    let second = backfill(&sim, &lake, &[]).expect(3).json();
    assert_eq!(observed(&second), 0, "all of the range is covered");
    let again = backfill(&sim, &lake, &["--refetch"]).expect(3).json();
    assert_eq!(observed(&again), total);
    assert_eq!(
        lake.data_objects(),
        before,
        "the same content replaces nothing"
    );
    verify(&lake).expect(0);
}

#[test]
fn backfill_without_new_rows_succeeds() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let successes = || {
        let of_scope = "SELECT project_id, last_success_ts::text FROM";
        let scopes = format!("{of_scope} {} ORDER BY ALL", lake.table("scopes"));
        rows(&[&scopes])[0].clone()
    };
    let before = successes();
    sim.advance(SignedDuration::from_mins(1));
    let (from, to) = (days_ago(&sim, 60), days_ago(&sim, 58));
    let range = [
        "backfill",
        "--lake",
        lake.path(),
        "--from",
        &from,
        "--to",
        &to,
    ];
    sim.run(&range).expect(3);
    for (before, after) in before.iter().zip(successes()) {
        assert_eq!(before[0], after[0]);
        assert!(before[1].is_null() || before[1] != after[1], "{before:?}");
    }
}

/// Returns an account that continues for ten days.
fn living() -> Sim {
    let mut spec = AccountSpec::small(now());
    spec.future_hours = 240;
    Sim::start(&spec, |_| {})
}

#[test]
fn sync_reads_what_a_backfill_past_the_watermark_skipped() {
    let sim = living();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    sim.advance(SignedDuration::from_hours(6 * 24));
    let (from, to) = (days_ago(&sim, 1), days_ago(&sim, 0));
    let range = ["--lake", lake.path(), "--from", &from, "--to", &to];
    let backfill = [&["backfill", "--output", "json"][..], &range].concat();
    let report = sim.run(&backfill).expect(3).json();
    assert_eq!(
        report["gaps"], 2,
        "the forbidden project's: nothing else was asked for in vain"
    );
    sim.sync(&lake, &[]).expect(3);
    sim.assert_truth(&lake);
}

#[test]
fn first_backfill_fills_dimensions_and_hides_nothing_from_sync() {
    let sim = living();
    let lake = Lake::new();
    let (from, to) = (days_ago(&sim, 4), days_ago(&sim, 3));
    let range = ["--lake", lake.path(), "--from", &from, "--to", &to];
    let report = sim.run(&[&["backfill", "--output", "json"][..], &range].concat());
    assert_eq!(
        report.expect(3).json()["gaps"],
        1,
        "the forbidden project's"
    );
    let counted = format!("SELECT count(*) FROM {}", lake.table("projects"));
    let projects = rows(&[&counted])[0][0][0].as_u64().unwrap();
    assert!(sim.readable().len() as u64 <= projects, "{projects}");
    sim.sync(&lake, &[]).expect(3);
    sim.assert_truth(&lake);
}

#[test]
fn lake_without_metadata_is_not_created_anew() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let identity = format!("{}/_state/lake.json", lake.path());
    let bytes = fs::read(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    for command in ["sync", "check"] {
        let run = sim.run(&[command, "--output", "json", "--lake", lake.path()]);
        assert_eq!(run.expect(7).error_code(), "lake");
    }
    assert!(!fs::exists(&identity).unwrap());
    fs::write(&identity, bytes).unwrap();
    sim.sync(&lake, &[]).expect(3);
}

#[test]
fn suddenly_empty_project_is_not_trusted() {
    let sim = living();
    let lake = Lake::new();
    sim.sync(&lake, &["--start-date", &days_ago(&sim, 3)])
        .expect(3);
    let silent = sim.busy()[0].clone();
    let any = Match::executions().of(silent.clone());
    sim.faults().always(any, FaultKind::NoRows);
    let report = backfill(&sim, &lake, &[]).expect(3).json();
    let suspicious = &report["suspiciously_empty"];
    assert_eq!(suspicious.as_array().unwrap().len(), 1, "{report}");
    assert_eq!(suspicious[0]["project"], json!(silent.project));
    assert_eq!(report["gaps"], 2, "and the forbidden project's");
    // A gap stays if it is empty like the rest of the project.
    let report = sim.sync(&lake, &[]).expect(3).json();
    assert_eq!(report["gaps"], 2);
    sim.faults().clear();
    let report = sim.sync(&lake, &[]).expect(3).json();
    assert_eq!(report["gaps"], 1);
    sim.assert_truth(&lake);
}

#[test]
fn counted_rows_that_are_not_received_are_a_gap() {
    let sim = living();
    let lake = Lake::new();
    let lost = sim.busy()[0].clone();
    let of_it = || Match::executions().of(lost.clone());
    let nothing = || FaultKind::TimePasses(std::time::Duration::ZERO);
    // Permanently, and once.
    for times in [1_000, 1] {
        sim.faults().clear();
        sim.faults().times(1, of_it(), nothing());
        sim.faults().times(times, of_it(), FaultKind::NoRows);
        let report = backfill(&sim, &lake, &[]).expect(3).json();
        assert_eq!(report["gaps"], 2, "and the forbidden project's");
        assert_eq!(report["scopes"]["failed"], 2);
    }
    sim.faults().clear();
    assert_eq!(backfill(&sim, &lake, &[]).expect(3).json()["gaps"], 1);
    sim.assert_truth(&lake);
}

#[test]
fn sync_reads_a_project_whose_count_failed() {
    let sim = living();
    let lake = Lake::new();
    sim.sync(&lake, &["--start-date", &days_ago(&sim, 3)])
        .expect(3);
    let counted = Match::executions().of(sim.readable()[0].clone());
    sim.faults().times(1, counted, FaultKind::Forbidden);
    let report = backfill(&sim, &lake, &[]).expect(3).json();
    assert_eq!(report["scopes"]["failed"], 2);
    sim.sync(&lake, &[]).expect(3);
    sim.assert_truth(&lake);
}

#[test]
fn range_without_elapsed_time_covers_nothing() {
    let sim = Sim::small();
    let lake = Lake::new();
    let range = [
        "--from",
        "2027-01-01",
        "--to",
        "2027-02-01",
        "--output",
        "json",
    ];
    let backfill = [&["backfill", "--lake", lake.path()][..], &range].concat();
    let report = sim.run(&backfill).expect(0).json();
    assert_eq!(report["covered_to"], Value::Null);
    let replay = |from, to| {
        let replay = ["replay", "--lake", lake.path(), "--from", from, "--to", to];
        offline(&replay)
    };
    replay("2026-11-20", "2026-11-01").expect(2);
    replay("2026-11-20T12:00:00Z", "2026-11-20T06:00:00Z").expect(2);
}

#[test]
fn replay_takes_complete_dates_and_reports_commits() {
    let sim = Sim::small();
    let lake = Lake::new();
    let synced = sim.sync(&lake, &[]).expect(3).json();
    let day = days_ago(&sim, 2);
    let (from, to) = (format!("{day}T09:00:00Z"), format!("{day}T09:01:00Z"));
    let table = format!("{}/commits/v1/start_date={day}", lake.path());
    fs::remove_dir_all(table).unwrap();
    let fixed = ["replay", "--output", "json", "--lake", lake.path()];
    let range = ["--from", &from, "--to", &to];
    let report = offline(&[&fixed[..], &range].concat()).expect(0).json();
    assert_eq!(report["dates_changed"], json!([day]));
    for key in ["open_executions", "gaps", "watermark"] {
        assert_eq!(report[key], synced[key], "{key}");
    }
}

#[test]
fn plan_reports_what_a_run_reads_and_changes_nothing() {
    let sim = Sim::small();
    let lake = Lake::new();
    let place = lake.beside("planned");
    let plan = sim
        .run(&["plan", "sync", "--output", "json", "--lake", &place])
        .expect(0)
        .json();
    assert!(!fs::exists(&place).unwrap(), "a plan makes no lake");
    assert_eq!(plan["executions"], json!(sim.truth().executions.len()));
    let (from, to) = (days_ago(&sim, 9), days_ago(&sim, 0));
    let units = [
        "plan", "backfill", "--output", "json", "--lake", &place, "--units", "3",
    ];
    let plan = sim
        .run(&[&units[..], &["--from", &from, "--to", &to]].concat())
        .expect(0)
        .json();
    let ends: Vec<_> = plan["units"]
        .as_array()
        .unwrap()
        .iter()
        .map(|unit| unit["to"].clone())
        .collect();
    assert_eq!(ends.len(), 3);
    assert_eq!(ends.last(), Some(&json!(to)));
    sim.run(&[&units[..], &["--from", &to, "--to", &from]].concat())
        .expect(2);
}

#[test]
fn verify_separates_pending_work_foreign_files_and_damage() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let sound = verify(&lake).expect(0).json();
    assert_eq!(sound["findings"], json!([]));
    assert_eq!(sound["executions"], json!(sim.truth().executions.len()));

    let path = |table: &str, name: &str| {
        let inner = format!("{table}/v1/{}/{name}", a_date(&sim));
        (format!("{}/{inner}", lake.path()), inner)
    };
    // A run was killed before the last table of a date.
    let (cut, cut_inner) = path("executions", "part-0-of-1.parquet");
    let bytes = fs::read(&cut).unwrap();
    fs::remove_file(&cut).unwrap();
    let ahead = verify(&lake).expect(0).json();
    assert_eq!(kinds(&ahead), [("stale".to_owned(), cut_inner.clone())]);

    fs::write(&cut, &bytes).unwrap();
    let (missing, missing_inner) = path("stages", "part-0-of-1.parquet");
    fs::remove_file(missing).unwrap();
    let lost = verify(&lake).expect(7).json();
    assert_eq!(kinds(&lost), [("damage".to_owned(), missing_inner.clone())]);

    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    let (emptied, emptied_inner) = path("deployments", "part-0-of-1.parquet");
    fs::write(emptied, "").unwrap();
    let (foreign, foreign_inner) = path("commits", "copy.parquet");
    let (own, _) = path("commits", "part-0-of-1.parquet");
    fs::copy(own, &foreign).unwrap();
    let audit = verify(&lake).expect(7).json();
    let expected = [
        ("stale", missing_inner),
        ("foreign", foreign_inner),
        ("damage", emptied_inner),
        ("damage", cut_inner),
    ];
    assert_eq!(
        kinds(&audit),
        expected.map(|(kind, path)| (kind.to_owned(), path))
    );

    fs::remove_file(foreign).unwrap();
    let replayed = offline(&["replay", "--output", "json", "--lake", lake.path()])
        .expect(0)
        .json();
    assert_eq!(
        replayed["files"].as_array().unwrap().len(),
        3,
        "only what was missing or damaged"
    );
    verify(&lake).expect(0);
    sim.assert_truth(&lake);
}

#[test]
fn verify_reports_each_unreadable_raw_object_and_continues() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let raw = |days| {
        format!(
            "_raw/v1/start_date={}/part-0-of-1.parquet",
            days_ago(&sim, days)
        )
    };
    let place = |days| format!("{}/{}", lake.path(), raw(days));
    // One is lost, one is cut, and in one a page is damaged, which the footer does not show.
    fs::remove_file(place(3)).unwrap();
    fs::write(place(4), "PAR1").unwrap();
    let mut bytes = fs::read(place(5)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle - 50..middle].fill(0);
    fs::write(place(5), bytes).unwrap();
    let audit = verify(&lake).expect(7).json();
    let mut expected: Vec<_> = ["commits", "deployments", "executions", "stages"]
        .map(|table| raw(3).replace("_raw", table))
        .into();
    expected.extend([raw(4), raw(5)]);
    expected.sort();
    let reported: Vec<_> = kinds(&audit).into_iter().map(|(_, path)| path).collect();
    assert_eq!(reported, expected, "{audit}");
    for finding in audit["findings"].as_array().unwrap() {
        assert_eq!(finding["kind"], "damage");
        let repair = finding["repair"].as_str().unwrap();
        assert!(
            repair.contains("backfill --refetch --from 2026-11-"),
            "{finding}"
        );
    }
}

#[test]
fn verify_checks_the_dimensions() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let place = |inner: &str| format!("{}/{inner}", lake.path());
    let [orgs, scopes] = ["orgs", "scopes"].map(|table| format!("{table}/v1/part-0-of-1.parquet"));
    let foreign = "orgs/v1/copy.parquet".to_owned();
    fs::copy(place(&orgs), place(&foreign)).unwrap();
    fs::copy(place(&orgs), place(&scopes)).unwrap();
    let audit = verify(&lake).expect(7).json();
    let expected = [("foreign", foreign.clone()), ("damage", scopes.clone())];
    let expected = expected.map(|(kind, path)| (kind.to_owned(), path));
    assert_eq!(kinds(&audit), expected);
    fs::remove_file(place(&foreign)).unwrap();
    fs::remove_file(place(&scopes)).unwrap();
    assert_eq!(kinds(&verify(&lake).expect(0).json()).len(), 1, "stale");
    sim.sync(&lake, &[]).expect(3);
    assert_eq!(kinds(&verify(&lake).expect(0).json()), []);
}

#[test]
fn verify_during_runs_finds_no_damage() {
    let sim = living();
    let lake = Lake::new();
    sim.sync(&lake, &["--start-date", &days_ago(&sim, 0)])
        .expect(3);
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let audits = scope.spawn(|| {
            let mut audits = 0;
            while !is_done.load(Ordering::Relaxed) {
                verify(&lake).expect(0);
                audits += 1;
            }
            audits
        });
        for days in 1..10 {
            sim.advance(SignedDuration::from_hours(6));
            sim.sync(&lake, &[]).expect(3);
            let (from, to) = (days_ago(&sim, days + 1), days_ago(&sim, days));
            let range = ["--lake", lake.path(), "--from", &from, "--to", &to];
            sim.run(&[&["backfill"], &range[..]].concat());
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(audits.join().unwrap() > 3);
    });
}

#[test]
fn table_with_wrong_rows_is_found_and_rebuilt() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let before = lake.data_objects();
    // Rows of another date: a valid file in the wrong place.
    let wrong = format!(
        "{}/commits/v1/{}/part-0-of-1.parquet",
        lake.path(),
        a_date(&sim)
    );
    let other = days_ago(&sim, 5);
    let other = format!(
        "{}/commits/v1/start_date={other}/part-0-of-1.parquet",
        lake.path()
    );
    fs::copy(other, &wrong).unwrap();
    let audit = verify(&lake).expect(7).json();
    assert_eq!(kinds(&audit).len(), 1, "{audit}");
    assert_eq!(kinds(&audit)[0].0, "damage");
    offline(&["replay", "--all", "--lake", lake.path()]).expect(0);
    verify(&lake).expect(0);
    assert_eq!(lake.data_objects().len(), before.len());
    sim.assert_truth(&lake);
}
