//! Takes settings out of the merged sources, and notes everything that is wrong with them.

use std::collections::BTreeSet;
use std::fmt;

use config::{Value, ValueKind};

use super::settings::SECTIONS;
use super::suggest::nearest;
use super::value::Setting;
use super::{ENVIRONMENT, FLAG, variable};

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, as `section.key`; a file's name where it is about no single setting.
    pub key: String,
    /// What was found, where, and what is allowed.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// The merged sources.
#[derive(Debug)]
pub(super) struct Reader {
    root: Value,
    pub(super) problems: Vec<Problem>,
}

/// `section.key`, or `key` outside of any section.
pub(super) fn dotted(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Without the quotes that a TOML text has.
pub(super) fn unquoted(literal: &str) -> &str {
    literal.trim_matches('"')
}

impl Reader {
    pub(super) fn new(root: Value) -> Self {
        Reader { root, problems: Vec::new() }
    }

    pub(super) fn problem(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem { key: key.into(), message: message.into() });
    }

    fn value(&self, section: &str, key: &str) -> Option<&Value> {
        let table = match section {
            "" => &self.root,
            section => member(&self.root, section)?,
        };
        member(table, key)
    }

    /// Puts the defaults in the places of these settings or sections; other names are left alone.
    pub(super) fn reset<'a>(&mut self, keys: impl Iterator<Item = &'a str>, defaults: &Value) {
        for key in keys {
            let mut path = key.splitn(2, '.');
            let (Some(first), second) = (path.next(), path.next()) else { continue };
            let Some(default) = member(defaults, first) else { continue };
            let ValueKind::Table(root) = &mut self.root.kind else { continue };
            match (second, root.get_mut(first).map(|section| &mut section.kind)) {
                (Some(name), Some(ValueKind::Table(section))) => {
                    let default = member(default, name).map(|default| (name.to_owned(), default.clone()));
                    section.extend(default);
                }
                _ => {
                    root.insert(first.to_owned(), default.clone());
                }
            }
        }
    }

    /// Where a setting was found, in words.
    pub(super) fn origin(&self, section: &str, key: &str) -> String {
        self.value(section, key).map(|value| place(value, &dotted(section, key))).unwrap_or_default()
    }

    /// Reads a setting.
    pub(super) fn get<T: Setting>(&mut self, section: &str, key: &str) -> Option<T> {
        self.read(section, key, T::ALLOWED)
    }

    /// Reads a setting that has a least and a greatest value.
    pub(super) fn get_within<T: Setting + PartialOrd>(
        &mut self,
        section: &str,
        key: &str,
        min: &str,
        max: &str,
    ) -> Option<T> {
        let bound = |literal: &str| T::read(&Value::new(None, unquoted(literal)), true);
        let allowed = format!("{}, from {min} to {max}", T::ALLOWED);
        let value: T = self.read(section, key, &allowed)?;
        if bound(min).is_some_and(|min| value < min) || bound(max).is_some_and(|max| value > max) {
            self.not_allowed(section, key, &allowed, T::SECRET);
            return None;
        }
        Some(value)
    }

    fn read<T: Setting>(&mut self, section: &str, key: &str, allowed: &str) -> Option<T> {
        // A section that is no table at all is told once, by `unknown`.
        let value = self.value(section, key)?;
        let text = matches!(value.origin(), Some(ENVIRONMENT | FLAG));
        let read = T::read(value, text);
        if read.is_none() {
            self.not_allowed(section, key, allowed, T::SECRET);
        }
        read
    }

    fn not_allowed(&mut self, section: &str, key: &str, allowed: &str, secret: bool) {
        let name = dotted(section, key);
        let Some(value) = self.value(section, key) else { return };
        let found = if secret { "something else".to_owned() } else { shown(value) };
        let message = format!("found {found} in {}; allowed is {allowed}", place(value, &name));
        self.problem(name, message);
    }

    /// Notes every key that means nothing, with the one that was probably meant.
    pub(super) fn unknown(&mut self) {
        let known: Vec<String> =
            SECTIONS.iter().flat_map(|s| s.entries.iter().map(|entry| dotted(s.name, entry.name))).collect();
        let mut found = BTreeSet::new();
        for (name, value) in members(&self.root) {
            match SECTIONS.iter().find(|section| !section.name.is_empty() && section.name == name) {
                Some(section) if matches!(value.kind, ValueKind::Table(_)) => {
                    let strange = members(value).filter(|(key, _)| !section.entries.iter().any(|e| e.name == *key));
                    found.extend(strange.map(|(key, value)| (dotted(name, key), place(value, &dotted(name, key)))));
                }
                Some(_) => {
                    let keys = known.iter().filter(|key| key.starts_with(&format!("{name}."))).map(String::as_str);
                    let message = format!(
                        "found {} in {}; allowed is a section with the keys {}",
                        shown(value),
                        place(value, name),
                        keys.collect::<Vec<_>>().join(", ")
                    );
                    self.problems.push(Problem { key: name.to_owned(), message });
                }
                None if known.iter().any(|key| key == name) => {}
                // A section that is none: each of its keys may have a better place.
                None if matches!(value.kind, ValueKind::Table(_)) => found
                    .extend(members(value).map(|(key, value)| (dotted(name, key), place(value, &dotted(name, key))))),
                None => {
                    found.insert((name.to_owned(), place(value, name)));
                }
            }
        }
        for (key, place) in found {
            let hint = match nearest(&key, known.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "docs/configuration.md lists all".to_owned(),
            };
            self.problem(key, format!("there is no such setting (found in {place}); {hint}"));
        }
    }
}

fn member<'a>(table: &'a Value, key: &str) -> Option<&'a Value> {
    match &table.kind {
        ValueKind::Table(members) => members.get(key),
        _ => None,
    }
}

fn members(table: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = match &table.kind {
        ValueKind::Table(members) => Some(members),
        _ => None,
    };
    members.into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// Where a value comes from, as an operator would look for it.
fn place(value: &Value, key: &str) -> String {
    match value.origin() {
        Some(ENVIRONMENT) => format!("the environment variable {}", variable(key)),
        Some(FLAG) => format!("the flag --setting {key}=…"),
        Some(file) => file.to_owned(),
        None => "the defaults".to_owned(),
    }
}

/// A value as TOML would have it, cut short.
fn shown(value: &Value) -> String {
    let shown = match &value.kind {
        // It may be an address with a password.
        ValueKind::String(text) if text.contains('@') => "a text with @".to_owned(),
        ValueKind::String(text) => format!("{text:?}"),
        ValueKind::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        ValueKind::Table(_) => "a table".to_owned(),
        ValueKind::Nil => "nothing".to_owned(),
        other => other.to_string(),
    };
    match shown.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &shown[..at]),
        None => shown,
    }
}
