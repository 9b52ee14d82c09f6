//! Reading one value into the buffer of a column.

use std::sync::Arc;

use uuid::Uuid;

use super::super::avro::Input;
use super::super::{Fault, Values};
use super::Row;

/// First and last day of a `Date32`: 1900-01-01 and 2299-12-31, in days since 1970.
const DAYS: std::ops::RangeInclusive<i32> = -25_567..=120_529;
/// The seconds since 1970 that a `DateTime64` can hold: from 1900-01-01 to the end of 2299-12-31.
const SECONDS: std::ops::Range<i64> = -2_208_988_800..10_413_792_000;
/// The end of 2105-12-31, the last day that a `DateTime` holds whole, in seconds since 1970.
const TIME_END_SECONDS: i64 = 4_291_747_200;

/// How a value is written, and what becomes of it.
#[derive(Debug, Clone)]
pub(super) enum Read {
    Boolean,
    Int,
    Long(Width),
    Float(Number),
    Double(Number),
    String,
    Bytes,
    Fixed(usize),
    Dimension,
    /// With how many symbols; symbol `i` is dictionary entry `i + 1`.
    Enum(u32),
    /// The dictionary entry of each of the writer's symbols; `None`: the reader has none for it.
    Symbols(Arc<[Option<u32>]>),
    Uuid(Form),
    Date,
    /// With how many units make a second.
    Timestamp(Width, i64),
    /// With its precision.
    Decimal(Digits, u8),
    IdUuid(Form),
    IdString,
    /// With how many units make a second.
    Time(Width, i64),
}

/// As what a whole number was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Width {
    Int,
    Long,
}

/// As what a number was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Int,
    Long,
    Float,
    Double,
}

/// As what a UUID was written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    Text,
    Fixed,
}

/// As what the digits of a decimal were written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Digits {
    Bytes,
    Fixed(usize),
}

impl Read {
    /// Reads a value and appends it.
    ///
    /// What a type is written as when its writer's schema is the reader's is read here, all else elsewhere: this is the
    /// loop that each message goes through field by field, and its size costs.
    #[inline]
    pub(super) fn value(&self, input: &mut Input<'_>, values: &mut Values, row: &mut Row) -> Result<(), Fault> {
        match (self, values) {
            (Read::Boolean, Values::UInt8(values)) => values.push(input.boolean()?),
            (Read::Int, Values::Int32(values)) => values.push(input.int()?),
            (Read::Long(Width::Long), Values::Int64(values)) => values.push(input.long()?),
            (Read::Float(Number::Float), Values::Float32(values)) => values.push(input.float()?),
            (Read::Double(Number::Double), Values::Float64(values)) => values.push(input.double()?),
            (Read::Bytes, Values::String(values)) => values.push(input.bytes()?),
            (Read::String, Values::String(values)) => values.push(utf8(input.bytes()?)?),
            (Read::Dimension, Values::LowCardinality(values)) => {
                let index = values.intern_bytes(input.bytes()?).map_err(|_| Fault::BadUtf8)?;
                values.index.push(index);
            }
            (Read::Enum(symbols), Values::LowCardinality(values)) => {
                let symbol = input.symbol(*symbols)?;
                values.index.push(symbol + 1);
            }
            (Read::Uuid(Form::Text), Values::Uuid(values)) => values.push(uuid(input.bytes()?)?),
            (Read::Date, Values::Int32(values)) => {
                values.push(date(input.int()?)?);
            }
            (Read::Timestamp(Width::Long, unit), Values::Int64(values)) => {
                values.push(timestamp(input.long()?, *unit)?);
            }
            (Read::Decimal(Digits::Bytes, precision), Values::Int128(values)) => {
                values.push(decimal(input.bytes()?, *precision)?);
            }
            (Read::IdUuid(Form::Text), Values::Uuid(values)) => {
                row.id = given(uuid(input.bytes()?)?)?;
                values.push(row.id);
            }
            (Read::IdString, Values::String(values)) => {
                let (id, text) = given_text(input.bytes()?)?;
                row.id = id;
                values.push(text);
            }
            (Read::Time(Width::Long, unit), Values::Int64(values)) => {
                let time = input.long()?;
                row.time = event_time(time, *unit)?;
                values.push(time);
            }
            (_, values) => return self.other_value(input, values, row),
        }
        Ok(())
    }

