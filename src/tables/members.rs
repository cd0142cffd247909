//! The members of a JSON object, read and written as slices of text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::leaf;

/// The text of a JSON object; of a repeated name the last one is written.
pub(super) fn write_object(mut members: Vec<(Cow<'_, str>, Cow<'_, str>)>) -> String {
    leaf::last_of_each(&mut members, |_, _| {});
    let bytes = |(name, json): &(Cow<'_, str>, Cow<'_, str>)| name.len() + json.len() + 4;
    let mut out = String::with_capacity(1 + members.iter().map(bytes).sum::<usize>());
    for (name, json) in &members {
        out.push(if out.is_empty() { '{' } else { ',' });
        if name
            .bytes()
            .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
        {
            out.extend(["\"", name, "\""]);
        } else {
            out.push_str(&string(name));
        }
        out.push(':');
        out.push_str(json);
    }
    out.push_str(if out.is_empty() { "{}" } else { "}" });
    out
}

/// A text as JSON.
pub(super) fn string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always written")
}

/// The members of a JSON object in their order; `None` where the text is no JSON object.
pub(super) fn members(json: &str) -> Option<Vec<(Cow<'_, str>, &RawValue)>> {
    let mut members = Vec::new();
    each_member(json, |name, value| members.push((name, value)))?;
    Some(members)
}

/// Hands each member of a JSON object to `each`; `None` where the text is no JSON object.
pub(super) fn each_member<'a>(
    json: &'a str,
    each: impl FnMut(Cow<'a, str>, &'a RawValue),
) -> Option<()> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    deserializer.deserialize_map(EachMember(each)).ok()?;
    deserializer.end().ok()
}

struct EachMember<E>(E);

impl<'de, E: FnMut(Cow<'de, str>, &'de RawValue)> Visitor<'de> for EachMember<E> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            (self.0)(name, map.next_value()?);
        }
        Ok(())
    }
}

/// A name, borrowed where it has no escapes (`Cow` by itself is always read as owned).
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;

        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(NameVisitor)
    }
}
