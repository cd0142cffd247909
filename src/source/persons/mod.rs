//! Personal data in a summary: found by the path of its keys, and replaced as the row streams past,
//! before anything else sees it. Pure.
//!
//! Harness names persons in many places and puts new ones beside them, and webhooks bring payloads
//! of other systems along. So the rules go by what a key means, wherever it stands:
//!
//! - Everything within what is named as a person is personal, except what is known to be none.
//! - A value or a key that is an e-mail address and nothing else is personal anywhere.
//! - The keys of some objects are names of stages, tags or axes: no rule reads them.
//!
//! Free text is left: commit messages, titles, notes, errors, branches, tags, names of things.

mod rules;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use crate::pii::Treatment;
use rules::{Meaning, email};

/// An object or an array that the scan is in.
struct Level {
    is_object: bool,
    meaning: Meaning,
    /// In an object: what the value means whose key was just read.
    value: Option<Meaning>,
}

/// Gives the summary with its personal data treated; `None` where there is none, or it stays. `summary`
/// must be JSON.
pub(super) fn scrub(summary: &[u8], treatment: &Treatment) -> Option<Bytes> {
    if treatment.keeps() {
        return None;
    }
    let mut scan = Scan {
        json: summary,
        at: 0,
        copied: 0,
        out: Vec::new(),
        treatment,
    };
    scan.run();
    if scan.copied == 0 {
        return None;
    }
    scan.out.extend_from_slice(&scan.json[scan.copied..]);
    Some(scan.out.into())
}

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    /// Up to here `out` holds what `json` says.
    copied: usize,
    out: Vec<u8>,
    treatment: &'a Treatment,
}

impl Scan<'_> {
    fn run(&mut self) {
        let mut levels: Vec<Level> = Vec::new();
        while let Some(byte) = self.json.get(self.at).copied() {
            match byte {
                b'{' | b'[' => {
                    let meaning = value_meaning(&mut levels);
                    levels.push(Level {
                        is_object: byte == b'{',
                        meaning,
                        value: None,
                    });
                    self.at += 1;
                }
                b'}' | b']' => {
                    levels.pop();
                    self.at += 1;
                }
                b'"' => {
                    let string = self.at..self.end_of_string();
                    self.at = string.end;
                    match levels.last_mut() {
                        Some(level) if level.is_object && level.value.is_none() => {
                            level.value = Some(self.key(string, level.meaning));
                        }
                        _ => {
                            let meaning = value_meaning(&mut levels);
                            self.string(string, meaning);
                        }
                    }
                }
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => self.at += 1,
                _ => {
                    let scalar = self.at..self.end_of_scalar();
                    self.at = scalar.end;
                    if value_meaning(&mut levels) == Meaning::Person
                        && matches!(byte, b'-' | b'0'..=b'9')
                    {
                        let text = String::from_utf8_lossy(&self.json[scalar.clone()]);
                        self.replace(scalar, &text);
                    }
                }
            }
        }
    }

    /// Reads a key; one that is an address, or within a person holds one, is replaced, too.
    fn key(&mut self, string: Range<usize>, within: Meaning) -> Meaning {
        let key = decoded(&self.json[string.clone()]);
        let meaning = within.of_member(&key);
        let address = email(&key).or((within == Meaning::Person).then_some(&*key));
        if let Some(address) = address.filter(|address| address.contains('@')) {
            let mut name = Vec::new();
            if self.treatment.replace(address, &mut name) {
                // Null is no key.
                let name = if name == b"null" {
                    b"\"\"".to_vec()
                } else {
                    name
                };
                self.put(string, &name);
            }
        }
        meaning
    }

    fn string(&mut self, string: Range<usize>, meaning: Meaning) {
        let raw = &self.json[string.clone()];
        // An `@` may be written as an escape.
        let may_be_email = || raw.iter().any(|byte| matches!(byte, b'@' | b'\\'));
        if meaning == Meaning::Person {
            let text = decoded(raw);
            self.replace(string, &text);
        } else if may_be_email() {
            let text = decoded(raw);
            if let Some(address) = email(&text) {
                self.replace(string, address);
            }
        }
    }

    fn replace(&mut self, value: Range<usize>, text: &str) {
        let mut instead = Vec::new();
        if self.treatment.replace(text, &mut instead) {
            self.put(value, &instead);
        }
    }

    fn put(&mut self, place: Range<usize>, instead: &[u8]) {
        self.out
            .extend_from_slice(&self.json[self.copied..place.start]);
        self.out.extend_from_slice(instead);
        self.copied = place.end;
    }

    fn end_of_string(&self) -> usize {
        let mut at = self.at + 1;
        while let Some(byte) = self.json.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.json.len()
    }

    fn end_of_scalar(&self) -> usize {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        let length = self.json[self.at..].iter().position(ends);
        length.map_or(self.json.len(), |length| self.at + length)
    }
}

/// What the value means that begins here.
fn value_meaning(levels: &mut [Level]) -> Meaning {
    match levels.last_mut() {
        None => Meaning::Plain,
        Some(level) if level.is_object => level.value.take().unwrap_or(Meaning::Plain),
        Some(level) => level.meaning,
    }
}

/// The text of a JSON string; as it is spelled where it holds half a surrogate pair.
fn decoded(raw: &[u8]) -> Cow<'_, str> {
    if raw.contains(&b'\\')
        && let Ok(text) = serde_json::from_slice::<String>(raw)
    {
        return text.into();
    }
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    String::from_utf8_lossy(inner)
}
