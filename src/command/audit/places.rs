//! Rows where the ledger has none: beyond its end, and of sources that it does not know.
//!
//! Workers write rows first and the ledger last, so rows beyond its end are what a batch in flight looks like. Whether one
//! is, only time tells: a worker that is at it moves the ledger past them within seconds.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde::Deserialize;

use super::finding::{Finding, Kind, thousands};
use super::ledger::SourceEnd;
use super::redrives::is_redrive;
use super::{Audit, PAUSE};
use crate::clickhouse::sql::{literal, literals};
use crate::clickhouse::tables::{LEDGER, time_column};
use crate::clickhouse::{QueryError, ddl};
use crate::plan::{Table, TableKind};

/// One past the greatest offset of a source in a table.
#[derive(Debug, Deserialize)]
pub(super) struct Top {
    source: String,
    top: u64,
}

impl Top {
    /// The rows of its source that are not proved yet, as a condition; `None`: there are none.
    pub(super) fn above(&self, sources: &[SourceEnd]) -> Option<String> {
        let base = sources.iter().find(|source| source.source == self.source).map_or(0, |source| source.base);
        let (source, top) = (literal(&self.source), self.top);
        (top > base).then(|| format!("(`_source` = {source} AND `_offset` >= {base} AND `_offset` < {top})"))
    }
}

/// Rows that are ahead of the ledger.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) table: String,
    pub(super) source: String,
    /// Rows, where they can be counted: a rollup's can't be told apart by source.
    pub(super) rows: Option<u64>,
    pub(super) from: u64,
    pub(super) through: u64,
}

