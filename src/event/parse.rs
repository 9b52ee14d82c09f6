//! From a schema's text to an [`EventType`].
//!
//! The Avro library judges what Avro asks for. Beside that the JSON is read once more for what the library forgives
//! (logical types that it ignores in silence) and for the annotations.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordField, UuidSchema};
use serde::Deserialize;
use serde_json::Value;

use super::annotation::{Annotation, Members};
use super::canonical::fingerprint;
use super::error::{Problem, SchemaError};
use super::schema::{COST_COLUMN, EventType, Field, Kind, Price, Role, TimeUnit};

/// Tables that are no event type's.
pub const RESERVED_TABLES: [&str; 7] =
    ["ledger", "watermarks", "completeness", "sources", "plans", "dead_letters", "alerts"];

/// The fields that every event has: name, role, and how to write them.
const REQUIRED: [(&str, Role, &str); 4] = [
    (
        "event_id",
        Role::Id,
        r#"{"name": "event_id", "type": {"type": "string", "logicalType": "uuid"}, "highwater": {"role": "id"}}"#,
    ),
    (
        "occurred_at",
        Role::Time,
        r#"{"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "highwater": {"role": "time"}}"#,
    ),
    ("app", Role::Dimension, r#"{"name": "app", "type": "string", "highwater": {"role": "dimension"}}"#),
    (
        "environment",
        Role::Dimension,
        r#"{"name": "environment", "type": "string", "highwater": {"role": "dimension"}}"#,
    ),
];

/// The parts of the JSON that the Avro library does not pass on.
#[derive(Deserialize)]
struct RawRecord {
    #[serde(default)]
    fields: Vec<RawField>,
}

#[derive(Deserialize)]
struct RawField {
    #[serde(rename = "type")]
    avro: Value,
    #[serde(rename = "logicalType")]
    logical: Option<Value>,
    highwater: Option<Members>,
}

impl EventType {
    /// Reads a schema. `file` is how errors call it.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with file, field and remedy.
    pub fn parse(file: &str, json: &str) -> Result<EventType, SchemaError> {
        parse(json).map_err(|(field, problem)| {
            let line = field.as_deref().and_then(|field| line(json, field));
            SchemaError { file: file.to_owned(), field, line, problem }
        })
    }
}

/// The line, from 1, in which a field is named.
fn line(json: &str, field: &str) -> Option<u32> {
    let quoted = format!("\"{field}\"");
    let is_name = |at: &usize| {
        let before = json[..*at].trim_end();
        before.strip_suffix(':').is_some_and(|before| before.trim_end().ends_with("\"name\""))
    };
    let at = json.match_indices(&quoted).map(|(at, _)| at).find(is_name)?;
    u32::try_from(json[..at].lines().count()).ok()
}

type Located<T> = Result<T, (Option<String>, Problem)>;

fn parse(json: &str) -> Located<EventType> {
    let whole = |problem| (None, problem);
    serde_json::from_str::<Value>(json).map_err(|error| whole(Problem::Json(error.to_string())))?;
    let schema = Schema::parse_str(json).map_err(|error| whole(Problem::Avro(error.to_string())))?;
    let Schema::Record(record) = &schema else { return Err(whole(Problem::NotARecord(schema.to_string()))) };
    let raw: RawRecord = serde_json::from_str(json).map_err(|error| whole(Problem::Avro(error.to_string())))?;
    let name = record.name.name().to_owned();
    if RESERVED_TABLES.contains(&name.as_str()) {
        return Err(whole(Problem::ReservedName(name)));
    }
    let mut enums = Vec::new();
    let mut fields = Vec::with_capacity(record.fields.len());
    for (avro, raw) in record.fields.iter().zip(&raw.fields) {
        fields.push(field(avro, raw, &mut enums).map_err(|problem| (Some(avro.name.clone()), problem))?);
    }
    let [id, time, ..] = required(&fields)?;
    prices(&fields)?;
    let event = EventType {
        name,
        doc: record.doc.clone().unwrap_or_default(),
        fingerprint: fingerprint(record).ok_or_else(|| whole(Problem::Type(schema.to_string())))?,
        fields,
        id,
        time,
        json: json.to_owned(),
    };
    // Only a type that has the cost column can collide with it.
    match event.position(COST_COLUMN) {
        Some(_) if event.is_priced() => Err((Some(COST_COLUMN.to_owned()), Problem::ReservedColumn)),
        _ => Ok(event),
    }
}

/// One field, judged by itself.
fn field(avro: &RecordField, raw: &RawField, enums: &mut Vec<(Name, Vec<String>)>) -> Result<Field, Problem> {
    if avro.name.starts_with('_') {
        return Err(Problem::ReservedColumn);
    }
    if raw.logical.is_some() {
        return Err(Problem::MisplacedLogicalType);
    }
    let (inner, raw_inner, null_branch) = without_null(&avro.schema, &raw.avro)?;
    let kind = kind(inner, enums)?;
    if let Some(stray) = logical_types(raw_inner).find(|&logical| Some(logical) != kind.logical_type()) {
        return Err(Problem::LogicalType(stray.to_owned()));
    }
    let annotation = raw.highwater.as_ref().map(Annotation::read).transpose()?.unwrap_or_default();
    judge(&avro.name, &kind, null_branch.is_some(), &annotation)?;
    let Annotation { role, unit, pii, price, examples, range, otel } = annotation;
    let doc = avro.doc.clone().unwrap_or_default();
    Ok(Field { name: avro.name.clone(), doc, kind, null_branch, role, unit, pii, price, examples, range, otel })
}

/// The type beside null, in the library's words and in JSON, and the position of null.
fn without_null<'a>(avro: &'a Schema, raw: &'a Value) -> Result<(&'a Schema, &'a Value, Option<u8>), Problem> {
    let Schema::Union(union) = avro else { return Ok((avro, raw, None)) };
    // A union may be wrapped as {"type": [...]}.
    let mut raw = raw;
    while let Some(inner) = raw.get("type") {
        raw = inner;
    }
    match (union.variants(), raw.as_array().map(Vec::as_slice)) {
        ([Schema::Null, inner], Some([_, raw])) => Ok((inner, raw, Some(0))),
        ([inner, Schema::Null], Some([raw, _])) => Ok((inner, raw, Some(1))),
        _ => Err(Problem::Union),
    }
}

