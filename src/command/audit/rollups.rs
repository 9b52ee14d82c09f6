//! Rollups against the raw rows, minute by minute.
//!
//! Partial aggregates can't be told apart by source, so what is compared is the sum over all series of a minute.

use anyhow::Result;
use serde::Deserialize;

use super::Audit;
use super::report::{Finding, thousands};
use crate::clickhouse::QueryError;
use crate::clickhouse::sql::{ident, literal, literals};
use crate::clickhouse::tables::time_column;
use crate::plan::{Table, TableKind};
use crate::rollup::{Measure, Number, Rollup};

/// One minute on both sides.
#[derive(Debug, Deserialize)]
struct Minute {
    at: u32,
    raw: u64,
    merged: u64,
    /// Raw rows of it that are beyond the ledger's end.
    fresh: u64,
    /// What differs beside the count.
    wrong: Vec<String>,
}

/// What one rollup adds up to, on its two sides, and how they are compared.
#[derive(Default)]
struct Comparison {
    raw: Vec<String>,
    merged: Vec<String>,
    wrong: Vec<String>,
}

impl Audit<'_> {
    pub(super) async fn rollups(&mut self) -> Result<()> {
        let mut done = Vec::new();
        for table in &self.plan.tables {
            let TableKind::Rollup(index) = table.kind else { continue };
            let rollup = &self.plan.rollups[index];
            let (mut findings, mut minutes, mut events, mut in_flight) = (Vec::new(), 0, 0, 0);
            for month in self.months(rollup, table).await? {
                let marked = self.marked_beyond(table, month).await?;
                for minute in self.minutes(rollup, month).await? {
                    minutes += 1;
                    events += minute.merged;
                    if minute.raw == minute.merged && minute.wrong.is_empty() {
                        continue;
                    }
                    if minute.fresh > 0 || marked {
                        in_flight += 1;
                    } else {
                        findings.push(minute.finding(rollup));
                    }
                }
            }
            let name = &rollup.name;
            let figures = format!(
                "{name}: {} minutes with {} events equal their raw rows, counts and sums",
                thousands(minutes),
                thousands(events)
            );
            let note =
                format!("{name}: {} minutes differ while batches are in flight; audit again", thousands(in_flight));
            done.push((figures, findings, (in_flight > 0).then_some(note)));
        }
        for (figures, findings, note) in done {
            self.report.checked("rollup", figures, findings);
            self.report.notes.extend(note);
        }
        Ok(())
    }

    /// The months that either side has.
    async fn months(&self, rollup: &Rollup, table: &Table) -> Result<Vec<u32>, QueryError> {
        #[derive(Deserialize)]
        struct Month {
            month: u32,
        }
        let raw = &self.plan.types[rollup.event].event.name;
        let sql = format!(
            "SELECT DISTINCT toUInt32(partition) AS month FROM system.parts WHERE active AND database = {} AND table IN ({}) \
             ORDER BY month",
            literal(self.client.database()),
            literals([raw, &table.name])
        );
        Ok(self.client.rows::<Month>(&sql).await?.into_iter().map(|row| row.month).collect())
    }

    /// Whether a block of this month stands that the ledger has not seen yet.
    async fn marked_beyond(&self, table: &Table, month: u32) -> Result<bool, QueryError> {
        #[derive(Deserialize)]
        struct Marked {
            marked: u64,
        }
        let sql = format!(
            "SELECT count() AS marked FROM {} WHERE toYYYYMM(minute, 'UTC') = {month} AND `_source` != '' AND `_through` > {}",
            self.client.table(&table.name),
            self.end_of("`_source`")
        );
        Ok(self.client.rows::<Marked>(&sql).await?.iter().any(|row| row.marked > 0))
    }

    async fn minutes(&self, rollup: &Rollup, month: u32) -> Result<Vec<Minute>, QueryError> {
        let event = &self.plan.types[rollup.event].event;
        let time = ident(time_column(event));
        // Beyond the shorter retention one side is gone; an hour's grace, as the server expires rows when it pleases.
        let keep = [self.keep_days(&event.name), self.keep_days(&rollup.table())];
        let since = match keep.into_iter().filter(|&days| days > 0).min() {
            None => "0".to_owned(),
            Some(days) => format!("toUnixTimestamp(now() - INTERVAL {days} DAY) + 3600"),
        };
        let mut sides = Comparison::default();
        rollup.measures.iter().for_each(|measure| sides.add(measure));
        let sql = format!(
            "SELECT greatest(r.at, v.at) AS at, r.n AS raw, v.n AS merged, r.fresh AS fresh, \
             arrayFilter(name -> name != '', CAST([{wrong}], 'Array(String)')) AS wrong \
             FROM (SELECT toUnixTimestamp(toStartOfMinute({time})) AS at, count() AS n, \
             countIf(`_offset` >= {end}) AS fresh{raw} FROM {raw_table} WHERE toYYYYMM({time}, 'UTC') = {month} GROUP BY at \
             HAVING at >= {since}) AS r \
             FULL OUTER JOIN (SELECT toUnixTimestamp(m.minute) AS at, sum(m.count) AS n{merged} FROM {view} AS m \
             WHERE toYYYYMM(m.minute, 'UTC') = {month} GROUP BY at HAVING at >= {since}) AS v \
             ON r.at = v.at ORDER BY at",
            wrong = sides.wrong.join(", "),
            end = self.end_of("`_source`"),
            raw = sides.raw.concat(),
            raw_table = self.client.table(&event.name),
            merged = sides.merged.concat(),
            view = self.client.table(&rollup.name)
        );
        self.client.rows(&sql).await
    }
}

