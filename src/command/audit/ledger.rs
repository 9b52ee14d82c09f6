//! The ledger by itself: ranges touch, and each adds up.

use anyhow::Result;
use serde::Deserialize;

use super::Audit;
use super::report::{Finding, Totals, thousands};
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::LEDGER;
use crate::clickhouse::{Client, QueryError};

/// A source as its ledger stood at the beginning of the audit.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct SourceEnd {
    pub(super) source: String,
    pub(super) first: u64,
    pub(super) end: u64,
    ranges: u64,
    events: u64,
    row_count: u64,
    dead_letters: u64,
    duplicates: u64,
    lost: u64,
}

pub(super) async fn sources(client: &Client) -> Result<Vec<SourceEnd>, QueryError> {
    let sql = format!(
        "SELECT toString(source) AS source, min(`from`) AS first, max(`to`) AS end, countIf(`to` > `from`) AS ranges, \
         sum(l.events) AS events, sum(arraySum(mapValues(l.rows))) AS row_count, sum(l.dead_letters) AS dead_letters, \
         sum(l.duplicates) AS duplicates, sumIf(`to` - `from`, kind = 'lost' AND `to` > `from`) AS lost \
         FROM {} AS l GROUP BY l.source ORDER BY l.source",
        client.table(LEDGER)
    );
    client.rows(&sql).await
}

/// A row of the ledger that does not fit.
#[derive(Debug, Deserialize)]
struct Misfit {
    from: u64,
    to: u64,
    reached: u64,
    number: u64,
    events: u64,
    accounted: u64,
}

impl Audit<'_> {
    pub(super) async fn ledger(&mut self) -> Result<()> {
        let mut findings = Vec::new();
        let mut totals = Totals { sources: self.sources.len() as u64, ..Totals::default() };
        for source in &self.sources {
            totals.ranges += source.ranges;
            totals.events += source.events;
            totals.rows += source.row_count;
            totals.dead_letters += source.dead_letters;
            totals.duplicates += source.duplicates;
            totals.lost += source.lost;
            findings.extend(self.misfits(source).await?.iter().flat_map(|misfit| misfit.findings(source)));
        }
        let figures = format!(
            "{} ranges of {} partitions touch without gap or overlap, and each is rows + dead letters + duplicates",
            thousands(totals.ranges),
            thousands(totals.sources)
        );
        self.report.totals = totals;
        self.report.checked("ledger", figures, findings);
        Ok(())
    }

    async fn misfits(&self, source: &SourceEnd) -> Result<Vec<Misfit>, QueryError> {
        let earlier = "(ORDER BY `from`, `to` ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)";
        let sql = format!(
            "SELECT `from`, `to`, reached, number, events, accounted FROM (SELECT `from`, `to`, events, \
             arraySum(mapValues(rows)) + dead_letters + duplicates AS accounted, max(`to`) OVER {earlier} AS reached, \
             row_number() OVER (ORDER BY `from`, `to`) AS number FROM {} WHERE source = {} AND `to` <= {}) \
             WHERE (number > 1 AND reached != `from`) OR `from` > `to` OR events != accounted ORDER BY number",
            self.client.table(LEDGER),
            literal(&source.source),
            source.end
        );
        self.client.rows(&sql).await
    }
}

impl Misfit {
    fn findings(&self, source: &SourceEnd) -> Vec<Finding> {
        let finding = |from, to, what| Finding {
            table: LEDGER.to_owned(),
            source: Some(source.source.clone()),
            from: Some(from),
            to: Some(to),
            what,
        };
        let mut findings = Vec::new();
        if self.from > self.to {
            findings.push(finding(self.from, self.to, "the range ends before it begins".to_owned()));
        }
        if self.number > 1 && self.reached < self.from {
            let what = "gap: no range covers these offsets".to_owned();
            findings.push(finding(self.reached, self.from, what));
        }
        if self.number > 1 && self.reached > self.from {
            let what = format!("overlap: earlier ranges reach up to {}", self.reached);
            findings.push(finding(self.from, self.to, what));
        }
        if self.events != self.accounted {
            let what = format!(
                "{} events were read, but rows, dead letters and duplicates are {}",
                thousands(self.events),
                thousands(self.accounted)
            );
            findings.push(finding(self.from, self.to, what));
        }
        findings
    }
}
