//! Personal data: a lake keeps, hashes or drops it. The choice is made when the lake is created.
//!
//! [`source`](crate::source) knows which values of a summary are personal. This module treats a value.

use std::fmt;
use std::io::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Minimum characters of a key. Shorter keys can be guessed.
pub const SHORTEST_KEY: usize = 16;

/// The message whose keyed hash is the fingerprint of a key.
const FINGERPRINT_OF: &[u8] = b"harness-lake: the fingerprint of this key";

/// The actor of executions that no person started.
const NOBODY: &str = "systemUser";

/// The values of `--pii`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Store values as Harness returns them
    Keep,
    /// Replace each value by its HMAC-SHA256: equal values stay equal, but cannot be read
    Hash,
    /// Replace each value by null
    Drop,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keep => "keep",
            Self::Hash => "hash",
            Self::Drop => "drop",
        })
    }
}

/// The treatment of personal data in a lake, as stored in `_state/lake.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Policy {
    /// Keeps it.
    #[default]
    Keep,
    /// Hashes it.
    Hash {
        /// Identifies the key without revealing it.
        key_fingerprint: String,
    },
    /// Drops it.
    Drop,
}

impl Policy {
    fn mode(&self) -> Mode {
        match self {
            Self::Keep => Mode::Keep,
            Self::Hash { .. } => Mode::Hash,
            Self::Drop => Mode::Drop,
        }
    }
}

/// The key of the hashes.
#[derive(Clone, Debug)]
pub struct Key(SecretString);

impl Key {
    /// Creates a key; `None` for one that is too short.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (text.chars().count() >= SHORTEST_KEY).then(|| Self(SecretString::from(text.to_owned())))
    }

    /// Returns the fingerprint of the key.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0)
    }

    fn hmac(&self) -> Hmac<Sha256> {
        hmac(&self.0)
    }
}

/// Returns the fingerprint of a secret: 64 bits of a keyed hash of a constant.
pub fn fingerprint(secret: &SecretString) -> String {
    let mut hash = hmac(secret);
    hash.update(FINGERPRINT_OF);
    let mut text = Vec::new();
    write_hex(&hash.finalize().into_bytes()[..8], &mut text);
    String::from_utf8(text).expect("hexadecimal digits are text")
}

fn hmac(secret: &SecretString) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.expose_secret().as_bytes()).expect("HMAC takes a key of any length")
}

/// The treatment that the user requested. A key alone means `hash`; neither means that of the lake.
#[derive(Clone, Debug, Default)]
pub struct PiiRequest {
    /// `--pii`.
    pub mode: Option<Mode>,
    /// The key, if one is set.
    pub key: Option<Key>,
}

/// A difference between the requested treatment and that of the lake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The lake has another treatment.
    #[error("it was created with `--pii {lake}`, not with `--pii {requested}`")]
    Mode {
        /// The treatment of the lake.
        lake: Mode,
        /// The requested treatment.
        requested: Mode,
    },
    /// The lake hashes and no key is set.
    #[error(
        "it hashes personal data: set HARNESS_LAKE_PII_KEY or --pii-key-file to the key with the fingerprint {fingerprint}"
    )]
    NoKey {
        /// The fingerprint of the key of the lake.
        fingerprint: String,
    },
    /// The lake hashes with another key.
    #[error("it hashes personal data with the key with the fingerprint {lake}, not with {given}")]
    Key {
        /// The fingerprint of the key of the lake.
        lake: String,
        /// The fingerprint of the key that is set.
        given: String,
    },
}

impl PiiRequest {
    fn requested(&self) -> Option<Mode> {
        self.mode.or(self.key.as_ref().map(|_| Mode::Hash))
    }

    /// Returns the policy of a new lake.
    pub fn policy(&self) -> Policy {
        match (self.requested(), &self.key) {
            (Some(Mode::Drop), _) => Policy::Drop,
            (Some(Mode::Hash), Some(key)) => Policy::Hash {
                key_fingerprint: key.fingerprint(),
            },
            _ => Policy::Keep,
        }
    }

    /// Returns the treatment of personal data for a lake with this policy.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] where the policy differs from the request.
    pub fn agree(&self, policy: &Policy) -> Result<Redactor, Mismatch> {
        let lake = policy.mode();
        if let Some(requested) = self.requested().filter(|requested| *requested != lake) {
            return Err(Mismatch::Mode { lake, requested });
        }
        match (policy, &self.key) {
            (Policy::Keep, _) => Ok(Redactor::Keep),
            (Policy::Drop, _) => Ok(Redactor::Drop),
            (Policy::Hash { key_fingerprint }, None) => Err(Mismatch::NoKey {
                fingerprint: key_fingerprint.clone(),
            }),
            (Policy::Hash { key_fingerprint }, Some(key)) => {
                let given = key.fingerprint();
                if given == *key_fingerprint {
                    Ok(Redactor::Hash(Box::new(key.hmac())))
                } else {
                    Err(Mismatch::Key {
                        lake: key_fingerprint.clone(),
                        given,
                    })
                }
            }
        }
    }
}

