//! `highwater audit`: holds the ledger against the tables, and against Kafka.
//!
//! Every event is in exactly one range of the ledger, and in the tables as that range says; every minute of a rollup adds
//! up to the raw rows of that minute. The ledger is taken as it stands at the beginning: what workers write meanwhile is
//! beyond its end.
//!
//! | file | what it holds against what |
//! |---|---|
//! | `ledger` | the ledger against itself: ranges touch, sums fit |
//! | `rows` | the ledger's ranges against the tables of events and dead letters |
//! | `places` | what stands beyond the ledger's end, and who is at it |
//! | `marks` | the marks that the ledger saw against the marker rows of rollups |
//! | `rollups`, `minutes`, `plans` | rollups against raw rows; who wrote what differs |
//! | `redrives` | the lists of redriven dead letters against the ledger and the rows |
//! | `kafka` | the ledger's end against the log and the group's commits |
//! | `record` | what was proved, for the next audit |

mod finding;
mod kafka;
mod ledger;
mod marks;
mod minutes;
mod places;
mod plans;
mod record;
mod redrives;
mod report;
mod rollups;
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};

use super::load;
use crate::clickhouse::schema::{self, Fault, SchemaError};
use crate::clickhouse::tables::AUDITS;
use crate::clickhouse::{Catalog, Client};
use crate::config::{Settings, parse_duration};
use crate::kafka::Observer;
use crate::plan::{Plan, Table, TableKind};

pub(in crate::command) use finding::thousands;
pub use finding::{Finding, Kind, Minutes, Written};
pub use kafka::Position;
pub use record::Since;
pub use report::{Check, Report, Standing, Totals};

/// How long one of the audit's queries may take; they read whole tables.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How long Kafka may take to answer.
const KAFKA_PATIENCE: Duration = Duration::from_secs(15);
/// How long workers are given to finish what they are at.
const WORKERS_PATIENCE: Duration = Duration::from_secs(15);
/// Between two looks at what they are at.
const PAUSE: Duration = Duration::from_millis(500);
/// Findings of one check and table that are listed.
const MOST: usize = 100;

/// What `highwater audit` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Hold the ledger against the tables only, and do not ask Kafka.
    #[arg(long)]
    pub without_kafka: bool,
    /// Leave out what is older: `last` for all that the last clean audit proved, a time, or a while ago such as 2h. Rows
    /// deleted there since are seen by the tables' totals; which they were says an audit without it.
    #[arg(long, value_name = "last|TIME|DURATION")]
    pub since: Option<Since>,
    /// A partition with more unread offsets than this is a finding.
    #[arg(long, value_name = "OFFSETS", conflicts_with = "without_kafka")]
    pub max_lag: Option<u64>,
    /// A partition that has unread offsets and whose ledger has not moved for so long is a finding.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "without_kafka")]
    pub max_age: Option<Duration>,
    /// How long to wait for workers to finish batches in flight, before their rows are a finding.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "15s")]
    pub patience: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a duration such as 30s, 10m or 1h30m".to_owned())
}

/// How an audit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Which ranges are checked.
    pub since: Since,
    /// A partition with more unread offsets is a finding.
    pub max_lag: Option<u64>,
    /// A partition with unread offsets that has not moved for longer is a finding.
    pub max_age: Option<Duration>,
    /// How long workers are given to finish what they are at.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { since: Since::Beginning, max_lag: None, max_age: None, patience: WORKERS_PATIENCE }
    }
}

/// An audit that could not be made: exit code 3, as it says nothing about the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit could not be made, so nothing is known about the numbers")]
pub struct NotMade;

/// Audits the database of the settings and prints the report; answers whether everything adds up.
///
/// # Errors
/// As [`audit`]; the plan can't be compiled; Kafka can't be asked. All but wrong settings carry [`NotMade`].
pub async fn run(settings: &Settings, args: &Args) -> Result<bool> {
    let report = match asked(settings, args).await {
        Ok(report) => report,
        Err(error) => {
            if args.json {
                let text = format!("{error:#}");
                println!("{}", serde_json::json!({ "verdict": "not_made", "error": text }));
            }
            return Err(error.context(NotMade));
        }
    };
    if args.json {
        println!("{}", report.to_json()?);
    } else {
        println!("{report}");
    }
    Ok(report.is_clean())
}

async fn asked(settings: &Settings, args: &Args) -> Result<Report> {
    let plan = load::plan(settings)?;
    let client = Client::new(settings.endpoint()?);
    let catalog = Catalog::new(&plan, &settings.tables(), client.database());
    let positions = if args.without_kafka { None } else { Some(positions(settings)?) };
    let options = Options {
        since: args.since.unwrap_or_default(),
        max_lag: args.max_lag,
        max_age: args.max_age,
        patience: args.patience,
    };
    audit(&client, &plan, &catalog, positions.as_deref(), &options).await
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
    options: Options,
    positions: Option<&'a [Position]>,
    /// The ledger's sources as they stood at the beginning.
    sources: Vec<ledger::SourceEnd>,
    /// What the last clean audit proved.
    proven: Option<record::Proven>,
    /// Minutes that were being written, per rollup.
    open: BTreeMap<String, BTreeSet<u32>>,
    report: Report,
}

