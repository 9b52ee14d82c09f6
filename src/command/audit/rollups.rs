//! Rollups against the raw rows, minute by minute.
//!
//! Partial aggregates can't be told apart by source, so what is compared is a whole minute of all sources. While workers
//! write, the two tables are never read at one moment: a minute that differs is looked at again until it is equal, or
//! stands still and is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::Result;
use serde::Deserialize;

use super::finding::{Finding, Kind, Minutes, thousands, time};
use super::minutes::Comparison;
use super::plans::{Change, Writers};
use super::{Audit, PAUSE};
use crate::batch::Month;
use crate::clickhouse::QueryError;
use crate::clickhouse::sql::{ident, literal, literals};
use crate::clickhouse::tables::time_column;
use crate::plan::{Table, TableKind};
use crate::rollup::Rollup;

/// Minutes of one rollup that are looked at again and listed.
const LISTED: usize = 10_000;
/// Spans that one query names; beyond, neighbours are joined.
const SPANS: usize = 64;
/// Findings of one rollup.
const FINDINGS: usize = 100;

/// Minutes, from the first second of one to the first second after another, since 1970.
type Span = (u32, u32);

/// What came of the minutes of some spans.
#[derive(Debug, Default, Deserialize)]
struct Compared {
    minutes: u64,
    events: u64,
    wrong: u64,
    listed: Vec<Minute>,
}

/// One minute that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Minute {
    at: u32,
    raw: u64,
    merged: u64,
    /// What differs beside the count.
    columns: Vec<String>,
}

