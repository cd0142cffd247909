//! JSON objects written from slices of text.

use std::borrow::Cow;

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
