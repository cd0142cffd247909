//! The content hash: whether two observations of an execution say the same. Pure, and frozen: the
//! hash stands in every raw object, so a change here would make all content look new.
//!
//! A summary is visited as it streams past, without building a tree:
//!
//! ```text
//! {"b": 1, "a": [x, y], "n": null}   ->   object( member("a", set(x, y)) + member("b", 1) )
//! ```
//!
//! - Members of an object may come in any order; null members and `__recast` are as if absent.
//! - Elements of an array may come in any order, except under [`ORDERED`] keys.
//! - Integers are equal however they are spelled (`1`, `1.0`), text never equals a number.
//! - [`VOLATILE`] fields of the summary itself, which change without anything having happened, are
//!   left out; deeper down such names mean something else and count.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ids::Scope;

/// Fields of a summary that change by themselves: kept, but not compared.
const VOLATILE: [&str; 3] = ["canRetry", "canReExecute", "showRetryHistory"];

/// What the source's own store adds to its documents, at any depth.
const NOISE: &str = "__recast";

/// Keys whose arrays mean a sequence; all others mean a set. Compared without regard to case.
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

/// Seeds that keep apart what is of different kinds.
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

/// Hashes the canonical form of `summary` together with the scope it was listed under, since an
/// execution whose project moved is new content.
///
/// A summary that cannot be visited (nested more than 127 deep, or with half a surrogate pair) is
/// hashed byte by byte: it may then look changed where it is not, never the other way round.
pub fn content_hash(scope: &Scope, summary: &[u8]) -> i64 {
    of_scope(scope).content_hash(summary)
}

/// The part of the hash that all rows of a page share.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScopeHash(u64);

pub(super) fn of_scope(scope: &Scope) -> ScopeHash {
    ScopeHash(leaf(domain::SCOPE, scope.to_string().as_bytes()))
}

impl ScopeHash {
    pub(super) fn content_hash(self, summary: &[u8]) -> i64 {
        let content = canonical(summary).unwrap_or_else(|_| leaf(domain::BYTES, summary));
        pair(domain::CONTENT, self.0, content).cast_signed()
    }
}

fn canonical(summary: &[u8]) -> Result<u64, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(summary);
    let top = Node {
        is_summary: true,
        is_ordered: false,
    };
    let hash = top.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(hash.unwrap_or_else(null))
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

fn null() -> u64 {
    leaf(domain::NULL, &[])
}

/// Hashes one value; `None` for null.
#[derive(Clone, Copy)]
struct Node {
    is_summary: bool,
    is_ordered: bool,
}

impl<'de> DeserializeSeed<'de> for Node {
    type Value = Option<u64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<u64>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node {
    type Value = Option<u64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Option<u64>, E> {
        Ok(None)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<u64>, E> {
        Ok(Some(leaf(domain::BOOL, &[u8::from(value)])))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<u64>, E> {
        Ok(Some(leaf(domain::NATURAL, &value.to_le_bytes())))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Option<u64>, E> {
        match u64::try_from(value) {
            Ok(natural) => self.visit_u64(natural),
            Err(_) => Ok(Some(leaf(domain::NEGATIVE, &value.to_le_bytes()))),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Option<u64>, E> {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        if value.fract() == 0.0 && value.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            return self.visit_i64(value as i64);
        }
        Ok(Some(leaf(domain::FLOAT, &value.to_bits().to_le_bytes())))
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<u64>, E> {
        Ok(Some(leaf(domain::TEXT, value.as_bytes())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Option<u64>, A::Error> {
        let within = Self {
            is_summary: false,
            ..self
        };
        let (mut count, mut all) = (0_u64, 0_u64);
        while let Some(element) = elements.next_element_seed(within)? {
            let element = element.unwrap_or_else(null);
            all = if self.is_ordered {
                pair(domain::ELEMENT, all, element)
            } else {
                all.wrapping_add(pair(domain::ELEMENT, 0, element))
            };
            count += 1;
        }
        let kind = if self.is_ordered {
            domain::SEQUENCE
        } else {
            domain::SET
        };
        Ok(Some(pair(kind, all, count)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Option<u64>, A::Error> {
        let key = Key {
            is_summary: self.is_summary,
        };
        let (mut count, mut all) = (0_u64, 0_u64);
        while let Some(key) = members.next_key_seed(key)? {
            let Some((key, value)) = key else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if let Some(value) = members.next_value_seed(value)? {
                all = all.wrapping_add(pair(domain::MEMBER, key, value));
                count += 1;
            }
        }
        Ok(Some(pair(domain::OBJECT, all, count)))
    }
}

/// Hashes a key, and says how its value is to be hashed; `None` where the member is left out.
#[derive(Clone, Copy)]
struct Key {
    is_summary: bool,
}

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<(u64, Node)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<(u64, Node)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        if key == NOISE || self.is_summary && VOLATILE.contains(&key) {
            return Ok(None);
        }
        let value = Node {
            is_summary: false,
            is_ordered: ORDERED.iter().any(|name| name.eq_ignore_ascii_case(key)),
        };
        Ok(Some((leaf(domain::KEY, key.as_bytes()), value)))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn hash(summary: &str) -> i64 {
        content_hash(&Scope::new("default", "web"), summary.as_bytes())
    }

    /// Never to be edited: lakes hold these values.
    #[test]
    fn hashes_are_frozen() {
        let summaries = [
            "{}",
            r#"{"planExecutionId":"a","startTs":1700000000000}"#,
            r#"{"a":[1,-2,2.5,"x",true,null,{"b":[]}],"nextIds":["x","y"]}"#,
            r#"{"broken":"\ud800"}"#,
        ];
        assert_eq!(
            summaries.map(hash),
            [
                -2_374_819_775_605_981_550,
                -8_537_534_533_802_035_330,
                2_092_007_301_395_718_262,
                5_740_969_131_437_365_392
            ]
        );
    }

    #[test]
    fn what_means_the_same_hashes_alike() {
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
    fn what_means_something_else_hashes_apart() {
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
    fn a_moved_project_is_new_content() {
        let elsewhere = content_hash(&Scope::new("platform", "web"), b"{}");
        assert_ne!(hash("{}"), elsewhere);
    }

    #[test]
    fn what_is_too_deep_to_visit_is_hashed_by_its_bytes() {
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

    /// Writes `value` with the members and the sets turned around, and with white space.
    fn turned_around(value: &Value, is_ordered: bool, out: &mut String) {
        match value {
            Value::Object(members) => {
                out.push_str("{ ");
                for (at, (key, value)) in members.iter().rev().enumerate() {
                    let comma = if at == 0 { "" } else { "\n," };
                    write!(out, "{comma} {} :\t", json!(key)).unwrap();
                    turned_around(value, key == "nextIds", out);
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
                    turned_around(element, is_ordered, out);
                }
                out.push_str(" ]");
            }
            scalar => out.push_str(&scalar.to_string()),
        }
    }

    /// Changes the scalar at `at` in the order of reading; gives how many were passed.
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
        fn order_and_white_space_do_not_matter(summary in any_json()) {
            let mut other = String::new();
            turned_around(&summary, false, &mut other);
            prop_assert_eq!(hash(&summary.to_string()), hash(&other));
        }

        #[test]
        fn every_scalar_matters(summary in any_json(), at in 0_usize..8) {
            let (mut changed, mut seen) = (summary.clone(), 0);
            change(&mut changed, at, &mut seen);
            prop_assert_eq!(at < seen, hash(&summary.to_string()) != hash(&changed.to_string()));
        }
    }
}
