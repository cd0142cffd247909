//! A simulated Harness account and a strict HTTP server for it: what `demo`, `sim`, the tests and
//! the benchmarks read.
//!
//! An [`Account`] is a pure function of its [`AccountSpec`]. It keeps a compact truth of each
//! execution and makes all else again from the seed when asked, so it can be told as of any
//! instant, in the manner of two server [`Vintage`]s, and a million executions fit in memory.
//! [`Account::truth`] gives the rows that a right extraction must give.
//!
//! ```text
//! plan (orgs, projects, pipelines) -> history (who runs when, how it ends) = Account
//! Account + execution -> detail (stage graph and its timeline), facts (trigger, commits, notes)
//! detail + facts + instant -> render (a summary's JSON), truth (table rows)
//! request -> call -> filter -> routes -> transport, bent by faults = Server
//! ```
//!
//! Where it is stricter than the real server: unknown query parameters are refused, and so are
//! filters that it does not simulate. Unknown keys of the body are ignored, as there.

#![forbid(unsafe_code)]

mod account;
mod clock;
mod detail;
mod expected_deployments;
mod expected_views;
mod facts;
mod faults;
mod filter;
mod history;
mod json;
mod names;
mod plan;
mod render;
mod render_modules;
mod render_stages;
mod request;
mod rng;
mod routes;
mod scope;
mod server;
mod slots;
#[cfg(test)]
mod socket_tests;
mod status;
#[cfg(test)]
mod tests;
mod timeline;
mod transport;
mod truth;
mod truth_stages;

pub use account::{Account, AccountSpec, Execution, RowSize};
pub use clock::Clock;
pub use expected_views::ExpectedViews;
pub use faults::{Fault, FaultKind, Faults, Match};
pub use names::PEOPLE;
pub use request::Endpoint;
pub use scope::Scope;
pub use server::{LoggedRequest, Requests, Server, ServerOptions};
pub use truth::Truth;

/// Which server is simulated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vintage {
    /// Today's service.
    #[default]
    Saas,
    /// An older or self-managed server.
    Older,
}