impl Audit<'_> {
    pub(super) async fn rollups(&mut self) -> Result<()> {
        let plan = self.plan;
        for table in self.rollup_tables() {
            let TableKind::Rollup(index) = table.kind else { continue };
            let rollup = &plan.rollups[index];
            let mut total = Compared::default();
            for spans in self.spans(rollup, table).await? {
                let compared = self.compared(rollup, table, &spans, None).await?;
                total.minutes += compared.minutes;
                total.events += compared.events;
                total.wrong += compared.wrong;
                total.listed.extend(compared.listed);
            }
            total.listed.sort();
            total.listed.truncate(LISTED);
            total.wrong -= total.listed.len() as u64;
            let (wrong, moving) = self.look_again(rollup, table, total.listed).await?;
            if !moving.is_empty() {
                self.report.notes.push(format!(
                    "{}: {} minutes were being written while they were looked at; the next audit takes them up",
                    rollup.name,
                    thousands(moving.len() as u64)
                ));
            }
            self.open.insert(rollup.name.clone(), moving);
            let mut findings = self.stretches(rollup, &wrong).await?;
            if total.wrong > 0 {
                let what = format!("{} more minutes differ", thousands(total.wrong));
                findings.push(Finding::new(Kind::Minutes, &rollup.name, what));
            }
            let figures = format!(
                "{}: {} minutes with {} events equal their raw rows, in counts, sums, extremes, series and distributions",
                rollup.name,
                thousands(total.minutes),
                thousands(total.events)
            );
            self.report.checked("rollup", figures, findings);
        }
        Ok(())
    }

    /// What is to be compared, a query each: month after month; or the minutes that new rows fall into, and those that the
    /// last audit left open.
    async fn spans(&self, rollup: &Rollup, table: &Table) -> Result<Vec<Vec<Span>>, QueryError> {
        if self.is_full() {
            let months = self.months(rollup, table).await?;
            return Ok(months.into_iter().map(|month| vec![month]).collect());
        }
        #[derive(Deserialize)]
        struct At {
            at: u32,
        }
        let event = &self.plan.types[rollup.event].event;
        let raw = self.plan.table(self.plan.types[rollup.event].table);
        let new = self.tops(raw).await?.into_iter().filter_map(|top| top.above(&self.sources));
        let new: Vec<String> = new.collect();
        let mut minutes =
            self.proven.as_ref().and_then(|proven| proven.open.get(&rollup.name)).cloned().unwrap_or_default();
        if !new.is_empty() {
            let sql = format!(
                "SELECT DISTINCT toUnixTimestamp(toStartOfMinute({})) AS at FROM {} WHERE {}",
                ident(time_column(event)),
                self.client.table(&event.name),
                new.join(" OR ")
            );
            minutes.extend(self.client.rows::<At>(&sql).await?.into_iter().map(|row| row.at));
        }
        let spans = joined(&minutes);
        Ok(if spans.is_empty() { Vec::new() } else { vec![spans] })
    }

    /// The months that either side has.
    async fn months(&self, rollup: &Rollup, table: &Table) -> Result<Vec<Span>, QueryError> {
        #[derive(Deserialize)]
        struct Row {
            month: u32,
        }
        let raw = &self.plan.types[rollup.event].event.name;
        let sql = format!(
            "SELECT DISTINCT toUInt32(partition) AS month FROM system.parts WHERE active AND database = {} AND table IN ({}) \
             ORDER BY month",
            literal(self.client.database()),
            literals([raw, &table.name])
        );
        let second = |month: u32| u32::try_from(Month(month).start_seconds().max(0)).unwrap_or(u32::MAX);
        let next = |month: u32| if month % 100 == 12 { month + 89 } else { month + 1 };
        let months = self.client.rows::<Row>(&sql).await?;
        Ok(months.into_iter().map(|Row { month }| (second(month), second(next(month)))).collect())
    }

    /// Compares all minutes of some spans, or `only` some of them.
    async fn compared(
        &self,
        rollup: &Rollup,
        table: &Table,
        spans: &[Span],
        only: Option<&BTreeSet<u32>>,
    ) -> Result<Compared, QueryError> {
        let event = &self.plan.types[rollup.event].event;
        let column = ident(time_column(event));
        // Beyond the shorter retention one side is gone; an hour's grace, as the server expires rows when it pleases.
        let keep = [self.keep_days(&event.name), self.keep_days(&table.name)];
        let since = match keep.into_iter().filter(|&days| days > 0).min() {
            None => "0".to_owned(),
            Some(days) => format!("toUnixTimestamp(now() - INTERVAL {days} DAY) + 3600"),
        };
        let within = |column: &str| {
            let of = |(start, end): &Span| {
                format!("({column} >= toDateTime({start}, 'UTC') AND {column} < toDateTime({end}, 'UTC'))")
            };
            spans.iter().map(of).collect::<Vec<_>>().join(" OR ")
        };
        let only = only.map(|minutes| minutes.iter().map(u32::to_string).collect::<Vec<_>>().join(", "));
        let only = only.map(|minutes| format!(" WHERE at IN ({minutes})")).unwrap_or_default();
        let sides = Comparison::of(rollup);
        let sql = format!(
            "SELECT count() AS minutes, sum(merged) AS events, countIf(bad) AS wrong, groupArrayIf({LISTED})(CAST((at, raw, \
             merged, columns), 'Tuple(at UInt32, raw UInt64, merged UInt64, columns Array(String))'), bad) AS listed FROM (\
             SELECT greatest(r.at, v.at) AS at, r.n AS raw, v.n AS merged, \
             arrayFilter(name -> name != '', CAST([{wrong}], 'Array(String)')) AS columns, \
             raw != merged OR notEmpty(columns) AS bad \
             FROM (SELECT toUnixTimestamp(toStartOfMinute({column})) AS at, count() AS n{raw} FROM {raw_table} \
             WHERE {raw_within} GROUP BY at HAVING at >= {since}) AS r \
             FULL OUTER JOIN (SELECT toUnixTimestamp(m.minute) AS at, sum(m.count) AS n{parts} FROM {parts_table} AS m \
             WHERE m.`_source` = '' AND ({parts_within}) GROUP BY at HAVING at >= {since}) AS v ON r.at = v.at){only}",
            wrong = sides.wrong.join(", "),
            raw = sides.raw,
            raw_table = self.client.table(&event.name),
            raw_within = within(&column),
            parts = sides.parts,
            parts_table = self.client.table(&table.name),
            parts_within = within("m.minute")
        );
        Ok(self.client.rows::<Compared>(&sql).await?.into_iter().next().unwrap_or_default())
    }

    /// Compares minutes that differ again and again: those that were equal once add up. Of the others answers those that
    /// stand still, and those that were still changing at the end.
    async fn look_again(
        &self,
        rollup: &Rollup,
        table: &Table,
        mut open: Vec<Minute>,
    ) -> Result<(Vec<Minute>, BTreeSet<u32>), QueryError> {
        let deadline = Instant::now() + self.options.patience;
        let mut still: Vec<Minute> = Vec::new();
        while !open.is_empty() {
            tokio::time::sleep(PAUSE.min(self.options.patience)).await;
            let asked: BTreeSet<u32> = open.iter().map(|minute| minute.at).collect();
            let mut now = self.compared(rollup, table, &joined(&asked), Some(&asked)).await?.listed;
            // ClickHouse lists them as its join comes upon them.
            now.sort();
            still = now.iter().filter(|minute| open.contains(minute)).cloned().collect();
            let is_quiet =
                still.len() == now.len() && (self.options.patience.is_zero() || !self.is_ahead(table).await?);
            open = now;
            if is_quiet || Instant::now() >= deadline {
                break;
            }
        }
        let moving = open.iter().filter(|minute| !still.contains(minute)).map(|minute| minute.at).collect();
        Ok((still, moving))
    }

    /// Whether a block of a rollup stands that the ledger has not seen yet.
    async fn is_ahead(&self, table: &Table) -> Result<bool, QueryError> {
        #[derive(Deserialize)]
        struct Ahead {
            ahead: u64,
        }
        let sql = format!(
            "SELECT countIf(m.through > l.end) AS ahead FROM (SELECT toString(`_source`) AS source, max(`_through`) AS through \
             FROM {} WHERE `_source` != '' GROUP BY `_source`) AS m LEFT JOIN (SELECT toString(source) AS source, max(`to`) AS \
             end FROM {} GROUP BY source) AS l ON m.source = l.source",
            self.client.table(&table.name),
            self.client.table(crate::clickhouse::tables::LEDGER)
        );
        Ok(self.client.rows::<Ahead>(&sql).await?.iter().any(|row| row.ahead > 0))
    }

    /// Minutes that follow each other and differ in the same columns are one finding.
    async fn stretches(&self, rollup: &Rollup, wrong: &[Minute]) -> Result<Vec<Finding>, QueryError> {
        let alike = |a: &Minute, b: &Minute| b.at - a.at == 60 && a.columns == b.columns;
        let stretches: Vec<&[Minute]> = wrong.chunk_by(alike).collect();
        let mut findings = Vec::new();
        let mut changes: Option<BTreeMap<String, Vec<Change>>> = None;
        for stretch in stretches.iter().take(FINDINGS) {
            if changes.is_none() {
                changes = Some(self.changes().await?);
            }
            let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { continue };
            let writers = self.writers(first.at, last.at, changes.as_ref()).await?;
            findings.push(finding(rollup, stretch, first, last, writers, &self.plan.hash));
        }
        if stretches.len() > FINDINGS {
            let left: usize = stretches[FINDINGS..].iter().map(|stretch| stretch.len()).sum();
            let what = format!("{} more minutes differ", thousands(left as u64));
            findings.push(Finding::new(Kind::Minutes, &rollup.name, what));
        }
        Ok(findings)
    }
}

