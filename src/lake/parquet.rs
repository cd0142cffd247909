//! Encoding, writing and reading of Parquet objects.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use arrow_schema::{DataType, FieldRef, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tempfile::{SpooledData, SpooledTempFile};

use super::features::Newer;
use super::metadata::{FileMetadata, WRITER};
use crate::schema::{Table, raw_schema};

/// Maximum rows of a row group: sixty `DuckDB` vectors of 2,048 rows.
const ROW_GROUP_ROWS: usize = 122_880;

/// Maximum bytes of a row group before compression.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Bytes of an object kept in memory while it is written; a larger object spills to scratch.
const IN_MEMORY: usize = 2 << 20;

/// Rows per batch when reading: some megabytes of raw rows.
const READ_ROWS: usize = 512;

/// The zstd level. Level 3 gains nothing: raw objects are 1 % smaller, some tables 5 % larger, and
/// `replay` takes an eighth longer.
const LEVEL: i32 = 1;

/// Columns of long text, for which dictionaries and statistics cost time and gain nothing.
const LONG_TEXT: [&str; 5] = [
    "summary",
    "module_info",
    "extra",
    "error_message",
    "message",
];

/// Columns of unique text, for which dictionaries and statistics gain nothing.
const UNIQUE_TEXT: [&str; 3] = ["stage_node_id", "commit_sha", "link"];

/// Numeric columns that use delta encoding, as timestamps do.
const DURATIONS: [&str; 2] = ["duration_ms", "queued_ms"];

/// Delta-encoded columns without repetition, which zstd cannot compress.
const DENSE: [&str; 6] = [
    "start_ts",
    "end_ts",
    "created_ts",
    "timeout_ts",
    "duration_ms",
    "queued_ms",
];

/// The content of a file of the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The raw partition of a date.
    Raw,
    /// A table.
    Table(Table),
}

impl FileKind {
    /// Returns the name in the metadata of the file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "_raw",
            Self::Table(table) => table.name(),
        }
    }

    fn schema(self) -> &'static SchemaRef {
        match self {
            Self::Raw => raw_schema(),
            Self::Table(table) => table.arrow_schema(),
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

/// Writes one object: row groups bounded by rows and bytes, zstd, bloom filter on the execution.
pub struct ObjectWriter {
    writer: ArrowWriter<SpooledTempFile>,
    scratch: PathBuf,
    path: String,
    rows: usize,
}

impl ObjectWriter {
    /// Starts the object `path` with the given revision. `executions` is the number of distinct
    /// executions of its rows, or a lower bound of it.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`].
    pub fn new(
        kind: FileKind,
        path: &str,
        revision: u64,
        executions: u64,
        scratch: &Path,
    ) -> Result<Self, FileError> {
        let metadata = FileMetadata::new(kind, revision).to_pairs();
        let properties = properties(kind.schema(), executions)
            .set_key_value_metadata(Some(metadata))
            .set_created_by(format!("harness-lake {WRITER}"))
            .build();
        let file = tempfile::spooled_tempfile_in(IN_MEMORY, scratch);
        let writer = ArrowWriter::try_new(file, kind.schema().clone(), Some(properties))
            .map_err(FileError::parquet(path))?;
        Ok(Self {
            writer,
            scratch: scratch.to_path_buf(),
            path: path.to_owned(),
            rows: 0,
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], also if scratch is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        self.rows += batch.num_rows();
        self.writer
            .write(batch)
            .map_err(FileError::parquet(&self.path))
    }

    /// Finishes the object.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], also if scratch is full.
    pub fn finish(self) -> Result<Encoded, FileError> {
        let Self {
            writer,
            scratch,
            path,
            rows,
        } = self;
        let file = writer.into_inner().map_err(FileError::parquet(&path))?;
        Ok(Encoded {
            file,
            scratch,
            rows,
        })
    }
}

/// An encoded object: in memory if it is small, else in scratch.
#[derive(Debug)]
pub struct Encoded {
    file: SpooledTempFile,
    scratch: PathBuf,
    rows: usize,
}

impl Encoded {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Reads the object into memory.
    ///
    /// # Errors
    ///
    /// [`FileError::Scratch`].
    pub fn into_bytes(self) -> Result<Bytes, FileError> {
        let read = || match self.file.into_inner() {
            SpooledData::InMemory(bytes) => Ok(bytes.into_inner()),
            SpooledData::OnDisk(mut file) => {
                let size = usize::try_from(file.metadata()?.len()).unwrap_or_default();
                let mut bytes = Vec::with_capacity(size);
                file.rewind()?;
                file.read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        };
        read()
            .map(Bytes::from)
            .map_err(|source| FileError::Scratch {
                folder: self.scratch.display().to_string(),
                source,
            })
    }
}

fn properties(schema: &SchemaRef, executions: u64) -> WriterPropertiesBuilder {
    let level = ZstdLevel::try_new(LEVEL).expect("zstd has this level");
    let id = ColumnPath::from("plan_execution_id");
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .set_column_bloom_filter_enabled(id.clone(), schema.field_with_name(&id.string()).is_ok())
        .set_column_bloom_filter_max_ndv(id.clone(), executions.clamp(1, ROW_GROUP_ROWS as u64))
        .set_column_dictionary_enabled(id, false);
    for field in schema.fields() {
        let name = field.name().as_str();
        let column = ColumnPath::from(name);
        let is_time = matches!(field.data_type(), DataType::Timestamp(..));
        if LONG_TEXT.contains(&name) || UNIQUE_TEXT.contains(&name) {
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_statistics_enabled(column, EnabledStatistics::None);
        } else if is_time || DURATIONS.contains(&name) {
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column.clone(), Encoding::DELTA_BINARY_PACKED);
            if DENSE.contains(&name) {
                properties = properties.set_column_compression(column, Compression::UNCOMPRESSED);
            }
        }
    }
    properties
}

/// Reads the rows of an object in batches.
///
/// # Errors
///
/// [`FileError::Parquet`] if it is not a Parquet file.
pub fn read(path: &str, bytes: Bytes) -> Result<ParquetRecordBatchReader, FileError> {
    read_as(path, bytes, &[], ArrowReaderOptions::new())
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

/// Returns the Arrow schema of an object.
///
/// # Errors
///
/// [`FileError::Parquet`] if it is not a Parquet file.
pub fn schema_of(path: &str, bytes: Bytes) -> Result<SchemaRef, FileError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .map_err(FileError::parquet::<ParquetError>(path))?;
    let fields = builder.schema().fields().clone();
    // Drops the metadata of the file, which differs for each put.
    Ok(Arc::new(Schema::new(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_with_special_encoding_exist() {
        let tables = Table::PARTITIONED.into_iter().map(FileKind::Table);
        let schemas: Vec<_> = tables
            .chain([FileKind::Raw])
            .map(FileKind::schema)
            .collect();
        let names = LONG_TEXT.iter().chain(&UNIQUE_TEXT).chain(&DURATIONS);
        for name in names.chain(&DENSE) {
            let exists = |schema: &&SchemaRef| schema.field_with_name(name).is_ok();
            assert!(schemas.iter().any(exists), "{name}");
        }
    }
}
