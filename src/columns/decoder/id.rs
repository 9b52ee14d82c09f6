//! Reading which event a message is, and nothing else.
//!
//! For the duplicates window: thousands of messages are read again for their ids when a partition changes hands. A message
//! has an id only if all of it can be read, so each value is held to what [`Read::value`] holds it to. It is put nowhere.

use super::super::avro::Input;
use super::super::{DecodeError, Fault};
use super::Row;
use super::read::{Digits, Form, Read, date, decimal, event_time, given, given_text, symbol, timestamp, utf8, uuid};
use super::step::{Op, Step, at_most_once, branch, is_null};

/// Reads past what the steps say; `row` becomes what the message says about itself.
///
/// # Errors
/// As [`super::step::run`] of the same steps, for the same messages.
pub(super) fn look(steps: &[Step], input: &mut Input<'_>, row: &mut Row) -> Result<(), DecodeError> {
    for step in steps {
        let at = |fault| DecodeError { field: Some(step.path.clone()), fault };
        match &step.op {
            Op::Read { null, read, .. } => match null.map_or(Ok(false), |null| is_null(null, input)).map_err(at)? {
                true => {}
                false => read.look(input, row).map_err(at)?,
            },
            Op::Union(branches) => look(&branches[branch(input, branches.len()).map_err(at)?], input, row)?,
            Op::Array { items, .. } => blocks(input, at, |input| look(items, input, row))?,
            Op::Map { entries, .. } => {
                let mut keys = Vec::new();
                blocks(input, at, |input| {
                    // Each entry begins with its key, which is read again with the entry.
                    keys.push({ *input }.bytes().map_err(at)?);
                    look(entries, input, row)
                })?;
                at_most_once(keys).map_err(at)?;
            }
            Op::Skip(skip, skips) => skips.skip(skip, input).map_err(at)?,
            Op::Refuse(fault) => return Err(at(*fault)),
            // Neither has bytes, and a default was tried when it was compiled.
            Op::Null { .. } | Op::Default { .. } => {}
        }
    }
    Ok(())
}

fn blocks<'a>(
    input: &mut Input<'a>,
    at: impl Fn(Fault) -> DecodeError,
    mut item: impl FnMut(&mut Input<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    loop {
        match input.block().map_err(&at)? {
            0 => return Ok(()),
            count => (0..count).try_for_each(|_| item(input))?,
        }
    }
}

impl Read {
    /// Reads a value, refuses what [`Read::value`] refuses, and keeps what is the event's own.
    fn look(&self, input: &mut Input<'_>, row: &mut Row) -> Result<(), Fault> {
        match self {
            Read::Boolean => input.boolean().map(drop),
            Read::Int => input.int().map(drop),
            Read::Long(width) => width.read(input).map(drop),
            Read::Float(number) | Read::Double(number) => number.double(input).map(drop),
            Read::String | Read::Dimension => utf8(input.bytes()?).map(drop),
            Read::Bytes => input.bytes().map(drop),
            Read::Fixed(size) => input.take(*size).map(drop),
            Read::Enum(symbols) => input.symbol(*symbols).map(drop),
            Read::Symbols(entries) => symbol(entries, input).map(drop),
            Read::Uuid(Form::Text) => uuid(input.bytes()?).map(drop),
            Read::Uuid(Form::Fixed) => input.take(16).map(drop),
            Read::Date => date(input.int()?).map(drop),
            Read::Timestamp(width, unit) => timestamp(width.read(input)?, *unit).map(drop),
            Read::Decimal(Digits::Bytes, precision) => decimal(input.bytes()?, *precision).map(drop),
            Read::Decimal(Digits::Fixed(size), precision) => decimal(input.take(*size)?, *precision).map(drop),
            Read::IdUuid(Form::Text) => keep(&mut row.id, given(uuid(input.bytes()?)?)),
            Read::IdUuid(Form::Fixed) => keep(&mut row.id, given(u128::from_be_bytes(input.array()?))),
            Read::IdString => keep(&mut row.id, given_text(input.bytes()?).map(|(id, _)| id)),
            Read::Time(width, unit) => keep(&mut row.time, event_time(width.read(input)?, *unit)),
        }
    }
}

