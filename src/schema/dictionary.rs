//! The data dictionary, as Markdown. Pure.

use super::views::VIEWS;
use super::{Definition, Table, VERSION, raw_definition};

/// Renders all tables with their columns, and all views with their summaries.
pub fn dictionary() -> String {
    let tables = Table::ALL.into_iter().map(Table::definition);
    let tables: Vec<String> = tables.chain([raw_definition()]).map(of_table).collect();
    let views = VIEWS.map(|view| {
        let (name, summary) = (view.name, view.summary());
        format!("| [{name}](../analytics/sql/{name}.sql) | {summary} |\n")
    });
    format!(
        "# Data dictionary\n\n\
         Version {VERSION} of every table, generated from `schemas/v{VERSION}/` by `harness-lake schema docs`.\n\n\
         - `schemas/README.md` explains the types. Times are UTC.\n\
         - `null` is `yes` if a column can be null: when Harness did not send the value, or as the meaning says.\n\
         - `source` is a field of the API response for an execution, or describes how the value is derived.\n\
         - `start_date` is part of the path in a lake by day. In a lake by month it is the last column of the files, and `start_month` is part of the path.\n\n\
         {}\n## Views\n\n\
         `harness-lake schema ddl duckdb|spark|trino` prints the statements. The comment of each view describes what it counts and excludes.\n\n\
         | view | summary |\n|---|---|\n{}",
        tables.join("\n"),
        views.concat(),
    )
}

/// Renders one table.
pub fn of_table(definition: &Definition) -> String {
    let mut text = format!(
        "## {}\n\n{}. Source: {}.\n\n| column | type | key | null | unit | meaning | source |\n|---|---|---|---|---|---|---|\n",
        definition.table, definition.description, definition.source,
    );
    let yes = |is: bool| if is { "yes" } else { "" };
    for column in &definition.columns {
        let row = [
            &column.name,
            column.kind.name(),
            yes(definition.key.contains(&column.name)),
            yes(column.nullable),
            column.unit.as_deref().unwrap_or_default(),
            &column.meaning,
            &column.source,
        ];
        let cells = row.map(|cell| cell.replace('|', "\\|")).join(" | ");
        text.push_str(&["| ", &cells, " |\n"].concat());
    }
    if definition.partitioned {
        text.push_str("| start_date | date | | | | UTC date of the start of the execution | path; the file in a lake by month |\n");
    }
    text
}
