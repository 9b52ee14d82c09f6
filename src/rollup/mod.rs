//! Per-minute aggregates: what a pack asks for, computed from a batch's columns.
//!
//! A rollup block is a function of raw columns and of nothing else, so it can be computed again from any range of them.
//!
//! ```text
//! packs/*.toml ──Pack::parse──▶ Pack ─┐
//!                      [EventType] ───┴─resolve──▶ Rollup ──part_columns──▶ DDL
//!                                                    │
//!                      Columns[rows] ────────────────┴──build──▶ block
//! prices.toml ──PriceList::parse──▶ PriceList ──Pricer──▶ the column `cost_usd` of Columns
//! ```

mod block;
#[cfg(test)]
mod fixture;
mod histogram;
mod measure;
mod pack;
mod price;
mod pricer;
mod resolve;
mod series;
mod table;

pub use block::Marker;
pub use pack::{Pack, PackError};
pub use price::{COST_SCALE, PriceError, PriceList};
pub use pricer::Pricer;
pub use resolve::resolve;
pub use table::{Dimension, Measure, Merge, Number, PartColumn, Rollup};
