//! Validated settings.

use std::io::Read;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::civil::Date;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::extract::discover::{Filter, GlobError};
use crate::failpoint::hurried;
use crate::ids::AccountId;
use crate::lake::layout::Period;
use crate::lake::store::{Store, StoreError};
use crate::pii::{self, Key, PiiRequest};
use crate::source::{Client, RetryPolicy, SourceSettings};

/// An invalid setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// No API key is set.
    #[error("no API key: set HARNESS_API_KEY, or --api-key-file to a file that contains it")]
    NoKey,
    /// The key is enclosed in quotes, or is the value of a header.
    #[error("the API key {problem}: set the key itself, such as `pat.ACCOUNT.ID.SECRET`")]
    WrappedKey {
        /// The problem, without the key.
        problem: &'static str,
    },
    /// The file of a key cannot be read.
    #[error("failed to read the key from `{path}`")]
    KeyFile {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file of `--ca-file` cannot be read, or contains no certificate.
    #[error("failed to read PEM certificates from `{path}`")]
    CaFile {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The key for personal data cannot be used.
    #[error("{0}")]
    PiiKey(&'static str),
    /// No account is set and the key does not contain one.
    #[error("no account: set --account-id (this API key does not contain it)")]
    NoAccount,
    /// The base URL is invalid.
    #[error("invalid base URL `{url}`: expected a URL such as https://app.harness.io")]
    BaseUrl {
        /// The value.
        url: String,
    },
    /// The base URL has no TLS.
    #[error("`{url}` sends the API key unencrypted: use https, or allow it with --insecure-http")]
    Insecure {
        /// The value.
        url: String,
    },
    /// A glob is invalid.
    #[error("invalid --org, --project or --exclude")]
    Glob(#[from] GlobError),
    /// A date or a duration is invalid.
    #[error("invalid {what} `{value}`: expected {expected}")]
    Time {
        /// The value.
        value: String,
        /// The kind of value: date or duration.
        what: &'static str,
        /// The expected format.
        expected: &'static str,
    },
    /// `--lake` or a variable of its store is invalid.
    #[error(transparent)]
    Lake(StoreError),
    /// A value is out of its range.
    #[error("{0}")]
    Range(String),
}

/// The settings of the source.
pub struct SourceConfig {
    /// The account.
    pub account: AccountId,
    /// The API key.
    pub api_key: SecretString,
    /// The base URL.
    pub base_url: Url,
    /// Maximum requests per minute.
    pub requests_per_minute: NonZeroU32,
    /// Maximum concurrent requests.
    pub concurrency: NonZeroU32,
    /// Maximum rows of a page.
    pub page_size: u32,
    /// PEM certificates to trust in addition to those of the system.
    pub ca_certificate: Option<Vec<u8>>,
}

/// The settings of `sync` and `backfill`.
pub struct SyncConfig {
    /// The source.
    pub source: SourceConfig,
    /// The lake.
    pub store: Store,
    /// Buckets of new periods; `None` to keep those of the lake.
    pub buckets: Option<u32>,
    /// The period of the lake; `None` to keep that of the lake, and to choose that of a new one.
    pub period: Option<Period>,
    /// Whether to update Delta tables; `None` to keep the setting of the lake.
    pub delta: Option<bool>,
    /// The scratch directory.
    pub scratch: PathBuf,
    /// The requested treatment of personal data.
    pub pii: PiiRequest,
    /// Projects to read.
    pub filter: Filter,
    /// Whether the filter matches every project, so that listings are complete.
    pub is_everything: bool,
    /// Start of the first `sync` of a project; `None` for 30 days ago.
    pub start_date: Option<Timestamp>,
    /// Time before the watermark that is read again.
    pub lookback: SignedDuration,
    /// How often `sync` asks projects without a new execution for a week; zero for each run.
    pub idle_interval: SignedDuration,
    /// Time before now at which windows end.
    pub window_lag: SignedDuration,
    /// Maximum time to read.
    pub deadline: Option<Duration>,
    /// Exit status when some projects failed.
    pub partial_exit_code: u8,
}

impl SyncConfig {
    /// Returns the number of projects to read at the same time.
    pub fn concurrency(&self) -> usize {
        self.source.concurrency.get() as usize
    }
}

impl SourceConfig {
    /// Creates the client. Loading the certificates takes some milliseconds.
    ///
    /// # Errors
    ///
    /// [`crate::source::SourceError`] for a key or an account that no header can contain.
    pub fn client(&self, clock: fn() -> Timestamp) -> Result<Client, crate::source::SourceError> {
        Client::new(SourceSettings {
            base_url: self.base_url.clone(),
            account: self.account.clone(),
            api_key: self.api_key.clone(),
            requests_per_minute: self.requests_per_minute,
            concurrency: self.concurrency,
            retry: RetryPolicy::default(),
            request_timeout: hurried(Duration::from_secs(60)),
            ca_certificate: self.ca_certificate.clone(),
            clock,
        })
    }

    /// Returns a fingerprint of the key. Different keys may see different projects.
    pub fn key_fingerprint(&self) -> String {
        crate::pii::fingerprint(&self.api_key)
    }
}

/// Returns the API key: from the variable, else from the file.
///
/// # Errors
///
/// [`ConfigError::NoKey`], [`ConfigError::WrappedKey`], [`ConfigError::KeyFile`].
pub fn api_key(variable: Option<String>, file: Option<&Path>) -> Result<SecretString, ConfigError> {
    let text = match (variable.filter(|key| !key.trim().is_empty()), file) {
        (Some(key), _) => key,
        (None, Some(path)) => read_key(path)?,
        (None, None) => return Err(ConfigError::NoKey),
    };
    // Some editors write a byte order mark.
    match text.trim_start_matches('\u{feff}').trim() {
        "" => Err(ConfigError::NoKey),
        key if key.starts_with(['"', '\'', '`']) => Err(ConfigError::WrappedKey {
            problem: "is enclosed in quotes",
        }),
        key if key.contains(char::is_whitespace) => Err(ConfigError::WrappedKey {
            problem: "contains a blank, like the value of an `Authorization: Bearer` header",
        }),
        key => Ok(SecretString::from(key.to_owned())),
    }
}

/// Reads the file of a key; warns if every user of the machine can read it.
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
            "every user of this machine can read the key file; run chmod 400 on it"
        );
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// Reads the certificates of a PEM file.
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
    // The TLS library accepts other text as an empty bundle, which fails later with another error.
    let begin = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(begin.len()).any(|bytes| bytes == begin) {
        Ok(pem)
    } else {
        Err(failed(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            "it contains no certificate",
        )))
    }
}

