//! `analytics/report.py`: the report page, rendered by a browser.

use std::fs;
use std::path::Path;
use std::process::Command;

use harness_sim::AccountSpec;
use tempfile::TempDir;

use crate::support::{Lake, Run, Sim, bare_command, interpreter, now, rows};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/analytics/report.py");

/// The time shown on the pages.
const NOW: &str = "2026-11-24T15:10:00+00:00";

/// Sections of the page of a lake with rows.
const SECTIONS: [&str; 10] = [
    "Executions",
    "Deployment frequency",
    "Change failure rate",
    "Time to restore",
    "Lead time for changes",
    "Slowest pipelines",
    "Flakiest pipelines",
    "Failures by stage",
    "Busiest hours",
    "Projects and freshness",
];

fn account() -> (Sim, Lake) {
    let spec = AccountSpec {
        executions: 1_600,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let lake = Lake::new();
    sim.sync(&lake, &[]).expect(3);
    (sim, lake)
}

fn script(arguments: &[&str]) -> Run {
    let mut python = Command::new(interpreter());
    python.arg(SCRIPT).args(arguments);
    Run::of(python.output().unwrap())
}

/// Returns the page of a lake.
fn page(lake: &str, more: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("page.html");
    let fixed = [lake, "--now", NOW, "-o"];
    script(&[&fixed[..], &[file.to_str().unwrap()], more].concat()).expect(0);
    fs::read_to_string(file).unwrap()
}

/// Returns the rendered document of a page, and a screenshot.
struct Shown {
    document: String,
    picture: Vec<u8>,
}

fn show(page: &str, flags: &[&str]) -> Shown {
    let folder = TempDir::new().unwrap();
    let (file, picture) = (
        folder.path().join("page.html"),
        folder.path().join("page.png"),
    );
    fs::write(&file, page).unwrap();
    let browse = |what: &str| {
        let profile = folder.path().join(format!("profile{}", what.len()));
        let quiet = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
        ];
        let mut chromium = Command::new("chromium");
        chromium.args(quiet).args(flags).arg(what);
        chromium.arg(format!("--user-data-dir={}", profile.display()));
        chromium.arg(format!("file://{}", file.display()));
        let output = chromium
            .output()
            .expect("Chromium (Debian: chromium) shows the page");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let document = String::from_utf8(browse("--dump-dom")).unwrap();
    browse(&format!("--screenshot={}", picture.display()));
    let picture = fs::read(picture).unwrap();
    Shown { document, picture }
}

/// Returns the values of an attribute.
fn attributes<'a>(document: &'a str, name: &str) -> Vec<&'a str> {
    let begin = format!(" {name}=\"");
    let parts = document.split(begin.as_str()).skip(1);
    parts.map(|part| part.split('"').next().unwrap()).collect()
}

#[test]
fn report_page_renders_completely_and_is_accessible() {
    let (_sim, lake) = account();
    let page = page(lake.path(), &[]);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    let light = show(&page, &["--window-size=1000,3000"]);
    let dark = show(
        &page,
        &[
            "--window-size=1000,3000",
            "--blink-settings=preferredColorScheme=0",
        ],
    );
    let narrow = show(&page, &["--window-size=500,3000"]);
    assert_ne!(light.picture, dark.picture, "dark is dark");
    assert_ne!(light.picture, narrow.picture);

    let document = &light.document;
    for section in SECTIONS {
        assert!(
            document.contains(&format!("\">{section}</h2>")),
            "{section}"
        );
    }
    let mut ids = attributes(document, "id");
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "ids are unique");
    for target in attributes(document, "href") {
        assert!(ids.contains(&target.trim_start_matches('#')), "{target}");
    }
    for labels in attributes(document, "aria-labelledby") {
        assert!(
            labels.split(' ').all(|label| ids.contains(&label)),
            "{labels}"
        );
    }
    let figures = document.matches("<figure").count();
    assert!(7 <= figures, "{figures}");
    for each in ["role=\"img\"", "<desc", "<details"] {
        assert_eq!(document.matches(each).count(), figures, "{each}");
    }
    assert_eq!(document.matches("<h1").count(), 1);
    assert!(document.contains("<html lang=\"en\">") && !document.contains("<h3"));
    let tables = document.matches("<table").count();
    assert_eq!(document.matches("<caption>").count(), tables);

    // The page loads no resources and runs no scripts.
    for outside in [
        "http://", "https://", "<script", "<link", "<img", "src=", "@import",
    ] {
        assert!(!document.contains(outside), "{outside}");
    }
    assert!(document.contains("default-src 'none'"));
}

