//! The manifests in `deploy/kubernetes`: valid by the Kubernetes schemas, consistent with the exit
//! codes, and with working commands.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use harness_lake::error::Code;
use harness_lake::lake::store::Store;
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, interpreter};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Example installations: AWS, Azure, Google.
const EXAMPLES: [&str; 3] = ["example", "example-azure", "example-google"];

/// Returns the output of a kustomization, or its error.
fn built(folder: &str) -> Result<Vec<Value>, String> {
    let output = Command::new(interpreter())
        .args([&format!("{ROOT}/tests/it/support/manifests.py"), folder])
        .output()
        .unwrap();
    if output.status.success() {
        Ok(serde_json::from_slice(&output.stdout).unwrap())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[track_caller]
fn shipped(name: &str) -> Vec<Value> {
    built(&format!("{ROOT}/deploy/kubernetes/{name}")).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the specification of every Job, including those of a `CronJob`.
fn jobs(manifests: &[Value]) -> Vec<&Value> {
    let job = |manifest: &'_ Value| match manifest["kind"].as_str() {
        Some("CronJob") => Some("/spec/jobTemplate/spec"),
        Some("Job") => Some("/spec"),
        _ => None,
    };
    manifests
        .iter()
        .filter_map(|manifest| manifest.pointer(job(manifest)?))
        .collect()
}

fn container(job: &Value) -> &Value {
    &job["template"]["spec"]["containers"][0]
}

fn settings(manifests: &[Value]) -> BTreeMap<String, String> {
    let is_settings = |manifest: &&Value| {
        manifest["kind"] == "ConfigMap" && manifest["metadata"]["name"] == "harness-lake"
    };
    let map = manifests.iter().find(is_settings).unwrap();
    serde_json::from_value(map["data"].clone()).unwrap()
}

fn only<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    let first = found.next().unwrap();
    assert_eq!(found.next(), None, "one {kind}");
    first
}

/// Returns the requests per minute that a job may send.
fn rate(job: &Value) -> u32 {
    let env = container(job)["env"].as_array().unwrap();
    let is_rate = |variable: &&Value| variable["name"] == "HARNESS_LAKE_REQUESTS_PER_MINUTE";
    let rate = env.iter().find(is_rate).unwrap()["value"].as_str().unwrap();
    rate.parse().unwrap()
}

/// Copies a folder of `deploy/kubernetes` to a place where an overlay refers to it.
fn copy_beside(lake: &Lake, name: &str) {
    fs::create_dir(lake.beside(name)).unwrap();
    for file in ["job.yaml", "kustomization.yaml"] {
        let from = format!("{ROOT}/deploy/kubernetes/{name}/{file}");
        fs::copy(from, lake.beside(&format!("{name}/{file}"))).unwrap();
    }
}

#[test]
fn every_manifest_is_valid_and_a_typo_is_not() {
    for name in ["base", "backfill", "replay"].into_iter().chain(EXAMPLES) {
        assert!(!shipped(name).is_empty());
    }
    let copy = Lake::new();
    fs::create_dir(copy.path()).unwrap();
    let job = fs::read_to_string(format!("{ROOT}/deploy/kubernetes/replay/job.yaml")).unwrap();
    let typo = job.replace("readOnlyRootFilesystem", "readOnlyRootFileSystem");
    assert_ne!(job, typo);
    fs::write(format!("{}/job.yaml", copy.path()), typo).unwrap();
    let kustomization = json!({"resources": ["job.yaml"]}).to_string();
    fs::write(format!("{}/kustomization.yaml", copy.path()), kustomization).unwrap();
    let error = built(copy.path()).unwrap_err();
    assert!(error.contains("readOnlyRootFileSystem"), "{error}");
}

#[test]
fn jobs_retry_or_fail_by_exit_code() {
    for name in ["example", "backfill", "replay"] {
        let manifests = shipped(name);
        for job in jobs(&manifests) {
            let mut actions = BTreeMap::new();
            for rule in job["podFailurePolicy"]["rules"].as_array().unwrap() {
                for code in rule["onExitCodes"]["values"]
                    .as_array()
                    .into_iter()
                    .flatten()
                {
                    assert_eq!(rule["onExitCodes"]["containerName"], container(job)["name"]);
                    actions.insert(code.as_u64().unwrap(), rule["action"].as_str().unwrap());
                }
            }
            for code in Code::ALL {
                let expected = match code {
                    // Not named by any rule; never occurs, since the settings make it 0.
                    Code::Failure | Code::Partial => None,
                    Code::Conflict | Code::Unavailable | Code::Interrupted => Some("Count"),
                    _ => Some("FailJob"),
                };
                assert_eq!(actions.get(&(code as u64)).copied(), expected, "{code:?}");
            }
        }
    }
    assert_eq!(
        settings(&shipped("base"))["HARNESS_LAKE_PARTIAL_EXIT_CODE"],
        "0"
    );
}

#[test]
fn containers_have_least_privileges() {
    for name in ["backfill", "replay"].into_iter().chain(EXAMPLES) {
        let manifests = shipped(name);
        for job in jobs(&manifests) {
            let pod = &job["template"]["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(pod["automountServiceAccountToken"], false);
            let context = &container(job)["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
            for volume in pod["volumes"].as_array().unwrap() {
                let mode = &volume["secret"]["defaultMode"];
                assert!(mode.is_null() || *mode == 0o440, "{volume}");
            }
        }
        for manifest in manifests.iter().filter(|one| one["kind"] == "CronJob") {
            assert_eq!(manifest["spec"]["concurrencyPolicy"], "Forbid");
        }
    }
}

#[test]
fn a_stuck_or_missed_job_delays_others_by_an_hour_at_most() {
    let manifests = shipped("base");
    for manifest in manifests.iter().filter(|one| one["kind"] == "CronJob") {
        let deadline = manifest.pointer("/spec/jobTemplate/spec/activeDeadlineSeconds");
        let starts_within = &manifest["spec"]["startingDeadlineSeconds"];
        if manifest["metadata"]["name"] == "harness-lake-sync" {
            assert_eq!(deadline, Some(&json!(3600)));
        } else {
            assert!(deadline.is_some());
            assert!(starts_within.is_null(), "it would skip a week");
        }
    }
}

#[test]
fn schedules_and_a_backfill_share_the_limit_of_a_key() {
    let manifests = [shipped("base"), shipped("backfill")].concat();
    let rates: Vec<u32> = jobs(&manifests).into_iter().map(rate).collect();
    assert_eq!(rates.len(), 3);
    assert!(rates.iter().sum::<u32>() < 400, "{rates:?}");
}

#[test]
fn network_policy_selects_every_pod() {
    let base = shipped("base");
    let policy = &only(&base, "NetworkPolicy")["spec"];
    assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(policy["ingress"].as_array().is_none_or(Vec::is_empty));
    let selected = policy["podSelector"]["matchLabels"].as_object().unwrap();
    assert!(!selected.is_empty());
    for manifests in [&base, &shipped("backfill"), &shipped("replay")] {
        for job in jobs(manifests) {
            let labels = &job["template"]["metadata"]["labels"];
            assert!(selected.iter().all(|(key, value)| labels[key] == *value));
        }
    }
}

#[test]
fn examples_name_their_image_by_digest() {
    for name in EXAMPLES {
        let manifests = shipped(name);
        for job in jobs(&manifests) {
            let image = container(job)["image"].as_str().unwrap();
            assert!(image.contains("@sha256:"), "{image}");
        }
    }
}

#[test]
fn lakes_of_examples_can_be_opened() {
    for (name, scheme) in EXAMPLES.into_iter().zip(["s3://", "abfss://", "gs://"]) {
        let settings = settings(&shipped(name));
        let lake = &settings["HARNESS_LAKE"];
        assert!(lake.starts_with(scheme), "{name}: {lake}");
        Store::open(lake).unwrap();
        assert_eq!(settings.contains_key("AWS_REGION"), scheme == "s3://");
    }
}

#[test]
fn pods_have_the_identity_of_their_cloud() {
    for (name, key) in EXAMPLES.into_iter().zip([
        "eks.amazonaws.com/role-arn",
        "azure.workload.identity/client-id",
        "iam.gke.io/gcp-service-account",
    ]) {
        let manifests = shipped(name);
        let account = &only(&manifests, "ServiceAccount")["metadata"];
        assert!(account["annotations"][key].is_string(), "{name}: {account}");
        for job in jobs(&manifests) {
            let labels = &job["template"]["metadata"]["labels"];
            let label = &labels["azure.workload.identity/use"];
            assert_eq!(*label == "true", name == "example-azure", "{labels}");
        }
    }
}

#[test]
fn backfill_job_reads_the_range_of_its_overlay() {
    let sim = Sim::small();
    let lake = Lake::new();
    copy_beside(&lake, "backfill");
    let overlay = lake.beside("overlay");
    fs::create_dir(&overlay).unwrap();
    let range = json!({
        "name": "harness-lake-backfill",
        "behavior": "merge",
        "literals": ["FROM=2026-11-01", "TO=2026-11-03"],
    });
    let kustomization = json!({
        "nameSuffix": "-2026-11",
        "resources": ["../backfill"],
        "configMapGenerator": [range],
    });
    fs::write(
        format!("{overlay}/kustomization.yaml"),
        kustomization.to_string(),
    )
    .unwrap();
    let manifests = built(&overlay).unwrap();
    let job = only(&manifests, "Job");
    assert_eq!(job["metadata"]["name"], "harness-lake-backfill-2026-11");
    let range = only(&manifests, "ConfigMap");
    let sources = &container(&job["spec"])["envFrom"];
    assert_eq!(
        sources[1]["configMapRef"]["name"],
        range["metadata"]["name"]
    );

    let args: Vec<String> =
        serde_json::from_value(container(&job["spec"])["args"].clone()).unwrap();
    let expand = |arg: &String| {
        let name = arg.strip_prefix("$(").and_then(|arg| arg.strip_suffix(')'));
        name.map_or(arg.clone(), |name| {
            range["data"][name].as_str().unwrap().to_owned()
        })
    };
    let args: Vec<String> = args.iter().map(expand).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let sync = sim.run(&[&args, &["--output", "json", "--lake", lake.path()][..]].concat());
    let report = sync.expect(3).json();
    assert_eq!(report["covered_to"], "2026-11-03T00:00:00Z");
}

#[test]
fn the_commands_of_the_cron_jobs_sync_a_lake() {
    let sim = Sim::small();
    let lake = Lake::new();
    let key = lake.beside("api-key");
    fs::write(&key, sim.server().api_key()).unwrap();
    let scratch = lake.beside("scratch");
    fs::create_dir(&scratch).unwrap();
    let manifests = shipped("base");
    let places = [
        ("HARNESS_LAKE", lake.path()),
        ("HARNESS_API_KEY_FILE", &key),
        ("HARNESS_LAKE_SCRATCH", &scratch),
    ];
    let mut ran = 0;
    for job in jobs(&manifests) {
        let args: Vec<String> = serde_json::from_value(container(job)["args"].clone()).unwrap();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let mut command = sim.command(&args);
        command
            .env_remove("HARNESS_API_KEY")
            .envs(settings(&manifests));
        for (name, place) in places {
            assert!(settings(&manifests).contains_key(name), "{name} is set");
            command.env(name, place);
        }
        let run = Run::of(command.output().unwrap()).expect(0);
        assert!(run.stderr.starts_with('{'), "{}", run.stderr);
        ran += 1;
    }
    assert_eq!(ran, 2);
    sim.assert_truth(&lake);
}

#[test]
fn replay_indexes_cover_the_complete_lake() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    let objects = lake.files();
    for name in objects.keys().filter(|name| name.starts_with("stages/")) {
        fs::remove_file(format!("{}/{name}", lake.path())).unwrap();
    }
    let plan = [
        "plan", "replay", "--units", "3", "--output", "json", "--lake",
    ];
    let plan = sim.run(&[&plan[..], &[lake.path()]].concat()).expect(0);
    let overlay = lake.beside("overlay");
    let mut units = Command::new(interpreter())
        .arg(format!("{ROOT}/deploy/kubernetes/replay/units.py"))
        .arg(&overlay)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = units.stdin.take().unwrap();
    input.write_all(plan.stdout.as_bytes()).unwrap();
    drop(input);
    assert!(units.wait().unwrap().success());
    copy_beside(&lake, "replay");
    let manifests = built(&overlay).unwrap();
    // Kubernetes refuses to change a Job that exists, and this one stays for a day.
    let name = only(&manifests, "Job")["metadata"]["name"]
        .as_str()
        .unwrap();
    assert!(
        name.len() > "harness-lake-replay-".len(),
        "{name} is unique"
    );

    let [job] = jobs(&manifests)[..] else {
        panic!("{manifests:?}");
    };
    let is_units = |manifest: &&Value| manifest["kind"] == "ConfigMap";
    let map = manifests.iter().find(is_units).unwrap();
    let volumes = job["template"]["spec"]["volumes"].as_array().unwrap();
    let is_mounted = |volume: &Value| volume["configMap"]["name"] == map["metadata"]["name"];
    assert!(
        volumes.iter().any(is_mounted),
        "the units are mounted: {job}"
    );
    let units: BTreeMap<String, String> = serde_json::from_value(map["data"].clone()).unwrap();
    assert_eq!(job["completions"], units.len());

    let mounted = lake.beside("units");
    fs::create_dir(&mounted).unwrap();
    let command: Vec<String> = serde_json::from_value(container(job)["command"].clone()).unwrap();
    let binary = env!("CARGO_BIN_EXE_harness-lake");
    let script = command[2]
        .replace("/units/", &format!("{mounted}/"))
        .replace("exec harness-lake", &format!("exec {binary}"));
    for (index, unit) in &units {
        fs::write(format!("{mounted}/{index}"), unit).unwrap();
    }
    for index in 0..units.len() {
        let mut shell = Command::new(&command[0]);
        shell
            .args([&command[1], &script])
            .env("HARNESS_LAKE", lake.path());
        shell.env("JOB_COMPLETION_INDEX", index.to_string());
        // The last line has no newline: `read` fails but still sets its variable.
        Run::of(shell.output().unwrap()).expect(0);
    }
    sim.assert_truth(&lake);
}
