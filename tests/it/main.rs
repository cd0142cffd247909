//! The one integration-test binary: whole runs of the program against the simulated account.

#[cfg(feature = "failpoints")]
#[cfg(test)]
mod aborts;
#[cfg(test)]
mod analytics;
#[cfg(test)]
mod audit;
#[cfg(test)]
mod backoff;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod check;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod completeness;
#[cfg(test)]
mod copies;
#[cfg(feature = "failpoints")]
#[cfg(test)]
mod crash;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod faulty_store;
#[cfg(test)]
mod full_run;
#[cfg(test)]
mod history;
#[cfg(test)]
mod iam;
#[cfg(test)]
mod identifiers;
#[cfg(test)]
mod incremental;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod kubernetes;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod outputs;
#[cfg(test)]
mod overlap;
#[cfg(test)]
mod personal;
#[cfg(test)]
mod project;
#[cfg(test)]
mod protocol_model;
#[cfg(test)]
mod readers;
#[cfg(test)]
mod report;
#[cfg(test)]
mod s3;
#[cfg(test)]
mod samples;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod signals;
#[cfg(test)]
mod support;
#[cfg(test)]
mod transport;
#[cfg(test)]
mod units;
