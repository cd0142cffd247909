//! The `schema` and `completions` commands.

use clap::{CommandFactory, Subcommand, ValueEnum};

use super::args::PeriodArg;
use super::output::{self, table};
use super::settings::env_var;
use super::{Cli, Context, open_store};
use crate::config::ConfigError;
use crate::error::Error;
use crate::lake::identity::Identity;
use crate::lake::layout::Period;
use crate::lake::store::{normalized, with_account};
use crate::schema::Table;
use crate::schema::ddl::{Engine, ddl, ddl_of_delta, depends_on_period};
use crate::schema::dictionary::{dictionary, of_table};

#[derive(Debug, Subcommand)]
pub(super) enum SchemaCommand {
    /// List the tables
    List,
    /// Show the columns of a table: type, description and source
    Show {
        /// Table to show
        #[arg(value_parser = parse_table)]
        table: Table,
    },
    /// Print statements that make every table and view of a lake available by name
    Ddl {
        /// Query engine
        engine: EngineArg,
        /// Location of the lake that the statements read
        #[arg(long, env = "HARNESS_LAKE", value_name = "LAKE", help_heading = "Lake")]
        lake: String,
        /// What one object of a table holds [default: as in the lake]
        #[arg(long, value_name = "PERIOD", help_heading = "Lake")]
        period: Option<PeriodArg>,
        /// Read the Delta tables of the lake, which `sync --delta on` writes
        #[arg(long, conflicts_with = "period", help_heading = "Lake")]
        delta: bool,
    },
    /// Print the data dictionary, `docs/schema.md`
    #[command(hide = true)]
    Docs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "lower")]
pub(super) enum EngineArg {
    DuckDb,
    Spark,
    Trino,
}

pub(super) async fn run(command: &SchemaCommand, context: &Context) -> Result<(), Error> {
    match command {
        SchemaCommand::List => {
            let definitions: Vec<_> = Table::ALL.iter().map(|table| table.definition()).collect();
            output::print_result(context.output, &definitions, || {
                let row = |table: &Table| {
                    let definition = table.definition();
                    let columns = format!("{} columns", definition.columns.len());
                    vec![
                        definition.table.clone(),
                        columns,
                        definition.description.clone(),
                    ]
                };
                table(&Table::ALL.iter().map(row).collect::<Vec<_>>())
            })
        }
        SchemaCommand::Show { table } => {
            let definition = table.definition();
            output::print_result(context.output, definition, || of_table(definition))
        }
        SchemaCommand::Docs => output::print(&dictionary()),
        SchemaCommand::Ddl {
            engine,
            lake,
            period,
            delta,
        } => {
            let engine = match engine {
                EngineArg::DuckDb => Engine::DuckDb,
                EngineArg::Spark => Engine::Spark,
                EngineArg::Trino => Engine::Trino,
            };
            let lake = match engine {
                Engine::DuckDb => normalized(lake),
                Engine::Spark | Engine::Trino => {
                    with_account(lake, env_var("AZURE_STORAGE_ACCOUNT_NAME").as_deref())
                }
            };
            let lake = lake.map_err(ConfigError::Lake)?;
            let period = match period.and_then(PeriodArg::period) {
                Some(period) => period,
                None if !delta && depends_on_period(engine, &lake) => period_of(&lake).await?,
                None => Period::Day,
            };
            let statements = if *delta {
                ddl_of_delta(engine, &lake)
            } else {
                ddl(engine, &lake, period)
            };
            let value = serde_json::json!({ "ddl": statements });
            output::print_result(context.output, &value, || statements)
        }
    }
}

/// Returns the period of a lake, or `day` if there is no lake yet.
async fn period_of(lake: &str) -> Result<Period, Error> {
    let identity = Identity::read(&open_store(lake)?).await?;
    Ok(identity.map_or(Period::Day, |(identity, _)| identity.period))
}

fn parse_table(name: &str) -> Result<Table, String> {
    let names = || Table::ALL.map(Table::name).join(", ");
    let found = Table::ALL.into_iter().find(|table| table.name() == name);
    found.ok_or_else(|| format!("no such table; the tables are {}", names()))
}

/// Prints the completion script of a shell.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Error> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "harness-lake", &mut text);
    output::print(&String::from_utf8_lossy(&text))
}
