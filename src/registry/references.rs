//! Schemas that refer to others: types with names, registered apart, are put in where they are used first, so that one
//! text says all.
//!
//! Avro has no word for another document: a type is known by its full name, wherever it was defined. So the texts are
//! read as one, with each name's namespace settled in the text that it stands in.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value};

/// Most schemas that one may refer to, others' references included.
pub(super) const MOST: usize = 256;
/// Deepest that types may lie in each other when all are put together; the same as that of one text.
const DEEPEST: usize = 128;

/// Where a schema says that a type is defined.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(super) struct Reference {
    /// The type's full name.
    pub(super) name: String,
    /// What it is registered under.
    pub(super) subject: String,
    /// Which version of it. A negative one is whichever is the latest, which no message can be read by.
    pub(super) version: i64,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Reference { name, subject, version } = self;
        write!(f, "`{name}` (subject {subject}, version {version})")
    }
}

/// Puts the types that `schema` uses into it, from the texts that it refers to.
///
/// # Errors
/// A text is no JSON, or two of them define the same type differently. Types that nobody defines are left as they are:
/// reading the result says so.
pub(super) fn assemble<'a>(
    schema: &str,
    others: impl Iterator<Item = (&'a Reference, &'a str)>,
) -> Result<String, String> {
    let mut documents = Vec::new();
    for (reference, text) in others {
        documents.push((reference, read(text, &format!("the schema {reference} that it refers to"))?));
    }
    let mut defined: BTreeMap<String, Definition<'_>> = BTreeMap::new();
    for (reference, document) in &documents {
        collect(document, reference, &mut defined)?;
    }
    let root = read(schema, "it")?;
    // What it defines itself is not put in, wherever it stands.
    let (mut placed, mut twice) = (BTreeSet::new(), None);
    own_types(&root, "", &mut |name, json, around| {
        if let Some(other) = defined.get(&name).filter(|other| !other.is(json, around)) {
            twice =
                Some(format!("it defines the type {name}, as {} that it refers to does otherwise", other.reference));
        }
        placed.insert(name);
    });
    if let Some(twice) = twice {
        return Err(twice);
    }
    let whole = Assembly { defined, placed }.place(&root, "", 0, false)?;
    serde_json::to_string(&whole).map_err(|error| error.to_string())
}

fn read(text: &str, what: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{what} is not JSON: {error}"))
}

/// A type in one of the texts, and the namespace around it there.
struct Definition<'a> {
    json: &'a Map<String, Value>,
    around: String,
    reference: &'a Reference,
}

impl Definition<'_> {
    fn is(&self, json: &Map<String, Value>, around: &str) -> bool {
        self.json == json && self.around == around
    }
}

struct Assembly<'a> {
    defined: BTreeMap<String, Definition<'a>>,
    /// Types that the result has, or will have.
    placed: BTreeSet<String>,
}

impl<'a> Assembly<'a> {
    /// A type with all types put in that are not there yet. `around` is the namespace that it was written in, and
    /// `foreign` whether it comes out of another text than the schema's own.
    fn place(&mut self, avro: &Value, around: &str, depth: usize, foreign: bool) -> Result<Value, String> {
        if depth > DEEPEST {
            return Err(format!("with the schemas that it refers to, it lies more than {DEEPEST} types deep"));
        }
        Ok(match avro {
            Value::String(name) => match self.missing(name, around) {
                None if foreign => Value::String(absolute(name, around)),
                None => avro.clone(),
                Some(name) => self.put_in(&name, depth)?,
            },
            Value::Array(branches) => {
                let branches = branches.iter().map(|branch| self.place(branch, around, depth + 1, foreign));
                Value::Array(branches.collect::<Result<_, _>>()?)
            }
            Value::Object(members) => self.object(members, around, depth, foreign)?,
            other => other.clone(),
        })
    }

    fn object(
        &mut self,
        members: &Map<String, Value>,
        around: &str,
        depth: usize,
        foreign: bool,
    ) -> Result<Value, String> {
        let Some(name) = full_name(members, around) else {
            return Ok(Value::Object(self.members(members, around, depth, foreign)?));
        };
        if foreign && self.placed.contains(&name) {
            return Ok(Value::String(name));
        }
        let (namespace, unqualified) = name.rsplit_once('.').unwrap_or(("", &name));
        self.placed.insert(name.clone());
        let mut members = self.members(members, namespace, depth, foreign)?;
        if foreign {
            // It may come to stand within another namespace than in its own text.
            members.insert("namespace".to_owned(), namespace.into());
            members.insert("name".to_owned(), unqualified.into());
        }
        Ok(Value::Object(members))
    }

