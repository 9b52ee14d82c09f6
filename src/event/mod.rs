//! Events as their producers describe them: annotated Avro schemas and the framing on the wire.
//!
//! An [`EventType`] is one `schemas/*.avsc`: an Avro record whose fields carry a `highwater` annotation (role, unit,
//! privacy, price). Everything else about an event (its table, its decoder, its documentation, its demo traffic) is
//! derived from it.

mod annotation;
mod canonical;
mod error;
mod parse;
mod schema;
pub mod wire;
mod writer;

pub use error::{Problem, SchemaError};
pub use parse::RESERVED_TABLES;
pub use schema::{COST_COLUMN, COST_TYPE, EventType, Field, Kind, Pii, Price, Role, TimeUnit};
pub use writer::WriterSchema;
