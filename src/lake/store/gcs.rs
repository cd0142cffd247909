//! The client of Google Cloud Storage, and the checks of its variables.

use object_store::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorage, GoogleCloudStorageBuilder, GoogleConfigKey as Key};
use serde_json::{Map, Value};

use super::location::Bucket;
use super::patience::Patience;
use super::variables::{CLIENT_TIMEOUT, Client, check_graphic, check_line, check_url, no_retries};

impl Client for GoogleCloudStorage {
    const PREFIX: &'static str = "GOOGLE_";
    const ERROR_PREFIX: &'static str = "Generic GCS error: ";
    type Key = Key;
    type Builder = GoogleCloudStorageBuilder;

    fn check(key: Key, value: &str) -> Result<(), String> {
        if key == Key::Client(ClientConfigKey::ProxyCaCertificate) {
            return Ok(());
        }
        if key == Key::ServiceAccountKey {
            return check_service_account(&object(value)?);
        }
        check_line(value)?;
        match key {
            Key::BaseUrl => check_url(value, "https://storage.googleapis.com"),
            Key::BearerToken => check_graphic(value),
            Key::ServiceAccount => check_service_account(&object(&file(value)?)?),
            Key::ApplicationCredentials => check_application(&object(&file(value)?)?),
            _ => Ok(()),
        }
    }

    fn with(
        builder: GoogleCloudStorageBuilder,
        key: Key,
        value: &str,
    ) -> GoogleCloudStorageBuilder {
        builder.with_config(key, value)
    }

    fn at(
        builder: GoogleCloudStorageBuilder,
        bucket: &Bucket,
        patience: &Patience,
    ) -> GoogleCloudStorageBuilder {
        builder
            .with_bucket_name(&bucket.name)
            .with_retry(no_retries())
            .with_http_connector(patience.clone())
            .with_config(Key::Client(ClientConfigKey::Timeout), CLIENT_TIMEOUT)
    }

    fn build(builder: GoogleCloudStorageBuilder) -> object_store::Result<Self> {
        builder.build()
    }
}

fn file(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("failed to read {path}: {error}"))
}

/// Parses credentials. The errors of the parser could quote a secret.
fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) | Err(_) => Err("expected a JSON object with credentials".to_owned()),
    }
}

fn check_service_account(members: &Map<String, Value>) -> Result<(), String> {
    require_texts(members, &["client_email", "private_key", "private_key_id"])?;
    let key = members.get("private_key").and_then(Value::as_str);
    let is_pem = key.is_some_and(|key| key.contains("-----BEGIN "));
    is_pem
        .then_some(())
        .ok_or_else(|| "expected a PEM key as `private_key` in the credentials".to_owned())
}

fn check_application(members: &Map<String, Value>) -> Result<(), String> {
    match members.get("type").and_then(Value::as_str) {
        Some("service_account") => check_service_account(members),
        Some("authorized_user") => {
            require_texts(members, &["client_id", "client_secret", "refresh_token"])
        }
        Some(kind) => Err(format!(
            "credentials of type `{kind}` are not supported: use a service account key, or unset the variable \
             to use the service account of this machine or pod"
        )),
        None => Err("expected a member `type` in the credentials".to_owned()),
    }
}

fn require_texts(members: &Map<String, Value>, names: &[&str]) -> Result<(), String> {
    let is_missing = |name: &&&str| !members.get(**name).is_some_and(Value::is_string);
    match names.iter().find(is_missing) {
        Some(name) => Err(format!("expected a text `{name}` in the credentials")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::store::variables::error_of;

    fn error(variables: &[(&str, &str)]) -> Option<String> {
        error_of::<GoogleCloudStorage>("gs://bucket/x", variables)
    }

    #[test]
    fn unusable_variables_are_named() {
        let text = r#"{"client_email": "a@b", "private_key": "secret", "private_key_id": "1"}"#;
        for (name, value, expected) in [
            (
                "GOOGLE_BASE_URL",
                "fake-gcs:4443",
                "instead of `fake-gcs:4443`",
            ),
            ("GOOGLE_BEARER_TOKEN", "se cret", "expected ASCII"),
            ("GOOGLE_BEARER_TOKEN", "secret\n", "remove the blanks"),
            (
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                "\"secret\"",
                "expected a JSON object",
            ),
            (
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                "{secret",
                "expected a JSON object",
            ),
            (
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                r#"{"client_email": "a@b", "private_key": 1}"#,
                "`private_key`",
            ),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", text, "a PEM key"),
            (
                "GOOGLE_SERVICE_ACCOUNT",
                "/missing/key.json",
                "failed to read /missing/key.json",
            ),
            (
                "GOOGLE_APPLICATION_CREDENTIALS",
                "/missing",
                "failed to read /missing",
            ),
            ("GOOGLE_SKIP_SIGNATURE", "maybe", "maybe"),
            ("GOOGLE_CONNECT_TIMEOUT", "soon", "soon"),
        ] {
            let message = error(&[(name, value)]).unwrap_or_default();
            assert!(
                message.starts_with(&format!("invalid {name}: ")),
                "{name}={value}: {message}"
            );
            assert!(message.contains(expected), "{name}={value}: {message}");
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn application_credentials_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.json");
        let error = |text: &str| {
            std::fs::write(&path, text).unwrap();
            error(&[("GOOGLE_APPLICATION_CREDENTIALS", path.to_str().unwrap())])
        };
        let user = r#"{"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}"#;
        assert_eq!(error(user), None);
        for (text, expected) in [
            (
                r#"{"type": "external_account"}"#,
                "type `external_account` are not supported",
            ),
            (
                r#"{"type": "authorized_user", "client_id": "a"}"#,
                "`client_secret`",
            ),
            (r#"{"type": "service_account"}"#, "`client_email`"),
            ("{}", "a member `type`"),
            ("[1]", "a JSON object"),
        ] {
            let message = error(text).unwrap_or_default();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn usual_variables_are_accepted() {
        for variables in [
            &[][..],
            &[("GOOGLE_BEARER_TOKEN", "ya29.a-b_c")],
            &[
                ("GOOGLE_BASE_URL", "http://127.0.0.1:4443"),
                ("GOOGLE_BEARER_TOKEN", "a"),
            ],
            &[
                ("GOOGLE_CLOUD_PROJECT", "any text\n"),
                ("GOOGLE_SERVICE_ACCOUNT", ""),
            ],
        ] {
            assert_eq!(error(variables), None, "{variables:?}");
        }
    }
}
