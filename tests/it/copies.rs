//! `replay --into`: one lake merged into another.

use std::process::Stdio;

use harness_sim::AccountSpec;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::lab::assert_same_rows;
use crate::support::{Lake, Run, Sim, bare_command, now, rows};

/// Copies a lake into another, without an API key.
fn copy(from: &Lake, into: &str, more: &[&str]) -> Run {
    let fixed = [
        "replay",
        "--output",
        "json",
        "--lake",
        from.path(),
        "--into",
        into,
    ];
    Run::of(bare_command(&[&fixed, more].concat()).output().unwrap())
}

fn verify(lake: &str) -> Run {
    Run::of(
        bare_command(&["verify", "--output", "json", "--lake", lake])
            .output()
            .unwrap(),
    )
}

fn future() -> Sim {
    let spec = AccountSpec {
        future_hours: 100,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |_| {})
}

/// Returns a lake after two runs.
fn later() -> (Sim, Lake) {
    let sim = future();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    sim.advance(SignedDuration::from_hours(9));
    sim.sync(&lake, &[]).expect(3);
    (sim, lake)
}

fn observed(report: &Value) -> u64 {
    report["executions"]["observed"].as_u64().unwrap()
}

#[test]
fn copy_has_every_row_and_resumes_where_the_source_stopped() {
    let (sim, lake) = later();
    let before = lake.data_objects();
    let new = Lake::new();
    let report = copy(&lake, new.path(), &[]).expect(0).json();
    let truth = sim.truth().executions.len() as u64;
    assert_eq!(
        (observed(&report), &report["command"]),
        (truth, &json!("replay"))
    );
    assert_eq!(report["requests"]["total"], 0);
    assert_same_rows(lake.path(), new.path(), &[]);
    verify(new.path()).expect(0);
    assert_eq!(lake.data_objects(), before, "what is read stays as it is");

    let objects = new.data_objects();
    let again = copy(&lake, new.path(), &[]).expect(0).json();
    assert_eq!(again["executions"]["unchanged"], json!(truth));
    assert_eq!(
        new.data_objects(),
        objects,
        "the same content writes nothing"
    );

    sim.advance(SignedDuration::from_hours(9));
    let [old, copied] = [&lake, &new].map(|lake| sim.sync(lake, &[]).expect(3).json());
    assert!(
        observed(&copied) < truth / 2,
        "what is covered is not read again: {copied}"
    );
    for key in ["observed", "inserted", "updated"] {
        assert_eq!(old["executions"][key], copied["executions"][key], "{key}");
    }
    assert_same_rows(lake.path(), new.path(), &[]);
    sim.assert_truth_but(&new, &sim.edited_unseen(now()));
}

#[test]
fn copy_never_replaces_a_newer_row() {
    let (sim, lake) = later();
    let new = Lake::new();
    copy(&lake, new.path(), &[]).expect(0);
    sim.advance(SignedDuration::from_hours(9));
    sim.sync(&new, &[]).expect(3);
    let newer = new.data_objects();
    copy(&lake, new.path(), &[]).expect(0);
    assert_eq!(new.data_objects(), newer);
    // In the other direction, the older lake is updated.
    copy(&new, lake.path(), &[]).expect(0);
    assert_same_rows(lake.path(), new.path(), &[]);
}

