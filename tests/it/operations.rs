//! The procedures of `docs/operations.md`, taken from that page and run.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness_sim::{AccountSpec, Execution, FaultKind, Vintage};
use jiff::{SignedDuration, Timestamp};

use crate::support::{Lake, Run, Sim, now, rows};

const PAGE: &str = include_str!("../../docs/operations.md");

/// Returns the shell blocks under a heading.
fn procedure(heading: &str) -> Vec<String> {
    let head = format!("\n## {heading}\n");
    let (_, rest) = PAGE.split_once(&head).expect("the page has this heading");
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let block = |text: &str| text.split("```").next().unwrap().to_owned();
    blocks.map(block).collect()
}

/// An account with future executions, its server, and a lake after two runs.
struct Place {
    sim: Sim,
    lake: Lake,
    /// The age in days of the date that procedures repair. It has executions.
    days: i64,
}

impl Place {
    fn new() -> Self {
        let mut spec = AccountSpec::small(now());
        spec.future_hours = 100;
        let sim = Sim::start(&spec, |options| options.vintage = Vintage::Saas);
        let lake = Lake::new();
        sim.sync(&lake, &[]).expect(3);
        sim.advance(SignedDuration::from_hours(2));
        sim.sync(&lake, &[]).expect(3);
        let days = 7;
        Self { sim, lake, days }
    }

    fn days_ago(&self, days: i64) -> String {
        let at = self.sim.now() - SignedDuration::from_hours(24 * days);
        at.strftime("%Y-%m-%d").to_string()
    }

    fn day(&self) -> String {
        self.days_ago(self.days)
    }

