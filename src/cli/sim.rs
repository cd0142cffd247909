//! `sim`: serves a simulated account over HTTP.

use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;

use super::{Context, output};
use crate::config;
use crate::error::Error;
use harness_sim::{Account, AccountSpec, Clock, RowSize, Server, ServerOptions, Vintage};

#[derive(Debug, Args)]
pub(super) struct SimArgs {
    /// Port on 127.0.0.1; 0 picks a free port
    #[arg(long, default_value = "8080", value_name = "PORT")]
    port: u16,
    /// Seed of the random account
    #[arg(long, default_value = "1", value_name = "N")]
    seed: u64,
    /// Number of organizations
    #[arg(long, default_value = "3", value_name = "N")]
    orgs: usize,
    /// Number of projects per organization
    #[arg(long, default_value = "3", value_name = "N")]
    projects: usize,
    /// Approximate number of executions before the end of the history
    #[arg(long, default_value = "5000", value_name = "N")]
    executions: usize,
    /// Length of the history in days
    #[arg(long, default_value = "30", value_name = "N")]
    days: u32,
    /// Size of execution summaries
    #[arg(long, value_enum, default_value_t)]
    rows: RowsArg,
    /// Start time of the simulated clock, YYYY-MM-DD or RFC 3339 [default: current time]
    #[arg(long, value_name = "DATE")]
    now: Option<String>,
    /// End of the history, YYYY-MM-DD or RFC 3339 [default: value of --now]. Servers with the same
    /// value simulate the same account
    #[arg(long, value_name = "DATE")]
    history_until: Option<String>,
    /// Version of the simulated server
    #[arg(long, value_enum, default_value_t)]
    vintage: VintageArg,
    /// Maximum requests per minute; further ones are answered with 429 [default: no limit]
    #[arg(long, value_name = "N")]
    rate_limit: Option<u32>,
    /// Delay of each response in milliseconds
    #[arg(long, default_value = "0", value_name = "MS")]
    latency_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum VintageArg {
    /// The hosted service, as of today
    #[default]
    Saas,
    /// An older or self-managed server
    Older,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum RowsArg {
    /// 3 to 8 kB
    #[default]
    Small,
    /// 3 to 26 kB with a long tail
    Realistic,
}

/// Hours after the history in which executions start.
const FUTURE_HOURS: u32 = 14 * 24;

pub(super) async fn run(args: &SimArgs, context: &Context) -> Result<(), Error> {
    let instant = |text: &Option<String>| text.as_deref().map(config::instant).transpose();
    let now = instant(&args.now)?.unwrap_or_else(context.clock);
    let history_until = instant(&args.history_until)?.unwrap_or(now);
    let spec = AccountSpec {
        seed: args.seed,
        orgs: args.orgs,
        projects_per_org: args.projects,
        executions: args.executions,
        days: args.days,
        future_hours: FUTURE_HOURS,
        size: match args.rows {
            RowsArg::Small => RowSize::Small,
            RowsArg::Realistic => RowSize::Realistic,
        },
        ..AccountSpec::demo(history_until)
    };
    let account = Account::generate(&spec);
    let mut options = ServerOptions::new(&account);
    options.clock = Clock::running(now);
    options.requests_per_minute = args.rate_limit;
    options.latency = Duration::from_millis(args.latency_ms);
    options.vintage = match args.vintage {
        VintageArg::Saas => Vintage::Saas,
        VintageArg::Older => Vintage::Older,
    };
    let address = ("127.0.0.1", args.port);
    let listening = |source| Error::System {
        what: format!("listen on 127.0.0.1:{}", address.1),
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(listening)?;
    let server = Server::start(account, options, listener)
        .await
        .map_err(listening)?;
    output::print(&format!(
        "export HARNESS_BASE_URL={}\nexport HARNESS_API_KEY={}\n# harness-lake sync --lake ./sim-lake   (Ctrl-C stops the server)",
        server.base_url(),
        server.api_key(),
    ))?;
    let mut stop = context.stop.clone();
    // Without a sender no signal can arrive, so the server runs until it is killed.
    if stop.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
    server.shutdown().await;
    Ok(())
}
