//! Identifiers that look like numbers or dates stay text, from the API to every engine that reads
//! the lake.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Lake, Run, bare_command, interpreter, rows};

const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/it/support/identifiers.py"
);

/// The server's current time.
const DATE: &str = "Tue, 24 Nov 2026 15:00:00 GMT";

/// The start of the first execution; executions start on two UTC dates.
const START_MS: i64 = 1_795_478_399_000;

fn lookalikes() -> Vec<String> {
    let lookalikes = [
        "0123",
        "null",
        "NULL",
        "a=b",
        "a$b",
        "ünï_日本_🥐",
        "true",
        "1e5",
        "-0",
        "NaN",
        "2026-11-24",
        "__HIVE_DEFAULT_PARTITION__",
        "a%2Fb",
        "it's \"quoted\" \\ {}",
        "e\u{301}",
        "é",
    ];
    let long = ["i".repeat(128), "日".repeat(128)];
    lookalikes
        .map(str::to_owned)
        .into_iter()
        .chain(long)
        .collect()
}

/// Returns the only execution of a project; all its identifiers and names are equal.
fn execution(org: &str) -> Value {
    let place = lookalikes().iter().position(|id| id == org).unwrap();
    let start = START_MS + i64::try_from(place).unwrap() * 100;
    json!({
        "planExecutionId": org, "pipelineIdentifier": org, "name": org, "status": "Success",
        "orgIdentifier": org, "projectIdentifier": org,
        "startTs": start, "endTs": start + 1_000, "createdAt": start + 40, "runSequence": 1,
        "tags": [{"key": org, "value": org}],
        "modules": [org],
        "executionTriggerInfo": {"triggerType": org, "triggeredBy": {"triggerIdentifier": org, "identifier": org}},
        "moduleInfo": {
            "ci": {"branch": org, "repoName": org, "ciExecutionInfoDTO": {"branch": {"commits": [{"id": org, "message": org}]}}},
            "cd": {"serviceIdentifiers": [org], "envIdentifiers": [org]},
        },
        "startingNodeId": org,
        "layoutNodeMap": {org: {
            "nodeType": "Deployment", "nodeIdentifier": org, "name": org, "nodeUuid": org, "status": "Success",
            "startTs": start + 10, "endTs": start + 900,
            "strategyMetadata": {"matrixmetadata": {"matrixvalues": {org: json!(org).to_string()}}},
            "moduleInfo": {"cd": {
                "serviceInfo": {"identifier": org, "displayName": org},
                "infraExecutionSummary": {"identifier": org, "name": org, "infrastructureIdentifier": org},
            }},
        }},
    })
}

/// Returns a server with one project in each organization and one execution in each project. All
/// their identifiers are equal.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || answer(stream));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut target = String::new();
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        if target.is_empty() {
            line.split(' ')
                .nth(1)
                .unwrap_or_default()
                .clone_into(&mut target);
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
            length = value.parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let body = body(&target).to_string();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ndate: {DATE}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
}

fn body(target: &str) -> Value {
    let url = url::Url::parse(&format!("http://localhost{target}")).unwrap();
    let asked: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let is_first = asked.get("page").is_none_or(|page| page == "0");
    let path: Vec<String> = url
        .path_segments()
        .unwrap()
        .map(|part| percent_decode_str(part).decode_utf8().unwrap().into_owned())
        .collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path[..] {
        ["v1", "orgs"] if is_first => lookalikes()
            .iter()
            .map(|org| json!({"org": {"identifier": org, "name": org}}))
            .collect(),
        ["v1", "orgs", org, "projects"] if is_first => {
            json!([{"project": {"identifier": org, "name": org, "tags": {org: org}}}])
        }
        ["v1", ..] => json!([]),
        ["pipeline", "api", "pipelines", "execution", "summary"] => {
            assert_eq!(asked["orgIdentifier"], asked["projectIdentifier"]);
            let rows: Vec<Value> = is_first
                .then(|| execution(&asked["orgIdentifier"]))
                .into_iter()
                .collect();
            json!({"status": "SUCCESS", "data": {"content": rows, "totalElements": 1}})
        }
        _ => json!({"resource": 6}),
    }
}

