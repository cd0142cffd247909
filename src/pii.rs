//! Personal data: whether a lake keeps it, hashes it or drops it. Decided at the lake's birth.
//!
//! Which values of a summary are personal is known to `source`; here is what becomes of one.

use std::fmt;
use std::io::Write as _;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// The characters that a key has at least: a shorter one is found by trying.
pub const SHORTEST_KEY: usize = 16;

/// What the fingerprint of a key is the hash of.
const FINGERPRINT_OF: &[u8] = b"harness-lake: the fingerprint of this key";

/// The actor that Harness names where no person acted.
const NOBODY: &str = "systemUser";

/// What is done with personal data, as it is typed.
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

/// What a lake does with personal data, as `_state/lake.json` tells it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Policy {
    /// Keeps it.
    #[default]
    Keep,
    /// Hashes it.
    Hash {
        /// Tells the key apart from others, and does not give it away.
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

/// The key that persons are hashed with.
#[derive(Clone, Debug)]
pub struct Key(SecretString);

impl Key {
    /// A key; `None` for one that is too short.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (SHORTEST_KEY <= text.chars().count()).then(|| Self(SecretString::from(text.to_owned())))
    }

    /// What tells the key apart from others.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.0)
    }

    fn hmac(&self) -> Hmac<Sha256> {
        hmac(&self.0)
    }
}

/// What tells a secret apart from others: 64 bits of a keyed hash of a constant.
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

/// What the user asked for; without a mode a key means `hash`, and nothing means what the lake does.
#[derive(Clone, Debug, Default)]
pub struct PiiRequest {
    /// `--pii`.
    pub mode: Option<Mode>,
    /// The key, where one is given.
    pub key: Option<Key>,
}

/// Why a wish and a lake do not agree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The lake does something else.
    #[error("it was born with `--pii {lake}`, and `--pii {asked}` is asked for")]
    Mode {
        /// What the lake does.
        lake: Mode,
        /// What was asked for.
        asked: Mode,
    },
    /// The lake hashes, and there is no key.
    #[error(
        "it hashes personal data, and there is no key: set HARNESS_LAKE_PII_KEY or --pii-key-file to the one with the fingerprint {fingerprint}"
    )]
    NoKey {
        /// Of the lake's key.
        fingerprint: String,
    },
    /// The lake hashes with another key.
    #[error(
        "it hashes personal data with the key of the fingerprint {lake}, and the key given has {given}"
    )]
    Key {
        /// Of the lake's key.
        lake: String,
        /// Of the key that was given.
        given: String,
    },
}

impl PiiRequest {
    fn asked(&self) -> Option<Mode> {
        self.mode.or(self.key.as_ref().map(|_| Mode::Hash))
    }

    /// What a lake that is born now does.
    pub fn policy(&self) -> Policy {
        match (self.asked(), &self.key) {
            (Some(Mode::Drop), _) => Policy::Drop,
            (Some(Mode::Hash), Some(key)) => Policy::Hash {
                key_fingerprint: key.fingerprint(),
            },
            _ => Policy::Keep,
        }
    }

    /// What becomes of personal data on its way into a lake of that policy.
    ///
    /// # Errors
    ///
    /// [`Mismatch`] where the lake does something else than is asked for.
    pub fn agree(&self, policy: &Policy) -> Result<Treatment, Mismatch> {
        let lake = policy.mode();
        if let Some(asked) = self.asked().filter(|asked| *asked != lake) {
            return Err(Mismatch::Mode { lake, asked });
        }
        match (policy, &self.key) {
            (Policy::Keep, _) => Ok(Treatment::Keep),
            (Policy::Drop, _) => Ok(Treatment::Drop),
            (Policy::Hash { key_fingerprint }, None) => Err(Mismatch::NoKey {
                fingerprint: key_fingerprint.clone(),
            }),
            (Policy::Hash { key_fingerprint }, Some(key)) => {
                let given = key.fingerprint();
                if given == *key_fingerprint {
                    Ok(Treatment::Hash(Box::new(key.hmac())))
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

/// What becomes of each personal value.
#[derive(Clone, Debug, Default)]
pub enum Treatment {
    /// It stays.
    #[default]
    Keep,
    /// It becomes null.
    Drop,
    /// It becomes a hash of its trimmed lower-cased text.
    Hash(Box<Hmac<Sha256>>),
}

impl Treatment {
    /// Whether everything stays as it is.
    pub fn keeps(&self) -> bool {
        matches!(self, Self::Keep)
    }

    /// Writes, as JSON, what stands for a personal value; false where the value is to stay.
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

    fn wish(mode: Option<Mode>, key: Option<&str>) -> PiiRequest {
        PiiRequest {
            mode,
            key: key.map(|text| Key::new(text).unwrap()),
        }
    }

    fn hashed(key: &str, text: &str) -> String {
        let wish = wish(None, Some(key));
        let mut out = Vec::new();
        let treatment = wish.agree(&wish.policy()).unwrap();
        assert!(treatment.replace(text, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_person_has_one_hash_however_written_and_another_under_another_key() {
        let hash = hashed(KEY, "ada@example.com");
        // Never to be edited: lakes hold these values, and analysts may compute them, too.
        assert_eq!(
            hash,
            "\"7fcc7eee35a87701d4a07fc35d6f445406488b4a327ef5e70402fafef4ad5172\""
        );
        assert_eq!(hashed(KEY, "  Ada@Example.COM\n"), hash);
        assert_ne!(hashed(KEY, "bo@example.com"), hash);
        assert_ne!(hashed("another key, long enough", "ada@example.com"), hash);
    }

    #[test]
    fn nobody_is_no_person() {
        for text in ["", "  ", "systemUser"] {
            let mut out = Vec::new();
            assert!(!Treatment::Drop.replace(text, &mut out));
            assert!(out.is_empty());
        }
    }

    #[test]
    fn a_key_does_without_white_space_and_is_not_short() {
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
    fn without_a_wish_a_lake_goes_on_as_it_was_born() {
        let nothing = wish(None, None);
        assert_eq!(nothing.policy(), Policy::Keep);
        assert!(matches!(nothing.agree(&Policy::Drop), Ok(Treatment::Drop)));
        assert!(matches!(nothing.agree(&Policy::Keep), Ok(Treatment::Keep)));
        let hash = wish(Some(Mode::Hash), Some(KEY)).policy();
        assert!(matches!(nothing.agree(&hash), Err(Mismatch::NoKey { .. })));
        let key = wish(None, Some(KEY));
        assert!(matches!(key.agree(&hash), Ok(Treatment::Hash(_))));
    }

    #[test]
    fn another_wish_or_key_is_refused() {
        let hash = wish(None, Some(KEY)).policy();
        let other = wish(None, Some("another key, long enough"));
        assert!(matches!(other.agree(&hash), Err(Mismatch::Key { .. })));
        for (mode, policy) in [
            (Mode::Keep, &hash),
            (Mode::Drop, &hash),
            (Mode::Drop, &Policy::Keep),
            (Mode::Keep, &Policy::Drop),
            (Mode::Hash, &Policy::Keep),
        ] {
            let refused = wish(Some(mode), Some(KEY)).agree(policy);
            assert!(matches!(refused, Err(Mismatch::Mode { .. })), "{mode}");
        }
        // A key alone asks for hashes.
        assert!(other.agree(&Policy::Keep).is_err());
    }

    #[test]
    fn lake_json_tells_the_policy() {
        let hash = wish(None, Some(KEY)).policy();
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
