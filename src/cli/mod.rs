//! The command line: commands, their dispatch and their exit codes.

mod args;
mod backfill;
mod check;
#[cfg(feature = "sim")]
mod demo;
#[cfg(feature = "sim")]
mod demo_table;
mod examples;
mod man;
mod output;
mod panics;
mod plan;
mod replay;
mod run_output;
mod schema;
mod settings;
#[cfg(feature = "sim")]
mod sim;
mod status;
mod sync;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use jiff::Timestamp;
use tracing::{Instrument, Span, error_span};
use ulid::Ulid;

use crate::error::{Code, Error};
use crate::job::{Limits, StopSignal};
use crate::progress::Progress;
use args::{BackfillArgs, CheckArgs, ReplayArgs, StatusArgs, SyncArgs};
pub use panics::record_panics;
use settings::{DEFAULT_RATE, open_store};

/// Extract every pipeline execution of a Harness account into a lake of Parquet
#[derive(Debug, Parser)]
#[command(name = "harness-lake", version, max_term_width = 100, after_help = examples::ALL)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check credentials, permissions and write access to the lake
    #[command(after_help = examples::CHECK)]
    Check(CheckArgs),
    /// Read new executions, open executions and gaps, then commit; run it on a schedule
    #[command(after_help = examples::SYNC)]
    Sync(SyncArgs),
    /// Fetch the uncovered parts of a date range, newest first; resumable
    #[command(after_help = examples::BACKFILL)]
    Backfill(BackfillArgs),
    /// Show what a command would do: projects, windows, calls and minutes; change nothing
    #[command(subcommand, after_help = examples::PLAN)]
    Plan(plan::PlanCommand),
    /// Rebuild stale tables from raw partitions without API calls, or merge lakes
    #[command(after_help = examples::REPLAY)]
    Replay(ReplayArgs),
    /// Show coverage, lag, gaps and open executions per project, and recent runs
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Check a lake for damaged, missing, stale or foreign files and print the command that repairs each
    #[command(after_help = examples::VERIFY)]
    Verify(verify::VerifyArgs),
    /// Show tables and columns, or print statements that open a lake in a query engine
    #[command(subcommand, after_help = examples::SCHEMA)]
    Schema(schema::SchemaCommand),
    /// Print a completion script for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Shell to complete for
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = examples::MAN)]
    Man,
    /// Sync a simulated account into a local lake and show queries to try
    #[cfg(feature = "sim")]
    #[command(after_help = examples::DEMO)]
    Demo(demo::DemoArgs),
    /// Serve a simulated account over HTTP, to try schedules
    #[cfg(feature = "sim")]
    #[command(after_help = examples::SIM)]
    Sim(sim::SimArgs),
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Format of the result on standard output [default: text; none for runs with `--log-format json`]
    #[arg(
        long,
        global = true,
        env = "HARNESS_LAKE_OUTPUT",
        value_name = "FORMAT",
        value_enum
    )]
    output: Option<Format>,
    /// Format of the log on standard error; `RUST_LOG` sets its level
    #[arg(
        long,
        global = true,
        env = "HARNESS_LAKE_LOG_FORMAT",
        value_name = "FORMAT",
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

/// The process state that a command needs.
struct Context {
    output: Format,
    /// Whether a run prints its report. With a JSON log it does so only on request: the log has the figures.
    prints_report: bool,
    /// Whether the progress is a bar.
    has_bar: bool,
    run_id: String,
    clock: fn() -> Timestamp,
    stop: StopSignal,
}

impl Context {
    fn progress(&self) -> Progress {
        Progress::new(self.has_bar)
    }
}

/// Runs a command, prints its error if it fails, and returns the exit code.
///
/// `clock` is the local clock. `stop` becomes true when a signal arrives. `is_terminal` is true if standard
/// error is a terminal.
pub async fn run(
    cli: Cli,
    clock: fn() -> Timestamp,
    stop: StopSignal,
    is_terminal: bool,
) -> ExitCode {
    let (output, log) = (cli.output.output, cli.output.log_format);
    let context = Context {
        output: output.unwrap_or_default(),
        prints_report: output.is_some() || log == Format::Text,
        has_bar: is_terminal && log == Format::Text,
        run_id: Ulid::generate().to_string(),
        clock,
        stop,
    };
    let run_id = cli.command.is_run().then_some(context.run_id.as_str());
    // Of the level `error`, so that lines of every level have the id.
    let span = run_id.map_or_else(Span::none, |run_id| error_span!("run", run_id));
    let command = panics::catch(run_command(cli.command, &context));
    let result = command.instrument(span.clone()).await;
    span.in_scope(panics::warn_of_background_panic);
    match result.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::print_failure(&error, context.output, log, run_id, clock()),
    }
}

