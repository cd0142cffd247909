//! The `harness-lake` binary: arguments, log, signals, dispatch, exit status.

use std::io::{self, IsTerminal};
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
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let wanted = std::env::var_os(EnvFilter::DEFAULT_ENV).filter(|wanted| !wanted.is_empty());
    let wanted = wanted.and_then(|wanted| EnvFilter::try_new(wanted.to_str()?).ok());
    let filter = wanted.unwrap_or_else(|| EnvFilter::new("warn,harness_lake=info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    if cli.log_is_json() {
        log.json().init();
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
        .expect("threads can be started");
    let exit = runtime.block_on(run(cli));
    // Reads of files that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    exit
}

/// Threads that wait for the network.
const WORKERS: usize = 2;

/// Lets all threads allocate from one arena of glibc. Batches are made on whichever thread is free,
/// and an arena per thread keeps what that thread once needed: 315 MB instead of 104 MB for the first
/// `sync` of 97,000 executions. Threads that wait for each other cost `replay` some of its time.
/// `MALLOC_ARENA_MAX` has no effect then.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(
    unsafe_code,
    reason = "the one call of the C library that has no safe wrapper"
)]
fn share_one_arena() {
    // SAFETY: called before any other thread is started; it sets a number.
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
            () = a_signal() => stop.send_replace(true),
        };
    }
}

/// Waits for SIGINT or SIGTERM.
async fn a_signal() {
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
    reason = "the one place that reads the local clock"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
