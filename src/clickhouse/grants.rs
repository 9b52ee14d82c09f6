//! What the server lets our user do, against what a command needs, and the statement that grants it.

use serde::Deserialize;

use super::client::Client;
use super::error::QueryError;
use super::sql::ident;
use super::tables::Catalog;

/// ClickHouse's code for a statement that it does not know.
const SYNTAX_ERROR: u32 = 62;

/// What `highwater run` needs of the database.
const NEEDED: [&str; 2] = ["SELECT", "INSERT"];

/// Whether our user may do what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grants {
    /// He may.
    Enough,
    /// He lacks something; one line says what, and the statement that grants it.
    Lacking(String),
    /// The server is too old to be asked (`CHECK GRANT`).
    Unknown,
}

/// A privilege, and the tables that it is needed of.
pub type Needed<'a> = (&'static str, Vec<&'a str>);

/// Asks for what a worker needs of the catalog's tables.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn look(client: &Client, catalog: &Catalog) -> Result<Grants, QueryError> {
    let tables: Vec<&str> = catalog.tables.iter().map(|table| table.name.as_str()).collect();
    look_for(client, &NEEDED.map(|privilege| (privilege, tables.clone()))).await
}

/// Asks for permissions; they may be granted for the database or table by table.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn look_for(client: &Client, needed: &[Needed<'_>]) -> Result<Grants, QueryError> {
    let (user, database) = (&client.endpoint().user, ident(client.database()));
    let mut lacking = Vec::new();
    for (privilege, tables) in needed {
        match is_granted(client, privilege, &format!("{database}.*")).await {
            Ok(true) => {}
            Ok(false) => {
                for table in tables {
                    if !is_granted(client, privilege, &client.table(table)).await? {
                        lacking.push(*privilege);
                        break;
                    }
                }
            }
            Err(QueryError::Server(error)) if error.code == SYNTAX_ERROR => return Ok(Grants::Unknown),
            Err(error) => return Err(error),
        }
    }
    if lacking.is_empty() {
        return Ok(Grants::Enough);
    }
    let lacking = lacking.join(", ");
    Ok(Grants::Lacking(format!(
        "the user {user} lacks the permission {lacking} on the database {}; let an administrator run: GRANT {lacking} ON \
         {database}.* TO {}",
        client.database(),
        ident(user)
    )))
}

/// Asks whether tables may be made with these engines, which some servers want to have granted too.
///
/// # Errors
/// The server's error, or that it did not answer.
pub async fn look_for_engines(client: &Client, engines: &[String]) -> Result<Grants, QueryError> {
    let user = &client.endpoint().user;
    for engine in engines {
        match is_granted(client, "TABLE ENGINE", engine).await {
            Ok(true) => {}
            Ok(false) => {
                return Ok(Grants::Lacking(format!(
                    "the user {user} lacks the permission TABLE ENGINE ON {engine}; let an administrator run: GRANT TABLE \
                     ENGINE ON {engine} TO {}",
                    ident(user)
                )));
            }
            Err(QueryError::Server(error)) if error.code == SYNTAX_ERROR => return Ok(Grants::Unknown),
            Err(error) => return Err(error),
        }
    }
    Ok(Grants::Enough)
}

async fn is_granted(client: &Client, privilege: &str, on: &str) -> Result<bool, QueryError> {
    #[derive(Deserialize)]
    struct Answer {
        result: u8,
    }
    let rows = client.clone().outside().rows::<Answer>(&format!("CHECK GRANT {privilege} ON {on}")).await?;
    Ok(rows.first().is_some_and(|row| row.result == 1))
}
