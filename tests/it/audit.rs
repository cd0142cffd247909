//! `verify --source`: counts at the source against the coverage of the lake.

use std::fs;
use std::process::Command;

use harness_sim::{AccountSpec, FaultKind, Match, Vintage};
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, now};

fn command(sim: &Sim, lake: &Lake, more: &[&str]) -> Command {
    let fixed = [
        "verify",
        "--source",
        "--output",
        "json",
        "--lake",
        lake.path(),
    ];
    sim.command(&[&fixed, more].concat())
}

fn verify(sim: &Sim, lake: &Lake, more: &[&str]) -> Run {
    Run::of(command(sim, lake, more).output().unwrap())
}

/// Returns every project except the one that is forbidden to all keys.
fn but_forbidden(sim: &Sim) -> [String; 2] {
    let forbidden = sim.account().forbidden_scope().unwrap();
    ["--exclude".to_owned(), forbidden.to_string()]
}

fn sum(audit: &Value, key: &str) -> u64 {
    let days = audit["source"]["differences"].as_array().unwrap().iter();
    days.map(|day| day[key].as_array().map_or(0, |ids| ids.len() as u64))
        .sum()
}

#[test]
fn verify_passes_if_lake_and_source_match() {
    for vintage in [Vintage::Saas, Vintage::Older] {
        let sim = Sim::start(&AccountSpec::small(now()), |options| {
            options.vintage = vintage;
        });
        let lake = Lake::new();
        sim.sync(&lake, &[]).expect(3);
        let exclude = but_forbidden(&sim);
        let audit = verify(&sim, &lake, &exclude.each_ref().map(String::as_str))
            .expect(0)
            .json();
        assert_eq!(audit["findings"], json!([]));
        let compared = &audit["source"];
        let rows = json!(sim.truth().executions.len());
        assert_eq!(
            (&compared["at_source"], &compared["in_lake"]),
            (&rows, &rows)
        );
        assert_eq!(compared["scopes"], json!(sim.readable().len()));
        assert!(compared["days"].as_u64().unwrap() > 30);
        assert_eq!(
            (&compared["differences"], &compared["not_compared"]),
            (&json!([]), &json!([]))
        );
    }
}

#[test]
fn projects_that_cannot_be_compared_fail_verify() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let audit = verify(&sim, &lake, &[]).expect(0).json();
    let forbidden = sim.account().forbidden_scope().unwrap();
    let findings = audit["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 1, "{audit}");
    assert_eq!(findings[0]["kind"], "stale");
    assert_eq!(findings[0]["path"], json!(forbidden.to_string()));
    assert_eq!(
        audit["source"]["not_compared"],
        json!([]),
        "nothing is claimed of it"
    );

    let bad = sim.busy()[0].clone();
    sim.faults()
        .always(Match::executions().of(bad.clone()), FaultKind::Forbidden);
    let run = verify(&sim, &lake, &[]).expect(3);
    let not_compared = run.json()["source"]["not_compared"].take();
    assert_eq!(not_compared[0]["project"], json!(bad.project.as_str()));
    assert_eq!(not_compared[0]["code"], "invalid_permissions");

    let mut command = command(&sim, &lake, &[]);
    command.env("HARNESS_API_KEY", sim.key_of("wrong"));
    assert_eq!(
        Run::of(command.output().unwrap()).expect(4).error_code(),
        "invalid_credentials"
    );
}

