//! Where generated and replayed events go: a topic with all its partitions known, and how far it has come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::UsageError;
use super::framing::Framing;
use crate::config::Settings;
use crate::kafka::identity::IdentityError;
use crate::kafka::producer::{Outgoing, create_topic};
use crate::kafka::{Observer, Producer};

/// How long the brokers may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the last messages may take to arrive.
const FLUSH: Duration = Duration::from_secs(120);
/// Between two lines of progress.
const REPORT: Duration = Duration::from_secs(5);

/// The topic that events are sent to.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// Topic to send to.
    #[arg(long, value_name = "TOPIC")]
    pub topic: String,
    /// Create the topic with this many partitions if it is not there; it keeps everything, with the producers' own
    /// timestamps.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub partitions: Option<u16>,
    /// How messages name their schema.
    #[arg(long, value_enum, default_value_t = Framing::SingleObject)]
    pub framing: Framing,
}

/// A topic to send to.
pub(super) struct Outlet {
    producer: Producer,
    topic: String,
    /// How many partitions the topic has.
    pub(super) partitions: usize,
    sent: u64,
    total: u64,
    started: Instant,
    reported: Instant,
}

impl Outlet {
    /// Finds the topic, or makes it where the number of partitions is given. `total` messages are going to be sent.
    pub(super) async fn open(settings: &Settings, target: &Target, total: u64) -> Result<Outlet> {
        let brokers = settings.kafka.brokers.join(",");
        let topic = target.topic.clone();
        let observer = Observer::new(&settings.consumer("highwater"), PATIENCE)?;
        let found = match observer.identity(&topic) {
            Ok(found) => Some(found.partitions),
            Err(IdentityError::NotFound(_)) => None,
            Err(error @ IdentityError::Refused { .. }) => match observer.unwritable(&topic) {
                Some(right) => bail!("{right}"),
                None => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        };
        if found.is_some()
            && let Some(right) = observer.unwritable(&topic)
        {
            bail!("{right}");
        }
        let partitions = match (found, target.partitions) {
            (Some(there), Some(wanted)) if there != usize::from(wanted) => bail!(UsageError(format!(
                "the topic {topic} has {there} partitions, and --partitions asks for {wanted}; leave --partitions away \
                 or name another topic"
            ))),
            (Some(there), _) => there,
            (None, None) => bail!(UsageError(format!(
                "the Kafka topic {topic} does not exist on {brokers}; --partitions N creates it"
            ))),
            (None, Some(wanted)) => {
                // Events of years ago must neither expire nor get today's timestamp.
                let keep = [("retention.ms", "-1"), ("message.timestamp.type", "CreateTime")];
                let keep: BTreeMap<String, String> = keep.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
                create_topic(&brokers, &settings.client_properties(), &topic, wanted, -1, &keep).await?;
                eprintln!("created the topic {topic} with {wanted} partitions");
                usize::from(wanted)
            }
        };
        let producer = Producer::new(&brokers, "highwater", &settings.client_properties())?;
        let now = Instant::now();
        Ok(Outlet { producer, topic, partitions, sent: 0, total, started: now, reported: now })
    }

    /// Sends a message with this timestamp, or the time at which it is sent.
    pub(super) fn send(&mut self, partition: usize, timestamp_ms: Option<i64>, payload: Option<&[u8]>) -> Result<()> {
        let partition = Some(i32::try_from(partition).context("partition number")?);
        self.producer.send(Outgoing { topic: &self.topic, partition, timestamp_ms, key: None, payload })?;
        self.sent += 1;
        if self.sent.is_multiple_of(64) && self.reported.elapsed() >= REPORT {
            self.reported = Instant::now();
            eprintln!("{}", progress(self.sent, self.total, self.started.elapsed()));
        }
        Ok(())
    }

    /// Waits until everything is in the log; says how much that is.
    pub(super) fn finish(mut self) -> Result<u64> {
        let sent = self.producer.flush(FLUSH)?;
        let seconds = self.started.elapsed().as_secs_f64();
        let rate = sent as f64 / seconds.max(0.001);
        eprintln!("{sent} messages are in the topic {} after {seconds:.1} s, {rate:.0} a second", self.topic);
        Ok(sent)
    }
}

/// How far it has come, at which rate, and how long the rest will take.
fn progress(sent: u64, total: u64, elapsed: Duration) -> String {
    let rate = sent as f64 / elapsed.as_secs_f64().max(0.001);
    let left = total.saturating_sub(sent) as f64 / rate.max(0.001);
    format!("{sent} of {total} messages, {rate:.0} a second, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_what_is_left() {
        let line = progress(500, 2_000, Duration::from_secs(10));
        assert_eq!(line, "500 of 2000 messages, 50 a second, 30 s left");
        assert!(progress(0, 10, Duration::ZERO).starts_with("0 of 10"));
    }
}
