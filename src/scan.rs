//! One pass over a JSON text that finds where each value begins and ends.
//!
//! Pages are opened into rows, rows are hashed, and tables read objects within objects, five levels
//! deep, and cut columns out of the text. A parser that skips what it is not asked for would scan the
//! inner levels once for each outer one; here every byte is looked at once, and a value is then a pair
//! of offsets.

use std::borrow::Cow;

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

/// Members that an object has room for at first.
const FEW: usize = 16;

/// Marks a slot whose value was taken; the place is kept for the name.
const TAKEN: u32 = 1 << 31;

/// Values of one document, or none, each in the place of a field: a quarter of the size of values.
pub(crate) struct Slots<'a, const N: usize> {
    document: Option<&'a Document<'a>>,
    /// Zero, the place of the whole text, stands for none.
    at: [u32; N],
}

impl Scanner {
    /// Reads a text; `None` unless it is one JSON value.
    pub(crate) fn scan<'a>(&'a mut self, json: &'a str) -> Option<Document<'a>> {
        if u64::from(TAKEN) <= json.len() as u64 {
            return None;
        }
        self.spans.clear();
        self.open.clear();
        read(json.as_bytes(), &mut self.spans, &mut self.open)?;
        Some(Document {
            json,
            spans: &self.spans,
        })
    }
}

impl Document<'_> {
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
    pub(crate) fn leave(&mut self, slot: usize) {
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

    pub(crate) fn kind(self) -> Kind {
        self.span().kind
    }

    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// What a string says; `None` for any other value, and for half of a surrogate pair.
    pub(crate) fn string(self) -> Option<Cow<'a, str>> {
        let Span {
            start, end, kind, ..
        } = self.span();
        let inner = || &self.document.json[start as usize + 1..end as usize - 1];
        match kind {
            Kind::Plain => Some(Cow::Borrowed(inner())),
            Kind::Escaped => unescaped(inner()).map(Cow::Owned),
            _ => None,
        }
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
    pub(crate) fn items(self) -> Option<impl Iterator<Item = Value<'a>> + Clone> {
        (self.kind() == Kind::List).then(|| self.held())
    }

    /// Names and values of an object.
    pub(crate) fn pairs(self) -> Option<impl Iterator<Item = (Value<'a>, Value<'a>)>> {
        if self.kind() != Kind::Object {
            return None;
        }
        let mut held = self.held();
        Some(std::iter::from_fn(move || {
            Some((held.next()?, held.next()?))
        }))
    }

    fn held(self) -> impl Iterator<Item = Value<'a>> + Clone {
        let end = self.span().next;
        let within = move |at: u32| (at < end).then(|| self.sibling(at));
        std::iter::successors(within(self.at + 1), move |value| within(value.span().next))
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

/// What a text with escapes says; `None` where one is half of a surrogate pair. Never longer than it is
/// written.
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

/// Adds the spans of the one value that `bytes` are. `open` holds the objects and lists around the
/// place that is read, the innermost last.
fn read(bytes: &[u8], spans: &mut Vec<Span>, open: &mut Vec<u32>) -> Option<()> {
    let mut at = 0;
    loop {
        at = after_space(bytes, at);
        let start = at;
        let kind;
        (at, kind) = match *bytes.get(at)? {
            b'"' => string(bytes, at)?,
            b'{' => (at + 1, Kind::Object),
            b'[' => (at + 1, Kind::List),
            b't' => (word(bytes, at, b"true")?, Kind::Other),
            b'f' => (word(bytes, at, b"false")?, Kind::Other),
            b'n' => (word(bytes, at, b"null")?, Kind::Null),
            _ => (number(bytes, at)?, Kind::Other),
        };
        push(spans, start, at, kind);
        if matches!(kind, Kind::Object | Kind::List) {
            open.push(offset(spans.len() - 1));
            at = after_space(bytes, at);
            match (*bytes.get(at)?, kind) {
                (b'}', Kind::Object) | (b']', Kind::List) => {}
                (_, Kind::Object) => {
                    at = name(bytes, at, spans)?;
                    continue;
                }
                _ => continue,
            }
        }
        loop {
            at = after_space(bytes, at);
            let Some(around) = open.last() else {
                return (at == bytes.len()).then_some(());
            };
            let next = offset(spans.len());
            let around = &mut spans[*around as usize];
            let byte = *bytes.get(at)?;
            at += 1;
            match (byte, around.kind) {
                (b',', Kind::Object) => {
                    at = name(bytes, after_space(bytes, at), spans)?;
                    break;
                }
                (b',', _) => break,
                (b'}', Kind::Object) | (b']', Kind::List) => {
                    (around.end, around.next) = (offset(at), next);
                    open.pop();
                }
                _ => return None,
            }
        }
    }
}

/// Adds what stands between `start` and `end`.
#[inline]
fn push(spans: &mut Vec<Span>, start: usize, end: usize, kind: Kind) {
    spans.push(Span {
        start: offset(start),
        end: offset(end),
        next: offset(spans.len() + 1),
        kind,
    });
}

/// An offset or a count of spans: no more than the text has bytes, which are less than `TAKEN`.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
fn offset(at: usize) -> u32 {
    at as u32
}

/// Adds the name at `at`; gives where its value can begin.
#[inline]
fn name(bytes: &[u8], at: usize, spans: &mut Vec<Span>) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let (end, kind) = string(bytes, at)?;
    push(spans, at, end, kind);
    let at = after_space(bytes, end);
    (*bytes.get(at)? == b':').then_some(at + 1)
}

/// The end of the string at `at`.
#[inline]
fn string(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let mut kind = Kind::Plain;
    let mut at = at + 1;
    loop {
        at = end_of_plain(bytes, at);
        match *bytes.get(at)? {
            b'"' => return Some((at + 1, kind)),
            b'\\' => {
                kind = Kind::Escaped;
                at += 1 + escape_len(&bytes[at + 1..])?;
            }
            _ => return None,
        }
    }
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

/// The end of the number at `at`.
#[inline]
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = skip(bytes, at, b"-");
    at = match bytes.get(at)? {
        b'0' => at + 1,
        _ => digits(bytes, at)?,
    };
    if let Some(b'.') = bytes.get(at) {
        at = digits(bytes, at + 1)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at = digits(bytes, skip(bytes, at + 1, b"+-"))?;
    }
    Some(at)
}

fn digits(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    (0 < digits).then_some(at + digits)
}

fn skip(bytes: &[u8], at: usize, any_of: &[u8]) -> usize {
    let is_one = matches!(bytes.get(at), Some(byte) if any_of.contains(byte));
    at + usize::from(is_one)
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

#[inline]
fn after_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// The first byte from `at` on that ends a string, escapes or is a control character, eight bytes at
/// a time.
#[inline]
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        // A quote and the control characters are, with this bit turned, all that lies below `!`.
        let ends = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
        let escapes = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        // The lowest byte that is found is right; a borrow can only mark bytes above it.
        let found = (ends | escapes) & !word & HIGHS;
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
pub(crate) fn leaked(json: &str) -> Option<Value<'static>> {
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
        } else if let Some(pairs) = value.pairs() {
            let values: Vec<_> = pairs.map(|(_, value)| value).collect();
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
