//! The conversion of arguments and environment variables to a configuration.

use std::fmt::Display;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;

use super::args::{
    BackfillArgs, DeltaArg, LakeArgs, PeriodArg, PiiArgs, RangeArgs, ReplayArgs, RunArgs,
    ScopeArgs, SourceArgs, SyncArgs,
};
use crate::config::{self, ConfigError, SourceConfig, SyncConfig};
use crate::error::Error;
use crate::extract::discover::Filter;
use crate::job::backfill::BackfillRange;
use crate::lake::LakeError;
use crate::lake::layout::date_of;
use crate::lake::replay::Dates;
use crate::lake::store::{Store, StoreError};
use crate::pii::PiiRequest;

/// Default request rate per minute: a tenth below the limit of a Harness API key.
pub(super) const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(360).expect("not zero");

/// Default request rate per minute of a backfill, which must not starve a scheduled run.
const BACKFILL_RATE: NonZeroU32 = NonZeroU32::new(120).expect("not zero");

impl SourceArgs {
    pub(super) fn config(&self, default_rate: NonZeroU32) -> Result<SourceConfig, ConfigError> {
        let api_key = if let Some(file) = &self.api_key_file {
            config::api_key(None, Some(file))?
        } else {
            let file = env_var("HARNESS_API_KEY_FILE").map(PathBuf::from);
            config::api_key(env_var("HARNESS_API_KEY"), file.as_deref())?
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

/// Returns an environment variable that has no flag of its own, because a key is never an argument or because
/// the flag does not simply override it. An empty variable counts as unset.
#[expect(
    clippy::disallowed_methods,
    reason = "besides clap, only this function reads the environment"
)]
pub(super) fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

impl ScopeArgs {
    pub(super) fn filter(&self) -> Result<Filter, ConfigError> {
        Ok(Filter::new(&self.org, &self.project, &self.exclude)?)
    }

    pub(super) fn is_everything(&self) -> bool {
        self.org.is_empty() && self.project.is_empty() && self.exclude.is_empty()
    }
}

/// Opens the store at `url`, the value of `--lake` or `--into`.
pub(super) fn open_store(url: &str) -> Result<Store, Error> {
    Store::open(url).map_err(|error| match error {
        error @ (StoreError::Url { .. }
        | StoreError::UrlParts { .. }
        | StoreError::Variable { .. }
        | StoreError::MissingVariable { .. }) => Error::Config(ConfigError::Lake(error)),
        error => Error::from(LakeError::from(error)),
    })
}

impl LakeArgs {
    pub(super) fn store(&self) -> Result<Store, Error> {
        open_store(&self.lake)
    }

    pub(super) fn scratch(&self) -> Result<PathBuf, ConfigError> {
        let dir = self.scratch.clone().unwrap_or_else(std::env::temp_dir);
        if dir.is_dir() {
            return Ok(dir);
        }
        let message = format!("--scratch: directory `{}` does not exist", dir.display());
        Err(ConfigError::Range(message))
    }
}

impl PiiArgs {
    pub(super) fn request(&self) -> Result<PiiRequest, ConfigError> {
        let file = self.pii_key_file.as_deref();
        let key = env_var("HARNESS_LAKE_PII_KEY").filter(|_| file.is_none());
        config::pii(self.pii, key, file)
    }
}

impl RunArgs {
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
            lookback: duration_before_now("--lookback", &self.lookback)?,
            idle_interval: SignedDuration::ZERO,
            window_lag: duration_before_now("--window-lag", &self.window_lag)?,
            deadline: self.deadline.as_deref().map(deadline).transpose()?,
            partial_exit_code: self.partial_exit_code,
            buckets: self.buckets,
            period: self.period.and_then(PeriodArg::period),
            delta: self.delta.map(DeltaArg::is_on),
            pii: self.pii.request()?,
            scratch: lake.scratch()?,
            store: lake.store()?,
        })
    }
}

/// Parses a duration that is short enough to be subtracted from the current time.
fn duration_before_now(flag: &str, text: &str) -> Result<SignedDuration, ConfigError> {
    const MAX: SignedDuration = SignedDuration::from_hours(24 * 3_653);
    let duration = config::duration(text)?;
    if duration > MAX {
        let message = format!("{flag} {text} is too long: the maximum is ten years");
        return Err(ConfigError::Range(message));
    }
    Ok(duration)
}

fn deadline(text: &str) -> Result<Duration, ConfigError> {
    let too_long = |_| ConfigError::Range(format!("--deadline {text} is too long"));
    Duration::try_from(config::duration(text)?).map_err(too_long)
}

impl SyncArgs {
    pub(super) fn config(&self) -> Result<SyncConfig, Error> {
        let source = self.source.config(DEFAULT_RATE)?;
        Ok(SyncConfig {
            idle_interval: duration_before_now("--idle-interval", &self.idle_interval)?,
            ..self.run.config(source, &self.scopes, &self.lake)?
        })
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
            && from >= to
        {
            return Err(empty_range(from, to));
        }
        // Replay works on complete dates, so a `--to` within a date includes that date.
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

fn empty_range(from: impl Display, to: impl Display) -> ConfigError {
    ConfigError::Range(format!("--from {from} is not before --to {to}"))
}

impl RangeArgs {
    pub(super) fn range(&self) -> Result<BackfillRange, ConfigError> {
        let range = BackfillRange {
            from: config::instant(&self.from)?,
            to: config::instant(&self.to)?,
            refetch: self.refetch,
            accept_gaps: false,
        };
        if range.from < range.to {
            Ok(range)
        } else {
            Err(empty_range(&self.from, &self.to))
        }
    }
}
