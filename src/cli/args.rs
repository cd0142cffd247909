//! The arguments that commands share, and what they mean.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

use super::Context;
use super::files::Files;
use crate::config::{self, ConfigError, SourceConfig, SyncConfig};
use crate::error::Error;
use crate::extract::discover::Filter;
use crate::job::backfill::BackfillRange;
use crate::lake::LakeError;
use crate::lake::layout::date_of;
use crate::lake::replay::Dates;
use crate::lake::store::{Store, StoreError};
use crate::pii::{Mode, PiiRequest};

#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
pub(super) struct SourceArgs {
    /// File that holds the API key; without it the key is that of `HARNESS_API_KEY`, else of the file that
    /// `HARNESS_API_KEY_FILE` names, never of an argument
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// The account; by default the one that the key holds (`pat.ACCOUNT.…`)
    #[arg(long, env = "HARNESS_ACCOUNT_ID", value_name = "ID")]
    pub(super) account_id: Option<String>,
    /// Where the API is, with the path before `/v1`, if any
    #[arg(
        long,
        env = "HARNESS_BASE_URL",
        value_name = "URL",
        default_value = "https://app.harness.io"
    )]
    pub(super) base_url: String,
    /// Ceiling for the whole run, retries included; one key is one budget, whoever uses it [default: 360; backfill: 120]
    #[arg(long, env = "HARNESS_LAKE_REQUESTS_PER_MINUTE", value_name = "N")]
    pub(super) requests_per_minute: Option<NonZeroU32>,
    /// Requests at once, at most
    #[arg(
        long,
        env = "HARNESS_LAKE_CONCURRENCY",
        value_name = "N",
        default_value = "16"
    )]
    pub(super) concurrency: NonZeroU32,
    /// Rows of a page, at most
    #[arg(long, env = "HARNESS_LAKE_PAGE_SIZE", value_name = "N", default_value = "1000",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) page_size: u32,
    /// Certificates (PEM) to trust besides the system's, for a proxy or a server with a CA of its own
    #[arg(long, env = "HARNESS_LAKE_CA_FILE", value_name = "FILE")]
    pub(super) ca_file: Option<PathBuf>,
    /// Allow a base URL without TLS that is not loopback: the key travels in the clear
    #[arg(long)]
    pub(super) insecure_http: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Scopes")]
