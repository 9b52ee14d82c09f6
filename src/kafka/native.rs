//! What rdkafka has no safe call for: librdkafka's DescribeTopics and DescribeConsumerGroups, and messages taken by the
//! thousand, through its C interface.
#![allow(
    unsafe_code,
    reason = "rdkafka has no safe call for topic ids, permissions and batches, and every unsafe block of this crate is in this file"
)]

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::bindings::{
    rd_kafka_AclOperation_t as Operation, rd_kafka_resp_err_t as Code, rd_kafka_timestamp_type_t as Timestamp,
};
use rdkafka::client::{Client, ClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::context::Context;
use crate::ports::{Record, TopicPartition};

/// What the broker does not do, and its words on that.
pub(super) type Refusal = (Code, String);

/// A topic as we may see it.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    /// A UUID in 22 characters of URL-safe base64.
    pub(super) id: String,
    pub(super) partitions: usize,
    /// What we may do with it.
    pub(super) operations: Vec<Operation>,
}

/// The cluster's id. rdkafka's own call for it does not free the string that it is given.
pub(super) fn cluster_id<C: ClientContext>(client: &Client<C>, patience: Duration) -> Option<String> {
    // SAFETY: the client lives as long as the borrow; the call may be made from any thread.
    let text = unsafe { native::rd_kafka_clusterid(client.native_ptr(), milliseconds(patience)) };
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a string that ends in zero and belongs to us until it is freed below, after the copy.
    let id = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: librdkafka asks for its strings to be freed by this call, once.
    unsafe { native::rd_kafka_mem_free(client.native_ptr(), text.cast()) };
    Some(id)
}

/// Asks for one topic; `None`: no answer in time.
pub(super) fn describe_topic<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    patience: Duration,
) -> Option<Result<Topic, Refusal>> {
    let Ok(name) = CString::new(topic) else {
        return Some(Err((Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC, "no topic has such a name".to_owned())));
    };
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: the array holds one pointer to a string that outlives the call; librdkafka copies it.
    let topics = Owned::new(
        unsafe { native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1) },
        native::rd_kafka_TopicCollection_destroy,
    )?;
    let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let event = ask(client.native_ptr(), operation, patience, |client, options, queue| {
        // SAFETY: all four are alive. librdkafka copies topics and options and keeps its own reference to the queue, so an
        // answer after we gave up is dropped there.
        unsafe { native::rd_kafka_DescribeTopics(client, topics.0, options, queue) };
    })?;
    Some(event.topic())
}

/// Asks what we may do with a consumer group, which need not be there; `None`: no answer in time.
pub(super) fn group_operations<C: ClientContext>(
    client: &Client<C>,
    group: &str,
    patience: Duration,
) -> Option<Result<Vec<Operation>, Refusal>> {
    let Ok(name) = CString::new(group) else {
        return Some(Err((Code::RD_KAFKA_RESP_ERR__INVALID_ARG, "no group has such a name".to_owned())));
    };
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let event = ask(client.native_ptr(), operation, patience, |client, options, queue| {
        // SAFETY: as for topics; the array holds one pointer to a string that outlives the call and is copied.
        unsafe { native::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), 1, options, queue) };
    })?;
    Some(event.group())
}

fn milliseconds(patience: Duration) -> i32 {
    // Up: what waits for less than a millisecond again and again does not wait.
    i32::try_from(patience.as_micros().div_ceil(1_000)).unwrap_or(i32::MAX)
}

