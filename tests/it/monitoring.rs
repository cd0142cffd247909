//! `--metrics-push`, sent to a Prometheus Pushgateway; the alerts of `deploy/monitoring`.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{Lake, Run, SECRET, Sim};

/// A Prometheus Pushgateway, killed when dropped.
struct Pushgateway {
    child: Child,
    port: u16,
}

impl Drop for Pushgateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pushgateway {
    fn start() -> Self {
        let port = free_port();
        let child = Command::new("prometheus-pushgateway")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stderr(Stdio::null())
            .spawn()
            .expect("./scripts/test installs prometheus-pushgateway");
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, port }
    }

    fn url(&self) -> String {
        let port = self.port;
        format!("http://127.0.0.1:{port}/metrics/job/harness-lake/command/{{command}}")
    }

    /// Returns the samples of harness-lake without their values.
    fn samples(&self) -> Vec<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("harness_lake"));
        lines.map(str::to_owned).collect()
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn pushgateway_keeps_metrics_of_every_command() {
    let sim = Sim::small();
    let lake = Lake::new();
    let gateway = Pushgateway::start();
    let push = |arguments: &[&str], key: &str| {
        let mut run = sim.command(&[arguments, &["--lake", lake.path()]].concat());
        run.env("HARNESS_LAKE_METRICS_PUSH", gateway.url());
        Run::of(run.env("HARNESS_API_KEY", key).output().unwrap())
    };
    push(&["sync"], sim.server().api_key()).expect(3);
    push(&["replay"], sim.server().api_key()).expect(0);
    push(&["sync"], &sim.key_of("norights")).expect(6);
    let samples = gateway.samples();
    let has = |name: &str, command: &str, label: &str, value: &str| {
        samples.iter().any(|sample| {
            let labels = [format!("command=\"{command}\""), label.to_owned()];
            sample.starts_with(&format!("{name}{{"))
                && labels.iter().all(|label| sample.contains(label))
                && sample.ends_with(value)
        })
    };
    let outcome = "harness_lake_run_outcome";
    assert!(
        has(outcome, "sync", "outcome=\"failed\"", " 1"),
        "{samples:?}"
    );
    assert!(
        has(outcome, "replay", "outcome=\"success\"", " 1"),
        "{samples:?}"
    );
    let completion = "harness_lake_last_completion_timestamp_seconds";
    assert!(
        has(completion, "sync", "", ""),
        "of the first run: {samples:?}"
    );
}

#[test]
fn failed_push_is_a_warning_without_the_password() {
    let sim = Sim::small();
    let lake = Lake::new();
    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    for port in [free_port(), silent_port] {
        let url = format!("http://ada:{SECRET}@127.0.0.1:{port}/metrics?token={SECRET}");
        let mut run = sim.command(&["sync", "--lake", lake.path()]);
        run.env("HARNESS_LAKE_METRICS_PUSH", &url)
            .env("RUST_LOG", "trace");
        let run = Run::of(run.output().unwrap()).expect(3);
        let warning = format!("failed to send metrics to http://127.0.0.1:{port}");
        assert!(run.stderr.contains(&warning), "{}", run.stderr);
    }
    let invalid = format!("ada:{SECRET}@pushgateway");
    let run = sim.sync(&lake, &["--metrics-push", &invalid]).expect(2);
    assert!(
        run.stderr.contains("--metrics-push must be a URL"),
        "{}",
        run.stderr
    );
    let help = sim
        .command(&["sync", "--help"])
        .env("HARNESS_LAKE_METRICS_PUSH", invalid)
        .output();
    Run::of(help.unwrap()).expect(0);
}

const MONITORING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/monitoring");

#[test]
fn alerts_fire_when_they_should() {
    let test = ["test", "rules", "alerts_test.yaml"];
    let promtool = Command::new("promtool")
        .args(test)
        .current_dir(MONITORING)
        .output();
    let output = promtool.expect("./scripts/test installs promtool");
    let failures = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{failures}");

    let read = |file| fs::read_to_string(format!("{MONITORING}/{file}")).unwrap();
    let (alerts, tests) = (read("alerts.yaml"), read("alerts_test.yaml"));
    let names = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        let fires = format!("alertname: {name}\n        exp_alerts:\n");
        assert!(tests.contains(&fires), "no test lets {name} fire");
    }
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"));
    let page = page.unwrap();
    let is_metric_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = alerts.split(|c| !is_metric_char(c));
    for metric in words.filter(|word| word.starts_with("harness_lake_")) {
        assert!(
            page.contains(&format!("`{metric}`")),
            "docs/metrics.md lacks {metric}"
        );
    }
}
