//! Writes JSON objects from slices of JSON text.

use std::borrow::Cow;
use std::fmt;

use super::dedup;
use crate::scan::Value;

/// A writer of one JSON object.
pub(super) struct Writer<'a, W> {
    out: W,
    is_first: bool,
    /// The first and last of adjacent members that are copied in one piece.
    run: Option<(Value<'a>, Value<'a>)>,
}

impl<'a, W: fmt::Write> Writer<'a, W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            is_first: true,
            run: None,
        }
    }

    /// Copies a member verbatim, without the white space around it.
    pub(super) fn copy(&mut self, value: Value<'a>) {
        if !value.is_compact() {
            let name = value.name().string().unwrap_or_default();
            return self.member(&name, value.json());
        }
        match &mut self.run {
            Some((_, last)) if last.is_adjacent_to(value.name()) => *last = value,
            _ => {
                self.end_run();
                self.run = Some((value, value));
            }
        }
    }

    /// Writes a member from a name and the JSON text of its value.
    pub(super) fn member(&mut self, name: &str, json: &str) {
        self.end_run();
        let is_plain = |byte| byte >= b' ' && byte != b'"' && byte != b'\\';
        if name.bytes().all(is_plain) {
            self.write(["\"", name, "\":", json]);
        } else {
            self.write([&string(name), ":", json, ""]);
        }
    }

    pub(super) fn end(mut self) {
        self.end_run();
        put(&mut self.out, if self.is_first { "{}" } else { "}" });
    }

    fn end_run(&mut self) {
        if let Some((first, last)) = self.run.take() {
            self.write([first.name().json_to(last)]);
        }
    }

    fn write<const N: usize>(&mut self, parts: [&str; N]) {
        put(&mut self.out, if self.is_first { "{" } else { "," });
        self.is_first = false;
        for part in parts {
            put(&mut self.out, part);
        }
    }
}

pub(super) fn put(out: &mut impl fmt::Write, text: &str) {
    out.write_str(text)
        .expect("writing to memory does not fail");
}

/// Writes an object into the allocation of `text`. If a name repeats, the last member wins.
pub(super) fn write_object(
    members: &mut Vec<(Cow<'_, str>, Cow<'_, str>)>,
    mut text: String,
) -> String {
    dedup::keep_last(members, |_, _| {});
    let bytes = |(name, json): &(Cow<'_, str>, Cow<'_, str>)| name.len() + json.len() + 4;
    text.clear();
    text.reserve(2 + members.iter().map(bytes).sum::<usize>());
    let mut object = Writer::new(&mut text);
    for (name, json) in members {
        object.member(name, json);
    }
    object.end();
    text
}

/// Returns a text as a JSON string.
pub(super) fn string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always valid JSON")
}
