//! Rules tried on given numbers: what `highwater alerts test` runs.
//!
//! ```toml
//! [[test]]
//! name = "half of all calls fail"
//! start = "2026-11-02T08:00:00Z"
//! length = "30m"                                       # how long it is looked at
//! rules = ["llm_failures"]                             # all that these tell has to be expected
//! events = [
//!   { rollup = "llm_call_1m", of = { app = "zest", status = "ok" }, count = "100x10 50x20" },
//!   { rollup = "llm_call_1m", of = { app = "zest", status = "error" }, count = "_x10 50x20" },
//! ]
//! expect = [{ at = "14m", rule = "llm_failures", of = { app = "zest" }, state = "firing" }]
//! ```
//!
//! Numbers stand for the minutes from the start on; `50x20` is 50 for twenty minutes, `_` a minute without events. `sum`
//! and `missing` give numbers of measures of a minute, `values` the value that all events of a minute have, which counts as
//! its bucket in the rollup does. With `arrives = "20m"` events are known from that moment on only: late events.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::decimal;
use super::evaluate::Evaluator;
use super::history::State;
use super::message::{Completeness, Message, millis};
use super::period::{Minute, parse_span, span};
use super::query::{Number, Question, Row};
use super::rule::{Rules, aligned};
use super::signal::number_scale;
use super::stat::{Histogram, merged};
use crate::rollup::{Measure, Rollup};

/// What a minute of a series of a rollup adds up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The minute.
    pub at: Minute,
    /// From which minute on it is known.
    pub arrives: Minute,
    /// Position of the rollup in the plan.
    pub rollup: usize,
    /// Its dimensions; those that are not there are ''.
    pub dimensions: BTreeMap<String, String>,
    /// Events.
    pub count: u64,
    /// Sums of measures, in their units (of doubles 10⁻¹²).
    pub sums: BTreeMap<String, i128>,
    /// Events that lack a measure.
    pub missing: BTreeMap<String, u64>,
    /// Distributions of measures.
    pub distributions: BTreeMap<String, Histogram>,
}

/// The rows that a question would be answered with, of the samples from a minute on that are known by another.
pub fn rows(question: &Question, samples: &[Sample], from: Minute, known: Minute) -> Vec<Row> {
    let mut rows: BTreeMap<(Minute, Vec<String>), Row> = BTreeMap::new();
    let is_asked = |sample: &&Sample| sample.rollup == question.rollup && sample.at >= from && sample.arrives <= known;
    for sample in samples.iter().filter(is_asked) {
        let value = |name: &String| sample.dimensions.get(name).cloned().unwrap_or_default();
        let dimensions: Vec<String> = question.dimensions.iter().map(value).collect();
        let at = aligned(sample.at, question.step);
        let row = rows.entry((at, dimensions.clone())).or_insert_with(|| Row {
            at,
            dimensions,
            numbers: vec![0; question.numbers.len()],
            distributions: vec![Histogram::new(); question.distributions.len()],
        });
        for (sum, number) in row.numbers.iter_mut().zip(&question.numbers) {
            *sum += match number {
                Number::Count => i128::from(sample.count),
                Number::Sum(name) => sample.sums.get(name).copied().unwrap_or(0),
                Number::Missing(name) => sample.missing.get(name).map_or(0, |missing| i128::from(*missing)),
                Number::Invalid(_) => 0,
            };
        }
        for (sum, name) in row.distributions.iter_mut().zip(&question.distributions) {
            if let Some(histogram) = sample.distributions.get(name) {
                *sum = merged([&*sum, histogram].into_iter());
            }
        }
    }
    rows.into_values().collect()
}

/// How a test went.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    /// Its name.
    pub name: String,
    /// What was otherwise than expected; nothing: it passed.
    pub failures: Vec<String>,
    /// All that its rules told.
    pub messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    test: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    start: String,
    length: String,
    rules: Vec<String>,
    events: Vec<Given>,
    #[serde(default)]
    expect: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    rollup: String,
    #[serde(default)]
    of: BTreeMap<String, String>,
    count: String,
    #[serde(default)]
    sum: BTreeMap<String, String>,
    #[serde(default)]
    missing: BTreeMap<String, String>,
    #[serde(default)]
    values: BTreeMap<String, String>,
    arrives: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    at: String,
    rule: String,
    #[serde(default)]
    of: BTreeMap<String, String>,
    state: String,
    severity: Option<String>,
    corrected: Option<bool>,
}

