//! Avro's schema resolution, compiled: which steps read a writer's bytes into a reader's columns.
//!
//! Avro 1.12, "Schema Resolution". Beyond it, two logical types that differ are never taken for each other, as their
//! bytes would be read for what they do not mean: milliseconds for microseconds, cents for tenths of cents.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::Fault;
use super::super::avro::Input;
use super::default;
use super::mismatch::Mismatch;
use super::read::Read;
use super::scalar::{self, Target};
use super::skip::{Skipper, Skips};
use super::step::{Op, Step, Steps, run};
use super::{Column, Row, empty_columns};
use crate::event::avro::{Definition, Logical, Primitive, RecordField, Schema, Shape, Type};
use crate::event::{EventType, Kind, without_null};

/// Most fields, branches and items of a writer's schema that are looked at. A schema is looked through once for each
/// place that the reader has it in, which a hostile one could make as many as the square of its length.
const MOST_LOOKS: usize = 1 << 20;

/// Compiles the steps that read what `writer` wrote into the columns of `event`, and tells everything that can't be
/// read. `None`: nothing can be.
pub(super) fn resolve(writer: &Schema, event: &EventType) -> (Option<Steps>, Vec<Mismatch>) {
    let (skips, skipper) = Skips::new(writer);
    let empty = empty_columns(event);
    let mut resolver =
        Resolver { writer, event, empty: &empty, skipper, skips: Arc::new(skips), found: Vec::new(), looks: 0 };
    let targets: Vec<Target<'_>> = (0..event.fields.len()).map(|at| Target::column(event, at)).collect();
    let place = Place { targets: &targets, column: 0, path: &event.name, is_whole: true };
    let steps = resolver.avro(&writer.root, &event.schema.root, place);
    let refused = resolver.found.iter().any(|mismatch| mismatch.always);
    (steps.filter(|_| !refused).map(Vec::into_boxed_slice), resolver.found)
}

struct Resolver<'a> {
    writer: &'a Schema,
    event: &'a EventType,
    /// The columns without rows, to try defaults in.
    empty: &'a [Column],
    skipper: Skipper<'a>,
    skips: Arc<Skips>,
    found: Vec<Mismatch>,
    /// How many types were looked at.
    looks: usize,
}

/// Where values go: the columns, the first of those that a type has, and what errors call the field.
#[derive(Clone, Copy)]
struct Place<'p> {
    targets: &'p [Target<'p>],
    column: usize,
    path: &'p str,
    /// Whether it is the event as a whole, whose name is no part of its fields' paths.
    is_whole: bool,
}

impl Place<'_> {
    fn step(&self, op: Op) -> Step {
        Step { path: self.path.into(), op }
    }
}

impl<'a> Resolver<'a> {
    /// Notes that nothing can be read here.
    fn refuse<T>(&mut self, place: Place<'_>, reason: String) -> Option<T> {
        self.found.push(Mismatch { field: place.path.to_owned(), reason, always: true });
        None
    }

    fn types_differ<T>(&mut self, writer: &Type, reader: &Type, place: Place<'_>) -> Option<T> {
        let (writer, reader) = (self.writer.name(writer), self.event.schema.name(reader));
        self.refuse(place, format!("it is written as {writer}, which can't be read as {reader}"))
    }

    /// Counts looks at types; `None`, and said once, where they have become too many.
    fn look(&mut self, times: usize, place: Place<'_>) -> Option<()> {
        let before = self.looks;
        self.looks = before.saturating_add(times);
        match self.looks > MOST_LOOKS {
            false => Some(()),
            true if before > MOST_LOOKS => None,
            true => self.refuse(place, format!("the writer's schema takes more than {MOST_LOOKS} looks to resolve")),
        }
    }

    /// The steps for a type; `None` where something was refused.
    fn avro(&mut self, writer: &'a Type, reader: &'a Type, place: Place<'_>) -> Option<Vec<Step>> {
        self.look(1, place)?;
        if let Type::Union(branches) = writer {
            return self.branches(branches, reader, place);
        }
        let Ok((inner, nullable)) = without_null(reader) else {
            return self.types_differ(writer, reader, place);
        };
        let always_null = |avro: &Type| matches!(avro, Type::Primitive(Primitive::Null, _));
        if always_null(writer) {
            return match nullable {
                true => Some(self.nulls(inner, place)),
                false => self.types_differ(writer, reader, place),
            };
        }
        match (writer, inner) {
            (Type::Array(written), Type::Array(read)) => self.array(written, read, place),
            (Type::Map(written), Type::Map(read)) => self.map(written, read, place),
            (Type::Named(written), Type::Named(read)) => {
                match (self.writer.definition(written), self.event.schema.definition(read)) {
                    (Some(written), Some(read)) => self.named(written, read, (writer, reader), place),
                    _ => self.types_differ(writer, reader, place),
                }
            }
            (Type::Primitive(written, writer_logical), Type::Primitive(read, reader_logical)) => {
                let target = place.targets.get(place.column).copied();
                let is_text = *read == Primitive::String;
                // A decimal's bytes are no text.
                let target = target.filter(|_| !(is_text && matches!(writer_logical, Some(Logical::Decimal { .. }))));
                match target.and_then(|target| scalar::primitive(*written, *read, target)) {
                    None => self.types_differ(writer, reader, place),
                    Some(read) => match scalar::logical_types_differ(*writer_logical, *reader_logical) {
                        Some(reason) => self.refuse(place, reason),
                        None => Some(vec![place.step(Op::Read { column: place.column, null: None, read })]),
                    },
                }
            }
            _ => self.types_differ(writer, reader, place),
        }
    }

