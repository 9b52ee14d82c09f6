//! Records that wait for the schema of one before them, or for their own. What comes before them is written meanwhile.
//!
//! Few: delivery is paused as soon as there is one, so these are what was on its way already.

use std::collections::VecDeque;
use std::time::Duration;

use crate::batch::Source;
use crate::ports::Record;

/// Bytes that a parked record costs beside key and value.
const OVERHEAD: usize = 96;

/// The parked records of a partition, in the log's order.
#[derive(Debug, Default)]
pub(super) struct Hold {
    parked: VecDeque<Parked>,
    /// The log was read to its end behind them: the next offset to come.
    end: Option<u64>,
    bytes: usize,
}

/// A record, kept.
#[derive(Debug)]
pub(super) struct Parked {
    offset: u64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    /// When it came.
    pub(super) seen: Duration,
}

impl Hold {
    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    /// Memory held, roughly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn park(&mut self, record: &Record<'_>, seen: Duration) {
        let parked = Parked {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload.map(<[u8]>::to_vec),
            seen,
        };
        self.bytes += parked.bytes();
        self.parked.push_back(parked);
        self.end = None;
    }

    /// Takes note that nothing comes behind the parked records for now.
    pub(super) fn end(&mut self, offset: u64) {
        self.end = Some(offset);
    }

    pub(super) fn pop(&mut self) -> Option<Parked> {
        let parked = self.parked.pop_front()?;
        self.bytes -= parked.bytes();
        Some(parked)
    }

    /// Puts back what [`Hold::pop`] gave.
    pub(super) fn put_back(&mut self, parked: Parked) {
        self.bytes += parked.bytes();
        self.parked.push_front(parked);
    }

    /// The log's end behind the last of them, once.
    pub(super) fn take_end(&mut self) -> Option<u64> {
        self.end.take()
    }

    /// The parked records from the first on.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Parked> {
        self.parked.iter()
    }
}

impl Parked {
    pub(super) fn record<'a>(&'a self, source: &'a Source) -> Record<'a> {
        Record {
            topic: &source.topic,
            partition: source.partition,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
        }
    }

    fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.payload) + OVERHEAD
    }
}
