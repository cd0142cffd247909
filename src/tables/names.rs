//! The names of one kind of object, found by hashing a few of their bytes.

use crate::scan::Value;

/// The names that are known: those of slots, then others.
pub(super) struct Names {
    names: &'static [Name],
    /// Places among the names, plus one; zero is free. A power of two of them.
    table: &'static [u8],
}

/// A name that is known.
#[derive(Clone, Copy)]
pub(super) struct Name {
    text: &'static str,
    key: Key,
}

/// The length of a name and its first sixteen bytes: of most names all that they are.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key {
    length: u64,
    first: u64,
    next: u64,
}

/// Bytes of a name that its key holds.
const HELD: usize = 16;

/// The places of a table for so many names: most of them stay free.
pub(super) const fn places(names: usize) -> usize {
    (names * 4).next_power_of_two()
}

/// Names with their keys.
pub(super) const fn keyed<const N: usize>(texts: [&'static str; N]) -> [Name; N] {
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

/// The table of names.
#[expect(
    clippy::cast_possible_truncation,
    reason = "places are below 256, as is asserted"
)]
pub(super) const fn hashed<const PLACES: usize>(names: &[Name]) -> [u8; PLACES] {
    assert!(names.len() < 256);
    let mut table = [0; PLACES];
    let mut at = 0;
    while at < names.len() {
        let mut other = 0;
        while other < at {
            let is_twice = names[at].text.eq_ignore_ascii_case(names[other].text);
            assert!(!is_twice, "a name is known twice");
            other += 1;
        }
        let mut place = names[at].key.hash() & (PLACES - 1);
        while table[place] != 0 {
            place = (place + 1) & (PLACES - 1);
        }
        at += 1;
        table[place] = at as u8;
    }
    table
}

impl Names {
    pub(super) const fn new(names: &'static [Name], table: &'static [u8]) -> Self {
        Self { names, table }
    }

    /// The name at a place, as the server spells it.
    pub(super) fn text(&self, at: usize) -> &'static str {
        self.names[at].text
    }

    /// The place of a name, in any casing. `named` is the name where it stands: its key is cut from there
    /// without a branch, while what a name says may have any length.
    #[expect(
        clippy::inline_always,
        reason = "its names are known where it is called"
    )]
    #[inline(always)]
    pub(super) fn find(&self, name: &str, named: Value<'_>) -> Option<usize> {
        let key = match named.inner_and_more() {
            Some((more, length)) => Key::cut(more, length),
            None => Key::of(name.as_bytes()),
        };
        let place = key.hash() & (self.table.len() - 1);
        let at = usize::from(self.table[place]).checked_sub(1)?;
        if self.names[at].is(name, key) {
            return Some(at);
        }
        self.find_from(place, name, key)
    }

    #[cold]
    fn find_from(&self, mut place: usize, name: &str, key: Key) -> Option<usize> {
        loop {
            let at = usize::from(self.table[place]).checked_sub(1)?;
            let known = &self.names[at];
            if known.is(name, key) || known.text.eq_ignore_ascii_case(name) {
                return Some(at);
            }
            place = (place + 1) & (self.table.len() - 1);
        }
    }
}

impl Name {
    #[inline]
    fn is(&self, name: &str, key: Key) -> bool {
        self.key == key && (key.length <= HELD as u64 || self.text == name)
    }
}

impl Key {
    const fn of(name: &[u8]) -> Self {
        let mut bytes = [0; HELD];
        let mut at = 0;
        while at < name.len() && at < HELD {
            bytes[at] = name[at];
            at += 1;
        }
        Self::cut(&bytes, name.len())
    }

    /// The key of a name of so many bytes, with whatever stands behind it.
    #[inline]
    const fn cut(bytes: &[u8; HELD], length: usize) -> Self {
        let (halves, _) = bytes.as_chunks();
        Self {
            length: length as u64,
            first: cut(u64::from_le_bytes(halves[0]), length),
            next: cut(u64::from_le_bytes(halves[1]), length.saturating_sub(8)),
        }
    }

    /// The same for all casings.
    #[inline]
    const fn hash(self) -> usize {
        const LOWER: u64 = u64::MAX / 0xff * 0x20;
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let bytes = (self.first | LOWER) ^ (self.next | LOWER).rotate_left(29) ^ self.length;
        (bytes.wrapping_mul(SPREAD) >> 48) as usize
    }
}

/// So many bytes of a word; zeros for the others.
const fn cut(word: u64, bytes: usize) -> u64 {
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
        const NAMES: &[Name] = &keyed(KNOWN);
        static TABLE: [u8; places(NAMES.len())] = hashed(NAMES);
        Names::new(NAMES, &TABLE)
    };

    /// Looks for a name where it stands in a text, with so much behind it.
    fn find(name: &str, behind: &str) -> Option<usize> {
        let name = serde_json::to_string(name).unwrap();
        let object = scan::leaked(&format!("{{{name}:1{behind}}}")).unwrap();
        let (named, _) = object.pairs().unwrap().next().unwrap();
        NAMES.find(&named.string().unwrap(), named)
    }

    #[test]
    fn names_are_found_wherever_they_stand() {
        for (at, name) in KNOWN.iter().enumerate() {
            assert_eq!(NAMES.text(at), *name);
            for behind in ["", ",\"more\":\"than sixteen bytes of it\""] {
                assert_eq!(find(name, behind), Some(at), "{name}");
                assert_eq!(find(&name.to_ascii_uppercase(), behind), Some(at), "{name}");
                assert_eq!(find(&format!("{name}x"), behind), None, "{name}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_found_as_by_looking_at_each(
            name in r"[a-cA-C]{0,3}|nam[e-g]|NODETYP[d-f]|executionTriggerIn[f-t]o|\PC{0,20}",
            behind in "|,\"b\":2",
        ) {
            let expected = KNOWN.iter().position(|known| known.eq_ignore_ascii_case(&name));
            prop_assert_eq!(find(&name, &behind), expected);
        }
    }
}
