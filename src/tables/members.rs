//! JSON objects written from slices of text.

use std::borrow::Cow;
use std::fmt;

use super::leaf;
use crate::scan::Value;

/// Writes the members of a JSON object one by one.
pub(super) struct Writer<'a, W> {
    out: W,
    is_first: bool,
    /// The first and the last of members that came side by side and are to be written.
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

    /// Writes a member as it came, but for white space around it.
    pub(super) fn came(&mut self, value: Value<'a>) {
        if !value.is_compact() {
            let name = value.name().string().unwrap_or_default();
            return self.member(&name, value.json());
        }
        match &mut self.run {
            Some((_, last)) if last.touches(value.name()) => *last = value,
            _ => {
                self.end_run();
                self.run = Some((value, value));
            }
        }
    }

    /// Writes a name, which is text, and a value, which is JSON.
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
    out.write_str(text).expect("memory takes any text");
}

/// The text of a JSON object, in the memory of `text`; of a repeated name the last one is written.
pub(super) fn write_object(
    members: &mut Vec<(Cow<'_, str>, Cow<'_, str>)>,
    mut text: String,
) -> String {
    leaf::last_of_each(members, |_, _| {});
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

/// A text as JSON.
pub(super) fn string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always written")
}
