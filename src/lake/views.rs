//! `_views/duckdb.sql` of a local lake: SQL statements that open every table and view by name.

use super::layout::{self, dimension, table_folder};
use super::store::{Store, StoreError};
use crate::schema::Table;
use crate::schema::ddl::{Engine, ddl};

/// Writes the statements to a local lake, so that `duckdb -init` opens it. Does nothing if they are
/// current. Skips a lake without rows, since `DuckDB` rejects a view over no files.
///
/// # Errors
///
/// [`StoreError`] if the lake cannot be read or written.
pub async fn write(store: &Store) -> Result<(), StoreError> {
    if store.folder().is_none() {
        return Ok(());
    }
    let statements = ddl(Engine::DuckDb, store.location());
    let current = store.get(layout::VIEWS).await?;
    if current.is_some_and(|(body, _)| body == statements.as_bytes()) {
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
