//! `highwater dead-letters redrive --give-up`: takes back what a run has not written, when it can't be finished.
//!
//! What the ledger covers of the run stays. The rest comes off its list, duplicates too, as they may repeat a letter that
//! becomes no row now; those letters are as any others then, and the next redrive judges them anew. A run that was killed may
//! have left rows beyond the ledger's end: those are deleted and their minutes computed anew before anything comes off the
//! list, as `rewind` does it, so that each row has a line in a list or in the ledger at any moment.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::batch::Source;
use crate::clickhouse::redrives::{self, Run};
use crate::clickhouse::sql::literals;
use crate::clickhouse::tables::AUDITS;
use crate::clickhouse::{Client, QueryError};
use crate::command::UsageError;
use crate::command::audit::thousands;
use crate::command::rewind::cut::{self, Cut, TakeBack};
use crate::command::rewind::log;
use crate::config::Settings;
use crate::kafka::Observer;
use crate::kafka::identity::IdentityError;
use crate::plan::{Plan, TableKind};

/// How long Kafka may take for an answer.
const KAFKA_PATIENCE: Duration = Duration::from_secs(10);
/// How long a statement may take: it may rewrite months.
const STATEMENT: Duration = Duration::from_secs(6 * 3_600);

/// Gives up what a run has not written, or says what that would do.
pub(super) async fn run(settings: &Settings, plan: &Plan, client: &Client, number: u32, yes: bool) -> Result<()> {
    let head = redrives::head(client, number).await.context("can't read redrives")?;
    let run = head.ok_or_else(|| UsageError(format!("no run {number} is listed in redrives")))?;
    let listed = redrives::letters(client, number).await.context("can't read redrives")?;
    let ends = redrives::ends(client, &run).await.context("can't read the ledger")?;
    let unwritten = redrives::unwritten(&listed, &ends);
    if unwritten.is_empty() {
        println!("run {number} has written all that it lists; nothing to give up");
        return Ok(());
    }
    let from: BTreeMap<i32, u64> =
        unwritten.keys().map(|partition| (*partition, ends.get(partition).copied().unwrap_or(0))).collect();
    for (&partition, &from) in &from {
        let of_it = listed.iter().filter(|listed| listed.partition == partition);
        let (back, stay): (Vec<_>, Vec<_>) = of_it.partition(|listed| listed.offset >= from);
        println!(
            "{}/{partition}: {} letters of run {number} come off its list; {} that it has written, or that are duplicates of \
             what is there, stay",
            run.topic,
            thousands(back.len() as u64),
            thousands(stay.len() as u64)
        );
    }
    let client = client.clone().with_timeout(STATEMENT);
    let cuts: Vec<Cut> = from.iter().map(|(&partition, &at)| Cut { sources: name(&run, partition), at }).collect();
    let half_written = TakeBack { client: &client, plan, turn: None, cuts };
    let looking = "can't look for rows that are not in the ledger";
    let (rows, strays) = (rows(&half_written).await.context(looking)?, half_written.strays().await.context(looking)?);
    ensure!(
        strays == 0,
        "run {number} was killed in the middle of a batch, and ClickHouse too: {strays} blocks of rollups are there without the \
         rows that they count, so that their minutes can't be told. Nothing was changed. Put back what the run needs (letters, schemas, \
         limits), if only for so long, and redrive, which writes what is missing"
    );
    if rows > 0 {
        println!("{} rows were written without the ledger's line, and go:", thousands(rows));
        half_written.explain().await?;
    }
    if !yes {
        let replicas = if rows > 0 { " and all replicas" } else { "" };
        println!("nothing was changed. Stop every redrive{replicas}, then do it with --yes");
        return Ok(());
    }
    if rows > 0 {
        nobody_writes(settings, &client, &run).await?;
        // What audits have proved of the minutes is proved no longer.
        cut::delete(&client, AUDITS, "true").await?;
        half_written.execute().await?;
    }
    redrives::take_back(&client, number, &from).await.context("taking letters off the list")?;
    println!("done; `highwater dead-letters redrive` lists those letters anew that are still there");
    Ok(())
}

/// The run's name in the ledger and the tables, as a literal.
fn name(run: &Run, partition: i32) -> String {
    let source = Source { epoch: run.epoch, redrive: Some(run.run), topic: run.topic.as_str().into(), partition };
    literals([source.to_string()])
}

/// Events' rows that are taken back.
async fn rows(back: &TakeBack<'_>) -> Result<u64, QueryError> {
    let mut rows = 0;
    for table in back.plan.tables.iter().filter(|table| matches!(table.kind, TableKind::Raw(_))) {
        let sql = format!("SELECT count() AS n FROM {} WHERE {}", back.client.table(&table.name), back.condition());
        rows += number(back.client, &sql).await?;
    }
    Ok(rows)
}

async fn number(client: &Client, sql: &str) -> Result<u64, QueryError> {
    #[derive(Deserialize)]
    struct Number {
        n: u64,
    }
    Ok(client.rows::<Number>(sql).await?.first().map_or(0, |number| number.n))
}

/// Makes sure that no replica is in the group: what it wrote into a month while that is computed anew would be gone. The
/// group commits again what it has committed (or where it would begin), which Kafka refuses while there are members.
async fn nobody_writes(settings: &Settings, client: &Client, run: &Run) -> Result<()> {
    let observer = Observer::new(&settings.consumer("highwater-give-up"), KAFKA_PATIENCE)?;
    // The run's topic may be gone; any that the group may read will do.
    for topic in std::iter::once(&run.topic).chain(&settings.kafka.topics) {
        let identity = match observer.identity(topic) {
            Err(IdentityError::NotFound(_)) => {
                log::ensure_of_cluster(client, topic, &observer.cluster_id(topic)?).await?;
                continue;
            }
            found => found?,
        };
        log::ensure_of_cluster(client, topic, &identity.cluster_id).await?;
        let bounds = observer.bounds(topic, identity.partitions)?;
        let commits: Vec<_> =
            bounds.into_iter().map(|(name, bounds)| (name, bounds.committed.unwrap_or(bounds.start))).collect();
        return Ok(observer.commit_alone(&commits)?);
    }
    // Nobody reads what is not there.
    Ok(())
}