/// Columns that contain the identifier, by table: as text, alone in a list, or as key and value.
const COLUMNS: [(&str, &[&str]); 6] = [
    (
        "executions",
        &[
            "plan_execution_id",
            "org_id",
            "project_id",
            "pipeline_id",
            "pipeline_name",
            "trigger_type",
            "trigger_id",
            "triggered_by_name",
            "repo_name",
            "branch",
            "commit_sha",
            "modules",
            "services",
            "environments",
            "tags",
        ],
    ),
    (
        "stages",
        &[
            "plan_execution_id",
            "org_id",
            "project_id",
            "pipeline_id",
            "stage_node_id",
            "stage_id",
            "stage_name",
            "matrix",
        ],
    ),
    (
        "deployments",
        &[
            "plan_execution_id",
            "org_id",
            "project_id",
            "stage_node_id",
            "stage_id",
            "service_id",
            "service_name",
            "environment_id",
            "environment_name",
            "infrastructure_id",
        ],
    ),
    (
        "commits",
        &[
            "plan_execution_id",
            "org_id",
            "project_id",
            "commit_sha",
            "message",
            "repo_name",
            "branch",
        ],
    ),
    ("projects", &["org_id", "project_id", "name", "tags"]),
    ("orgs", &["org_id", "name"]),
];

/// The result of an engine for one table.
#[derive(Debug, serde::Deserialize)]
struct Said {
    rows: Vec<Vec<Value>>,
    types: Vec<String>,
    start_date: Option<String>,
    counts: [usize; 2],
}

fn ask_engines(lake: &Lake) -> BTreeMap<String, BTreeMap<String, Said>> {
    let scratch = TempDir::new().unwrap();
    let mut child = Command::new(interpreter())
        .args([SCRIPT, lake.path()])
        .arg(scratch.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let wanted = json!(COLUMNS.into_iter().collect::<BTreeMap<_, _>>());
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(wanted.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn sync(url: &str, lake: &Lake) {
    let mut command = bare_command(&["sync", "--lake", lake.path()]);
    command
        .env("HARNESS_API_KEY", "pat.account.id.secret")
        .env("HARNESS_BASE_URL", url)
        .env("HARNESS_LAKE_REQUESTS_PER_MINUTE", "60000");
    Run::of(command.output().unwrap()).expect(0);
}

#[test]
fn identifiers_are_equal_in_every_engine() {
    let url = serve();
    let lake = Lake::new();
    sync(&url, &lake);
    let before = lake.data_objects();
    sync(&url, &lake);
    assert_eq!(lake.data_objects(), before, "the same again");

    let expected: BTreeSet<String> = lookalikes().into_iter().collect();
    assert_eq!(expected.len(), lookalikes().len());
    for (engine, tables) in ask_engines(&lake) {
        let names = match engine.as_str() {
            "duckdb" => ["VARCHAR", "VARCHAR[]", "MAP(VARCHAR, VARCHAR)", "DATE"],
            _ => ["string", "array<string>", "map<string,string>", "date"],
        };
        for (table, columns) in COLUMNS {
            let said = &tables[table];
            let place = format!("{engine}: {table}");
            assert_eq!(said.counts, [expected.len(); 2], "{place}");
            let is_partitioned = !["orgs", "projects"].contains(&table);
            let date = is_partitioned.then(|| names[3].to_owned());
            assert_eq!(said.start_date, date, "{place}");
            let found = said.rows.iter().map(|row| row[0].as_str().unwrap());
            assert_eq!(found.map(str::to_owned).collect::<BTreeSet<_>>(), expected);
            for row in &said.rows {
                let id = row[0].as_str().unwrap();
                for ((column, value), kind) in columns.iter().zip(row).zip(&said.types) {
                    let place = format!("{place}.{column}");
                    let (same, name) = match value {
                        Value::Array(_) => (json!([id]), names[1]),
                        Value::Object(_) => (json!({ id: id }), names[2]),
                        _ => (json!(id), names[0]),
                    };
                    assert_eq!((value, kind.as_str()), (&same, name), "{place}");
                }
            }
        }
    }
    let dates = format!(
        "SELECT DISTINCT start_date::VARCHAR FROM {} ORDER BY ALL",
        lake.table("executions")
    );
    let dates = rows(&[&dates]);
    assert_eq!(dates[0], [["2026-11-23"], ["2026-11-24"]]);
}
