//! Schemas: a model of them, their JSON, and their generation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::entropy::Entropy;

/// An Avro type.
#[derive(Debug, Clone, PartialEq)]
pub enum Ty {
    Plain(&'static str),
    Logical {
        base: &'static str,
        logical: &'static str,
    },
    Decimal {
        name: Option<Name>,
        size: usize,
        precision: usize,
        scale: usize,
    },
    Fixed {
        name: Name,
        size: usize,
        uuid: bool,
    },
    Enum {
        name: Name,
        symbols: Vec<String>,
        default: Option<String>,
    },
    Array(Box<Ty>),
    Map(Box<Ty>),
    Union(Vec<Ty>),
    Record {
        name: Name,
        fields: Vec<Field>,
    },
    /// A record around, by its name.
    Within(String),
}

/// Whom a schema is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Ours,
    /// The library: with the reader's names.
    Theirs,
    /// The library, without logical types: it does not read one of the writer's as what it stands on.
    Bare,
}

impl Form {
    fn is_theirs(self) -> bool {
        self != Form::Ours
    }
}

/// The name of a type or a field: ours, and, where ours is an alias of the reader's, the reader's. The library knows no
/// aliases when it reads, so it gets the writer's schema as the specification says: rewritten by the reader's aliases.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    pub own: String,
    pub library: String,
    pub aliases: Vec<String>,
}

impl Name {
    pub fn new(own: String) -> Name {
        Name { library: own.clone(), own, aliases: Vec::new() }
    }

    fn write(&self, key: &str, form: Form, out: &mut Value) {
        out[key] = json!(if form.is_theirs() { &self.library } else { &self.own });
        if !self.aliases.is_empty() && !form.is_theirs() {
            out["aliases"] = json!(self.aliases);
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    pub name: Name,
    pub avro: Ty,
    pub default: Option<Value>,
    pub role: Option<&'static str>,
}

pub const LOGICAL: [(&str, &str); 10] = [
    ("string", "uuid"),
    ("int", "date"),
    ("int", "time-millis"),
    ("long", "time-micros"),
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "timestamp-nanos"),
    ("long", "local-timestamp-millis"),
    ("long", "local-timestamp-micros"),
    ("long", "local-timestamp-nanos"),
];

pub const PLAIN: [&str; 7] = ["int", "long", "float", "double", "bytes", "string", "boolean"];

impl Ty {
    /// Its JSON; a name that was seen before stands for itself.
    pub fn json(&self, form: Form, seen: &mut BTreeSet<String>) -> Value {
        let mut named = |name: &Name, kind: &str, logical: Option<&str>| {
            let key = if form.is_theirs() { &name.library } else { &name.own };
            if !seen.insert(key.clone()) {
                return Err(json!(key));
            }
            let mut out = json!({"type": kind});
            name.write("name", form, &mut out);
            if let Some(logical) = logical.filter(|_| form != Form::Bare) {
                out["logicalType"] = json!(logical);
            }
            Ok(out)
        };
        match self {
            Ty::Plain(name) => json!(name),
            Ty::Logical { base, .. } if form == Form::Bare => json!(base),
            Ty::Logical { base, logical } => json!({"type": base, "logicalType": logical}),
            Ty::Decimal { name, size, precision, scale } => {
                let mut out = match name {
                    None if form == Form::Bare => return json!("bytes"),
                    None => json!({"type": "bytes", "logicalType": "decimal"}),
                    Some(name) => match named(name, "fixed", Some("decimal")) {
                        Ok(out) => out,
                        Err(seen) => return seen,
                    },
                };
                if name.is_some() {
                    out["size"] = json!(size);
                }
                if form != Form::Bare {
                    (out["precision"], out["scale"]) = (json!(precision), json!(scale));
                }
                out
            }
            Ty::Fixed { name, size, uuid } => match named(name, "fixed", uuid.then_some("uuid")) {
                Ok(mut out) => {
                    out["size"] = json!(size);
                    out
                }
                Err(seen) => seen,
            },
            Ty::Enum { name, symbols, default } => match named(name, "enum", None) {
                Ok(mut out) => {
                    out["symbols"] = json!(symbols);
                    if let Some(default) = default {
                        out["default"] = json!(default);
                    }
                    out
                }
                Err(seen) => seen,
            },
            Ty::Array(items) => json!({"type": "array", "items": items.json(form, seen)}),
            Ty::Map(values) => json!({"type": "map", "values": values.json(form, seen)}),
            Ty::Union(branches) => branches.iter().map(|branch| branch.json(form, seen)).collect(),
            Ty::Within(name) => json!(name),
            Ty::Record { name, fields } => match named(name, "record", None) {
                Ok(mut out) => {
                    out["fields"] = fields.iter().map(|field| field.json(form, seen)).collect();
                    out
                }
                Err(seen) => seen,
            },
        }
    }

