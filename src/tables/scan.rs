//! One pass over a JSON text that finds where each value begins and ends.
//!
//! Tables read objects within objects, five levels deep, and cut columns out of the text. A parser
//! that skips what it is not asked for would scan the inner levels once for each outer one; here
//! every byte is looked at once, and a value is then a pair of offsets.

use std::borrow::Cow;

/// The spans of one text; kept between texts so that its memory is used again.
#[derive(Default)]
pub(super) struct Scanner {
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    /// A string that says what stands between its quotes.
    Plain,
    Escaped,
    Object,
    List,
    /// A number or a boolean.
    Other,
}

/// A text that is JSON, with its spans.
pub(super) struct Document<'a> {
    json: &'a str,
    spans: &'a [Span],
}

/// One value of a document.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    document: &'a Document<'a>,
    at: u32,
}

/// Values of one document, or none, each in the place of a field: a quarter of the size of values.
pub(super) struct Slots<'a, const N: usize> {
    document: Option<&'a Document<'a>>,
    /// Zero, the place of the whole text, stands for none.
    at: [u32; N],
}

impl Scanner {
    /// Reads a text; `None` unless it is one JSON value.
    pub(super) fn scan<'a>(&'a mut self, json: &'a str) -> Option<Document<'a>> {
        u32::try_from(json.len()).ok()?;
        self.spans.clear();
        self.open.clear();
        let mut cursor = Cursor {
            bytes: json.as_bytes(),
            at: 0,
            spans: &mut self.spans,
            open: &mut self.open,
        };
        cursor.document()?;
        Some(Document {
            json,
            spans: &self.spans,
        })
    }
}

impl Document<'_> {
    /// The value that the whole text is.
    pub(super) fn root(&self) -> Value<'_> {
        Value {
            document: self,
            at: 0,
        }
    }
}

impl<'a, const N: usize> Slots<'a, N> {
    pub(super) fn empty() -> Self {
        Self {
            document: None,
            at: [0; N],
        }
    }

    pub(super) fn get(&self, slot: usize) -> Option<Value<'a>> {
        let document = self.document?;
        let at = self.at[slot];
        (at != 0).then_some(Value { document, at })
    }

    pub(super) fn take(&mut self, slot: usize) -> Option<Value<'a>> {
        let value = self.get(slot);
        self.at[slot] = 0;
        value
    }

    /// Sets a slot to a value that an object or a list of the document holds.
    pub(super) fn set(&mut self, slot: usize, value: Value<'a>) {
        self.document = Some(value.document);
        self.at[slot] = value.at;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at.iter().all(|at| *at == 0)
    }

    /// The values that are there, with their slots.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, Value<'a>)> {
        (0..N).filter_map(|slot| Some((slot, self.get(slot)?)))
    }
}

impl<'a> Value<'a> {
    fn span(self) -> Span {
        self.document.spans[self.at as usize]
    }

    fn sibling(self, at: u32) -> Self {
        Self { at, ..self }
    }

    /// The text of the value, without space around it.
    pub(super) fn json(self) -> &'a str {
        let Span { start, end, .. } = self.span();
        &self.document.json[start as usize..end as usize]
    }

    pub(super) fn is_null(self) -> bool {
        self.span().kind == Kind::Null
    }

    /// What a string says; `None` for any other value, and for half of a surrogate pair.
    pub(super) fn string(self) -> Option<Cow<'a, str>> {
        let Span {
            start, end, kind, ..
        } = self.span();
        match kind {
            Kind::Plain => {
                let inner = start as usize + 1..end as usize - 1;
                Some(Cow::Borrowed(&self.document.json[inner]))
            }
            Kind::Escaped => serde_json::from_str(self.json()).ok().map(Cow::Owned),
            _ => None,
        }
    }

    /// The spelling of a number or a boolean.
    pub(super) fn scalar(self) -> Option<&'a str> {
        (self.span().kind == Kind::Other).then(|| self.json())
    }

    /// The items of a list.
    pub(super) fn items(self) -> Option<impl Iterator<Item = Value<'a>>> {
        (self.span().kind == Kind::List).then(|| self.held())
    }

    /// Names and values of an object in turn.
    fn names_and_values(self) -> Option<impl Iterator<Item = Value<'a>>> {
        (self.span().kind == Kind::Object).then(|| self.held())
    }

    fn held(self) -> impl Iterator<Item = Value<'a>> {
        let end = self.span().next;
        let within = move |at: u32| (at < end).then(|| self.sibling(at));
        std::iter::successors(within(self.at + 1), move |value| within(value.span().next))
    }

    /// Hands each member of an object to `each`, in their order; `None` for a value that is no object,
    /// and as soon as a name cannot be read.
    pub(super) fn each_member(self, mut each: impl FnMut(Cow<'a, str>, Value<'a>)) -> Option<()> {
        let mut held = self.names_and_values()?;
        while let (Some(name), Some(value)) = (held.next(), held.next()) {
            each(name.string()?, value);
        }
        Some(())
    }

    /// The members of an object, in their order.
    pub(super) fn members(self) -> Option<Vec<(Cow<'a, str>, Value<'a>)>> {
        let mut members = Vec::new();
        self.each_member(|name, value| members.push((name, value)))?;
        Some(members)
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    spans: &'a mut Vec<Span>,
    /// The objects and lists around `at`, the innermost last.
    open: &'a mut Vec<u32>,
}

