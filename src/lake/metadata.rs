//! Metadata in the footer of a file: table, schema version, writer version, revisions and write id. Read
//! without the rest of the file.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::civil::Date;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::LakeError;
use super::features::{FORMAT, first_format, newer};
use super::layout::Period;
use super::parquet::{FileError, FileKind};
use super::store::{ObjectInfo, Store, StoreError, Tag};
use crate::schema::VERSION;

/// The version of this program.
pub const WRITER: &str = env!("CARGO_PKG_VERSION");

/// Bytes at the end of an object that the first read of its footer requests.
const FOOTER_GUESS: u64 = 64 << 10;

pub(super) const TABLE: &str = "harness_lake.table";
const SCHEMA_VERSION: &str = "harness_lake.schema_version";
const WRITER_VERSION: &str = "harness_lake.writer_version";
const FORMAT_KEY: &str = "harness_lake.format";
const REVISION: &str = "harness_lake.revision";
const DAYS: &str = "harness_lake.days";
const WRITE_ID: &str = "harness_lake.write_id";

/// The metadata of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMetadata {
    /// The table, as [`FileKind::name`] spells it.
    pub table: String,
    /// The version of its schema.
    pub schema_version: u32,
    /// The version of the program that derived its oldest rows.
    pub writer_version: String,
    /// The format of the lake that this version writes.
    pub format: u32,
    /// The version of the content. The table of a month has `days` instead.
    ///
    /// - Raw object: incremented by each replacement.
    /// - Table: the revision of the raw object that it was derived from.
    /// - Dimension: the number of the checkpoint record that it was derived from.
    pub revision: u64,
    /// The days of the table of a month, in the order of its rows.
    pub days: Option<Days>,
    /// Unique to the put.
    pub write_id: String,
    /// Rows of the file.
    pub rows: u64,
}

/// The days of a table object.
pub type Days = BTreeMap<Date, DayOfTable>;

/// One day of a table object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayOfTable {
    /// The revision of the raw object that its rows were derived from.
    pub revision: u64,
    /// Its rows.
    pub rows: u64,
}

impl FileMetadata {
    /// Returns the metadata of a new object with one revision.
    pub fn new(kind: FileKind, revision: u64) -> Self {
        Self {
            table: kind.name().to_owned(),
            schema_version: VERSION,
            writer_version: WRITER.to_owned(),
            format: FORMAT,
            revision,
            days: None,
            write_id: Ulid::generate().to_string(),
            rows: 0,
        }
    }

    /// Compares the version of the program that wrote the file with this version. A pre-release, or another
    /// build of this version, counts as older.
    pub(super) fn writer_order(&self) -> Ordering {
        let numbers = |version: &str| -> Vec<u64> {
            let parts = version.split(['.', '-', '+']);
            parts.map_while(|part| part.parse().ok()).collect()
        };
        if self.writer_version == WRITER {
            return Ordering::Equal;
        }
        let order = numbers(&self.writer_version).cmp(&numbers(WRITER));
        order.then(Ordering::Less)
    }

    /// Returns the metadata of a new object of a month. `writer_version` is the version of the
    /// program that derived its oldest rows.
    pub(super) fn of_month(kind: FileKind, days: Days, writer_version: &str) -> Self {
        Self {
            writer_version: writer_version.to_owned(),
            days: Some(days),
            ..Self::new(kind, 0)
        }
    }

    /// Returns the days of a table object whose period begins at `start`.
    pub(super) fn days_from(&self, start: Date) -> Days {
        let only = DayOfTable {
            revision: self.revision,
            rows: self.rows,
        };
        let days = self.days.clone();
        days.unwrap_or_else(|| Days::from([(start, only)]))
    }

    /// Returns an error if the object does not hold tables of `period`.
    pub(super) fn require_period(self, period: Period, path: &str) -> Result<Self, FileError> {
        let of_days = self.days.iter().flatten().map(|(_, day)| day.rows);
        let is_complete = match period {
            Period::Day => self.days.is_none(),
            Period::Month => self.days.is_some() && of_days.sum::<u64>() == self.rows,
        };
        if is_complete {
            Ok(self)
        } else {
            Err(FileError::foreign(path, DAYS))
        }
    }