#[test]
fn copy_and_run_share_a_lake_concurrently() {
    let (sim, lake) = later();
    let new = Lake::new();
    sim.sync(&new, &["--start-date", "2026-11-20"]).expect(3);
    sim.advance(SignedDuration::from_hours(9));
    let children = [
        bare_command(&["replay", "--lake", lake.path(), "--into", new.path()]),
        sim.command(&["sync", "--partial-exit-code", "0", "--lake", new.path()]),
    ]
    .map(|mut command| {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    for child in children {
        Run::of(child.wait_with_output().unwrap()).expect(0);
    }
    verify(new.path()).expect(0);
    sim.assert_truth_but(&new, &sim.edited_unseen(now()));
}

#[test]
fn copy_can_have_another_bucket_count() {
    let (sim, lake) = later();
    let new = Lake::new();
    copy(&lake, new.path(), &["--buckets", "3"]).expect(0);
    assert!(
        new.data_objects()
            .keys()
            .any(|path| path.ends_with("part-2-of-3.parquet"))
    );
    verify(new.path()).expect(0);
    for table in ["_raw", "executions", "stages", "deployments", "commits"] {
        let difference = format!(
            "SELECT count(*) FROM ((FROM {0} EXCEPT ALL FROM {1}) UNION ALL (FROM {1} EXCEPT ALL FROM {0}))",
            lake.table(table),
            new.table(table),
        );
        assert_eq!(rows(&[&difference])[0][0][0], 0, "{table}");
    }
    sim.sync(&new, &[]).expect(3);
    sim.assert_truth_but(&new, &sim.edited_unseen(now()));
}

#[test]
fn copy_of_some_dates_covers_only_them() {
    let (sim, lake) = later();
    let days_ago = |days: i64| {
        (sim.now() - SignedDuration::from_hours(24 * days))
            .strftime("%Y-%m-%d")
            .to_string()
    };
    let new = Lake::new();
    let (from, to) = (days_ago(9), days_ago(3));
    copy(&lake, new.path(), &["--from", &from, "--to", &to]).expect(0);
    let status = ["status", "--output", "json", "--lake", new.path()];
    let status = Run::of(bare_command(&status).output().unwrap())
        .expect(0)
        .json();
    for scope in status["scopes"].as_array().unwrap() {
        for (key, at) in [("covered_from", &from), ("watermark", &to)] {
            let bound = scope[key].as_str();
            assert!(
                bound.is_none_or(|bound| bound.starts_with(at.as_str())),
                "{scope}"
            );
        }
    }
    verify(new.path()).expect(0);
    sim.sync(&new, &[]).expect(3);
    let (from, to) = (days_ago(40), days_ago(-1));
    let range = [
        "backfill",
        "--lake",
        new.path(),
        "--from",
        &from,
        "--to",
        &to,
    ];
    sim.run(&range).expect(3);
    sim.assert_truth_but(&new, &sim.edited_unseen(now()));
}

#[test]
fn incompatible_lakes_are_refused() {
    let (sim, lake) = later();
    let other = Sim::start(
        &AccountSpec {
            account_id: "another".to_owned(),
            ..AccountSpec::small(now())
        },
        |_| {},
    );
    let (theirs, dropped) = (Lake::new(), Lake::new());
    other.sync(&theirs, &[]).expect(3);
    sim.sync(&dropped, &["--pii", "drop"]).expect(3);
    for into in [&theirs, &dropped] {
        let before = into.data_objects();
        assert_eq!(copy(&lake, into.path(), &[]).expect(7).error_code(), "lake");
        assert_eq!(into.data_objects(), before);
    }
    assert_eq!(
        copy(&lake, lake.path(), &[]).expect(2).error_code(),
        "usage"
    );
    assert_eq!(
        copy(&Lake::new(), theirs.path(), &[])
            .expect(7)
            .error_code(),
        "lake"
    );

    // Dropped or hashed values stay so without the key.
    let again = Lake::new();
    copy(&dropped, again.path(), &[]).expect(0);
    let identity =
        |lake: &Lake| serde_json::from_slice::<Value>(&lake.files()["_state/lake.json"]).unwrap();
    assert_eq!(identity(&again)["pii"], json!({"mode": "drop"}));
    assert_same_rows(dropped.path(), again.path(), &[]);
}

/// Kills a copy at steps of the protocol, then starts it again.
#[cfg(feature = "failpoints")]
#[test]
fn killed_copy_covers_nothing_and_the_next_completes_it() {
    let (_sim, lake) = later();
    for point in [
        "after-pending",
        "after-raw:3",
        "after-table:7",
        "before-record",
        "after-record",
    ] {
        let new = Lake::new();
        let mut command = bare_command(&["replay", "--lake", lake.path(), "--into", new.path()]);
        let killed = Run::of(
            command
                .env("HARNESS_LAKE_FAILPOINT", point)
                .output()
                .unwrap(),
        );
        assert_eq!(killed.code, None, "{point}");
        let left = verify(new.path()).expect(0).json();
        assert!(!left["findings"].to_string().contains("damage"), "{point}");
        copy(&lake, new.path(), &[]).expect(0);
        assert_same_rows(lake.path(), new.path(), &[]);
    }
}
