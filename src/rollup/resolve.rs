//! Packs held against event types: every name in a pack becomes a column, or an error that says what to write instead.

use std::collections::HashMap;

use super::pack::{Pack, PackError, RollupEntry};
use super::price::COST_SCALE;
use super::table::{Dimension, Measure, Number, Rollup};
use crate::event::{EventType, Field, Kind, Pii, RESERVED_TABLES, Role};

/// Longest name of a rollup: with `_parts` it must be the name of a file.
const NAME_LENGTH: usize = 100;

/// Most digits of a decimal that can be summed; see [`Number::Decimal`].
const SUMMABLE_DIGITS: u8 = 28;

/// What is wrong with a rollup: the key, and what with it.
type Wrong = (&'static str, String);

/// The rollups of all packs, then one for each event type that has none: `{type}_1m`, by its dimensions, sums of its
/// measures (and of its cost), distributions of the measures in ms.
///
/// # Errors
/// Everything that is wrong in all packs, each with file, rollup, key and remedy.
pub fn resolve(packs: &[Pack], types: &[EventType]) -> Result<Vec<Rollup>, Vec<PackError>> {
    let (mut rollups, mut errors) = (Vec::new(), Vec::new());
    let mut names = Names::new(types);
    for (pack, entry) in packs.iter().flat_map(|pack| pack.rollups.iter().map(move |entry| (pack, entry))) {
        let name = entry.name.clone().unwrap_or_else(|| default_name(&entry.event));
        let mut wrong = names.claim(&name, &pack.file);
        match rollup(entry, &name, types) {
            Ok(rollup) => rollups.push(rollup),
            Err(more) => wrong.extend(more),
        }
        errors.extend(wrong.into_iter().map(|(key, what)| PackError::Rollup {
            file: pack.file.clone(),
            rollup: name.clone(),
            key,
            what,
        }));
    }
    let asked: Vec<&str> =
        packs.iter().flat_map(|pack| pack.rollups.iter().map(|entry| entry.event.as_str())).collect();
    for (position, event) in types.iter().enumerate().filter(|(_, event)| !asked.contains(&event.name.as_str())) {
        let mut wrong = names.claim(&default_name(&event.name), "a default");
        match default_rollup(position, event) {
            Ok(rollup) => rollups.push(rollup),
            Err(more) => wrong.extend(more),
        }
        let event = &event.name;
        errors.extend(wrong.into_iter().map(|(key, what)| PackError::Default { event: event.clone(), key, what }));
    }
    if errors.is_empty() { Ok(rollups) } else { Err(errors) }
}

fn default_name(event: &str) -> String {
    format!("{event}_1m")
}

/// Names of tables and views, and whose they are.
struct Names {
    taken: HashMap<String, String>,
}

impl Names {
    fn new(types: &[EventType]) -> Names {
        let own = RESERVED_TABLES.iter().map(|name| ((*name).to_owned(), "a table of highwater's own".to_owned()));
        let events = types.iter().map(|event| (event.name.clone(), "the table of an event type".to_owned()));
        Names { taken: own.chain(events).collect() }
    }

    /// Takes the names of a rollup's view and table.
    fn claim(&mut self, name: &str, file: &str) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !letters || !name.starts_with(|first: char| first.is_ascii_alphabetic()) || name.len() > NAME_LENGTH {
            let rule = format!("at most {NAME_LENGTH} letters, digits and _, the first a letter");
            wrong.push(("name", format!("{name:?} can't be a view's name; use {rule}")));
        }
        for name in [name.to_owned(), format!("{name}_parts")] {
            if let Some(owner) = self.taken.get(&name) {
                wrong.push(("name", format!("{name} is {owner} already; give this rollup another name")));
            } else {
                self.taken.insert(name, format!("a rollup's (of {file})"));
            }
        }
        wrong
    }
}

fn rollup(entry: &RollupEntry, name: &str, types: &[EventType]) -> Result<Rollup, Vec<Wrong>> {
    let Some(position) = types.iter().position(|event| event.name == entry.event) else {
        let known: Vec<&str> = types.iter().map(|event| event.name.as_str()).collect();
        let known = one_of(&known, "there is none yet: add its schema");
        return Err(vec![("event", format!("there is no event type {:?}; {known}", entry.event))]);
    };
    let event = &types[position];
    let mut wrong = Vec::new();
    let mut keep = |result: Result<(), Wrong>| wrong.extend(result.err());

    let mut by = Vec::new();
    if entry.by.is_empty() {
        let known = one_of(&dimensions(event), "it has none: give a field the role dimension");
        keep(Err(("by", format!("it is empty; {known}"))));
    }
    for (at, name) in entry.by.iter().enumerate() {
        keep(once("by", &entry.by[..at], name).and_then(|()| dimension(event, name).map(|found| by.push(found))));
    }
    let mut measures: Vec<Measure> = Vec::new();
    for (at, name) in entry.sum.iter().enumerate() {
        let found = once("sum", &entry.sum[..at], name).and_then(|()| measure("sum", event, name));
        keep(found.map(|found| measures.push(Measure { sum: true, ..found })));
    }
    for (at, name) in entry.distribution.iter().enumerate() {
        let found =
            once("distribution", &entry.distribution[..at], name).and_then(|()| measure("distribution", event, name));
        keep(found.map(|found| match measures.iter_mut().find(|known| known.column == found.column) {
            Some(known) => known.distribution = true,
            None => measures.push(Measure { distribution: true, ..found }),
        }));
    }
    if wrong.is_empty() { finish(name, position, by, measures) } else { Err(wrong) }
}

