//! [`Inbox`]: what all partitions of a consumer have for us, taken many at a time.
//!
//! rdkafka hands over one message at a time, with a lock, several readings of the clock and two allocations for each: a
//! quarter of all that highwater costs. librdkafka's call for many has none of that, and two traps that this is built around:
//!
//! - It serves whatever else lies in the queue, and answers a rebalance by assigning nothing. So it reads a queue of our own,
//!   which the partitions' queues are forwarded to; the consumer's queue, with rebalances and the errors of brokers, stays
//!   with rdkafka.
//! - It takes the end of a partition, or an error of it, for a message when it notes how far the application has got, and so
//!   notes one too far. librdkafka goes by that note only where it pauses a partition, for us or by itself during a rebalance.
//!   Whoever lets a partition go on after that has to seek first: [`super::KafkaLog`] does, to where it knows itself to be.
//!
//! And what it cannot hand over as a message it writes to the log ([`Context::take_doubt`]).
#![allow(
    unsafe_code,
    reason = "rdkafka has no safe call for librdkafka's queues of many partitions; all that is unsafe about them is in this file"
)]

use std::ffi::{CStr, CString, c_void};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;

use super::context::Context;
use super::native::{Owned, code};
use crate::ports::{Record, TopicPartition};

/// Messages taken by one call at most.
const MANY: usize = 256;

/// What a partition has to tell.
pub(super) enum Arrival<'a> {
    /// A message.
    Record(Record<'a>),
    /// It has been read to its end: the next offset is at least this one.
    End { topic: &'a str, partition: i32, offset: u64 },
    /// It cannot be read, and why not.
    Error { topic: &'a str, partition: i32, code: RDKafkaErrorCode, reason: String },
}

/// See the module.
pub(super) struct Inbox {
    /// The partitions' messages.
    queue: Rung,
    /// The consumer's own queue, which rdkafka reads: watched here so that one wait is enough for both.
    others: Rung,
    /// Room for what one call takes.
    taken: Vec<*mut native::rd_kafka_message_t>,
    bell: Arc<Bell>,
    /// Declared last: queues are given back before their client ends.
    consumer: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's queues may be used from any thread, and `taken` points to nothing between two calls of `take`.
unsafe impl Send for Inbox {}

impl Inbox {
    /// The inbox of a consumer; `None`: there is no memory for it, or the consumer has no group.
    pub(super) fn new(consumer: &Arc<BaseConsumer<Context>>) -> Option<Inbox> {
        let (client, bell) = (consumer.client().native_ptr(), Arc::new(Bell::default()));
        // SAFETY: the client lives as long as `consumer`, of which the inbox keeps a reference until its queues are gone.
        let (queue, others) =
            unsafe { (native::rd_kafka_queue_new(client), native::rd_kafka_queue_get_consumer(client)) };
        Some(Inbox {
            queue: Rung::new(queue, &bell)?,
            others: Rung::new(others, &bell)?,
            taken: vec![std::ptr::null_mut(); MANY],
            bell,
            consumer: Arc::clone(consumer),
        })
    }

    /// Has the messages of a partition come here. librdkafka ends this where it stops reading the partition, a while after it was
    /// told to: until something has come, this is to be said again.
    pub(super) fn collect(&self, partition: &TopicPartition) {
        self.forward(partition, self.queue.queue.0);
    }

    /// Has the messages of a partition come nowhere, not to the consumer's queue either: to be said before it is assigned, and when
    /// it is taken away and nothing has come of it. For what librdkafka reads it ends the collecting itself; but where a partition
    /// that it never began to read vanishes with its topic while it is collected, it clears this whole queue, whosever messages
    /// lie there.
    pub(super) fn detach(&self, partition: &TopicPartition) {
        self.forward(partition, std::ptr::null_mut());
    }

    fn forward(&self, partition: &TopicPartition, queue: *mut native::rd_kafka_queue_t) {
        let Ok(topic) = CString::new(&*partition.topic) else {
            return; // No topic has such a name.
        };
        // SAFETY: client and name are alive; librdkafka copies the name.
        let source = unsafe {
            native::rd_kafka_queue_get_partition(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition.partition,
            )
        };
        if let Some(source) = Owned::new(source, native::rd_kafka_queue_destroy) {
            // SAFETY: both queues are alive, or the second is null; the forwarding keeps its own reference to the second.
            unsafe { native::rd_kafka_queue_forward(source.0, queue) };
        }
    }

    /// Whether rdkafka would find something in the consumer's own queue.
    pub(super) fn has_other(&self) -> bool {
        // SAFETY: the queue is alive.
        unsafe { native::rd_kafka_queue_length(self.others.queue.0) > 0 }
    }

    /// Hands over what has come, at most `count`, and does not wait; answers how many there were. Between two calls a partition
    /// may be paused, sought or given back: of what it had before nothing comes any more.
    pub(super) fn take(&mut self, count: usize, on: &mut dyn FnMut(Arrival<'_>)) -> usize {
        let room = &mut self.taken[..count.min(MANY)];
        // SAFETY: the queue is alive, and there is room for so many pointers.
        let taken =
            unsafe { native::rd_kafka_consume_batch_queue(self.queue.queue.0, 0, room.as_mut_ptr(), room.len()) };
        let taken = usize::try_from(taken).unwrap_or(0);
        for message in &room[..taken] {
            if let Some(message) = Owned::new(*message, native::rd_kafka_message_destroy)
                && let Some(arrival) = arrival(&message)
            {
                on(arrival);
            }
        }
        taken
    }

    /// From here on a wait ends for what comes.
    pub(super) fn hush(&self) {
        *self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Waits until something has come since the last [`Inbox::hush`], here or for rdkafka, or for so long.
    pub(super) fn wait(&self, patience: Duration) {
        let rung = self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner);
        // Both outcomes are found out by looking into the queues.
        drop(self.bell.rings.wait_timeout_while(rung, patience, |rung| !*rung));
    }
}

/// What a message says; `None`: nothing that concerns a partition.
fn arrival(message: &Owned<native::rd_kafka_message_t>) -> Option<Arrival<'_>> {
    let raw = message.0;
    // SAFETY: the message is alive and ours alone as long as `message` is borrowed. It is read field by field, for its error
    // may not be a value of its type.
    let (error, rkt, partition, offset, key, payload) = unsafe {
        let error = code(std::ptr::addr_of!((*raw).err));
        // Null, or so many bytes that the message keeps.
        let (key, payload) = (bytes((*raw).key, (*raw).key_len), bytes((*raw).payload, (*raw).len));
        (error, (*raw).rkt, (*raw).partition, (*raw).offset, key, payload)
    };
    if rkt.is_null() {
        return None;
    }
    // SAFETY: the message keeps its topic, whose name is a string that ends in zero and lives as long.
    let topic = unsafe { CStr::from_ptr(native::rd_kafka_topic_name(rkt)) }.to_str().ok()?;
    match error {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => {
            let offset = u64::try_from(offset).ok()?;
            Some(Arrival::Record(Record { topic, partition, offset, timestamp_ms: timestamp(message), key, payload }))
        }
        Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
            Some(Arrival::End { topic, partition, offset: u64::try_from(offset).ok()? })
        }
        // An error's payload is its text.
        error => {
            let reason = String::from_utf8_lossy(payload.unwrap_or_default()).into_owned();
            Some(Arrival::Error { topic, partition, code: error.into(), reason })
        }
    }
}

/// Milliseconds since 1970; 0 where the message has none.
fn timestamp(message: &Owned<native::rd_kafka_message_t>) -> i64 {
    let mut kind = native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive, and the kind is written where there is room for it.
    let time = unsafe { native::rd_kafka_message_timestamp(message.0, &mut kind) };
    match kind {
        native::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => 0,
        _ => time.max(0),
    }
}

/// # Safety
/// Null, or the first of `length` bytes that live as long as what they are borrowed from.
unsafe fn bytes<'a>(first: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract above.
    (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first.cast(), length) })
}

