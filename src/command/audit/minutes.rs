//! One minute of a rollup against its raw rows, in SQL.
//!
//! Compared over all series of a minute: the count, and of each measure sum, least, greatest, missing, invalid. Sums alone
//! would not see a row whose dimension was changed, nor a value that moved to another bucket, so both sides also add up a
//! hash of each event's series and of its bucket: a sum of hashes does not depend on the order of rows, nor on how parts
//! were merged.

use crate::clickhouse::sql::{ident, literal};
use crate::rollup::{Measure, Number, OTHER, Rollup};

/// What one rollup adds up to, on its two sides, and how they are compared.
#[derive(Default)]
pub(super) struct Comparison {
    /// More columns of the raw side, each with a leading comma.
    pub(super) raw: String,
    /// More columns of the side of the parts.
    pub(super) parts: String,
    /// Expressions that are '' or the name of what differs.
    pub(super) wrong: Vec<String>,
}

impl Comparison {
    /// Of all that a rollup keeps.
    pub(super) fn of(rollup: &Rollup) -> Comparison {
        let mut sides = Comparison::default();
        sides.series(rollup);
        rollup.measures.iter().for_each(|measure| sides.measure(measure));
        sides
    }

    fn series(&mut self, rollup: &Rollup) {
        if rollup.by.is_empty() {
            return;
        }
        let columns = |of: &str| rollup.by.iter().map(|by| format!("{of}{}", ident(&by.name))).collect::<Vec<_>>();
        let hash = |of: &str| format!("cityHash64({})", columns(of).join(", "));
        // Series beyond the limit of a batch are added up as one that has another name in each dimension, so such a minute
        // can't be compared by them.
        let others =
            columns("m.").iter().map(|by| format!("{by} = {}", literal(OTHER))).collect::<Vec<_>>().join(" AND ");
        self.parts.push_str(&format!(", countIf({others}) AS `series other`"));
        self.pair("series hash", &format!("sum({})", hash("")), &format!("sum({} * m.count)", hash("m.")));
        self.wrong(
            "r.`series hash` = v.`series hash` OR v.`series other` > 0",
            &columns("").join("/").replace('`', ""),
        );
    }

    fn measure(&mut self, measure: &Measure) {
        let (name, x) = (&measure.name, ident(&measure.name));
        let column = |suffix: &str| format!("m.{}", ident(&format!("{name}{suffix}")));
        let alias = |of: &str| ident(&format!("{name} {of}"));
        if measure.sum {
            self.sum(measure);
        }
        let is_float = measure.number == Number::Float;
        for (extreme, suffix) in [("min", "_min"), ("max", "_max")] {
            let raw = if is_float {
                format!("{extreme}If(toFloat64({x}), isFinite({x}))")
            } else {
                format!("{extreme}({x})")
            };
            let raw = if is_float { format!("if(countIf(isFinite({x})) = 0, NULL, {raw})") } else { raw };
            self.pair(&format!("{name} {extreme}"), &raw, &format!("{extreme}({})", column(suffix)));
            let of = alias(extreme);
            self.wrong(
                &format!("ifNull(r.{of} = v.{of}, isNull(r.{of}) AND isNull(v.{of}))"),
                &format!("{name}{suffix}"),
            );
        }
        self.pair(
            &format!("{name} missing"),
            &format!("countIf(isNull({x}))"),
            &format!("sum({})", column("_missing")),
        );
        self.equal(&format!("{name} missing"), &format!("{name}_missing"));
        let mut unusable = format!("v.{}", alias("missing"));
        if is_float {
            let invalid = format!("{name} invalid");
            self.pair(&invalid, &format!("countIf(NOT isFinite({x}))"), &format!("sum({})", column("_invalid")));
            self.equal(&invalid, &format!("{name}_invalid"));
            unusable.push_str(&format!(" + v.{}", ident(&invalid)));
        }
        if measure.distribution {
            let (counts, buckets) = (alias("counts"), alias("buckets"));
            self.parts.push_str(&format!(", sum(arraySum({}.2)) AS {counts}", column("")));
            let hash = bucket_hash("value");
            let parts = format!("sum(arraySum((value, times) -> {hash} * times, {0}.1, {0}.2))", column(""));
            let usable = if is_float { format!("isFinite({x})") } else { format!("isNotNull({x})") };
            let raw = bucket_hash(&format!("ifNull(toFloat64({x}), 0)"));
            self.pair(&format!("{name} buckets"), &format!("sumIf({raw}, {usable})"), &parts);
            self.wrong(&format!("v.{counts} + {unusable} = v.n AND r.{buckets} = v.{buckets}"), name);
        }
    }

    fn sum(&mut self, measure: &Measure) {
        let (name, x) = (&measure.name, ident(&measure.name));
        let exact = match measure.number {
            Number::Integer => format!("toInt128({x})"),
            Number::Decimal { .. } => x.clone(),
            Number::Float => format!("if(isFinite({x}), toFloat64({x}), 0)"),
        };
        let sum = ident(&format!("{name} sum"));
        let parts = format!("sum(m.{})", ident(&format!("{name}_sum")));
        // A type's zero stands for no value at all, whether all are null or the minute is missing.
        self.pair(&format!("{name} sum"), &format!("ifNull(sum({exact}), 0)"), &parts);
        if measure.number == Number::Float {
            let size = ident(&format!("{name} size"));
            let magnitude = format!("if(isFinite({x}), abs(toFloat64({x})), 0)");
            self.raw.push_str(&format!(", ifNull(sum({magnitude}), 0) AS {size}"));
            self.wrong(&format!("abs(r.{sum} - v.{sum}) <= 1e-9 * r.{size}"), &format!("{name}_sum"));
        } else {
            self.equal(&format!("{name} sum"), &format!("{name}_sum"));
        }
    }

    fn pair(&mut self, alias: &str, raw: &str, parts: &str) {
        self.raw.push_str(&format!(", {raw} AS {}", ident(alias)));
        self.parts.push_str(&format!(", {parts} AS {}", ident(alias)));
    }

    fn equal(&mut self, alias: &str, column: &str) {
        let alias = ident(alias);
        self.wrong(&format!("r.{alias} = v.{alias}"), column);
    }

    fn wrong(&mut self, equal: &str, column: &str) {
        self.wrong.push(format!("if({equal}, '', {})", literal(column)));
    }
}

/// A hash of the bucket that a finite double falls into: its sign, exponent and seven leading bits of the mantissa; all
/// below the least normal number are zero. A bucket's representative lies in the bucket, so both sides hash alike.
fn bucket_hash(value: &str) -> String {
    let magnitude = format!("bitShiftRight(reinterpretAsUInt64(abs({value})), 45)");
    format!("intHash64(if({magnitude} < 128, 0, {magnitude} * 2 + ({value} < 0)))")
}
