//! The topics: made where they are missing, read back, and written, a round in a transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use tokio::runtime::Handle;

use super::{Settings, Trouble};
use crate::alert::{Backlog, Framing, Record, SCHEMAS};
use crate::kafka::identity::IdentityError;
use crate::kafka::producer::{Outgoing, ProduceError, create_topic};
use crate::kafka::{ConsumerSettings, Observer, Transactions, keeps, read_to_end, rights};
use crate::registry;

/// How long records are at least kept that later ones of their key supersede, beside the time within which they may be
/// corrected: as long as nobody may have been there to judge.
const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long Kafka may take to tell a topic's settings.
const PATIENCE: Duration = Duration::from_secs(5);

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
        // First the producer: what the one before had under way is decided when this returns.
        let producer = Transactions::open(consumer, &settings.transactional_id(), leave)?;
        let mut backlog = Backlog::default();
        for topic in topics {
            let take = |_: i64, payload: Option<&[u8]>| {
                // Whoever deletes by key takes back what was said under it.
                let Some(payload) = payload else { return Ok(()) };
                backlog.take(ours(framing.decode(payload).map_err(|error| error.to_string()), &consumer.group)?);
                Ok(())
            };
            let count = read_to_end(consumer, topic, leave, take).map_err(|error| over(&error))?;
            tracing::debug!(topic, count, "read back");
        }
        let (topic, budget_topic) = (settings.topic.clone(), settings.budget_topic.clone());
        Ok((Publisher { producer, framing, topic, budget_topic }, backlog))
    }

    /// Publishes records in one transaction; `sent` is called when all are in the log and not yet committed.
    pub(super) fn publish(
        &mut self,
        records: &[Record],
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
        Ok(self.producer.publish(&outgoing.collect::<Vec<_>>(), sent, leave)?)
    }
}

/// A record that a group before this one, or this one, published.
fn ours(record: Result<Record, String>, group: &str) -> Result<Record, String> {
    let what = match record {
        Ok(Record::Heartbeat(heartbeat)) if heartbeat.group != group => {
            format!("the alerts of the group {} are told of there", heartbeat.group)
        }
        Ok(record) => return Ok(record),
        Err(error) => error,
    };
    Err(format!(
        "{what}. Nothing is judged before it is known what was told: give alerts topics of their own (alerts.topic)"
    ))
}

/// Makes the topics that are missing, and says where one forgets.
async fn make(consumer: &ConsumerSettings, topics: [&String; 2], horizon: i64) -> anyhow::Result<()> {
    let named = ConsumerSettings { topics: topics.map(String::clone).to_vec(), ..consumer.clone() };
    let asked = named.clone();
    let missing = tokio::task::spawn_blocking(move || missing(&asked)).await??;
    let kept = KEPT.as_millis() as i64 + horizon * 60_000;
    let compact = [("cleanup.policy", "compact".to_owned()), ("min.compaction.lag.ms", kept.to_string())];
    let compact: BTreeMap<String, String> = compact.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    let mut denied = Vec::new();
    for topic in missing {
        match create_topic(&consumer.brokers, &consumer.properties, &topic, 1, -1, &compact).await {
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
    let mut ids = [0; SCHEMAS.len()];
    for (id, (name, schema)) in ids.iter_mut().zip(SCHEMAS) {
        let topic = if name == "budget_state" { &settings.budget_topic } else { &settings.topic };
        *id = client.register(&format!("{topic}-dev.highwater.{name}"), schema).await?;
    }
    Ok(Framing { ids: Some(ids) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::alert::{Heartbeat, RuleSet};

    #[test]
    fn what_another_group_or_somebody_else_publishes_is_not_ours() {
        let heartbeat = |group: &str| {
            let group = group.to_owned();
            Record::Heartbeat(Heartbeat { round: 1, group, sent_at: 0, judged: 0, complete_through: 0, rules: 1 })
        };
        assert_eq!(ours(Ok(heartbeat("a")), "a"), Ok(heartbeat("a")));
        assert_eq!(ours(Ok(Record::Rules(RuleSet::default())), "a"), Ok(Record::Rules(RuleSet::default())));
        let error = ours(Ok(heartbeat("b")), "a").unwrap_err();
        assert!(error.starts_with("the alerts of the group b are told of there.") && error.contains("alerts.topic"));
        assert!(ours(Err("not Avro".to_owned()), "a").unwrap_err().starts_with("not Avro. Nothing is judged"));
    }
}
