//! The one integration-test binary: whole runs of the program against the simulated account.

#[cfg(feature = "failpoints")]
#[cfg(test)]
mod crash;
#[cfg(test)]
mod faulty_store;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod protocol_model;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod schedules;

#[test]
fn the_binary_tells_its_version() {
    let mut binary = assert_cmd::Command::cargo_bin("harness-lake").unwrap();
    binary.arg("--version").assert().success();
}