#[test]
fn page_numbers_match_the_lake() {
    let (_sim, lake) = account();
    let opened = fs::read_to_string(format!("{}/_views/duckdb.sql", lake.path())).unwrap();
    let page = page(lake.path(), &["--org", "north*", "--from", "2026-11-16"]);
    let of = "WHERE org_id LIKE 'north%' AND start_date >= DATE '2026-11-16'";
    let asked = [
        format!("SELECT format('>{{:,}} pipeline executions', count(*)) FROM executions {of}"),
        format!(
            "SELECT format('<dd>{{:.1f}}%</dd>', 100 * sum(failed_deployments) / sum(deployments))
             FROM change_failure_rate {of} AND environment_type = 'Production'"
        ),
        format!(
            "SELECT format('<dd>{{:.1f}}</dd>', sum(successful_deployments) / 9)
             FROM deployment_frequency {of} AND environment_type = 'Production'"
        ),
        format!(
            "SELECT format('>{{}} of {{}} ({{:.1f}}%)</text>', sum(failures)::BIGINT, sum(runs)::BIGINT, 100 * sum(failures) / sum(runs))
             FROM failed_stages {of} GROUP BY org_id, project_id, pipeline_id, stage_id ORDER BY sum(failures) DESC LIMIT 1"
        ),
        format!(
            "SELECT format('<title>{{}} {{}}: {{:,}} succeeded</title>', strftime(start_date, '%b'), day(start_date), count(*))
             FROM executions {of} AND status_category = 'success' GROUP BY start_date ORDER BY start_date LIMIT 1"
        ),
    ];
    for asked in asked {
        let expected = rows(&[&opened, &asked]).remove(1).remove(0).remove(0);
        let expected = expected.as_str().unwrap();
        assert!(page.contains(expected), "{asked}: {expected}");
    }
    let before = "SELECT format('before: {:.1f};', sum(successful_deployments) / 7) FROM deployment_frequency
                  WHERE environment_type = 'Production' AND start_date >= DATE '2026-11-11' AND start_date < DATE '2026-11-18'";
    let expected = rows(&[&opened, before]).remove(1).remove(0).remove(0);
    let week = self::page(lake.path(), &["--from", "2026-11-18"]);
    assert!(week.contains("The last 7 days"));
    assert!(week.contains(expected.as_str().unwrap()), "{expected}");
    let others = "SELECT DISTINCT org_id || '/' || project_id FROM executions
                  WHERE org_id NOT LIKE 'north%'";
    for row in rows(&[&opened, others]).remove(1) {
        assert!(!page.contains(row[0].as_str().unwrap()), "{row:?}");
    }
}

#[test]
fn names_are_always_rendered_as_text() {
    let (_sim, lake) = account();
    let opened = fs::read_to_string(format!("{}/_views/duckdb.sql", lake.path())).unwrap();
    let folder = TempDir::new().unwrap();
    let views = folder.path().join("views.sql");
    let markup = "<script>document.title=1</script>\" onload=\"x";
    let renamed = format!(
        "{opened}; CREATE TABLE markup AS SELECT * REPLACE ('{markup}' AS pipeline_id, '{markup}' AS project_id) FROM executions;
         DROP VIEW executions; ALTER TABLE markup RENAME TO executions;"
    );
    fs::write(&views, renamed).unwrap();
    let page = page(lake.path(), &["--views", views.to_str().unwrap()]);
    assert!(!page.contains("<script") && !page.contains(" onload=\""));
    assert!(page.contains("&lt;script&gt;document"));
    let shown = show(&page, &[]);
    assert!(shown.document.contains("<title>Harness pipelines: "));
    assert!(!shown.document.contains("<script"));
}

