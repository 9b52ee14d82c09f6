//! How generated and replayed events are framed, and where their schemas are registered.

use anyhow::{Context as _, Result};

use super::UsageError;
use super::outlet::Target;
use crate::config::Settings;
use crate::event::EventType;
use crate::event::wire::Writer;
use crate::registry::Client;

/// How a message names its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Framing {
    /// Avro single-object encoding: by the schema's fingerprint
    SingleObject,
    /// Confluent's: by an id of the schema registry at registry.url, where the schema is registered
    Confluent,
}

/// The subject of an event type in a topic that may carry many (`TopicRecordNameStrategy`): each has its own versions.
pub(super) fn subject(topic: &str, full_name: &str) -> String {
    format!("{topic}-{full_name}")
}

/// The name of an event type's record, with its namespace.
pub(super) fn full_name(event: &EventType) -> &str {
    event.schema.record().map_or(event.name.as_str(), |(record, _)| record.name.as_str())
}

/// What messages of an event type say of their schema; it is registered first if need be.
pub(super) async fn writer(settings: &Settings, target: &Target, event: &EventType) -> Result<Writer> {
    if target.framing == Framing::SingleObject {
        return Ok(Writer::Fingerprint(event.fingerprint));
    }
    let Some(endpoint) = settings.registry()? else {
        return Err(
            UsageError("--framing confluent needs the address of a schema registry: registry.url".into()).into()
        );
    };
    let subject = subject(&target.topic, full_name(event));
    let id = Client::new(endpoint).register(&subject, &event.json).await;
    let id = id.with_context(|| format!("registering the schema of {} under the subject {subject}", event.name))?;
    eprintln!("the schema of {} has the id {id}, under the subject {subject}", event.name);
    Ok(Writer::Id(id))
}
