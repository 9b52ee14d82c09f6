//! What the evaluator sees of ClickHouse: how far minutes are complete, what the ledger has that is new and for which
//! minutes, and the rollups, row by row.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::inquiry::Answers;
use crate::alert::{Answer, Minute, Question, Row};
use crate::clickhouse::sql::{ident, literal};
use crate::clickhouse::tables::{LEDGER, time_column};
use crate::clickhouse::{COMPLETENESS, Client, QueryError, QueryLimits};
use crate::plan::Plan;
use crate::rollup::Rollup;

/// Which late events count as come of late.
const OF_LATE: Duration = Duration::from_secs(60 * 60);
/// A batch with events so much older than what is judged is asked which minutes they are in, minutes; of others all since
/// the oldest is read.
const NEAR: Minute = 60;
/// Rows that are handed on at once, and as many more as belong to the last of their minutes.
const CHUNK: usize = 10_000;
/// How far clocks may be apart, and a look at the ledger from the heartbeat after it, milliseconds.
const APART: i64 = 60 * 60 * 1_000;

/// What came since the look before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    /// For all minutes from this one on something may have come.
    pub(super) from: Option<Minute>,
    /// Older minutes that something came for, by the position of the event type.
    pub(super) minutes: BTreeMap<usize, BTreeSet<Minute>>,
}

/// See the module.
pub(super) struct Sight {
    client: Client,
    /// What questions may cost.
    limits: QueryLimits,
    /// Days that events are kept; 0: for ever.
    kept_days: u32,
    /// One past the last offset that was seen in the ledger, by source.
    ends: BTreeMap<String, u64>,
    /// Events that came late, and when they were seen.
    late: VecDeque<(Instant, u64)>,
}

/// New batches of a source, those with old events apart.
#[derive(Deserialize)]
struct Batches {
    source: String,
    is_far: u8,
    first_offset: u64,
    end_offset: u64,
    first: Option<Minute>,
    late: u64,
}

impl Sight {
    pub(super) fn new(client: Client, limits: QueryLimits, kept_days: u32) -> Sight {
        Sight { client, limits, kept_days, ends: BTreeMap::new(), late: VecDeque::new() }
    }

    /// Whom questions about rollups are asked of.
    pub(super) fn rollups(&self) -> Rollups {
        Rollups { client: self.client.clone(), limits: self.limits }
    }

    /// Before this time no event is expected any more, in milliseconds since 1970; 0 while a partition is unread.
    pub(super) async fn through(&self) -> Result<i64, QueryError> {
        #[derive(Deserialize)]
        struct Through {
            through: i64,
        }
        let table = self.client.table(COMPLETENESS);
        let sql = format!("SELECT toUnixTimestamp64Milli(through) AS through FROM {table}");
        Ok(self.rows::<Through>(&sql).await?.first().map_or(0, |row| row.through))
    }

    /// A few rows a source, however many rows rules may ask for; otherwise under the limits that all questions have.
    async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, QueryError> {
        let mut rows = Vec::new();
        let add = |row: T| -> Result<(), QueryError> {
            rows.push(row);
            Ok(())
        };
        // 0 is any number.
        self.client.each(sql, QueryLimits { rows: 0, ..self.limits }, add).await?;
        Ok(rows)
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
        let rows: Vec<End> = self.rows(&sql).await?;
        Ok(rows.into_iter().map(|row| (row.source, row.end)).collect())
    }

    /// The first minute of what was written since a heartbeat, or shortly before; `None`: nothing was. Where that hits a limit it is
    /// any minute. Times in milliseconds.
    pub(super) async fn since(&self, sent_at: i64) -> Result<Option<Minute>, QueryError> {
        #[derive(Deserialize)]
        struct First {
            first: Option<Minute>,
        }
        let sql = format!(
            "SELECT {MINUTE_OF_LEAST} AS first FROM {} WHERE written_at >= fromUnixTimestamp64Milli(toInt64({}))",
            self.client.table(LEDGER),
            (sent_at - APART).max(0)
        );
        match self.rows::<First>(&sql).await {
            Ok(rows) => Ok(rows.first().and_then(|row| row.first)),
            Err(error) if error.is_limit() => {
                tracing::info!("what came since the last heartbeat is not found out, so all is judged anew: {error}");
                Ok(Some(Minute::MIN))
            }
            Err(error) => Err(error),
        }
    }

