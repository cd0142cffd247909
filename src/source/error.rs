//! Errors of the Harness API, one variant per remedy.

use std::fmt;

use super::retry::RetryState;
use crate::causes::chain;

/// An endpoint of the Harness API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /v1/orgs`
    Orgs,
    /// `GET /v1/orgs/{org}/projects`
    Projects,
    /// `POST /pipeline/api/pipelines/execution/summary`
    Executions,
    /// `GET /pipeline/api/pipelines/retention/{account}`
    Retention,
}

impl Endpoint {
    /// Returns method and path, for messages. It never contains the account.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Orgs => "GET /v1/orgs",
            Self::Projects => "GET /v1/orgs/{org}/projects",
            Self::Executions => "POST /pipeline/api/pipelines/execution/summary",
            Self::Retention => "GET /pipeline/api/pipelines/retention/{account}",
        }
    }
}

/// The resource that a request reads: an endpoint, and the org or project it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// `org` or `org/project`; `None` for a resource of the account.
    pub within: Option<String>,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.endpoint {
            Endpoint::Orgs => "orgs",
            Endpoint::Projects => "projects",
            Endpoint::Executions => "executions",
            Endpoint::Retention => "the retention period",
        })?;
        if let Some(within) = &self.within {
            write!(f, " of {within}")?;
        }
        write!(f, " ({})", self.endpoint.path())
    }
}

/// A request that failed, or settings that no client can be built from.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// 401, twice, and no sign that the key works elsewhere: it is invalid, expired or of another account.
    #[error("failed to read {resource}: the API key was rejected: {message}")]
    Unauthorized {
        /// The requested resource.
        resource: Resource,
        /// The message of the server.
        message: String,
    },
    /// 403: the key is valid, but lacks a permission.
    #[error("failed to read {resource}: access denied: {message}")]
    Forbidden {
        /// The requested resource.
        resource: Resource,
        /// The message of the server.
        message: String,
    },
    /// The page is beyond the first 10,000 rows of a window: request a narrower window.
    #[error(
        "failed to read {resource}: the API returns at most 10,000 rows of a window: {message}"
    )]
    TooDeep {
        /// The requested resource.
        resource: Resource,
        /// The message of the server.
        message: String,
    },
    /// Rows were deleted while the server read the page: read the window again.
    #[error("failed to read {resource}: rows were deleted during the read: {message}")]
    PageGone {
        /// The requested resource.
        resource: Resource,
        /// The message of the server.
        message: String,
    },
    /// Too many rows without a start: the field was probably renamed, and no partition can hold them.
    #[error("failed to read {resource}: more than {limit} executions have no `startTs`")]
    Undated {
        /// The requested resource.
        resource: Resource,
        /// The maximum number of such executions in the checkpoint.
        limit: usize,
    },
    /// Another 4xx, a status other than SUCCESS, or a 401 of one resource while the key works elsewhere: retrying
    /// would not help.
    #[error(
        "failed to read {resource}: {status}{}: {message}",
        prefixed_with_space(code)
    )]
    Rejected {
        /// The requested resource.
        resource: Resource,
        /// The HTTP status.
        status: u16,
        /// The code of the server, such as `INVALID_REQUEST`; empty if there was none.
        code: String,
        /// The message of the server.
        message: String,
    },
    /// Failed in every attempt that the retry policy allows.
    #[error("failed to read {resource} from the API in {attempts} attempts")]
    Unavailable {
        /// The requested resource.
        resource: Resource,
        /// Attempts made.
        attempts: u32,
        /// The failure of the last attempt.
        #[source]
        cause: Cause,
        /// The state that a further request for the same purpose starts with.
        retry_state: Box<RetryState>,
    },
    /// The source is down: it did not answer any request for a while, so no other is sent.
    #[error("the API is unavailable: it does not answer requests ({failures} failed in a row)")]
    Outage {
        /// Failed attempts in a row.
        failures: u32,
    },
    /// The key is empty, or has characters that a header cannot contain, such as a line break.
    #[error("invalid API key: it is empty or has characters that a header cannot contain")]
    InvalidKey,
    /// The account identifier is empty, or has characters that a header cannot contain.
    #[error(
        "invalid account identifier: it is empty or has characters that a header cannot contain"
    )]
    InvalidAccount,
    /// The base URL is not an http or https URL.
    #[error("invalid base URL: it is not an http or https URL")]
    InvalidBaseUrl,
    /// The HTTP client cannot be built: an invalid certificate file, or no system certificates.
    #[error("failed to set up the HTTP client")]
    Setup(#[source] reqwest::Error),
}

/// Returns a code with a space before it; empty if the code is empty.
fn prefixed_with_space(code: &str) -> String {
    if code.is_empty() {
        String::new()
    } else {
        format!(" {code}")
    }
}

