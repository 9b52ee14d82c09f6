//! What a message rests on, computed anew from raw rows: which they are, what they add up to, and what became of those that
//! were there then.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::archive::{self, understood};
use super::explain::{Found, found};
use super::shown::time;
use crate::alert::{Answer, Evaluator, Message, Minute, Number, Question, Rules, Which};
use crate::clickhouse::Client;
use crate::clickhouse::sql::{ident, literal, literals};
use crate::clickhouse::tables::{ALERTS, LEDGER, PLANS};
use crate::event::COST_COLUMN;
use crate::plan::Plan;

/// Sources that are named.
const NAMED: usize = 10;

/// Whose evidence, and where it is looked for.
pub(super) struct Inquiry<'a> {
    pub(super) client: &'a Client,
    pub(super) plan: &'a Plan,
    pub(super) told: &'a Message,
    /// The rule as it was.
    pub(super) rules: &'a Rules,
    /// The moment that was judged.
    pub(super) at: Minute,
}

/// Rows of a source.
#[derive(Debug, Deserialize)]
struct Source {
    source: String,
    rows: u64,
    first: u64,
    last: u64,
    /// Written after the message was published.
    later: u64,
}

impl Inquiry<'_> {
    /// What the rule says by the rollups.
    pub(super) async fn of_rollups(&self) -> Result<Option<Found>> {
        let mut evaluator = self.evaluator();
        for (position, from) in evaluator.wanted(None).into_iter().enumerate() {
            let question = &evaluator.questions()[position];
            let rollup = &self.plan.rollups[question.rollup];
            let rows = archive::rows(self.client, question, rollup, (from, self.until())).await;
            evaluator.take(position, from, &rows.context("can't read a rollup")?);
        }
        Ok(found(evaluator, self.told, self.at))
    }

    /// What the rule says by the raw rows, all of them or those before an offset of each source.
    pub(super) async fn of_raw(&self, before: Option<&BTreeMap<String, u64>>) -> Result<Option<Found>> {
        let mut evaluator = self.evaluator();
        for (position, from) in evaluator.wanted(None).into_iter().enumerate() {
            let question = &evaluator.questions()[position];
            let which = self.which(question, (from, self.until()), before);
            let answers: Vec<Answer> =
                self.client.rows(&question.sql_of_raw(&which)).await.context("can't read raw rows")?;
            let rows = understood(answers, &which.event.name, |answer| question.row_of_raw(answer))?;
            evaluator.take(position, from, &rows);
        }
        Ok(found(evaluator, self.told, self.at))
    }

    fn evaluator(&self) -> Evaluator {
        Evaluator::new(self.rules.clone(), &self.plan.rollups, 0, self.at, None)
    }

    /// Of a budget all of its period counts, whenever it was told of.
    fn until(&self) -> Minute {
        self.told.budget.as_ref().map_or(self.at, |budget| self.at.max(budget.period_end.div_euclid(60_000)))
    }

    fn which<'b>(
        &'b self,
        question: &Question,
        span: (Minute, Minute),
        before: Option<&'b BTreeMap<String, u64>>,
    ) -> Which<'b> {
        let rollup = &self.plan.rollups[question.rollup];
        let event = &self.plan.types[rollup.event].event;
        Which { event, rollup, database: self.client.database(), span, dimensions: &self.told.dimensions, before }
    }

    /// The minutes that the message names as its evidence.
    fn span(&self) -> (Minute, Minute) {
        let readings = || self.told.readings.iter();
        let from = readings().map(|reading| reading.from).min().unwrap_or(self.told.since);
        let to = readings().map(|reading| reading.to).max().unwrap_or(self.told.at);
        (from.div_euclid(60_000), to.div_euclid(60_000))
    }

    /// What the raw rows say, as lines; `rollups` is what the rollups say.
    pub(super) async fn lines(&self, rollups: Option<&Found>) -> Result<Vec<String>> {
        let evaluator = self.evaluator();
        let Some(question) = evaluator.questions().first() else { return Ok(Vec::new()) };
        let ends = self.ends_then().await?;
        let sources = self.sources(question, &ends).await?;
        let mut lines = vec![self.compared(rollups, self.of_raw(None).await?.as_ref())];
        lines.extend(rows(&sources));
        let later: u64 = sources.iter().map(|source| source.later).sum();
        if later > 0 {
            let then = self.of_raw(Some(&ends)).await?;
            let without = match then.as_ref().is_some_and(|then| then.is_as(self.told)) {
                true => "without them it is as was told".to_owned(),
                false => format!("without them it is {}", then.map_or("nothing".to_owned(), |then| then.short())),
            };
            lines.push(format!("{later} of these rows were written after it was published; {without}"));
        }
        lines.extend(self.gone(question, sources.iter().map(|source| source.rows).sum()).await?);
        if question.numbers.contains(&Number::Sum(COST_COLUMN.to_owned())) {
            lines.push(self.prices().await?);
        }
        Ok(lines)
    }

    fn compared(&self, rollups: Option<&Found>, raw: Option<&Found>) -> String {
        match (raw, rollups) {
            (None, None) => "from raw rows: there are none of that series".to_owned(),
            (None, Some(_)) => "from raw rows: none of that series are left".to_owned(),
            (Some(raw), _) if raw.is_as(self.told) => format!("from raw rows: {}, as was told", raw.short()),
            (Some(raw), Some(rollups)) if raw.is_like(rollups) => {
                format!("from raw rows: {}, as from the rollups", raw.short())
            }
            (Some(raw), rollups) => format!(
                "from raw rows: {}, and {} from the rollups; where rows did not expire `highwater audit` says why",
                raw.short(),
                rollups.map_or("nothing".to_owned(), Found::short)
            ),
        }
    }

    /// Of each source one past the last offset that was done when the message was published.
    async fn ends_then(&self) -> Result<BTreeMap<String, u64>> {
        #[derive(Deserialize)]
        struct End {
            source: String,
            end: u64,
        }
        let published = format!(
            "SELECT max(published_at) FROM {} WHERE alert_id = {} AND sequence = {}",
            self.client.table(ALERTS),
            literal(&self.told.alert_id),
            self.told.sequence
        );
        let sql = format!(
            "SELECT toString(source) AS source, max(`to`) AS end FROM {} WHERE written_at <= ({published}) GROUP BY source",
            self.client.table(LEDGER)
        );
        let rows: Vec<End> = self.client.rows(&sql).await.context("can't read the ledger")?;
        Ok(rows.into_iter().map(|row| (row.source, row.end)).collect())
    }

    async fn sources(&self, question: &Question, ends: &BTreeMap<String, u64>) -> Result<Vec<Source>> {
        let all = self.which(question, self.span(), None);
        let then = Which { before: Some(ends), ..all };
        let sql = format!(
            "SELECT toString(r.`_source`) AS source, count() AS rows, min(r.`_offset`) AS first, max(r.`_offset`) AS last, \
             countIf(NOT ({})) AS later FROM {} WHERE {} GROUP BY source ORDER BY source",
            then.condition(),
            all.table(),
            all.condition()
        );
        self.client.rows(&sql).await.context("can't read raw rows")
    }

    /// Whether raw rows are missing of what the rollup has counted.
    async fn gone(&self, question: &Question, raw: u64) -> Result<Option<String>> {
        #[derive(Deserialize)]
        struct Counted {
            counted: u64,
        }
        let rollup = &self.plan.rollups[question.rollup];
        let (from, to) = self.span();
        let of = |(name, value): (&String, &String)| format!(" AND toString(p.{}) = {}", ident(name), literal(value));
        let dimensions: String = self.told.dimensions.iter().map(of).collect();
        let sql = format!(
            "SELECT sum(p.`count`) AS counted FROM {} AS p WHERE p.`_source` = '' AND p.minute >= toDateTime({}, 'UTC') AND \
             p.minute < toDateTime({}, 'UTC'){dimensions}",
            self.client.table(&rollup.table()),
            from.max(0) * 60,
            to.max(0) * 60
        );
        let counted: Vec<Counted> = self.client.rows(&sql).await.context("can't read a rollup")?;
        let counted = counted.first().map_or(0, |row| row.counted);
        Ok((raw < counted).then(|| {
            format!(
                "{} of the {counted} rows that were counted are gone: they expired (retention.raw) or were deleted",
                counted - raw
            )
        }))
    }

    /// Which prices the rows were written with.
    async fn prices(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Row {
            json: String,
        }
        #[derive(Deserialize)]
        struct Kept {
            sources: Sources,
        }
        #[derive(Deserialize)]
        struct Sources {
            prices: Option<(String, String)>,
        }
        let (from, to) = self.span();
        let second = |minute: Minute| format!("toDateTime64({}, 6, 'UTC')", minute.max(0) * 60);
        let sql = format!(
            "SELECT json FROM {} WHERE hash IN (SELECT toString(plan) FROM {} WHERE kind IN ({}) AND min_time < {} AND max_time \
             >= {})",
            self.client.table(PLANS),
            self.client.table(LEDGER),
            literals(["batch", "redrive"]),
            second(to),
            second(from)
        );
        let rows: Vec<Row> = self.client.rows(&sql).await.context("can't read the table plans")?;
        let mut then: Vec<String> = Vec::new();
        for row in rows {
            let kept: Kept = serde_json::from_str(&row.json).context("a row of the table plans is not highwater's")?;
            then.push(version(kept.sources.prices.as_ref()));
        }
        then.sort();
        then.dedup();
        let now = version(self.plan.sources.prices.as_ref());
        Ok(match &then[..] {
            [] => "prices: which the rows were written with is not known".to_owned(),
            [one] if *one == now => format!("prices: {one}, as now"),
            several => format!(
                "prices: {} then, {now} now; rows keep the cost that they were written with",
                several.join(" and ")
            ),
        })
    }
}

