//! `highwater migrate`: makes the database, its tables and views what the plan needs. Running it again changes nothing.

use anyhow::{Context, Result};

use crate::clickhouse::sql::ident;
use crate::clickhouse::{Catalog, Client, schema};

/// Creates and alters what is missing; with `dry_run` nothing is changed. Answers the statements, in order.
///
/// # Errors
/// Names every table that would have to be rewritten, in which case no statement is run, or the statement that failed.
pub async fn migrate(client: &Client, catalog: &Catalog, dry_run: bool) -> Result<Vec<String>> {
    let outside = client.clone().outside();
    let existing = schema::read(client).await?;
    let difference = schema::difference(&existing, catalog, client.database()).map_err(schema::SchemaError::Faults)?;
    let mut statements = Vec::new();
    if existing.is_empty() {
        statements.push(format!("CREATE DATABASE IF NOT EXISTS {}", ident(client.database())));
    }
    statements.extend(difference);
    if !dry_run {
        for statement in &statements {
            outside.execute(statement).await.with_context(|| format!("this statement failed:\n{statement}"))?;
        }
    }
    Ok(statements)
}
