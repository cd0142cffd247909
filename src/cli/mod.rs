//! The command line: what can be typed, and where each command begins.

mod args;
mod backfill;
mod check;
#[cfg(feature = "sim")]
mod demo;
mod examples;
mod files;
mod man;
mod output;
mod plan;
mod replay;
mod schema;
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

use crate::error::Error;
use crate::job::{StopSignal, or_stop};
use args::{BackfillArgs, CheckArgs, RATE, ReplayArgs, StatusArgs, SyncArgs, open_store};

/// Extracts every pipeline execution of a Harness account into a lake of Parquet.
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
    /// Is the connection good: credentials, permissions, something to read, a lake that can be written
    #[command(after_help = examples::CHECK)]
    Check(CheckArgs),
    /// The scheduled job: everything new, gaps, every open execution again; then commit
    #[command(after_help = examples::SYNC)]
    Sync(SyncArgs),
    /// History: what of a range is not covered yet, newest first, resumable
    #[command(after_help = examples::BACKFILL)]
    Backfill(BackfillArgs),
    /// What a command would do: projects, windows, calls, minutes at the budget; changes nothing
    #[command(subcommand, after_help = examples::PLAN)]
    Plan(plan::PlanCommand),
    /// Derive the tables again from the raw partitions, with no API call
    #[command(after_help = examples::REPLAY)]
    Replay(ReplayArgs),
    /// Coverage, lag, gaps and open executions per project
    #[command(after_help = examples::STATUS)]
    Status(StatusArgs),
    /// Audit a lake: every file, each execution once, tables against raw partitions, the checkpoint
    #[command(after_help = examples::VERIFY)]
    Verify(verify::VerifyArgs),
    /// The tables: their columns, and statements that open them
    #[command(subcommand, after_help = examples::SCHEMA)]
    Schema(schema::SchemaCommand),
    /// Completions for a shell, on standard output
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The manual page, on standard output
    #[command(after_help = examples::MAN)]
    Man,
    /// A simulated account in this process, a real sync of it over HTTP, and queries to try
    #[cfg(feature = "sim")]
    #[command(after_help = examples::DEMO)]
    Demo(demo::DemoArgs),
    /// The simulated account as a server, to try schedules against
    #[cfg(feature = "sim")]
    #[command(after_help = examples::SIM)]
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

/// What a command needs of the process around it.
struct Context {
    output: Format,
    clock: fn() -> Timestamp,
    stop: StopSignal,
    is_terminal: bool,
}

/// Runs the command that was typed, and tells how it ended.
///
/// `clock` is the local clock; `stop` turns true when a signal comes; `is_terminal` says whether
/// standard error is one.
pub async fn run(
    cli: Cli,
    clock: fn() -> Timestamp,
    stop: StopSignal,
    is_terminal: bool,
) -> ExitCode {
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
        Command::Status(args) => unless_stopped(&context, status::run(&args, &context)).await,
        Command::Verify(args) => unless_stopped(&context, verify::run(&args, &context)).await,
        Command::Schema(command) => schema::run(&command, &context),
        Command::Completions { shell } => schema::completions(shell),
        Command::Man => man::run(),
        #[cfg(feature = "sim")]
        Command::Demo(args) => demo::run(&args, &context).await,
        #[cfg(feature = "sim")]
        Command::Sim(args) => sim::run(&args, &context).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (output, log) = (context.output, cli.output.log_format);
            output::failure(&error, output, log, clock())
        }
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
    let matches = without_empty_variables(Cli::command()).try_get_matches();
    matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| {
            if error.use_stderr() && output::wants_json(std::env::args_os()) {
                output::usage_document(&error);
            }
            let plain = error.render().to_string();
            let shown = output::without_keys(&plain);
            if shown == plain || !error.use_stderr() {
                // Nothing can be done where the output itself is gone.
                drop(error.print());
            } else {
                drop(write!(std::io::stderr(), "{shown}"));
            }
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        })
}

/// Takes a variable that is empty for one that is not set: schedulers often cannot leave one out.
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
    /// Whether the log is to be JSON.
    pub fn log_is_json(&self) -> bool {
        self.output.log_format == Format::Json
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
