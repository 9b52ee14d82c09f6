//! `highwater rewind`: takes back what was written from an offset on, so that it is read and counted again.
//!
//! The rows are deleted, the minutes that they were in are computed anew from the rows that stay, and the topic begins a
//! new epoch there. Before anything is taken back, an epoch in which nobody may write is entered: who starts is refused, and
//! who was forgotten somewhere, asleep or cut off, asks which epoch is in force before it begins and with the marks of every
//! batch, and stops; so does a redrive. What it had ready to be sent stays beyond the old epoch's ledger, or the run's, where the
//! audit finds it: tokens do not keep it out, as those of a rollup's month go when that is replaced. Letters of what is read
//! again that were redriven are taken back before anything else, so that none is counted beside its message. Before that lists
//! of letters are shut out until the rewind has ended, and all runs have to be finished, so that nobody is writing one.
//! The order of the steps is such that the tables may be left between any two of them: the ledger ends earlier first, and
//! whatever is still there of a table carries its mark, so that workers would write only what is missing.
//!
//! A replica that was killed may have left rows beyond the ledger's end. They go too, in every partition: under the next epoch
//! nobody would find their marks, and they would be written a second time.

pub(in crate::command) mod cut;
mod log;
mod redriven;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde::Deserialize;

use crate::batch::Source;
use crate::clickhouse::sql::{literal, literals};
use crate::clickhouse::tables::{AUDITS, LEDGER, REDRIVES, SOURCES, WATERMARKS};
use crate::clickhouse::{CLOSED, Catalog, Client, Grants, grants, last_epoch, redrives, schema};
use crate::command::{UsageError, load};
use crate::config::Settings;
use crate::kafka::Observer;
use crate::plan::{Plan, TableKind};
use crate::ports::{Bounds, TopicPartition};

use cut::{Cut, TakeBack};
use log::Log;
use redriven::Redriven;

/// How long Kafka may take for an answer.
const KAFKA_PATIENCE: Duration = Duration::from_secs(10);
/// How long a replica that has left the group may still write: its last writes, and then its farewell to Kafka.
const LAST_WRITES: Duration = Duration::from_secs(12);
/// How long a statement may take: it may rewrite months.
const STATEMENT: Duration = Duration::from_secs(6 * 3_600);

/// What `highwater rewind` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Topic to read again
    pub topic: String,
    /// Where to: `start` (of the log), a time such as 2026-11-20T08:00:00Z (by the records' own timestamps), or an offset,
    /// with --partition
    #[arg(long)]
    pub to: String,
    /// This partition only; repeat for more
    #[arg(long = "partition", value_name = "NUMBER")]
    pub partitions: Vec<i32>,
    /// Do it; without this it only says what it would do
    #[arg(long)]
    pub yes: bool,
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Start,
    Time(i64),
    Offset(u64),
}

impl To {
    fn parse(args: &Args) -> Result<To, UsageError> {
        if args.to == "start" {
            return Ok(To::Start);
        }
        if let Ok(offset) = args.to.parse() {
            if args.partitions.len() == 1 {
                return Ok(To::Offset(offset));
            }
            return Err(UsageError(
                "--to an offset needs one --partition: offsets of partitions are not related".into(),
            ));
        }
        let time = args.to.parse::<Timestamp>().map_err(|_| {
            UsageError(format!(
                "--to {:?} is neither `start`, nor an offset, nor a time such as 2026-11-20T08:00:00Z",
                args.to
            ))
        })?;
        Ok(To::Time(time.as_millisecond()))
    }
}

/// One partition, and how much of it is to be read again.
#[derive(Debug, Clone)]
struct Target {
    partition: i32,
    /// The ledger's end now.
    end: u64,
    /// The ledger's end afterwards: where a row of the ledger begins, or its end still.
    at: u64,
    /// The first offset of the log: a worker that begins reads ids from here on, or from the horizon before `at`.
    log_start: u64,
}

