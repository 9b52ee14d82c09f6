//! `highwater run`: consume until told to stop.
//!
//! Servers that are away when it starts are waited for. Told to stop (SIGTERM or Ctrl-C), it writes what it has read,
//! commits and leaves the group; a second signal ends it at once, which loses nothing either.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::clickhouse::schema::{SchemaError, check_tables};
use crate::clickhouse::{Catalog, ClaimError, ClickHouseStore, Client, Endpoint, QueryError, claim};
use crate::command::load;
use crate::config::{OnLoss, Settings};
use crate::kafka::identity::IdentityError;
use crate::kafka::{ConsumerSettings, KafkaLog, Observer, TopicIdentity};
use crate::partition::{Lost, Tuning};
use crate::plan::Plan;
use crate::ports::Registry;
use crate::registry::SchemaRegistry;
use crate::telemetry::Outage;
use crate::worker::{self, Worker};

/// How long writing what was read may take at the end; the log still has it.
const LAST_WRITES: Duration = Duration::from_secs(4);
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
    let claims = tokio::select! {
        claims = prepare(settings, &plan, &endpoint) => claims?,
        () = stop.asked() => return Ok(()),
    };
    let workers = usize::try_from(settings.workers)?;
    tracing::info!(
        plan = plan.hash,
        workers,
        group = settings.kafka.group,
        topics = settings.kafka.topics.join(","),
        "consuming {} into {endpoint:?}",
        types(&plan)
    );
    let tuning = Tuning {
        seal_after: settings.batch.interval,
        seal_events: settings.batch.rows,
        seal_bytes: usize::try_from(settings.batch.bytes.0)?,
        insert_timeout: settings.clickhouse.insert_timeout,
        keep_events: settings.retention.raw.duration(),
        lost: match settings.kafka.on_loss {
            OnLoss::Record => Lost::Record,
            OnLoss::Stop => Lost::Stop,
        },
    };
    let memory = usize::try_from(settings.memory.limit.0)? / workers;
    let epochs = claims.iter().map(|(topic, claim)| (Arc::clone(topic), claim.epoch)).collect();
    let identities: BTreeMap<_, _> = claims.into_iter().map(|(topic, claim)| (topic, claim.identity)).collect();
    let worker_settings = worker::Settings { tuning, memory, epochs };
    let mut threads = Vec::new();
    for number in 0..workers {
        let log = KafkaLog::new(&settings.consumer(&format!("highwater-{number}")))?.claimed(identities.clone());
        let store = ClickHouseStore::new(endpoint.clone(), Arc::clone(&plan), &tokio::runtime::Handle::current());
        let (plan, settings) = (Arc::clone(&plan), worker_settings.clone());
        let thread = match &registry {
            Some(endpoint) => {
                let registry = SchemaRegistry::new(endpoint.clone(), &tokio::runtime::Handle::current());
                spawn(number, Worker::with_registry(plan, settings, log, store, registry), &stop)
            }
            None => spawn(number, Worker::new(plan, settings, log, store), &stop),
        };
        threads.push(thread?);
    }
    let ended = tokio::task::spawn_blocking(move || threads.into_iter().map(join).collect::<Result<Vec<()>>>());
    ended.await.context("waiting for the workers")??;
    tracing::info!("stopped; all that was read is written and committed, or will be read again");
    Ok(())
}

