//! One command split into concurrent units, as on many machines, gives the lake of one process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use harness_sim::AccountSpec;
use serde_json::Value;

use crate::support::lab::assert_same_rows;
use crate::support::stores::ObjectServer;
use crate::support::{Lake, Run, Sim, bare_command, interpreter};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/analytics/spark/replay.py");

const FOUR: [&str; 4] = ["--units", "4", "--output", "json"];

fn units_of_a_replay(lake: &Lake) -> Vec<[String; 2]> {
    let plan = [&["plan", "replay", "--lake", lake.path()], &FOUR[..]].concat();
    units(Run::of(bare_command(&plan).output().unwrap()))
}

/// Returns the date ranges of the units that `plan` prints.
fn units(plan: Run) -> Vec<[String; 2]> {
    let plan = plan.expect(0).json();
    let units = plan["units"].as_array().unwrap().iter();
    let ends = |unit: &Value| ["from", "to"].map(|key| unit[key].as_str().unwrap().to_owned());
    units.map(ends).collect()
}

/// Runs a command for each unit concurrently. The second unit is killed half-way and started again.
fn run_at_once(units: &[[String; 2]], command: impl Fn(&[&str]) -> Command, code: i32) {
    assert_eq!(units.len(), 4);
    let start = |at: usize, failpoint: Option<&str>| {
        let [from, to] = &units[at];
        let mut command = command(&["--from", from, "--to", to]);
        command.envs(failpoint.map(|point| ("HARNESS_LAKE_FAILPOINT", point)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let killed = if cfg!(feature = "failpoints") {
        Some("after-table:3")
    } else {
        None
    };
    let children: Vec<_> = (0..4)
        .map(|at| start(at, killed.filter(|_| at == 1)))
        .collect();
    for (at, child) in children.into_iter().enumerate() {
        let run = Run::of(child.wait_with_output().unwrap());
        if killed.is_some() && at == 1 {
            assert_eq!(run.code, None, "{run:?}");
            let again = start(at, None).wait_with_output().unwrap();
            Run::of(again).expect(code);
        } else {
            run.expect(code);
        }
    }
}

/// Removes the tables of every date, so that a replay without effect is detected.
fn lose_tables(lake: &Lake) {
    for table in ["executions", "stages", "deployments", "commits"] {
        fs::remove_dir_all(format!("{}/{table}", lake.path())).unwrap();
    }
}

#[test]
fn concurrent_replay_units_equal_one_process() {
    let sim = Sim::small();
    let (lake, single) = (Lake::new(), Lake::new());
    sim.sync(&lake, &[]).expect(3);
    let copy = ["replay", "--lake", lake.path(), "--into", single.path()];
    Run::of(bare_command(&copy).output().unwrap()).expect(0);
    lose_tables(&lake);
    let units = units_of_a_replay(&lake);
    let replay = ["replay", "--lake", lake.path()];
    run_at_once(&units, |range| bare_command(&[&replay, range].concat()), 0);
    assert_same_rows(lake.path(), single.path(), &["scopes/"]);
    sim.assert_truth(&lake);
}

#[test]
fn concurrent_backfill_units_equal_one_process() {
    let sim = Sim::small();
    let (lake, single) = (Lake::new(), Lake::new());
    let days_ago = |days: i64| {
        let at = sim.now() - jiff::SignedDuration::from_hours(24 * days);
        at.strftime("%Y-%m-%d").to_string()
    };
    let (from, to) = (days_ago(15), days_ago(-1));
    let range = ["--from", &from, "--to", &to];
    let plan = [
        &["plan", "backfill", "--lake", lake.path()],
        &FOUR[..],
        &range,
    ]
    .concat();
    let units = units(sim.run(&plan));
    let fixed = ["backfill", "--requests-per-minute", "60000", "--lake"];
    let backfill =
        |lake: &Lake, range: &[&str]| sim.command(&[&fixed[..], &[lake.path()], range].concat());
    run_at_once(&units, |range| backfill(&lake, range), 3);
    let one = backfill(&single, &range);
    Run::of({ one }.output().unwrap()).expect(3);
    assert_same_rows(lake.path(), single.path(), &["scopes/"]);
    sim.assert_truth(&lake);
}

#[test]
fn concurrent_replay_units_in_a_bucket_equal_one_process() {
    let sim = Sim::small();
    let s3 = ObjectServer::seaweed();
    let url = s3.lake();
    let lake = ["--lake", &url];
    let run = |command: &[&str], code: i32| {
        let output = s3.at(sim.command(&[command, &lake].concat())).output();
        Run::of(output.unwrap()).expect(code)
    };
    run(&["sync"], 3);
    let before = s3.files();
    let is_table = |path: &str| {
        ["executions/", "stages/", "deployments/", "commits/"]
            .iter()
            .any(|of| path.starts_with(of))
    };
    s3.delete(before.keys().filter(|path| is_table(path)));
    assert!(!s3.files().keys().any(|path| is_table(path)));
    let units = units(run(&[&["plan", "replay"], &FOUR[..]].concat(), 0));
    run_at_once(
        &units,
        |range| s3.at(bare_command(&[&["replay"], range, &lake].concat())),
        0,
    );
    let after = s3.files();
    for (path, bytes) in before.iter().filter(|(path, _)| is_table(path)) {
        let [one, other] =
            [bytes, &after[path]].map(|bytes| crate::support::lab::decode(bytes.clone().into()));
        assert!(one == other, "{path}");
    }
    run(&["verify"], 0);
}

/// Runs the Spark driver in local mode with three workers, which try each task up to four times.
fn spark(lake: &Lake, path: &str) -> Run {
    let mut python = Command::new(interpreter());
    python.envs([("SPARK_LOCAL_IP", "127.0.0.1"), ("PATH", path)]);
    python.env("PYSPARK_PYTHON", interpreter());
    let options = ["--units", "4", "--master", "local[3,4]"];
    python.arg(SCRIPT).arg(lake.path()).args(options);
    Run::of(python.output().unwrap())
}

#[test]
fn spark_replays_a_month_lake_and_retries_failed_units() {
    let spec = AccountSpec::small("2026-12-06T15:00:00Z".parse().unwrap());
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    sim.sync(&lake, &["--period", "month"]).expect(3);
    lose_tables(&lake);
    let units = units_of_a_replay(&lake);
    let [first, second] = &units[..] else {
        panic!("{units:?} are not two months");
    };
    let month = "2026-12-01";
    assert_eq!([&first[1], &second[0]], [month, month]);

    // The first unit meets a conflict once; later, the second has no permissions.
    let (folder, refused) = (lake.beside("bin"), lake.beside("refused"));
    fs::create_dir(&folder).unwrap();
    let own = bare_command(&[]);
    let (binary, conflict) = (own.get_program().to_str().unwrap(), &first[0]);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n\
         replay*'--from {conflict}'*) mkdir {folder}/seen 2>/dev/null && exit 8;;\n\
         replay*'--from {month}'*) if [ -e {refused} ]; then\n\
         echo '{{\"error\": {{\"message\": \"no rights\", \"hint\": \"ask\"}}}}'; exit 7; fi;;\nesac\n\
         exec {binary} \"$@\"\n"
    );
    let wrapper = format!("{folder}/harness-lake");
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{folder}:/usr/local/bin:/usr/bin:/bin");
    let run = spark(&lake, &path).expect(0);
    assert!(run.stdout.contains("attempt 2"), "{run:?}");
    let total = "replayed 8 objects in 2 units";
    assert!(run.stdout.contains(total), "{run:?}");
    // The log of harness-lake is in the log of the executor.
    assert!(run.stderr.contains("replay ended: success"), "{run:?}");
    sim.assert_truth(&lake);

    fs::write(&refused, "").unwrap();
    let run = spark(&lake, &path).expect(1);
    let failure = format!("--from {month} --to 2026-12-07 ended with exit code 7: no rights; ask");
    assert!(run.stderr.contains(&failure), "{run:?}");
}