/// Says what has to be taken back, and with `--yes` does so.
///
/// # Errors
/// Replicas are running; events that would have to be read again are no longer in the log; rows that a rollup would have
/// to be computed from have expired; a server can't be asked.
pub async fn run(settings: &Settings, args: &Args) -> Result<()> {
    let to = To::parse(args)?;
    let plan = load::plan(settings)?;
    let client = Client::new(settings.endpoint()?).with_timeout(STATEMENT);
    let catalog = Catalog::new(&plan, &settings.tables(), client.database());
    schema::check_tables(&client, &catalog).await?;
    let observer = Observer::new(&settings.consumer("highwater-rewind"), KAFKA_PATIENCE)?;
    let identity = observer.identity(&args.topic)?;
    let log = Log::of(&client, &args.topic, &identity.cluster_id, &identity.topic_id).await?;
    let bounds = observer.bounds(&args.topic, identity.partitions)?;
    let group = log.group();
    ensure!(
        group == settings.kafka.group,
        "the group {group} writes the topic {}, and kafka.group is {}: whether its replicas run would not be noticed",
        args.topic,
        settings.kafka.group
    );
    let mut targets = Vec::new();
    for (name, bounds) in &bounds {
        let is_wanted = args.partitions.is_empty() || args.partitions.contains(&name.partition);
        let begin = match to {
            _ if !is_wanted => "max(`to`)".to_owned(),
            // The first row of the ledger whose events are all still there.
            To::Start => {
                let start = bounds.start;
                format!("if(countIf(`from` >= {start}) = 0, max(`to`), minIf(`from`, `from` >= {start}))")
            }
            To::Offset(offset) => row_of(offset),
            To::Time(millis) => row_of(observer.offset_at(name, millis)?.unwrap_or(bounds.end)),
        };
        targets.extend(target(&client, &log, name.partition, &begin, bounds).await?);
    }
    let (targets, others): (Vec<Target>, Vec<Target>) = targets.into_iter().partition(|target| target.at < target.end);
    if let Some(absent) =
        args.partitions.iter().find(|wanted| !bounds.iter().any(|(name, _)| name.partition == **wanted))
    {
        bail!(UsageError(format!("{} has no partition {absent}", args.topic)));
    }
    if targets.is_empty() && !log.is_closed() {
        if args.yes {
            // One that was left before it closed the epoch has changed nothing, and one that has ended may not have said so.
            redrives::end_rewind(&client, &args.topic).await.context("can't read redrives")?;
        }
        println!("nothing is written beyond {}; nothing to take back", args.to);
        return Ok(());
    }
    let redriven = Redriven::find(&client, &log, &targets, plan.limits.horizon).await?;
    let rewind = Rewind { client, plan: &plan, log: &log, targets, others, redriven };
    rewind.explain().await?;
    if !args.yes {
        println!("nothing was changed. Stop all replicas, then do it with --yes");
        return Ok(());
    }
    let topic: Arc<str> = Arc::from(args.topic.as_str());
    let commit =
        |target: &Target| (TopicPartition { topic: Arc::clone(&topic), partition: target.partition }, target.at);
    let offsets: Vec<_> = rewind.partitions().map(commit).collect();
    observer.commit_alone(&offsets)?;
    rewind.shut_out_redrives().await?;
    rewind.close_epoch().await?;
    println!("no replica is in the group; waiting {} s for one that has only just left it", LAST_WRITES.as_secs());
    tokio::time::sleep(LAST_WRITES).await;
    let partitions: Vec<i32> = bounds.iter().map(|(name, _)| name.partition).collect();
    let done = async {
        rewind.ensure_still().await?;
        observer.commit_alone(&offsets)?;
        rewind.execute(&partitions).await
    };
    done.await.with_context(|| {
        format!("the rewind of {} has begun and not ended: until it is run again, no replica may start", args.topic)
    })
}

/// The beginning of the ledger's row that has an offset, or of its first; the ledger's end for what lies beyond.
fn row_of(offset: u64) -> String {
    format!("if(max(`to`) <= {offset}, max(`to`), greatest(maxIf(`from`, `from` <= {offset}), min(`from`)))")
}

/// What is to be done with a partition, if it was ever written. `begin` selects, of the ledger's rows, where to begin again.
async fn target(client: &Client, log: &Log, partition: i32, begin: &str, bounds: &Bounds) -> Result<Option<Target>> {
    #[derive(Deserialize)]
    struct Ends {
        rows: u64,
        end: u64,
        at: u64,
    }
    let sql = format!(
        "SELECT count() AS rows, max(`to`) AS end, {begin} AS at FROM {} WHERE source IN ({})",
        client.table(LEDGER),
        log.sources(partition)
    );
    let found = client.rows::<Ends>(&sql).await?;
    let Some(Ends { end, at, .. }) = found.first().filter(|ends| ends.rows > 0) else { return Ok(None) };
    let (end, at) = (*end, (*at).min(*end));
    ensure!(
        at == end || at >= bounds.start,
        "{}/{partition} would have to be read again from offset {at}, where a row of the ledger begins, but the log begins at \
         {}: those events would be lost. Rewind to a later place",
        log.topic,
        bounds.start
    );
    Ok(Some(Target { partition, end, at, log_start: bounds.start }))
}

