//! Recorded responses of real servers, where available, through the client and the tables.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::path::Path;
use std::thread;
use std::time::Duration;

use harness_lake::ids::{AccountId, Scope};
use harness_lake::schema::Table;
use harness_lake::source::{Client, ExecutionsQuery, Page, RetryPolicy, SourceSettings};
use harness_lake::tables::{Account, DEFAULT_BASE_URL, ExecutionTables, RawRow};
use harness_lake::window::{Window, from_ms};

/// Answers every request with `body`, one connection at a time.
fn serve(body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 16 << 10];
            let read = stream.read(&mut request).unwrap();
            assert!(
                request[..read].starts_with(b"POST /pipeline/api/pipelines/execution/summary?")
            );
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\
                        date: Tue, 24 Nov 2026 10:00:00 GMT\r\n";
            let length = body.len();
            write!(stream, "{head}content-length: {length}\r\n\r\n{body}").unwrap();
        }
    });
    format!("http://{address}")
}

fn page_of(body: String) -> Page {
    let client = Client::new(SourceSettings {
        base_url: serve(body).parse().unwrap(),
        account: AccountId::new("account"),
        api_key: "pat.account.id.secret".to_owned().into(),
        requests_per_minute: NonZeroU32::new(60_000).unwrap(),
        concurrency: NonZeroU32::new(1).unwrap(),
        retry: RetryPolicy::default(),
        request_timeout: Duration::from_secs(10),
        ca_certificate: None,
        clock: || from_ms(1_795_514_400_000), // the `date` of the responses
    })
    .unwrap();
    let scope = Scope::new("default", "web");
    let window = Window::new(from_ms(0), from_ms(4_000_000_000_000)).unwrap();
    let query = ExecutionsQuery {
        scope: &scope,
        window,
        ids: &[],
        page: 0,
        size: 100,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(client.executions(&query)).unwrap()
}

#[test]
fn real_pages_become_one_row_per_execution() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    if !folder.exists() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "no samples of real answers at hand: nothing to read").unwrap();
        return;
    }
    let mut pages = 0;
    for file in std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
    {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("list_") {
            continue;
        }
        let page = page_of(std::fs::read_to_string(&file).unwrap());
        assert_eq!(page.unidentified, 0, "{name}");
        assert_eq!(page.observed.to_string(), "2026-11-24T10:00:00Z");
        assert!(
            !page.rows.is_empty() && page.drift.is_empty(),
            "{name}: {:?}",
            page.drift
        );
        let mut tables =
            ExecutionTables::new(&Account::new(&AccountId::new("account"), DEFAULT_BASE_URL));
        for row in &page.rows {
            tables.push(&RawRow {
                plan_execution_id: row.id.as_str(),
                org_id: "default",
                project_id: "web",
                start_ms: row.start.unwrap().as_millisecond(),
                observed_ms: page.observed.as_millisecond(),
                first_observed_ms: page.observed.as_millisecond(),
                summary: std::str::from_utf8(&row.summary).unwrap(),
            });
        }
        let unknown = tables.take_drift().unknown_statuses;
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        for (table, batch) in tables.finish() {
            match table {
                Table::Executions => assert_eq!(batch.num_rows(), page.rows.len(), "{name}"),
                Table::Stages => assert!(page.rows.len() <= batch.num_rows(), "{name}"),
                _ => {}
            }
        }
        pages += 1;
    }
    assert!(pages > 0, "the samples hold lists");
}
