//! Errors of a store, by the action that the operator takes.

use object_store::Error as ObjectError;

use super::hints::is_missing_bucket;

/// A failed operation on a store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The location is not a path, `file:///path` or the URL of an object store.
    #[error("invalid lake location `{url}`: expected {expected}")]
    Url {
        /// The given location.
        url: String,
        /// The correct spelling.
        expected: String,
    },
    /// The URL has parts other than a bucket and a prefix.
    #[error(
        "invalid lake location: {expected} takes no `?`, `#` or user; set {variables} for credentials"
    )]
    UrlParts {
        /// The correct spelling.
        expected: &'static str,
        /// The variables for credentials.
        variables: &'static str,
    },
    /// An environment variable of the object store cannot be used.
    #[error("invalid {name}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// The reason, without a value that may be secret.
        reason: String,
    },
    /// A required environment variable is not set.
    #[error("{name} is not set: {action}")]
    MissingVariable {
        /// Its name.
        name: &'static str,
        /// The action to take.
        action: &'static str,
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
    /// The object store was away for too long.
    #[error("failed to {action} {path}: the store was unavailable for {seconds} s: {cause}")]
    Unavailable {
        /// The operation, such as `read`.
        action: &'static str,
        /// The object, with the location of its lake.
        path: String,
        /// The time since the first failure.
        seconds: u64,
        /// The last failure.
        cause: String,
    },
    /// No credentials are set, and the metadata service of the cloud does not respond.
    #[error("failed to {action} {path}: no credentials were found: {cause}")]
    NoCredentials {
        /// The operation, such as `read`.
        action: &'static str,
        /// The object, with the location of its lake.
        path: String,
        /// The failure of the metadata service.
        cause: String,
    },
    /// A signal arrived while the object store did not respond.
    #[error("failed to {action} {path}: interrupted by a signal")]
    Interrupted {
        /// The operation, such as `read`.
        action: &'static str,
        /// The object, with the location of its lake.
        path: String,
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
            Self::Objects { source, .. } => {
                let is_permanent = matches!(
                    source,
                    ObjectError::PermissionDenied { .. }
                        | ObjectError::Unauthenticated { .. }
                        | ObjectError::NotImplemented { .. }
                        | ObjectError::NotSupported { .. }
                        | ObjectError::InvalidPath { .. }
                        | ObjectError::UnknownConfigurationKey { .. }
                );
                !is_permanent && !is_missing_bucket(source)
            }
            _ => false,
        }
    }
}
