//! ClickHouse: its tables, the connection that inserts go out on, the questions asked of it.
//!
//! ```text
//! worker ──ask──▶ ClickHouseStore ──marks::sql──▶ Pinned ──▶ ClickHouse      one connection a worker, dialed once
//!        ◀─Marks──                 ◀─marks::read──
//!        ─insert─▶                 ──Native, lz4──▶      only on the connection that the marks came from
//! commands ──▶ Client ──JSONEachRow──▶ ClickHouse                            a connection a query
//! ```

mod body;
mod claim;
mod client;
mod compress;
mod connection;
pub mod ddl;
mod endpoint;
mod error;
pub mod grants;
mod insert;
mod marks;
mod pace;
pub mod rebuild;
pub mod redrives;
pub mod schema;
pub mod sql;
mod store;
pub mod tables;
mod views;
mod watermarks;

pub use body::Pieces;
pub(crate) use claim::CLOSED;
pub use claim::{ClaimError, InForce, claim, in_force, last_epoch, look};
pub use client::{Client, QueryLimits};
pub use compress::compress;
pub use connection::{Answered, Pinned};
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Broken, QueryError, ServerError};
pub use grants::Grants;
pub use store::ClickHouseStore;
pub use tables::{Catalog, Retention};
pub use views::COMPLETENESS;
