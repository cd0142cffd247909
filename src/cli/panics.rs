//! Panics are bugs of this program. A command that panics ends with an error, as after any other failure.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Mutex;

use futures::FutureExt;

use crate::error::Error;
use crate::mutex;

/// The message of the first panic. Later panics usually follow from it.
static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Records panics instead of printing them, so that they are reported in the format that the user chose.
pub fn record_panics() {
    panic::set_hook(Box::new(record));
}

fn record(info: &PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("panic without a message");
    let message = match info.location() {
        Some(location) => format!("{text} ({location})"),
        None => text.to_owned(),
    };
    mutex::lock(&FIRST).get_or_insert(message);
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        // There is nowhere to report that standard error cannot be written.
        drop(writeln!(io::stderr(), "{backtrace}"));
    }
}

/// Returns the error for a panic that was caught.
pub(super) fn error() -> Error {
    let message = mutex::lock(&FIRST).take();
    Error::Bug {
        message: message.unwrap_or_else(|| "panic".to_owned()),
    }
}

/// Runs a part of a command, and returns its panic as an error.
pub(super) fn catch<T>(part: impl Future<Output = T>) -> impl Future<Output = Result<T, Error>> {
    // Boxed, because the futures of commands are large.
    let part = AssertUnwindSafe(Box::pin(part)).catch_unwind();
    async { part.await.map_err(|_| error()) }
}

/// Logs a panic that failed only a background task, such as a connection.
pub(super) fn warn_of_background_panic() {
    if let Some(panic) = mutex::lock(&FIRST).take() {
        tracing::warn!(
            panic,
            "a background task panicked; this is a bug: report it with this line"
        );
    }
}
