//! `highwater rewind`: takes back what was written from an offset on, so that it is read and counted again.
//!
//! The rows are deleted, the minutes that they were in are computed anew from the rows that stay, and the topic begins a
//! new epoch there. Before anything is taken back, an epoch in which nobody may write is entered: who starts is refused, and
//! who was forgotten somewhere, asleep or cut off, asks which epoch is in force before it begins and with the marks of every
//! batch, and stops; so does a redrive. What it had ready to be sent stays beyond the old epoch's ledger, or the run's, where the
//! audit finds it: tokens do not keep it out, as those of a rollup's month go when that is replaced. Letters of what is read
//! again that were redriven are taken back before anything else, so that none is counted beside its message. Before that lists
//! of letters and other rewinds are shut out until it has ended, and all runs have to be finished, so that nobody is writing one.
//! The order of the steps is such that the tables may be left between any two of them: the ledger ends earlier first, and
//! whatever is still there of a table carries its mark, so that workers would write only what is missing.
//!
//! A replica that was killed may have left rows beyond the ledger's end. They go too, in every partition: under the next epoch
//! nobody would find their marks, and they would be written a second time.

pub(in crate::command) mod cut;
pub(in crate::command) mod log;
mod place;
mod redriven;
mod rights;
pub(in crate::command) mod turn;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::batch::Source;
use crate::clickhouse::tables::{AUDITS, LEDGER};
use crate::clickhouse::{CLOSED, Catalog, Client, last_epoch, redrives, schema};
use crate::command::{UsageError, load};
use crate::config::Settings;
use crate::kafka::identity::IdentityError;
use crate::kafka::{Observer, TopicIdentity};
use crate::plan::Plan;
use crate::ports::{Bounds, TopicPartition};

use cut::{Cut, TakeBack};
use log::Log;
use place::{To, row_of};
use redriven::{Interrupted, Redriven};
use turn::Turn;

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
    /// Go on with a rewind that was interrupted; the message that bars the way has its words. Be sure that it is at work
    /// nowhere any more
    #[arg(long)]
    pub go_on: bool,
    /// Do it; without this it only says what it would do
    #[arg(long)]
    pub yes: bool,
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
    let turn = Turn::of(&client, args).await?;
    let observer = Observer::new(&settings.consumer("highwater-rewind"), KAFKA_PATIENCE)?;
    let Some((identity, log)) = recognise(&client, &observer, &turn, args).await? else { return Ok(()) };
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
        println!("nothing is written beyond {}; nothing to take back", args.to);
        return Ok(());
    }
    let redriven = Redriven::find(&client, &log, &targets, plan.limits.horizon).await?;
    let rewind = Rewind { client: &client, plan: &plan, turn: &turn, log: &log, targets, others, redriven };
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
    turn.take().await?;
    if let Err(changed) = rewind.ensure_as_explained(&identity).await {
        let log = Log::of(&client, &args.topic, &identity).await?;
        if !log.is_some_and(|log| log.is_closed()) {
            turn.end().await?;
        }
        return Err(changed);
    }
    let partitions: Vec<i32> = bounds.iter().map(|(name, _)| name.partition).collect();
    let done = async {
        turn.ensure_held().await?;
        rewind.close_epoch().await?;
        println!("no replica is in the group; waiting {} s for one that has only just left it", LAST_WRITES.as_secs());
        tokio::time::sleep(LAST_WRITES).await;
        turn.ensure_held().await?;
        rewind.ensure_still().await?;
        observer.commit_alone(&offsets)?;
        rewind.execute(&partitions).await
    };
    if let Err(error) = done.await {
        if let Ok(false) = turn.is_held().await {
            return Err(error);
        }
        let (topic, command) = (&args.topic, turn.command());
        return Err(error.context(format!(
            "the rewind of {topic} has begun and not ended, and no replica may start until then: go on with it by `{command}`"
        )));
    }
    // It may have ended although the answer was lost.
    if let Err(error) = turn.end().await
        && !matches!(turn.is_held().await, Ok(false))
    {
        let (topic, command) = (&args.topic, turn.command());
        return Err(error.context(format!(
            "all of {topic} is rewound and replicas may start, but it is not said that the rewind has ended: before letters are \
             redriven or anything else is rewound, run `{command}`"
        )));
    }
    println!("done; `highwater run` reads on from there");
    Ok(())
}

