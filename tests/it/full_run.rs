//! The first `sync` of an account: every row, every column, every type.

use std::collections::HashSet;
use std::fs;

use harness_sim::{AccountSpec, Truth, Vintage};
use serde_json::{Value, json};

use crate::support::{Lake, Run, Sim, bare_command, compare, described, now, rows};

const PARTITIONED: [&str; 4] = ["executions", "stages", "deployments", "commits"];
const DIMENSIONS: [&str; 3] = ["orgs", "projects", "scopes"];

/// Runs the first `sync` of an account with one unreadable project.
fn first_sync(vintage: Vintage) -> (Sim, Lake) {
    let sim = Sim::start(&AccountSpec::small(now()), |options| {
        options.vintage = vintage;
    });
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    (sim, lake)
}

#[test]
fn lake_of_the_current_server_has_the_expected_rows() {
    let (sim, lake) = first_sync(Vintage::Saas);
    sim.assert_truth(&lake);
    assert_links_lead_to(sim.server().base_url(), &lake);
    // The lake keeps the address: a replay knows no other.
    let replay = bare_command(&["replay", "--all", "--lake", lake.path()]);
    Run::of({ replay }.output().unwrap()).expect(0);
    assert_links_lead_to(sim.server().base_url(), &lake);
}

fn assert_links_lead_to(base_url: &str, lake: &Lake) {
    let others = format!(
        "SELECT count(*) FROM {} WHERE execution_url IS DISTINCT FROM '{}/ng/account/' || account_id || '/all/orgs/' || org_id
         || '/projects/' || project_id || '/pipelines/' || pipeline_id || '/executions/' || plan_execution_id || '/pipeline'",
        lake.table("executions"),
        base_url.trim_end_matches('/')
    );
    assert_eq!(rows(&[&others])[0], [[json!(0)]]);
}

/// Proves that the comparison can fail.
#[test]
fn comparison_finds_one_wrong_value_and_one_lost_row() {
    let (sim, lake) = first_sync(Vintage::Saas);
    let differs = |change: &dyn Fn(&mut Truth)| {
        let mut truth = sim.truth();
        change(&mut truth);
        compare(lake.path(), &truth, &HashSet::new()).unwrap_or_default()
    };
    for (difference, expected) in [
        (
            differs(&|truth| truth.executions[9]["tags"]["new"] = json!("")),
            "1 values differ\nexecutions.tags of",
        ),
        (
            differs(&|truth| truth.stages[9]["stage_index"] = json!(99)),
            "1 values differ\nstages.stage_index of",
        ),
        (
            differs(&|truth| truth.deployments[9]["start_ts"] = json!(1)),
            "1 values differ\ndeployments.start_ts of",
        ),
        (
            differs(&|truth| truth.commits.truncate(truth.commits.len() - 1)),
            "0 lost, such as []; 1 too many",
        ),
        (
            differs(&|truth| truth.executions.push(json!({"plan_execution_id": "x"}))),
            "1 lost, such as [('x',)]; 0 too many",
        ),
    ] {
        assert!(difference.contains(expected), "{difference:?}");
    }
}

#[test]
fn lake_of_an_older_server_has_the_expected_rows() {
    let (sim, lake) = first_sync(Vintage::Older);
    sim.assert_truth(&lake);
}

#[test]
fn page_sizes_and_buckets_do_not_change_rows() {
    let sim = Sim::small();
    let lake = Lake::new();
    sim.sync(&lake, &["--page-size", "7", "--buckets", "3"])
        .expect(3);
    sim.assert_truth(&lake);
    let objects = lake.data_objects();
    let date = "start_date=2026-11-23";
    for bucket in 0..3 {
        for table in PARTITIONED {
            let path = format!("{table}/v1/{date}/part-{bucket}-of-3.parquet");
            assert!(objects.contains_key(&path), "{path}");
        }
    }
}

#[test]
fn types_match_the_schema_and_the_path_has_the_date() {
    let (_sim, lake) = first_sync(Vintage::Saas);
    for table in PARTITIONED.into_iter().chain(DIMENSIONS) {
        let mut expected = schema(table);
        if PARTITIONED.contains(&table) {
            expected.push(("start_date".to_owned(), "DATE".to_owned()));
        }
        assert_eq!(described(&lake.table(table)), expected, "{table}");
    }
    assert_eq!(
        described(&lake.table("_raw"))[..9],
        schema("_raw"),
        "the raw partition"
    );
}