/// How far back late events are judged anew in tests.
const HORIZON: i64 = 24 * 60;

/// Runs the tests of a file. `file` is its name for error messages.
///
/// # Errors
/// The file is not a file of tests, or names what is not there: with test, key and remedy.
pub fn try_file(file: &str, text: &str, rules: &Rules, rollups: &[Rollup]) -> Result<Vec<Tried>, String> {
    let parsed: File = toml::from_str(text).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(before).filter(|byte| *byte == b'\n').count();
        format!("{file}:{line}: not a file of tests: {}", error.message())
    })?;
    parsed
        .test
        .iter()
        .map(|entry| {
            let attempt = Attempt { entry, rules, rollups };
            attempt.run().map_err(|what| format!("{file}: test {:?}: {what}", entry.name))
        })
        .collect()
}

struct Attempt<'a> {
    entry: &'a Entry,
    rules: &'a Rules,
    rollups: &'a [Rollup],
}

impl Attempt<'_> {
    fn run(&self) -> Result<Tried, String> {
        let start = self.entry.start.parse::<Timestamp>();
        let start =
            start.map_err(|_| format!("start: {:?} is no time; write 2026-11-02T08:00:00Z", self.entry.start))?;
        let start = start.as_second().div_euclid(60);
        let end = start + parse_span(&self.entry.length).map_err(|what| format!("length: {what}"))?;
        self.check_names()?;
        let mut samples = Vec::new();
        for given in &self.entry.events {
            samples.extend(self.samples(given, start)?);
        }
        samples.sort_by_key(|sample| sample.at);
        let told = self.told(&samples, start, end);
        let failures = self.compare(&told, start);
        Ok(Tried { name: self.entry.name.clone(), failures, messages: told })
    }

    fn check_names(&self) -> Result<(), String> {
        let rules = self.rules.rules.iter().map(|rule| rule.notice.name.as_str());
        let names: Vec<&str> =
            rules.chain(self.rules.budgets.iter().map(|budget| budget.notice.name.as_str())).collect();
        let expected = self.entry.expect.iter().map(|expected| &expected.rule);
        for name in self.entry.rules.iter().chain(expected) {
            if !names.contains(&name.as_str()) {
                let known = crate::rollup::one_of(name, &names, "no pack has an alert or a budget");
                return Err(format!("rules: there is no alert or budget {name:?}; {known}"));
            }
        }
        self.entry.expect.iter().try_for_each(|expected| self.check_expected(expected))
    }

    /// That what is expected can be told at all.
    fn check_expected(&self, expected: &Expected) -> Result<(), String> {
        let Expected { at, rule, of, state, .. } = expected;
        if !self.entry.rules.contains(rule) {
            return Err(format!("expect: {rule:?} is not among rules; add it there"));
        }
        let states = [State::Firing, State::Resolved, State::Withdrawn].map(State::name);
        if !states.contains(&state.as_str()) {
            let known = crate::rollup::one_of(state, &states, "");
            return Err(format!("expect: there is no state {state:?}; {known}"));
        }
        let rules = self.rules.rules.iter().map(|rule| (&rule.notice.name, rule.signal));
        let budgets = self.rules.budgets.iter().map(|budget| (&budget.notice.name, budget.signal));
        let signal =
            rules.chain(budgets).find(|(name, _)| *name == rule).map(|(_, signal)| &self.rules.signals[signal]);
        if let Some(signal) =
            signal.filter(|signal| !(signal.by.iter().all(|by| of.contains_key(by)) && of.len() == signal.by.len()))
        {
            let given: Vec<String> = signal.by.iter().map(|by| format!("{by} = …")).collect();
            let given = if given.is_empty() { "no of".to_owned() } else { format!("of = {{ {} }}", given.join(", ")) };
            return Err(format!("expect: {rule} has the dimensions {}; give {given}", signal.by.join(", ")));
        }
        let (until, length) =
            (parse_span(at).map_err(|what| format!("expect: at: {what}"))?, parse_span(&self.entry.length));
        match length {
            Ok(length) if until > length => Err(format!("expect: at {at} the test is over; make length longer")),
            _ => Ok(()),
        }
    }

    /// The samples of some events.
    fn samples(&self, given: &Given, start: Minute) -> Result<Vec<Sample>, String> {
        let position = self.rollups.iter().position(|rollup| rollup.name == given.rollup);
        let Some(position) = position else {
            let names: Vec<&str> = self.rollups.iter().map(|rollup| rollup.name.as_str()).collect();
            let known = crate::rollup::one_of(&given.rollup, &names, "there is none");
            return Err(format!("events: there is no rollup {:?}; {known}", given.rollup));
        };
        let rollup = &self.rollups[position];
        let names: Vec<&str> = rollup.by.iter().map(|by| by.name.as_str()).collect();
        if let Some(name) = given.of.keys().find(|name| !names.contains(&name.as_str())) {
            let known = crate::rollup::one_of(name, &names, "it has none");
            return Err(format!("events: the rollup {} has no dimension {name:?}; {known}", rollup.name));
        }
        let arrives =
            given.arrives.as_deref().map(parse_span).transpose().map_err(|what| format!("arrives: {what}"))?;
        let arrives = arrives.map_or(Minute::MIN, |arrives| start + arrives);
        let counts = numbers("count", &given.count, 0)?;
        let mut samples: BTreeMap<usize, Sample> = BTreeMap::new();
        for (minute, count) in counts.iter().enumerate().filter_map(|(at, count)| Some((at, (*count)?))) {
            let (at, dimensions) = (start + minute as i64, given.of.clone());
            let count = u64::try_from(count).map_err(|_| format!("count: {count} events can't be"))?;
            samples.insert(minute, Sample { at, arrives, rollup: position, dimensions, count, ..Sample::default() });
        }
        for (name, text) in &given.sum {
            let scale = number_scale(measure(rollup, name, "sum", |measure| measure.sum)?.number);
            for (sample, sum) in of_minutes(&mut samples, name, text, scale)? {
                sample.sums.insert(name.clone(), sum);
            }
        }
        for (name, text) in &given.missing {
            measure(rollup, name, "measure", |_| true)?;
            for (sample, missing) in of_minutes(&mut samples, name, text, 0)? {
                let count = sample.count;
                let lack = u64::try_from(missing).ok().filter(|missing| *missing <= count);
                let lack = lack.ok_or_else(|| format!("missing: {name}: {missing} of {count} events can't lack it"))?;
                sample.missing.insert(name.clone(), lack);
            }
        }
        for (name, text) in &given.values {
            measure(rollup, name, "distribution", |measure| measure.distribution)?;
            for (sample, value) in of_minutes(&mut samples, name, text, decimal::SCALE)? {
                let value = crate::rollup::stored(decimal::double(value, decimal::SCALE));
                sample
                    .distributions
                    .insert(name.clone(), value.map(|value| (value, sample.count)).into_iter().collect());
            }
        }
        Ok(samples.into_values().collect())
    }

    /// All messages of the rules, as they come minute by minute. Samples ascend.
    fn told(&self, samples: &[Sample], start: Minute, end: Minute) -> Vec<Message> {
        let mut evaluator = Evaluator::new(self.rules.clone(), self.rollups, HORIZON, start, None);
        // By the minute in which they come: the earliest of late events.
        let mut late: BTreeMap<Minute, Minute> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.arrives > sample.at + 1) {
            late.entry(sample.arrives).and_modify(|at| *at = sample.at.min(*at)).or_insert(sample.at);
        }
        let before = |minute: Minute| samples.partition_point(|sample| sample.at < minute);
        let mut told = Vec::new();
        for at in start..=end {
            for (position, from) in evaluator.wanted(late.get(&at).copied()).into_iter().enumerate() {
                let known = &samples[before(from).min(before(at))..before(at)];
                let rows = rows(&evaluator.questions()[position], known, from, at);
                evaluator.take(position, from, &rows);
            }
            let (through_ms, now_ms) = (millis(at), millis(at));
            told.extend(evaluator.advance(at, Completeness { through_ms, now_ms, late: 0 }).messages);
        }
        told.retain(|message| self.entry.rules.contains(&message.rule));
        told
    }

    fn compare(&self, told: &[Message], start: Minute) -> Vec<String> {
        let mut left: Vec<&Message> = told.iter().collect();
        let mut failures = Vec::new();
        for expected in &self.entry.expect {
            let at = parse_span(&expected.at).unwrap_or(0);
            let is_it = |message: &&Message| {
                (message.at, &message.rule, &message.dimensions, &message.state)
                    == (millis(start + at), &expected.rule, &expected.of, &expected.state)
                    && expected.severity.as_ref().is_none_or(|severity| *severity == message.severity)
                    && expected.corrected.is_none_or(|corrected| corrected == message.corrected)
            };
            match left.iter().position(is_it) {
                Some(position) => drop(left.remove(position)),
                None => {
                    let Expected { at, rule, of, state, .. } = expected;
                    failures.push(format!("expected at {at}: {rule} {of:?} {state}; it was not told"));
                }
            }
        }
        failures.extend(left.into_iter().map(|message| {
            let at = span((message.at - millis(start)) / 60_000);
            let time = Timestamp::from_millisecond(message.at).map(|time| format!(" ({time})")).unwrap_or_default();
            let Message { rule, dimensions, state, severity, summary, corrected, .. } = message;
            let corrected = if *corrected { ", corrected" } else { "" };
            format!("not expected at {at}{time}: {rule} {dimensions:?} {state} ({severity}{corrected}): {summary}")
        }));
        failures
    }
}

