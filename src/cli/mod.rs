//! The command line: what can be typed, and where each command begins.

mod backfill;
mod check;
#[cfg(feature = "sim")]
mod demo;
mod output;
mod plan;
mod replay;
mod schema;
#[cfg(feature = "sim")]
mod sim;
mod status;
mod sync;
mod verify;

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;

use crate::config::{self, ConfigError, SourceConfig, SyncConfig};
use crate::error::Error;
use crate::extract::discover::Filter;
use crate::job::backfill::Range;
use crate::job::{Stop, or_stop};
use crate::lake::LakeError;
use crate::lake::layout::date_of;
use crate::lake::replay::Dates;
use crate::lake::store::{Store, StoreError};

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
    /// History: what of a range is not covered yet, newest first, resumable
    Backfill(BackfillArgs),
    /// What a command would do: projects, windows, calls, minutes at the budget; changes nothing
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Derive the tables again from the raw partitions, with no API call
    Replay(ReplayArgs),
    /// Coverage, lag, gaps and open executions per project
    Status(StatusArgs),
    /// Audit a lake: every file, each execution once, tables against raw partitions, the checkpoint
    Verify(VerifyArgs),
    /// The tables: their columns, and statements that open them
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// Completions for a shell, on standard output
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The manual page, on standard output
    Man,
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
    /// Ceiling for the whole run, retries included; one key is one budget, whoever uses it [default: 360; backfill: 120]
    #[arg(long, env = "HARNESS_LAKE_REQUESTS_PER_MINUTE", value_name = "N")]
    requests_per_minute: Option<NonZeroU32>,
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
struct BackfillArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    scopes: ScopeArgs,
    #[command(flatten)]
    lake: LakeArgs,
    #[command(flatten)]
    range: RangeArgs,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Range")]
struct RangeArgs {
    /// The first instant of the range (YYYY-MM-DD or RFC 3339)
    #[arg(long, value_name = "D")]
    from: String,
    /// The first instant after the range; what cannot be read whole yet is cut off and reported
    #[arg(long, value_name = "D")]
    to: String,
    /// Read what is covered, too
    #[arg(long)]
    again: bool,
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
struct ReplayArgs {
    #[command(flatten)]
    lake: LakeArgs,
    /// The first date (YYYY-MM-DD); by default the first of the lake
    #[arg(long, value_name = "D")]
    from: Option<String>,
    /// The first date after (YYYY-MM-DD); by default none
    #[arg(long, value_name = "D")]
    to: Option<String>,
    /// Derive every table, not only those that are behind or of another version of this program
    #[arg(long)]
    again: bool,
    /// Write the run report, JSON, to this file
    #[arg(long, env = "HARNESS_LAKE_REPORT", value_name = "FILE")]
    report: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    lake: LakeArgs,
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
        Command::Check(args) => unless_stopped(&context, check::run(&args, &context)).await,
        Command::Sync(args) => sync::run(&args, &context).await,
        Command::Backfill(args) => backfill::run(&args, &context).await,
        Command::Plan(command) => unless_stopped(&context, plan::run(&command, &context)).await,
        Command::Replay(args) => replay::run(&args, &context).await,
        Command::Status(args) => status::run(&args, &context).await,
        Command::Verify(args) => unless_stopped(&context, verify::run(&args, &context)).await,
        Command::Schema(command) => schema::run(&command, &context),
        Command::Completions { shell } => schema::completions(shell),
        Command::Man => schema::man(),
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

/// Runs a command that commits nothing, and so can end at once when a signal comes.
async fn unless_stopped(
    context: &Context,
    command: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    match or_stop(&mut context.stop.clone(), command).await {
        Ok(ended) => ended,
        Err(error) => {
            // Unlike a run, it has printed nothing yet.
            output::error_document(&error, context.output);
            Err(error)
        }
    }
}

/// Reads the command line. What is wrong with it is told as every failure is: exit status 2, and
/// with `--output json` one document on standard output.
///
/// # Errors
///
/// The exit status, where there is no command to run; help and version are no failures.
pub fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        if error.use_stderr() && output::wants_json(std::env::args_os()) {
            output::usage_document(&error);
        }
        // Nothing can be done where the output itself is gone.
        drop(error.print());
        ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
    })
}

impl Cli {
    /// Whether the log is to be JSON.
    pub fn log_is_json(&self) -> bool {
        self.output.log_format == Format::Json
    }
}

impl SourceArgs {
    fn config(&self, default_rate: NonZeroU32) -> Result<SourceConfig, ConfigError> {
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
            requests_per_minute: self.requests_per_minute.unwrap_or(default_rate),
            concurrency: self.concurrency,
            page_size: self.page_size,
        })
    }
}

/// Requests a minute of a scheduled run: a tenth below what Harness allows a key.
const RATE: NonZeroU32 = NonZeroU32::new(360).expect("not zero");

/// Requests a minute of a backfill, which leaves room for the scheduled run beside it.
const BACKFILL_RATE: NonZeroU32 = NonZeroU32::new(120).expect("not zero");

impl ScopeArgs {
    fn filter(&self) -> Result<Filter, ConfigError> {
        Ok(Filter::new(&self.org, &self.project, &self.exclude)?)
    }

    fn is_everything(&self) -> bool {
        self.org.is_empty() && self.project.is_empty() && self.exclude.is_empty()
    }
}

/// Opens the place that `--lake` names.
fn open_store(url: &str) -> Result<Store, Error> {
    Store::open(url).map_err(|error| match error {
        error @ StoreError::Url { .. } => Error::Config(ConfigError::Lake(error)),
        error => Error::Lake(LakeError::from(error)),
    })
}

impl LakeArgs {
    fn store(&self) -> Result<Store, Error> {
        open_store(&self.lake)
    }

    fn scratch(&self) -> PathBuf {
        self.scratch.clone().unwrap_or_else(std::env::temp_dir)
    }
}

impl RunArgs {
    fn config(
        &self,
        source: SourceConfig,
        scopes: &ScopeArgs,
        lake: &LakeArgs,
    ) -> Result<SyncConfig, Error> {
        Ok(SyncConfig {
            source,
            filter: scopes.filter()?,
            is_everything: scopes.is_everything(),
            start_date: self
                .start_date
                .as_deref()
                .map(config::instant)
                .transpose()?,
            lookback: config::duration(&self.lookback)?,
            window_lag: config::duration(&self.window_lag)?,
            partial_exit_code: self.partial_exit_code,
            buckets: self.buckets,
            scratch: lake.scratch(),
            store: lake.store()?,
        })
    }
}

impl SyncArgs {
    fn config(&self) -> Result<SyncConfig, Error> {
        self.run
            .config(self.source.config(RATE)?, &self.scopes, &self.lake)
    }
}

impl BackfillArgs {
    fn config(&self) -> Result<SyncConfig, Error> {
        self.run
            .config(self.source.config(BACKFILL_RATE)?, &self.scopes, &self.lake)
    }
}

impl ReplayArgs {
    fn dates(&self) -> Result<Dates, ConfigError> {
        let date = |text: &String| config::instant(text).map(date_of);
        Ok(Dates {
            from: self.from.as_ref().map(date).transpose()?,
            to: self.to.as_ref().map(date).transpose()?,
        })
    }
}

impl RangeArgs {
    fn range(&self) -> Result<Range, ConfigError> {
        let range = Range {
            from: config::instant(&self.from)?,
            to: config::instant(&self.to)?,
            again: self.again,
        };
        if range.from < range.to {
            Ok(range)
        } else {
            Err(ConfigError::Range(format!(
                "--from {} is not before --to {}",
                self.from, self.to
            )))
        }
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
