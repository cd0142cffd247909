//! Parses the location of a lake: a path, `file:///path` or `s3://bucket/prefix`.

use std::path::PathBuf;

use object_store::path::Path;

use super::{StoreError, local};

/// The parsed location of a lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Location {
    /// An absolute folder.
    Folder(PathBuf),
    /// A prefix in a bucket. As in other tools, the prefix is literal: `%20` is no blank.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix of every object of the lake.
        prefix: Path,
        /// The location without trailing slashes.
        url: String,
    },
}

/// The accepted locations.
const EXPECTED: &str = "a path, file:///path or s3://bucket/prefix";

/// Returns the location of a lake as SQL engines take it: an absolute path or an S3 URL.
///
/// # Errors
///
/// As [`super::Store::open`], except for settings of the store.
pub fn normalized(text: &str) -> Result<String, StoreError> {
    Ok(match Location::parse(text)? {
        Location::Folder(folder) => folder.display().to_string(),
        Location::S3 { url, .. } => url,
    })
}

impl Location {
    /// Parses a location. A misspelled URL is an error and not the name of a folder.
    ///
    /// # Errors
    ///
    /// [`StoreError::Url`] and [`StoreError::UrlParts`]; [`StoreError::File`] if the current folder does not exist.
    pub(super) fn parse(text: &str) -> Result<Self, StoreError> {
        if text.is_empty() || text.trim() != text {
            return Err(invalid(
                text,
                &format!("{EXPECTED}, without blanks around it"),
            ));
        }
        match split_scheme(text) {
            Some(("s3" | "s3a", rest)) if rest.starts_with("//") => parse_s3(text, &rest[2..]),
            Some(("file", rest)) if rest.starts_with("//") => parse_file(text),
            Some((scheme, rest)) => Err(misspelled(text, scheme, rest)),
            None => match text.split_once("//") {
                Some((scheme @ ("s3" | "s3a" | "file"), rest)) => {
                    Err(misspelled(text, scheme, &format!("/{rest}")))
                }
                _ => folder(text.as_ref()),
            },
        }
    }
}

/// Splits a text at its first colon, if a URL scheme precedes it.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme.then_some((scheme, rest))
}

fn parse_s3(text: &str, rest: &str) -> Result<Location, StoreError> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.contains('@') || rest.contains(['?', '#']) {
        return Err(StoreError::UrlParts);
    }
    let is_bucket_char = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if bucket.is_empty() || !bucket.chars().all(is_bucket_char) {
        return Err(invalid(text, "s3://bucket/prefix"));
    }
    let prefix = prefix.trim_end_matches('/');
    let path = Path::parse(prefix).ok();
    let path = path.filter(|path| path.as_ref() == prefix).ok_or_else(|| {
        let expected = "a prefix without empty parts, `.`, `..` and control characters";
        invalid(text, expected)
    })?;
    Ok(Location::S3 {
        bucket: bucket.to_owned(),
        prefix: path,
        url: text.trim_end_matches('/').to_owned(),
    })
}

fn parse_file(text: &str) -> Result<Location, StoreError> {
    let expected = "file:///path; percent-encode `?`, `#` and `%` in it, or give the plain path";
    let url = url::Url::parse(text).ok();
    let url = url.filter(|url| url.query().or(url.fragment()).is_none());
    let path = url.and_then(|url| url.to_file_path().ok());
    folder(&path.ok_or_else(|| invalid(text, expected))?)
}

fn folder(path: &std::path::Path) -> Result<Location, StoreError> {
    match local::absolute(path) {
        Ok(folder) => Ok(Location::Folder(folder)),
        Err(source) => Err(StoreError::File {
            action: "resolve",
            path: path.display().to_string(),
            source,
        }),
    }
}

fn invalid(text: &str, expected: &str) -> StoreError {
    StoreError::Url {
        url: redacted(text),
        expected: expected.to_owned(),
    }
}

