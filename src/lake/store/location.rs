//! Parses the location of a lake: a path, `file:///path` or the URL of an object store.

use std::path::PathBuf;

use object_store::path::Path;

use super::provider::Provider;
use super::{StoreError, azure, local};

/// The parsed location of a lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// An absolute folder.
    Folder(PathBuf),
    /// A prefix in an object store.
    Bucket(Bucket),
}

/// A prefix in a bucket or container. As in other tools, the prefix is literal: `%20` is no blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The object store.
    pub(super) provider: Provider,
    /// The bucket or container.
    pub(super) name: String,
    /// The storage account of Azure, if the location names one.
    pub(super) account: Option<Account>,
    /// The prefix of every object of the lake.
    pub(super) prefix: Path,
    /// The location without trailing slashes.
    pub(super) url: String,
}

/// A storage account of Azure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    /// Its name.
    pub(super) name: String,
    /// The domain of its cloud: `core.windows.net`.
    pub(super) domain: String,
}

/// The accepted locations.
const EXPECTED: &str = "a path, file:///path, s3://bucket/prefix, az://container/prefix, \
                        abfss://container@account.dfs.core.windows.net/prefix or gs://bucket/prefix";

/// The domain of the public cloud of Azure.
const AZURE_DOMAIN: &str = "core.windows.net";

/// Returns the location of a lake as SQL engines take it: an absolute path or a URL.
///
/// # Errors
///
/// As [`super::Store::open`], except for settings of the store.
pub fn normalized(text: &str) -> Result<String, StoreError> {
    Ok(match Location::parse(text)? {
        Location::Folder(folder) => folder.display().to_string(),
        Location::Bucket(bucket) => bucket.url,
    })
}

/// Returns the location of a lake with the storage account of Azure in it, which Spark and Trino need:
/// `az://container/prefix` becomes `abfss://container@account.dfs.core.windows.net/prefix`.
///
/// # Errors
///
/// As [`normalized`]; [`StoreError::MissingVariable`] if `account` is unset and the location names none;
/// [`StoreError::Variable`] if it cannot be the name of an account.
pub fn with_account(text: &str, account: Option<&str>) -> Result<String, StoreError> {
    let bucket = match Location::parse(text)? {
        Location::Bucket(bucket) if bucket.provider == Provider::Azure => bucket,
        Location::Folder(_) | Location::Bucket(_) => return normalized(text),
    };
    if bucket.account.is_some() {
        return Ok(bucket.url);
    }
    let account = account.filter(|name| !name.is_empty());
    let account = account.ok_or_else(azure::missing_account)?;
    azure::check_account(account).map_err(|reason| StoreError::Variable {
        name: azure::ACCOUNT.to_owned(),
        reason,
    })?;
    let (container, prefix) = (bucket.name, bucket.prefix);
    let url = format!("abfss://{container}@{account}.dfs.{AZURE_DOMAIN}/{prefix}");
    Ok(url.trim_end_matches('/').to_owned())
}

impl Location {
    /// Parses a location. A misspelled URL is an error and not the name of a folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] and [`StoreError::UrlParts`]; [`StoreError::File`] if the current folder does not exist.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        if text.is_empty() || text.trim() != text {
            return Err(invalid(
                text,
                &format!("{EXPECTED}, without blanks around it"),
            ));
        }
        match split_scheme(text) {
            Some(("file", rest)) if rest.starts_with("//") => parse_file(text),
            Some((scheme, rest)) => match (Provider::of_scheme(scheme), rest.strip_prefix("//")) {
                (Some(provider), Some(rest)) => parse_bucket(provider, text, scheme, rest),
                _ => Err(misspelled(text, scheme, rest)),
            },
            None => match text.split_once("//") {
                Some((scheme, rest))
                    if scheme == "file" || Provider::of_scheme(scheme).is_some() =>
                {
                    Err(misspelled(text, scheme, &format!("/{rest}")))
                }
                _ => folder(text.as_ref()),
            },
        }
    }
}

/// Splits a text at its first colon, if a URL scheme precedes it.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then_some((scheme, rest))
}

