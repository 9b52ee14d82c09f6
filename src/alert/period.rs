//! Minutes, spans of them, and the days, weeks and months of a time zone.
//!
//! Time zones come from the database that is compiled in, not from the machine's, so that two replicas of one build begin
//! a day at the same instant; a country's new rule comes with an upgrade.

use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};

/// Minutes since 1970, UTC. As the end of a window it is the first minute that is not in it.
pub type Minute = i64;

/// Reads a span of whole minutes: `5m`, `1h`, `3d`, `2w`.
///
/// # Errors
/// What is wrong, and what to write.
pub fn parse_span(text: &str) -> Result<i64, String> {
    let fail = || format!("{text:?} is not a span; write whole minutes, hours, days or weeks: 5m, 1h, 3d, 2w");
    let unit = text.chars().next_back().and_then(|unit| match unit {
        'm' => Some(1),
        'h' => Some(60),
        'd' => Some(24 * 60),
        'w' => Some(7 * 24 * 60),
        _ => None,
    });
    let unit = unit.ok_or_else(fail)?;
    let digits = &text[..text.len() - 1];
    let whole = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: i64 = if whole { digits.parse().map_err(|_| fail())? } else { return Err(fail()) };
    Ok(count * unit)
}

/// Writes a span as it is read.
pub fn span(minutes: i64) -> String {
    let units = [(7 * 24 * 60, 'w'), (24 * 60, 'd'), (60, 'h')];
    let fits = |(unit, _): &&(i64, char)| minutes >= *unit && minutes % unit == 0;
    let (unit, letter) = units.iter().find(fits).copied().unwrap_or((1, 'm'));
    format!("{}{letter}", minutes / unit)
}

/// What a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday.
    Week,
    /// From the first to the first.
    Month,
}

/// From the minute `start` to before the minute `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    /// Its first minute.
    pub start: Minute,
    /// The first minute of the next.
    pub end: Minute,
}

/// Days, weeks or months of a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    /// What a period is.
    pub unit: Unit,
    /// Whose midnight counts.
    pub zone: TimeZone,
}

/// A time zone by its IANA name.
///
/// # Errors
/// There is none of that name.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let fail = |_| format!("there is no time zone {name:?}; write an IANA name, as Europe/Berlin or UTC");
    TimeZoneDatabase::bundled().get(name).map_err(fail)
}

impl Calendar {
    /// Minutes of its longest period, with a clock that changes in it.
    pub fn longest(&self) -> i64 {
        let days = match self.unit {
            Unit::Day => 1,
            Unit::Week => 7,
            Unit::Month => 31,
        };
        // Clocks go back by two hours at the most.
        days * 24 * 60 + 120
    }

    /// The period that a minute lies in.
    pub fn containing(&self, minute: Minute) -> Period {
        self.try_containing(minute).unwrap_or(Period { start: minute, end: minute + 1 })
    }

    /// Fails outside of the years −9999 to 9999 only.
    fn try_containing(&self, minute: Minute) -> Result<Period, jiff::Error> {
        let date = Timestamp::from_second(minute * 60)?.to_zoned(self.zone.clone()).date();
        let (first, next) = match self.unit {
            Unit::Day => (date, date.tomorrow()?),
            Unit::Week => {
                let first = date.checked_sub(i64::from(date.weekday().since(Weekday::Monday)).days())?;
                (first, first.checked_add(7.days())?)
            }
            Unit::Month => {
                let first = date.first_of_month();
                (first, first.checked_add(1.month())?)
            }
        };
        Ok(Period { start: self.midnight(first)?, end: self.midnight(next)? })
    }

    /// The first minute of a day: 00:00, or 01:00 where the clock leaps over midnight.
    fn midnight(&self, date: Date) -> Result<Minute, jiff::Error> {
        let start = date.to_zoned(self.zone.clone())?.start_of_day()?;
        Ok(start.timestamp().as_second().div_euclid(60))
    }
}

