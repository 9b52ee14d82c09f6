//! The `highwater` annotation of a field.

use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::error::Problem;
use super::schema::{Pii, Price, Role};

/// A field's annotation, read; whether it suits its field is judged elsewhere.
#[derive(Debug, Default)]
pub(super) struct Annotation {
    pub(super) role: Option<Role>,
    pub(super) unit: Option<String>,
    pub(super) pii: Option<Pii>,
    pub(super) price: Option<Price>,
    pub(super) examples: Vec<String>,
    pub(super) range: Option<[f64; 2]>,
    pub(super) otel: Option<String>,
}

/// The members of a JSON object as they stand, doubles included; or any other JSON.
#[derive(Debug, Clone)]
pub(crate) enum Members {
    Object(Vec<(String, Value)>),
    Other,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members::Object(members))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Members, A::Error> {
                while seq.next_element::<serde::de::IgnoredAny>()?.is_some() {}
                Ok(Members::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<Members, E> {
                Ok(Members::Other)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Members, E> {
                Ok(Members::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Members, E> {
                Ok(Members::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Members, E> {
                Ok(Members::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Members, E> {
                Ok(Members::Other)
            }
            fn visit_unit<E>(self) -> Result<Members, E> {
                Ok(Members::Other)
            }
        }
        deserializer.deserialize_any(MembersVisitor)
    }
}

impl Annotation {
    /// Reads it; a field without one has none of it.
    pub(super) fn read(members: &Members) -> Result<Annotation, Problem> {
        let Members::Object(members) = members else { return Err(Problem::NotAnObject) };
        let mut annotation = Annotation::default();
        for (at, (key, value)) in members.iter().enumerate() {
            if members.iter().take(at).any(|(other, _)| other == key) {
                return Err(Problem::DuplicateKey(key.clone()));
            }
            annotation.set(key, value)?;
        }
        Ok(annotation)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), Problem> {
        let allowed = match key {
            "role" => {
                self.role = value.as_str().and_then(Role::from_name);
                if self.role.is_some() { None } else { Some(Role::NAMES) }
            }
            "pii" => {
                self.pii = value.as_str().and_then(Pii::from_name);
                if self.pii.is_some() { None } else { Some(Pii::NAMES) }
            }
            "price" => {
                self.price = value.as_str().and_then(Price::from_name);
                if self.price.is_some() { None } else { Some(Price::NAMES) }
            }
            "unit" => {
                self.unit = text(value);
                if self.unit.is_some() { None } else { Some("a unit such as \"ms\", \"tokens\", \"USD\" or \"bytes\"") }
            }
            "otel" => {
                self.otel = text(value);
                if self.otel.is_some() { None } else { Some("the name of an OpenTelemetry attribute") }
            }
            "examples" => match examples(value) {
                Some(examples) => {
                    self.examples = examples;
                    None
                }
                None => Some("a list of at least one string"),
            },
            "range" => {
                self.range = range(value);
                if self.range.is_some() { None } else { Some("two numbers, the lesser first") }
            }
            unknown => return Err(Problem::UnknownKey(unknown.to_owned())),
        };
        match allowed {
            None => Ok(()),
            Some(allowed) => Err(Problem::Value { key: key.to_owned(), value: value.to_string(), allowed }),
        }
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.trim().is_empty()).map(str::to_owned)
}

/// A list of values, or an object of values and how often each comes relative to the others (1 to 1,000).
fn examples(value: &Value) -> Option<Vec<String>> {
    let repeated = |(value, weight): (&String, &Value)| {
        let weight = weight.as_u64().filter(|weight| (1..=1_000).contains(weight))?;
        Some(vec![value.clone(); weight as usize])
    };
    let values: Option<Vec<String>> = match value {
        Value::Array(values) => values.iter().map(|value| value.as_str().map(str::to_owned)).collect(),
        Value::Object(weights) => {
            weights.iter().map(repeated).collect::<Option<Vec<_>>>().map(|values| values.concat())
        }
        _ => None,
    };
    values.filter(|values| !values.is_empty())
}

fn range(value: &Value) -> Option<[f64; 2]> {
    let [low, high] = value.as_array()?.as_slice() else { return None };
    let (low, high) = (low.as_f64()?, high.as_f64()?);
    (low.is_finite() && high.is_finite() && low <= high).then_some([low, high])
}

impl Role {
    const NAMES: &str = "one of id, time, subject, session, dimension and measure";

    fn from_name(name: &str) -> Option<Role> {
        [Role::Id, Role::Time, Role::Subject, Role::Session, Role::Dimension, Role::Measure]
            .into_iter()
            .find(|role| role.name() == name)
    }

    /// As a schema writes it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Id => "id",
            Role::Time => "time",
            Role::Subject => "subject",
            Role::Session => "session",
            Role::Dimension => "dimension",
            Role::Measure => "measure",
        }
    }
}

impl Pii {
    const NAMES: &str = "pseudonymize or drop";

    fn from_name(name: &str) -> Option<Pii> {
        [Pii::Pseudonymize, Pii::Drop].into_iter().find(|pii| pii.name() == name)
    }

    /// As a schema writes it.
    pub fn name(self) -> &'static str {
        match self {
            Pii::Pseudonymize => "pseudonymize",
            Pii::Drop => "drop",
        }
    }
}

impl Price {
    const NAMES: &str = "one of model, input, output, cache_read and cache_write";

    fn from_name(name: &str) -> Option<Price> {
        [Price::Model, Price::Input, Price::Output, Price::CacheRead, Price::CacheWrite]
            .into_iter()
            .find(|price| price.name() == name)
    }

    /// As a schema writes it.
    pub fn name(self) -> &'static str {
        match self {
            Price::Model => "model",
            Price::Input => "input",
            Price::Output => "output",
            Price::CacheRead => "cache_read",
            Price::CacheWrite => "cache_write",
        }
    }
}
