//! What one setting can't tell alone: addresses, what must fit together, what librdkafka says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{IsError as _, KafkaError};
use rdkafka::types::RDKafkaConfRes;

use super::reader::Reader;
use super::value::{Properties, Property};
use super::words::{AlertFraming, Compression, Protocol};
use super::{
    AlertSettings, ClickhouseSettings, ForwardSettings, RegistrySettings, Settings, nearest, secure, variable,
};
use crate::clickhouse::{Endpoint, EndpointError, QueryLimits, Retention};
use crate::evaluator;
use crate::forward::{self, AddressError, Kind, Manner, Target};
use crate::kafka::properties::{FREE, Verdict, judge};
use crate::kafka::{ConsumerSettings, GroupProtocol};
use crate::plan::{Limits, Plan};
use crate::ports::TopicPartition;
use crate::registry;
use crate::tls::TlsFiles;

/// librdkafka's default for `session.timeout.ms`.
const SESSION_TIMEOUT_MS: u64 = 45_000;
/// Bytes of batches that all replicas write to one ClickHouse within a second at most, as batches are counted in memory:
/// some 300,000 events of 250 bytes. Who writes more has to remember more tokens than [`Settings::tokens_needed`] says.
const FASTEST: u64 = 100 << 20;
/// Bytes in memory of a small event.
const LEAST_EVENT: u64 = 256;

/// Checks the settings as a whole and fetches the secrets; what is wrong goes to the reader.
pub(super) fn check(mut settings: Settings, reader: &mut Reader) -> Settings {
    check_brokers(&settings, reader);
    check_properties(&settings, reader);
    secure::check_kafka(&settings.kafka, reader);
    secure::check_clickhouse(&settings, reader);
    check_database(&settings.clickhouse.database, reader);
    check_registry(&settings, reader);
    check_alerts(&settings, reader);
    if settings.memory.limit.0 < 2 * settings.batch.bytes.0 {
        let message = format!(
            "found {} bytes, and batch.bytes is {}; allowed is at least twice batch.bytes: one batch is written while \
             the next fills",
            settings.memory.limit.0, settings.batch.bytes.0
        );
        reader.problem("memory.limit", message);
    }
    secure::fetch(&mut settings, reader);
    secure::check_forward(&settings, reader);
    settings
}

fn check_brokers(settings: &Settings, reader: &mut Reader) {
    for broker in &settings.kafka.brokers {
        if broker.contains(['@', '/']) {
            // The address is not repeated: it may hold a password.
            let message = format!(
                "found something else in {}; allowed is host:port and no more: how to get in is said by kafka.security, \
                 kafka.username and kafka.password",
                reader.origin("kafka", "brokers")
            );
            reader.problem("kafka.brokers", message);
            continue;
        }
        let port = broker.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) {
            let message = format!(
                "found {broker:?} in {}; allowed is host:port, as in \"kafka-1:9092\"",
                reader.origin("kafka", "brokers")
            );
            reader.problem("kafka.brokers", message);
        }
    }
    let mut seen = BTreeSet::new();
    for topic in &settings.kafka.topics {
        let legal = is_topic(topic);
        if !legal || !seen.insert(topic) {
            let message = format!(
                "found {topic:?} in {}; allowed are topics named once each, of letters, digits, '.', '_' and '-'",
                reader.origin("kafka", "topics")
            );
            reader.problem("kafka.topics", message);
        }
    }
}

