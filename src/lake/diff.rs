//! Comparison of Parquet files: by bytes, by rows, by schema.

use std::ops::Range;

use bytes::Bytes;

use super::parquet::ParsedObject;
use super::{LakeError, blocking};
use crate::causes::chain;

/// Returns a description of how the columns or some rows of a file differ from the rows of the
/// expected file.
pub(super) async fn difference(
    path: &str,
    (actual, rows): (Bytes, Range<usize>),
    expected: Bytes,
) -> Result<Option<String>, LakeError> {
    let name = path.to_owned();
    blocking(move || {
        let actual = match ParsedObject::new(&name, actual) {
            Ok(actual) => actual,
            Err(error) => return Ok(Some(chain(&error))),
        };
        let expected = ParsedObject::new(&name, expected)?;
        if actual.schema() != expected.schema() {
            return Ok(Some("its columns differ from the schema".to_owned()));
        }
        let is_equal = equal_rows((&actual, rows), &expected)?;
        Ok((!is_equal).then(|| "its rows differ from its source data".to_owned()))
    })
    .await
}

/// Returns true if two files are equal except for the write ids in their footers.
pub(super) fn equal_except_write_id(one: (&[u8], &str), other: (&[u8], &str)) -> bool {
    let id_range = |(file, id): (&'_ [u8], &str)| {
        let at = file
            .windows(id.len().max(1))
            .rposition(|part| part == id.as_bytes())?;
        Some((at, at + id.len()))
    };
    let (Some((start, end)), Some((other_start, other_end))) = (id_range(one), id_range(other))
    else {
        return false;
    };
    one.0[..start] == other.0[..other_start] && one.0[end..] == other.0[other_end..]
}

/// Returns true if two files have the same columns, and some rows of one equal all rows of the other in the same
/// order.
pub(super) fn equal_rows(
    (one, rows): (&ParsedObject, Range<usize>),
    other: &ParsedObject,
) -> Result<bool, LakeError> {
    if rows.len() != other.rows() || one.schema() != other.schema() {
        return Ok(false);
    }
    let (mut one, mut other) = (one.read(&rows)?, other.read(&(0..other.rows()))?);
    loop {
        match (one.next(), other.next()) {
            (None, None) => return Ok(true),
            (Some(Ok(one)), Some(Ok(other))) if one == other => {}
            // An unreadable batch counts as a difference.
            _ => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AccountId;
    use crate::lake::metadata::FileMetadata;
    use crate::lake::parquet::FileKind;
    use crate::lake::writer::ObjectWriter;
    use crate::schema::Table;
    use crate::tables::{Account, DEFAULT_BASE_URL, ExecutionTables, RawRow};

    fn file(name: &str) -> (Bytes, String) {
        let mut rows =
            ExecutionTables::new(&Account::new(&AccountId::new("account"), DEFAULT_BASE_URL));
        rows.push(&RawRow {
            plan_execution_id: "e1",
            org_id: "default",
            project_id: "web",
            start_ms: 1_763_971_200_000,
            observed_ms: 1_763_971_300_000,
            first_observed_ms: 1_763_971_300_000,
            summary: &format!(r#"{{"name":"{name}"}}"#),
        });
        let kind = FileKind::Table(Table::Executions);
        let mut writer = ObjectWriter::new(kind, "e.parquet", 1, &std::env::temp_dir()).unwrap();
        for (table, batch) in rows.finish() {
            if table == Table::Executions {
                writer.write(&batch).unwrap();
            }
        }
        let encoded = writer.finish(&FileMetadata::new(kind, 1)).unwrap();
        let body = encoded.into_bytes().unwrap();
        let id = FileMetadata::of("e.parquet", &body).unwrap().write_id;
        (body, id)
    }

    #[test]
    fn files_without_rows_differ_in_their_columns() {
        let empty = |table| {
            let kind = FileKind::Table(table);
            let writer = ObjectWriter::new(kind, "e.parquet", 0, &std::env::temp_dir()).unwrap();
            let encoded = writer.finish(&FileMetadata::new(kind, 1)).unwrap();
            ParsedObject::new("e.parquet", encoded.into_bytes().unwrap()).unwrap()
        };
        let [one, again, other] = [Table::Commits, Table::Commits, Table::Stages].map(empty);
        assert!(equal_rows((&one, 0..0), &again).unwrap());
        assert!(!equal_rows((&one, 0..0), &other).unwrap());
    }

    #[test]
    fn files_with_equal_rows_differ_only_in_the_write_id() {
        let [one, again, other] = ["build", "build", "guild"].map(file);
        assert_ne!(one.0, again.0);
        let is_equal =
            |other: &(Bytes, String)| equal_except_write_id((&one.0, &one.1), (&other.0, &other.1));
        assert!(is_equal(&one) && is_equal(&again));
        assert!(!is_equal(&other));
        assert!(!is_equal(&(again.0.slice(1..), again.1.clone())));
        assert!(!is_equal(&(again.0, "no such id".to_owned())));
    }
}
