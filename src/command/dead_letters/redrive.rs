//! `highwater dead-letters redrive`: one run after another, until no letter is left that can be read.
//!
//! ```text
//! n = the last number      everything below is asked after this
//! a run is unfinished?     finish it, and begin again: its rows may make duplicates of what would be listed
//! n is a rewind's?         it has begun and not ended: list nothing
//! list letters             none is left: done
//! fix the list as run n+1  under its token; another's may stand: then work on that, and list anew; or a rewind's
//! ```
//!
//! A rewind takes a number before it looks for what was redriven, and goes on only if all runs are finished, so it knows of
//! every list that stands. Who slept meanwhile over a run that another finished has asked for the topic's epoch before it read
//! the list, asks again with the marks of every batch, and writes nothing in a later one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokio::runtime::Handle;

use super::filter::Filters;
use super::give_up;
use super::letters::{self, Letter};
use super::lister::{Lister, Tally};
use super::log::{Fetch, LettersLog};
use super::reader::Reader;
use crate::batch::Source;
use crate::clickhouse::redrives::{self, Last, Run};
use crate::clickhouse::{ClickHouseStore, Client, in_force};
use crate::command::audit::thousands;
use crate::command::rewind::turn;
use crate::command::run::{Clock, tuning};
use crate::config::Settings;
use crate::partition::Partition;
use crate::plan::Plan;
use crate::ports::Registry;
use crate::registry::SchemaRegistry;
use crate::worker::{self, Worker};

/// Letters of a run: they are one insert, and held in memory as a list.
const MOST: usize = 100_000;
/// How long the worker waits for letters, or for an answer.
const WAIT: Duration = Duration::from_millis(5);
/// Between two words on how far a run is.
const PROGRESS: Duration = Duration::from_secs(2);

/// What `highwater dead-letters redrive` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    filters: Filters,
    /// Redrive at most so many letters: a few first, to see what becomes of them
    #[arg(long, value_name = "LETTERS", value_parser = clap::value_parser!(u64).range(1..))]
    at_most: Option<u64>,
    /// Give up what a run that can't be finished has not written: its letters are as any others then, and the next redrive
    /// writes those that it can. Stop other redrives first
    #[arg(long, value_name = "RUN", conflicts_with_all = ["topic", "reason", "since", "until", "at_most"])]
    give_up: Option<u32>,
    /// Do it; without this it only says what it would do
    #[arg(long)]
    yes: bool,
}

/// Redrives, or says what that would do.
pub(super) async fn run(settings: &Settings, args: &Args) -> Result<()> {
    let (plan, client) = super::open(settings).await?;
    if let Some(run) = args.give_up {
        return give_up::run(settings, &plan, &client, run, args.yes).await;
    }
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let reader = Reader::new(settings, Arc::clone(&plan))?;
    let keep_days = settings.retention.dead_letters.0;
    let lister = Lister::new(&client, reader, &args.filters, now_ms, keep_days).await?;
    for line in letters::unknown(&client, &args.filters).await.context("can't read dead_letters")? {
        println!("{line}");
    }
    let most = args.at_most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    if !args.yes {
        return explain(&client, lister, most).await;
    }
    client.record_plan(&plan).await.context("recording the plan")?;
    Redrive { settings, plan, client: client.clone() }.all(lister, most).await
}

/// Says what would be done.
async fn explain(client: &Client, mut lister: Lister<'_>, most: usize) -> Result<()> {
    if let Some(run) = redrives::unfinished(client).await.context("can't read redrives")? {
        println!("run {}, of letters of {}, was interrupted; it would be finished first", run.run, run.topic);
    }
    may_list(&redrives::last(client).await.context("can't read redrives")?)?;
    let mut letters = 0;
    while let Some(list) = lister.next(MOST.min(most - letters)).await? {
        letters += list.letters.len();
    }
    say(&lister.tally, "would become", "would be counted");
    match letters {
        0 => println!("no dead letter that was meant can be read now; nothing to redrive"),
        _ => println!("nothing was changed; do it with --yes"),
    }
    Ok(())
}

/// Refuses while a topic is being rewound: its letters may be read again, and months of rollups, which have rows of all
/// topics, are computed anew.
fn may_list(last: &Last) -> Result<()> {
    last.rewinding.as_ref().map_or(Ok(()), |rewind| {
        Err(anyhow!(
            "the topic {} is being rewound, or a rewind of it was interrupted, and nothing is redriven before it has ended: let \
             it end, or go on with it, `{}`; then redrive again",
            rewind.topic,
            turn::command(rewind)
        ))
    })
}

