//! The evaluator: judges alerts and budgets while `highwater run` consumes, and publishes what changes.
//!
//! ```text
//! partition 0 of the first topic is ours ─▶ a term
//!   Publisher::open   the producer before is shut out, then the topics are read back   ─▶ Backlog
//!   a round           completeness, ledger, rollups ─▶ Evaluator::advance ─▶ one transaction ─▶ table `alerts`
//! partition 0 is taken away, or another producer was opened ─▶ the term is over
//! ```
//!
//! Every replica has one, and at most one of them judges. That is *arranged* by the consumer group, which gives partition 0
//! to one of them, and *ensured* by Kafka's transactions: whoever opens the producer of the same name shuts out all before,
//! however long they slept and whatever they believe. All that a successor needs stands in the topics (a round's messages
//! and how far it judged appear together), so what was told is never told again or left out.
//!
//! It has a thread and connections of its own: whatever it waits for, nobody else does.

mod archive;
mod budgets;
#[cfg(test)]
mod fixture;
mod hindrance;
mod inquiry;
mod publisher;
mod sight;
mod stale;
mod term;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use tokio::runtime::Handle;

pub use publisher::framing;
pub use sight::read;

use crate::clickhouse::schema::{SchemaError, check_tables};
use crate::clickhouse::{Catalog, Client, Endpoint, QueryError, QueryLimits};
use crate::kafka::{ConsumerSettings, TransactionError};
use crate::plan::Plan;
use crate::ports::TopicPartition;
use crate::registry;
use crate::telemetry::{Board, Counters};
use hindrance::Hindrance;

/// How often it is looked whose partition 0 is, and whether to stop.
const TICK: Duration = Duration::from_millis(100);
/// Before a producer that was shut out comes back, if partition 0 is still given to its replica then. By then a member that
/// lost its partitions knows.
const SHUT_OUT: Duration = Duration::from_secs(10);

/// What an evaluator needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where changes of alerts are published.
    pub topic: String,
    /// Where it is published how budgets stand.
    pub budget_topic: String,
    /// The schema registry whose ids records name their schemas by; `None`: they name them by fingerprints.
    pub registry: Option<registry::Endpoint>,
    /// Least time between the begins of two rounds.
    pub interval: Duration,
    /// Longest time between two heartbeats.
    pub heartbeat: Duration,
    /// How far back late events change what was told, in minutes.
    pub horizon: i64,
    /// How Kafka is reached, and the group.
    pub consumer: ConsumerSettings,
    /// How ClickHouse is reached.
    pub endpoint: Endpoint,
    /// The partition whose owner judges.
    pub home: TopicPartition,
    /// Bytes that the rows which rules look at may take.
    pub memory: usize,
    /// What one question to ClickHouse may cost.
    pub limits: QueryLimits,
    /// Days that events are kept in their tables; 0: for ever.
    pub kept_days: u32,
}

impl Settings {
    /// Under what name records are published; one producer of it is alive at a time.
    pub fn transactional_id(&self) -> String {
        format!("{}-alerts", self.consumer.group)
    }
}

/// See the module.
pub struct Evaluation {
    /// Where and when.
    pub settings: Settings,
    /// What is judged.
    pub plan: Arc<Plan>,
    /// The table that keeps what was told.
    pub history: Catalog,
    /// Says whose partition 0 is, and is told how far rules were judged.
    pub board: Arc<Board>,
    /// Counts rounds and messages.
    pub counters: Arc<Counters>,
    /// Serves its connections.
    pub runtime: Handle,
}

/// Why a step of the evaluator did not come to its end.
#[derive(Debug)]
enum Trouble {
    /// Nothing was changed; it may be tried again.
    Passing(String),
    /// It does not pass before an operator does what it says.
    Lacking(String),
    /// What is so has to be found out anew.
    Over(String),
    /// Somebody else judges now.
    ShutOut(String),
}

impl From<QueryError> for Trouble {
    fn from(error: QueryError) -> Trouble {
        Trouble::Passing(error.to_string())
    }
}

impl From<TransactionError> for Trouble {
    fn from(error: TransactionError) -> Trouble {
        match error {
            TransactionError::Fenced(_) => Trouble::ShutOut(error.to_string()),
            TransactionError::Failed { .. } => Trouble::Over(error.to_string()),
        }
    }
}

impl Evaluation {
    /// Starts the thread. It ends soon after `stop` says so; to end the process without waiting for it is as safe as to
    /// kill it.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(self, stop: impl Fn() -> bool + Send + 'static) -> Result<JoinHandle<()>> {
        let thread = std::thread::Builder::new().name("alerts".to_owned());
        thread.spawn(move || self.work(&stop)).context("starting the thread that judges alerts")
    }

    /// Whether what will be told can be kept.
    fn look_at_history(&self) -> Result<(), Trouble> {
        let client = Client::new(self.settings.endpoint.clone());
        self.runtime.block_on(check_tables(&client, &self.history)).map_err(|error| match error {
            SchemaError::Faults(_) => Trouble::Lacking(error.to_string()),
            SchemaError::Query { .. } => Trouble::Passing(error.to_string()),
        })
    }

    fn work(&self, stop: &dyn Fn() -> bool) {
        let mut hindrance = Hindrance::default();
        let leave = || stop() || !self.board.has(&self.settings.home);
        while !stop() {
            if leave() {
                std::thread::sleep(TICK);
                continue;
            }
            let term = catch_unwind(AssertUnwindSafe(|| {
                self.look_at_history()?;
                term::Term::new(self, &leave, &mut hindrance)?.serve()
            }));
            self.board.judged(None);
            let home = &self.settings.home;
            match term {
                // It was interrupted.
                Ok(_) if stop() => {}
                Ok(Ok(()) | Err(Trouble::Passing(_) | Trouble::Over(_))) if leave() => {
                    tracing::info!("{home} is no longer ours, so another replica judges alerts");
                }
                Ok(Ok(())) => {}
                Ok(Err(Trouble::Passing(reason) | Trouble::Over(reason))) => {
                    wait(hindrance.failed(&reason), &leave);
                }
                Ok(Err(Trouble::Lacking(what))) => wait(hindrance.lacking(&what), &leave),
                Ok(Err(Trouble::ShutOut(reason))) => {
                    tracing::warn!(
                        "shut out of judging alerts: {reason}. What was not published is judged by whoever took over"
                    );
                    wait(SHUT_OUT, &leave);
                }
                Err(panic) => {
                    let what = message(&*panic);
                    tracing::error!(
                        "judging alerts panicked: {what}; this is a fault in highwater. Events are consumed all the same, and \
                         alerts are judged again in {} s",
                        SHUT_OUT.as_secs()
                    );
                    wait(SHUT_OUT, &leave);
                }
            }
        }
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let now: Duration = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Waits for a time, or until it is time to leave.
fn wait(time: Duration, leave: &dyn Fn() -> bool) {
    let begun = Instant::now();
    while begun.elapsed() < time && !leave() {
        std::thread::sleep(TICK.min(time.saturating_sub(begun.elapsed())));
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
