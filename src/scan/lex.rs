//! The grammar of JSON: finds the end of values, names, strings and numbers.

use super::{Kind, Span};

/// Adds the spans of the value at `at`, and returns its end. `open` is a stack of the objects and lists that
/// are not closed yet.
pub(super) fn read(
    bytes: &[u8],
    mut at: usize,
    spans: &mut Vec<Span>,
    open: &mut Vec<u32>,
) -> Option<usize> {
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
            let Some(parent) = open.last() else {
                return Some(at);
            };
            at = after_space(bytes, at);
            let next = offset(spans.len());
            let parent = &mut spans[*parent as usize];
            let byte = *bytes.get(at)?;
            at += 1;
            match (byte, parent.kind) {
                (b',', Kind::Object) => {
                    at = name(bytes, after_space(bytes, at), spans)?;
                    break;
                }
                (b',', _) => break,
                (b'}', Kind::Object) | (b']', Kind::List) => {
                    (parent.end, parent.next) = (offset(at), next);
                    open.pop();
                }
                _ => return None,
            }
        }
    }
}

/// Adds a span.
#[inline]
fn push(spans: &mut Vec<Span>, start: usize, end: usize, kind: Kind) {
    spans.push(Span {
        start: offset(start),
        end: offset(end),
        next: offset(spans.len() + 1),
        kind,
    });
}

/// Narrows an offset or a count of spans: neither exceeds the length of the text, which is below `TAKEN`.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
fn offset(at: usize) -> u32 {
    at as u32
}

/// Adds the name at `at`; returns the position after its colon.
#[expect(clippy::inline_always, reason = "a tenth of the time of a scan")]
#[inline(always)]
pub(super) fn name(bytes: &[u8], at: usize, spans: &mut Vec<Span>) -> Option<usize> {
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let (end, kind) = string(bytes, at)?;
    push(spans, at, end, kind);
    let at = after_space(bytes, end);
    (*bytes.get(at)? == b':').then_some(at + 1)
}

/// Returns the end and the kind of the string at `at`.
#[expect(clippy::inline_always, reason = "a tenth of the time of a scan")]
#[inline(always)]
fn string(bytes: &[u8], at: usize) -> Option<(usize, Kind)> {
    let mut kind = Kind::Plain;
    let mut at = at + 1;
    loop {
        at = end_of_plain(bytes, at);
        match *bytes.get(at)? {
            b'"' => return Some((at + 1, kind)),
            b'\\' => {
                let (length, is_half) = escape(&bytes[at + 1..])?;
                kind = if is_half || kind == Kind::Broken {
                    Kind::Broken
                } else {
                    Kind::Escaped
                };
                at += 1 + length;
            }
            _ => return None,
        }
    }
}

/// Returns the length of an escape after its backslash, and whether it is half of a surrogate pair. A
/// complete pair counts as one escape.
pub(super) fn escape(rest: &[u8]) -> Option<(usize, bool)> {
    match rest.first()? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some((1, false)),
        b'u' => Some(match code_unit(&rest[1..])? {
            0xd800..0xdc00 => match rest[5..].strip_prefix(b"\\u").and_then(code_unit) {
                Some(0xdc00..0xe000) => (11, false),
                _ => (5, true),
            },
            0xdc00..0xe000 => (5, true),
            _ => (5, false),
        }),
        _ => None,
    }
}

/// Returns the value of four hexadecimal digits.
fn code_unit(digits: &[u8]) -> Option<u32> {
    let digits = digits.first_chunk::<4>()?.iter();
    digits
        .map(|digit| char::from(*digit).to_digit(16))
        .try_fold(0, |unit, digit| Some(unit << 4 | digit?))
}

/// Returns the end of the number at `at`.
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
    (digits > 0).then_some(at + digits)
}

fn skip(bytes: &[u8], at: usize, any_of: &[u8]) -> usize {
    let is_one = matches!(bytes.get(at), Some(byte) if any_of.contains(byte));
    at + usize::from(is_one)
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

#[inline]
pub(super) fn after_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Returns the position of the first quote, backslash or control character from `at` on. Reads eight
/// bytes at a time.
#[inline(always)]
fn end_of_plain(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        // With this bit flipped, the quote and the control characters are exactly the bytes below `!`.
        let ends = (word ^ (ONES * 2)).wrapping_sub(ONES * 0x21);
        let escapes = (word ^ (ONES * u64::from(b'\\'))).wrapping_sub(ONES);
        // The lowest marked byte is correct; a borrow can only mark bytes above it.
        let found = (ends | escapes) & !word & HIGHS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &&u8| !matches!(**byte, b'"' | b'\\' | 0..b' ');
    at + bytes[at..].iter().take_while(is_plain).count()
}
