//! A writer's schema for a reader's: what years of changes leave behind.

use std::collections::BTreeMap;

use crate::model::{Field, Generator, Name, Ty};

/// What was drawn already, by the reader's name: one name has one definition.
pub type Drawn = BTreeMap<String, (Ty, Ty)>;

/// Draws the writer's type for a reader's; the reader's may change too (aliases, a plain type for a logical one).
pub fn writer(reader: &mut Ty, from: &mut Generator<'_, '_>, drawn: &mut Drawn) -> Ty {
    if from.entropy.often(4) {
        return from.anything(1);
    }
    if let Ty::Union(branches) = reader {
        let mut written: Vec<Ty> = branches.iter_mut().map(|branch| writer(branch, from, drawn)).collect();
        return match from.entropy.below(12) {
            0..=7 => union(written),
            8 => {
                written.reverse();
                union(written)
            }
            9 => written.pop().unwrap_or(Ty::Plain("null")),
            10 => written.swap_remove(0),
            _ => {
                written.push(from.scalar());
                union(written)
            }
        };
    }
    let name = match reader {
        Ty::Record { name, .. } | Ty::Enum { name, .. } | Ty::Fixed { name, .. } => Some(name.own.clone()),
        Ty::Decimal { name: Some(name), .. } => Some(name.own.clone()),
        _ => None,
    };
    if let Some((known, written)) = name.as_ref().and_then(|name| drawn.get(name)) {
        *reader = known.clone();
        return written.clone();
    }
    let written = same_kind(reader, from, drawn);
    if let Some(name) = name {
        drawn.insert(name, (reader.clone(), written.clone()));
    }
    match from.entropy.below(16) {
        14 => union(vec![written]),
        15 => union(vec![Ty::Plain("null"), written]),
        _ => written,
    }
}

/// A union without what Avro forbids in one: a union, or two of a kind.
fn union(branches: Vec<Ty>) -> Ty {
    let kind = |ty: &Ty| match ty {
        Ty::Plain(base) | Ty::Logical { base, .. } => (*base).to_owned(),
        Ty::Decimal { name: None, .. } => "bytes".to_owned(),
        Ty::Array(_) => "array".to_owned(),
        Ty::Map(_) => "map".to_owned(),
        Ty::Decimal { name: Some(name), .. }
        | Ty::Fixed { name, .. }
        | Ty::Enum { name, .. }
        | Ty::Record { name, .. } => name.own.clone(),
        Ty::Union(_) | Ty::Within(_) => String::new(),
    };
    let mut flat: Vec<Ty> = Vec::new();
    for branch in branches {
        let parts = if let Ty::Union(parts) = branch { parts } else { vec![branch] };
        for part in parts {
            if flat.iter().all(|other| kind(other) != kind(&part)) {
                flat.push(part);
            }
        }
    }
    Ty::Union(flat)
}

fn same_kind(reader: &mut Ty, from: &mut Generator<'_, '_>, drawn: &mut Drawn) -> Ty {
    let changes = from.entropy.often(100);
    match reader {
        Ty::Plain(base) if changes => match *base {
            "long" => Ty::Plain(from.entropy.pick(&["int", "long"])),
            "float" => Ty::Plain(from.entropy.pick(&["int", "long", "float"])),
            "double" => Ty::Plain(from.entropy.pick(&["int", "long", "float"])),
            "string" => Ty::Plain("bytes"),
            "bytes" => Ty::Plain("string"),
            other => Ty::Plain(other),
        },
        Ty::Logical { base, logical, .. } if changes => {
            let (base, logical) = (*base, *logical);
            let (other_base, other) = from.entropy.pick(&crate::model::LOGICAL);
            match from.entropy.below(8) {
                // The reader dropped the logical type; the library is shown what is left.
                0..=2 if logical != "uuid" => {
                    *reader = Ty::Plain(base);
                    Ty::Logical { base, logical }
                }
                3 | 4 if base == "long" => Ty::Plain("int"),
                5 => Ty::Logical { base: other_base, logical: other },
                _ => Ty::Plain(base),
            }
        }
        Ty::Decimal { name, size, precision, scale } if changes => {
            let scale = *scale + from.entropy.below(2);
            Ty::Decimal { name: name.clone(), size: *size, precision: (*precision).max(scale), scale }
        }
        Ty::Enum { name, symbols, default } if changes => {
            let mut written = symbols.clone();
            written.rotate_left(from.entropy.below(2).min(symbols.len()));
            if from.entropy.often(128) {
                written.insert(0, "NEW".to_owned());
            }
            if from.entropy.often(128) && written.len() > 1 {
                written.pop();
            }
            let default = default.clone().filter(|default| written.contains(default));
            Ty::Enum { name: renamed(name, from), symbols: written, default }
        }
        Ty::Fixed { name, size, uuid } => {
            let written = if changes && !*uuid && from.entropy.often(40) { *size + 1 } else { *size };
            Ty::Fixed { name: renamed(name, from), size: written, uuid: *uuid }
        }
        Ty::Array(items) => Ty::Array(Box::new(writer(items, from, drawn))),
        Ty::Map(values) => Ty::Map(Box::new(writer(values, from, drawn))),
        Ty::Record { name, fields } => {
            let name = if name.own == "e" { name.clone() } else { renamed(name, from) };
            Ty::Record { name, fields: record(fields, from, drawn) }
        }
        other => other.clone(),
    }
}

fn record(fields: &mut [Field], from: &mut Generator<'_, '_>, drawn: &mut Drawn) -> Vec<Field> {
    let mut written = Vec::new();
    for field in fields {
        if field.default.is_some() && from.entropy.often(50) || from.entropy.often(2) {
            continue;
        }
        let own = matches!(field.role, Some("id" | "time"));
        let avro = match own {
            true if from.entropy.often(40) => writer(&mut field.avro.clone(), from, drawn),
            true => field.avro.clone(),
            false => writer(&mut field.avro, from, drawn),
        };
        let name = renamed(&mut field.name, from);
        written.push(Field { name, avro, default: None, role: field.role });
        if from.entropy.often(20) {
            let (name, avro) = (from.name('x'), from.anything(2));
            written.push(Field { name, avro, default: None, role: None });
        }
    }
    if from.entropy.often(60) && !written.is_empty() {
        let by = from.entropy.below(written.len());
        written.rotate_left(by);
    }
    written
}

/// The same name, or an older one that becomes an alias of the reader's.
fn renamed(reader: &mut Name, from: &mut Generator<'_, '_>) -> Name {
    if !from.entropy.often(16) {
        return Name { aliases: Vec::new(), ..reader.clone() };
    }
    let old = format!("old_{}", reader.own);
    reader.aliases.push(old.clone());
    Name { own: old, library: reader.own.clone(), aliases: Vec::new() }
}
