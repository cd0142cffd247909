//! Every path of a lake. No other module builds paths. Pure.
//!
//! ```text
//! executions/v1/start_date=2026-11-24/part-0-of-1.parquet   a table of a date
//! orgs/v1/part-0-of-1.parquet                               a dimension
//! _raw/v1/start_date=2026-11-24/part-0-of-1.parquet         the raw partition of a date
//! _state/lake.json  _state/checkpoints/<20 digits>.json.zst  _state/pending/<run>-<n>.json
//! _runs/<run_id>.json
//! _views/duckdb.sql
//! ```

use std::fmt;

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::schema::{Table, VERSION};

/// The identity of the lake: its account, its handling of personal data, its buckets.
pub const LAKE: &str = "_state/lake.json";

/// The folder of the checkpoint's records.
pub const CHECKPOINTS: &str = "_state/checkpoints";

/// The folder of the pending lists: partitions that runs are merging.
pub const PENDING: &str = "_state/pending";

/// The folder where a local lake stages its files. No glob over a table matches it.
pub const STAGING: &str = "_state/tmp";

/// The lock file of a local lake.
pub const LOCK: &str = "_state/lock";

/// The file that marks a lake of `demo`, which `demo` may replace.
pub const DEMO: &str = "_state/demo";

/// The folder of the run reports.
pub const RUNS: &str = "_runs";

/// SQL statements that open every table and view of a local lake.
pub const VIEWS: &str = "_views/duckdb.sql";

/// The folder of the raw partitions.
pub const RAW: &str = "_raw/v1";

/// One bucket of one UTC date: the unit of merging and deriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Partition {
    /// The UTC date of `start_ts`.
    pub date: Date,
    /// The bucket, from 0.
    pub bucket: u32,
    /// The number of buckets of this date.
    pub buckets: u32,
}

impl Partition {
    /// Returns the path of the raw object.
    pub fn raw(self) -> String {
        format!("{RAW}/{self}")
    }

    /// Returns the path of the object of a table.
    pub fn table(self, table: Table) -> String {
        format!("{}/{self}", table_folder(table))
    }

    /// Parses a path relative to the folder of a table or of the raw partitions.
    pub fn parse(path: &str) -> Option<Self> {
        let (date, name) = path.strip_prefix("start_date=")?.split_once('/')?;
        let (bucket, buckets) = name
            .strip_prefix("part-")?
            .strip_suffix(".parquet")?
            .split_once("-of-")?;
        let partition = Self {
            date: date.parse().ok()?,
            bucket: bucket.parse().ok()?,
            buckets: buckets.parse().ok()?,
        };
        (partition.bucket < partition.buckets && partition.to_string() == path).then_some(partition)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "start_date={}/part-{}-of-{}.parquet",
            self.date, self.bucket, self.buckets
        )
    }
}

/// Returns the folder of a table, in the current schema version.
pub fn table_folder(table: Table) -> String {
    format!("{}/v{VERSION}", table.name())
}

/// Returns the path of a dimension.
pub fn dimension(table: Table) -> String {
    format!("{}/part-0-of-1.parquet", table_folder(table))
}

/// Returns the path of a checkpoint record.
pub fn checkpoint(number: u64) -> String {
    format!("{CHECKPOINTS}/{number:020}.json.zst")
}

/// Returns the number of a checkpoint record from its path.
pub fn checkpoint_number(path: &str) -> Option<u64> {
    let digits = path
        .strip_prefix(CHECKPOINTS)?
        .strip_prefix('/')?
        .strip_suffix(".json.zst")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// Returns the path of an object that a probe of the store writes.
pub fn probe(id: &str) -> String {
    format!("{STAGING}/probe-{id}")
}

/// Returns the path of a pending list. `flush` numbers the spools of the run.
pub fn pending(run_id: &str, flush: u32) -> String {
    format!("{}{flush}.json", pending_prefix(run_id))
}

/// Returns the common prefix of the pending lists of a run.
pub fn pending_prefix(run_id: &str) -> String {
    format!("{PENDING}/{run_id}-")
}

/// Returns the path of the report of a run.
pub fn run_report(run_id: &str) -> String {
    format!("{RUNS}/{run_id}.json")
}

/// Returns the UTC date of an instant: the partition key.
pub fn date_of(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_parses_its_own_path() {
        let partition = Partition {
            date: "2026-11-24".parse().unwrap(),
            bucket: 1,
            buckets: 4,
        };
        assert_eq!(
            partition.table(Table::Executions),
            "executions/v1/start_date=2026-11-24/part-1-of-4.parquet"
        );
        assert_eq!(Partition::parse(&partition.to_string()), Some(partition));
        for foreign in [
            "start_date=2026-11-24/part-4-of-4.parquet",
            "start_date=2026-11-24/part-01-of-4.parquet",
            "start_date=2026-13-24/part-0-of-1.parquet",
            "start_date=2026-11-24/data.parquet",
            "part-0-of-1.parquet",
        ] {
            assert_eq!(Partition::parse(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn checkpoints_sort_by_number() {
        assert_eq!(checkpoint_number(&checkpoint(12)), Some(12));
        assert!(checkpoint(9) < checkpoint(10));
        assert_eq!(checkpoint_number("_state/checkpoints/12.json.zst"), None);
    }
}
