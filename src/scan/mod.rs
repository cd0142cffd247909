//! One pass over a JSON text that finds where each value begins and ends.
//!
//! Pages are opened into rows, rows are hashed, and tables read objects within objects, five levels
//! deep, and cut columns out of the text. A parser that skips what it is not asked for would scan the
//! inner levels once for each outer one; here every byte is looked at once, and a value is then a pair
//! of offsets.

use std::borrow::Cow;

pub(crate) use cursor::Cursor;
pub(crate) use read::whole;

mod cursor;
mod lex;
mod read;
#[cfg(test)]
mod tests;

/// The spans of one text; kept between texts so that its memory is used again.
#[derive(Default)]
pub(crate) struct Scanner {
    spans: Vec<Span>,
    open: Vec<u32>,
}

/// Where a value or a name stands, in bytes. What an object or a list holds follows it: names and
/// values in turn, or items, each with what it holds itself.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
    /// The span behind this one and all that it holds.
    next: u32,
    kind: Kind,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `null`.
    Null,
    /// A string that says what stands between its quotes.
    Plain,
    /// A string with escapes.
    Escaped,
    /// A string in which an escape is half of a surrogate pair: it says nothing.
    Broken,
    /// An object.
    Object,
    /// A list.
    List,
    /// A number or a boolean.
    Other,
}

/// A text that is JSON, with its spans.
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

/// What an object or a list holds itself, in its order.
#[derive(Clone)]
pub(crate) struct Held<'a> {
    next: Value<'a>,
    end: u32,
}

/// Members that an object has room for at first.
const FEW: usize = 16;

/// Marks a slot whose value was taken; the place is kept for the name.
const TAKEN: u32 = 1 << 31;

/// Bytes of a text whose places and spans can be told, and told from those that are taken.
const LONGEST: usize = TAKEN as usize - 1;

/// Values of one document, or none, each in the place of a field: a quarter of the size of values.
pub(crate) struct Slots<'a, const N: usize> {
    document: Option<&'a Document<'a>>,
    /// Zero, the place of the whole text, stands for none.
    at: [u32; N],
}

impl Scanner {
    /// Reads a text; `None` unless it is one JSON value.
    pub(crate) fn scan<'a>(&'a mut self, json: &'a str) -> Option<Document<'a>> {
        if LONGEST < json.len() {
            return None;
        }
        let (document, end) = self.scan_at(json, 0)?;
        let bytes = json.as_bytes();
        (lex::after_space(bytes, end) == bytes.len()).then_some(document)
    }

    /// Reads the value at `at`; gives its end, too.
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

    /// The root's text with U+FFFD for each half of a surrogate pair; `None` where there is none. JSON with one
    /// is refused whole by some readers.
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

    /// The value that the whole text is.
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

    /// Puts a value that was taken back into its slot.
    pub(crate) fn restore(&mut self, slot: usize) {
        self.at[slot] &= !TAKEN;
    }

