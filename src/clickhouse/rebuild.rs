//! A rollup computed from the raw rows, in SQL: what [`crate::rollup::Rollup::build`] makes of the same events, but for
//! the series beyond `events.max_series`, which are themselves here.

use super::sql::{ident, table};
use super::tables::time_column;
use crate::plan::Plan;
use crate::rollup::{Measure, Number, Rollup};

/// Selects the columns of a rollup's table (without marker rows), a row per minute and series, from the raw rows that
/// `condition` holds for.
pub fn select(plan: &Plan, rollup: &Rollup, database: &str, condition: &str) -> String {
    let event = &plan.types[rollup.event].event;
    let minute = format!("toStartOfMinute({})", ident(time_column(event)));
    let by: Vec<String> = rollup.by.iter().map(|by| ident(&by.name)).collect();
    let mut columns = vec![minute.clone()];
    columns.extend(by.iter().cloned());
    columns.extend(["''", "0", "count()"].map(str::to_owned));
    columns.extend(rollup.measures.iter().flat_map(aggregates));
    format!(
        "SELECT {} FROM {} WHERE {condition} GROUP BY {}",
        columns.join(", "),
        table(database, &event.name),
        [&[minute], &by[..]].concat().join(", ")
    )
}

/// The aggregates of a measure, in the order of its columns.
fn aggregates(measure: &Measure) -> Vec<String> {
    let raw = ident(&measure.name);
    let (value, sum) = match measure.number {
        Number::Integer => (format!("toInt64({raw})"), format!("toInt128({raw})")),
        Number::Float => (format!("toFloat64({raw})"), format!("toFloat64({raw})")),
        Number::Decimal { scale } => (raw.clone(), format!("toDecimal128({raw}, {scale})")),
    };
    let valid = match measure.number {
        Number::Float => format!("isNotNull({raw}) AND isFinite(assumeNotNull({raw}))"),
        Number::Integer | Number::Decimal { .. } => format!("isNotNull({raw})"),
    };
    let mut all = Vec::with_capacity(6);
    if measure.sum {
        all.push(format!("sumIf(assumeNotNull({sum}), {valid})"));
    }
    all.push(format!("minIf(toNullable({value}), {valid})"));
    all.push(format!("maxIf(toNullable({value}), {valid})"));
    all.push(format!("countIf(isNull({raw}))"));
    if measure.number == Number::Float {
        all.push(format!("countIf(isNotNull({raw}) AND NOT isFinite(assumeNotNull({raw})))"));
    }
    if measure.distribution {
        let representative = representative(&format!("toFloat64(assumeNotNull({raw}))"));
        all.push(format!("sumMapIf([{representative}], [toUInt64(1)], {valid})"));
    }
    all
}

/// The representative of a value's bucket: sign, exponent and the 7 leading bits of the mantissa, then the bucket's middle;
/// integers up to 256 stand for themselves. As `rollup::histogram` has it.
fn representative(value: &str) -> String {
    let bits = format!("bitAnd(reinterpretAsUInt64(abs({value})), 0xFFFFE00000000000)");
    let lowest = format!("reinterpretAsFloat64({bits})");
    let middle = format!("reinterpretAsFloat64(bitOr({bits}, 0x0000100000000000))");
    format!(
        "multiIf({bits} < 0x0010000000000000, 0., if({value} < 0, -1., 1.) * if({lowest} <= 256 AND {lowest} = \
         trunc({lowest}), {lowest}, {middle}))"
    )
}
