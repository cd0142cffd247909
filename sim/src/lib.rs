//! A simulated Harness account and a strict HTTP server for it, used by the commands `demo` and
//! `sim`, the tests and the benchmarks. It shares no code with the product that it tests.
//!
//! An [`Account`] is a pure function of its [`AccountSpec`]. It stores a few facts of each
//! execution and derives the rest from the seed on demand, so a million executions fit in memory.
//! It can be rendered as of any instant, for two server [`Vintage`]s. [`Account::truth`] returns
//! the rows that a correct extraction must produce.
//!
//! ```text
//! plan (orgs, projects, pipelines) -> history (who runs when, how it ends) = Account
//! Account + execution -> detail (stage graph and its timeline), facts (trigger, commits, notes)
//! detail + facts + instant -> render (a summary's JSON), truth (table rows)
//! request -> call -> filter -> routes -> transport, bent by faults = Server
//! ```
//!
//! The server is stricter than the real one: it rejects unknown query parameters and filters that
//! it does not simulate. Like the real one, it ignores unknown keys of the body.

#![forbid(unsafe_code)]

mod account;
mod clock;
mod detail;
mod expected_attempts;
mod expected_deployments;
mod expected_dora;
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

/// The version of the simulated server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vintage {
    /// The hosted service, as of today.
    #[default]
    Saas,
    /// An older or self-managed server.
    Older,
}
