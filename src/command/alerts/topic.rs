//! The topic of alerts, as a subscriber reads it: committed messages, in their order.

use anyhow::{Result, bail};

use crate::alert::{Framing, Record};
use crate::config::Settings;
use crate::evaluator;
use crate::kafka::identity::IdentityError;
use crate::kafka::{ConsumerSettings, Observer, follow, read_to_end};

/// How long Kafka may take to say whether there is a topic.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Where alerts are told, and how.
pub(super) struct Topic {
    name: String,
    consumer: ConsumerSettings,
    framing: Framing,
}

impl Topic {
    /// The topic of the settings; `None`: it is not there yet.
    pub(super) async fn open(settings: &Settings) -> Result<Option<Topic>> {
        let Some(settings) = settings.evaluator()? else {
            bail!("alerts.topic is \"\", so nobody is told of alerts; name a topic");
        };
        let name = settings.topic.clone();
        let consumer = ConsumerSettings { topics: vec![name.clone()], ..settings.consumer.clone() };
        let asked = consumer.clone();
        let found = tokio::task::spawn_blocking(move || {
            Ok::<_, anyhow::Error>(Observer::new(&asked, PATIENCE)?.identity(&asked.topics[0]))
        });
        match found.await?? {
            Ok(_) => {}
            Err(IdentityError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        Ok(Some(Topic { name, consumer, framing: evaluator::framing(&settings).await? }))
    }

    /// All that it has now.
    pub(super) fn read(&self, mut on: impl FnMut(Record)) -> Result<()> {
        read_to_end(&self.consumer, &self.name, &|| false, |_, payload| {
            let Some(payload) = payload else { return Ok(()) };
            self.framing.decode(payload).map(&mut on).map_err(|error| error.to_string())
        })?;
        Ok(())
    }

    /// All that comes, and with `all` what there is before, for ever.
    pub(super) fn follow(&self, all: bool, mut on: impl FnMut(Record) -> Result<(), String>) -> Result<()> {
        follow(&self.consumer, &self.name, all, |_, payload| {
            let Some(payload) = payload else { return Ok(()) };
            on(self.framing.decode(payload).map_err(|error| error.to_string())?)
        })?;
        Ok(())
    }
}
