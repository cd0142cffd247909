//! The policies of `deploy/aws` on a server that enforces them: sufficient and minimal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{Run, Sim, interpreter};

/// A server and its one user; it is killed when dropped.
struct Guarded {
    child: Child,
    settings: Value,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Guarded {
    fn with(policy: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/iam.py");
        let mut child = Command::new(interpreter())
            .args([script, policy, &shipped("lifecycle.json")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let settings = serde_json::from_str(&line).expect("the server has started");
        Self { child, settings }
    }

    fn run(&self, sim: &Sim, command: &str) -> Run {
        let mut run = sim.command(&[command, "--lake", "s3://bucket/prefix/lake"]);
        let setting = |key: &str| self.settings[key].as_str().unwrap().to_owned();
        run.env("AWS_ENDPOINT_URL", setting("endpoint"))
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", setting("id"))
            .env("AWS_SECRET_ACCESS_KEY", setting("secret"))
            .env("HARNESS_LAKE_PARTIAL_EXIT_CODE", "0");
        Run::of(run.output().unwrap())
    }
}

/// Returns a file of `deploy/aws`, adapted to the test bucket.
fn shipped(name: &str) -> String {
    let path = format!("{}/deploy/aws/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    text.replace("BUCKET", "bucket").replace("PREFIX", "prefix")
}

/// moto checks the permission to delete several objects on the bucket; AWS checks each object.
fn as_moto_reads_it(policy: &str) -> String {
    let objects = "\"arn:aws:s3:::bucket/prefix/*\"";
    let both = format!("[{objects}, \"arn:aws:s3:::bucket\"]");
    policy.replace(objects, &both)
}

#[test]
fn writer_policy_grants_exactly_what_is_needed() {
    let sim = Sim::small();
    let complete = as_moto_reads_it(&shipped("policy.json"));
    let server = Guarded::with(&complete);
    for command in ["check", "sync", "sync", "replay", "status", "verify"] {
        server.run(&sim, command).expect(0);
    }
    for action in [
        "s3:GetObject",
        "s3:PutObject",
        "s3:DeleteObject",
        "s3:ListBucket",
    ] {
        let less = complete.replace(action, "s3:GetBucketLocation");
        assert_ne!(less, complete);
        let run = Guarded::with(&less).run(&sim, "sync");
        assert_eq!(run.code, Some(7), "{action} is not needed: {run:?}");
        let hint = format!("hint: grant {action}");
        assert!(run.stderr.contains(&hint), "{action}: {}", run.stderr);
    }
}

#[test]
fn a_reader_cannot_write() {
    let sim = Sim::small();
    let server = Guarded::with(&shipped("reader-policy.json"));
    server.run(&sim, "sync").expect(7);
}
