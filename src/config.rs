//! What the arguments mean: validated settings, the key wrapped.

use std::io::Read;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::extract::discover::{Filter, GlobError};
use crate::ids::AccountId;
use crate::lake::store::{Store, StoreError};
use crate::pii::{self, Key, PiiRequest};
use crate::report::Report;
use crate::source::{Client, RetryPolicy, SourceSettings};

/// Settings that make no sense.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// There is no key.
    #[error(
        "no API key: set HARNESS_API_KEY, or HARNESS_API_KEY_FILE or --api-key-file to a file that holds it"
    )]
    NoKey,
    /// The key's file cannot be read.
    #[error("read the key from `{path}`")]
    KeyFile {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The file of `--ca-file` cannot be read, or holds no certificate.
    #[error("read certificates (PEM) from `{path}`")]
    CaFile {
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The key for personal data cannot be used.
    #[error("{0}")]
    PiiKey(&'static str),
    /// No account is given and the key holds none.
    #[error("no account: set --account-id or HARNESS_ACCOUNT_ID (this key does not hold it)")]
    NoAccount,
    /// The base URL is none.
    #[error("`{url}` is no base URL: expected something like https://app.harness.io")]
    BaseUrl {
        /// What was given.
        url: String,
    },
    /// The base URL would send the key in the clear.
    #[error("`{url}` would send the API key unencrypted; --insecure-http allows it")]
    Insecure {
        /// What was given.
        url: String,
    },
    /// A glob is none.
    #[error("read --org, --project or --exclude")]
    Glob(#[from] GlobError),
    /// A date or a duration is none.
    #[error("`{value}` is no {what}")]
    Time {
        /// What was given.
        value: String,
        /// What was expected.
        what: &'static str,
    },
    /// `--lake` names no lake.
    #[error(transparent)]
    Lake(StoreError),
    /// A value is out of its range.
    #[error("{0}")]
    Range(String),
}

/// How to reach the source.
pub struct SourceConfig {
    /// The account.
    pub account: AccountId,
    /// The key.
    pub api_key: SecretString,
    /// The base URL.
    pub base_url: Url,
    /// Requests a minute.
    pub requests_per_minute: NonZeroU32,
    /// Requests at once.
    pub concurrency: NonZeroU32,
    /// The largest page.
    pub page_size: u32,
    /// Certificates in PEM that are trusted besides those of the system.
    pub ca_certificate: Option<Vec<u8>>,
}

/// What a `sync` does.
pub struct SyncConfig {
    /// The source.
    pub source: SourceConfig,
    /// The lake.
    pub store: Store,
    /// Buckets of new dates, where the user asked for a number.
    pub buckets: Option<u32>,
    /// The folder for what memory cannot hold.
    pub scratch: PathBuf,
    /// What is to be done with personal data.
    pub pii: PiiRequest,
    /// Scopes to read.
    pub filter: Filter,
    /// Whether the filter lets everything pass, so that listings are complete.
    pub is_everything: bool,
    /// Where the coverage of a new scope begins; `None` for 30 days ago.
    pub start_date: Option<Timestamp>,
    /// How far before the watermark windows begin.
    pub lookback: SignedDuration,
    /// How long before now windows end.
    pub window_lag: SignedDuration,
    /// How long the run reads at most.
    pub deadline: Option<Duration>,
    /// The exit status where some scopes failed.
    pub partial_exit_code: u8,
}

impl SyncConfig {
    /// Scopes that are read at once.
    pub fn concurrency(&self) -> usize {
        self.source.concurrency.get() as usize
    }

    /// The report of a run that begins now.
    pub(crate) fn begin_report(&self, command: &'static str, clock: fn() -> Timestamp) -> Report {
        let run_id = ulid::Ulid::generate().to_string();
        Report::begin(run_id, command, self.source.account.clone(), clock())
    }
}

impl SourceConfig {
    /// Makes the client. Costs some milliseconds: only for commands that talk.
    ///
    /// # Errors
    ///
    /// [`crate::source::SourceError`] where the key cannot be sent.
    pub fn client(&self, clock: fn() -> Timestamp) -> Result<Client, crate::source::SourceError> {
        Client::new(SourceSettings {
            base_url: self.base_url.clone(),
            account: self.account.clone(),
            api_key: self.api_key.clone(),
            requests_per_minute: self.requests_per_minute,
            concurrency: self.concurrency,
            retry: RetryPolicy::default(),
            request_timeout: Duration::from_secs(60),
            ca_certificate: self.ca_certificate.clone(),
            clock,
        })
    }

    /// A fingerprint of the key: two keys see different scopes.
    pub fn key_fingerprint(&self) -> String {
        crate::pii::fingerprint(&self.api_key)
    }
}

/// Finds the key: the variable, else the file.
///
/// # Errors
///
/// [`ConfigError::NoKey`], [`ConfigError::KeyFile`].
pub fn api_key(variable: Option<String>, file: Option<&Path>) -> Result<SecretString, ConfigError> {
    let text = match (variable.filter(|key| !key.trim().is_empty()), file) {
        (Some(key), _) => key,
        (None, Some(path)) => read_key(path)?,
        (None, None) => return Err(ConfigError::NoKey),
    };
    // Some editors begin a file with a mark.
    match text.trim_start_matches('\u{feff}').trim() {
        "" => Err(ConfigError::NoKey),
        key => Ok(SecretString::from(key.to_owned())),
    }
}

/// Reads a key's file, and warns where everyone on the machine can do so.
fn read_key(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::KeyFile {
        path: path.display().to_string(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o004 != 0 {
        tracing::warn!(
            file = %path.display(),
            "every user of this machine can read the file of the key: chmod 400 it"
        );
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The certificates of a PEM file.
///
/// # Errors
///
/// [`ConfigError::CaFile`].
pub fn ca_certificate(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |source| ConfigError::CaFile {
        path: path.display().to_string(),
        source,
    };
    let pem = std::fs::read(path).map_err(failed)?;
    // Text without one would pass as a bundle of none, and the server be refused for another reason.
    let begin = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(begin.len()).any(|bytes| bytes == begin) {
        Ok(pem)
    } else {
        Err(failed(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "there is no certificate in it",
        )))
    }
}

/// What is to be done with personal data: the key is the variable's, else the file's.
///
/// # Errors
///
/// [`ConfigError::KeyFile`], [`ConfigError::PiiKey`].
pub fn pii(
    mode: Option<pii::Mode>,
    variable: Option<String>,
    file: Option<&Path>,
) -> Result<PiiRequest, ConfigError> {
    if !matches!(mode, None | Some(pii::Mode::Hash)) {
        return Ok(PiiRequest { mode, key: None });
    }
    let text = match (variable.filter(|key| !key.trim().is_empty()), file) {
        (Some(key), _) => Some(key),
        (None, Some(path)) => Some(read_key(path)?),
        (None, None) => None,
    };
    if text.is_none() && mode.is_some() {
        return Err(ConfigError::PiiKey(
            "--pii hash needs a key: set HARNESS_LAKE_PII_KEY, or --pii-key-file to a file that holds it",
        ));
    }
    let key = |text: String| {
        Key::new(&text).ok_or(ConfigError::PiiKey(
            "the key for personal data has less than 16 characters, so it can be guessed: take a longer one",
        ))
    };
    let key = text.map(key).transpose()?;
    Ok(PiiRequest { mode, key })
}

/// The account: as given, else from the key (`pat.ACCOUNT.ID.SECRET`, `sat.…`).
///
/// # Errors
///
/// [`ConfigError::NoAccount`].
pub fn account(given: Option<&str>, key: &SecretString) -> Result<AccountId, ConfigError> {
    let from_key = || {
        let mut parts = key.expose_secret().split('.');
        let is_token = matches!(parts.next(), Some("pat" | "sat"));
        parts
            .next()
            .filter(|account| is_token && !account.is_empty())
    };
    given
        .map(str::trim)
        .filter(|id| !id.is_empty())
        .or_else(from_key)
        .map_or(Err(ConfigError::NoAccount), |id| Ok(AccountId::new(id)))
}

/// The base URL: TLS, unless it is loopback or the user insists.
///
/// # Errors
///
/// [`ConfigError::BaseUrl`], [`ConfigError::Insecure`].
pub fn base_url(text: &str, insecure_http: bool) -> Result<Url, ConfigError> {
    let odd = || ConfigError::BaseUrl {
        url: text.to_owned(),
    };
    let url = Url::parse(text).map_err(|_| odd())?;
    let host = url.host().ok_or_else(odd)?;
    let is_loopback = match host {
        url::Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::BaseUrl {
            url: "(a URL with user or password)".to_owned(),
        });
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback || insecure_http => Ok(url),
        "http" => Err(ConfigError::Insecure {
            url: text.to_owned(),
        }),
        _ => Err(odd()),
    }
}

/// An instant: `YYYY-MM-DD` (UTC midnight) or RFC 3339.
///
/// # Errors
///
/// [`ConfigError::Time`].
pub fn instant(text: &str) -> Result<Timestamp, ConfigError> {
    let odd = || ConfigError::Time {
        value: text.to_owned(),
        what: "date (YYYY-MM-DD) or time (RFC 3339)",
    };
    if let Ok(date) = text.parse::<Date>()
        && text.len() == 10
    {
        return TimeZone::UTC
            .to_timestamp(date.to_datetime(jiff::civil::Time::midnight()))
            .map_err(|_| odd());
    }
    text.parse().map_err(|_| odd())
}

/// Whether an instant is the first of a UTC date.
pub fn is_midnight(at: Timestamp) -> bool {
    at.as_nanosecond().rem_euclid(86_400_000_000_000) == 0
}

/// A duration such as `90s`, `5m`, `24h`, `37d`, not negative.
///
/// # Errors
///
/// [`ConfigError::Time`].
pub fn duration(text: &str) -> Result<SignedDuration, ConfigError> {
    let odd = || ConfigError::Time {
        value: text.to_owned(),
        what: "duration (such as 90s, 5m, 24h, 37d)",
    };
    let span: Span = text.parse().map_err(|_| odd())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| odd())?;
    if duration.is_negative() {
        Err(odd())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_found_in_the_key() {
        let key = |text: &str| SecretString::from(text.to_owned());
        assert_eq!(
            account(None, &key("pat.acc.id.secret")).unwrap().as_str(),
            "acc"
        );
        assert_eq!(
            account(Some("other"), &key("pat.acc.id.secret"))
                .unwrap()
                .as_str(),
            "other"
        );
        assert!(account(None, &key("old-style-key")).is_err());
    }

    #[test]
    fn a_key_goes_over_tls_or_loopback() {
        assert!(base_url("https://app.harness.io", false).is_ok());
        assert!(base_url("http://127.0.0.1:8080", false).is_ok());
        assert!(base_url("http://localhost:1", false).is_ok());
        assert!(matches!(
            base_url("http://example.com", false),
            Err(ConfigError::Insecure { .. })
        ));
        assert!(base_url("http://example.com", true).is_ok());
        assert!(base_url("ftp://example.com", true).is_err() && base_url("app", true).is_err());
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(
            instant("2026-11-24").unwrap().to_string(),
            "2026-11-24T00:00:00Z"
        );
        assert_eq!(
            instant("2026-11-24T10:00:00+02:00").unwrap().to_string(),
            "2026-11-24T08:00:00Z"
        );
        assert!(instant("yesterday").is_err());
        assert_eq!(
            duration("37d").unwrap(),
            SignedDuration::from_hours(37 * 24)
        );
        assert_eq!(duration("5m").unwrap(), SignedDuration::from_mins(5));
        assert!(duration("-5m").is_err() && duration("5").is_err());
    }
}
