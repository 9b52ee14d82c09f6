//! Kafka: the consumer that feeds a worker, the producer for generated and replayed events, the one that alerts are published
//! by, who a topic is, and what we may do with it.

mod access;
mod bounds;
mod compacted;
mod complaint;
pub mod consumer;
mod context;
mod ends;
pub mod identity;
mod inbox;
mod native;
mod observer;
pub mod producer;
pub mod properties;
mod reach;
mod retention;
pub mod settings;
mod slots;
pub mod transactions;

pub(crate) use access::lines as rights;
pub use access::{Access, Resource, Right};
pub use compacted::{Entry, follow, read_on, read_to_end};
pub use consumer::KafkaLog;
pub use identity::TopicIdentity;
pub use native::end_process;
pub use observer::Observer;
pub use producer::Producer;
pub use retention::keeps;
pub use settings::{ConsumerSettings, GroupProtocol};
pub use transactions::{TransactionError, Transactions};
