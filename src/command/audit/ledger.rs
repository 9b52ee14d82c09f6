//! The ledger by itself: ranges touch, each adds up, and it is no shorter than it was.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

use super::finding::{Finding, Kind, thousands, time};
use super::record::{Proven, Since};
use super::report::Totals;
use super::{Audit, MOST};
use crate::batch::Source;
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::{LEDGER, SOURCES};
use crate::clickhouse::{Client, QueryError};

/// A source as its ledger stood at the beginning of the audit.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SourceEnd {
    pub(super) source: String,
    pub(super) first: u64,
    pub(super) end: u64,
    /// Offsets below it are not checked: an audit has proved them, or they are older than asked for.
    #[serde(default)]
    pub(super) base: u64,
    /// Seconds since the last row.
    pub(super) age: u64,
    /// Offsets in all ranges together; `end - first` where they touch.
    covered: u64,
    /// One past the last offset of ranges older than `--since`.
    older: u64,
    /// Rows of each table of events, and those of them that retention may have taken.
    pub(super) rows: BTreeMap<String, u64>,
    pub(super) expiring_rows: BTreeMap<String, u64>,
    /// The same of dead letters.
    pub(super) dead_letters: u64,
    pub(super) expiring_dead_letters: u64,
}

/// Whether retention may have taken rows of a range, as an expression over the ledger's columns.
pub(super) fn expiring(keep_days: u32, by_event_time: bool) -> String {
    let oldest = if by_event_time { "least(ifNull(min_time, written_at), written_at)" } else { "written_at" };
    match keep_days {
        0 => "false".to_owned(),
        days => format!("CAST({oldest} < now() - INTERVAL {days} DAY, 'Bool')"),
    }
}

/// All sources; `keep` is for how many days events and dead letters are kept.
pub(super) async fn sources(client: &Client, since: Since, keep: (u32, u32)) -> Result<Vec<SourceEnd>, QueryError> {
    let (events, dead) = (expiring(keep.0, true), expiring(keep.1, false));
    let older = since.sql().map_or("toUInt64(0)".to_owned(), |time| format!("maxIf(`to`, written_at < {time})"));
    let sql = format!(
        "SELECT toString(source) AS source, min(`from`) AS first, max(`to`) AS end, \
         toUInt64(greatest(0, dateDiff('second', max(l.written_at), now64(3)))) AS age, \
         sumIf(`to` - `from`, `to` > `from`) AS covered, {older} AS older, sumMap(l.rows) AS rows, \
         sumMapIf(l.rows, {events}) AS expiring_rows, sum(l.dead_letters) AS dead_letters, \
         sumIf(l.dead_letters, {dead}) AS expiring_dead_letters FROM {} AS l GROUP BY l.source ORDER BY l.source",
        client.table(LEDGER)
    );
    client.rows(&sql).await
}

/// Decides from where on each source is checked; findings where the ledger is not what it was.
pub(super) fn begin(sources: &mut [SourceEnd], since: Since, proven: Option<&Proven>) -> Vec<Finding> {
    for source in sources.iter_mut() {
        let base = match since {
            Since::Beginning => 0,
            Since::Last => proven.and_then(|proven| proven.ends.get(&source.source)).copied().unwrap_or(0),
            Since::Ago(_) | Since::Time(_) => source.older,
        };
        source.base = base.clamp(source.first, source.end.max(source.first));
    }
    let Some(proven) = proven else { return Vec::new() };
    let end = |name: &str| sources.iter().find(|source| source.source == name).map_or(0, |source| source.end);
    let shrunk = proven.ends.iter().filter_map(|(name, &proved)| {
        let what = format!(
            "the ledger ends at {}, but the audit of {} proved it up to {proved}: its last rows were deleted",
            end(name),
            time(proven.at / 1_000)
        );
        (end(name) < proved).then(|| Finding::new(Kind::Shrunk, LEDGER, what).at(name, end(name), proved))
    });
    shrunk.collect()
}

/// A row of the ledger that does not fit.
#[derive(Debug, Deserialize)]
struct Misfit {
    from: u64,
    to: u64,
    reached: u64,
    events: u64,
    accounted: u64,
}

/// An epoch of a topic, and the log that it is of: cluster and topic id.
#[derive(Debug, Deserialize)]
struct Life {
    topic: String,
    epoch: u32,
    log: String,
}

