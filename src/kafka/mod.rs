//! Kafka: the consumer that feeds a worker, the producer for generated and replayed events, and who a topic is.

mod bounds;
mod complaint;
pub mod consumer;
mod context;
mod ends;
pub mod identity;
mod observer;
pub mod producer;
pub mod properties;
mod reach;
mod retention;
pub mod settings;
mod slots;

pub use consumer::KafkaLog;
pub use identity::TopicIdentity;
pub use observer::Observer;
pub use producer::Producer;
pub use retention::keeps;
pub use settings::{ConsumerSettings, GroupProtocol};
