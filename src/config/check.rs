//! What one setting can't tell alone: addresses, secrets, what must fit together, what librdkafka says.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use rdkafka::error::KafkaError;

use super::reader::Reader;
use super::value::{Protocol, Secret};
use super::{ClickhouseSettings, RegistrySettings, Settings, variable};
use crate::clickhouse::{Endpoint, EndpointError, Retention};
use crate::kafka::settings::SettingsError;
use crate::kafka::{ConsumerSettings, GroupProtocol};
use crate::plan::Limits;
use crate::registry;

/// librdkafka's default for `session.timeout.ms`.
const SESSION_TIMEOUT_MS: u64 = 45_000;

/// Checks the settings as a whole and fetches the password; what is wrong goes to the reader.
pub(super) fn check(mut settings: Settings, reader: &mut Reader) -> Settings {
    check_brokers(&settings, reader);
    check_properties(&settings, reader);
    check_url(&settings.clickhouse.url, reader);
    check_database(&settings.clickhouse.database, reader);
    check_registry(&settings, reader);
    if settings.memory.limit.0 < 2 * settings.batch.bytes.0 {
        let message = format!(
            "found {} bytes, and batch.bytes is {}; allowed is at least twice batch.bytes: one batch is written while \
             the next fills",
            settings.memory.limit.0, settings.batch.bytes.0
        );
        reader.problem("memory.limit", message);
    }
    let ClickhouseSettings { password: given, password_file, .. } = &settings.clickhouse;
    if let Some(password) = password("clickhouse", given, password_file.as_deref(), reader) {
        settings.clickhouse.password = password;
    }
    let RegistrySettings { password: given, password_file, .. } = &settings.registry;
    if let Some(password) = password("registry", given, password_file.as_deref(), reader) {
        settings.registry.password = password;
    }
    settings
}

fn check_brokers(settings: &Settings, reader: &mut Reader) {
    for broker in &settings.kafka.brokers {
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
        let legal = topic.len() <= 249
            && !matches!(topic.as_str(), "." | "..")
            && topic.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if !legal || !seen.insert(topic) {
            let message = format!(
                "found {topic:?} in {}; allowed are topics named once each, of letters, digits, '.', '_' and '-'",
                reader.origin("kafka", "topics")
            );
            reader.problem("kafka.topics", message);
        }
    }
}

/// Lets librdkafka judge each property by itself, so that all bad ones are told, and none with its value.
fn check_properties(settings: &Settings, reader: &mut Reader) {
    for (name, value) in &settings.kafka.properties.0 {
        let mut consumer = settings.consumer("highwater");
        consumer.properties = [(name.clone(), value.clone())].into();
        let key = format!("kafka.properties.{name}");
        match consumer.client_config() {
            Err(SettingsError::Fixed(_)) => {
                reader.problem(key, "exactly-once delivery depends on it, so highwater fixes it; take it away");
            }
            Err(other) => reader.problem(key, other.to_string()),
            Ok(config) => {
                if let Err(KafkaError::ClientConfig(_, reason, _, _)) = config.create_native_config() {
                    // librdkafka's sentence may repeat the value.
                    let reason = if super::Properties::is_secret(name) || reason.contains(value.as_str()) {
                        "librdkafka does not take its value".to_owned()
                    } else {
                        format!("librdkafka does not take it: {reason}")
                    };
                    reader.problem(key, reason);
                }
            }
        }
    }
}

fn check_url(url: &str, reader: &mut Reader) {
    if Endpoint::new(url, "", "", "").is_err() {
        // The address is not repeated: it may hold a password.
        let message = format!(
            "found something else in {}; allowed is http://host:port and no more: user and password have settings of their \
             own, and TLS ends before ClickHouse or is added by a tunnel on this machine",
            reader.origin("clickhouse", "url")
        );
        reader.problem("clickhouse.url", message);
    }
}

fn check_registry(settings: &Settings, reader: &mut Reader) {
    if settings.registry().is_err() {
        // The address is not repeated: it may hold a password.
        let message = format!(
            "found something else in {}; allowed is http://host:port or http://host:port/path and no more: user and \
             password have settings of their own",
            reader.origin("registry", "url")
        );
        reader.problem("registry.url", message);
    }
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

/// The password of a section from the environment or from its file; `given` and `file` are its settings.
fn password(section: &str, given: &Secret, file: Option<&Path>, reader: &mut Reader) -> Option<Secret> {
    let key = format!("{section}.password");
    let is_given = !given.reveal().is_empty();
    let variable = variable(&key);
    let origin = reader.origin(section, "password");
    if is_given && !origin.contains(&variable) {
        let message = format!(
            "found in {origin}, where others can read it; allowed are the environment variable {variable} and \
             {section}.password_file"
        );
        reader.problem(key, message);
        return None;
    }
    let Some(file) = file else { return is_given.then(|| given.clone()) };
    if is_given {
        reader.problem(key, format!("set as {variable} and by {section}.password_file; allowed is one of them"));
        return None;
    }
    match std::fs::read_to_string(file) {
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\r', '\n']))),
        Err(error) => {
            reader.problem(format!("{section}.password_file"), format!("can't read {}: {error}", file.display()));
            None
        }
    }
}

impl Settings {
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
            properties: self.kafka.properties.0.clone(),
        }
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
            ..Endpoint::new(url, database, user, password.reveal())?
        })
    }

    /// Where the schema registry is; `None`: there is none.
    ///
    /// # Errors
    /// Its URL is none that can be used.
    pub fn registry(&self) -> Result<Option<registry::Endpoint>, registry::EndpointError> {
        let RegistrySettings { url, user, password, timeout, .. } = &self.registry;
        let Some(url) = url else { return Ok(None) };
        registry::Endpoint::new(url, user.as_deref().unwrap_or_default(), password.reveal(), *timeout).map(Some)
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
    pub fn tokens_needed(&self, partitions: usize) -> u64 {
        let session = self.kafka.properties.0.get("session.timeout.ms").and_then(|value| value.trim().parse().ok());
        let millis = session.unwrap_or(SESSION_TIMEOUT_MS).saturating_mul(10);
        let seals = u128::from(millis).div_ceil(self.batch.interval.as_millis().max(1));
        u64::try_from(seals).unwrap_or(u64::MAX).saturating_mul(partitions as u64)
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
