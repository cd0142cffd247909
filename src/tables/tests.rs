//! Tests of all tables together, with synthetic summaries from `fixtures/` and with real samples if
//! they are available.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, Int64Type, TimestampMicrosecondType};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use proptest::prelude::*;
use serde_json::Value;

use super::*;

const START_MS: i64 = 1_763_971_200_000;

fn derive(summary: &str) -> ([(Table, RecordBatch); 4], Drift) {
    let parsed: Value = serde_json::from_str(summary).unwrap_or_default();
    let id = parsed["planExecutionId"].as_str().unwrap_or("the-id");
    // The lake stores no row with an invalid start.
    let start_ms = parsed["startTs"].as_i64();
    let start_ms = start_ms.filter(|ms| (START_MS - 1_000_000_000_000..=START_MS).contains(ms));
    let mut tables = ExecutionTables::new(&Account::new(&AccountId::new("acct"), DEFAULT_BASE_URL));
    tables.push(&RawRow {
        plan_execution_id: id,
        org_id: "default",
        project_id: "bakery",
        start_ms: start_ms.unwrap_or(START_MS),
        observed_ms: START_MS + 600_000,
        first_observed_ms: START_MS + 300_000,
        summary,
    });
    assert_eq!(tables.rows(), 1);
    (tables.finish(), tables.take_drift())
}

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    let read = |path: PathBuf| (path.clone(), std::fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

/// Removes white space between JSON tokens, as servers send them.
fn compact(json: &str) -> String {
    let (mut in_string, mut is_escaped) = (false, false);
    let is_kept = |c: &char| {
        in_string ^= *c == '"' && !is_escaped;
        is_escaped = *c == '\\' && !is_escaped;
        in_string || !c.is_whitespace()
    };
    json.chars().filter(is_kept).collect()
}

fn fixtures() -> Vec<(PathBuf, String)> {
    let files = files("fixtures/summaries");
    assert!(files.len() >= 30);
    let compact = |(path, json): (PathBuf, String)| (path, compact(&json));
    files.into_iter().map(compact).collect()
}

/// Returns one value as text; `None` for null.
fn cell(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned(),
        DataType::Boolean => column.as_boolean().value(row).to_string(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            let date = jiff::civil::Date::new(1970, 1, 1).unwrap();
            (date + jiff::Span::new().days(days)).to_string()
        }
        DataType::Timestamp(..) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            jiff::Timestamp::from_microsecond(micros)
                .unwrap()
                .to_string()
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items: Vec<_> = (0..items.len()).filter_map(|at| cell(&items, at)).collect();
            format!("{items:?}")
        }
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let pair = |at| (cell(entries.column(0), at), cell(entries.column(1), at));
            let pairs: Vec<_> = (0..entries.len())
                .map(pair)
                .map(|(key, value)| format!("{:?}: {value:?}", key.unwrap()))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        other => panic!("no column has the type {other}"),
    })
}

/// Renders all non-empty values by table and row.
fn render(tables: &[(Table, RecordBatch)], drift: &Drift) -> String {
    let mut out = String::new();
    for (table, batch) in tables {
        for row in 0..batch.num_rows() {
            writeln!(out, "{} {row}", table.name()).unwrap();
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                match cell(column, row).as_deref() {
                    None | Some("[]" | "{}") => {}
                    Some(value) => writeln!(out, "  {} = {value}", field.name()).unwrap(),
                }
            }
        }
    }
    for (kind, seen) in [
        ("unknown field", &drift.unknown_fields),
        ("unknown status", &drift.unknown_statuses),
        ("odd value", &drift.odd_values),
    ] {
        for (path, seen) in seen {
            writeln!(out, "{kind} {path:?} x {}: {}", seen.count, seen.example).unwrap();
        }
    }
    out
}

#[test]
fn fixtures_produce_the_expected_rows() {
    for (path, summary) in fixtures() {
        let (tables, drift) = derive(&summary);
        let name = path.file_stem().unwrap().to_str().unwrap();
        insta::assert_snapshot!(name, render(&tables, &drift));
    }
}

/// Flags that other columns imply: the ID of a parent, `is_retry`, or the existence of the row.
const IMPLIED: [&str; 4] = [
    "hasParentPipeline",
    "isRetriedExecution",
    "retriedExecution",
    "hidden",
];

