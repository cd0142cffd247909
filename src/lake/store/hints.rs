//! The action that fixes an error of a store, if its cause is known.

use std::io::ErrorKind;

use object_store::Error as ObjectError;

use super::StoreError;
use super::provider::Provider;
use crate::causes::chain;

impl StoreError {
    /// Returns the action to take next, if the cause is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable { path, .. } => Some(hints_of(path).unavailable),
            Self::NoCredentials { path, .. } => Some(hints_of(path).no_credentials),
            Self::Objects {
                action,
                path,
                source,
            } => hint_of_objects(hints_of(path), action, source),
            Self::File { source, .. } => hint_of_files(source.kind()),
            _ => None,
        }
    }
}

/// The hints of an object store.
struct Hints {
    unavailable: &'static str,
    no_credentials: &'static str,
    allow_http: &'static str,
    missing_bucket: &'static str,
    bad_credentials: &'static str,
    /// Permissions to list, write, delete and read.
    list: &'static str,
    write: &'static str,
    delete: &'static str,
    /// Without the permission to list, some stores deny access to a missing object, too.
    read: &'static str,
}

const S3: Hints = Hints {
    unavailable: "run again later; if it lasts, check the network and AWS_ENDPOINT_URL; committed data is safe",
    no_credentials: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine or pod a role",
    allow_http: "set AWS_ALLOW_HTTP=true to allow an endpoint without TLS",
    missing_bucket: "create the bucket, or correct --lake, AWS_REGION and AWS_ENDPOINT_URL",
    bad_credentials: "replace the AWS_* credentials: they are invalid or expired, or the clock of this machine is wrong",
    list: "grant s3:ListBucket on the bucket to the user or role of the AWS_* credentials",
    write: "grant s3:PutObject on the objects of the lake to the user or role of the AWS_* credentials",
    delete: "grant s3:DeleteObject on the objects of the lake to the user or role of the AWS_* credentials",
    read: "grant s3:GetObject on the objects of the lake, and s3:ListBucket on its bucket, to the user or role of the AWS_* credentials",
};

const AZURE: Hints = Hints {
    unavailable: "run again later; if it lasts, check the network, the storage account and AZURE_STORAGE_ENDPOINT; committed data is safe",
    no_credentials: "set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or give this machine or pod a managed or workload identity",
    allow_http: "set AZURE_ALLOW_HTTP=true to allow an endpoint without TLS",
    missing_bucket: "create the container, or correct --lake and AZURE_STORAGE_ACCOUNT_NAME",
    bad_credentials: "replace the AZURE_* credentials: they are invalid or expired, or of another account, or the clock of this machine is wrong",
    list: "grant `blobs/read` on the container to the identity of the AZURE_* credentials, for instance with the role of deploy/azure; a shared access signature needs `l`",
    write: "grant `blobs/write` on the container to the identity of the AZURE_* credentials, for instance with the role of deploy/azure; a shared access signature needs `c` and `w`",
    delete: "grant `blobs/delete` on the container to the identity of the AZURE_* credentials, for instance with the role of deploy/azure; a shared access signature needs `d`",
    read: "grant `blobs/read` on the container to the identity of the AZURE_* credentials, for instance with the role of deploy/azure; a shared access signature needs `r`",
};

const GOOGLE: Hints = Hints {
    unavailable: "run again later; if it lasts, check the network and GOOGLE_BASE_URL; committed data is safe",
    no_credentials: "set GOOGLE_APPLICATION_CREDENTIALS, or give this machine or pod a service account",
    allow_http: "set GOOGLE_ALLOW_HTTP=true to allow an endpoint without TLS",
    missing_bucket: "create the bucket, or correct --lake",
    bad_credentials: "replace the GOOGLE_* credentials: they are invalid or expired, or the clock of this machine is wrong",
    list: "grant storage.objects.list on the bucket to the service account of the GOOGLE_* credentials",
    write: "grant storage.objects.create and storage.objects.delete on the bucket to the service account of the GOOGLE_* credentials: replacing an object needs both",
    delete: "grant storage.objects.delete on the bucket to the service account of the GOOGLE_* credentials",
    read: "grant storage.objects.get and storage.objects.list on the bucket to the service account of the GOOGLE_* credentials",
};

fn hints_of(location: &str) -> &'static Hints {
    match Provider::of(location) {
        Some(Provider::Azure) => &AZURE,
        Some(Provider::Google) => &GOOGLE,
        Some(Provider::S3) | None => &S3,
    }
}

/// Parts of errors of all object stores.
const HTTP_IS_DENIED: [&str; 1] = ["URL scheme is not allowed"];
const MISSING_BUCKET: [&str; 2] = [
    "<Code>NoSuchBucket</Code>",
    "<Code>ContainerNotFound</Code>",
];
const NO_IDENTITY: [&str; 2] = ["/metadata/identity/", "/computeMetadata/"];
const BAD_CREDENTIALS: [&str; 11] = [
    "<Code>InvalidAccessKeyId</Code>",
    "<Code>SignatureDoesNotMatch</Code>",
    "<Code>InvalidToken</Code>",
    "<Code>ExpiredToken</Code>",
    "<Code>RequestTimeTooSkewed</Code>",
    "<Code>AuthenticationFailed</Code>",
    "<Code>InvalidAuthenticationInfo</Code>",
    "<Code>AuthenticationRequired</Code>",
    "Server failed to authenticate the request",
    "Error performing token request",
    "reading federated token file",
];
const FULL: [&str; 2] = ["507 Insufficient Storage", "<Code>QuotaExceeded</Code>"];

