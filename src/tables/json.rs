//! JSON objects, read field by field without an intermediate tree.
//!
//! An object is read into one slot per field that a column needs, and the rest. A slot is a slice of
//! the summary. Callers *take* fields out of their slots. Invalid values, and everything that no caller
//! takes, go to the `extra` column, so no upstream field is lost.

use std::borrow::Cow;
use std::fmt;

use super::convert;
use super::names::Names;
use super::writer::{Writer, put, write_object};
use crate::drift::Drift;
use crate::scan::{Slots, Value};

/// A field with storage class names that the server's database leaks into its responses.
const NOISE: &str = "__recast";

/// Initial capacity for restored values; few objects have more.
const FEW: usize = 8;

/// The handling of fields that have no slot.
#[derive(Clone, Copy)]
pub(super) enum Others {
    /// Keep them, and count those without a known name as unknown.
    CountUnknown,
    /// Keep them. The object has no fixed set of names.
    Keep,
    /// Ignore them. A column contains the text of the enclosing object.
    Ignore,
}

/// The fields of one kind of object. [`object!`] implements this trait.
pub(super) trait Fields: Copy {
    /// The path of the object in a summary, with a trailing dot. Used to count drift.
    const PATH: &'static str;
    /// The names of the fields with a slot, followed by other known names.
    const NAMES: Names;
    /// The full paths of the fields with a slot.
    const PATHS: &'static [&'static str];
    /// The handling of fields without a slot.
    const OTHERS: Others;
    /// Returns the slot of the field.
    fn at(self) -> usize;
}

/// Declares a kind of object: an enum of the fields with a slot, and the object type.
macro_rules! object {
    ($object:ident of $fields:ident at $path:literal {
        $($field:ident = $name:literal),+ $(,)?
    } others $others:ident $([$($other:literal),* $(,)?])?) => {
        #[derive(Clone, Copy)]
        pub(super) enum $fields {
            $($field),+
        }

        impl $crate::tables::json::Fields for $fields {
            const PATH: &'static str = $path;
            const NAMES: $crate::tables::names::Names = {
                use $crate::tables::names::{Name, Names, build_table, table_len, with_keys};
                const NAMES: &[Name] = &with_keys([$($name,)+ $($($other),*)?]);
                static TABLE: [u8; table_len(NAMES.len())] = build_table(NAMES);
                Names::new(NAMES, &TABLE)
            };
            const PATHS: &'static [&'static str] = &[$(concat!($path, $name)),+];
            const OTHERS: $crate::tables::json::Others = $crate::tables::json::Others::$others;

            fn at(self) -> usize {
                self as usize
            }
        }

        pub(super) type $object<'a> =
            $crate::tables::json::Object<'a, $fields, { [$($name),+].len() }>;
    };
}
pub(super) use object;

/// One JSON object: `N` slots for the fields of `F`, and the rest.
pub(super) struct Object<'a, F, const N: usize> {
    slots: Slots<'a, N>,
    /// The object in the summary.
    source: Option<Value<'a>>,
    /// The kept members that have no slot, as a bit per position. Includes members whose slot a later
    /// member of the same name took.
    others: u128,
    /// Restored values and kept members beyond the bits: names and JSON texts.
    rest: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// True if a name may be kept twice.
    may_repeat: bool,
    fields: std::marker::PhantomData<F>,
}

