//! The ledger against the tables of events and of dead letters, range by range.
//!
//! Offsets are compared in slices of bounded weight. A slice holds a stretch of every source, so that it reads a stretch
//! of each table: partitions of a topic go forward together, and an index on the offset leads to the granules. Within a
//! range offsets are collected in a bitmap, which is exact and costs at most two bytes an event.

use anyhow::Result;
use serde::Deserialize;

use super::finding::{Finding, Kind, thousands};
use super::ledger::{SourceEnd, expiring};
use super::{Audit, MOST};
use crate::clickhouse::QueryError;
use crate::clickhouse::sql::{literal, literals};
use crate::clickhouse::tables::LEDGER;
use crate::plan::{Table, TableKind};

/// What a slice may weigh: bounds the memory of a query.
const SLICE: u64 = 32_000_000;
/// What a range weighs beside its events: the server keeps some 600 bytes for each.
const RANGE: u64 = 320;
/// A source's part of a slice weighs at least this much.
const LEAST: u64 = 1_000_000;
/// Stretches of offsets that a query names; beyond, neighbours are joined.
const STRETCHES: usize = 32;

/// A stretch of one source.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Stretch {
    source: String,
    begin: u64,
    end: u64,
}

/// What came of one slice in one table.
#[derive(Debug, Deserialize)]
struct Compared {
    found: u64,
    expired: u64,
    wrong: u64,
    /// Ranges whose rows are not what the ledger says: source, from, to, expected, found, different.
    ranges: Vec<(String, u64, u64, u64, u64, u64)>,
}

impl Audit<'_> {
    pub(super) async fn rows(&mut self) -> Result<()> {
        let slices = self.slices().await?;
        for table in self.row_tables() {
            let (mut findings, mut found, mut expired, mut wrong) = (Vec::new(), 0, 0, 0);
            for slice in &slices {
                let compared = self.compare(table, slice).await?;
                found += compared.found;
                expired += compared.expired;
                wrong += compared.wrong;
                let room = MOST - findings.len();
                findings.extend(compared.ranges.iter().take(room).map(|range| mismatch(table, range)));
            }
            if wrong > findings.len() as u64 {
                let what = format!("{} more ranges differ", thousands(wrong - findings.len() as u64));
                findings.push(Finding::new(Kind::MissingRows, &table.name, what));
            }
            if expired > 0 {
                let note = format!("{}: {} rows have expired by its retention", table.name, thousands(expired));
                self.report.notes.push(note);
            }
            findings.extend(self.below_first(table).await?);
            findings.extend(self.table_total(table).await?);
            let figures = format!("{}: {} rows, each once and where the ledger says", table.name, thousands(found));
            self.report.checked("rows", figures, findings);
        }
        Ok(())
    }

    /// Slice after slice of what is to be checked.
    async fn slices(&self) -> Result<Vec<Vec<Stretch>>, QueryError> {
        let weight = (SLICE / (self.sources.len() as u64).max(1)).max(LEAST);
        let mut slices: Vec<Vec<Stretch>> = Vec::new();
        for source in self.sources.iter().filter(|source| source.base < source.end) {
            let sql = format!(
                "SELECT {name} AS source, min(`from`) AS begin, max(`to`) AS end FROM (SELECT `from`, `to`, \
                 intDiv(sum(events) OVER so_far + {RANGE} * row_number() OVER so_far, {weight}) AS slice FROM {ledger} \
                 WHERE source = {name} AND `to` > `from` AND `to` > {base} AND `to` <= {end} WINDOW so_far AS \
                 (ORDER BY `from`, `to` ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)) GROUP BY slice ORDER BY slice",
                name = literal(&source.source),
                ledger = self.client.table(LEDGER),
                base = source.base,
                end = source.end
            );
            for (at, stretch) in self.client.rows::<Stretch>(&sql).await?.into_iter().enumerate() {
                if slices.len() == at {
                    slices.push(Vec::new());
                }
                slices[at].push(stretch);
            }
        }
        Ok(slices)
    }

    async fn compare(&self, table: &Table, slice: &[Stretch]) -> Result<Compared, QueryError> {
        let keep_days = self.keep_days(&table.name);
        let (expected, expiring) = match table.kind {
            TableKind::DeadLetters => ("dead_letters".to_owned(), expiring(keep_days, false)),
            TableKind::Raw(_) | TableKind::Rollup(_) => {
                (format!("rows[{}]", literal(&table.name)), expiring(keep_days, true))
            }
        };
        let of = |stretch: &Stretch| {
            let Stretch { source, begin, end } = stretch;
            format!("(source = {} AND `from` >= {begin} AND `to` <= {end})", literal(source))
        };
        let ranges = format!(
            "SELECT source, `from`, `to`, {expected} AS expected, {expiring} AS expiring FROM {} WHERE `to` > `from` AND \
             ({})",
            self.client.table(LEDGER),
            slice.iter().map(of).collect::<Vec<_>>().join(" OR ")
        );
        let sql = format!(
            "SELECT sum(f) AS found, sumIf(e - f, gone) AS expired, countIf(bad) AS wrong, \
             arraySort(groupArrayIf({MOST})((s, a, b, e, f, d), bad)) AS ranges FROM (\
             SELECT l.source AS s, l.`from` AS a, l.`to` AS b, l.expected AS e, c.found AS f, c.different AS d, \
             l.expiring AND f = d AND f < e AS gone, (e != f OR f != d) AND NOT gone AS bad \
             FROM ({ranges}) AS l LEFT JOIN (\
             SELECT r.source AS source, r.`from` AS `from`, count() AS found, \
             groupBitmap(toUInt32(p.o - r.`from`)) AS different \
             FROM (SELECT `_source` AS s, `_offset` AS o FROM {rows} WHERE `_source` IN ({names}) AND ({offsets})) AS p \
             ASOF INNER JOIN ({ranges}) AS r ON p.s = r.source AND p.o >= r.`from` WHERE p.o < r.`to` \
             GROUP BY r.source, r.`from`) AS c ON l.source = c.source AND l.`from` = c.`from`)",
            rows = self.client.table(&table.name),
            names = literals(slice.iter().map(|stretch| &stretch.source)),
            offsets = offsets(slice)
        );
        let compared = self.client.rows::<Compared>(&sql).await?.into_iter().next();
        compared.ok_or(QueryError::Unexpected { expected: "sums over ranges", answer: String::new() })
    }

    /// Rows that come before the ledger's first range; what earlier audits proved has none.
    async fn below_first(&self, table: &Table) -> Result<Vec<Finding>, QueryError> {
        let whole = self.sources.iter().filter(|source| source.first > 0 && source.base == source.first);
        let of =
            |source: &SourceEnd| format!("(`_source` = {} AND `_offset` < {})", literal(&source.source), source.first);
        let conditions: Vec<String> = whole.map(of).collect();
        if conditions.is_empty() {
            return Ok(Vec::new());
        }
        let finding = |found: Found| {
            let first = self.sources.iter().find(|source| source.source == found.source)?.first;
            let what = format!(
                "{} rows below the ledger's first range: its first rows were deleted, or these were written by hand",
                thousands(found.rows)
            );
            Some(Finding::new(Kind::BelowFirst, &table.name, what).at(&found.source, found.least, first))
        };
        Ok(self.found(table, &conditions).await?.into_iter().filter_map(finding).collect())
    }
}

