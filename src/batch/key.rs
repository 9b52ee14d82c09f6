//! The names of things in the protocol: source, month, key.

use std::fmt;
use std::sync::Arc;

use crate::plan::TableId;

/// A partition of a topic in one of its lives: `{epoch}/{topic}/{partition}`; or the dead letters of one that a run of
/// `dead-letters redrive` reads again, under the offsets that they have: `{epoch}r{run}/{topic}/{partition}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Number of the topic's life, from the table `sources`.
    pub epoch: u32,
    /// The run of `dead-letters redrive` that reads it; `None`: the log itself.
    pub redrive: Option<u32>,
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number.
    pub partition: i32,
}

impl Source {
    /// Reads what [`Source`] is shown as; `None`: it is none.
    pub fn parse(name: &str) -> Option<Source> {
        let mut words = name.split('/');
        let (life, topic, partition) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let (epoch, redrive) = match life.split_once('r') {
            Some((epoch, run)) => (epoch, Some(run.parse().ok()?)),
            None => (life, None),
        };
        let source = Source { epoch: epoch.parse().ok()?, redrive, topic: topic.into(), partition };
        words.next().is_none().then_some(source)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.epoch)?;
        if let Some(run) = self.redrive {
            write!(f, "r{run}")?;
        }
        write!(f, "/{}/{}", self.topic, self.partition)
    }
}

/// A calendar month in UTC, as `yyyymm`: what ClickHouse's `toYYYYMM` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month(pub u32);

const MICROS_PER_DAY: i64 = 86_400_000_000;

impl Month {
    /// The month of a time in microseconds since 1970.
    ///
    /// Days to civil date by Howard Hinnant's algorithm (years counted from March in eras of 400 years).
    pub fn of(micros: i64) -> Month {
        let days = micros.div_euclid(MICROS_PER_DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Month((year * 100 + month) as u32)
    }

    /// Its first second, in seconds since 1970.
    pub fn start_seconds(self) -> i64 {
        let (year, month) = (i64::from(self.0 / 100), i64::from(self.0 % 100));
        let shifted = if month <= 2 { year - 1 } else { year };
        let era = shifted.div_euclid(400);
        let year_of_era = shifted.rem_euclid(400);
        let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * 146_097 + day_of_era - 719_468) * 86_400
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One month of one table: where a mark stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The table.
    pub table: TableId,
    /// The month.
    pub month: Month,
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::{Timestamp, tz::TimeZone};

    #[test]
    fn a_source_is_named_by_its_life_topic_and_partition() {
        let log = Source { epoch: 2, redrive: None, topic: "t".into(), partition: 7 };
        assert_eq!(log.to_string(), "2/t/7");
        assert_eq!(Source { redrive: Some(13), ..log.clone() }.to_string(), "2r13/t/7");
        assert_eq!(Source::parse("2/t/7"), Some(log.clone()));
        assert_eq!(Source::parse("2r13/t/7"), Some(Source { redrive: Some(13), ..log }));
        for none in ["", "2", "2/t", "2/t/x", "x/t/7", "2rx/t/7", "2r/t/7", "r3/t/7", "2/t/7/8", "-1/t/7", "2/t/"] {
            assert_eq!(Source::parse(none), None, "{none}");
        }
    }

    #[test]
    fn month_agrees_with_a_calendar() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..20_000 {
            let seconds = rng.i64(0..4_294_967_295);
            let date = Timestamp::from_second(seconds).map(|t| t.to_zoned(TimeZone::UTC).date()).unwrap_or_default();
            let month = Month::of(seconds * 1_000_000 + rng.i64(0..1_000_000));
            assert_eq!(month.0, date.year() as u32 * 100 + date.month() as u32);
            let first = date.first_of_month().to_zoned(TimeZone::UTC).map(|z| z.timestamp().as_second());
            assert_eq!(first.ok(), Some(month.start_seconds()));
        }
    }
}
