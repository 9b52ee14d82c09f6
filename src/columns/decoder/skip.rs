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
        // A record is without bytes when all its fields are: found from the innermost outwards, so that neither a record
        // that contains itself nor one that contains another many times over costs anything.
        loop {
            let is_new = |record: &&&Definition| !skipper.without_bytes.contains(record.name.as_str());
            let has_none = |record: &&&Definition| match &record.of {
                Shape::Record(fields) => fields.iter().all(|field| skipper.is_nothing(&field.avro)),
                _ => false,
            };
            let found: Vec<&str> =
                records.iter().filter(is_new).filter(has_none).map(|record| record.name.as_str()).collect();
            if found.is_empty() {
                break;
            }
            skipper.without_bytes.extend(found);
        }
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

impl Skipper<'_> {
    fn is_nothing(&self, avro: &Type) -> bool {
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
