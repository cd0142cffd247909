//! The storage of a lake: a folder or an object store behind one small set of operations.

mod aws;
mod azure;
mod cas;
mod error;
mod gcs;
mod hints;
mod local;
mod location;
mod open;
mod patience;
mod probe;
mod provider;
mod variables;

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    Error as ObjectError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, PutResult,
};
use tokio::sync::watch;
use tokio::time::Instant;

pub use cas::{Expected, PutOutcome};
pub use error::StoreError;
pub use local::LockGuard;
pub use location::{normalized, with_account};
pub use probe::ProbeError;

use super::layout;
use hints::is_missing_bucket;
use patience::{GaveUp, Patience};

/// The open store of a lake. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder of a local lake. `object_store` only reads it; [`local`] writes it.
    folder: Option<PathBuf>,
    lock_handle: local::LockHandle,
    location: Arc<str>,
    /// The retries of an object store.
    patience: Patience,
}

/// The version of an object. Equal if the `ETag` is equal.
#[derive(Clone, Debug)]
pub struct Tag {
    e_tag: String,
    /// The generation in Google Cloud Storage, whose conditional puts take no `ETag`.
    version: Option<String>,
}

impl PartialEq for Tag {
    fn eq(&self, other: &Self) -> bool {
        self.e_tag == other.e_tag
    }
}

impl Eq for Tag {}

/// The metadata of an object.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Its path within the lake.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its version. That of a listing is no condition of a put or a read: Azure lists another spelling, Google Cloud
    /// Storage no generation.
    pub tag: Tag,
    /// Its last write, by the clock of the store.
    pub modified: jiff::Timestamp,
}

impl Store {
    /// The location of the lake as the user wrote it; a folder as an absolute path.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// The folder of a local lake.
    pub fn folder(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// Names the run of this process, for others that wait for the lock.
    pub fn set_run(&self, run_id: &str) {
        self.lock_handle.set_run(run_id);
    }

    /// Sets the signal and the deadline of the run that uses the store: its requests end soon after them.
    pub fn set_limits(&self, stop: watch::Receiver<bool>, deadline: Option<Instant>) {
        self.patience.set_limits(stop, deadline);
    }

    /// Takes the lock of a local lake, waiting at most `timeout`. An object store has no lock.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] if another run holds it for longer, [`StoreError::File`] if the lock
    /// file cannot be created.
    pub async fn lock(&self, timeout: Duration) -> Result<LockGuard, StoreError> {
        let Some(folder) = &self.folder else {
            return Ok(LockGuard::none());
        };
        let lock = local::lock(folder, &self.lock_handle.holder(), timeout).await?;
        self.lock_handle.set(&lock);
        Ok(lock)
    }

    /// Releases the lock and takes it again, so late that a waiting run gets it in between.
    ///
    /// # Errors
    ///
    /// As [`Store::lock`].
    pub async fn yield_lock(
        &self,
        lock: LockGuard,
        timeout: Duration,
    ) -> Result<LockGuard, StoreError> {
        drop(lock);
        if self.folder.is_some() {
            tokio::time::sleep(local::LOCK_POLL * 2).await;
        }
        self.lock(timeout).await
    }

    /// Reads an object; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`StoreError::Objects`], [`StoreError::Unavailable`] after a minute of retries, [`StoreError::Interrupted`].
    pub async fn get(&self, path: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        let read = async {
            let result = self.objects.get(&self.object_path(path)).await?;
            let (e_tag, version) = (result.meta.e_tag.clone(), result.meta.version.clone());
            Ok((result.bytes().await?, e_tag, version))
        };
        match read.await {
            Ok((bytes, e_tag, version)) => {
                Ok(Some((bytes, self.require_tag(path, e_tag, version)?)))
            }
            Err(source) => self.missing("read", path, source),
        }
    }

    /// Reads the metadata of an object; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let at = self.object_path(path);
        match self.objects.head(&at).await {
            Ok(meta) => self.info(meta).map(Some),
            Err(source) => self.missing("find", path, source),
        }
    }

