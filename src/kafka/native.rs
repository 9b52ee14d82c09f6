//! What rdkafka has no safe call for: librdkafka's DescribeTopics, DescribeConsumerGroups and ListOffsets, through its C
//! interface; and the end of a process that has clients.
#![allow(
    unsafe_code,
    reason = "rdkafka has no safe call for topic ids, permissions and offsets by isolation, and std none for an end without C's \
              handlers; all that is unsafe about these is in this file"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::bindings::{rd_kafka_AclOperation_t as Operation, rd_kafka_resp_err_t as Code};
use rdkafka::client::{Client, ClientContext};
use rdkafka::topic_partition_list::TopicPartitionList;

use crate::ports::TopicPartition;

/// Ends the process beside clients that are still at work, or being closed, on other threads.
///
/// C's handlers of an exit are left out: OpenSSL's, for one, frees what the clients' threads use. One in some hundreds of ends
/// beside a client that was being closed was by a signal, without an exit code. What Rust holds back for standard output is
/// written.
pub fn end_process(code: u8) -> ! {
    let _ = std::io::stdout().flush(); // who reads it may be gone
    // SAFETY: it takes an integer, and may be called at any time from any thread.
    unsafe { libc::_exit(code.into()) }
}

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

/// Which records count where a partition's last offset is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Isolation {
    /// Those of committed transactions, up to the first that is open.
    Committed,
    /// All.
    Uncommitted,
}

/// Offsets, or why there is none. A negative number: no answer in time.
pub(super) type Offsets = BTreeMap<TopicPartition, Result<i64, Code>>;

/// Asks the leaders of partitions for the offsets that `wanted` names: the beginning or the end. Who leads is taken from what
/// the client knows of the cluster. Each partition has an answer of its own: a broker that is away or leads no longer keeps
/// only its own back.
pub(super) fn offsets<C: ClientContext>(
    client: &Client<C>,
    wanted: &TopicPartitionList,
    isolation: Isolation,
    patience: Duration,
) -> Result<Offsets, Refusal> {
    use native::rd_kafka_IsolationLevel_t as Level;
    let level = match isolation {
        Isolation::Committed => Level::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED,
        Isolation::Uncommitted => Level::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED,
    };
    // A while before we give up, so that the answers of the other brokers are heard.
    let until = milliseconds(patience * 9 / 10);
    let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
    let event = ask(client.native_ptr(), operation, patience, |client, options, queue| {
        // SAFETY: the options are alive; errors as in `ask`.
        unsafe {
            native::rd_kafka_AdminOptions_set_request_timeout(options, until, std::ptr::null_mut(), 0);
            let error = native::rd_kafka_AdminOptions_set_isolation_level(options, level);
            if !error.is_null() {
                native::rd_kafka_error_destroy(error);
            }
        }
        // SAFETY: as for topics; the list outlives the call and is copied.
        unsafe { native::rd_kafka_ListOffsets(client, wanted.ptr(), options, queue) };
    });
    let late = || (Code::RD_KAFKA_RESP_ERR__TIMED_OUT, "no answer in time".to_owned());
    event.ok_or_else(late)?.offsets()
}

fn milliseconds(patience: Duration) -> i32 {
    i32::try_from(patience.as_millis()).unwrap_or(i32::MAX)
}

/// Sends a question that asks for our permissions too, and waits for the event that answers it.
fn ask(
    client: *mut native::rd_kafka_t,
    operation: native::rd_kafka_admin_op_t,
    patience: Duration,
    send: impl FnOnce(*mut native::rd_kafka_t, *mut native::rd_kafka_AdminOptions_t, *mut native::rd_kafka_queue_t),
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
pub(super) struct Owned<T>(pub(super) *mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    pub(super) fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
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

    /// The offsets asked for.
    fn offsets(&self) -> Result<Offsets, Refusal> {
        self.checked()?;
        let mut count = 0;
        let mut offsets = Offsets::new();
        // SAFETY: as for topics; each of the `count` answers has a partition, whose name belongs to it and is copied.
        unsafe {
            let result = native::rd_kafka_event_ListOffsets_result(self.0.0);
            if result.is_null() {
                return Err(nothing());
            }
            let first = native::rd_kafka_ListOffsets_result_infos(result, &mut count);
            for number in 0..count {
                let found = native::rd_kafka_ListOffsetsResultInfo_topic_partition(*first.add(number));
                let name = TopicPartition { topic: Arc::from(text((*found).topic)), partition: (*found).partition };
                let answer = match code(std::ptr::addr_of!((*found).err)) {
                    Code::RD_KAFKA_RESP_ERR_NO_ERROR => Ok((*found).offset),
                    error => Err(error),
                };
                offsets.insert(name, answer);
            }
        }
        Ok(offsets)
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

/// An error's number, which a broker may have sent: one that rdkafka has no name for would not be a value of its enum.
///
/// # Safety
/// Alive during the call.
pub(super) unsafe fn code(error: *const Code) -> Code {
    // SAFETY: by the contract above; the enum is an `i32`.
    let number = unsafe { error.cast::<i32>().read() };
    Code::try_from(number).unwrap_or(Code::RD_KAFKA_RESP_ERR_UNKNOWN)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    const ENDED: &str = "HIGHWATER_TEST_ENDED";

    extern "C" fn told() {
        let _ = std::io::stderr().write_all(b"a handler ran");
    }

    #[test]
    fn an_end_runs_no_handler_and_writes_what_is_held_back() {
        if std::env::var_os(ENDED).is_some() {
            // SAFETY: the handler is a function of the program that takes nothing.
            assert_eq!(unsafe { libc::atexit(told) }, 0);
            print!("held back");
            end_process(7);
        }
        let name = "kafka::native::tests::an_end_runs_no_handler_and_writes_what_is_held_back";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(ENDED, "1").output().unwrap();
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(7), "{out}{error}");
        assert!(out.ends_with("held back") && !error.contains("a handler ran"), "{out}{error}");
    }
}