fn types(plan: &Plan) -> String {
    plan.types.iter().map(|planned| planned.event.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn spawn<R: Registry + Send + 'static>(
    number: usize,
    mut worker: Worker<KafkaLog, ClickHouseStore, R>,
    stop: &Stop,
) -> Result<JoinHandle<Result<()>>> {
    let stop = stop.clone();
    let work = move || {
        let clock = Clock::new();
        while !stop.is_asked() {
            let wait = if worker.is_waiting() { BUSY_WAIT } else { IDLE_WAIT };
            worker.step(clock.now(), wait);
            if let Some(reason) = worker.log_mut().fatal() {
                let reason = reason.to_owned();
                stop.ask();
                bail!("Kafka will deliver nothing more to worker {number}: {reason}");
            }
        }
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
    };
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(work).context("starting a worker's thread")
}

/// Time since 1970 that never goes back: the system's clock at the start, and what has passed since.
struct Clock {
    begun: Duration,
    since: Instant,
}

impl Clock {
    fn new() -> Clock {
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Clock { begun, since: Instant::now() }
    }

    fn now(&self) -> Duration {
        self.begun + self.since.elapsed()
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A topic that is ours to write.
struct Claim {
    /// Which of its lives it is in.
    epoch: u32,
    /// By which it is recognised.
    identity: TopicIdentity,
}

/// Waits for both servers, checks the tables and claims the topics.
async fn prepare(settings: &Settings, plan: &Plan, endpoint: &Endpoint) -> Result<BTreeMap<Arc<str>, Claim>> {
    let client = Client::new(endpoint.clone());
    let catalog = Catalog::new(plan, &settings.tables(), client.database());
    patiently(&format!("ClickHouse at {endpoint:?}"), || async {
        match check_tables(&client, &catalog).await {
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
    .await?;
    let mut claims = BTreeMap::new();
    for topic in &settings.kafka.topics {
        let found = patiently(&format!("the topic {topic} at {}", settings.kafka.brokers.join(",")), || {
            identify(settings.consumer("highwater-start"), topic.clone())
        })
        .await?;
        let group = &settings.kafka.group;
        let epoch = patiently("ClickHouse", || async {
            match claim(&client, topic, &found.cluster_id, &found.topic_id, group).await {
                Err(ClaimError::Query { error, .. }) if passes(&error) => Err(Failure::Passing(error.to_string())),
                Err(error) => Err(Failure::Final(error.into())),
                Ok(epoch) => Ok(epoch),
            }
        })
        .await?;
        claims.insert(Arc::from(topic.as_str()), Claim { epoch, identity: found });
    }
    let partitions = claims.values().map(|claim| claim.identity.partitions).sum();
    let (needed, window) = (settings.tokens_needed(partitions), settings.clickhouse.token_window);
    if needed > window {
        bail!(
            "{partitions} partitions sealed every {:?} need tables that remember {needed} tokens, and \
             clickhouse.token_window is {window}: set it to {needed} and run `highwater migrate`, or make batch.interval \
             longer",
            settings.batch.interval
        );
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

async fn identify(consumer: ConsumerSettings, topic: String) -> Result<TopicIdentity, Failure> {
    let ask = move || Ok(Observer::new(&consumer, Duration::from_secs(5))?.identity(&topic));
    let asked: Result<_> = tokio::task::spawn_blocking(ask).await.unwrap_or_else(|error| Err(error.into()));
    match asked.map_err(Failure::Final)? {
        Ok(found) => Ok(found),
        Err(error @ IdentityError::Refused { .. }) => Err(Failure::Final(error.into())),
        Err(error) => Err(Failure::Passing(error.to_string())),
    }
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

/// Whether somebody wants us to stop.
#[derive(Clone)]
struct Stop {
    asked: Arc<AtomicBool>,
    wake: Arc<tokio::sync::Notify>,
}

impl Stop {
    /// Listens for SIGTERM and Ctrl-C.
    fn listen() -> Result<Stop> {
        let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
        let stop = Stop { asked: Arc::new(AtomicBool::new(false)), wake: Arc::new(tokio::sync::Notify::new()) };
        let told = stop.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
            tracing::info!("told to stop: writing what has been read");
            told.ask();
            let first = Instant::now();
            // A terminal and a supervisor may both pass one signal on: what comes at once is not a second one.
            while first.elapsed() < Duration::from_secs(1) {
                tokio::select! { _ = terminate.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
            }
            tracing::warn!("told twice: ending at once; what is not written will be read again");
            std::process::exit(1);
        });
        Ok(stop)
    }

    fn ask(&self) {
        self.asked.store(true, Ordering::Release);
        self.wake.notify_waiters();
    }

    fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    async fn asked(&self) {
        let woken = self.wake.notified();
        if !self.is_asked() {
            woken.await;
        }
    }
}
