//! The topics: made where they are missing, read back, and written, a round in a transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use tokio::runtime::Handle;

use super::{Settings, Trouble};
use crate::alert::{Backlog, FORMER, Framing, Record, SCHEMAS};
use crate::kafka::identity::IdentityError;
use crate::kafka::producer::{Outgoing, ProduceError, create_topic};
use crate::kafka::{ConsumerSettings, Entry, Observer, Transactions, keeps, read_on, rights};
use crate::registry;

/// How long records are at least kept that later ones of their key supersede, beside the time within which they may be
/// corrected: as long as nobody may have been there to judge.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long Kafka may take to tell a topic's settings.
const PATIENCE: Duration = Duration::from_secs(5);

/// Budgets are read as a table: what is no longer so is to be gone soon.
const SEGMENT: Duration = Duration::from_secs(10 * 60);

/// The producer of the alerts, and how its records look.
pub(super) struct Publisher {
    producer: Transactions,
    framing: Framing,
    topic: String,
    budget_topic: String,
}

impl Publisher {
    /// Shuts out the producer before, and reads back what was published.
    pub(super) fn open(
        settings: &Settings,
        runtime: &Handle,
        leave: &dyn Fn() -> bool,
    ) -> Result<(Publisher, Backlog), Trouble> {
        let over = |error: &dyn std::fmt::Display| Trouble::Over(format!("{error:#}"));
        let consumer = &settings.consumer;
        let topics = [&settings.topic, &settings.budget_topic];
        runtime.block_on(make(consumer, topics, settings.horizon)).map_err(|error| over(&error))?;
        let framing = runtime.block_on(framing(settings)).map_err(|error| over(&error))?;
        let mut backlog = Backlog::default();
        let mut read = |from: [Option<i64>; 2]| -> Result<[Option<i64>; 2], Trouble> {
            let mut next = from;
            for (topic, next) in topics.into_iter().zip(&mut next) {
                let take = |entry: Entry<'_>| {
                    match (entry.payload, entry.key.map(str::from_utf8)) {
                        (Some(payload), _) => {
                            let record = framing.decode(payload).map_err(|error| error.to_string());
                            backlog.take(ours(record, settings)?);
                        }
                        // Whoever deletes by key takes back what was said under it.
                        (None, Some(Ok(key))) => backlog.forget(key),
                        (None, _) => {}
                    }
                    Ok(())
                };
                *next = read_on(consumer, topic, *next, leave, take).map_err(|error| over(&error))?;
            }
            Ok(next)
        };
        // Before anybody is shut out it is known that it is one of us.
        let read_to = read([None; 2])?;
        let producer = Transactions::open(consumer, &settings.transactional_id(), leave)?;
        // What the one before had under way is decided now.
        read(read_to)?;
        let (topic, budget_topic) = (settings.topic.clone(), settings.budget_topic.clone());
        Ok((Publisher { producer, framing, topic, budget_topic }, backlog))
    }

    /// Publishes records, and that keys of budgets say nothing any more, in one transaction; `sent` is called when all are in
    /// the log and not yet committed.
    pub(super) fn publish(
        &mut self,
        records: &[Record],
        gone: &[String],
        sent: impl FnOnce(),
        leave: &dyn Fn() -> bool,
    ) -> Result<(), Trouble> {
        let encoded: Result<Vec<Vec<u8>>, _> = records.iter().map(|record| self.framing.encode(record)).collect();
        let encoded = encoded.map_err(|error| Trouble::Over(error.to_string()))?;
        let outgoing = records.iter().zip(&encoded).map(|(record, payload)| Outgoing {
            topic: if matches!(record, Record::Budget(_)) { &self.budget_topic } else { &self.topic },
            // In one partition, so that records stand in the order in which they hold.
            partition: Some(0),
            timestamp_ms: None,
            key: Some(record.key().as_bytes()),
            payload: Some(payload),
        });
        let tombstones = gone.iter().map(|key| Outgoing {
            topic: &self.budget_topic,
            partition: Some(0),
            timestamp_ms: None,
            key: Some(key.as_bytes()),
            payload: None,
        });
        // The heartbeat is the last.
        Ok(self.producer.publish(&tombstones.chain(outgoing).collect::<Vec<_>>(), sent, leave)?)
    }
}

/// A record that an evaluator of this deployment published: of this group, database and home.
fn ours(record: Result<Record, String>, settings: &Settings) -> Result<Record, String> {
    let what = match record {
        Ok(Record::Heartbeat(heartbeat)) => {
            let home = settings.home.to_string();
            let database = &settings.endpoint.database;
            // Empty in messages of before there was that field.
            let is_other = |said: &str, own: &str| !said.is_empty() && said != own;
            if heartbeat.group != settings.consumer.group {
                format!("the alerts of the group {} are told of there", heartbeat.group)
            } else if is_other(&heartbeat.database, database) || is_other(&heartbeat.home, &home) {
                format!(
                    "another deployment of the same group tells its alerts there: it reads {} into the database {}, this one \
                     {home} into {database}. If it is this one, changed, its alerts begin anew on new topics; if there are \
                     two, give this one a kafka.group of its own too",
                    heartbeat.home, heartbeat.database
                )
            } else {
                return Ok(Record::Heartbeat(heartbeat));
            }
        }
        Ok(record) => return Ok(record),
        Err(error) => error,
    };
    Err(format!(
        "{what}. Nothing is judged before it is known what was told: give alerts topics of their own (alerts.topic, \
         alerts.budget_topic)"
    ))
}