/// Whether Kafka takes it for a topic's name.
fn is_topic(name: &str) -> bool {
    name.len() <= 249
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn check_alerts(settings: &Settings, reader: &mut Reader) {
    let alerts = &settings.alerts;
    let Some(topic) = &alerts.topic else { return };
    let mut taken: Vec<&String> = settings.kafka.topics.iter().collect();
    for (key, name) in [("topic", topic), ("budget_topic", &alerts.budget_topic)] {
        if !is_topic(name) || taken.contains(&name) {
            let message = format!(
                "found {name:?} in {}; allowed is a topic of its own, of letters, digits, '.', '_' and '-'",
                reader.origin("alerts", key)
            );
            reader.problem(format!("alerts.{key}"), message);
        }
        taken.push(name);
    }
    if alerts.framing == AlertFraming::Confluent && settings.registry.url.is_none() {
        let message =
            "found \"confluent\", and registry.url names no registry; allowed is \"single_object\" without one";
        reader.problem("alerts.framing", message.to_owned());
    }
}

/// Judges each property by itself, so that all bad ones are told, and none with its value.
fn check_properties(settings: &Settings, reader: &mut Reader) {
    for (name, property) in &settings.kafka.properties.0 {
        if let Some(problem) = property_problem(settings, name, property) {
            reader.problem(format!("kafka.properties.{name}"), problem);
        }
    }
}

fn property_problem(settings: &Settings, name: &str, property: &Property) -> Option<String> {
    match judge(name) {
        Verdict::Setting(setting) => return Some(format!("has a setting of its own, kafka.{setting}; use that")),
        Verdict::Fixed(reason) => {
            return Some(format!("is fixed, for exactly-once delivery depends on it: {reason}; take it away"));
        }
        Verdict::Free => {}
    }
    if Properties::is_secret(name) && property.exposed {
        let variable = variable(&format!("kafka.properties.{name}"));
        return Some(format!(
            "is a secret, found where others can read it; allowed is the environment variable {variable}"
        ));
    }
    if name == "group.instance.id" && settings.workers > 1 {
        let workers = settings.workers;
        return Some(format!("names one member of the group, and this process has {workers}: set workers = 1"));
    }
    let mut config = rdkafka::ClientConfig::new();
    match config.set(name, &property.value).create_native_config() {
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            let hint = match nearest(name, FREE.iter().copied()) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => String::new(),
            };
            Some(format!("librdkafka has no such property{hint}"))
        }
        // librdkafka's sentence may repeat the value.
        Err(KafkaError::ClientConfig(result, reason, _, _))
            if result.is_error() && !Properties::is_secret(name) && !reason.contains(&property.value) =>
        {
            Some(format!("librdkafka does not take its value: {reason}"))
        }
        Err(_) => Some("librdkafka does not take its value".to_owned()),
        Ok(_) => None,
    }
}

fn check_registry(settings: &Settings, reader: &mut Reader) {
    secure::check_registry(settings, reader);
    let nameless = settings.registry.user.is_none();
    let secret = !settings.registry.password.reveal().is_empty() || settings.registry.password_file.is_some();
    if nameless && secret {
        reader
            .problem("registry.user", "not set, and the registry's password is; allowed is a user with it".to_owned());
    }
}

fn check_database(database: &str, reader: &mut Reader) {
    let legal = database.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !database.starts_with(|c: char| c.is_ascii_digit());
    if !legal {
        let message = format!(
            "found {database:?} in {}; allowed are letters, digits and '_', no digit first",
            reader.origin("clickhouse", "database")
        );
        reader.problem("clickhouse.database", message);
    }
}

impl ClickhouseSettings {
    /// What TLS with ClickHouse needs.
    pub(super) fn files(&self) -> TlsFiles {
        TlsFiles {
            ca_file: self.ca_file.clone(),
            certificate_file: self.certificate_file.clone(),
            key_file: self.key_file.clone(),
        }
    }
}

impl RegistrySettings {
    /// What TLS with the registry needs.
    pub(super) fn files(&self) -> TlsFiles {
        TlsFiles {
            ca_file: self.ca_file.clone(),
            certificate_file: self.certificate_file.clone(),
            key_file: self.key_file.clone(),
        }
    }
}

impl ForwardSettings {
    /// What TLS with the targets needs.
    pub(super) fn files(&self) -> TlsFiles {
        TlsFiles {
            ca_file: self.ca_file.clone(),
            certificate_file: self.certificate_file.clone(),
            key_file: self.key_file.clone(),
        }
    }
}

