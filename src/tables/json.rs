//! JSON objects read field by field, without an intermediate tree.
//!
//! One visitor reads an object into a slot for each field that a column wants, a slice of the
//! summary each, and a rest. Fields are *taken* out of their slots; a value that does not say what
//! its column asks for, and everything that nobody took, becomes the `extra` column. So no upstream
//! field can be lost by being forgotten.

use std::borrow::Cow;

use crate::scan::{Slots, Value};

use super::leaf;
use super::members::write_object;
use crate::drift::Drift;

/// Storage class names that the server's database leaks into its answers.
const NOISE: &str = "__recast";

/// What becomes of the fields of an object that have no slot.
#[derive(Clone, Copy)]
pub(super) enum Others {
    /// They are kept; those that are not named here are counted as unknown.
    Known(&'static [&'static str]),
    /// They are kept: the names are free.
    Kept,
    /// They are passed over: the text of the whole object stands in a column.
    Held,
}

/// The fields of one kind of object; declared by [`object!`].
pub(super) trait Fields: Copy {
    /// Where in a summary the object stands, for the counts of drift, with a dot at the end.
    const PATH: &'static str;
    /// The names of the fields that have a slot, as the server spells and orders them.
    const NAMES: &'static [&'static str];
    /// The other fields.
    const OTHERS: Others;
    /// The slot.
    fn at(self) -> usize;
}

