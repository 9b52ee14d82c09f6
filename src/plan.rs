//! The plan: schemas, packs and prices, compiled into what every message is put through.
//!
//! Two workers with equal plans write equal rows for equal bytes; the ledger names the plan of each batch by its hash.

use crate::columns::Decoder;
use crate::event::EventType;
use crate::rollup::{PriceList, Rollup};

/// Position of a table in [`Plan::tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId(pub u16);

/// A table that batches write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name in ClickHouse.
    pub name: String,
    /// What is in it.
    pub kind: TableKind,
}

/// What a table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Events of the type at this position of [`Plan::types`].
    Raw(usize),
    /// Partial aggregates of the rollup at this position of [`Plan::rollups`].
    Rollup(usize),
    /// Messages that could not be read.
    DeadLetters,
}

/// An event type with its compiled decoder.
#[derive(Debug, Clone)]
pub struct PlannedType {
    /// As its schema declares it.
    pub event: EventType,
    /// Its schema, compiled.
    pub decoder: Decoder,
    /// Its table.
    pub table: TableId,
    /// Positions in [`Plan::rollups`] of the rollups over it.
    pub rollups: Vec<usize>,
}

/// What decides which events are kept. Times in milliseconds; all judged against the record's own timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Offsets within which an equal id is a duplicate.
    pub horizon: u64,
    /// How far an event's time may lie ahead of its record's timestamp.
    pub max_skew_ms: i64,
    /// How far it may lie behind.
    pub max_age_ms: i64,
    /// How far behind the greatest event time an event still counts as in time.
    pub lateness_ms: i64,
    /// Series a rollup block may have before the rest goes to `__other__`.
    pub max_series: usize,
}

/// Everything that decides what is written for an event.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Event types.
    pub types: Vec<PlannedType>,
    /// Rollups.
    pub rollups: Vec<Rollup>,
    /// All tables that batches write to.
    pub tables: Vec<Table>,
    /// What tokens cost.
    pub prices: PriceList,
    /// Limits.
    pub limits: Limits,
    /// SHA-256 over schemas, packs, prices and limits, hexadecimal, first 16 digits.
    pub hash: String,
}
