#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod causes;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod drift;
pub mod error;
pub mod extract;
mod failpoint;
pub mod ids;
pub mod job;
pub mod lake;
pub mod metrics;
mod mutex;
pub mod observation;
pub mod pii;
pub mod progress;
pub mod report;
mod scan;
pub mod schema;
pub mod source;
pub mod status;
pub mod tables;
pub mod window;
