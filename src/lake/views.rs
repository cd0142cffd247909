//! `_views/duckdb.sql` of a local lake: statements that open every table and view by name.

use super::layout::{self, dimension, table_folder};
use super::store::{Store, StoreError};
use crate::schema::Table;
use crate::schema::ddl::{Engine, ddl};

/// Leaves the statements in a local lake, so that `duckdb -init` opens it. What is there already
/// stays; a lake without rows gets none, since `DuckDB` refuses a view over no files.
///
/// # Errors
///
/// [`StoreError`] where the lake cannot be read or written.
pub async fn write(store: &Store) -> Result<(), StoreError> {
    if store.folder().is_none() {
        return Ok(());
    }
    let statements = ddl(Engine::DuckDb, store.location());
    let there = store.get(layout::VIEWS).await?;
    if there.is_some_and(|(body, _)| body == statements.as_bytes()) {
        return Ok(());
    }
    let has_dimensions = store.head(&dimension(Table::Scopes)).await?.is_some();
    let has_rows = !store
        .list(&table_folder(Table::Executions))
        .await?
        .is_empty();
    if has_dimensions && has_rows {
        store.overwrite(layout::VIEWS, statements.into()).await?;
    }
    Ok(())
}
