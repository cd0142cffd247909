//! Where a lake lives: a folder or an object store, behind one small set of operations.

mod cas;
mod local;
mod probe;

use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientConfigKey, Error as ObjectError, GetOptions, GetRange, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, RetryConfig,
};

pub use cas::{Expected, PutOutcome};
pub use local::LockGuard;
pub use probe::ProbeError;

use super::layout;

/// The place of a lake, opened. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// The folder of a local lake: `object_store` only reads there, writing is ours.
    folder: Option<PathBuf>,
    held: local::Held,
    shown: Arc<str>,
    /// Whether requests are given up that go unanswered.
    is_impatient: bool,
}

/// How long a request may go unanswered, the library's repetitions included.
const PATIENCE: Duration = Duration::from_secs(90);

/// How much longer for each MiB that it brings.
const PATIENCE_PER_MIB: Duration = Duration::from_secs(1);

/// The version of an object: its `ETag`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(String);

/// What is known of an object without reading it.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its path within the lake.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its version.
    pub tag: Tag,
    /// When it was last written, by the clock of the store.
    pub modified: jiff::Timestamp,
}

/// What went wrong with the place of a lake, by what the operator does about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// No path, `file://` or `s3://bucket/prefix`.
    #[error("`{url}` names no lake: expected a path, `file://` or `s3://bucket/prefix`")]
    Url {
        /// What was given.
        url: String,
    },
    /// A URL of S3 that says more than a bucket and a prefix.
    #[error(
        "a lake in S3 is `s3://bucket/prefix`, without `?`, `#` or a user: keys belong into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    UrlParts,
    /// The settings of the object store make no sense, for instance a bucket without region.
    #[error("set up `{url}`")]
    Setup {
        /// The lake.
        url: String,
        /// Why.
        #[source]
        source: ObjectError,
    },
    /// The object store did not do it, after its retries.
    #[error("{action} `{path}`")]
    Objects {
        /// What was tried, such as `read`.
        action: &'static str,
        /// The object, with its lake.
        path: String,
        /// Why not.
        #[source]
        source: ObjectError,
    },
    /// The file system did not do it.
    #[error("{action} `{path}`")]
    File {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Another run replaced the object between two reads of it.
    #[error("`{path}` was replaced while it was read")]
    Changed {
        /// The object.
        path: String,
    },
    /// Another process kept the lock of a local lake for too long.
    #[error("`{path}` is locked by another run, for {seconds} s already")]
    Locked {
        /// The lock file.
        path: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The store gives no `ETag`, without which nothing can be replaced safely.
    #[error("the store tells no ETag of `{path}`")]
    Untagged {
        /// The object.
        path: String,
    },
}

/// The folder that a path or a `file://` URL names, absolute; `None` for a URL of S3.
///
/// # Errors
///
/// [`StoreError::Url`] for anything else, [`StoreError::File`] where there is no present folder.
pub fn local_folder(url: &str) -> Result<Option<PathBuf>, StoreError> {
    let none = || StoreError::Url {
        url: without_user(url),
    };
    let path = match url.split_once("://") {
        Some(("s3" | "s3a", _)) => return Ok(None),
        Some(("file", _)) => {
            let parsed = url::Url::parse(url).map_err(|_| none())?;
            parsed.to_file_path().map_err(|()| none())?
        }
        Some(_) => return Err(none()),
        None if url.is_empty() => return Err(none()),
        None => PathBuf::from(url),
    };
    let absolute = local::absolute(&path).map_err(|source| StoreError::File {
        action: "find",
        path: path.display().to_string(),
        source,
    })?;
    Ok(Some(absolute))
}

impl Store {
    /// Opens a path, `file://` or `s3://bucket/prefix`. A folder need not be there yet: the first put makes it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] and [`StoreError::Setup`] for settings that cannot work. Nothing is read or
    /// written yet.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        match local_folder(url)? {
            Some(folder) => Self::open_folder(folder),
            None => Self::open_s3(url),
        }
    }

    fn open_folder(folder: PathBuf) -> Result<Self, StoreError> {
        let shown = folder.display().to_string();
        let setup = |source| StoreError::Setup {
            url: shown.clone(),
            source,
        };
        let prefix = Path::from_absolute_path(&folder).map_err(|error| setup(error.into()))?;
        Ok(Self {
            objects: Arc::new(LocalFileSystem::new()),
            prefix,
            folder: Some(folder),
            held: local::Held::default(),
            shown: shown.into(),
            is_impatient: false,
        })
    }

    fn open_s3(url: &str) -> Result<Self, StoreError> {
        let setup = |source| StoreError::Setup {
            url: url.to_owned(),
            source,
        };
        let retry = RetryConfig {
            max_retries: 6,
            retry_timeout: Duration::from_secs(60),
            ..RetryConfig::default()
        };
        let none = || StoreError::Url {
            url: without_user(url),
        };
        let parsed = url::Url::parse(url).map_err(|_| none())?;
        let has_more = parsed.query().or(parsed.fragment()).or(parsed.password());
        if has_more.is_some() || !parsed.username().is_empty() {
            return Err(StoreError::UrlParts);
        }
        parsed.host_str().ok_or_else(none)?;
        // One put moves a whole object: 5 s and 1 s for each MiB, at the largest that is put.
        let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        let objects = AmazonS3Builder::from_env()
            .with_url(url)
            .with_retry(retry)
            .with_config(timeout, "517s")
            .build()
            .map_err(setup)?;
        let prefix = Path::from_url_path(parsed.path())
            .map_err(|source| setup(ObjectError::from(source)))?;
        let store = Self::over(Arc::new(objects), prefix, url.trim_end_matches('/'));
        Ok(Self {
            is_impatient: true,
            ..store
        })
    }

    /// A lake in any object store that knows conditional puts; tests bring their own.
    pub fn over(objects: Arc<dyn ObjectStore>, prefix: Path, shown: &str) -> Self {
        Self {
            objects,
            prefix,
            folder: None,
            held: local::Held::default(),
            shown: shown.into(),
            is_impatient: false,
        }
    }

    /// The lake as the user wrote it, made absolute where it is a folder.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// The folder of a local lake.
    pub fn folder(&self) -> Option<&FsPath> {
        self.folder.as_deref()
    }

    /// Takes the lock of a local lake, waiting for at most `patience`; an object store has none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Locked`] when another run keeps it for longer, [`StoreError::File`] where the
    /// lock file cannot be made.
    pub async fn lock(&self, patience: Duration) -> Result<LockGuard, StoreError> {
        let Some(folder) = &self.folder else {
            return Ok(LockGuard::none());
        };
        let lock = local::lock(folder, patience).await?;
        self.held.set(&lock);
        Ok(lock)
    }

    /// Gives up the lock and takes it again, so late that whoever waits for it has it in between.
    ///
    /// # Errors
    ///
    /// As [`Store::lock`].
    pub async fn give_way(
        &self,
        lock: LockGuard,
        patience: Duration,
    ) -> Result<LockGuard, StoreError> {
        drop(lock);
        if self.folder.is_some() {
            tokio::time::sleep(local::LOCK_POLL * 2).await;
        }
        self.lock(patience).await
    }

    /// Reads an object whole: `None` where there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError::Objects`] after the store's retries.
    pub async fn get(&self, path: &str) -> Result<Option<(Bytes, Tag)>, StoreError> {
        let read = async {
            let found = self.answer(0, self.objects.get(&self.at(path))).await?;
            let tag = found.meta.e_tag.clone();
            let size = usize::try_from(found.meta.size).unwrap_or(usize::MAX);
            Ok((self.answer(size, found.bytes()).await?, tag))
        };
        match read.await {
            Ok((bytes, tag)) => Ok(Some((bytes, self.tagged(path, tag)?))),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("read", path, source)),
        }
    }

    /// Finds an object without reading it.
    ///
    /// # Errors
    ///
    /// As [`Store::get`].
    pub async fn head(&self, path: &str) -> Result<Option<Found>, StoreError> {
        match self.answer(0, self.objects.head(&self.at(path))).await {
            Ok(meta) => self.found(meta).map(Some),
            Err(ObjectError::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("find", path, source)),
        }
    }

    /// Reads a range of one version of an object.
    ///
    /// # Errors
    ///
    /// [`StoreError::Changed`] where the object is no longer that version.
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
                .get_opts(&self.at(path), options)
                .await?
                .bytes()
                .await
        };
        self.answer(0, read).await.map_err(|source| match source {
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
    /// [`StoreError::Objects`] after the store's retries.
    pub async fn list(&self, folder: &str) -> Result<Vec<Found>, StoreError> {
        let below = self.at(folder);
        let mut listed = self.objects.list(Some(&below));
        let mut found = Vec::new();
        loop {
            // Each page has a time of its own: a lake may have many.
            let next = self.answer(0, listed.try_next()).await;
            match next.map_err(|source| self.failed("list", folder, source))? {
                Some(meta) => found.push(self.found(meta)?),
                None => return Ok(found),
            }
        }
    }

    /// Writes an object that no other run writes, whatever stands there: reports, lists of
    /// partitions; or that all runs write alike.
    ///
    /// # Errors
    ///
    /// [`StoreError::Objects`] or [`StoreError::File`].
    pub async fn overwrite(&self, path: &str, body: Bytes) -> Result<(), StoreError> {
        if let Some(folder) = &self.folder {
            return local::put(folder, path, body, local::Onto::Anything, self.held.keep())
                .await
                .map(drop);
        }
        self.put_object(path, body, PutMode::Overwrite)
            .await
            .map(drop)
            .map_err(|source| self.failed("write", path, source))
    }

    /// Deletes an object; none there is as good.
    ///
    /// # Errors
    ///
    /// [`StoreError::Objects`] after the store's retries.
    pub async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.answer(0, self.objects.delete(&self.at(path))).await {
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
        let (at, bytes) = (self.at(path), body.len());
        let put = PutPayload::from_bytes(body);
        let put = self.objects.put_opts(&at, put, PutOptions::from(mode));
        self.answer(bytes, put).await
    }

    /// The answer to a request that brings or fetches `bytes`, or an error where none comes: a connection that is
    /// dead says nothing. What becomes of a put is not known then.
    async fn answer<T>(
        &self,
        bytes: usize,
        request: impl Future<Output = Result<T, ObjectError>>,
    ) -> Result<T, ObjectError> {
        if !self.is_impatient {
            return request.await;
        }
        let mebibytes = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let limit = PATIENCE + PATIENCE_PER_MIB * mebibytes;
        let answer = tokio::time::timeout(limit, request).await;
        answer.unwrap_or_else(|_| {
            Err(ObjectError::Generic {
                store: "S3",
                source: format!("no answer within {} s", limit.as_secs()).into(),
            })
        })
    }

    fn at(&self, path: &str) -> Path {
        path.split('/').fold(self.prefix.clone(), Path::join)
    }

    fn found(&self, meta: ObjectMeta) -> Result<Found, StoreError> {
        let whole = meta.location.as_ref();
        let prefix = self.prefix.as_ref();
        let path = whole
            .strip_prefix(prefix)
            .unwrap_or(whole)
            .trim_start_matches('/')
            .to_owned();
        let tag = self.tagged(&path, meta.e_tag)?;
        let modified = crate::window::from_ms(meta.last_modified.timestamp_millis());
        Ok(Found {
            path,
            size: meta.size,
            tag,
            modified,
        })
    }

    fn tagged(&self, path: &str, tag: Option<String>) -> Result<Tag, StoreError> {
        tag.map(Tag).ok_or_else(|| StoreError::Untagged {
            path: self.named(path),
        })
    }

    fn failed(&self, action: &'static str, path: &str, source: ObjectError) -> StoreError {
        StoreError::Objects {
            action,
            path: self.named(path),
            source,
        }
    }

    fn named(&self, path: &str) -> String {
        format!("{}/{path}", self.shown)
    }
}

impl StoreError {
    /// Whether other runs are the cause, so that the same run may succeed later.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::Locked { .. })
    }
}

/// A URL as it may be shown: who it names, and with which password, is left out.
fn without_user(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{path}"),
        None => url.to_owned(),
    }
}

/// The absolute path of a file of a local lake, for messages.
pub(super) fn file_of(folder: &FsPath, path: &str) -> PathBuf {
    path.split('/')
        .fold(folder.to_path_buf(), |folder, part| folder.join(part))
}

/// The folder where a local lake stages its objects.
pub(super) fn staging_of(folder: &FsPath) -> PathBuf {
    file_of(folder, layout::STAGING)
}
