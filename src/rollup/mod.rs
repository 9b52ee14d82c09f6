//! Per-minute aggregates: what a pack asks for, computed from a batch's columns.
//!
//! A rollup block is a function of raw columns and of nothing else, so it can be computed again from any range of them.
//!
//! ```text
//! packs/*.toml ──Pack::parse──▶ Pack ─┐             Metric ───────────────▶ views
//!                      [EventType] ───┴─resolve──▶ Rollup ──part_columns──▶ DDL
//!                                                    │
//!                      Columns[rows] ────────────────┴──build──▶ block
//! prices.toml ──PriceList::parse──▶ PriceList ──Pricer──▶ the column `cost_usd` of Columns
//! ```

mod block;
mod condition;
#[cfg(test)]
mod fixture;
mod histogram;
mod measure;
mod metric;
mod pack;
mod partial;
mod price;
mod pricer;
mod resolve;
mod series;
mod table;

pub use block::Marker;
pub use condition::{Condition, ConditionError};
pub(crate) use histogram::{bucket, representative, stored};
pub use metric::{Metric, Quantity};
pub(crate) use pack::alerts;
pub use pack::{Pack, PackError};
pub use partial::judge;
pub use price::{COST_SCALE, PriceError, PriceList};
pub use pricer::Pricer;
pub(crate) use resolve::one_of;
pub use resolve::{Resolved, resolve};
pub use series::OTHER;
pub use table::{Dimension, Measure, Merge, Number, PartColumn, Rollup};