/// Listings and deletions have no kind of their own.
const DENIED: [&str; 6] = [
    "AccessDenied",
    "<Code>AuthorizationFailure</Code>",
    "<Code>AuthorizationPermissionMismatch</Code>",
    "<Code>AuthorizationResourceTypeMismatch</Code>",
    "403 Forbidden",
    "(code: 403)",
];

fn has_any(text: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| text.contains(part))
}

/// Returns true if the bucket does not exist. `object_store` reports it as a missing object.
pub(super) fn is_missing_bucket(error: &ObjectError) -> bool {
    has_any(&chain(error), &MISSING_BUCKET)
}

fn hint_of_objects(hints: &Hints, action: &str, error: &ObjectError) -> Option<&'static str> {
    let text = chain(error);
    for (parts, hint) in [
        (&HTTP_IS_DENIED[..], hints.allow_http),
        (&MISSING_BUCKET, hints.missing_bucket),
        (&NO_IDENTITY, hints.no_credentials),
        (&BAD_CREDENTIALS, hints.bad_credentials),
        (
            &FULL,
            "free space in the store, or raise its quota; committed data is safe",
        ),
    ] {
        if has_any(&text, parts) {
            return Some(hint);
        }
    }
    let is_denied = matches!(
        error,
        ObjectError::PermissionDenied { .. } | ObjectError::Unauthenticated { .. }
    ) || has_any(&text, &DENIED);
    is_denied.then_some(match action {
        "list" => hints.list,
        "write" => hints.write,
        "delete" => hints.delete,
        _ => hints.read,
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

    fn objects(path: &str, action: &'static str, code: &str) -> StoreError {
        StoreError::Objects {
            action,
            path: path.to_owned(),
            source: ObjectError::Generic {
                store: "any",
                source: format!("<Code>{code}</Code>").into(),
            },
        }
    }

    #[test]
    fn hints_fit_the_cause() {
        let s3 = |action, code: &str| objects("s3://b/x", action, code);
        let azure = |action, code: &str| objects("abfss://c@account.dfs.x.y/x", action, code);
        let google = |action, code: &str| objects("gs://b/x", action, code);
        let file = |kind: ErrorKind| StoreError::File {
            action: "write",
            path: "/lake".to_owned(),
            source: kind.into(),
        };
        for (error, expected) in [
            (s3("list", "AccessDenied"), "grant s3:ListBucket"),
            (s3("write", "AccessDenied"), "grant s3:PutObject"),
            (s3("delete", "AccessDenied"), "grant s3:DeleteObject"),
            (s3("find", "AccessDenied"), "grant s3:GetObject"),
            (s3("read", "ExpiredToken"), "replace the AWS_*"),
            (
                s3("list", "NoSuchBucket"),
                "create the bucket, or correct --lake, AWS",
            ),
            (s3("write", "QuotaExceeded"), "free space in the store"),
            (
                azure("list", "AuthorizationPermissionMismatch"),
                "grant `blobs/read`",
            ),
            (
                azure("write", "AuthorizationFailure"),
                "grant `blobs/write`",
            ),
            (azure("read", "AuthenticationFailed"), "replace the AZURE_*"),
            (azure("list", "ContainerNotFound"), "create the container"),
            (google("list", "AccessDenied"), "grant storage.objects.list"),
            (
                google("write", "AccessDenied"),
                "grant storage.objects.create",
            ),
            (
                google("delete", "AccessDenied"),
                "grant storage.objects.delete",
            ),
            (google("find", "AccessDenied"), "grant storage.objects.get"),
            (
                google("read", "AuthenticationRequired"),
                "replace the GOOGLE_*",
            ),
            (
                google("list", "NoSuchBucket"),
                "create the bucket, or correct --lake",
            ),
            (file(ErrorKind::StorageFull), "free space on the disk"),
            (file(ErrorKind::PermissionDenied), "grant the user"),
        ] {
            let hint = error.hint().unwrap_or_default();
            assert!(hint.starts_with(expected), "{error:?}: {hint}");
        }
        assert_eq!(s3("read", "MethodNotAllowed").hint(), None);
    }

    #[test]
    fn refusals_of_a_metadata_service_ask_for_credentials() {
        for (path, url, expected) in [
            (
                "az://c/x",
                "169.254.169.254/metadata/identity/oauth2/token",
                "set AZURE_",
            ),
            (
                "gs://b/x",
                "metadata.google.internal/computeMetadata/v1/x",
                "set GOOGLE_",
            ),
            (
                "az://c/x",
                "login.microsoftonline.com/tenant/oauth2/v2.0/token",
                "replace the AZURE_*",
            ),
        ] {
            let error = StoreError::Objects {
                action: "read",
                path: path.to_owned(),
                source: ObjectError::Generic {
                    store: "any",
                    source: format!("Error performing token request: GET http://{url}: 400").into(),
                },
            };
            let hint = error.hint().unwrap_or_default();
            assert!(hint.starts_with(expected), "{url}: {hint}");
        }
    }

    #[test]
    fn hints_name_the_variables_of_the_store() {
        for (path, prefix) in [
            ("s3://b/x", "AWS_"),
            ("az://c/x", "AZURE_"),
            ("gs://b/x", "GOOGLE_"),
        ] {
            let (path, cause) = (path.to_owned(), "none".to_owned());
            let unavailable = StoreError::Unavailable {
                action: "read",
                path: path.clone(),
                seconds: 60,
                cause: cause.clone(),
            };
            let none = StoreError::NoCredentials {
                action: "read",
                path,
                cause,
            };
            for error in [unavailable, none] {
                let hint = error.hint().unwrap_or_default();
                assert!(hint.contains(prefix), "{hint}");
            }
        }
    }
}