/// Returns the columns of a table in order, with DuckDB types.
fn schema(table: &str) -> Vec<(String, String)> {
    let path = format!("{}/schemas/v1/{table}.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let columns = schema["columns"].as_array().unwrap();
    let kind = |column: &Value| match column["type"].as_str().unwrap() {
        "utf8" => "VARCHAR",
        "int32" => "INTEGER",
        "int64" => "BIGINT",
        "double" => "DOUBLE",
        "boolean" => "BOOLEAN",
        "timestamp" => "TIMESTAMP WITH TIME ZONE",
        "date" => "DATE",
        "list<utf8>" => "VARCHAR[]",
        "map<utf8,utf8>" => "MAP(VARCHAR, VARCHAR)",
        other => panic!("{other} is no type of the contract"),
    };
    columns
        .iter()
        .map(|column| {
            let name = column["name"].as_str().unwrap();
            (name.to_owned(), kind(column).to_owned())
        })
        .collect()
}

#[test]
fn every_date_has_an_object_of_every_table_and_nothing_else() {
    let (_sim, lake) = first_sync(Vintage::Saas);
    let objects = lake.data_objects();
    let of = |table: &str| -> Vec<String> {
        let prefix = format!("{table}/v1/");
        objects
            .keys()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(str::to_owned)
            .collect()
    };
    let dates = of("executions");
    assert!(dates.len() > 10);
    for table in PARTITIONED.into_iter().chain(["_raw"]) {
        assert_eq!(of(table), dates, "{table}");
    }
    assert_eq!(of("orgs"), ["part-0-of-1.parquet"]);
    assert_eq!(of("projects"), ["part-0-of-1.parquet"]);
    assert_eq!(objects.len(), 5 * dates.len() + 2);
}

#[test]
fn dimensions_list_projects_and_their_coverage() {
    let (sim, lake) = first_sync(Vintage::Saas);
    let orgs = format!("SELECT org_id FROM {} ORDER BY 1", lake.table("orgs"));
    let projects = format!(
        "SELECT org_id, project_id FROM {} WHERE not_visible_since_ts IS NULL ORDER BY ALL",
        lake.table("projects")
    );
    let scopes = format!(
        "SELECT org_id, project_id, watermark_ts = '2026-11-24 14:55:00+00', last_error_code,
                last_success_ts = '2026-11-24 15:00:00+00'
         FROM {} ORDER BY ALL",
        lake.table("scopes")
    );
    let newest = format!(
        "SELECT count(*) FROM {} s LEFT JOIN (
             SELECT org_id, project_id, max(start_ts) AS newest, count_if(NOT is_terminal) AS open
             FROM {} GROUP BY ALL) e USING (org_id, project_id)
         WHERE s.last_row_start_ts IS NOT DISTINCT FROM e.newest
           AND s.open_execution_count = coalesce(e.open, 0) AND s.gap_count = (watermark_ts IS NULL)::INT",
        lake.table("scopes"),
        lake.table("executions")
    );
    let found = rows(&[&orgs, &projects, &scopes, &newest]);

    assert_eq!(found[0].len(), 3, "the empty organization too");
    let all = sim.account().scopes_at(sim.now());
    let named: Vec<Vec<Value>> = all
        .iter()
        .map(|scope| vec![json!(scope.org), json!(scope.project)])
        .collect();
    let mut sorted = named.clone();
    sorted.sort_by_key(|row| row[0].to_string() + &row[1].to_string());
    assert_eq!(found[1], sorted);

    let forbidden = sim.account().forbidden_scope().unwrap();
    for row in &found[2] {
        let is_forbidden = row[..2] == [json!(forbidden.org), json!(forbidden.project)];
        let expected = if is_forbidden {
            [Value::Null, json!("invalid_permissions"), Value::Null]
        } else {
            [json!(true), Value::Null, json!(true)]
        };
        assert_eq!(row[2..], expected, "{row:?}");
    }
    assert_eq!(found[2].len(), all.len());
    // The complete range of the forbidden project is a gap.
    assert_eq!(found[3], [[json!(all.len())]]);
}