fn default_rollup(position: usize, event: &EventType) -> Result<Rollup, Vec<Wrong>> {
    let by = dimensions(event).into_iter().map(|name| dimension(event, name)).collect::<Result<_, _>>();
    let is_measure = |column: usize| event.fields.get(column).is_none_or(|field| field.role == Some(Role::Measure));
    let measures = numbers(event).into_iter().filter(|(column, _)| is_measure(*column)).map(|(column, name)| {
        let unit = event.fields.get(column).and_then(|field| field.unit.as_deref());
        measure("sum", event, name).map(|found| Measure { sum: true, distribution: unit == Some("ms"), ..found })
    });
    let (by, measures) =
        by.and_then(|by| Ok((by, measures.collect::<Result<_, Wrong>>()?))).map_err(|wrong| vec![wrong])?;
    finish(&default_name(&event.name), position, by, measures)
}

/// Puts `app` first and sees that no two columns have one name.
fn finish(name: &str, event: usize, mut by: Vec<Dimension>, measures: Vec<Measure>) -> Result<Rollup, Vec<Wrong>> {
    by.sort_by_key(|dimension| dimension.name != "app");
    let rollup = Rollup { name: name.to_owned(), event, by, measures };
    let columns = rollup.part_columns();
    let twice = columns.iter().enumerate().find_map(|(at, column)| {
        columns[..at].iter().any(|other| other.def.name == column.def.name).then_some(&column.def.name)
    });
    match twice {
        None => Ok(rollup),
        Some(column) => {
            let what = format!("two columns of its table would be called {column}; rename the field or leave it out");
            Err(vec![("columns", what)])
        }
    }
}

fn once(key: &'static str, before: &[String], name: &String) -> Result<(), Wrong> {
    if before.contains(name) {
        return Err((key, format!("{name} stands there twice; take one away")));
    }
    Ok(())
}

fn dimension(event: &EventType, name: &str) -> Result<Dimension, Wrong> {
    let known = || one_of(&dimensions(event), "it has no dimension: give a field the role dimension");
    let Some(column) = event.position(name) else {
        return Err(("by", format!("{} has no field {name:?}; {}", event.name, known())));
    };
    let field = &event.fields[column];
    if !is_dimension(field) {
        let why = if field.pii == Some(Pii::Drop) { "is never stored (pii: drop)" } else { "is no dimension" };
        return Err(("by", format!("the field {name} of {} {why}; {}", event.name, known())));
    }
    Ok(Dimension { column, name: name.to_owned(), comment: comment(event, column) })
}

fn measure(key: &'static str, event: &EventType, name: &str) -> Result<Measure, Wrong> {
    let known = || {
        let names: Vec<&str> = numbers(event).into_iter().map(|(_, name)| name).collect();
        one_of(&names, "it has no number")
    };
    let columns = event.columns();
    let Some(column) = columns.iter().position(|column| column.name == name) else {
        return Err((key, format!("{} has no field {name:?}; {}", event.name, known())));
    };
    let field = event.fields.get(column);
    if field.is_some_and(|field| field.pii == Some(Pii::Drop)) {
        return Err((key, format!("the field {name} of {} is never stored (pii: drop); {}", event.name, known())));
    }
    let Some(number) = number(field) else {
        return Err((key, format!("the field {name} of {} is no number; {}", event.name, known())));
    };
    if let Some(Kind::Decimal { precision, .. }) = field.map(|field| &field.kind)
        && key == "sum"
        && *precision > SUMMABLE_DIGITS
    {
        let room = format!("declare a precision of at most {SUMMABLE_DIGITS}, so that sums fit in 38 digits");
        return Err((key, format!("the field {name} of {} has {precision} digits; {room}", event.name)));
    }
    let comment = comment(event, column);
    Ok(Measure { column, name: name.to_owned(), comment, number, sum: false, distribution: false })
}

fn comment(event: &EventType, column: usize) -> String {
    event.columns().swap_remove(column).comment
}

fn is_dimension(field: &Field) -> bool {
    field.role == Some(Role::Dimension) && field.pii != Some(Pii::Drop)
}

fn dimensions(event: &EventType) -> Vec<&str> {
    event.fields.iter().filter(|field| is_dimension(field)).map(|field| field.name.as_str()).collect()
}

/// Position and name of the columns that hold numbers.
fn numbers(event: &EventType) -> Vec<(usize, &str)> {
    let stored = |field: &&Field| field.pii != Some(Pii::Drop) && number(Some(field)).is_some();
    let fields = event.fields.iter().enumerate().filter(|(_, field)| stored(field));
    let mut numbers: Vec<(usize, &str)> = fields.map(|(column, field)| (column, field.name.as_str())).collect();
    if event.is_priced() {
        numbers.push((event.fields.len(), crate::event::COST_COLUMN));
    }
    numbers
}

/// What a field's values are as numbers; no field is the cost.
fn number(field: Option<&Field>) -> Option<Number> {
    match field.map(|field| &field.kind) {
        None => Some(Number::Decimal { scale: COST_SCALE }),
        Some(Kind::Int | Kind::Long) => Some(Number::Integer),
        Some(Kind::Float | Kind::Double) => Some(Number::Float),
        Some(Kind::Decimal { scale, .. }) => Some(Number::Decimal { scale: *scale }),
        Some(_) => None,
    }
}

/// "use one of a, b, c", or what to say where there is none.
fn one_of(names: &[&str], none: &str) -> String {
    if names.is_empty() { none.to_owned() } else { format!("use one of {}", names.join(", ")) }
}

#[cfg(test)]
mod tests;