fn keep<T>(to: &mut T, value: Result<T, Fault>) -> Result<(), Fault> {
    value.map(|value| *to = value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::path::Path;

    use super::super::Decoder;
    use super::super::cost::body;
    use super::super::tests::{long, string};
    use crate::event::EventType;

    /// The schemas that come with highwater: file and text.
    fn shipped() -> Vec<(String, String)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let schemas = files.filter(|path| path.extension().is_some_and(|extension| extension == "avsc"));
        schemas.map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap())).collect()
    }

    /// How many of a message, its beginnings and its damaged copies have an id; each as decoding the whole has it.
    fn told(decoder: &Decoder, body: &[u8], rng: &mut fastrand::Rng) -> usize {
        let cut = (0..body.len()).map(|length| body[..length].to_vec());
        let flipped = (0..8 * body.len()).map(|bit| {
            let mut body = body.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            body
        });
        let longer = [[body, &[0]].concat()];
        let noise = (0..50).map(|_| body.iter().map(|&byte| if rng.u8(..) < 16 { rng.u8(..) } else { byte }).collect());
        let mut with_id = 0;
        let mut columns = decoder.new_columns();
        for message in [body.to_vec()].into_iter().chain(cut).chain(flipped).chain(longer).chain(noise) {
            let whole = decoder.decode(&message, &mut columns).map(|row| row.id);
            assert_eq!(decoder.id(&message), whole, "{message:02x?}");
            with_id += usize::from(whole.is_ok());
            columns.truncate(0);
        }
        with_id
    }

    #[test]
    fn ids_are_those_of_whole_decoding_for_every_shipped_schema() {
        let shipped = shipped();
        assert!(shipped.len() >= 3);
        for (file, text) in shipped {
            let event = EventType::parse(&file, &text).unwrap();
            // The same, written by somebody who has a field more, in front, that we do not know.
            let more = r#""fields": [{"name": "unknown_here", "type": ["null", {"type": "map", "values": "string"}]},"#;
            let writer = text.replacen(r#""fields": ["#, more, 1);
            assert_ne!(writer, text, "{file}");
            let (own, resolved) = (Decoder::compile(&event), Decoder::resolve(&writer, &event).unwrap());
            let mut rng = fastrand::Rng::with_seed(5);
            for _ in 0..10 {
                let body = body(&event, &mut rng);
                let (copies, with_id) = (9 * body.len() + 52, told(&own, &body, &mut rng));
                assert!(with_id > 1 && with_id < copies, "{file}: {with_id} of {copies} can be read");
                let unknown = [long(1), long(1), string("k"), string("v"), long(0)].concat();
                assert!(told(&resolved, &[unknown, body].concat(), &mut rng) > 1, "{file}");
            }
        }
    }

    #[test]
    fn every_kind_of_value_is_held_to_its_type() {
        let nested = r#"{"type": "record", "name": "e", "fields": [
            {"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}},
            {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
            {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
            {"name": "environment", "type": "string", "highwater": {"role": "dimension"}},
            {"name": "day", "type": {"type": "int", "logicalType": "date"}},
            {"name": "spent", "type": {"type": "bytes", "logicalType": "decimal", "precision": 3, "scale": 1}},
            {"name": "tags", "type": {"type": "map", "values": "int"}},
            {"name": "steps", "type": {"type": "array", "items": ["null", "string"]}}]}"#;
        let event = EventType::parse("e.avsc", nested).unwrap();
        let decoder = Decoder::compile(&event);
        let id = || string("01890a5d-ac96-774b-bcce-b302099a8057");
        let head = |id: Vec<u8>| [id, long(1_700_000_000_000), string("zest"), string("test")].concat();
        let message = |id: Vec<u8>, day: i64, spent: &[u8], keys: [&str; 2]| {
            let tags = [long(2), string(keys[0]), long(1), string(keys[1]), long(2), long(0)].concat();
            let steps = [long(-2), long(4), long(0), long(1), string("s"), long(0)].concat();
            [head(id), long(day), string(spent), tags, steps].concat()
        };
        let mut columns = decoder.new_columns();
        let mut names = Vec::new();
        for body in [
            message(id(), 1, &[1], ["a", "b"]),
            message(id(), 1, &[1], ["a", "a"]),
            message(id(), 1_000_000, &[1], ["a", "b"]),
            message(id(), 1, &[0x7f, 0x7f], ["a", "b"]),
            message(string("00000000-0000-0000-0000-000000000000"), 1, &[1], ["a", "b"]),
            message(string("not a uuid"), 1, &[1], ["a", "b"]),
        ] {
            let whole = decoder.decode(&body, &mut columns).map(|row| row.id);
            assert_eq!(decoder.id(&body), whole);
            names.push(whole.err().map_or("", |error| error.name()));
            told(&decoder, &body, &mut fastrand::Rng::with_seed(1));
        }
        assert_eq!(names, ["", "duplicate_key", "date_out_of_range", "decimal_too_wide", "missing_id", "bad_uuid"]);
    }
}
