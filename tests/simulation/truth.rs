//! What must become of every offset of a log, computed from the log alone by looking back from each record.

use highwater::batch::Month;

use crate::log::{Entry, Event, Record};
use crate::plans::{self, HORIZON, LATENESS_MS, MAX_AGE_MS, MAX_SKEW_MS};

/// What an offset becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it is never delivered.
    Gap,
    /// A dead letter.
    Dead,
    /// A counted duplicate.
    Duplicate,
    /// A raw row of this event type, and a part of its rollups.
    Row { kind: usize, app: usize, amount: i64 },
}

/// One offset's fate, and when and where that is.
#[derive(Debug, Clone, Copy)]
pub struct Judged {
    pub fate: Fate,
    /// Event time of a row, record timestamp of a dead letter; microseconds since 1970.
    pub micros: i64,
    pub month: u32,
    timestamp_ms: i64,
}

impl Judged {
    /// Event time in milliseconds, no later than the record's timestamp if that has one.
    fn capped_ms(&self) -> i64 {
        let time_ms = self.micros / 1_000;
        if self.timestamp_ms > 0 { time_ms.min(self.timestamp_ms) } else { time_ms }
    }
}

/// The truth of one log.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    pub offsets: Vec<Judged>,
    /// End of the log: the ledger follows over gaps as well.
    pub end: u64,
}

/// What a ledger row has to say of a range.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sums {
    pub events: u64,
    /// Per event type.
    pub rows: [u64; 2],
    pub dead_letters: u64,
    pub duplicates: u64,
    pub min_time: Option<i64>,
    pub max_time: Option<i64>,
}

impl Truth {
    pub fn of(log: &[Record]) -> Truth {
        let offsets: Vec<Judged> = (0..log.len()).map(|offset| judge(log, offset)).collect();
        Truth { end: offsets.len() as u64, offsets }
    }

    /// Of these letters of a log, once they can be read.
    pub fn of_letters(log: &[Record], letters: &[u64]) -> Truth {
        let of = |(offset, record): (usize, &Record)| match record.entry {
            Entry::Letter(event) if letters.contains(&(offset as u64)) => {
                let Event { kind, micros, app, amount, .. } = event;
                let timestamp_ms = record.timestamp_ms;
                Judged { fate: Fate::Row { kind, app, amount }, micros, month: Month::of(micros).0, timestamp_ms }
            }
            _ => Judged { fate: Fate::Gap, ..judge(log, offset) },
        };
        let end = letters.last().map_or(0, |last| last + 1);
        Truth { offsets: log.iter().enumerate().map(of).take(end as usize).collect(), end }
    }

    /// Whether an offset belongs into a table and month.
    pub fn belongs(&self, offset: u64, table: u8, month: u32) -> bool {
        self.offsets.get(offset as usize).is_some_and(|judged| {
            judged.month == month
                && match judged.fate {
                    Fate::Row { kind, .. } => plans::holds(table, Some(kind)),
                    Fate::Dead => plans::holds(table, None),
                    Fate::Gap | Fate::Duplicate => false,
                }
        })
    }

    pub fn sums(&self, from: u64, to: u64) -> Sums {
        let mut sums = Sums::default();
        for judged in &self.offsets[from as usize..(to as usize).min(self.offsets.len())] {
            sums.events += u64::from(judged.fate != Fate::Gap);
            match judged.fate {
                Fate::Gap => {}
                Fate::Dead => sums.dead_letters += 1,
                Fate::Duplicate => sums.duplicates += 1,
                Fate::Row { kind, .. } => {
                    sums.rows[kind] += 1;
                    sums.min_time = Some(sums.min_time.map_or(judged.micros, |least| least.min(judged.micros)));
                    sums.max_time = sums.max_time.max(Some(judged.micros));
                }
            }
        }
        sums
    }

    /// Greatest event time of the rows in `[from, to)`, milliseconds since 1970, none later than its record's timestamp.
    pub fn greatest(&self, from: u64, to: u64) -> Option<i64> {
        let range = self.offsets.iter().take(to as usize).skip(from as usize);
        range.filter(|judged| matches!(judged.fate, Fate::Row { .. })).map(Judged::capped_ms).max()
    }

    /// How many of the rows at these offsets, which ascend, are late to a reader who began at `begun`.
    pub fn late(&self, begun: u64, of: &[u64]) -> u64 {
        let mut greatest: Option<i64> = None;
        let mut late = 0;
        for (offset, judged) in
            self.offsets.iter().enumerate().take(of.last().map_or(0, |last| *last as usize + 1)).skip(begun as usize)
        {
            if !matches!(judged.fate, Fate::Row { .. }) {
                continue;
            }
            let time_ms = judged.micros / 1_000;
            let is_late = greatest.is_some_and(|most| time_ms < most - LATENESS_MS);
            late += u64::from(is_late && of.binary_search(&(offset as u64)).is_ok());
            greatest = greatest.max(Some(judged.capped_ms()));
        }
        late
    }
}

fn judge(log: &[Record], offset: usize) -> Judged {
    let record = &log[offset];
    let dead = |timestamp_ms: i64| Judged {
        fate: Fate::Dead,
        micros: timestamp_ms * 1_000,
        month: Month::of(timestamp_ms * 1_000).0,
        timestamp_ms,
    };
    let Event { kind, id, micros, app, amount } = match &record.entry {
        Entry::Gap => return Judged { fate: Fate::Gap, ..dead(record.timestamp_ms) },
        Entry::Noise(_) | Entry::Letter(_) => return dead(record.timestamp_ms),
        Entry::Event(event) => *event,
    };
    let (time_ms, timestamp_ms) = (micros / 1_000, record.timestamp_ms);
    if timestamp_ms > 0 && (time_ms > timestamp_ms + MAX_SKEW_MS || time_ms < timestamp_ms - MAX_AGE_MS) {
        return dead(timestamp_ms);
    }
    let before = &log[offset.saturating_sub(HORIZON as usize)..offset];
    let twin = |other: &Record| matches!(&other.entry, Entry::Event(event) if event.id == id && event.kind == kind);
    let fate = if before.iter().any(twin) { Fate::Duplicate } else { Fate::Row { kind, app, amount } };
    Judged { fate, micros, month: Month::of(micros).0, timestamp_ms }
}