impl Settings {
    /// How alerts are handed on.
    pub fn manner(&self) -> Manner {
        let ForwardSettings { timeout, give_up, resend, silent_after, link, .. } = &self.forward;
        Manner {
            timeout: *timeout,
            give_up: *give_up,
            resend: *resend,
            silent_after: Some(*silent_after).filter(|limit| !limit.is_zero()),
            heartbeat: self.alerts.heartbeat,
            link: link.clone(),
        }
    }

    /// Who of a kind is told of alerts; `None`: nobody.
    ///
    /// # Errors
    /// Its URL is none that can be used.
    pub fn target(&self, kind: Kind) -> Result<Option<Target>, AddressError> {
        let url = match kind {
            Kind::Webhook => &self.forward.webhook_url,
            Kind::Slack => &self.forward.slack_url,
            Kind::Alertmanager => &self.forward.alertmanager_url,
        };
        if url.reveal().is_empty() {
            return Ok(None);
        }
        let addresses = forward::addresses(kind, url.reveal(), &self.forward.files())?;
        Ok(Some(Target { kind, addresses }))
    }

    /// What the consumer of one worker needs, under the name that brokers log it by.
    pub fn consumer(&self, client_id: &str) -> ConsumerSettings {
        ConsumerSettings {
            brokers: self.kafka.brokers.join(","),
            group: self.kafka.group.clone(),
            client_id: client_id.to_owned(),
            topics: self.kafka.topics.clone(),
            protocol: match self.kafka.protocol {
                Protocol::Classic => GroupProtocol::Classic,
                Protocol::Consumer => GroupProtocol::Consumer,
            },
            properties: self.client_properties(),
        }
    }

    /// What every client of Kafka is told beside the brokers: how to get in, and what the operator adds.
    pub fn client_properties(&self) -> BTreeMap<String, String> {
        let given = self.kafka.properties.0.iter().map(|(name, property)| (name.clone(), property.value.clone()));
        given.chain(secure::properties(&self.kafka)).collect()
    }

    /// Where ClickHouse is.
    ///
    /// # Errors
    /// Its URL is none that can be used.
    pub fn endpoint(&self) -> Result<Endpoint, EndpointError> {
        let ClickhouseSettings { url, database, user, password, .. } = &self.clickhouse;
        Ok(Endpoint {
            connect_timeout: self.clickhouse.connect_timeout,
            insert_timeout: self.clickhouse.insert_timeout,
            compressed: self.clickhouse.compression == Compression::Lz4,
            ..Endpoint::open(url, database, user, password.reveal(), &self.clickhouse.files())?
        })
    }

    /// Where the schema registry is; `None`: there is none.
    ///
    /// # Errors
    /// Its URL is none that can be used.
    pub fn registry(&self) -> Result<Option<registry::Endpoint>, registry::EndpointError> {
        let RegistrySettings { url, user, password, timeout, .. } = &self.registry;
        let Some(url) = url else { return Ok(None) };
        let (user, files) = (user.as_deref().unwrap_or_default(), self.registry.files());
        registry::Endpoint::open(url, user, password.reveal(), *timeout, &files).map(Some)
    }

    /// What the evaluator of alerts needs to know; `None`: nothing is to be judged.
    ///
    /// # Errors
    /// As [`Settings::endpoint`] and [`Settings::registry`].
    pub fn evaluator(&self) -> anyhow::Result<Option<evaluator::Settings>> {
        let AlertSettings { topic, budget_topic, framing, interval, heartbeat, correct_within, .. } = &self.alerts;
        let AlertSettings { memory, query_time, query_memory, query_rows, .. } = &self.alerts;
        let (Some(topic), Some(first)) = (topic, self.kafka.topics.first()) else { return Ok(None) };
        let minutes = correct_within.as_secs().div_ceil(60);
        Ok(Some(evaluator::Settings {
            topic: topic.clone(),
            budget_topic: budget_topic.clone(),
            registry: if *framing == AlertFraming::Confluent { self.registry()? } else { None },
            interval: *interval,
            heartbeat: *heartbeat,
            horizon: i64::try_from(minutes)?,
            consumer: self.consumer("highwater-alerts"),
            endpoint: self.endpoint()?,
            home: TopicPartition { topic: Arc::from(first.as_str()), partition: 0 },
            memory: usize::try_from(memory.0)?,
            limits: QueryLimits { time: *query_time, memory: query_memory.0, rows: *query_rows },
            kept_days: self.retention.raw.0,
        }))
    }

