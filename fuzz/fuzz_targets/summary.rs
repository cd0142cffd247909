//! Derives the tables from any text as the summary of an execution.
//!
//! Expects no panic, one row of `executions` per summary, and valid JSON in the JSON columns.

#![no_main]

use arrow_array::cast::AsArray;
use harness_lake::ids::AccountId;
use harness_lake::tables::{Account, DEFAULT_BASE_URL, ExecutionTables, RawRow};
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const START_MS: i64 = 1_763_971_200_000;

fuzz_target!(|summary: &str| {
    let mut tables = ExecutionTables::new(&Account::new(&AccountId::new("account"), DEFAULT_BASE_URL));
    // Push the summary twice, so that the second push meets the state of the first.
    for id in ["one", "other"] {
        tables.push(&RawRow {
            plan_execution_id: id,
            org_id: "default",
            project_id: "bakery",
            start_ms: START_MS,
            observed_ms: START_MS + 600_000,
            first_observed_ms: START_MS + 300_000,
            summary,
        });
    }
    let [_, _, _, (_, executions)] = tables.finish();
    assert_eq!(executions.num_rows(), 2);
    for name in ["extra", "module_info"] {
        let column = executions
            .column_by_name(name)
            .expect("a column of the table");
        for json in column.as_string::<i32>().iter().flatten() {
            let parsed = serde_json::from_str::<&RawValue>(json);
            assert!(parsed.is_ok(), "{name} is not valid JSON: {json}");
        }
    }
    tables.take_drift();
});
