//! Builders for the columns of a table, checked against its schema.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::{
    ArrayBuilder, BooleanBuilder, Date32Builder, Int64Builder, ListBuilder, MapBuilder,
    MapFieldNames, StringBuilder, TimestampMicrosecondBuilder,
};

use crate::schema;

/// A column under construction.
pub(super) trait Column: Default {
    /// Returns the finished column and resets the builder, keeping the capacity.
    ///
    /// Batches have similar sizes, so the next one does not have to grow step by step.
    fn finish(&mut self) -> ArrayRef;
}

/// Declares the builder of one table: a struct with one field per column, in schema order.
macro_rules! columns {
    ($name:ident of $table:expr => { $($column:ident: $kind:ident),+ $(,)? }) => {
        #[derive(Default)]
        pub(super) struct $name {
            $($column: $crate::tables::columns::$kind,)+
        }

        impl $name {
            /// Returns the finished columns as one batch and resets the builder.
            pub(super) fn finish(&mut self) -> arrow_array::RecordBatch {
                let columns = vec![$($crate::tables::columns::Column::finish(&mut self.$column)),+];
                arrow_array::RecordBatch::try_new($table.arrow_schema().clone(), columns)
                    .expect("every row sets every column, and a test compares the columns with the schema")
            }
        }

        #[cfg(test)]
        #[test]
        fn columns_match_the_schema() {
            let schema = $table.arrow_schema();
            let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            assert_eq!([$(stringify!($column)),+].as_slice(), names);
            assert_eq!($name::default().finish().num_rows(), 0);
        }
    };
}
pub(super) use columns;

/// Sets the columns that all tables of an execution share.
macro_rules! set_head {
    ($columns:expr, $head:expr) => {
        $columns.account_id.set($head.account);
        $columns.org_id.set($head.row.org_id);
        $columns.project_id.set($head.row.project_id);
        $columns.pipeline_id.push($head.pipeline_id.as_ref());
        $columns.plan_execution_id.set($head.row.plan_execution_id);
        $columns.observed_ts.set_ms($head.row.observed_ms);
    };
}
pub(super) use set_head;

/// A `utf8` column.
#[derive(Default)]
pub(super) struct Text(StringBuilder);

impl Text {
    pub(super) fn set(&mut self, value: &str) {
        self.0.append_value(value);
    }

    pub(super) fn push(&mut self, value: Option<impl AsRef<str>>) {
        self.0.append_option(value);
    }

    /// Appends the text that `write` writes into the column, or null if it returns false.
    /// `write` must write nothing in that case.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut StringBuilder) -> bool) {
        if write(&mut self.0) {
            self.0.append_value("");
        } else {
            self.0.append_null();
        }
    }
}

impl Column for Text {
    fn finish(&mut self) -> ArrayRef {
        let next = with_capacity_of(&self.0);
        Arc::new(std::mem::replace(&mut self.0, next).finish())
    }
}

/// Returns an empty builder with the capacity for the content of `texts` and an eighth more.
fn with_capacity_of(texts: &StringBuilder) -> StringBuilder {
    let bytes = texts.values_slice().len();
    StringBuilder::with_capacity(texts.len(), bytes + bytes / 8)
}

/// A `boolean` column.
#[derive(Default)]
pub(super) struct Flag(BooleanBuilder);

impl Flag {
    pub(super) fn set(&mut self, value: bool) {
        self.0.append_value(value);
    }

    pub(super) fn push(&mut self, value: Option<bool>) {
        self.0.append_option(value);
    }
}

impl Column for Flag {
    fn finish(&mut self) -> ArrayRef {
        let next = BooleanBuilder::with_capacity(self.0.len());
        Arc::new(std::mem::replace(&mut self.0, next).finish())
    }
}

/// An `int64` column.
#[derive(Default)]
pub(super) struct Int(Int64Builder);

impl Int {
    pub(super) fn set(&mut self, value: i64) {
        self.0.append_value(value);
    }

