//! Letters that were redriven and whose messages are to be read again.
//!
//! With the schemas of today their messages are rows when they are read again, so what the runs wrote of them has to go, and
//! goes first. A run is taken back whole in such a partition; its letters of before are letters as any others then, which
//! the next redrive finds.
//!
//! A letter from shortly before the place may be listed as the duplicate of a row that goes. A worker that begins at the
//! place knows the letter's id, as it can read the letter now, and calls the event of that row a duplicate of it: so the
//! letter comes off its list too, and the next redrive makes the row of it, unless the event is there all the same.
//!
//! While it is taken back nobody redrives: no list of letters can be fixed, and all runs are finished. But for those that an
//! interrupted rewind has begun to take back, of which the ledger has no more what they list: these are taken back to the end.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::Target;
use super::cut::Cut;
use super::log::Log;
use crate::batch::Source;
use crate::clickhouse::Client;
use crate::clickhouse::redrives;
use crate::clickhouse::sql::{literal, literals};
use crate::clickhouse::tables::REDRIVES;

/// What is taken back of runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Redriven {
    topic: String,
    /// The topic's lives that are of the same log, as a list.
    epochs: String,
    runs: Vec<Run>,
    duplicates: Vec<Duplicates>,
}

/// What a rewind of the topic that was interrupted may have begun to take back.
#[derive(Debug)]
pub(super) enum Interrupted {
    /// There is none.
    Nothing,
    /// What this one takes back.
    TheSame,
    /// What the rewind by this command takes back.
    Another { command: String },
}

/// Letters of one partition that were listed as duplicates, in runs that are not taken back whole.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Duplicates {
    #[serde(default)]
    partition: i32,
    letters: u64,
    /// Those of them whose messages are in the log still.
    read: u64,
    /// Those of these that are in `dead_letters` still.
    kept: u64,
    /// The offsets they are of: the first, and one past the last.
    #[serde(default)]
    range: (u64, u64),
}

/// A run's letters of one partition.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Run {
    run: u32,
    epoch: u32,
    partition: i32,
    letters: u64,
    /// Those of them that are not read again.
    before: u64,
    /// The first offset that is.
    #[serde(default)]
    at: u64,
}

impl Redriven {
    /// The runs that wrote letters of what is read again.
    ///
    /// `horizon` is so many offsets as an event may be away from its duplicate.
    pub(super) async fn find(client: &Client, log: &Log, targets: &[Target], horizon: u64) -> Result<Redriven> {
        let epochs = log.numbers();
        let (mut runs, mut duplicates) = (Vec::new(), Vec::new());
        for &Target { partition, at, log_start, .. } in targets {
            let sql = format!(
                "SELECT run, epoch, partition, count() AS letters, countIf(offset < {at}) AS before FROM {} WHERE topic = {} \
                 AND partition = {partition} AND epoch IN ({epochs}) AND NOT taken_back GROUP BY run, epoch, partition HAVING max(offset) >= {at} \
                 ORDER BY run",
                client.table(REDRIVES),
                literal(&log.topic)
            );
            let found = client.rows::<Run>(&sql).await.context("can't read redrives")?;
            let whole: Vec<String> = found.iter().map(|run| run.run.to_string()).collect();
            runs.extend(found.into_iter().map(|run| Run { at, ..run }));
            let range = (at.saturating_sub(horizon), at);
            let elsewhere =
                if whole.is_empty() { String::new() } else { format!("run NOT IN ({}) AND ", whole.join(", ")) };
            let sql = format!(
                "SELECT count() AS letters, countIf(offset >= {log_start}) AS read, countIf(offset >= {log_start} AND \
                 (concat(toString(epoch), '/', topic, '/', toString(partition)), offset) IN (SELECT toString(`_source`), \
                 `_offset` FROM {} WHERE `_source` IN ({}) AND `_offset` >= {} AND `_offset` < {at})) AS kept FROM {} \
                 WHERE {elsewhere}{}",
                client.table("dead_letters"),
                log.sources(partition),
                range.0,
                client.table(REDRIVES),
                listed_as_duplicates(&log.topic, &epochs, partition, range)
            );
            let found = client.rows::<Duplicates>(&sql).await.context("can't read redrives")?;
            let found = found.into_iter().filter(|found| found.letters > 0);
            duplicates.extend(found.map(|found| Duplicates { partition, range, ..found }));
        }
        Ok(Redriven { topic: log.topic.clone(), epochs, runs, duplicates })
    }

