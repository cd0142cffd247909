//! The number of requests of a run: close to the minimum, and equal to the plan.

use std::collections::HashMap;

use harness_sim::{AccountSpec, FaultKind, Match, Vintage};
use jiff::SignedDuration;
use serde_json::Value;

use crate::support::{Lake, Sim, now};

fn of_executions(report: &Value) -> u64 {
    report["requests"]["by_endpoint"]["executions"]
        .as_u64()
        .unwrap()
}

fn account(orgs: usize, projects: usize, executions: usize) -> Sim {
    let spec = AccountSpec {
        orgs,
        projects_per_org: projects,
        executions,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    Sim::start(&spec, |_| {})
}

/// Returns the requests that `plan` predicts at the same instant with the same settings.
fn planned(sim: &Sim, lake: &Lake, more: &[&str]) -> u64 {
    let plan = ["plan", "sync", "--output", "json", "--lake", lake.path()];
    let plan = sim.run(&[&plan[..], more].concat()).expect(0).json();
    plan["calls"].as_u64().unwrap()
}

/// Returns the fewest requests that read every project from its start with pages of `page` rows.
fn least(sim: &Sim, page: usize) -> u64 {
    let mut rows: HashMap<String, usize> = HashMap::new();
    for row in sim.truth().executions {
        *rows
            .entry(format!("{}/{}", row["org_id"], row["project_id"]))
            .or_default() += 1;
    }
    let further: usize = rows.values().map(|rows| rows.div_ceil(page) - 1).sum();
    (sim.readable().len() + further) as u64
}

#[test]
fn large_account_needs_few_requests_above_the_minimum() {
    let sim = account(4, 20, 6_000);
    let lake = Lake::new();
    let arguments = ["--page-size", "50", "--lookback", "37d"];
    for run in ["first", "second"] {
        let least = least(&sim, 50);
        let report = sim.sync(&lake, &arguments).expect(0).json();
        let calls = of_executions(&report);
        assert!(150 < least && least <= calls, "{run}: {calls} of {least}");
        assert!(calls * 100 <= least * 102, "{run}: {calls} of {least}");
        sim.advance(SignedDuration::from_hours(2));
    }
}

#[test]
fn run_makes_the_planned_requests() {
    let sim = account(2, 3, 3_000);
    let lake = Lake::new();
    let first = ["--page-size", "100"];
    for (more, hours) in [
        (&first[..], 1),
        (&first[..], 30),
        (&["--lookback", "37d"][..], 2),
        (&[][..], 200),
        (&[][..], 1),
    ] {
        let planned = planned(&sim, &lake, more);
        let report = sim.sync(&lake, more).expect(0).json();
        assert_eq!(
            report["requests"]["total"].as_u64(),
            Some(planned),
            "{more:?}"
        );
        sim.advance(SignedDuration::from_hours(hours));
    }
}

#[test]
fn thousand_idle_projects_cost_one_request_each() {
    let sim = account(10, 100, 40);
    let lake = Lake::new();
    let report = sim.sync(&lake, &[]).expect(0).json();
    let projects = sim.readable().len() as u64;
    assert!(projects > 990, "{projects}");
    assert_eq!(of_executions(&report), projects);
    // Organizations, their projects in pages of 100 (one organization is empty), the retention.
    assert_eq!(report["requests"]["total"], projects + 1 + 10 + 1 + 1);
    assert_eq!(planned(&sim, &lake, &[]), projects + 13);
}

#[test]
fn pages_smaller_than_requested_cost_no_extra_request() {
    let spec = AccountSpec {
        orgs: 1,
        projects_per_org: 1,
        executions: 2_000,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    sim.faults()
        .always(Match::executions(), FaultKind::CappedPage(100));
    let arguments = ["--lookback", "37d"];
    for run in ["first", "second"] {
        let least = least(&sim, 100);
        let report = sim.sync(&lake, &arguments).expect(0).json();
        assert_eq!(report["gaps"], 0);
        let wasted = of_executions(&report) - least;
        // The first run may waste one request before it learns the server's page limit.
        assert!(wasted <= u64::from(run == "first"), "{run}: {wasted}");
        sim.assert_truth(&lake);
        assert_eq!(planned(&sim, &lake, &arguments), least + 4, "{run}");
    }
}

#[test]
fn deadline_ends_a_run_and_the_next_continues() {
    let sim = account(1, 1, 400);
    let lake = Lake::new();
    let never = FaultKind::SlowBody(std::time::Duration::from_secs(3_600));
    sim.faults().always(Match::executions().page(2), never);
    let metrics = lake.beside("run.prom");
    let arguments = [
        "--page-size",
        "10",
        "--deadline",
        "3s",
        "--metrics-file",
        &metrics,
    ];
    let report = sim.sync(&lake, &arguments).expect(10).json();
    assert_eq!(report["outcome"], "interrupted");
    let metrics = std::fs::read_to_string(metrics).unwrap();
    assert!(
        metrics.contains("outcome=\"interrupted\"} 1\n"),
        "{metrics}"
    );
    assert!(20 <= report["executions"]["inserted"].as_u64().unwrap());
    sim.faults().clear();
    sim.sync(&lake, &[]).expect(0);
    sim.assert_truth(&lake);
}

#[test]
fn server_that_ignores_ids_is_polled_by_days() {
    let spec = AccountSpec {
        orgs: 1,
        projects_per_org: 1,
        executions: 1_500,
        days: 29,
        forbidden_project: false,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |options| options.vintage = Vintage::Older);
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(0);
    let open = sim.open_now().len();
    // All of them are due.
    sim.advance(SignedDuration::from_hours(7));
    let report = sim.sync(&lake, &[]).expect(0).json();
    let calls = of_executions(&report);
    // One by id, one for new data, one for all open executions.
    assert!(
        open > 5 && calls <= 3,
        "{calls} requests for {open} open executions"
    );
    sim.assert_truth_but(&lake, &sim.edited_unseen(now()));
}