    /// Looks at what came since; `None`: nothing. `judged`: all before that minute was judged; `oldest`: what is older
    /// matters to nobody; `patience`: how long it may take to find out which minutes late events are in.
    pub(super) async fn look(
        &mut self,
        plan: &Plan,
        judged: Minute,
        oldest: Minute,
        patience: Duration,
    ) -> Result<Option<News>, QueryError> {
        let ends = self.ends().await?;
        let seen = |source: &String| self.ends.get(source).copied().unwrap_or(0);
        let moved = ends.iter().filter(|(source, end)| seen(source) < **end);
        // What the ledger has got since it was asked for ends is left to the next look, or would be counted by both.
        let moved = moved.map(|(source, end)| {
            format!("(source = {} AND `to` > {} AND `to` <= {end})", literal(source), seen(source))
        });
        let moved: Vec<String> = moved.collect();
        if moved.is_empty() {
            return Ok(None);
        }
        let limit = judged - NEAR;
        let sql = format!(
            "SELECT source, toUInt8(ifNull({MINUTE} < {limit}, 0)) AS is_far, min(`from`) AS first_offset, max(`to`) AS end_offset, \
             {MINUTE_OF_LEAST} AS first, sum(late) AS late FROM {} WHERE {} GROUP BY source, is_far",
            self.client.table(LEDGER),
            moved.join(" OR ")
        );
        let batches: Vec<Batches> = self.rows(&sql).await?;
        let mut news = News::default();
        let far: Vec<&Batches> = batches.iter().filter(|batch| batch.is_far == 1).collect();
        let near = batches.iter().filter(|batch| batch.is_far == 0).filter_map(|batch| batch.first);
        news.from = near.chain((!far.is_empty()).then_some(limit)).min();
        if let Some(first) = far.iter().filter_map(|batch| batch.first).min() {
            if self.is_kept(first.max(oldest)) {
                match self.minutes(plan, &far, oldest..limit, patience).await {
                    Ok(minutes) => news.minutes = minutes,
                    // To look at more than has changed is dear, and to wait for an answer that never comes is to be silent.
                    Err(error) if error.is_limit() => {
                        tracing::info!(
                            "which minutes late events are in is not found out, so all since are read: {error}"
                        );
                        news.from = Some(first.max(oldest).min(limit));
                    }
                    Err(error) => return Err(error),
                }
            } else {
                // Events may be gone from their tables that rollups have.
                news.from = Some(first);
            }
        }
        let now = Instant::now();
        self.late.extend(batches.iter().filter(|batch| batch.late > 0).map(|batch| (now, batch.late)));
        self.ends = ends;
        Ok(Some(news))
    }

    /// Whether events of a minute are still in their tables, with a day to spare.
    fn is_kept(&self, minute: Minute) -> bool {
        let days = (super::now_ms() / 60_000 - minute) / (24 * 60);
        self.kept_days == 0 || days + 1 < i64::from(self.kept_days)
    }

    /// Minutes of a span that batches have events of, by the position of the event type; of all types together
    /// within a time.
    async fn minutes(
        &self,
        plan: &Plan,
        batches: &[&Batches],
        span: Range<Minute>,
        patience: Duration,
    ) -> Result<BTreeMap<usize, BTreeSet<Minute>>, QueryError> {
        #[derive(Deserialize)]
        struct Found {
            minute: Minute,
        }
        let within = |batch: &&Batches| {
            let Batches { source, first_offset, end_offset, .. } = batch;
            format!("(`_source` = {} AND `_offset` >= {first_offset} AND `_offset` < {end_offset})", literal(source))
        };
        let within: Vec<String> = batches.iter().map(within).collect();
        let (begun, mut minutes) = (Instant::now(), BTreeMap::new());
        let watched: BTreeSet<usize> =
            plan.alerts.signals.iter().map(|signal| plan.rollups[signal.rollup].event).collect();
        for (position, planned) in plan.types.iter().enumerate().filter(|(position, _)| watched.contains(position)) {
            let time = ident(time_column(&planned.event));
            let sql = format!(
                "SELECT DISTINCT intDiv(toUnixTimestamp64Micro({time}), 60000000) AS minute FROM {} WHERE {time} >= \
                 toDateTime64({}, 6, 'UTC') AND {time} < toDateTime64({}, 6, 'UTC') AND ({})",
                self.client.table(&planned.event.name),
                span.start.max(0) * 60,
                span.end.max(0) * 60,
                within.join(" OR ")
            );
            let found = minutes.entry(position).or_insert_with(BTreeSet::new);
            let mut add = |row: Found| -> Result<(), QueryError> {
                found.insert(row.minute);
                Ok(())
            };
            let time = patience.min(self.limits.time).saturating_sub(begun.elapsed());
            let client = self.client.clone().with_timeout(time);
            client.each(&sql, QueryLimits { time, ..self.limits }, &mut add).await?;
        }
        Ok(minutes)
    }

