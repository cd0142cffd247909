use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

/// Compares every value of a document with `serde_json`.
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

/// The members of an object as `serde_json` reads them, including repeated names.
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

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

/// Reads the next value and enters every object and list.
fn walk(cursor: &mut Cursor<'_>) -> Option<()> {
    match cursor.next_byte()? {
        b'{' => cursor.object(|cursor, _| walk(cursor)),
        b'[' => cursor.list(walk),
        _ => cursor.value(&mut Scanner::default()).map(drop),
    }
}

fn agree(json: &str) {
    let mut scanner = Scanner::default();
    let document = scanner.scan(json);
    let mut cursor = Cursor::new(json).unwrap();
    let walked = walk(&mut cursor).and_then(|()| cursor.end());
    assert_eq!(document.is_some(), walked.is_some(), "{json}");
    let expected = serde_json::from_str::<&RawValue>(json).ok();
    assert_eq!(document.is_some(), expected.is_some(), "{json}");
    if let (Some(document), Some(expected)) = (&document, expected) {
        compare(document.root(), expected);
    }
}

#[test]
fn accepts_and_rejects_the_same_texts_as_serde_json() {
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
fn repair_replaces_only_halves_of_surrogate_pairs() {
    for (before, after) in [
        (r#"{"a":"\ud83d\ude00","b":"\\ud83d","c":"\n"}"#, None),
        (r#" "\ud83d" "#, Some(r#""\ufffd""#)),
        (
            r#"["\uDE00 x\uD83D\uD83D\uDE00\"","\ud83d\\ude00",{"\udfff":1}, 2]"#,
            Some(r#"["\ufffd x\ufffd\uD83D\uDE00\"","\ufffd\\ude00",{"\ufffd":1}, 2]"#),
        ),
    ] {
        let mut scanner = Scanner::default();
        let repaired = scanner.scan(before).unwrap().repaired();
        assert_eq!(repaired.as_deref(), after, "{before}");
        if let Some(repaired) = repaired {
            assert!(serde_json::from_str::<serde_json::Value>(&repaired).is_ok());
        }
    }
}

#[test]
fn deep_nesting_uses_no_stack() {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert!(Scanner::default().scan(&deep).is_some());
    assert!(Scanner::default().scan(&deep[1..]).is_none());
    assert!(Scanner::default().scan(&deep[..1_500_000]).is_none());
}

#[test]
fn scanner_is_reusable_after_invalid_text() {
    let mut scanner = Scanner::default();
    assert!(scanner.scan("[[[[").is_none());
    assert_eq!(
        scanner.scan("[1]").unwrap().root().items().unwrap().count(),
        1
    );
}

proptest! {
    /// Any text of characters that JSON uses.
    #[test]
    fn agrees_with_serde_json_on_near_json(json in r#"[\[\]{}:,"\\0-9eE+.\-truefalsn u\t é]{0,24}"#) {
        agree(&json);
    }

    /// Escapes of all kinds, including halves of surrogate pairs.
    #[test]
    fn agrees_with_serde_json_on_escapes(
        text in r#"(\\u(d[89a-fA-F]|[0-9a-fA-F]{2})[0-9a-f]{2}|\\[bfnrtuU"\\/x]|[a-zé😀]){0,8}"#,
    ) {
        agree(&format!("\"{text}\""));
        agree(&format!("{{\"{text}\":[\"{text}\"]}}"));
    }

    /// JSON with one character changed.
    #[test]
    fn agrees_with_serde_json_on_broken_json(
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
