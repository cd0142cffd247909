//! The one integration-test binary: whole runs of the program against the simulated account.

#[test]
fn the_binary_tells_its_version() {
    let mut binary = assert_cmd::Command::cargo_bin("harness-lake").unwrap();
    binary.arg("--version").assert().success();
}
