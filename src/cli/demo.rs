//! `demo`: syncs a simulated account over HTTP, syncs it again five hours later, and prints queries.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::HumanCount;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use tokio::net::TcpListener;
use ulid::Ulid;

use super::demo_table::totals_by_project;
use super::output;
use super::sync::summary;
use super::{Context, Format};
use crate::config::{self, SourceConfig, SyncConfig};
use crate::error::Error;
use crate::extract::discover::Filter;
use crate::job;
use crate::lake::layout;
use crate::lake::layout::Period;
use crate::lake::store::Store;
use crate::pii::PiiRequest;
use crate::report::Report;
use crate::schema::views::VIEWS;
use harness_sim::{Account, AccountSpec, Clock, Server, ServerOptions};

#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Directory of the lake; must be empty or created by `demo`
    #[arg(long, default_value = "demo-lake", value_name = "DIR")]
    lake: PathBuf,
}

/// Simulated hours between the two runs.
const HOURS_LATER: i64 = 5;

pub(super) async fn run(args: &DemoArgs, context: &Context) -> Result<(), Error> {
    let say = |text: &str| match context.output {
        Format::Text => output::print(text),
        Format::Json => Ok(()),
    };
    delete_earlier_demo(&args.lake)?;
    // The second sync takes place now: responses from the future would be distrusted.
    let now = (context.clock)() - SignedDuration::from_hours(HOURS_LATER);
    let account = Account::generate(&AccountSpec::demo(now));
    let mut options = ServerOptions::new(&account);
    options.clock = Clock::fixed(now);
    let listening = |source| Error::System {
        what: "listen on 127.0.0.1".to_owned(),
        source,
    };
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(listening)?;
    let server = Server::start(account, options, listener)
        .await
        .map_err(listening)?;
    say(&format!(
        "Serving a simulated Harness account at {}.\n\n",
        server.base_url()
    ))?;

    let config = config(&server, &args.lake)?;
    let first = sync(&config, context).await?;
    let lake = config.store.location();
    say(&format!(
        "First sync: the last 30 days\n{}\n",
        indent(&summary(&first, lake))
    ))?;

    let before = objects(&config.store).await?;
    server
        .clock()
        .advance(SignedDuration::from_hours(HOURS_LATER));
    let second = sync(&config, context).await?;
    let after = objects(&config.store).await?;
    let untouched = before
        .iter()
        .filter(|(path, tag)| after.get(*path) == Some(*tag))
        .count();
    let incremental = format!(
        "{}\n{} of {} objects unchanged",
        summary(&second, lake),
        HumanCount(untouched as u64),
        HumanCount(before.len() as u64),
    );
    say(&format!(
        "Second sync: {HOURS_LATER} simulated hours later\n{}\n",
        indent(&incremental)
    ))?;
    server.shutdown().await;
    match context.output {
        Format::Text => {
            let totals = indent(&totals_by_project(&config.store).await?);
            output::print(&format!("Read back from the Parquet files:\n{totals}\n"))?;
            output::print(&queries(lake))
        }
        Format::Json => output::print_result(Format::Json, &[first, second], String::new),
    }
}

async fn sync(config: &SyncConfig, context: &Context) -> Result<Report, Error> {
    let run_id = Ulid::generate().to_string();
    let (clock, stop) = (context.clock, context.stop.clone());
    let (report, ended) = job::sync(config, run_id, clock, &context.progress(), stop).await;
    ended.map(|()| report)
}

/// Deletes the lake of an earlier demo. Fails on a directory that `demo` did not create.
fn delete_earlier_demo(lake: &Path) -> Result<(), Error> {
    let io = |source| Error::Output {
        path: lake.display().to_string(),
        source,
    };
    if !lake.exists() {
        return Ok(());
    }
    let marker = lake.join(layout::DEMO);
    let is_empty = std::fs::read_dir(lake).map_err(io)?.next().is_none();
    if !is_empty && !marker.exists() {
        let text = "the directory is not empty and was not created by `demo`; choose another one with --lake";
        return Err(io(std::io::Error::new(
            std::io::ErrorKind::AlreadyExists,
            text,
        )));
    }
    std::fs::remove_dir_all(lake).map_err(io)
}

