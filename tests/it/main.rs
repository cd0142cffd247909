//! The one integration-test binary: whole runs of the program against the simulated account.

#[test]
fn the_binary_starts() {
    assert_cmd::Command::cargo_bin("harness-lake")
        .unwrap()
        .assert()
        .success();
}