    /// What stands in a type that is no name: the types of fields, items and values; all else as it is.
    fn members(
        &mut self,
        members: &Map<String, Value>,
        around: &str,
        depth: usize,
        foreign: bool,
    ) -> Result<Map<String, Value>, String> {
        let mut out = Map::new();
        for (key, value) in members {
            let value = match (key.as_str(), value) {
                ("type" | "items" | "values", value) => self.place(value, around, depth + 1, foreign)?,
                ("fields", Value::Array(fields)) => {
                    let mut field = |field: &Value| self.field(field, around, depth, foreign);
                    Value::Array(fields.iter().map(&mut field).collect::<Result<_, _>>()?)
                }
                (_, value) => value.clone(),
            };
            out.insert(key.clone(), value);
        }
        Ok(out)
    }

    fn field(&mut self, field: &Value, around: &str, depth: usize, foreign: bool) -> Result<Value, String> {
        let Value::Object(members) = field else { return Ok(field.clone()) };
        let mut out = Map::new();
        for (key, value) in members {
            let value = if key == "type" { self.place(value, around, depth + 1, foreign)? } else { value.clone() };
            out.insert(key.clone(), value);
        }
        Ok(Value::Object(out))
    }

    /// The full name of a type that another text defines and the result does not have yet.
    fn missing(&self, name: &str, around: &str) -> Option<String> {
        let name = absolute(name, around);
        (!self.placed.contains(&name) && self.defined.contains_key(&name)).then_some(name)
    }

    fn put_in(&mut self, name: &str, depth: usize) -> Result<Value, String> {
        let Some(Definition { json, around, .. }) = self.defined.get(name) else {
            return Ok(Value::String(name.to_owned()));
        };
        let (json, around): (&'a Map<String, Value>, String) = (json, around.clone());
        self.object(json, &around, depth + 1, true)
    }
}

/// A name with the namespace around it, where it is not a type of Avro's own and has none.
fn absolute(name: &str, around: &str) -> String {
    const AVROS: [&str; 15] = [
        "null", "boolean", "int", "long", "float", "double", "bytes", "string", "record", "error", "enum", "fixed",
        "array", "map", "union",
    ];
    match name.strip_prefix('.') {
        Some(name) => name.to_owned(),
        None if around.is_empty() || name.contains('.') || AVROS.contains(&name) => name.to_owned(),
        None => format!("{around}.{name}"),
    }
}

/// The full name that a record, an enum or a fixed defines.
fn full_name(members: &Map<String, Value>, around: &str) -> Option<String> {
    let text = |key: &str| members.get(key).and_then(Value::as_str);
    let kind = text("type")?;
    ["record", "error", "enum", "fixed"].contains(&kind).then_some(())?;
    Some(absolute(text("name")?, text("namespace").unwrap_or(around)))
}

/// Takes a type's full name, its definition and the namespace around that.
type Each<'each, 'a> = dyn FnMut(String, &'a Map<String, Value>, &str) + 'each;

/// Goes through all types that are defined within a type, with the namespace around each.
fn own_types<'a>(avro: &'a Value, around: &str, each: &mut Each<'_, 'a>) {
    match avro {
        Value::Array(branches) => branches.iter().for_each(|branch| own_types(branch, around, each)),
        Value::Object(members) => {
            let name = full_name(members, around);
            let within = match &name {
                Some(name) => name.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned(),
                None => around.to_owned(),
            };
            if let Some(name) = name {
                each(name, members, around);
            }
            let fields = members.get("fields").and_then(Value::as_array).into_iter().flatten();
            let inner = ["type", "items", "values"].iter().filter_map(|key| members.get(*key));
            for avro in inner.chain(fields.filter_map(|field| field.get("type"))) {
                own_types(avro, &within, each);
            }
        }
        _ => {}
    }
}

/// Takes in all types that a text defines.
fn collect<'a>(
    document: &'a Value,
    reference: &'a Reference,
    defined: &mut BTreeMap<String, Definition<'a>>,
) -> Result<(), String> {
    let mut twice = None;
    own_types(document, "", &mut |name, json, around| match defined.get(&name) {
        None => {
            defined.insert(name, Definition { json, around: around.to_owned(), reference });
        }
        Some(first) if first.is(json, around) => {}
        Some(first) => {
            let (first, second) = (first.reference, reference);
            twice.get_or_insert_with(|| {
                format!(
                    "it refers to {first} and {second}, which define the type {name} differently; register one of them"
                )
            });
        }
    });
    twice.map_or(Ok(()), Err)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
