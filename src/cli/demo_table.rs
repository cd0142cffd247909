//! The table that `demo` ends with, read back from the Parquet objects of the lake.

use std::collections::BTreeMap;

use arrow_array::cast::AsArray;
use arrow_array::{Array, BooleanArray, RecordBatch, StringArray};
use indicatif::HumanCount;

use super::output::table;
use crate::error::Error;
use crate::ids::Scope;
use crate::lake::layout;
use crate::lake::parquet::{FileError, read};
use crate::lake::store::Store;
use crate::schema::Table;

/// The totals of one project.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    executions: u64,
    terminal: u64,
    succeeded: u64,
    deployments: u64,
}

/// Returns a line per project: executions, share of success, deployments and open executions.
///
/// # Errors
///
/// [`Error::Lake`] if an object cannot be read.
pub(super) async fn totals_by_project(store: &Store) -> Result<String, Error> {
    let mut totals: BTreeMap<Scope, Totals> = BTreeMap::new();
    for kind in [Table::Executions, Table::Deployments] {
        for object in store.list(&layout::table_folder(kind)).await? {
            let Some((bytes, _)) = store.get(&object.path).await? else {
                continue;
            };
            for batch in read(&object.path, bytes)? {
                let batch = batch.map_err(FileError::parquet(&object.path))?;
                add(&mut totals, kind, &batch);
            }
        }
    }
    let names = ["project", "executions", "succeeded", "deployments", "open"];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(totals.iter().map(|(scope, totals)| {
        let percent = (totals.succeeded * 100).checked_div(totals.terminal);
        vec![
            scope.to_string(),
            HumanCount(totals.executions).to_string(),
            percent.map_or_else(|| "-".to_owned(), |percent| format!("{percent} %")),
            HumanCount(totals.deployments).to_string(),
            HumanCount(totals.executions - totals.terminal).to_string(),
        ]
    }));
    Ok(table(&rows))
}

fn add(totals: &mut BTreeMap<Scope, Totals>, table: Table, batch: &RecordBatch) {
    let text = |name: &str| batch.column_by_name(name).and_then(|it| it.as_string_opt());
    let flag = |name: &str| {
        batch
            .column_by_name(name)
            .and_then(|it| it.as_boolean_opt())
    };
    let (Some(orgs), Some(projects)): (Option<&StringArray>, Option<&StringArray>) =
        (text("org_id"), text("project_id"))
    else {
        return;
    };
    let category: Option<&StringArray> = text("status_category");
    let is_terminal: Option<&BooleanArray> = flag("is_terminal");
    for row in 0..batch.num_rows() {
        let scope = Scope::new(orgs.value(row), projects.value(row));
        let totals = totals.entry(scope).or_default();
        if table == Table::Deployments {
            totals.deployments += 1;
            continue;
        }
        let is = |column: Option<&BooleanArray>| column.is_some_and(|it| it.value(row));
        let succeeded = category.is_some_and(|it| it.is_valid(row) && it.value(row) == "success");
        totals.executions += 1;
        totals.terminal += u64::from(is(is_terminal));
        totals.succeeded += u64::from(succeeded);
    }
}