    /// The name of the value that is or was in a slot.
    pub(crate) fn name(&self, slot: usize) -> Option<Cow<'a, str>> {
        self.value(self.at[slot] & !TAKEN)?.name().string()
    }

    fn value(&self, at: u32) -> Option<Value<'a>> {
        let document = self.document?;
        (at != 0).then_some(Value { document, at })
    }

    /// Sets a slot to a value that an object or a list of the document holds.
    pub(crate) fn set(&mut self, slot: usize, value: Value<'a>) {
        self.document = Some(value.document);
        self.at[slot] = value.at;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at.iter().all(|at| *at == 0 || at & TAKEN != 0)
    }

    /// The values that are there.
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

    /// The text of the value, without space around it.
    pub(crate) fn json(self) -> &'a str {
        let Span { start, end, .. } = self.span();
        &self.document.json[start as usize..end as usize]
    }

    #[inline]
    pub(crate) fn kind(self) -> Kind {
        self.span().kind
    }

    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// What a string says; `None` for any other value, and for half of a surrogate pair.
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
        (self.kind() == Kind::Escaped).then(|| unescaped(self.inner()).map(Cow::Owned))?
    }

    /// What stands between the quotes of a string without escapes; `None` for any other value.
    #[inline]
    pub(crate) fn plain(self) -> Option<&'a str> {
        (self.kind() == Kind::Plain).then(|| self.inner())
    }

    /// The bytes from where a string without escapes begins, and how many of them are its own.
    #[inline]
    pub(crate) fn inner_and_more<const N: usize>(self) -> Option<(&'a [u8; N], usize)> {
        let Span {
            start, end, kind, ..
        } = self.span();
        let more = self
            .document
            .json
            .as_bytes()
            .get(start as usize + 1..)?
            .first_chunk()?;
        (kind == Kind::Plain).then_some((more, (end - start) as usize - 2))
    }

    #[inline]
    fn inner(self) -> &'a str {
        let Span { start, end, .. } = self.span();
        &self.document.json[start as usize + 1..end as usize - 1]
    }

    /// The name of a value that is a member of an object, as a value.
    pub(crate) fn name(self) -> Value<'a> {
        self.sibling(self.at - 1)
    }

    /// Whether both stand in the same place of one document.
    pub(crate) fn is(self, other: Self) -> bool {
        self.at == other.at
    }

    /// Whether only one byte, a comma or a colon, stands between a value and the one that follows it.
    pub(crate) fn touches(self, next: Self) -> bool {
        self.span().end + 1 == next.span().start
    }

    /// Whether a member is written without white space around its colon, and its name without escapes.
    pub(crate) fn is_compact(self) -> bool {
        let name = self.name();
        name.kind() == Kind::Plain && name.touches(self)
    }

    /// The text from here to the end of a later value of the same document.
    pub(crate) fn json_to(self, last: Self) -> &'a str {
        &self.document.json[self.span().start as usize..last.span().end as usize]
    }

    /// The most values that an object or a list can hold.
    pub(crate) fn at_most(self) -> usize {
        (self.span().next - self.at) as usize - 1
    }

    /// The spelling of a number or a boolean.
    pub(crate) fn scalar(self) -> Option<&'a str> {
        (self.kind() == Kind::Other).then(|| self.json())
    }

    /// The items of a list.
    pub(crate) fn items(self) -> Option<Held<'a>> {
        (self.kind() == Kind::List).then(|| self.held())
    }

    /// Names and values of an object.
    #[inline]
    pub(crate) fn pairs(self) -> Option<impl Iterator<Item = (Value<'a>, Value<'a>)>> {
        if self.kind() != Kind::Object {
            return None;
        }
        let mut held = self.held();
        Some(std::iter::from_fn(move || {
            Some((held.next()?, held.next()?))
        }))
    }

    #[inline]
    fn held(self) -> Held<'a> {
        let end = self.span().next;
        let next = self.sibling(self.at + 1);
        Held { next, end }
    }

    /// Hands each member of an object to `each`, in their order; `None` for a value that is no object,
    /// and as soon as a name cannot be read.
    pub(crate) fn each_member(self, mut each: impl FnMut(Cow<'a, str>, Value<'a>)) -> Option<()> {
        for (name, value) in self.pairs()? {
            each(name.string()?, value);
        }
        Some(())
    }

    /// The members of an object, in their order.
    pub(crate) fn members(self) -> Option<Vec<(Cow<'a, str>, Value<'a>)>> {
        let mut members = Vec::with_capacity(self.at_most().min(FEW));
        self.each_member(|name, value| members.push((name, value)))?;
        Some(members)
    }
}

impl<'a> Iterator for Held<'a> {
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

/// What a text with escapes says; `None` where one is half of a surrogate pair. It is never longer than it
/// is written, so its room is known: the library lets it grow, which makes threads wait for each other.
fn unescaped(mut text: &str) -> Option<String> {
    let mut said = String::with_capacity(text.len());
    while let Some((plain, escape)) = text.split_once('\\') {
        said.push_str(plain);
        let (char, length) = match *escape.as_bytes().first()? {
            b'b' => ('\u{8}', 1),
            b'f' => ('\u{c}', 1),
            b'n' => ('\n', 1),
            b'r' => ('\r', 1),
            b't' => ('\t', 1),
            b'u' => code_point(escape)?,
            itself => (char::from(itself), 1),
        };
        said.push(char);
        text = &escape[length..];
    }
    said.push_str(text);
    Some(said)
}

/// The character of one `u` with four digits or, with another escape behind it, of a surrogate pair; and
/// how long they are.
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

/// The value that a text is, kept for ever.
#[cfg(test)]
pub(crate) fn leaked(json: &str) -> Option<Value<'static>> {
    let json = Box::leak(Box::<str>::from(json));
    let document = Box::leak(Box::<Scanner>::default()).scan(json)?;
    Some(Box::leak(Box::new(document)).root())
}