    /// Null in each column of a type.
    fn nulls(&self, reader: &Type, place: Place<'_>) -> Vec<Step> {
        let columns = place.column..place.column + self.event.schema.columns(reader);
        columns.map(|column| place.step(Op::Null { column })).collect()
    }

    /// A union of the writer, branch by branch. A branch that can't be read is no reason to refuse the others.
    fn branches(&mut self, writer: &'a [Type], reader: &'a Type, place: Place<'_>) -> Option<Vec<Step>> {
        let before = self.found.len();
        let mut arms: Vec<Steps> = Vec::with_capacity(writer.len());
        let mut any = false;
        for (at, branch) in writer.iter().enumerate() {
            let steps = self.avro(branch, reader, place);
            any |= steps.is_some();
            let refuse = || vec![place.step(Op::Refuse(Fault::UnreadableBranch(at)))];
            arms.push(steps.unwrap_or_else(refuse).into());
        }
        if !any {
            return None;
        }
        self.found.iter_mut().skip(before).for_each(|mismatch| mismatch.always = false);
        let nullable = |null: u8, value: &[Step], of_null: &[Step]| match (of_null, value) {
            ([Step { op: Op::Null { .. }, .. }], [Step { op: Op::Read { column, null: None, read }, .. }]) => {
                Some(Op::Read { column: *column, null: Some(null), read: read.clone() })
            }
            _ => None,
        };
        let op = match arms.as_slice() {
            [first, second] => nullable(0, second, first).or_else(|| nullable(1, first, second)),
            _ => None,
        };
        Some(vec![place.step(op.unwrap_or_else(|| Op::Union(arms.into())))])
    }

    fn array(&mut self, writer: &'a Type, reader: &'a Type, place: Place<'_>) -> Option<Vec<Step>> {
        let Some(Kind::Array(item)) = place.targets.get(place.column).map(|target| target.kind) else {
            return self.types_differ(writer, reader, place);
        };
        let items = self.avro(writer, reader, Place { targets: &[Target::item(item)], column: 0, ..place })?;
        if let [Step { op: Op::Null { .. }, .. }] = items.as_slice() {
            return self.refuse(place, "its items have no bytes, so nothing bounds their number".to_owned());
        }
        Some(vec![place.step(Op::Array { column: place.column, items: items.into() })])
    }

    fn map(&mut self, writer: &'a Type, reader: &'a Type, place: Place<'_>) -> Option<Vec<Step>> {
        let Some(Kind::Map(value)) = place.targets.get(place.column).map(|target| target.kind) else {
            return self.types_differ(writer, reader, place);
        };
        let targets = [Target::key(), Target::item(value)];
        let values = self.avro(writer, reader, Place { targets: &targets, column: 1, ..place })?;
        let key = place.step(Op::Read { column: 0, null: None, read: Read::String });
        let entries: Steps = [key].into_iter().chain(values).collect();
        Some(vec![place.step(Op::Map { column: place.column, entries })])
    }

    /// Records, enums and fixed, which go by their names.
    fn named(
        &mut self,
        writer: &'a Definition,
        reader: &'a Definition,
        types: (&'a Type, &'a Type),
        place: Place<'_>,
    ) -> Option<Vec<Step>> {
        let target = place.targets.get(place.column).copied();
        let op = match (&writer.of, &reader.of) {
            _ if !reader.answers_to(&writer.name) => {
                let (written, read) = (&writer.name, &reader.name);
                let reason = format!("it is written as {written} and read as {read}; give {read} the alias {written}");
                return self.refuse(place, reason);
            }
            (Shape::Record(written), Shape::Record(read)) => return self.record(written, read, place),
            (Shape::Enum { symbols: written, .. }, Shape::Enum { symbols: read, default }) => {
                self.symbols(written, read, default.as_deref(), place)?
            }
            (Shape::Fixed { size, logical: written }, Shape::Fixed { size: other, logical: read }) if size == other => {
                if let Some(reason) = scalar::logical_types_differ(*written, *read) {
                    return self.refuse(place, reason);
                }
                match target.and_then(|target| scalar::fixed(*size, target)) {
                    Some(read) => read,
                    None => return self.types_differ(types.0, types.1, place),
                }
            }
            _ => return self.types_differ(types.0, types.1, place),
        };
        Some(vec![place.step(Op::Read { column: place.column, null: None, read: op })])
    }

