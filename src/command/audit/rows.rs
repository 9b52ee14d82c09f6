//! The ledger against the tables of events and of dead letters, range by range.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::Audit;
use super::ledger::SourceEnd;
use super::report::{Finding, thousands};
use crate::clickhouse::QueryError;
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::LEDGER;
use crate::plan::{Table, TableKind};

/// Events that are compared at a time: what bounds the memory of a query, at some 50 bytes an event.
const AT_A_TIME: u64 = 4_000_000;

/// Offsets of one source that are compared at a time.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Chunk {
    begin: u64,
    end: u64,
}

/// A range whose rows are not what the ledger says.
#[derive(Debug, Deserialize)]
struct Mismatch {
    from: u64,
    to: u64,
    expected: u64,
    found: u64,
    different: u64,
    expiring: bool,
}

/// Where a table's rows of one source stand to the ledger.
#[derive(Debug, Deserialize)]
struct Place {
    source: String,
    inside: u64,
    beyond: u64,
    before: u64,
}

impl Audit<'_> {
    pub(super) async fn rows(&mut self) -> Result<()> {
        let mut chunks: BTreeMap<&str, Vec<Chunk>> = BTreeMap::new();
        for source in &self.sources {
            chunks.insert(&source.source, self.chunks(source).await?);
        }
        let mut done = Vec::new();
        let mut notes = Vec::new();
        for table in &self.plan.tables {
            if matches!(table.kind, TableKind::Rollup(_)) {
                continue;
            }
            let (mut findings, mut inside, mut expired) = (Vec::new(), 0, 0);
            for place in self.places(table).await? {
                inside += place.inside;
                findings.extend(self.before(table, &place));
                if place.beyond > 0 {
                    let (beyond, source) = (thousands(place.beyond), &place.source);
                    notes.push(format!(
                        "{} {source}: {beyond} rows beyond the ledger's end, of a batch in flight",
                        table.name
                    ));
                }
            }
            for source in &self.sources {
                for chunk in chunks.get(source.source.as_str()).into_iter().flatten() {
                    for mismatch in self.mismatches(table, source, *chunk).await? {
                        match mismatch.finding(table, source) {
                            Some(finding) => findings.push(finding),
                            None => expired += mismatch.expected - mismatch.found,
                        }
                    }
                }
            }
            if expired > 0 {
                notes.push(format!("{}: {} rows have expired by its retention", table.name, thousands(expired)));
            }
            let figures = format!("{}: {} rows, each once and where the ledger says", table.name, thousands(inside));
            done.push((figures, findings));
        }
        for (figures, findings) in done {
            self.report.checked("rows", figures, findings);
        }
        self.report.notes.extend(notes);
        Ok(())
    }

    async fn chunks(&self, source: &SourceEnd) -> Result<Vec<Chunk>, QueryError> {
        let sql = format!(
            "SELECT min(`from`) AS begin, max(`to`) AS end FROM (SELECT `from`, `to`, intDiv(sum(events) OVER (ORDER BY \
             `from`, `to` ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW), {AT_A_TIME}) AS chunk FROM {} WHERE source = \
             {} AND `to` > `from` AND `to` <= {}) GROUP BY chunk ORDER BY chunk",
            self.client.table(LEDGER),
            literal(&source.source),
            source.end
        );
        self.client.rows(&sql).await
    }

    async fn mismatches(&self, table: &Table, source: &SourceEnd, chunk: Chunk) -> Result<Vec<Mismatch>, QueryError> {
        let expected = match table.kind {
            TableKind::DeadLetters => "dead_letters".to_owned(),
            TableKind::Raw(_) | TableKind::Rollup(_) => format!("rows[{}]", literal(&table.name)),
        };
        let expiring = match self.keep_days(&table.name) {
            0 => "false".to_owned(),
            days if table.kind == TableKind::DeadLetters => {
                format!("CAST(written_at < now() - INTERVAL {days} DAY, 'Bool')")
            }
            days => {
                format!("CAST(least(ifNull(min_time, written_at), written_at) < now() - INTERVAL {days} DAY, 'Bool')")
            }
        };
        let (ledger, source) = (self.client.table(LEDGER), literal(&source.source));
        let Chunk { begin, end } = chunk;
        let ranges = format!(
            "SELECT `from`, `to`, source, {expected} AS expected, {expiring} AS expiring FROM {ledger} WHERE source = \
             {source} AND `to` > `from` AND `from` >= {begin} AND `to` <= {end}"
        );
        let sql = format!(
            "SELECT l.`from` AS `from`, l.`to` AS `to`, l.expected AS expected, c.found AS found, c.different AS different, \
             l.expiring AS expiring FROM ({ranges}) AS l LEFT JOIN (SELECT r.`from` AS `from`, count() AS found, \
             uniqExact(p.o) AS different FROM (SELECT `_source` AS s, `_offset` AS o FROM {table} WHERE `_source` = {source} \
             AND `_offset` >= {begin} AND `_offset` < {end}) AS p ASOF INNER JOIN ({ranges}) AS r ON p.s = r.source AND \
             p.o >= r.`from` WHERE p.o < r.`to` GROUP BY r.`from`) AS c ON l.`from` = c.`from` \
             WHERE l.expected != c.found OR c.found != c.different ORDER BY `from`",
            table = self.client.table(&table.name)
        );
        self.client.rows(&sql).await
    }

    async fn places(&self, table: &Table) -> Result<Vec<Place>, QueryError> {
        let first =
            self.sources.iter().map(|source| format!("toUInt64({})", source.first)).collect::<Vec<_>>().join(", ");
        let names = crate::clickhouse::sql::literals(self.sources.iter().map(|source| &source.source));
        let first = match self.sources.is_empty() {
            true => "toUInt64(0)".to_owned(),
            false => format!("transform(toString(`_source`), [{names}], [{first}], toUInt64(0))"),
        };
        let sql = format!(
            "SELECT toString(`_source`) AS source, countIf(`_offset` >= first AND `_offset` < end) AS inside, \
             countIf(`_offset` >= end) AS beyond, countIf(`_offset` < first) AS before FROM (SELECT `_source`, `_offset`, \
             {end} AS end, {first} AS first FROM {table}) GROUP BY `_source` ORDER BY source",
            end = self.end_of("`_source`"),
            table = self.client.table(&table.name)
        );
        self.client.rows(&sql).await
    }

    fn before(&self, table: &Table, place: &Place) -> Option<Finding> {
        let source = self.sources.iter().find(|source| source.source == place.source)?;
        (place.before > 0).then(|| Finding {
            table: table.name.clone(),
            source: Some(place.source.clone()),
            from: Some(0),
            to: Some(source.first),
            what: format!("{} rows below the ledger's first range", thousands(place.before)),
        })
    }
}

impl Mismatch {
    /// `None`: rows have expired.
    fn finding(&self, table: &Table, source: &SourceEnd) -> Option<Finding> {
        let doubled = self.found - self.different;
        if self.expiring && doubled == 0 && self.found < self.expected {
            return None;
        }
        let mut what = format!("{} rows by the ledger, {} found", thousands(self.expected), thousands(self.found));
        if doubled > 0 {
            what.push_str(&format!(", {} of them more than once", thousands(doubled)));
        }
        if self.different < self.expected {
            what.push_str(&format!(", {} missing", thousands(self.expected - self.different)));
        }
        if self.different > self.expected {
            what.push_str(&format!(", {} more than the ledger knows", thousands(self.different - self.expected)));
        }
        Some(Finding {
            table: table.name.clone(),
            source: Some(source.source.clone()),
            from: Some(self.from),
            to: Some(self.to),
            what,
        })
    }
}
