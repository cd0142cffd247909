//! Points of the protocol at which tests end the process, and settings of tests. Without the feature `failpoints`
//! they do nothing.

/// Aborts the process, as `kill -9` does, if `HARNESS_LAKE_FAILPOINT` is `name`, or `name:n` at the n-th
/// call. Panics if `HARNESS_LAKE_FAILPOINT_PANICS` is set.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    static HITS: AtomicU32 = AtomicU32::new(0);
    #[expect(
        clippy::disallowed_methods,
        reason = "not a setting: only test builds have it"
    )]
    let Ok(variable) = std::env::var("HARNESS_LAKE_FAILPOINT") else {
        return;
    };
    let (point, nth) = variable.split_once(':').unwrap_or((&variable, "1"));
    if point == name && Ok(HITS.fetch_add(1, Ordering::SeqCst) + 1) == nth.parse() {
        let panics = std::env::var_os("HARNESS_LAKE_FAILPOINT_PANICS").is_some();
        assert!(!panics, "failpoint {name}");
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn hit(_name: &str) {}

/// Returns `HARNESS_LAKE_STORE_PATIENCE`, the seconds for which tests retry a request to an object store.
#[cfg(feature = "failpoints")]
pub(crate) fn store_patience() -> Option<std::time::Duration> {
    #[expect(
        clippy::disallowed_methods,
        reason = "not a setting: only test builds have it"
    )]
    let seconds = std::env::var("HARNESS_LAKE_STORE_PATIENCE").ok()?;
    seconds.parse().ok().map(std::time::Duration::from_secs)
}

/// Returns nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn store_patience() -> Option<std::time::Duration> {
    None
}

/// Returns a wait, divided by `HARNESS_LAKE_HURRY` if that is set.
#[cfg(feature = "failpoints")]
pub(crate) fn hurried(wait: std::time::Duration) -> std::time::Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "not a setting: only test builds have it"
    )]
    let factor = std::env::var("HARNESS_LAKE_HURRY").ok();
    factor
        .and_then(|factor| factor.parse().ok())
        .map_or(wait, |factor: u32| wait / factor.max(1))
}

/// Returns the wait.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn hurried(wait: std::time::Duration) -> std::time::Duration {
    wait
}