    fn symbols(
        &mut self,
        writer: &[String],
        reader: &[String],
        default: Option<&str>,
        place: Place<'_>,
    ) -> Option<Read> {
        if writer == reader {
            return Some(Read::Enum(reader.len() as u32));
        }
        let entry = |symbol: &str| reader.iter().position(|other| other == symbol).map(|at| at as u32 + 1);
        let entries: Arc<[Option<u32>]> =
            writer.iter().map(|symbol| entry(symbol).or_else(|| entry(default?))).collect();
        let unread: Vec<&str> = writer
            .iter()
            .zip(entries.iter())
            .filter(|(_, to)| to.is_none())
            .map(|(symbol, _)| symbol.as_str())
            .collect();
        if !unread.is_empty() {
            let always = unread.len() == writer.len();
            let reason = format!(
                "the symbols {} are unknown to the reader; add them, or give the enum a default",
                unread.join(", ")
            );
            self.found.push(Mismatch { field: place.path.to_owned(), reason, always });
            if always {
                return None;
            }
        }
        Some(Read::Symbols(entries))
    }

    /// The writer's fields in their order, into the reader's columns; then the defaults of those that it lacks.
    fn record(&mut self, writer: &'a [RecordField], reader: &'a [RecordField], place: Place<'_>) -> Option<Vec<Step>> {
        let path = |name: &str| if place.is_whole { name.to_owned() } else { format!("{}.{name}", place.path) };
        let next = |column: &mut usize, field: &RecordField| {
            let first = *column;
            *column += self.event.schema.columns(&field.avro);
            Some(first)
        };
        let columns: Vec<usize> = reader.iter().scan(place.column, next).collect();
        let mut missing: Vec<bool> = vec![true; reader.len()];
        self.look(writer.len(), place)?;
        let names: BTreeSet<&str> = writer.iter().map(|field| field.name.as_str()).collect();
        let (mut steps, mut whole) = (Vec::new(), true);
        for written in writer {
            match source_of(reader, written, &names) {
                Some(at) => {
                    missing[at] = false;
                    let path = path(&reader[at].name);
                    let place = Place { column: columns[at], path: &path, is_whole: false, ..place };
                    match self.avro(&written.avro, &reader[at].avro, place) {
                        Some(found) => steps.extend(found),
                        None => whole = false,
                    }
                }
                None => {
                    let op = Op::Skip(self.skipper.skip(&written.avro), self.skips.clone());
                    steps.push(Step { path: path(&written.name).into(), op });
                }
            }
        }
        for (at, field) in reader.iter().enumerate().filter(|(at, _)| missing[*at]) {
            let path = path(&field.name);
            match self.default(field, Place { column: columns[at], path: &path, is_whole: false, ..place }) {
                Some(step) => steps.push(step),
                None => whole = false,
            }
        }
        whole.then_some(steps)
    }

    /// What the reader's schema has for a field that the writer lacks: encoded once, and read again for each message.
    fn default(&mut self, field: &'a RecordField, place: Place<'_>) -> Option<Step> {
        let columns = place.column..place.column + self.event.schema.columns(&field.avro);
        if place.targets.get(columns).is_some_and(|targets| targets.iter().any(Target::is_own)) {
            return self.refuse(place, "it is not written, and every event has one of its own".to_owned());
        }
        let Some(value) = &field.default else {
            return self.refuse(place, "it is not written and has no default; give it one".to_owned());
        };
        let schema = &self.event.schema;
        let mut body = Vec::new();
        if default::write(schema, &field.avro, value, &mut body).is_none() {
            let reason = format!("its default {value} is no {}", schema.name(&field.avro));
            return self.refuse(place, reason);
        }
        let (skips, skipper) = Skips::new(schema);
        let mut own = Resolver { writer: schema, skipper, skips: Arc::new(skips), found: Vec::new(), ..*self };
        let steps: Steps = own.avro(&field.avro, &field.avro, place)?.into();
        let mut columns = self.empty.to_vec();
        match run(&steps, &mut Input(&body), &mut columns, &mut Row { time: 0, id: 0 }) {
            Ok(()) => Some(place.step(Op::Default { body: body.into(), steps })),
            Err(error) => self.refuse(place, format!("its default can't be stored: {}", error.fault)),
        }
    }
}

/// Which field of the reader a field of the writer is: that of its name, or one that has it for an alias and whose own
/// name the writer has no field of. `writer` has the names of all the writer's fields.
fn source_of(reader: &[RecordField], written: &RecordField, writer: &BTreeSet<&str>) -> Option<usize> {
    let by_name = reader.iter().position(|field| field.name == written.name);
    by_name.or_else(|| {
        reader.iter().position(|field| {
            let is_alias_in_use = |alias: &&String| writer.contains(alias.as_str());
            !writer.contains(field.name.as_str()) && field.aliases.iter().find(is_alias_in_use) == Some(&written.name)
        })
    })
}