/// Says what became of letters, or would.
fn say(tally: &Tally, become_rows: &str, counted: &str) {
    for ((topic, event), (rows, duplicates)) in &tally.readable {
        println!("{topic}: {} letters {become_rows} rows of {event}", thousands(*rows));
        if *duplicates > 0 {
            println!("{topic}: {} letters of {event} {counted} as duplicates", thousands(*duplicates));
        }
    }
    for ((topic, reason), letters) in &tally.left {
        println!("{topic}: {} letters can't be read now and stay as they are: {reason}", thousands(*letters));
    }
    for topic in &tally.closed {
        println!(
            "{topic}: its letters are left alone, as a rewind of it was interrupted: go on with that, if the topic is there still"
        );
    }
    for (topic, letters) in &tally.unsettled {
        println!(
            "{topic}: {} letters are not settled yet, as no worker has finished the batch that they are in: start `highwater \
             run`, then redrive",
            thousands(*letters)
        );
    }
}

struct Redrive<'a> {
    settings: &'a Settings,
    plan: Arc<Plan>,
    client: Client,
}

impl Redrive<'_> {
    async fn all(&self, mut lister: Lister<'_>, most: usize) -> Result<()> {
        let (mut expected, mut letters, mut finished) = (None, 0, false);
        while letters < most {
            let last = redrives::last(&self.client).await.context("can't read redrives")?;
            if let Some(run) = redrives::unfinished(&self.client).await.context("can't read redrives")? {
                println!("run {} was begun and is not finished: finishing it", run.run);
                self.finish(&run).await?;
                finished = true;
                continue;
            }
            may_list(&last)?;
            if expected.is_some_and(|expected| expected != last.run) {
                lister.restart().await?;
            }
            expected = Some(last.run);
            let Some(list) = lister.next(MOST.min(most - letters)).await? else { break };
            let (epoch, topic, plan) = (list.epoch, list.topic.to_string(), self.plan.hash.clone());
            let run = Run { run: last.run + 1, epoch, topic, plan };
            redrives::fix(&self.client, &run, &list.letters).await.context("fixing what the next run comprises")?;
            let stands = redrives::letters(&self.client, run.run).await.context("can't read redrives")?;
            if stands == list.letters {
                letters += stands.len();
                expected = Some(run.run);
                self.finish(&run).await?;
            }
        }
        say(&lister.tally, "are", "are counted");
        match letters {
            0 if finished => println!("no other dead letter that was meant can be read now"),
            0 => println!("no dead letter that was meant can be read now; nothing to redrive"),
            _ => println!("done: {} letters", thousands(letters as u64)),
        }
        Ok(())
    }

    /// Writes what is not written of a run.
    async fn finish(&self, run: &Run) -> Result<()> {
        // Asked before the list is read: a rewind since then, which may take letters off it, has the worker stop.
        let epochs = in_force(&self.client).await.context("can't read which epochs are in force")?;
        let in_force = epochs.get(&run.topic);
        if in_force.is_some_and(|in_force| in_force.closed) {
            bail!(
                "the topic {topic} is being rewound, or a rewind of it was interrupted, and run {run} can't be finished before it has \
                 ended: let `highwater rewind` end, or go on with it (--go-on); then redrive again. If the topic is gone for good, \
                 give the run up: `highwater dead-letters redrive --give-up {run} --yes`",
                topic = run.topic,
                run = run.run
            );
        }
        let in_force = in_force.map_or(run.epoch, |in_force| in_force.epoch);
        let listed = redrives::letters(&self.client, run.run).await.context("can't read redrives")?;
        let ends = redrives::ends(&self.client, run).await.context("can't read the ledger")?;
        // What is written may have expired since, and need not be there any more.
        let letters = redrives::unwritten(&listed, &ends);
        if !letters.is_empty() {
            self.work(run, in_force, letters).await?;
        }
        let duplicates = listed.iter().filter(|listed| listed.duplicate).count();
        let rows = listed.len() - duplicates;
        println!(
            "run {}: {} letters of {}: {} rows, {} duplicates",
            run.run,
            thousands(listed.len() as u64),
            run.topic,
            thousands(rows as u64),
            thousands(duplicates as u64)
        );
        Ok(())
    }

    /// Has a worker write these letters, on a thread of its own.
    async fn work(&self, run: &Run, in_force: u32, letters: BTreeMap<i32, Vec<(u64, u64)>>) -> Result<()> {
        let (endpoint, runtime) = (self.settings.endpoint()?, Handle::current());
        let topic: Arc<str> = Arc::from(run.topic.as_str());
        let fetch = Table { client: self.client.clone(), run: run.clone(), runtime: runtime.clone() };
        let log = LettersLog::new(Arc::clone(&topic), letters.clone(), fetch);
        let settings = worker::Settings {
            tuning: tuning(self.settings)?,
            memory: usize::try_from(self.settings.memory.limit.0)?,
            epochs: BTreeMap::from([(topic, in_force)]),
        };
        let plan = Arc::clone(&self.plan);
        let store = ClickHouseStore::new(endpoint, Arc::clone(&plan), &runtime, Arc::new(()));
        let registry = self.settings.registry()?.map(|endpoint| SchemaRegistry::new(endpoint, &runtime));
        let run = run.clone();
        let work = move || match registry {
            Some(registry) => {
                let worker = Worker::with_registry(plan, settings, log, store, registry);
                drive(&run, &letters, worker.redriving(run.run, run.epoch))
            }
            None => drive(&run, &letters, Worker::new(plan, settings, log, store).redriving(run.run, run.epoch)),
        };
        tokio::task::spawn_blocking(work).await.context("waiting for the worker")?
    }
}