    /// Whether alerts are judged: there is a topic to tell of them, and a rule or budget in the packs.
    pub fn judges(&self, plan: &Plan) -> bool {
        self.alerts.topic.is_some() && !plan.alerts.is_empty()
    }

    /// What packs have and nobody judges, where no topic is named, and what to do about it.
    pub fn unjudged(&self, plan: &Plan) -> Option<String> {
        let is_unjudged = self.alerts.topic.is_none() && !plan.alerts.is_empty();
        let (rules, budgets) = (plan.alerts.rules.len(), plan.alerts.budgets.len());
        is_unjudged.then(|| {
            format!(
                "{rules} rules and {budgets} budgets of the packs are not judged, as alerts.topic is \"\"; name a topic, such as \
                 \"highwater-alerts\", to be told of them"
            )
        })
    }

    /// How long tables keep what they have.
    pub fn tables(&self) -> Retention {
        Retention {
            events_days: self.retention.raw.0,
            rollups_days: self.retention.rollups.0,
            dead_letters_days: self.retention.dead_letters.0,
            token_window: self.clickhouse.token_window,
        }
    }

    /// Tokens that tables have to remember for so many partitions: what can be sealed in ten session time-outs, which is
    /// as long as a writer that was given up may still have an insert on its way.
    ///
    /// Each partition seals a batch whenever one is old enough. Beyond that each byte is written once, 100 MiB of them a
    /// second at most, in batches that are full, or in what partitions hold when memory is: then one that is in flight and one
    /// that fills, of each partition, for every half of the memory.
    pub fn tokens_needed(&self, partitions: usize) -> u64 {
        let millis = u128::from(self.session_millis().saturating_mul(10));
        let partitions = partitions as u128;
        let aged = millis.div_ceil(self.batch.interval.as_millis().max(1)) * partitions;
        let bytes = millis * u128::from(FASTEST) / 1_000;
        let full = u128::from(self.batch.bytes.0.min(self.batch.rows.saturating_mul(LEAST_EVENT)).max(1));
        let early = (4 * bytes * partitions).div_ceil(u128::from(self.memory.limit.0.max(1)));
        u64::try_from(aged + bytes.div_ceil(full).max(early)).unwrap_or(u64::MAX)
    }

    /// How long marks may be built on: half of the time that tokens last, so that an insert has the other half to arrive in.
    pub fn marks_last(&self) -> Duration {
        Duration::from_millis(self.session_millis().saturating_mul(5))
    }

    fn session_millis(&self) -> u64 {
        let session = self.kafka.properties.0.get("session.timeout.ms").and_then(|set| set.value.trim().parse().ok());
        session.unwrap_or(SESSION_TIMEOUT_MS)
    }

    /// What is to be done if tables remember too few tokens for so many partitions.
    pub fn tokens_lacking(&self, partitions: usize) -> Option<String> {
        let (needed, window) = (self.tokens_needed(partitions), self.clickhouse.token_window);
        (needed > window).then(|| {
            format!(
                "{partitions} partitions, sealed every {:?} and as batch.rows, batch.bytes and memory.limit have it, \
                 need tables that remember {needed} tokens, and clickhouse.token_window is {window}: set it to {needed} \
                 and run `highwater migrate`, or make batches larger",
                self.batch.interval
            )
        })
    }

    /// What decides which events are kept.
    pub fn limits(&self) -> Limits {
        let millis = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Limits {
            horizon: self.events.horizon,
            max_skew_ms: millis(self.events.max_skew),
            max_age_ms: millis(self.events.max_age),
            lateness_ms: millis(self.events.lateness),
            max_series: usize::try_from(self.events.max_series).unwrap_or(usize::MAX),
        }
    }
}
