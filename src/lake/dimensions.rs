//! Derives `orgs`, `projects` and `scopes` from the checkpoint.

use arrow_array::RecordBatch;
use bytes::Bytes;

use super::derive::WrittenFile;
use super::diff::difference;
use super::log::Record;
use super::metadata::{FileMetadata, read_metadata};
use super::parquet::FileKind;
use super::store::{Expected, PutOutcome};
use super::writer::ObjectWriter;
use super::{Lake, LakeError, back_off, layout};
use crate::checkpoint::{ScopeState, State};
use crate::failpoint::hit;
use crate::ids::Scope;
use crate::schema::Table;
use crate::tables::{OrgRow, ProjectRow, ScopeRow, orgs, projects, scopes};

impl Lake {
    /// Derives the dimensions from a checkpoint record. Replaces `orgs` and `projects` only if the
    /// listing has changed.
    ///
    /// # Errors
    ///
    /// [`LakeError::Contended`] if other runs kept replacing the same object.
    pub async fn derive_dimensions(&self, record: &Record) -> Result<Vec<WrittenFile>, LakeError> {
        let mut files = Vec::new();
        for table in Table::DIMENSIONS {
            files.extend(self.derive_dimension(table, record).await?);
        }
        Ok(files)
    }

    async fn derive_dimension(
        &self,
        table: Table,
        record: &Record,
    ) -> Result<Option<WrittenFile>, LakeError> {
        let path = layout::dimension(table);
        let revision = record.dimension_revision(table);
        for attempt in 0..super::ATTEMPTS {
            back_off(attempt).await;
            let current = read_metadata(&self.store, &path).await?;
            if let Some((
                Ok(FileMetadata {
                    revision: derived, ..
                }),
                _,
            )) = current
            {
                let is_newer =
                    derived > revision && derived <= self.newest_dimension_revision(table).await?;
                let is_current = derived == revision && self.has_rows_of(table, record).await?;
                if is_newer || is_current {
                    return Ok(None);
                }
            }
            let (body, count) = self.encode_dimension(table, record)?;
            let expected = current.map_or(Expected::Absent, |(_, tag)| Expected::Version(tag));
            let bytes = body.len() as u64;
            hit("before-dimension");
            if let PutOutcome::Written(_) = self.store.put(&path, body, &expected).await? {
                hit("after-dimension");
                return Ok(Some(WrittenFile {
                    path,
                    rows: count as u64,
                    bytes,
                }));
            }
        }
        Err(LakeError::Contended { what: path })
    }

    /// Returns true if a dimension with the revision of a record has its rows. They can differ only if the record
    /// has the number of a record that was deleted: compares them if the record changed the dimension.
    async fn has_rows_of(&self, table: Table, record: &Record) -> Result<bool, LakeError> {
        if record.number != record.dimension_revision(table) {
            return Ok(true);
        }
        let path = layout::dimension(table);
        let Some((current, _)) = self.store.get(&path).await? else {
            return Ok(false);
        };
        let (body, _) = self.encode_dimension(table, record)?;
        let Ok(metadata) = FileMetadata::of(&path, &current) else {
            return Ok(false);
        };
        let rows = 0..usize::try_from(metadata.rows).unwrap_or_default();
        Ok(difference(&path, (current, rows), body).await?.is_none())
    }

    /// Returns the revision of a dimension in the newest record. After the checkpoint was lost, a
    /// dimension can have a higher revision than any record.
    pub(super) async fn newest_dimension_revision(&self, table: Table) -> Result<u64, LakeError> {
        Ok(Record::newest(&self.store).await?.dimension_revision(table))
    }

    fn rows(&self, table: Table, state: &State) -> RecordBatch {
        let account = self.account();
        match table {
            Table::Orgs => {
                let rows: Vec<OrgRow> = state
                    .listing
                    .orgs
                    .values()
                    .map(|listed| listed.row.clone())
                    .collect();
                orgs(account, &rows)
            }
            Table::Projects => {
                let rows: Vec<ProjectRow> = state
                    .listing
                    .projects
                    .values()
                    .map(|listed| listed.row.clone())
                    .collect();
                projects(account, &rows)
            }
            _ => scopes(account, &scope_rows(state)),
        }
    }

    /// Encodes a dimension from a record. Returns the file and its number of rows.
    pub(super) fn encode_dimension(
        &self,
        table: Table,
        record: &Record,
    ) -> Result<(Bytes, usize), LakeError> {
        let (path, revision) = (layout::dimension(table), record.dimension_revision(table));
        let kind = FileKind::Table(table);
        let mut writer = ObjectWriter::new(kind, &path, 1, &self.scratch)?;
        writer.write(&self.rows(table, &record.state))?;
        let encoded = writer.finish(&FileMetadata::new(kind, revision))?;
        let rows = encoded.rows();
        Ok((encoded.into_bytes()?, rows))
    }
}

/// Returns one row per scope that any run has read or failed to read.
fn scope_rows(state: &State) -> Vec<ScopeRow> {
    let open = state.open_counts();
    let row = |(scope, known): (&Scope, &ScopeState)| {
        let open = open.get(scope).copied().unwrap_or_default();
        let error = known.last_error.as_ref();
        ScopeRow {
            org_id: scope.org.to_string(),
            project_id: scope.project.to_string(),
            covered_from_ts: known.coverage.start(),
            watermark_ts: known.coverage.end(),
            open_execution_count: i64::try_from(open).unwrap_or(i64::MAX),
            gap_count: i64::try_from(known.unread_gaps().windows().len()).unwrap_or(i64::MAX),
            last_row_start_ts: known.last_row_start,
            last_success_ts: known.last_success,
            last_error_code: error.map(|error| error.code.clone()),
            last_error_message: error.map(|error| error.message.clone()),
        }
    };
    state.scopes.iter().map(row).collect()
}
