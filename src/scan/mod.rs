//! A JSON tokenizer that finds the start and the end of every value in one pass.
//!
//! Pages are split into rows, rows are redacted and hashed, and tables read objects up to five levels
//! deep and copy columns out of the text. A parser that skips unused values would scan the inner levels
//! once per outer level. Here every byte is read once, and a value is then a pair of offsets.

use std::borrow::Cow;

pub(crate) use cursor::Cursor;
pub(crate) use read::exact_integer;

mod cursor;
mod lex;
mod read;
#[cfg(test)]
mod tests;

/// A tokenizer. It is reused between texts, so that its buffers are allocated once.
#[derive(Default)]
pub(crate) struct Scanner {
    spans: Vec<Span>,
    open: Vec<u32>,
}

/// The byte range of a value or a name. The children of an object or a list follow it: names and
/// values in turn, or items, each followed by its own children.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
    /// The index of the first span after this one and its descendants.
    next: u32,
    kind: Kind,
}

/// The kind of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `null`.
    Null,
    /// A string without escapes.
    Plain,
    /// A string with escapes.
    Escaped,
    /// A string with an escape that is half of a surrogate pair: it has no text.
    Broken,
    /// An object.
    Object,
    /// A list.
    List,
    /// A number or a boolean.
    Other,
}

/// A valid JSON text and its spans.
pub(crate) struct Document<'a> {
    json: &'a str,
    spans: &'a [Span],
}

/// One value of a document.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    document: &'a Document<'a>,
    at: u32,
}

/// An iterator over the direct children of an object (names and values in turn) or a list (items).
#[derive(Clone)]
pub(crate) struct Children<'a> {
    next: Value<'a>,
    end: u32,
}

/// The initial capacity for the members of an object.
const FEW: usize = 16;

/// Marks a slot whose value was taken; the index is kept for the name.
const TAKEN: u32 = 1 << 31;

/// The maximum length of a text in bytes: offsets and indices must not reach [`TAKEN`].
const LONGEST: usize = TAKEN as usize - 1;

/// Optional values of one document, one per field: a quarter of the size of `[Option<Value>; N]`.
pub(crate) struct Slots<'a, const N: usize> {
    document: Option<&'a Document<'a>>,
    /// The index of each value. Zero is the root, which no field can hold, so it means empty.
    at: [u32; N],
}

impl Scanner {
    /// Tokenizes a text; `None` unless it is exactly one JSON value.
    pub(crate) fn scan<'a>(&'a mut self, json: &'a str) -> Option<Document<'a>> {
        if LONGEST < json.len() {
            return None;
        }
        let (document, end) = self.scan_at(json, 0)?;
        let bytes = json.as_bytes();
        (lex::after_space(bytes, end) == bytes.len()).then_some(document)
    }

    /// Tokenizes the value at `at`, and returns its end, too.
    fn scan_at<'a>(&'a mut self, json: &'a str, at: usize) -> Option<(Document<'a>, usize)> {
        self.spans.clear();
        self.open.clear();
        let end = lex::read(json.as_bytes(), at, &mut self.spans, &mut self.open)?;
        Some((Document::new(json, &self.spans), end))
    }
}

impl<'a> Document<'a> {
    fn new(json: &'a str, spans: &'a [Span]) -> Self {
        Self { json, spans }
    }

    /// Returns the root's text with U+FFFD for each half of a surrogate pair; `None` if there is none.
    /// Some readers reject an entire document that contains one.
    pub(crate) fn repaired(&self) -> Option<String> {
        let is_broken = |span: &&Span| span.kind == Kind::Broken;
        let mut broken = self.spans.iter().filter(is_broken).peekable();
        broken.peek()?;
        let root = self.root().span();
        let (mut text, mut copied) = (String::new(), root.start as usize);
        for string in broken {
            let mut at = string.start as usize;
            while let Some(escape) = self.json[at..string.end as usize].find('\\') {
                at += escape;
                let (length, is_half) = lex::escape(&self.json.as_bytes()[at + 1..])?;
                if is_half {
                    text.push_str(&self.json[copied..at]);
                    text.push_str("\\ufffd");
                    copied = at + 1 + length;
                }
                at += 1 + length;
            }
        }
        text.push_str(&self.json[copied..root.end as usize]);
        Some(text)
    }