/// Sends a question that asks for our permissions too, and waits for the event that answers it.
fn ask(
    client: *mut native::rd_kafka_t,
    operation: native::rd_kafka_admin_op_t,
    patience: Duration,
    send: impl FnOnce(*mut native::rd_kafka_t, *const native::rd_kafka_AdminOptions_t, *mut native::rd_kafka_queue_t),
) -> Option<Event> {
    // SAFETY: the caller borrows the client for the length of this function.
    let options = Owned::new(
        unsafe { native::rd_kafka_AdminOptions_new(client, operation) },
        native::rd_kafka_AdminOptions_destroy,
    )?;
    // SAFETY: the options are alive; no buffer is given for the error text, and its length says so. A time-out out of
    // range is refused and leaves the default, which the wait below bounds as well.
    unsafe {
        let milliseconds = milliseconds(patience);
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, std::ptr::null_mut(), 0);
    }
    // SAFETY: the options are alive; an error is ours to destroy, and null where there is none.
    unsafe {
        let error = native::rd_kafka_AdminOptions_set_include_authorized_operations(options.0, 1);
        if !error.is_null() {
            native::rd_kafka_error_destroy(error);
        }
    }
    // SAFETY: the client is alive.
    let queue = Owned::new(unsafe { native::rd_kafka_queue_new(client) }, native::rd_kafka_queue_destroy)?;
    send(client, options.0, queue.0);
    // SAFETY: the queue is alive.
    let event = unsafe { native::rd_kafka_queue_poll(queue.0, milliseconds(patience)) };
    Owned::new(event, native::rd_kafka_event_destroy).map(Event)
}

/// A native object and how it is freed, once, on every path.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer, free))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: not null, made by librdkafka for us, freed nowhere else, and by the function that belongs to it.
        unsafe { (self.1)(self.0) };
    }
}

/// An answer.
struct Event(Owned<native::rd_kafka_event_t>);

impl Event {
    /// Its error and its text, if it is one as a whole.
    fn checked(&self) -> Result<(), Refusal> {
        let event = self.0.0;
        // SAFETY: the event is alive; the text belongs to it and is copied.
        let (code, reason) =
            unsafe { (native::rd_kafka_event_error(event), text(native::rd_kafka_event_error_string(event))) };
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err((code, reason)) }
    }

    /// The one topic asked about.
    fn topic(&self) -> Result<Topic, Refusal> {
        self.checked()?;
        let mut count = 0;
        // SAFETY: null if the event is another's answer, which is checked; else an array of `count` descriptions that
        // belong to the event, which outlives this function.
        let topic = unsafe {
            let result = native::rd_kafka_event_DescribeTopics_result(self.0.0);
            if result.is_null() {
                return Err(nothing());
            }
            let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if topics.is_null() || count == 0 {
                return Err(nothing());
            }
            *topics
        };
        let (mut partitions, mut operations) = (0, 0);
        // SAFETY: the description is alive with the event. Its error, if it has one, its operations and its id belong to
        // it; of the partitions only the count is read, and the id's text belongs to the id; all are copied.
        let (id, operations) = unsafe {
            refused(native::rd_kafka_TopicDescription_error(topic))?;
            native::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
            let first = native::rd_kafka_TopicDescription_authorized_operations(topic, &mut operations);
            let id = native::rd_kafka_TopicDescription_topic_id(topic);
            if id.is_null() {
                return Err(nothing());
            }
            (text(native::rd_kafka_Uuid_base64str(id)), copied(first, operations))
        };
        if id.is_empty() {
            return Err(nothing());
        }
        Ok(Topic { id, partitions, operations })
    }

    /// What may be done with the one group asked about.
    fn group(&self) -> Result<Vec<Operation>, Refusal> {
        self.checked()?;
        let (mut count, mut operations) = (0, 0);
        // SAFETY: as for topics.
        unsafe {
            let result = native::rd_kafka_event_DescribeConsumerGroups_result(self.0.0);
            if result.is_null() {
                return Err(nothing());
            }
            let groups = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
            if groups.is_null() || count == 0 {
                return Err(nothing());
            }
            let group = *groups;
            refused(native::rd_kafka_ConsumerGroupDescription_error(group))?;
            let first = native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &mut operations);
            Ok(copied(first, operations))
        }
    }
}

fn nothing() -> Refusal {
    (Code::RD_KAFKA_RESP_ERR__FAIL, "the answer is empty".to_owned())
}

/// An error of one of the things asked about.
///
/// # Safety
/// Null, or an error that is alive during the call.
unsafe fn refused(error: *const native::rd_kafka_error_t) -> Result<(), Refusal> {
    // SAFETY: by the contract above; null counts as no error, and the text is copied.
    unsafe {
        let code = native::rd_kafka_error_code(error);
        if code == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        Err((code, text(native::rd_kafka_error_string(error))))
    }
}

