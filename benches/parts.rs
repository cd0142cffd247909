//! Benchmarks the parts of `replay` on one core, with the summaries of a simulated account: the parser,
//! the tables, and Parquet. `benches/README.md` has the results.

use std::hint::black_box;

use arrow_array::RecordBatch;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use harness_lake::ids::AccountId;
use harness_lake::lake::metadata::FileMetadata;
use harness_lake::lake::parquet::FileKind;
use harness_lake::lake::writer::ObjectWriter;
use harness_lake::schema::Table;
use harness_lake::tables::{self, Batches, DEFAULT_BASE_URL, ExecutionTables, RawRow};
use harness_sim::{Account, AccountSpec, RowSize, Vintage};
use jiff::Timestamp;
use serde::de::IgnoredAny;

/// Executions per iteration.
const EXECUTIONS: usize = 4_000;

/// Executions per batch, as in `replay`.
const BATCH: usize = 256;

struct Row {
    id: String,
    start_ms: i64,
    summary: String,
}

fn rows(now: Timestamp) -> Vec<Row> {
    let account = Account::generate(&AccountSpec {
        executions: EXECUTIONS,
        size: RowSize::Realistic,
        ..AccountSpec::demo(now)
    });
    let row = |execution: &harness_sim::Execution| Row {
        id: execution.id(),
        start_ms: execution.start_ms(),
        summary: account.render(execution, now, Vintage::Saas),
    };
    account.executions_at(now).map(row).collect()
}

/// Derives the tables and calls `each` with every batch. `replay` drops a batch after encoding it.
fn tables(account: &AccountId, rows: &[Row], mut each: impl FnMut(Batches)) {
    let mut tables = ExecutionTables::new(&tables::Account::new(account, DEFAULT_BASE_URL));
    for rows in rows.chunks(BATCH) {
        for row in rows {
            tables.push(&RawRow {
                plan_execution_id: &row.id,
                org_id: "default",
                project_id: "web",
                start_ms: row.start_ms,
                observed_ms: row.start_ms,
                first_observed_ms: row.start_ms,
                summary: &row.summary,
            });
        }
        each(tables.finish());
    }
}

fn encode(batches: &[(Table, RecordBatch)], table: Table) -> usize {
    let scratch = std::env::temp_dir();
    let kind = FileKind::Table(table);
    let mut writer = ObjectWriter::new(kind, "bench", EXECUTIONS as u64, &scratch)
        .expect("the writer is created");
    for (_, batch) in batches.iter().filter(|(of, _)| *of == table) {
        writer.write(batch).expect("the batch is written");
    }
    let encoded = writer.finish(&FileMetadata::new(kind, 1));
    let encoded = encoded.expect("the object is finished");
    encoded
        .into_bytes()
        .expect("the scratch file is readable")
        .len()
}

fn parts(bench: &mut Criterion) {
    let now = "2026-06-01T00:00:00Z".parse().expect("a time");
    let account = AccountId::new("bench");
    let rows = rows(now);
    let bytes: usize = rows.iter().map(|row| row.summary.len()).sum();
    let mut batches = Vec::new();
    tables(&account, &rows, |some| batches.extend(some));
    let mut group = bench.benchmark_group("parts");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("parse", |bench| {
        bench.iter(|| {
            for row in &rows {
                let any: IgnoredAny = serde_json::from_str(&row.summary).expect("JSON");
                black_box(any);
            }
        });
    });
    group.bench_function("tables", |bench| {
        bench.iter(|| tables(&account, &rows, |batches| drop(black_box(batches))));
    });
    for table in Table::PARTITIONED {
        group.bench_function(format!("parquet {}", table.name()), |bench| {
            bench.iter(|| encode(&batches, table));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = parts
}
criterion_main!(benches);
