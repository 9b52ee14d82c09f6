//! The views that are read: rollups merged, how far minutes are complete, and a view for every metric.

use super::ddl::ViewDef;
use super::sql::{ident, literal, literals, table};
use super::tables::WATERMARKS;
use crate::plan::Plan;
use crate::rollup::{Condition, Measure, Merge, Metric, Number, OTHER, Quantity, Rollup};

/// One row: the time that event time has passed in every partition.
pub const COMPLETENESS: &str = "completeness";

/// All views of a plan, each after those that it reads.
pub(super) fn all(plan: &Plan, database: &str) -> Vec<ViewDef> {
    let rollups = plan.rollups.iter().map(|rollup| merged(rollup, database));
    let metrics = plan.metrics.iter().map(|of| metric(of, &plan.rollups[of.rollup], database));
    std::iter::once(completeness(database)).chain(rollups).chain(metrics).collect()
}

/// The least watermark over all partitions of all topics, each topic in the latest of its lives.
///
/// A worker that starts enters every partition at 1970 (which a greater watermark outweighs), so one that nobody has read
/// yet holds everything back. The greatest watermark of each source counts, whoever wrote it; that is safe because each
/// was true when it was written and stays so, as the module `partition::watermark` argues.
fn completeness(database: &str) -> ViewDef {
    let select = format!(
        "SELECT min(w.reached) AS through\n\
         FROM (SELECT splitByChar('/', source)[2] AS topic, toUInt32OrZero(splitByChar('/', source)[1]) AS epoch, \
         max(watermark) AS reached FROM {watermarks} GROUP BY source) AS w\n\
         WHERE (w.topic, w.epoch) IN (SELECT splitByChar('/', source)[2] AS topic, \
         max(toUInt32OrZero(splitByChar('/', source)[1])) FROM {watermarks} GROUP BY topic)",
        watermarks = table(database, WATERMARKS)
    );
    let comment = "no event before this time is expected any more, in any partition; 1970 while a partition is unread";
    ViewDef { name: COMPLETENESS.to_owned(), comment: comment.to_owned(), select, formers: Vec::new() }
}

/// The view over a rollup's parts: merged, without marker rows.
fn merged(rollup: &Rollup, database: &str) -> ViewDef {
    let (mut columns, mut keys) = (Vec::new(), Vec::new());
    for part in rollup.part_columns() {
        let name = ident(&part.def.name);
        let function = match part.merge {
            Merge::Source | Merge::Through => continue,
            Merge::Key => {
                columns.push(format!("    p.{name} AS {name}"));
                keys.push(name);
                continue;
            }
            Merge::Sum => "sum",
            Merge::Min => "min",
            Merge::Max => "max",
            Merge::SumMap => "sumMap",
        };
        columns.push(format!("    {function}(p.{name}) AS {name}"));
    }
    let parts = rollup.table();
    let select = format!(
        "SELECT\n{}\nFROM {} AS p\nWHERE p.`_source` = ''\nGROUP BY {}",
        columns.join(",\n"),
        table(database, &parts),
        keys.join(", ")
    );
    let comment = format!("per minute, merged from {parts}");
    ViewDef { name: rollup.name.clone(), comment, select, formers: rollup.formers() }
}

/// A metric's view. It reads the parts themselves: one aggregation instead of the two that going through the rollup's
/// view would take.
fn metric(metric: &Metric, rollup: &Rollup, database: &str) -> ViewDef {
    let (inner, outer) = match &metric.quantity {
        Quantity::Quantiles(name) => quantiles(name),
        quantity => fraction(quantity, rollup),
    };
    let keys: Vec<String> = std::iter::once("minute").chain(metric.by.iter().map(String::as_str)).map(ident).collect();
    let mut wheres = vec!["p.`_source` = ''".to_owned()];
    wheres.extend(metric.filter.as_ref().map(known_and));
    let select = format!(
        "SELECT\n    {keys},\n{outer},\n    CAST(minute + INTERVAL 1 MINUTE <= (SELECT through FROM {completeness}), 'Bool') \
         AS complete\nFROM (\n    SELECT\n        {own},\n{inner}\n    FROM {parts} AS p\n    WHERE {wheres}\n    GROUP BY \
         {keys}\n)",
        keys = keys.join(", "),
        outer = indented(&outer, 4),
        completeness = table(database, COMPLETENESS),
        own = keys.iter().map(|key| format!("p.{key} AS {key}")).collect::<Vec<_>>().join(", "),
        inner = indented(&inner, 8),
        parts = table(database, &rollup.table()),
        wheres = wheres.join(" AND "),
    );
    let comment = format!("{} [{}]", metric.question, metric.unit);
    ViewDef { name: metric.name.clone(), comment, select, formers: Vec::new() }
}

