//! What the evaluator sees of ClickHouse: how far minutes are complete, what the ledger has that is new, and the rollups.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::alert::{Answer, Minute, Question, Row};
use crate::clickhouse::sql::{ident, literal};
use crate::clickhouse::tables::LEDGER;
use crate::clickhouse::{COMPLETENESS, Client, QueryError};
use crate::rollup::Rollup;

/// Which late events count as come of late.
const OF_LATE: Duration = Duration::from_secs(60 * 60);

/// See the module.
pub(super) struct Sight {
    client: Client,
    /// One past the last offset that was seen in the ledger, by source.
    ends: BTreeMap<String, u64>,
    /// Events that came late, and when they were seen.
    late: VecDeque<(Instant, u64)>,
    /// The first minute of what came since the last round that was done.
    first: Option<Minute>,
}

impl Sight {
    pub(super) fn new(client: Client) -> Sight {
        Sight { client, ends: BTreeMap::new(), late: VecDeque::new(), first: None }
    }

    /// Before this time no event is expected any more, in milliseconds since 1970; 0 while a partition is unread.
    pub(super) async fn through(&self) -> Result<i64, QueryError> {
        #[derive(Deserialize)]
        struct Through {
            through: i64,
        }
        let table = self.client.table(COMPLETENESS);
        let sql = format!("SELECT toUnixTimestamp64Milli(through) AS through FROM {table}");
        Ok(self.client.rows::<Through>(&sql).await?.first().map_or(0, |row| row.through))
    }

    /// Takes what the ledger has for seen.
    pub(super) async fn begin(&mut self) -> Result<(), QueryError> {
        self.ends = self.ends().await?;
        Ok(())
    }

    async fn ends(&self) -> Result<BTreeMap<String, u64>, QueryError> {
        #[derive(Deserialize)]
        struct End {
            source: String,
            end: u64,
        }
        let ledger = self.client.table(LEDGER);
        // The ledger's projection has a row a part and source.
        let sql = format!("SELECT `source`, max(`to`) AS end FROM {ledger} GROUP BY `source`");
        let rows: Vec<End> = self.client.rows(&sql).await?;
        Ok(rows.into_iter().map(|row| (row.source, row.end)).collect())
    }

    /// Looks at what came since; whether anything did.
    pub(super) async fn look(&mut self) -> Result<bool, QueryError> {
        #[derive(Deserialize)]
        struct News {
            first: Option<Minute>,
            late: u64,
        }
        let ends = self.ends().await?;
        let seen = |source: &String| self.ends.get(source).copied().unwrap_or(0);
        let moved = ends.iter().filter(|(source, end)| seen(source) < **end);
        let moved = moved.map(|(source, _)| format!("(source = {} AND `to` > {})", literal(source), seen(source)));
        let moved: Vec<String> = moved.collect();
        if moved.is_empty() {
            return Ok(false);
        }
        let minute = format!("intDiv(toUnixTimestamp64Micro(min({})), 60000000)", ident("min_time"));
        let sql = format!(
            "SELECT {minute} AS first, sum(late) AS late FROM {} WHERE {}",
            self.client.table(LEDGER),
            moved.join(" OR ")
        );
        for news in self.client.rows::<News>(&sql).await? {
            self.first = self.first.into_iter().chain(news.first).min();
            self.late.push_back((Instant::now(), news.late));
        }
        self.ends = ends;
        Ok(true)
    }

    /// Events that came late, of late.
    pub(super) fn late(&mut self) -> i64 {
        self.late.retain(|(seen, _)| seen.elapsed() < OF_LATE);
        self.late.iter().map(|(_, late)| i64::try_from(*late).unwrap_or(i64::MAX)).sum()
    }

    /// The first minute of what came since the last round that was done.
    pub(super) fn first(&self) -> Option<Minute> {
        self.first
    }

    /// A round was done with all that came.
    pub(super) fn done(&mut self) {
        self.first = None;
    }

    /// All rows that a question asks for, from a minute on.
    pub(super) async fn rows(
        &self,
        question: &Question,
        rollup: &Rollup,
        from: Minute,
    ) -> Result<Vec<Row>, QueryError> {
        rows(&self.client, question, rollup, from).await
    }
}

/// All rows of a rollup that a question asks for, from a minute on.
///
/// # Errors
/// ClickHouse's, or an answer that is not what was asked for.
pub async fn rows(client: &Client, question: &Question, rollup: &Rollup, from: Minute) -> Result<Vec<Row>, QueryError> {
    let sql = question.sql(rollup, client.database(), from);
    let answers: Vec<Answer> = client.rows(&sql).await?;
    let row = |answer: Answer| {
        question.row(answer).ok_or_else(|| QueryError::Unexpected {
            expected: "a row as was asked for",
            answer: format!("one of {} with other columns or numbers", rollup.name),
        })
    };
    answers.into_iter().map(row).collect()
}
