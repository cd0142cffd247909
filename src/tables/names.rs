//! A compile-time hash table of field names that hashes the first 16 bytes of a name.
//!
//! Looking up a name costs about 70 instructions. `phf` costs about 590 with names that match in any
//! case, and 270 with exact names, which would add 31 % and 12 % to deriving the tables.

use crate::scan::Value;

/// The known names of one kind of object: those with a slot, then others.
pub(super) struct Names {
    names: &'static [Name],
    /// Indexes into `names` plus one; zero marks a free entry. The length is a power of two.
    table: &'static [u8],
}

/// A known name.
#[derive(Clone, Copy)]
pub(super) struct Name {
    text: &'static str,
    key: Key,
}

/// The length and the first 16 bytes of a name, which identify most names.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    length: u64,
    first: u64,
    next: u64,
}

/// The number of bytes of a name in its key.
const KEY_BYTES: usize = 16;

/// Returns the table length for a number of names. At most a quarter of the entries are used.
pub(super) const fn table_len(names: usize) -> usize {
    (names * 4).next_power_of_two()
}

/// Computes the keys of names.
pub(super) const fn with_keys<const N: usize>(texts: [&'static str; N]) -> [Name; N] {
    let key = Key::of(b"");
    let mut names = [Name { text: "", key }; N];
    let mut at = 0;
    while at < N {
        let text = texts[at];
        let key = Key::of(text.as_bytes());
        names[at] = Name { text, key };
        at += 1;
    }
    names
}

/// Builds the hash table of names.
#[expect(
    clippy::cast_possible_truncation,
    reason = "indexes are below 256, as asserted"
)]
pub(super) const fn build_table<const LEN: usize>(names: &[Name]) -> [u8; LEN] {
    assert!(names.len() < 256);
    let mut table = [0; LEN];
    let mut at = 0;
    while at < names.len() {
        let mut other = 0;
        while other < at {
            let is_repeated = names[at].text.eq_ignore_ascii_case(names[other].text);
            assert!(!is_repeated, "a name is declared twice");
            other += 1;
        }
        let mut entry = names[at].key.hash() & (LEN - 1);
        while table[entry] != 0 {
            entry = (entry + 1) & (LEN - 1);
        }
        at += 1;
        table[entry] = at as u8;
    }
    table
}

impl Names {
    pub(super) const fn new(names: &'static [Name], table: &'static [u8]) -> Self {
        Self { names, table }
    }

    /// Returns the name at an index, as the server spells it.
    pub(super) fn text(&self, at: usize) -> &'static str {
        self.names[at].text
    }

    /// Returns the index of a name, in any case.
    ///
    /// `named` is the name within the document. Its key is read from there without a branch on the
    /// length of the name.
    #[expect(clippy::inline_always, reason = "the names are constant at each call")]
    #[inline(always)]
    pub(super) fn find(&self, name: &str, named: Value<'_>) -> Option<usize> {
        let key = match named.inner_with_following() {
            Some((bytes, length)) => Key::new(bytes, length),
            None => Key::of(name.as_bytes()),
        };
        let entry = key.hash() & (self.table.len() - 1);
        let at = usize::from(self.table[entry]).checked_sub(1)?;
        if self.names[at].is(name, key) {
            return Some(at);
        }
        self.find_from(entry, name, key)
    }

    #[cold]
    fn find_from(&self, mut entry: usize, name: &str, key: Key) -> Option<usize> {
        loop {
            let at = usize::from(self.table[entry]).checked_sub(1)?;
            let known = &self.names[at];
            if known.is(name, key) || known.text.eq_ignore_ascii_case(name) {
                return Some(at);
            }
            entry = (entry + 1) & (self.table.len() - 1);
        }
    }
}

impl Name {
    #[inline]
    fn is(&self, name: &str, key: Key) -> bool {
        self.key == key && (key.length <= KEY_BYTES as u64 || self.text == name)
    }
}

impl Key {
    const fn of(name: &[u8]) -> Self {
        let mut bytes = [0; KEY_BYTES];
        let mut at = 0;
        while at < name.len() && at < KEY_BYTES {
            bytes[at] = name[at];
            at += 1;
        }
        Self::new(&bytes, name.len())
    }

    /// Returns the key of a name with `length` bytes. Bytes after the name are ignored.
    #[inline]
    const fn new(bytes: &[u8; KEY_BYTES], length: usize) -> Self {
        let (halves, _) = bytes.as_chunks();
        Self {
            length: length as u64,
            first: keep_bytes(u64::from_le_bytes(halves[0]), length),
            next: keep_bytes(u64::from_le_bytes(halves[1]), length.saturating_sub(8)),
        }
    }

    /// Returns the same hash for all cases of a name.
    #[inline]
    const fn hash(self) -> usize {
        const LOWER: u64 = u64::MAX / 0xff * 0x20;
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let bytes = (self.first | LOWER) ^ (self.next | LOWER).rotate_left(29) ^ self.length;
        (bytes.wrapping_mul(SPREAD) >> 48) as usize
    }
}

/// Keeps the first `bytes` bytes of a word and sets the others to zero.
const fn keep_bytes(word: u64, bytes: usize) -> u64 {
    if bytes < 8 {
        word & !(u64::MAX << (8 * bytes))
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan;

    const KNOWN: [&str; 9] = [
        "",
        "a",
        "ab",
        "name",
        "nodeType",
        "executionTriggerInfo",
        "executionTriggerInto",
        "__recast",
        "größe",
    ];

    static NAMES: Names = {
        const NAMES: &[Name] = &with_keys(KNOWN);
        static TABLE: [u8; table_len(NAMES.len())] = build_table(NAMES);
        Names::new(NAMES, &TABLE)
    };

    /// Looks up a name within a document, followed by the text `after`.
    fn find(name: &str, after: &str) -> Option<usize> {
        let name = serde_json::to_string(name).unwrap();
        let object = scan::leaked(&format!("{{{name}:1{after}}}")).unwrap();
        let (named, _) = object.pairs().unwrap().next().unwrap();
        NAMES.find(&named.string().unwrap(), named)
    }

    #[test]
    fn names_are_found_at_any_position() {
        for (at, name) in KNOWN.iter().enumerate() {
            assert_eq!(NAMES.text(at), *name);
            for after in ["", ",\"more\":\"than sixteen bytes of it\""] {
                assert_eq!(find(name, after), Some(at), "{name}");
                assert_eq!(find(&name.to_ascii_uppercase(), after), Some(at), "{name}");
                assert_eq!(find(&format!("{name}x"), after), None, "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_a_linear_search(
            name in r"[a-cA-C]{0,3}|nam[e-g]|NODETYP[d-f]|executionTriggerIn[f-t]o|\PC{0,20}",
            after in "|,\"b\":2",
        ) {
            let expected = KNOWN.iter().position(|known| known.eq_ignore_ascii_case(&name));
            prop_assert_eq!(find(&name, &after), expected);
        }
    }
}
