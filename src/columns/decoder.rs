//! The decode plan: one pass from a message's bytes into column buffers.

mod default;
mod id;
mod mismatch;
mod read;
mod resolve;
mod scalar;
mod skip;
mod step;

pub use mismatch::{Mismatch, ResolveError};

use super::avro::Input;
use super::{Column, Columns, DecodeError, Fault, Values};
use crate::event::EventType;
use crate::event::avro::Schema;
use scalar::Target;
use step::{Steps, run};

/// What a decoded row says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Event time, microseconds since 1970, UTC.
    pub time: i64,
    /// The event's id as 128 bits: the UUID itself, or CityHash 1.1's 128 bits of another id, which are the same
    /// everywhere and for ever.
    pub id: u128,
}

/// A writer's schema compiled into the steps that read one message into the columns of an event type, the reader.
///
/// All decoders of one event type fill the same columns, whoever wrote.
#[derive(Debug, Clone)]
pub struct Decoder {
    steps: Steps,
    /// The columns without rows, dictionaries holding the symbols of enums.
    empty: Vec<Column>,
}

impl Decoder {
    /// Compiles the decoder of what is written with the event type's own schema.
    pub fn compile(event: &EventType) -> Decoder {
        match resolve::resolve(&event.schema, event) {
            (Some(steps), _) => Decoder { steps, empty: empty_columns(event) },
            (None, mismatches) => unreachable!("{} can't read itself: {mismatches:?}", event.name),
        }
    }

    /// Compiles the decoder of what is written with another schema, `writer`, given as JSON, by Avro's schema resolution:
    /// fields go by name or alias, missing ones take their default, others are skipped, numbers widen.
    ///
    /// # Errors
    /// `writer` is no Avro schema, or there is a field that no value of can be read; all such fields are told. A value
    /// that can't be read becomes known with its message: [`Decoder::decode`] refuses it.
    pub fn resolve(writer: &str, event: &EventType) -> Result<Decoder, ResolveError> {
        let (steps, mismatches) = resolve::resolve(&schema(writer, event)?, event);
        let event_name = event.name.clone();
        match steps {
            Some(steps) => Ok(Decoder { steps, empty: empty_columns(event) }),
            None => Err(ResolveError::Mismatches { event: event_name, mismatches }),
        }
    }

    /// Everything that messages written with the schema `writer`, given as JSON, may hold and the event type can't read.
    /// None: all can be read.
    ///
    /// # Errors
    /// `writer` is no Avro schema.
    pub fn mismatches(writer: &str, event: &EventType) -> Result<Vec<Mismatch>, ResolveError> {
        Ok(resolve::resolve(&schema(writer, event)?, event).1)
    }

    /// Columns without rows: one per field, then the cost of a priced type.
    pub fn new_columns(&self) -> Columns {
        Columns { columns: self.empty.clone(), ..Columns::default() }
    }

    /// Reads one message (without its frame) into columns made by [`Decoder::new_columns`] of any decoder of the type.
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

    /// The id of one message (without its frame), as [`Decoder::decode`] would tell it, without columns to put the rest into.
    ///
    /// # Errors
    /// As [`Decoder::decode`]: a message that can't be read whole has no id.
    pub fn id(&self, body: &[u8]) -> Result<u128, DecodeError> {
        let (mut input, mut row) = (Input(body), Row { time: 0, id: 0 });
        id::look(&self.steps, &mut input, &mut row)?;
        ended(&input).map(|()| row.id)
    }

    fn fill(&self, body: &[u8], columns: &mut [Column], row: &mut Row) -> Result<(), DecodeError> {
        if columns.len() != self.empty.len() {
            return Err(DecodeError { field: None, fault: Fault::WrongColumns });
        }
        let mut input = Input(body);
        run(&self.steps, &mut input, columns, row)?;
        ended(&input)
    }
}

fn ended(input: &Input<'_>) -> Result<(), DecodeError> {
    match input.0.len() {
        0 => Ok(()),
        left => Err(DecodeError { field: None, fault: Fault::TrailingBytes(left) }),
    }
}

fn schema(writer: &str, event: &EventType) -> Result<Schema, ResolveError> {
    Schema::parse(writer).map_err(|problem| ResolveError::Schema { event: event.name.clone(), problem })
}

/// The columns of an event type without rows.
fn empty_columns(event: &EventType) -> Vec<Column> {
    let fields = (0..event.fields.len()).map(|at| Target::column(event, at).values());
    let values = fields.chain([Values::Int128(Vec::new())]);
    let column = |(column, values): (super::ColumnDef, Values)| Column {
        nulls: column.clickhouse_type.starts_with("Nullable(").then(Vec::new),
        name: column.name,
        clickhouse_type: column.clickhouse_type,
        values,
    };
    event.columns().into_iter().zip(values).map(column).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod cost;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
