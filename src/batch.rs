//! A batch: a range of offsets of one source, its rows, and the blocks they are inserted as.
//!
//! ```text
//! Batch [from, to)  ──block(key, at)──▶  Block       one month of one table, only rows at or above `at`
//!                   ──ledger_row(at)──▶  LedgerRow   what the range [at, to) became
//! ```
//!
//! Both are functions of the batch and of the offset they begin at, so what another writer has already done is left out
//! by asking for a later beginning.

mod block;
mod dead_letter;
mod key;
mod ledger;
mod window;

use std::collections::BTreeMap;

use crate::columns::Columns;
use crate::plan::{Plan, TableKind};
use crate::ports::Record;
use crate::writers::Content;

pub use block::{Block, Encoded};
pub use dead_letter::{COLUMNS as DEAD_LETTER_COLUMNS, Reason};
pub use key::{Key, Month, Source};
pub use ledger::{LedgerKind, LedgerRow};
pub use window::Window;

/// Messages of one source in `[from, to)`, as the rows that they become.
#[derive(Debug, Clone)]
pub struct Batch {
    source: Source,
    from: u64,
    /// One past the last message taken in; offsets may have gaps, so this is not `from` plus a count.
    to: u64,
    /// Messages taken in, counted apart from what became of them so that the ledger's sum means something.
    events: u64,
    /// Raw rows and dead letters. Rollups are computed from the raw rows when their block is built.
    tables: BTreeMap<Key, Columns>,
    /// Offsets of duplicates, ascending.
    duplicates: Vec<u64>,
    /// Offsets of late rows, ascending.
    late: Vec<u64>,
    /// Bytes of the payloads taken in.
    payload_bytes: usize,
    /// Memory held, roughly.
    bytes: usize,
    /// Least and greatest timestamp of the records taken in that have one, milliseconds since 1970.
    stamps: Option<(i64, i64)>,
    horizon_cut: bool,
}

/// Greatest event time seen in a partition, and with it which events are late.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    greatest_ms: Option<i64>,
}

impl Progress {
    /// The greatest event time seen, milliseconds since 1970.
    pub fn greatest_ms(&self) -> Option<i64> {
        self.greatest_ms
    }

    /// Takes note of an event's time and answers whether it was late: further than the lateness behind the greatest
    /// time before it. A time ahead of its record's timestamp (if it has one) counts as that timestamp, so that one fast clock does not
    /// make everybody late.
    fn observe(&mut self, time_ms: i64, timestamp_ms: i64, lateness_ms: i64) -> bool {
        let late = self.greatest_ms.is_some_and(|greatest| time_ms < greatest - lateness_ms);
        let capped = if timestamp_ms > 0 { time_ms.min(timestamp_ms) } else { time_ms };
        self.greatest_ms = Some(self.greatest_ms.map_or(capped, |greatest| greatest.max(capped)));
        late
    }
}

/// What a readable event became.
enum Taken {
    Row { late: bool },
    Duplicate,
}

/// Bytes that a row costs beside its payload: offsets, indices, null maps and the duplicates window.
const ROW_OVERHEAD: usize = 96;

impl Batch {
    /// An empty batch that begins at `from`.
    pub fn new(source: Source, from: u64, horizon_cut: bool) -> Batch {
        Batch {
            source,
            from,
            to: from,
            events: 0,
            tables: BTreeMap::new(),
            duplicates: Vec::new(),
            late: Vec::new(),
            payload_bytes: 0,
            bytes: 0,
            stamps: None,
            horizon_cut,
        }
    }

    /// Whose messages these are.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// First offset it answers for.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// One past the last message taken in.
    pub fn to(&self) -> u64 {
        self.to
    }

    /// Whether it answers for no offset: nothing was taken in, and no gap either.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Takes note that the log has nothing to deliver below `offset`: what lies between is a gap (aborted transactions,
    /// markers, what compaction took).
    pub fn extend(&mut self, offset: u64) {
        self.to = self.to.max(offset);
    }

    /// Messages taken in.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// Memory held, roughly: keys, payloads, the details of dead letters, and a fixed overhead a message.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the payloads taken in.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Least and greatest timestamp of the records taken in, milliseconds since 1970; `None`: none had one.
    pub fn stamps(&self) -> Option<(i64, i64)> {
        self.stamps
    }

    /// The dead letters of `[at, to)` by reason: how many, and the offset of the first.
    pub fn dead_letters(&self, plan: &Plan, at: u64) -> BTreeMap<&str, (u64, u64)> {
        let mut reasons = BTreeMap::new();
        for columns in self.tables.iter().filter(|(key, _)| key.table == plan.dead_letters).map(|(_, columns)| columns)
        {
            for row in below(&columns.offsets, at)..columns.len() {
                let offset = columns.offsets[row];
                let (count, first) = reasons.entry(dead_letter::reason(columns, row)).or_insert((0, offset));
                *count += 1;
                *first = offset.min(*first);
            }
        }
        reasons
    }

    /// Whether the message at this offset was taken in and repeats one before it.
    pub fn is_duplicate(&self, offset: u64) -> bool {
        self.duplicates.binary_search(&offset).is_ok()
    }