fn kind(avro: &Schema, enums: &mut Vec<(Name, Vec<String>)>) -> Result<Kind, Problem> {
    Ok(match avro {
        Schema::Boolean => Kind::Boolean,
        Schema::Int => Kind::Int,
        Schema::Long => Kind::Long,
        Schema::Float => Kind::Float,
        Schema::Double => Kind::Double,
        Schema::String => Kind::String,
        Schema::Bytes => Kind::Bytes,
        Schema::Enum(symbols) => {
            enums.push((symbols.name.clone(), symbols.symbols.clone()));
            Kind::Enum(symbols.symbols.clone())
        }
        Schema::Ref { name } => match enums.iter().find(|(other, _)| other == name) {
            Some((_, symbols)) => Kind::Enum(symbols.clone()),
            None => return Err(Problem::Type(format!("record {}", name.name()))),
        },
        Schema::Uuid(UuidSchema::String) => Kind::Uuid,
        Schema::Date => Kind::Date,
        Schema::TimestampMillis => Kind::Timestamp(TimeUnit::Millis),
        Schema::TimestampMicros => Kind::Timestamp(TimeUnit::Micros),
        Schema::Decimal(decimal) if matches!(decimal.inner, InnerDecimalSchema::Bytes) => {
            match (u8::try_from(decimal.precision), u8::try_from(decimal.scale)) {
                (Ok(precision @ 1..=38), Ok(scale)) => Kind::Decimal { precision, scale },
                _ => return Err(Problem::Precision(decimal.precision)),
            }
        }
        other => return Err(Problem::Type(other.to_string().to_lowercase())),
    })
}

/// All logical types written on a type, however often it is wrapped in `{"type": …}`.
fn logical_types(raw: &Value) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(raw), |raw| raw.get("type")).filter_map(|raw| raw.get("logicalType")?.as_str())
}

