//! What a worker tells of its work, for whoever counts it.
//!
//! The core counts nothing by itself: it is given a [`Meter`] with the [`crate::partition::Terms`] of each step and tells
//! it what happened, a few times a batch and never per event. What *is* (positions, bytes held, why a partition stopped)
//! is asked of [`crate::partition::Partition::status`] instead.

use std::fmt::Debug;
use std::time::Duration;

use crate::batch::{Batch, LedgerRow, Source};

/// Takes in notes. It is called from every worker's thread and must not wait.
pub trait Meter: Debug + Send + Sync {
    /// Something happened.
    fn note(&self, note: Note<'_>);
}

/// Counts nothing.
impl Meter for () {
    fn note(&self, _: Note<'_>) {}
}

/// What happened.
#[derive(Debug, Clone, Copy)]
pub enum Note<'a> {
    /// A batch takes in no more.
    Sealed {
        /// It.
        batch: &'a Batch,
        /// Why now.
        why: Why,
        /// Time since its first message.
        age: Duration,
    },
    /// A batch is done: the ledger has the row that we wrote for it.
    Written {
        /// It.
        batch: &'a Batch,
        /// The row, which leaves out what another writer had done. Its `marks` are left empty.
        row: &'a LedgerRow,
        /// Time since it was sealed.
        took: Duration,
        /// Now, since 1970.
        now: Duration,
    },
    /// An insert was acknowledged.
    Inserted {
        /// The table's name.
        table: &'a str,
        /// Rows of a rollup, without its marker; 0 of other tables, whose rows the ledger tells.
        series: u64,
        /// Events that went to the series `__other__`.
        overflow: u64,
        /// From the first byte sent to the last of the answer.
        took: Duration,
    },
    /// Something failed and is tried again.
    Retry(Errand),
    /// A token in this table let no insert through and yet has no part; the next carries a suffix.
    Burnt {
        /// The table's name.
        table: &'a str,
    },
    /// The log deleted offsets before they were read.
    Lost {
        /// Whose.
        source: &'a Source,
        /// How many.
        offsets: u64,
    },
}

/// Why a batch was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It was as old as it may get.
    Age,
    /// It had as many events as it may have.
    Events,
    /// It was as large as it may get.
    Bytes,
    /// Before its time: memory is short, or the worker ends.
    Early,
}

impl Why {
    /// All there are.
    pub const ALL: [Why; 4] = [Why::Age, Why::Events, Why::Bytes, Why::Early];

    /// A short name to group by.
    pub fn name(self) -> &'static str {
        match self {
            Why::Age => "age",
            Why::Events => "events",
            Why::Bytes => "bytes",
            Why::Early => "early",
        }
    }
}

/// What a worker has others do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Asking the store for marks.
    Marks,
    /// Inserting.
    Insert,
    /// Asking the store for ids.
    Ids,
    /// Asking the log for its bounds.
    Bounds,
    /// Having the log deliver.
    Start,
    /// Asking whether the topic is still the one that was claimed.
    Recognise,
}

impl Errand {
    /// All there are.
    pub const ALL: [Errand; 6] =
        [Errand::Marks, Errand::Insert, Errand::Ids, Errand::Bounds, Errand::Start, Errand::Recognise];

    /// A short name to group by.
    pub fn name(self) -> &'static str {
        match self {
            Errand::Marks => "marks",
            Errand::Insert => "insert",
            Errand::Ids => "ids",
            Errand::Bounds => "bounds",
            Errand::Start => "start",
            Errand::Recognise => "recognise",
        }
    }
}
