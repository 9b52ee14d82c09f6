//! What is asked of ClickHouse: few queries for each rollup and round, however many rules look at it.
//!
//! Which series a rule looks at and what it adds up is decided here and not there: the query has the dimensions and columns
//! that any of its rules needs, merged by minute, and no word of any rule's. Apart are asked
//! - what is judged in greater steps, which is due at these steps only,
//! - distributions, which are many times as large as numbers,
//! - what looks further back than a day or two, by each set of dimensions: so that no rule of a few series reads weeks of all.

use std::ops::Range;

use serde::Deserialize;

use super::decimal;
use super::period::Minute;
use super::rule::Rules;
use super::signal::number_scale;
use super::stat::Histogram;
use crate::clickhouse::sql::{ident, table};
use crate::rollup::{Measure, Number as Kind, Rollup};

/// How far back questions are shared whatever dimensions they have, in minutes.
const SHARED: i64 = 2 * 24 * 60;

/// A column of numbers that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Number {
    /// Events.
    Count,
    /// The sum of a measure.
    Sum(String),
    /// Events without a measure.
    Missing(String),
    /// Events in which a measure is NaN or infinite.
    Invalid(String),
}

/// What is asked of a rollup in one query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Position of the rollup in the plan.
    pub rollup: usize,
    /// Minutes of a row.
    pub step: i64,
    /// How far back before a moment rows matter, in minutes.
    pub reach: i64,
    /// Positions of the signals that it feeds.
    pub signals: Vec<usize>,
    /// Dimensions, in the order of the rollup's.
    pub dimensions: Vec<String>,
    /// Numbers.
    pub numbers: Vec<Number>,
    /// Names of distributions.
    pub distributions: Vec<String>,
    /// Digits behind the point of each of `numbers`; `None`: a double.
    scales: Vec<Option<u8>>,
}

/// Where in a row a signal finds what it asks for; `None`: there is no such column, which counts nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picks {
    pub(super) numbers: Vec<Option<usize>>,
    pub(super) distribution: Option<usize>,
}

/// What a step of a series of the rollup adds up to.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its first minute.
    pub at: Minute,
    /// Values of the question's dimensions.
    pub dimensions: Vec<String>,
    /// Values of its numbers, in units of their measures; doubles in units of 10⁻¹².
    pub numbers: Vec<i128>,
    /// Values of its distributions.
    pub distributions: Vec<Histogram>,
}

/// A row as the query's answer has it.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    at: i64,
    dimensions: Vec<String>,
    numbers: Vec<String>,
    values: Vec<Vec<f64>>,
    counts: Vec<Vec<String>>,
}

impl Question {
    /// All questions that rules ask, each once.
    pub fn all(rules: &Rules, rollups: &[Rollup]) -> Vec<Question> {
        let mut questions: Vec<Question> = Vec::new();
        for (position, signal) in rules.signals.iter().enumerate() {
            let rollup = &rollups[signal.rollup];
            let filter = signal.filter.iter().flat_map(|filter| filter.dimensions());
            let conditions = match &signal.quantity {
                crate::rollup::Quantity::Counts { numerator, denominator } => [Some(numerator), denominator.as_ref()]
                    .into_iter()
                    .flatten()
                    .flat_map(|one| one.dimensions())
                    .collect(),
                _ => Vec::new(),
            };
            let needed: Vec<&str> = signal.by.iter().map(String::as_str).chain(filter).chain(conditions).collect();
            let (numbers, distribution) = signal.asks();
            let among = |is_in: &dyn Fn(&String) -> bool| -> Vec<String> {
                rollup.by.iter().map(|by| by.name.clone()).filter(|name| is_in(name)).collect()
            };
            let needed = among(&|name| needed.contains(&name.as_str()));
            let is_deep = signal.reach > SHARED;
            let is_like = |question: &Question| {
                let kind = (question.rollup, question.step, !question.distributions.is_empty());
                kind == (signal.rollup, signal.step, distribution.is_some())
                    && is_deep == (question.reach > SHARED)
                    && (!is_deep || question.dimensions == needed)
            };
            let at = questions.iter().position(is_like).unwrap_or_else(|| {
                questions.push(Question::new(signal.rollup, signal.step));
                questions.len() - 1
            });
            let question = &mut questions[at];
            question.signals.push(position);
            question.reach = question.reach.max(signal.reach);
            let known = std::mem::take(&mut question.dimensions);
            question.dimensions = among(&|name| needed.contains(name) || known.contains(name));
            for number in numbers.into_iter().filter(|number| is_column(number, rollup)) {
                if !question.numbers.contains(&number) {
                    question.scales.push(scale(&number, rollup));
                    question.numbers.push(number);
                }
            }
            question.distributions.extend(distribution.filter(|name| !question.distributions.contains(name)));
        }
        questions
    }

    fn new(rollup: usize, step: i64) -> Question {
        Question {
            rollup,
            step,
            reach: 0,
            signals: Vec::new(),
            dimensions: Vec::new(),
            numbers: Vec::new(),
            distributions: Vec::new(),
            scales: Vec::new(),
        }
    }

