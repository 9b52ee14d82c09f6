//! The same question asked of raw rows: what a rollup would have, had it been computed of those that are there.
//!
//! For an explanation of what was told, which is to rest on events and not on what was made of them.

use std::collections::BTreeMap;

use super::period::Minute;
use super::query::{Answer, Number, Question, Row};
use super::rule::aligned;
use crate::clickhouse::sql::{ident, literal, literals, table};
use crate::clickhouse::tables::time_column;
use crate::event::EventType;
use crate::rollup::{Measure, Number as Kind, Rollup, stored};

/// Which raw rows.
#[derive(Debug, Clone, Copy)]
pub struct Which<'a> {
    /// The event type, whose table they are in.
    pub event: &'a EventType,
    /// The rollup that they make up.
    pub rollup: &'a Rollup,
    /// The database.
    pub database: &'a str,
    /// From which minute to before which.
    pub span: (Minute, Minute),
    /// Values of some of the rollup's dimensions.
    pub dimensions: &'a BTreeMap<String, String>,
    /// Of each source only those before an offset, and of sources that are not named none; `None`: all.
    pub before: Option<&'a BTreeMap<String, u64>>,
}

impl Which<'_> {
    /// What holds of these rows and no others; columns are those of `r`.
    pub fn condition(&self) -> String {
        let (time, (from, to)) = (ident(time_column(self.event)), self.span);
        let second = |minute: Minute| format!("toDateTime64({}, 6, 'UTC')", minute.max(0) * 60);
        let times = [format!("r.{time} >= {}", second(from)), format!("r.{time} < {}", second(to))];
        let of = |(name, value): (&String, &String)| format!("toString(r.{}) = {}", ident(name), literal(value));
        let before = self.before.map(|before| format!("r.`_offset` < {}", end_of_source(before)));
        times.into_iter().chain(self.dimensions.iter().map(of)).chain(before).collect::<Vec<_>>().join(" AND ")
    }

    /// The table, under the name `r`.
    pub fn table(&self) -> String {
        format!("{} AS r", table(self.database, &self.event.name))
    }
}

/// The offset at which each row's source ends; 0 for those that are not named.
fn end_of_source(ends: &BTreeMap<String, u64>) -> String {
    if ends.is_empty() {
        return "0".to_owned();
    }
    let offsets: Vec<String> = ends.values().map(|end| format!("toUInt64({end})")).collect();
    format!("transform(toString(r.`_source`), [{}], [{}], toUInt64(0))", literals(ends.keys()), offsets.join(", "))
}

impl Question {
    /// The query of [`Question::sql`], of raw rows.
    pub fn sql_of_raw(&self, which: &Which<'_>) -> String {
        let which = Which { span: (aligned(which.span.0, self.step), which.span.1), ..*which };
        let (step, time) = (self.step, ident(time_column(which.event)));
        let list = |of: Vec<String>, empty: &str| {
            if of.is_empty() { format!("CAST([], '{empty}')") } else { format!("[{}]", of.join(", ")) }
        };
        let dimension = |name: &String| format!("toString(r.{})", ident(name));
        let keys: Vec<String> = std::iter::once("at".to_owned()).chain(self.dimensions.iter().map(dimension)).collect();
        let number = |number: &Number| match number {
            Number::Count => "toString(count())".to_owned(),
            Number::Sum(name) => sum(name, which.rollup),
            Number::Missing(name) => format!("toString(countIf(isNull(r.{})))", ident(name)),
            Number::Invalid(name) => format!("toString(countIf(NOT isFinite(r.{})))", ident(name)),
        };
        let values = |name: &String| format!("{}.1", buckets(name));
        let counts = |name: &String| format!("arrayMap(n -> toString(n), {}.2)", buckets(name));
        format!(
            "SELECT toInt32(intDiv(toUnixTimestamp(r.{time}), {seconds}) * {step}) AS at,\n    {dimensions} AS dimensions,\n    \
             {numbers} AS numbers,\n    {values} AS `values`,\n    {counts} AS counts\nFROM {from}\nWHERE {condition}\n\
             GROUP BY {keys}\nORDER BY {keys}",
            seconds = step * 60,
            dimensions = list(self.dimensions.iter().map(dimension).collect(), "Array(String)"),
            numbers = list(self.numbers.iter().map(number).collect(), "Array(String)"),
            values = list(self.distributions.iter().map(values).collect(), "Array(Array(Float64))"),
            counts = list(self.distributions.iter().map(counts).collect(), "Array(Array(String))"),
            from = which.table(),
            condition = which.condition(),
            keys = keys.join(", "),
        )
    }

    /// A row of its answer: values stand for their buckets, as in a rollup. `None`: it does not have what was asked for.
    pub fn row_of_raw(&self, answer: Answer) -> Option<Row> {
        let mut row = self.row(answer)?;
        for (value, _) in row.distributions.iter_mut().flatten() {
            *value = stored(*value)?;
        }
        Some(row)
    }
}

/// Least magnitude and sign of each value's bucket, and how many values it has: a bucket is the sign, the exponent and the
/// seven leading bits of the mantissa, and all below the least normal number are 0.
fn buckets(name: &str) -> String {
    let x = format!("ifNull(toFloat64(r.{}), nan)", ident(name));
    let magnitude = format!("bitShiftRight(reinterpretAsUInt64(abs({x})), 45)");
    let least = format!("reinterpretAsFloat64(bitShiftLeft({magnitude}, 45))");
    let signed = format!("if({magnitude} < 128, toFloat64(0), if({x} < 0, -{least}, {least}))");
    format!("sumMapIf([{signed}], [toUInt64(1)], isFinite({x}))")
}

fn sum(name: &str, rollup: &Rollup) -> String {
    let x = format!("r.{}", ident(name));
    let measure: Option<&Measure> = rollup.measures.iter().find(|measure| measure.name == name);
    let exact = match measure.map(|measure| measure.number) {
        Some(Kind::Integer) | None => format!("toInt128({x})"),
        Some(Kind::Decimal { .. }) => x,
        Some(Kind::Float) => format!("if(isFinite({x}), toFloat64({x}), 0)"),
    };
    format!("toString(ifNull(sum({exact}), 0))")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn asks_for_rows_of_a_series_and_of_what_was_there_then() {
        let event = EventType::parse("call.avsc", include_str!("../../tests/alerts/call.avsc")).unwrap();
        let rollup = Rollup { name: "call_1m".into(), version: 1, event: 0, by: vec![], measures: vec![] };
        let dimensions = BTreeMap::from([("app".to_owned(), "it's".to_owned())]);
        let ends = BTreeMap::from([("1/t/0".to_owned(), 17), ("1/t/1".to_owned(), 0)]);
        let span = (10, 15);
        let which =
            Which { event: &event, rollup: &rollup, database: "d", span, dimensions: &dimensions, before: Some(&ends) };
        assert_eq!(
            which.condition(),
            "r.`occurred_at` >= toDateTime64(600, 6, 'UTC') AND r.`occurred_at` < toDateTime64(900, 6, 'UTC') AND \
             toString(r.`app`) = 'it\\'s' AND r.`_offset` < transform(toString(r.`_source`), ['1/t/0', '1/t/1'], [toUInt64(17), \
             toUInt64(0)], toUInt64(0))"
        );
        let none = BTreeMap::new();
        let which = Which { before: Some(&none), ..which };
        assert!(which.condition().ends_with("AND r.`_offset` < 0"), "{}", which.condition());
    }
}
