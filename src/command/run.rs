//! `highwater run`: consume until told to stop.
//!
//! Servers that are away when it starts are waited for. Told to stop (SIGTERM or Ctrl-C), it leaves the group, so
//! that others take over at once, and writes what it has read; a second signal ends it at once, which loses nothing either.

mod threads;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use crate::allocator::Tide;
use crate::batch::Source;
use crate::clickhouse::schema::{SchemaError, check_tables};
use crate::clickhouse::{Catalog, ClaimError, ClickHouseStore, Client, Endpoint, Grants, QueryError, claim, grants};
use crate::command::load;
use crate::config::{OnLoss, Settings};
use crate::evaluator::Evaluation;
use crate::kafka::identity::IdentityError;
use crate::kafka::{ConsumerSettings, KafkaLog, Observer, TopicIdentity, rights};
use crate::meter::Meter;
use crate::partition::{Lost, Tuning};
use crate::plan::Plan;
use crate::ports::Registry;
use crate::registry::SchemaRegistry;
use crate::telemetry::{self, Board, Counters, Outage, Reporter};
use crate::worker::{self, Worker};

use threads::{Stop, finish, watched};

/// How long the whole end may take: a container is killed after ten seconds.
const GOODBYE: Duration = Duration::from_secs(8);
/// How long writing what was read may take at the end; the log still has it.
const LAST_WRITES: Duration = Duration::from_secs(4);
/// How long a round of alerts that is under way at the end is waited for.
const LAST_ALERTS: Duration = Duration::from_secs(2);
/// How long a worker waits for messages while nothing is under way.
const IDLE_WAIT: Duration = Duration::from_millis(100);
/// The same while an answer of ClickHouse or the schema registry is awaited.
const BUSY_WAIT: Duration = Duration::from_millis(5);

/// Consumes until SIGTERM or Ctrl-C.
///
/// # Errors
/// The plan can't be compiled; a table is missing or not as it has to be; a topic belongs to another group or was made
/// anew; Kafka refuses us for good.
pub async fn run(settings: &Settings) -> Result<()> {
    let plan = Arc::new(load::plan(settings)?);
    let endpoint = settings.endpoint()?;
    let registry = settings.registry()?;
    let stop = Stop::listen()?;
    let workers = usize::try_from(settings.workers)?;
    let board = Board::new(workers, settings.memory.limit.0);
    let counters = Arc::new(Counters::new(Arc::clone(&plan), &settings.kafka.topics, Arc::clone(&board)));
    if let Some(address) = settings.telemetry.listen {
        let address = telemetry::listen(address, Arc::clone(&board), Arc::clone(&counters)).await?;
        tracing::info!(
            metrics = format!("http://{address}/metrics"),
            live = format!("http://{address}/livez"),
            ready = format!("http://{address}/readyz"),
            "metrics and health are served"
        );
    }
    telemetry::watch(Arc::clone(&board), Arc::clone(&counters), endpoint.clone(), settings.consumer("highwater-watch"));
    let claims = tokio::select! {
        claims = prepare(settings, &plan, &endpoint) => claims?,
        () = stop.asked() => return Ok(()),
    };
    tracing::info!(
        plan = plan.hash,
        workers,
        group = settings.kafka.group,
        topics = settings.kafka.topics.join(","),
        "consuming {} into {endpoint:?}",
        types(&plan)
    );
    if let Some(unjudged) = settings.unjudged(&plan) {
        tracing::info!("{unjudged}");
    }
    let tuning = tuning(settings)?;
    let memory = usize::try_from(settings.memory.limit.0)? / workers;
    let epochs = claims.iter().map(|(topic, claim)| (Arc::clone(topic), claim.epoch)).collect();
    let identities: BTreeMap<_, _> = claims.into_iter().map(|(topic, claim)| (topic, claim.identity)).collect();
    let worker_settings = worker::Settings { tuning, memory, epochs };
    let mut threads = Vec::new();
    let (runtime, meter) = (tokio::runtime::Handle::current(), || -> Arc<dyn Meter> { Arc::clone(&counters) as _ });
    for number in 0..workers {
        let log = KafkaLog::new(&settings.consumer(&format!("highwater-{number}")))?.claimed(identities.clone());
        let store = ClickHouseStore::new(endpoint.clone(), Arc::clone(&plan), &runtime, meter());
        let (plan, settings) = (Arc::clone(&plan), worker_settings.clone());
        let reporter = Reporter::new(Arc::clone(&board), number);
        let thread = match &registry {
            Some(endpoint) => {
                let registry = SchemaRegistry::new(endpoint.clone(), &runtime);
                let worker = Worker::with_registry(plan, settings, log, store, registry);
                spawn(number, worker.told_to(meter()), reporter, &stop)
            }
            None => spawn(number, Worker::new(plan, settings, log, store).told_to(meter()), reporter, &stop),
        };
        threads.push(thread?);
    }
    let evaluator = judge(settings, &plan, &board, &counters, &stop).unwrap_or_else(|error| {
        tracing::error!("alerts are not judged: {error:#}; events are consumed all the same");
        None
    });
    stop.asked().await;
    let end = Instant::now() + GOODBYE;
    let ended = finish(threads, end).await;
    counters.say(true);
    // Whatever it waits for: to end without it is as safe as a crash, but leaves a transaction open for a while.
    let deadline = end.min(Instant::now() + LAST_ALERTS);
    while evaluator.as_ref().is_some_and(|thread| !thread.is_finished()) && Instant::now() < deadline {
        tokio::time::sleep(BUSY_WAIT).await;
    }
    ended?;
    tracing::info!("stopped; all that was read is written and committed, or will be read again");
    Ok(())
}

