//! Every path of a lake. No other module builds paths. Pure.
//!
//! ```text
//! executions/v1/start_date=2026-11-24/part-0-of-1.parquet   a table, in a lake by day
//! executions/v1/start_month=2026-11-01/part-0-of-1.parquet  a table, in a lake by month
//! orgs/v1/part-0-of-1.parquet                               a dimension
//! _raw/v1/start_date=2026-11-24/part-0-of-1.parquet         the raw partition of a date
//! _state/lake.json  _state/checkpoints/<20 digits>.json.zst  _state/pending/<run>-<n>.json
//! _runs/<run_id>.json
//! delta/executions/v1/start_date=2026-11-24/part-0-of-1-r<revision>-<write id>.parquet   a file of a Delta table
//! delta/executions/v1/_delta_log/<20 digits>.json                                        an entry of its log
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

/// The period of the table objects of a lake. Raw objects hold one UTC day in every lake.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// A UTC day.
    #[default]
    Day,
    /// A UTC month.
    Month,
}

impl Period {
    /// Returns the first date of the period that contains `date`.
    pub fn start(self, date: Date) -> Date {
        match self {
            Self::Day => date,
            Self::Month => date.first_of_month(),
        }
    }

    /// Returns the first date after the period that contains `date`.
    pub fn end(self, date: Date) -> Date {
        let last = match self {
            Self::Day => date,
            Self::Month => date.last_of_month(),
        };
        last.tomorrow().unwrap_or(last)
    }

    /// Returns the first date on or after `date` that begins a period.
    pub fn first_start(self, date: Date) -> Date {
        if self.start(date) == date {
            date
        } else {
            self.end(date)
        }
    }

    /// Returns the name of the path column.
    pub const fn column(self) -> &'static str {
        match self {
            Self::Day => "start_date",
            Self::Month => "start_month",
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Month => "month",
        })
    }
}

/// One bucket of one UTC date: the unit of merging.
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

    /// Returns the partition of the tables that holds the rows of this one.
    pub fn tables(self, period: Period) -> TablePartition {
        TablePartition {
            period,
            start: period.start(self.date),
            bucket: self.bucket,
            buckets: self.buckets,
        }
    }

    /// Parses a path relative to the folder of the raw partitions.
    pub fn parse(path: &str) -> Option<Self> {
        let tables = TablePartition::parse(Period::Day, path)?;
        Some(tables.raw(tables.start))
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables(Period::Day).fmt(f)
    }
}

/// One bucket of one period: the rows of one object of each table. With a day as its period, it also
/// names a raw object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TablePartition {
    /// The period.
    pub period: Period,
    /// The first date of the period.
    pub start: Date,
    /// The bucket, from 0.
    pub bucket: u32,
    /// The number of buckets of this period.
    pub buckets: u32,
}

impl TablePartition {
    /// Returns the path of the object of a table.
    pub fn path(self, table: Table) -> String {
        format!("{}/{self}", table_folder(table))
    }

    /// Returns the raw partition of one of its dates.
    pub fn raw(self, date: Date) -> Partition {
        Partition {
            date,
            bucket: self.bucket,
            buckets: self.buckets,
        }
    }

    /// Parses a path relative to the folder of a table.
    pub fn parse(period: Period, path: &str) -> Option<Self> {
        let folder = path.strip_prefix(period.column())?.strip_prefix('=')?;
        let (start, name) = folder.split_once('/')?;
        let (bucket, buckets) = name
            .strip_prefix("part-")?
            .strip_suffix(".parquet")?
            .split_once("-of-")?;
        let partition = Self {
            period,
            start: start.parse().ok()?,
            bucket: bucket.parse().ok()?,
            buckets: buckets.parse().ok()?,
        };
        let is_start = period.start(partition.start) == partition.start;
        let is_exact = is_start && partition.to_string() == path;
        (partition.bucket < partition.buckets && is_exact).then_some(partition)
    }
}

impl fmt::Display for TablePartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.period.column();
        write!(
            f,
            "{column}={}/part-{}-of-{}.parquet",
            self.start, self.bucket, self.buckets
        )
    }
}

/// Returns the folder of a table, in the current schema version.
pub fn table_folder(table: Table) -> String {
    format!("{}/v{VERSION}", table.name())
}

/// The object of a dimension, below the folder of its table.
pub const DIMENSION_OBJECT: &str = "part-0-of-1.parquet";

/// Returns the path of a dimension.
pub fn dimension(table: Table) -> String {
    format!("{}/{DIMENSION_OBJECT}", table_folder(table))
}

/// The folder of the log, below the folder of a Delta table.
pub const DELTA_LOG: &str = "_delta_log";

/// A file of the log of a Delta table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaLogFile {
    /// The actions of one version.
    Entry,
    /// The state of a version.
    Checkpoint,
}

/// The folder of the Delta tables.
pub const DELTA: &str = "delta";

/// Returns the folder of a Delta table, in the current schema version.
pub fn delta_folder(table: Table) -> String {
    format!("{DELTA}/{}", table_folder(table))
}

/// Returns the folder of the log of a Delta table.
pub fn delta_log(table: Table) -> String {
    format!("{}/{DELTA_LOG}", delta_folder(table))
}

/// Returns the path of an entry of the log of a Delta table.
pub fn delta_entry(table: Table, version: u64) -> String {
    format!("{}/{version:020}.json", delta_log(table))
}

/// Returns the path of a checkpoint of a Delta table.
pub fn delta_checkpoint(table: Table, version: u64) -> String {
    format!("{}/{version:020}.checkpoint.parquet", delta_log(table))
}

/// Returns the path of the hint to the newest checkpoint of a Delta table.
pub fn delta_last_checkpoint(table: Table) -> String {
    format!("{}/_last_checkpoint", delta_log(table))
}

/// Parses the path of an entry or a checkpoint of a Delta table. Files of other programs are ignored.
pub fn parse_delta_log(table: Table, path: &str) -> Option<(u64, DeltaLogFile)> {
    let name = path.strip_prefix(&delta_log(table))?.strip_prefix('/')?;
    let (digits, kind) = name.split_once('.')?;
    let kind = match kind {
        "json" => DeltaLogFile::Entry,
        "checkpoint.parquet" => DeltaLogFile::Checkpoint,
        _ => return None,
    };
    (digits.len() == 20).then(|| Some((digits.parse().ok()?, kind)))?
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
        let paths = [Period::Day, Period::Month]
            .map(|period| partition.tables(period).path(Table::Executions));
        assert_eq!(
            paths,
            [
                "executions/v1/start_date=2026-11-24/part-1-of-4.parquet",
                "executions/v1/start_month=2026-11-01/part-1-of-4.parquet"
            ]
        );
        assert_eq!(Partition::parse(&partition.to_string()), Some(partition));
        let month = partition.tables(Period::Month);
        let parse = |path: &str| TablePartition::parse(Period::Month, path);
        assert_eq!(parse(&month.to_string()), Some(month));
        assert_eq!(month.raw(partition.date), partition);
        assert_eq!(parse("start_month=2026-11-24/part-1-of-4.parquet"), None);
        assert_eq!(parse(&partition.to_string()), None);
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