fn indented(columns: &[String], by: usize) -> String {
    columns.iter().map(|column| format!("{:by$}{column}", "")).collect::<Vec<_>>().join(",\n")
}

/// Columns of the inner and of the outer query.
type Columns = (Vec<String>, Vec<String>);

fn quantiles(name: &str) -> Columns {
    let column = ident(name);
    let inner = vec![
        format!("sum(arraySum(p.{column}.2)) AS count"),
        format!("quantilesExactWeightedArray(0.5, 0.95, 0.99)(p.{column}.1, p.{column}.2) AS q"),
        format!("sumMap(p.{column}) AS distribution"),
    ];
    let level = |(at, name)| format!("if(count = 0, NULL, q[{at}]) AS {name}");
    let levels = [(1, "p50"), (2, "p95"), (3, "p99")].map(level);
    let outer = std::iter::once("count".to_owned()).chain(levels).chain(["distribution".to_owned()]);
    (inner, outer.collect())
}

/// Numerator and denominator, and what their value is.
fn fraction(quantity: &Quantity, rollup: &Rollup) -> Columns {
    let total = || "sum(p.`count`)".to_owned();
    let where_ = |condition: &Condition| format!("sumIf(p.`count`, {})", known_and(condition));
    let (numerator, denominator) = match quantity {
        Quantity::Count => (total(), total()),
        Quantity::Sum(names) => match &names[..] {
            [name] => (sums(names), having(rollup, name)),
            _ => (sums(names), total()),
        },
        Quantity::Cost => (sums(&[COST.to_owned()]), having(rollup, COST)),
        Quantity::Mean(name) => (sums(std::slice::from_ref(name)), having(rollup, name)),
        Quantity::Counts { numerator, denominator: Some(denominator) } => (where_(numerator), where_(denominator)),
        Quantity::Counts { numerator, denominator: None } => {
            (where_(numerator), format!("sumIf(p.`count`, {})", known(numerator)))
        }
        Quantity::Sums { numerator, denominator } => (sums(numerator), sums(denominator)),
        Quantity::Quantiles(_) => (total(), total()),
    };
    let mut inner = vec![format!("{numerator} AS numerator"), format!("{denominator} AS denominator")];
    let value = match quantity {
        Quantity::Count | Quantity::Sum(_) | Quantity::Cost => "numerator",
        _ => "toFloat64(numerator) / toFloat64(denominator)",
    };
    let value = format!("if(denominator = 0, NULL, {value}) AS value");
    let mut outer = vec!["numerator".to_owned(), "denominator".to_owned(), value];
    if *quantity == Quantity::Cost {
        inner.push(format!("sum(p.{}) AS unpriced", ident(&format!("{COST}_missing"))));
        outer.push("unpriced".to_owned());
    }
    (inner, outer)
}

const COST: &str = crate::event::COST_COLUMN;

/// The sum of measures.
fn sums(names: &[String]) -> String {
    names.iter().map(|name| format!("sum(p.{})", ident(&format!("{name}_sum")))).collect::<Vec<_>>().join(" + ")
}

/// Events that have a measure.
fn having(rollup: &Rollup, name: &str) -> String {
    let mut sql = format!("sum(p.`count`) - sum(p.{})", ident(&format!("{name}_missing")));
    if rollup.measures.iter().any(|measure: &Measure| measure.name == name && measure.number == Number::Float) {
        sql.push_str(&format!(" - sum(p.{})", ident(&format!("{name}_invalid"))));
    }
    // A difference of counts is signed to ClickHouse.
    format!("toUInt64({sql})")
}

/// That a series has dimensions that a condition can be asked of: those beyond the limit have lost theirs.
fn known(condition: &Condition) -> String {
    let dimension = condition.dimensions().first().map_or_else(|| "''".to_owned(), |name| format!("p.{}", ident(name)));
    format!("{dimension} != {}", literal(OTHER))
}

fn known_and(condition: &Condition) -> String {
    format!("({} AND {})", known(condition), sql(condition))
}

/// A condition in ClickHouse's words, in parentheses wherever they could matter.
fn sql(condition: &Condition) -> String {
    let joined = |all: &[Condition], word: &str| format!("({})", all.iter().map(sql).collect::<Vec<_>>().join(word));
    match condition {
        Condition::In { dimension, values } => format!("(p.{} IN ({}))", ident(dimension), literals(values)),
        Condition::Not(inner) => format!("(NOT {})", sql(inner)),
        Condition::And(all) => joined(all, " AND "),
        Condition::Or(all) => joined(all, " OR "),
    }
}