    /// Returns the key-value pairs for the footer. Parquet itself stores the number of rows.
    pub(super) fn to_pairs(&self) -> Vec<KeyValue> {
        let pair =
            |key: &str, value: &dyn ToString| KeyValue::new(key.to_owned(), value.to_string());
        let revision = match &self.days {
            None => pair(REVISION, &self.revision),
            Some(days) => {
                let days = serde_json::to_string(days).expect("a date is a text key");
                KeyValue::new(DAYS.to_owned(), days)
            }
        };
        vec![
            pair(TABLE, &self.table),
            pair(SCHEMA_VERSION, &self.schema_version),
            pair(WRITER_VERSION, &self.writer_version),
            pair(FORMAT_KEY, &self.format),
            revision,
            pair(WRITE_ID, &self.write_id),
        ]
    }

    /// Reads the metadata of an object in memory.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], [`FileError::Foreign`], [`FileError::Newer`].
    pub fn of(path: &str, bytes: &Bytes) -> Result<Self, FileError> {
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(bytes)
            .map_err(FileError::parquet::<ParquetError>(path))?;
        Self::from_metadata(path, &metadata)
    }

    fn from_metadata(path: &str, metadata: &ParquetMetaData) -> Result<Self, FileError> {
        let file = metadata.file_metadata();
        let value = |key: &str| {
            let mut pairs = file.key_value_metadata().into_iter().flatten();
            pairs.find(|pair| pair.key == key)?.value.clone()
        };
        let text = |key| value(key).ok_or_else(|| FileError::foreign(path, key));
        let version = |key, text: String| {
            let invalid = |_| FileError::foreign(path, key);
            text.parse::<u32>().map_err(invalid)
        };
        let format =
            value(FORMAT_KEY).map_or(Ok(first_format()), |text| version(FORMAT_KEY, text))?;
        let schema_version = version(SCHEMA_VERSION, text(SCHEMA_VERSION)?)?;
        for (key, found, known) in [
            ("format", format, FORMAT),
            ("schema version", schema_version, VERSION),
        ] {
            if found > known {
                return Err(newer(path, key, &found.to_string(), &known.to_string()).into());
            }
        }
        let days: Option<Days> = value(DAYS)
            .map(|days| serde_json::from_str(&days))
            .transpose()
            .map_err(|_| FileError::foreign(path, DAYS))?;
        let revision = match days {
            None => text(REVISION)?
                .parse()
                .map_err(|_| FileError::foreign(path, REVISION))?,
            Some(_) => 0,
        };
        Ok(Self {
            table: text(TABLE)?,
            schema_version,
            writer_version: text(WRITER_VERSION)?,
            format,
            revision,
            days,
            write_id: text(WRITE_ID)?,
            rows: u64::try_from(file.num_rows()).unwrap_or_default(),
        })
    }
}

/// Reads the metadata and the version of an object from its end; `None` if the object does not exist.
/// For a damaged object it returns the version, too, so that the object can be replaced.
///
/// # Errors
///
/// [`StoreError`] after the retries of the store; [`LakeError::Newer`], so that no caller takes an object of a
/// newer version for a damaged one.
pub async fn read_metadata(
    store: &Store,
    path: &str,
) -> Result<Option<(Result<FileMetadata, FileError>, Tag)>, LakeError> {
    loop {
        let Some(object) = store.head(path).await? else {
            return Ok(None);
        };
        match read_footer(store, path, &object).await {
            Ok(metadata) => return Ok(Some((Ok(metadata), object.tag))),
            Err(ReadError::File(FileError::Newer(newer))) => return Err(newer.at(store).into()),
            Err(ReadError::File(error)) => return Ok(Some((Err(error), object.tag))),
            // Replaced between the two reads: retry.
            Err(ReadError::Store(StoreError::Changed { .. })) => {}
            Err(ReadError::Store(error)) => return Err(error.into()),
        }
    }
}

/// A failure to read a footer.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is damaged or foreign.
    #[error(transparent)]
    File(#[from] FileError),
}

async fn read_footer(
    store: &Store,
    path: &str,
    found: &ObjectInfo,
) -> Result<FileMetadata, ReadError> {
    let failed = FileError::parquet::<ParquetError>(path);
    if found.size == 0 {
        // Stores reject an empty range.
        return Err(failed(ParquetError::EOF("the file is empty".to_owned())).into());
    }
    let mut length = FOOTER_GUESS.min(found.size);
    loop {
        let end = store
            .get_range(path, found.size - length..found.size, &found.tag)
            .await?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&end, found.size) {
            Ok(()) => {
                let metadata = reader.finish().map_err(failed)?;
                return Ok(FileMetadata::from_metadata(path, &metadata)?);
            }
            Err(ParquetError::NeedMoreData(more)) if length < found.size => {
                length = (more as u64).max(length + 1).min(found.size);
            }
            Err(source) => return Err(failed(source).into()),
        }
    }
}