    /// Events that came late, of late.
    pub(super) fn late(&mut self) -> i64 {
        self.late.retain(|(seen, _)| seen.elapsed() < OF_LATE);
        self.late.iter().map(|(_, late)| i64::try_from(*late).unwrap_or(i64::MAX)).sum()
    }
}

/// Rows of rollups, within limits.
#[derive(Debug, Clone)]
pub(super) struct Rollups {
    client: Client,
    limits: QueryLimits,
}

impl Answers for Rollups {
    async fn rows<E: From<QueryError>>(
        &self,
        question: &Question,
        rollup: &Rollup,
        spans: &[Range<Minute>],
        on: impl FnMut(Range<Minute>, Vec<Row>) -> Result<(), E>,
    ) -> Result<(), E> {
        read(&self.client, self.limits, (question, rollup), spans, on).await
    }
}

/// Hands on all rows that a question asks of its rollup within some spans, in pieces: a span that is read, and its rows. The
/// pieces cover all spans, in their order. No more than a piece is held here.
///
/// # Errors
/// ClickHouse's, a limit among them; an answer that is not what was asked for; what `on` says.
pub async fn read<E: From<QueryError>>(
    client: &Client,
    limits: QueryLimits,
    (question, rollup): (&Question, &Rollup),
    spans: &[Range<Minute>],
    on: impl FnMut(Range<Minute>, Vec<Row>) -> Result<(), E>,
) -> Result<(), E> {
    let sql = question.sql(rollup, client.database(), spans);
    let mut pieces = Pieces { spans, done: Minute::MIN, rows: Vec::new(), on };
    client.each(&sql, limits, |answer: Answer| pieces.take(understood(question, rollup, answer)?)).await?;
    pieces.flush(Minute::MAX)
}

/// The minute of a batch's least time.
const MINUTE: &str = "intDiv(toUnixTimestamp64Micro(min_time), 60000000)";
/// The least of these.
const MINUTE_OF_LEAST: &str = "min(intDiv(toUnixTimestamp64Micro(min_time), 60000000))";

/// Puts rows together that are handed on at once.
struct Pieces<'a, F> {
    spans: &'a [Range<Minute>],
    /// All before this minute was handed on.
    done: Minute,
    rows: Vec<Row>,
    on: F,
}

impl<E: From<QueryError>, F: FnMut(Range<Minute>, Vec<Row>) -> Result<(), E>> Pieces<'_, F> {
    fn take(&mut self, row: Row) -> Result<(), E> {
        if self.rows.len() >= CHUNK && self.rows.last().is_some_and(|last| last.at < row.at) {
            self.flush(row.at)?;
        }
        self.rows.push(row);
        Ok(())
    }

    /// Hands on all before a minute: of each span what was not.
    fn flush(&mut self, to: Minute) -> Result<(), E> {
        for span in self.spans {
            let piece = span.start.max(self.done)..span.end.min(to);
            if piece.start < piece.end {
                let first = self.rows.partition_point(|row| row.at < piece.start);
                let end = self.rows.partition_point(|row| row.at < piece.end);
                (self.on)(piece, self.rows.drain(..end).skip(first).collect())?;
            }
        }
        self.done = to;
        self.rows.clear();
        Ok(())
    }
}

fn understood(question: &Question, rollup: &Rollup, answer: Answer) -> Result<Row, QueryError> {
    question.row(answer).ok_or_else(|| QueryError::Unexpected {
        expected: "a row as was asked for",
        answer: format!("one of {} with other columns or numbers", rollup.name),
    })
}

#[cfg(test)]
mod tests;
