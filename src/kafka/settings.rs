//! How a consumer is configured: what the engine fixes, what it recommends, and what an operator may add.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use super::properties::{Verdict, judge};

/// How the members of a group agree on who reads which partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GroupProtocol {
    /// The members agree among themselves, cooperative-sticky; works with any broker.
    #[default]
    Classic,
    /// The broker decides (KIP-848, Kafka 4.0 and later).
    Consumer,
}

/// What a consumer needs to know.
#[derive(Clone, Default)]
pub struct ConsumerSettings {
    /// Bootstrap servers, `host:port[,host:port…]`.
    pub brokers: String,
    /// Consumer group.
    pub group: String,
    /// Name under which brokers log this client.
    pub client_id: String,
    /// Topics to subscribe to, by exact name.
    pub topics: Vec<String>,
    /// Group protocol.
    pub protocol: GroupProtocol,
    /// Further librdkafka properties, how to get in among them; those that the engine fixes are refused.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for ConsumerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Properties hold passwords: their names are enough.
        f.debug_struct("ConsumerSettings")
            .field("brokers", &self.brokers)
            .field("group", &self.group)
            .field("client_id", &self.client_id)
            .field("topics", &self.topics)
            .field("protocol", &self.protocol)
            .field("properties", &self.properties.keys())
            .finish()
    }
}

/// Why a client could not be configured or created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The property is one that delivery depends on.
    #[error(
        "Kafka property `{0}` is fixed by the engine, because exactly-once delivery depends on it: remove it from the properties (brokers, group, client id and group protocol have settings of their own)"
    )]
    Fixed(String),
    /// No topic to subscribe to.
    #[error("no topic is named: name at least one Kafka topic to read")]
    NoTopic,
    /// librdkafka refused the configuration or could not start.
    #[error("cannot create the Kafka client: {0}; check the properties against librdkafka's list")]
    Client(String),
}

/// Defaults that differ from librdkafka's, and may be overridden.
const RECOMMENDED: &[(&str, &str)] = &[
    // Prefetched messages of one consumer, whatever the number of its partitions. librdkafka adds some 350 bytes to each, and
    // goes over by one answer of a broker: that is bounded before it is unpacked, to several times its size.
    ("queued.max.messages.kbytes", "8192"),
    ("fetch.max.bytes", "2097152"),
    // librdkafka waits a second before it fetches again once that queue was full: far longer than emptying it takes.
    ("fetch.queue.backoff.ms", "20"),
    // A broker with little to give waits for more of it, for so long: many small answers cost a third of a client that has
    // little to do, and a batch is open for seconds.
    ("fetch.min.bytes", "65536"),
    ("fetch.wait.max.ms", "250"),
    // A topic made after the consumer started, and partitions added, are noticed this fast.
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("reconnect.backoff.max.ms", "2000"),
    // A broker closes idle connections; that is no news.
    ("log.connection.close", "false"),
];

/// How often a member of a classic group is heard of, and hears that the group has changed: how soon it takes over what
/// another one left. Under the brokers' own protocol they set it (`group.consumer.heartbeat.interval.ms`).
const HEARTBEAT: (&str, &str) = ("heartbeat.interval.ms", "500");

impl ConsumerSettings {
    /// The configuration for librdkafka.
    ///
    /// # Errors
    /// No topic is named, or a property is set that the engine fixes.
    pub fn client_config(&self) -> Result<ClientConfig, SettingsError> {
        if self.topics.is_empty() {
            return Err(SettingsError::NoTopic);
        }
        let mut config = base(&self.brokers, &self.client_id);
        for (key, value) in RECOMMENDED {
            config.set(*key, *value);
        }
        if self.protocol == GroupProtocol::Classic {
            config.set(HEARTBEAT.0, HEARTBEAT.1);
        }
        for (key, value) in &self.properties {
            match judge(key) {
                Verdict::Fixed(_) | Verdict::Setting("brokers" | "group" | "protocol") => {
                    return Err(SettingsError::Fixed(key.clone()));
                }
                Verdict::Free | Verdict::Setting(_) => config.set(key, value),
            };
        }
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "true");
        match self.protocol {
            GroupProtocol::Classic => config.set("partition.assignment.strategy", "cooperative-sticky"),
            GroupProtocol::Consumer => config.set("group.protocol", "consumer"),
        };
        Ok(config)
    }
}

/// What every client has: where, and under which name.
pub(super) fn base(brokers: &str, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("client.id", client_id).set_log_level(RDKafkaLogLevel::Info);
    config
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::super::properties::FIXED;
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> ConsumerSettings {
        ConsumerSettings {
            brokers: "localhost:9092".into(),
            group: "group".into(),
            client_id: "client".into(),
            topics: vec!["events".into()],
            protocol: GroupProtocol::Classic,
            properties: properties.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
        }
    }

    #[test]
    fn every_fixed_property_is_refused_by_name() {
        let own = ["bootstrap.servers", "metadata.broker.list", "group.id", "group.protocol"];
        for key in FIXED.iter().map(|(key, _)| *key).chain(own) {
            let error = settings(&[(key, "x")]).client_config().unwrap_err();
            assert_eq!(error, SettingsError::Fixed(key.into()));
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    #[test]
    fn passwords_are_handed_on_and_never_shown() {
        let settings = settings(&[("sasl.password", "hunter2"), ("security.protocol", "sasl_ssl")]);
        assert_eq!(settings.client_config().unwrap().get("sasl.password"), Some("hunter2"));
        let shown = format!("{settings:?}");
        assert!(!shown.contains("hunter2") && shown.contains("sasl.password"), "{shown}");
    }

    #[test]
    fn others_are_passed_on_and_win_over_the_recommended() {
        let config = settings(&[("fetch.wait.max.ms", "7"), ("group.instance.id", "a")]).client_config().unwrap();
        assert_eq!(config.get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(config.get("group.instance.id"), Some("a"));
        assert_eq!(config.get("isolation.level"), Some("read_committed"));
        assert_eq!(config.get("auto.offset.reset"), Some("error"));
    }

    #[test]
    fn the_broker_side_protocol_has_no_assignment_strategy() {
        let mut settings = settings(&[]);
        settings.protocol = GroupProtocol::Consumer;
        let config = settings.client_config().unwrap();
        assert_eq!(config.get("group.protocol"), Some("consumer"));
        assert_eq!(config.get("partition.assignment.strategy"), None);
    }

    #[test]
    fn no_topic_is_an_error() {
        let mut settings = settings(&[]);
        settings.topics.clear();
        assert_eq!(settings.client_config().unwrap_err(), SettingsError::NoTopic);
    }
}
