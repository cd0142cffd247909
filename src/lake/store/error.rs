//! Errors of a store, by the action that the operator takes.

use object_store::Error as ObjectError;

/// A failed operation on a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The location is not a path, `file:///path` or `s3://bucket/prefix`.
    #[error("invalid lake location `{url}`: expected {expected}")]
    Url {
        /// The given location.
        url: String,
        /// The correct spelling.
        expected: String,
    },
    /// The URL has parts other than a bucket and a prefix.
    #[error(
        "invalid lake location: s3://bucket/prefix takes no `?`, `#` or user; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for credentials"
    )]
    UrlParts,
    /// An environment variable of the object store cannot be used.
    #[error("invalid {name}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// The reason, without a value that may be secret.
        reason: String,
    },
    /// The object store is misconfigured, for instance without a region.
    #[error("failed to configure {url}")]
    Setup {
        /// The lake.
        url: String,
        /// The cause.
        #[source]
        source: ObjectError,
    },
    /// The object store failed, after its retries.
    #[error("failed to {action} {path}")]
    Objects {
        /// The operation, such as `read`.
        action: &'static str,
        /// The object, with the location of its lake.
        path: String,
        /// The cause.
        #[source]
        source: ObjectError,
    },
    /// The file system failed.
    #[error("failed to {action} {path}")]
    File {
        /// The operation, such as `write`.
        action: &'static str,
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Another run replaced the object between two reads of it.
    #[error("failed to read {path}: another run replaced it during the read")]
    Changed {
        /// The object.
        path: String,
    },
    /// Another process kept the lock of a local lake for too long.
    #[error("failed to lock {path} within {seconds} s: it is held by {holder}")]
    Locked {
        /// The lock file.
        path: String,
        /// The process that holds the lock.
        holder: String,
        /// The time waited.
        seconds: u64,
    },
    /// The store returns no `ETag`, without which no object can be replaced safely.
    #[error("failed to read the version of {path}: the store returned no ETag")]
    NoETag {
        /// The object.
        path: String,
    },
}

impl StoreError {
    /// Returns true if other runs caused the error, so that the same run may succeed later.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Changed { .. } | Self::Locked { .. })
    }

    /// Returns true if the same request may succeed when it is sent again.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Objects { source, .. } => !matches!(
                source,
                ObjectError::PermissionDenied { .. }
                    | ObjectError::Unauthenticated { .. }
                    | ObjectError::NotImplemented { .. }
                    | ObjectError::NotSupported { .. }
                    | ObjectError::InvalidPath { .. }
                    | ObjectError::UnknownConfigurationKey { .. }
            ),
            _ => false,
        }
    }
}
