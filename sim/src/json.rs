//! Writes JSON text into one string. A page of 1,000 summaries has megabytes, and a tree of values
//! would be the slowest part of the server.

use std::fmt::Write;

/// The JSON text under construction.
#[derive(Default)]
pub(super) struct Json(String);

impl Json {
    /// Writes an object and returns its text.
    pub(super) fn object(fill: impl FnOnce(&mut Self)) -> String {
        let mut json = Self::default();
        json.braced('{', '}', fill);
        json.0
    }

    /// Writes `"key": "text"`.
    pub(super) fn str(&mut self, key: &str, text: &str) {
        self.key(key);
        self.quoted(text);
    }

    /// Writes `"key": "text"`, or null for `None`.
    pub(super) fn opt(&mut self, key: &str, text: Option<&str>) {
        match text {
            Some(text) => self.str(key, text),
            None => self.null(key),
        }
    }

    /// Writes `"key": number`.
    pub(super) fn int(&mut self, key: &str, number: i64) {
        self.key(key);
        let _ = write!(self.0, "{number}");
    }

    /// Writes `"key": number`, or nothing for `None`.
    pub(super) fn int_if(&mut self, key: &str, number: Option<i64>) {
        if let Some(number) = number {
            self.int(key, number);
        }
    }

    /// Writes `"key": true`.
    pub(super) fn bool(&mut self, key: &str, is: bool) {
        self.key(key);
        self.0.push_str(if is { "true" } else { "false" });
    }

    /// Writes `"key": null`.
    pub(super) fn null(&mut self, key: &str) {
        self.key(key);
        self.0.push_str("null");
    }

    /// Writes `"key": {..}`.
    pub(super) fn map(&mut self, key: &str, fill: impl FnOnce(&mut Self)) {
        self.key(key);
        self.braced('{', '}', fill);
    }

    /// Writes `"key": [{..}, ..]`.
    pub(super) fn maps<T>(
        &mut self,
        key: &str,
        of: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Self, T),
    ) {
        self.key(key);
        self.braced('[', ']', |json| {
            for one in of {
                json.comma();
                json.braced('{', '}', |json| fill(json, one));
            }
        });
    }

    /// Writes `"key": ["text", null, ..]`.
    pub(super) fn strings<T: AsRef<str>>(
        &mut self,
        key: &str,
        of: impl IntoIterator<Item = Option<T>>,
    ) {
        self.key(key);
        self.braced('[', ']', |json| {
            for one in of {
                json.comma();
                match one {
                    Some(text) => json.quoted(text.as_ref()),
                    None => json.0.push_str("null"),
                }
            }
        });
    }

    /// Writes `"key": [1, 2]`.
    pub(super) fn ints(&mut self, key: &str, of: impl IntoIterator<Item = i64>) {
        self.key(key);
        self.braced('[', ']', |json| {
            for one in of {
                json.comma();
                let _ = write!(json.0, "{one}");
            }
        });
    }

    /// Writes `"key": ` and a value that is already JSON.
    pub(super) fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.0.push_str(json);
    }

    fn braced(&mut self, open: char, close: char, fill: impl FnOnce(&mut Self)) {
        self.0.push(open);
        fill(self);
        self.0.push(close);
    }

    fn key(&mut self, key: &str) {
        self.comma();
        self.quoted(key);
        self.0.push(':');
    }

    fn comma(&mut self) {
        if !matches!(self.0.as_bytes().last(), None | Some(b'{' | b'[')) {
            self.0.push(',');
        }
    }

    fn quoted(&mut self, text: &str) {
        self.0.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                '\n' => self.0.push_str("\\n"),
                '\r' => self.0.push_str("\\r"),
                '\t' => self.0.push_str("\\t"),
                control if control < ' ' => {
                    let _ = write!(self.0, "\\u{:04x}", u32::from(control));
                }
                plain => self.0.push(plain),
            }
        }
        self.0.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_round_trips() {
        let text = Json::object(|json| {
            json.str("a", "q\"\\\n\u{1}é");
            json.map("empty", |_| {});
            json.strings("list", [Some("x"), None]);
            json.maps("maps", [1, 2], |json, n| json.int("n", n));
            json.ints("ints", []);
            json.raw("raw", "[]");
        });
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let expected = serde_json::json!({
            "a": "q\"\\\n\u{1}é", "empty": {}, "list": ["x", null],
            "maps": [{"n": 1}, {"n": 2}], "ints": [], "raw": []
        });
        assert_eq!(value, expected);
    }
}
