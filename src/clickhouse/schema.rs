//! What tables are there, against what a plan needs: the statements that are missing, and what no statement can mend.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::Client;
use super::ddl::{TableDef, ViewDef, WIDE_FROM};
use super::error::QueryError;
use super::sql::{ident, literal, table};
use super::tables::{Catalog, LEAST_TOKEN_WINDOW};

/// A table as it is.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Existing {
    name: String,
    engine: String,
    engine_full: String,
    sorting_key: String,
    partition_key: String,
    comment: String,
    /// A view's query, as ClickHouse writes it.
    as_select: String,
    /// Name and type of each column.
    #[serde(skip)]
    columns: BTreeMap<String, String>,
}

/// All tables of a database, by name.
pub type Tables = BTreeMap<String, Existing>;

/// A table that can't be written as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not there.
    #[error("the table {0} is missing; make it with `highwater migrate`")]
    Missing(String),
    /// A column is not there.
    #[error("the table {table} has no column {column}; add it with `highwater migrate`")]
    NoColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// Inserts would not be deduplicated for long enough.
    #[error(
        "the table {table} remembers {found} tokens where at least {least} are needed, so a repeated insert could be \
         written twice; set its window with `highwater migrate`"
    )]
    TokenWindow {
        /// The table.
        table: String,
        /// Tokens that it remembers.
        found: u64,
        /// Tokens that it has to.
        least: u64,
    },
    /// Rows vanish sooner than the settings say.
    #[error(
        "the table {table} drops rows by the TTL {found}, sooner than the settings have it ({wanted}): rows that highwater \
         waits to see would be gone. Set the TTL with `highwater migrate`, or mend retention.*"
    )]
    Retention {
        /// The table.
        table: String,
        /// Its TTL.
        found: String,
        /// The TTL that it should have.
        wanted: String,
    },
    /// A column is of another type.
    #[error(
        "the column {column} of the table {table} is {found}, but the schema makes it {wanted}. ClickHouse would convert \
         what is there and highwater does not do that: give the field another name, or rename the table away \
         (RENAME TABLE) and migrate again"
    )]
    Type {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// The type that it should have.
        wanted: String,
    },
    /// Engine, sorting key or partition key differ.
    #[error(
        "the table {table} has the {what} ({found}) where ({wanted}) is needed, which can't be changed in place: where `by` \
         of a rollup was changed, give it the next `version` in its pack (version = 2 at first); otherwise rename the table away (RENAME TABLE) and migrate \
         again"
    )]
    Layout {
        /// The table.
        table: String,
        /// Which property.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
}

/// Why tables can't be used or made.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// ClickHouse did not do as asked.
    #[error("can't read or change the tables of the database {database}: {error}")]
    Query {
        /// The database.
        database: String,
        /// What it said.
        error: QueryError,
    },
    /// Tables are not as they have to be.
    #[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
    Faults(Vec<Fault>),
}

impl Fault {
    /// The name of the table that is missing, where that is the fault.
    pub fn missing(&self) -> Option<&str> {
        match self {
            Fault::Missing(name) => Some(name),
            _ => None,
        }
    }
}

impl Existing {
    fn token_window(&self) -> u64 {
        self.number("non_replicated_deduplication_window").unwrap_or(0)
    }

