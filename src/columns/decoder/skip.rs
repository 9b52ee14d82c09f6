//! Reading past what the reader has no field for.
//!
//! What is skipped is held to its type all the same: a message that is not what its schema says is refused, whichever
//! of its fields are kept.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Fault;
use super::super::avro::Input;
use super::read::utf8;
use crate::event::avro::{Definition, Primitive, Schema, Shape, Type};

/// Most values within each other. Only a record that contains itself gets there.
const DEEPEST: u32 = 256;

/// How a type's values are read past.
#[derive(Debug, Clone)]
pub(super) enum Skip {
    /// A type whose values have no bytes.
    Nothing,
    Boolean,
    Int,
    Long,
    Fixed(usize),
    Bytes,
    String,
    /// With how many symbols.
    Enum(u32),
    Array(Box<Skip>),
    Map(Box<Skip>),
    Union(Box<[Skip]>),
    /// The record at this position of [`Skips`].
    Record(usize),
}

/// How the values of a schema's records are read past: their fields, without those that have no bytes.
#[derive(Debug)]
pub(super) struct Skips {
    records: Vec<Box<[Skip]>>,
}

impl Skips {
    /// Those of a schema, and what makes a skip of any of its types.
    pub(super) fn new(schema: &Schema) -> (Skips, Skipper<'_>) {
        let records: Vec<&Definition> = schema.definitions().collect();
        let mut skipper = Skipper { schema, positions: BTreeMap::new(), without_bytes: BTreeSet::new() };
        skipper.positions = records.iter().enumerate().map(|(at, record)| (record.name.as_str(), at)).collect();
        skipper.without_bytes = skipper.find_without_bytes(&records);
        let fields = |record: &&Definition| match &record.of {
            Shape::Record(fields) => {
                let skips = fields.iter().map(|field| skipper.skip(&field.avro));
                skips.filter(|skip| !matches!(skip, Skip::Nothing)).collect()
            }
            _ => Box::default(),
        };
        (Skips { records: records.iter().map(fields).collect() }, skipper)
    }

    /// Reads past a value.
    pub(super) fn skip(&self, skip: &Skip, input: &mut Input<'_>) -> Result<(), Fault> {
        self.within(skip, input, 0)
    }

    fn within(&self, skip: &Skip, input: &mut Input<'_>, depth: u32) -> Result<(), Fault> {
        if depth > DEEPEST {
            return Err(Fault::TooDeep(DEEPEST));
        }
        match skip {
            Skip::Nothing => Ok(()),
            Skip::Boolean => input.boolean().map(drop),
            Skip::Int => input.int().map(drop),
            Skip::Long => input.long().map(drop),
            Skip::Fixed(size) => input.take(*size).map(drop),
            Skip::Bytes => input.bytes().map(drop),
            Skip::String => utf8(input.bytes()?).map(drop),
            Skip::Enum(symbols) => input.symbol(*symbols).map(drop),
            Skip::Array(items) => self.blocks(input, |input| match **items {
                // However many there are.
                Skip::Nothing => Ok(false),
                ref items => self.within(items, input, depth + 1).map(|()| true),
            }),
            Skip::Map(values) => self.blocks(input, |input| {
                utf8(input.bytes()?)?;
                self.within(values, input, depth + 1).map(|()| true)
            }),
            Skip::Union(branches) => {
                let branch = input.long()?;
                let skip = usize::try_from(branch).ok().and_then(|at| branches.get(at));
                let unknown = Fault::UnknownBranch { branch, branches: branches.len() };
                self.within(skip.ok_or(unknown)?, input, depth + 1)
            }
            Skip::Record(at) => {
                let fields = self.records.get(*at).ok_or(Fault::WrongColumns)?;
                fields.iter().try_for_each(|field| self.within(field, input, depth + 1))
            }
        }
    }

    /// Reads past blocks; `item` says whether items have bytes.
    fn blocks(
        &self,
        input: &mut Input<'_>,
        mut item: impl FnMut(&mut Input<'_>) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        loop {
            match input.block()? {
                0 => return Ok(()),
                count => {
                    for _ in 0..count {
                        if !item(input)? {
                            break;
                        }
                    }
                }
            }
        }
    }
}

/// Makes skips of a schema's types.
#[derive(Debug)]
pub(super) struct Skipper<'a> {
    schema: &'a Schema,
    positions: BTreeMap<&'a str, usize>,
    without_bytes: BTreeSet<&'a str>,
}