/// The topic as Kafka knows it, and its log as the database does. `None`: it was to be gone on with a rewind for which nothing is
/// left to do, and which is in nobody's way any more.
async fn recognise(
    client: &Client,
    observer: &Observer,
    turn: &Turn<'_>,
    args: &Args,
) -> Result<Option<(TopicIdentity, Log)>> {
    let topic = &args.topic;
    let found = match observer.identity(topic) {
        Ok(identity) => Ok((Log::of(client, topic, &identity).await?, identity)),
        Err(error @ IdentityError::NotFound(_)) => Err(error),
        Err(error) => return Err(error.into()),
    };
    let (log, identity) = match found {
        Ok((Some(log), identity)) => (log, identity),
        Ok((None, TopicIdentity { topic_id, cluster_id, .. })) if !turn.goes_on() => bail!(
            "this database knows no topic {topic} as it is now (topic id {topic_id} in cluster {cluster_id}); `highwater run` \
             claims it, or says what it was before"
        ),
        Err(error) if !turn.goes_on() => return Err(error.into()),
        gone => {
            let cluster = match gone {
                Ok((_, identity)) => identity.cluster_id,
                Err(_) => observer.cluster_id(topic)?,
            };
            log::ensure_of_cluster(client, topic, &cluster).await?;
            println!(
                "the topic {topic} is gone, or another one by now: what was taken back of it by then is gone with it"
            );
            for (run, _) in redrives::all_unfinished(client).await.context("can't read redrives")? {
                if run.topic == *topic {
                    println!(
                        "before letters are redriven: `highwater dead-letters redrive --give-up {} --yes`",
                        run.run
                    );
                }
            }
            return let_others_begin(turn, args).await;
        }
    };
    if turn.goes_on() && !log.is_closed() {
        // It was left before the epoch was closed, when nothing was taken back, or after the next one began, when all was.
        println!("of the rewind of {topic} that was interrupted nothing is left to do");
        return let_others_begin(turn, args).await;
    }
    ensure!(
        args.go_on || !log.is_closed(),
        "the topic {topic} is being rewound, or a rewind of it was interrupted; nothing was changed. Let that end; if it was \
         interrupted, go on with it (--go-on)"
    );
    ensure!(
        !args.go_on || log.is_closed(),
        "no rewind of {topic} was interrupted, so there is none to go on with; nothing was changed: leave out --go-on"
    );
    Ok(Some((identity, log)))
}

