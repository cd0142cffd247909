//! Checks the `AWS_*` variables. `object_store` checks few of them and panics at its first request.

use std::ffi::OsString;

use object_store::ClientConfigKey;
use object_store::Error as ObjectError;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key};
use reqwest::header::HeaderValue;
use url::Url;

use super::StoreError;
use crate::causes::chain;

/// A variable that configures the client of S3.
#[derive(Clone, Debug)]
struct Variable {
    name: String,
    key: Key,
    value: String,
}

/// Builds the client of a bucket from the variables. `finish` adds settings that override them.
///
/// # Errors
///
/// [`StoreError::Variable`] with the name of a variable that cannot be used; [`StoreError::Setup`].
pub(super) fn build(
    url: &str,
    variables: impl Iterator<Item = (OsString, OsString)>,
    finish: impl Fn(AmazonS3Builder) -> AmazonS3Builder,
) -> Result<AmazonS3, StoreError> {
    let variables = read(variables)?;
    let build = |excluded: Option<&str>| {
        let variables = variables
            .iter()
            .filter(|variable| Some(variable.name.as_str()) != excluded);
        let builder = variables.fold(AmazonS3Builder::new(), |builder, variable| {
            builder.with_config(variable.key, &variable.value)
        });
        finish(builder).build()
    };
    build(None).map_err(|error| {
        // The error does not name the variable. It is the one without which the client can be built.
        let mut names = variables.iter().map(|variable| &variable.name);
        match names.find(|name| build(Some(name)).is_ok()) {
            Some(name) => StoreError::Variable {
                name: name.clone(),
                reason: reason(&error),
            },
            None => StoreError::Setup {
                url: url.to_owned(),
                source: error,
            },
        }
    })
}

/// Returns the message of an error without the name of the store.
fn reason(error: &ObjectError) -> String {
    let message = chain(error);
    let message = message.strip_prefix("Generic S3 error: ");
    message.map_or_else(|| chain(error), str::to_owned)
}

