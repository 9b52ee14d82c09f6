//! Taking back what was written of some sources from an offset on: rows, and the minutes that they were in. Of `rewind`, and
//! of redrives that are given up.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::turn::Turn;
use crate::batch::Month;
use crate::clickhouse::sql::{ident, literal};
use crate::clickhouse::tables::{LEDGER, time_column};
use crate::clickhouse::{Client, QueryError, rebuild};
use crate::plan::{Plan, Table, TableKind};
use crate::rollup::Rollup;

/// Where some sources are cut off.
pub(in crate::command) struct Cut {
    /// Their names, as a list of literals.
    pub(in crate::command) sources: String,
    /// The first offset that is taken back: where a row of the ledger begins.
    pub(in crate::command) at: u64,
}

/// All that is taken back at once.
pub(in crate::command) struct TakeBack<'a> {
    pub(in crate::command) client: &'a Client,
    pub(in crate::command) plan: &'a Plan,
    /// The turn in which it is taken back, if it takes one.
    pub(in crate::command) turn: Option<&'a Turn<'a>>,
    pub(in crate::command) cuts: Vec<Cut>,
}

/// Deletes rows, and waits until they are gone.
pub(in crate::command) async fn delete(client: &Client, table: &str, condition: &str) -> Result<()> {
    println!("deleting from {table}");
    let table = client.table(table);
    let sql = format!("ALTER TABLE {table} DELETE WHERE {condition} SETTINGS mutations_sync = 2");
    Ok(client.execute(&sql).await?)
}

/// The table in which a rollup's months are computed anew.
pub(super) fn aside(parts: &Table) -> String {
    format!("{}_aside", parts.name)
}

