//! Checksums that keep released versions of the tables from changing.
//!
//! Descriptions, units, sources and meanings are not covered and may be improved.

use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64;

use super::{Definition, Table, raw_definition};

/// The checksum of each table of version 1, by name. Never edit these.
const V1: [(&str, u64); 8] = [
    ("executions", 17_428_352_544_540_243_108),
    ("stages", 11_381_899_127_559_304_670),
    ("deployments", 14_820_008_297_851_024_856),
    ("commits", 10_772_200_618_520_011_205),
    ("orgs", 15_949_412_785_120_026_465),
    ("projects", 11_440_344_862_445_088_464),
    ("scopes", 17_978_797_571_611_133_980),
    ("_raw", 3_784_683_902_893_105_607),
];

/// Renders the parts of a definition that readers of the files rely on.
fn frozen_parts(definition: &Definition) -> String {
    let Definition {
        table,
        version,
        partitioned,
        key,
        sort,
        ..
    } = definition;
    let mut text = format!("{table} {version} {partitioned} {key:?} {sort:?}\n");
    for column in &definition.columns {
        let (name, kind, nullable) = (&column.name, column.kind.name(), column.nullable);
        writeln!(text, "{name} {kind} {nullable}").unwrap();
    }
    text
}

#[test]
fn version_1_is_frozen() {
    let tables = Table::ALL.into_iter().map(Table::definition);
    let found: Vec<(&str, u64)> = tables
        .chain([raw_definition()])
        .filter(|definition| definition.version == 1)
        .map(|definition| {
            let checksum = xxh3_64(frozen_parts(definition).as_bytes());
            (definition.table.as_str(), checksum)
        })
        .collect();
    for (found, frozen) in found.iter().zip(V1) {
        assert_eq!(
            *found, frozen,
            "schemas/v1/{}.json changed its columns, types, order or keys. A released version never \
             changes: revert the edit and add a version instead (schemas/README.md, \"Create the \
             next version\")",
            frozen.0
        );
    }
    assert_eq!(found.len(), V1.len());
}

#[test]
fn only_prose_may_change_in_a_frozen_version() {
    let definition = Table::Commits.definition();
    let before = frozen_parts(definition);
    let changed = |change: fn(&mut Definition)| {
        let mut definition = definition.clone();
        change(&mut definition);
        frozen_parts(&definition) != before
    };
    assert!(!changed(|it| it.columns[0].meaning.push_str(" and more")));
    assert!(!changed(|it| it.description.clear()));
    assert!(changed(|it| it.columns[0].nullable ^= true));
    assert!(changed(|it| it.columns.swap(0, 1)));
    assert!(changed(|it| it.columns[0].kind = super::ColumnType::Int32));
    assert!(changed(|it| it.columns[1].name.push('x')));
    assert!(changed(|it| it.columns.truncate(3)));
    assert!(changed(|it| it.key.truncate(1)));
}