/// Returns the requested treatment of personal data. The key is from the variable, else from the file.
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
            "--pii hash needs a key: set HARNESS_LAKE_PII_KEY, or --pii-key-file to a file that contains it",
        ));
    }
    let key = |text: String| {
        Key::new(&text).ok_or(ConfigError::PiiKey(
            "the key for personal data has fewer than 16 characters, so it can be guessed: choose a longer one",
        ))
    };
    let key = text.map(key).transpose()?;
    Ok(PiiRequest { mode, key })
}

/// Returns the account: as set, else from the key (`pat.ACCOUNT.ID.SECRET`, `sat.…`).
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

/// Parses the base URL. Requires TLS, except for loopback or with `--insecure-http`.
///
/// # Errors
///
/// [`ConfigError::BaseUrl`], [`ConfigError::Insecure`].
pub fn base_url(text: &str, insecure_http: bool) -> Result<Url, ConfigError> {
    let invalid = || ConfigError::BaseUrl {
        url: text.to_owned(),
    };
    let url = Url::parse(text).map_err(|_| invalid())?;
    let host = url.host().ok_or_else(invalid)?;
    let is_loopback = match host {
        url::Host::Domain(name) => name == "localhost" || name.ends_with(".localhost"),
        url::Host::Ipv4(ip) => ip.is_loopback(),
        url::Host::Ipv6(ip) => ip.is_loopback(),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::BaseUrl {
            url: "(URL with a user or password)".to_owned(),
        });
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback || insecure_http => Ok(url),
        "http" => Err(ConfigError::Insecure {
            url: text.to_owned(),
        }),
        _ => Err(invalid()),
    }
}

