//! Consistency of the project's own files.

use std::collections::BTreeSet;
use std::fs;

use clap::CommandFactory as _;
use harness_lake::cli::Cli;
use harness_lake::error::Code;

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