    /// Where a signal of it finds what it asks for.
    pub(super) fn picks(&self, signal: &super::signal::Signal) -> Picks {
        let (numbers, distribution) = signal.asks();
        let number = |number: &Number| self.numbers.iter().position(|known| known == number);
        Picks {
            numbers: numbers.iter().map(number).collect(),
            distribution: distribution.and_then(|name| self.distributions.iter().position(|known| *known == name)),
        }
    }

    /// The query for all rows of some spans of minutes, which begin and end with steps; one to [`Minute::MAX`] has no end.
    /// Rows come in the order of their minutes.
    pub fn sql(&self, rollup: &Rollup, database: &str, spans: &[Range<Minute>]) -> String {
        let time = |minute: Minute| format!("toDateTime({}, 'UTC')", minute.max(0) * 60);
        let within = |span: &Range<Minute>| match span.end {
            Minute::MAX => format!("p.minute >= {}", time(span.start)),
            end => format!("(p.minute >= {} AND p.minute < {})", time(span.start), time(end)),
        };
        let within: Vec<String> = spans.iter().map(within).collect();
        let dimension = |name: &String| format!("toString(p.{})", ident(name));
        let number = |number: &Number| match number {
            Number::Count => "toString(sum(p.`count`))".to_owned(),
            Number::Sum(name) => format!("toString(sum(p.{}))", ident(&format!("{name}_sum"))),
            Number::Missing(name) => format!("toString(sum(p.{}))", ident(&format!("{name}_missing"))),
            Number::Invalid(name) => format!("toString(sum(p.{}))", ident(&format!("{name}_invalid"))),
        };
        let values = |name: &String| format!("sumMap(p.{}).1", ident(name));
        let counts = |name: &String| format!("arrayMap(n -> toString(n), sumMap(p.{}).2)", ident(name));
        let list = |of: Vec<String>, empty: &str| {
            if of.is_empty() { format!("CAST([], '{empty}')") } else { format!("[{}]", of.join(", ")) }
        };
        let step = self.step;
        format!(
            "SELECT toInt32(intDiv(toUnixTimestamp(p.minute), {seconds}) * {step}) AS at,\n    {dimensions} AS dimensions,\n    \
             {numbers} AS numbers,\n    {values} AS `values`,\n    {counts} AS counts\nFROM {parts} AS p\nWHERE p.`_source` = '' AND \
             ({within})\nGROUP BY {keys}\nORDER BY {keys}",
            seconds = step * 60,
            dimensions = list(self.dimensions.iter().map(dimension).collect(), "Array(String)"),
            numbers = list(self.numbers.iter().map(number).collect(), "Array(String)"),
            values = list(self.distributions.iter().map(values).collect(), "Array(Array(Float64))"),
            counts = list(self.distributions.iter().map(counts).collect(), "Array(Array(String))"),
            parts = table(database, &rollup.table()),
            within = within.join(" OR "),
            keys = std::iter::once("at".to_owned())
                .chain(self.dimensions.iter().map(|name| format!("p.{}", ident(name))))
                .collect::<Vec<_>>()
                .join(", "),
        )
    }

    /// A row of the answer, understood. `None`: it does not have what was asked for.
    pub fn row(&self, answer: Answer) -> Option<Row> {
        let number = |(text, scale): (&String, &Option<u8>)| match scale {
            Some(scale) => decimal::parse(text, *scale),
            None => text.parse().ok().map(decimal::from_double),
        };
        let histogram = |(values, counts): (&Vec<f64>, &Vec<String>)| -> Option<Histogram> {
            let counts: Option<Vec<u64>> = counts.iter().map(|count| count.parse().ok()).collect();
            Some(values.iter().copied().zip(counts.filter(|counts| counts.len() == values.len())?).collect())
        };
        let numbers: Option<Vec<i128>> = answer.numbers.iter().zip(&self.scales).map(number).collect();
        let distributions: Option<Vec<Histogram>> = answer.values.iter().zip(&answer.counts).map(histogram).collect();
        let row =
            Row { at: answer.at, dimensions: answer.dimensions, numbers: numbers?, distributions: distributions? };
        let sizes = (row.dimensions.len(), row.numbers.len(), row.distributions.len());
        (sizes == (self.dimensions.len(), self.numbers.len(), self.distributions.len())).then_some(row)
    }
}

fn measure<'a>(name: &str, rollup: &'a Rollup) -> Option<&'a Measure> {
    rollup.measures.iter().find(|measure| measure.name == name)
}

/// Whether the rollup has such a column: only doubles can be invalid.
fn is_column(number: &Number, rollup: &Rollup) -> bool {
    match number {
        Number::Invalid(name) => measure(name, rollup).is_some_and(|measure| measure.number == Kind::Float),
        _ => true,
    }
}

/// Digits behind the point; `None`: a double.
fn scale(number: &Number, rollup: &Rollup) -> Option<u8> {
    match number {
        Number::Sum(name) => match measure(name, rollup).map(|measure| measure.number) {
            Some(Kind::Float) => None,
            Some(kind) => Some(number_scale(kind)),
            None => Some(0),
        },
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests;
