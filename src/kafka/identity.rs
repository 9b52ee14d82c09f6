//! Who a topic is: the ids of its cluster and of itself, which tell a topic made anew from the one that was deleted.

use std::time::Duration;

use rdkafka::bindings::rd_kafka_resp_err_t as Code;
use rdkafka::client::{Client, ClientContext};

use super::native;

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
    #[error(
        "Kafka refuses to describe the topic {topic}: {reason}; check its name, and with `highwater check` what our user may do"
    )]
    Refused {
        /// The topic asked about.
        topic: String,
        /// What the broker says.
        reason: String,
    },
}

fn away(topic: &str, reason: &str) -> IdentityError {
    IdentityError::Away { topic: topic.to_owned(), reason: reason.to_owned() }
}

/// The id of the cluster, asked for the sake of a topic.
///
/// # Errors
/// It was not told in time.
pub fn cluster_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    patience: Duration,
) -> Result<String, IdentityError> {
    native::cluster_id(client, patience).ok_or_else(|| away(topic, "the cluster did not tell its id"))
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
    let cluster_id = cluster_id(client, topic, patience)?;
    let (code, reason) = match native::describe_topic(client, topic, patience) {
        None => return Err(away(topic, "no answer in time")),
        Some(Ok(native::Topic { id: topic_id, partitions, .. })) => {
            return Ok(TopicIdentity { cluster_id, topic_id, partitions });
        }
        Some(Err(refusal)) => refusal,
    };
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
