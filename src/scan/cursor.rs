//! A reader that goes through a long text value by value, without keeping the spans of all of it.

use std::borrow::Cow;

use super::lex::{after_space, name};
use super::{Document, Scanner};

/// A position in a JSON text. Every method returns `None` for invalid JSON and for a value of another
/// kind.
pub(crate) struct Cursor<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Starts at the beginning of a text; `None` if it is too long for 32-bit offsets.
    pub(crate) fn new(json: &'a str) -> Option<Self> {
        (json.len() <= super::LONGEST).then_some(Self { json, at: 0 })
    }

    /// Returns the first byte of the next value.
    pub(crate) fn next_byte(&self) -> Option<u8> {
        let bytes = self.json.as_bytes();
        bytes.get(after_space(bytes, self.at)).copied()
    }

    /// Reads the next value.
    pub(crate) fn value<'s>(&mut self, scanner: &'s mut Scanner) -> Option<Document<'s>>
    where
        'a: 's,
    {
        let (document, end) = scanner.scan_at(self.json, self.at)?;
        self.at = end;
        Some(document)
    }

    /// Reads an object: `each` must read the value of every member. The name is `None` if it contains
    /// half of a surrogate pair.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Option<Cow<'_, str>>) -> Option<()>,
    ) -> Option<()> {
        let mut spans = Vec::with_capacity(1);
        self.delimited(b'{', b'}', |cursor| {
            spans.clear();
            let bytes = cursor.json.as_bytes();
            cursor.at = name(bytes, after_space(bytes, cursor.at), &mut spans)?;
            let document = Document::new(cursor.json, &spans);
            each(cursor, document.root().string())
        })
    }

    /// Reads a list: `each` must read every item.
    pub(crate) fn list(&mut self, each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.delimited(b'[', b']', each)
    }

    /// Returns `Some` at the end of the text.
    pub(crate) fn end(&self) -> Option<()> {
        self.next_byte().is_none().then_some(())
    }

    fn delimited(
        &mut self,
        open: u8,
        close: u8,
        mut each: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.eat(open)?;
        if self.eat(close).is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            if self.eat(b',').is_none() {
                return self.eat(close);
            }
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        let bytes = self.json.as_bytes();
        let at = after_space(bytes, self.at);
        let is_there = bytes.get(at) == Some(&byte);
        is_there.then(|| self.at = at + 1)
    }
}
