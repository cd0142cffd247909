//! JSON objects read field by field, without an intermediate tree.
//!
//! One visitor reads an object into a slot for each field that a column wants, a slice of the
//! summary each, and a rest. Fields are *taken* out of their slots; a value that does not say what
//! its column asks for, and everything that nobody took, becomes the `extra` column. So no upstream
//! field can be lost by being forgotten.

use std::borrow::Cow;
use std::fmt;

use crate::scan::{Slots, Value};

use super::leaf;
use super::members::{Writer, put, write_object};
use super::names::Names;
use crate::drift::Drift;

/// Storage class names that the server's database leaks into its answers.
const NOISE: &str = "__recast";

/// Values that are put back at most, as a rule.
const FEW: usize = 8;

/// What becomes of the fields of an object that have no slot.
#[derive(Clone, Copy)]
pub(super) enum Others {
    /// They are kept; those that are not among the names are counted as unknown.
    Known,
    /// They are kept: the names are free.
    Kept,
    /// They are passed over: the text of the whole object stands in a column.
    Held,
}

/// The fields of one kind of object; declared by [`object!`].
pub(super) trait Fields: Copy {
    /// Where in a summary the object stands, for the counts of drift, with a dot at the end.
    const PATH: &'static str;
    /// The names of the fields that have a slot, and then of others.
    const NAMES: Names;
    /// The names of the fields that have a slot, behind the path.
    const PATHS: &'static [&'static str];
    /// The other fields.
    const OTHERS: Others;
    /// The slot.
    fn at(self) -> usize;
}

/// Declares a kind of object: an enum of the fields that have a slot, and the type of the object.
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
                use $crate::tables::names::{Name, Names, hashed, keyed, places};
                const NAMES: &[Name] = &keyed([$($name,)+ $($($other),*)?]);
                static TABLE: [u8; places(NAMES.len())] = hashed(NAMES);
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
    /// The whole object.
    whole: Option<Value<'a>>,
    /// The members that have no slot or lost it to one of the same name: a bit for each place.
    others: u128,
    /// What was put back, and others beyond the bits: names and JSON texts.
    rest: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// Whether a name may be left twice.
    may_repeat: bool,
    fields: std::marker::PhantomData<F>,
}