#[test]
fn verify_finds_a_lost_day_and_its_command_restores_it() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let exclude = but_forbidden(&sim);
    let exclude = exclude.each_ref().map(String::as_str);
    let week_ago = sim.now() - SignedDuration::from_hours(7 * 24);
    let day = week_ago.strftime("%Y-%m-%d").to_string();
    let truth = sim.truth();
    let starts = truth
        .executions
        .iter()
        .map(|row| row["start_ts"].as_i64().unwrap());
    let date = |us: i64| us.div_euclid(86_400_000_000);
    let lost = starts
        .filter(|us| date(*us) == date(week_ago.as_microsecond()))
        .count();
    assert!(lost > 3);
    for table in ["_raw", "executions", "stages", "deployments", "commits"] {
        fs::remove_dir_all(format!("{}/{table}/v1/start_date={day}", lake.path())).unwrap();
    }
    let offline = sim.run(&["verify", "--lake", lake.path()]);
    offline.expect(0);
    let audit = verify(&sim, &lake, &exclude).expect(7).json();
    let damage: Vec<_> = audit["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["kind"] == "damage")
        .collect();
    assert!(!damage.is_empty());
    assert_eq!(sum(&audit, "missing"), lost as u64);
    for finding in damage {
        assert!(
            finding["path"].as_str().unwrap().ends_with(&day),
            "{finding}"
        );
        let command = finding["repair"].as_str().unwrap();
        let own = sim.command(&[]);
        let binary = std::path::Path::new(own.get_program()).parent().unwrap();
        let mut shell = Command::new("bash");
        shell.args(["-euc", command]).env_clear();
        shell.envs(
            own.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        shell
            .env("PATH", format!("{}:/usr/bin:/bin", binary.display()))
            .env("HARNESS_LAKE", lake.path());
        Run::of(shell.output().unwrap()).expect(0);
    }
    verify(&sim, &lake, &exclude).expect(0);
    sim.assert_truth(&lake);
}

#[test]
fn moved_or_newer_executions_are_not_missing() {
    let spec = AccountSpec {
        future_hours: 100,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    let (from, to, at) = sim.account().moving_scope().unwrap();
    let before = at.duration_since(sim.now()) - SignedDuration::from_hours(1);
    sim.advance(before);
    sim.sync(&lake, &[]).expect(3);
    sim.advance(SignedDuration::from_hours(30));
    let exclude = but_forbidden(&sim);
    let run = verify(&sim, &lake, &exclude.each_ref().map(String::as_str)).expect(0);
    let audit = run.json();
    assert_eq!(sum(&audit, "missing"), 0, "{audit}");
    // It was covered under its old name, which the key can no longer see.
    assert_eq!(audit["source"]["not_visible"], json!([from.to_string()]));
    assert_eq!(audit["source"]["not_compared"], json!([]));
    let findings = audit["findings"].to_string();
    assert!(
        findings.contains(&to.to_string()) && !findings.contains("damage"),
        "{findings}"
    );

    // After it is read under its new name, its coverage includes rows under the old one.
    sim.sync(&lake, &[]).expect(3);
    let audit = verify(&sim, &lake, &exclude.each_ref().map(String::as_str))
        .expect(0)
        .json();
    assert_eq!(sum(&audit, "missing"), 0, "{audit}");
}

#[test]
fn wrong_total_reports_nothing_missing() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let liar = sim.busy()[0].clone();
    sim.faults()
        .always(Match::executions().of(liar), FaultKind::WrongTotal(2));
    let audit = verify(&sim, &lake, &[]).expect(3).json();
    assert_eq!(sum(&audit, "missing"), 0);
    assert_eq!(
        audit["source"]["not_compared"].as_array().unwrap().len(),
        1,
        "{audit}"
    );
}

#[test]
fn source_flags_require_the_source_check() {
    let lake = Lake::new();
    let sim = Sim::small();
    for flags in [["--from", "2026-11-01"], ["--org", "x"], ["--exclude", "x"]] {
        let run = sim.run(
            &[
                &["verify", "--output", "json", "--lake", lake.path()],
                &flags[..],
            ]
            .concat(),
        );
        assert_eq!(run.expect(2).error_code(), "usage");
    }
    sim.sync(&lake, &[]).expect(3);
    let never = ["--from", "2026-11-20", "--to", "2026-11-20"];
    assert_eq!(verify(&sim, &lake, &never).expect(2).error_code(), "usage");
}