pub(super) struct ScopeArgs {
    /// Read only these organizations (glob, repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(super) org: Vec<String>,
    /// Read only these projects (glob over `org/project`, repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(super) project: Vec<String>,
    /// Leave out organizations or projects (glob over `org` and `org/project`, repeatable)
    #[arg(long, value_name = "GLOB")]
    pub(super) exclude: Vec<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Lake")]
pub(super) struct LakeArgs {
    /// Where the lake is: a path, `file://` or `s3://bucket/prefix`
    #[arg(long, env = "HARNESS_LAKE", value_name = "LAKE")]
    pub(super) lake: String,
    /// Folder for what memory cannot hold; by default the system's temporary folder
    #[arg(long, env = "HARNESS_LAKE_SCRATCH", value_name = "DIR")]
    pub(super) scratch: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) scopes: ScopeArgs,
    /// Where the lake is or shall be; without it only the source is checked
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
    #[command(flatten)]
    pub(super) run: RunArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Range")]
pub(super) struct RangeArgs {
    /// The first instant of the range (YYYY-MM-DD or RFC 3339)
    #[arg(long, value_name = "D")]
    pub(super) from: String,
    /// The first instant after the range; what cannot be read whole yet is cut off and reported
    #[arg(long, value_name = "D")]
    pub(super) to: String,
    /// Read covered parts again, too
    #[arg(long)]
    pub(super) refetch: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Run")]
pub(super) struct RunArgs {
    /// Objects of a date: at the birth of a lake [default: 1], later for dates from the day after tomorrow on
    #[arg(long, env = "HARNESS_LAKE_BUCKETS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) buckets: Option<u32>,
    #[command(flatten)]
    pii: PiiArgs,
    /// Where the first `sync` of a new project begins (YYYY-MM-DD or RFC 3339) [default: 30 days ago]
    #[arg(long, env = "HARNESS_LAKE_START_DATE", value_name = "D")]
    pub(super) start_date: Option<String>,
    /// How far before the watermark rows are read again, for late edits
    #[arg(
        long,
        env = "HARNESS_LAKE_LOOKBACK",
        value_name = "DURATION",
        default_value = "24h"
    )]
    pub(super) lookback: String,
    /// How long before now windows end, since the source's replicas lag
    #[arg(
        long,
        env = "HARNESS_LAKE_WINDOW_LAG",
        value_name = "DURATION",
        default_value = "5m"
    )]
    pub(super) window_lag: String,
    /// How long to read at most; what was whole by then is committed, and the exit status is 10 [default: no end]
    #[arg(long, env = "HARNESS_LAKE_DEADLINE", value_name = "DURATION")]
    pub(super) deadline: Option<String>,
    /// Exit status where some projects failed and the rest is committed
    #[arg(
        long,
        env = "HARNESS_LAKE_PARTIAL_EXIT_CODE",
        value_name = "N",
        default_value = "3"
    )]
    pub(super) partial_exit_code: u8,
    /// Write the run report, JSON, to this file
    #[arg(long, env = "HARNESS_LAKE_REPORT", value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Write the run's figures in Prometheus' text format to this file, whatever becomes of the run
    #[arg(long, env = "HARNESS_LAKE_METRICS_FILE", value_name = "FILE")]
    pub(super) metrics_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct PiiArgs {
    /// What becomes of personal data, decided at the birth of a lake [default: keep, or as the lake was born]
    #[arg(long, env = "HARNESS_LAKE_PII", value_name = "WHAT")]
    pub(super) pii: Option<Mode>,
    /// File that holds the key of `--pii hash`; without it the key is read from `HARNESS_LAKE_PII_KEY`
    #[arg(long, value_name = "FILE")]
    pub(super) pii_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    #[command(flatten)]
    pub(super) lake: LakeArgs,
    /// The first date (YYYY-MM-DD); by default the first of the lake
    #[arg(long, value_name = "D")]
    pub(super) from: Option<String>,
    /// The first date after (YYYY-MM-DD); by default none
    #[arg(long, value_name = "D")]
    pub(super) to: Option<String>,
    /// Rebuild every table, not only those that are stale or were written by another version
    #[arg(long)]
    pub(super) all: bool,
    /// Another lake, made where there is none: raw partitions and what the checkpoint claims of them are
    /// merged into it, and its tables are derived; this lake stays as it is
    #[arg(long, value_name = "LAKE")]
    pub(super) into: Option<String>,
    /// Objects of a date of the other lake, at its birth [default: as in this lake]
    #[arg(long, value_name = "N", requires = "into",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) buckets: Option<u32>,
    /// Write the run report, JSON, to this file
    #[arg(long, env = "HARNESS_LAKE_REPORT", value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Write the run's figures in Prometheus' text format to this file, whatever becomes of the run
    #[arg(long, env = "HARNESS_LAKE_METRICS_FILE", value_name = "FILE")]
    pub(super) metrics_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) lake: LakeArgs,
}

impl SourceArgs {
    pub(super) fn config(&self, default_rate: NonZeroU32) -> Result<SourceConfig, ConfigError> {
        let api_key = if let Some(file) = &self.api_key_file {
            config::api_key(None, Some(file))?
        } else {
            let file = variable("HARNESS_API_KEY_FILE").map(PathBuf::from);
            config::api_key(variable("HARNESS_API_KEY"), file.as_deref())?
        };
        Ok(SourceConfig {
            account: config::account(self.account_id.as_deref(), &api_key)?,
            base_url: config::base_url(&self.base_url, self.insecure_http)?,
            api_key,
            requests_per_minute: self.requests_per_minute.unwrap_or(default_rate),
            concurrency: self.concurrency,
            page_size: self.page_size,
            ca_certificate: self
                .ca_file
                .as_deref()
                .map(config::ca_certificate)
                .transpose()?,
        })
    }
}

/// A variable that clap has no argument for, since a key never stands on a command line, or that stands behind
/// one. The empty text is none.
#[expect(clippy::disallowed_methods, reason = "the one place besides clap")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// Requests a minute of a scheduled run: a tenth below what Harness allows a key.
pub(super) const RATE: NonZeroU32 = NonZeroU32::new(360).expect("not zero");

/// Requests a minute of a backfill, which leaves room for the scheduled run beside it.
const BACKFILL_RATE: NonZeroU32 = NonZeroU32::new(120).expect("not zero");

impl ScopeArgs {
    pub(super) fn filter(&self) -> Result<Filter, ConfigError> {
        Ok(Filter::new(&self.org, &self.project, &self.exclude)?)
    }

