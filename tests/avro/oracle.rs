//! Generated schemas and messages: what the Avro library reads, our columns hold; what it refuses, we refuse.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use highwater::columns::{Decoder, Mismatch, ResolveError};
use highwater::event::EventType;
use proptest::prelude::*;

use crate::cells::{cells, lengths};
use crate::datum::Values;
use crate::entropy::{Entropy, cases, entropy};
use crate::library;
use crate::model::{Form, Generator, Ty};
use crate::pair;

/// Messages for each pair of schemas.
const MESSAGES: usize = 4;

/// Faults of messages that the library reads: what ClickHouse can't hold, and what is no event.
const OURS: [&str; 8] = [
    "date_out_of_range",
    "timestamp_out_of_range",
    "time_out_of_range",
    "missing_time",
    "missing_id",
    "decimal_too_wide",
    "duplicate_key",
    "too_deep",
];

/// What is said where we refuse what the library's check of compatibility lets through.
const REASONED: [&str; 6] = [
    // Logical types that differ: it takes milliseconds for microseconds.
    "which its bytes do not mean",
    "digits behind the point",
    // Text and 16 bytes are both a UUID to it, bytes and fixed both a decimal.
    " in 16 bytes",
    // All events would have one id or one time.
    "every event has one of its own",
    // Nulls without end in a few bytes.
    "its items have no bytes",
    // A default that is no date, or has too many digits.
    "its default can't be stored",
];

/// Whether a reason to refuse is one of ours. Digits in text are not a decimal's bytes, nor the other way round.
fn reasoned(mismatch: &Mismatch) -> bool {
    let text = ["string", "uuid"].iter().any(|text| mismatch.reason.contains(text));
    let text_and_decimal = text && mismatch.reason.contains("decimal(");
    text_and_decimal || REASONED.iter().any(|reason| mismatch.reason.contains(reason))
}

/// A pair of schemas, as text for us and as the library takes them.
struct Pair {
    reader: Ty,
    writer: Ty,
}

impl Pair {
    fn draw(entropy: &mut Entropy<'_>) -> Pair {
        let mut generator = Generator::new(entropy);
        let mut reader = generator.event();
        // A writer's own types are none of the reader's, which may have other names there.
        generator.named.clear();
        let writer = pair::writer(&mut reader, &mut generator, &mut BTreeMap::new());
        Pair { reader, writer }
    }
}

/// Reads messages of one schema; each must be what the library reads of it, cut or damaged it must be an error or what
/// the library reads then.
fn same_schema(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut entropy = Entropy::new(bytes);
    let model = Generator::new(&mut entropy).event();
    let text = model.text(Form::Ours);
    let library_schema = Schema::parse_str(&text).unwrap();
    let event = EventType::parse("e.avsc", &text).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let decoder = Decoder::compile(&event);
    let mut columns = decoder.new_columns();
    for _ in 0..MESSAGES {
        let mut body = Vec::new();
        Values::new(&mut entropy).write(&model, None, &mut body);
        let (theirs, left) = library::decode(&library_schema, &body, None).map_err(TestCaseError::fail)?;
        prop_assert_eq!(left, 0);
        let before = lengths(&columns);
        if !body.is_empty() {
            let cut = entropy.number() as usize % body.len();
            let error = decoder.decode(&body[..cut], &mut columns).unwrap_err();
            prop_assert_eq!(error.name(), "truncated");
            prop_assert_eq!(&lengths(&columns), &before);
        }
        match decoder.decode(&body, &mut columns) {
            Ok(_) => {
                prop_assert_eq!(cells(&columns, columns.len() - 1), library::cells(&theirs, &model, &event));
                prop_assert_eq!(columns.columns.iter().map(|column| column.len()).min(), Some(columns.len()));
            }
            Err(error) => prop_assert!(OURS.contains(&error.name()), "{error}"),
        }
        damaged(&mut entropy, &body, &library_schema, (&model, &event), &decoder)?;
    }
    Ok(())
}

fn damaged(
    entropy: &mut Entropy<'_>,
    body: &[u8],
    schema: &Schema,
    (model, event): (&Ty, &EventType),
    decoder: &Decoder,
) -> Result<(), TestCaseError> {
    let mut body = body.to_vec();
    for _ in 0..1 + entropy.below(3) {
        let at = entropy.number() as usize % body.len().max(1);
        if let Some(byte) = body.get_mut(at) {
            *byte ^= 1 << entropy.below(8);
        }
    }
    let mut columns = decoder.new_columns();
    let before = lengths(&columns);
    match decoder.decode(&body, &mut columns) {
        Err(_) => prop_assert_eq!(lengths(&columns), before),
        Ok(_) => {
            let theirs = library::decode(schema, &body, None);
            prop_assert!(matches!(theirs, Ok((_, 0))), "we read what the library does not: {:?}", theirs);
            if let Ok((theirs, _)) = theirs {
                prop_assert_eq!(cells(&columns, 0), library::cells(&theirs, model, event));
            }
        }
    }
    Ok(())
}

