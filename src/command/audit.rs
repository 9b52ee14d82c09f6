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

use super::load;
use crate::clickhouse::{Catalog, Client};
use crate::config::Settings;
use crate::kafka::Observer;
use crate::plan::Plan;

pub use kafka::Position;
pub use report::{Check, Finding, Report, Totals};

/// How long one of the audit's queries may take; they read whole tables.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How long Kafka may take to answer.
const KAFKA_PATIENCE: Duration = Duration::from_secs(15);

/// What `highwater audit` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Hold the ledger against the tables only, and do not ask Kafka.
    #[arg(long)]
    pub without_kafka: bool,
}

/// Audits the database of the settings and prints the report; answers whether everything adds up.
///
/// # Errors
/// As [`audit`]; the plan can't be compiled; Kafka can't be asked.
pub async fn run(settings: &Settings, args: &Args) -> Result<bool> {
    let plan = load::plan(settings)?;
    let client = Client::new(settings.endpoint()?);
    let catalog = Catalog::new(&plan, &settings.tables(), client.database());
    let positions = if args.without_kafka { None } else { Some(positions(settings)?) };
    let report = audit(&client, &plan, &catalog, positions.as_deref()).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report.is_clean())
}

/// Where Kafka stands with each partition of the topics.
fn positions(settings: &Settings) -> Result<Vec<Position>> {
    let observer = Observer::new(&settings.consumer("highwater-audit"), KAFKA_PATIENCE)?;
    let mut positions = Vec::new();
    for topic in &settings.kafka.topics {
        let ask = || -> Result<Vec<Position>> { Ok(observer.bounds(topic, observer.identity(topic)?.partitions)?) };
        positions.extend(ask().context("can't ask Kafka; --without-kafka audits the tables alone")?);
    }
    Ok(positions)
}

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