/// Starts the thread that judges alerts, if packs have any and there is a topic for them.
fn judge(
    settings: &Settings,
    plan: &Arc<Plan>,
    board: &Arc<Board>,
    counters: &Arc<Counters>,
    stop: &Stop,
) -> Result<Option<JoinHandle<()>>> {
    let history = Catalog::of_alerts(&settings.tables());
    let Some(settings) = settings.evaluator()?.filter(|_| !plan.alerts.is_empty()) else { return Ok(None) };
    let (plan, board, counters) = (Arc::clone(plan), Arc::clone(board), Arc::clone(counters));
    let runtime = tokio::runtime::Handle::current();
    let (evaluation, stop) = (Evaluation { settings, plan, history, board, counters, runtime }, stop.clone());
    evaluation.start(move || stop.is_asked()).map(Some)
}

/// When batches are sealed, and how patient their delivery is.
pub(super) fn tuning(settings: &Settings) -> Result<Tuning> {
    Ok(Tuning {
        seal_after: settings.batch.interval,
        seal_events: settings.batch.rows,
        seal_bytes: usize::try_from(settings.batch.bytes.0)?,
        insert_timeout: settings.clickhouse.insert_timeout,
        keep_events: settings.retention.raw.duration(),
        marks_last: settings.marks_last(),
        lost: match settings.kafka.on_loss {
            OnLoss::Record => Lost::Record,
            OnLoss::Stop => Lost::Stop,
        },
    })
}

