//! Errors of a store, by the action that the operator takes.

use std::io::ErrorKind;

use object_store::Error as ObjectError;

use crate::causes::chain;

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
    #[error("failed to {action} {path}: no AWS credentials were found: {cause}")]
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

    /// Returns the action to take next, if the cause is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable { .. } => Some(
                "run again later; if it lasts, check the network and AWS_ENDPOINT_URL; committed data is safe",
            ),
            Self::NoCredentials { .. } => Some(
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine or pod a role",
            ),
            Self::Objects { action, source, .. } => hint_of_objects(action, source),
            Self::File { source, .. } => hint_of_files(source.kind()),
            _ => None,
        }
    }
}

/// Returns true if the bucket does not exist. `object_store` reports it as a missing object.
pub(super) fn is_missing_bucket(error: &ObjectError) -> bool {
    chain(error).contains("<Code>NoSuchBucket</Code>")
}

fn hint_of_objects(action: &str, error: &ObjectError) -> Option<&'static str> {
    const HINTS: [(&str, &[&str]); 4] = [
        (
            "set AWS_ALLOW_HTTP=true to allow an endpoint without TLS",
            &["URL scheme is not allowed"],
        ),
        (
            "create the bucket, or correct --lake, AWS_REGION and AWS_ENDPOINT_URL",
            &["<Code>NoSuchBucket</Code>"],
        ),
        (
            "replace the AWS_* credentials: they are invalid or expired, or the clock of this machine is wrong",
            &[
                "<Code>InvalidAccessKeyId</Code>",
                "<Code>SignatureDoesNotMatch</Code>",
                "<Code>InvalidToken</Code>",
                "<Code>ExpiredToken</Code>",
                "<Code>RequestTimeTooSkewed</Code>",
            ],
        ),
        (
            "free space in the store, or raise its quota; committed data is safe",
            &["507 Insufficient Storage", "<Code>QuotaExceeded</Code>"],
        ),
    ];
    let text = chain(error);
    let is_of = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    if let Some((hint, _)) = HINTS.iter().find(|(_, parts)| is_of(parts)) {
        return Some(hint);
    }
    // Listings and deletions have no kind of their own.
    let is_denied = matches!(
        error,
        ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. }
    ) || text.contains("AccessDenied");
    is_denied.then_some(match action {
        "list" => "grant s3:ListBucket on the bucket to the user or role of the AWS_* credentials",
        "write" => {
            "grant s3:PutObject on the objects of the lake to the user or role of the AWS_* credentials"
        }
        "delete" => {
            "grant s3:DeleteObject on the objects of the lake to the user or role of the AWS_* credentials"
        }
        // Without the second permission, a missing object is denied, too.
        _ => {
            "grant s3:GetObject on the objects of the lake, and s3:ListBucket on its bucket, to the user or role of the AWS_* credentials"
        }
    })
}

fn hint_of_files(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("free space on the disk of the lake; committed data is safe")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Some("grant the user of this process write access to the folder of the lake")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_fit_the_cause() {
        let objects = |action, code: &str| StoreError::Objects {
            action,
            path: "s3://b/x".to_owned(),
            source: ObjectError::Generic {
                store: "S3",
                source: format!("403 Forbidden: <Code>{code}</Code>").into(),
            },
        };
        let file = |kind: ErrorKind| StoreError::File {
            action: "write",
            path: "/lake".to_owned(),
            source: kind.into(),
        };
        for (error, expected) in [
            (objects("list", "AccessDenied"), "grant s3:ListBucket"),
            (objects("write", "AccessDenied"), "grant s3:PutObject"),
            (objects("delete", "AccessDenied"), "grant s3:DeleteObject"),
            (objects("find", "AccessDenied"), "grant s3:GetObject"),
            (objects("read", "ExpiredToken"), "replace the AWS_*"),
            (objects("list", "NoSuchBucket"), "create the bucket"),
            (objects("write", "QuotaExceeded"), "free space in the store"),
            (file(ErrorKind::StorageFull), "free space on the disk"),
            (file(ErrorKind::PermissionDenied), "grant the user"),
        ] {
            let hint = error.hint().unwrap_or_default();
            assert!(hint.starts_with(expected), "{error:?}: {hint}");
        }
        assert_eq!(objects("read", "MethodNotAllowed").hint(), None);
    }
}
