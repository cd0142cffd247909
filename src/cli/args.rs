//! The arguments of the commands, with their help.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::run_output::RunOutputArgs;
use crate::lake::layout::Period;
use crate::pii::Mode;
use crate::tables::DEFAULT_BASE_URL;

#[derive(Debug, Args)]
#[command(next_help_heading = "Harness API")]
pub(super) struct SourceArgs {
    /// File that contains the API key [default: `HARNESS_API_KEY`, else `HARNESS_API_KEY_FILE`]
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Harness account [default: the account in the API key (`pat.ACCOUNT.…`)]
    #[arg(long, env = "HARNESS_ACCOUNT_ID", value_name = "ID")]
    pub(super) account_id: Option<String>,
    /// Base URL of the Harness API, with any path before `/v1`
    #[arg(
        long,
        env = "HARNESS_BASE_URL",
        value_name = "URL",
        default_value = DEFAULT_BASE_URL
    )]
    pub(super) base_url: String,
    /// Maximum requests per minute, including retries. All users of a key share its limit of 400
    /// [default: 360; backfill: 120]
    #[arg(long, env = "HARNESS_LAKE_REQUESTS_PER_MINUTE", value_name = "N")]
    pub(super) requests_per_minute: Option<NonZeroU32>,
    /// Maximum concurrent requests
    #[arg(
        long,
        env = "HARNESS_LAKE_CONCURRENCY",
        value_name = "N",
        default_value = "16"
    )]
    pub(super) concurrency: NonZeroU32,
    /// Maximum executions per page
    #[arg(long, env = "HARNESS_LAKE_PAGE_SIZE", value_name = "N", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) page_size: u32,
    /// File of CA certificates (PEM) to trust in addition to the system's
    #[arg(long, env = "HARNESS_LAKE_CA_FILE", value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Allow a base URL without TLS that is not loopback; the API key is sent unencrypted
    #[arg(long)]
    pub(super) insecure_http: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Projects")]
pub(super) struct ScopeArgs {
    /// Include only matching organizations; repeatable [default: all]
    #[arg(long, value_name = "GLOB")]
    pub(super) org: Vec<String>,
    /// Include only matching projects (`org/project`); repeatable [default: all]
    #[arg(long, value_name = "GLOB")]
    pub(super) project: Vec<String>,
    /// Exclude matching organizations (`org`) or projects (`org/project`); repeatable
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Lake")]
pub(super) struct LakeArgs {
    /// Location of the lake: a path or a URL: `file://`, `s3://`, `az://`, `abfss://`, `gs://`
    #[arg(long, env = "HARNESS_LAKE", value_name = "LAKE")]
    pub(super) lake: String,
    /// Directory for data that does not fit in memory [default: the system's temporary directory]
    #[arg(long, env = "HARNESS_LAKE_SCRATCH", value_name = "DIR")]
    pub(super) scratch: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) scopes: ScopeArgs,
    /// Check every project, one request each [default: a sample of 100]
    #[arg(long, help_heading = "Projects")]
    pub(super) all_projects: bool,
    /// Location of the lake, which need not exist; without it, only the API is checked
    #[arg(long, env = "HARNESS_LAKE", value_name = "LAKE", help_heading = "Lake")]
    pub(super) lake: Option<String>,
    #[command(flatten)]
    pub(super) pii: PiiArgs,
}

#[derive(Debug, Args)]
pub(super) struct SyncArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) scopes: ScopeArgs,
    #[command(flatten)]
    pub(super) lake: LakeArgs,
    /// Ask projects without a new execution for a week at most this often; 0 asks in every run
    #[arg(
        long,
        env = "HARNESS_LAKE_IDLE_INTERVAL",
        value_name = "DURATION",
        default_value = "0s",
        help_heading = "Run"
    )]
    pub(super) idle_interval: String,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Args)]