    /// Takes in the next message: it becomes a row, a dead letter or a counted duplicate, never nothing.
    pub fn push(
        &mut self,
        plan: &Plan,
        record: &Record<'_>,
        content: Result<Content<'_>, Reason>,
        window: &mut Window,
        progress: &mut Progress,
    ) {
        debug_assert!(record.offset >= self.to, "offsets ascend");
        self.to = record.offset + 1;
        self.events += 1;
        let payload = record.payload.map_or(0, <[u8]>::len);
        self.payload_bytes += payload;
        self.bytes += payload + record.key.map_or(0, <[u8]>::len) + ROW_OVERHEAD;
        if record.timestamp_ms > 0 {
            let (least, greatest) = self.stamps.unwrap_or((record.timestamp_ms, record.timestamp_ms));
            self.stamps = Some((least.min(record.timestamp_ms), greatest.max(record.timestamp_ms)));
        }
        match content.and_then(|content| self.take(plan, record, &content, window, progress)) {
            Ok(Taken::Row { late: false }) => {}
            Ok(Taken::Row { late: true }) => self.late.push(record.offset),
            Ok(Taken::Duplicate) => self.duplicates.push(record.offset),
            Err(reason) => {
                let month = Month::of(dead_letter::timestamp_ms(record) * 1_000);
                let key = Key { table: plan.dead_letters, month };
                let columns = self.tables.entry(key).or_insert_with(dead_letter::new_columns);
                self.bytes += dead_letter::push(columns, record, &reason);
            }
        }
    }

    fn take(
        &mut self,
        plan: &Plan,
        record: &Record<'_>,
        content: &Content<'_>,
        window: &mut Window,
        progress: &mut Progress,
    ) -> Result<Taken, Reason> {
        let &Content { event, decoder, body } = content;
        let planned = &plan.types[event];
        // The event's month is known only when it is decoded; its record's month is nearly always the same.
        let guess = Month::of(record.timestamp_ms.saturating_mul(1_000));
        let key = Key { table: planned.table, month: guess };
        let mut columns = self.tables.entry(key).or_insert_with(|| planned.decoder.new_columns());
        let rows = columns.len();
        let decode_error = |error| Reason::Decode { event: planned.event.name.clone(), error };
        let row = decoder.decode(body, columns).map_err(decode_error)?;
        let duplicate = window.observe(event, row.id, record.offset);
        let judged = plan.limits.judge(row.time, record.timestamp_ms);
        let month = Month::of(row.time);
        if duplicate || judged.is_err() || month != guess {
            columns.truncate(rows);
        }
        judged?;
        if duplicate {
            return Ok(Taken::Duplicate);
        }
        if month != guess {
            let key = Key { table: planned.table, month };
            columns = self.tables.entry(key).or_insert_with(|| planned.decoder.new_columns());
            decoder.decode(body, columns).map_err(decode_error)?;
        }
        if let Some(pricer) = &planned.pricer {
            pricer.push_cost(columns, row.time);
        }
        columns.offsets.push(record.offset);
        let late = progress.observe(row.time / 1_000, record.timestamp_ms, plan.limits.lateness_ms);
        Ok(Taken::Row { late })
    }

    /// The months of tables that `[at, to)` writes to, each with the last offset that it writes there.
    pub fn keys(&self, plan: &Plan, at: u64) -> BTreeMap<Key, u64> {
        let mut keys = BTreeMap::new();
        for (&key, columns) in &self.tables {
            let Some(&last) = columns.offsets.last().filter(|&&last| last >= at) else { continue };
            keys.insert(key, last);
            if let TableKind::Raw(event) = plan.table(key.table).kind {
                for &rollup in &plan.types[event].rollups {
                    keys.insert(Key { table: plan.rollup_tables[rollup], month: key.month }, last);
                }
            }
        }
        keys
    }

    /// Whether all rows of `key` (a raw table's) at or above `at` are of a time before `micros` since 1970.
    pub fn is_older(&self, key: Key, at: u64, micros: i64) -> bool {
        self.tables.get(&key).is_none_or(|columns| {
            let rows = below(&columns.offsets, at)..columns.times.len();
            columns.times[rows].iter().all(|&time| time < micros)
        })
    }

    /// What the ledger says of `[at, to)`, given the marks under which its rows were seen.
    pub fn ledger_row(&self, plan: &Plan, at: u64, marks: BTreeMap<Key, u64>) -> LedgerRow {
        let kind = if self.source.redrive.is_some() { LedgerKind::Redrive } else { LedgerKind::Batch };
        let empty = LedgerRow::empty(self.source.clone(), kind, at, self.to, plan.hash.clone());
        let mut row = LedgerRow { events: self.events, horizon_cut: self.horizon_cut, marks, ..empty };
        for (key, columns) in &self.tables {
            let below = below(&columns.offsets, at);
            let kept = (columns.len() - below) as u64;
            row.events -= below as u64;
            if key.table == plan.dead_letters {
                row.dead_letters += kept;
            } else if kept > 0 {
                *row.rows.entry(key.table).or_default() += kept;
                for &time in &columns.times[below..] {
                    row.min_time = Some(row.min_time.map_or(time, |least| least.min(time)));
                    row.max_time = Some(row.max_time.map_or(time, |greatest| greatest.max(time)));
                }
            }
        }
        let duplicates_below = below(&self.duplicates, at);
        row.events -= duplicates_below as u64;
        row.duplicates = (self.duplicates.len() - duplicates_below) as u64;
        row.late = (self.late.len() - below(&self.late, at)) as u64;
        row
    }
}

/// How many of the ascending `offsets` lie below `at`.
fn below(offsets: &[u64], at: u64) -> usize {
    offsets.partition_point(|&offset| offset < at)
}

#[cfg(test)]
mod tests;
