//! `highwater audit`: holds the ledger against the tables, and against Kafka.
//!
//! Every event is in exactly one range of the ledger, and in the tables as that range says; every minute of a rollup adds
//! up to the raw rows of that minute. The ledger is taken as it stands at the beginning: what workers write meanwhile is
//! beyond its end and reported as in flight.

mod kafka;
mod ledger;
mod report;
mod rollups;
mod rows;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::clickhouse::{Catalog, Client};
use crate::plan::Plan;

pub use kafka::Position;
pub use report::{Check, Finding, Report, Totals};

/// How long one of the audit's queries may take; they read whole tables.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What every check works with.
struct Audit<'a> {
    client: Client,
    plan: &'a Plan,
    catalog: &'a Catalog,
    /// The ledger's sources as they stood at the beginning.
    sources: Vec<ledger::SourceEnd>,
    report: Report,
}

/// Audits a database; with positions, Kafka too. Changes nothing.
///
/// # Errors
/// ClickHouse can't be asked, or a table is missing. What doesn't add up is no error but a finding of the report.
pub async fn audit(client: &Client, plan: &Plan, catalog: &Catalog, positions: Option<&[Position]>) -> Result<Report> {
    let client = client.clone().with_timeout(PATIENCE);
    let sources = ledger::sources(&client).await.context("can't read the ledger")?;
    let mut audit = Audit { client, plan, catalog, sources, report: Report::default() };
    audit.ledger().await.context("can't check the ledger")?;
    audit.rows().await.context("can't hold the ledger against the rows")?;
    audit.rollups().await.context("can't hold the rollups against the rows")?;
    if let Some(positions) = positions {
        audit.kafka(positions);
    }
    Ok(audit.report)
}

impl Audit<'_> {
    /// Where a source's ledger ended at the beginning, as an expression over a column of its name; 0 where the ledger
    /// does not know it.
    fn end_of(&self, column: &str) -> String {
        let names = self.sources.iter().map(|source| crate::clickhouse::sql::literal(&source.source));
        let ends = self.sources.iter().map(|source| format!("toUInt64({})", source.end));
        let (names, ends) = (names.collect::<Vec<_>>().join(", "), ends.collect::<Vec<_>>().join(", "));
        if self.sources.is_empty() {
            return "toUInt64(0)".to_owned();
        }
        format!("transform(toString({column}), [{names}], [{ends}], toUInt64(0))")
    }

    fn keep_days(&self, table: &str) -> u32 {
        self.catalog.tables.iter().find(|def| def.name == table).map_or(0, |def| def.keep_days)
    }
}
