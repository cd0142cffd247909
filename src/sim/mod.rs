//! A simulated Harness account and a strict HTTP server for it: what `demo`, `sim`, the tests and
//! the benchmarks read.
//!
//! An [`Account`] is a pure function of its [`AccountSpec`]. It knows every execution's whole
//! timeline, so it can be told as of any instant, in the manner of two server [`Vintage`]s.

mod account;
mod call;
mod clock;
mod detail;
mod dice;
mod facts;
mod faults;
mod filter;
mod history;
mod json;
mod layout;
mod names;
mod plan;
mod render;
mod render_modules;
mod render_stages;
mod routes;
mod server;
mod slots;
mod state;
#[cfg(test)]
mod tests;
mod transport;
mod truth;
mod truth_stages;

pub use account::{Account, AccountSpec, Execution, RowSize};
pub use call::Endpoint;
pub use clock::Clock;
pub use faults::{Fault, FaultKind, Faults, Match};
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
