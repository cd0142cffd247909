//! The client of Amazon S3, and the checks of its variables.

use object_store::ClientConfigKey;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey as Key};
use reqwest::header::HeaderValue;

use super::location::Bucket;
use super::patience::Patience;
use super::variables::{CLIENT_TIMEOUT, Client, check_graphic, check_line, check_url, no_retries};

impl Client for AmazonS3 {
    const PREFIX: &'static str = "AWS_";
    const ERROR_PREFIX: &'static str = "Generic S3 error: ";
    type Key = Key;
    type Builder = AmazonS3Builder;

    fn check(key: Key, value: &str) -> Result<(), String> {
        if key == Key::Client(ClientConfigKey::ProxyCaCertificate) {
            return Ok(());
        }
        check_line(value)?;
        let mistake = match key {
            Key::Endpoint
            | Key::S3Endpoint
            | Key::StsEndpoint
            | Key::MetadataEndpoint
            | Key::ContainerCredentialsFullUri => return check_endpoint(value),
            Key::ContainerCredentialsRelativeUri if value.starts_with('/') => {
                return check_endpoint(&format!("http://localhost{value}"));
            }
            Key::ContainerCredentialsRelativeUri => "expected a path that begins with `/`",
            Key::ContainerAuthorizationTokenFile if !holds_header(value) => {
                "remove the line breaks and control characters from this file"
            }
            Key::Region | Key::DefaultRegion if !value.chars().all(is_region_char) => {
                "expected a region such as us-east-1"
            }
            Key::AccessKeyId | Key::Token => return check_graphic(value),
            _ => return Ok(()),
        };
        Err(mistake.to_owned())
    }

    fn with(builder: AmazonS3Builder, key: Key, value: &str) -> AmazonS3Builder {
        builder.with_config(key, value)
    }

    fn at(builder: AmazonS3Builder, bucket: &Bucket, patience: &Patience) -> AmazonS3Builder {
        builder
            .with_bucket_name(&bucket.name)
            .with_retry(no_retries())
            .with_http_connector(patience.clone())
            .with_config(Key::Client(ClientConfigKey::Timeout), CLIENT_TIMEOUT)
    }

    fn build(builder: AmazonS3Builder) -> object_store::Result<Self> {
        builder.build()
    }
}

fn check_endpoint(value: &str) -> Result<(), String> {
    check_url(value, "https://s3.example.com:9000")
}

/// Returns whether a header can contain the content of a file. A missing file is reported once it is needed.
fn holds_header(file: &str) -> bool {
    std::fs::read(file).map_or(true, |token| HeaderValue::try_from(token).is_ok())
}

fn is_region_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::store::variables::error_of;

    fn error(variables: &[(&str, &str)]) -> Option<String> {
        error_of::<AmazonS3>("s3://b/x", variables)
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