/// The same time of the clock, some weeks earlier, in a time zone.
pub fn weeks_before(minute: Minute, weeks: u32, zone: &TimeZone) -> Minute {
    let before = || -> Result<Minute, jiff::Error> {
        let zoned = Timestamp::from_second(minute * 60)?.to_zoned(zone.clone());
        let earlier = zoned.checked_sub(i64::from(weeks).weeks())?;
        Ok(earlier.timestamp().as_second().div_euclid(60))
    };
    before().unwrap_or(minute - i64::from(weeks) * 7 * 24 * 60)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// The minute of an instant in UTC.
    fn minute(text: &str) -> Minute {
        text.parse::<Timestamp>().unwrap().as_second() / 60
    }

    fn period(unit: Unit, zone: &str, at: &str) -> (String, String, i64) {
        let found = Calendar { unit, zone: time_zone(zone).unwrap() }.containing(minute(at));
        let shown = |minute: Minute| Timestamp::from_second(minute * 60).unwrap().to_string();
        (shown(found.start), shown(found.end), found.end - found.start)
    }

    fn utc(start: &str, end: &str, minutes: i64) -> (String, String, i64) {
        (format!("{start}:00Z"), format!("{end}:00Z"), minutes)
    }

    #[test]
    fn days_are_23_or_25_hours_where_clocks_change() {
        for (zone, at, start, end, hours) in [
            ("Europe/Berlin", "2026-03-29T10:00:00Z", "2026-03-28T23:00", "2026-03-29T22:00", 23),
            ("Europe/Berlin", "2026-03-28T22:59:00Z", "2026-03-27T23:00", "2026-03-28T23:00", 24),
            ("Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-24T22:00", "2026-10-25T23:00", 25),
            ("Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-24T22:00", "2026-10-25T23:00", 25),
            ("America/New_York", "2026-03-08T12:00:00Z", "2026-03-08T05:00", "2026-03-09T04:00", 23),
            ("America/New_York", "2026-11-01T12:00:00Z", "2026-11-01T04:00", "2026-11-02T05:00", 25),
            ("America/New_York", "2026-11-01T03:59:00Z", "2026-10-31T04:00", "2026-11-01T04:00", 24),
            // No midnight on that day: the clock leaps from 00:00 to 01:00.
            ("America/Asuncion", "2023-10-01T12:00:00Z", "2023-10-01T04:00", "2023-10-02T03:00", 23),
            ("UTC", "2026-03-29T10:00:00Z", "2026-03-29T00:00", "2026-03-30T00:00", 24),
            ("Asia/Kathmandu", "2026-01-01T00:00:00Z", "2025-12-31T18:15", "2026-01-01T18:15", 24),
        ] {
            assert_eq!(period(Unit::Day, zone, at), utc(start, end, hours * 60), "{zone} {at}");
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let hour = 60;
        let berlin = |unit, at| period(unit, "Europe/Berlin", at);
        let week = utc("2026-03-22T23:00", "2026-03-29T22:00", 167 * hour);
        assert_eq!(berlin(Unit::Week, "2026-03-22T23:00:00Z"), week, "Monday 00:00, with the change on Sunday");
        assert_eq!(berlin(Unit::Week, "2026-03-29T21:59:00Z"), week, "Sunday 23:59");
        assert_eq!(
            berlin(Unit::Month, "2026-03-31T21:59:00Z"),
            utc("2026-02-28T23:00", "2026-03-31T22:00", 31 * 24 * hour - hour)
        );
        assert_eq!(
            berlin(Unit::Month, "2028-02-29T12:00:00Z"),
            utc("2028-01-31T23:00", "2028-02-29T23:00", 29 * 24 * hour)
        );
    }

    #[test]
    fn the_same_hour_of_earlier_weeks_goes_by_the_clock() {
        let at = minute("2026-04-01T08:00:00Z");
        assert_eq!(weeks_before(at, 1, &time_zone("UTC").unwrap()), minute("2026-03-25T08:00:00Z"));
        // 10:00 in Berlin, in summer and in winter.
        assert_eq!(weeks_before(at, 1, &time_zone("Europe/Berlin").unwrap()), minute("2026-03-25T09:00:00Z"));
    }

    #[test]
    fn spans_are_read_and_written() {
        for (text, minutes) in [("1m", 1), ("5m", 5), ("90m", 90), ("1h", 60), ("36h", 2_160), ("3d", 4_320)] {
            assert_eq!(parse_span(text), Ok(minutes));
            assert_eq!(span(minutes), text);
        }
        assert_eq!((parse_span("60m"), parse_span("7d")), (Ok(60), Ok(10_080)));
        assert_eq!((span(60).as_str(), span(10_080).as_str()), ("1h", "1w"));
        for text in ["", "5", "m", "5 m", "-5m", "1.5h", "30s", "5min", "999999m", "٥m", "5µ"] {
            assert!(parse_span(text).unwrap_err().starts_with(&format!("{text:?} is not a span")), "{text}");
        }
        for name in ["Europe/Berli", "", "+02:00", "Mars/Olympus"] {
            assert!(time_zone(name).unwrap_err().contains("IANA"), "{name}");
        }
    }
}