/// Where an epoch goes on past the beginning of a later one of the same log: its writer missed a rewind, and what both
/// have is counted twice.
fn overlaps(sources: &[SourceEnd], lives: &[Life]) -> Vec<Finding> {
    let mut partitions: BTreeMap<_, Vec<(u32, &SourceEnd)>> = BTreeMap::new();
    for end in sources {
        let Some(source) = Source::parse(&end.source).filter(|source| source.redrive.is_none()) else { continue };
        let life = lives.iter().find(|life| *life.topic == *source.topic && life.epoch == source.epoch);
        if let Some(life) = life {
            partitions.entry((source.topic, source.partition, &life.log)).or_default().push((source.epoch, end));
        }
    }
    let mut findings = Vec::new();
    for mut epochs in partitions.into_values() {
        epochs.sort_by_key(|(epoch, _)| *epoch);
        for (at, (_, earlier)) in epochs.iter().enumerate() {
            let later = epochs[at + 1..].iter().find(|(_, later)| later.first < earlier.end);
            findings.extend(later.map(|(epoch, later)| {
                let what = format!(
                    "overlap: epoch {epoch} of the same log begins at {}, and this one goes on to {}: a replica missed a \
                     rewind, and what both have is counted twice",
                    later.first, earlier.end
                );
                Finding::new(Kind::Overlap, LEDGER, what).at(&earlier.source, later.first, earlier.end)
            }));
        }
    }
    findings
}

impl Audit<'_> {
    pub(super) async fn ledger(&mut self, mut findings: Vec<Finding>) -> Result<()> {
        for source in &self.sources {
            let misfits = self.misfits(source).await?;
            if misfits.is_empty() && source.covered != source.end - source.first {
                let what = "the ranges that an earlier audit proved no longer touch: rows of the ledger were deleted or \
                            added; an audit without --since names them";
                let finding = Finding::new(Kind::ProvenChanged, LEDGER, what);
                findings.push(finding.at(&source.source, source.first, source.base));
            }
            for misfit in &misfits {
                findings.extend(misfit.findings(&source.source));
                if misfit.reached < misfit.from {
                    let orphans = self.orphans(&source.source, misfit.reached, misfit.from).await?;
                    if let Some(gap) = findings.iter_mut().rfind(|finding| finding.kind == Kind::Gap) {
                        gap.what.push_str(&orphans);
                    }
                }
            }
        }
        findings.extend(overlaps(&self.sources, &self.lives().await?));
        let totals = self.totals().await?;
        let figures = format!(
            "{} ranges of {} partitions touch without gap or overlap, and each is rows + dead letters + duplicates",
            thousands(totals.ranges),
            thousands(totals.sources)
        );
        self.report.totals = totals;
        self.report.checked("ledger", figures, findings);
        Ok(())
    }

    /// Which log each epoch of a topic is of.
    async fn lives(&self) -> Result<Vec<Life>, QueryError> {
        let sql = format!(
            "SELECT topic, epoch, argMin(concat(cluster_id, '/', topic_id), claimed_at) AS log FROM {} GROUP BY topic, epoch",
            self.client.table(SOURCES)
        );
        self.client.rows(&sql).await
    }

    /// Sums over what is checked.
    async fn totals(&self) -> Result<Totals, QueryError> {
        #[derive(Deserialize)]
        struct Sums {
            ranges: u64,
            events: u64,
            row_count: u64,
            dead_letters: u64,
            duplicates: u64,
            lost: u64,
        }
        let sources = self.sources.len() as u64;
        let Some(checked) = self.checked_ranges() else { return Ok(Totals { sources, ..Totals::default() }) };
        let sql = format!(
            "SELECT countIf(`to` > `from`) AS ranges, sum(l.events) AS events, sum(arraySum(mapValues(l.rows))) AS \
             row_count, sum(l.dead_letters) AS dead_letters, sum(l.duplicates) AS duplicates, \
             sumIf(`to` - `from`, kind = 'lost' AND `to` > `from`) AS lost FROM {} AS l WHERE {checked}",
            self.client.table(LEDGER)
        );
        let sums: Vec<Sums> = self.client.rows(&sql).await?;
        Ok(sums.first().map_or(Totals { sources, ..Totals::default() }, |sums| Totals {
            sources,
            ranges: sums.ranges,
            events: sums.events,
            rows: sums.row_count,
            dead_letters: sums.dead_letters,
            duplicates: sums.duplicates,
            lost: sums.lost,
        }))
    }

    /// The ledger's rows that are checked, as a condition; `None`: there are none.
    fn checked_ranges(&self) -> Option<String> {
        let of = |source: &SourceEnd| {
            let (name, base, end) = (literal(&source.source), source.base, source.end);
            let from = if base > source.first { format!(" AND `to` > {base}") } else { String::new() };
            format!("(source = {name} AND `to` <= {end}{from})")
        };
        (!self.sources.is_empty()).then(|| self.sources.iter().map(of).collect::<Vec<_>>().join(" OR "))
    }

    async fn misfits(&self, source: &SourceEnd) -> Result<Vec<Misfit>, QueryError> {
        let earlier = "(ORDER BY `from`, `to` ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)";
        let base = source.base;
        let new = if base > source.first { format!(" AND greatest(`to`, `from`) > {base}") } else { String::new() };
        let sql = format!(
            "SELECT `from`, `to`, reached, events, accounted FROM (SELECT `from`, `to`, events, \
             arraySum(mapValues(rows)) + dead_letters + duplicates AS accounted, \
             greatest(max(`to`) OVER {earlier}, {base}) AS reached \
             FROM {} WHERE source = {} AND `to` <= {}{new}) \
             WHERE reached != `from` OR `from` > `to` OR events != accounted ORDER BY `from`, `to` LIMIT {MOST}",
            self.client.table(LEDGER),
            literal(&source.source),
            source.end
        );
        self.client.rows(&sql).await
    }

    /// What stands in the tables at offsets that no range covers, in words.
    async fn orphans(&self, source: &str, from: u64, to: u64) -> Result<String, QueryError> {
        #[derive(Deserialize)]
        struct Count {
            rows: u64,
        }
        let mut found = Vec::new();
        for table in self.row_tables() {
            let sql = format!(
                "SELECT count() AS rows FROM {} WHERE `_source` = {} AND `_offset` >= {from} AND `_offset` < {to}",
                self.client.table(&table.name),
                literal(source)
            );
            let rows = self.client.rows::<Count>(&sql).await?.first().map_or(0, |count| count.rows);
            if rows > 0 {
                found.push(format!("{} has {} rows there", table.name, thousands(rows)));
            }
        }
        Ok(if found.is_empty() { "; no table has rows there".to_owned() } else { format!("; {}", found.join(", ")) })
    }
}

