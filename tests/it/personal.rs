//! Personal data: kept, hashed or dropped, as chosen when the lake was created.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs;

use harness_lake::pii::Key;
use harness_sim::{AccountSpec, PEOPLE, Truth, Vintage};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Lake, Run, Sim, compare, now, rows};

const KEY: &str = "the tests' key for personal data";

/// Columns that contain personal data, by table.
const COLUMNS: [(&str, &[&str]); 3] = [
    (
        "executions",
        &["triggered_by_name", "triggered_by_email", "aborted_by_name"],
    ),
    ("commits", &["author_name", "author_email"]),
    ("deployments", &["triggered_by_name"]),
];

/// Returns the names and addresses of all users of the simulator, in lower case.
fn everyone() -> impl Iterator<Item = String> {
    let names = PEOPLE.iter().flat_map(|(name, email)| [*name, *email]);
    names.chain(["octo-cat"]).map(str::to_lowercase)
}

/// Fails if a text names a person, also in nested JSON strings.
#[track_caller]
fn assert_nobody_in(text: &str, place: &str) {
    let text = text.to_lowercase().replace('\\', "");
    for person in everyone() {
        assert!(!text.contains(&person), "{person} is in {place}");
    }
}

/// Searches every byte of a lake, including compressed data.
#[track_caller]
fn assert_nobody_in_lake(lake: &Lake) {
    let mut parquet = Vec::new();
    for (path, bytes) in lake.files() {
        let bytes = match () {
            () if path.starts_with("_state/checkpoints/") => {
                zstd::decode_all(bytes.as_slice()).unwrap()
            }
            () if path.ends_with(".parquet") => {
                parquet.push(format!("{}/{path}", lake.path()));
                bytes
            }
            () => bytes,
        };
        assert_nobody_in(&String::from_utf8_lossy(&bytes), &path);
    }
    assert!(parquet.len() > 40, "a complete lake");
    let tables: HashSet<&str> = (parquet.iter())
        .filter_map(|path| path.strip_prefix(lake.path())?.split('/').nth(1))
        .collect();
    // The text of all columns of a row, regardless of type.
    let texts: Vec<String> = tables
        .iter()
        .map(|table| {
            format!(
                "SELECT lower(to_json(t)::VARCHAR) FROM {} t",
                lake.table(table)
            )
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for (table, found) in tables.iter().zip(rows(&texts)) {
        assert!(!found.is_empty(), "{table} is empty");
        let text: String = found.iter().filter_map(|row| row[0].as_str()).collect();
        assert_nobody_in(&text, table);
    }
}

fn hash(text: &str) -> String {
    let mut hash = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).unwrap();
    hash.update(text.trim().to_lowercase().as_bytes());
    let mut text = String::new();
    for byte in hash.finalize().into_bytes() {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

/// Returns the expected rows of a lake that does not keep personal data.
fn treated(mut truth: Truth, treat: fn(&str) -> Value) -> Truth {
    for (table, columns) in COLUMNS {
        let rows = match table {
            "commits" => &mut truth.commits,
            "deployments" => &mut truth.deployments,
            _ => &mut truth.executions,
        };
        for row in rows {
            for column in columns {
                let value = &mut row[*column];
                if let Some(person) = value.as_str().filter(|it| !["", "systemUser"].contains(it)) {
                    *value = treat(person);
                }
            }
        }
    }
    truth
}

fn sync(sim: &Sim, lake: &Lake, more: &[&str], key: Option<&str>) -> Run {
    let sync = ["sync", "--output", "json", "--lake", lake.path()];
    let mut command = sim.command(&[&sync, more].concat());
    command.env("RUST_LOG", "trace");
    if let Some(key) = key {
        command.env("HARNESS_LAKE_PII_KEY", key);
    }
    let run = Run::of(command.output().unwrap());
    for text in [&run.stdout, &run.stderr] {
        assert!(!text.contains(KEY), "the key for personal data is printed");
    }
    run
}

/// Runs `check`, which refuses the same settings as `sync`.
fn check(sim: &Sim, lake: &Lake, more: &[&str], key: Option<&str>) -> Run {
    let check = ["check", "--output", "json", "--lake", lake.path()];
    let mut command = sim.command(&[&check, more].concat());
    command.envs(key.map(|key| ("HARNESS_LAKE_PII_KEY", key)));
    Run::of(command.output().unwrap())
}

/// Runs twice and replays without a key. Expects every row without personal data, and no personal
/// data anywhere in the lake.
fn run_without_persons(vintage: Vintage, mode: &str, key: Option<&str>, treat: fn(&str) -> Value) {
    let spec = AccountSpec::small(now());
    let sim = Sim::start(&spec, |options| options.vintage = vintage);
    let lake = Lake::new();
    let report = lake.beside("report.json");
    let first = sync(&sim, &lake, &["--pii", mode, "--report", &report], key).expect(3);
    sim.advance(jiff::SignedDuration::from_hours(30));
    let second = sync(&sim, &lake, &[], key).expect(3);
    let again = sim
        .run(&["replay", "--all", "--lake", lake.path()])
        .expect(0);
    for run in [&first, &second, &again] {
        assert_nobody_in(&run.stdout, "standard output");
        assert_nobody_in(&run.stderr, "the log");
    }
    assert!(first.stderr.contains("TRACE"), "the log is loud");
    assert_nobody_in(&fs::read_to_string(report).unwrap(), "the report");
    assert_nobody_in_lake(&lake);
    let truth = treated(sim.truth(), treat);
    let difference = compare(lake.path(), &truth, &sim.edited_unseen(now()));
    assert_eq!(difference, None, "{vintage:?} {mode}");
    sim.run(&["verify", "--lake", lake.path()]).expect(0);
}

#[test]
fn hashed_personal_data_is_absent_and_stays_comparable() {
    for vintage in [Vintage::Saas, Vintage::Older] {
        run_without_persons(vintage, "hash", Some(KEY), |person| json!(hash(person)));
    }
}

#[test]
fn dropped_personal_data_is_absent() {
    for vintage in [Vintage::Saas, Vintage::Older] {
        run_without_persons(vintage, "drop", None, |_| Value::Null);
    }
}

/// Proves that the search can find personal data.
#[test]
fn personal_data_is_kept_by_default() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let json: Value = serde_json::from_slice(&lake.files()["_state/lake.json"]).unwrap();
    assert_eq!(json["pii"], json!({"mode": "keep"}));
    let found = format!(
        "SELECT lower(string_agg(to_json(t)::VARCHAR, '')) FROM {} t",
        lake.table("_raw")
    );
    let found = rows(&[&found])[0][0][0].as_str().unwrap().replace('\\', "");
    for person in everyone() {
        assert!(found.contains(&person), "{person}");
    }
}

#[test]
fn hashed_persons_can_be_joined_and_counted() {
    let sim = Sim::small();
    let (plain, hashed) = (Lake::new(), Lake::new());
    sim.sync(&plain, &[]).expect(3);
    sync(&sim, &hashed, &[], Some(KEY)).expect(3);
    let answers = [&plain, &hashed].map(|lake| {
        let (executions, commits) = (lake.table("executions"), lake.table("commits"));
        let busiest = format!(
            "SELECT count(*) FROM {executions} WHERE triggered_by_email IS NOT NULL
             GROUP BY lower(triggered_by_email) ORDER BY ALL"
        );
        let join = format!(
            "SELECT count(*), count(DISTINCT e.triggered_by_email) FROM {executions} e
             JOIN {commits} c ON lower(c.author_email) = lower(e.triggered_by_email)"
        );
        rows(&[&busiest, &join])
    });
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0][0].len() > 5 && answers[0][1][0][0] != 0);
}

