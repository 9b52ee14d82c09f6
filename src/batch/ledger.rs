//! The ledger's row: what a batch claims to have written.

use std::collections::BTreeMap;

use super::{Key, Source};
use crate::plan::TableId;

/// What a range of offsets became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedgerKind {
    /// The source begins here: an empty range, so that two first starts can't disagree.
    Start,
    /// Its events were written.
    Batch,
    /// Its events were dead letters, and were written by a run of `dead-letters redrive`.
    Redrive,
    /// The log no longer had it.
    Lost,
}

impl LedgerKind {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            LedgerKind::Start => "start",
            LedgerKind::Batch => "batch",
            LedgerKind::Redrive => "redrive",
            LedgerKind::Lost => "lost",
        }
    }
}

/// One row of the ledger: every event in `[from, to)` is where this row says.
///
/// `events = sum(rows) + dead_letters + duplicates`, always.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerRow {
    /// Whose range.
    pub source: Source,
    /// What became of it.
    pub kind: LedgerKind,
    /// First offset.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Messages read.
    pub events: u64,
    /// Raw rows written, per event type's table.
    pub rows: BTreeMap<TableId, u64>,
    /// Messages that became dead letters.
    pub dead_letters: u64,
    /// Events that were duplicates and not written again.
    pub duplicates: u64,
    /// Events (of `rows`) older than the watermark when they were read, for information.
    pub late: u64,
    /// Least event time of `rows`, microseconds since 1970.
    pub min_time: Option<i64>,
    /// Greatest event time of `rows`.
    pub max_time: Option<i64>,
    /// Whether the ids before the start could not all be read again, so that an old duplicate may have been kept.
    pub horizon_cut: bool,
    /// Hash of the plan that wrote it.
    pub plan: String,
    /// The mark of each table and month that the batch wrote to, as seen when it was done.
    pub marks: BTreeMap<Key, u64>,
}

impl LedgerRow {
    /// A row of a range in which nothing was read.
    pub fn empty(source: Source, kind: LedgerKind, from: u64, to: u64, plan: String) -> LedgerRow {
        LedgerRow {
            source,
            kind,
            from,
            to,
            events: 0,
            rows: BTreeMap::new(),
            dead_letters: 0,
            duplicates: 0,
            late: 0,
            min_time: None,
            max_time: None,
            horizon_cut: false,
            plan,
            marks: BTreeMap::new(),
        }
    }
}
