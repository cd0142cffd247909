//! Lakes of other versions: those of a later version are refused and left unchanged, those of an earlier one open.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use arrow_array::{Array, RecordBatch};
use harness_sim::AccountSpec;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::lab::decoded;
use crate::support::{Lake, Run, Sim, bare_command};

/// A lake of 0.1.0 before its release: two runs over the account of [`account`].
const OLDEST: &str = "fixtures/lake-0.1";

const CHECKPOINTS: &str = "_state/checkpoints";

/// A change that turns a lake into one of a later version.
type Change = fn(&Path);

fn account() -> Sim {
    let spec = AccountSpec {
        seed: 7,
        orgs: 1,
        projects_per_org: 2,
        executions: 8,
        days: 1,
        future_hours: 14 * 24,
        ..AccountSpec::demo("2026-11-24T15:00:00Z".parse().unwrap())
    };
    let sim = Sim::start(&spec, |_| {});
    sim.advance(SignedDuration::from_hours(9));
    sim
}

/// Returns a copy of the oldest lake.
fn oldest() -> Lake {
    let lake = Lake::new();
    copy_folder(Path::new(OLDEST), Path::new(lake.path()));
    lake
}

/// Returns every file of a lake but the lock, which names the last run that held it.
fn files(lake: &Lake) -> BTreeMap<String, Vec<u8>> {
    let mut files = lake.files();
    files.remove("_state/lock");
    files
}

fn later(change: Change) -> Lake {
    let lake = oldest();
    change(Path::new(lake.path()));
    lake
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn offline(arguments: &[&str]) -> Run {
    Run::of(bare_command(arguments).output().unwrap())
}

/// Changes `_state/lake.json`.
fn change_identity(lake: &Path, change: impl FnOnce(&mut Value)) {
    let path = lake.join("_state/lake.json");
    let mut identity: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut identity);
    fs::write(path, identity.to_string()).unwrap();
}

fn newest_record(lake: &Path) -> PathBuf {
    let records = fs::read_dir(lake.join(CHECKPOINTS)).unwrap();
    records.map(|record| record.unwrap().path()).max().unwrap()
}

fn read_record(lake: &Path) -> Value {
    let packed = fs::read(newest_record(lake)).unwrap();
    serde_json::from_slice(&zstd::decode_all(&packed[..]).unwrap()).unwrap()
}

/// Changes the newest checkpoint record.
fn change_record(lake: &Path, change: impl FnOnce(&mut Value)) {
    let mut record = read_record(lake);
    change(&mut record);
    let packed = zstd::encode_all(record.to_string().as_bytes(), 3).unwrap();
    fs::write(newest_record(lake), packed).unwrap();
}

/// Raises a version in the footers of all files below a folder.
fn raise(lake: &Path, folder: &str, key: &str) {
    for path in crate::support::lab::files(&lake.join(folder)) {
        let mut file = fs::read(&path).unwrap();
        let at = file
            .windows(key.len())
            .rposition(|part| part == key.as_bytes())
            .unwrap();
        let value = at + key.len() + 2;
        assert_eq!(file[value], b'1', "{}", path.display());
        file[value] = b'2';
        fs::write(path, file).unwrap();
    }
}

const SCHEMA_VERSION: &str = "harness_lake.schema_version";

fn newer_format(lake: &Path) {
    change_identity(lake, |identity| {
        identity["format"] = json!(2);
        identity["buckets"] = json!("of another shape");
    });
}

fn unknown_feature(lake: &Path) {
    change_identity(lake, |identity| identity["features"] = json!(["telepathy"]));
}

fn other_hash(lake: &Path) {
    change_identity(lake, |identity| identity["bucket_hash"] = json!("sha-7"));
}

fn record_of_newer_format(lake: &Path) {
    change_record(lake, |record| *record = json!({"format": 2, "body": []}));
}

fn record_with_unknown_feature(lake: &Path) {
    change_record(lake, |record| record["features"] = json!(["telepathy"]));
}

fn newer_scopes(lake: &Path) {
    raise(lake, "scopes", SCHEMA_VERSION);
}