/// Steps a worker until the ledger has all letters of a run.
fn drive<R: Registry>(
    run: &Run,
    letters: &BTreeMap<i32, Vec<(u64, u64)>>,
    mut worker: Worker<LettersLog<Table>, ClickHouseStore, R>,
) -> Result<()> {
    let (clock, mut said) = (Clock::new(), Instant::now());
    let all: usize = letters.values().map(Vec::len).sum();
    loop {
        worker.step(clock.now(), WAIT);
        if let Some((partition, offset)) = worker.log_mut().gone() {
            bail!("{}", gone(run, partition, offset));
        }
        ensure!(
            !worker.store_mut().is_dead(),
            "the task that writes to ClickHouse has ended; this is a fault in highwater. Nothing is lost: redrive again"
        );
        ensure!(
            !worker.partitions().any(Partition::is_stopped),
            "run {number} of letters of {} stopped, for the reason above; no letter is lost. Mend the cause and redrive again; if \
             it can't be mended, `highwater dead-letters redrive --give-up {number}` gives up what it has not written",
            run.topic,
            number = run.run
        );
        let done = |partition: &Partition| partition.done().unwrap_or(0);
        let written: usize = worker
            .partitions()
            .filter_map(|partition| Some((letters.get(&partition.source().partition)?, done(partition))))
            .map(|(letters, done)| letters.partition_point(|letter| letter.0 < done))
            .sum();
        if written == all {
            return Ok(());
        }
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            println!("run {}: {} of {} letters written", run.run, thousands(written as u64), thousands(all as u64));
        }
        // Nothing more will come: what is open need not wait for its age.
        if worker.log_mut().is_delivered() && worker.partitions().all(Partition::is_running) {
            worker.drain(clock.now());
        }
    }
}

fn gone(run: &Run, partition: i32, offset: u64) -> String {
    let (number, topic) = (run.run, &run.topic);
    format!(
        "run {number} is not finished, and the dead letter {topic}/{partition}/{offset} that it lists is no longer in \
         dead_letters, so it can't be written: it has expired or was deleted, or the topic was rewound while this redrive slept. Redrive \
         again; if that says so too, `highwater dead-letters redrive --give-up {number}` gives up what the run has not written, and \
         the next redrive lists those letters anew that are still there"
    )
}

/// The table of dead letters, asked from the worker's thread.
struct Table {
    client: Client,
    run: Run,
    runtime: Handle,
}

impl Fetch for Table {
    fn fetch(&mut self, partition: i32, offsets: &[u64]) -> Result<Vec<Letter>, String> {
        let Run { epoch, topic, .. } = &self.run;
        let source = Source { epoch: *epoch, redrive: None, topic: topic.as_str().into(), partition };
        let fetched = self.runtime.block_on(letters::fetch(&self.client, &source, offsets));
        fetched.map_err(|error| error.to_string())
    }
}
