//! The decode plan: one pass from a message's bytes into column buffers.

use std::sync::Arc;

use uuid::Uuid;

use super::avro::Input;
use super::{Column, Columns, DecodeError, Fault, LowCardinality, Strings, Values};
use crate::event::{EventType, Field, Kind, TimeUnit};

/// First and last day of a `Date32`: 1900-01-01 and 2299-12-31, in days since 1970.
const DAYS: std::ops::RangeInclusive<i32> = -25_567..=120_529;
/// The seconds since 1970 that a `DateTime64` can hold: from 1900-01-01 to the end of 2299-12-31.
const SECONDS: std::ops::Range<i64> = -2_208_988_800..10_413_792_000;
/// The end of 2105-12-31, the last day that a `DateTime` holds whole, in seconds since 1970.
const TIME_END_SECONDS: i64 = 4_291_747_200;

/// What a decoded row says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Event time, microseconds since 1970, UTC.
    pub time: i64,
    /// The event's id as 128 bits: the UUID itself, or CityHash 1.1's 128 bits of another id, which are the same
    /// everywhere and for ever.
    pub id: u128,
}

/// A schema compiled into the steps that read one message.
#[derive(Debug, Clone)]
pub struct Decoder {
    steps: Vec<Step>,
    /// The columns without rows, dictionaries holding the symbols of enums.
    empty: Vec<Column>,
}

/// How one field is read.
#[derive(Debug, Clone)]
struct Step {
    name: Arc<str>,
    null_branch: Option<u8>,
    read: Read,
}

#[derive(Debug, Clone, Copy)]
enum Read {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    String,
    Bytes,
    Dimension,
    /// With how many symbols; symbol `i` is dictionary entry `i + 1`.
    Enum(u32),
    Uuid,
    Date,
    /// With how many units make a second.
    Timestamp(i64),
    Decimal(u8),
    IdUuid,
    IdString,
    /// With how many units make a second.
    Time(i64),
}

impl Decoder {
    /// Compiles a schema.
    pub fn compile(event: &EventType) -> Decoder {
        let step = |(at, field): (usize, &Field)| Step {
            name: field.name.as_str().into(),
            null_branch: field.null_branch,
            read: Read::of(field, at == event.id, at == event.time),
        };
        let values = event.fields.iter().map(empty_values).chain([Values::Int128(Vec::new())]);
        let empty = event.columns().into_iter().zip(values).map(|(column, values)| Column {
            nulls: column.clickhouse_type.starts_with("Nullable(").then(Vec::new),
            name: column.name,
            clickhouse_type: column.clickhouse_type,
            values,
        });
        Decoder { steps: event.fields.iter().enumerate().map(step).collect(), empty: empty.collect() }
    }

    /// Columns without rows: one per field, then the cost of a priced type.
    pub fn new_columns(&self) -> Columns {
        Columns { columns: self.empty.clone(), ..Columns::default() }
    }

    /// Reads one message (without its frame) into columns made by [`Decoder::new_columns`].
    ///
    /// Appends one value to each field's column and to `times`; `offsets` and the cost are the caller's to append.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes. All columns are then as they were before (dictionaries may have grown).
    pub fn decode(&self, body: &[u8], out: &mut Columns) -> Result<Row, DecodeError> {
        let rows = out.times.len();
        let mut row = Row { time: 0, id: 0 };
        match self.fill(body, &mut out.columns, &mut row) {
            Ok(()) => {
                out.times.push(row.time);
                Ok(row)
            }
            Err(error) => {
                out.columns.iter_mut().for_each(|column| column.truncate(rows));
                Err(error)
            }
        }
    }

    fn fill(&self, body: &[u8], columns: &mut [Column], row: &mut Row) -> Result<(), DecodeError> {
        if columns.len() != self.empty.len() {
            return Err(DecodeError { field: None, fault: Fault::WrongColumns });
        }
        let mut input = Input(body);
        for (step, column) in self.steps.iter().zip(columns) {
            step.read(&mut input, column, row)
                .map_err(|fault| DecodeError { field: Some(step.name.clone()), fault })?;
        }
        match input.0.len() {
            0 => Ok(()),
            left => Err(DecodeError { field: None, fault: Fault::TrailingBytes(left) }),
        }
    }
}

fn empty_values(field: &Field) -> Values {
    match &field.kind {
        Kind::Enum(symbols) => {
            let mut values = LowCardinality::default();
            for symbol in symbols {
                values.intern(symbol);
            }
            Values::LowCardinality(values)
        }
        Kind::String if field.is_low_cardinality() => Values::LowCardinality(LowCardinality::default()),
        Kind::String | Kind::Bytes => Values::String(Strings::default()),
        Kind::Boolean => Values::UInt8(Vec::new()),
        Kind::Int | Kind::Date => Values::Int32(Vec::new()),
        Kind::Long | Kind::Timestamp(_) => Values::Int64(Vec::new()),
        Kind::Float => Values::Float32(Vec::new()),
        Kind::Double => Values::Float64(Vec::new()),
        Kind::Uuid => Values::Uuid(Vec::new()),
        Kind::Decimal { .. } => Values::Int128(Vec::new()),
    }
}

