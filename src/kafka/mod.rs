//! Kafka: the consumer that feeds a worker, the producer for generated and replayed events, who a topic is, and what we
//! may do with it.

mod access;
mod bounds;
mod complaint;
pub mod consumer;
mod context;
mod ends;
pub mod identity;
mod native;
mod observer;
pub mod producer;
pub mod properties;
mod reach;
mod retention;
pub mod settings;
mod slots;

pub(crate) use access::lines as rights;
pub use access::{Access, Resource, Right};
pub use consumer::KafkaLog;
pub use identity::TopicIdentity;
pub use observer::Observer;
pub use producer::Producer;
pub use retention::keeps;
pub use settings::{ConsumerSettings, GroupProtocol};
