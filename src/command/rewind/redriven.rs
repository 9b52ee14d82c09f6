//! Letters that were redriven and whose messages are to be read again.
//!
//! With the schemas of today their messages are rows when they are read again, so what the runs wrote of them has to go, and
//! goes first. A run is taken back whole in such a partition; its letters of before are letters as any others then, which
//! the next redrive finds.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::cut::Cut;
use super::{Log, Target};
use crate::batch::Source;
use crate::clickhouse::Client;
use crate::clickhouse::sql::{literal, literals};
use crate::clickhouse::tables::REDRIVES;

/// What is taken back of runs.
pub(super) struct Redriven {
    topic: String,
    runs: Vec<Run>,
}

/// A run's letters of one partition.
#[derive(Debug, Deserialize)]
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
    pub(super) async fn find(client: &Client, log: &Log, targets: &[Target]) -> Result<Redriven> {
        let epochs = log.epochs.iter().map(|epoch| epoch.epoch.to_string()).collect::<Vec<_>>().join(", ");
        let mut runs = Vec::new();
        for &Target { partition, at, .. } in targets {
            let sql = format!(
                "SELECT run, epoch, partition, count() AS letters, countIf(offset < {at}) AS before FROM {} WHERE topic = {} \
                 AND partition = {partition} AND epoch IN ({epochs}) AND NOT taken_back GROUP BY run, epoch, partition HAVING max(offset) >= {at} \
                 ORDER BY run",
                client.table(REDRIVES),
                literal(&log.topic)
            );
            let found = client.rows::<Run>(&sql).await.context("can't read redrives")?;
            runs.extend(found.into_iter().map(|run| Run { at, ..run }));
        }
        Ok(Redriven { topic: log.topic.clone(), runs })
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
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
        Ok(())
    }

    /// Takes their letters off the lists. The rows stay, so that no other run gets their number, whose tokens are spent.
    pub(super) async fn forget(&self, client: &Client) -> Result<()> {
        let of = |run: &Run| format!("(run = {} AND partition = {})", run.run, run.partition);
        let runs = self.runs.iter().map(of).collect::<Vec<_>>().join(" OR ");
        println!("taking letters off the lists of {REDRIVES}");
        let table = client.table(REDRIVES);
        let sql = format!("ALTER TABLE {table} UPDATE taken_back = true WHERE {runs} SETTINGS mutations_sync = 2");
        Ok(client.execute(&sql).await?)
    }
}