fn measure<'a>(rollup: &'a Rollup, name: &str, what: &str, has: fn(&Measure) -> bool) -> Result<&'a Measure, String> {
    let mut having = rollup.measures.iter().filter(|measure| has(measure));
    having.clone().find(|measure| measure.name == name).ok_or_else(|| {
        let names: Vec<&str> = having.by_ref().map(|measure| measure.name.as_str()).collect();
        let known = crate::rollup::one_of(name, &names, "it has none");
        let of = if what == "measure" { "" } else { "of " };
        format!("events: the rollup {} has no {what} {of}{name:?}; {known}", rollup.name)
    })
}

/// Numbers of a measure beside the minutes that they are about.
fn of_minutes<'a>(
    samples: &'a mut BTreeMap<usize, Sample>,
    name: &str,
    text: &str,
    scale: u8,
) -> Result<Vec<(&'a mut Sample, i128)>, String> {
    let mut given: BTreeMap<usize, i128> =
        numbers(name, text, scale)?.into_iter().enumerate().filter_map(|(at, number)| Some((at, number?))).collect();
    if let Some(minute) = given.keys().find(|minute| !samples.contains_key(minute)) {
        let remedy = "give as many numbers as count has, with _ where it has none";
        return Err(format!("{name}: minute {minute} has no events; {remedy}"));
    }
    Ok(samples.iter_mut().filter_map(|(minute, sample)| Some((sample, given.remove(minute)?))).collect())
}

/// Longest row of numbers: a quarter of a year.
const LONGEST: usize = 100 * 24 * 60;

/// Numbers of the minutes from the start on; `None`: there is none.
fn numbers(key: &str, text: &str, scale: u8) -> Result<Vec<Option<i128>>, String> {
    let mut numbers = Vec::new();
    for word in text.split_whitespace() {
        let (value, times) = word.rsplit_once('x').unwrap_or((word, "1"));
        let number = if value == "_" { Some(None) } else { decimal::parse(value, scale).map(Some) };
        let times = times.parse::<usize>().ok().filter(|times| numbers.len() + times <= LONGEST);
        let (Some(number), Some(times)) = (number, times) else {
            return Err(format!("{key}: {word:?} is no number of minutes; write 5, 5x10 or _x10"));
        };
        numbers.extend(std::iter::repeat_n(number, times));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests;