    /// Appends a count or an index.
    pub(super) fn count(&mut self, value: usize) {
        self.set(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn push(&mut self, value: Option<i64>) {
        self.0.append_option(value);
    }
}

impl Column for Int {
    fn finish(&mut self) -> ArrayRef {
        let next = Int64Builder::with_capacity(self.0.len());
        Arc::new(std::mem::replace(&mut self.0, next).finish())
    }
}

/// A `timestamp` column.
pub(super) struct Time(TimestampMicrosecondBuilder);

impl Default for Time {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Time {
    fn with_capacity(rows: usize) -> Self {
        Self(TimestampMicrosecondBuilder::with_capacity(rows).with_timezone("UTC"))
    }

    /// Appends a time in ms since the epoch. Saturates if it does not fit in microseconds.
    pub(super) fn set_ms(&mut self, ms: i64) {
        self.0.append_value(ms.saturating_mul(1000));
    }

    /// Appends a time in ms since the epoch, or null.
    pub(super) fn push_ms(&mut self, ms: Option<i64>) {
        self.0.append_option(ms.map(|ms| ms.saturating_mul(1000)));
    }

    pub(super) fn push(&mut self, time: Option<jiff::Timestamp>) {
        self.0
            .append_option(time.map(jiff::Timestamp::as_microsecond));
    }
}

impl Column for Time {
    fn finish(&mut self) -> ArrayRef {
        let next = Self::with_capacity(self.0.len());
        Arc::new(std::mem::replace(self, next).0.finish())
    }
}

/// A `date` column.
#[derive(Default)]
pub(super) struct Day(Date32Builder);

impl Day {
    /// Appends the UTC date of a time in ms since the epoch, or null.
    pub(super) fn push_ms(&mut self, ms: Option<i64>) {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        let days = ms.and_then(|ms| i32::try_from(ms.div_euclid(DAY_MS)).ok());
        self.0.append_option(days);
    }
}

impl Column for Day {
    fn finish(&mut self) -> ArrayRef {
        let next = Date32Builder::with_capacity(self.0.len());
        Arc::new(std::mem::replace(&mut self.0, next).finish())
    }
}

/// A `list<utf8>` column.
pub(super) struct TextList(ListBuilder<StringBuilder>);

impl Default for TextList {
    fn default() -> Self {
        Self::with_capacity(0, StringBuilder::new())
    }
}

impl TextList {
    fn with_capacity(rows: usize, values: StringBuilder) -> Self {
        Self(ListBuilder::with_capacity(values, rows).with_field(schema::list_item()))
    }

    pub(super) fn push(&mut self, values: &[impl AsRef<str>]) {
        for value in values {
            self.0.values().append_value(value);
        }
        self.0.append(true);
    }
}

impl Column for TextList {
    fn finish(&mut self) -> ArrayRef {
        let next = Self::with_capacity(self.0.len(), with_capacity_of(self.0.values()));
        Arc::new(std::mem::replace(self, next).0.finish())
    }
}

/// The entries of a `map<utf8,utf8>` value.
pub(super) type Entries<'a> = Vec<(Cow<'a, str>, Option<Cow<'a, str>>)>;

/// A `map<utf8,utf8>` column.
pub(super) struct TextMap(MapBuilder<StringBuilder, StringBuilder>);

impl Default for TextMap {
    fn default() -> Self {
        Self::with_capacity(0, StringBuilder::new(), StringBuilder::new())
    }
}

impl TextMap {
    fn with_capacity(rows: usize, keys: StringBuilder, values: StringBuilder) -> Self {
        let (key, value) = (schema::map_key(), schema::map_value());
        let names = MapFieldNames {
            entry: schema::map_entries().name().clone(),
            key: key.name().clone(),
            value: value.name().clone(),
        };
        let map = MapBuilder::with_capacity(Some(names), keys, values, rows);
        Self(map.with_keys_field(key).with_values_field(value))
    }

    /// Appends a row. Keys must be unique: SQL engines reject a map with a repeated key.
    pub(super) fn push<K, V>(&mut self, entries: impl IntoIterator<Item = (K, Option<V>)>)
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        for (key, value) in entries {
            self.0.keys().append_value(key);
            self.0.values().append_option(value);
        }
        self.0
            .append(true)
            .expect("a key and a value were appended for every entry");
    }
}

impl Column for TextMap {
    fn finish(&mut self) -> ArrayRef {
        let rows = self.0.len();
        let (keys, values) = self.0.entries();
        let next = Self::with_capacity(rows, with_capacity_of(keys), with_capacity_of(values));
        Arc::new(std::mem::replace(self, next).0.finish())
    }
}