/// # Safety
/// Null, or the first of `count` operations that are alive during the call.
unsafe fn copied(first: *const Operation, count: usize) -> Vec<Operation> {
    if first.is_null() {
        return Vec::new();
    }
    // SAFETY: by the contract above.
    unsafe { std::slice::from_raw_parts(first, count) }.to_vec()
}

/// A copy of a C string; empty for null.
///
/// # Safety
/// Null, or a string that ends in zero and is not changed during the call.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: by the contract above.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// What a started partition has to tell.
pub(super) enum Delivery<'a> {
    /// A message.
    Record(Record<'a>),
    /// All below this offset has been delivered, and there was no more.
    End { topic: &'a str, partition: i32, offset: u64 },
    /// Something else, in librdkafka's words.
    Trouble { code: Code, reason: String },
}

/// Where the messages of all started partitions go: a queue apart from the client's own, so that one call takes what there
/// is, and rebalances, commits and errors of the client stay with rdkafka, which knows how to answer them.
///
/// Of librdkafka's two calls for many messages this takes the one with a callback. The other (`rd_kafka_consume_batch_queue`,
/// 2.12) counts the end of a partition as a message: a partition that is paused and resumed there goes on one too far.
pub(super) struct Records {
    queue: Owned<native::rd_kafka_queue_t>,
    /// Partitions that have been silent since they were started, and their own queues.
    silent: Vec<(TopicPartition, Owned<native::rd_kafka_queue_t>)>,
    /// Declared last, so that it outlives the queues.
    client: Arc<BaseConsumer<Context>>,
}

// SAFETY: librdkafka's queues may be used and destroyed by any thread, and the client is `Send` by itself.
unsafe impl Send for Records {}

impl Records {
    /// `None`: librdkafka has no memory left.
    pub(super) fn new(client: &Arc<BaseConsumer<Context>>) -> Option<Self> {
        // SAFETY: the client is alive, and is kept so by the reference that is taken below.
        let queue = unsafe { native::rd_kafka_queue_new(client.client().native_ptr()) };
        let queue = Owned::new(queue, native::rd_kafka_queue_destroy)?;
        Some(Self { queue, silent: Vec::new(), client: Arc::clone(client) })
    }

    /// Has the messages of a partition come here; to be called each time before librdkafka is told to read it. Else they
    /// go to the client's own queue. False: librdkafka does not do it.
    ///
    /// When librdkafka stops reading a partition it cuts its queue off, in its own thread and some time later; what comes
    /// then waits in the partition's own queue. So it is joined again until something has come of it: the cut is behind by
    /// then, since librdkafka does not read it before.
    pub(super) fn listen(&mut self, partition: &TopicPartition) -> bool {
        let Ok(topic) = CString::new(&*partition.topic) else { return false };
        let client = self.client.client().native_ptr();
        // SAFETY: the client is alive, and the name, which is copied, outlives the call.
        let own = unsafe { native::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition.partition) };
        let Some(own) = Owned::new(own, native::rd_kafka_queue_destroy) else { return false };
        // SAFETY: both queues are alive. The partition's takes a reference of its own to the other.
        unsafe { native::rd_kafka_queue_forward(own.0, self.queue.0) };
        self.forget(partition);
        self.silent.push((partition.clone(), own));
        true
    }

    /// Does no more for a partition that is read no longer.
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        self.silent.retain(|(silent, _)| silent != partition);
    }

    /// Hands over what there is, having waited at most `wait` for the first; answers how many. It ends after so many
    /// messages, or after the one with which their keys and values are so many bytes.
    pub(super) fn fetch(&mut self, wait: Duration, most: (usize, usize), on: &mut dyn FnMut(Delivery<'_>)) -> usize {
        let Records { queue, silent, client } = self;
        for (_, own) in &*silent {
            // SAFETY: as in `listen`.
            unsafe { native::rd_kafka_queue_forward(own.0, queue.0) };
        }
        let client = client.client().native_ptr();
        let mut call = Call { silent, on, count: 0, bytes: 0, most, client, panic: None };
        // SAFETY: the queue is alive. `deliver` is called by this thread, during this call only, and is given `call`, which
        // nobody else touches meanwhile.
        unsafe {
            native::rd_kafka_consume_callback_queue(
                queue.0,
                milliseconds(wait),
                Some(deliver),
                (&raw mut call).cast::<c_void>(),
            );
        }
        let Call { count, panic, .. } = call;
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        count
    }
}

