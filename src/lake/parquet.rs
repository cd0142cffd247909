//! Parquet objects: their kinds, errors and readers. [`super::writer`] writes them.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;

use super::features::Newer;
use super::layout::Period;
use crate::schema::{Table, raw_schema};

/// Rows per batch when reading: some megabytes of raw rows.
const READ_ROWS: usize = 512;

/// The content of a file of the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The raw partition of a date.
    Raw,
    /// A table of a day, or a dimension.
    Table(Table),
    /// A table of a month, which also has the column `start_date`.
    MonthTable(Table),
}

impl FileKind {
    /// Returns the name in the metadata of the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "_raw",
            Self::Table(table) | Self::MonthTable(table) => table.name(),
        }
    }

    /// Returns the kind of a table of `period`.
    pub(super) fn of_table(table: Table, period: Period) -> Self {
        match period {
            Period::Day => Self::Table(table),
            Period::Month => Self::MonthTable(table),
        }
    }

    pub(super) fn schema(self) -> &'static SchemaRef {
        match self {
            Self::Raw => raw_schema(),
            Self::Table(table) => table.arrow_schema(),
            Self::MonthTable(table) => table.month_schema(),
        }
    }
}

/// A failure to encode or decode a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The Parquet library failed.
    #[error("failed to process the Parquet file {path}")]
    Parquet {
        /// The object.
        path: String,
        /// The cause.
        #[source]
        source: ParquetError,
    },
    /// A newer version of this program wrote the file.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// The metadata of the file is missing or invalid: the file is foreign or damaged.
    #[error("{path} is not a file of a lake: `{key}` is missing or invalid")]
    Foreign {
        /// The object.
        path: String,
        /// The metadata key or column.
        key: &'static str,
    },
    /// The scratch directory cannot be read or written.
    #[error("failed to use the scratch directory {folder}")]
    Scratch {
        /// The directory.
        folder: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

impl FileError {
    /// Returns a constructor of Parquet errors for the object `path`.
    pub(crate) fn parquet<E: Into<ParquetError>>(path: &str) -> impl Fn(E) -> Self {
        move |error| Self::Parquet {
            path: path.to_owned(),
            source: error.into(),
        }
    }

    /// Returns the error of a file whose metadata or column `key` is missing or invalid.
    pub(super) fn foreign(path: &str, key: &'static str) -> Self {
        Self::Foreign {
            path: path.to_owned(),
            key,
        }
    }
}

/// Reads the rows of a raw object in batches: the given columns, or all if `columns` is empty. Summaries
/// are `utf8view`, which refers to the decoded pages instead of copying them.
///
/// # Errors
///
/// [`FileError::Parquet`] if it is not a raw object.
pub fn read_raw(
    path: &str,
    bytes: Bytes,
    columns: &[&str],
) -> Result<impl Iterator<Item = Result<RecordBatch, FileError>>, FileError> {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let viewed = |field: &FieldRef| match field.name().as_str() {
            "summary" => field.as_ref().clone().with_data_type(DataType::Utf8View),
            _ => field.as_ref().clone(),
        };
        let fields: Vec<_> = raw_schema().fields().iter().map(viewed).collect();
        Arc::new(Schema::new(fields))
    });
    let options = ArrowReaderOptions::new().with_schema(SCHEMA.clone());
    let batches = read_as(path, bytes, columns, options)?;
    Ok(batches.map(|batch| batch.map_err(FileError::parquet::<ArrowError>(path))))
}

fn read_as(
    path: &str,
    bytes: Bytes,
    columns: &[&str],
    options: ArrowReaderOptions,
) -> Result<ParquetRecordBatchReader, FileError> {
    let failed = FileError::parquet::<ParquetError>(path);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options);
    let builder = builder.map_err(&failed)?.with_batch_size(READ_ROWS);
    let builder = if columns.is_empty() {
        builder
    } else {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        builder.with_projection(mask)
    };
    builder.build().map_err(failed)
}

/// Reads all rows of an object in batches.
///
/// # Errors
///
/// [`FileError::Parquet`] if it is not a Parquet file.
pub fn read(path: &str, bytes: Bytes) -> Result<ParquetRecordBatchReader, FileError> {
    read_as(path, bytes, &[], ArrowReaderOptions::new())
}

/// A Parquet object in memory, with its decoded footer.
#[derive(Clone, Debug)]
pub(super) struct ParsedObject {
    pub(super) path: String,
    pub(super) bytes: Bytes,
    pub(super) footer: ArrowReaderMetadata,
}

impl ParsedObject {
    /// Decodes the footer of an object.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`] if it is not a Parquet file.
    pub(super) fn new(path: &str, bytes: Bytes) -> Result<Self, FileError> {
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let footer = ArrowReaderMetadata::load(&bytes, options)
            .map_err(FileError::parquet::<ParquetError>(path))?;
        Ok(Self {
            path: path.to_owned(),
            bytes,
            footer,
        })
    }

    /// Returns the Arrow schema without the metadata of the file, which differs for each put.
    pub(super) fn schema(&self) -> Schema {
        Schema::new(self.footer.schema().fields().clone())
    }

    /// Returns the number of rows.
    pub(super) fn rows(&self) -> usize {
        let rows = self.footer.metadata().file_metadata().num_rows();
        usize::try_from(rows).unwrap_or_default()
    }

    /// Returns the rows of each row group.
    pub(super) fn row_groups(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let mut start = 0;
        self.footer
            .metadata()
            .row_groups()
            .iter()
            .map(move |group| {
                let end = start + usize::try_from(group.num_rows()).unwrap_or_default();
                let rows = start..end;
                start = end;
                rows
            })
    }

    /// Reads a range of rows in batches, from their row groups only.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`].
    pub(super) fn read(&self, rows: &Range<usize>) -> Result<ParquetRecordBatchReader, FileError> {
        let overlaps =
            |(_, group): &(usize, Range<usize>)| group.start < rows.end && rows.start < group.end;
        let groups: Vec<_> = self.row_groups().enumerate().filter(overlaps).collect();
        let first = groups.first().map_or(0, |(_, group)| group.start);
        let (footer, bytes) = (self.footer.clone(), self.bytes.clone());
        ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, footer)
            .with_batch_size(READ_ROWS)
            .with_row_groups(groups.into_iter().map(|(index, _)| index).collect())
            .with_offset(rows.start.saturating_sub(first))
            .with_limit(rows.len())
            .build()
            .map_err(FileError::parquet::<ParquetError>(&self.path))
    }
}
