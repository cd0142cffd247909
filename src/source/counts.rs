//! Counters of requests. Every attempt counts.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::error::Endpoint;

/// Requests so far, including retries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RequestCounts {
    /// Attempts at all endpoints.
    pub total: u64,
    /// Attempts other than the first of a request.
    pub retried: u64,
    /// Attempts that were rate limited.
    pub rate_limited: u64,
    /// Attempts by endpoint.
    pub by_endpoint: EndpointCounts,
}

/// Attempts by endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndpointCounts {
    /// `GET /v1/orgs`
    pub orgs: u64,
    /// `GET /v1/orgs/{org}/projects`
    pub projects: u64,
    /// `POST /pipeline/api/pipelines/execution/summary`
    pub executions: u64,
    /// `GET /pipeline/api/pipelines/retention/{account}`
    pub retention: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    orgs: AtomicU64,
    projects: AtomicU64,
    executions: AtomicU64,
    retention: AtomicU64,
    retried: AtomicU64,
    rate_limited: AtomicU64,
}

impl Counters {
    /// Counts an attempt.
    pub(super) fn count(&self, endpoint: Endpoint, is_retry: bool) {
        let counter = match endpoint {
            Endpoint::Orgs => &self.orgs,
            Endpoint::Projects => &self.projects,
            Endpoint::Executions => &self.executions,
            Endpoint::Retention => &self.retention,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if is_retry {
            self.retried.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_rate_limited(&self) {
        self.rate_limited.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let by_endpoint = EndpointCounts {
            orgs: read(&self.orgs),
            projects: read(&self.projects),
            executions: read(&self.executions),
            retention: read(&self.retention),
        };
        RequestCounts {
            total: by_endpoint.orgs
                + by_endpoint.projects
                + by_endpoint.executions
                + by_endpoint.retention,
            retried: read(&self.retried),
            rate_limited: read(&self.rate_limited),
            by_endpoint,
        }
    }
}
