//! A parsed request and the possible responses.

use percent_encoding::percent_decode_str;
use serde_json::json;

use crate::scope::Scope;

/// The endpoint of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `GET /v1/orgs`
    Orgs,
    /// `GET /v1/orgs/{org}/projects`
    Projects,
    /// `POST /pipeline/api/pipelines/execution/summary`
    Executions,
    /// `GET /pipeline/api/pipelines/retention/{account}`
    Retention,
    /// Anything else.
    Unknown,
}

/// A request as received by the server.
#[derive(Clone, Debug)]
pub(super) struct ApiRequest {
    pub(super) method: String,
    /// As sent, still percent-encoded.
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) key: Option<String>,
    pub(super) account: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) body: String,
}

impl ApiRequest {
    /// Returns the segments of the path, decoded.
    pub(super) fn segments(&self) -> Vec<String> {
        let decode = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        let path = self.path.trim_start_matches('/');
        path.split('/').map(decode).collect()
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        let segments = self.segments();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match (self.method.as_str(), segments.as_slice()) {
            ("GET", ["v1", "orgs"]) => Endpoint::Orgs,
            ("GET", ["v1", "orgs", _, "projects"]) => Endpoint::Projects,
            ("POST", ["pipeline", "api", "pipelines", "execution", "summary"]) => {
                Endpoint::Executions
            }
            ("GET", ["pipeline", "api", "pipelines", "retention", _]) => Endpoint::Retention,
            _ => Endpoint::Unknown,
        }
    }

    /// Returns the first value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let mut named = self.query.iter().filter(|(key, _)| key == name);
        named.next().map(|(_, value)| value.as_str())
    }

    /// Returns all values of a query parameter.
    pub(super) fn parameters<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.query.iter().filter(move |(key, _)| key == name);
        named.map(|(_, value)| value.as_str())
    }

    /// Returns the requested project.
    pub(super) fn scope(&self) -> Option<Scope> {
        let org = self.parameter("orgIdentifier")?;
        Some(Scope::new(org, self.parameter("projectIdentifier")?))
    }

    /// Returns the requested page.
    pub(super) fn page(&self) -> Option<u32> {
        self.parameter("page").unwrap_or("0").parse().ok()
    }

    /// Returns a number in the query, or its default.
    ///
    /// # Errors
    ///
    /// 400 if the value is not a number, as the real server answers.
    pub(super) fn number(&self, name: &str, default: i64) -> Result<i64, ApiError> {
        let Some(text) = self.parameter(name) else {
            return Ok(default);
        };
        text.parse()
            .map_err(|_| ApiError::invalid(format!("Invalid value for query param {name}: {text}")))
    }

    /// Rejects unknown query parameters. The real server ignores them, but a misspelled one must
    /// fail a test.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let unknown = |(name, _): &&(String, String)| !known.contains(&name.as_str());
        match self.query.iter().find(unknown) {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::invalid(format!("Unknown query param: {name}"))),
        }
    }
}

/// A successful response: status 200, headers and JSON.
#[derive(Debug)]
pub(super) struct ApiResponse {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// An error response.
#[derive(Debug)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        let message = format!("Invalid request: {}", message.into());
        Self::new(400, "INVALID_REQUEST", message)
    }

    pub(super) fn forbidden() -> Self {
        let message = "Missing permission core_pipeline_view on pipeline";
        Self::new(403, "NG_ACCESS_DENIED", message)
    }

    pub(super) fn token() -> Self {
        Self::new(401, "INVALID_TOKEN", "Token is not valid.")
    }

    pub(super) fn throttled(status: u16) -> Self {
        Self::new(
            status,
            "TOO_MANY_REQUESTS",
            "Too many requests received. Please retry later.",
        )
    }

    /// Renders the error envelope that the endpoint uses.
    pub(super) fn body(&self, endpoint: Endpoint) -> String {
        let (code, message) = (self.code, &self.message);
        let body = if matches!(endpoint, Endpoint::Orgs | Endpoint::Projects) && self.status == 400
        {
            json!({"message": message, "code": code, "errors": [], "error_metadata": null})
        } else {
            json!({
                "status": "ERROR", "code": code, "message": message,
                "correlationId": "sim-0000", "detailedMessage": null,
                "responseMessages": [{
                    "code": code, "level": "ERROR", "message": message,
                    "exception": null, "failureTypes": []
                }],
                "metadata": null
            })
        };
        body.to_string()
    }
}
