//! The binary, killed at every step of the protocol, on a local disk and in object stores.
//!
//! After each kill, no execution is duplicated and no row is older than before. The next run
//! produces the same lake as an uninterrupted run.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use arrow_array::RecordBatch;
use harness_lake::checkpoint::State;
use harness_lake::lake::log::Record;
use harness_lake::lake::store::Store;
use jiff::SignedDuration;
use serde_json::json;
use tempfile::TempDir;

use crate::support::lab::{Source, decoded, ended, files, observed, text};
use crate::support::stores::{ObjectServer, runtime};

/// Steps of a run on a lake by day, and how often a run reaches each of them at least.
const STEPS: [(&str, u32); 14] = [
    ("before-pending", 1),
    ("after-pending", 1),
    ("before-raw", 2),
    ("after-raw", 2),
    ("before-table", 4),
    ("after-table", 8),
    ("after-partition", 2),
    ("after-delete-pending", 1),
    ("before-record", 1),
    ("after-record", 1),
    ("before-dimension", 1),
    ("after-dimension", 1),
    ("after-stage", 14),
    ("after-rename", 8),
];

/// Steps of a run on a lake by month that differ from those on a lake by day.
const MONTH_STEPS: [(&str, u32); 5] = [
    ("after-pending", 1),
    ("after-raw", 2),
    ("before-table", 4),
    ("after-table", 4),
    ("after-partition", 1),
];

/// Steps of a run on a lake with Delta tables, in addition to those on a lake by day.
const DELTA_STEPS: [(&str, u32); 5] = [
    ("before-delta-file", 4),
    ("after-delta-file", 4),
    ("before-delta-entry", 5),
    ("after-delta-entry", 5),
    ("after-delta-checkpoint", 5),
];

struct Rows {
    tables: BTreeMap<String, RecordBatch>,
    state: State,
}

impl Rows {
    fn new(mut tables: BTreeMap<String, RecordBatch>, store: &Store) -> Self {
        let mut state = runtime().block_on(Record::newest(store)).unwrap().state;
        // The average row size depends on the rows that a run happens to read.
        for scope in state.scopes.values_mut() {
            scope.row_bytes = None;
            scope.window_rows = None;
        }
        // Copies have other names in each lake. `verify` compares them with the tables.
        tables.retain(|path, _| !path.starts_with("delta/"));
        Self { tables, state }
    }
}

fn rows(lake: &Path) -> Rows {
    Rows::new(decoded(lake), &Store::open(text(lake)).unwrap())
}

/// Fails unless a lake has the rows and the state of an undisturbed one.
#[track_caller]
fn assert_healed(point: &str, healed: &Rows, expected: &Rows) {
    assert_eq!(
        healed.tables.keys().collect::<Vec<_>>(),
        expected.tables.keys().collect::<Vec<_>>(),
        "{point}"
    );
    for (path, batch) in &healed.tables {
        assert!(*batch == expected.tables[path], "{point}: {path} differs");
    }
    assert_eq!(healed.state, expected.state, "{point}");
}

/// Fails if an execution is duplicated, missing or older than before.
#[track_caller]
fn assert_kept(point: &str, before: &BTreeMap<String, i64>, left: &BTreeMap<String, RecordBatch>) {
    let left = observed(left);
    for (id, at) in before {
        assert!(
            left.get(id) >= Some(at),
            "{point}: {id} is older than before"
        );
    }
}

/// Runs from `base`: one uninterrupted run, and one killed at each step and started again.
fn kill_everywhere(source: &Source, base: &Path, steps: impl Iterator<Item = (String, bool)>) {
    let folder = TempDir::new().unwrap();
    let undisturbed = folder.path().join("undisturbed");
    copy(base, &undisturbed);
    source.sync(&undisturbed);
    let expected = rows(&undisturbed);
    let before = observed(&decoded(base));
    for (point, must_hit) in steps {
        let lake = folder.path().join(&point);
        copy(base, &lake);
        let killed = source
            .command("sync", text(&lake))
            .env("HARNESS_LAKE_FAILPOINT", &point)
            .output()
            .unwrap();
        assert_eq!(
            killed.status.code().is_none(),
            must_hit,
            "{point}: {killed:?}"
        );
        assert_kept(&point, &before, &decoded(&lake));
        source.sync(&lake);
        assert_healed(&point, &rows(&lake), &expected);
        let verified = source.command("verify", text(&lake)).output().unwrap();
        assert_eq!(ended(&verified, 0)["findings"], json!([]), "{point}");
        fs::remove_dir_all(&lake).unwrap();
    }
}

fn every_step(share: u32) -> impl Iterator<Item = (String, bool)> {
    let all = STEPS
        .into_iter()
        .flat_map(|(point, times)| (1..=times).map(move |nth| (format!("{point}:{nth}"), true)));
    all.enumerate()
        .filter(move |(at, _)| at % 2 == share as usize)
        .map(|(_, step)| step)
}

