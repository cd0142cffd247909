//! The content hash, which detects whether two observations of an execution differ. Pure, and frozen:
//! raw objects store the hash, so a change here would make all content look new.
//!
//! Values are hashed one by one, without building a tree:
//!
//! ```text
//! {"b": 1, "a": [x, y], "n": null}   ->   object( member("a", set(x, y)) + member("b", 1) )
//! ```
//!
//! - Members of an object may be in any order; null members and `__recast` are ignored.
//! - Elements of an array may be in any order, except under [`ORDERED`] keys.
//! - Spellings of an integer are equal (`1`, `1.0`); text never equals a number.
//! - [`VOLATILE`] top-level fields are ignored, since they change without an event. Nested fields of the
//!   same names mean something else and count.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::Scope;
use crate::scan::{Kind, Scanner, Value, exact_integer};

/// Top-level fields that change by themselves: stored, but not compared.
const VOLATILE: [&str; 3] = ["canRetry", "canReExecute", "showRetryHistory"];

/// A member that the database of Harness adds at any depth.
const NOISE: &str = "__recast";

/// Keys whose arrays are sequences; all others are sets. Compared ignoring case.
const ORDERED: [&str; 9] = [
    "nextIds",
    "currentNodeChildren",
    "startingNodeIds",
    "commits",
    "triggerCommits",
    "matrixcombination",
    "responseMessages",
    "expressions",
    "stagesExecuted",
];

/// The maximum nesting depth of objects and arrays.
const MAX_DEPTH: u8 = 127;

/// Seeds that separate the hashes of different kinds.
mod domain {
    pub(super) const NULL: u64 = 1;
    pub(super) const BOOL: u64 = 2;
    pub(super) const NATURAL: u64 = 3;
    pub(super) const NEGATIVE: u64 = 4;
    pub(super) const FLOAT: u64 = 5;
    pub(super) const TEXT: u64 = 6;
    pub(super) const KEY: u64 = 7;
    pub(super) const MEMBER: u64 = 8;
    pub(super) const OBJECT: u64 = 9;
    pub(super) const ELEMENT: u64 = 10;
    pub(super) const SET: u64 = 11;
    pub(super) const SEQUENCE: u64 = 12;
    pub(super) const BYTES: u64 = 13;
    pub(super) const SCOPE: u64 = 14;
    pub(super) const CONTENT: u64 = 15;
}

/// Hashes the canonical form of `summary` and the scope it was listed under: an execution that moved to
/// another project is new content.
///
/// A summary without a canonical form (nested more than 127 deep, or with half a surrogate pair) is hashed
/// byte by byte. Equal content may then look changed, never the other way round.
pub fn content_hash(scope: &Scope, summary: &str) -> i64 {
    let scope = ScopeHash::new(scope);
    match Scanner::default().scan(summary) {
        Some(document) => scope.content_hash(document.root()),
        None => scope.with(leaf(domain::BYTES, summary.as_bytes())),
    }
}

/// The hash of a scope, shared by all rows of a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScopeHash(u64);

impl ScopeHash {
    pub(super) fn new(scope: &Scope) -> Self {
        Self(leaf(domain::SCOPE, scope.to_string().as_bytes()))
    }

    pub(super) fn content_hash(self, summary: Value<'_>) -> i64 {
        let content = match summary.kind() {
            Kind::Object => object(summary, &VOLATILE, MAX_DEPTH),
            _ => value(summary, false, MAX_DEPTH),
        };
        self.with(content.unwrap_or_else(|| leaf(domain::BYTES, summary.json().as_bytes())))
    }

    fn with(self, content: u64) -> i64 {
        pair(domain::CONTENT, self.0, content).cast_signed()
    }
}

fn leaf(domain: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, domain)
}

fn pair(domain: u64, left: u64, right: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&left.to_le_bytes());
    bytes[8..].copy_from_slice(&right.to_le_bytes());
    leaf(domain, &bytes)
}

/// Hashes a value; `None` if it is nested more than `depth` deep, or contains half a surrogate pair.
fn value(value: Value<'_>, is_ordered: bool, depth: u8) -> Option<u64> {
    match value.kind() {
        Kind::Null => Some(leaf(domain::NULL, &[])),
        Kind::Plain | Kind::Escaped | Kind::Broken => {
            Some(leaf(domain::TEXT, value.string()?.as_bytes()))
        }
        Kind::Other => scalar(value.json()),
        Kind::List => list(value, is_ordered, depth),
        Kind::Object => object(value, &[], depth),
    }
}

