//! An Avro schema as a tree, which resolution and the decode plan are made from.
//!
//! The Avro library judges what Avro asks for and resolves namespaces. Beside that the JSON is read once more for what
//! the library forgives (logical types that it ignores in silence) and for the annotations.

use std::collections::BTreeMap;

use apache_avro::Schema as Library;
use apache_avro::schema::{Aliases, FixedSchema, InnerDecimalSchema, Name, UuidSchema};
use serde::Deserialize;
use serde_json::Value;

use super::annotation::Members;
use super::kind::TimeUnit;

/// A schema: its outermost type and all types that have a name.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    pub(crate) root: Type,
    definitions: BTreeMap<String, Definition>,
    /// The name behind each alias: the first, where several have it.
    aliases: BTreeMap<String, String>,
}

/// A type as it stands somewhere. Records, enums and fixed are looked up by name, so types may contain themselves.
#[derive(Debug, Clone)]
pub(crate) enum Type {
    Primitive(Primitive, Option<Logical>),
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    /// The full name of a definition.
    Named(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Primitive {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logical {
    Uuid,
    Date,
    Time(TimeUnit),
    Timestamp(TimeUnit),
    LocalTimestamp(TimeUnit),
    Decimal { precision: usize, scale: usize },
    BigDecimal,
    Duration,
}

/// A type with a name.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// With its namespace.
    pub(crate) name: String,
    /// With their namespaces.
    pub(crate) aliases: Vec<String>,
    pub(crate) doc: Option<String>,
    pub(crate) of: Shape,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape {
    Record(Vec<RecordField>),
    Enum { symbols: Vec<String>, default: Option<String> },
    Fixed { size: usize, logical: Option<Logical> },
}

/// A field of a record.
#[derive(Debug, Clone)]
pub(crate) struct RecordField {
    pub(crate) name: String,
    pub(crate) aliases: Vec<String>,
    pub(crate) doc: Option<String>,
    pub(crate) default: Option<Value>,
    pub(crate) avro: Type,
    /// Its `highwater` annotation, as written.
    pub(crate) highwater: Option<Members>,
    /// Whether `logicalType` stands beside its type, where Avro ignores it.
    pub(crate) misplaced_logical_type: bool,
    /// A logical type written on its type that Avro ignores in silence.
    pub(crate) ignored_logical_type: Option<String>,
}

/// The parts of the JSON that the Avro library does not pass on.
#[derive(Deserialize)]
#[serde(untagged)]
enum Raw {
    /// Told from the others by being text.
    Name(#[allow(dead_code)] String),
    Union(Vec<Raw>),
    Complex(Box<RawComplex>),
}

#[derive(Deserialize)]
struct RawComplex {
    #[serde(rename = "type")]
    avro: Raw,
    #[serde(rename = "logicalType")]
    logical: Option<Value>,
    items: Option<Raw>,
    values: Option<Raw>,
    #[serde(default)]
    fields: Vec<RawField>,
}

#[derive(Deserialize)]
struct RawField {
    #[serde(rename = "type")]
    avro: Raw,
    #[serde(rename = "logicalType")]
    logical: Option<Value>,
    highwater: Option<Members>,
}

/// Stands where the JSON has no counterpart.
const NO_RAW: &Raw = &Raw::Name(String::new());

impl Schema {
    /// Reads a schema's JSON.
    ///
    /// # Errors
    /// What the Avro library finds wrong with it.
    pub(crate) fn parse(json: &str) -> Result<Schema, String> {
        let library = Library::parse_str(json).map_err(|error| error.to_string())?;
        let raw: Raw = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let mut reading = Reading::default();
        let root = reading.avro(&library, &raw)?;
        let mut aliases = BTreeMap::new();
        for definition in reading.definitions.values() {
            for alias in &definition.aliases {
                aliases.entry(alias.clone()).or_insert_with(|| definition.name.clone());
            }
        }
        Ok(Schema { root, definitions: reading.definitions, aliases })
    }

    /// The definition of a name or an alias; the Avro library has seen to it that there is one.
    pub(crate) fn definition(&self, name: &str) -> Option<&Definition> {
        self.definitions.get(name).or_else(|| self.definitions.get(self.aliases.get(name)?))
    }

    /// All definitions, by their names.
    pub(crate) fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.values()
    }

    /// How many columns a type has that [`super::EventType::parse`] took.
    pub(crate) fn columns(&self, avro: &Type) -> usize {
        match avro {
            Type::Primitive(Primitive::Null, _) => 0,
            Type::Union(branches) => branches.iter().map(|branch| self.columns(branch)).sum(),
            Type::Named(name) => match self.definition(name).map(|definition| &definition.of) {
                Some(Shape::Record(fields)) => fields.iter().map(|field| self.columns(&field.avro)).sum(),
                _ => 1,
            },
            _ => 1,
        }
    }

    /// The outermost record, if it is one.
    pub(crate) fn record(&self) -> Option<(&Definition, &[RecordField])> {
        let Type::Named(name) = &self.root else { return None };
        let definition = self.definition(name)?;
        match &definition.of {
            Shape::Record(fields) => Some((definition, fields)),
            _ => None,
        }
    }

    /// What a message calls a type: the logical type where it has one.
    pub(crate) fn name(&self, avro: &Type) -> String {
        match avro {
            Type::Primitive(primitive, None) => primitive.name().to_owned(),
            Type::Primitive(_, Some(logical)) => logical.to_string(),
            Type::Array(items) => format!("array of {}", self.name(items)),
            Type::Map(values) => format!("map of {}", self.name(values)),
            Type::Union(branches) => {
                let names: Vec<String> = branches.iter().map(|branch| self.name(branch)).collect();
                format!("[{}]", names.join(", "))
            }
            Type::Named(name) => match self.definition(name).map(|definition| &definition.of) {
                Some(Shape::Record(_)) => format!("record {name}"),
                Some(Shape::Enum { .. }) => format!("enum {name}"),
                Some(Shape::Fixed { size, logical: None }) => format!("fixed {name} of {size} bytes"),
                Some(Shape::Fixed { size, logical: Some(logical) }) => format!("{logical} in {size} bytes"),
                None => name.clone(),
            },
        }
    }
}

impl Definition {
    /// The name without its namespace.
    pub(crate) fn unqualified(&self) -> &str {
        unqualified(&self.name)
    }

    /// Whether Avro's resolution takes this, the reader's, for the writer's definition of that full name: by the name
    /// without the namespace, or by an alias.
    pub(crate) fn answers_to(&self, writer: &str) -> bool {
        self.unqualified() == unqualified(writer) || self.aliases.iter().any(|alias| alias == writer)
    }
}

fn unqualified(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, name)| name)
}

impl Primitive {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Primitive::Null => "null",
            Primitive::Boolean => "boolean",
            Primitive::Int => "int",
            Primitive::Long => "long",
            Primitive::Float => "float",
            Primitive::Double => "double",
            Primitive::Bytes => "bytes",
            Primitive::String => "string",
        }
    }
}

