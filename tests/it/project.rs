//! Consistency of the project's own files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory as _;
use harness_lake::cli::Cli;
use harness_lake::error::Code;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::lab::files;
use crate::support::{Run, interpreter};

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Two versions of one of these would have incompatible types and double the binary.
#[test]
fn lock_file_has_one_version_of_arrow_and_object_store() {
    let lock = read("Cargo.lock");
    let mut seen = BTreeSet::new();
    for name in lock.lines().filter_map(|line| line.strip_prefix("name = ")) {
        let is_one = ["\"arrow", "\"parquet\"", "\"object_store\""];
        if is_one.iter().any(|start| name.starts_with(start)) {
            assert!(seen.insert(name), "two versions of {name} in Cargo.lock");
        }
    }
    assert!(seen.contains("\"parquet\""));
}

#[test]
fn readme_lists_every_exit_code() {
    let readme = read("README.md");
    let troubleshooting = read("docs/troubleshooting.md");
    for code in Code::ALL {
        let (number, name) = (code as u8, code.name());
        let row = format!("| {number} | `{name}` |");
        assert!(readme.contains(&row), "README.md lacks the row `{row}`");
        let advice = format!("| {number} `{name}` |");
        assert!(
            troubleshooting.contains(&advice),
            "docs/troubleshooting.md lacks the row `{advice}`"
        );
    }
}

#[test]
fn configuration_page_lists_every_command_and_setting() {
    let page = read("docs/configuration.md");
    let binary = || assert_cmd::Command::cargo_bin("harness-lake").unwrap();
    for command in [
        &["--help"][..],
        &["sync", "--help"],
        &["backfill", "--help"],
        &["replay", "--help"],
    ] {
        let output = binary().args(command).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let words = help.split(|c: char| c.is_whitespace() || "[]=,`:".contains(c));
        let documented = |word: &&str| word.starts_with("--") || word.starts_with("HARNESS_");
        for setting in words.filter(documented).filter(|word| word.len() > 2) {
            let ignored = ["--help", "--version"];
            assert!(
                ignored.contains(&setting) || page.contains(setting),
                "docs/configuration.md lacks {setting}"
            );
        }
    }
    for command in Cli::command().get_subcommands() {
        let name = command.get_name();
        assert!(
            page.contains(&format!("`{name}")),
            "docs/configuration.md lacks the command {name}"
        );
    }
}

/// Returns the kind and name of every target that Cargo finds in a folder. It leaves out benchmarks without a file,
/// but `cargo build` fails without them.
fn targets(folder: &Path) -> BTreeSet<String> {
    let metadata = [
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ];
    let output = Command::new(env!("CARGO"))
        .args(metadata)
        .current_dir(folder)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let targets = packages.iter().flat_map(|package| {
        let targets = package["targets"].as_array().unwrap();
        targets
            .iter()
            .map(|target| format!("{} {}", target["kind"], target["name"]))
    });
    targets.collect()
}

#[test]
fn dockerfile_copies_every_file_that_the_build_needs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let image = TempDir::new().unwrap();
    let dockerfile = read("Dockerfile");
    let stage = dockerfile.split("\nFROM").nth(1).unwrap();
    for copy in stage.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let mut paths: Vec<&str> = copy.split(' ').collect();
        let target = image.path().join(paths.pop().unwrap());
        for path in paths {
            let is_folder = root.join(path).is_dir();
            let parent = if is_folder {
                target.parent().unwrap()
            } else {
                &target
            };
            fs::create_dir_all(parent).unwrap();
            let mut copy = Command::new("cp");
            copy.arg("-r").arg(root.join(path)).arg(&target);
            assert!(copy.status().unwrap().success(), "{path}");
        }
    }
    assert_eq!(targets(image.path()), targets(root));
    for source in files(image.path()).iter().filter(|path| is_rust(path)) {
        let text = fs::read_to_string(source).unwrap();
        for included in text.split("include_str!(").skip(1) {
            let path = included.split('"').nth(1).unwrap();
            let path = source.parent().unwrap().join(path);
            assert!(path.exists(), "the image lacks {}", path.display());
        }
    }
}

/// Runs `just`, which is next to the Python of the tests, and returns what it prints.
fn just(arguments: &[&str]) -> String {
    let mut just = Command::new(Path::new(&interpreter()).with_file_name("just"));
    just.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments);
    let run = Run::of(just.output().unwrap()).expect(0);
    run.stdout + &run.stderr
}

#[test]
fn just_recipes_run_existing_files_and_documented_commands() {
    let recipes = just(&["--summary"]);
    for recipe in recipes.split_whitespace() {
        let commands = just(&["--dry-run", recipe]);
        let scripts = commands.lines().filter_map(|line| line.strip_prefix("./"));
        for script in scripts.filter_map(|line| line.split(' ').next()) {
            let metadata = fs::metadata(format!("{}/{script}", env!("CARGO_MANIFEST_DIR")));
            assert!(
                metadata.unwrap().permissions().mode() & 0o100 != 0,
                "{script}"
            );
        }
    }
    for (recipe, page) in [("demo", "README.md"), ("check", "CONTRIBUTING.md")] {
        let command = just(&["--dry-run", recipe]);
        assert!(
            read(page).contains(command.trim()),
            "{page} lacks {command}"
        );
    }
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}
