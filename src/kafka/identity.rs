//! Who a topic is: the ids of its cluster and of itself, which tell a topic made anew from the one that was deleted.
#![allow(
    unsafe_code,
    reason = "rdkafka has no safe call for topic ids; librdkafka's DescribeTopics is reached through its C interface, and every unsafe block of this crate is in this file"
)]

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use rdkafka::bindings as native;
use rdkafka::client::{Client, ClientContext};

/// Who a topic is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TopicIdentity {
    /// The cluster's id, as Kafka prints it.
    pub cluster_id: String,
    /// The topic's id, as Kafka prints it: a UUID in 22 characters of URL-safe base64.
    pub topic_id: String,
    /// How many partitions it has.
    pub partitions: usize,
}

/// Why a topic's identity is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The cluster answered and knows no such topic.
    #[error("the Kafka topic {0} does not exist: create it, or correct its name")]
    NotFound(String),
    /// No answer in time, or one that passes.
    #[error("Kafka did not say who the topic {topic} is: {reason}; asked again later, check that the brokers are up")]
    Away {
        /// The topic asked about.
        topic: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The brokers do not take our name, password or mechanism.
    #[error("Kafka does not let us in to ask for the topic {topic}: {reason}")]
    Credentials {
        /// The topic asked about.
        topic: String,
        /// What the broker says, and which setting to look at.
        reason: String,
    },
    /// The answer will not change by itself.
    #[error("Kafka refuses to describe the topic {topic}: {reason}; check this client's permissions and the name")]
    Refused {
        /// The topic asked about.
        topic: String,
        /// What the broker says.
        reason: String,
    },
}

/// Asks the cluster who `topic` is, waiting at most `patience` for each of two answers.
///
/// # Errors
/// The topic does not exist, the cluster does not answer, or it refuses.
pub fn topic_identity<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    patience: Duration,
) -> Result<TopicIdentity, IdentityError> {
    let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let away = |reason: &str| IdentityError::Away { topic: topic.to_owned(), reason: reason.to_owned() };
    let cluster_id = cluster_id(client, milliseconds).ok_or_else(|| away("the cluster did not tell its id"))?;
    let name = CString::new(topic).map_err(|_| IdentityError::NotFound(topic.to_owned()))?;
    let event = describe(client, &name, milliseconds).ok_or_else(|| away("no answer in time"))?;
    let described = event.topic();
    let (code, reason) = match &described {
        Ok((topic_id, partitions)) => {
            return Ok(TopicIdentity { cluster_id, topic_id: topic_id.clone(), partitions: *partitions });
        }
        Err((code, reason)) => (*code, reason.clone()),
    };
    use native::rd_kafka_resp_err_t as Code;
    let topic = topic.to_owned();
    Err(match code {
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => {
            IdentityError::NotFound(topic)
        }
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | Code::RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
        | Code::RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION
        | Code::RD_KAFKA_RESP_ERR__INVALID_ARG
        | Code::RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE => IdentityError::Refused { topic, reason },
        _ => IdentityError::Away { topic, reason },
    })
}

/// The cluster's id. rdkafka's own call for it does not free the string that it is given.
fn cluster_id<C: ClientContext>(client: &Client<C>, milliseconds: i32) -> Option<String> {
    // SAFETY: the client lives as long as the borrow; the call may be made from any thread.
    let text = unsafe { native::rd_kafka_clusterid(client.native_ptr(), milliseconds) };
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, so it is a string that ends in zero and belongs to us until it is freed below, after the copy.
    let id = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: librdkafka asks for its strings to be freed by this call, once.
    unsafe { native::rd_kafka_mem_free(client.native_ptr(), text.cast()) };
    Some(id)
}

/// Sends the question and waits for the event that answers it.
fn describe<C: ClientContext>(client: &Client<C>, name: &CStr, milliseconds: i32) -> Option<Event> {
    let client = client.native_ptr();
    let mut names: [*const c_char; 1] = [name.as_ptr()];
    // SAFETY: the array holds one pointer to a string that outlives the call; librdkafka copies it.
    let topics = Owned::new(
        unsafe { native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), 1) },
        native::rd_kafka_TopicCollection_destroy,
    )?;
    let operation = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: the client is alive for the length of this function.
    let options = Owned::new(
        unsafe { native::rd_kafka_AdminOptions_new(client, operation) },
        native::rd_kafka_AdminOptions_destroy,
    )?;
    // SAFETY: the options are alive; no buffer is given for the error text, and its length says so. A time-out out of
    // range is refused and leaves the default, which the wait below bounds as well.
    unsafe {
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, milliseconds, std::ptr::null_mut(), 0);
    }
    // SAFETY: the client is alive.
    let queue = Owned::new(unsafe { native::rd_kafka_queue_new(client) }, native::rd_kafka_queue_destroy)?;
    // SAFETY: all four are alive. librdkafka copies topics and options and keeps its own reference to the queue, so an
    // answer after we gave up is dropped there.
    unsafe { native::rd_kafka_DescribeTopics(client, topics.0, options.0, queue.0) };
    // SAFETY: the queue is alive.
    let event = unsafe { native::rd_kafka_queue_poll(queue.0, milliseconds) };
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

/// An answer to DescribeTopics.
struct Event(Owned<native::rd_kafka_event_t>);

impl Event {
    /// The id and the number of partitions of the one topic asked about, or the error and its text.
    fn topic(&self) -> Result<(String, usize), (native::rd_kafka_resp_err_t, String)> {
        use native::rd_kafka_resp_err_t as Code;
        let event = self.0.0;
        // SAFETY: the event is alive; the text belongs to it and is copied.
        let (code, reason) =
            unsafe { (native::rd_kafka_event_error(event), text(native::rd_kafka_event_error_string(event))) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err((code, reason));
        }
        let nothing = || (Code::RD_KAFKA_RESP_ERR__FAIL, "the answer is empty".to_owned());
        let mut count = 0;
        // SAFETY: null if the event is another's answer, which is checked; else an array of `count` descriptions that
        // belong to the event, which outlives this function.
        let topic = unsafe {
            let result = native::rd_kafka_event_DescribeTopics_result(event);
            if result.is_null() {
                return Err(nothing());
            }
            let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
            if topics.is_null() || count == 0 {
                return Err(nothing());
            }
            *topics
        };
        // SAFETY: the description is alive with the event. Its error, if it has one, belongs to it; texts are copied.
        unsafe {
            let error = native::rd_kafka_TopicDescription_error(topic);
            let code = native::rd_kafka_error_code(error);
            if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err((code, text(native::rd_kafka_error_string(error))));
            }
        }
        let mut partitions = 0;
        // SAFETY: as above; of the partitions only the count is read, and the id's text belongs to the id, which
        // belongs to the description.
        let id = unsafe {
            native::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
            let id = native::rd_kafka_TopicDescription_topic_id(topic);
            if id.is_null() {
                return Err(nothing());
            }
            text(native::rd_kafka_Uuid_base64str(id))
        };
        if id.is_empty() {
            return Err(nothing());
        }
        Ok((id, partitions))
    }
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