/// A hash that names a price list.
fn version(prices: Option<&(String, String)>) -> String {
    let Some((_, text)) = prices else { return "none".to_owned() };
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// The rows' places.
fn rows(sources: &[Source]) -> Vec<String> {
    let rows: u64 = sources.iter().map(|source| source.rows).sum();
    let named = sources.iter().take(NAMED);
    let named = named.map(|Source { source, rows, first, last, .. }| {
        format!("    {source}: {rows} rows, offsets {first} to {last}")
    });
    let left = sources.len().saturating_sub(NAMED);
    let more = (left > 0).then(|| format!("    and {left} more partitions"));
    std::iter::once(format!("it rests on {rows} raw rows of that series:")).chain(named).chain(more).collect()
}

impl Found {
    /// In some words.
    pub(super) fn short(&self) -> String {
        use super::shown::short;
        match &self.spent {
            Some(spent) => format!("{spent} spent"),
            None => {
                let value = self.value.map_or_else(|| "nothing".to_owned(), short);
                let windows: Vec<String> = self
                    .readings
                    .iter()
                    .map(|reading| {
                        let (numerator, denominator) = (short(reading.numerator), short(reading.denominator));
                        format!("{numerator} of {denominator} from {} to {}", time(reading.from), time(reading.to))
                    })
                    .collect();
                format!("{value} ({})", windows.join("; "))
            }
        }
    }
}
