//! The storage of a lake: a folder or an object store behind one small set of operations.

mod aws;
mod cas;
mod error;
mod local;
mod location;
mod open;
mod probe;

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{
    Error as ObjectError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutOptions, PutPayload, PutResult,
};

pub use cas::{Expected, PutOutcome};
pub use error::StoreError;
pub use local::LockGuard;
pub use location::normalized;
pub use probe::ProbeError;

use super::layout;

/// The open store of a lake. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder of a local lake. `object_store` only reads it; [`local`] writes it.
    folder: Option<PathBuf>,
    lock_handle: local::LockHandle,
    location: Arc<str>,
    /// Fails requests that get no response within [`REQUEST_TIMEOUT`].
    has_timeout: bool,
}

/// Maximum time without a response to a request, including the retries of `object_store`.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(90);

/// Additional time per MiB that a request transfers.
const TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);

/// The version of an object: its `ETag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

/// The metadata of an object.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Its path within the lake.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its version.
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
    /// [`StoreError::Objects`] after the retries of the store.
    pub async fn get(&self, path: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        let read = async {
            let result = self
                .with_timeout(0, self.objects.get(&self.object_path(path)))
                .await?;
            let tag = result.meta.e_tag.clone();
            let size = usize::try_from(result.meta.size).unwrap_or(usize::MAX);
            Ok((self.with_timeout(size, result.bytes()).await?, tag))
        };
        match read.await {
            Ok((bytes, tag)) => Ok(Some((bytes, self.require_tag(path, tag)?))),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("read", path, source)),
        }
    }

    /// Reads the metadata of an object; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let at = self.object_path(path);
        match self.with_timeout(0, self.objects.head(&at)).await {
            Ok(meta) => self.info(meta).map(Some),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("find", path, source)),
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
            if_match: Some(tag.0.clone()),
            ..GetOptions::default()
        };
        let read = async {
            self.objects
                .get_opts(&self.object_path(path), options)
                .await?
                .bytes()
                .await
        };
        let result = self.with_timeout(0, read).await;
        result.map_err(|source| match source {
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
    /// [`StoreError::Objects`] after the retries of the store.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectInfo>, StoreError> {
        let prefix = self.object_path(folder);
        let mut listing = self.objects.list(Some(&prefix));
        let mut objects = Vec::new();
        loop {
            // Each page has its own timeout: a lake may have many pages.
            let next = self.with_timeout(0, listing.try_next()).await;
            match next.map_err(|source| self.failed("list", folder, source))? {
                Some(meta) => objects.push(self.info(meta)?),
                None => return Ok(objects),
            }
        }
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
    /// [`StoreError::Objects`] after the retries of the store.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let at = self.object_path(path);
        match self.with_timeout(0, self.objects.delete(&at)).await {
            Ok(()) | Err(ObjectError::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("delete", path, source)),
        }
    }

    async fn put_object(
        &self,
        path: &str,
        body: Bytes,
        mode: PutMode,
    ) -> Result<PutResult, ObjectError> {
        let (at, bytes) = (self.object_path(path), body.len());
        let payload = PutPayload::from_bytes(body);
        let put = self.objects.put_opts(&at, payload, PutOptions::from(mode));
        self.with_timeout(bytes, put).await
    }

    /// Runs a request that transfers `bytes`, and fails it after a timeout: a broken connection
    /// reports nothing. The outcome of a put is unknown then.
    async fn with_timeout<T>(
        &self,
        bytes: usize,
        request: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, ObjectError> {
        if !self.has_timeout {
            return request.await;
        }
        let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let limit = REQUEST_TIMEOUT + TIMEOUT_PER_MIB * mebibytes;
        let result = tokio::time::timeout(limit, request).await;
        result.unwrap_or_else(|_| {
            Err(ObjectError::Generic {
                store: "S3",
                source: format!("no response within {} s", limit.as_secs()).into(),
            })
        })
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
        let tag = self.require_tag(&path, meta.e_tag)?;
        let modified = crate::window::from_ms(meta.last_modified.timestamp_millis());
        Ok(ObjectInfo {
            path,
            size: meta.size,
            tag,
            modified,
        })
    }

    fn require_tag(&self, path: &str, tag: Option<String>) -> Result<Tag, StoreError> {
        tag.map(Tag).ok_or_else(|| StoreError::NoETag {
            path: self.full_path(path),
        })
    }

    fn failed(&self, action: &'static str, path: &str, source: ObjectError) -> StoreError {
        StoreError::Objects {
            action,
            path: self.full_path(path),
            source,
        }
    }

    /// Returns the path of an object with the location of the lake, for messages.
    fn full_path(&self, path: &str) -> String {
        format!("{}/{path}", self.location)
    }
}
