//! librdkafka's callbacks, turned into notes that [`super::KafkaLog`] reads after each poll.
//!
//! A rebalance is not answered inside its callback: librdkafka lets the group wait until the partitions are assigned or
//! unassigned, so that the worker hears of a revocation, and its last offsets are committed, before it is final.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

/// A rebalance that awaits its answer.
#[derive(Debug)]
pub(super) enum Rebalance {
    /// Partitions to take.
    Assign(TopicPartitionList),
    /// Partitions to give back; `lost` when others may have them already, so that a commit would do harm.
    Revoke { partitions: TopicPartitionList, lost: bool },
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Context {
    rebalances: Mutex<Vec<Rebalance>>,
    reason: Mutex<String>,
    closing: AtomicBool,
    /// Whether librdkafka found something wrong with a topic or a partition, in words only.
    doubt: AtomicBool,
    /// Whether the group has assigned to this member what it is to have, if only nothing.
    member: AtomicBool,
    assumed: bool,
}

impl Context {
    /// `assumed`: it counts as a member whatever is heard of it.
    pub(super) fn new(assumed: bool) -> Context {
        Context { assumed, ..Context::default() }
    }

    /// The oldest rebalance without an answer.
    pub(super) fn next_rebalance(&self) -> Option<Rebalance> {
        let mut rebalances = self.rebalances.lock().unwrap_or_else(PoisonError::into_inner);
        (!rebalances.is_empty()).then(|| rebalances.remove(0))
    }

    /// Whether the group counts on this member: it was assigned something, if only nothing, and did not lose it.
    pub(super) fn is_member(&self) -> bool {
        self.assumed || self.member.load(Ordering::Relaxed)
    }

    /// The sentence that came with the latest error.
    pub(super) fn take_reason(&self) -> String {
        std::mem::take(&mut *self.reason.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether something was found wrong with a topic or a partition since this was last asked. What is found in metadata is no
    /// message of a partition, and whoever reads its messages many at a time is told of it by a line in the log alone.
    pub(super) fn take_doubt(&self) -> bool {
        self.doubt.load(Ordering::Relaxed) && self.doubt.swap(false, Ordering::Relaxed)
    }

    /// From here on nobody polls but the consumer's own destructor, which waits for an answer inside the callback.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

/// Tells the group that an assignment has been taken. Nothing is read yet: a partition is handed to librdkafka's reader
/// by `start`, with its offset.
pub(super) fn accept(consumer: &BaseConsumer<Context>) -> KafkaResult<()> {
    let nothing = TopicPartitionList::new();
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => consumer.incremental_assign(&nothing),
        _ => consumer.assign(&nothing),
    }
}

/// Tells the group that partitions have been given back, and stops reading those that were started.
pub(super) fn give_back(consumer: &BaseConsumer<Context>, partitions: &TopicPartitionList) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => {
            // A partition that is not being read makes librdkafka refuse the whole list, and the group would wait.
            let reading = consumer.assignment()?;
            let mut list = TopicPartitionList::new();
            for element in partitions.elements() {
                if reading.find_partition(element.topic(), element.partition()).is_some() {
                    list.add_partition(element.topic(), element.partition());
                }
            }
            consumer.incremental_unassign(&list)
        }
        _ => consumer.unassign(),
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        // Whatever matters comes as an error event too and is said there, at a bearable rate; a doubtful property does not.
        if facility == "CONFWARN" {
            tracing::warn!(target: "librdkafka", "{line}");
        } else {
            if facility == "ERROR" {
                self.doubt.store(true, Ordering::Relaxed);
            }
            tracing::debug!(target: "librdkafka", severity = ?level, facility, "{line}");
        }
    }

    fn error(&self, _error: KafkaError, reason: &str) {
        let mut slot = self.reason.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clear();
        slot.push_str(reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let assigned = kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let answered = match assigned {
                true => accept(consumer),
                false => give_back(consumer, partitions),
            };
            if let Err(error) = answered {
                tracing::debug!("rebalance while closing: {error}");
            }
            return;
        }
        let lost = !assigned && consumer.assignment_lost();
        self.member.store(!lost, Ordering::Relaxed);
        let rebalance = match assigned {
            true => Rebalance::Assign(partitions.clone()),
            false => Rebalance::Revoke { partitions: partitions.clone(), lost },
        };
        self.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push(rebalance);
    }
}