pub(super) struct BackfillArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) scopes: ScopeArgs,
    #[command(flatten)]
    pub(super) lake: LakeArgs,
    #[command(flatten)]
    pub(super) range: RangeArgs,
    /// Accept windows that still fail as gaps for good: no `sync` retries or reports them
    #[arg(long, help_heading = "Range")]
    pub(super) accept_gaps: bool,
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Range")]
pub(super) struct RangeArgs {
    /// Start of the range, inclusive (YYYY-MM-DD or RFC 3339)
    #[arg(long, value_name = "DATE")]
    pub(super) from: String,
    /// End of the range, exclusive; cut to what can be read completely now, as `covered_to` reports
    #[arg(long, value_name = "DATE")]
    pub(super) to: String,
    /// Read covered parts of the range again
    #[arg(long)]
    pub(super) refetch: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(super) struct RunArgs {
    /// Start of the first `sync` of a new project (YYYY-MM-DD or RFC 3339) [default: 30 days ago]
    #[arg(long, env = "HARNESS_LAKE_START_DATE", value_name = "DATE")]
    pub(super) start_date: Option<String>,
    /// Time before the watermark that is read again, for late edits
    #[arg(
        long,
        env = "HARNESS_LAKE_LOOKBACK",
        value_name = "DURATION",
        default_value = "24h"
    )]
    pub(super) lookback: String,
    /// Read only executions older than this, because replicas in Harness lag
    #[arg(
        long,
        env = "HARNESS_LAKE_WINDOW_LAG",
        value_name = "DURATION",
        default_value = "5m"
    )]
    pub(super) window_lag: String,
    /// Stop reading after this time, commit complete windows and exit with code 10 [default: none]
    #[arg(long, env = "HARNESS_LAKE_DEADLINE", value_name = "DURATION")]
    pub(super) deadline: Option<String>,
    /// Exit code when some projects failed and the rest is committed
    #[arg(
        long,
        env = "HARNESS_LAKE_PARTIAL_EXIT_CODE",
        value_name = "N",
        default_value = "3"
    )]
    pub(super) partial_exit_code: u8,
    /// What one object of a table holds, fixed when a lake is created. `auto`: a month for an
    /// account of less than 30,000 executions in 30 days, else a day [default: auto]
    #[arg(
        long,
        env = "HARNESS_LAKE_PERIOD",
        value_name = "PERIOD",
        help_heading = "Lake"
    )]
    pub(super) period: Option<PeriodArg>,
    /// Objects per table and period. On an existing lake, applies to periods that begin after
    /// tomorrow [default: 1]
    #[arg(long, env = "HARNESS_LAKE_BUCKETS", value_name = "N", help_heading = "Lake",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) buckets: Option<u32>,
    /// Also write each table as a Delta table under `delta/`; kept with the lake [default: off]
    #[arg(
        long,
        env = "HARNESS_LAKE_DELTA",
        value_name = "MODE",
        help_heading = "Lake"
    )]
    pub(super) delta: Option<DeltaArg>,
    // A flattened group changes the heading of the arguments after it, so groups come last.
    #[command(flatten)]
    pub(super) pii: PiiArgs,
    #[command(flatten)]
    pub(super) output: RunOutputArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Lake")]
pub(super) struct PiiArgs {
    /// Redactor of personal data, fixed when a lake is created [default: keep]
    #[arg(long, env = "HARNESS_LAKE_PII", value_name = "MODE")]
    pub(super) pii: Option<Mode>,
    /// File that contains the key for `--pii hash` [default: the key in `HARNESS_LAKE_PII_KEY`]
    #[arg(long, value_name = "FILE")]
    pub(super) pii_key_file: Option<PathBuf>,
}

/// The setting of the Delta tables, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum DeltaArg {
    On,
    Off,
}

impl DeltaArg {
    pub(super) fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

/// The period of a lake, as an argument.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PeriodArg {
    Day,
    Month,
    /// The period of the lake; for a new lake, by its number of executions
    Auto,
}

impl PeriodArg {
    /// Returns the requested period; `None` for `auto`.
    pub(super) fn period(self) -> Option<Period> {
        match self {
            Self::Day => Some(Period::Day),
            Self::Month => Some(Period::Month),
            Self::Auto => None,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub(super) lake: LakeArgs,
    /// First date to rebuild (YYYY-MM-DD) [default: the first date of the lake]
    #[arg(long, value_name = "DATE", help_heading = "Range")]
    pub(super) from: Option<String>,
    /// End of the dates to rebuild, exclusive (YYYY-MM-DD) [default: after the last date of the lake]
    #[arg(long, value_name = "DATE", help_heading = "Range")]
    pub(super) to: Option<String>,
    /// Rebuild every table, not only those that are stale or were written by another version
    #[arg(long, help_heading = "Range")]
    pub(super) all: bool,
    /// Merge this lake into another, new or in use, and rebuild tables there; this lake is not changed
    #[arg(long, value_name = "LAKE", help_heading = "Target")]
    pub(super) into: Option<String>,
    /// What one object of a table holds, set when `--into` creates a lake [default: as in this lake]
    #[arg(
        long,
        value_name = "PERIOD",
        requires = "into",
        help_heading = "Target"
    )]
    pub(super) period: Option<PeriodArg>,
    /// Objects per table and period, set when `--into` creates a lake [default: as in this lake]
    #[arg(long, value_name = "N", requires = "into", help_heading = "Target",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) buckets: Option<u32>,
    /// Also write each table as a Delta table under `delta/`; kept with the lake [default: as in the lake]
    #[arg(
        long,
        env = "HARNESS_LAKE_DELTA",
        value_name = "MODE",
        help_heading = "Target"
    )]
    pub(super) delta: Option<DeltaArg>,
    #[command(flatten)]
    pub(super) run_output: RunOutputArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) lake: LakeArgs,
}
