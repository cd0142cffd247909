//! `--metrics-push`: sends the metrics of a run to a server that accepts the Prometheus text format.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use url::Url;

/// The content type of the Prometheus text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Characters of a response that an error repeats.
const MAX_MESSAGE: usize = 200;

/// Replaced in the URL by the command. A Pushgateway keeps one group of metrics per path, so commands need their own.
const COMMAND: &str = "{command}";

/// The URL that metrics are sent to. It may contain a password.
#[derive(Clone, Debug)]
pub struct PushUrl(SecretString);

/// Metrics could not be sent. No error contains the user, the password or the query of the URL.
#[derive(Debug, Error)]
pub enum PushError {
    /// The request failed.
    #[error("failed to send metrics to {server}")]
    Request {
        /// The server.
        server: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The server rejected the metrics.
    #[error("failed to send metrics to {server}: {status} {message}")]
    Rejected {
        /// The server.
        server: String,
        /// The HTTP status.
        status: u16,
        /// The start of the response.
        message: String,
    },
}

impl PushUrl {
    /// Parses an `http` or `https` URL; `None` if it is none.
    pub fn parse(text: &SecretString) -> Option<Self> {
        let url = Url::parse(text.expose_secret()).ok()?;
        let is_valid = matches!(url.scheme(), "http" | "https") && url.has_host();
        is_valid.then(|| Self(text.clone()))
    }

    /// Sends the metrics of a command with one `POST` that takes at most `timeout`.
    ///
    /// `POST` and not `PUT`: a Pushgateway then keeps metrics that are absent from `text`, such as the time of the
    /// last success.
    ///
    /// # Errors
    ///
    /// [`PushError`].
    pub async fn send(
        &self,
        command: &str,
        text: String,
        timeout: Duration,
    ) -> Result<(), PushError> {
        let url = self.0.expose_secret().replace(COMMAND, command);
        let server = server_of(&url);
        let failed = |source: reqwest::Error| PushError::Request {
            server: server.clone(),
            source: source.without_url(),
        };
        let client = reqwest::Client::builder()
            .user_agent(concat!("harness-lake/", env!("CARGO_PKG_VERSION")))
            .timeout(timeout)
            .build()
            .map_err(failed)?;
        let request = client
            .post(url)
            .header(CONTENT_TYPE, TEXT_FORMAT)
            .body(text);
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let body = response.text().await.unwrap_or_default();
        Err(PushError::Rejected {
            server,
            status: status.as_u16(),
            message: body.trim().chars().take(MAX_MESSAGE).collect(),
        })
    }
}

/// Returns the scheme, host and port of a URL.
fn server_of(url: &str) -> String {
    let origin = Url::parse(url).map(|url| url.origin().ascii_serialization());
    origin.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Option<PushUrl> {
        PushUrl::parse(&url.into())
    }

    #[test]
    fn only_http_urls_with_a_host_are_valid() {
        assert!(parsed("http://pushgateway:9091/metrics/job/harness-lake").is_some());
        assert!(parsed("https://user:password@host/api/v1/import/prometheus").is_some());
        for invalid in ["", "pushgateway:9091", "ftp://host/", "/metrics", "http://"] {
            assert!(parsed(invalid).is_none(), "{invalid}");
        }
    }

    #[tokio::test]
    async fn error_names_the_server_without_secrets() {
        let url = parsed("http://ada:Tr0ub4dor@127.0.0.1:1/metrics?token=Tr0ub4dor").unwrap();
        let error = url
            .send("sync", String::new(), Duration::from_secs(2))
            .await
            .unwrap_err();
        let text = format!("{} {url:?} {error:?}", crate::causes::chain(&error));
        assert!(
            text.contains("failed to send metrics to http://127.0.0.1:1"),
            "{text}"
        );
        assert!(!text.contains("Tr0ub4dor"), "{text}");
    }
}
