//! Personal data in a summary: found by the path of its keys, and replaced as the row streams past,
//! before anything else sees it. Pure.
//!
//! Harness names persons in many places and puts new ones beside them, and webhooks bring payloads
//! of other systems along. So the rules go by what a key means, wherever it stands:
//!
//! - Everything within what is [named as a person](is_person) is personal, except [what is known to
//!   be none](is_impersonal).
//! - A value that is an e-mail address and nothing else is personal anywhere.
//! - The keys of [some objects](has_names_for_keys) are names of stages, tags or axes: no rule reads
//!   them.
//!
//! Free text is left: commit messages, titles, notes, errors, branches, tags, names of things.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use crate::pii::Treatment;

/// The longest key that a rule knows, underscores left out.
const LONGEST: usize = 48;

/// What the values of a key are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Keys tell what values are.
    Plain,
    /// Every value tells of a person.
    Person,
    /// Keys are names of something, values are plain.
    Named,
}

impl Meaning {
    /// What the value of `key` means within an object of this meaning.
    fn of_member(self, key: &str) -> Self {
        let mut buffer = [0; LONGEST];
        let Some(name) = folded(key, &mut buffer) else {
            return if self == Self::Person {
                self
            } else {
                Self::Plain
            };
        };
        match self {
            Self::Person if !is_impersonal(name) => Self::Person,
            Self::Plain if is_person(name) => Self::Person,
            Self::Plain if has_names_for_keys(name) => Self::Named,
            _ => Self::Plain,
        }
    }
}

/// A key in lower case without underscores; `None` where no rule can know it.
fn folded<'a>(key: &str, buffer: &'a mut [u8; LONGEST]) -> Option<&'a str> {
    let mut length = 0;
    for byte in key.bytes().filter(|byte| !matches!(byte, b'_' | b'-')) {
        *buffer.get_mut(length)? = byte.to_ascii_lowercase();
        length += 1;
    }
    std::str::from_utf8(&buffer[..length]).ok()
}

/// Keys whose values are persons, or what persons are told by: `triggeredBy`, `approvers`, `email`;
/// and the payloads of webhooks, which are full of them.
fn is_person(name: &str) -> bool {
    const NAMES: [&str; 37] = [
        "admins",
        "approver",
        "approvers",
        "assignee",
        "assignees",
        "author",
        "authorid",
        "authorname",
        "authors",
        "avatar",
        "avatarurl",
        "collaborators",
        "committer",
        "committername",
        "committers",
        "emailid",
        "emails",
        "emailaddress",
        "firstname",
        "fullname",
        "gituser",
        "jsonpayload",
        "lastname",
        "login",
        "manualissuer",
        "owner",
        "ownerid",
        "ownername",
        "owners",
        "pusher",
        "requester",
        "reviewer",
        "reviewers",
        "sender",
        "triggerpayload",
        "user",
        "users",
    ];
    const ENDINGS: [&str; 4] = ["edby", "email", "userid", "username"];
    NAMES.contains(&name) || ENDINGS.iter().any(|end| name.ends_with(end))
}

/// Keys beside a person that tell of no person: times, kinds, the trigger of a pipeline.
fn is_impersonal(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "recast",
        "action",
        "approvedat",
        "createdat",
        "eventcorrelationid",
        "executiontriggertagneededforabort",
        "issuetime",
        "lastupdatedat",
        "status",
        "timestamp",
        "triggeredat",
        "triggeridentifier",
        "triggername",
        "triggerref",
        "type",
        "updatedat",
    ];
    NAMES.contains(&name)
}

/// Keys whose objects have names for keys.
fn has_names_for_keys(name: &str) -> bool {
    const NAMES: [&str; 6] = [
        "dependencygraph",
        "labels",
        "layoutnodemap",
        "matrixvalues",
        "stagesexecutednames",
        "tags",
    ];
    NAMES.contains(&name)
}

/// Whether a text is an e-mail address and nothing else.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.trim().split_once('@') else {
        return false;
    };
    let is_local = |c: char| c.is_alphanumeric() || "._%+-'".contains(c);
    let is_label =
        |label: &str| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-');
    let Some((rest, last)) = domain.rsplit_once('.') else {
        return false;
    };
    !local.is_empty()
        && local.chars().all(is_local)
        && rest.split('.').all(is_label)
        && 2 <= last.len()
        && last.chars().all(char::is_alphabetic)
}

