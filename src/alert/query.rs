//! What is asked of ClickHouse: one query for each rollup and round, however many rules look at it.
//!
//! Which series a rule looks at and what it adds up is decided here and not there: the query has the dimensions and columns
//! that any rule of the rollup needs, merged by minute, and no word of any rule's. Rules that look so far back that they are
//! judged in greater steps have a query of their own, which is due at these steps only.

use serde::Deserialize;

use super::decimal;
use super::period::Minute;
use super::rule::{Rules, aligned};
use super::signal::number_scale;
use super::stat::Histogram;
use crate::clickhouse::sql::{ident, table};
use crate::rollup::{Measure, Number as Kind, Rollup};

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
            let is_like = |question: &Question| (question.rollup, question.step) == (signal.rollup, signal.step);
            let at = questions.iter().position(is_like).unwrap_or_else(|| {
                questions.push(Question::new(signal.rollup, signal.step));
                questions.len() - 1
            });
            let (question, rollup) = (&mut questions[at], &rollups[signal.rollup]);
            question.signals.push(position);
            question.reach = question.reach.max(signal.reach);
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
            let known = std::mem::take(&mut question.dimensions);
            let is_needed = |name: &String| needed.contains(&name.as_str()) || known.contains(name);
            question.dimensions = rollup.by.iter().map(|by| by.name.clone()).filter(is_needed).collect();
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

    /// The query for all rows from a minute on, which is taken back to the step that it lies in.
    pub fn sql(&self, rollup: &Rollup, database: &str, from: Minute) -> String {
        self.sql_until(rollup, database, from, None)
    }

    /// The same, for minutes before another one only.
    pub fn sql_until(&self, rollup: &Rollup, database: &str, from: Minute, until: Option<Minute>) -> String {
        let from = aligned(from, self.step);
        let until = until.map(|until| format!(" AND p.minute < toDateTime({}, 'UTC')", until.max(0) * 60));
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
             p.minute >= toDateTime({from}, 'UTC'){until}\nGROUP BY {keys}\nORDER BY {keys}",
            until = until.unwrap_or_default(),
            seconds = step * 60,
            dimensions = list(self.dimensions.iter().map(dimension).collect(), "Array(String)"),
            numbers = list(self.numbers.iter().map(number).collect(), "Array(String)"),
            values = list(self.distributions.iter().map(values).collect(), "Array(Array(Float64))"),
            counts = list(self.distributions.iter().map(counts).collect(), "Array(Array(String))"),
            parts = table(database, &rollup.table()),
            from = from.max(0) * 60,
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
