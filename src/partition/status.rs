//! How a partition stands, for those who watch it.

/// Where a partition is, read off between two steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The next offset to be read, once known. At the log's end it is that end, past markers that are no records.
    pub position: Option<u64>,
    /// The ledger's end, once known: everything below is written.
    pub done: Option<u64>,
    /// Timestamp of the oldest record that was read and is not written, milliseconds since 1970.
    pub oldest_ms: Option<i64>,
    /// Timestamp of the latest record read, milliseconds since 1970.
    pub latest_ms: Option<i64>,
    /// Greatest event time read, milliseconds since 1970, held to its record's timestamp.
    pub greatest_event_ms: Option<i64>,
    /// Memory held, bytes, roughly.
    pub bytes: usize,
    /// Whether the log was told to hold its records back.
    pub paused: bool,
    /// Why a guard stopped it: [`super::Stop::name`].
    pub stopped: Option<&'static str>,
}
