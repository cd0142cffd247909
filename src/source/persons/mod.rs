//! Redaction of personal data in a summary, before any other code sees it. Pure.
//!
//! Harness names persons in many fields and adds new ones, and webhooks carry payloads of other
//! systems. So the rules go by the meaning of a key at any depth, not by a list of paths:
//!
//! - Everything inside a value that names a person is personal, except known impersonal keys.
//! - A value or a key that is exactly an e-mail address is personal anywhere.
//! - The keys of some objects are names of stages, tags or axes: no rule reads them.
//!
//! Free text stays: commit messages, titles, notes, errors, branches, tags, names of things.

mod rules;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use bytes::Bytes;

use crate::pii::Redactor;
use crate::scan::{Children, Kind, Value};
use rules::{Meaning, email};

/// Returns the summary with its personal data redacted; `None` if nothing changes.
pub(super) fn redact(summary: Value<'_>, redactor: &Redactor) -> Option<Bytes> {
    if redactor.keeps() {
        return None;
    }
    let start = summary.offset();
    let mut redaction = Redaction {
        json: summary.json(),
        start,
        copied: start,
        out: Vec::new(),
        redactor,
    };
    redaction.run(summary);
    (redaction.copied != start).then(|| redaction.finish().into())
}

/// An object or an array whose children are being read.
struct Level<'a> {
    children: Children<'a>,
    is_object: bool,
    meaning: Meaning,
}

/// A copy of a summary in which some values are replaced. Offsets are those of the document.
struct Redaction<'a> {
    json: &'a str,
    start: usize,
    /// The end of the text that `out` already covers.
    copied: usize,
    out: Vec<u8>,
    redactor: &'a Redactor,
}

impl<'a> Redaction<'a> {
    /// Visits every value. A stack replaces recursion, since a summary may be nested at any depth.
    fn run(&mut self, summary: Value<'a>) {
        let mut levels = Vec::new();
        self.visit(summary, Meaning::Plain, &mut levels);
        while let Some(level) = levels.last_mut() {
            let meaning = level.meaning;
            match level.children.next() {
                None => drop(levels.pop()),
                Some(key) if level.is_object => {
                    let value = level.children.next();
                    let meaning = self.key(key, meaning);
                    if let Some(value) = value {
                        self.visit(value, meaning, &mut levels);
                    }
                }
                Some(item) => self.visit(item, meaning, &mut levels),
            }
        }
    }

    fn visit(&mut self, value: Value<'a>, meaning: Meaning, levels: &mut Vec<Level<'a>>) {
        match value.kind() {
            kind @ (Kind::Object | Kind::List) => levels.push(Level {
                children: value.children(),
                is_object: kind == Kind::Object,
                meaning,
            }),
            Kind::Plain | Kind::Escaped | Kind::Broken => self.string(value, meaning),
            Kind::Other
                if meaning == Meaning::Person && !matches!(value.json(), "true" | "false") =>
            {
                self.redact(value, value.json());
            }
            Kind::Other | Kind::Null => {}
        }
    }

    /// Returns the meaning of a key's value. Redacts a key that is an address, or that contains one
    /// inside a person.
    fn key(&mut self, key: Value<'a>, within: Meaning) -> Meaning {
        let text = text(key);
        let meaning = within.of_member(&text);
        let address = email(&text).or((within == Meaning::Person).then_some(&*text));
        if let Some(address) = address.filter(|address| address.contains('@')) {
            let mut name = Vec::new();
            if self.redactor.replace(address, &mut name) {
                // Null cannot be a key.
                let name = if name == b"null" { b"\"\"" } else { &name[..] };
                self.put(key, name);
            }
        }
        meaning
    }

    fn string(&mut self, value: Value<'a>, meaning: Meaning) {
        // An `@` may be written as an escape.
        let may_be_email =
            || value.kind() != Kind::Plain || value.json().as_bytes().contains(&b'@');
        if meaning == Meaning::Person {
            self.redact(value, &text(value));
        } else if may_be_email() {
            let text = text(value);
            if let Some(address) = email(&text) {
                self.redact(value, address);
            }
        }
    }

    fn redact(&mut self, value: Value<'a>, text: &str) {
        let mut replacement = Vec::new();
        if self.redactor.replace(text, &mut replacement) {
            self.put(value, &replacement);
        }
    }

    /// Copies the text up to a value, then `replacement` in its place.
    fn put(&mut self, value: Value<'a>, replacement: &[u8]) {
        let at = value.offset();
        let before = &self.json[self.copied - self.start..at - self.start];
        self.out.extend_from_slice(before.as_bytes());
        self.out.extend_from_slice(replacement);
        self.copied = at + value.json().len();
    }

    fn finish(mut self) -> Vec<u8> {
        let rest = &self.json[self.copied - self.start..];
        self.out.extend_from_slice(rest.as_bytes());
        self.out
    }
}

/// Returns the text of a string; as it is written if it contains half of a surrogate pair.
fn text(string: Value<'_>) -> Cow<'_, str> {
    string.string().unwrap_or_else(|| {
        let json = string.json();
        Cow::Borrowed(&json[1..json.len() - 1])
    })
}