fn scalar(spelling: &str) -> Option<u64> {
    let natural = |number: u64| leaf(domain::NATURAL, &number.to_le_bytes());
    let integer = |number: i64| match u64::try_from(number) {
        Ok(number) => natural(number),
        Err(_) => leaf(domain::NEGATIVE, &number.to_le_bytes()),
    };
    if let "true" | "false" = spelling {
        return Some(leaf(domain::BOOL, &[u8::from(spelling == "true")]));
    }
    if let Ok(number) = spelling.parse() {
        return Some(natural(number));
    }
    let number: serde_json::Number = serde_json::from_str(spelling).ok()?;
    if let Some(number) = number.as_i64() {
        return Some(integer(number));
    }
    let float = number.as_f64()?;
    Some(match exact_integer(float) {
        Some(number) => integer(number),
        None => leaf(domain::FLOAT, &float.to_bits().to_le_bytes()),
    })
}

fn list(list: Value<'_>, is_ordered: bool, depth: u8) -> Option<u64> {
    let depth = depth.checked_sub(1)?;
    let (mut count, mut all) = (0_u64, 0_u64);
    for element in list.items()? {
        let element = value(element, is_ordered, depth)?;
        all = if is_ordered {
            pair(domain::ELEMENT, all, element)
        } else {
            all.wrapping_add(pair(domain::ELEMENT, 0, element))
        };
        count += 1;
    }
    let kind = if is_ordered {
        domain::SEQUENCE
    } else {
        domain::SET
    };
    Some(pair(kind, all, count))
}