/// Resolves a pair of schemas and reads messages through it.
fn resolved(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut entropy = Entropy::new(bytes);
    let pair = Pair::draw(&mut entropy);
    let (reader, writer) = (pair.reader.text(Form::Ours), pair.writer.text(Form::Ours));
    // A reader that lost a logical type may have a default of that type's; then neither of us takes the schema.
    let Ok(library_reader) = Schema::parse_str(&pair.reader.text(Form::Theirs)) else { return Ok(()) };
    let event = EventType::parse("e.avsc", &reader).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let library_writer = Schema::parse_str(&pair.writer.text(Form::Theirs)).unwrap();
    let bare_writer = Schema::parse_str(&pair.writer.text(Form::Bare)).unwrap();
    let compatible = SchemaCompatibility::can_read(&library_writer, &library_reader);
    let decoder = match Decoder::resolve(&writer, &event) {
        Ok(decoder) => decoder,
        Err(ResolveError::Schema { problem, .. }) => return Err(TestCaseError::fail(problem)),
        Err(ResolveError::Mismatches { mismatches, .. }) => {
            let always: Vec<&Mismatch> = mismatches.iter().filter(|mismatch| mismatch.always).collect();
            prop_assert!(!always.is_empty());
            // The library's check takes a reference for another of that name, whatever it refers to.
            let refers = pair.writer.refers() || pair.reader.refers();
            prop_assert!(
                refers || compatible.is_err() || always.iter().any(|mismatch| reasoned(mismatch)),
                "the library can read {writer}\nas {reader}\nand we say {mismatches:?}"
            );
            return Ok(());
        }
    };
    let mut columns = decoder.new_columns();
    for _ in 0..MESSAGES {
        let mut body = Vec::new();
        Values::new(&mut entropy).write(&pair.writer, None, &mut body);
        let theirs = library::decode(&library_writer, &body, Some(&library_reader))
            .or_else(|_| library::decode(&bare_writer, &body, Some(&library_reader)));
        let before = lengths(&columns);
        match (decoder.decode(&body, &mut columns), theirs) {
            (Ok(_), Ok((theirs, left))) => {
                prop_assert_eq!(left, 0);
                let expected = library::cells(&theirs, &pair.reader, &event);
                prop_assert_eq!(cells(&columns, columns.len() - 1), expected, "{}\nas {}", writer, reader);
            }
            (Ok(_), Err(theirs)) => {
                prop_assert!(short_decimal(&theirs), "the library does not read it: {theirs}\n{writer}\nas {reader}");
            }
            (Err(error), theirs) => {
                prop_assert_eq!(lengths(&columns), before);
                let partial = matches!(error.name(), "unreadable_branch" | "unreadable_symbol");
                prop_assert!(
                    theirs.is_err() || OURS.contains(&error.name()) || partial && lenient(&writer, &event),
                    "{error}\nfor {theirs:?}\n{writer}\nas {reader}"
                );
            }
        }
        if !body.is_empty() {
            let at = entropy.number() as usize % body.len();
            body[at] ^= 1 << entropy.below(8);
            let before = lengths(&columns);
            if decoder.decode(&body, &mut columns).is_err() {
                prop_assert_eq!(lengths(&columns), before);
            }
        }
    }
    Ok(())
}

/// Whether the library refuses a decimal for having fewer bytes than its precision might need, as it does where a schema
/// is resolved (and then finds no branch of a union for it).
fn short_decimal(theirs: &str) -> bool {
    let no_branch = theirs.contains("Could not find matching type") && theirs.contains("Decimal");
    no_branch || theirs.contains("too small to hold decimal values")
}

/// Whether a branch is refused that the library, which looks at values and not at types, reads against the
/// specification: longs as ints where they are small, fixed and enums as text, text as enums.
fn lenient(writer: &str, event: &EventType) -> bool {
    let mismatches = Decoder::mismatches(writer, event).unwrap();
    mismatches.iter().any(|mismatch| !mismatch.always)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn messages_are_what_the_library_reads(bytes in entropy()) {
        same_schema(&bytes)?;
    }

    #[test]
    fn resolved_messages_are_what_the_library_resolves(bytes in entropy()) {
        resolved(&bytes)?;
    }
}