/// The treatment of a personal value.
#[derive(Clone, Debug, Default)]
pub enum Redactor {
    /// Keeps it.
    #[default]
    Keep,
    /// Replaces it with null.
    Drop,
    /// Replaces it with a hash of its trimmed, lower-case text.
    Hash(Box<Hmac<Sha256>>),
}

impl Redactor {
    /// Returns whether values are kept.
    pub fn keeps(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// Writes the replacement of a personal value as JSON; returns false if the value is kept.
    pub(crate) fn replace(&self, text: &str, out: &mut Vec<u8>) -> bool {
        let person = text.trim();
        if person.is_empty() || person == NOBODY {
            return false;
        }
        match self {
            Self::Keep => return false,
            Self::Drop => out.extend_from_slice(b"null"),
            Self::Hash(hmac) => {
                let mut hash = hmac.as_ref().clone();
                hash.update(person.to_lowercase().as_bytes());
                out.push(b'"');
                write_hex(&hash.finalize().into_bytes(), out);
                out.push(b'"');
            }
        }
        true
    }
}

fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        write!(out, "{byte:02x}").expect("memory takes every write");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a key that is long enough";

    fn request(mode: Option<Mode>, key: Option<&str>) -> PiiRequest {
        PiiRequest {
            mode,
            key: key.map(|text| Key::new(text).unwrap()),
        }
    }

    fn hashed(key: &str, text: &str) -> String {
        let request = request(None, Some(key));
        let mut out = Vec::new();
        let treatment = request.agree(&request.policy()).unwrap();
        assert!(treatment.replace(text, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hash_depends_on_person_and_key_only() {
        let hash = hashed(KEY, "ada@example.com");
        // Existing lakes contain these values, and analysts may compute them: never change them.
        assert_eq!(
            hash,
            "\"7fcc7eee35a87701d4a07fc35d6f445406488b4a327ef5e70402fafef4ad5172\""
        );
        assert_eq!(hashed(KEY, "  Ada@Example.COM\n"), hash);
        assert_ne!(hashed(KEY, "bo@example.com"), hash);
        assert_ne!(hashed("another key, long enough", "ada@example.com"), hash);
    }

    #[test]
    fn system_user_and_blank_are_kept() {
        for text in ["", "  ", "systemUser"] {
            let mut out = Vec::new();
            assert!(!Redactor::Drop.replace(text, &mut out));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn key_is_trimmed_and_not_short() {
        assert!(Key::new("             short\n").is_none());
        let (one, same) = (
            Key::new(KEY).unwrap(),
            Key::new(&format!(" {KEY}\n")).unwrap(),
        );
        assert_eq!(one.fingerprint(), same.fingerprint());
        assert_eq!(one.fingerprint().len(), 16);
        assert!(!format!("{one:?}").contains(KEY));
    }

    #[test]
    fn policy_of_the_lake_is_the_default() {
        let nothing = request(None, None);
        assert_eq!(nothing.policy(), Policy::Keep);
        assert!(matches!(nothing.agree(&Policy::Drop), Ok(Redactor::Drop)));
        assert!(matches!(nothing.agree(&Policy::Keep), Ok(Redactor::Keep)));
        let hash = request(Some(Mode::Hash), Some(KEY)).policy();
        assert!(matches!(nothing.agree(&hash), Err(Mismatch::NoKey { .. })));
        let key = request(None, Some(KEY));
        assert!(matches!(key.agree(&hash), Ok(Redactor::Hash(_))));
    }

    #[test]
    fn other_mode_or_key_is_refused() {
        let hash = request(None, Some(KEY)).policy();
        let other = request(None, Some("another key, long enough"));
        assert!(matches!(other.agree(&hash), Err(Mismatch::Key { .. })));
        for (mode, policy) in [
            (Mode::Keep, &hash),
            (Mode::Drop, &hash),
            (Mode::Drop, &Policy::Keep),
            (Mode::Keep, &Policy::Drop),
            (Mode::Hash, &Policy::Keep),
        ] {
            let refused = request(Some(mode), Some(KEY)).agree(policy);
            assert!(matches!(refused, Err(Mismatch::Mode { .. })), "{mode}");
        }
        // A key alone means `hash`.
        assert!(other.agree(&Policy::Keep).is_err());
    }

    #[test]
    fn policy_is_stored_as_json() {
        let hash = request(None, Some(KEY)).policy();
        for (policy, mode) in [
            (&Policy::Keep, "keep"),
            (&hash, "hash"),
            (&Policy::Drop, "drop"),
        ] {
            let json = serde_json::to_value(policy).unwrap();
            assert_eq!(json["mode"], mode);
            assert_eq!(serde_json::from_value::<Policy>(json).unwrap(), *policy);
        }
    }
}