fn finding(
    rollup: &Rollup,
    stretch: &[Minute],
    first: &Minute,
    last: &Minute,
    writers: Writers,
    plan: &str,
) -> Finding {
    let sum = |of: fn(&Minute) -> u64| thousands(stretch.iter().map(of).sum());
    let minutes =
        Minutes { first: time(i64::from(first.at)), last: time(i64::from(last.at)), count: stretch.len() as u64 };
    let when = match stretch.len() {
        1 => format!("minute {}", minutes.first),
        many => format!("{} minutes {} to {}", thousands(many as u64), minutes.first, minutes.last),
    };
    let mut what = format!("{when}: {} raw rows, {} counted", sum(|m| m.raw), sum(|m| m.merged));
    if !first.columns.is_empty() {
        what.push_str(&format!("; not equal: {}", first.columns.join(", ")));
    }
    what.push_str(&writers.words(plan));
    what.push_str("; to be computed anew from the raw rows");
    Finding { minutes: Some(minutes), written_by: writers.some, ..Finding::new(Kind::Minutes, &rollup.name, what) }
}

/// Minutes as few spans: neighbours are joined over ever wider gaps until a query can name them.
fn joined(minutes: &BTreeSet<u32>) -> Vec<Span> {
    let mut gap = 60;
    loop {
        let mut spans: Vec<Span> = Vec::new();
        for &minute in minutes {
            match spans.last_mut() {
                Some((_, end)) if minute < end.saturating_add(gap) => *end = minute.saturating_add(60),
                _ => spans.push((minute, minute.saturating_add(60))),
            }
        }
        if spans.len() <= SPANS {
            return spans;
        }
        gap *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_that_follow_each_other_are_one_span() {
        assert_eq!(joined(&BTreeSet::new()), []);
        assert_eq!(joined(&[0, 60, 120, 6_000].into()), [(0, 180), (6_000, 6_060)]);
    }

    #[test]
    fn many_spans_become_few_that_hold_all_minutes() {
        let minutes: BTreeSet<u32> = (0..5_000_u32).map(|n| n * n / 7 * 60).collect();
        let spans = joined(&minutes);
        assert!(spans.len() <= SPANS && spans.windows(2).all(|pair| pair[0].1 < pair[1].0), "{spans:?}");
        assert!(minutes.iter().all(|at| spans.iter().any(|(start, end)| start <= at && at + 60 <= *end)));
    }
}
