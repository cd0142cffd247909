//! Opens the store of a location: a path, `file:///path` or `s3://bucket/prefix`.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::AmazonS3ConfigKey;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientConfigKey, ObjectStore, RetryConfig};

use super::location::Location;
use super::patience::Patience;
use super::{Store, StoreError, aws, local};

/// Timeout of a request in the S3 client: 5 s and 1 s per MiB of the largest object, since one put
/// sends a complete object.
const CLIENT_TIMEOUT: &str = "517s";

impl Store {
    /// Opens a path, `file://` or `s3://bucket/prefix`. The first put creates a missing folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`], [`StoreError::Variable`] and [`StoreError::Setup`] for invalid settings. Opening
    /// reads and writes nothing.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        match Location::parse(url)? {
            Location::Folder(folder) => Self::open_folder(folder),
            Location::S3 {
                bucket,
                prefix,
                url,
            } => Self::open_s3(&bucket, prefix, &url),
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

    fn open_s3(bucket: &str, prefix: Path, url: &str) -> Result<Self, StoreError> {
        let patience = Patience::default();
        let retry = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let timeout = AmazonS3ConfigKey::Client(ClientConfigKey::Timeout);
        let objects = aws::build(url, std::env::vars_os(), |builder| {
            builder
                .with_bucket_name(bucket)
                .with_retry(retry.clone())
                .with_http_connector(patience.clone())
                .with_config(timeout, CLIENT_TIMEOUT)
        })?;
        Ok(Self {
            patience,
            ..Self::from_object_store(Arc::new(objects), prefix, url)
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
            patience: Patience::default(),
        }
    }
}