impl Audit<'_> {
    /// Finds what is ahead of the ledger, waits until workers have caught up with it, and says what is left.
    pub(super) async fn ahead(&mut self) -> Result<()> {
        let mut aheads = Vec::new();
        for table in self.row_tables() {
            aheads.extend(self.rows_ahead(table).await?);
        }
        aheads.extend(self.marks_ahead().await?);
        let ends = self.settled(&aheads).await?;
        let mut findings = Vec::new();
        let mut in_flight: BTreeMap<&str, u64> = BTreeMap::new();
        for ahead in &aheads {
            match ends.get(&ahead.source) {
                Some(&end) if end >= ahead.through => {
                    *in_flight.entry(&ahead.source).or_default() += ahead.rows.unwrap_or(0);
                }
                end => findings.push(self.left_behind(ahead, end.copied())),
            }
        }
        let notes = in_flight.iter().map(|(source, rows)| {
            format!(
                "{source}: a batch was in flight, {} rows of which were beyond the ledger's end; its worker has finished \
                 it since",
                thousands(*rows)
            )
        });
        self.report.notes.extend(notes);
        let figures = "no rows but those of batches in flight are beyond the ledger's end or unknown to it".to_owned();
        self.report.checked("ahead", figures, findings);
        Ok(())
    }

    /// Answered by a projection of one row per part, source and month.
    pub(super) async fn tops(&self, table: &Table) -> Result<Vec<Top>, QueryError> {
        let time = match table.kind {
            TableKind::Raw(index) => time_column(&self.plan.types[index].event),
            TableKind::DeadLetters | TableKind::Rollup(_) => "timestamp",
        };
        let month = ddl::month(time);
        let sql = format!(
            "SELECT toString(s) AS source, max(m) + 1 AS top FROM (SELECT `_source` AS s, {month}, max(`_offset`) AS m FROM \
             {} GROUP BY `_source`, {month}) GROUP BY s ORDER BY source",
            self.client.table(&table.name)
        );
        self.client.rows(&sql).await
    }

    fn known(&self, name: &str) -> Option<&SourceEnd> {
        self.sources.iter().find(|source| source.source == name)
    }

    async fn rows_ahead(&self, table: &Table) -> Result<Vec<Ahead>, QueryError> {
        let end = |source: &str| self.known(source).map_or(0, |source| source.end);
        let tops: Vec<Top> = self.tops(table).await?;
        let over: Vec<&Top> = tops.iter().filter(|top| top.top > end(&top.source)).collect();
        if over.is_empty() {
            return Ok(Vec::new());
        }
        let of = |top: &&Top| format!("(`_source` = {} AND `_offset` >= {})", literal(&top.source), end(&top.source));
        let found = self.found(table, &over.iter().map(of).collect::<Vec<_>>()).await?;
        let rows = |source: &str| found.iter().find(|found| found.source == source);
        let ahead = |top: &&Top| {
            let found = rows(&top.source);
            Ahead {
                table: table.name.clone(),
                source: top.source.clone(),
                rows: found.map(|found| found.rows),
                from: if self.known(&top.source).is_some() {
                    end(&top.source)
                } else {
                    found.map_or(0, |found| found.least)
                },
                through: top.top,
            }
        };
        Ok(over.iter().map(ahead).collect())
    }

    /// Waits until the ledger has passed all that is ahead of it, or for so long that no worker can be at it; answers
    /// the ledger's ends then.
    async fn settled(&self, aheads: &[Ahead]) -> Result<BTreeMap<String, u64>, QueryError> {
        let deadline = Instant::now() + self.options.patience;
        let names: Vec<&String> = aheads.iter().map(|ahead| &ahead.source).collect();
        loop {
            let ends = if names.is_empty() { BTreeMap::new() } else { self.ends(&names).await? };
            let open = aheads.iter().any(|ahead| ends.get(&ahead.source).is_none_or(|&end| end < ahead.through));
            if !open || Instant::now() >= deadline {
                return Ok(ends);
            }
            tokio::time::sleep(PAUSE.min(self.options.patience)).await;
        }
    }

    async fn ends(&self, names: &[&String]) -> Result<BTreeMap<String, u64>, QueryError> {
        let sql = format!(
            "SELECT toString(source) AS source, max(`to`) AS top FROM {} WHERE source IN ({}) GROUP BY source",
            self.client.table(LEDGER),
            literals(names)
        );
        let tops: Vec<Top> = self.client.rows(&sql).await?;
        Ok(tops.into_iter().map(|top| (top.source, top.top)).collect())
    }

    /// What the ledger has not passed in all that time.
    fn left_behind(&self, ahead: &Ahead, end: Option<u64>) -> Finding {
        let Ahead { table, source, rows, from, through } = ahead;
        let rows = rows.map_or("a mark".to_owned(), |rows| format!("{} rows", thousands(rows)));
        let Some(end) = end else {
            let what = format!(
                "{rows} of a source that the ledger does not know: its ledger rows were deleted, or these rows were \
                 written by hand"
            );
            return Finding::new(Kind::UnknownSource, table, what).at(source, *from, *through);
        };
        let committed = self.committed(source);
        let what = match committed {
            _ if is_redrive(source) => format!(
                "{rows} beyond the ledger's end: a redrive of dead letters was interrupted, and nobody went on with it within \
                 {} s: `highwater dead-letters redrive --yes` finishes it; until then tables hold parts of a batch",
                self.options.patience.as_secs()
            ),
            Some(committed) if committed > end => format!(
                "{rows} beyond the ledger's end, and the group committed {committed}: as a commit follows its ledger row, \
                 rows of the ledger were deleted"
            ),
            _ => format!(
                "{rows} beyond the ledger's end, and no worker finished their batch within {} s: start one (or see why \
                 it stands still), and it finishes it; until then tables hold parts of the batch",
                self.options.patience.as_secs()
            ),
        };
        Finding::new(Kind::Unfinished, table, what).at(source, *from, *through)
    }

    /// Whether a table as a whole has the rows that the ledger says: what finds rows that were deleted or doubled in
    /// ranges that are not checked one by one.
    pub(super) async fn table_total(&self, table: &Table) -> Result<Option<Finding>, QueryError> {
        #[derive(Deserialize)]
        struct Count {
            rows: u64,
        }
        if self.is_full() {
            return Ok(None);
        }
        let sum = |of: fn(&SourceEnd, &str) -> u64| self.sources.iter().map(|s| of(s, &table.name)).sum::<u64>();
        let (most, expiring) = match table.kind {
            TableKind::DeadLetters => (sum(|s, _| s.dead_letters), sum(|s, _| s.expiring_dead_letters)),
            TableKind::Raw(_) | TableKind::Rollup(_) => (
                sum(|s, table| s.rows.get(table).copied().unwrap_or(0)),
                sum(|s, table| s.expiring_rows.get(table).copied().unwrap_or(0)),
            ),
        };
        let beyond = async || -> Result<u64, QueryError> {
            Ok(self.rows_ahead(table).await?.iter().filter_map(|ahead| ahead.rows).sum())
        };
        // Rows may come between two questions: what is beyond the end has to be the same before and after.
        let mut before = beyond().await?;
        for _ in 0..10 {
            let sql = format!("SELECT count() AS rows FROM {}", self.client.table(&table.name));
            let rows = self.client.rows::<Count>(&sql).await?.first().map_or(0, |count| count.rows);
            let after = beyond().await?;
            if before == after {
                let found = rows.saturating_sub(after);
                let fits = (most - expiring..=most).contains(&found);
                let what = format!(
                    "the table has {} rows up to the ledger's end, and all of the ledger {}: rows were deleted or added in \
                     ranges that an earlier audit proved; an audit without --since names them",
                    thousands(found),
                    thousands(most)
                );
                return Ok((!fits).then(|| Finding::new(Kind::TableTotal, &table.name, what)));
            }
            before = after;
        }
        Ok(None)
    }
}
