//! The schema registry: Confluent's API, which Apicurio, Karapace and Redpanda speak too.
//!
//! [`SchemaRegistry`] is the worker's: it is asked, and answers later. Nothing here knows what a schema is
//! for.

mod client;
mod endpoint;
mod references;

use std::sync::mpsc::{Receiver, Sender, channel};

use tokio::runtime::Handle;

pub use self::client::Client;
pub(crate) use self::endpoint::base64;
pub use self::endpoint::{Endpoint, EndpointError};
use crate::ports::{Registered, Registry, RegistryError};
use crate::telemetry::Outage;

type Answer = (u32, Result<Registered, RegistryError>);

/// The registry as a worker sees it.
#[derive(Debug)]
pub struct SchemaRegistry {
    client: Client,
    runtime: Handle,
    outbox: Sender<Answer>,
    answers: Receiver<Answer>,
    outage: Outage,
}

impl SchemaRegistry {
    /// Dials nothing before the first question.
    pub fn new(endpoint: Endpoint, runtime: &Handle) -> SchemaRegistry {
        let (outbox, answers) = channel();
        let outage = Outage::of(format!("the schema registry at {endpoint:?}"));
        SchemaRegistry { client: Client::new(endpoint), runtime: runtime.clone(), outbox, answers, outage }
    }
}

impl Registry for SchemaRegistry {
    fn ask(&mut self, id: u32) {
        let (client, outbox) = (self.client.clone(), self.outbox.clone());
        self.runtime.spawn(async move {
            let answer = client.schema(id).await;
            // Nobody listens any more once the worker has ended.
            let _ = outbox.send((id, answer));
        });
    }

    fn poll(&mut self) -> Option<Answer> {
        let (id, answer) = self.answers.try_recv().ok()?;
        match &answer {
            Ok(_) => self.outage.passed(),
            Err(error) => self.outage.failed(error),
        }
        Some((id, answer))
    }
}