impl<F: Fields, const N: usize> Default for Object<'_, F, N> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<'a, F: Fields, const N: usize> Object<'a, F, N> {
    /// An object without fields.
    pub(super) fn empty() -> Self {
        Self {
            slots: Slots::empty(),
            whole: None,
            others: 0,
            rest: Vec::new(),
            may_repeat: false,
            fields: std::marker::PhantomData,
        }
    }

    /// Reads an object; `None` for a value that is none.
    ///
    /// Names are found in any casing. Null means absent. Of a repeated name the last value counts
    /// and is counted; the one before goes to the rest.
    pub(super) fn read(value: Value<'a>, drift: &mut Drift) -> Option<Self> {
        let mut object = Self::empty();
        object.whole = Some(value);
        // Which known names were left already, and how many others.
        let (mut known, mut unknown) = (0_u64, 0);
        for (place, (named, value)) in value.pairs()?.enumerate() {
            let name = named.string()?;
            let found = F::NAMES.find(&name, named);
            if let Some(at) = found.filter(|at| *at < N) {
                if let Some(before) = object.slots.take(at) {
                    drift.odd_value(F::PATHS[at], before.json());
                    let same = |(_, member): (_, Value<'_>)| member.is(before);
                    let place = object.whole?.pairs()?.position(same)?;
                    object.leave(place, before);
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
            if matches!(F::OTHERS, Others::Known) && found.is_none() {
                drift.unknown_field(&format!("{}{name}", F::PATH), value.json());
            }
            match found.and_then(|at| 1_u64.checked_shl(u32::try_from(at - N).ok()?)) {
                Some(bit) => {
                    object.may_repeat |= known & bit != 0;
                    known |= bit;
                }
                None => unknown += 1,
            }
            object.leave(place, value);
        }
        object.may_repeat |= 1 < unknown;
        Some(object)
    }

    fn leave(&mut self, place: usize, value: Value<'a>) {
        if matches!(F::OTHERS, Others::Held) {
            return;
        }
        let bit = u32::try_from(place)
            .ok()
            .and_then(|place| 1_u128.checked_shl(place));
        if let Some(bit) = bit {
            self.others |= bit;
            return;
        }
        let name = value.name().string().unwrap_or_default();
        self.rest.push((name, Cow::Borrowed(value.json())));
    }

    /// Looks at a value and leaves it, so that it ends in `extra`.
    pub(super) fn peek(&self, field: F) -> Option<Value<'a>> {
        self.slots.get(field.at())
    }

    /// Takes a value whole.
    pub(super) fn take(&mut self, field: F) -> Option<Value<'a>> {
        self.slots.take(field.at())
    }

    /// Takes a value that says nothing: the empty text, zero, the empty list.
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
        self.read_with(field, leaf::time_ms, drift)
    }

    /// Takes a list of texts: distinct, none empty. One that holds anything else is left, too, and counted.
    pub(super) fn texts(&mut self, field: F, drift: &mut Drift) -> Vec<Cow<'a, str>> {
        let (texts, is_all) = self
            .read_with(field, leaf::texts, drift)
            .unwrap_or((Vec::new(), true));
        if !is_all {
            self.refuse(field, drift);
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

    /// Takes an object; an absent one has no fields.
    pub(super) fn object<G: Fields, const M: usize>(
        &mut self,
        field: F,
        drift: &mut Drift,
    ) -> Object<'a, G, M> {
        let Some(raw) = self.take(field) else {
            return Object::empty();
        };
        Object::read(raw, drift).unwrap_or_else(|| {
            self.refuse(field, drift);
            Object::empty()
        })
    }

    /// Takes a value that `read` understands; any other goes to the rest and is counted. The empty
    /// text stands for nothing, whatever is read.
    pub(super) fn read_with<T>(
        &mut self,
        field: F,
        read: impl FnOnce(Value<'a>) -> Option<T>,
        drift: &mut Drift,
    ) -> Option<T> {
        let raw = self.take(field).filter(|raw| raw.plain() != Some(""))?;
        let value = read(raw);
        if value.is_none() {
            self.refuse(field, drift);
        }
        value
    }

    /// Counts a value that was taken as odd, and leaves it after all.
    pub(super) fn refuse(&mut self, field: F, drift: &mut Drift) {
        self.keep(field);
        if let Some(raw) = self.peek(field) {
            drift.odd_value(F::PATHS[field.at()], raw.json());
        }
    }

    /// Leaves a value that was taken after all, uncounted.
    pub(super) fn keep(&mut self, field: F) {
        self.slots.restore(field.at());
    }

    /// The name of a slot as it came.
    fn name(&self, at: usize) -> Cow<'a, str> {
        let name = self.slots.name(at);
        name.unwrap_or(Cow::Borrowed(F::NAMES.text(at)))
    }

    /// Puts back what is left of an object that was taken; nothing left leaves nothing.
    pub(super) fn put_back<G: Fields, const M: usize>(&mut self, field: F, left: Object<'a, G, M>) {
        if let Some(json) = left.into_json() {
            self.keep_json(self.name(field.at()), Cow::Owned(json));
        }
    }

    /// Leaves a JSON text to the rest in place of a value.
    pub(super) fn keep_instead(&mut self, field: F, json: String) {
        self.keep_json(self.name(field.at()), Cow::Owned(json));
    }

    fn keep_json(&mut self, name: Cow<'a, str>, json: Cow<'a, str>) {
        if !matches!(F::OTHERS, Others::Held) {
            self.may_repeat |= self.rest.iter().any(|(other, _)| *other == name);
            if self.rest.is_empty() {
                self.rest.reserve(FEW);
            }
            self.rest.push((name, json));
        }
    }

    /// The memory of the longest text that was left in place of a value.
    pub(super) fn into_memory(self) -> String {
        let texts = self.rest.into_iter().filter_map(|(_, json)| match json {
            Cow::Owned(text) => Some(text),
            Cow::Borrowed(_) => None,
        });
        texts.max_by_key(String::capacity).unwrap_or_default()
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.others == 0 && self.slots.is_empty()
    }

    /// Hands over the members that have no slot, in the order in which they came.
    fn each_other(&self, mut each: impl FnMut(Value<'a>)) {
        let Some(mut pairs) = self.whole.and_then(Value::pairs) else {
            return;
        };
        let mut left = self.others;
        // Behind the last one is nothing to look for.
        while left != 0
            && let Some((_, value)) = pairs.next()
        {
            if left & 1 == 1 {
                each(value);
            }
            left >>= 1;
        }
    }

    /// Writes what nobody took as the text of a JSON object. False, and nothing, where all was taken.
    pub(super) fn write_left(&self, out: &mut impl fmt::Write) -> bool {
        if self.is_empty() {
            return false;
        }
        if self.may_repeat {
            let mut all = Vec::new();
            let mut came = |value: Value<'a>| {
                let name = value.name().string().unwrap_or_default();
                all.push((name, Cow::Borrowed(value.json())));
            };
            self.slots.iter().for_each(&mut came);
            self.each_other(came);
            all.extend(self.rest.iter().cloned());
            let all = write_object(&mut all, String::new());
            put(out, &all);
            return true;
        }
        let mut object = Writer::new(out);
        for value in self.slots.iter() {
            object.came(value);
        }
        self.each_other(|value| object.came(value));
        for (name, json) in &self.rest {
            object.member(name, json);
        }
        object.end();
        true
    }

    /// What nobody took, as the text of a JSON object; `None` where all was taken.
    pub(super) fn into_json(self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        // Growing step by step would copy it, and have threads wait for each other's memory.
        let came = self.whole.map_or(0, |whole| whole.json().len());
        let mut json = String::with_capacity(came);
        self.write_left(&mut json).then_some(json)
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
        } others Known ["colour"]
    }

    fn thing(json: &str) -> (Thing<'static>, Drift) {
        let mut drift = Drift::default();
        let value = scan::leaked(json).unwrap();
        (Thing::read(value, &mut drift).unwrap(), drift)
    }

    #[test]
    fn what_is_not_taken_is_left_as_it_came() {
        let json = r#"{"colour":"red","size":"7","new":{"x":1.50},"name":"","inner":{"size":1},"__recast":"B","z":null}"#;
        let (mut thing, mut drift) = thing(json);
        assert_eq!(thing.integer(ThingField::Size, &mut drift), Some(7));
        assert_eq!(thing.text(ThingField::Name, &mut drift), None);
        let inner: Thing<'_> = thing.object(ThingField::Inner, &mut drift);
        thing.put_back(ThingField::Inner, inner);
        let left = r#"{"colour":"red","new":{"x":1.50},"inner":{"size":1}}"#;
        assert_eq!(thing.into_json().unwrap(), left);
        assert_eq!(
            drift.unknown_fields.keys().collect::<Vec<_>>(),
            ["thing.new"]
        );
        assert!(drift.odd_values.is_empty());
    }

    #[test]
    fn an_unexpected_type_is_counted_and_left() {
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
    fn names_are_found_in_any_order_and_casing() {
        for json in [r#"{"SIZE":2,"Name":"n"}"#, r#"{"\u006eame":"n","size":2}"#] {
            let (mut thing, mut drift) = thing(json);
            assert_eq!(thing.text(ThingField::Name, &mut drift).unwrap(), "n");
            assert_eq!(thing.integer(ThingField::Size, &mut drift), Some(2));
            assert!(thing.into_json().is_none() && drift.is_empty());
        }
    }

    #[test]
    fn the_last_of_repeated_names_counts_and_none_is_lost() {
        let (mut thing, mut drift) = thing(r#"{"name":"a","NAME":"b","new":1,"new":2}"#);
        assert_eq!(thing.text(ThingField::Name, &mut drift).unwrap(), "b");
        assert_eq!(drift.odd_values["thing.name"].count, 1);
        assert_eq!(thing.into_json().unwrap(), r#"{"name":"a","new":2}"#);

        let (mut thing, mut drift) = self::thing(r#"{"Size":"a","size":"b"}"#);
        assert_eq!(thing.integer(ThingField::Size, &mut drift), None);
        assert_eq!(thing.into_json().unwrap(), r#"{"size":"b","Size":"a"}"#);
    }

    #[test]
    fn other_values_are_no_objects() {
        for json in ["null", "[]", "7", r#""{}""#, r#"{"\ud800":1}"#] {
            let value = scan::leaked(json).unwrap();
            assert!(
                Thing::read(value, &mut Drift::default()).is_none(),
                "{json}"
            );
        }
    }
}
