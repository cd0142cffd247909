//! Parquet objects: how they are written, and what their footer says of them.
//!
//! Every file carries table, schema version, writer version, the revision of the raw object that it
//! stands for, and a write id in its key-value metadata.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, FieldRef, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;
use tempfile::{SpooledData, SpooledTempFile};
use ulid::Ulid;

use super::store::{Found, Store, StoreError, Tag};
use crate::schema::{Table, VERSION, raw_schema};

/// The version of this program, as files carry it.
pub const WRITER: &str = env!("CARGO_PKG_VERSION");

/// Rows of a row group at most: DuckDB's vectors of 2,048, sixty of them.
const ROW_GROUP_ROWS: usize = 122_880;

/// Bytes of a row group at most while it is written, before compression.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Bytes of an object that are kept in memory while it is written; the rest goes to scratch.
const IN_MEMORY: usize = 2 << 20;

/// Rows that are read at a time: of raw rows some megabytes.
const READ_ROWS: usize = 512;

/// Bytes of an object's end that are read for its footer at first.
const FOOTER_GUESS: u64 = 64 << 10;

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

const TABLE: &str = "harness_lake.table";
const SCHEMA_VERSION: &str = "harness_lake.schema_version";
const WRITER_VERSION: &str = "harness_lake.writer_version";
const REVISION: &str = "harness_lake.revision";
const WRITE_ID: &str = "harness_lake.write_id";

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

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The table, as [`FileKind::name`] spells it.
    pub table: String,
    /// The version of its schema.
    pub schema_version: u32,
    /// The version of the program that wrote it.
    pub writer_version: String,
    /// Raw: rises by one with each replacement. Table: the raw revision it was derived from.
    /// Dimension: the number of the checkpoint record it was derived from.
    pub revision: u64,
    /// Unique to the put.
    pub write_id: String,
    /// Rows of the file.
    pub rows: u64,
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
        let stamp = vec![
            KeyValue::new(TABLE.to_owned(), kind.name().to_owned()),
            KeyValue::new(SCHEMA_VERSION.to_owned(), VERSION.to_string()),
            KeyValue::new(WRITER_VERSION.to_owned(), WRITER.to_owned()),
            KeyValue::new(REVISION.to_owned(), revision.to_string()),
            KeyValue::new(WRITE_ID.to_owned(), Ulid::generate().to_string()),
        ];
        let properties = properties(kind.schema(), executions)
            .set_key_value_metadata(Some(stamp))
            .set_created_by(format!("harness-lake {WRITER}"))
            .build();
        let file = tempfile::spooled_tempfile_in(IN_MEMORY, scratch);
        let writer = ArrowWriter::try_new(file, kind.schema().clone(), Some(properties)).map_err(
            |source| FileError::Parquet {
                path: path.to_owned(),
                source,
            },
        )?;
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
            .map_err(|source| FileError::Parquet {
                path: self.path.clone(),
                source,
            })
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
        let file = writer
            .into_inner()
            .map_err(|source| FileError::Parquet { path, source })?;
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
    let damaged = |error: ArrowError| FileError::Parquet {
        path: path.to_owned(),
        source: error.into(),
    };
    let batches = read_as(path, bytes, columns, options)?;
    Ok(batches.map(move |batch| batch.map_err(damaged)))
}

fn read_as(
    path: &str,
    bytes: Bytes,
    columns: &[&str],
    options: ArrowReaderOptions,
) -> Result<ParquetRecordBatchReader, FileError> {
    let failed = |source| FileError::Parquet {
        path: path.to_owned(),
        source,
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options);
    let builder = builder.map_err(failed)?.with_batch_size(READ_ROWS);
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
    let failed = |source| FileError::Parquet {
        path: path.to_owned(),
        source,
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(failed)?;
    let fields = builder.schema().fields().clone();
    // Without the file's own metadata, which differs from put to put.
    Ok(Arc::new(Schema::new(fields)))
}

impl Stamp {
    /// Reads the stamp of an object in memory.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], [`FileError::Foreign`].
    pub fn of(path: &str, bytes: &Bytes) -> Result<Self, FileError> {
        let metadata = ParquetMetaDataReader::new()
            .parse_and_finish(bytes)
            .map_err(|source| FileError::Parquet {
                path: path.to_owned(),
                source,
            })?;
        Self::from_metadata(path, &metadata)
    }

    fn from_metadata(path: &str, metadata: &ParquetMetaData) -> Result<Self, FileError> {
        let file = metadata.file_metadata();
        let text = |key: &'static str| {
            let pairs = file.key_value_metadata().into_iter().flatten();
            let value = pairs
                .filter(|pair| pair.key == key)
                .find_map(|pair| pair.value.clone());
            value.ok_or_else(|| FileError::Foreign {
                path: path.to_owned(),
                key,
            })
        };
        let number = |key: &'static str| {
            let foreign = |_| FileError::Foreign {
                path: path.to_owned(),
                key,
            };
            text(key)?.parse::<u64>().map_err(foreign)
        };
        let version = number(SCHEMA_VERSION)?;
        let odd = |_| FileError::Foreign {
            path: path.to_owned(),
            key: SCHEMA_VERSION,
        };
        Ok(Self {
            table: text(TABLE)?,
            schema_version: u32::try_from(version).map_err(odd)?,
            writer_version: text(WRITER_VERSION)?,
            revision: number(REVISION)?,
            write_id: text(WRITE_ID)?,
            rows: u64::try_from(file.num_rows()).unwrap_or_default(),
        })
    }
}

/// An object's stamp and version, read from its end; `None` where there is no object. A stamp that
/// cannot be read leaves the version, with which the damaged object can be replaced.
///
/// # Errors
///
/// Those of the store.
pub async fn stamp(
    store: &Store,
    path: &str,
) -> Result<Option<(Result<Stamp, FileError>, Tag)>, StoreError> {
    loop {
        let Some(found) = store.head(path).await? else {
            return Ok(None);
        };
        match stamp_of(store, path, &found).await {
            Ok(stamp) => return Ok(Some((Ok(stamp), found.tag))),
            Err(StampError::File(error)) => return Ok(Some((Err(error), found.tag))),
            // Replaced between the two reads: look again.
            Err(StampError::Store(StoreError::Changed { .. })) => {}
            Err(StampError::Store(error)) => return Err(error),
        }
    }
}

/// A footer that cannot be had.
#[derive(Debug, thiserror::Error)]
enum StampError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file is damaged or foreign.
    #[error(transparent)]
    File(#[from] FileError),
}

async fn stamp_of(store: &Store, path: &str, found: &Found) -> Result<Stamp, StampError> {
    let failed = |source| FileError::Parquet {
        path: path.to_owned(),
        source,
    };
    if found.size == 0 {
        // A store refuses an empty range.
        return Err(failed(ParquetError::EOF("an empty file".to_owned())).into());
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
                return Ok(Stamp::from_metadata(path, &metadata)?);
            }
            Err(ParquetError::NeedMoreData(more)) if length < found.size => {
                length = (more as u64).max(length + 1).min(found.size);
            }
            Err(source) => return Err(failed(source).into()),
        }
    }
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
