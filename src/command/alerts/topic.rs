//! The topic of alerts, as a subscriber reads it: committed messages, in their order.

use anyhow::{Result, bail};
use tokio::runtime::Handle;

use crate::alert::Record;
use crate::config::Settings;
use crate::forward::Reader;
use crate::kafka::identity::IdentityError;
use crate::kafka::{ConsumerSettings, Observer, follow, read_to_end};
use crate::registry::Endpoint;

/// How long Kafka may take to say whether there is a topic.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Where alerts are told, and how.
pub(super) struct Topic {
    name: String,
    consumer: ConsumerSettings,
    registry: Option<Endpoint>,
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
        Ok(Some(Topic { name, consumer, registry: settings.registry }))
    }

    /// All that it has now. For a thread that may wait.
    pub(super) fn read(&self, mut on: impl FnMut(Record)) -> Result<()> {
        let (mut reader, runtime) = (Reader::new(self.registry.as_ref()), Handle::current());
        read_to_end(&self.consumer, &self.name, &|| false, |_, payload| {
            let Some(payload) = payload else { return Ok(()) };
            runtime.block_on(reader.read(payload)).map(&mut on).map_err(|error| error.to_string())
        })?;
        Ok(())
    }

    /// All that comes, and with `all` what there is before, for ever. Likewise.
    pub(super) fn follow(&self, all: bool, mut on: impl FnMut(Record) -> Result<(), String>) -> Result<()> {
        let (mut reader, runtime) = (Reader::new(self.registry.as_ref()), Handle::current());
        follow(&self.consumer, &self.name, all, |_, payload| {
            let Some(payload) = payload else { return Ok(()) };
            on(runtime.block_on(reader.read(payload)).map_err(|error| error.to_string())?)
        })?;
        Ok(())
    }
}
