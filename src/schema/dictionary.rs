//! The data dictionary, as Markdown. Pure.

use super::views::VIEWS;
use super::{Definition, Table, VERSION, raw_definition};

/// What a lake holds: every table with its columns, every view with its question.
pub fn dictionary() -> String {
    let tables = Table::ALL.into_iter().map(Table::definition);
    let tables: Vec<String> = tables.chain([raw_definition()]).map(of_table).collect();
    let views = VIEWS.map(|view| {
        let (name, question) = (view.name, view.question());
        format!("| [{name}](../analytics/sql/{name}.sql) | {question} |\n")
    });
    format!(
        "# Data dictionary\n\n\
         Version {VERSION} of every table, made from `schemas/v{VERSION}/` by `harness-lake schema docs`.\n\n\
         - Types are those of Parquet, in words that `schemas/README.md` explains. Times are UTC.\n\
         - `null` says whether a column can be null: the server did not tell, or the meaning says when.\n\
         - A source is a field of the object that the API gives for an execution, or says how the value comes about.\n\
         - `start_date` is not in the files: it is the name of the folder that holds them.\n\n\
         {}\n## Views\n\n\
         `harness-lake schema ddl duckdb|spark|trino` prints the statements; the comment of each says what it counts and leaves out.\n\n\
         | view | answers |\n|---|---|\n{}",
        tables.join("\n"),
        views.concat(),
    )
}

/// One table of the dictionary.
pub fn of_table(definition: &Definition) -> String {
    let mut text = format!(
        "## {}\n\n{}. Source: {}.\n\n| column | type | key | null | unit | meaning | source |\n|---|---|---|---|---|---|---|\n",
        definition.table, definition.description, definition.source,
    );
    let said = |is: bool| if is { "yes" } else { "" };
    for column in &definition.columns {
        let row = [
            &column.name,
            column.kind.name(),
            said(definition.key.contains(&column.name)),
            said(column.nullable),
            column.unit.as_deref().unwrap_or_default(),
            &column.meaning,
            &column.source,
        ];
        let cells = row.map(|cell| cell.replace('|', "\\|")).join(" | ");
        text.push_str(&["| ", &cells, " |\n"].concat());
    }
    if definition.partitioned {
        text.push_str("| start_date | date | | | | UTC date of the start of the execution: the partition | the path |\n");
    }
    text
}