/// Parses an instant: `YYYY-MM-DD` (UTC midnight) or RFC 3339.
///
/// # Errors
///
/// [`ConfigError::Time`].
pub fn instant(text: &str) -> Result<Timestamp, ConfigError> {
    let invalid = || ConfigError::Time {
        value: text.to_owned(),
        what: "date",
        expected: "YYYY-MM-DD or RFC 3339",
    };
    // `9999-12-31` is a valid date, although no instant is that late: it means the last one.
    let last = |date: Date| match date.year() {
        9999 => Ok(Timestamp::MAX),
        _ => Err(invalid()),
    };
    if let Ok(date) = text.parse::<Date>()
        && text.len() == 10
    {
        let midnight = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0));
        return midnight.or_else(|_| last(date));
    }
    text.parse().or_else(|_| match Pieces::parse(text) {
        Ok(pieces) if pieces.offset().is_some() => last(pieces.date()),
        _ => Err(invalid()),
    })
}

/// Returns whether an instant is midnight, UTC.
pub fn is_midnight(at: Timestamp) -> bool {
    at.as_nanosecond().rem_euclid(86_400_000_000_000) == 0
}

/// Parses a duration such as `90s`, `5m`, `24h`, `37d`. It must not be negative.
///
/// # Errors
///
/// [`ConfigError::Time`].
pub fn duration(text: &str) -> Result<SignedDuration, ConfigError> {
    let invalid = || ConfigError::Time {
        value: text.to_owned(),
        what: "duration",
        expected: "a value such as 90s, 5m, 24h or 37d",
    };
    let span: Span = text.parse().map_err(|_| invalid())?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| invalid())?;
    if duration.is_negative() {
        Err(invalid())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_is_read_from_the_key() {
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
    fn key_in_quotes_or_with_a_scheme_is_rejected() {
        for text in ["\"pat.a.b.c\"", "'pat.a.b.c'", "Bearer pat.a.b.c"] {
            let error = api_key(Some(text.to_owned()), None).unwrap_err();
            assert!(matches!(error, ConfigError::WrappedKey { .. }), "{text}");
            assert!(!error.to_string().contains("pat.a"), "{error}");
        }
        assert!(api_key(Some(" pat.a.b.c\n".to_owned()), None).is_ok());
    }

    #[test]
    fn base_url_needs_tls_or_loopback() {
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
    fn dates_and_durations_are_parsed() {
        assert_eq!(
            instant("2026-11-24").unwrap().to_string(),
            "2026-11-24T00:00:00Z"
        );
        assert_eq!(
            instant("2026-11-24T10:00:00+02:00").unwrap().to_string(),
            "2026-11-24T08:00:00Z"
        );
        for last in [
            "9999-12-31",
            "9999-12-31T23:59:59Z",
            "9999-12-31T00:00:00-02:00",
        ] {
            assert_eq!(instant(last).unwrap(), Timestamp::MAX);
        }
        for invalid in [
            "yesterday",
            "9999-12-32",
            "9999-12-31T23:59:59",
            "10000-01-01",
        ] {
            assert!(instant(invalid).is_err(), "{invalid}");
        }
        assert_eq!(
            duration("37d").unwrap(),
            SignedDuration::from_hours(37 * 24)
        );
        assert_eq!(duration("5m").unwrap(), SignedDuration::from_mins(5));
        assert!(duration("-5m").is_err() && duration("5").is_err());
    }
}