    /// Reads a range of one version of an object.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] if the object no longer has that version.
    pub async fn get_range(
        &self,
        path: &str,
        range: Range<u64>,
        tag: &Tag,
    ) -> Result<Bytes, StoreError> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: Some(tag.e_tag.clone()),
            ..GetOptions::default()
        };
        let read = async {
            self.objects
                .get_opts(&self.object_path(path), options)
                .await?
                .bytes()
                .await
        };
        read.await.map_err(|source| match source {
            ObjectError::Precondition { .. } | ObjectError::NotFound { .. } => {
                StoreError::Changed {
                    path: path.to_owned(),
                }
            }
            source => self.failed("read", path, source),
        })
    }

    /// Lists all objects below a folder, in no order.
    ///
    /// # Errors
    ///
    /// [`StoreError::Objects`], [`StoreError::Unavailable`] after a minute of retries, [`StoreError::Interrupted`].
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = self.object_path(folder);
        self.collect(folder, self.objects.list(Some(&prefix))).await
    }

    /// Lists the objects of a folder whose names are greater than `name`, in no order.
    ///
    /// # Errors
    ///
    /// As [`Store::list`].
    pub async fn list_from(&self, folder: &str, name: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = self.object_path(folder);
        let offset = prefix.clone().join(name);
        let listing = self.objects.list_with_offset(Some(&prefix), &offset);
        self.collect(folder, listing).await
    }

    async fn collect(
        &self,
        folder: &str,
        mut listing: BoxStream<'static, Result<ObjectMeta, ObjectError>>,
    ) -> Result<Vec<ObjectInfo>, StoreError> {
        let mut objects = Vec::new();
        let failed = |source| self.failed("list", folder, source);
        while let Some(meta) = listing.try_next().await.map_err(failed)? {
            objects.push(self.info(meta)?);
        }
        Ok(objects)
    }

    /// Writes an object unconditionally. Only for objects that a single run owns, or that every run
    /// writes identically.
    ///
    /// # Errors
    ///
    /// [`StoreError::Objects`] or [`StoreError::File`].
    pub async fn overwrite(&self, path: &str, body: Bytes) -> Result<(), StoreError> {
        if let Some(folder) = &self.folder {
            return local::put(folder, path, body, None, self.lock_handle.guard())
                .await
                .map(drop);
        }
        self.put_object(path, body, PutMode::Overwrite)
            .await
            .map(drop)
            .map_err(|source| self.failed("write", path, source))
    }

    /// Deletes an object. Succeeds if it does not exist.
    ///
    /// # Errors
    ///
    /// [`StoreError::Objects`], [`StoreError::Unavailable`] after a minute of retries, [`StoreError::Interrupted`].
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let at = self.object_path(path);
        match self.objects.delete(&at).await {
            Ok(()) => Ok(()),
            Err(source) => self.missing("delete", path, source).map(|_: Option<()>| ()),
        }
    }

    async fn put_object(
        &self,
        path: &str,
        body: Bytes,
        mode: PutMode,
    ) -> Result<PutResult, ObjectError> {
        let (at, payload) = (self.object_path(path), PutPayload::from_bytes(body));
        let options = PutOptions::from(mode);
        self.objects.put_opts(&at, payload, options).await
    }

    /// Returns the path of an object in the object store.
    fn object_path(&self, path: &str) -> Path {
        path.split('/').fold(self.prefix.clone(), Path::join)
    }

    fn info(&self, meta: ObjectMeta) -> Result<ObjectInfo, StoreError> {
        let location = meta.location.as_ref();
        let prefix = self.prefix.as_ref();
        let path = location
            .strip_prefix(prefix)
            .unwrap_or(location)
            .trim_start_matches('/')
            .to_owned();
        let tag = self.require_tag(&path, meta.e_tag, meta.version)?;
        let modified = crate::window::from_ms(meta.last_modified.timestamp_millis());
        Ok(ObjectInfo {
            path,
            size: meta.size,
            tag,
            modified,
        })
    }

    fn require_tag(
        &self,
        path: &str,
        e_tag: Option<String>,
        version: Option<String>,
    ) -> Result<Tag, StoreError> {
        let tag = e_tag.map(|e_tag| Tag { e_tag, version });
        tag.ok_or_else(|| StoreError::NoETag {
            path: self.full_path(path),
        })
    }

    /// Returns `None` for a missing object, and any other error.
    fn missing<T>(
        &self,
        action: &'static str,
        path: &str,
        error: ObjectError,
    ) -> Result<Option<T>, StoreError> {
        match error {
            ObjectError::NotFound { .. } if !is_missing_bucket(&error) => Ok(None),
            error => Err(self.failed(action, path, error)),
        }
    }

    fn failed(&self, action: &'static str, path: &str, source: ObjectError) -> StoreError {
        let path = self.full_path(path);
        match GaveUp::of(&source).cloned() {
            None => StoreError::Objects {
                action,
                path,
                source,
            },
            Some(GaveUp::Unavailable { seconds, cause }) => StoreError::Unavailable {
                action,
                path,
                seconds,
                cause,
            },
            Some(GaveUp::NoCredentials { cause }) => StoreError::NoCredentials {
                action,
                path,
                cause,
            },
            Some(GaveUp::Interrupted) => StoreError::Interrupted { action, path },
        }
    }

    /// Returns the path of an object with the location of the lake, for messages.
    fn full_path(&self, path: &str) -> String {
        format!("{}/{path}", self.location)
    }
}
