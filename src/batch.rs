//! A batch: a range of offsets of one source, its rows, and the blocks they are inserted as.
//!
//! ```text
//! Batch [from, to)  ──block(key, at)──▶  Block   one month of one table, only rows at or above `at`
//!                   ──ledger_row(at)──▶  LedgerRow
//! ```
//!
//! Both are functions of the batch and of the offset they begin at, so what another writer has already done is left out
//! by asking for a later beginning.

mod dead_letter;
mod key;
mod ledger;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::columns::{Column, Columns, Row};
use crate::plan::{Plan, TableId, TableKind};
use crate::ports::Record;

pub use dead_letter::Reason;
pub use key::{Key, Month, Source};
pub use ledger::{LedgerKind, LedgerRow};

/// Rows of one source, `[from, to)`, being filled or being written.
#[derive(Debug, Clone)]
pub struct Batch {
    source: Source,
    from: u64,
    to: u64,
    tables: BTreeMap<Key, Columns>,
}

/// One month of one table of a batch, at or above an offset: what one insert carries.
#[derive(Debug, Clone)]
pub struct Block {
    batch: Arc<Batch>,
    key: Key,
    at: u64,
}
