//! Parquet objects: how they are encoded, written and read.

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

use super::metadata::{FileMetadata, WRITER};
use crate::schema::{Table, raw_schema};

/// Rows of a row group at most: DuckDB's vectors of 2,048, sixty of them.
const ROW_GROUP_ROWS: usize = 122_880;

/// Bytes of a row group at most while it is written, before compression.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Bytes of an object that are kept in memory while it is written; the rest goes to scratch.
const IN_MEMORY: usize = 2 << 20;

/// Rows that are read at a time: of raw rows some megabytes.
const READ_ROWS: usize = 512;

/// The level of zstd. Summaries repeat themselves so much that level 3 gains nothing: raw objects are 1 %
/// smaller with it, some tables 5 % larger, and `replay` takes an eighth longer.
const LEVEL: i32 = 1;

/// Columns of long or unique text: a dictionary of them is work without gain, and so are bounds.
const LONG_TEXT: [&str; 5] = [
    "summary",
    "module_info",
    "extra",
    "error_message",
    "message",
];

/// Columns in which no text is like another: a dictionary would hold them all, and bounds tell nothing.
const UNIQUE_TEXT: [&str; 3] = ["stage_node_id", "commit_sha", "link"];

/// Columns of numbers of any size, which are packed by their differences, as times are.
const DURATIONS: [&str; 2] = ["duration_ms", "queued_ms"];

/// Packed columns in which no number repeats: zstd finds nothing there.
const DENSE: [&str; 6] = [
    "start_ts",
    "end_ts",
    "created_ts",
    "timeout_ts",
    "duration_ms",
    "queued_ms",
];

/// What a file of the lake holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The raw partition of a date.
    Raw,
    /// A table.
    Table(Table),
}

impl FileKind {
    /// The name in the file's metadata.
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

/// A file that cannot be encoded or is not what its place promises.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The Parquet library failed.
    #[error("decode or encode `{path}`")]
    Parquet {
        /// The object.
        path: String,
        /// Why.
        #[source]
        source: ParquetError,
    },
    /// The file carries no or odd metadata: not ours, or damaged.
    #[error("`{path}` is no file of a lake: its metadata has no sound `{key}`")]
    Foreign {
        /// The object.
        path: String,
        /// What is missing.
        key: &'static str,
    },
    /// Scratch cannot be written.
    #[error("write scratch in `{folder}`; --scratch names another folder")]
    Scratch {
        /// The folder.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl FileError {
    /// Returns a constructor of Parquet errors for the object `path`.
    pub(super) fn parquet<E: Into<ParquetError>>(path: &str) -> impl Fn(E) -> Self {
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
    /// Begins the object `path` with the given revision. `executions` is how many executions its
    /// rows stand for, at the least.
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
        let stamp = FileMetadata::new(kind, revision).to_pairs();
        let properties = properties(kind.schema(), executions)
            .set_key_value_metadata(Some(stamp))
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
    /// [`FileError::Parquet`], also where scratch is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        self.rows += batch.num_rows();
        self.writer
            .write(batch)
            .map_err(FileError::parquet(&self.path))
    }

    /// Ends the object.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], also where scratch is full.
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

/// An object that is encoded: in memory while it is small, else in scratch.
#[derive(Debug)]
pub struct Encoded {
    file: SpooledTempFile,
    scratch: PathBuf,
    rows: usize,
}

impl Encoded {
    /// Its rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the bytes into memory.
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

/// Reads an object's rows in batches.
///
/// # Errors
///
/// [`FileError::Parquet`] where it is no Parquet.
pub fn read(path: &str, bytes: Bytes) -> Result<ParquetRecordBatchReader, FileError> {
    read_as(path, bytes, &[], ArrowReaderOptions::new())
}

/// Reads the rows of a raw object in batches; `columns` by name, or all where it is empty. Summaries are
/// `utf8view`: parts of the pages that they stand in, and no copies.
///
/// # Errors
///
/// [`FileError::Parquet`] where it is no raw object.
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

/// The Arrow schema of an object's columns.
///
/// # Errors
///
/// [`FileError::Parquet`] where it is no Parquet.
pub fn schema_of(path: &str, bytes: Bytes) -> Result<SchemaRef, FileError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .map_err(FileError::parquet::<ParquetError>(path))?;
    let fields = builder.schema().fields().clone();
    // Without the file's own metadata, which differs from put to put.
    Ok(Arc::new(Schema::new(fields)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_are_encoded_in_a_way_of_their_own_exist() {
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