impl<'a> Skipper<'a> {
    /// The records that have no bytes, as all their fields have none: found from the innermost outwards, each field looked
    /// at once, so that neither a record that contains itself nor one that contains another many times over costs anything.
    fn find_without_bytes(&self, records: &[&'a Definition]) -> BTreeSet<&'a str> {
        let (mut found, mut next) = (BTreeSet::new(), Vec::new());
        // How many fields of a record are yet to be found without bytes, and which records wait for a record.
        let mut open: Vec<usize> = Vec::with_capacity(records.len());
        let mut waiting: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, record) in records.iter().enumerate() {
            let Shape::Record(fields) = &record.of else {
                open.push(usize::MAX);
                continue;
            };
            let with_bytes = fields.iter().filter(|field| !self.is_nothing(&field.avro));
            let mut count = 0;
            for field in with_bytes {
                count += 1;
                if let Type::Named(name) = &field.avro
                    && let Some(inner) = self.schema.definition(name)
                {
                    waiting.entry(&inner.name).or_default().push(at);
                }
            }
            open.push(count);
            if count == 0 {
                next.push(at);
            }
        }
        while let Some(at) = next.pop() {
            let name = records[at].name.as_str();
            found.insert(name);
            for outer in waiting.remove(name).unwrap_or_default() {
                open[outer] -= 1;
                if open[outer] == 0 {
                    next.push(outer);
                }
            }
        }
        found
    }

    fn is_nothing(&self, avro: &Type) -> bool {
        #[cfg(test)]
        tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        match avro {
            Type::Primitive(Primitive::Null, _) => true,
            Type::Named(name) => self.schema.definition(name).is_some_and(|Definition { name, of, .. }| {
                matches!(of, Shape::Fixed { size: 0, .. }) || self.without_bytes.contains(name.as_str())
            }),
            _ => false,
        }
    }

    /// How the values of a type are read past.
    pub(super) fn skip(&self, avro: &Type) -> Skip {
        if self.is_nothing(avro) {
            return Skip::Nothing;
        }
        match avro {
            Type::Primitive(primitive, _) => match primitive {
                Primitive::Null => Skip::Nothing,
                Primitive::Boolean => Skip::Boolean,
                Primitive::Int => Skip::Int,
                Primitive::Long => Skip::Long,
                Primitive::Float => Skip::Fixed(4),
                Primitive::Double => Skip::Fixed(8),
                Primitive::Bytes => Skip::Bytes,
                Primitive::String => Skip::String,
            },
            Type::Array(items) => Skip::Array(Box::new(self.skip(items))),
            Type::Map(values) => Skip::Map(Box::new(self.skip(values))),
            Type::Union(branches) => Skip::Union(branches.iter().map(|branch| self.skip(branch)).collect()),
            Type::Named(name) => match self.schema.definition(name) {
                Some(Definition { of: Shape::Enum { symbols, .. }, .. }) => Skip::Enum(symbols.len() as u32),
                Some(Definition { of: Shape::Fixed { size, .. }, .. }) => Skip::Fixed(*size),
                Some(Definition { name, .. }) => {
                    Skip::Record(self.positions.get(name.as_str()).copied().unwrap_or(usize::MAX))
                }
                None => Skip::Record(usize::MAX),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// How many types were looked at, by this test.
        pub(super) static LOOKS: Cell<usize> = const { Cell::new(0) };
    }

    /// Each record has one field, of the record before it; the first has none. `name` numbers them.
    fn chain(length: usize, last: &str, name: impl Fn(usize) -> String) -> String {
        let first = format!(r#"{{"type": "record", "name": "{}", "fields": [{last}]}}"#, name(0));
        let mut members = vec![format!(r#"{{"name": "f0", "type": {first}}}"#)];
        members.extend((1..length).map(|at| {
            let (this, inner) = (name(at), name(at - 1));
            let record =
                format!(r#"{{"type": "record", "name": "{this}", "fields": [{{"name": "x", "type": "{inner}"}}]}}"#);
            format!(r#"{{"name": "f{at}", "type": {record}}}"#)
        }));
        format!(r#"{{"type": "record", "name": "root", "fields": [{}]}}"#, members.join(", "))
    }

    /// What a registry may hold is up to whoever registers it: 16 MiB are a quarter of a million records.
    #[test]
    fn the_work_grows_with_the_schema_and_no_faster() {
        const LENGTH: usize = 3_000;
        let flag = r#"{"name": "x", "type": "boolean"}"#;
        for (last, nothing) in [("", true), (flag, false)] {
            // In both directions of the names, which is the order that definitions come in.
            for name in [|at: usize| format!("r{at:06}"), |at: usize| format!("r{:06}", 900_000 - at)] {
                let schema = Schema::parse(&chain(LENGTH, last, name)).unwrap();
                LOOKS.set(0);
                let (skips, skipper) = Skips::new(&schema);
                let skip = skipper.skip(&schema.root);
                assert!(LOOKS.get() < 10 * LENGTH, "{} looks at {LENGTH} records", LOOKS.get());
                assert_eq!(matches!(skip, Skip::Nothing), nothing);
                let kept = skips.records.iter().filter(|fields| !fields.is_empty()).count();
                assert_eq!(kept, if nothing { 0 } else { LENGTH + 1 });
            }
        }
    }

    #[test]
    fn records_without_bytes_are_found_through_each_other_and_through_aliases() {
        let schema = Schema::parse(
            r#"{"type": "record", "name": "root", "fields": [
                {"name": "a", "type": {"type": "record", "name": "empty", "aliases": ["void"], "fields": []}},
                {"name": "b", "type": {"type": "record", "name": "pair", "fields": [
                    {"name": "x", "type": "void"}, {"name": "y", "type": "null"},
                    {"name": "z", "type": {"type": "fixed", "name": "none", "size": 0}}]}},
                {"name": "c", "type": {"type": "record", "name": "itself", "fields": [{"name": "x", "type": "itself"}]}},
                {"name": "d", "type": {"type": "record", "name": "maybe", "fields": [
                    {"name": "x", "type": ["null", "pair"]}]}},
                {"name": "e", "type": {"type": "array", "items": "pair"}}]}"#,
        )
        .unwrap();
        let skipper = Skips::new(&schema).1;
        let nothing = |name: &str| matches!(skipper.skip(&Type::Named(name.to_owned())), Skip::Nothing);
        assert!(nothing("empty") && nothing("void") && nothing("pair") && nothing("none"));
        // One that contains itself has no value at all; a union writes which branch; an array how many.
        assert!(!nothing("itself") && !nothing("maybe") && !nothing("root"));
    }
}
