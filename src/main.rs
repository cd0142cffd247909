//! The `harness-lake` binary: arguments, logging, signals, exit status.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::process::ExitCode;

use harness_lake::cli::{self, Cli};
use harness_lake::lake;
use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    share_one_arena();
    cli::record_panics();
    panic::catch_unwind(run_program).unwrap_or_else(|_| cli::print_panic(now()))
}

fn run_program() -> ExitCode {
    let cli = match cli::parse(now) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let rust_log = std::env::var_os(EnvFilter::DEFAULT_ENV).filter(|level| !level.is_empty());
    let rust_log = rust_log.and_then(|level| EnvFilter::try_new(level.to_str()?).ok());
    let filter = rust_log.unwrap_or_else(|| EnvFilter::new("warn,harness_lake=info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_writer(|| Log);
    if cli.log_is_json() {
        // A line lists all spans once, the run first.
        log.json().with_current_span(false).init();
    } else {
        log.with_target(false)
            .with_ansi(io::stderr().is_terminal())
            .init();
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(lake::BLOCKING)
        .enable_all()
        .build()
        .expect("the system can start threads");
    let exit = runtime.block_on(run(cli));
    // Do not wait for blocking reads whose result nobody needs.
    runtime.shutdown_background();
    exit
}

/// Standard error, without its errors: a full disk or a reader that ends must not fail the run.
struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        drop(io::stderr().write_all(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Threads of the async runtime, which mostly wait for the network.
const WORKERS: usize = 2;

/// Makes all threads allocate from one arena of glibc.
///
/// Batches are built on any free thread, and each arena keeps the peak of its thread: the first
/// `sync` of 97,000 executions needs 315 MB with an arena per thread, and 104 MB with one. The cost
/// is lock contention in `replay`. `MALLOC_ARENA_MAX` has no effect.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "this call of the C library has no safe wrapper")]
fn share_one_arena() {
    // SAFETY: no other thread runs yet, and the call only sets a number.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_one_arena() {}

async fn run(cli: Cli) -> ExitCode {
    let (stop, stopped) = watch::channel(false);
    let command = cli::run(cli, now, stopped, io::stderr().is_terminal());
    tokio::pin!(command);
    loop {
        tokio::select! {
            exit = &mut command => return exit,
            () = termination_signal() => stop.send_replace(true),
        };
    }
}

/// Waits for SIGINT or SIGTERM.
async fn termination_signal() {
    let (Ok(mut int), Ok(mut term)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the only place that reads the local clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