fn types(plan: &Plan) -> String {
    plan.types.iter().map(|planned| planned.event.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn spawn<R: Registry + Send + 'static>(
    number: usize,
    mut worker: Worker<KafkaLog, ClickHouseStore, R>,
    mut reporter: Reporter,
    stop: &Stop,
) -> Result<JoinHandle<Result<()>>> {
    let told = stop.clone();
    watched(number, stop, move || {
        let stop = told;
        let (clock, mut tide) = (Clock::new(), Tide::default());
        while !stop.is_asked() {
            let wait = if worker.is_waiting() { BUSY_WAIT } else { IDLE_WAIT };
            worker.step(clock.now(), wait);
            tide.is(worker.held(), clock.now());
            let member = worker.log_mut().is_member();
            reporter.step(clock.now(), || (member, worker.partitions()));
            if let Some(reason) = worker.log_mut().fatal() {
                bail!("Kafka will deliver nothing more to worker {number}: {reason}");
            }
            if worker.store_mut().is_dead() {
                bail!(
                    "worker {number} has lost the task that writes to ClickHouse; this is a fault in highwater. Nothing is \
                     lost: start it again, and what was not written is read again"
                );
            }
        }
        // Others take over while the last batches are being written. Two writers of one partition are what the protocol is
        // made for; docs/delivery.md says where even it ends.
        worker.log_mut().leave();
        let deadline = Instant::now() + LAST_WRITES;
        while !worker.drain(clock.now()) {
            if Instant::now() > deadline {
                tracing::warn!("ClickHouse did not take the last batches in time; they will be read again");
                break;
            }
            worker.store_mut().wait(BUSY_WAIT);
        }
        worker.into_log().close();
        Ok(())
    })
}

/// Time since 1970 that never goes back: the system's clock at the start, and what has passed since.
pub(super) struct Clock {
    begun: Duration,
    since: Instant,
}

impl Clock {
    pub(super) fn new() -> Clock {
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { begun, since: Instant::now() }
    }

    pub(super) fn now(&self) -> Duration {
        self.begun + self.since.elapsed()
    }
}

/// A topic that is ours to write.
struct Claim {
    /// Which of its lives it is in.
    epoch: u32,
    /// By which it is recognised.
    identity: TopicIdentity,
}

/// Waits for ClickHouse, checks what we may do and the tables, and records the plan.
async fn check(settings: &Settings, plan: &Plan, client: &Client, endpoint: &Endpoint) -> Result<()> {
    let catalog = Catalog::new(plan, &settings.tables(), client.database()).needed(settings.judges(plan));
    patiently(&format!("ClickHouse at {endpoint:?}"), || async {
        match grants::look(client, &catalog).await {
            Err(error) if passes(&error) => Err(Failure::Passing(error.to_string())),
            Err(error) => Err(Failure::Final(anyhow::Error::new(error).context("asking for our permissions"))),
            Ok(Grants::Lacking(what)) => Err(Failure::Final(anyhow::anyhow!(what))),
            Ok(Grants::Enough | Grants::Unknown) => Ok(()),
        }
    })
    .await?;
    // Whether alerts can be kept is looked at by who judges: events don't wait for that.
    let catalog = catalog.needed(false);
    patiently(&format!("ClickHouse at {endpoint:?}"), || async {
        match check_tables(client, &catalog).await {
            Err(SchemaError::Query { error, .. }) if passes(&error) => Err(Failure::Passing(error.to_string())),
            Err(error) => Err(Failure::Final(error.into())),
            Ok(()) => Ok(()),
        }
    })
    .await?;
    patiently(&format!("ClickHouse at {endpoint:?}"), || async {
        match client.record_plan(plan).await {
            Err(error) if passes(&error) => Err(Failure::Passing(error.to_string())),
            recorded => recorded.context("recording the plan").map_err(Failure::Final),
        }
    })
    .await
}

/// Waits for both servers, checks the tables and claims the topics.
async fn prepare(settings: &Settings, plan: &Plan, endpoint: &Endpoint) -> Result<BTreeMap<Arc<str>, Claim>> {
    let client = Client::new(endpoint.clone());
    let topics = settings.kafka.topics.join(" and the topic ");
    let topics = format!("the topic {topics} at {}", settings.kafka.brokers.join(","));
    check(settings, plan, &client, endpoint).await?;
    // Not meanwhile: what is claimed is who the topics are now, however long ClickHouse was waited for.
    let found = patiently(&topics, || identify(settings.consumer("highwater-start"))).await?;
    let mut claims = BTreeMap::new();
    for (topic, found) in settings.kafka.topics.iter().zip(found) {
        let group = &settings.kafka.group;
        let epoch = patiently("ClickHouse", || async {
            match claim(&client, topic, &found.cluster_id, &found.topic_id, group).await {
                Err(ClaimError::Query { error, .. }) if passes(&error) => Err(Failure::Passing(error.to_string())),
                Err(error) => Err(Failure::Final(error.into())),
                Ok(epoch) => Ok(epoch),
            }
        })
        .await?;
        let topic: Arc<str> = Arc::from(topic.as_str());
        let numbers = 0..i32::try_from(found.partitions)?;
        let sources = numbers.map(|partition| Source { epoch, redrive: None, topic: Arc::clone(&topic), partition });
        let sources: Vec<Source> = sources.collect();
        patiently("ClickHouse", || async {
            match client.enter_partitions(sources.iter().cloned()).await {
                Err(error) if passes(&error) => Err(Failure::Passing(error.to_string())),
                entered => entered.context("entering partitions into the table watermarks").map_err(Failure::Final),
            }
        })
        .await?;
        claims.insert(topic, Claim { epoch, identity: found });
    }
    let partitions = claims.values().map(|claim| claim.identity.partitions).sum();
    if let Some(lacking) = settings.tokens_lacking(partitions) {
        bail!(lacking);
    }
    Ok(claims)
}

fn passes(error: &QueryError) -> bool {
    match error {
        QueryError::Broken(_) => true,
        QueryError::Server(error) => error.is_passing(),
        QueryError::Unexpected { .. } => false,
    }
}

/// Who the topics are, in order, if we may read them in the group. One client asks it all, for to connect takes longer than
/// to ask; and a new one each time, for it keeps what it knew of the cluster.
async fn identify(consumer: ConsumerSettings) -> Result<Vec<TopicIdentity>, Failure> {
    let ask = move || -> Result<Vec<TopicIdentity>, Failure> {
        let observer =
            Observer::new(&consumer, Duration::from_secs(5)).map_err(|error| Failure::Final(error.into()))?;
        let found = identities(&observer, &consumer.topics);
        // It ends within a tenth of a second, which nobody has to wait for.
        tokio::task::spawn_blocking(move || drop(observer));
        found
    };
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| Err(Failure::Final(error.into())))
}

/// The same of a client that is there; all rights that are missing are told at once.
fn identities(observer: &Observer, topics: &[String]) -> Result<Vec<TopicIdentity>, Failure> {
    // A broker that is away, and a topic that is, are found when the topics are looked for.
    if let Ok(access) = observer.access()
        && !access.lacking.is_empty()
    {
        return Err(Failure::Final(anyhow::anyhow!(rights(&access.lacking))));
    }
    let who = |topic: &String| {
        observer.identity(topic).map_err(|error| match error {
            IdentityError::Refused { .. } | IdentityError::Credentials { .. } => Failure::Final(error.into()),
            IdentityError::NotFound(_) | IdentityError::Away { .. } => Failure::Passing(error.to_string()),
        })
    };
    topics.iter().map(who).collect()
}

enum Failure {
    Passing(String),
    Final(anyhow::Error),
}

/// Tries until it passes, and says so.
async fn patiently<T, F: Future<Output = Result<T, Failure>>>(what: &str, mut attempt: impl FnMut() -> F) -> Result<T> {
    let mut outage = Outage::of(what);
    loop {
        match attempt().await {
            Ok(value) => {
                outage.passed();
                return Ok(value);
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(reason)) => {
                outage.failed(&reason);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