    /// Makes sure that all runs are finished, of whichever topic: what is written of one into a month of a rollup while that is
    /// computed anew would be gone.
    pub(super) async fn ensure_finished(&self, client: &Client, interrupted: Interrupted) -> Result<()> {
        for (unfinished, partitions) in redrives::all_unfinished(client).await.context("can't read redrives")? {
            let redrives::Run { run, topic, .. } = unfinished;
            let goes = |partition: &i32| self.runs.iter().any(|of| (of.run, of.partition) == (run, *partition));
            match &interrupted {
                Interrupted::TheSame if topic == self.topic && partitions.iter().all(goes) => {}
                Interrupted::Another { command } if topic == self.topic => bail!(
                    "run {run} of letters of {topic} still has letters to write, or the rewind that was interrupted has begun to take \
                     it back: go on with that one, `{command}`, or give the run up, `highwater dead-letters redrive --give-up {run} \
                     --yes`; then go to another place"
                ),
                Interrupted::TheSame if topic == self.topic => bail!(
                    "run {run} of letters of {topic} still has letters to write, which the rewind that was interrupted keeps from being \
                     written: give the rest up, `highwater dead-letters redrive --give-up {run} --yes`, then go on again"
                ),
                _ => bail!(
                    "run {run} of letters of {topic} still has letters to write, and a rewind may take back only what is finished: \
                     `highwater dead-letters redrive --yes` finishes it, `highwater dead-letters redrive --give-up {run} --yes` gives \
                     the rest up; then rewind again"
                ),
            }
        }
        Ok(())
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.duplicates.is_empty()
    }

    /// Their rows, all of them.
    pub(super) fn cuts(&self) -> Vec<Cut> {
        let source = |run: &Run| {
            let (topic, redrive) = (self.topic.as_str().into(), Some(run.run));
            Source { epoch: run.epoch, redrive, topic, partition: run.partition }
        };
        self.runs.iter().map(|run| Cut { sources: literals([source(run).to_string()]), at: 0 }).collect()
    }

    /// Says what is taken back, and that nothing is lost by it: letters that are not read again have to be there still.
    pub(super) async fn explain(&self, client: &Client) -> Result<()> {
        #[derive(Deserialize)]
        struct Number {
            n: u64,
        }
        for run in &self.runs {
            let Run { run, epoch, partition, letters, before, at } = run;
            println!("{}/{partition}: {letters} dead letters that run {run} redrove are taken back", self.topic);
            let (topic, redrives) = (literal(&self.topic), client.table(REDRIVES));
            let sql = format!(
                "SELECT count() AS n FROM {} WHERE `_source` = {} AND `_offset` < {at} AND `_offset` IN (SELECT offset FROM \
                 {redrives} WHERE run = {run} AND topic = {topic} AND partition = {partition} AND NOT taken_back)",
                client.table("dead_letters"),
                literal(&format!("{epoch}/{}/{partition}", self.topic))
            );
            let there = client.rows::<Number>(&sql).await.context("can't read dead_letters")?;
            let there = there.first().map_or(0, |number| number.n);
            ensure!(
                there == *before,
                "run {run} redrove {before} dead letters of {}/{partition} from before offset {at} too, and {there} of them are \
                 still in dead_letters (retention.dead_letters): the others would be lost. Rewind to a later place than \
                 these letters, or before the first of them",
                self.topic
            );
            if *before > 0 {
                println!(
                    "{}/{partition}: {before} of them are not read again; `highwater dead-letters redrive` writes them",
                    self.topic
                );
            }
        }
        for Duplicates { partition, letters, read, kept, range: (from, at) } in &self.duplicates {
            println!(
                "{}/{partition}: {letters} dead letters from before offset {at} that were duplicates come off their lists; \
                 `highwater dead-letters redrive` judges them anew",
                self.topic
            );
            ensure!(
                kept == read,
                "{read} dead letters of {}/{partition} with offsets {from}..{at} were listed as duplicates, and {kept} of them \
                 are still in dead_letters (retention.dead_letters): events that are read again and repeat one of the others \
                 would be lost. Rewind to a later place, or before the first of them",
                self.topic
            );
        }
        Ok(())
    }

    /// Takes their letters off the lists. The rows stay, so that no other run gets their number, whose tokens are spent.
    pub(super) async fn forget(&self, client: &Client) -> Result<()> {
        let whole = self.runs.iter().map(|run| format!("(run = {} AND partition = {})", run.run, run.partition));
        let duplicates = self.duplicates.iter().map(|Duplicates { partition, range, .. }| {
            format!("({})", listed_as_duplicates(&self.topic, &self.epochs, *partition, *range))
        });
        let lines = whole.chain(duplicates).collect::<Vec<_>>().join(" OR ");
        if lines.is_empty() {
            return Ok(());
        }
        println!("taking letters off the lists of {REDRIVES}");
        let table = client.table(REDRIVES);
        let sql = format!("ALTER TABLE {table} UPDATE taken_back = true WHERE {lines} SETTINGS mutations_sync = 2");
        Ok(client.execute(&sql).await?)
    }
}

/// Holds for letters of a partition with offsets in a range that stand in lists as duplicates.
fn listed_as_duplicates(topic: &str, epochs: &str, partition: i32, (from, to): (u64, u64)) -> String {
    format!(
        "topic = {} AND partition = {partition} AND epoch IN ({epochs}) AND duplicate AND offset >= {from} AND offset < {to} \
         AND NOT taken_back",
        literal(topic)
    )
}
