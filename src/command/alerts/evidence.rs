//! What a message rests on, computed anew from raw rows: which they are, what they add up to, and what became of those that
//! were there then.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::archive::{self, understood};
use super::explain::{Found, found};
use crate::alert::{Answer, Evaluator, Message, Minute, Number, Question, Rules, Which};
use crate::clickhouse::Client;
use crate::clickhouse::sql::{ident, literal, literals};
use crate::clickhouse::tables::{ALERTS, LEDGER, PLANS};
use crate::event::COST_COLUMN;
use crate::plan::Plan;

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

/// What raw rows say of a message.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// By all of them that are there.
    pub(super) raw: Option<Found>,
    /// Where they are.
    pub(super) sources: Vec<Source>,
    /// By those that were there when it was published, where others came later.
    pub(super) then: Option<Found>,
    /// How many the rollup has counted.
    pub(super) counted: u64,
    /// Of costs.
    pub(super) prices: Option<Prices>,
}

/// Rows of a source.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) source: String,
    pub(super) rows: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// Written after the message was published.
    pub(super) later: u64,
}

/// Price lists, by hashes that name them.
#[derive(Debug, Serialize)]
pub(super) struct Prices {
    /// Those that the rows were written with.
    pub(super) then: Vec<String>,
    pub(super) now: String,
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

    /// What the raw rows say.
    pub(super) async fn evidence(&self) -> Result<Evidence> {
        let evaluator = self.evaluator();
        let Some(question) = evaluator.questions().first() else { return Ok(Evidence::default()) };
        let ends = self.ends_then().await?;
        let sources = self.sources(question, &ends).await?;
        let raw = self.of_raw(None).await?;
        let then = if sources.iter().any(|source| source.later > 0) { self.of_raw(Some(&ends)).await? } else { None };
        let counted = self.counted(question).await?;
        let prices = match question.numbers.contains(&Number::Sum(COST_COLUMN.to_owned())) {
            true => Some(self.prices().await?),
            false => None,
        };
        Ok(Evidence { raw, sources, then, counted, prices })
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

    /// How many rows the rollup has counted.
    async fn counted(&self, question: &Question) -> Result<u64> {
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
        Ok(counted.first().map_or(0, |row| row.counted))
    }

    /// Which prices the rows were written with.
    async fn prices(&self) -> Result<Prices> {
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
        Ok(Prices { then, now: version(self.plan.sources.prices.as_ref()) })
    }
}

/// A hash that names a price list.
fn version(prices: Option<&(String, String)>) -> String {
    let Some((_, text)) = prices else { return "none".to_owned() };
    Sha256::digest(text.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
