//! Events as their producers describe them: annotated Avro schemas and the framing on the wire.
//!
//! An [`EventType`] is one `schemas/*.avsc`: an Avro record whose fields carry a `highwater` annotation (role, unit,
//! privacy, price). Everything else about an event (its table, its decoder, its documentation, its demo traffic) is
//! derived from it.

mod schema;
pub mod wire;

pub use schema::{EventType, Field, Kind, Pii, Price, Role, SchemaError, TimeUnit};
