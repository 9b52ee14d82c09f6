//! From a schema's text to an [`EventType`].

use serde_json::Value;

use super::annotation::Annotation;
use super::avro::{Primitive, RecordField, Schema, Shape, Type};
use super::canonical::fingerprint;
use super::error::{Problem, SchemaError};
use super::kind::{Kind, without_null};
use super::schema::{COST_COLUMN, EventType, Field, Price, Role};

/// Tables that are no event type's.
pub const RESERVED_TABLES: [&str; 9] =
    ["ledger", "watermarks", "completeness", "sources", "plans", "dead_letters", "redrives", "alerts", "audits"];

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

/// Most columns, and most nested records, that an event may have.
const MOST_COLUMNS: usize = 1_000;

/// Most records within records.
const DEEPEST: usize = 32;

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
    let schema = Schema::parse(json).map_err(|error| whole(Problem::Avro(error)))?;
    let Some((record, members)) = schema.record() else {
        return Err(whole(Problem::NotARecord(schema.name(&schema.root))));
    };
    let name = record.unqualified().to_owned();
    if RESERVED_TABLES.contains(&name.as_str()) {
        return Err(whole(Problem::ReservedName(name)));
    }
    let mut walk = Walk { schema: &schema, within: vec![&record.name], records: 0, fields: Vec::new() };
    walk.record(members, None)?;
    let fields = walk.fields;
    let [id, time, ..] = required(&fields)?;
    prices(&fields)?;
    let doc = record.doc.clone().unwrap_or_default();
    let fingerprint = fingerprint(&schema);
    let event = EventType { name, doc, fingerprint, fields, id, time, json: json.to_owned(), schema };
    // Only a type that has the cost column can collide with it.
    match event.position(COST_COLUMN) {
        Some(at) if event.is_priced() => Err((Some(event.fields[at].path.clone()), Problem::ReservedColumn)),
        _ => Ok(event),
    }
}

/// The way through a schema, record by record, that gathers the fields with a column.
struct Walk<'a> {
    schema: &'a Schema,
    /// Full names of the records around.
    within: Vec<&'a str>,
    /// Records seen, as often as they stand somewhere.
    records: usize,
    fields: Vec<Field>,
}

impl<'a> Walk<'a> {
    /// The fields of a record; `outer` is the nested record: its path, its column prefix, and whether it may be null.
    fn record(&mut self, members: &'a [RecordField], outer: Option<(&str, &str, bool)>) -> Located<()> {
        for member in members {
            let (path, column) = match outer {
                Some((path, column, _)) => (format!("{path}.{}", member.name), format!("{column}_{}", member.name)),
                None => (member.name.clone(), member.name.clone()),
            };
            let nullable = outer.is_some_and(|(.., nullable)| nullable);
            self.field(member, &path, &column, nullable).map_err(|(field, problem)| (field.or(Some(path)), problem))?;
        }
        Ok(())
    }

    fn field(&mut self, member: &'a RecordField, path: &str, column: &str, nullable: bool) -> Located<()> {
        let here = |problem| (None, problem);
        if column.starts_with('_') {
            return Err(here(Problem::ReservedColumn));
        }
        if member.misplaced_logical_type {
            return Err(here(Problem::MisplacedLogicalType));
        }
        if let Some(ignored) = &member.ignored_logical_type {
            return Err(here(Problem::LogicalType(ignored.clone())));
        }
        let (inner, null) = without_null(&member.avro).map_err(here)?;
        let nullable = nullable || null;
        let annotation = member.highwater.as_ref().map(Annotation::read).transpose().map_err(here)?;
        if let Some((name, members)) = self.nested(inner) {
            if annotation.is_some() {
                return Err(here(Problem::AnnotatedRecord));
            }
            if self.within.contains(&name) {
                return Err(here(Problem::Recursive(name.to_owned())));
            }
            if self.within.len() >= DEEPEST {
                return Err(here(Problem::TooLarge("32 records within each other")));
            }
            self.records += 1;
            if self.records > MOST_COLUMNS {
                return Err(here(Problem::TooLarge("1,000 records")));
            }
            self.within.push(name);
            self.record(members, Some((path, column, nullable)))?;
            self.within.pop();
            return Ok(());
        }
        // What is always null takes no bytes and says nothing.
        if annotation.is_none() && matches!(inner, Type::Primitive(Primitive::Null, _)) {
            return Ok(());
        }
        let kind = Kind::of(inner, self.schema).map_err(here)?;
        let annotation = annotation.unwrap_or_default();
        judge(column, &kind, nullable, &annotation).map_err(here)?;
        if let Some(other) = self.fields.iter().find(|field| field.name == column) {
            return Err(here(Problem::Clash { column: column.to_owned(), other: other.path.clone() }));
        }
        if self.fields.len() >= MOST_COLUMNS {
            return Err(here(Problem::TooLarge("1,000 columns")));
        }
        let Annotation { role, unit, pii, price, examples, range, otel } = annotation;
        let (name, path, doc) = (column.to_owned(), path.to_owned(), member.doc.clone().unwrap_or_default());
        self.fields.push(Field { name, path, doc, kind, nullable, role, unit, pii, price, examples, range, otel });
        Ok(())
    }

    fn nested(&self, avro: &'a Type) -> Option<(&'a str, &'a [RecordField])> {
        let Type::Named(name) = avro else { return None };
        match &self.schema.definition(name)?.of {
            Shape::Record(members) => Some((name, members)),
            _ => None,
        }
    }
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
            return Err((Some(second.path.clone()), Problem::SecondRole { role: role.name(), owner: name }));
        }
    }
    Ok(positions)
}

/// Each price annotation stands once, and a model comes with tokens.
fn prices(fields: &[Field]) -> Located<()> {
    let priced: Vec<(&Field, Price)> = fields.iter().filter_map(|field| Some((field, field.price?))).collect();
    for (at, (field, price)) in priced.iter().enumerate() {
        if let Some((other, _)) = priced.iter().take(at).find(|(_, other)| other == price) {
            let problem = Problem::SecondPrice { price: price.name(), other: other.path.clone() };
            return Err((Some(field.path.clone()), problem));
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
            Role::Time => "timestamp-millis, timestamp-micros or timestamp-nanos",
            Role::Dimension => "string or enum",
            Role::Measure => "int, long, float, double or decimal",
        }
    }
}

#[cfg(test)]
mod tests;
