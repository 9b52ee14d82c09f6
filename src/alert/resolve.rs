//! `[[alert]]` and `[[budget]]` of packs held against metrics: every rule can be judged, or an error says what to write.
//!
//! ```toml
//! [[alert]]
//! name = "llm_failures"
//! metric = "llm_error_rate"
//! by = ["app"]                               # some of the rollup's dimensions; one alert for each series
//! where = "environment = 'production'"       # which series
//! window = "1h"
//! above = 0.05                               # or below; or burn_rate, no_data, anomaly; with change: relative
//! resolve = 0.03                             # over once back at it; the level itself if left out
//! for = "5m"
//! severity = "page"                          # page, ticket, info
//! summary = "{app}: {value} of calls fail"
//!
//! [[budget]]
//! name = "llm_daily_spend"
//! metric = "llm_cost"
//! by = ["app"]
//! period = "day"                             # day, week, month
//! time_zone = "Europe/Berlin"
//! amount = "50.00"
//! ```

mod alert;
mod budget;

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};
use toml::Spanned;

use super::rule::{Notice, Rules};
use super::signal::{Signal, scales};
use super::template::Template;
use crate::event::{EventType, Kind};
use crate::rollup::{Condition, Metric, Pack, PackError, Rollup};

/// What is wrong: the key, and what with it; and where in the file's text.
type Wrong = (usize, (&'static str, String));

/// Series that are watched for a rule unless it says otherwise.
const MAX_SERIES: u32 = 10_000;

/// Most series that may be watched for a rule.
const MOST_SERIES: u32 = 1_000_000;

/// Longest name of a rule.
const NAME_LENGTH: usize = 100;

/// All alerts and budgets of all packs.
///
/// # Errors
/// Everything that is wrong with them, each with file, line, name, key and remedy.
pub fn resolve(
    packs: &[Pack],
    types: &[EventType],
    rollups: &[Rollup],
    metrics: &[Metric],
) -> Result<Rules, Vec<PackError>> {
    let mut resolver = Resolver { types, rollups, metrics, rules: Rules::default(), taken: HashMap::new() };
    let mut errors = Vec::new();
    for pack in packs {
        let mut keep = |kind: &'static str, name: &str, wrong: Vec<Wrong>| {
            errors.extend(wrong.into_iter().map(|(at, (key, what))| PackError::Entry {
                file: pack.file.clone(),
                line: pack.line(at),
                kind,
                name: name.to_owned(),
                key,
                what,
            }));
        };
        for entry in &pack.alerts {
            keep("alert", entry.name.get_ref(), resolver.alert(pack, entry).err().unwrap_or_default());
        }
        for entry in &pack.budgets {
            keep("budget", entry.name.get_ref(), resolver.budget(pack, entry).err().unwrap_or_default());
        }
    }
    if errors.is_empty() { Ok(resolver.rules) } else { Err(errors) }
}

struct Resolver<'a> {
    types: &'a [EventType],
    rollups: &'a [Rollup],
    metrics: &'a [Metric],
    rules: Rules,
    /// Names of rules, and where they stand.
    taken: HashMap<String, String>,
}

/// What an alert and a budget have in common.
struct Common<'a> {
    name: &'a Spanned<String>,
    metric: &'a Spanned<String>,
    by: &'a [Spanned<String>],
    r#where: Option<&'a Spanned<String>>,
    labels: &'a BTreeMap<String, String>,
    summary: Option<&'a Spanned<String>>,
    max_series: Option<&'a Spanned<u32>>,
    /// What its messages say if it does not.
    default_summary: &'a str,
    /// What they can say beside its dimensions.
    places: &'static [&'static str],
}

/// The same, understood.
struct Subject<'a> {
    metric: &'a Metric,
    rollup: &'a Rollup,
    by: Vec<String>,
    filter: Option<Condition>,
    notice: Notice,
}

/// What is wrong so far.
#[derive(Default)]
struct Faults(Vec<Wrong>);

impl Faults {
    fn add(&mut self, at: usize, key: &'static str, what: impl Into<String>) {
        self.0.push((at, (key, what.into())));
    }

    /// The value, or nothing where it is wrong.
    fn keep<T>(&mut self, at: usize, key: &'static str, result: Result<T, String>) -> Option<T> {
        result.map_err(|what| self.add(at, key, what)).ok()
    }
}