impl Comparison {
    fn add(&mut self, measure: &Measure) {
        let (name, x) = (&measure.name, ident(&measure.name));
        let column = |suffix: &str| format!("m.{}", ident(&format!("{name}{suffix}")));
        if measure.sum {
            let exact = match measure.number {
                Number::Integer => format!("toInt128({x})"),
                Number::Decimal { .. } => x.clone(),
                Number::Float => format!("if(isFinite({x}), toFloat64({x}), 0)"),
            };
            // A type's zero stands for no value at all, whether all are null or the minute is missing.
            let equal = match measure.number {
                Number::Float => {
                    let size = format!("if(isFinite({x}), abs(toFloat64({x})), 0)");
                    self.raw.push(format!(", ifNull(sum({size}), 0) AS {}", ident(&format!("{name} size"))));
                    let size = ident(&format!("{name} size"));
                    format!("abs(r.{0} - v.{0}) <= 1e-9 * r.{size}", ident(&format!("{name} sum")))
                }
                Number::Integer | Number::Decimal { .. } => format!("r.{0} = v.{0}", ident(&format!("{name} sum"))),
            };
            self.pair(&format!("{name} sum"), &format!("ifNull(sum({exact}), 0)"), &format!("sum({})", column("_sum")));
            self.wrong(&equal, &format!("{name}_sum"));
        }
        let missing = format!("{name} missing");
        self.pair(&missing, &format!("countIf(isNull({x}))"), &format!("sum({})", column("_missing")));
        self.wrong(&format!("r.{0} = v.{0}", ident(&missing)), &format!("{name}_missing"));
        let mut unusable = format!("v.{}", ident(&missing));
        if measure.number == Number::Float {
            let invalid = format!("{name} invalid");
            self.pair(&invalid, &format!("countIf(NOT isFinite({x}))"), &format!("sum({})", column("_invalid")));
            self.wrong(&format!("r.{0} = v.{0}", ident(&invalid)), &format!("{name}_invalid"));
            unusable.push_str(&format!(" + v.{}", ident(&invalid)));
        }
        if measure.distribution {
            let counts = ident(&format!("{name} counts"));
            self.merged.push(format!(", sum(arraySum({}.2)) AS {counts}", column("")));
            self.wrong(&format!("v.{counts} + {unusable} = v.n"), name);
        }
    }

    fn pair(&mut self, alias: &str, raw: &str, merged: &str) {
        self.raw.push(format!(", {raw} AS {}", ident(alias)));
        self.merged.push(format!(", {merged} AS {}", ident(alias)));
    }

    fn wrong(&mut self, equal: &str, column: &str) {
        self.wrong.push(format!("if({equal}, '', {})", literal(column)));
    }
}

impl Minute {
    fn finding(&self, rollup: &Rollup) -> Finding {
        let at =
            jiff::Timestamp::from_second(i64::from(self.at)).map_or_else(|_| self.at.to_string(), |t| t.to_string());
        let mut what = format!("minute {at}: {} raw rows, {} counted", thousands(self.raw), thousands(self.merged));
        if !self.wrong.is_empty() {
            what.push_str(&format!("; not equal: {}", self.wrong.join(", ")));
        }
        what.push_str("; `rebuild` it from the raw rows");
        Finding { table: rollup.name.clone(), source: None, from: None, to: None, what }
    }
}