/// Declares a kind of object: an enum of the fields that have a slot, and the type of the object.
macro_rules! object {
    ($object:ident of $fields:ident at $path:literal {
        $($field:ident = $name:literal),+ $(,)?
    } others $others:expr) => {
        #[derive(Clone, Copy)]
        pub(super) enum $fields {
            $($field),+
        }

        impl $crate::tables::json::Fields for $fields {
            const PATH: &'static str = $path;
            const NAMES: &'static [&'static str] = &[$($name),+];
            const OTHERS: $crate::tables::json::Others = $others;

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
    /// The values that have no slot or lost it to one of the same name, in the order in which they came.
    others: Vec<Value<'a>>,
    /// What was put back: names and JSON texts.
    rest: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    fields: std::marker::PhantomData<F>,
}

impl<'a, F: Fields, const N: usize> Object<'a, F, N> {
    /// An object without fields.
    pub(super) fn empty() -> Self {
        Self {
            slots: Slots::empty(),
            others: Vec::new(),
            rest: Vec::new(),
            fields: std::marker::PhantomData,
        }
    }

    /// Reads an object; `None` for a value that is none.
    ///
    /// Names are found in any casing. Null means absent. Of a repeated name the last value counts
    /// and is counted; the one before goes to the rest.
    pub(super) fn read(value: Value<'a>, drift: &mut Drift) -> Option<Self> {
        let mut object = Self::empty();
        // Servers send fields in a steady order: the next one is looked for where the last was found.
        let (mut slot, mut other) = (0, 0);
        value.each_member(|name, value| {
            let is_other =
                matches!(F::OTHERS, Others::Known(names) if is_at(names, &name, &mut other));
            debug_assert!(!is_other || find(F::NAMES, &name, &mut 0).is_none());
            if !is_other && let Some(at) = find(F::NAMES, &name, &mut slot) {
                if let Some(before) = object.slots.take(at) {
                    drift.odd_value(&format!("{}{}", F::PATH, F::NAMES[at]), before.json());
                    object.leave(before);
                }
                if !value.is_null() {
                    object.slots.set(at, value);
                }
                return;
            }
            if value.is_null() || name == NOISE {
                return;
            }
            if let Others::Known(names) = F::OTHERS
                && !is_other
                && find(names, &name, &mut other).is_none()
            {
                drift.unknown_field(&format!("{}{name}", F::PATH), value.json());
            }
            object.leave(value);
        })?;
        Some(object)
    }

    fn leave(&mut self, value: Value<'a>) {
        match F::OTHERS {
            Others::Held => return,
            Others::Known(names) if self.others.is_empty() => self.others.reserve(names.len()),
            Others::Known(_) | Others::Kept => {}
        }
        self.others.push(value);
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
        self.read_with(field, leaf::text, drift)
    }

    /// Takes a whole number.
    pub(super) fn integer(&mut self, field: F, drift: &mut Drift) -> Option<i64> {
        self.read_with(field, leaf::integer, drift)
    }

    /// Takes a boolean.
    pub(super) fn boolean(&mut self, field: F, drift: &mut Drift) -> Option<bool> {
        self.read_with(field, leaf::boolean, drift)
    }

    /// Takes a time, in ms since the epoch.
    pub(super) fn time(&mut self, field: F, drift: &mut Drift) -> Option<i64> {
        self.read_with(field, leaf::time_ms, drift)
    }

    /// Takes a list of texts: distinct, none empty.
    pub(super) fn texts(&mut self, field: F, drift: &mut Drift) -> Vec<Cow<'a, str>> {
        self.read_with(field, leaf::texts, drift)
            .unwrap_or_default()
    }

    /// Takes a list.
    pub(super) fn list(&mut self, field: F, drift: &mut Drift) -> Vec<Value<'a>> {
        self.read_with(field, leaf::list, drift).unwrap_or_default()
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
            self.odd(field.at(), raw, drift);
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
        let raw = self.take(field).filter(|raw| raw.json() != r#""""#)?;
        let value = read(raw);
        if value.is_none() {
            self.odd(field.at(), raw, drift);
        }
        value
    }

    /// Counts a value as odd and sends it to the rest.
    pub(super) fn refuse(&mut self, field: F, raw: Value<'a>, drift: &mut Drift) {
        self.odd(field.at(), raw, drift);
    }

    fn odd(&mut self, at: usize, raw: Value<'a>, drift: &mut Drift) {
        drift.odd_value(&format!("{}{}", F::PATH, F::NAMES[at]), raw.json());
        let name = raw.name().unwrap_or(Cow::Borrowed(F::NAMES[at]));
        self.keep_json(name, Cow::Borrowed(raw.json()));
    }

    /// The name of a slot as it came.
    fn name(&self, at: usize) -> Cow<'a, str> {
        let name = self.slots.name(at);
        name.unwrap_or(Cow::Borrowed(F::NAMES[at]))
    }

    /// Leaves a value to the rest, uncounted.
    pub(super) fn keep(&mut self, field: F, raw: Value<'a>) {
        self.keep_json(self.name(field.at()), Cow::Borrowed(raw.json()));
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
            self.rest.push((name, json));
        }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty() && self.others.is_empty() && self.slots.is_empty()
    }

    /// What nobody took, as the text of a JSON object; `None` where all was taken.
    pub(super) fn into_json(mut self) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let mut members = Vec::with_capacity(N + self.others.len() + self.rest.len());
        for value in self.slots.iter().chain(self.others.iter().copied()) {
            let name = value.name().unwrap_or_default();
            members.push((name, Cow::Borrowed(value.json())));
        }
        members.append(&mut self.rest);
        Some(write_object(members))
    }
}

/// Whether a name is the one at `cursor`, which then moves on.
fn is_at(names: &[&str], name: &str, cursor: &mut usize) -> bool {
    let is_at = names.get(*cursor).is_some_and(|known| *known == name);
    *cursor += usize::from(is_at);
    is_at
}

/// Where a name stands among `names`: looked for from `cursor` on, then in any casing. `cursor`
/// moves behind what was found.
fn find(names: &[&str], name: &str, cursor: &mut usize) -> Option<usize> {
    let (before, after) = names.split_at((*cursor).min(names.len()));
    let exact = |known: &&str| *known == name;
    let at = (after.iter().position(exact).map(|at| before.len() + at))
        .or_else(|| before.iter().position(exact))
        .or_else(|| {
            names
                .iter()
                .position(|known| known.eq_ignore_ascii_case(name))
        })?;
    *cursor = at + 1;
    Some(at)
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
        } others Others::Known(&["colour"])
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

        let json = r#"{"Size":"a","size":"b"}"#;
        let (mut thing, mut drift) = self::thing(json);
        assert_eq!(thing.integer(ThingField::Size, &mut drift), None);
        assert_eq!(thing.into_json().unwrap(), json);
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