    /// As [`Read::value`], for `fixed` and for what another schema wrote.
    #[inline(never)]
    fn other_value(&self, input: &mut Input<'_>, values: &mut Values, row: &mut Row) -> Result<(), Fault> {
        match (self, values) {
            (Read::Long(width), Values::Int64(values)) => values.push(width.read(input)?),
            (Read::Float(number), Values::Float32(values)) => values.push(number.single(input)?),
            (Read::Double(number), Values::Float64(values)) => values.push(number.double(input)?),
            (Read::Timestamp(width, unit), Values::Int64(values)) => values.push(timestamp(width.read(input)?, *unit)?),
            (Read::Time(width, unit), Values::Int64(values)) => {
                let time = width.read(input)?;
                row.time = event_time(time, *unit)?;
                values.push(time);
            }
            (Read::Symbols(entries), Values::LowCardinality(values)) => {
                values.index.push(symbol(entries, input)?);
            }
            (Read::Fixed(size), Values::String(values)) => values.push(input.take(*size)?),
            (Read::Uuid(Form::Fixed), Values::Uuid(values)) => values.push(u128::from_be_bytes(input.array()?)),
            (Read::IdUuid(Form::Fixed), Values::Uuid(values)) => {
                row.id = given(u128::from_be_bytes(input.array()?))?;
                values.push(row.id);
            }
            (Read::Decimal(Digits::Fixed(size), precision), Values::Int128(values)) => {
                values.push(decimal(input.take(*size)?, *precision)?);
            }
            _ => return Err(Fault::WrongColumns),
        }
        Ok(())
    }
}

/// An id that is not nil.
#[inline]
pub(super) fn given(id: u128) -> Result<u128, Fault> {
    if id == 0 { Err(Fault::MissingId) } else { Ok(id) }
}

/// An id that is a text, and the text, which is not empty.
#[inline]
pub(super) fn given_text(text: &[u8]) -> Result<(u128, &[u8]), Fault> {
    match utf8(text)? {
        [] => Err(Fault::MissingId),
        text => Ok((cityhash_rs::cityhash_110_128(text), text)),
    }
}

/// A day that ClickHouse can hold.
#[inline]
pub(super) fn date(days: i32) -> Result<i32, Fault> {
    DAYS.contains(&days).then_some(days).ok_or(Fault::DateOutOfRange(days))
}

/// The dictionary entry of one of the writer's symbols.
pub(super) fn symbol(entries: &[Option<u32>], input: &mut Input<'_>) -> Result<u32, Fault> {
    let symbol = input.symbol(entries.len() as u32)?;
    entries.get(symbol as usize).copied().flatten().ok_or(Fault::UnreadableSymbol(symbol))
}

/// A timestamp that ClickHouse can hold.
#[inline]
pub(super) fn timestamp(time: i64, unit: i64) -> Result<i64, Fault> {
    match SECONDS.contains(&time.div_euclid(unit)) {
        true => Ok(time),
        false => Err(Fault::TimestampOutOfRange(time)),
    }
}

/// When an event happened, in microseconds since 1970.
#[inline]
pub(super) fn event_time(time: i64, unit: i64) -> Result<i64, Fault> {
    match time {
        ..=0 => Err(Fault::MissingTime(time)),
        _ if time.div_euclid(unit) >= TIME_END_SECONDS => Err(Fault::TimeOutOfRange(time)),
        _ if unit <= 1_000_000 => Ok(time * (1_000_000 / unit)),
        _ => Ok(time.div_euclid(unit / 1_000_000)),
    }
}

impl Width {
    pub(super) fn read(self, input: &mut Input<'_>) -> Result<i64, Fault> {
        match self {
            Width::Int => input.int().map(i64::from),
            Width::Long => input.long(),
        }
    }
}