/// Ends the turn of the one that was interrupted.
async fn let_others_begin<T>(turn: &Turn<'_>, args: &Args) -> Result<Option<T>> {
    if args.yes {
        turn.end_former().await?;
        println!("redrives and rewinds may begin again");
    } else {
        println!("nothing was changed. With --yes redrives and rewinds may begin again");
    }
    Ok(None)
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
    client: &'a Client,
    plan: &'a Plan,
    turn: &'a Turn<'a>,
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
        TakeBack { client: self.client, plan: self.plan, turn: Some(self.turn), cuts }
    }

    /// What a rewind that was interrupted may have begun to take back.
    fn interrupted(&self) -> Interrupted {
        match self.turn.elsewhere() {
            _ if !self.log.is_closed() => Interrupted::Nothing,
            None => Interrupted::TheSame,
            Some(command) => Interrupted::Another { command },
        }
    }

    /// Says what will be done, and that it can be.
    async fn explain(&self) -> Result<()> {
        self.check_grants().await?;
        for target in &self.targets {
            println!("{}/{}: from offset {} back to {}", self.log.topic, target.partition, target.end, target.at);
        }
        self.redriven.ensure_finished(self.client, self.interrupted()).await?;
        self.redriven.explain(self.client).await?;
        if let Interrupted::Another { command } = self.interrupted() {
            println!(
                "this goes to another place than the rewind that was interrupted (`{command}`): letters that one has taken off \
                 lists are not read again where this place is later; redrive afterwards"
            );
        }
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

    /// What was explained is all that was written and redriven, by the time that no letters are listed any more.
    async fn ensure_as_explained(&self, identity: &TopicIdentity) -> Result<()> {
        let (client, topic) = (self.client, &self.log.topic);
        ensure!(
            Log::of(client, topic, identity).await?.as_ref() == Some(self.log),
            "another rewind of {topic} began or ended while it was looked for what to take back; nothing was changed: rewind again"
        );
        let redriven = Redriven::find(client, self.log, &self.targets, self.plan.limits.horizon).await?;
        redriven.ensure_finished(client, self.interrupted()).await?;
        ensure!(
            redriven == self.redriven,
            "letters of {topic} were redriven while it was looked for what to take back; nothing was changed: rewind again"
        );
        Ok(())
    }

    /// Nobody has written since what was explained.
    async fn ensure_still(&self) -> Result<()> {
        for Target { partition, end, .. } in self.partitions() {
            let (ledger, sources) = (self.client.table(LEDGER), self.log.sources(*partition));
            let sql = format!("SELECT max(`to`) AS n FROM {ledger} WHERE source IN ({sources})");
            let now = self.client.rows::<At>(&sql).await?.first().map_or(0, |row| row.n);
            ensure!(
                now >= *end,
                "{}/{partition}: the ledger's end came from {end} back to {now} meanwhile, as what was interrupted was still being \
                 taken back: go on with it again",
                self.log.topic
            );
            ensure!(
                now == *end,
                "{}/{partition}: the ledger went on from {end} to {now} meanwhile. A replica still wrote: see that all are \
                 stopped, and rewind then; nothing was taken back",
                self.log.topic
            );
        }
        Ok(())
    }

    /// Enters an epoch in which nobody may write, so that nobody begins and who is at work stops when it asks next.
    async fn close_epoch(&self) -> Result<()> {
        if self.log.is_closed() {
            return Ok(());
        }
        self.log.enter(self.client, self.log.last() + 1, CLOSED).await
    }

    async fn execute(&self, partitions: &[i32]) -> Result<()> {
        // What audits have proved of the rows is proved no longer.
        self.turn.ensure_held().await?;
        cut::delete(self.client, AUDITS, "true").await?;
        let redriven = self.redriven.cuts();
        if !redriven.is_empty() {
            self.take_back(redriven).execute().await?;
        }
        self.turn.ensure_held().await?;
        self.redriven.forget(self.client).await?;
        self.take_back(self.of_log()).execute().await?;
        self.begin_epoch(partitions).await
    }

    /// First rows of the ledger for all partitions under the next epoch, then the epoch itself.
    async fn begin_epoch(&self, partitions: &[i32]) -> Result<()> {
        // Not one that a rewind which was interrupted has begun.
        let begun = last_epoch(self.client, &self.log.topic).await?.unwrap_or(0);
        let closed = if self.log.is_closed() { self.log.last() } else { self.log.last() + 1 };
        let epoch = closed.max(begun) + 1;
        // Whoever lost the turn, asleep for long, would leave an epoch behind that nobody is ever in.
        self.turn.ensure_held().await?;
        // A partition that nobody has begun begins by itself.
        let begins = self.partitions().map(|target| (target.partition, target.at));
        self.log.begin(self.client, epoch, &self.plan.hash, begins).await?;
        // No minute is complete until all is read again.
        let topic: Arc<str> = Arc::from(self.log.topic.as_str());
        let source = |&partition| Source { epoch, redrive: None, topic: Arc::clone(&topic), partition };
        self.client.enter_partitions(partitions.iter().map(source)).await?;
        self.turn.ensure_held().await?;
        self.log.enter(self.client, epoch, self.log.group()).await
    }
}

#[derive(Deserialize)]
struct At {
    n: u64,
}
