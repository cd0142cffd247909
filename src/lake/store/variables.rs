//! Builds the client of an object store from environment variables, and checks them first.
//!
//! `object_store` checks few of them, panics at its first request with some, and names none.

use std::ffi::OsString;
use std::str::FromStr;

use object_store::{ObjectStore, RetryConfig};
use url::Url;

use super::StoreError;
use super::location::Bucket;
use super::patience::Patience;
use crate::causes::chain;

/// Timeout of a request in the client: 5 s and 1 s per MiB of the largest object, since one put
/// sends a complete object.
pub(super) const CLIENT_TIMEOUT: &str = "517s";

/// A client of `object_store`, with the variables that configure it.
pub(super) trait Client: ObjectStore + Sized {
    /// The start of the names of its variables.
    const PREFIX: &'static str;
    /// The start of its errors, without information for a user.
    const ERROR_PREFIX: &'static str;
    /// The key of a setting.
    type Key: Copy + FromStr;
    /// Collects settings.
    type Builder: Default;

    /// Returns the key of a variable.
    fn key(name: &str) -> Option<Self::Key> {
        let is_ours = name.starts_with(Self::PREFIX);
        is_ours.then(|| name.to_ascii_lowercase().parse().ok())?
    }

    /// Returns the reason why a value cannot be used. It contains no value that may be secret.
    ///
    /// # Errors
    ///
    /// The reason.
    fn check(key: Self::Key, value: &str) -> Result<(), String>;

    /// Adds a setting.
    fn with(builder: Self::Builder, key: Self::Key, value: &str) -> Self::Builder;

    /// Adds the settings that override variables.
    fn at(builder: Self::Builder, bucket: &Bucket, patience: &Patience) -> Self::Builder;

    /// Checks that no required setting is missing.
    ///
    /// # Errors
    ///
    /// [`StoreError::MissingVariable`].
    fn require(_: &Self::Builder) -> Result<(), StoreError> {
        Ok(())
    }

    /// Builds the client.
    ///
    /// # Errors
    ///
    /// The error of `object_store`.
    fn build(builder: Self::Builder) -> object_store::Result<Self>;
}

/// The retries of `object_store`: [`Patience`] retries instead.
pub(super) fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// A variable that configures a client.
#[derive(Clone, Debug)]
struct Variable<K> {
    name: String,
    key: K,
    value: String,
}

/// Builds the client of a bucket.
///
/// # Errors
///
/// [`StoreError::Variable`] with the name of a variable that cannot be used; [`StoreError::MissingVariable`];
/// [`StoreError::Setup`].
pub(super) fn build<C: Client>(
    bucket: &Bucket,
    patience: &Patience,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<C, StoreError> {
    let variables = read::<C>(variables)?;
    let builder = |excluded: Option<&str>| {
        let variables = variables
            .iter()
            .filter(|variable| Some(variable.name.as_str()) != excluded);
        let builder = variables.fold(C::Builder::default(), |builder, variable| {
            C::with(builder, variable.key, &variable.value)
        });
        C::at(builder, bucket, patience)
    };
    let complete = builder(None);
    C::require(&complete)?;
    C::build(complete).map_err(|error| {
        // The error does not name the variable. It is the one without which the client can be built.
        let mut names = variables.iter().map(|variable| &variable.name);
        match names.find(|name| C::build(builder(Some(name))).is_ok()) {
            Some(name) => StoreError::Variable {
                name: name.clone(),
                reason: {
                    let message = chain(&error);
                    let reason = message.strip_prefix(C::ERROR_PREFIX);
                    reason.unwrap_or(&message).to_owned()
                },
            },
            None => StoreError::Setup {
                url: bucket.url.clone(),
                source: error,
            },
        }
    })
}

/// Reads and checks the variables that `object_store` knows. An empty variable counts as unset.
fn read<C: Client>(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Variable<C::Key>>, StoreError> {
    let mut known = Vec::new();
    for (name, value) in variables {
        let Some((name, key)) = name.to_str().and_then(|name| Some((name, C::key(name)?))) else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        let value = value.into_string().ok();
        let checked = match &value {
            Some(value) => C::check(key, value),
            None => Err("expected UTF-8".to_owned()),
        };
        checked.map_err(|reason| StoreError::Variable {
            name: name.to_owned(),
            reason,
        })?;
        known.push(Variable {
            name: name.to_owned(),
            key,
            value: value.unwrap_or_default(),
        });
    }
    Ok(known)
}

/// Checks a value on one line.
///
/// # Errors
///
/// The reason.
pub(super) fn check_line(value: &str) -> Result<(), String> {
    if value.trim() != value {
        Err("remove the blanks or line breaks around its value".to_owned())
    } else if value.contains(char::is_control) {
        Err("remove the control characters from its value".to_owned())
    } else {
        Ok(())
    }
}

/// Checks a value that goes into a header.
///
/// # Errors
///
/// The reason.
pub(super) fn check_graphic(value: &str) -> Result<(), String> {
    let is_graphic = value.chars().all(|c| c.is_ascii_graphic());
    is_graphic
        .then_some(())
        .ok_or_else(|| "expected ASCII without blanks".to_owned())
}

/// Checks the URL of a server.
///
/// # Errors
///
/// The reason, with `example`.
pub(super) fn check_url(value: &str, example: &str) -> Result<(), String> {
    let is_url_char = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]!$&'()*+,;=%".contains(c);
    let url = Url::parse(value).ok();
    let scheme = value.split("://").next().unwrap_or_default();
    let is_http = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str());
    if is_http && value.chars().all(is_url_char) && url.is_some_and(|url| url.has_host()) {
        return Ok(());
    }
    // Whoever wrote a password into the URL must not find it in the log.
    let shown = if value.contains(['@', '?']) {
        String::new()
    } else {
        format!(" instead of `{value}`")
    };
    Err(format!("expected a URL such as {example}{shown}"))
}

/// Builds a client as a test, and returns the message of its error.
#[cfg(test)]
pub(super) fn error_of<C: Client>(url: &str, variables: &[(&str, &str)]) -> Option<String> {
    use super::location::Location;
    let Location::Bucket(bucket) = Location::parse(url).unwrap() else {
        panic!("{url} is in a bucket")
    };
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let built = build::<C>(&bucket, &Patience::default(), variables);
    built.err().map(|error| chain(&error))
}
