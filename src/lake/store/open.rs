//! Opens the store that a location names: a path, `file://` or `s3://bucket/prefix`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, Error as ObjectError, ObjectStore, RetryConfig};

use super::{Store, StoreError, local};

/// Timeout of a request in the S3 client: 5 s and 1 s per MiB of the largest object, since one put
/// sends a complete object.
const CLIENT_TIMEOUT: &str = "517s";

/// Returns the absolute folder that a path or a `file://` URL names, and `None` for an S3 URL.
///
/// # Errors
///
/// [`StoreError::Url`] for any other URL, [`StoreError::File`] if the current folder does not exist.
pub fn local_folder(url: &str) -> Result<Option<PathBuf>, StoreError> {
    let invalid = || StoreError::Url { url: redacted(url) };
    let path = match url.split_once("://") {
        Some(("s3" | "s3a", _)) => return Ok(None),
        Some(("file", _)) => {
            let parsed = url::Url::parse(url).map_err(|_| invalid())?;
            parsed.to_file_path().map_err(|()| invalid())?
        }
        Some(_) => return Err(invalid()),
        None if url.is_empty() => return Err(invalid()),
        None => PathBuf::from(url),
    };
    let absolute = local::absolute(&path).map_err(|source| StoreError::File {
        action: "resolve",
        path: path.display().to_string(),
        source,
    })?;
    Ok(Some(absolute))
}

impl Store {
    /// Opens a path, `file://` or `s3://bucket/prefix`. The first put creates a missing folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] and [`StoreError::Setup`] for invalid settings. Opening reads and writes
    /// nothing.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        match local_folder(url)? {
            Some(folder) => Self::open_folder(folder),
            None => Self::open_s3(url),
        }
    }

    fn open_folder(folder: PathBuf) -> Result<Self, StoreError> {
        let location = folder.display().to_string();
        let prefix = Path::from_absolute_path(&folder).map_err(|error| StoreError::Setup {
            url: location.clone(),
            source: error.into(),
        })?;
        Ok(Self {
            folder: Some(folder),
            ..Self::from_object_store(Arc::new(LocalFileSystem::new()), prefix, &location)
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
        let invalid = || StoreError::Url { url: redacted(url) };
        let parsed = url::Url::parse(url).map_err(|_| invalid())?;
        let extra = parsed.query().or(parsed.fragment()).or(parsed.password());
        if extra.is_some() || !parsed.username().is_empty() {
            return Err(StoreError::UrlParts);
        }
        parsed.host_str().ok_or_else(invalid)?;
        let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        let objects = AmazonS3Builder::from_env()
            .with_url(url)
            .with_retry(retry)
            .with_config(timeout, CLIENT_TIMEOUT)
            .build()
            .map_err(setup)?;
        let prefix = Path::from_url_path(parsed.path())
            .map_err(|source| setup(ObjectError::from(source)))?;
        let location = url.trim_end_matches('/');
        Ok(Self {
            has_timeout: true,
            ..Self::from_object_store(Arc::new(objects), prefix, location)
        })
    }

    /// Uses any object store that supports conditional puts.
    pub fn from_object_store(objects: Arc<dyn ObjectStore>, prefix: Path, location: &str) -> Self {
        Self {
            objects,
            prefix,
            folder: None,
            lock_handle: local::LockHandle::default(),
            location: location.into(),
            has_timeout: false,
        }
    }
}

/// Removes the user and the password from a URL, so that it can be printed.
fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}{path}"),
        None => url.to_owned(),
    }
}