/// Calls `found` with every scalar, except nulls, empty texts and database noise.
fn leaves(value: &Value, found: &mut impl FnMut(String)) {
    match value {
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        Value::String(text) => found(text.clone()),
        Value::Bool(_) | Value::Number(_) => found(value.to_string()),
        Value::Array(items) => items.iter().for_each(|item| leaves(item, found)),
        Value::Object(members) => {
            for (name, member) in members {
                let is_implied = IMPLIED.iter().any(|it| it.eq_ignore_ascii_case(name));
                if name != "__recast" && !(is_implied && member.is_boolean()) {
                    leaves(member, found);
                }
            }
        }
    }
}

/// Returns every value in the tables, in the spelling of the server.
fn stored(tables: &[(Table, RecordBatch)]) -> HashSet<String> {
    fn collect(column: &ArrayRef, stored: &mut HashSet<String>) {
        match column.data_type() {
            DataType::List(_) => collect(column.as_list::<i32>().values(), stored),
            DataType::Map(..) => {
                collect(column.as_map().keys(), stored);
                collect(column.as_map().values(), stored);
            }
            DataType::Timestamp(..) => {
                let micros = column.as_primitive::<TimestampMicrosecondType>();
                stored.extend(micros.iter().flatten().map(|us| (us / 1000).to_string()));
            }
            _ => stored.extend((0..column.len()).filter_map(|row| cell(column, row))),
        }
    }
    let mut all = HashSet::new();
    let mut json = Vec::new();
    for (_, batch) in tables {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            collect(column, &mut all);
            match field.name().as_str() {
                "module_info" | "extra" => json.push(column.clone()),
                "matrix" => json.push(column.as_map().values().clone()),
                _ => {}
            }
        }
    }
    for column in json {
        for text in column.as_string::<i32>().iter().flatten() {
            let value = serde_json::from_str(text).unwrap_or_default();
            leaves(&value, &mut |leaf| {
                all.insert(leaf);
            });
        }
    }
    all
}

/// Returns the leaves of a summary that are in no table.
fn lost(summary: &str) -> Vec<String> {
    let stored = stored(&derive(summary).0);
    let mut lost = Vec::new();
    let is_stored = |leaf: &str| {
        // Matrix values arrive as JSON within text and are stored plain. `5.0` is stored as `5`.
        let plain: Value = serde_json::from_str(leaf).unwrap_or_default();
        let plain = plain.as_str().unwrap_or(leaf);
        let integer = leaf.strip_suffix(".0").unwrap_or(leaf);
        [leaf, plain, integer]
            .into_iter()
            .any(|it| stored.contains(it))
            || leaf == "null"
    };
    leaves(&serde_json::from_str(summary).unwrap(), &mut |leaf| {
        if !is_stored(&leaf) {
            lost.push(leaf);
        }
    });
    lost
}

#[test]
fn no_leaf_of_a_fixture_is_lost() {
    for (path, summary) in fixtures() {
        assert_eq!(lost(&summary), [] as [&str; 0], "{}", path.display());
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "reports a skipped test")]
fn no_leaf_of_a_real_sample_is_lost() {
    let mut summaries = Vec::new();
    for (_, json) in files("../shared/samples") {
        let mut response: Value = serde_json::from_str(&json).unwrap();
        if let Some(rows) = response["data"]["content"].as_array() {
            let is_execution = |row: &&Value| row.get("startTs").is_some();
            summaries.extend(rows.iter().filter(is_execution).cloned());
        } else if response.get("startTs").is_some() {
            summaries.push(response);
        } else {
            summaries.push(response["data"]["pipelineExecutionSummary"].take());
        }
    }
    summaries.retain(Value::is_object);
    if summaries.is_empty() {
        eprintln!("skipped: no samples next to the package");
    }
    for summary in summaries {
        assert_eq!(lost(&summary.to_string()), [] as [&str; 0], "{summary}");
    }
}

#[test]
fn invalid_summary_is_kept_in_extra() {
    for (summary, extra) in [
        ("[1, 2]", "[1, 2]"),
        (" null ", "null"),
        ("not json", "\"not json\""),
        ("", "\"\""),
        ("{\"status\":", "\"{\\\"status\\\":\""),
    ] {
        let (tables, drift) = derive(summary);
        let [(_, stages), _, _, (_, executions)] = &tables;
        assert_eq!((stages.num_rows(), executions.num_rows()), (0, 1));
        let column = executions.column_by_name("extra").unwrap();
        assert_eq!(cell(column, 0).as_deref(), Some(extra));
        assert_eq!(drift.odd_values["(summary)"].count, 1);
    }
}

