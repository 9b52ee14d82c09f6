//! What the worker needs of the outside: a [`Log`] to read (Kafka), a [`Store`] to write (ClickHouse) and a [`Registry`]
//! of schemas.
//!
//! All are asked and answer later, so that one thread drives them all and a simulation can stand in their place. No call
//! here waits for a server longer than it says.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::batch::{Block, Key, LedgerRow, Source};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: std::sync::Arc<str>,
    /// Partition number.
    pub partition: i32,
}

impl std::fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// One message, borrowed from the log's buffers.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition number.
    pub partition: i32,
    /// Offset.
    pub offset: u64,
    /// The record's own timestamp, milliseconds since 1970; 0 where the record has none.
    pub timestamp_ms: i64,
    /// Key, if any.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub payload: Option<&'a [u8]>,
}

/// What the log has to tell.
#[derive(Debug)]
pub enum LogEvent<'a> {
    /// The group gave us these partitions; they stay silent until [`Log::start`].
    Assigned(Vec<TopicPartition>),
    /// The group takes these back; when this returns they are gone.
    Revoked(Vec<TopicPartition>),
    /// A message of a started partition.
    Record(Record<'a>),
    /// A started partition has been read to its end; the next offset to be delivered is at least this one.
    End(TopicPartition, u64),
    /// The position asked for does not exist in the log.
    OutOfRange(TopicPartition),
}

/// Where a partition's log begins and ends, and what the group committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First offset still there.
    pub start: u64,
    /// One past the last.
    pub end: u64,
    /// The group's committed offset.
    pub committed: Option<u64>,
}

/// Why the log does not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// A fault that passes; asking again later is right.
    #[error("{0}")]
    Passing(String),
    /// The topic is not the one that was claimed: deleted and made anew, or another cluster answers.
    #[error("{0}")]
    OtherTopic(String),
}

/// A consumer in a group.
pub trait Log {
    /// Hands over what arrived, waiting at most `wait` for the first of it.
    fn poll(&mut self, wait: Duration, on: &mut dyn FnMut(LogEvent<'_>));
    /// Asks for bounds and commits of assigned partitions; one answer each, in order. A few milliseconds, at most a
    /// second or two.
    fn bounds(&mut self, partitions: &[TopicPartition]) -> Vec<Result<Bounds, LogError>>;
    /// Whether the topic is still the one that was claimed. `Ok` holds of all that was delivered before, since what was
    /// deleted never comes back. A few milliseconds, at most a second. A log that can't be made anew is always itself.
    fn recognise(&mut self, _topic: &str) -> Result<(), LogError> {
        Ok(())
    }
    /// Begins (or begins again) to deliver an assigned partition from `offset` on. Nothing below it is delivered.
    fn start(&mut self, partition: &TopicPartition, offset: u64) -> Result<(), LogError>;
    /// Stops delivering for a while.
    fn pause(&mut self, partition: &TopicPartition);
    /// Goes on after [`Log::pause`].
    fn resume(&mut self, partition: &TopicPartition);
    /// Asks where these partitions end, records of open transactions included: one past the last offset of each. Some
    /// milliseconds, at most a second.
    fn high_watermarks(&mut self, partitions: &[TopicPartition]) -> Vec<Result<u64, LogError>>;
    /// Commits offsets: a hint, so a failure is logged and nothing else.
    fn commit(&mut self, offsets: &[(TopicPartition, u64)]);
}

/// Names one question or insert, so that its answer finds home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One connection to the store, never reused for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(pub u64);

/// What the ledger says of a source.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LedgerEnd {
    /// One past the last offset that is done; `None`: the ledger has no row of this source.
    pub end: Option<u64>,
    /// The greatest mark recorded per table and month: what a TTL may have taken from the tables.
    /// Filled only where the question asked for it.
    pub recorded: BTreeMap<Key, u64>,
    /// The epoch that the topic is in by now; `None`: nobody has claimed it.
    pub epoch: Option<u32>,
}

/// A question about one source.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whose marks.
    pub source: Source,
    /// Where the batch begins that the asker writes; 0: it has none yet.
    pub from: u64,
    /// The marks wanted.
    pub keys: Vec<Key>,
    /// Whether the ledger's recorded marks are wanted too (once, at the start).
    pub recorded: bool,
}