impl Cursor<'_> {
    fn document(&mut self) -> Option<()> {
        loop {
            if self.value()? {
                continue;
            }
            loop {
                let Some(around) = self.open.last() else {
                    self.space();
                    return (self.at == self.bytes.len()).then_some(());
                };
                let is_object = self.spans[*around as usize].kind == Kind::Object;
                match self.after_space()? {
                    b',' if is_object => {
                        self.at += 1;
                        self.name()?;
                        break;
                    }
                    b',' => {
                        self.at += 1;
                        break;
                    }
                    b'}' if is_object => self.close(),
                    b']' if !is_object => self.close(),
                    _ => return None,
                }
            }
        }
    }

    /// Reads a value, of an object or a list the beginning; whether a value must follow.
    fn value(&mut self) -> Option<bool> {
        match self.after_space()? {
            b'"' => self.string()?,
            b'{' => {
                self.open(Kind::Object);
                if self.after_space()? != b'}' {
                    self.name()?;
                    return Some(true);
                }
                self.close();
            }
            b'[' => {
                self.open(Kind::List);
                if self.after_space()? != b']' {
                    return Some(true);
                }
                self.close();
            }
            b't' => self.word(b"true", Kind::Other)?,
            b'f' => self.word(b"false", Kind::Other)?,
            b'n' => self.word(b"null", Kind::Null)?,
            _ => self.number()?,
        }
        Some(false)
    }

    fn name(&mut self) -> Option<()> {
        if self.after_space()? != b'"' {
            return None;
        }
        self.string()?;
        let is_colon = self.after_space()? == b':';
        self.at += 1;
        is_colon.then_some(())
    }

    fn open(&mut self, kind: Kind) {
        self.open.push(offset(self.spans.len()));
        self.push(self.at, kind);
        self.at += 1;
    }

    fn close(&mut self) {
        self.at += 1;
        let next = offset(self.spans.len());
        if let Some(around) = self.open.pop() {
            let span = &mut self.spans[around as usize];
            (span.end, span.next) = (offset(self.at), next);
        }
    }

    /// Adds what stands between `start` and here.
    fn push(&mut self, start: usize, kind: Kind) {
        let next = offset(self.spans.len() + 1);
        self.spans.push(Span {
            start: offset(start),
            end: offset(self.at),
            next,
            kind,
        });
    }

    fn string(&mut self) -> Option<()> {
        let start = self.at;
        let mut kind = Kind::Plain;
        self.at += 1;
        loop {
            self.at = end_of_plain(self.bytes, self.at);
            match self.bytes.get(self.at)? {
                b'"' => break,
                b'\\' => {
                    kind = Kind::Escaped;
                    self.at += escape_len(&self.bytes[self.at + 1..])? + 1;
                }
                _ => return None,
            }
        }
        self.at += 1;
        self.push(start, kind);
        Some(())
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        self.skip(b"-");
        if !self.skip(b"0") {
            self.digits()?;
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        self.push(start, Kind::Other);
        Some(())
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Option<()> {
        let start = self.at;
        if !self.bytes[start..].starts_with(word) {
            return None;
        }
        self.at += word.len();
        self.push(start, kind);
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let rest = &self.bytes[self.at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        (0 < digits).then_some(())
    }

    fn skip(&mut self, any_of: &[u8]) -> bool {
        let is_one = matches!(self.bytes.get(self.at), Some(byte) if any_of.contains(byte));
        self.at += usize::from(is_one);
        is_one
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn after_space(&mut self) -> Option<u8> {
        self.space();
        self.bytes.get(self.at).copied()
    }
}

/// An offset or a count of spans: no more than the text has bytes, which was compared with `u32`.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// The length of what follows a backslash.
fn escape_len(rest: &[u8]) -> Option<usize> {
    match rest.first()? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(1),
        b'u' => {
            let hex = rest.get(1..5)?;
            hex.iter().all(u8::is_ascii_hexdigit).then_some(5)
        }
        _ => None,
    }
}

/// The first byte from `at` on that ends a string, escapes or is a control character, eight bytes at
/// a time.
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    // The lowest byte that is found is right; a borrow can only mark bytes above it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let escapes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
        let found = (quotes | escapes | controls) & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &&u8| !matches!(**byte, b'"' | b'\\' | 0..b' ');
    at + bytes[at..].iter().take_while(is_plain).count()
}

/// The value that a text is, kept for ever.
#[cfg(test)]
pub(super) fn leaked(json: &str) -> Option<Value<'static>> {
    let json = Box::leak(Box::<str>::from(json));
    let document = Box::leak(Box::<Scanner>::default()).scan(json)?;
    Some(Box::leak(Box::new(document)).root())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// Compares every value of a document with what the library reads of the same text.
    fn compare(value: Value<'_>, raw: &RawValue) {
        assert_eq!(value.json(), raw.get());
        let string: Option<String> = serde_json::from_str(raw.get()).ok();
        assert_eq!(value.string().as_deref(), string.as_deref());
        if let Some(items) = value.items() {
            let items: Vec<_> = items.collect();
            let expected: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap();
            assert_eq!(items.len(), expected.len());
            for (item, raw) in items.into_iter().zip(expected) {
                compare(item, raw);
            }
        } else if let Some(held) = value.names_and_values() {
            let values: Vec<_> = held.skip(1).step_by(2).collect();
            let members = Members::read(raw.get());
            assert_eq!(value.members().is_some(), members.is_some());
            let Some(members) = members else { return };
            let names = value.members().unwrap().into_iter().map(|(name, _)| name);
            assert!(names.eq(members.iter().map(|(name, _)| name.as_str())));
            assert_eq!(values.len(), members.len());
            for (value, (_, raw)) in values.into_iter().zip(&members) {
                compare(value, raw);
            }
        }
    }

    /// The members of an object as the library reads them, repeated names included.
    struct Members;

    impl Members {
        fn read(json: &str) -> Option<Vec<(String, Box<RawValue>)>> {
            use serde::Deserializer as _;
            let mut reader = serde_json::Deserializer::from_str(json);
            reader.deserialize_map(Self).ok()
        }
    }

    impl<'de> serde::de::Visitor<'de> for Members {
        type Value = Vec<(String, Box<RawValue>)>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(
            self,
            mut map: A,
        ) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(member) = map.next_entry()? {
                members.push(member);
            }
            Ok(members)
        }
    }

    fn agree(json: &str) {
        let mut scanner = Scanner::default();
        let document = scanner.scan(json);
        let expected = serde_json::from_str::<&RawValue>(json).ok();
        assert_eq!(document.is_some(), expected.is_some(), "{json}");
        if let (Some(document), Some(expected)) = (&document, expected) {
            compare(document.root(), expected);
        }
    }

    #[test]
    fn reads_what_the_library_reads_and_refuses_what_it_refuses() {
        for json in [
            "",
            " ",
            "null",
            " true ",
            "falsey",
            "nul",
            "-",
            "-0",
            "01",
            "1.",
            ".5",
            "1.5e",
            "1e+7",
            "1E-7 ",
            "+1",
            "1 2",
            "\"",
            "\"\\",
            "\"\\u12",
            "\"\\u12g4\"",
            "\"\\ud800\"",
            "\"\\ud83d\\ude00\"",
            "\"\\x\"",
            "\"tab\there\"",
            "\"del \u{7f} é 漢 \u{0}\"",
            "\"seven77\" ",
            "\"exactly8!\"",
            "\"a long text with a quote \\\" far behind its beginning\"",
            "{}",
            "[]",
            "[ ]",
            "{ }",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1,[2,[3]],{}]",
            "{\"a\":1,}",
            "{\"a\" : [ ] , \"b\":{\"c\":null}}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{1:1}",
            "{\"a\":1]",
            "[1}",
            "]",
            "{\"\\ud800\":1}",
            "{\"a\":{\"\\ud800\":1},\"a\":2}",
            "\u{feff}{}",
            "{}\u{a0}",
        ] {
            agree(json);
        }
    }

    #[test]
    fn depth_takes_no_stack() {
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(Scanner::default().scan(&deep).is_some());
        assert!(Scanner::default().scan(&deep[1..]).is_none());
        assert!(Scanner::default().scan(&deep[..1_500_000]).is_none());
    }

    #[test]
    fn a_scanner_forgets_the_text_before() {
        let mut scanner = Scanner::default();
        assert!(scanner.scan("[[[[").is_none());
        assert_eq!(
            scanner.scan("[1]").unwrap().root().items().unwrap().count(),
            1
        );
    }

    proptest! {
        /// Any text of the bytes that JSON is made of.
        #[test]
        fn agrees_with_the_library_on_near_json(json in r#"[\[\]{}:,"\\0-9eE+.\-truefalsn u\t é]{0,24}"#) {
            agree(&json);
        }

        /// JSON with one place changed.
        #[test]
        fn agrees_with_the_library_on_broken_json(
            depth in 0_usize..4,
            text in "\\PC{0,20}",
            cut in any::<prop::sample::Index>(),
            with in r#"[\[\]{}:,"\\0-9\-a-z \x00]?"#,
        ) {
            let text = serde_json::to_string(&text).unwrap();
            let mut json = format!("[1.5e3,{text},null,{{}}]");
            for _ in 0..depth {
                json = format!("{{{text}: {json} , \"n\":-7}}");
            }
            agree(&json);
            let (at, char) = json.char_indices().nth(cut.index(json.chars().count())).unwrap();
            agree(&format!("{}{with}{}", &json[..at], &json[at + char.len_utf8()..]));
        }
    }
}
