//! Runs that share a lake concurrently, or that observed less than earlier runs.

use std::process::Stdio;

use harness_sim::AccountSpec;
use jiff::SignedDuration;
use serde_json::json;

use crate::support::{Lake, Run, Sim, now, rows};

#[test]
fn concurrent_runs_equal_sequential_runs() {
    let sim = Sim::small();
    let lake = Lake::new();
    for hours in [0, 9] {
        sim.advance(SignedDuration::from_hours(hours));
        let sync = ["sync", "--output", "json", "--lake", lake.path()];
        let children = [(); 3].map(|()| {
            let mut command = sim.command(&[&sync[..], &["--lookback", "37d"]].concat());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        });
        let reports = children.map(|child| {
            let run = Run::of(child.wait_with_output().unwrap());
            run.expect(3).json()
        });
        let sum = |key: &str| -> u64 {
            let of = |report: &serde_json::Value| report["executions"][key].as_u64().unwrap();
            reports.iter().map(of).sum()
        };
        // Each execution is inserted by exactly one of them.
        assert_eq!(sum("observed"), 3 * sim.truth().executions.len() as u64);
        let known = format!("SELECT count(*) FROM {}", lake.table("executions"));
        if hours == 0 {
            assert_eq!(rows(&[&known])[0][0][0], sum("inserted"));
        }
        sim.assert_truth(&lake);
    }
    assert_eq!(lake.checkpoints(), 6);
}

#[test]
fn later_observation_wins_regardless_of_write_order() {
    let lake = Lake::new();
    let spec = AccountSpec::small(now());
    let (yesterday, today) = (Sim::start(&spec, |_| {}), Sim::start(&spec, |_| {}));
    today.advance(SignedDuration::from_hours(30));
    today.sync(&lake, &[]).expect(3);
    let before = lake.data_objects();

    // The server of the day before: other statuses, a project in its old place, fewer rows.
    let report = yesterday.sync(&lake, &[]).expect(3).json();

    assert_eq!(report["executions"]["updated"], json!(0), "{report}");
    assert_eq!(report["executions"]["inserted"], json!(0), "{report}");
    for (path, stamp) in lake.data_objects() {
        let is_listing = path.starts_with("orgs/") || path.starts_with("projects/");
        assert!(is_listing || before[&path] == stamp, "{path} was replaced");
    }
    today.assert_truth(&lake);
    let (from, to, _) = today.account().moving_scope().unwrap();
    let listed = format!(
        "SELECT org_id FROM {} WHERE project_id = '{}' AND not_visible_since_ts IS NULL",
        lake.table("projects"),
        to.project
    );
    assert_eq!(rows(&[&listed])[0], [[json!(to.org)]], "not {from}");

    today.advance(SignedDuration::from_hours(1));
    today.sync(&lake, &["--lookback", "37d"]).expect(3);
    today.assert_truth(&lake);
}
