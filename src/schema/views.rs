//! The views of `analytics/sql/`: one source, rendered for each SQL engine. Pure.

use super::ddl::Engine;

/// A view over the tables of a lake.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// The name of the view.
    pub name: &'static str,
    source: &'static str,
}

macro_rules! views {
    ($($name:literal,)*) => {
        [$(View {
            name: $name,
            source: include_str!(concat!("../../analytics/sql/", $name, ".sql")),
        },)*]
    };
}

/// Every view. A view comes after the views that it reads.
pub const VIEWS: [View; 24] = views![
    "executions_latest",
    "deployment_runs",
    "deployment_attempts",
    "deployments_once",
    "deployment_failures",
    "rollbacks",
    "undone_deployments",
    "change_failures",
    "outages",
    "changes",
    "current_versions",
    "approvals_waited",
    "failure_types",
    "deployment_frequency",
    "deployment_failure_rate",
    "change_failure_rate",
    "time_to_restore",
    "lead_time_for_changes",
    "dora_metrics",
    "build_durations",
    "queue_and_wait_time",
    "failed_stages",
    "flakiest_pipelines",
    "busiest_hours",
];

impl View {
    /// Returns the first line of the view's comment.
    pub fn summary(self) -> &'static str {
        let first = self.source.lines().next().unwrap_or_default();
        first.trim_start_matches("-- ")
    }

    /// Returns the statements that create the view, with its comment in the catalogue of the engine.
    pub fn statements(self, engine: Engine) -> String {
        let create = ["CREATE OR REPLACE VIEW ", self.name].concat();
        let begin = [&create, " AS\n"].concat();
        let (header, query) = self.source.split_once(&begin).unwrap_or_default();
        let lines = header.lines().map(|line| line.trim_start_matches("-- "));
        let comment = engine.quoted(&lines.collect::<Vec<_>>().join(" "));
        let query = render(engine, query);
        match engine {
            Engine::Spark => format!("{header}{create}\nCOMMENT {comment}\nAS\n{query}"),
            Engine::DuckDb | Engine::Trino => {
                let name = self.name;
                format!("{header}{begin}{query}COMMENT ON VIEW {name} IS {comment};\n")
            }
        }
    }
}

/// Replaces the placeholders of a query.
fn render(engine: Engine, source: &str) -> String {
    let mut pieces = source.split('{');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (placeholder, after) = piece.split_once('}').unwrap_or((piece, ""));
        let (name, argument) = placeholder.split_once(' ').unwrap_or((placeholder, ""));
        text.push_str(&expression(engine, name).replace('$', argument));
        text.push_str(after);
    }
    text
}

/// Returns the SQL for a placeholder. `$` stands for the argument.
fn expression(engine: Engine, placeholder: &str) -> &'static str {
    use Engine::{DuckDb, Spark, Trino};
    match (placeholder, engine) {
        ("ms", DuckDb) => "epoch_ms($)",
        ("ms", Spark) => "unix_millis($)",
        ("ms", Trino) => "CAST(to_unixtime($) * 1000 AS BIGINT)",
        ("p50", DuckDb) => "quantile_cont($, 0.5)",
        ("p50", Spark) => "percentile($, 0.5)",
        ("p50", Trino) => "approx_percentile(CAST($ AS DOUBLE), 0.5)",
        ("p90", DuckDb) => "quantile_cont($, 0.9)",
        ("p90", Spark) => "percentile($, 0.9)",
        ("p90", Trino) => "approx_percentile(CAST($ AS DOUBLE), 0.9)",
        ("p95", DuckDb) => "quantile_cont($, 0.95)",
        ("p95", Spark) => "percentile($, 0.95)",
        ("p95", Trino) => "approx_percentile(CAST($ AS DOUBLE), 0.95)",
        ("last", DuckDb) => "last_value($ IGNORE NULLS)",
        ("last", Spark | Trino) => "last_value($) IGNORE NULLS",
        ("stages_by", DuckDb) => "(SELECT stages.*, unnest($) AS value FROM stages) AS exploded",
        ("stages_by", Spark) => "stages LATERAL VIEW explode($) exploded AS value",
        ("stages_by", Trino) => "stages CROSS JOIN UNNEST($) AS exploded(value)",
        ("days", DuckDb) => {
            "CROSS JOIN UNNEST(generate_series($, INTERVAL 1 DAY)) AS each_day(value)"
        }
        ("days", Spark) => "LATERAL VIEW explode(sequence($)) each_day AS value",
        ("days", Trino) => "CROSS JOIN UNNEST(sequence($)) AS each_day(value)",
        _ => unreachable!("a test renders every view for every engine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_is_one_documented_statement() {
        for view in VIEWS {
            for engine in [Engine::DuckDb, Engine::Spark, Engine::Trino] {
                let text = view.statements(engine);
                let comment: String = text
                    .lines()
                    .take_while(|line| line.starts_with("-- "))
                    .collect();
                for word in ["-- Counts: ", "-- Excludes: "] {
                    assert!(comment.contains(word), "{}: {word}", view.name);
                }
                let quoted = engine.quoted(view.summary());
                let begin = quoted.trim_end_matches('\'');
                let name = view.name;
                let (create, catalogue) = match engine {
                    Engine::Spark => (
                        format!("\nCREATE OR REPLACE VIEW {name}\nCOMMENT {begin}"),
                        "\nAS\n".to_owned(),
                    ),
                    Engine::DuckDb | Engine::Trino => (
                        format!("\nCREATE OR REPLACE VIEW {name} AS\n"),
                        format!(";\nCOMMENT ON VIEW {name} IS {begin}"),
                    ),
                };
                assert!(text.contains(&create), "{name}");
                assert!(text.contains(&catalogue), "{name}");
                let statements = if engine == Engine::Spark { 1 } else { 2 };
                assert_eq!(text.matches(';').count(), statements, "{name}");
                assert!(text.ends_with(";\n"), "{name}");
                assert!(!text.contains(['{', '}', '$']), "{text}");
            }
            assert!(view.summary().ends_with('.'), "{}", view.summary());
        }
    }

    #[test]
    fn every_sql_file_is_a_view() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/analytics/sql");
        let files = std::fs::read_dir(folder).unwrap().filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.extension().is_some_and(|extension| extension == "sql")
        });
        assert_eq!(files.count(), VIEWS.len());
    }
}