impl Logical {
    /// As a schema writes it.
    fn keyword(self) -> &'static str {
        use TimeUnit::{Micros, Millis, Nanos};
        match self {
            Logical::Uuid => "uuid",
            Logical::Date => "date",
            Logical::Time(Millis) => "time-millis",
            Logical::Time(Micros | Nanos) => "time-micros",
            Logical::Timestamp(Millis) => "timestamp-millis",
            Logical::Timestamp(Micros) => "timestamp-micros",
            Logical::Timestamp(Nanos) => "timestamp-nanos",
            Logical::LocalTimestamp(Millis) => "local-timestamp-millis",
            Logical::LocalTimestamp(Micros) => "local-timestamp-micros",
            Logical::LocalTimestamp(Nanos) => "local-timestamp-nanos",
            Logical::Decimal { .. } => "decimal",
            Logical::BigDecimal => "big-decimal",
            Logical::Duration => "duration",
        }
    }
}

impl std::fmt::Display for Logical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Logical::Decimal { precision, scale } => write!(f, "decimal({precision}, {scale})"),
            other => f.write_str(other.keyword()),
        }
    }
}

/// The conversion of one schema.
#[derive(Default)]
struct Reading {
    definitions: BTreeMap<String, Definition>,
    /// Logical types of the field at hand that the library ignored.
    ignored: Option<String>,
}

