//! Writes Parquet objects: encodes rows, and copies encoded row groups of other objects.

use std::io::{Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, DataType, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;
use tempfile::{SpooledData, SpooledTempFile};

use super::metadata::{FileMetadata, WRITER};
use super::parquet::{FileError, FileKind, ParsedObject};

/// Maximum rows of a row group: sixty `DuckDB` vectors of 2,048 rows.
const ROW_GROUP_ROWS: usize = 122_880;

/// Maximum bytes of a row group before compression.
const ROW_GROUP_BYTES: usize = 32 << 20;

/// Bytes of an object kept in memory while it is written; a larger object spills to scratch.
const IN_MEMORY: usize = 2 << 20;

/// Minimum rows of a row group that is copied or kept apart. Smaller ones are encoded again together
/// with the rows after them, so that an object that grows by the hour has few row groups.
const COPIED_ROWS: usize = 8_192;

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

/// Writes one object: row groups bounded by rows and bytes, zstd, bloom filter on the execution.
pub struct ObjectWriter {
    file: SerializedFileWriter<SpooledTempFile>,
    groups: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    group: Option<RowGroup>,
    scratch: PathBuf,
    path: String,
    rows: usize,
}

/// A row group in progress.
struct RowGroup {
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

impl ObjectWriter {
    /// Starts the object `path`. `executions` is the number of distinct executions of its rows, or a
    /// lower bound of it.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`].
    pub fn new(
        kind: FileKind,
        path: &str,
        executions: u64,
        scratch: &Path,
    ) -> Result<Self, FileError> {
        let schema = kind.schema().clone();
        let properties = properties(&schema, executions)
            .set_created_by(format!("harness-lake {WRITER}"))
            .build();
        let file = tempfile::spooled_tempfile_in(IN_MEMORY, scratch);
        let (file, groups) = ArrowWriter::try_new(file, schema.clone(), Some(properties))
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(FileError::parquet(path))?;
        Ok(Self {
            file,
            groups,
            schema,
            group: None,
            scratch: scratch.to_path_buf(),
            path: path.to_owned(),
            rows: 0,
        })
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds rows.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], also if scratch is full.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), FileError> {
        self.encode(batch).map_err(FileError::parquet(&self.path))
    }

    fn encode(&mut self, batch: &RecordBatch) -> Result<(), ParquetError> {
        let mut rest = batch.clone();
        while rest.num_rows() > 0 {
            let group = match &mut self.group {
                Some(group) => group,
                unset => {
                    let index = self.file.flushed_row_groups().len();
                    let columns = self.groups.create_column_writers(index)?;
                    unset.insert(RowGroup { columns, rows: 0 })
                }
            };
            let rows = rest.num_rows().min(ROW_GROUP_ROWS - group.rows);
            group.write(&self.schema, &rest.slice(0, rows))?;
            self.rows += rows;
            if group.rows >= ROW_GROUP_ROWS || group.bytes() >= ROW_GROUP_BYTES {
                self.end_group()?;
            }
            rest = rest.slice(rows, rest.num_rows() - rows);
        }
        Ok(())
    }

    /// Adds a range of rows of another object with the same schema. Copies large row groups without
    /// decoding them.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], also if scratch is full.
    pub(super) fn copy(
        &mut self,
        object: &ParsedObject,
        rows: &Range<usize>,
    ) -> Result<(), FileError> {
        if rows.is_empty() {
            return Ok(());
        }
        let path = self.path.clone();
        let failed = FileError::parquet::<ParquetError>(&path);
        for (index, group) in object.row_groups().enumerate() {
            let is_inside = rows.start <= group.start && group.end <= rows.end;
            if is_inside && group.len() >= COPIED_ROWS {
                self.end_group().map_err(&failed)?;
                self.copy_group(object, index).map_err(&failed)?;
                self.rows += group.len();
            } else if group.start < rows.end && rows.start < group.end {
                let part = group.start.max(rows.start)..group.end.min(rows.end);
                for batch in object.read(&part)? {
                    let batch = batch.map_err(FileError::parquet::<ArrowError>(&object.path))?;
                    self.write(&batch)?;
                }
            }
        }
        // The rows after these ones change more often: the next run can copy these.
        if self
            .group
            .as_ref()
            .is_some_and(|group| group.rows >= COPIED_ROWS)
        {
            self.end_group().map_err(&failed)?;
        }
        Ok(())
    }

    fn copy_group(&mut self, object: &ParsedObject, index: usize) -> Result<(), ParquetError> {
        let footer = object.footer.metadata();
        let pages = footer.page_index();
        let mut copy = self.file.next_row_group()?;
        let group = footer.row_group(index);
        for (at, column) in group.columns().iter().enumerate() {
            let column_index = pages.and_then(|pages| pages.column_index(index, at));
            let offset_index = pages.and_then(|pages| pages.offset_index(index, at));
            let encoded = ColumnCloseResult {
                bytes_written: u64::try_from(column.compressed_size()).unwrap_or_default(),
                rows_written: u64::try_from(group.num_rows()).unwrap_or_default(),
                metadata: column.clone(),
                bloom_filter: Sbbf::read_from_column_chunk(column, &object.bytes)?,
                column_index: column_index.cloned(),
                offset_index: offset_index.cloned(),
            };
            copy.append_column(&object.bytes, encoded)?;
        }
        copy.close()?;
        Ok(())
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        let Some(group) = self.group.take() else {
            return Ok(());
        };
        let mut encoded = self.file.next_row_group()?;
        for column in group.columns {
            column.close()?.append_to_row_group(&mut encoded)?;
        }
        encoded.close()?;
        Ok(())
    }

    /// Finishes the object.
    ///
    /// # Errors
    ///
    /// [`FileError::Parquet`], also if scratch is full.
    pub fn finish(mut self, metadata: &FileMetadata) -> Result<Encoded, FileError> {
        let path = self.path.clone();
        let failed = FileError::parquet::<ParquetError>(&path);
        self.end_group().map_err(&failed)?;
        for pair in metadata.to_pairs() {
            self.file.append_key_value_metadata(pair);
        }
        Ok(Encoded {
            file: self.file.into_inner().map_err(failed)?,
            scratch: self.scratch,
            rows: self.rows,
        })
    }
}

impl RowGroup {
    fn write(&mut self, schema: &SchemaRef, batch: &RecordBatch) -> Result<(), ParquetError> {
        self.rows += batch.num_rows();
        let mut columns = self.columns.iter_mut();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, array)? {
                if let Some(column) = columns.next() {
                    column.write(&leaf)?;
                }
            }
        }
        Ok(())
    }

    fn bytes(&self) -> usize {
        let columns = self.columns.iter();
        columns
            .map(ArrowColumnWriter::get_estimated_total_bytes)
            .sum()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Table;

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
