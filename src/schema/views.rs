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
pub const VIEWS: [View; 12] = views![
    "executions_latest",
    "deployment_attempts",
    "deployments_once",
    "deployment_frequency",
    "change_failure_rate",
    "time_to_restore",
    "lead_time_for_changes",
    "build_durations",
    "queue_and_approval_time",
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

    /// Returns the statement that creates the view, with its comment.
    pub fn statement(self, engine: Engine) -> String {
        let mut pieces = self.source.split('{');
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (placeholder, after) = piece.split_once('}').unwrap_or((piece, ""));
            let (name, argument) = placeholder.split_once(' ').unwrap_or((placeholder, ""));
            text.push_str(&expression(engine, name).replace('$', argument));
            text.push_str(after);
        }
        text
    }
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
        ("text", DuckDb) => {
            "array_to_string(list_sort([x.key || '=' || COALESCE(x.value, '') FOR x IN map_entries($)]), ',')"
        }
        ("text", Spark) => {
            "array_join(array_sort(transform(map_entries($), x -> x.key || '=' || COALESCE(x.value, ''))), ',')"
        }
        ("text", Trino) => {
            "array_join(array_sort(transform(map_entries($), x -> x[1] || '=' || COALESCE(x[2], ''))), ',')"
        }
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
                let text = view.statement(engine);
                let comment: String = text
                    .lines()
                    .take_while(|line| line.starts_with("-- "))
                    .collect();
                for word in ["-- Counts: ", "-- Excludes: "] {
                    assert!(comment.contains(word), "{}: {word}", view.name);
                }
                let create = format!("\nCREATE OR REPLACE VIEW {} AS\n", view.name);
                assert!(text.contains(&create), "{}", view.name);
                assert_eq!(text.matches(';').count(), 1, "{}", view.name);
                assert!(text.ends_with(";\n"), "{}", view.name);
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
