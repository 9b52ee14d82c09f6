//! The rules of the protocol, each broken on purpose: by a server, a log or a port that lies.

/// A rule, broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The protocol as it is.
    None,
    /// The server keeps no tokens.
    NoTokens,
    /// Marks are not looked at.
    NoMarks,
    /// A rollup block carries no marker.
    NoMarker,
    /// A rollup block's marker comes in an insert of its own, after it.
    MarkerApart,
    /// The mark is asked for a table and not for its month.
    MarkPerTable,
    /// The token does not name the mark.
    TokenWithoutMark,
    /// Each writer has tokens of its own.
    TokenPerWriter,
    /// A successful insert counts as done without its mark being seen, though a token dropped it.
    BelieveSuccess,
    /// An insert whose connection is gone goes out on a younger one.
    YoungerConnection,
    /// A request that was under way when the server died is sent again in silence.
    SilentReconnect,
    /// A burnt token gets no suffix.
    NoSuffix,
    /// A token counts as burnt as soon as its insert is not seen, without waiting for the insert time-out.
    BurnAtOnce,
    /// The ledger row goes out before its blocks.
    LedgerFirst,
    /// Rollups go out before the rows that they are computed from.
    RollupFirst,
    /// The ledger row is not compared and set: its token is not looked at.
    LedgerWithoutToken,
    /// A ledger that went back is not noticed.
    LedgerNeverBack,
    /// The marks that the ledger recorded are not read.
    NoRecordedMarks,
    /// Nobody asks, before a batch goes out, whether the topic is still the one that was claimed.
    Unrecognised,
    /// Work begins at the group's commit instead of the ledger's end.
    StartAtCommit,
    /// The first start of a group without a commit is at the log's end (`auto.offset.reset=latest`).
    StartAtLatest,
    /// The ledger is not asked again before offsets are called lost.
    NoDoubt,
    /// A position that the log has lost is moved to the log's start in silence (`auto.offset.reset=earliest`).
    ResetEarliest,
    /// Rows that expire as they land are waited for.
    WaitForExpired,
    /// Expired rows count as written as soon as their insert is acknowledged, though the part may still be to come.
    ExpiredAtOnce,
    /// Ids that the log no longer has are not looked up in the raw rows.
    ForgetIds,
    /// Of the ids before the start only those of events that were kept are remembered.
    KeptIdsOnly,
    /// A rollup counts late events.
    LateInRollup,
    /// A partition goes on delivering while it is paused.
    NeverPause,
    /// A partition that was paused never delivers again.
    NeverResume,
    /// A watermark counts what was read and is not written yet.
    UnwrittenWatermark,
    /// A quiet log's end is one that was heard some time ago.
    OldHighWatermark,
    /// A log in which a transaction is open counts as quiet.
    OpenTransactionIgnored,
    /// The watermark that was stored last counts, whatever was stored before.
    LastWatermark,
    /// What a redrive comprises is not fixed: of two commands each has a list of its own.
    ListPerRedrive,
    /// A rewind has the ledger end earlier only when the rows are gone.
    RewindLedgerLast,
    /// A redrive does not look at the epoch that is in force.
    EpochIgnored,
    /// Letters are listed while a rewind is under way.
    ListDuringRewind,
    /// A list whose number a rewind took is fixed under the next.
    ListPastRewind,
}

impl Mutation {
    pub const ALL: [Mutation; 38] = [
        Mutation::NoTokens,
        Mutation::NoMarks,
        Mutation::NoMarker,
        Mutation::MarkerApart,
        Mutation::MarkPerTable,
        Mutation::TokenWithoutMark,
        Mutation::TokenPerWriter,
        Mutation::BelieveSuccess,
        Mutation::YoungerConnection,
        Mutation::SilentReconnect,
        Mutation::NoSuffix,
        Mutation::BurnAtOnce,
        Mutation::LedgerFirst,
        Mutation::RollupFirst,
        Mutation::LedgerWithoutToken,
        Mutation::LedgerNeverBack,
        Mutation::NoRecordedMarks,
        Mutation::Unrecognised,
        Mutation::StartAtCommit,
        Mutation::StartAtLatest,
        Mutation::NoDoubt,
        Mutation::ResetEarliest,
        Mutation::WaitForExpired,
        Mutation::ExpiredAtOnce,
        Mutation::ForgetIds,
        Mutation::KeptIdsOnly,
        Mutation::LateInRollup,
        Mutation::NeverPause,
        Mutation::NeverResume,
        Mutation::UnwrittenWatermark,
        Mutation::OldHighWatermark,
        Mutation::OpenTransactionIgnored,
        Mutation::LastWatermark,
        Mutation::ListPerRedrive,
        Mutation::RewindLedgerLast,
        Mutation::EpochIgnored,
        Mutation::ListDuringRewind,
        Mutation::ListPastRewind,
    ];
}
