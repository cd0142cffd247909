//! Points of the protocol at which the tests let the process die; nothing without `failpoints`.

/// Dies as by `kill -9` if `HARNESS_LAKE_FAILPOINT` is `name`, or `name:n` at the n-th time.
#[cfg(feature = "failpoints")]
pub(crate) fn hit(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    static HITS: AtomicU32 = AtomicU32::new(0);
    #[expect(
        clippy::disallowed_methods,
        reason = "no setting: only the tests' build has it"
    )]
    let Ok(wanted) = std::env::var("HARNESS_LAKE_FAILPOINT") else {
        return;
    };
    let (point, nth) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if point == name && Ok(HITS.fetch_add(1, Ordering::SeqCst) + 1) == nth.parse() {
        std::process::abort();
    }
}

/// Does nothing.
#[cfg(not(feature = "failpoints"))]
pub(crate) const fn hit(_name: &str) {}