    /// Runs a block as an operator would, with `harness-lake` on the path.
    fn follow(&self, block: &str) -> Run {
        let own = self.sim.command(&[]);
        let binary = Path::new(own.get_program()).parent().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-euo", "pipefail", "-c", block]).env_clear();
        shell
            .envs(
                own.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
            .env("HARNESS_LAKE", self.lake.path())
            // One project is forbidden, which does not matter here.
            .env("HARNESS_LAKE_PARTIAL_EXIT_CODE", "0")
            .env("LAKE", self.lake.path())
            .env("NEW", self.lake.beside("new"))
            .env("BACKUP", self.lake.beside("backup"))
            .env("START", self.days_ago(40))
            .env("DAY", self.day())
            .env("NEXT_DAY", self.days_ago(self.days - 1));
        Run::of(shell.output().unwrap())
    }

    /// Runs the only block of a procedure to its end.
    #[track_caller]
    fn mend(&self, heading: &str) {
        let [block] = <[_; 1]>::try_from(procedure(heading)).unwrap();
        self.follow(&block).expect(0);
    }
}

fn count(lake: &str) -> i64 {
    let count = format!("SELECT count(*) FROM read_parquet('{lake}/executions/v1/**/*.parquet')");
    rows(&[&count])[0][0][0].as_i64().unwrap()
}

#[test]
fn a_lake_is_compared_with_the_source() {
    let place = Place::new();
    let [block] = <[_; 1]>::try_from(procedure("Compare the lake with Harness")).unwrap();
    let compared = place.follow(&block);
    // The project that moved meanwhile is not visible under its old name.
    assert!(
        compared.stdout.contains("0 missing in the lake"),
        "{compared:?}"
    );
    let day = format!("start_date={}", place.day());
    for table in ["_raw", "executions", "stages", "deployments", "commits"] {
        fs::remove_dir_all(format!("{}/{table}/v1/{day}", place.lake.path())).unwrap();
    }
    let found = place.follow(&block).expect(7);
    assert!(found.stdout.contains("backfill --refetch"), "{found:?}");
}

#[test]
fn gap_that_remains_is_accepted() {
    let place = Place::new();
    let executions = place.sim.account().executions_at(place.sim.now());
    let of_day = executions.filter(|execution| {
        let start = Timestamp::from_millisecond(execution.start_ms()).unwrap();
        let scope = place.sim.account().scope_of(execution, place.sim.now());
        start.strftime("%Y-%m-%d").to_string() == place.day()
            && Some(scope) != place.sim.account().forbidden_scope()
    });
    let bad = of_day.map(Execution::id).min().unwrap();
    place.sim.faults().poison(&bad, FaultKind::Status(500));
    let report = place.sim.sync(&place.lake, &["--lookback", "37d"]).json();
    // The other gap is the forbidden project.
    assert_eq!(report["gaps"], 2, "{report}");
    place.mend("A gap that remains");
    let report = place.sim.sync(&place.lake, &["--lookback", "37d"]).json();
    assert_eq!(report["gaps"], 1, "{report}");
}

#[test]
fn tables_are_rebuilt_from_raw() {
    let place = Place::new();
    let day = format!("start_date={}", place.day());
    fs::remove_dir_all(format!("{}/stages/v1/{day}", place.lake.path())).unwrap();
    let object = format!(
        "{}/executions/v1/{day}/part-0-of-1.parquet",
        place.lake.path()
    );
    fs::write(object, "damage").unwrap();
    place.mend("A table is lost or damaged");
    place.sim.assert_truth(&place.lake);
}

#[test]
fn raw_object_is_restored_from_the_source() {
    // A quiet day, and one that was merged before.
    for days in [7, 0] {
        let place = Place {
            days,
            ..Place::new()
        };
        let object = format!(
            "{}/_raw/v1/start_date={}/part-0-of-1.parquet",
            place.lake.path(),
            place.day()
        );
        fs::write(object, "damage").unwrap();
        place.mend("A raw object is lost or damaged");
        place.sim.assert_truth(&place.lake);
    }
}

#[test]
fn sync_keeps_tables_whose_raw_object_is_lost() {
    let place = Place {
        days: 0,
        ..Place::new()
    };
    let folder = format!("{}/_raw/v1/start_date={}", place.lake.path(), place.day());
    let before = count(place.lake.path());
    fs::remove_dir_all(&folder).unwrap();
    place.sim.advance(SignedDuration::from_hours(3));
    // Only open and new executions of that day are read.
    let few = ["--lookback", "1h"];
    place.sim.sync(&place.lake, &few).expect(3);
    let lost = place.sim.sync(&place.lake, &few).expect(3);
    assert!(before <= count(place.lake.path()), "the last copy of some");
    let audit = place.follow("harness-lake verify").expect(7);
    assert!(
        audit.stdout.contains("backfill --refetch"),
        "{audit:?}{lost:?}"
    );
    let again = "harness-lake backfill --refetch --from $DAY --to $NEXT_DAY; harness-lake verify";
    place.follow(again).expect(0);
    place.sim.assert_truth(&place.lake);
}

#[test]
fn tables_follow_a_restored_raw_object() {
    let place = Place {
        days: 0,
        ..Place::new()
    };
    let folder = format!("{}/_raw/v1/start_date={}", place.lake.path(), place.day());
    let object = format!("{folder}/part-0-of-1.parquet");
    let old = fs::read(&object).unwrap();
    for _ in 0..2 {
        place.sim.advance(SignedDuration::from_hours(3));
        place.sim.sync(&place.lake, &[]).expect(3);
    }
    fs::write(&object, old).unwrap();
    let audit = place.follow("harness-lake verify").expect(7);
    assert!(audit.stdout.contains("1 finding\n"), "{audit:?}");
    // Rows are missing in it, so no run removes them from the tables without an explicit option.
    let before = count(place.lake.path());
    let warned = place.follow("harness-lake replay").expect(0);
    assert!(
        warned.stderr.contains("skipped the tables of"),
        "{warned:?}"
    );
    assert_eq!(count(place.lake.path()), before);
    place.follow("harness-lake replay --all").expect(0);
    assert!(count(place.lake.path()) < before);
    let audit = place.follow("harness-lake verify").expect(7);
    assert!(audit.stdout.contains("in no raw partition"), "{audit:?}");
    let again = "harness-lake backfill --refetch --from $DAY --to $NEXT_DAY; harness-lake verify";
    place.follow(again).expect(0);
    place.sim.assert_truth(&place.lake);
}

#[test]
fn previous_record_replaces_a_damaged_one() {
    let place = Place::new();
    let records = format!("{}/_state/checkpoints", place.lake.path());
    let names = fs::read_dir(&records).unwrap();
    let newest = names.map(|entry| entry.unwrap().path()).max().unwrap();
    fs::write(&newest, "damage").unwrap();
    let run = place.sim.sync(&place.lake, &[]).expect(7);
    let name = newest.file_name().unwrap().to_str().unwrap();
    assert!(run.stderr.contains(name), "{}", run.stderr);
    // The next record has the number of the deleted one, but another watermark.
    place.sim.advance(SignedDuration::from_hours(1));
    place.mend("The newest record of the checkpoint is damaged");
    place.sim.assert_truth(&place.lake);
}

#[test]
fn lost_metadata_is_replaced_by_that_of_an_identical_lake() {
    let place = Place::new();
    let identity = format!("{}/_state/lake.json", place.lake.path());
    let before = fs::read_to_string(&identity).unwrap();
    fs::remove_file(&identity).unwrap();
    place.sim.sync(&place.lake, &[]).expect(7);
    place.sim.advance(SignedDuration::from_hours(1));
    place.mend("The lake metadata is lost");
    place.sim.assert_truth(&place.lake);
    let but_when_and_by_whom = |text: &str| {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        value
            .as_object_mut()
            .unwrap()
            .retain(|key, _| key != "created_at" && key != "write_id");
        value
    };
    let after = fs::read_to_string(&identity).unwrap();
    assert_eq!(but_when_and_by_whom(&after), but_when_and_by_whom(&before));
}

#[test]
fn lost_checkpoint_costs_only_requests() {
    let place = Place::new();
    let objects = |lake: &Lake| {
        let mut objects = lake.data_objects();
        // They are derived from the checkpoint.
        objects.retain(|name, _| !name.starts_with("orgs/") && !name.starts_with("projects/"));
        objects
    };
    let before = objects(&place.lake);
    place.mend("The checkpoint is lost");
    assert!(
        objects(&place.lake) == before,
        "the same content is not written"
    );
    place.sim.assert_truth(&place.lake);
}

#[test]
fn wrong_key_changes_nothing_and_the_right_one_continues() {
    let place = Place::new();
    let before = place.lake.data_objects();
    let spec = AccountSpec {
        account_id: "another".to_owned(),
        ..AccountSpec::small(now())
    };
    let another = Sim::start(&spec, |_| {});
    another.sync(&place.lake, &[]).expect(7);
    for (key, code) in [("norights", 6), ("forbidden", 5)] {
        let mut sync = place.sim.command(&["sync", "--lake", place.lake.path()]);
        let run = sync.env("HARNESS_API_KEY", place.sim.key_of(key)).output();
        Run::of(run.unwrap()).expect(code);
    }
    assert!(place.lake.data_objects() == before, "nothing is changed");
    place.sim.advance(SignedDuration::from_hours(3));
    place.mend("A run used the wrong key");
    place.sim.assert_truth(&place.lake);
}

#[test]
fn backup_taken_during_a_run_is_complete_after_the_next_run() {
    let place = Place::new();
    let blocks = procedure("Backup and restore");
    let [backup, restore] = <[_; 2]>::try_from(blocks).unwrap();
    let (state, copies) = backup.split_once("for folder in ").unwrap();
    let (folders, copy) = copies.split_once("; do ").unwrap();
    assert_eq!(folders.split(' ').count(), 8);
    place.follow(state).expect(0);
    for folder in folders.split(' ') {
        place.sim.advance(SignedDuration::from_hours(5));
        place.sim.sync(&place.lake, &[]).expect(3);
        let copy = format!("for folder in {folder}; do {copy}");
        place.follow(&copy).expect(0);
    }
    place.sim.advance(SignedDuration::from_hours(24));
    place.sim.sync(&place.lake, &[]).expect(3);
    place.follow(&restore).expect(0);
    place.sim.assert_truth(&place.lake);
}

#[test]
fn replay_into_a_new_lake_changes_the_bucket_count() {
    let place = Place::new();
    let before = count(place.lake.path());
    place.mend("Change the number of buckets");
    let new = place.lake.beside("new");
    let day = format!("{new}/executions/v1/start_date={}", place.day());
    assert_eq!(fs::read_dir(day).unwrap().count(), 4);
    assert_eq!(count(&new), before);
}

#[test]
fn replay_into_a_new_lake_changes_the_period() {
    let place = Place::new();
    place.mend("Change the period");
    let new = place.lake.beside("new");
    let month = &place.day()[..7];
    let month = format!("{new}/executions/v1/start_month={month}-01");
    assert_eq!(fs::read_dir(month).unwrap().count(), 1);
    assert_eq!(count(&new), count(place.lake.path()));
}

#[test]
fn moved_lake_continues() {
    for way in 0..2 {
        let place = Place::new();
        place.sim.advance(SignedDuration::from_hours(3));
        let block = procedure("Move a lake").swap_remove(way);
        place.follow(&block).expect(0);
        let new = place.lake.beside("new");
        fs::remove_dir_all(place.lake.path()).unwrap();
        fs::rename(&new, place.lake.path()).unwrap();
        place.sim.assert_truth(&place.lake);
    }
}
