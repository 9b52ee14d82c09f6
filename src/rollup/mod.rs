//! Per-minute aggregates: what a pack asks for, computed from a batch's columns.
//!
//! A rollup block is a function of raw columns and of nothing else, so it can be computed again from any range of them.

mod histogram;
mod pack;
mod price;

pub use pack::{Pack, PackError, Rollup};
pub use price::{PriceError, PriceList};
