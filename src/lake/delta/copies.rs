//! Copies of table objects: which of them should be live, and their files.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::file::{DataFile, describe, parse, revision_of};
use super::snapshot::Snapshot;
use crate::failpoint::hit;
use crate::lake::layout::{self, TablePartition};
use crate::lake::metadata::read_metadata;
use crate::lake::store::{Expected, ObjectInfo, PutOutcome};
use crate::lake::{Lake, LakeError};
use crate::schema::Table;

/// Table objects that are compared at a time.
const CONCURRENCY: usize = 8;

/// The source of the copy of a table object that should be live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The log: what is live is at least as new.
    Log,
    /// This run, which wrote a newer version of the object.
    Run,
    /// The object: only it shows which version is the newer one.
    Object,
}

impl Source {
    /// Returns the source, given the copy of this run and the revision that is live.
    pub(super) fn of(copy: Option<&DataFile>, live: Option<u64>, snapshot: &Snapshot) -> Self {
        let Some(copy) = copy else {
            return Self::Object;
        };
        if snapshot.live.contains_key(&copy.add.path) || live > Some(copy.revision) {
            Self::Log
        } else if live == Some(copy.revision) || snapshot.removed.contains_key(&copy.add.path) {
            Self::Object
        } else {
            Self::Run
        }
    }
}

impl Lake {
    /// Returns what should be live of the given table objects, as far as it differs.
    pub(super) async fn due_copies(
        &self,
        table: Table,
        objects: &BTreeMap<String, Option<DataFile>>,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<String, DataFile>, LakeError> {
        let live: BTreeMap<_, _> = snapshot
            .live
            .keys()
            .filter_map(|path| parse(path))
            .collect();
        let mut copies = BTreeMap::new();
        for (object, copy) in objects {
            let live = live.get(object).copied();
            let copy = match Source::of(copy.as_ref(), live, snapshot) {
                Source::Log => continue,
                Source::Run => copy.clone(),
                Source::Object => self.current_copy(table, object, snapshot, None).await?,
            };
            copies.extend(copy.map(|copy| (object.clone(), copy)));
        }
        Ok(copies)
    }

    /// Returns what should be live of all table objects.
    pub(super) async fn all_copies(
        &self,
        table: Table,
        snapshot: &Snapshot,
    ) -> Result<BTreeMap<String, DataFile>, LakeError> {
        let stored = &self.stored_files(table).await?;
        let objects = self.table_objects(table).await?;
        let copies: Vec<_> = stream::iter(objects)
            .map(|object| async move {
                let copy = self.current_copy(table, &object, snapshot, Some(stored));
                Ok::<_, LakeError>(copy.await?.map(|copy| (object, copy)))
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await?;
        Ok(copies.into_iter().flatten().collect())
    }

    /// Lists the objects of a table, below its folder.
    pub(super) async fn table_objects(&self, table: Table) -> Result<Vec<String>, LakeError> {
        let folder = layout::table_folder(table) + "/";
        let is_object = |object: &String| {
            if table.definition().partitioned {
                TablePartition::parse(self.period(), object).is_some()
            } else {
                object == layout::DIMENSION_OBJECT
            }
        };
        let found = self.store.list(&layout::table_folder(table)).await?;
        let objects = found
            .iter()
            .filter_map(|found| found.path.strip_prefix(&folder));
        Ok(objects.map(str::to_owned).filter(is_object).collect())
    }

    /// Lists the data files of a Delta table, by path below its folder.
    pub(super) async fn stored_files(
        &self,
        table: Table,
    ) -> Result<BTreeMap<String, ObjectInfo>, LakeError> {
        let folder = layout::delta_folder(table) + "/";
        let found = self.store.list(&layout::delta_folder(table)).await?;
        let files = found.into_iter().filter_map(|found| {
            let path = found.path.strip_prefix(&folder)?.to_owned();
            let is_data = !path.starts_with(layout::DELTA_LOG);
            is_data.then_some((path, found))
        });
        Ok(files.collect())
    }

    /// Returns the copy of a table object as it is now. Writes the copy if it is not live, or if it is not `stored`
    /// with its size.
    async fn current_copy(
        &self,
        table: Table,
        object: &str,
        snapshot: &Snapshot,
        stored: Option<&BTreeMap<String, ObjectInfo>>,
    ) -> Result<Option<DataFile>, LakeError> {
        let path = format!("{}/{object}", layout::table_folder(table));
        let Some((Ok(metadata), _)) = read_metadata(&self.store, &path).await? else {
            // A damaged object: `verify` reports it, and its last copy stays.
            return Ok(snapshot.copy_of(object));
        };
        if let Some(add) = snapshot.live.get(&snapshot.unused_path(object, &metadata)) {
            let is_complete = |stored: &BTreeMap<String, ObjectInfo>| {
                let file = stored.get(&add.path);
                file.is_some_and(|file| i64::try_from(file.size) == Ok(add.size))
            };
            if stored.is_none_or(is_complete) {
                return Ok(Some(DataFile {
                    object: object.to_owned(),
                    revision: revision_of(&metadata),
                    add: add.clone(),
                }));
            }
        }
        let Some((bytes, _)) = self.store.get(&path).await? else {
            return Ok(snapshot.copy_of(object));
        };
        let copy = describe(object, &bytes, snapshot)?;
        self.put_copy(table, &copy, bytes).await?;
        Ok(Some(copy))
    }

    /// Writes a data file. Its name determines its bytes.
    pub(super) async fn put_copy(
        &self,
        table: Table,
        copy: &DataFile,
        bytes: Bytes,
    ) -> Result<(), LakeError> {
        let path = format!("{}/{}", layout::delta_folder(table), copy.add.path);
        hit("before-delta-file");
        let put = self
            .store
            .put(&path, bytes.clone(), &Expected::Absent)
            .await?;
        if put == PutOutcome::Lost {
            // The file is damaged.
            self.store.overwrite(&path, bytes).await?;
        }
        hit("after-delta-file");
        Ok(())
    }
}
