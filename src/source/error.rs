//! What can go wrong between us and Harness, by what the operator does about it.

use std::fmt;

use super::retry::RetryState;
use crate::causes::chain;

/// The endpoints that are read.
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
    /// Method and path, for people. It never holds the account.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Orgs => "GET /v1/orgs",
            Self::Projects => "GET /v1/orgs/{org}/projects",
            Self::Executions => "POST /pipeline/api/pipelines/execution/summary",
            Self::Retention => "GET /pipeline/api/pipelines/retention/{account}",
        }
    }
}

/// What a request asked for: an endpoint, and the org or the project where it serves one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// `org` or `org/project`; `None` for what is of the whole account.
    pub of: Option<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.endpoint.path())?;
        match &self.of {
            Some(of) => write!(f, " of {of}"),
            None => Ok(()),
        }
    }
}

/// A request that did not give what was asked for, or a client that cannot ask.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// 401, twice: the key is wrong, expired or of another account.
    #[error("{place} refused the API key: {message}")]
    Unauthorized {
        /// What was asked for.
        place: Place,
        /// The server's words.
        message: String,
    },
    /// 403: the key is good, the right is missing.
    #[error("{place} is forbidden to this API key: {message}")]
    Forbidden {
        /// What was asked for.
        place: Place,
        /// The server's words.
        message: String,
    },
    /// The page lies beyond the first 10,000 rows of a window: ask for a narrower one.
    #[error("{place} pages through no more than 10,000 rows: {message}")]
    TooDeep {
        /// What was asked for.
        place: Place,
        /// The server's words.
        message: String,
    },
    /// Rows of the page vanished while the server read it: read the window again.
    #[error("{place} lost rows while they were read: {message}")]
    PageGone {
        /// What was asked for.
        place: Place,
        /// The server's words.
        message: String,
    },
    /// So many rows without a start that the field must have changed: they have no place in a lake.
    #[error("{place} gives executions without `startTs`, more than {limit} of them")]
    Undated {
        /// What was asked for.
        place: Place,
        /// As many are kept in the checkpoint.
        limit: usize,
    },
    /// Another 4xx, or a status other than SUCCESS: asking again would give the same.
    #[error("{place} answered {status}{}: {message}", behind_space(code))]
    Rejected {
        /// What was asked for.
        place: Place,
        /// The HTTP status.
        status: u16,
        /// The server's code, such as `INVALID_REQUEST`; empty where there was none.
        code: String,
        /// The server's words.
        message: String,
    },
    /// Still failing after every attempt that the retry policy allows.
    #[error("{place} failed {attempts} times")]
    Unavailable {
        /// What was asked for.
        place: Place,
        /// Attempts made.
        attempts: u32,
        /// How the last attempt failed.
        #[source]
        cause: Cause,
        /// What a further request for the same purpose begins with.
        so_far: Box<RetryState>,
    },
    /// The source is down: it did not answer for as many projects in a row, so the rest is not requested.
    #[error("not requested: the API did not answer for {failures} projects in a row")]
    NotRequested {
        /// Projects that failed in a row.
        failures: u32,
    },
    /// The key holds characters that no header can carry, such as a line break, or is empty.
    #[error("the API key is empty or holds characters that no header can carry")]
    InvalidKey,
    /// The account identifier cannot be sent.
    #[error("the account identifier is empty or holds characters that no header can carry")]
    InvalidAccount,
    /// The base URL is one that no path can be added to.
    #[error("the base URL is not one of http or https")]
    InvalidBaseUrl,
    /// The HTTP client cannot be built: a bad certificate file, or no system certificates.
    #[error("set up the HTTP client")]
    Setup(#[source] reqwest::Error),
}

/// A server's code as it follows on a status; nothing where there is none.
fn behind_space(code: &str) -> String {
    if code.is_empty() {
        String::new()
    } else {
        format!(" {code}")
    }
}