fn newer_pending_list(lake: &Path) {
    let folder = lake.join("_state/pending");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("01M8QX5QK6AWCH4YST2CK0YR6N-0.json");
    fs::write(&path, r#"{"format": 2, "work": []}"#).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
}

fn newer_tables(lake: &Path) {
    for table in ["executions", "stages", "deployments", "commits"] {
        raise(lake, table, SCHEMA_VERSION);
    }
}

fn newer_raw(lake: &Path) {
    raise(lake, "_raw", SCHEMA_VERSION);
}

/// Fails unless a run refused the lake and left every file unchanged.
#[track_caller]
fn assert_refused(lake: &Lake, before: &BTreeMap<String, Vec<u8>>, run: Run) {
    let run = run.expect(7);
    assert_eq!(run.error_code(), "lake");
    let error = &run.json()["error"];
    let text = format!("{} {}", error["message"], error["hint"]);
    assert!(
        text.contains("written by a newer version of harness-lake"),
        "{text}"
    );
    assert!(text.contains("upgrade harness-lake"), "{text}");
    for advice in ["damaged", "delete", "remove", "verify"] {
        assert!(!text.contains(advice), "{advice}: {text}");
    }
    let after = files(lake);
    let changed = |path: &&String| before.get(*path) != after.get(*path);
    let changed: Vec<_> = before.keys().chain(after.keys()).filter(changed).collect();
    assert!(changed.is_empty(), "{changed:?} {run:?}");
}

/// Runs commands on a lake, each with `--output json --lake`.
fn assert_all_refuse(lake: &Lake, sim: &Sim, commands: &[&[&str]]) {
    let before = files(lake);
    for command in commands {
        let run = sim.run(&[command, &["--output", "json", "--lake", lake.path()][..]].concat());
        assert_refused(lake, &before, run);
    }
}

const BACKFILL: [&str; 5] = ["backfill", "--from", "2026-11-23", "--to", "2026-11-24"];

#[test]
fn every_command_refuses_a_lake_of_a_later_version() {
    let sim = account();
    let new = Lake::new();
    let commands: [&[&str]; 12] = [
        &["sync", "--buckets", "2"],
        &BACKFILL,
        &["replay"],
        &["replay", "--all"],
        &["replay", "--into", new.path()],
        &["plan", "sync"],
        &[
            "plan",
            "backfill",
            "--from",
            "2026-11-23",
            "--to",
            "2026-11-24",
        ],
        &["plan", "replay"],
        &["status"],
        &["verify"],
        &["verify", "--source"],
        &["check"],
    ];
    for change in [unknown_feature, record_of_newer_format] {
        let lake = later(change);
        assert_all_refuse(&lake, &sim, &commands);
        assert!(!Path::new(new.path()).exists());
        let before = files(&lake);
        let source = oldest();
        let copy = [
            "replay",
            "--output",
            "json",
            "--lake",
            source.path(),
            "--into",
            lake.path(),
        ];
        assert_refused(&lake, &before, offline(&copy));
    }
}

#[test]
fn each_part_of_the_state_can_require_a_later_version() {
    let sim = account();
    let changes: [Change; 4] = [
        newer_format,
        other_hash,
        record_with_unknown_feature,
        newer_scopes,
    ];
    for change in changes {
        assert_all_refuse(&later(change), &sim, &[&["sync"], &["replay"], &["verify"]]);
    }
    assert_all_refuse(&later(newer_pending_list), &sim, &[&["sync"], &BACKFILL]);
}

#[test]
fn objects_of_a_later_schema_are_not_replaced() {
    let sim = account();
    let refetch = [&BACKFILL[..], &["--refetch"]].concat();
    for change in [newer_tables, newer_raw] {
        let lake = later(change);
        let commands: [&[&str]; 5] = [
            &["sync"],
            &refetch,
            &["replay"],
            &["replay", "--all"],
            &["verify"],
        ];
        assert_all_refuse(&lake, &sim, &commands);
    }
}

#[test]
fn tables_of_a_later_writer_are_not_rebuilt() {
    let lake = later(|lake| {
        for table in ["executions", "stages", "deployments", "commits"] {
            for path in crate::support::lab::files(&lake.join(table)) {
                let file = fs::read(&path).unwrap();
                let text = String::from_utf8_lossy(&file);
                assert!(text.contains("0.1.0"), "{}", path.display());
                let patched = replace(&file, b"\x050.1.0", b"\x059.1.0");
                fs::write(path, patched).unwrap();
            }
        }
    });
    let before = lake.data_objects();
    let report = offline(&["replay", "--output", "json", "--lake", lake.path()]).expect(0);
    assert_eq!(report.json()["files"], json!([]));
    assert_eq!(lake.data_objects(), before);
}

fn replace(file: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    assert_eq!(old.len(), new.len());
    let mut file = file.to_vec();
    while let Some(at) = file.windows(old.len()).position(|part| part == old) {
        file[at..at + old.len()].copy_from_slice(new);
    }
    file
}

#[test]
fn unknown_members_survive_a_rewrite() {
    let sim = account();
    let lake = oldest();
    let path = Path::new(lake.path());
    change_identity(path, |identity| {
        identity["later"] = json!(1);
        identity["buckets"][0]["later"] = json!(2);
    });
    change_record(path, |record| {
        record["later"] = json!({"of": [3, 4.5, null]});
        let state = &mut record["state"];
        state["later"] = json!(5);
        state["listing"]["later"] = json!(6);
        for part in ["scopes", "open"] {
            for entry in state[part].as_object_mut().unwrap().values_mut() {
                entry["later"] = json!(7);
            }
        }
        for entry in state["listing"]["projects"]
            .as_object_mut()
            .unwrap()
            .values_mut()
        {
            entry["later"] = json!(8);
        }
    });
    sim.sync(&lake, &["--buckets", "2"]).expect(0);

    let identity: Value = serde_json::from_slice(&lake.files()["_state/lake.json"]).unwrap();
    assert_eq!(identity["buckets"][1]["count"], 2);
    assert_eq!(
        [&identity["later"], &identity["buckets"][0]["later"]],
        [1, 2]
    );
    assert_eq!(
        (&identity["format"], &identity["features"]),
        (&json!(1), &json!([]))
    );
    assert_eq!(lake.checkpoints(), 3);
    let record = read_record(path);
    let state = &record["state"];
    assert_eq!(
        (&record["format"], &record["features"]),
        (&json!(1), &json!([]))
    );
    assert_eq!(record["later"], json!({"of": [3, 4.5, null]}));
    assert_eq!([&state["later"], &state["listing"]["later"]], [5, 6]);
    for (part, expected) in [(&state["scopes"], 7), (&state["listing"]["projects"], 8)] {
        for entry in part.as_object().unwrap().values() {
            assert_eq!(entry["later"], expected, "{part}");
        }
    }
}

/// Returns the columns of a file by name.
fn columns(batch: &RecordBatch) -> BTreeMap<&str, &dyn Array> {
    let schema = batch.schema_ref();
    let names = schema.fields().iter().map(|field| field.name().as_str());
    names
        .zip(batch.columns().iter().map(AsRef::as_ref))
        .collect()
}

#[test]
fn lake_of_the_oldest_version_opens() {
    let lake = oldest();
    let on = |command: &[&str]| {
        offline(&[command, &["--output", "json", "--lake", lake.path()][..]].concat())
    };
    let status = on(&["status"]).expect(0).json();
    assert_eq!(status["checkpoint"], 2);
    assert_eq!(status["scopes"].as_array().unwrap().len(), 2);
    on(&["replay", "--all"]).expect(0);
    on(&["verify"]).expect(0);
    let rebuilt = decoded(Path::new(lake.path()));
    let kept = decoded(Path::new(OLDEST));
    assert!(kept.keys().eq(rebuilt.keys()));
    for (path, batch) in &kept {
        let now = columns(&rebuilt[path]);
        for (name, column) in columns(batch) {
            assert_eq!(now[name], column, "{name} of {path} has other values now");
        }
    }

    let sim = account();
    let report = sim.sync(&lake, &[]).expect(0).json();
    assert_ne!(report["executions"]["inserted"], 0, "{report}");
    assert_ne!(report["executions"]["unchanged"], 0, "{report}");
    on(&["verify"]).expect(0);
}
