//! The supported object stores, as users write and configure them.

/// A supported object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// Amazon S3 and stores with its API.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Google,
}

impl Provider {
    /// Returns the store of a URL scheme.
    pub(super) fn of_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "s3" | "s3a" => Some(Self::S3),
            "az" | "abfss" => Some(Self::Azure),
            "gs" => Some(Self::Google),
            _ => None,
        }
    }

    /// Returns the store of a location or of an object in it.
    pub(super) fn of(location: &str) -> Option<Self> {
        let (scheme, _) = location.split_once("://")?;
        Self::of_scheme(scheme)
    }

    /// The variables that hold credentials.
    pub(super) fn credentials(self) -> &'static str {
        match self {
            Self::S3 => "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            Self::Azure => "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
            Self::Google => "GOOGLE_APPLICATION_CREDENTIALS",
        }
    }
}