/// How one attempt failed, where another may succeed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// 429, or code `TOO_MANY_REQUESTS` under any status.
    #[error("rate limited: {0}")]
    RateLimited(String),
    /// A status that says "later".
    #[error("{status}{}: {message}", behind_space(code))]
    Status {
        /// The HTTP status.
        status: u16,
        /// The server's code; empty where there was none.
        code: String,
        /// The server's words.
        message: String,
    },
    /// HTML or other text that is no JSON: a gateway, a login page, a wrong base URL.
    #[error("{status} with an answer that is not JSON (is the base URL right?): `{start}`")]
    NotJson {
        /// The HTTP status.
        status: u16,
        /// The first characters of the answer.
        start: String,
    },
    /// JSON that is cut short, or not of the promised shape.
    #[error("an answer that cannot be decoded")]
    Malformed(#[source] serde_json::Error),
    /// More bytes than any page should have.
    #[error("an answer of more than {limit} bytes")]
    TooLarge {
        /// The most that is read.
        limit: usize,
    },
    /// There is no connection.
    #[error("cannot connect: {hint}")]
    Unreachable {
        /// What is wrong, or what to look at.
        hint: &'static str,
        /// What the network said.
        #[source]
        error: reqwest::Error,
    },
    /// The connection broke, or was silent for too long.
    #[error("no whole answer")]
    Transport(#[source] reqwest::Error),
}

impl From<reqwest::Error> for Cause {
    /// The place of an error names the endpoint; the URL would only repeat it, account included.
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        if !error.is_connect() {
            return Self::Transport(error);
        }
        let hint = hint(&chain(&error));
        Self::Unreachable { hint, error }
    }
}

/// What to look at, by the words of the libraries below: their errors have no kinds.
fn hint(words: &str) -> &'static str {
    const HINTS: [(&str, &str); 5] = [
        ("dns error", "the host of the base URL is not found"),
        (
            "corrupt message",
            "the server does not speak TLS; is the port of the base URL right?",
        ),
        (
            "certificate",
            "the certificate of the server, or of a proxy before it, is not trusted; --ca-file trusts more",
        ),
        ("refused", "nothing listens at the base URL"),
        (
            "timed out",
            "the host does not answer; is there a firewall or a proxy?",
        ),
    ];
    HINTS
        .iter()
        .find(|(word, _)| words.contains(word))
        .map_or("is the network there?", |(_, hint)| hint)
}

impl Cause {
    pub(super) fn is_rate_limit(&self) -> bool {
        matches!(self, Self::RateLimited(_))
    }

    /// Whether the answer may simply have been too much.
    pub fn wants_smaller_page(&self) -> bool {
        match self {
            Self::TooLarge { .. } | Self::Malformed(_) => true,
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
            | Self::Transport(_) => true,
            Self::NotJson { status, .. } => *status == 200 || *status >= 500,
            Self::RateLimited(_) | Self::Unreachable { .. } => false,
        }
    }
}

impl SourceError {
    /// Whether the key itself was refused: every other request would fail alike.
    pub fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Unauthorized { .. })
    }

    /// Whether the key lacks the right; a matter of this org or project alone.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden { .. })
    }

    /// Returns whether single rows may cause the failure, so that other rows can still be read.
    pub fn may_concern_single_rows(&self) -> bool {
        match self {
            Self::Unavailable { cause, .. } => cause.may_concern_single_rows(),
            Self::Rejected { status, .. } => matches!(status, 400 | 413 | 422),
            Self::TooDeep { .. } | Self::PageGone { .. } => true,
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::Undated { .. }
            | Self::NotRequested { .. }
            | Self::InvalidKey
            | Self::InvalidAccount
            | Self::InvalidBaseUrl
            | Self::Setup(_) => false,
        }
    }

    /// Whether the API did not answer in time or at all, after retries.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether the same request with a smaller page may succeed: 400, 413, time-outs and answers
    /// that broke off. Of a 400 it is only a guess, so do not go on halving once below a few rows.
    pub fn wants_smaller_page(&self) -> bool {
        match self {
            Self::Rejected { status, code, .. } => {
                matches!(status, 400 | 413) && !code.contains("NOT_FOUND")
            }
            Self::Unavailable { cause, .. } => cause.wants_smaller_page(),
            Self::Unauthorized { .. }
            | Self::Forbidden { .. }
            | Self::TooDeep { .. }
            | Self::PageGone { .. }
            | Self::Undated { .. }
            | Self::NotRequested { .. }
            | Self::InvalidKey
            | Self::InvalidAccount
            | Self::InvalidBaseUrl
            | Self::Setup(_) => false,
        }
    }
}