impl Number {
    fn single(self, input: &mut Input<'_>) -> Result<f32, Fault> {
        match self {
            Number::Int => input.int().map(|number| number as f32),
            Number::Long => input.long().map(|number| number as f32),
            Number::Float => input.float(),
            // Avro never narrows; resolution refuses it.
            Number::Double => Err(Fault::WrongColumns),
        }
    }

    pub(super) fn double(self, input: &mut Input<'_>) -> Result<f64, Fault> {
        match self {
            Number::Int => input.int().map(f64::from),
            Number::Long => input.long().map(|number| number as f64),
            Number::Float => input.float().map(f64::from),
            Number::Double => input.double(),
        }
    }
}

#[inline]
pub(super) fn utf8(bytes: &[u8]) -> Result<&[u8], Fault> {
    std::str::from_utf8(bytes).map(str::as_bytes).map_err(|_| Fault::BadUtf8)
}

/// The 36-character form only: what Avro's specification calls a UUID.
#[inline]
pub(super) fn uuid(text: &[u8]) -> Result<u128, Fault> {
    if text.len() != 36 {
        return Err(Fault::BadUuid);
    }
    Uuid::try_parse_ascii(text).map(|uuid| uuid.as_u128()).map_err(|_| Fault::BadUuid)
}

/// Two's complement, greatest byte first, of any length; none is zero.
#[inline]
pub(super) fn decimal(bytes: &[u8], precision: u8) -> Result<i128, Fault> {
    let too_wide = Fault::DecimalTooWide { precision };
    let sign = match bytes.first() {
        Some(first) if *first >= 0x80 => 0xff,
        _ => 0,
    };
    // Java writes no more bytes than needed; others pad with the sign.
    let (padding, low) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut wide = [sign; 16];
    wide.iter_mut().rev().zip(low.iter().rev()).for_each(|(to, from)| *to = *from);
    let value = i128::from_be_bytes(wide);
    let sign_kept = (value < 0) == (sign == 0xff);
    if padding.iter().any(|&byte| byte != sign) || !sign_kept {
        return Err(too_wide);
    }
    match 10u128.checked_pow(u32::from(precision)) {
        Some(limit) if value.unsigned_abs() < limit => Ok(value),
        _ => Err(too_wide),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_up_to_their_precision() {
        assert_eq!(decimal(&[], 1), Ok(0));
        assert_eq!(decimal(&[9], 1), Ok(9));
        assert_eq!(decimal(&[0xf7], 1), Ok(-9));
        assert_eq!(decimal(&[10], 1), Err(Fault::DecimalTooWide { precision: 1 }));
        assert_eq!(decimal(&[0xf6], 1), Err(Fault::DecimalTooWide { precision: 1 }));
        assert_eq!(decimal(&[0x00, 0xff], 3), Ok(255));
        assert_eq!(decimal(&[&[0xff; 20][..], &[0x85]].concat(), 3), Ok(-123));
        assert_eq!(decimal(&[&[0; 20][..], &[0x7b]].concat(), 3), Ok(123));
        assert_eq!(decimal(&[&[1][..], &[0; 16]].concat(), 38), Err(Fault::DecimalTooWide { precision: 38 }));
        // A sign that only the padding knows.
        assert_eq!(decimal(&[&[0][..], &[0xff; 16]].concat(), 38), Err(Fault::DecimalTooWide { precision: 38 }));
        let most = 10i128.pow(38) - 1;
        assert_eq!(decimal(&most.to_be_bytes(), 38), Ok(most));
        assert_eq!(decimal(&(-most).to_be_bytes(), 38), Ok(-most));
        assert!(decimal(&(most + 1).to_be_bytes(), 38).is_err());
    }

    #[test]
    fn event_times_are_microseconds() {
        assert_eq!(event_time(7, 1_000), Ok(7_000));
        assert_eq!(event_time(7, 1_000_000), Ok(7));
        assert_eq!(event_time(1_700_000_000_123_456_789, 1_000_000_000), Ok(1_700_000_000_123_456));
        assert_eq!(event_time(0, 1_000_000_000), Err(Fault::MissingTime(0)));
        assert_eq!(event_time(i64::MAX, 1_000_000_000), Err(Fault::TimeOutOfRange(i64::MAX)));
    }
}
