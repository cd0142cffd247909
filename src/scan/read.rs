//! Lenient conversions of a value to text, an integer or a boolean: APIs sometimes send one as another.

use std::borrow::Cow;

use super::Value;

impl<'a> Value<'a> {
    /// Returns text; a number or a boolean as it is written.
    pub(crate) fn text(self) -> Option<Cow<'a, str>> {
        match self.scalar() {
            Some(spelling) => Some(Cow::Borrowed(spelling)),
            None => self.string(),
        }
    }

    /// Returns an integer, also one written as text or with a fraction of zero.
    pub(crate) fn integer(self) -> Option<i64> {
        if let Some(number) = self.scalar().and_then(|spelling| spelling.parse().ok()) {
            return Some(number);
        }
        let text = self.text()?;
        let text = text.trim();
        text.parse()
            .ok()
            .or_else(|| exact_integer(text.parse().ok()?))
    }

    /// Returns a boolean, also one written as text.
    pub(crate) fn boolean(self) -> Option<bool> {
        match self.text()?.trim() {
            word if word.eq_ignore_ascii_case("true") => Some(true),
            word if word.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }
}

/// Returns the integer that a float equals, such as `1.7e12`. From 2^53 on, floats cannot represent every
/// integer.
pub(crate) fn exact_integer(float: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "an integer below 2^53")]
    (float.fract() == 0.0 && float.abs() < EXACT).then_some(float as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Value<'static> {
        super::super::leaked(json).unwrap()
    }

    #[test]
    fn text_without_escapes_is_borrowed() {
        assert!(matches!(raw("\"é\"").text(), Some(Cow::Borrowed("é"))));
        assert_eq!(raw(r#""a\n\u00e9""#).text().unwrap(), "a\né");
        assert_eq!(raw("-1.50").text().unwrap(), "-1.50");
        assert_eq!(raw("true").text().unwrap(), "true");
        for none in ["null", "{}", "[]", r#""\ud800""#] {
            assert_eq!(raw(none).text(), None, "{none}");
        }
    }

    #[test]
    fn numbers_and_booleans_have_many_spellings() {
        for json in ["1416", "\"1416\"", "\" 1416 \"", "1416.0", "1.416e3"] {
            assert_eq!(raw(json).integer(), Some(1416), "{json}");
        }
        for none in [
            "1.5",
            "1e99",
            "9007199254740992.0",
            "\"\"",
            "\"NaN\"",
            "\"inf\"",
            "true",
            "[1]",
        ] {
            assert_eq!(raw(none).integer(), None, "{none}");
        }
        assert_eq!(raw("-9223372036854775808").integer(), Some(i64::MIN));
        assert_eq!(
            raw("9007199254740993").integer(),
            Some(9_007_199_254_740_993)
        );
        assert_eq!(raw("\"True\"").boolean(), Some(true));
        assert_eq!(raw("0").boolean(), None);
    }
}