/// The store's answer to a [`Question`]. Tables are read one after the other, so the answer need not be true at one
/// moment; each mark was true at some moment after the connection was opened.
#[derive(Debug, Clone)]
pub struct Marks {
    /// The connection that was asked. An insert built on these marks goes out on it or not at all.
    pub connection: Connection,
    /// The ledger.
    pub ledger: LedgerEnd,
    /// The mark of each key asked for: one past the last offset found there; absent where none was.
    pub marks: BTreeMap<Key, u64>,
}

/// One insert: a block or a ledger row, and what it was built on.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The connection whose answer it was built on.
    pub connection: Connection,
    /// `{source}/{table}/{month}/{mark}[/n]`, or `{source}/ledger/{end}[/n]`.
    pub token: String,
    /// What to insert.
    pub rows: Rows,
}

/// What an insert carries.
#[derive(Debug, Clone)]
pub enum Rows {
    /// One block of a data table.
    Block(Block),
    /// One row of the ledger.
    Ledger(LedgerRow),
}

/// Why a question or an insert has no good answer. What became of an insert is unknown in every case but `Refused`.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The connection is gone or was never there; it must be asked anew.
    #[error("{0}")]
    Broken(String),
    /// The server answered with an error that passes (overload, read-only, memory).
    #[error("{0}")]
    Passing(String),
    /// The server answered with an error that will come again for the same rows.
    #[error("{0}")]
    Refused(String),
}

/// What the store answers.
#[derive(Debug)]
pub enum Answer {
    /// To a question; one [`Marks`] per source asked, in order.
    Marks(Result<Vec<Marks>, StoreError>),
    /// To an insert. `Ok` proves nothing: a deduplicated insert is `Ok` too.
    Inserted(Result<(), StoreError>),
    /// To a request for ids: (offset, event type position, id) in ascending order.
    Ids(Result<Vec<(u64, usize, u128)>, StoreError>),
}

/// The database.
pub trait Store {
    /// Asks for marks, opening a connection where none is open.
    fn ask(&mut self, questions: Vec<Question>) -> Ticket;
    /// Sends an insert on its own connection; where that is no longer open, answers [`StoreError::Broken`] unsent.
    fn insert(&mut self, insert: Insert) -> Ticket;
    /// Asks for the ids of raw rows with offsets in `[from, to)`.
    fn ids(&mut self, source: &Source, from: u64, to: u64) -> Ticket;
    /// Stores watermarks, in milliseconds since 1970; answered as an insert is. A repetition does no harm.
    fn report(&mut self, watermarks: Vec<(Source, i64)>) -> Ticket;
    /// The next answer, if one is there.
    fn poll(&mut self) -> Option<(Ticket, Answer)>;
}

/// What a schema registry says of an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Registered {
    /// An Avro schema: its text, whole.
    Avro(String),
    /// Something that no event can be read with, and why not.
    Unusable(String),
    /// It has no such id.
    Missing,
}

/// A passing fault of the registry (away, overloaded, access refused): nothing is known, and asking again later is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RegistryError(pub String);

/// A schema registry.
pub trait Registry {
    /// Asks what an id means.
    fn ask(&mut self, id: u32);
    /// The next answer, if one is there. Each question gets one.
    fn poll(&mut self) -> Option<(u32, Result<Registered, RegistryError>)>;
}

/// The registry of those who have none: never asked, since no message of theirs gets as far.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRegistry;

impl Registry for NoRegistry {
    fn ask(&mut self, _id: u32) {}

    fn poll(&mut self) -> Option<(u32, Result<Registered, RegistryError>)> {
        None
    }
}
