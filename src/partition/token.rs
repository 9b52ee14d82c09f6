//! The end of an insert's token: the mark that it is built on, and how many tokens before it were burnt.

use std::fmt;
use std::time::Duration;

/// What became of the inserts under one mark.
///
/// A server killed between token and part leaves a token that lets no insert through any more and yet has no part. It
/// shows as an insert that was acknowledged and, when even the slowest would have landed, is still not seen. Then the
/// token is *burnt* and the next carries a suffix: `/1`, `/2` …, for every writer the same sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    base: u64,
    burnt: u32,
    /// When an insert under it was first acknowledged.
    acknowledged: Option<Duration>,
}

impl Token {
    /// The first token on a mark.
    pub(super) fn on(base: u64) -> Token {
        Token { base, burnt: 0, acknowledged: None }
    }

    /// An insert under it was acknowledged.
    pub(super) fn acknowledge(&mut self, now: Duration) {
        self.acknowledged.get_or_insert(now);
    }

    /// Whether an insert under it, on this mark, was acknowledged so long before a question at the time `asked` that its
    /// part, whoever's insert it is of, had come or never will.
    pub(super) fn is_decided(&self, base: u64, insert_timeout: Duration, asked: Duration) -> bool {
        self.base == base && self.is_overdue(insert_timeout, asked)
    }

    fn is_overdue(&self, insert_timeout: Duration, asked: Duration) -> bool {
        self.acknowledged.is_some_and(|at| asked.saturating_sub(at) >= insert_timeout)
    }

    /// The mark was asked at the time `asked`: it is `base`, so what was inserted on it was not there. Answers whether that
    /// is against an acknowledgement.
    ///
    /// The time of the question counts and not that of its answer, which may have been heard much later: the part may
    /// have come in between.
    pub(super) fn missed(&mut self, base: u64, insert_timeout: Duration, asked: Duration) -> bool {
        if self.base != base {
            *self = Token::on(base);
        }
        let acknowledged = self.acknowledged;
        if self.is_overdue(insert_timeout, asked) {
            *self = Token { burnt: self.burnt + 1, ..Token::on(base) };
        }
        acknowledged.is_some()
    }

    /// How many before it were burnt.
    pub(super) fn burnt(self) -> u32 {
        self.burnt
    }

    /// What tells it from its burnt predecessors.
    pub(super) fn suffix(self) -> Suffix {
        Suffix(self.burnt)
    }
}

/// `/n`, or nothing for the first.
#[derive(PartialEq, Eq)]
pub(super) struct Suffix(u32);

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 { Ok(()) } else { write!(f, "/{}", self.0) }
    }
}
