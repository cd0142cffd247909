//! The command line: what can be typed, and where each command begins.

mod check;
#[cfg(feature = "sim")]
mod demo;
mod output;
#[cfg(feature = "sim")]
mod sim;
mod status;
mod sync;

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::config::{self, ConfigError, SourceConfig, SyncConfig};
use crate::error::Error;
use crate::extract::discover::Filter;
use crate::job::{Stop, or_stop};
use crate::lake::LakeError;
use crate::lake::store::Store;

/// Extracts every pipeline execution of a Harness account into a lake of Parquet.
#[derive(Debug, Parser)]
#[command(name = "harness-lake", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  harness-lake demo                                  a simulated account, a real sync, queries to try
  HARNESS_API_KEY=pat.… harness-lake check --lake s3://bucket/harness
  HARNESS_API_KEY=pat.… harness-lake sync --lake ./lake
  harness-lake status --lake ./lake";

#[derive(Debug, Subcommand)]
enum Command {
    /// Is the connection good: credentials, permissions, something to read, a lake that can be written
    Check(CheckArgs),
    /// The scheduled job: everything new, gaps, every open execution again; then commit
    Sync(SyncArgs),
    /// Coverage, lag, gaps and open executions per project
    Status(StatusArgs),
    /// A simulated account in this process, a real sync of it over HTTP, and queries to try
    #[cfg(feature = "sim")]
    Demo(demo::DemoArgs),
    /// The simulated account as a server, to try schedules against
    #[cfg(feature = "sim")]
    Sim(sim::SimArgs),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// What standard output holds: text for people, or one JSON document
    #[arg(
        long,
        global = true,
        env = "HARNESS_LAKE_OUTPUT",
        value_enum,
        default_value_t
    )]
    output: Format,
    /// The form of the log on standard error; `RUST_LOG` sets its level
    #[arg(
        long,
        global = true,
        env = "HARNESS_LAKE_LOG_FORMAT",
        value_enum,
        default_value_t
    )]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
struct SourceArgs {
    /// File that holds the API key; without it the key is read from `HARNESS_API_KEY`, never from an argument
    #[arg(long, env = "HARNESS_API_KEY_FILE", value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// The account; by default the one that the key holds (`pat.ACCOUNT.…`)
    #[arg(long, env = "HARNESS_ACCOUNT_ID", value_name = "ID")]
    account_id: Option<String>,
    /// Where the API is, with the path before `/v1`, if any
    #[arg(
        long,
        env = "HARNESS_BASE_URL",
        value_name = "URL",
        default_value = "https://app.harness.io"
    )]
    base_url: String,
    /// Ceiling for the whole run, retries included; one key is one budget, whoever uses it
    #[arg(
        long,
        env = "HARNESS_LAKE_REQUESTS_PER_MINUTE",
        value_name = "N",
        default_value = "360"
    )]
    requests_per_minute: NonZeroU32,
    /// Requests at once, at most
    #[arg(
        long,
        env = "HARNESS_LAKE_CONCURRENCY",
        value_name = "N",
        default_value = "16"
    )]
    concurrency: NonZeroU32,
    /// Rows of a page, at most
    #[arg(long, env = "HARNESS_LAKE_PAGE_SIZE", value_name = "N", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    page_size: u32,
    /// Allow a base URL without TLS that is not loopback: the key travels in the clear
    #[arg(long)]
    insecure_http: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Scopes")]
struct ScopeArgs {
    /// Read only these organizations (glob, repeatable)
    #[arg(long, value_name = "GLOB")]
    org: Vec<String>,
    /// Read only these projects (glob over `org/project`, repeatable)
    #[arg(long, value_name = "GLOB")]
    project: Vec<String>,
    /// Leave out organizations or projects (glob over `org` and `org/project`, repeatable)
    #[arg(long, value_name = "GLOB")]
    exclude: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Lake")]
struct LakeArgs {
    /// Where the lake is: a path, `file://` or `s3://bucket/prefix`
    #[arg(long, env = "HARNESS_LAKE", value_name = "LAKE")]
    lake: String,
    /// Folder for what memory cannot hold; by default the system's temporary folder
    #[arg(long, env = "HARNESS_LAKE_SCRATCH", value_name = "DIR")]
    scratch: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    scopes: ScopeArgs,
    /// Where the lake is or shall be; without it only the source is checked
    #[arg(long, env = "HARNESS_LAKE", value_name = "LAKE", help_heading = "Lake")]
    lake: Option<String>,
}

#[derive(Debug, Args)]
struct SyncArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    scopes: ScopeArgs,
    #[command(flatten)]
    lake: LakeArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
struct RunArgs {
    /// Objects of a date: at the birth of a lake [default: 1], later for dates from the day after tomorrow on
    #[arg(long, env = "HARNESS_LAKE_BUCKETS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    buckets: Option<u32>,
    /// Where the first `sync` of a new project begins (YYYY-MM-DD or RFC 3339) [default: 30 days ago]
    #[arg(long, env = "HARNESS_LAKE_START_DATE", value_name = "D")]
    start_date: Option<String>,
    /// How far before the watermark rows are read again, for late edits
    #[arg(
        long,
        env = "HARNESS_LAKE_LOOKBACK",
        value_name = "DURATION",
        default_value = "24h"
    )]
    lookback: String,
    /// How long before now windows end, since the source's replicas lag
    #[arg(
        long,
        env = "HARNESS_LAKE_WINDOW_LAG",
        value_name = "DURATION",
        default_value = "5m"
    )]
    window_lag: String,
    /// Exit status where some projects failed and the rest is committed
    #[arg(
        long,
        env = "HARNESS_LAKE_PARTIAL_EXIT_CODE",
        value_name = "N",
        default_value = "3"
    )]
    partial_exit_code: u8,
    /// Write the run report, JSON, to this file
    #[arg(long, env = "HARNESS_LAKE_REPORT", value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct StatusArgs {
    #[command(flatten)]
    lake: LakeArgs,
}