/// An object or an array that the scan is in.
struct Level {
    is_object: bool,
    meaning: Meaning,
    /// In an object: what the value means whose key was just read.
    value: Option<Meaning>,
}

/// Gives the summary with its personal data treated; the same bytes where there is none, or it
/// stays. `summary` must be JSON.
pub(super) fn scrub(summary: Bytes, treatment: &Treatment) -> Bytes {
    if treatment.keeps() {
        return summary;
    }
    let mut scan = Scan {
        json: &summary,
        at: 0,
        copied: 0,
        out: Vec::new(),
        treatment,
    };
    scan.run();
    if scan.copied == 0 {
        return summary;
    }
    scan.out.extend_from_slice(&scan.json[scan.copied..]);
    scan.out.into()
}

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    /// Up to here `out` holds what `json` says.
    copied: usize,
    out: Vec<u8>,
    treatment: &'a Treatment,
}

impl Scan<'_> {
    fn run(&mut self) {
        let mut levels: Vec<Level> = Vec::new();
        while let Some(byte) = self.json.get(self.at).copied() {
            match byte {
                b'{' | b'[' => {
                    let meaning = value_meaning(&mut levels);
                    levels.push(Level {
                        is_object: byte == b'{',
                        meaning,
                        value: None,
                    });
                    self.at += 1;
                }
                b'}' | b']' => {
                    levels.pop();
                    self.at += 1;
                }
                b'"' => {
                    let string = self.at..self.end_of_string();
                    self.at = string.end;
                    match levels.last_mut() {
                        Some(level) if level.is_object && level.value.is_none() => {
                            level.value = Some(self.key(string, level.meaning));
                        }
                        _ => {
                            let meaning = value_meaning(&mut levels);
                            self.string(string, meaning);
                        }
                    }
                }
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b':' => self.at += 1,
                _ => {
                    let scalar = self.at..self.end_of_scalar();
                    self.at = scalar.end;
                    if value_meaning(&mut levels) == Meaning::Person
                        && matches!(byte, b'-' | b'0'..=b'9')
                    {
                        let text = String::from_utf8_lossy(&self.json[scalar.clone()]);
                        self.replace(scalar, &text);
                    }
                }
            }
        }
    }

    /// Reads a key; one that is a person's address within a person is replaced, too.
    fn key(&mut self, string: Range<usize>, within: Meaning) -> Meaning {
        let key = decoded(&self.json[string.clone()]);
        let meaning = within.of_member(&key);
        if within == Meaning::Person && key.contains('@') {
            let mut name = Vec::new();
            if self.treatment.replace(&key, &mut name) {
                // Null is no key.
                let name = if name == b"null" {
                    b"\"\"".to_vec()
                } else {
                    name
                };
                self.put(string, &name);
            }
        }
        meaning
    }

    fn string(&mut self, string: Range<usize>, meaning: Meaning) {
        let raw = &self.json[string.clone()];
        // An `@` may be written as an escape.
        let may_be_email = || raw.iter().any(|byte| matches!(byte, b'@' | b'\\'));
        if meaning == Meaning::Person {
            let text = decoded(raw);
            self.replace(string, &text);
        } else if may_be_email() {
            let text = decoded(raw);
            if is_email(&text) {
                self.replace(string, &text);
            }
        }
    }

    fn replace(&mut self, value: Range<usize>, text: &str) {
        let mut instead = Vec::new();
        if self.treatment.replace(text, &mut instead) {
            self.put(value, &instead);
        }
    }

    fn put(&mut self, place: Range<usize>, instead: &[u8]) {
        self.out
            .extend_from_slice(&self.json[self.copied..place.start]);
        self.out.extend_from_slice(instead);
        self.copied = place.end;
    }

    fn end_of_string(&self) -> usize {
        let mut at = self.at + 1;
        while let Some(byte) = self.json.get(at) {
            match byte {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        self.json.len()
    }

    fn end_of_scalar(&self) -> usize {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
        let length = self.json[self.at..].iter().position(ends);
        length.map_or(self.json.len(), |length| self.at + length)
    }
}

/// What the value means that begins here.
fn value_meaning(levels: &mut [Level]) -> Meaning {
    match levels.last_mut() {
        None => Meaning::Plain,
        Some(level) if level.is_object => level.value.take().unwrap_or(Meaning::Plain),
        Some(level) => level.meaning,
    }
}

/// The text of a JSON string; as it is spelled where it holds half a surrogate pair.
fn decoded(raw: &[u8]) -> Cow<'_, str> {
    if raw.contains(&b'\\')
        && let Ok(text) = serde_json::from_slice::<String>(raw)
    {
        return text.into();
    }
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    String::from_utf8_lossy(inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::pii::{Key, Wish};

    /// Stands in every value that must not survive.
    const MARK: &str = "Müller-Mark";

    /// The same as a number.
    const MARK_NUMBER: i64 = 8_642_097_531;

    fn hash() -> Treatment {
        let key = Key::new("a key that is long enough");
        let wish = Wish { mode: None, key };
        wish.agree(&wish.policy()).unwrap()
    }

    fn scrubbed(summary: &str, treatment: &Treatment) -> String {
        let bytes = scrub(Bytes::copy_from_slice(summary.as_bytes()), treatment);
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn dropped(summary: &str) -> String {
        scrubbed(summary, &Treatment::Drop)
    }

    #[test]
    fn persons_are_dropped_and_all_else_stays_to_the_byte() {
        for (before, after) in [
            (
                r#"{"abortedBy" : {"email": "ada@example.com","userName":"Ada", "createdAt":17}, "x":1}"#,
                r#"{"abortedBy" : {"email": null,"userName":null, "createdAt":17}, "x":1}"#,
            ),
            (
                r#"{"executionTriggerInfo":{"triggerType":"WEBHOOK","triggeredBy":{"uuid":"u","identifier":"Ada","triggerIdentifier":"t","extraInfo":{"gitUser":"ada","triggerRef":"r"}}}}"#,
                r#"{"executionTriggerInfo":{"triggerType":"WEBHOOK","triggeredBy":{"uuid":null,"identifier":null,"triggerIdentifier":"t","extraInfo":{"gitUser":null,"triggerRef":"r"}}}}"#,
            ),
            (
                r#"{"commits":[{"id":"c0ffee","ownerName":"Ada","ownerId":7,"OWNER_EMAIL":"a@b.cc","message":"of Ada"}]}"#,
                r#"{"commits":[{"id":"c0ffee","ownerName":null,"ownerId":null,"OWNER_EMAIL":null,"message":"of Ada"}]}"#,
            ),
            (
                r#"{"approvers":["Ada",{"user":{"bo@example.com":true}},null,true]}"#,
                r#"{"approvers":[null,{"user":{"":true}},null,true]}"#,
            ),
            (
                r#"{"parentStageInfo":{"triggerpayload":{"jsonPayload":"{\"by\":\"Ada\"}"}}}"#,
                r#"{"parentStageInfo":{"triggerpayload":{"jsonPayload":null}}}"#,
            ),
            (r#"{"a\u0075thor":"\u0041da"}"#, r#"{"a\u0075thor":null}"#),
            (r#"{"author":"\ud800"}"#, r#"{"author":null}"#),
            (
                r#"{"x":["ada\u0040example.com"," bo@example.com "]}"#,
                r#"{"x":[null,null]}"#,
            ),
            (r#""ada@example.com""#, "null"),
        ] {
            assert_eq!(dropped(before), after);
            assert_eq!(dropped(after), after, "a second time");
        }
    }

    #[test]
    fn what_is_no_person_stays() {
        for summary in [
            r#"{"layoutNodeMap":{"author":{"name":"Author","nodeIdentifier":"author"}}}"#,
            r#"{"tags":[{"key":"owner","value":"ovens"}],"labels":{"owner":"ovens"}}"#,
            r#"{"matrixMetadata":{"matrixvalues":{"user":"guest"}}}"#,
            r#"{"serviceInfo":{"displayName":"Till","image":"till@sha256:00","git":"git@github.com:a/b.git"}}"#,
            r#"{"abortedBy":{"userName":"systemUser","email":""}}"#,
            r#"{"uses":"checkout@v4.1","mail":"Ada <ada@example.com>"}"#,
            "[1, -2.5e3, true, null, {}, []]",
            "7",
            "",
        ] {
            assert_eq!(dropped(summary), summary);
        }
    }

    #[test]
    fn keeping_costs_no_copy_and_neither_does_a_row_without_persons() {
        let row = Bytes::from_static(br#"{"author":"Ada"}"#);
        assert_eq!(scrub(row.clone(), &Treatment::Keep).as_ptr(), row.as_ptr());
        let row = Bytes::from_static(br#"{"name":"Bake"}"#);
        assert_eq!(scrub(row.clone(), &hash()).as_ptr(), row.as_ptr());
    }

    #[test]
    fn equal_persons_have_equal_hashes_wherever_they_stand() {
        let row = r#"{"abortedBy":{"email":"Ada@example.com"},"commits":[{"ownerEmail":" ada@EXAMPLE.com "}],
            "approver":7,"by":{"author":"7"}}"#;
        let row: Value = serde_json::from_str(&scrubbed(row, &hash())).unwrap();
        let email = row["abortedBy"]["email"].as_str().unwrap();
        assert_eq!(email.len(), 64);
        assert_eq!(row["commits"][0]["ownerEmail"], email);
        assert_eq!(row["approver"], row["by"]["author"]);
    }

    /// A value of which every text and every number is marked.
    fn marked() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "\\PC{0,4}".prop_map(|text| json!(format!("{text}{MARK}"))),
            (0_i64..9).prop_map(|n| json!(MARK_NUMBER * 10 + n)),
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            let key = prop_oneof!["[a-z]{1,3}", Just(format!("{MARK}@example.com"))];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Objects whose keys are read by rules, as JSON pointers.
    fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.push(at.to_owned());
                for (key, member) in members {
                    let mut buffer = [0; LONGEST];
                    let name = folded(key, &mut buffer).unwrap_or_default();
                    if !is_person(name) && !has_names_for_keys(name) {
                        objects(member, &format!("{at}/{key}"), found);
                    }
                }
            }
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    objects(item, &format!("{at}/{n}"), found);
                }
            }
            _ => {}
        }
    }

    fn members_at<'a>(summary: &'a mut Value, place: &str) -> &'a mut Map<String, Value> {
        summary.pointer_mut(place).unwrap().as_object_mut().unwrap()
    }

    fn fixtures() -> Vec<Value> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/summaries");
        let files = std::fs::read_dir(folder).unwrap();
        let read = |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        files.map(|file| read(file.unwrap().path())).collect()
    }

    proptest! {
        #[test]
        fn what_was_json_stays_json(value in marked(), key in "[ -~]{0,12}", hashes in any::<bool>()) {
            let treatment = if hashes { hash() } else { Treatment::Drop };
            let row = json!({ key: value }).to_string();
            let after: Result<Value, _> = serde_json::from_str(&scrubbed(&row, &treatment));
            prop_assert!(after.is_ok(), "{row}");
            // Whatever came cut off: no panic.
            for (end, _) in row.char_indices() {
                scrubbed(&row[..end], &treatment);
            }
        }

        #[test]
        fn no_person_survives_and_nothing_else_is_touched(
            summary in prop::sample::select(fixtures()),
            place in any::<prop::sample::Index>(),
            key in prop::sample::select(vec![
                "triggeredBy", "abortedBy", "author", "Approvers", "executed_by", "gitUser", "userName",
                "ownerName", "committerEmail", "lastUpdatedBy", "owner", "avatar", "pusher", "sender",
            ]),
            person in marked(),
            hashes in any::<bool>(),
        ) {
            let treatment = if hashes { hash() } else { Treatment::Drop };
            let treated = |value: &Value| -> Value {
                serde_json::from_str(&scrubbed(&value.to_string(), &treatment)).unwrap()
            };
            let mut places = Vec::new();
            objects(&summary, "", &mut places);
            let place = place.get(&places);
            let mut with = summary.clone();
            members_at(&mut with, place).insert(key.to_owned(), person);

            let mut after = treated(&with);
            let text = after.to_string();
            prop_assert!(!text.contains(MARK) && !text.contains(&MARK_NUMBER.to_string()), "{}", text);
            members_at(&mut after, place).remove(key);
            let mut without = summary.clone();
            members_at(&mut without, place).remove(key);
            prop_assert_eq!(after, treated(&without));
        }
    }
}
