//! Extracts the pipeline executions of a Harness account into a lake of Parquet files.
//!
//! This is the library of the `harness-lake` binary. Its API is not stable.
//!
//! # Stages
//!
//! A `sync` ([`job::sync`]) passes through these stages, in this order:
//!
//! 1. **Discover** ([`extract::discover`]): list the organizations and projects that the API key can view.
//! 2. **Plan** ([`extract::plan_sync`]): compute the windows and open executions to read from the
//!    [`checkpoint`].
//! 3. **Read** ([`extract::fan_out`]): request pages of executions from the [`source`], several projects
//!    at a time.
//! 4. **Merge** ([`lake::commit`]): spool the observations and merge them into the raw partitions of
//!    the [`lake`]; later observations win.
//! 5. **Derive** ([`lake::derive`]): rebuild the [`tables`] of changed partitions. Their columns are
//!    defined in [`schema`].
//! 6. **Commit** ([`lake::log`]): write the next checkpoint, which covers only what the tables contain.
//! 7. **Report** ([`report`]): write what the run did, as JSON, and as [`metrics`].
//!
//! `backfill` differs in its plan ([`extract::backfill`]), and `replay` ([`job::replay`]) starts at
//! derive.
//!
//! # Read on
//!
//! - `README.md`: installation, commands, settings, exit codes.
//! - `ARCHITECTURE.md`: the design, the protocol of a run and its invariants.
//! - `docs/schema.md`: all tables and columns.
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
mod output_file;
pub mod pii;
pub mod progress;
pub mod report;
mod scan;
pub mod schema;
pub mod source;
pub mod status;
pub mod tables;
pub mod window;
mod worker;