    /// A setting that is a number, if the table has it.
    fn number(&self, setting: &str) -> Option<u64> {
        let (_, after) = self.engine_full.split_once(&format!("{setting} = "))?;
        after.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// Its TTL without the quotes that ClickHouse may put around names.
    fn ttl(&self) -> Option<String> {
        let (_, rest) = self.engine_full.split_once(" TTL ")?;
        Some(rest.split(" SETTINGS ").next().unwrap_or(rest).replace('`', "").trim().to_owned())
    }
}

/// Reads what is there. A database that is not there has no tables.
///
/// # Errors
/// ClickHouse's.
pub async fn read(client: &Client) -> Result<Tables, SchemaError> {
    #[derive(Deserialize)]
    struct ColumnRow {
        table: String,
        name: String,
        r#type: String,
    }
    let outside = client.clone().outside();
    let database = literal(client.database());
    let failed = |error| SchemaError::Query { database: client.database().to_owned(), error };
    let columns = "name, engine, engine_full, sorting_key, partition_key, comment, as_select";
    let tables = format!("SELECT {columns} FROM system.tables WHERE database = {database}");
    let tables: Vec<Existing> = outside.rows(&tables).await.map_err(failed)?;
    let mut tables: Tables = tables.into_iter().map(|table| (table.name.clone(), table)).collect();
    let columns = format!("SELECT table, name, type FROM system.columns WHERE database = {database}");
    for row in outside.rows::<ColumnRow>(&columns).await.map_err(failed)? {
        if let Some(table) = tables.get_mut(&row.table) {
            table.columns.insert(row.name, row.r#type);
        }
    }
    Ok(tables)
}

/// The statements that make `existing` what the catalog needs, in order; nothing where it is so already.
///
/// # Errors
/// What no statement can change without touching rows.
pub fn difference(existing: &Tables, catalog: &Catalog, database: &str) -> Result<Vec<String>, Vec<Fault>> {
    let (mut statements, mut faults) = (Vec::new(), Vec::new());
    for wanted in &catalog.tables {
        match existing.get(&wanted.name) {
            None => statements.push(wanted.create(database)),
            Some(found) => {
                faults.extend(lasting_faults(found, wanted));
                statements.extend(alterations(found, wanted, database));
            }
        }
    }
    for view in &catalog.views {
        match existing.get(&view.name) {
            Some(found) if found.engine != "View" => faults.push(Fault::Layout {
                table: view.name.clone(),
                what: "engine",
                found: found.engine.clone(),
                wanted: "View".to_owned(),
            }),
            Some(found) if found.comment == view.signed_comment() => {}
            Some(found) => {
                statements.extend(kept(found, view, existing, database));
                statements.push(view.create(database));
            }
            None => statements.push(view.create(database)),
        }
    }
    if faults.is_empty() { Ok(statements) } else { Err(faults) }
}

/// Where a rollup's view moves on to the next version of its table: the view by which the version before it is read from
/// then on, a copy of what the view has been until now.
fn kept(found: &Existing, view: &ViewDef, existing: &Tables, database: &str) -> Option<String> {
    let select = found.as_select.replace('`', "");
    let (name, _) = view.formers.iter().find(|(_, parts)| select.contains(&format!(".{parts} ")))?;
    let comment = literal(&format!("{} as it was before `by` was changed", view.name));
    (!existing.contains_key(name))
        .then(|| format!("CREATE VIEW {} AS\n{}\nCOMMENT {comment}", table(database, name), found.as_select))
}

/// Differences that rows would have to be rewritten for.
fn lasting_faults(found: &Existing, wanted: &TableDef) -> Vec<Fault> {
    let layout = |what, found: &str, wanted: &str| Fault::Layout {
        table: String::new(),
        what,
        found: found.to_owned(),
        wanted: wanted.to_owned(),
    };
    let mut faults = Vec::new();
    // The same engine, replicated, is as good.
    if found.engine.trim_start_matches("Replicated") != wanted.engine {
        faults.push(layout("engine", &found.engine, wanted.engine));
    }
    let (order, month) = (wanted.order_by.join(", "), wanted.month().unwrap_or_default().replace('`', ""));
    // A key of one column is shown in the parentheses that it was made with.
    if found.sorting_key.replace('`', "").trim_matches(['(', ')']) != order {
        faults.push(layout("sorting key", &found.sorting_key, &order));
    }
    if found.partition_key.replace('`', "") != month {
        faults.push(layout("partition key", &found.partition_key, &month));
    }
    for fault in &mut faults {
        if let Fault::Layout { table, .. } = fault {
            table.clone_from(&wanted.name);
        }
    }
    for column in &wanted.columns {
        let is = found.columns.get(&column.def.name);
        if let Some(is) = is.filter(|is| **is != column.def.clickhouse_type) {
            faults.push(Fault::Type {
                table: wanted.name.clone(),
                column: column.def.name.clone(),
                found: is.clone(),
                wanted: column.def.clickhouse_type.clone(),
            });
        }
    }
    faults
}

/// Statements that add columns and change settings.
fn alterations(found: &Existing, wanted: &TableDef, database: &str) -> Vec<String> {
    let alter = format!("ALTER TABLE {}", table(database, &wanted.name));
    let mut statements = Vec::new();
    let mut previous: Option<&str> = None;
    for column in &wanted.columns {
        if !found.columns.contains_key(&column.def.name) {
            let place = previous.map_or("FIRST".to_owned(), |name| format!("AFTER {}", ident(name)));
            statements.push(format!("{alter} ADD COLUMN IF NOT EXISTS {} {place}", column.sql()));
        }
        previous = Some(&column.def.name);
    }
    // Never lowered: whoever raised it had a reason.
    if found.token_window() < wanted.token_window {
        statements
            .push(format!("{alter} MODIFY SETTING non_replicated_deduplication_window = {}", wanted.token_window));
    }
    // Whoever set it to anything had a reason.
    if wanted.token_window > 0 && found.number("min_bytes_for_wide_part").is_none() {
        statements.push(format!("{alter} MODIFY SETTING min_bytes_for_wide_part = {WIDE_FROM}"));
    }
    match (found.ttl(), wanted.ttl()) {
        (found, Some(wanted)) if found.as_deref() != Some(&wanted) => {
            statements.push(format!("{alter} MODIFY TTL {wanted}"));
        }
        (Some(_), None) => statements.push(format!("{alter} REMOVE TTL")),
        _ => {}
    }
    statements
}

/// Whether a worker may write: every table is there, has every column at its type and remembers enough tokens.
///
/// # Errors
/// Each table that is not so, with the command that mends it.
pub async fn check_tables(client: &Client, catalog: &Catalog) -> Result<(), SchemaError> {
    let faults = faults(&read(client).await?, catalog);
    if faults.is_empty() { Ok(()) } else { Err(SchemaError::Faults(faults)) }
}

/// What keeps a worker from writing; nothing where it may.
pub fn faults(existing: &Tables, catalog: &Catalog) -> Vec<Fault> {
    let mut faults = Vec::new();
    for wanted in &catalog.tables {
        let table = wanted.name.clone();
        let Some(found) = existing.get(&table) else {
            faults.push(Fault::Missing(table));
            continue;
        };
        let absent = wanted.columns.iter().filter(|column| !found.columns.contains_key(&column.def.name));
        faults.extend(absent.map(|column| Fault::NoColumn { table: table.clone(), column: column.def.name.clone() }));
        faults.extend(lasting_faults(found, wanted));
        let least = wanted.token_window.max(LEAST_TOKEN_WINDOW);
        if wanted.token_window > 0 && found.token_window() < least && !found.engine.starts_with("Replicated") {
            faults.push(Fault::TokenWindow { table: table.clone(), found: found.token_window(), least });
        }
        if let Some(ttl) = found.ttl().filter(|ttl| wanted.keeps_longer_than(ttl)) {
            let wanted = wanted.ttl().unwrap_or_else(|| "none".to_owned());
            faults.push(Fault::Retention { table, found: ttl, wanted });
        }
    }
    for view in &catalog.views {
        if !existing.contains_key(&view.name) {
            faults.push(Fault::Missing(view.name.clone()));
        }
    }
    faults
}