/// Returns a lake after one run, and a source that has changed since.
fn later(period: &'static str) -> (Source, TempDir) {
    let source = Source::with_period(period);
    let base = TempDir::new().unwrap();
    source.sync(base.path());
    source.server.clock().advance(SignedDuration::from_hours(9));
    (source, base)
}

#[test]
fn next_run_repairs_a_later_run_killed_at_any_step() {
    let (source, base) = later("day");
    kill_everywhere(&source, base.path(), every_step(0));
}

#[test]
fn next_run_repairs_a_later_run_killed_at_other_steps() {
    let (source, base) = later("day");
    kill_everywhere(&source, base.path(), every_step(1));
}

#[test]
fn next_run_repairs_a_first_run_killed_at_any_step() {
    let source = Source::start();
    let base = TempDir::new().unwrap();
    let steps = ["after-stage", "after-rename"]
        .into_iter()
        .flat_map(|point| [1, 2, 3, 4, 5, 8, 11, 21, 24].map(|nth| format!("{point}:{nth}")));
    let dimensions = ["before-dimension:2", "after-dimension:1", "after-record:1"];
    let steps = steps.chain(dimensions.map(str::to_owned));
    kill_everywhere(&source, base.path(), steps.map(|step| (step, true)));
}

#[test]
fn run_without_the_kill_step_succeeds() {
    let (source, base) = later("day");
    let never = [("before-record:2".to_owned(), false)];
    kill_everywhere(&source, base.path(), never.into_iter());
}

#[test]
fn next_run_repairs_a_month_killed_at_any_step() {
    let (source, base) = later("month");
    let steps = MONTH_STEPS
        .into_iter()
        .flat_map(|(point, times)| (1..=times).map(move |nth| (format!("{point}:{nth}"), true)));
    kill_everywhere(&source, base.path(), steps);
}

#[test]
fn next_run_repairs_delta_tables_killed_at_any_step() {
    let (source, base) = later_with_delta();
    let steps = DELTA_STEPS
        .into_iter()
        .flat_map(|(point, times)| (1..=times).map(move |nth| (format!("{point}:{nth}"), true)));
    let others = [
        "after-record:1",
        "after-delete-pending:1",
        "after-dimension:1",
    ];
    let others = others.map(|step| (step.to_owned(), true));
    kill_everywhere(&source, base.path(), steps.chain(others));
}

/// Returns a lake with Delta tables after one run, and a source that has changed since.
fn later_with_delta() -> (Source, TempDir) {
    let source = Source::start();
    let base = TempDir::new().unwrap();
    let on = source
        .command("sync --delta on", text(base.path()))
        .output();
    ended(&on.unwrap(), 0);
    source.server.clock().advance(SignedDuration::from_hours(9));
    (source, base)
}

/// Runs in an object store from copies of one lake, killed after the last of each kind of write and started again.
fn kill_everywhere_in(server: &ObjectServer) {
    let (source, base) = later_with_delta();
    let mut objects: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for path in files(base.path()) {
        let name = text(path.strip_prefix(base.path()).unwrap()).to_owned();
        // A bucket has neither definitions nor a lock.
        if !name.starts_with("_views/") && name != "_state/lock" {
            objects.insert(name, fs::read(&path).unwrap());
        }
    }
    let before = observed(&decoded(base.path()));
    source.sync(base.path());
    let expected = rows(base.path());
    let is_in_store =
        |step: &str| step.starts_with("after-") && !["after-stage", "after-rename"].contains(&step);
    let steps = STEPS.into_iter().chain(DELTA_STEPS);
    for (step, nth) in steps.filter(|(step, _)| is_in_store(step)) {
        let (point, prefix) = (format!("{step}:{nth}"), format!("killed/{step}"));
        server.upload(&prefix, &objects);
        let run = |name| server.at(source.command(name, &server.lake_at(&prefix)));
        let killed = run("sync").env("HARNESS_LAKE_FAILPOINT", &point).output();
        let killed = killed.unwrap();
        assert_eq!(killed.status.code(), None, "{point}: {killed:?}");
        assert_kept(&point, &before, &server.rows_at(&prefix));
        ended(&run("sync").output().unwrap(), 0);
        let healed = Rows::new(server.rows_at(&prefix), &server.store(&prefix));
        assert_healed(&point, &healed, &expected);
        if step.contains("delta") {
            let verified = ended(&run("verify").output().unwrap(), 0);
            assert_eq!(verified["findings"], json!([]), "{point}");
        }
    }
}

#[test]
fn next_run_repairs_a_run_killed_in_azure() {
    kill_everywhere_in(&ObjectServer::azurite());
}

#[test]
fn next_run_repairs_a_run_killed_in_a_stub_of_google() {
    kill_everywhere_in(&ObjectServer::google());
}

/// Copies a folder recursively.
fn copy(from: &Path, to: &Path) {
    for path in files(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(&path, &target).unwrap();
    }
}
