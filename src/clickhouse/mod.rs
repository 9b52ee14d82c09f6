//! ClickHouse: its tables, the connection that inserts go out on, the questions asked of it.
//!
//! ```text
//! worker ──ask──▶ ClickHouseStore ──marks::sql──▶ Pinned ──▶ ClickHouse      one connection a worker, dialed once
//!        ◀─Marks──                 ◀─marks::read──
//!        ─insert─▶                 ──Native, lz4──▶      only on the connection that the marks came from
//! commands ──▶ Client ──JSONEachRow──▶ ClickHouse                            a connection a query
//! ```

pub mod compress;
pub mod connection;
pub mod endpoint;
pub mod error;
pub mod sql;

pub use connection::Pinned;
pub use endpoint::{Endpoint, EndpointError};
pub use error::{Broken, QueryError, ServerError};
