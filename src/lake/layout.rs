//! Every path of a lake. No path is made anywhere else. Pure.
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

/// The identity of the lake: its account, what it does with personal data, its buckets.
pub const LAKE: &str = "_state/lake.json";

/// The folder of the checkpoint's records.
pub const CHECKPOINTS: &str = "_state/checkpoints";

/// The folder of the lists of partitions that are being merged.
pub const PENDING: &str = "_state/pending";

/// The folder where a local lake stages its objects: outside of every glob over a table.
pub const STAGING: &str = "_state/tmp";

/// The lock file of a local lake.
pub const LOCK: &str = "_state/lock";

/// What says that a folder was made by `demo`, and may be made anew.
pub const DEMO: &str = "_state/demo";

/// The folder of the run reports.
pub const RUNS: &str = "_runs";

/// Statements that open every table and view of a local lake.
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
    /// The bucket's raw object.
    pub fn raw(self) -> String {
        format!("{RAW}/{self}")
    }

    /// The bucket's object of a partitioned table.
    pub fn table(self, table: Table) -> String {
        format!("{}/{self}", table_folder(table))
    }

    /// The partition that a path below a table's or the raw folder names.
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

/// The folder of a table's objects in the version that this program writes.
pub fn table_folder(table: Table) -> String {
    format!("{}/v{VERSION}", table.name())
}

/// The one object of a dimension.
pub fn dimension(table: Table) -> String {
    format!("{}/part-0-of-1.parquet", table_folder(table))
}

/// The checkpoint record of a number.
pub fn checkpoint(number: u64) -> String {
    format!("{CHECKPOINTS}/{number:020}.json.zst")
}

/// The number of a checkpoint record, from its path.
pub fn checkpoint_number(path: &str) -> Option<u64> {
    let digits = path
        .strip_prefix(CHECKPOINTS)?
        .strip_prefix('/')?
        .strip_suffix(".json.zst")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}

/// An object that a probe of the store may write.
pub fn probe(id: &str) -> String {
    format!("{STAGING}/probe-{id}")
}

/// The list of partitions that a run is about to merge; `part` counts the spools of the run.
pub fn pending(run_id: &str, part: u32) -> String {
    format!("{}{part}.json", pending_prefix(run_id))
}

/// With what the paths of a run's lists of partitions begin.
pub fn pending_prefix(run_id: &str) -> String {
    format!("{PENDING}/{run_id}-")
}

/// The report of a run.
pub fn run_report(run_id: &str) -> String {
    format!("{RUNS}/{run_id}.json")
}

/// The UTC date of an instant: the partition key.
pub fn date_of(at: Timestamp) -> Date {
    at.to_zoned_datetime(TimeZone::UTC).date()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_survives_its_path() {
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
