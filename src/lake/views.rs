//! `_views/duckdb.sql` of a local lake: SQL statements that open every table and view by name.

use super::layout::{self, Period, dimension, table_folder};
use super::store::{Store, StoreError};
use crate::schema::Table;
use crate::schema::ddl::{Engine, ddl, ddl_without_rows};

/// Writes the statements to a local lake, so that `duckdb -init` opens it. Does nothing if they are
/// current, or if the lake has no dimension tables yet.
///
/// # Errors
///
/// [`StoreError`] if the lake cannot be read or written.
pub async fn write(store: &Store, period: Period) -> Result<(), StoreError> {
    if store.folder().is_none() {
        return Ok(());
    }
    let statements = ddl(Engine::DuckDb, store.location(), period);
    let current = store.get(layout::VIEWS).await?.map(|(body, _)| body);
    if current
        .as_ref()
        .is_some_and(|body| body == statements.as_bytes())
    {
        return Ok(());
    }
    if store.head(&dimension(Table::Scopes)).await?.is_none() {
        return Ok(());
    }
    let executions = store.list(&table_folder(Table::Executions)).await?;
    let statements = if executions.is_empty() {
        ddl_without_rows(store.location(), period)
    } else {
        statements
    };
    if current.is_some_and(|body| body == statements.as_bytes()) {
        return Ok(());
    }
    store.overwrite(layout::VIEWS, statements.into()).await
}