#[test]
fn execution_url_has_the_base_url_of_the_lake() {
    for (base, ui) in [
        ("https://app.harness.io", "https://app.harness.io"),
        ("https://app.harness.io/", "https://app.harness.io"),
        (
            "https://harness.example.com/gateway",
            "https://harness.example.com",
        ),
        (
            "http://127.0.0.1:8080/proxy/gateway/",
            "http://127.0.0.1:8080/proxy",
        ),
    ] {
        let account = Account::new(&AccountId::new("acct"), base);
        let url = |summary: &str| {
            let mut tables = ExecutionTables::new(&account);
            tables.push(&RawRow {
                plan_execution_id: "-e_1",
                org_id: "default",
                project_id: "bakery",
                start_ms: START_MS,
                observed_ms: START_MS,
                first_observed_ms: START_MS,
                summary,
            });
            let [.., (_, executions)] = tables.finish();
            cell(executions.column_by_name("execution_url").unwrap(), 0)
        };
        let page = "ng/account/acct/all/orgs/default/projects/bakery/pipelines/till/executions/-e_1/pipeline";
        assert_eq!(
            url(r#"{"pipelineIdentifier":"till"}"#),
            Some(format!("{ui}/{page}"))
        );
        assert_eq!(url("{}"), None);
    }
}

#[test]
fn finish_resets_the_builders() {
    let mut tables = ExecutionTables::new(&Account::new(&AccountId::new("acct"), DEFAULT_BASE_URL));
    let row = RawRow {
        plan_execution_id: "e1",
        org_id: "default",
        project_id: "bakery",
        start_ms: START_MS,
        observed_ms: START_MS,
        first_observed_ms: START_MS,
        summary: r#"{"layoutNodeMap":{"a":{"status":"Success"}}}"#,
    };
    for n in [2, 0, 1] {
        (0..n).for_each(|_| tables.push(&row));
        assert_eq!((tables.rows(), tables.bytes() > 0), (n, n > 0));
        let finished = tables.finish();
        assert_eq!(
            finished.each_ref().map(|(table, _)| *table),
            Table::PARTITIONED
        );
        assert_eq!(finished.map(|(_, batch)| batch.num_rows()), [n, 0, 0, n]);
    }
}

#[test]
fn deep_and_wide_summaries_are_derived() {
    let n = 20_000;
    let deep = format!(r#"{{"tags":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    assert_eq!(derive(&deep).0[3].1.num_rows(), 1);

    let node = |at: usize| {
        format!(
            r#""n{at}":{{"edgeLayoutList":{{"currentNodeChildren":["n{}"]}}}}"#,
            at + 1
        )
    };
    let nodes: Vec<_> = (0..n).map(node).collect();
    let chain = format!(
        r#"{{"startingNodeId":"n0","layoutNodeMap":{{{}}}}}"#,
        nodes.join(",")
    );
    assert_eq!(derive(&chain).0[0].1.num_rows(), n);

    let fields: Vec<_> = (0..n)
        .map(|at| format!(r#""f{}":{at}"#, at % 9_999))
        .collect();
    assert_eq!(
        derive(&format!("{{{}}}", fields.join(","))).0[3]
            .1
            .num_rows(),
        1
    );
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (START_MS..START_MS + 1_000).prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map("[a-f_\"\\\\]{1,3}", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Collects the JSON pointers of all values within a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                pointers(member, &format!("{at}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (n, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{n}"), found);
            }
        }
        _ => {}
    }
}

fn mutated_fixture() -> impl Strategy<Value = Value> {
    let fixtures: Vec<Value> = (fixtures().iter())
        .map(|(_, summary)| serde_json::from_str(summary).unwrap())
        .collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any_json()), 1..4);
    (prop::sample::select(fixtures), changes).prop_map(|(mut summary, changes)| {
        for (index, value) in changes {
            let mut paths = Vec::new();
            pointers(&summary, "", &mut paths);
            let path = index.get(&paths);
            *summary
                .pointer_mut(path)
                .expect("the path was collected from this summary") = value;
        }
        summary
    })
}

proptest! {
    #[test]
    fn any_text_becomes_one_execution(summary in "\\PC{0,40}") {
        prop_assert_eq!(derive(&summary).0[3].1.num_rows(), 1);
    }

    #[test]
    fn any_json_becomes_one_execution(summary in any_json()) {
        prop_assert_eq!(derive(&summary.to_string()).0[3].1.num_rows(), 1);
    }

    #[test]
    fn mutated_fixtures_lose_no_value(summary in mutated_fixture()) {
        let summary = summary.to_string();
        prop_assert_eq!(derive(&summary).0[3].1.num_rows(), 1);
        prop_assert_eq!(lost(&summary), [] as [&str; 0], "{}", summary);
    }
}
