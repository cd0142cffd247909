//! 1. The client of the Harness API.
//!
//! One [`Client`] serves a run. Every request goes through `http::send`, which applies concurrency,
//! rate, waits and retries to all tasks alike. No code outside this module knows a URL or a header;
//! a [`Page`] keeps the JSON text of its rows.

mod body;
mod canonical;
mod client;
mod clock;
mod counts;
mod error;
mod http;
mod key_check;
mod listing;
mod page;
mod persons;
mod retry;
mod silence;
#[cfg(test)]
mod tests;
mod throttle;
mod wire;

pub use canonical::content_hash;
pub use client::{Client, LIST_LIMIT, SourceSettings};
pub use clock::MAX_AHEAD;
pub use counts::{EndpointCounts, RequestCounts};
pub use error::{Cause, Endpoint, Resource, SourceError};
pub use listing::{OrgEntry, ProjectEntry};
pub use page::{Page, PageRow};
pub use retry::{RetryPolicy, RetryState};
pub use wire::ExecutionsQuery;
