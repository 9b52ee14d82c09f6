//! Events as their producers describe them: annotated Avro schemas and the framing on the wire.
//!
//! An [`EventType`] is one `schemas/*.avsc`: an Avro record whose fields carry a `highwater` annotation (role, unit,
//! privacy, price). Everything else about an event (its table, its decoder, its documentation, its demo traffic) is
//! derived from it.

mod annotation;
pub(crate) mod avro;
pub(crate) mod binary;
mod canonical;
mod error;
mod kind;
mod parse;
mod schema;
pub mod wire;

pub use error::{Problem, SchemaError};
pub(crate) use kind::without_null;
pub use kind::{Item, Kind, TimeUnit};
pub use parse::RESERVED_TABLES;
pub use schema::{COST_COLUMN, COST_TYPE, EventType, Field, Pii, Price, Role};