/// Whether an annotation suits its field.
fn judge(name: &str, kind: &Kind, nullable: bool, annotation: &Annotation) -> Result<(), Problem> {
    let on_kind = |holds: bool, key: &str, value: &str, needed: &'static str| match holds {
        true => Ok(()),
        false => Err(Problem::Kind { annotation: format!("{key}: {value}"), kind: kind.name(), needed }),
    };
    let needs_role = |present: bool, key: &'static str, role: Role| match !present || annotation.role == Some(role) {
        true => Ok(()),
        false => Err(Problem::NeedsRole { annotation: key, role: role.name() }),
    };
    if let Some(role) = annotation.role {
        on_kind(role.suits(kind), "role", role.name(), role.kinds())?;
        if nullable && matches!(role, Role::Id | Role::Time) {
            return Err(Problem::Nullable);
        }
    }
    needs_role(annotation.unit.is_some(), "unit", Role::Measure)?;
    needs_role(annotation.range.is_some(), "range", Role::Measure)?;
    needs_role(!annotation.examples.is_empty(), "examples", Role::Dimension)?;
    if let Kind::Enum(symbols) = kind
        && let Some(example) = annotation.examples.iter().find(|example| !symbols.contains(example))
    {
        return Err(Problem::Example(example.clone()));
    }
    match annotation.price {
        Some(Price::Model) => needs_role(true, "price", Role::Dimension)?,
        Some(class) => on_kind(matches!(kind, Kind::Int | Kind::Long), "price", class.name(), "int or long")?,
        None => {}
    }
    if annotation.pii.is_some() && REQUIRED.iter().any(|(required, ..)| *required == name) {
        return Err(Problem::PiiOnRequired);
    }
    match annotation.pii {
        Some(super::Pii::Pseudonymize) => {
            on_kind(matches!(kind, Kind::String | Kind::Uuid), "pii", "pseudonymize", "string or uuid")
        }
        _ => Ok(()),
    }
}

/// The positions of the fields that every event has. Id and time are those and no other.
fn required(fields: &[Field]) -> Located<[usize; REQUIRED.len()]> {
    let mut positions = [0; REQUIRED.len()];
    for (position, (name, role, example)) in positions.iter_mut().zip(REQUIRED) {
        let at = |problem| (Some(name.to_owned()), problem);
        *position = fields.iter().position(|field| field.name == name).ok_or_else(|| at(Problem::Missing(example)))?;
        if fields.get(*position).and_then(|field| field.role) != Some(role) {
            return Err(at(Problem::MustHaveRole(role.name())));
        }
        if role != Role::Dimension
            && let Some(second) = fields.iter().find(|field| field.role == Some(role) && field.name != name)
        {
            return Err((Some(second.name.clone()), Problem::SecondRole { role: role.name(), owner: name }));
        }
    }
    Ok(positions)
}

/// Each price annotation stands once, and a model comes with tokens.
fn prices(fields: &[Field]) -> Located<()> {
    let priced: Vec<(&Field, Price)> = fields.iter().filter_map(|field| Some((field, field.price?))).collect();
    for (at, (field, price)) in priced.iter().enumerate() {
        if let Some((other, _)) = priced.iter().take(at).find(|(_, other)| other == price) {
            let problem = Problem::SecondPrice { price: price.name(), other: other.name.clone() };
            return Err((Some(field.name.clone()), problem));
        }
    }
    let models = priced.iter().filter(|(_, price)| *price == Price::Model).count();
    match (models, priced.len() - models) {
        (1, 0) => Err((None, Problem::IncompletePrice("the token counts with `\"price\": \"input\"`, `\"output\"` …"))),
        (0, 1..) => Err((None, Problem::IncompletePrice("the model's name with `\"price\": \"model\"`"))),
        _ => Ok(()),
    }
}

impl Role {
    fn suits(self, kind: &Kind) -> bool {
        match self {
            Role::Id | Role::Subject | Role::Session => matches!(kind, Kind::Uuid | Kind::String),
            Role::Time => matches!(kind, Kind::Timestamp(_)),
            Role::Dimension => matches!(kind, Kind::String | Kind::Enum(_)),
            Role::Measure => {
                matches!(kind, Kind::Int | Kind::Long | Kind::Float | Kind::Double | Kind::Decimal { .. })
            }
        }
    }

    fn kinds(self) -> &'static str {
        match self {
            Role::Id | Role::Subject | Role::Session => "string or uuid",
            Role::Time => "timestamp-millis or timestamp-micros",
            Role::Dimension => "string or enum",
            Role::Measure => "int, long, float, double or decimal",
        }
    }
}

impl Kind {
    fn logical_type(&self) -> Option<&'static str> {
        match self {
            Kind::Uuid | Kind::Date | Kind::Timestamp(_) | Kind::Decimal { .. } => Some(self.name()),
            _ => None,
        }
    }

    /// What Avro calls it: the logical type where it has one.
    pub fn name(&self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::String => "string",
            Kind::Bytes => "bytes",
            Kind::Enum(_) => "enum",
            Kind::Uuid => "uuid",
            Kind::Date => "date",
            Kind::Timestamp(TimeUnit::Millis) => "timestamp-millis",
            Kind::Timestamp(TimeUnit::Micros) => "timestamp-micros",
            Kind::Decimal { .. } => "decimal",
        }
    }
}

#[cfg(test)]
mod tests;
