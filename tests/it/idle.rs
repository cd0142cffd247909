//! `--idle-interval`: projects without a new execution for a week.

use std::collections::BTreeMap;

use harness_sim::{Account, AccountSpec};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::support::{Lake, Sim, now};

const ONCE_A_DAY: [&str; 2] = ["--idle-interval", "1d"];

/// Returns the watermark of each project, from `status`.
fn watermarks(sim: &Sim, lake: &Lake) -> BTreeMap<String, Timestamp> {
    let status = sim.run(&["status", "--output", "json", "--lake", lake.path()]);
    let status = status.expect(0).json();
    let scopes = status["scopes"].as_array().unwrap().iter();
    let watermark = |scope: &Value| {
        let [name, at] = ["scope", "watermark"].map(|key| scope[key].as_str());
        Some((name?.to_owned(), at?.parse().unwrap()))
    };
    scopes.filter_map(watermark).collect()
}

#[test]
fn idle_projects_are_asked_once_per_interval() {
    let spec = AccountSpec {
        projects_per_org: 6,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let projects = Account::generate(&spec).scopes_at(now()).len();
    let lake = Lake::new();
    // The last executions start two days after `now`, so every project is idle then.
    sim.advance(SignedDuration::from_hours(24 * 40));
    let first = sim
        .sync(&lake, &["--start-date", "2026-11-01"])
        .expect(0)
        .json();
    assert_eq!(first["idle_scopes"], 0);
    let start = watermarks(&sim, &lake);
    assert_eq!(start.len(), projects);

    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    let mut before = start;
    for _ in 0..4 {
        sim.advance(SignedDuration::from_hours(6));
        let plan = ["plan", "sync", "--output", "json", "--lake", lake.path()];
        let plan = sim.run(&[&plan[..], &ONCE_A_DAY].concat()).expect(0).json();
        let report = sim.sync(&lake, &ONCE_A_DAY).expect(0).json();
        let after = watermarks(&sim, &lake);
        let moved = after.iter().filter(|(scope, at)| before[*scope] != **at);
        let moved: Vec<_> = moved.map(|(scope, _)| scope.clone()).collect();
        assert_eq!(
            report["idle_scopes"],
            json!(projects - moved.len()),
            "{report}"
        );
        assert_eq!(plan["idle_scopes"], report["idle_scopes"], "{plan}");
        assert_eq!(
            plan["calls"], report["requests"]["total"],
            "{plan} {report}"
        );
        assert_eq!(report["scopes"]["ok"], json!(moved.len()), "{report}");
        assert_eq!(
            report["covered_to"],
            json!(after.values().min()),
            "{report}"
        );
        for scope in moved {
            *asked.entry(scope).or_default() += 1;
        }
        before = after;
    }
    assert_eq!(asked.len(), projects);
    assert!(asked.values().all(|times| *times == 1), "{asked:?}");

    let all = sim.sync(&lake, &[]).expect(0).json();
    assert_eq!(all["idle_scopes"], 0);
    assert_eq!(all["scopes"]["ok"], json!(projects));
}
