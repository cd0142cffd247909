//! What the project's own files promise.

use std::collections::BTreeSet;
use std::fs;

use harness_lake::error::Code;

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Two versions of one of these would not share types, and double the binary.
#[test]
fn the_lock_file_holds_one_version_of_arrow_parquet_and_object_store() {
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
fn the_readme_tells_every_exit_code() {
    let readme = read("README.md");
    for code in Code::ALL {
        let row = format!("| {} | `{}` |", code as u8, code.name());
        assert!(readme.contains(&row), "the README lacks the row `{row}`");
    }
}

#[test]
fn the_readme_tells_every_command_and_setting() {
    let readme = read("README.md");
    let binary = || assert_cmd::Command::cargo_bin("harness-lake").unwrap();
    for command in [
        &["--help"][..],
        &["sync", "--help"],
        &["backfill", "--help"],
        &["replay", "--help"],
    ] {
        let output = binary().args(command).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let words = help.split(|c: char| c.is_whitespace() || "[]=,`".contains(c));
        for flag in words.filter(|word| word.starts_with("--") && 2 < word.len()) {
            let known = ["--help", "--version"];
            assert!(
                known.contains(&flag) || readme.contains(flag),
                "the README lacks {flag}"
            );
        }
    }
}