/// The failure of one attempt, where another attempt may succeed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// 429, or code `TOO_MANY_REQUESTS` under any status.
    #[error("rate limited: {0}")]
    RateLimited(String),
    /// A status that may be temporary.
    #[error("{status}{}: {message}", prefixed_with_space(code))]
    Status {
        /// The HTTP status.
        status: u16,
        /// The code of the server; empty if there was none.
        code: String,
        /// The message of the server.
        message: String,
    },
    /// A body that is not JSON, such as HTML: a gateway, a login page, a wrong base URL.
    #[error("{status} with a body that is not JSON: `{start}`")]
    NotJson {
        /// The HTTP status.
        status: u16,
        /// The first characters of the body.
        start: String,
    },
    /// JSON that is truncated or has an unexpected structure.
    #[error("invalid JSON in the response")]
    Malformed(#[source] serde_json::Error),
    /// A body larger than any page should be.
    #[error("the response is larger than {limit} bytes")]
    TooLarge {
        /// The maximum size in bytes.
        limit: usize,
    },
    /// No connection could be made.
    #[error("failed to connect: {hint}")]
    Unreachable {
        /// The likely reason.
        hint: &'static str,
        /// The error of the network.
        #[source]
        error: reqwest::Error,
    },
    /// The connection broke or timed out.
    #[error("incomplete response")]
    Transport(#[source] reqwest::Error),
    /// The body is not in the encoding that its header names, or it is truncated.
    #[error("incomplete response")]
    Encoding(#[source] std::io::Error),
}

impl From<reqwest::Error> for Cause {
    /// Removes the URL, which contains the account. The [`Resource`] of the error names the endpoint.
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if !error.is_connect() {
            return Self::Transport(error);
        }
        let hint = hint(&chain(&error));
        Self::Unreachable { hint, error }
    }
}

/// Returns the likely reason, by the text of the error: the libraries below have no error kinds.
fn hint(text: &str) -> &'static str {
    const HINTS: [(&str, &str); 5] = [
        ("dns error", "the host of the base URL was not found"),
        (
            "corrupt message",
            "the server does not use TLS; check the port of the base URL",
        ),
        (
            "certificate",
            "the certificate of the server, or of a proxy, is not trusted; set --ca-file",
        ),
        ("refused", "no server listens at the base URL"),
        (
            "timed out",
            "the host does not respond; check firewalls and proxies",
        ),
    ];
    HINTS
        .iter()
        .find(|(part, _)| text.contains(part))
        .map_or("check the network connection", |(_, hint)| hint)
}

impl Cause {
    pub(super) fn is_rate_limit(&self) -> bool {
        matches!(self, Self::RateLimited(_))
    }

    /// Returns whether a smaller page may succeed.
    pub fn wants_smaller_page(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Malformed(_) | Self::Encoding(_) => true,
            Self::Transport(error) => {
                (error.is_timeout() && !error.is_connect()) || error.is_body() || error.is_decode()
            }
            Self::Status { status, .. } | Self::NotJson { status, .. } => {
                matches!(status, 408 | 500 | 502..=504 | 524)
            }
            Self::RateLimited(_) | Self::Unreachable { .. } => false,
        }
    }

    /// Returns whether single rows may cause the failure, so that other rows can still be read.
    fn may_concern_single_rows(&self) -> bool {
        match self {
            Self::TooLarge { .. }
            | Self::Malformed(_)
            | Self::Status { .. }
            | Self::NotJson { .. }
            | Self::Transport(_)
            | Self::Encoding(_) => true,
            Self::RateLimited(_) | Self::Unreachable { .. } => false,
        }
    }
}

impl SourceError {
    /// Returns whether the key was rejected: every other request would fail, too.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Unauthorized { .. })
    }

    /// Returns whether no other scope can be read either: the key was rejected, or the source is down.
    pub fn concerns_all_scopes(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Outage { .. })
    }

    /// Returns whether the key lacks a permission. This concerns one org or project only.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// Returns whether single rows may cause the failure, so that other rows can still be read.
    pub fn may_concern_single_rows(&self) -> bool {
        match self {
            Self::Unavailable { cause, .. } => cause.may_concern_single_rows(),
            // Gateways block single responses with statuses of every kind.
            Self::Rejected { .. } | Self::TooDeep { .. } | Self::PageGone { .. } => true,
            _ => false,
        }
    }

    /// Returns whether the API was unavailable in every attempt.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Returns whether the same request with a smaller page may succeed: 400, 413, timeouts and incomplete
    /// responses. For a 400 this is only a guess, so stop halving at a few rows.
    pub fn wants_smaller_page(&self) -> bool {
        match self {
            Self::Rejected { status, code, .. } => {
                matches!(status, 400 | 413) && !code.contains("NOT_FOUND")
            }
            Self::Unavailable { cause, .. } => cause.wants_smaller_page(),
            _ => false,
        }
    }
}
