//! Conversions of JSON values to times, lists of texts, and plain text.
//!
//! A conversion returns `None` for an invalid value, and the caller keeps the value in `extra`. Texts
//! are borrowed from the summary unless they contain escapes.

use std::borrow::Cow;

use super::dedup;
use crate::scan::{Scanner, Value};
use crate::window::is_sound;

/// Commit times below this are in seconds. In ms they would be before 1973.
const SECONDS_BELOW: i64 = 100_000_000_000;

/// Initial capacity for the texts of a list; few lists have more.
const FEW: usize = 32;

/// Returns a time in ms since the epoch.
pub(super) fn time_ms(raw: Value<'_>) -> Option<i64> {
    raw.integer().filter(|ms| is_sound(*ms))
}

/// Returns a commit time in ms since the epoch. The server sends seconds or ms.
pub(super) fn commit_time_ms(raw: Value<'_>) -> Option<i64> {
    let time = raw.integer()?;
    let ms = if (0..SECONDS_BELOW).contains(&time) {
        time * 1000
    } else {
        time
    };
    is_sound(ms).then_some(ms)
}

/// Returns the distinct non-empty texts of a list, in order, and false if it contains other values.
pub(super) fn texts(raw: Value<'_>) -> Option<(Vec<Cow<'_, str>>, bool)> {
    let items = raw.items()?;
    let mut texts = Vec::with_capacity(raw.max_children().min(FEW));
    let mut is_complete = true;
    for item in items.filter(|item| !item.is_null()) {
        match item.text() {
            Some(text) if text.is_empty() => {}
            Some(text) => texts.push(text),
            None => is_complete = false,
        }
    }
    dedup::keep_first(&mut texts, |text| text);
    Some((texts, is_complete))
}

/// Returns a value as plain text: a text unquoted, an object or a list as JSON; `None` for null.
pub(super) fn plain(raw: Value<'_>) -> Option<Cow<'_, str>> {
    match raw.json() {
        "null" => None,
        json => Some(raw.text().unwrap_or(Cow::Borrowed(json))),
    }
}

/// Returns the plain value of JSON within a text: `"\"eu\""` is `eu`, `"8"` is `8`, `"[1]"` is `[1]`.
/// A text that is not JSON is returned unchanged.
pub(super) fn plain_within_text(raw: Value<'_>) -> Option<Cow<'_, str>> {
    if let Some(text) = text_within_text(raw.json()) {
        return Some(Cow::Borrowed(text));
    }
    let outer = plain(raw)?;
    if !raw.json().starts_with('"') || is_word(&outer) {
        // `null` within a text also means absent.
        return (outer != "null").then_some(outer);
    }
    match Scanner::default().scan(&outer) {
        Some(inner) => plain(inner.root()).map(|plain| Cow::Owned(plain.into_owned())),
        None => Some(outer),
    }
}

/// Returns the content of a quoted text within a text, if it has no other escapes.
fn text_within_text(json: &str) -> Option<&str> {
    let inner = json.strip_prefix(r#""\""#)?.strip_suffix(r#"\"""#)?;
    (!inner.contains('\\')).then_some(inner)
}

/// Returns true if a text is its own plain value: not quoted, and without white space around it.
fn is_word(text: &str) -> bool {
    let is_any = |byte: Option<&u8>, of: &[u8]| byte.is_none_or(|byte| of.contains(byte));
    let text = text.as_bytes();
    !is_any(text.first(), b"\" \t\r\n") && !is_any(text.last(), b" \t\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan;

    fn raw(json: &str) -> Value<'static> {
        scan::leaked(json).unwrap()
    }

    #[test]
    fn times_out_of_range_are_rejected() {
        assert_eq!(time_ms(raw("946684800000")), Some(946_684_800_000));
        for none in ["0", "-62135596800000", "946684799999", "4133980800000"] {
            assert_eq!(time_ms(raw(none)), None, "{none}");
        }
        assert_eq!(commit_time_ms(raw("1523879591")), Some(1_523_879_591_000));
        assert_eq!(
            commit_time_ms(raw("1610121306000")),
            Some(1_610_121_306_000)
        );
        assert_eq!(commit_time_ms(raw("-62135596800000")), None);
        assert_eq!(commit_time_ms(raw("0")), None);
    }

    #[test]
    fn lists_are_distinct_texts() {
        let list = raw(r#"["a",null,"b","a","",3]"#);
        assert_eq!(
            texts(list).unwrap(),
            (["a", "b", "3"].map(Cow::from).into(), true)
        );
        let mixed = raw(r#"["a",{}]"#);
        assert_eq!(texts(mixed).unwrap(), (vec!["a".into()], false));
        assert_eq!(texts(raw("\"a\"")), None);
    }

    #[test]
    fn matrix_values_are_unwrapped_once() {
        for (json, value) in [
            (r#""\"eu\"""#, "eu"),
            (r#""eu""#, "eu"),
            (r#""1.20""#, "1.20"),
            (r#""{\"a\":1}""#, r#"{"a":1}"#),
            (r#""\"a \\\"b\\\"\"""#, r#"a "b""#),
            (r#""\"""#, "\""),
            (r#""\"\"""#, ""),
            (r#""\"a\"b\"""#, r#""a"b""#),
            (r#"" 8 ""#, "8"),
            (r#""8 9""#, "8 9"),
            (r#""true""#, "true"),
            (r#""[1,""#, "[1,"),
            (r#""[1] ""#, "[1]"),
            (r#"" null?""#, " null?"),
            (r#"{"a":1}"#, r#"{"a":1}"#),
            ("7", "7"),
        ] {
            assert_eq!(plain_within_text(raw(json)).unwrap(), value, "{json}");
        }
        for null in ["null", r#""null""#, r#"" null""#] {
            assert_eq!(plain_within_text(raw(null)), None, "{null}");
        }
    }
}
