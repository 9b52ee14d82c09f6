//! Redriven dead letters: the lists of runs against each other, the ledger and the rows.
//!
//! A run is a source like any other, so that its ranges and minutes are checked as all are; nothing of it is held against
//! Kafka, where its events stand under another name. What is checked here is what only a run has: the list that was fixed
//! before anything was written, of which every letter became a row or was a duplicate, and no letter stands in two.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde::Deserialize;

use super::finding::{Finding, Kind, thousands};
use super::ledger::SourceEnd;
use super::{Audit, MOST};
use crate::batch::Source;
use crate::clickhouse::QueryError;
use crate::clickhouse::redrives::source_of;
use crate::clickhouse::sql::literals;
use crate::clickhouse::tables::{LEDGER, REDRIVES};
use crate::plan::TableKind;

/// Offsets of one source, told apart from others by their number and the sum of their hashes.
#[derive(Debug, Deserialize)]
struct Offsets {
    source: String,
    /// Those of event types that the plan has.
    letters: u64,
    hash: u64,
    /// How many are of other types, whose tables nobody asks.
    retired: u64,
    retired_types: BTreeSet<String>,
    first: u64,
    /// One past the last.
    upto: u64,
}

impl Audit<'_> {
    pub(super) async fn redrives(&mut self) -> Result<()> {
        let mut findings = self.listed_twice().await?;
        let listed = self.listed().await?;
        let (mut finished, mut unfinished) = (Vec::new(), Vec::new());
        let retired: u64 = listed.values().map(|list| list.retired).sum();
        let types: BTreeSet<&str> = listed.values().flat_map(|list| &list.retired_types).map(String::as_str).collect();
        if retired > 0 {
            self.report.notes.push(format!(
                "redrives: {} letters of event types that have no schema any more were not checked: {}",
                thousands(retired),
                types.into_iter().collect::<Vec<_>>().join(", ")
            ));
        }
        for list in listed.values() {
            let ledger = self.sources.iter().find(|source| source.source == list.source);
            // What the ledger has not got yet may be in the middle of being written.
            let Some(ledger) = ledger.filter(|ledger| ledger.end >= list.upto) else {
                unfinished.push(list.source.as_str());
                continue;
            };
            // A finished run changes no more: what was proved of it, or is older than asked for, is not read again.
            if self.is_full() || ledger.base < list.upto {
                finished.push((list, ledger));
            }
        }
        let rows = self.redriven(&finished).await?;
        let letters: u64 = finished.iter().map(|(list, _)| list.letters).sum();
        findings.extend(finished.iter().filter_map(|(list, ledger)| differing(list, rows.get(&list.source), ledger)));
        let runs = self.sources.iter().filter(|source| is_redrive(&source.source));
        for source in runs.filter(|source| source.end > source.first && !listed.contains_key(&source.source)) {
            let what = format!(
                "the ledger has a run that the table {REDRIVES} does not list: its list was deleted, and its letters could be \
                 redriven again"
            );
            findings.push(Finding::new(Kind::UnknownRun, LEDGER, what).at(&source.source, source.first, source.end));
        }
        if !unfinished.is_empty() {
            self.report.notes.push(format!(
                "redrives: {} not finished yet: `highwater dead-letters redrive --yes` finishes what was interrupted",
                unfinished.join(", ")
            ));
        }
        if !listed.is_empty() || !findings.is_empty() {
            let figures =
                format!("{} redriven letters became rows, those that were listed, each once", thousands(letters));
            self.report.checked("redrives", figures, findings);
        }
        Ok(())
    }

    /// Letters that stand in the lists more than once.
    async fn listed_twice(&self) -> Result<Vec<Finding>, QueryError> {
        #[derive(Deserialize)]
        struct Twice {
            source: String,
            offset: u64,
            runs: BTreeSet<u32>,
        }
        let sql = format!(
            "SELECT concat(toString(epoch), '/', topic, '/', toString(partition)) AS source, offset, groupUniqArray(10)(run) \
             AS runs FROM {} WHERE NOT taken_back GROUP BY epoch, topic, partition, offset HAVING count() > 1 ORDER BY source, offset LIMIT {MOST}",
            self.client.table(REDRIVES)
        );
        let finding = |Twice { source, offset, runs }: Twice| {
            let runs: Vec<String> = runs.iter().map(u32::to_string).collect();
            let what = format!("the letter is listed more than once, by run {}", runs.join(" and run "));
            Finding::new(Kind::ListedTwice, REDRIVES, what).at(&source, offset, offset + 1)
        };
        Ok(self.client.rows::<Twice>(&sql).await?.into_iter().map(finding).collect())
    }

    /// The letters that become rows, by the run's sources.
    async fn listed(&self) -> Result<BTreeMap<String, Offsets>, QueryError> {
        let known = literals(self.plan.types.iter().map(|planned| planned.event.name.as_str()));
        let sql = format!(
            "WITH has([{known}], toString(event)) AS known SELECT {} AS source, countIf(known) AS letters, sumIf(cityHash64(offset), known) AS hash, countIf(NOT known) AS \
             retired, groupUniqArrayIf({MOST})(toString(event), NOT known) AS retired_types, min(offset) AS first, max(offset) \
             + 1 AS upto FROM {} WHERE NOT duplicate AND NOT taken_back GROUP BY source",
            source_of(""),
            self.client.table(REDRIVES)
        );
        let listed: Vec<Offsets> = self.client.rows(&sql).await?;
        Ok(listed.into_iter().map(|list| (list.source.clone(), list)).collect())
    }

    /// The rows of these runs within their ledger, over all tables of events: how many, and the sum of their offsets'
    /// hashes.
    async fn redriven(&self, runs: &[(&Offsets, &SourceEnd)]) -> Result<BTreeMap<String, (u64, u64)>, QueryError> {
        #[derive(Deserialize)]
        struct Rows {
            source: String,
            letters: u64,
            hash: u64,
        }
        let mut rows: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let first = runs.iter().map(|(_, ledger)| ledger.first).min();
        let end = runs.iter().map(|(_, ledger)| ledger.end).max();
        let (Some(first), Some(end)) = (first, end) else { return Ok(rows) };
        for table in self.plan.tables.iter().filter(|table| matches!(table.kind, TableKind::Raw(_))) {
            let sql = format!(
                "SELECT toString(`_source`) AS source, count() AS letters, sum(cityHash64(`_offset`)) AS hash FROM {} WHERE \
                 `_source` IN ({}) AND `_offset` >= {first} AND `_offset` < {end} GROUP BY `_source`",
                self.client.table(&table.name),
                literals(runs.iter().map(|(list, _)| &list.source))
            );
            for Rows { source, letters, hash } in self.client.rows::<Rows>(&sql).await? {
                let sum = rows.entry(source).or_default();
                *sum = (sum.0 + letters, sum.1.wrapping_add(hash));
            }
        }
        Ok(rows)
    }
}

/// Whether the rows of a finished run are not those that it lists.
fn differing(list: &Offsets, rows: Option<&(u64, u64)>, ledger: &SourceEnd) -> Option<Finding> {
    let (found, hash) = rows.copied().unwrap_or_default();
    let expiring: u64 = ledger.expiring_rows.values().sum();
    let expired = found < list.letters && list.letters - found <= expiring;
    if (found, hash) == (list.letters, list.hash) || expired {
        return None;
    }
    let what = format!(
        "the run lists {} letters that become rows, and {} rows are there{}",
        thousands(list.letters),
        thousands(found),
        if found == list.letters { ", at other offsets" } else { "" }
    );
    Some(Finding::new(Kind::Redriven, REDRIVES, what).at(&list.source, list.first, list.upto))
}

/// Whether a source is a run's.
pub(super) fn is_redrive(source: &str) -> bool {
    Source::parse(source).is_some_and(|source| source.redrive.is_some())
}