struct Rewind<'a> {
    client: Client,
    plan: &'a Plan,
    log: &'a Log,
    targets: Vec<Target>,
    /// Partitions that go on where their ledger ends.
    others: Vec<Target>,
    redriven: Redriven,
}

impl Rewind<'_> {
    /// What is taken back of the log.
    fn of_log(&self) -> Vec<Cut> {
        let of = |target: &Target| Cut { sources: self.log.sources(target.partition), at: target.at };
        self.partitions().map(of).collect()
    }

    fn partitions(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().chain(&self.others)
    }

    fn take_back(&self, cuts: Vec<Cut>) -> TakeBack<'_> {
        TakeBack { client: &self.client, plan: self.plan, cuts }
    }

    /// Says what will be done, and that it can be.
    async fn explain(&self) -> Result<()> {
        self.check_grants().await?;
        for target in &self.targets {
            println!("{}/{}: from offset {} back to {}", self.log.topic, target.partition, target.end, target.at);
        }
        self.redriven.ensure_finished(&self.client, self.log.is_closed()).await?;
        self.redriven.explain(&self.client).await?;
        let beyond = |target: &Target| Cut { sources: self.log.sources(target.partition), at: target.end };
        let strays = self.take_back(self.partitions().map(beyond).collect()).strays().await?;
        ensure!(
            strays == 0,
            "{strays} blocks of rollups are there beyond the ledger's end without the rows that they count, so that their minutes \
             can't be told: a batch was left half written. Nothing was changed: start a replica, which writes what is \
             missing, stop it, and rewind then"
        );
        let all = self.of_log().into_iter().chain(self.redriven.cuts()).collect();
        self.take_back(all).explain().await?;
        println!("then the next epoch of {} begins there", self.log.topic);
        Ok(())
    }

    /// From here on no letters are listed, and what was explained is all that was redriven; or nothing is changed.
    async fn shut_out_redrives(&self) -> Result<()> {
        let (client, topic) = (&self.client, &self.log.topic);
        if let Some(other) = redrives::begin_rewind(client, topic).await.context("can't shut out redrives")? {
            bail!(
                "the topic {other} is being rewound, or a rewind of it was interrupted; nothing was changed: let that end, or run it \
                 again with --yes, then rewind {topic}"
            );
        }
        let ensure = async {
            let redriven = Redriven::find(client, self.log, &self.targets, self.plan.limits.horizon).await?;
            redriven.ensure_finished(client, self.log.is_closed()).await?;
            ensure!(
                redriven == self.redriven,
                "letters of {topic} were redriven while it was looked for what to take back; nothing was changed: rewind again"
            );
            Ok(())
        };
        let ensured = ensure.await;
        if ensured.is_err() && !self.log.is_closed() {
            redrives::end_rewind(client, topic).await.context("can't let redrives go on")?;
        }
        ensured
    }

    /// Nobody has written since what was explained.
    async fn ensure_still(&self) -> Result<()> {
        for Target { partition, end, .. } in self.partitions() {
            let (ledger, sources) = (self.client.table(LEDGER), self.log.sources(*partition));
            let sql = format!("SELECT max(`to`) AS n FROM {ledger} WHERE source IN ({sources})");
            let now = self.client.rows::<At>(&sql).await?.first().map_or(0, |row| row.n);
            ensure!(
                now == *end,
                "{}/{partition}: the ledger went on from {end} to {now} meanwhile. A replica still wrote: see that all are \
                 stopped, and rewind then; nothing was taken back",
                self.log.topic
            );
        }
        Ok(())
    }

    /// Says what our user may not do of it, before anything is done: a rewind that ends halfway has taken rows back.
    async fn check_grants(&self) -> Result<()> {
        let (mut deleted, mut parts, mut asides) = (vec![AUDITS, LEDGER], Vec::new(), Vec::new());
        for table in &self.plan.tables {
            match table.kind {
                TableKind::Rollup(_) => {
                    parts.push(table.name.as_str());
                    asides.push(cut::aside(table));
                }
                TableKind::Raw(_) | TableKind::DeadLetters => deleted.push(&table.name),
            }
        }
        let asides: Vec<&str> = asides.iter().map(String::as_str).collect();
        let written = [&[LEDGER, REDRIVES, SOURCES, WATERMARKS], &parts[..], &asides[..]].concat();
        let views: Vec<&str> = self.plan.rollups.iter().map(|rollup| rollup.name.as_str()).collect();
        let read = [&deleted[..], &[SOURCES, REDRIVES], &parts[..], &asides[..], &views[..]].concat();
        // To replace or drop a month of a table is to delete.
        let deleted = [&deleted[..], &parts[..]].concat();
        let mut needed = vec![
            ("SELECT", read),
            ("INSERT", written),
            ("ALTER DELETE", deleted),
            ("CREATE TABLE", asides.clone()),
            ("DROP TABLE", asides),
        ];
        if !self.redriven.is_empty() {
            needed.push(("ALTER UPDATE", vec![REDRIVES]));
        }
        // What a table aside is made with is what its rollup has.
        let engines = format!(
            "SELECT DISTINCT engine FROM system.tables WHERE database = {} AND name IN ({}) ORDER BY engine",
            literal(self.client.database()),
            literals(&parts)
        );
        let engines = if parts.is_empty() { Vec::new() } else { self.client.rows::<Engine>(&engines).await? };
        let engines: Vec<String> = engines.into_iter().map(|row| row.engine).collect();
        let found = [
            grants::look_for(&self.client, &needed).await.context("can't ask for permissions")?,
            grants::look_for_engines(&self.client, &engines).await.context("can't ask for permissions")?,
        ];
        for found in found {
            if let Grants::Lacking(what) = found {
                bail!("{what}; nothing was changed");
            }
        }
        Ok(())
    }

    /// Enters an epoch in which nobody may write, so that nobody begins and who is at work stops when it asks next.
    async fn close_epoch(&self) -> Result<()> {
        if self.log.is_closed() {
            return Ok(());
        }
        self.log.enter(&self.client, self.log.last() + 1, CLOSED).await
    }

    async fn execute(&self, partitions: &[i32]) -> Result<()> {
        // What audits have proved of the rows is proved no longer.
        cut::delete(&self.client, AUDITS, "true").await?;
        let redriven = self.redriven.cuts();
        if !redriven.is_empty() {
            self.take_back(redriven).execute().await?;
        }
        self.redriven.forget(&self.client).await?;
        self.take_back(self.of_log()).execute().await?;
        self.begin_epoch(partitions).await?;
        redrives::end_rewind(&self.client, &self.log.topic).await.context("can't let redrives go on")?;
        println!("done; `highwater run` reads on from there");
        Ok(())
    }

    /// First rows of the ledger for all partitions under the next epoch, then the epoch itself.
    async fn begin_epoch(&self, partitions: &[i32]) -> Result<()> {
        // Not one that a rewind which was interrupted has begun.
        let begun = last_epoch(&self.client, &self.log.topic).await?.unwrap_or(0);
        let closed = if self.log.is_closed() { self.log.last() } else { self.log.last() + 1 };
        let epoch = closed.max(begun) + 1;
        // A partition that nobody has begun begins by itself.
        let begins = self.partitions().map(|target| (target.partition, target.at));
        self.log.begin(&self.client, epoch, &self.plan.hash, begins).await?;
        self.log.enter(&self.client, epoch, self.log.group()).await?;
        // No minute is complete until all is read again.
        let topic: Arc<str> = Arc::from(self.log.topic.as_str());
        let source = |&partition| Source { epoch, redrive: None, topic: Arc::clone(&topic), partition };
        Ok(self.client.enter_partitions(partitions.iter().map(source)).await?)
    }
}

#[derive(Deserialize)]
struct Engine {
    engine: String,
}

#[derive(Deserialize)]
struct At {
    n: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_or_refused_with_what_is_accepted() {
        let args = |to: &str, partitions: &[i32]| Args {
            topic: "t".into(),
            to: to.into(),
            partitions: partitions.into(),
            yes: false,
        };
        assert_eq!(To::parse(&args("start", &[])), Ok(To::Start));
        assert_eq!(To::parse(&args("500", &[3])), Ok(To::Offset(500)));
        assert_eq!(To::parse(&args("2026-11-20T08:00:00Z", &[])), Ok(To::Time(1_795_161_600_000)));
        for (to, partitions) in [("500", &[][..]), ("500", &[1, 2]), ("yesterday", &[]), ("-5", &[1]), ("", &[])] {
            assert!(To::parse(&args(to, partitions)).is_err(), "{to}");
        }
    }
}