impl<F: Fields, const N: usize> Default for Object<'_, F, N> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<'a, F: Fields, const N: usize> Object<'a, F, N> {
    /// Returns an object without fields.
    pub(super) fn empty() -> Self {
        Self {
            slots: Slots::empty(),
            source: None,
            others: 0,
            rest: Vec::new(),
            may_repeat: false,
            fields: std::marker::PhantomData,
        }
    }

    /// Reads an object; `None` if the value is not an object.
    ///
    /// Names match in any case, and null means absent. If a name repeats, the last value wins. The
    /// earlier ones go to the rest and are counted as drift.
    pub(super) fn read(value: Value<'a>, drift: &mut Drift) -> Option<Self> {
        let mut object = Self::empty();
        object.source = Some(value);
        // The known names that were kept so far, as bits, and the number of unknown names.
        let (mut known, mut unknown) = (0_u64, 0);
        for (position, (named, value)) in value.pairs()?.enumerate() {
            let name = named.string()?;
            let found = F::NAMES.find(&name, named);
            if let Some(at) = found.filter(|at| *at < N) {
                if let Some(before) = object.slots.take(at) {
                    drift.odd_value(F::PATHS[at], before.json());
                    let same = |(_, member): (_, Value<'_>)| member.is_same(before);
                    let position = object.source?.pairs()?.position(same)?;
                    object.keep_other(position, before);
                    object.may_repeat = true;
                }
                if !value.is_null() {
                    object.slots.set(at, value);
                }
                continue;
            }
            if value.is_null() || name == NOISE {
                continue;
            }
            if matches!(F::OTHERS, Others::CountUnknown) && found.is_none() {
                drift.unknown_field(&format!("{}{name}", F::PATH), value.json());
            }
            match found.and_then(|at| 1_u64.checked_shl(u32::try_from(at - N).ok()?)) {
                Some(bit) => {
                    object.may_repeat |= known & bit != 0;
                    known |= bit;
                }
                None => unknown += 1,
            }
            object.keep_other(position, value);
        }
        object.may_repeat |= unknown > 1;
        Some(object)
    }

    fn keep_other(&mut self, position: usize, value: Value<'a>) {
        if matches!(F::OTHERS, Others::Ignore) {
            return;
        }
        let bit = u32::try_from(position)
            .ok()
            .and_then(|position| 1_u128.checked_shl(position));
        if let Some(bit) = bit {
            self.others |= bit;
            return;
        }
        let name = value.name().string().unwrap_or_default();
        self.rest.push((name, Cow::Borrowed(value.json())));
    }

    /// Returns a value without taking it, so that it stays in `extra`.
    pub(super) fn peek(&self, field: F) -> Option<Value<'a>> {
        self.slots.get(field.at())
    }

    /// Takes a value unparsed.
    pub(super) fn take(&mut self, field: F) -> Option<Value<'a>> {
        self.slots.take(field.at())
    }

    /// Takes a value that carries no information: an empty text, zero, an empty list.
    pub(super) fn take_if_empty(&mut self, field: F) {
        let is_empty = |raw: &Value<'_>| matches!(raw.json(), r#""""# | "0" | "[]");
        if self.peek(field).as_ref().is_some_and(is_empty) {
            self.slots.take(field.at());
        }
    }

    /// Takes text.
    pub(super) fn text(&mut self, field: F, drift: &mut Drift) -> Option<Cow<'a, str>> {
        match self.peek(field)?.plain() {
            Some(text) => {
                self.take(field);
                (!text.is_empty()).then_some(Cow::Borrowed(text))
            }
            None => self.read_with(field, Value::text, drift),
        }
    }

    /// Takes a whole number.
    pub(super) fn integer(&mut self, field: F, drift: &mut Drift) -> Option<i64> {
        self.read_with(field, Value::integer, drift)
    }

    /// Takes a boolean.
    pub(super) fn boolean(&mut self, field: F, drift: &mut Drift) -> Option<bool> {
        self.read_with(field, Value::boolean, drift)
    }

    /// Takes a time, in ms since the epoch.
    pub(super) fn time(&mut self, field: F, drift: &mut Drift) -> Option<i64> {
        self.read_with(field, convert::time_ms, drift)
    }

    /// Takes the distinct, non-empty texts of a list. A list with other values is also rejected.
    pub(super) fn texts(&mut self, field: F, drift: &mut Drift) -> Vec<Cow<'a, str>> {
        let (texts, is_complete) = self
            .read_with(field, convert::texts, drift)
            .unwrap_or((Vec::new(), true));
        if !is_complete {
            self.reject(field, drift);
        }
        texts
    }

    /// Takes the items of a list.
    pub(super) fn items(
        &mut self,
        field: F,
        drift: &mut Drift,
    ) -> impl Iterator<Item = Value<'a>> + use<'a, F, N> {
        let items = self.read_with(field, Value::items, drift);
        items.into_iter().flatten()
    }

    /// Takes an object. An absent object has no fields.
    pub(super) fn object<G: Fields, const M: usize>(
        &mut self,
        field: F,
        drift: &mut Drift,
    ) -> Object<'a, G, M> {
        let Some(raw) = self.take(field) else {
            return Object::empty();
        };
        Object::read(raw, drift).unwrap_or_else(|| {
            self.reject(field, drift);
            Object::empty()
        })
    }

    /// Takes a value and parses it with `read`. A value that `read` returns `None` for is rejected. An
    /// empty text means absent for every type.
    pub(super) fn read_with<T>(
        &mut self,
        field: F,
        read: impl FnOnce(Value<'a>) -> Option<T>,
        drift: &mut Drift,
    ) -> Option<T> {
        let raw = self.take(field).filter(|raw| raw.plain() != Some(""))?;
        let value = read(raw);
        if value.is_none() {
            self.reject(field, drift);
        }
        value
    }

    /// Restores a value that was taken and counts it as invalid.
    pub(super) fn reject(&mut self, field: F, drift: &mut Drift) {
        self.restore(field);
        if let Some(raw) = self.peek(field) {
            drift.odd_value(F::PATHS[field.at()], raw.json());
        }
    }

    /// Restores a value that was taken.
    pub(super) fn restore(&mut self, field: F) {
        self.slots.restore(field.at());
    }

    /// Returns the name of a slot as received.
    fn name(&self, at: usize) -> Cow<'a, str> {
        let name = self.slots.name(at);
        name.unwrap_or(Cow::Borrowed(F::NAMES.text(at)))
    }

    /// Restores the fields that are left of an object that was taken.
    pub(super) fn restore_object<G: Fields, const M: usize>(
        &mut self,
        field: F,
        left: Object<'a, G, M>,
    ) {
        if let Some(json) = left.into_json() {
            self.push_rest(self.name(field.at()), Cow::Owned(json));
        }
    }

    /// Adds a JSON text to the rest in place of a value.
    pub(super) fn replace(&mut self, field: F, json: String) {
        self.push_rest(self.name(field.at()), Cow::Owned(json));
    }

    fn push_rest(&mut self, name: Cow<'a, str>, json: Cow<'a, str>) {
        if !matches!(F::OTHERS, Others::Ignore) {
            self.may_repeat |= self.rest.iter().any(|(other, _)| *other == name);
            if self.rest.is_empty() {
                self.rest.reserve(FEW);
            }
            self.rest.push((name, json));
        }
    }

    /// Returns the largest allocation among the restored texts, for reuse.
    pub(super) fn into_allocation(self) -> String {
        let texts = self.rest.into_iter().filter_map(|(_, json)| match json {
            Cow::Owned(text) => Some(text),
            Cow::Borrowed(_) => None,
        });
        texts.max_by_key(String::capacity).unwrap_or_default()
    }

    /// Returns true if nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.others == 0 && self.slots.is_empty()
    }

    /// Calls `each` with the kept members without a slot, in the order of the object.
    fn each_other(&self, mut each: impl FnMut(Value<'a>)) {
        let Some(mut pairs) = self.source.and_then(Value::pairs) else {
            return;
        };
        let mut left = self.others;
        // Stop after the last bit.
        while left != 0
            && let Some((_, value)) = pairs.next()
        {
            if left & 1 == 1 {
                each(value);
            }
            left >>= 1;
        }
    }

    /// Writes the fields that were not taken as a JSON object. Returns false if there are none.
    pub(super) fn write_rest(&self, out: &mut impl fmt::Write) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.may_repeat {
            let mut all = Vec::new();
            let mut collect = |value: Value<'a>| {
                let name = value.name().string().unwrap_or_default();
                all.push((name, Cow::Borrowed(value.json())));
            };
            self.slots.iter().for_each(&mut collect);
            self.each_other(collect);
            all.extend(self.rest.iter().cloned());
            let all = write_object(&mut all, String::new());
            put(out, &all);
            return true;
        }
        let mut object = Writer::new(out);
        for value in self.slots.iter() {
            object.copy(value);
        }
        self.each_other(|value| object.copy(value));
        for (name, json) in &self.rest {
            object.member(name, json);
        }
        object.end();
        true
    }

    /// Returns the fields that were not taken as a JSON object; `None` if there are none.
    pub(super) fn into_json(self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        // Growing step by step would copy the text, and threads would contend for the allocator.
        let received = self.source.map_or(0, |object| object.json().len());
        let mut json = String::with_capacity(received);
        self.write_rest(&mut json).then_some(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan;

    object! {
        Thing of ThingField at "thing." {
            Name = "name",
            Size = "size",
            Inner = "inner",
        } others CountUnknown ["colour"]
    }

    fn thing(json: &str) -> (Thing<'static>, Drift) {
        let mut drift = Drift::default();
        let value = scan::leaked(json).unwrap();
        (Thing::read(value, &mut drift).unwrap(), drift)
    }

    #[test]
    fn fields_not_taken_are_kept_verbatim() {
        let json = r#"{"colour":"red","size":"7","new":{"x":1.50},"name":"","inner":{"size":1},"__recast":"B","z":null}"#;
        let (mut thing, mut drift) = thing(json);
        assert_eq!(thing.integer(ThingField::Size, &mut drift), Some(7));
        assert_eq!(thing.text(ThingField::Name, &mut drift), None);
        let inner: Thing<'_> = thing.object(ThingField::Inner, &mut drift);
        thing.restore_object(ThingField::Inner, inner);
        let left = r#"{"colour":"red","new":{"x":1.50},"inner":{"size":1}}"#;
        assert_eq!(thing.into_json().unwrap(), left);
        assert_eq!(
            drift.unknown_fields.keys().collect::<Vec<_>>(),
            ["thing.new"]
        );
        assert!(drift.odd_values.is_empty());
    }

    #[test]
    fn unexpected_type_is_counted_and_kept() {
        let (mut thing, mut drift) = thing(r#"{"name":{"a":1},"size":1e99,"inner":3}"#);
        assert_eq!(thing.text(ThingField::Name, &mut drift), None);
        assert_eq!(thing.integer(ThingField::Size, &mut drift), None);
        assert!(
            thing
                .object::<ThingField, 3>(ThingField::Inner, &mut drift)
                .is_empty()
        );
        assert_eq!(
            thing.into_json().unwrap(),
            r#"{"name":{"a":1},"size":1e99,"inner":3}"#
        );
        assert_eq!(drift.odd_values.len(), 3);
    }

    #[test]
    fn names_match_in_any_order_and_case() {
        for json in [r#"{"SIZE":2,"Name":"n"}"#, r#"{"\u006eame":"n","size":2}"#] {
            let (mut thing, mut drift) = thing(json);
            assert_eq!(thing.text(ThingField::Name, &mut drift).unwrap(), "n");
            assert_eq!(thing.integer(ThingField::Size, &mut drift), Some(2));
            assert!(thing.into_json().is_none() && drift.is_empty());
        }
    }

    #[test]
    fn last_repeated_name_wins_and_none_is_lost() {
        let (mut thing, mut drift) = thing(r#"{"name":"a","NAME":"b","new":1,"new":2}"#);
        assert_eq!(thing.text(ThingField::Name, &mut drift).unwrap(), "b");
        assert_eq!(drift.odd_values["thing.name"].count, 1);
        assert_eq!(thing.into_json().unwrap(), r#"{"name":"a","new":2}"#);

        let (mut thing, mut drift) = self::thing(r#"{"Size":"a","size":"b"}"#);
        assert_eq!(thing.integer(ThingField::Size, &mut drift), None);
        assert_eq!(thing.into_json().unwrap(), r#"{"size":"b","Size":"a"}"#);
    }

    #[test]
    fn values_other_than_objects_are_not_read() {
        for json in ["null", "[]", "7", r#""{}""#, r#"{"\ud800":1}"#] {
            let value = scan::leaked(json).unwrap();
            assert!(
                Thing::read(value, &mut Drift::default()).is_none(),
                "{json}"
            );
        }
    }
}
