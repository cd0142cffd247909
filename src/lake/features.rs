//! The format and the features of a lake: what a program must know to read and write it.
//!
//! `_state/lake.json`, checkpoint records and pending lists begin with both. A file of a newer format, or with
//! an unknown feature, is refused and left unchanged.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::store::Store;

/// The newest format that this version knows, and the one that it writes.
pub const FORMAT: u32 = 1;

/// The features that this version knows. A lake names a feature if an older version would damage it.
pub const FEATURES: &[&str] = &[PERIOD_MONTH, DELTA];

/// The feature of lakes whose tables have an object a month.
pub const PERIOD_MONTH: &str = "period-month";

/// The feature of lakes with Delta tables: an older version would not update them.
pub const DELTA: &str = "delta";

/// An object that a newer version of this program wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} was written by a newer version of harness-lake: {reason}")]
pub struct Newer {
    /// The object.
    pub path: String,
    /// The part of it that this version does not know.
    pub reason: String,
}

impl Newer {
    /// Returns the error with the location of the lake before the path: a command may use two lakes.
    pub(super) fn at(self, store: &Store) -> Self {
        let lake = store.location().trim_end_matches('/');
        Self {
            path: format!("{lake}/{}", self.path),
            ..self
        }
    }
}

/// The members that every file of `_state` has, whatever its format.
#[derive(Deserialize)]
struct Header {
    #[serde(default = "first_format")]
    format: u32,
    #[serde(default)]
    features: BTreeSet<String>,
}

/// Returns the format of files without one: of the versions before 0.1.0.
pub(super) fn first_format() -> u32 {
    1
}

/// Checks that this version knows the format and all features of a JSON file of `_state`.
///
/// Succeeds for a damaged file: its reader reports the damage.
pub(super) fn check(path: &str, json: &[u8]) -> Result<(), Newer> {
    let Ok(header) = serde_json::from_slice::<Header>(json) else {
        return Ok(());
    };
    if header.format > FORMAT {
        return Err(newer(
            path,
            "format",
            &header.format.to_string(),
            &FORMAT.to_string(),
        ));
    }
    let is_unknown = |feature: &&String| !FEATURES.contains(&feature.as_str());
    match header.features.iter().find(is_unknown) {
        None => Ok(()),
        Some(feature) => Err(Newer {
            path: path.to_owned(),
            reason: format!("it needs the feature `{feature}`"),
        }),
    }
}

/// Returns the error of an object with a property that this version does not know.
pub(super) fn newer(path: &str, key: &str, found: &str, known: &str) -> Newer {
    Newer {
        path: path.to_owned(),
        reason: format!("its {key} is {found}, and this version knows {known}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_formats_and_unknown_features_are_refused() {
        let newer = [
            r#"{"format": 2}"#,
            r#"{"format": 1, "features": ["telepathy"]}"#,
            r#"{"format": 7, "features": [], "shape": {"of": "tomorrow"}}"#,
        ];
        for json in newer {
            let error = check("a file", json.as_bytes()).unwrap_err();
            let text = error.to_string();
            assert!(
                text.contains("by a newer version of harness-lake"),
                "{text}"
            );
        }
        for json in ["{}", r#"{"format": 1, "features": []}"#, "damaged"] {
            assert_eq!(check("a file", json.as_bytes()), Ok(()), "{json}");
        }
        for feature in FEATURES {
            let json = format!(r#"{{"format": 1, "features": ["{feature}"]}}"#);
            assert_eq!(check("a file", json.as_bytes()), Ok(()), "{feature}");
        }
    }
}