/// Requests per minute. The simulated server has no rate limit.
const REQUESTS_PER_MINUTE: NonZeroU32 = NonZeroU32::new(60_000).expect("not zero");

/// Concurrent requests.
const CONCURRENCY: NonZeroU32 = NonZeroU32::new(16).expect("not zero");

fn config(server: &Server, lake: &Path) -> Result<SyncConfig, Error> {
    let io = |source| Error::Output {
        path: lake.display().to_string(),
        source,
    };
    std::fs::create_dir_all(lake.join("_state")).map_err(io)?;
    std::fs::write(lake.join(layout::DEMO), b"").map_err(io)?;
    let api_key = SecretString::from(server.api_key().to_owned());
    Ok(SyncConfig {
        source: SourceConfig {
            account: config::account(None, &api_key)?,
            base_url: config::base_url(server.base_url(), false)?,
            api_key,
            requests_per_minute: REQUESTS_PER_MINUTE,
            concurrency: CONCURRENCY,
            page_size: 1_000,
            ca_certificate: None,
        },
        store: Store::open(&lake.display().to_string())?,
        buckets: None,
        // The demo shows how few objects a run replaces.
        period: Some(Period::Day),
        delta: None,
        pii: PiiRequest::default(),
        scratch: std::env::temp_dir(),
        filter: Filter::default(),
        is_everything: true,
        start_date: None,
        lookback: SignedDuration::from_hours(24),
        idle_interval: SignedDuration::ZERO,
        window_lag: SignedDuration::from_mins(5),
        deadline: None,
        partial_exit_code: 3,
    })
}

/// Returns the size and modification time of each object of raw partitions and tables.
async fn objects(store: &Store) -> Result<BTreeMap<String, (u64, Timestamp)>, Error> {
    let found = store.list("").await?;
    let is_data = |path: &str| {
        ["/start_date=", "/start_month="]
            .iter()
            .any(|column| path.contains(column))
    };
    Ok(found
        .into_iter()
        .filter(|object| is_data(&object.path))
        .map(|object| (object.path, (object.size, object.modified)))
        .collect())
}

fn indent(text: &str) -> String {
    text.lines()
        .map(|line| ["  ", line, "\n"].concat())
        .collect::<Vec<_>>()
        .concat()
}

fn queries(lake: &str) -> String {
    format!(
        r"The lake in {lake} consists of Parquet files. To query its tables and views by name, open it with DuckDB:

  duckdb -init {lake}/{}

  -- What share of deployments to production fails, by week?
  SELECT date_trunc('week', start_date) AS week, sum(deployments) AS deployments,
         sum(failed_deployments) / sum(deployments) AS failure_rate
  FROM change_failure_rate WHERE environment_type = 'Production' GROUP BY ALL ORDER BY ALL;

  -- How long does it take to restore a service?
  SELECT service_id, sum(outages) AS outages, sum(restored_outages) AS restored,
         max(longest_restore_ms) / 3600000 AS longest_hours
  FROM time_to_restore GROUP BY ALL ORDER BY outages DESC LIMIT 10;

  -- Which stages fail most often?
  SELECT pipeline_id, stage_id, sum(runs) AS runs, sum(failures) AS failures, any_value(example_error_message) AS example
  FROM failed_stages GROUP BY ALL ORDER BY failures DESC LIMIT 10;

  -- Which executions are open, and since when?
  SELECT org_id, project_id, pipeline_name, status, start_ts
  FROM executions WHERE NOT is_terminal ORDER BY start_ts;

More views: {}

To create an HTML report from a checkout (needs uv):

  uv run analytics/report.py {lake} -o report.html",
        layout::VIEWS,
        VIEWS.map(|view| view.name).join(", "),
    )
}