/// Prints the error for a panic outside of [`run`], and returns the exit code.
pub fn print_panic(at: Timestamp) -> ExitCode {
    let format = |flag, variable| {
        if output::requests_json(flag, variable) {
            Format::Json
        } else {
            Format::Text
        }
    };
    let output = format("--output", "HARNESS_LAKE_OUTPUT");
    let log = format("--log-format", "HARNESS_LAKE_LOG_FORMAT");
    output::print_failure(&panics::error(), output, log, None, at)
}

impl Command {
    /// Returns whether the command is a run, which has an ID and a report.
    fn is_run(&self) -> bool {
        matches!(self, Self::Sync(_) | Self::Backfill(_) | Self::Replay(_))
    }
}

async fn run_command(command: Command, context: &Context) -> Result<(), Error> {
    match command {
        Command::Check(args) => run_until_stopped(context, check::run(&args, context)).await,
        Command::Sync(args) => sync::run(&args, context).await,
        Command::Backfill(args) => backfill::run(&args, context).await,
        Command::Plan(command) => run_until_stopped(context, plan::run(&command, context)).await,
        Command::Replay(args) => replay::run(&args, context).await,
        Command::Status(args) => run_until_stopped(context, status::run(&args, context)).await,
        Command::Verify(args) => run_until_stopped(context, verify::run(&args, context)).await,
        Command::Schema(command) => schema::run(&command, context).await,
        Command::Completions { shell } => schema::completions(shell),
        Command::Man => man::run(),
        #[cfg(feature = "sim")]
        Command::Demo(args) => demo::run(&args, context).await,
        #[cfg(feature = "sim")]
        Command::Sim(args) => sim::run(&args, context).await,
    }
}

/// Runs a command that commits nothing, and abandons it when a signal arrives.
async fn run_until_stopped(
    context: &Context,
    command: impl Future<Output = Result<(), Error>>,
) -> Result<(), Error> {
    let limits = Limits::new(context.stop.clone(), None);
    let result = limits.run(command).await;
    // `print_failure` assumes that an interrupted run has printed its report.
    if let Err(error @ Error::Interrupted) = &result {
        output::print_error_document(error, context.output);
    }
    result
}

/// Parses the command line. Prints help, the version or a usage error; with `--output json`, a usage error is
/// also the document on standard output.
///
/// # Errors
///
/// The exit code if there is no command to run: 0 after help or the version, 2 after a usage error.
pub fn parse(clock: fn() -> Timestamp) -> Result<Cli, ExitCode> {
    let matches = without_empty_variables(Cli::command()).try_get_matches();
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| {
            if error.use_stderr() && output::requests_json("--output", "HARNESS_LAKE_OUTPUT") {
                output::print_usage_document(&error);
            }
            let text = error.render().to_string();
            let redacted = output::redact_keys(&text);
            if !error.use_stderr() {
                return print_help(&error, clock);
            }
            if output::requests_json("--log-format", "HARNESS_LAKE_LOG_FORMAT") {
                output::print_usage_line(&error, clock());
                return ExitCode::from(Code::Usage as u8);
            }
            // There is nowhere to report that standard error cannot be written.
            if redacted == text {
                drop(error.print());
            } else {
                drop(write!(std::io::stderr(), "{redacted}"));
            }
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        })
}

/// Prints help or the version, and returns the exit code.
fn print_help(help: &clap::Error, clock: fn() -> Timestamp) -> ExitCode {
    match output::printed(help.print()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => output::print_failure(&error, Format::Text, Format::Text, None, clock()),
    }
}

/// Makes empty environment variables count as unset, because many schedulers cannot unset one.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &Arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        value.is_some_and(|value| value.is_empty())
    };
    let command = command.mut_args(|arg| {
        if is_empty(&arg) {
            arg.env(Resettable::Reset)
        } else {
            arg
        }
    });
    command.mut_subcommands(without_empty_variables)
}

impl Cli {
    /// Returns true if the log format is JSON.
    pub fn log_is_json(&self) -> bool {
        self.output.log_format == Format::Json
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