#[test]
fn report_names_an_empty_or_missing_lake() {
    let spec = AccountSpec {
        executions: 0,
        future_hours: 0,
        ..AccountSpec::small(now())
    };
    let sim = Sim::start(&spec, |_| {});
    let (lake, missing) = (Lake::new(), Lake::new());
    sim.sync(&lake, &[]).expect(3);
    assert!(page(lake.path(), &[]).contains("the lake is empty"));
    let run = script(&[missing.path()]).expect(1);
    assert!(run.stderr.contains("harness-lake sync"), "{run:?}");
    let run = script(&["s3://bucket/lake"]).expect(1);
    assert!(run.stderr.contains("schema ddl duckdb"), "{run:?}");
}

#[test]
fn report_names_a_file_that_it_cannot_read() {
    let folder = TempDir::new().unwrap();
    let views = folder.path().join("views.sql");
    fs::write(&views, "SELECT 1").unwrap();
    for flag in ["--views", "--init"] {
        let arguments = [
            "lake",
            "--views",
            views.to_str().unwrap(),
            flag,
            "missing.sql",
        ];
        let run = script(&arguments).expect(1);
        let expected = "error: failed to read missing.sql: No such file or directory\n";
        assert_eq!(run.stderr, expected, "{flag}");
    }
}

/// The oldest `DuckDB` that the script declares is the one that reads S3 in the tests. It stands next
/// to the newest, without any other package.
#[test]
fn report_is_the_same_on_the_oldest_declared_duckdb() {
    let source = fs::read_to_string(SCRIPT).unwrap();
    let (_, declared) = source.split_once("\"duckdb>=").unwrap();
    let oldest = declared.split('"').next().unwrap();
    let folder = Path::new(&interpreter()).with_file_name("../readers");
    let run = |code: &str, arguments: &[&str]| {
        let mut python = Command::new(interpreter());
        python.env("PYTHONPATH", &folder).arg(code).args(arguments);
        Run::of(python.output().unwrap()).expect(0).stdout
    };
    let version = run("-c", &["import duckdb; print(duckdb.__version__)"]);
    assert_eq!(version.trim(), oldest, "scripts/requirements-readers.txt");

    let (_sim, lake) = account();
    let out = TempDir::new().unwrap();
    let file = out.path().join("page.html");
    let fixed = [lake.path(), "--now", NOW, "-o", file.to_str().unwrap()];
    run(SCRIPT, &fixed);
    assert!(fs::read_to_string(file).unwrap() == page(lake.path(), &[]));
}

#[test]
fn demo_prints_the_report_command() {
    let lake = Lake::new();
    let demo = bare_command(&["demo", "--lake", lake.path()]).output();
    let output = Run::of(demo.unwrap()).expect(0).stdout;
    let command = output
        .lines()
        .find(|line| line.contains("analytics/report.py"));
    let command = command.unwrap_or_else(|| panic!("{output}"));
    assert!(command.contains(lake.path()) && Path::new(SCRIPT).exists());
}

/// Returns the WCAG contrast of two colours, `#rrggbb` or `#rgb`.
fn contrast(one: &str, other: &str) -> f64 {
    let light = |colour: &str| {
        let hex = colour.trim_start_matches('#');
        let hex: String = match hex.len() {
            3 => hex.chars().flat_map(|digit| [digit, digit]).collect(),
            _ => hex.to_owned(),
        };
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        0.0722_f64.mul_add(part(4), 0.2126_f64.mul_add(part(0), 0.7152 * part(2))) + 0.05
    };
    let (one, other) = (light(one), light(other));
    one.max(other) / one.min(other)
}

#[test]
fn text_and_marks_stand_out_in_light_and_in_dark() {
    let source = fs::read_to_string(SCRIPT).unwrap();
    let palettes: Vec<&str> = source.split("--bg:").skip(1).collect();
    assert_eq!(palettes.len(), 2, "light and dark");
    for palette in palettes {
        let palette = format!("--bg:{}", palette.split('}').next().unwrap());
        let colour = |name: &str| {
            let (_, rest) = palette.split_once(&format!("--{name}:")).unwrap();
            rest.split(';').next().unwrap().to_owned()
        };
        let back = colour("bg");
        for (name, least) in [
            ("fg", 4.5),
            ("dim", 4.5),
            ("ok", 4.5),
            ("bad", 3.0),
            ("other", 3.0),
        ] {
            let contrast = contrast(&colour(name), &back);
            assert!(least <= contrast, "{name} on {back}: {contrast:.2}");
        }
    }
}
