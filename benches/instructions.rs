//! Derives tables from a fixed input, so that callgrind can count the instructions.
//!
//! `benches/instructions.py` builds and runs this benchmark. It compares the cost of each `counted_`
//! function as a ratio to the parser. Unlike times, instruction counts are reproducible.

use std::hint::black_box;
use std::path::Path;

use harness_lake::ids::AccountId;
use harness_lake::lake::metadata::FileMetadata;
use harness_lake::lake::parquet::FileKind;
use harness_lake::lake::writer::ObjectWriter;
use harness_lake::tables::{Account, Batches, DEFAULT_BASE_URL, ExecutionTables, RawRow};
use serde::de::IgnoredAny;

/// The number of rows per fixture.
const ROWS_PER_FIXTURE: usize = 8;

/// 2026-06-01, in milliseconds.
const START_MS: i64 = 1_780_272_000_000;

/// Reads the synthetic summaries of `fixtures/`, in the order of their names.
fn summaries() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/summaries");
    let files = std::fs::read_dir(folder).expect("the fixtures exist");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    let read = |path| std::fs::read_to_string(path).expect("text");
    let once: Vec<String> = paths.into_iter().map(read).collect();
    (0..ROWS_PER_FIXTURE).flat_map(|_| once.clone()).collect()
}

#[inline(never)]
fn counted_parser(summaries: &[String]) {
    for summary in summaries {
        let any: IgnoredAny = serde_json::from_str(summary).expect("JSON");
        black_box(any);
    }
}

#[inline(never)]
fn counted_tables(summaries: &[String]) -> Batches {
    let mut tables =
        ExecutionTables::new(&Account::new(&AccountId::new("bench"), DEFAULT_BASE_URL));
    for (at, summary) in summaries.iter().enumerate() {
        let id = format!("execution-{at}");
        tables.push(&RawRow {
            plan_execution_id: &id,
            org_id: "default",
            project_id: "web",
            start_ms: START_MS,
            observed_ms: START_MS,
            first_observed_ms: START_MS,
            summary,
        });
    }
    tables.finish()
}

#[inline(never)]
fn counted_parquet(batches: &Batches, executions: u64) {
    let scratch = std::env::temp_dir();
    for (table, batch) in batches {
        let kind = FileKind::Table(*table);
        let mut writer =
            ObjectWriter::new(kind, "bench", executions, &scratch).expect("the writer is created");
        writer.write(batch).expect("the batch is written");
        let encoded = writer.finish(&FileMetadata::new(kind, 1));
        black_box(encoded.expect("the object is finished"));
    }
}

fn main() {
    let summaries = summaries();
    counted_parser(&summaries);
    let batches = counted_tables(&summaries);
    counted_parquet(&batches, summaries.len() as u64);
}
