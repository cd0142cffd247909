//! Slow work on blocking threads.

use std::panic::resume_unwind;

use tracing::Span;

/// Runs `work` on a blocking thread, at once. The returned future waits for its result, and continues a panic of
/// the work.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> {
    let span = Span::current();
    let running = tokio::task::spawn_blocking(move || span.in_scope(work));
    async {
        match running.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime shuts down, and this future with it.
                Err(_) => std::future::pending().await,
            },
        }
    }
}