/// Reads and checks the variables that `object_store` knows. An empty variable counts as unset.
fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Variable>, StoreError> {
    let mut known = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with("AWS_")) else {
            continue;
        };
        let Ok(key) = name.to_ascii_lowercase().parse::<Key>() else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        let value = value.into_string().ok();
        let checked = match &value {
            Some(value) => check(key, value),
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

/// Returns the reason why a value cannot be used. It contains no value that may be secret.
fn check(key: Key, value: &str) -> Result<(), String> {
    if key == Key::Client(ClientConfigKey::ProxyCaCertificate) {
        return Ok(());
    }
    let mistake = match key {
        _ if value.trim() != value => "remove the blanks or line breaks around its value",
        _ if value.contains(char::is_control) => "remove the control characters from its value",
        Key::Endpoint
        | Key::S3Endpoint
        | Key::StsEndpoint
        | Key::MetadataEndpoint
        | Key::ContainerCredentialsFullUri => return check_url(value),
        Key::ContainerCredentialsRelativeUri if value.starts_with('/') => {
            return check_url(&format!("http://localhost{value}"));
        }
        Key::ContainerCredentialsRelativeUri => "expected a path that begins with `/`",
        Key::ContainerAuthorizationTokenFile if !holds_header(value) => {
            "remove the line breaks and control characters from this file"
        }
        Key::Region | Key::DefaultRegion if !value.chars().all(is_region_char) => {
            "expected a region such as us-east-1"
        }
        Key::AccessKeyId | Key::Token if !value.chars().all(|c| c.is_ascii_graphic()) => {
            "expected ASCII without blanks"
        }
        _ => return Ok(()),
    };
    Err(mistake.to_owned())
}

/// Returns whether a header can contain the content of a file. A missing file is reported once it is needed.
fn holds_header(file: &str) -> bool {
    std::fs::read(file).map_or(true, |token| HeaderValue::try_from(token).is_ok())
}

fn is_region_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn check_url(value: &str) -> Result<(), String> {
    let is_url_char = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]!$&'()*+,;=%".contains(c);
    let url = Url::parse(value).ok();
    let scheme = value.split("://").next().unwrap_or_default();
    let is_http = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str());
    if is_http && value.chars().all(is_url_char) && url.is_some_and(|url| url.has_host()) {
        return Ok(());
    }
    // Whoever wrote a password into the URL must not find it in the log.
    let shown = if value.contains('@') {
        String::new()
    } else {
        format!(" instead of `{value}`")
    };
    Err(format!(
        "expected a URL such as https://s3.example.com:9000{shown}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(variables: &[(&str, &str)]) -> Option<String> {
        let variables = variables
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let built = build("s3://b/x", variables, |builder| {
            builder.with_bucket_name("b")
        });
        built.err().map(|error| chain(&error))
    }

    #[test]
    fn unusable_variables_are_named() {
        for (name, value, expected) in [
            ("AWS_ENDPOINT_URL", "minio:9000", "instead of `minio:9000`"),
            ("AWS_ENDPOINT_URL_S3", "127.0.0.1:9000", "expected a URL"),
            ("AWS_ENDPOINT", "http://127.0.0.1:1 ", "remove the blanks"),
            (
                "AWS_ENDPOINT_URL",
                "http://127.0.0.1:99999",
                "expected a URL",
            ),
            ("AWS_ENDPOINT_URL", "http://", "expected a URL"),
            ("AWS_ENDPOINT_URL", "http:minio:9000", "expected a URL"),
            ("AWS_ENDPOINT_URL", "ftp://minio:9000", "expected a URL"),
            ("AWS_ENDPOINT_URL", "http://münchen:9000", "expected a URL"),
            ("AWS_ENDPOINT_URL", "http://minio/?a=b", "expected a URL"),
            ("AWS_ENDPOINT_URL_STS", "sts.example", "expected a URL"),
            ("AWS_METADATA_ENDPOINT", "169.254.169.254", "expected a URL"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "x", "expected a URL"),
            (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "x",
                "begins with `/`",
            ),
            ("AWS_REGION", "us east", "such as us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1\n", "remove the blanks"),
            ("AWS_ACCESS_KEY_ID", "AK IA", "expected ASCII"),
            ("AWS_SECRET_ACCESS_KEY", "secret\n", "remove the blanks"),
            ("AWS_SESSION_TOKEN", "to\nken", "remove the control"),
            ("AWS_ALLOW_HTTP", "maybe", "maybe"),
            ("AWS_CONNECT_TIMEOUT", "soon", "soon"),
            ("AWS_PROXY_URL", "http://[", "AWS_PROXY_URL"),
            ("AWS_SERVER_SIDE_ENCRYPTION", "rot13", "rot13"),
            ("AWS_CONDITIONAL_PUT", "never", "never"),
            ("AWS_ACCESS_KEY_ID", "alone", "SecretAccessKey"),
        ] {
            let message = error(&[(name, value)]).unwrap_or_default();
            assert!(
                message.starts_with(&format!("invalid {name}: ")),
                "{name}={value}: {message}"
            );
            assert!(message.contains(expected), "{name}={value}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
        let message = error(&[("AWS_ENDPOINT_URL", "id:secret@minio:9000")]).unwrap();
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn token_file_must_fit_into_a_header() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
        for (token, is_valid) in [
            ("secret", true),
            ("secret\n", false),
            ("se\u{7}cret", false),
        ] {
            std::fs::write(path, token).unwrap();
            let message = error(&[(name, path)]);
            assert_eq!(message.is_none(), is_valid, "{token:?}: {message:?}");
            let message = message.unwrap_or_default();
            assert!(is_valid || message.contains(name), "{message}");
            assert!(!message.contains("secret"), "{message}");
        }
        assert_eq!(error(&[(name, "/missing")]), None);
    }

    #[test]
    fn usual_variables_are_accepted() {
        assert_eq!(error(&[]), None);
        assert_eq!(
            error(&[
                ("AWS_ENDPOINT_URL", "http://[::1]:9000/"),
                ("AWS_ENDPOINT_URL_S3", "HTTPS://minio.example/s3"),
                ("AWS_REGION", "default"),
                ("AWS_DEFAULT_REGION", ""),
                ("AWS_ACCESS_KEY_ID", "AKIA"),
                ("AWS_SECRET_ACCESS_KEY", "a/b+c="),
                ("AWS_SESSION_TOKEN", "a/b+c=="),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_PROFILE", "any text\n"),
                ("AWSOME", " "),
            ]),
            None
        );
    }
}