/// Rung by librdkafka's threads.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    rings: Condvar,
}

/// A queue that rings when something comes into it and it was empty.
struct Rung {
    queue: Owned<native::rd_kafka_queue_t>,
    /// What the queue's callback is given.
    _bell: Arc<Bell>,
}

impl Rung {
    fn new(queue: *mut native::rd_kafka_queue_t, bell: &Arc<Bell>) -> Option<Rung> {
        let queue = Owned::new(queue, native::rd_kafka_queue_destroy)?;
        // SAFETY: the queue is alive; the bell outlives the callback, which `drop` takes away first.
        unsafe { native::rd_kafka_queue_cb_event_enable(queue.0, Some(ring), Arc::as_ptr(bell).cast_mut().cast()) };
        Some(Rung { queue, _bell: Arc::clone(bell) })
    }
}

impl Drop for Rung {
    fn drop(&mut self) {
        // SAFETY: the queue is alive. librdkafka calls back under the lock that this takes: afterwards nobody has the bell.
        unsafe { native::rd_kafka_queue_cb_event_enable(self.queue.0, None, std::ptr::null_mut()) };
    }
}

/// Called by librdkafka under a queue's lock: calls nothing of it.
unsafe extern "C" fn ring(_client: *mut native::rd_kafka_t, bell: *mut c_void) {
    // SAFETY: what `Rung::new` gave, which lives as long as this may be called.
    let bell = unsafe { &*bell.cast_const().cast::<Bell>() };
    *bell.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
    bell.rings.notify_one();
}