/// What a command needs of the process around it.
struct Context {
    output: Format,
    clock: fn() -> Timestamp,
    stop: Stop,
    is_terminal: bool,
}

/// Runs the command that was typed, and tells how it ended.
///
/// `clock` is the local clock; `stop` turns true when a signal comes; `is_terminal` says whether
/// standard error is one.
pub async fn run(cli: Cli, clock: fn() -> Timestamp, stop: Stop, is_terminal: bool) -> ExitCode {
    let context = Context {
        output: cli.output.output,
        clock,
        stop,
        is_terminal,
    };
    let ended = match cli.command {
        Command::Check(args) => {
            let check = check::run(&args, &context);
            or_stop(&mut context.stop.clone(), check).await.flatten()
        }
        Command::Sync(args) => sync::run(&args, &context).await,
        Command::Status(args) => status::run(&args, &context).await,
        #[cfg(feature = "sim")]
        Command::Demo(args) => demo::run(&args, &context).await,
        #[cfg(feature = "sim")]
        Command::Sim(args) => sim::run(&args, &context).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::failure(&error, context.output),
    }
}

impl Cli {
    /// Whether the log is to be JSON.
    pub fn log_is_json(&self) -> bool {
        self.output.log_format == Format::Json
    }
}

impl SourceArgs {
    fn config(&self) -> Result<SourceConfig, ConfigError> {
        #[expect(
            clippy::disallowed_methods,
            reason = "a key never stands on a command line, so clap has no argument for it"
        )]
        let variable = std::env::var("HARNESS_API_KEY").ok();
        let api_key = config::api_key(variable, self.api_key_file.as_deref())?;
        Ok(SourceConfig {
            account: config::account(self.account_id.as_deref(), &api_key)?,
            base_url: config::base_url(&self.base_url, self.insecure_http)?,
            api_key,
            requests_per_minute: self.requests_per_minute,
            concurrency: self.concurrency,
            page_size: self.page_size,
        })
    }
}

impl ScopeArgs {
    fn filter(&self) -> Result<Filter, ConfigError> {
        Ok(Filter::new(&self.org, &self.project, &self.exclude)?)
    }

    fn is_everything(&self) -> bool {
        self.org.is_empty() && self.project.is_empty() && self.exclude.is_empty()
    }
}

impl LakeArgs {
    fn store(&self) -> Result<Store, Error> {
        Store::open(&self.lake).map_err(|error| Error::Lake(LakeError::from(error)))
    }

    /// The place of a lake that must be there: no folder is made.
    fn existing_store(&self) -> Result<Store, Error> {
        if !self.lake.contains("://") && !Path::new(&self.lake).is_dir() {
            return Err(Error::Lake(LakeError::Missing {
                store: self.lake.clone(),
            }));
        }
        self.store()
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl SyncArgs {
    fn config(&self) -> Result<SyncConfig, Error> {
        let run = &self.run;
        Ok(SyncConfig {
            source: self.source.config()?,
            filter: self.scopes.filter()?,
            is_everything: self.scopes.is_everything(),
            start_date: run.start_date.as_deref().map(config::instant).transpose()?,
            lookback: config::duration(&run.lookback)?,
            window_lag: config::duration(&run.window_lag)?,
            partial_exit_code: run.partial_exit_code,
            buckets: run.buckets,
            scratch: self.lake.scratch(),
            store: self.lake.store()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_make_sense() {
        super::Cli::command().debug_assert();
    }
}
