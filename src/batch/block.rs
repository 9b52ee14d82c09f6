//! A block: one month of one table of a batch, as one insert carries it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::{Batch, Key, below};
use crate::columns::{Column, Columns, Values, native};
use crate::plan::{Plan, TableKind};
use crate::rollup::Marker;

/// The rows of one table and month of a batch, at or above an offset.
///
/// Cheap to make: the rows stay in the batch, and a rollup is computed when it is encoded.
#[derive(Debug, Clone)]
pub struct Block {
    batch: Arc<Batch>,
    key: Key,
    at: u64,
}

/// What a block was encoded as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Names of its columns, in order.
    pub columns: Vec<String>,
    /// Series of a rollup's block; 0 of others.
    pub series: u64,
    /// Events of a rollup's block that went to the series `__other__`.
    pub overflow: u64,
}

impl Block {
    /// The rows of `batch` for `key` at or above `at`.
    pub fn new(batch: Arc<Batch>, key: Key, at: u64) -> Block {
        Block { batch, key, at }
    }

    /// Which table and month.
    pub fn key(&self) -> Key {
        self.key
    }

    /// The batch that it is a part of.
    pub fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The events that it holds or sums up: their columns, and which rows of those.
    pub fn events(&self, plan: &Plan) -> (&Columns, Range<usize>) {
        let table = match plan.table(self.key.table).kind {
            TableKind::Rollup(rollup) => plan.types[plan.rollups[rollup].event].table,
            TableKind::Raw(_) | TableKind::DeadLetters => self.key.table,
        };
        let columns = &self.batch.tables[&Key { table, month: self.key.month }];
        (columns, below(&columns.offsets, self.at)..columns.len())
    }

    /// Its columns as they are inserted, and which rows of them.
    pub fn columns(&self, plan: &Plan) -> (Vec<Cow<'_, Column>>, Range<usize>) {
        let (events, rows) = self.events(plan);
        let source = self.batch.source.to_string();
        if let TableKind::Rollup(rollup) = plan.table(self.key.table).kind {
            let marker = Marker {
                source: &source,
                month_start_seconds: self.key.month.start_seconds() as u32,
                through: self.batch.to,
            };
            let built = plan.rollups[rollup].build(events, rows, &marker, plan.limits.max_series);
            let rows = 0..built.first().map_or(0, Column::len);
            return (built.into_iter().map(Cow::Owned).collect(), rows);
        }
        let mut columns: Vec<_> = events.columns.iter().map(Cow::Borrowed).collect();
        columns.push(Cow::Owned(Column::constant_low_cardinality("_source", &source, events.len())));
        columns.push(Cow::Owned(Column {
            name: "_offset".to_owned(),
            clickhouse_type: "UInt64".to_owned(),
            values: Values::UInt64(events.offsets.clone()),
            nulls: None,
        }));
        (columns, rows)
    }

    /// Appends it to `out` as one Native block. `written` is called whenever [`native::PIECE`] bytes are
    /// there, and may take them away.
    pub fn encode(&self, plan: &Plan, out: &mut Vec<u8>, written: &mut dyn FnMut(&mut Vec<u8>)) -> Encoded {
        let (columns, rows) = self.columns(plan);
        let borrowed: Vec<&Column> = columns.iter().map(AsRef::as_ref).collect();
        let rows_len = rows.len();
        native::encode_piecewise(&borrowed, rows, out, written);
        let (series, overflow) = match plan.table(self.key.table).kind {
            TableKind::Rollup(rollup) => {
                let overflow = plan.rollups[rollup].overflow(&borrowed, plan.limits.max_series);
                (rows_len.saturating_sub(1), overflow)
            }
            TableKind::Raw(_) | TableKind::DeadLetters => (0, 0),
        };
        let columns = columns.iter().map(|column| column.name.clone()).collect();
        Encoded { columns, series: series as u64, overflow }
    }
}
