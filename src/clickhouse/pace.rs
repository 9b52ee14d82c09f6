//! What a worker's inserts come to, said once a minute while there are any.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::ports::Rows;

/// Between two lines.
const EVERY: Duration = Duration::from_secs(60);
/// The longest latency that is told from longer ones, in microseconds.
const LONGEST: u64 = 600_000_000;

/// Inserts since the last line.
#[derive(Debug)]
pub(super) struct Pace {
    since: Instant,
    /// Messages whose ledger row was sent.
    events: u64,
    /// Microseconds; `None` only if the bounds were wrong, which a test excludes.
    latencies: Option<Histogram<u64>>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace { since: Instant::now(), events: 0, latencies: Histogram::new_with_bounds(1, LONGEST, 2).ok() }
    }

    /// Takes note of an insert that was acknowledged.
    pub(super) fn took(&mut self, rows: &Rows, took: Duration) {
        if let Rows::Ledger(row) = rows {
            self.events += row.events;
        }
        if let Some(latencies) = &mut self.latencies {
            latencies.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST));
        }
    }

    /// Says it, if it is time and there was anything.
    pub(super) fn say(&mut self) {
        if self.since.elapsed() < EVERY {
            return;
        }
        if let Some(line) = self.line() {
            tracing::info!("{line}");
        }
        *self = Pace::new();
    }

    fn line(&self) -> Option<String> {
        let latencies = self.latencies.as_ref().filter(|latencies| !latencies.is_empty())?;
        let ms = |quantile| latencies.value_at_quantile(quantile).div_ceil(1_000);
        Some(format!(
            "wrote {} events in {} s by {} inserts, of {} ms at the median, {} ms at the 95th percentile, {} ms at the 99th",
            self.events,
            self.since.elapsed().as_secs(),
            latencies.len(),
            ms(0.5),
            ms(0.95),
            ms(0.99)
        ))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::batch::{LedgerKind, LedgerRow, Source};

    #[test]
    fn says_what_was_written_and_how_long_it_took() {
        let mut pace = Pace::new();
        assert_eq!(pace.line(), None);
        let source = Source { epoch: 1, redrive: None, topic: "t".into(), partition: 0 };
        let mut row = LedgerRow::empty(source, LedgerKind::Batch, 0, 70, String::new());
        row.events = 70;
        for ms in 1..=100 {
            pace.took(&Rows::Ledger(row.clone()), Duration::from_millis(ms));
        }
        let line = pace.line().unwrap();
        assert!(line.starts_with("wrote 7000 events in 0 s by 100 inserts, of 5"), "{line}");
        pace.took(&Rows::Ledger(row), Duration::from_secs(100_000));
        assert!(pace.line().unwrap().contains("101 inserts"));
    }
}
