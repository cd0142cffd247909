//! `sim`: the simulated account as a server.

use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::net::TcpListener;

use super::{Context, output};
use crate::config;
use crate::error::Error;
use harness_sim::{Account, AccountSpec, Clock, RowSize, Server, ServerOptions, Vintage};

#[derive(Debug, Args)]
pub(super) struct SimArgs {
    /// Port of 127.0.0.1 to listen on; 0 for any that is free
    #[arg(long, default_value = "8080")]
    port: u16,
    /// What makes one simulated account differ from another
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Organizations
    #[arg(long, default_value = "3")]
    orgs: usize,
    /// Projects of an organization
    #[arg(long, default_value = "3")]
    projects: usize,
    /// Executions in the account's history, about
    #[arg(long, default_value = "5000")]
    executions: usize,
    /// Days of history
    #[arg(long, default_value = "30")]
    days: u32,
    /// How large summaries are
    #[arg(long, value_enum, default_value_t)]
    rows: RowsArg,
    /// What its clock shows at first (YYYY-MM-DD or RFC 3339); by default the time that it is
    #[arg(long, value_name = "D")]
    now: Option<String>,
    /// When the history of `--days` ends (YYYY-MM-DD or RFC 3339), by default at `--now`: servers of
    /// one account at different times have it in common
    #[arg(long, value_name = "D")]
    history_until: Option<String>,
    /// Which server is simulated
    #[arg(long, value_enum, default_value_t)]
    vintage: VintageArg,
    /// Requests a minute above which it answers 429
    #[arg(long)]
    rate_limit: Option<u32>,
    /// Milliseconds that each answer takes
    #[arg(long, default_value = "0")]
    latency_ms: u64,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum VintageArg {
    /// Today's service
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

/// Hours after the history in which executions still start.
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
        "export HARNESS_BASE_URL={}\nexport HARNESS_API_KEY={}\n# harness-lake sync --lake ./sim-lake   (Ctrl-C ends the server)",
        server.base_url(),
        server.api_key(),
    ))?;
    let mut stop = context.stop.clone();
    // Where nobody can signal any more, the server goes on for ever.
    if stop.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
    server.shutdown().await;
    Ok(())
}
