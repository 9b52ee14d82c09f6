//! `highwater migrate`: makes the database, its tables and views what the plan needs. Running it again changes nothing.

use anyhow::{Context, Result};

use crate::clickhouse::sql::ident;
use crate::clickhouse::{Catalog, Client, schema};
use crate::command::load;
use crate::config::Settings;

/// What `highwater migrate` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print the statements and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Brings the database of the settings up to their plan and prints the statements; none where nothing is missing.
///
/// # Errors
/// As [`migrate`]; or the plan can't be compiled.
pub async fn run(settings: &Settings, args: &Args) -> Result<()> {
    let plan = load::plan(settings)?;
    let client = Client::new(settings.endpoint()?);
    let catalog = Catalog::new(&plan, &settings.tables(), client.database());
    let statements = migrate(&client, &catalog, args.dry_run).await?;
    for statement in &statements {
        println!("{statement};\n");
    }
    let what = if args.dry_run { "to run" } else { "run" };
    eprintln!("{}: {} statements {what}", client.database(), statements.len());
    Ok(())
}

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
