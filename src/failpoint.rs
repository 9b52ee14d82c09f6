//! Places between two steps of the protocol at which a process ends or freezes when a test tells it to, so that every gap
//! is tried and not only those that a random kill happens upon.
//!
//! `FAILPOINT=blocks_sent:7:end` ends the process (as by `kill -9`: nothing is tidied up) when it comes to that place for
//! the seventh time; `…:freeze` stops it there by SIGSTOP, until somebody sends SIGCONT. Debug builds only: in a release
//! build [`reach`] is empty.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// A place between two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// The batch is sealed, whether the topic is still the one that was claimed is about to be asked.
    Sealed,
    /// It is, the marks are about to be asked or are known already.
    Recognised,
    /// The marks are known, the blocks built on them are about to be inserted.
    MarksKnown,
    /// A block was acknowledged, another is to follow.
    BetweenBlocks,
    /// The last block was acknowledged, the marks are about to be asked.
    BlocksSent,
    /// All blocks were seen, the ledger row is about to be inserted.
    BlocksSeen,
    /// The ledger row was acknowledged, the ledger is about to be asked.
    LedgerRowSent,
    /// The ledger has the batch, the offset is about to be committed.
    BeforeCommit,
    /// The offset was handed over to be committed.
    AfterCommit,
    /// The row of the ledger that a source begins with is about to be inserted.
    StartRow,
    /// It was acknowledged, the ledger is about to be asked.
    StartRowSent,
    /// The row of the ledger that says what the log lost is about to be inserted.
    LostRow,
    /// It was acknowledged, the ledger is about to be asked.
    LostRowSent,
    /// A round of alerts was judged, what it found is about to be published.
    AlertsJudged,
    /// It is in the log, the transaction is about to be committed.
    AlertsSent,
    /// The transaction is committed, the table of alerts is about to be written.
    AlertsPublished,
    /// The table of alerts was written.
    AlertsKept,
}

impl Point {
    /// Those of a batch, in the order in which it comes to them.
    pub const ALL: [Point; 9] = [
        Point::Sealed,
        Point::Recognised,
        Point::MarksKnown,
        Point::BetweenBlocks,
        Point::BlocksSent,
        Point::BlocksSeen,
        Point::LedgerRowSent,
        Point::BeforeCommit,
        Point::AfterCommit,
    ];

    /// Those around rows of the ledger that stand for no event, in the order in which a source comes to them, if at all.
    pub const GAPS: [Point; 4] = [Point::StartRow, Point::StartRowSent, Point::LostRow, Point::LostRowSent];

    /// Those of a round of alerts, likewise.
    pub const ALERTS: [Point; 4] = [Point::AlertsJudged, Point::AlertsSent, Point::AlertsPublished, Point::AlertsKept];

    /// As the variable has it.
    pub fn name(self) -> &'static str {
        match self {
            Point::Sealed => "sealed",
            Point::Recognised => "recognised",
            Point::MarksKnown => "marks_known",
            Point::BetweenBlocks => "between_blocks",
            Point::BlocksSent => "blocks_sent",
            Point::BlocksSeen => "blocks_seen",
            Point::LedgerRowSent => "ledger_row_sent",
            Point::BeforeCommit => "before_commit",
            Point::AfterCommit => "after_commit",
            Point::StartRow => "start_row",
            Point::StartRowSent => "start_row_sent",
            Point::LostRow => "lost_row",
            Point::LostRowSent => "lost_row_sent",
            Point::AlertsJudged => "alerts_judged",
            Point::AlertsSent => "alerts_sent",
            Point::AlertsPublished => "alerts_published",
            Point::AlertsKept => "alerts_kept",
        }
    }
}

/// The environment variable: `{point}:{hit}:{end|freeze}`.
pub const VARIABLE: &str = "FAILPOINT";

/// Ends or freezes the process, if it was told to do so here and now.
#[inline]
pub fn reach(point: Point) {
    if cfg!(debug_assertions) {
        static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
        let armed = ARMED.get_or_init(|| Armed::parse(&std::env::var(VARIABLE).ok()?));
        if let Some(armed) = armed {
            armed.reach(point);
        }
    }
}

struct Armed {
    point: Point,
    at: u64,
    freeze: bool,
    hits: AtomicU64,
}

impl Armed {
    fn parse(text: &str) -> Option<Armed> {
        let mut words = text.split(':');
        let (name, at, then) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
        let point =
            Point::ALL.into_iter().chain(Point::GAPS).chain(Point::ALERTS).find(|point| point.name() == name)?;
        let freeze = match then {
            "end" => false,
            "freeze" => true,
            _ => return None,
        };
        Some(Armed { point, at, freeze, hits: AtomicU64::new(0) })
    }

    fn reach(&self, point: Point) {
        if point != self.point || self.hits.fetch_add(1, Ordering::Relaxed) + 1 != self.at {
            return;
        }
        if !self.freeze {
            std::process::abort();
        }
        // A process can stop itself only by a system call, which safe code has no other way to make.
        let own = std::process::id().to_string();
        if let Err(error) = std::process::Command::new("kill").args(["-STOP", &own]).status() {
            tracing::error!("can't freeze at {}: {error}", point.name());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_failpoint_is_a_place_a_count_and_what_to_do() {
        let armed = Armed::parse("blocks_sent:7:freeze").unwrap();
        assert_eq!((armed.point, armed.at, armed.freeze), (Point::BlocksSent, 7, true));
        assert!(!Armed::parse("after_commit:1:end").unwrap().freeze);
        for point in Point::ALL.into_iter().chain(Point::GAPS).chain(Point::ALERTS) {
            assert_eq!(Armed::parse(&format!("{}:1:end", point.name())).unwrap().point, point);
        }
        for text in ["", "blocks_sent", "blocks_sent:7", "blocks_sent:x:end", "nowhere:1:end", "blocks_sent:1:explode"]
        {
            assert!(Armed::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn other_places_and_other_hits_are_passed_by() {
        let armed = Armed::parse("blocks_sent:3:end").unwrap();
        for _ in 0..2 {
            armed.reach(Point::BlocksSent);
            armed.reach(Point::BlocksSeen);
        }
        assert_eq!(armed.hits.load(Ordering::Relaxed), 2);
    }
}