impl<'a> Resolver<'a> {
    /// What an entry is about and how it is told. `None`: its metric is not there, so nothing else can be said.
    fn subject(&mut self, pack: &Pack, given: &Common<'_>, faults: &mut Faults) -> Option<Subject<'a>> {
        let (name, at) = (given.name.get_ref(), given.name.span().start);
        let is_name = |name: &str| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.len() <= NAME_LENGTH
        };
        if !is_name(name) {
            let rule = format!("at most {NAME_LENGTH} letters, digits and _, the first a letter");
            faults.add(at, "name", format!("{name:?} can't be a name; use {rule}"));
        }
        let place = format!("{}:{}", pack.file, pack.line(at));
        if let Some(other) = self.taken.insert(name.clone(), place) {
            let why = "alerts are told apart by it";
            faults.add(at, "name", format!("{name} is taken already ({other}); choose another name, {why}"));
        }
        if let Some(label) = given.labels.keys().find(|label| !is_name(label)) {
            faults.add(at, "labels", format!("{label:?} can't be a label; use letters, digits and _"));
        }
        let asked = given.metric.get_ref();
        let Some(metric) = self.metrics.iter().find(|metric| metric.name == *asked) else {
            let names: Vec<&str> = self.metrics.iter().map(|metric| metric.name.as_str()).collect();
            let known = crate::rollup::one_of(asked, &names, "no pack has a [[metric]]");
            faults.add(given.metric.span().start, "metric", format!("there is no metric {asked:?}; {known}"));
            return None;
        };
        let rollup = &self.rollups[metric.rollup];
        let mut by = Vec::new();
        for given in given.by {
            let (dimension, at) = (given.get_ref(), given.span().start);
            if by.contains(dimension) {
                faults.add(at, "by", format!("{dimension} stands there twice; take one away"));
            } else if faults.keep(at, "by", self.dimension(rollup, dimension)).is_some() {
                by.push(dimension.clone());
            }
        }
        let condition = given.r#where.and_then(|text| {
            let check = |name: &str, values: &[String]| {
                self.dimension(rollup, name)?;
                self.values(rollup, name, values)
            };
            let parsed = Condition::parse(text.get_ref(), &check).map_err(|error| error.to_string());
            faults.keep(text.span().start, "where", parsed)
        });
        let filter = match (metric.filter.clone(), condition) {
            (Some(one), Some(other)) => Some(Condition::And(vec![one, other])),
            (one, other) => one.or(other),
        };
        let series: Vec<String> = by.iter().map(|name| format!("{{{name}}}")).collect();
        let named = if series.is_empty() { String::new() } else { format!("{}: ", series.join(", ")) };
        let unless_given = format!("{named}{}", given.default_summary);
        let (text, at) = given.summary.map_or((&unless_given, at), |given| (given.get_ref(), given.span().start));
        let summary = faults.keep(at, "summary", Template::parse(text, &by, given.places)).unwrap_or_default();
        let max_series = given.max_series.map_or(MAX_SERIES, |given| *given.get_ref());
        if !(1..=MOST_SERIES).contains(&max_series) {
            let at = given.max_series.map_or(at, |given| given.span().start);
            faults.add(at, "max_series", format!("it can't be {max_series}; give a number from 1 to {MOST_SERIES}"));
        }
        let notice = Notice {
            name: name.clone(),
            text: String::new(),
            hash: String::new(),
            metric: metric.name.clone(),
            unit: metric.unit.clone(),
            labels: given.labels.clone(),
            summary,
            max_series: max_series as usize,
        };
        Some(Subject { metric, rollup, by, filter, notice })
    }

    fn dimension(&self, rollup: &Rollup, name: &str) -> Result<(), String> {
        if rollup.by.iter().any(|by| by.name == name) {
            return Ok(());
        }
        let known: Vec<&str> = rollup.by.iter().map(|by| by.name.as_str()).collect();
        let known = crate::rollup::one_of(name, &known, "it has none");
        Err(format!("the rollup {} has no dimension {name:?}; {known}, or add it to the rollup", rollup.name))
    }

    /// A value that an enum never has is a slip of the pen.
    fn values(&self, rollup: &Rollup, name: &str, values: &[String]) -> Result<(), String> {
        let field = self.types[rollup.event].fields.iter().find(|field| field.name == name);
        let Some((Kind::Enum(symbols), nullable)) = field.map(|field| (&field.kind, field.nullable)) else {
            return Ok(());
        };
        let occurs = |value: &&String| symbols.contains(value) || (nullable && value.is_empty());
        match values.iter().find(|value| !occurs(value)) {
            None => Ok(()),
            Some(value) => {
                let known: Vec<&str> = symbols.iter().map(String::as_str).collect();
                Err(format!("{name} is never '{value}'; {}", crate::rollup::one_of(value, &known, "it has no symbols")))
            }
        }
    }

    /// The position of a signal, shared with the rules that look at the same.
    fn signal(&mut self, subject: &Subject<'_>, step: i64, reach: i64) -> usize {
        let metric = subject.metric;
        let wanted = Signal {
            rollup: metric.rollup,
            by: subject.by.clone(),
            filter: subject.filter.clone(),
            quantity: metric.quantity.clone(),
            step,
            reach,
            levels: Vec::new(),
            scales: scales(&metric.quantity, subject.rollup),
            max_series: subject.notice.max_series,
        };
        match self.rules.signals.iter().position(|known| known.is_like(&wanted)) {
            Some(position) => {
                let known = &mut self.rules.signals[position];
                known.reach = known.reach.max(reach);
                position
            }
            None => {
                self.rules.signals.push(wanted);
                self.rules.signals.len() - 1
            }
        }
    }
}

/// The lines of a file from an entry's header, or from its name where it has none, to the next.
fn entry_text(pack: &Pack, at: usize) -> String {
    let text = pack.text();
    let is_header = |line: &str| line.trim_start().starts_with("[[");
    let is_said = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let start_of_line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    let mut before: Vec<&str> = text[..start_of_line].lines().rev().take_while(|line| !is_header(line)).collect();
    // Its header is the line before these.
    let header = text[..start_of_line].lines().rev().nth(before.len());
    if header.is_none() {
        before.clear();
    }
    let rest = text[start_of_line..].lines();
    let rest = rest.enumerate().take_while(|(number, line)| *number == 0 || !is_header(line)).map(|(_, line)| line);
    header.into_iter().chain(before.into_iter().rev()).chain(rest).filter(is_said).collect::<Vec<_>>().join("\n")
}

/// SHA-256 of what decides what a rule says, hexadecimal, first 16 digits.
fn hash(of: &impl std::fmt::Debug) -> String {
    Sha256::digest(format!("{of:?}")).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