/// Rows that meet a condition, per source.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub(super) source: String,
    pub(super) rows: u64,
    pub(super) least: u64,
}

impl Audit<'_> {
    /// Counts the rows of a table that meet any of these conditions.
    pub(super) async fn found(&self, table: &Table, any: &[String]) -> Result<Vec<Found>, QueryError> {
        let sql = format!(
            "SELECT toString(`_source`) AS source, count() AS rows, min(`_offset`) AS least FROM {} WHERE {} \
             GROUP BY `_source` ORDER BY source",
            self.client.table(&table.name),
            any.join(" OR ")
        );
        self.client.rows(&sql).await
    }
}

/// The offsets of a slice, as a condition: few stretches, so that it costs little for each row.
fn offsets(slice: &[Stretch]) -> String {
    let mut stretches: Vec<(u64, u64)> = slice.iter().map(|stretch| (stretch.begin, stretch.end)).collect();
    stretches.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (begin, end) in stretches {
        match joined.last_mut() {
            Some(last) if begin <= last.1 => last.1 = last.1.max(end),
            _ => joined.push((begin, end)),
        }
    }
    while joined.len() > STRETCHES {
        let gap = |at: usize| joined[at + 1].0 - joined[at].1;
        let Some(at) = (0..joined.len() - 1).min_by_key(|&at| gap(at)) else { break };
        joined[at].1 = joined.remove(at + 1).1;
    }
    let conditions = joined.iter().map(|(begin, end)| format!("`_offset` >= {begin} AND `_offset` < {end}"));
    conditions.collect::<Vec<_>>().join(" OR ")
}

fn mismatch(table: &Table, range: &(String, u64, u64, u64, u64, u64)) -> Finding {
    let (source, from, to, expected, found, different) = range;
    let doubled = found - different;
    let mut what = format!("{} rows by the ledger, {} found", thousands(*expected), thousands(*found));
    let mut kind = Kind::ExtraRows;
    if different > expected {
        what.push_str(&format!(", {} more than the ledger knows", thousands(different - expected)));
    }
    if different < expected {
        kind = Kind::MissingRows;
        what.push_str(&format!(", {} missing", thousands(expected - different)));
    }
    if doubled > 0 {
        kind = Kind::DoubledRows;
        what.push_str(&format!(", {} of them more than once", thousands(doubled)));
    }
    Finding::new(kind, &table.name, what).at(source, *from, *to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(begin: u64, end: u64) -> Stretch {
        Stretch { source: "1/t/0".into(), begin, end }
    }

    #[test]
    fn stretches_that_touch_are_named_once() {
        let named = offsets(&[stretch(50, 60), stretch(0, 10), stretch(10, 20), stretch(5, 8)]);
        assert_eq!(named, "`_offset` >= 0 AND `_offset` < 20 OR `_offset` >= 50 AND `_offset` < 60");
    }

    #[test]
    fn many_stretches_become_few_over_their_least_gaps() {
        let many: Vec<Stretch> = (0..100).map(|n| stretch(n * n * 10, n * n * 10 + 1)).collect();
        let named = offsets(&many);
        assert_eq!(named.matches(" OR ").count(), STRETCHES - 1);
        assert!(named.starts_with("`_offset` >= 0 AND ") && named.ends_with("`_offset` < 98011"), "{named}");
    }
}