/// One fetch, as its callback sees it.
struct Call<'a, 'b> {
    silent: &'a mut Vec<(TopicPartition, Owned<native::rd_kafka_queue_t>)>,
    on: &'a mut (dyn FnMut(Delivery<'_>) + 'b),
    count: usize,
    bytes: usize,
    most: (usize, usize),
    client: *mut native::rd_kafka_t,
    panic: Option<Box<dyn Any + Send>>,
}

/// Hands one message over; librdkafka takes it back afterwards.
///
/// # Safety
/// The message is librdkafka's and alive during the call, and `call` is a [`Call`] that nobody else uses meanwhile.
unsafe extern "C" fn deliver(message: *mut native::rd_kafka_message_t, call: *mut c_void) {
    // SAFETY: by the contract above; the lifetimes are those of the fetch that this is called from.
    let (message, call) = unsafe { (&*message, &mut *call.cast::<Call<'_, '_>>()) };
    call.count += 1;
    call.bytes += message.len + message.key_len;
    // A panic must not pass through librdkafka's frames: it goes on when these have returned.
    let told = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: by the contract above.
        let (topic, delivery) = unsafe { (topic_name(message.rkt), delivery(message)) };
        if !call.silent.is_empty() {
            let is = |name: &TopicPartition| name.partition == message.partition && *name.topic == *topic;
            call.silent.retain(|(name, _)| !is(name));
        }
        (call.on)(delivery);
    }));
    call.panic = told.err();
    if call.panic.is_some() || call.count >= call.most.0 || call.bytes >= call.most.1 {
        // SAFETY: the client is alive. What is left is put back to where it came from.
        unsafe { native::rd_kafka_yield(call.client) };
    }
}

/// The name of a message's topic; empty where it has none, or none of UTF-8, as all names of Kafka's are.
///
/// # Safety
/// Null, or a topic that lives as long as the answer is used.
unsafe fn topic_name<'a>(topic: *mut native::rd_kafka_topic_t) -> &'a str {
    if topic.is_null() {
        return "";
    }
    // SAFETY: by the contract above; the name belongs to the topic and ends in zero.
    unsafe { CStr::from_ptr(native::rd_kafka_topic_name(topic)) }.to_str().unwrap_or("")
}

/// # Safety
/// The message is librdkafka's, whole, and alive as long as the answer is used.
unsafe fn delivery(message: &native::rd_kafka_message_t) -> Delivery<'_> {
    let partition = message.partition;
    // SAFETY: by the contract above key and payload are null or have as many bytes as the message says, and the topic
    // lives as long as its message.
    let (topic, key, payload) =
        unsafe { (topic_name(message.rkt), bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
    match (message.err, u64::try_from(message.offset)) {
        (Code::RD_KAFKA_RESP_ERR_NO_ERROR, Ok(offset)) => {
            let mut kind = Timestamp::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            // SAFETY: as above.
            let timestamp = unsafe { native::rd_kafka_message_timestamp(message, &mut kind) };
            let is_dated = kind != Timestamp::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && timestamp != -1;
            let timestamp_ms = if is_dated { timestamp } else { 0 };
            Delivery::Record(Record { topic, partition, offset, timestamp_ms, key, payload })
        }
        (Code::RD_KAFKA_RESP_ERR__PARTITION_EOF, Ok(offset)) => Delivery::End { topic, partition, offset },
        (code, _) => {
            // The text of an error stands where a message has its payload.
            let reason = String::from_utf8_lossy(payload.unwrap_or_default()).into_owned();
            Delivery::Trouble { code, reason }
        }
    }
}

/// # Safety
/// Null, or the first of so many bytes that are not changed as long as the answer is used.
unsafe fn bytes<'a>(first: *const c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: by the contract above.
    (!first.is_null()).then(|| unsafe { std::slice::from_raw_parts(first.cast(), length) })
}