/// Hashes an object without its `volatile` members.
fn object(object: Value<'_>, volatile: &[&str], depth: u8) -> Option<u64> {
    let depth = depth.checked_sub(1)?;
    let (mut count, mut all) = (0_u64, 0_u64);
    for (name, member) in object.pairs()? {
        let name = name.string()?;
        if member.is_null() || name == NOISE || volatile.contains(&&*name) {
            continue;
        }
        let is_ordered = member.kind() == Kind::List
            && ORDERED
                .iter()
                .any(|known| known.eq_ignore_ascii_case(&name));
        let member = value(member, is_ordered, depth)?;
        all = all.wrapping_add(pair(
            domain::MEMBER,
            leaf(domain::KEY, name.as_bytes()),
            member,
        ));
        count += 1;
    }
    Some(pair(domain::OBJECT, all, count))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn hash(summary: &str) -> i64 {
        content_hash(&Scope::new("default", "web"), summary)
    }

    /// Never edit these values: lakes store them.
    #[test]
    fn hashes_are_frozen() {
        let summaries = [
            "{}",
            r#"{"planExecutionId":"a","startTs":1700000000000}"#,
            r#"{"a":[1,-2,2.5,"x",true,null,{"b":[]}],"nextIds":["x","y"]}"#,
            r#"{"broken":"\ud800"}"#,
            r#"{"n":[-0,1e3,1.5e300,18446744073709551616,-9223372036854775809,0.1,1E-400]}"#,
            r#"{"beyond":1e400}"#,
            r#"{"canRetry":"\ud800","a":{"canRetry":1,"__recast":"\ud800"},"\u0061":null}"#,
            r#"{"NextIds":[[2,1],{"a":[2,1]}],"commits":{"a":[2,1]},"Commits":null}"#,
        ];
        assert_eq!(
            summaries.map(hash),
            [
                -2_374_819_775_605_981_550,
                -8_537_534_533_802_035_330,
                2_092_007_301_395_718_262,
                5_740_969_131_437_365_392,
                -7_805_632_245_341_222_088,
                5_293_736_252_049_909_016,
                1_654_347_131_150_797_869,
                -4_825_803_106_672_226_972,
            ]
        );
    }

    #[test]
    fn equal_content_has_equal_hashes() {
        for (one, other) in [
            (r#"{"a":1,"b":2}"#, r#"{ "b" : 2, "a" : 1 }"#),
            (r#"{"a":1}"#, r#"{"a":1,"gone":null,"__recast":"x"}"#),
            (
                r#"{"a":{"b":1}}"#,
                r#"{"a":{"__recast":"x","b":1,"c":null}}"#,
            ),
            (
                r#"{"canRetry":true}"#,
                r#"{"canReExecute":false,"showRetryHistory":1}"#,
            ),
            (r#"{"a":["x","y","x"]}"#, r#"{"a":["x","x","y"]}"#),
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":"\u0041"}"#, r#"{"a":"A"}"#),
        ] {
            assert_eq!(hash(one), hash(other), "{one} {other}");
        }
    }

    #[test]
    fn different_content_has_different_hashes() {
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":true}"#, r#"{"a":"true"}"#),
            (r#"{"a":{}}"#, r#"{"a":[]}"#),
            (r#"{"a":{}}"#, "{}"),
            (r#"{"a":[null]}"#, r#"{"a":[]}"#),
            (r#"{"a":["x"]}"#, r#"{"a":["x","x"]}"#),
            (r#"{"a":-1}"#, r#"{"a":18446744073709551615}"#),
            (r#"{"a":{"canRetry":true}}"#, r#"{"a":{"canRetry":false}}"#),
            (r#"{"nextIds":["x","y"]}"#, r#"{"nextIds":["y","x"]}"#),
            (r#"{"TriggerCommits":[1,2]}"#, r#"{"TriggerCommits":[2,1]}"#),
            (
                r#"{"a":{"b":1},"c":{"b":2}}"#,
                r#"{"a":{"b":2},"c":{"b":1}}"#,
            ),
        ] {
            assert_ne!(hash(one), hash(other), "{one} {other}");
        }
    }

    #[test]
    fn execution_of_another_scope_is_new_content() {
        let elsewhere = content_hash(&Scope::new("platform", "web"), "{}");
        assert_ne!(hash("{}"), elsewhere);
    }

    #[test]
    fn maximum_depth_is_frozen() {
        let deep = |depth, at| format!("{}{at}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(hash(&deep(127, "1")), hash(&deep(127, "1.0")));
        assert_ne!(hash(&deep(128, "1")), hash(&deep(128, "1.0")));
        // Floats represent every integer up to 2^53.
        assert_eq!(hash("9007199254740990"), hash("900719925474099e1"));
        assert_ne!(hash("9007199254740992"), hash("9007199254740992e0"));
    }

    #[test]
    fn deeper_summary_is_hashed_by_bytes() {
        let deep = |at: &str| format!(r#"{{"a":{}{at}{}}}"#, "[".repeat(300), "]".repeat(300));
        assert_eq!(hash(&deep("1")), hash(&deep("1")));
        assert_ne!(hash(&deep("1")), hash(&deep("2")));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9_f64).prop_map(Value::from),
            "\\PC{0,6}".prop_map(Value::from),
        ];
        let tree = scalar.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                members(inner),
            ]
        });
        members(tree)
    }

    fn members(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let key = prop_oneof!["[a-e]{1,2}", Just("nextIds".to_owned())];
        prop::collection::btree_map(key, value, 0..5)
            .prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    /// Writes `value` with members and sets reversed, and with white space.
    fn reversed(value: &Value, is_ordered: bool, out: &mut String) {
        match value {
            Value::Object(members) => {
                out.push_str("{ ");
                for (at, (key, value)) in members.iter().rev().enumerate() {
                    let comma = if at == 0 { "" } else { "\n," };
                    write!(out, "{comma} {} :\t", json!(key)).unwrap();
                    reversed(value, key == "nextIds", out);
                }
                out.push_str(" }");
            }
            Value::Array(elements) => {
                out.push_str("[ ");
                let mut elements: Vec<_> = elements.iter().collect();
                if !is_ordered {
                    elements.reverse();
                }
                for (at, element) in elements.into_iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { " ,\r\n" });
                    reversed(element, is_ordered, out);
                }
                out.push_str(" ]");
            }
            scalar => out.push_str(&scalar.to_string()),
        }
    }

    /// Changes the scalar at index `at`, and counts the scalars.
    fn change(value: &mut Value, at: usize, seen: &mut usize) {
        match value {
            Value::Object(members) => members.values_mut().for_each(|v| change(v, at, seen)),
            Value::Array(elements) => elements.iter_mut().for_each(|v| change(v, at, seen)),
            scalar => {
                if *seen == at {
                    *scalar = json!(format!("was {scalar}"));
                }
                *seen += 1;
            }
        }
    }

    proptest! {
        #[test]
        fn order_and_white_space_are_ignored(summary in any_json()) {
            let mut other = String::new();
            reversed(&summary, false, &mut other);
            prop_assert_eq!(hash(&summary.to_string()), hash(&other));
        }

        #[test]
        fn every_scalar_changes_the_hash(summary in any_json(), at in 0_usize..8) {
            let (mut changed, mut seen) = (summary.clone(), 0);
            change(&mut changed, at, &mut seen);
            prop_assert_eq!(at < seen, hash(&summary.to_string()) != hash(&changed.to_string()));
        }
    }
}
