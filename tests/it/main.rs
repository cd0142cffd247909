//! The integration-test binary: runs of the program against the simulated account.

#![expect(
    clippy::unwrap_used,
    reason = "a failed `unwrap` fails the test; `allow-unwrap-in-tests` misses helper functions"
)]

#[cfg(feature = "failpoints")]
mod aborts;
mod analytics;
#[cfg(feature = "failpoints")]
mod api_outage;
mod audit;
mod backoff;
mod calls;
mod check;
mod cli;
mod completeness;
mod copies;
#[cfg(feature = "failpoints")]
mod crash;
mod delta;
mod edges;
mod faults;
mod full_run;
mod history;
mod iam;
mod identifiers;
mod idle;
mod incremental;
mod interrupted;
mod isolation;
mod kubernetes;
mod logs;
mod metrics;
mod monitoring;
mod operations;
#[cfg(feature = "failpoints")]
mod outages;
mod outputs;
mod overlap;
mod periods;
mod personal;
mod project;
mod protocol_model;
mod readers;
mod report;
mod samples;
mod schedules;
mod schemas;
mod secrets;
mod signals;
mod stores;
mod support;
mod transport;
mod units;
mod versions;
