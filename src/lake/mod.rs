//! Stage 4 of 4: observations to raw objects, to tables, to the checkpoint.
//!
//! Invariants: tables are derived from raw partitions and from nothing else; the checkpoint is
//! committed after the tables of all dates that it claims; every put that another run could also
//! make is conditional ([`store`]).

use std::time::Duration;

pub mod checkpoint;
pub mod layout;
pub mod merge;
pub mod parquet;
pub mod raw;
pub mod store;

/// How long a run waits for the lock of a local lake before it gives up with a conflict.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(600);
