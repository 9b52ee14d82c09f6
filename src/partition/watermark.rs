//! How far event time has come in what is written of a partition.
//!
//! A watermark W is a claim: all that the log held at some moment is in ClickHouse, and no event before W is expected after
//! that moment. It rests either on an event, the greatest of a written batch less the allowed lateness, or on a log that
//! had nothing more to give while everything given was written, which advances with the clock.
//!
//! A claim that was true once stays true: what is written stays written, whoever wrote it and whoever owns the partition
//! now. So any number of writers, a zombie among them, may store theirs in any order, and the greatest per source counts;
//! nothing has to be restored on assignment, and what is stored never goes back. (Only a rewind takes rows back; it begins
//! a new epoch, whose watermarks begin anew.) What a zombie must not do is to take an old answer for a new one; hence the
//! moment of a quiet log is taken before it is asked for its end.

use std::time::Duration;

use super::Terms;

/// What a quiet partition lags behind the clock beside the lateness: room for clocks that differ and records on their way.
const SLACK: Duration = Duration::from_secs(5);

/// The watermark of one partition. Times are milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    /// That of all that is written.
    reached: Option<i64>,
    /// What the batch in flight will make of it.
    in_flight: Option<i64>,
    /// Where the log ended, if no record came since.
    end: Option<u64>,
}

impl Watermark {
    /// A batch was sealed; `greatest_ms` is the greatest event time up to its end. It counts for no more than the clock
    /// says, so that one producer ahead of time completes no minute that is still going on.
    pub(super) fn seal(&mut self, greatest_ms: Option<i64>, terms: Terms<'_>) {
        self.in_flight = greatest_ms.map(|greatest| greatest.min(millis(terms.now)) - terms.plan.limits.lateness_ms);
    }

    /// The ledger has the sealed batch.
    pub(super) fn written(&mut self) {
        self.reached = self.reached.max(self.in_flight.take());
    }

    /// A record came.
    pub(super) fn record(&mut self) {
        self.end = None;
    }

    /// The log has been read to its end.
    pub(super) fn end_of_log(&mut self, offset: u64) {
        self.end = Some(offset);
    }

    /// Where the log ended, if no record came since.
    pub(super) fn end(&self) -> Option<u64> {
        self.end
    }

    /// All that was read is written, and at `terms.now` the log's high watermark was asked for, which is `high`. If it is
    /// where reading ended, nothing more was there, no open transaction either. An end below it is another log's.
    pub(super) fn quiet(&mut self, high: u64, terms: Terms<'_>) {
        if self.end == Some(high) {
            let behind = terms.plan.limits.lateness_ms.saturating_add(millis(SLACK));
            self.reached = self.reached.max(Some(millis(terms.now).saturating_sub(behind)));
        }
    }

    /// The greatest claim so far.
    pub(super) fn reached(&self) -> Option<i64> {
        self.reached
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