fn parse_bucket(
    provider: Provider,
    text: &str,
    scheme: &str,
    rest: &str,
) -> Result<Location, StoreError> {
    let expected = match scheme {
        "abfss" => "abfss://container@account.dfs.core.windows.net/prefix",
        "az" => "az://container/prefix",
        "gs" => "gs://bucket/prefix",
        _ => "s3://bucket/prefix",
    };
    let (authority, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let (name, host) = match authority.split_once('@') {
        Some((name, host)) if scheme == "abfss" => (name, Some(host)),
        _ => (authority, None),
    };
    let has_user =
        name.contains('@') || host.is_some_and(|host| name.contains(':') || host.contains('@'));
    if has_user || rest.contains(['?', '#']) {
        return Err(StoreError::UrlParts {
            expected,
            variables: provider.credentials(),
        });
    }
    let account = host.map(|host| account(host).ok_or_else(|| invalid(text, expected)));
    let account = account.transpose()?;
    let is_name = match provider {
        Provider::Azure => is_container(name),
        Provider::S3 | Provider::Google => {
            let is_bucket_char = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
            !name.is_empty() && name.chars().all(is_bucket_char)
        }
    };
    if !is_name || (scheme == "abfss" && account.is_none()) {
        return Err(invalid(text, expected));
    }
    let prefix = prefix.trim_end_matches('/');
    let path = Path::parse(prefix).ok();
    let path = path.filter(|path| path.as_ref() == prefix).ok_or_else(|| {
        let expected = "a prefix without empty parts, `.`, `..` and control characters";
        invalid(text, expected)
    })?;
    Ok(Location::Bucket(Bucket {
        provider,
        name: name.to_owned(),
        account,
        prefix: path,
        url: text.trim_end_matches('/').to_owned(),
    }))
}

/// Returns whether a text can be the name of a container of Azure.
fn is_container(name: &str) -> bool {
    let is_container_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name == "$root" || (3..=63).contains(&name.len()) && name.chars().all(is_container_char)
}

/// Parses `account.dfs.core.windows.net`, or the same in another cloud.
fn account(host: &str) -> Option<Account> {
    let (name, domain) = host.split_once(".dfs.")?;
    let is_domain_char = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
    let is_domain = domain.contains('.') && domain.chars().all(is_domain_char);
    (azure::check_account(name).is_ok() && is_domain).then(|| Account {
        name: name.to_owned(),
        domain: domain.to_owned(),
    })
}

fn parse_file(text: &str) -> Result<Location, StoreError> {
    let expected = "file:///path; percent-encode `?`, `#` and `%` in it, or give the plain path";
    let url = url::Url::parse(text).ok();
    let url = url.filter(|url| url.query().or(url.fragment()).is_none());
    let path = url.and_then(|url| url.to_file_path().ok());
    folder(&path.ok_or_else(|| invalid(text, expected))?)
}

fn folder(path: &std::path::Path) -> Result<Location, StoreError> {
    match local::absolute(path) {
        Ok(folder) => Ok(Location::Folder(folder)),
        Err(source) => Err(StoreError::File {
            action: "resolve",
            path: path.display().to_string(),
            source,
        }),
    }
}

fn invalid(text: &str, expected: &str) -> StoreError {
    StoreError::Url {
        url: redacted(text),
        expected: expected.to_owned(),
    }
}

/// Returns the error for a URL with an unknown scheme, or with a known one that is written incorrectly. Contains the
/// correct spelling.
fn misspelled(text: &str, scheme: &str, rest: &str) -> StoreError {
    let rest = redacted(rest);
    let path = rest.trim_start_matches('/');
    let expected = match scheme.to_ascii_lowercase().as_str() {
        scheme if Provider::of_scheme(scheme).is_some() => format!("`{scheme}://{path}`"),
        "gcs" => format!("`gs://{path}`"),
        "azure" => format!("`az://{path}`"),
        "abfs" => format!("`abfss://{path}`"),
        "file" if rest.starts_with('/') => format!("`file:///{path}` or `/{path}`"),
        "file" => format!("`{rest}`"),
        _ if rest.starts_with("//") => EXPECTED.to_owned(),
        _ => format!(
            "{EXPECTED}; for a folder of that name, `./{}`",
            redacted(text)
        ),
    };
    invalid(text, &expected)
}

/// Removes the user and the password from a URL, so that it can be printed.
fn redacted(text: &str) -> String {
    let start = match (text.find("//"), split_scheme(text)) {
        (Some(slashes), _) => slashes + 2,
        (None, Some((scheme, _))) => scheme.len() + 1,
        (None, None) => 0,
    };
    let slashes = text[start..].bytes().take_while(|byte| *byte == b'/');
    let start = start + slashes.count();
    let end = text[start..].find('/').map_or(text.len(), |at| start + at);
    match text[start..end].rsplit_once('@') {
        Some((_, host)) => format!("{}…@{host}{}", &text[..start], &text[end..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