impl Misfit {
    fn findings(&self, source: &str) -> Vec<Finding> {
        let finding = |kind, from, to, what: String| Finding::new(kind, LEDGER, what).at(source, from, to);
        let mut findings = Vec::new();
        if self.from > self.to {
            findings.push(finding(Kind::Backward, self.from, self.to, "the range ends before it begins".to_owned()));
        }
        if self.reached < self.from {
            findings.push(finding(Kind::Gap, self.reached, self.from, "gap: no range covers these offsets".to_owned()));
        }
        if self.reached > self.from {
            let what = format!("overlap: earlier ranges reach up to {}", self.reached);
            findings.push(finding(Kind::Overlap, self.from, self.to, what));
        }
        if self.events != self.accounted {
            let what = format!(
                "{} events were read, but rows, dead letters and duplicates are {}",
                thousands(self.events),
                thousands(self.accounted)
            );
            findings.push(finding(Kind::WrongSum, self.from, self.to, what));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_one_log_do_not_overlap() {
        let life = |topic: &str, epoch, log: &str| Life { topic: topic.into(), epoch, log: log.into() };
        let lives = [("t", 1, "c/a"), ("t", 3, "c/a"), ("t", 5, "c/b"), ("u", 3, "c/u")].map(|(t, e, l)| life(t, e, l));
        let source = |name: &str, first, end| SourceEnd {
            source: name.into(),
            first,
            end,
            base: first,
            age: 0,
            covered: end - first,
            older: 0,
            rows: BTreeMap::new(),
            expiring_rows: BTreeMap::new(),
            dead_letters: 0,
            expiring_dead_letters: 0,
        };
        // Cut off where the next begins; another partition, another topic, another log under the same name, a redrive.
        let clean = [
            source("1/t/0", 0, 50),
            source("3/t/0", 50, 90),
            source("1/t/1", 0, 70),
            source("3/u/1", 0, 70),
            source("5/t/0", 0, 60),
            source("1r2/t/0", 60, 61),
        ];
        assert!(overlaps(&clean, &lives).is_empty());
        // A replica of the first epoch read on after the rewind, also before anything was read in the next.
        for end in [90, 50] {
            let found = overlaps(&[source("1/t/0", 0, 60), source("3/t/0", 50, end)], &lives);
            let found: Vec<_> = found.iter().map(|one| (one.kind, one.source.as_deref(), one.from, one.to)).collect();
            assert_eq!(found, [(Kind::Overlap, Some("1/t/0"), Some(50), Some(60))]);
        }
    }
}