    /// Returns the root value.
    pub(crate) fn root(&self) -> Value<'_> {
        Value {
            document: self,
            at: 0,
        }
    }
}

impl<'a, const N: usize> Slots<'a, N> {
    pub(crate) fn empty() -> Self {
        Self {
            document: None,
            at: [0; N],
        }
    }

    pub(crate) fn get(&self, slot: usize) -> Option<Value<'a>> {
        let at = self.at[slot];
        (at & TAKEN == 0).then(|| self.value(at))?
    }

    pub(crate) fn take(&mut self, slot: usize) -> Option<Value<'a>> {
        let value = self.get(slot);
        self.at[slot] |= TAKEN;
        value
    }

    /// Undoes [`Slots::take`].
    pub(crate) fn restore(&mut self, slot: usize) {
        self.at[slot] &= !TAKEN;
    }

    /// Returns the name of the value that is or was in a slot.
    pub(crate) fn name(&self, slot: usize) -> Option<Cow<'a, str>> {
        self.value(self.at[slot] & !TAKEN)?.name().string()
    }

    fn value(&self, at: u32) -> Option<Value<'a>> {
        let document = self.document?;
        (at != 0).then_some(Value { document, at })
    }

    /// Sets a slot to a value other than the root.
    pub(crate) fn set(&mut self, slot: usize, value: Value<'a>) {
        self.document = Some(value.document);
        self.at[slot] = value.at;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at.iter().all(|at| *at == 0 || at & TAKEN != 0)
    }

    /// Iterates over the values that are set.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Value<'a>> {
        (0..N).filter_map(|slot| self.get(slot))
    }
}

impl<'a> Value<'a> {
    #[inline]
    fn span(self) -> Span {
        self.document.spans[self.at as usize]
    }

    fn sibling(self, at: u32) -> Self {
        Self { at, ..self }
    }

    /// Returns the JSON text of the value, without surrounding white space.
    pub(crate) fn json(self) -> &'a str {
        let Span { start, end, .. } = self.span();
        &self.document.json[start as usize..end as usize]
    }

    /// Returns the byte offset of the value in the text of its document.
    pub(crate) fn offset(self) -> usize {
        self.span().start as usize
    }

    #[inline]
    pub(crate) fn kind(self) -> Kind {
        self.span().kind
    }

    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// Returns the text of a string; `None` for any other value, and for a string with half of a
    /// surrogate pair.
    #[expect(clippy::inline_always, reason = "a twentieth of the time of tables")]
    #[inline(always)]
    pub(crate) fn string(self) -> Option<Cow<'a, str>> {
        match self.plain() {
            Some(plain) => Some(Cow::Borrowed(plain)),
            None => self.escaped(),
        }
    }

    #[inline(never)]
    fn escaped(self) -> Option<Cow<'a, str>> {
        (self.kind() == Kind::Escaped).then(|| unescape(self.inner()).map(Cow::Owned))?
    }

    /// Returns the text of a string without escapes; `None` for any other value.
    #[inline]
    pub(crate) fn plain(self) -> Option<&'a str> {
        (self.kind() == Kind::Plain).then(|| self.inner())
    }

    /// Returns the `N` bytes from the start of a string without escapes, and the length of the string:
    /// comparing a fixed number of bytes is faster. `None` near the end of the document, too.
    #[inline]
    pub(crate) fn inner_with_following<const N: usize>(self) -> Option<(&'a [u8; N], usize)> {
        let Span {
            start, end, kind, ..
        } = self.span();
        let bytes = self
            .document
            .json
            .as_bytes()
            .get(start as usize + 1..)?
            .first_chunk()?;
        (kind == Kind::Plain).then_some((bytes, (end - start) as usize - 2))
    }

    #[inline]
    fn inner(self) -> &'a str {
        let Span { start, end, .. } = self.span();
        &self.document.json[start as usize + 1..end as usize - 1]
    }

    /// Returns the name of a member of an object, as a value.
    pub(crate) fn name(self) -> Value<'a> {
        self.sibling(self.at - 1)
    }

    /// Returns whether both are the same value of one document.
    pub(crate) fn is_same(self, other: Self) -> bool {
        self.at == other.at
    }

    /// Returns whether exactly one byte, a comma or a colon, separates this value from the next.
    pub(crate) fn is_adjacent_to(self, next: Self) -> bool {
        self.span().end + 1 == next.span().start
    }

    /// Returns whether a member has no white space around its colon, and no escapes in its name.
    pub(crate) fn is_compact(self) -> bool {
        let name = self.name();
        name.kind() == Kind::Plain && name.is_adjacent_to(self)
    }

    /// Returns the text from this value to the end of a later value of the same document.
    pub(crate) fn json_to(self, last: Self) -> &'a str {
        &self.document.json[self.span().start as usize..last.span().end as usize]
    }

    /// Returns an upper bound of the number of children of an object or a list.
    pub(crate) fn max_children(self) -> usize {
        (self.span().next - self.at) as usize - 1
    }

    /// Returns the JSON text of a number or a boolean.
    pub(crate) fn scalar(self) -> Option<&'a str> {
        (self.kind() == Kind::Other).then(|| self.json())
    }

    /// Returns the items of a list.
    pub(crate) fn items(self) -> Option<Children<'a>> {
        (self.kind() == Kind::List).then(|| self.children())
    }

    /// Returns the names and values of an object.
    #[inline]
    pub(crate) fn pairs(self) -> Option<impl Iterator<Item = (Value<'a>, Value<'a>)>> {
        if self.kind() != Kind::Object {
            return None;
        }
        let mut children = self.children();
        Some(std::iter::from_fn(move || {
            Some((children.next()?, children.next()?))
        }))
    }

    /// Returns the children of an object or a list.
    #[inline]
    pub(crate) fn children(self) -> Children<'a> {
        let end = self.span().next;
        let next = self.sibling(self.at + 1);
        Children { next, end }
    }

    /// Calls `each` for every member of an object, in order; `None` for a value that is not an object,
    /// and as soon as a name has no text.
    pub(crate) fn each_member(self, mut each: impl FnMut(Cow<'a, str>, Value<'a>)) -> Option<()> {
        for (name, value) in self.pairs()? {
            each(name.string()?, value);
        }
        Some(())
    }

    /// Returns the members of an object, in order.
    pub(crate) fn members(self) -> Option<Vec<(Cow<'a, str>, Value<'a>)>> {
        let mut members = Vec::with_capacity(self.max_children().min(FEW));
        self.each_member(|name, value| members.push((name, value)))?;
        Some(members)
    }
}