/// Returns the error for a URL with an unknown scheme, or with a known one that is written incorrectly. Contains the
/// correct spelling.
fn misspelled(text: &str, scheme: &str, rest: &str) -> StoreError {
    let rest = redacted(rest);
    let path = rest.trim_start_matches('/');
    let expected = match scheme.to_ascii_lowercase().as_str() {
        scheme @ ("s3" | "s3a") => format!("`{scheme}://{path}`"),
        "file" if rest.starts_with('/') => format!("`file:///{path}` or `/{path}`"),
        "file" => format!("`{rest}`"),
        _ if rest.starts_with("//") => EXPECTED.to_owned(),
        _ => format!(
            "{EXPECTED}; for a folder of that name, `./{}`",
            redacted(text)
        ),
    };
    invalid(text, &expected)
}

/// Removes the user and the password from a URL, so that it can be printed.
fn redacted(text: &str) -> String {
    let start = match (text.find("//"), split_scheme(text)) {
        (Some(slashes), _) => slashes + 2,
        (None, Some((scheme, _))) => scheme.len() + 1,
        (None, None) => 0,
    };
    let slashes = text[start..].bytes().take_while(|byte| *byte == b'/');
    let start = start + slashes.count();
    let end = text[start..].find('/').map_or(text.len(), |at| start + at);
    match text[start..end].rsplit_once('@') {
        Some((_, host)) => format!("{}…@{host}{}", &text[..start], &text[end..]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Location::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn misspelled_urls_are_no_folders() {
        for (text, expected) in [
            ("s3:/b/x", "`s3://b/x`"),
            ("s3:b/x", "`s3://b/x`"),
            ("s3:///b/x", "s3://bucket/prefix"),
            ("s3//b/x", "`s3://b/x`"),
            ("S3://b/x", "`s3://b/x`"),
            ("S3a:/b/x", "`s3a://b/x`"),
            ("file:/x/y", "`file:///x/y` or `/x/y`"),
            ("file:x/y", "`x/y`"),
            ("File:///x", "`file:///x` or `/x`"),
            ("file:///x#1", "percent-encode"),
            ("gs://b/x", EXPECTED),
            ("GS:/b/x", "`./GS:/b/x`"),
            ("hdfs:x", "`./hdfs:x`"),
            ("C:\\lake", EXPECTED),
            ("s3://minio:9000/b/x", "s3://bucket/prefix"),
            (" s3://b/x", "without blanks"),
            ("s3://b/x\n", "without blanks"),
            ("./lake ", "without blanks"),
        ] {
            let message = error(text);
            let start = format!("invalid lake location `{text}`: expected ");
            assert!(message.starts_with(&start), "{message}");
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn paths_with_colons_are_folders() {
        for text in ["./s3:/b", "/data/s3:/b", "2026-11-24T10:00/lake", "a/b:c"] {
            let location = Location::parse(text).unwrap();
            assert!(matches!(location, Location::Folder(_)), "{text}");
        }
        let root = Location::parse("file:///a%20b").unwrap();
        assert_eq!(root, Location::Folder(PathBuf::from("/a b")));
    }

    #[test]
    fn prefix_is_literal() {
        for prefix in ["a%20b", "a b", "ü/~{x}", "a@b"] {
            let text = format!("s3://b/{prefix}");
            let Location::S3 { prefix: path, .. } = Location::parse(&text).unwrap() else {
                panic!("{text} is in a bucket")
            };
            assert_eq!(path.as_ref(), prefix);
            assert_eq!(normalized(&format!("{text}/")).unwrap(), text);
        }
        for prefix in ["/x", "a//b", "a/../b", "./a", "a\tb"] {
            assert!(error(&format!("s3://b/{prefix}")).contains("expected a prefix"));
        }
    }

    #[test]
    fn credentials_are_not_printed() {
        for text in [
            "gs://id:secret@b/x",
            "S3:/id:secret@b/x",
            "s3//id:secret@b/x",
        ] {
            let message = error(text);
            assert!(
                message.contains("…@b/x") && !message.contains("secret"),
                "{message}"
            );
        }
        assert!(!error("s3://id:secret@b/x").contains("secret"));
    }
}
