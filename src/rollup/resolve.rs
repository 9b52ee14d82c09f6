//! Packs held against event types: every name in a pack becomes a column, or an error that says what to write instead.

mod metrics;

use std::collections::HashMap;

use toml::Spanned;

use super::metric::Metric;
use super::pack::{Pack, PackError, RollupEntry};
use super::price::COST_SCALE;
use super::table::{Dimension, Measure, Number, Rollup};
use crate::config::nearest;
use crate::event::{EventType, Field, Kind, Pii, RESERVED_TABLES, Role};

/// Longest name of a rollup or metric: with `_parts` it must be the name of a file.
const NAME_LENGTH: usize = 100;

/// Most digits of a decimal that can be summed; see [`Number::Decimal`].
const SUMMABLE_DIGITS: u8 = 28;

/// What is wrong with a rollup or metric: the key, and what with it.
type Wrong = (&'static str, String);

/// The same, and where in the file's text.
type Placed = (usize, Wrong);

/// What all packs ask for.
#[derive(Debug, Clone, Default)]
pub struct Resolved {
    /// The rollups of all packs, then the default ones.
    pub rollups: Vec<Rollup>,
    /// The metrics of all packs.
    pub metrics: Vec<Metric>,
}

/// The rollups of all packs, then one for each event type that has none: `{type}_1m`, by its dimensions, sums of its
/// measures (and of its cost), distributions of the measures in ms. And the metrics over them.
///
/// # Errors
/// Everything that is wrong in all packs, each with file, line, name, key and remedy. Metrics are judged only once all
/// rollups are right.
pub fn resolve(packs: &[Pack], types: &[EventType]) -> Result<Resolved, Vec<PackError>> {
    let (mut rollups, mut errors) = (Vec::new(), Vec::new());
    let mut names = Names::new(types);
    for (pack, entry) in packs.iter().flat_map(|pack| pack.rollups.iter().map(move |entry| (pack, entry))) {
        let event = entry.event.get_ref();
        let name = entry.name.as_ref().map_or_else(|| default_name(event), |name| name.get_ref().clone());
        let at = entry.name.as_ref().map_or(entry.event.span().start, |name| name.span().start);
        let version = entry.version.as_ref().map_or(1, |version| *version.get_ref());
        let owner = format!("a rollup's ({}:{})", pack.file, pack.line(at));
        let mut wrong: Vec<Placed> = Vec::new();
        match rollup(entry, &name, version, types) {
            Ok(rollup) => {
                wrong.extend(names.claim_rollup(&rollup, &owner).into_iter().map(|wrong| (at, wrong)));
                rollups.push(rollup);
            }
            Err(more) => {
                wrong.extend(names.claim(&name, &owner).into_iter().map(|wrong| (at, wrong)));
                wrong.extend(more);
            }
        }
        errors.extend(wrong.into_iter().map(|wrong| error(pack, "rollup", &name, wrong)));
    }
    let asked: Vec<&str> =
        packs.iter().flat_map(|pack| pack.rollups.iter().map(|entry| entry.event.get_ref().as_str())).collect();
    for (position, event) in types.iter().enumerate().filter(|(_, event)| !asked.contains(&event.name.as_str())) {
        let wrong = match default_rollup(position, event) {
            Ok(rollup) => {
                let wrong = names.claim_rollup(&rollup, "a default rollup's");
                rollups.push(rollup);
                wrong
            }
            Err(wrong) => wrong,
        };
        let event = &event.name;
        errors.extend(wrong.into_iter().map(|(key, what)| PackError::Default { event: event.clone(), key, what }));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let metrics = metrics::resolve(packs, types, &rollups, &mut names)?;
    Ok(Resolved { rollups, metrics })
}

fn error(pack: &Pack, kind: &'static str, name: &str, (at, (key, what)): Placed) -> PackError {
    PackError::Entry { file: pack.file.clone(), line: pack.line(at), kind, name: name.to_owned(), key, what }
}

pub(super) fn default_name(event: &str) -> String {
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

    /// Takes the name of a view or table.
    fn claim(&mut self, name: &str, owner: &str) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !letters || !name.starts_with(|first: char| first.is_ascii_alphabetic()) || name.len() > NAME_LENGTH {
            let rule = format!("at most {NAME_LENGTH} letters, digits and _, the first a letter");
            wrong.push(("name", format!("{name:?} can't be a view's name; use {rule}")));
        }
        wrong.extend(self.take(name.to_owned(), owner));
        wrong
    }

    /// Takes the names of a rollup's views and tables, those of its earlier versions included.
    fn claim_rollup(&mut self, rollup: &Rollup, owner: &str) -> Vec<Wrong> {
        let mut wrong = self.claim(&rollup.name, owner);
        wrong.extend(self.take(rollup.table(), owner));
        let formers = rollup.formers().into_iter().flat_map(|(view, table)| [view, table]);
        wrong.extend(formers.filter_map(|name| self.take(name, owner)));
        wrong
    }

    fn take(&mut self, name: String, owner: &str) -> Option<Wrong> {
        if let Some(taken) = self.taken.get(&name) {
            return Some(("name", format!("{name} is {taken} already; choose another name")));
        }
        self.taken.insert(name, owner.to_owned());
        None
    }
}

/// Most versions that a rollup may have had.
const VERSIONS: u32 = 1_000;

fn rollup(entry: &RollupEntry, name: &str, version: u32, types: &[EventType]) -> Result<Rollup, Vec<Placed>> {
    let event = entry.event.get_ref();
    let Some(position) = types.iter().position(|known| known.name == *event) else {
        let known: Vec<&str> = types.iter().map(|event| event.name.as_str()).collect();
        let known = one_of(event, &known, "there is none yet: add its schema");
        return Err(vec![(entry.event.span().start, ("event", format!("there is no event type {event:?}; {known}")))]);
    };
    let event = &types[position];
    let start = entry.event.span().start;
    let mut wrong: Vec<Placed> = Vec::new();
    let mut keep = |at: usize, result: Result<(), Wrong>| wrong.extend(result.err().map(|wrong| (at, wrong)));

    if let Some(given) = entry.version.as_ref().filter(|given| !(1..=VERSIONS).contains(given.get_ref())) {
        let rule = format!("it is 1 at first and counts up to {VERSIONS}");
        keep(given.span().start, Err(("version", format!("it can't be {}; {rule}", given.get_ref()))));
    }
    let mut by = Vec::new();
    if entry.by.is_empty() {
        let known = one_of("", &dimensions(event), "it has none: give a field the role dimension");
        keep(start, Err(("by", format!("it is empty; {known}"))));
    }
    for (at, given) in entry.by.iter().enumerate() {
        let found = once("by", &entry.by[..at], given).and_then(|()| dimension(event, given.get_ref()));
        keep(given.span().start, found.map(|found| by.push(found)));
    }
    let mut measures: Vec<Measure> = Vec::new();
    for (at, given) in entry.sum.iter().enumerate() {
        let found = once("sum", &entry.sum[..at], given).and_then(|()| measure("sum", event, given.get_ref()));
        keep(given.span().start, found.map(|found| measures.push(Measure { sum: true, ..found })));
    }
    for (at, given) in entry.distribution.iter().enumerate() {
        let found = once("distribution", &entry.distribution[..at], given)
            .and_then(|()| measure("distribution", event, given.get_ref()));
        let found = found.map(|found| match measures.iter_mut().find(|known| known.column == found.column) {
            Some(known) => known.distribution = true,
            None => measures.push(Measure { distribution: true, ..found }),
        });
        keep(given.span().start, found);
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let rollup = Rollup { name: name.to_owned(), version, event: position, by, measures };
    finish(rollup).map_err(|wrong| vec![(start, wrong)])
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
    let rollup = Rollup { name: default_name(&event.name), version: 1, event: position, by, measures };
    finish(rollup).map_err(|wrong| vec![wrong])
}

/// Puts `app` first and sees that no two columns have one name.
fn finish(mut rollup: Rollup) -> Result<Rollup, Wrong> {
    rollup.by.sort_by_key(|dimension| dimension.name != "app");
    let columns = rollup.part_columns();
    let twice = columns.iter().enumerate().find_map(|(at, column)| {
        columns[..at].iter().any(|other| other.def.name == column.def.name).then_some(&column.def.name)
    });
    match twice {
        None => Ok(rollup),
        Some(column) => {
            let what = format!("two columns of its table would be called {column}; rename the field or leave it out");
            Err(("columns", what))
        }
    }
}

fn once(key: &'static str, before: &[Spanned<String>], name: &Spanned<String>) -> Result<(), Wrong> {
    let name = name.get_ref();
    if before.iter().any(|other| other.get_ref() == name) {
        return Err((key, format!("{name} stands there twice; take one away")));
    }
    Ok(())
}

fn dimension(event: &EventType, name: &str) -> Result<Dimension, Wrong> {
    let known = || one_of(name, &dimensions(event), "it has no dimension: give a field the role dimension");
    let Some(column) = event.position(name) else {
        return Err(("by", format!("{} has no field {name:?}; {}", event.name, known())));
    };
    let field = &event.fields[column];
    if !is_dimension(field) {
        let why = match field.role {
            _ if field.pii == Some(Pii::Drop) => "is not for rollups (pii: drop)",
            Some(Role::Subject | Role::Session) => {
                "is no dimension, as each of its values would be a series; to group by it all the same, give a field the role \
                 dimension and let producers send a pseudonym in it, never a name"
            }
            _ => "is no dimension",
        };
        return Err(("by", format!("the field {name} of {} {why}; {}", event.name, known())));
    }
    Ok(Dimension { column, name: name.to_owned(), comment: comment(event, column) })
}

fn measure(key: &'static str, event: &EventType, name: &str) -> Result<Measure, Wrong> {
    let known = || {
        let names: Vec<&str> = numbers(event).into_iter().map(|(_, name)| name).collect();
        one_of(name, &names, "it has no number")
    };
    let columns = event.columns();
    let Some(column) = columns.iter().position(|column| column.name == name) else {
        return Err((key, format!("{} has no field {name:?}; {}", event.name, known())));
    };
    let field = event.fields.get(column);
    if field.is_some_and(|field| field.pii == Some(Pii::Drop)) {
        return Err((key, format!("the field {name} of {} is not for rollups (pii: drop); {}", event.name, known())));
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
    let is_usable = |field: &&Field| field.pii != Some(Pii::Drop) && number(Some(field)).is_some();
    let fields = event.fields.iter().enumerate().filter(|(_, field)| is_usable(field));
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

/// "did you mean a? use one of a, b, c", or what to say where there is none.
pub(crate) fn one_of(meant: &str, names: &[&str], none: &str) -> String {
    if names.is_empty() {
        return none.to_owned();
    }
    let near = nearest(meant, names.iter().copied()).filter(|near| *near != meant);
    let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
    format!("{near}use one of {}", names.join(", "))
}

#[cfg(test)]
mod tests;
