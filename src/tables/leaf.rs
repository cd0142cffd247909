//! What a JSON value says where a column asks for a time, a list or what stands within a text.
//!
//! Every reader gives `None` for a value that does not say it: the caller keeps such a value in
//! `extra`. Texts are borrowed from the summary unless they hold escapes.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::scan::{Scanner, Value};
use crate::window::is_sound;

/// Below this a commit time is in seconds (as ms it would lie before 1973).
const SECONDS_BELOW: i64 = 100_000_000_000;

/// Up to this many entries, sorting their fingerprints is quicker than hashing.
const FEW: usize = 32;

/// A time in ms since the epoch.
pub(super) fn time_ms(raw: Value<'_>) -> Option<i64> {
    raw.integer().filter(|ms| is_sound(*ms))
}

/// A time of a commit, which comes in seconds or in ms; in ms since the epoch.
pub(super) fn commit_time_ms(raw: Value<'_>) -> Option<i64> {
    let time = raw.integer()?;
    let ms = if (0..SECONDS_BELOW).contains(&time) {
        time * 1000
    } else {
        time
    };
    is_sound(ms).then_some(ms)
}

/// The distinct texts of a list, in its order, without nulls and empty ones; and whether nothing else is in it.
pub(super) fn texts(raw: Value<'_>) -> Option<(Vec<Cow<'_, str>>, bool)> {
    let items = raw.items()?;
    let mut texts = Vec::with_capacity(raw.at_most().min(FEW));
    let mut is_all = true;
    for item in items.filter(|item| !item.is_null()) {
        match item.text() {
            Some(text) if text.is_empty() => {}
            Some(text) => texts.push(text),
            None => is_all = false,
        }
    }
    first_of_each(&mut texts, |text| text);
    Some((texts, is_all))
}

/// The value as plain text: a text as it stands, an object or a list as JSON, null as none.
pub(super) fn plain(raw: Value<'_>) -> Option<Cow<'_, str>> {
    match raw.json() {
        "null" => None,
        json => Some(raw.text().unwrap_or(Cow::Borrowed(json))),
    }
}

/// The plain value of JSON within a text: `"\"eu\""` is `eu`, `"8"` is `8`, `"[1]"` is `[1]`. Text
/// that is no JSON stands for itself.
pub(super) fn plain_within_text(raw: Value<'_>) -> Option<Cow<'_, str>> {
    if let Some(text) = text_within_text(raw.json()) {
        return Some(Cow::Borrowed(text));
    }
    let outer = plain(raw)?;
    if !raw.json().starts_with('"') || is_word(&outer) {
        // JSON within a text says nothing by `null`, too.
        return (outer != "null").then_some(outer);
    }
    match Scanner::default().scan(&outer) {
        Some(inner) => plain(inner.root()).map(|plain| Cow::Owned(plain.into_owned())),
        None => Some(outer),
    }
}

/// What stands between the inner quotes of a text within a text, which has no other escapes.
fn text_within_text(json: &str) -> Option<&str> {
    let inner = json.strip_prefix(r#""\""#)?.strip_suffix(r#"\"""#)?;
    (!inner.contains('\\')).then_some(inner)
}

/// Whether a text stands for itself, be it JSON or not: it is not within quotes, and has no space around it.
fn is_word(text: &str) -> bool {
    let is_any = |byte: Option<&u8>, of: &[u8]| byte.is_none_or(|byte| of.contains(byte));
    let text = text.as_bytes();
    !is_any(text.first(), b"\" \t\r\n") && !is_any(text.last(), b" \t\r\n")
}

/// Keeps the first item of each key.
pub(super) fn first_of_each<T>(items: &mut Vec<T>, key: impl Fn(&T) -> &str) {
    if !has_repeats(items, &key) {
        return;
    }
    if FEW < items.len() {
        let mut seen = HashSet::new();
        items.retain(|item| seen.insert(key(item).to_owned()));
        return;
    }
    let mut kept = 0;
    for at in 0..items.len() {
        let is_known = |item: &T| key(item) == key(&items[at]);
        if !items[..kept].iter().any(is_known) {
            items.swap(kept, at);
            kept += 1;
        }
    }
    items.truncate(kept);
}

/// Keeps the last entry of each key; `lost` learns of the others.
pub(super) fn last_of_each<'a, V>(
    entries: &mut Vec<(Cow<'a, str>, V)>,
    mut lost: impl FnMut(Cow<'a, str>, V),
) {
    if !has_repeats(entries, |(key, _)| key) {
        return;
    }
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(entries.len());
    for (key, value) in entries.drain(..).rev() {
        if seen.insert(key.clone()) {
            kept.push((key, value));
        } else {
            lost(key, value);
        }
    }
    kept.reverse();
    *entries = kept;
}

fn has_repeats<T>(items: &[T], key: impl Fn(&T) -> &str) -> bool {
    if items.len() <= FEW {
        let mut prints = [0; FEW];
        let prints = &mut prints[..items.len()];
        for (print, item) in prints.iter_mut().zip(items) {
            *print = fingerprint(key(item));
        }
        prints.sort_unstable();
        if !prints.windows(2).any(|two| two[0] == two[1]) {
            return false;
        }
    }
    let mut seen = HashSet::with_capacity(items.len());
    !items.iter().all(|item| seen.insert(key(item)))
}

/// A number that texts which differ hardly share: it knows their first and last eight bytes.
fn fingerprint(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (first, last) = (
        prefix(bytes),
        bytes
            .last_chunk()
            .map_or(0, |last| u64::from_le_bytes(*last)),
    );
    first ^ last.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (bytes.len() as u64).rotate_right(8)
}

/// The first eight bytes as a number that is ordered as they are.
pub(super) fn prefix(bytes: &[u8]) -> u64 {
    if let Some(first) = bytes.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let mut first = [0; 8];
    first[..bytes.len()].copy_from_slice(bytes);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan;

    fn raw(json: &str) -> Value<'static> {
        scan::leaked(json).unwrap()
    }

    #[test]
    fn only_sound_times_are_believed() {
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
    fn lists_hold_distinct_texts_or_nothing() {
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
    fn values_of_a_matrix_are_unwrapped_once() {
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

    #[test]
    fn many_repetitions_are_found_as_well_as_few() {
        for n in [3, FEW * 2] {
            let entry = |at: usize| (Cow::Owned(format!("k{}", at % (n - 1))), at);
            let mut entries: Vec<_> = (0..n).map(entry).collect();
            let mut lost = Vec::new();
            last_of_each(&mut entries, |_, at| lost.push(at));
            assert_eq!((entries.len(), lost), (n - 1, vec![0]));
        }
    }
}
