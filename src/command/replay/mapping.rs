//! Where each field of the event comes from: a column, a constant, the schema's default, or the line itself.

use csv::ByteRecord;
use uuid::Uuid;

use crate::command::UsageError;
use crate::command::datum::{Datum, defaults, parse};
use crate::config::nearest;
use crate::event::{EventType, Field, Kind};

/// The source of each field, in the schema's order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mapping {
    /// The file's columns.
    pub(super) columns: Vec<String>,
    sources: Vec<Source>,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    /// The column at this position.
    Column(usize),
    /// The same in every event.
    Constant(Datum),
    /// An id made of the file's name and the line.
    Line,
}

impl Mapping {
    /// Resolves `--map COLUMN=FIELD` and `--set FIELD=VALUE` against the file's columns and the event's fields.
    ///
    /// # Errors
    /// Everything that is wrong, at once.
    pub(super) fn new(
        event: &EventType,
        columns: Vec<String>,
        map: &[(String, String)],
        set: &[(String, String)],
    ) -> Result<Mapping, UsageError> {
        let mut problems = Vec::new();
        let mut sources: Vec<Option<Source>> = vec![None; event.fields.len()];
        for (column, field) in map {
            let at = columns.iter().position(|name| name == column);
            if at.is_none() {
                let columns = columns.iter().map(String::as_str);
                problems.push(unknown(&format!("--map {column}={field}"), "column", column, columns));
            }
            if columns.iter().filter(|name| *name == column).count() > 1 {
                problems.push(format!("--map {column}={field}: the file has more than one column of that name"));
            }
            give(event, field, &format!("--map {column}={field}"), &mut sources, &mut problems, |_| {
                at.map(Source::Column).ok_or_else(String::new)
            });
        }
        for (field, value) in set {
            give(event, field, &format!("--set {field}={value}"), &mut sources, &mut problems, |field| {
                let datum = parse(field, value).map_err(|expected| format!("found {value:?}; expected {expected}"))?;
                Ok(Source::Constant(datum))
            });
        }
        let mut resolved = Vec::new();
        for (at, (source, default)) in sources.into_iter().zip(defaults(event)).enumerate() {
            let field = &event.fields[at];
            let constant = matches!(source, Some(Source::Constant(_)));
            match (source, default) {
                (Some(_), _) if constant && at == event.id => {
                    problems.push(format!(
                        "--set {}: one id for all events makes them duplicates of the first",
                        field.name
                    ));
                }
                (Some(_), _) if constant && at == event.time => {
                    problems.push(format!("--set {0}: events need times of their own: --map COLUMN={0}", field.name));
                }
                (Some(source), _) => resolved.push(source),
                (None, _) if at == event.id => resolved.push(Source::Line),
                (None, Some(default)) if at != event.time => resolved.push(Source::Constant(default)),
                // A flag that failed has named the field already.
                (None, _) if map.iter().any(|(_, name)| *name == field.name) => {}
                (None, _) if set.iter().any(|(name, _)| *name == field.name) => {}
                (None, _) if at == event.time => {
                    problems.push(format!("the field `{0}` has no source; add --map COLUMN={0}", field.name));
                }
                (None, _) => problems.push(format!(
                    "the field `{0}` has no source and no default; add --set {0}=VALUE or --map COLUMN={0}",
                    field.name
                )),
            }
        }
        match problems.as_slice() {
            [] => Ok(Mapping { columns, sources: resolved }),
            problems => Err(UsageError(format!("the file can't become {}:\n  {}", event.name, problems.join("\n  ")))),
        }
    }

    /// The values of a line, which has as many columns as the first; else the column's position and what is wrong.
    pub(super) fn values(
        &self,
        event: &EventType,
        record: &ByteRecord,
        line: &str,
    ) -> Result<Vec<Datum>, (usize, String)> {
        let value = |(field, source): (&Field, &Source)| match source {
            Source::Constant(value) => Ok(value.clone()),
            Source::Line => Ok(Datum::Text(id_of_line(field, line))),
            Source::Column(at) => {
                let bytes = record.get(*at).unwrap_or_default();
                let text = std::str::from_utf8(bytes).map_err(|_| (*at, "it is not UTF-8".to_owned()))?;
                parse(field, text).map_err(|expected| (*at, format!("found {text:?}; expected {expected}")))
            }
        };
        event.fields.iter().zip(&self.sources).map(value).collect()
    }
}

/// The id of a line: a UUID (version 5) of the file's name and the line's number.
fn id_of_line(field: &Field, line: &str) -> String {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("highwater:replay:{line}").as_bytes());
    match field.kind {
        Kind::Uuid => id.to_string(),
        _ => line.to_owned(),
    }
}

/// Gives a field its source, once.
fn give(
    event: &EventType,
    name: &str,
    flag: &str,
    sources: &mut [Option<Source>],
    problems: &mut Vec<String>,
    source: impl FnOnce(&Field) -> Result<Source, String>,
) {
    let Some(at) = event.position(name) else {
        let fields = event.fields.iter().map(|field| field.name.as_str());
        problems.push(unknown(flag, "field", name, fields));
        return;
    };
    if sources[at].is_some() {
        problems.push(format!("{flag}: the field has a source already"));
        return;
    }
    match source(&event.fields[at]) {
        Ok(source) => sources[at] = Some(source),
        // An empty text: told already.
        Err(problem) if problem.is_empty() => {}
        Err(problem) => problems.push(format!("{flag}: {problem}")),
    }
}

fn unknown<'a>(flag: &str, what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let hint = match nearest(name, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
    };
    format!("{flag}: there is no {what} `{name}`; {hint}")
}
