//! Persons are redacted; everything else stays as it is.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::rules::{LONGEST, folded, has_names_for_keys, is_person};
use super::*;
use crate::pii::{Key, PiiRequest};
use crate::scan::{Scanner, leaked};

/// Part of every value that must be redacted.
const MARK: &str = "Müller-Mark";

/// A number that must be redacted.
const MARK_NUMBER: i64 = 8_642_097_531;

fn hash() -> Redactor {
    let key = Key::new("a key that is long enough");
    let request = PiiRequest { mode: None, key };
    request.agree(&request.policy()).unwrap()
}

fn redacted(summary: &str, redactor: &Redactor) -> String {
    let mut scanner = Scanner::default();
    let document = scanner.scan(summary);
    let bytes = document.and_then(|document| redact(document.root(), redactor));
    bytes.map_or(summary.to_owned(), |bytes| {
        String::from_utf8(bytes.to_vec()).unwrap()
    })
}

fn dropped(summary: &str) -> String {
    redacted(summary, &Redactor::Drop)
}

#[test]
fn persons_are_dropped_and_other_bytes_stay() {
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
        (
            r#"{"who":"\"ada@example.com\"","to":"<MAILTO:bo@example.com>","bo@example.com":1}"#,
            r#"{"who":null,"to":null,"":1}"#,
        ),
        (
            r#"{"userIds":["u"],"authorLogin":"ada","triggeredByName":"Ada","nickname":"a"}"#,
            r#"{"userIds":[null],"authorLogin":null,"triggeredByName":null,"nickname":null}"#,
        ),
        (r#""ada@example.com""#, "null"),
    ] {
        assert_eq!(dropped(before), after);
        assert_eq!(dropped(after), after, "redacted twice");
    }
}

#[test]
fn impersonal_values_stay() {
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
fn unchanged_rows_are_not_copied() {
    let row = leaked(r#"{"author":"Ada"}"#).unwrap();
    assert_eq!(redact(row, &Redactor::Keep), None);
    let row = leaked(r#"{"name":"Bake"}"#).unwrap();
    assert_eq!(redact(row, &hash()), None);
}

#[test]
fn equal_persons_have_equal_hashes() {
    let row = r#"{"abortedBy":{"email":"Ada@example.com"},"commits":[{"ownerEmail":" ada@EXAMPLE.com "}],
        "approver":7,"by":{"author":"7"}}"#;
    let row: Value = serde_json::from_str(&redacted(row, &hash())).unwrap();
    let email = row["abortedBy"]["email"].as_str().unwrap();
    assert_eq!(email.len(), 64);
    assert_eq!(row["commits"][0]["ownerEmail"], email);
    assert_eq!(row["approver"], row["by"]["author"]);
}

/// A value in which every text and every number is marked.
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

/// Finds the objects whose keys are matched by rules, as JSON pointers.
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

fn members_at<'a>(summary: &'a mut Value, pointer: &str) -> &'a mut Map<String, Value> {
    summary
        .pointer_mut(pointer)
        .unwrap()
        .as_object_mut()
        .unwrap()
}

fn fixtures() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/summaries");
    let files = std::fs::read_dir(folder).unwrap();
    let read = |path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    files.map(|file| read(file.unwrap().path())).collect()
}

proptest! {
    #[test]
    fn redacted_json_stays_valid(value in marked(), key in "[ -~]{0,12}", hashes in any::<bool>()) {
        let redactor = if hashes { hash() } else { Redactor::Drop };
        let row = json!({ key: value }).to_string();
        let after: Result<Value, _> = serde_json::from_str(&redacted(&row, &redactor));
        prop_assert!(after.is_ok(), "{row}");
        // A truncated summary does not panic.
        for (end, _) in row.char_indices() {
            redacted(&row[..end], &redactor);
        }
    }

    #[test]
    fn only_persons_are_redacted(
        summary in prop::sample::select(fixtures()),
        at in any::<prop::sample::Index>(),
        key in prop::sample::select(vec![
            "triggeredBy", "abortedBy", "author", "Approvers", "executed_by", "gitUser", "userName",
            "ownerName", "committerEmail", "lastUpdatedBy", "owner", "avatar", "pusher", "sender",
        ]),
        person in marked(),
        hashes in any::<bool>(),
    ) {
        let redactor = if hashes { hash() } else { Redactor::Drop };
        let redacted_value = |value: &Value| -> Value {
            serde_json::from_str(&redacted(&value.to_string(), &redactor)).unwrap()
        };
        let mut pointers = Vec::new();
        objects(&summary, "", &mut pointers);
        let pointer = at.get(&pointers);
        let mut with = summary.clone();
        members_at(&mut with, pointer).insert(key.to_owned(), person);

        let mut after = redacted_value(&with);
        let text = after.to_string();
        prop_assert!(!text.contains(MARK) && !text.contains(&MARK_NUMBER.to_string()), "{}", text);
        members_at(&mut after, pointer).remove(key);
        let mut without = summary.clone();
        members_at(&mut without, pointer).remove(key);
        prop_assert_eq!(after, redacted_value(&without));
    }
}