/// Audits a database; with positions, Kafka too. Changes nothing, but that a clean audit is recorded in `audits`.
///
/// # Errors
/// ClickHouse can't be asked, or a table is missing. What doesn't add up is no error but a finding of the report.
pub async fn audit(
    client: &Client,
    plan: &Plan,
    catalog: &Catalog,
    positions: Option<&[Position]>,
    options: &Options,
) -> Result<Report> {
    let (notes, has_record) = usable(client, catalog).await?;
    let client = client.clone().with_timeout(PATIENCE);
    let begun = record::now(&client).await?;
    let proven = if has_record { record::last(&client).await.context("can't read the table audits")? } else { None };
    let keep = |kind: fn(&TableKind) -> bool| {
        let table = plan.tables.iter().find(|table| kind(&table.kind));
        table.map_or(0, |table| keep_days(catalog, &table.name))
    };
    let keep = (keep(|kind| matches!(kind, TableKind::Raw(_))), keep(|kind| matches!(kind, TableKind::DeadLetters)));
    let mut sources = ledger::sources(&client, options.since, keep).await.context("can't read the ledger")?;
    let changed = ledger::begin(&mut sources, options.since, proven.as_ref());
    let report = Report { notes, ..Report::default() };
    let (open, options) = (BTreeMap::new(), *options);
    let mut audit = Audit { client, plan, catalog, options, positions, sources, proven, open, report };
    audit.scope();
    audit.standings();
    audit.ledger(changed).await.context("can't check the ledger")?;
    audit.rows().await.context("can't hold the ledger against the rows")?;
    audit.marks().await.context("can't hold the ledger against the rollups' marks")?;
    audit.redrives().await.context("can't hold redriven dead letters against their lists")?;
    audit.ahead().await.context("can't look for rows beyond the ledger")?;
    audit.rollups().await.context("can't hold the rollups against the rows")?;
    if has_record && audit.proves() {
        audit.record(begun).await;
    }
    if let Some(positions) = positions {
        audit.kafka(positions);
    }
    Ok(audit.report)
}

/// Whether the tables can be asked. Answers as notes what is amiss and hinders nobody here, and whether there is a table to
/// keep a record in.
async fn usable(client: &Client, catalog: &Catalog) -> Result<(Vec<String>, bool)> {
    let existing = schema::read(client).await?;
    if existing.is_empty() {
        anyhow::bail!(
            "the database {} is not there, or has no tables: is clickhouse.database right? `highwater migrate` makes them",
            client.database()
        );
    }
    let faults = match schema::check_tables(client, catalog).await {
        Ok(()) => Vec::new(),
        Err(SchemaError::Faults(faults)) => faults,
        Err(error) => return Err(error.into()),
    };
    let hinders = |fault: &Fault| match fault {
        // Views are never asked.
        Fault::Missing(name) => name != AUDITS && catalog.tables.iter().any(|table| table.name == *name),
        Fault::TokenWindow { .. } | Fault::Retention { .. } => false,
        Fault::NoColumn { .. } | Fault::Type { .. } | Fault::Layout { .. } => true,
    };
    let (wrong, notes): (Vec<Fault>, Vec<Fault>) = faults.into_iter().partition(hinders);
    if wrong.is_empty() {
        return Ok((notes.iter().map(Fault::to_string).collect(), existing.contains_key(AUDITS)));
    }
    Err(SchemaError::Faults(wrong).into())
}

fn keep_days(catalog: &Catalog, table: &str) -> u32 {
    catalog.tables.iter().find(|def| def.name == table).map_or(0, |def| def.keep_days)
}

impl<'a> Audit<'a> {
    fn keep_days(&self, table: &str) -> u32 {
        keep_days(self.catalog, table)
    }

    /// Tables with a row an event.
    fn row_tables(&self) -> Vec<&'a Table> {
        self.plan.tables.iter().filter(|table| !matches!(table.kind, TableKind::Rollup(_))).collect()
    }

    /// Tables of partial aggregates.
    fn rollup_tables(&self) -> Vec<&'a Table> {
        self.plan.tables.iter().filter(|table| matches!(table.kind, TableKind::Rollup(_))).collect()
    }

    /// Whether everything is checked.
    fn is_full(&self) -> bool {
        match self.options.since {
            Since::Beginning => true,
            Since::Last => self.proven.is_none(),
            Since::Ago(_) | Since::Time(_) => false,
        }
    }

    /// Says which ranges are checked.
    fn scope(&mut self) {
        self.report.since = match (self.options.since, &self.proven) {
            (Since::Beginning, _) => None,
            (Since::Last, None) => {
                self.report.notes.push("no clean audit is on record yet, so this one is full".to_owned());
                None
            }
            (Since::Last, Some(proven)) => {
                if proven.plan != self.plan.hash {
                    let (then, now) = (&proven.plan, &self.plan.hash);
                    self.report.notes.push(format!(
                        "the last clean audit was made with plan {then}, and this is {now}: what is new in it was never \
                         audited on what is older; an audit without --since does"
                    ));
                }
                Some(finding::time(proven.at / 1_000))
            }
            (Since::Ago(ago), _) => Some(format!("{} ago", finding::lasting(ago.as_secs()))),
            (Since::Time(at), _) => Some(finding::time(at.div_euclid(1_000))),
        };
    }

    /// Whether this audit proves all up to its end: it found nothing, and left nothing out but what was proved before.
    fn proves(&self) -> bool {
        self.report.is_clean() && matches!(self.options.since, Since::Beginning | Since::Last)
    }

    async fn record(&mut self, begun: i64) {
        let since = self.report.since.as_deref();
        let written = record::write(&self.client, self.plan, begun, since, &self.sources, &self.open).await;
        if let Err(error) = written {
            let note = format!("what was proved could not be recorded for `--since last`: {error}");
            self.report.notes.push(note);
        }
    }
}