#[test]
fn different_pii_setting_or_key_is_refused() {
    let sim = Sim::small();
    let lake = Lake::new();
    sync(&sim, &lake, &["--pii", "hash"], Some(KEY)).expect(3);
    let json: Value = serde_json::from_slice(&lake.files()["_state/lake.json"]).unwrap();
    let fingerprint = Key::new(KEY).unwrap().fingerprint();
    let expected = json!({"mode": "hash", "key_fingerprint": fingerprint});
    assert_eq!(json["pii"], expected);

    let other = "another key of the tests";
    let before = lake.data_objects();
    for (more, key) in [
        (&[][..], None),
        (&[][..], Some(other)),
        (&["--pii", "hash"][..], Some(other)),
        (&["--pii", "keep"][..], None),
        (&["--pii", "drop"][..], Some(KEY)),
    ] {
        let run = sync(&sim, &lake, more, key).expect(7);
        assert_eq!(run.error_code(), "lake", "{more:?}");
        let said = run.json()["error"].to_string();
        assert!(said.contains("--pii") && !said.contains(other), "{said}");
        assert_eq!(check(&sim, &lake, more, key).code, Some(7), "{more:?}");
    }
    check(&sim, &lake, &["--pii", "hash"], Some(KEY)).expect(0);
    check(&sim, &lake, &[], Some(KEY)).expect(0);
    assert_eq!(lake.data_objects(), before);

    let file = lake.beside("pii.key");
    fs::write(&file, format!("{KEY}\n")).unwrap();
    sync(&sim, &lake, &["--pii-key-file", &file], None).expect(3);
    let range = ["--from", "2026-11-20", "--to", "2026-11-21", "--refetch"];
    let backfill = [&["backfill", "--lake", lake.path()][..], &range].concat();
    sim.run(&backfill).expect(7);
    let keyed = [&backfill[..], &["--pii-key-file", &file]].concat();
    sim.run(&keyed).expect(3);
    assert_nobody_in_lake(&lake);
}

#[test]
fn missing_or_short_pii_key_is_a_usage_error() {
    let sim = Sim::small();
    let lake = Lake::new();
    for (more, key) in [
        (&["--pii", "hash"][..], None),
        (&["--pii", "hash"][..], Some("   ")),
        (&[][..], Some("short")),
        (&["--pii-key-file", "/nowhere/at/all"][..], None),
        (&["--pii", "scramble"][..], None),
    ] {
        sync(&sim, &lake, more, key).expect(2);
    }
    assert!(!fs::exists(lake.path()).unwrap(), "no lake is created");
}

/// Checks the files of a run that was killed between writing its list of dates and merging.
#[cfg(feature = "failpoints")]
#[test]
fn killed_run_leaves_no_personal_data() {
    let sim = Sim::small();
    for point in ["after-pending", "after-raw", "before-record"] {
        let lake = Lake::new();
        let sync = ["sync", "--lake", lake.path(), "--pii", "drop"];
        let mut command = sim.command(&sync);
        command.env("HARNESS_LAKE_FAILPOINT", point);
        let killed = Run::of(command.output().unwrap());
        assert_eq!(killed.code, None, "{point}");
        let files = lake.files();
        assert!(files.keys().any(|path| path.starts_with("_state/pending/")));
        for (path, bytes) in files {
            assert_nobody_in(&String::from_utf8_lossy(&bytes), &path);
        }
    }
}
