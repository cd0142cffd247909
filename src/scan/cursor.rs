//! A text read value by value: for one that is too long to hold the spans of all that it holds.

use std::borrow::Cow;

use super::lex::{after_space, name};
use super::{Document, Scanner};

/// A place in a text that is to be JSON. Every reader gives `None` where it is not, or is something else
/// than what is read.
pub(crate) struct Cursor<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// The beginning of a text; `None` for one that is too long for offsets.
    pub(crate) fn new(json: &'a str) -> Option<Self> {
        (json.len() <= super::LONGEST).then_some(Self { json, at: 0 })
    }

    /// The byte that the next value begins with.
    pub(crate) fn next_byte(&self) -> Option<u8> {
        let bytes = self.json.as_bytes();
        bytes.get(after_space(bytes, self.at)).copied()
    }

    /// Reads the next value whole.
    pub(crate) fn value<'s>(&mut self, scanner: &'s mut Scanner) -> Option<Document<'s>>
    where
        'a: 's,
    {
        let (document, end) = scanner.scan_at(self.json, self.at)?;
        self.at = end;
        Some(document)
    }

    /// Reads an object: `each` has to read the value of every member, whose name is `None` where it
    /// holds half of a surrogate pair.
    pub(crate) fn object(
        &mut self,
        mut each: impl FnMut(&mut Self, Option<Cow<'_, str>>) -> Option<()>,
    ) -> Option<()> {
        let mut spans = Vec::with_capacity(1);
        self.held(b'{', b'}', |cursor| {
            spans.clear();
            let bytes = cursor.json.as_bytes();
            cursor.at = name(bytes, after_space(bytes, cursor.at), &mut spans)?;
            let document = Document::new(cursor.json, &spans);
            each(cursor, document.root().string())
        })
    }

    /// Reads a list: `each` has to read every item.
    pub(crate) fn list(&mut self, each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.held(b'[', b']', each)
    }

    /// Reads the end of the text.
    pub(crate) fn end(&self) -> Option<()> {
        self.next_byte().is_none().then_some(())
    }

    fn held(
        &mut self,
        open: u8,
        close: u8,
        mut each: impl FnMut(&mut Self) -> Option<()>,
    ) -> Option<()> {
        self.pass(open)?;
        if self.pass(close).is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            if self.pass(b',').is_none() {
                return self.pass(close);
            }
        }
    }

    fn pass(&mut self, byte: u8) -> Option<()> {
        let bytes = self.json.as_bytes();
        let at = after_space(bytes, self.at);
        let is_there = bytes.get(at) == Some(&byte);
        is_there.then(|| self.at = at + 1)
    }
}