    pub(super) fn is_everything(&self) -> bool {
        self.org.is_empty() && self.project.is_empty() && self.exclude.is_empty()
    }
}

/// Opens the place that `--lake` names.
pub(super) fn open_store(url: &str) -> Result<Store, Error> {
    Store::open(url).map_err(|error| match error {
        error @ (StoreError::Url { .. } | StoreError::UrlParts) => {
            Error::Config(ConfigError::Lake(error))
        }
        error => Error::Lake(LakeError::from(error)),
    })
}

impl LakeArgs {
    pub(super) fn store(&self) -> Result<Store, Error> {
        open_store(&self.lake)
    }

    pub(super) fn scratch(&self) -> Result<PathBuf, ConfigError> {
        let folder = self.scratch.clone().unwrap_or_else(std::env::temp_dir);
        if folder.is_dir() {
            return Ok(folder);
        }
        let what = format!("--scratch: there is no folder `{}`", folder.display());
        Err(ConfigError::Range(what))
    }
}

impl PiiArgs {
    pub(super) fn wish(&self) -> Result<PiiRequest, ConfigError> {
        let file = self.pii_key_file.as_deref();
        let variable = variable("HARNESS_LAKE_PII_KEY").filter(|_| file.is_none());
        config::pii(self.pii, variable, file)
    }
}

impl RunArgs {
    pub(super) fn files(
        &self,
        command: &'static str,
        context: &Context,
    ) -> Result<Files<'_>, Error> {
        let (report, metrics) = (self.report.as_deref(), self.metrics_file.as_deref());
        let files = Files::begin(command, report, metrics, context);
        files.check()?;
        Ok(files)
    }

    pub(super) fn config(
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
            lookback: bounded("--lookback", &self.lookback)?,
            window_lag: bounded("--window-lag", &self.window_lag)?,
            deadline: self.deadline.as_deref().map(deadline).transpose()?,
            partial_exit_code: self.partial_exit_code,
            buckets: self.buckets,
            pii: self.pii.wish()?,
            scratch: lake.scratch()?,
            store: lake.store()?,
        })
    }
}

/// A duration that can be taken from any time that is now.
fn bounded(flag: &str, text: &str) -> Result<SignedDuration, ConfigError> {
    const LONGEST: SignedDuration = SignedDuration::from_hours(24 * 3_653);
    let duration = config::duration(text)?;
    if LONGEST < duration {
        let what = format!("{flag} {text} is too long: ten years are the most");
        return Err(ConfigError::Range(what));
    }
    Ok(duration)
}

fn deadline(text: &str) -> Result<Duration, ConfigError> {
    let too_large = |_| ConfigError::Range(format!("--deadline {text} is too long"));
    Duration::try_from(config::duration(text)?).map_err(too_large)
}

impl SyncArgs {
    pub(super) fn config(&self) -> Result<SyncConfig, Error> {
        self.run
            .config(self.source.config(RATE)?, &self.scopes, &self.lake)
    }
}

impl BackfillArgs {
    pub(super) fn config(&self) -> Result<SyncConfig, Error> {
        self.run
            .config(self.source.config(BACKFILL_RATE)?, &self.scopes, &self.lake)
    }
}

impl ReplayArgs {
    pub(super) fn dates(&self) -> Result<Dates, ConfigError> {
        let instant = |text: &Option<String>| text.as_deref().map(config::instant).transpose();
        let (from, to) = (instant(&self.from)?, instant(&self.to)?);
        if let (Some(from), Some(to)) = (from, to)
            && to <= from
        {
            return Err(not_before(from, to));
        }
        // A date is replayed whole, also the last one.
        let to = to.map(|to| match date_of(to) {
            date if config::is_midnight(to) => date,
            date => date.tomorrow().unwrap_or(date),
        });
        Ok(Dates {
            from: from.map(date_of),
            to,
        })
    }
}

fn not_before(from: impl Display, to: impl Display) -> ConfigError {
    ConfigError::Range(format!("--from {from} is not before --to {to}"))
}

impl RangeArgs {
    pub(super) fn range(&self) -> Result<BackfillRange, ConfigError> {
        let range = BackfillRange {
            from: config::instant(&self.from)?,
            to: config::instant(&self.to)?,
            refetch: self.refetch,
        };
        if range.from < range.to {
            Ok(range)
        } else {
            Err(not_before(&self.from, &self.to))
        }
    }
}