impl TakeBack<'_> {
    /// Holds for the rows that are taken back.
    pub(in crate::command) fn condition(&self) -> String {
        let of = |cut: &Cut| format!("(`_source` IN ({}) AND `_offset` >= {})", cut.sources, cut.at);
        format!("({})", self.cuts.iter().map(of).collect::<Vec<_>>().join(" OR "))
    }

    /// Holds for the rows of the ledger that are taken back. What begins a source right there stays.
    fn ledger_rows(&self) -> String {
        let of = |cut: &Cut| format!("(source IN ({}) AND `to` > {})", cut.sources, cut.at);
        self.cuts.iter().map(of).collect::<Vec<_>>().join(" OR ")
    }

    fn rollups(&self) -> impl Iterator<Item = (&Rollup, &Table)> {
        self.plan.tables.iter().filter_map(|table| match table.kind {
            TableKind::Rollup(index) => Some((&self.plan.rollups[index], table)),
            TableKind::Raw(_) | TableKind::DeadLetters => None,
        })
    }

    /// The minutes of a rollup that lose rows, as a subquery.
    fn minutes(&self, rollup: &Rollup) -> String {
        let event = &self.plan.types[rollup.event].event;
        let (time, raw) = (ident(time_column(event)), self.client.table(&event.name));
        format!("SELECT DISTINCT toStartOfMinute({time}) AS m FROM {raw} WHERE {}", self.condition())
    }

    /// Blocks of rollups that landed without their rows, which go out before them: a server was killed between a token and
    /// its part, and the writer too. By source, rollup and month; for cuts at the ledger's end.
    pub(in crate::command) async fn strays(&self) -> Result<u64, QueryError> {
        let of = |cut: &Cut| format!("(`_source` IN ({}) AND `_through` > {})", cut.sources, cut.at);
        let beyond = self.cuts.iter().map(of).collect::<Vec<_>>().join(" OR ");
        let mut strays = 0;
        for (rollup, parts) in self.rollups() {
            let event = &self.plan.types[rollup.event].event;
            let sql = format!(
                "SELECT uniqExact(toString(`_source`), toYYYYMM(minute, 'UTC')) AS n FROM {} WHERE ({beyond}) AND \
                 (toString(`_source`), toYYYYMM(minute, 'UTC')) NOT IN (SELECT toString(`_source`), toYYYYMM({}, 'UTC') \
                 FROM {} WHERE {})",
                self.client.table(&parts.name),
                ident(time_column(event)),
                self.client.table(&event.name),
                self.condition()
            );
            strays += self.number(&sql).await?;
        }
        Ok(strays)
    }

    /// Says what will be done, and that it can be.
    pub(in crate::command) async fn explain(&self) -> Result<()> {
        for table in self.plan.tables.iter().filter(|table| !matches!(table.kind, TableKind::Rollup(_))) {
            let sql = format!("SELECT count() AS n FROM {} WHERE {}", self.client.table(&table.name), self.condition());
            let there = self.number(&sql).await?;
            println!("{}: {there} rows to delete", table.name);
            let (ledger, name) = (self.client.table(LEDGER), literal(&table.name));
            let known = format!("SELECT sum(rows[{name}]) AS n FROM {ledger} WHERE {}", self.ledger_rows());
            let known = self.number(&known).await?;
            ensure!(
                known <= there,
                "{}: the ledger has {known} rows of what would be read again, and only {there} are there (has retention taken \
                 some?): the minutes they were in could not be computed anew. Rewind to a later place",
                table.name
            );
        }
        for (rollup, _) in self.rollups() {
            let event = &self.plan.types[rollup.event].event;
            let (time, raw) = (ident(time_column(event)), self.client.table(&event.name));
            let (view, minutes) = (self.client.table(&rollup.name), self.minutes(rollup));
            let known = self.number(&format!("SELECT sum(count) AS n FROM {view} WHERE minute IN ({minutes})")).await?;
            let there = format!("SELECT count() AS n FROM {raw} WHERE toStartOfMinute({time}) IN ({minutes})");
            let there = self.number(&there).await?;
            ensure!(
                known <= there,
                "{}: {known} events are counted in the minutes to compute anew, and only {there} of their rows are there (has \
                 retention taken some?): numbers would be lost. Rewind to a later place",
                rollup.name
            );
            let minutes = self.number(&format!("SELECT count() AS n FROM ({minutes})")).await?;
            println!("{}: {minutes} minutes to compute anew", rollup.name);
        }
        Ok(())
    }

    async fn number(&self, sql: &str) -> Result<u64, QueryError> {
        #[derive(Deserialize)]
        struct Number {
            n: u64,
        }
        Ok(self.client.rows::<Number>(sql).await?.first().map_or(0, |row| row.n))
    }

    /// Takes it back. May be left between any two steps, as the module above says.
    pub(in crate::command) async fn execute(&self) -> Result<()> {
        self.delete(LEDGER, &self.ledger_rows()).await?;
        for (rollup, table) in self.rollups() {
            self.compute_anew(rollup, table).await.with_context(|| format!("computing {} anew", rollup.name))?;
        }
        for table in self.plan.tables.iter().filter(|table| !matches!(table.kind, TableKind::Rollup(_))) {
            self.delete(&table.name, &self.condition()).await?;
        }
        Ok(())
    }

    /// Before every statement: one that ran on beside those of another command would double what they compute.
    async fn ensure_turn(&self) -> Result<()> {
        match self.turn {
            Some(turn) => turn.ensure_held().await,
            None => Ok(()),
        }
    }

    async fn delete(&self, table: &str, condition: &str) -> Result<()> {
        self.ensure_turn().await?;
        delete(self.client, table, condition).await
    }

    /// Month by month: the rows of other minutes, those of the touched minutes computed anew, and the marks that stay, in
    /// a table aside that then takes the month's place.
    async fn compute_anew(&self, rollup: &Rollup, parts: &Table) -> Result<()> {
        #[derive(Deserialize)]
        struct Touched {
            month: u32,
        }
        let (minutes, rewound) = (self.minutes(rollup), self.condition());
        let months = format!("SELECT DISTINCT toYYYYMM(m, 'UTC') AS month FROM ({minutes}) ORDER BY month");
        let event = &self.plan.types[rollup.event].event;
        let (table, time) = (self.client.table(&parts.name), ident(time_column(event)));
        let aside = self.client.table(&aside(parts));
        let columns = rollup.part_columns().iter().map(|part| ident(&part.def.name)).collect::<Vec<_>>().join(", ");
        for Touched { month } in self.client.rows::<Touched>(&months).await? {
            println!("computing {} of {month} anew", rollup.name);
            let run = async |sql: String| {
                self.ensure_turn().await?;
                anyhow::Ok(self.client.execute(&sql).await?)
            };
            run(format!("DROP TABLE IF EXISTS {aside}")).await?;
            run(format!("CREATE TABLE {aside} AS {table}")).await?;
            let sources = self.cuts.iter().map(|cut| cut.sources.as_str()).collect::<Vec<_>>().join(", ");
            run(format!(
                "INSERT INTO {aside} ({columns}) SELECT {columns} FROM {table} WHERE toYYYYMM(minute, 'UTC') = {month} AND \
                 if(`_source` = '', minute NOT IN ({minutes}), `_source` NOT IN ({sources}))"
            ))
            .await?;
            // The marks of what is rewound are those that the rows of the ledger saw that stay.
            run(format!(
                "INSERT INTO {aside} (minute, `_source`, `_through`) SELECT toDateTime({}, 'UTC'), source, \
                 max(marks[{}]) AS mark FROM {} WHERE source IN ({sources}) GROUP BY source HAVING mark > 0",
                Month(month).start_seconds(),
                literal(&format!("{}/{month}", parts.name)),
                self.client.table(LEDGER)
            ))
            .await?;
            let stay = format!(
                "toYYYYMM({time}, 'UTC') = {month} AND toStartOfMinute({time}) IN ({minutes}) AND NOT {rewound}"
            );
            let anew = rebuild::select(self.plan, rollup, self.client.database(), &stay);
            run(format!("INSERT INTO {aside} ({columns}) {anew}")).await?;
            // A month of which nothing stays can't be replaced by nothing.
            let replace = match self.number(&format!("SELECT count() AS n FROM {aside}")).await? {
                0 => format!("ALTER TABLE {table} DROP PARTITION {month}"),
                _ => format!("ALTER TABLE {table} REPLACE PARTITION {month} FROM {aside}"),
            };
            run(replace).await?;
            run(format!("DROP TABLE {aside}")).await?;
        }
        Ok(())
    }
}
