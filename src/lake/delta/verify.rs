//! Compares the Delta tables with the table objects.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::RETENTION_MS;
use super::file::parse;
use super::snapshot::Snapshot;
use crate::lake::finding::{Audit, FindingKind, RUN_REPLAY};
use crate::lake::layout;
use crate::lake::metadata::{FileMetadata, read_metadata};
use crate::lake::{Lake, LakeError};
use crate::schema::Table;

const DELETE_FILE: &str = "delete the file";
const DELETE_THEN_REPLAY: &str = "delete the file, then run: harness-lake replay";

impl Lake {
    /// Checks that each Delta table has the rows of its table objects, and that its files are complete. `now` is the
    /// time to compare modification times with.
    ///
    /// # Errors
    ///
    /// [`LakeError`] if the store cannot be read. A problem of a table is a finding.
    pub async fn verify_delta(&self, now: Timestamp, audit: &mut Audit) -> Result<(), LakeError> {
        if !self.identity.has_delta() {
            return Ok(());
        }
        for table in Table::ALL {
            match Snapshot::newest(&self.store, table).await {
                Ok(snapshot) => {
                    self.verify_delta_table(table, &snapshot, now, audit)
                        .await?;
                }
                Err(LakeError::Delta { path, reason }) => {
                    let folder = layout::delta_folder(table);
                    let repair = format!("delete the folder {folder}, then run: {RUN_REPLAY}");
                    audit.add(FindingKind::Damage, &path, reason, repair);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn verify_delta_table(
        &self,
        table: Table,
        snapshot: &Snapshot,
        now: Timestamp,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let folder = layout::delta_folder(table);
        if snapshot.version.is_none() {
            let what = "the Delta table was not written yet";
            audit.add(FindingKind::Stale, &folder, what, RUN_REPLAY);
            return Ok(());
        }
        let mut expected = BTreeSet::new();
        for object in self.table_objects(table).await? {
            let path = format!("{}/{object}", layout::table_folder(table));
            let Some((Ok(metadata), _)) = read_metadata(&self.store, &path).await? else {
                // Missing or damaged objects have their own finding.
                expected.extend(snapshot.copy_of(&object).map(|copy| copy.add.path));
                continue;
            };
            let copy = snapshot.unused_path(&object, &metadata);
            let at = format!("{folder}/{copy}");
            match snapshot.live.get(&copy) {
                None => {
                    let what =
                        format!("the Delta table does not have the newest version of {path}");
                    audit.add(FindingKind::Stale, &at, what, RUN_REPLAY);
                }
                Some(_) => self.verify_copy(&path, &at, audit).await?,
            }
            expected.insert(copy);
        }
        let objects: BTreeSet<_> = expected
            .iter()
            .filter_map(|path| parse(path))
            .map(|(of, _)| of)
            .collect();
        for path in snapshot
            .live
            .keys()
            .filter(|path| !expected.contains(*path))
        {
            if !parse(path).is_some_and(|(object, _)| objects.contains(&object)) {
                let what = "the Delta table has a file of no table object";
                let path = format!("{folder}/{path}");
                audit.add(FindingKind::Damage, &path, what, RUN_REPLAY);
            }
        }
        self.verify_leftovers(table, snapshot, now, audit).await
    }

    async fn verify_copy(
        &self,
        object: &str,
        copy: &str,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let Some((copied, _)) = self.store.get(copy).await? else {
            let what = "the Delta table needs this file, and it is missing";
            audit.add(FindingKind::Damage, copy, what, RUN_REPLAY);
            return Ok(());
        };
        let Some((bytes, _)) = self.store.get(object).await? else {
            return Ok(());
        };
        // A run may have replaced the object meanwhile.
        let is_copied = |metadata: FileMetadata| copy.contains(&metadata.write_id);
        if FileMetadata::of(object, &bytes).is_ok_and(is_copied) && bytes != copied {
            let what = format!("differs from {object}");
            audit.add(FindingKind::Damage, copy, what, DELETE_THEN_REPLAY);
        }
        Ok(())
    }

    /// Reports files that no version has: their run was killed before its commit.
    async fn verify_leftovers(
        &self,
        table: Table,
        snapshot: &Snapshot,
        now: Timestamp,
        audit: &mut Audit,
    ) -> Result<(), LakeError> {
        let oldest = now.as_millisecond() - RETENTION_MS;
        for (path, file) in self.stored_files(table).await? {
            let is_known =
                snapshot.live.contains_key(&path) || snapshot.removed.contains_key(&path);
            if !is_known && file.modified.as_millisecond() < oldest {
                let what = "no version of the Delta table has this file";
                audit.add(FindingKind::Stale, &file.path, what, DELETE_FILE);
            }
        }
        Ok(())
    }
}
