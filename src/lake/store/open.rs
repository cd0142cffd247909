//! Opens the store of a location.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3;
use object_store::azure::MicrosoftAzure;
use object_store::gcp::GoogleCloudStorage;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use super::location::{Bucket, Location};
use super::patience::Patience;
use super::provider::Provider;
use super::{Store, StoreError, local, variables};

impl Store {
    /// Opens a path, `file://`, `s3://bucket/prefix`, `az://container/prefix`,
    /// `abfss://container@account.dfs.core.windows.net/prefix` or `gs://bucket/prefix`. The first put creates a
    /// missing folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`], [`StoreError::Variable`], [`StoreError::MissingVariable`] and [`StoreError::Setup`]
    /// for invalid settings. Opening reads and writes nothing.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        match Location::parse(url)? {
            Location::Folder(folder) => Self::open_folder(folder),
            Location::Bucket(bucket) => Self::open_bucket(bucket),
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

    fn open_bucket(bucket: Bucket) -> Result<Self, StoreError> {
        fn client<C: variables::Client>(
            bucket: &Bucket,
            patience: &Patience,
        ) -> Result<Arc<dyn ObjectStore>, StoreError> {
            let client: C = variables::build(bucket, patience, std::env::vars_os())?;
            Ok(Arc::new(client))
        }
        let patience = Patience::default();
        let objects = match bucket.provider {
            Provider::S3 => client::<AmazonS3>(&bucket, &patience),
            Provider::Azure => client::<MicrosoftAzure>(&bucket, &patience),
            Provider::Google => client::<GoogleCloudStorage>(&bucket, &patience),
        }?;
        Ok(Self {
            patience,
            ..Self::from_object_store(objects, bucket.prefix, &bucket.url)
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