impl Read {
    fn of(field: &Field, is_id: bool, is_time: bool) -> Read {
        match &field.kind {
            Kind::Boolean => Read::Boolean,
            Kind::Int => Read::Int,
            Kind::Long => Read::Long,
            Kind::Float => Read::Float,
            Kind::Double => Read::Double,
            Kind::String if is_id => Read::IdString,
            Kind::String if field.is_low_cardinality() => Read::Dimension,
            Kind::String => Read::String,
            Kind::Bytes => Read::Bytes,
            Kind::Enum(symbols) => Read::Enum(symbols.len() as u32),
            Kind::Uuid if is_id => Read::IdUuid,
            Kind::Uuid => Read::Uuid,
            Kind::Date => Read::Date,
            Kind::Timestamp(unit) if is_time => Read::Time(unit.per_second()),
            Kind::Timestamp(unit) => Read::Timestamp(unit.per_second()),
            Kind::Decimal { precision, .. } => Read::Decimal(*precision),
        }
    }
}

impl TimeUnit {
    /// How many make a second.
    pub fn per_second(self) -> i64 {
        match self {
            TimeUnit::Millis => 1_000,
            TimeUnit::Micros => 1_000_000,
        }
    }
}

impl Step {
    /// Reads the field and appends its value.
    #[inline]
    fn read(&self, input: &mut Input<'_>, column: &mut Column, row: &mut Row) -> Result<(), Fault> {
        if let Some(null) = self.null_branch {
            let branch = input.long()?;
            if branch != 0 && branch != 1 {
                return Err(Fault::UnknownBranch(branch));
            }
            let is_null = branch == i64::from(null);
            if let Some(nulls) = &mut column.nulls {
                nulls.push(u8::from(is_null));
            }
            if is_null {
                column.values.push_zero();
                return Ok(());
            }
        }
        self.read.value(input, &mut column.values, row)
    }
}

impl Read {
    #[inline]
    fn value(self, input: &mut Input<'_>, values: &mut Values, row: &mut Row) -> Result<(), Fault> {
        match (self, values) {
            (Read::Boolean, Values::UInt8(values)) => values.push(input.boolean()?),
            (Read::Int, Values::Int32(values)) => values.push(input.int()?),
            (Read::Long, Values::Int64(values)) => values.push(input.long()?),
            (Read::Float, Values::Float32(values)) => values.push(input.float()?),
            (Read::Double, Values::Float64(values)) => values.push(input.double()?),
            (Read::Bytes, Values::String(values)) => values.push(input.bytes()?),
            (Read::String, Values::String(values)) => values.push(utf8(input.bytes()?)?),
            (Read::Dimension, Values::LowCardinality(values)) => {
                let index = values.intern_bytes(input.bytes()?).map_err(|_| Fault::BadUtf8)?;
                values.index.push(index);
            }
            (Read::Enum(symbols), Values::LowCardinality(values)) => {
                let index = i64::from(input.int()?);
                match u32::try_from(index) {
                    Ok(symbol) if symbol < symbols => values.index.push(symbol + 1),
                    _ => return Err(Fault::UnknownSymbol { index, symbols }),
                }
            }
            (Read::Uuid, Values::Uuid(values)) => values.push(uuid(input.bytes()?)?),
            (Read::Date, Values::Int32(values)) => {
                let days = input.int()?;
                values.push(DAYS.contains(&days).then_some(days).ok_or(Fault::DateOutOfRange(days))?);
            }
            (Read::Timestamp(unit), Values::Int64(values)) => {
                let time = input.long()?;
                let holds = SECONDS.contains(&time.div_euclid(unit));
                values.push(holds.then_some(time).ok_or(Fault::TimestampOutOfRange(time))?);
            }
            (Read::Decimal(precision), Values::Int128(values)) => values.push(input.decimal(precision)?),
            (Read::IdUuid, Values::Uuid(values)) => {
                row.id = uuid(input.bytes()?)?;
                if row.id == 0 {
                    return Err(Fault::MissingId);
                }
                values.push(row.id);
            }
            (Read::IdString, Values::String(values)) => {
                let id = utf8(input.bytes()?)?;
                if id.is_empty() {
                    return Err(Fault::MissingId);
                }
                row.id = cityhash_rs::cityhash_110_128(id);
                values.push(id);
            }
            (Read::Time(unit), Values::Int64(values)) => {
                let time = input.long()?;
                match time {
                    ..=0 => return Err(Fault::MissingTime(time)),
                    _ if time.div_euclid(unit) >= TIME_END_SECONDS => return Err(Fault::TimeOutOfRange(time)),
                    _ => {}
                }
                row.time = time * (1_000_000 / unit);
                values.push(time);
            }
            _ => return Err(Fault::WrongColumns),
        }
        Ok(())
    }
}

#[inline]
fn utf8(bytes: &[u8]) -> Result<&[u8], Fault> {
    std::str::from_utf8(bytes).map(str::as_bytes).map_err(|_| Fault::BadUtf8)
}

/// The 36-character form only: what Avro's specification calls a UUID.
#[inline]
fn uuid(text: &[u8]) -> Result<u128, Fault> {
    if text.len() != 36 {
        return Err(Fault::BadUuid);
    }
    Uuid::try_parse_ascii(text).map(|uuid| uuid.as_u128()).map_err(|_| Fault::BadUuid)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod cost;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod oracle;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