impl Reading {
    fn avro(&mut self, library: &Library, raw: &Raw) -> Result<Type, String> {
        use Logical::{BigDecimal, Date, Duration, LocalTimestamp, Time, Timestamp, Uuid};
        use Primitive::{Boolean, Bytes, Double, Float, Int, Long, Null, String};
        use TimeUnit::{Micros, Millis, Nanos};
        // A type may be wrapped as {"type": {"type": …}}, with a logical type on any of the layers.
        let (mut raw, mut logicals) = (raw, Vec::new());
        while let Raw::Complex(complex) = raw {
            logicals.extend(complex.logical.as_ref());
            match complex.avro {
                Raw::Name(_) => break,
                _ => raw = &complex.avro,
            }
        }
        let complex = if let Raw::Complex(complex) = raw { Some(complex) } else { None };
        let primitive = |primitive, logical| (Type::Primitive(primitive, logical), logical);
        let (avro, logical) = match library {
            Library::Null => primitive(Null, None),
            Library::Boolean => primitive(Boolean, None),
            Library::Int => primitive(Int, None),
            Library::Long => primitive(Long, None),
            Library::Float => primitive(Float, None),
            Library::Double => primitive(Double, None),
            // On bytes a UUID is the library's own; by the specification they are bytes.
            Library::Bytes | Library::Uuid(UuidSchema::Bytes) => primitive(Bytes, None),
            Library::String => primitive(String, None),
            Library::BigDecimal => primitive(Bytes, Some(BigDecimal)),
            Library::Uuid(UuidSchema::String) => primitive(String, Some(Uuid)),
            Library::Date => primitive(Int, Some(Date)),
            Library::TimeMillis => primitive(Int, Some(Time(Millis))),
            Library::TimeMicros => primitive(Long, Some(Time(Micros))),
            Library::TimestampMillis => primitive(Long, Some(Timestamp(Millis))),
            Library::TimestampMicros => primitive(Long, Some(Timestamp(Micros))),
            Library::TimestampNanos => primitive(Long, Some(Timestamp(Nanos))),
            Library::LocalTimestampMillis => primitive(Long, Some(LocalTimestamp(Millis))),
            Library::LocalTimestampMicros => primitive(Long, Some(LocalTimestamp(Micros))),
            Library::LocalTimestampNanos => primitive(Long, Some(LocalTimestamp(Nanos))),
            Library::Decimal(decimal) => {
                let logical = Logical::Decimal { precision: decimal.precision, scale: decimal.scale };
                match &decimal.inner {
                    InnerDecimalSchema::Bytes => primitive(Bytes, Some(logical)),
                    InnerDecimalSchema::Fixed(fixed) => self.fixed(fixed, Some(logical))?,
                }
            }
            Library::Uuid(UuidSchema::Fixed(fixed)) => self.fixed(fixed, Some(Uuid))?,
            Library::Duration(fixed) => self.fixed(fixed, Some(Duration))?,
            Library::Fixed(fixed) => self.fixed(fixed, None)?,
            Library::Array(array) => {
                let raw = complex.and_then(|complex| complex.items.as_ref()).unwrap_or(NO_RAW);
                (Type::Array(Box::new(self.avro(&array.items, raw)?)), None)
            }
            Library::Map(map) => {
                let raw = complex.and_then(|complex| complex.values.as_ref()).unwrap_or(NO_RAW);
                (Type::Map(Box::new(self.avro(&map.types, raw)?)), None)
            }
            Library::Union(union) => {
                let raws = if let Raw::Union(raws) = raw { raws.as_slice() } else { &[] };
                let branch = |(at, branch)| self.avro(branch, raws.get(at).unwrap_or(NO_RAW));
                (Type::Union(union.variants().iter().enumerate().map(branch).collect::<Result<_, _>>()?), None)
            }
            Library::Enum(of) => {
                let shape = Shape::Enum { symbols: of.symbols.clone(), default: of.default.clone() };
                (self.define(&of.name, &of.aliases, of.doc.clone(), shape)?, None)
            }
            Library::Record(record) => {
                let raws = complex.map_or(&[][..], |complex| &complex.fields);
                if raws.len() != record.fields.len() {
                    return Err(format!("the fields of {} can't be told apart", record.name));
                }
                let outer = self.ignored.take();
                let mut fields = Vec::with_capacity(raws.len());
                for (field, raw) in record.fields.iter().zip(raws) {
                    let avro = self.avro(&field.schema, &raw.avro)?;
                    fields.push(RecordField {
                        name: field.name.clone(),
                        aliases: field.aliases.clone(),
                        doc: field.doc.clone(),
                        default: field.default.clone(),
                        avro,
                        highwater: raw.highwater.clone(),
                        misplaced_logical_type: raw.logical.is_some(),
                        ignored_logical_type: self.ignored.take(),
                    });
                }
                self.ignored = outer;
                (self.define(&record.name, &record.aliases, record.doc.clone(), Shape::Record(fields))?, None)
            }
            Library::Ref { name } => (Type::Named(name.fullname(None)), None),
        };
        let ignored = logicals.into_iter().find(|written| written.as_str() != logical.map(Logical::keyword));
        if let Some(ignored) = ignored {
            let text = ignored.as_str().map_or_else(|| ignored.to_string(), str::to_owned);
            self.ignored.get_or_insert(text);
        }
        Ok(avro)
    }

    fn fixed(&mut self, fixed: &FixedSchema, logical: Option<Logical>) -> Result<(Type, Option<Logical>), String> {
        let shape = Shape::Fixed { size: fixed.size, logical };
        Ok((self.define(&fixed.name, &fixed.aliases, fixed.doc.clone(), shape)?, logical))
    }

    fn define(&mut self, name: &Name, aliases: &Aliases, doc: Option<String>, of: Shape) -> Result<Type, String> {
        let name = name.fullname(None);
        let aliases = aliases.iter().flatten().map(|alias| alias.fullname(None)).collect();
        let definition = Definition { name: name.clone(), aliases, doc, of };
        match self.definitions.insert(name.clone(), definition) {
            None => Ok(Type::Named(name)),
            // The library lets the second replace the first.
            Some(_) => Err(format!("the type {name} is defined twice; define it once and refer to it by its name")),
        }
    }
}