    /// Whether a name stands in it twice, so that the second time it is a reference.
    pub fn refers(&self) -> bool {
        fn names<'t>(avro: &'t Ty, seen: &mut BTreeSet<&'t str>) -> bool {
            let name = match avro {
                Ty::Decimal { name: Some(name), .. }
                | Ty::Fixed { name, .. }
                | Ty::Enum { name, .. }
                | Ty::Record { name, .. } => Some(&name.own),
                _ => None,
            };
            let again = name.is_some_and(|name| !seen.insert(name));
            again
                || match avro {
                    Ty::Array(inner) | Ty::Map(inner) => names(inner, seen),
                    Ty::Union(branches) => branches.iter().any(|branch| names(branch, seen)),
                    Ty::Record { fields, .. } => fields.iter().any(|field| names(&field.avro, seen)),
                    _ => false,
                }
        }
        names(self, &mut BTreeSet::new())
    }

    /// Its JSON as text.
    pub fn text(&self, form: Form) -> String {
        self.json(form, &mut BTreeSet::new()).to_string()
    }
}

impl Field {
    fn json(&self, form: Form, seen: &mut BTreeSet<String>) -> Value {
        let mut out = json!({"type": self.avro.json(form, seen)});
        self.name.write("name", form, &mut out);
        if let Some(default) = &self.default {
            out["default"] = default.clone();
        }
        if let Some(role) = self.role {
            out["highwater"] = json!({"role": role});
        }
        out
    }
}

/// Draws schemas; names are numbered, so that none stands for two types.
#[derive(Debug)]
pub struct Generator<'e, 'b> {
    pub entropy: &'e mut Entropy<'b>,
    pub named: Vec<Ty>,
    pub names: usize,
}

impl<'e, 'b> Generator<'e, 'b> {
    pub fn new(entropy: &'e mut Entropy<'b>) -> Generator<'e, 'b> {
        Generator { entropy, named: Vec::new(), names: 0 }
    }

    pub fn name(&mut self, letter: char) -> Name {
        self.names += 1;
        Name::new(format!("{letter}{}", self.names))
    }

    /// An event type.
    pub fn event(&mut self) -> Ty {
        let id = [Ty::Plain("string"), Ty::Logical { base: "string", logical: "uuid" }];
        let id = self.entropy.pick(&id);
        let times = ["timestamp-millis", "timestamp-micros", "timestamp-nanos"];
        let time = Ty::Logical { base: "long", logical: self.entropy.pick(&times) };
        let own =
            |name: &str, avro, role| Field { name: Name::new(name.into()), avro, default: None, role: Some(role) };
        let mut fields = vec![
            own("event_id", id, "id"),
            own("occurred_at", time, "time"),
            own("app", Ty::Plain("string"), "dimension"),
            own("environment", Ty::Plain("string"), "dimension"),
        ];
        for _ in 0..1 + self.entropy.below(7) {
            let field = self.field(2);
            fields.insert(self.entropy.below(fields.len() + 1), field);
        }
        Ty::Record { name: Name::new("e".into()), fields }
    }

    /// A field of an event, which may be a record of at most so many levels.
    fn field(&mut self, depth: usize) -> Field {
        let (name, avro) = (self.name('f'), self.nullable(depth));
        let is_text = |avro: &Ty| *avro == Ty::Plain("string");
        let text = is_text(&avro) || matches!(&avro, Ty::Union(branches) if branches.iter().any(is_text));
        let role = (text && self.entropy.often(128)).then_some("dimension");
        let default = if self.entropy.often(160) { self.default(&avro) } else { None };
        Field { name, avro, default, role }
    }

    fn nullable(&mut self, depth: usize) -> Ty {
        let inner = self.column(depth);
        let null = Ty::Plain("null");
        match self.entropy.below(8) {
            0..=3 => inner,
            4 | 5 => Ty::Union(vec![null, inner]),
            6 => Ty::Union(vec![inner, null]),
            _ => Ty::Union(vec![inner]),
        }
    }

    fn column(&mut self, depth: usize) -> Ty {
        match self.entropy.below(12) {
            9 => Ty::Array(Box::new(self.item())),
            10 => Ty::Map(Box::new(self.item())),
            11 if depth > 0 => {
                let (name, count) = (self.name('R'), self.entropy.below(4));
                let fields = (0..count).map(|_| self.field(depth - 1)).collect();
                Ty::Record { name, fields }
            }
            _ => self.scalar(),
        }
    }

    fn item(&mut self) -> Ty {
        let inner = self.scalar();
        match self.entropy.below(4) {
            0 | 1 => inner,
            2 => Ty::Union(vec![Ty::Plain("null"), inner]),
            _ => Ty::Union(vec![inner, Ty::Plain("null")]),
        }
    }

