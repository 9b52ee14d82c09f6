//! The marker rows of rollups against the marks that the ledger saw.
//!
//! A rollup's rows don't say where they came from; the marker row alone tells a writer how far its source has been added
//! up. Below the ledger's end nobody asks for it, so a marker that is missing there doubles nothing yet; but somebody has
//! deleted rows, and should the ledger lose its own, that batch would be added again.

use anyhow::Result;
use serde::Deserialize;

use super::Audit;
use super::finding::{Finding, Kind};
use super::places::Ahead;
use crate::batch::Month;
use crate::clickhouse::QueryError;
use crate::clickhouse::sql::{ident, literal};
use crate::clickhouse::tables::LEDGER;
use crate::plan::{Table, TableKind};

/// A mark of a rollup's table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Mark {
    source: String,
    month: u32,
    mark: u64,
}

impl Audit<'_> {
    pub(super) async fn marks(&mut self) -> Result<()> {
        let (mut findings, mut marks) = (Vec::new(), 0);
        for table in self.rollup_tables() {
            let recorded = self.recorded(table).await?;
            let standing = self.standing(table).await?;
            marks += recorded.len();
            for Mark { source, month, mark } in &recorded {
                let found = standing.iter().find(|found| (&found.source, found.month) == (source, *month));
                let found = found.map_or(0, |found| found.mark);
                if found >= *mark {
                    continue;
                }
                let what = format!(
                    "the marker row of month {month} says {found}, and the ledger saw {mark}: rows were deleted here. Once \
                     the minutes add up, put it back by INSERT INTO {} (minute, `_source`, `_through`) VALUES \
                     (toDateTime({}, 'UTC'), {}, {mark})",
                    self.client.table(&table.name),
                    Month(*month).start_seconds(),
                    literal(source)
                );
                findings.push(Finding::new(Kind::MissingMark, &table.name, what).at(source, found, *mark));
            }
        }
        let figures = format!("{marks} marks of rollups stand where the ledger saw them");
        self.report.checked("marks", figures, findings);
        Ok(())
    }

    /// What the ledger saw.
    async fn recorded(&self, table: &Table) -> Result<Vec<Mark>, QueryError> {
        let sql = format!(
            "SELECT s AS source, toUInt32OrZero(splitByChar('/', pair.1)[-1]) AS month, pair.2 AS mark FROM \
             (SELECT toString(source) AS s, maxMap(marks) AS marks FROM {} GROUP BY source) ARRAY JOIN \
             CAST(marks, 'Array(Tuple(String, UInt64))') AS pair WHERE startsWith(pair.1, {}) ORDER BY source, month",
            self.client.table(LEDGER),
            literal(&format!("{}/", table.name))
        );
        self.client.rows(&sql).await
    }

    /// What the table has. Marker rows are the first of each part: all dimensions '', the first minute of the month.
    async fn standing(&self, table: &Table) -> Result<Vec<Mark>, QueryError> {
        let TableKind::Rollup(index) = table.kind else { return Ok(Vec::new()) };
        let blank = self.plan.rollups[index].by.iter().map(|by| format!(" AND {} = ''", ident(&by.name)));
        let sql = format!(
            "SELECT toString(`_source`) AS source, toUInt32(toYYYYMM(minute, 'UTC')) AS month, max(`_through`) AS mark \
             FROM {} WHERE `_source` != ''{} GROUP BY `_source`, month ORDER BY source, month",
            self.client.table(&table.name),
            blank.collect::<String>()
        );
        self.client.rows(&sql).await
    }

    /// Marks beyond the ledger's end, or of sources that it does not know.
    pub(super) async fn marks_ahead(&self) -> Result<Vec<Ahead>, QueryError> {
        let mut aheads: Vec<Ahead> = Vec::new();
        for table in self.rollup_tables() {
            let mut marks = self.standing(table).await?;
            // The greatest of each source only.
            marks.sort_by(|a, b| a.source.cmp(&b.source).then(b.mark.cmp(&a.mark)));
            marks.dedup_by(|next, kept| next.source == kept.source);
            for Mark { source, mark, .. } in marks {
                let end = self.sources.iter().find(|known| known.source == source).map_or(0, |known| known.end);
                if mark > end {
                    aheads.push(Ahead { table: table.name.clone(), source, rows: None, from: end, through: mark });
                }
            }
        }
        Ok(aheads)
    }
}
