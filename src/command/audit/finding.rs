//! One thing that does not add up.

use std::fmt;

use serde::Serialize;

/// What kind of fault it is; in JSON in `snake_case`. `docs/audit.md` says what each means and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No range of the ledger covers these offsets.
    Gap,
    /// Two ranges of the ledger cover the same offsets.
    Overlap,
    /// A range ends before it begins.
    Backward,
    /// A range's events are not its rows, dead letters and duplicates.
    WrongSum,
    /// The ledger ends earlier than an audit has proved it to.
    Shrunk,
    /// Ranges that an audit has proved are no longer as they were.
    ProvenChanged,
    /// Rows of a range are not in the table.
    MissingRows,
    /// Rows of a range are in the table more than once.
    DoubledRows,
    /// A range has rows in the table that the ledger does not know of.
    ExtraRows,
    /// Rows of offsets that come before the ledger's first range.
    BelowFirst,
    /// Rows of offsets that come after the ledger's last range, and no worker is at them.
    Unfinished,
    /// Rows of a source that the ledger has never heard of.
    UnknownSource,
    /// The table as a whole has more or fewer rows than the ledger says.
    TableTotal,
    /// The marker row of a source is missing in a rollup, or is behind what the ledger saw.
    MissingMark,
    /// Minutes of a rollup are not the sum of their raw rows.
    Minutes,
    /// The rows of a run of `dead-letters redrive` are not those that it lists.
    Redriven,
    /// A dead letter is listed by two runs.
    ListedTwice,
    /// The ledger has a run that is not listed.
    UnknownRun,
    /// The group committed offsets that the ledger has not got.
    Committed,
    /// The log deleted offsets before they were read.
    LogStart,
    /// The log ends before the ledger.
    LogEnd,
    /// More offsets are unread than `--max-lag` allows.
    Lag,
    /// The ledger has not moved for longer than `--max-age` allows, though Kafka has more.
    Stuck,
}

/// A stretch of minutes; both as RFC 3339, UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Minutes {
    /// The first.
    pub first: String,
    /// The last, which may be the first.
    pub last: String,
    /// How many of them differ.
    pub count: u64,
}

/// A range of the ledger and the plan that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Written {
    /// `epoch/topic/partition`.
    pub source: String,
    /// First offset.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// Hash of the plan that the ledger names.
    pub plan: String,
    /// The plan of the range before it, where that is another: parts of this range may have been written by either.
    pub plan_before: Option<String>,
}

/// Something that does not add up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of fault.
    pub kind: Kind,
    /// The table.
    pub table: String,
    /// `epoch/topic/partition`, where it concerns one.
    pub source: Option<String>,
    /// First offset of the range, where it concerns one.
    pub from: Option<u64>,
    /// One past its last.
    pub to: Option<u64>,
    /// For rollups: which minutes.
    pub minutes: Option<Minutes>,
    /// For rollups: the ranges that wrote into those minutes, those with two plans first; a few of them.
    pub written_by: Vec<Written>,
    /// What is wrong.
    pub what: String,
}

impl Finding {
    /// A finding about a table.
    pub(super) fn new(kind: Kind, table: &str, what: impl Into<String>) -> Finding {
        Finding {
            kind,
            table: table.to_owned(),
            source: None,
            from: None,
            to: None,
            minutes: None,
            written_by: Vec::new(),
            what: what.into(),
        }
    }

    /// About a range of one source.
    #[must_use]
    pub(super) fn at(mut self, source: &str, from: u64, to: u64) -> Finding {
        (self.source, self.from, self.to) = (Some(source.to_owned()), Some(from), Some(to));
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.table)?;
        if let Some(source) = &self.source {
            write!(f, " {source}")?;
        }
        if let (Some(from), Some(to)) = (self.from, self.to) {
            write!(f, " [{from}, {to})")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Seconds since 1970 as RFC 3339.
pub(super) fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// A number with commas.
pub(in crate::command) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration in its two greatest units, `2h 5m`.
pub(super) fn lasting(seconds: u64) -> String {
    let units = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let first = units.iter().position(|(number, _)| *number > 0).unwrap_or(units.len() - 1);
    let parts = units[first..].iter().take(2).filter(|(number, _)| *number > 0 || seconds == 0);
    parts.map(|(number, unit)| format!("{number}{unit}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_groups_of_three() {
        let read = [0, 12, 999, 1_000, 19_366, 1_234_567].map(thousands);
        assert_eq!(read, ["0", "12", "999", "1,000", "19,366", "1,234,567"]);
    }

    #[test]
    fn durations_are_read_in_two_units() {
        let read = [0, 59, 60, 3_601, 7_500, 90_000, 864_000].map(lasting);
        assert_eq!(read, ["0s", "59s", "1m", "1h", "2h 5m", "1d 1h", "10d"]);
    }
}