    pub fn scalar(&mut self) -> Ty {
        let (precision, scale) = (self.entropy.pick(&[3, 9, 18, 38]), self.entropy.below(3));
        let ty = match self.entropy.below(16) {
            0..=5 => return Ty::Plain(self.entropy.pick(&PLAIN)),
            6..=9 => {
                let (base, logical) = self.entropy.pick(&LOGICAL);
                return Ty::Logical { base, logical };
            }
            10 => return Ty::Decimal { name: None, size: 0, precision, scale },
            11 => Ty::Decimal { name: Some(self.name('D')), size: 16, precision, scale },
            12 => Ty::Fixed { name: self.name('F'), size: 1 + self.entropy.below(20), uuid: false },
            13 => Ty::Fixed { name: self.name('U'), size: 16, uuid: true },
            14 if !self.named.is_empty() => return self.entropy.pick(&self.named.clone()),
            _ => {
                let symbols: Vec<String> = (0..1 + self.entropy.below(4)).map(|at| format!("S{at}")).collect();
                let default = self.entropy.often(80).then(|| symbols[0].clone());
                Ty::Enum { name: self.name('E'), symbols, default }
            }
        };
        self.named.push(ty.clone());
        ty
    }

    /// Any type that a writer may have and no reader keeps.
    pub fn anything(&mut self, depth: usize) -> Ty {
        match self.entropy.below(12) {
            0..=4 => self.scalar(),
            5 => Ty::Plain("null"),
            6 if depth > 0 => Ty::Array(Box::new(self.anything(depth - 1))),
            7 if depth > 0 => Ty::Map(Box::new(self.anything(depth - 1))),
            8 | 9 if depth > 0 => {
                let name = self.name('W');
                let mut fields: Vec<Field> = (0..self.entropy.below(4)).map(|_| self.own_field(depth - 1)).collect();
                if self.entropy.often(60) {
                    let next = Ty::Union(vec![Ty::Plain("null"), Ty::Within(name.own.clone())]);
                    fields.push(Field { name: self.name('f'), avro: next, default: None, role: None });
                }
                Ty::Record { name, fields }
            }
            10 => Ty::Union(vec![Ty::Plain("null"), Ty::Plain("long"), Ty::Plain("string"), self.scalar_with_a_name()]),
            _ => Ty::Plain("double"),
        }
    }

    fn scalar_with_a_name(&mut self) -> Ty {
        Ty::Fixed { name: self.name('F'), size: self.entropy.below(4), uuid: false }
    }

    fn own_field(&mut self, depth: usize) -> Field {
        Field { name: self.name('f'), avro: self.anything(depth), default: None, role: None }
    }

    /// A default as JSON. Bytes are ASCII: the library takes other text for UTF-8.
    fn default(&mut self, avro: &Ty) -> Option<Value> {
        Some(match avro {
            Ty::Plain("null") => Value::Null,
            Ty::Plain("boolean") => json!(self.entropy.often(128)),
            Ty::Plain("int") => json!(self.entropy.integer(i32::MIN.into(), i32::MAX.into())),
            Ty::Plain("long") => json!(self.entropy.integer(i64::MIN, i64::MAX)),
            Ty::Plain("float" | "double") => json!(f64::from(self.entropy.byte()) / 4.0),
            Ty::Plain(_) => json!(self.entropy.pick(&["", "a", "abc"])),
            Ty::Logical { logical: "uuid", .. } => json!("0198c1f2-6a4e-7d10-8f3b-2c5d9e7a1b04"),
            Ty::Logical { .. } => json!(self.entropy.byte()),
            Ty::Decimal { name: None, .. } => json!(format!("{}a", "\u{0}".repeat(16))),
            Ty::Decimal { size, .. } => json!(format!("{}a", "\u{0}".repeat(size - 1))),
            Ty::Fixed { size, .. } => json!("x".repeat(*size)),
            Ty::Enum { symbols, .. } => json!(self.entropy.pick(symbols)),
            Ty::Array(items) => (0..self.entropy.below(3)).map(|_| self.default(items)).collect::<Option<_>>()?,
            Ty::Map(values) => {
                let entry = |at| Some((format!("k{at}"), self.default(values)?));
                (0..2).map(entry).collect::<Option<serde_json::Map<_, _>>>()?.into()
            }
            Ty::Union(branches) => self.default(&branches[0])?,
            Ty::Record { fields, .. } => {
                let member = |field: &Field| Some((field.name.own.clone(), self.default(&field.avro)?));
                fields.iter().map(member).collect::<Option<serde_json::Map<_, _>>>()?.into()
            }
            Ty::Within(_) => return None,
        })
    }
}