/// Makes the topics that are missing, and says where one forgets.
async fn make(consumer: &ConsumerSettings, topics: [&String; 2], horizon: i64) -> anyhow::Result<()> {
    let named = ConsumerSettings { topics: topics.map(String::clone).to_vec(), ..consumer.clone() };
    let asked = named.clone();
    let missing = tokio::task::spawn_blocking(move || missing(&asked)).await??;
    let mut denied = Vec::new();
    for topic in missing {
        let topic_settings = if topic == *topics[1] { table() } else { history(horizon) };
        match create_topic(&consumer.brokers, &consumer.properties, &topic, 1, -1, &topic_settings).await {
            Ok(true) => tracing::info!("made the topic {topic}, with one partition, compacted"),
            Ok(false) => {}
            Err(ProduceError::Denied(right)) => denied.push(right),
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(denied.is_empty(), rights(&denied));
    match keeps(&named, PATIENCE).await {
        Ok(forgetful) => forgetful.iter().for_each(|(topic, time)| {
            tracing::warn!(
                "the topic {topic} deletes records after {time:?}: what is firing longer would be told anew, under numbers that \
                 were used; set its cleanup.policy to compact"
            );
        }),
        Err(error) => tracing::debug!("the topics' retention is not known: {error:#}"),
    }
    Ok(())
}

/// How the topic of alerts is kept: messages that others supersede for as long as they may be corrected.
fn history(horizon: i64) -> BTreeMap<String, String> {
    let kept = KEPT.as_millis() as i64 + horizon * 60_000;
    let settings = [("cleanup.policy", "compact".to_owned()), ("min.compaction.lag.ms", kept.to_string())];
    settings.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// How the topic of budgets is kept: the last message of each key, and little more, so that whoever reads it from its
/// begin is soon through.
fn table() -> BTreeMap<String, String> {
    let segment = SEGMENT.as_millis().to_string();
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.compaction.lag.ms", "0"),
        ("segment.ms", segment.as_str()),
        ("min.cleanable.dirty.ratio", "0.1"),
    ];
    settings.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// The topics that are not there.
fn missing(consumer: &ConsumerSettings) -> anyhow::Result<Vec<String>> {
    let observer = Observer::new(consumer, PATIENCE)?;
    let lacking = observer.unpublishable()?;
    ensure!(lacking.is_empty(), rights(&lacking));
    let mut missing = Vec::new();
    for topic in &consumer.topics {
        match observer.identity(topic) {
            Ok(_) => {}
            Err(IdentityError::NotFound(topic)) => missing.push(topic),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

/// How records name their schemas. Those of a registry are registered where they are not, under a subject each: the topic's
/// and the record's name.
///
/// # Errors
/// The registry can't be reached, or does not take a schema.
pub async fn framing(settings: &Settings) -> anyhow::Result<Framing> {
    let Some(endpoint) = &settings.registry else { return Ok(Framing::default()) };
    let client = registry::Client::new(endpoint.clone());
    let subject = |name: &str| {
        let topic = if name == "budget_state" { &settings.budget_topic } else { &settings.topic };
        format!("{topic}-dev.highwater.{name}")
    };
    let (mut ids, mut former) = ([0; SCHEMAS.len()], [None; FORMER.len()]);
    for (id, (name, schema)) in ids.iter_mut().zip(SCHEMAS) {
        *id = client.register(&subject(name), schema).await?;
    }
    for (id, (name, schema)) in former.iter_mut().zip(FORMER) {
        *id = client.find(&subject(name), schema).await?;
    }
    Ok(Framing { ids: Some(ids), former })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::alert::{Heartbeat, RuleSet};

    fn settings() -> Settings {
        let variables = [
            ("HIGHWATER_ALERTS__TOPIC", "alerts"),
            ("HIGHWATER_KAFKA__GROUP", "a"),
            ("HIGHWATER_KAFKA__TOPICS", "t"),
            ("HIGHWATER_CLICKHOUSE__DATABASE", "d"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        crate::config::load(None, variables, &[]).unwrap().evaluator().unwrap().unwrap()
    }

    #[test]
    fn what_another_deployment_or_somebody_else_publishes_is_not_ours() {
        let heartbeat = |group: &str, home: &str, database: &str| {
            let [group, home, database] = [group, home, database].map(str::to_owned);
            Record::Heartbeat(Heartbeat { round: 1, group, home, database, ..Heartbeat::default() })
        };
        let settings = settings();
        for own in [heartbeat("a", "t/0", "d"), heartbeat("a", "", ""), Record::Rules(RuleSet::default())] {
            assert_eq!(ours(Ok(own.clone()), &settings), Ok(own));
        }
        let error = ours(Ok(heartbeat("b", "t/0", "d")), &settings).unwrap_err();
        assert!(error.starts_with("the alerts of the group b are told of there.") && error.contains("alerts.topic"));
        for other in [heartbeat("a", "t/0", "e"), heartbeat("a", "u/0", "d")] {
            let error = ours(Ok(other), &settings).unwrap_err();
            assert!(error.starts_with("another deployment of the same group"), "{error}");
            assert!(error.contains("kafka.group") && error.contains("alerts.budget_topic"), "{error}");
        }
        assert!(ours(Err("not Avro".to_owned()), &settings).unwrap_err().starts_with("not Avro. Nothing is judged"));
    }

    #[test]
    fn budgets_are_compacted_at_once_and_alerts_after_all_corrections() {
        let (history, table) = (history(24 * 60), table());
        assert_eq!(history["min.compaction.lag.ms"], (8 * 24 * 60 * 60 * 1_000).to_string());
        assert_eq!((table["min.compaction.lag.ms"].as_str(), table["segment.ms"].as_str()), ("0", "600000"));
        assert!(history["cleanup.policy"] == "compact" && table["cleanup.policy"] == "compact");
    }
}