impl<'a> Iterator for Children<'a> {
    type Item = Value<'a>;

    #[inline]
    fn next(&mut self) -> Option<Value<'a>> {
        let value = self.next;
        (value.at < self.end).then(|| {
            self.next.at = value.span().next;
            value
        })
    }
}

/// Replaces the escapes of a string; `None` if one is half of a surrogate pair. The result is never longer
/// than the input, so it is allocated once: `serde_json` grows its buffer, and threads then contend for the
/// allocator.
fn unescape(mut text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    while let Some((plain, escape)) = text.split_once('\\') {
        out.push_str(plain);
        let (char, length) = match *escape.as_bytes().first()? {
            b'b' => ('\u{8}', 1),
            b'f' => ('\u{c}', 1),
            b'n' => ('\n', 1),
            b'r' => ('\r', 1),
            b't' => ('\t', 1),
            b'u' => code_point(escape)?,
            itself => (char::from(itself), 1),
        };
        out.push(char);
        text = &escape[length..];
    }
    out.push_str(text);
    Some(out)
}

/// Decodes `u` and four digits, or a surrogate pair of two such escapes; returns the character and the
/// length of the input.
fn code_point(escape: &str) -> Option<(char, usize)> {
    let unit = |digits| u16::from_str_radix(escape.get(digits)?, 16).ok();
    let first = unit(1..5)?;
    if let Some(char) = char::from_u32(first.into()) {
        return Some((char, 5));
    }
    let second = (escape.get(5..7)? == "\\u").then(|| unit(7..11))??;
    let char = char::decode_utf16([first, second]).next()?.ok()?;
    Some((char, 11))
}

/// Returns the value of a text whose memory is leaked.
#[cfg(test)]
pub(crate) fn leaked(json: &str) -> Option<Value<'static>> {
    let json = Box::leak(Box::<str>::from(json));
    let document = Box::leak(Box::<Scanner>::default()).scan(json)?;
    Some(Box::leak(Box::new(document)).root())
}
