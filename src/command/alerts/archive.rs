//! What ClickHouse has for whoever looks back: rollups, the table `alerts`, how far minutes are complete.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::alert::{Answer, Message, Minute, Question, Row, aligned};
use crate::clickhouse::sql::literals;
use crate::clickhouse::tables::ALERTS;
use crate::clickhouse::{COMPLETENESS, Client, QueryError};
use crate::rollup::Rollup;

/// Answers as rows.
///
/// # Errors
/// One is not what was asked for.
pub(super) fn understood(
    answers: Vec<Answer>,
    of: &str,
    row: impl Fn(Answer) -> Option<Row>,
) -> Result<Vec<Row>, QueryError> {
    let strange = || QueryError::Unexpected {
        expected: "a row as was asked for",
        answer: format!("one of {of} with other columns or numbers"),
    };
    answers.into_iter().map(|answer| row(answer).ok_or_else(strange)).collect()
}

/// The rows of a rollup that a question asks for, from a minute to before another.
pub(super) async fn rows(
    client: &Client,
    question: &Question,
    rollup: &Rollup,
    (from, until): (Minute, Minute),
) -> Result<Vec<Row>, QueryError> {
    let span = aligned(from, question.step)..until;
    let sql = question.sql(rollup, client.database(), std::slice::from_ref(&span));
    understood(client.rows(&sql).await?, &rollup.name, |answer| question.row(answer))
}

/// Before this minute no event is expected any more.
pub(super) async fn complete(client: &Client) -> Result<Minute, QueryError> {
    #[derive(Deserialize)]
    struct Through {
        through: i64,
    }
    let sql = format!("SELECT toUnixTimestamp64Milli(through) AS through FROM {}", client.table(COMPLETENESS));
    Ok(client.rows::<Through>(&sql).await?.first().map_or(0, |row| row.through).div_euclid(60_000))
}

/// What was told of some rules and still stands, at moments after one and up to another: what others take back is left
/// out.
pub(super) async fn standing(client: &Client, rules: &[&str], (after, to): (Minute, Minute)) -> Result<Vec<Message>> {
    let limits = format!("at > {} AND at <= {}", time(after), time(to));
    told(client, rules, &limits, "ORDER BY at, rule, alert_id, sequence").await
}

/// What some rules had told by a moment: the last word on each alert that is no budget's, and all of budgets' periods that
/// may not be over.
pub(super) async fn before(client: &Client, rules: &[&str], at: Minute) -> Result<Vec<Message>> {
    /// More than a month.
    const PERIOD: Minute = 32 * 24 * 60;
    let order = "ORDER BY alert_id, sequence DESC LIMIT 1 BY alert_id";
    let mut last = told(client, rules, &format!("kind != 'budget' AND at <= {}", time(at)), order).await?;
    last.retain(|message| message.state == crate::alert::State::Firing.name());
    let limits = format!("kind = 'budget' AND at > {} AND at <= {}", time(at - PERIOD), time(at));
    let mut budgets = told(client, rules, &limits, "ORDER BY alert_id, sequence").await?;
    budgets.retain(|message| message.budget.as_ref().is_some_and(|budget| budget.period_end > at * 60_000));
    last.extend(budgets);
    Ok(last)
}

async fn told(client: &Client, rules: &[&str], limits: &str, order: &str) -> Result<Vec<Message>> {
    #[derive(Deserialize)]
    struct Told {
        message: String,
    }
    if rules.is_empty() {
        return Ok(Vec::new());
    }
    let (table, rules) = (client.table(ALERTS), literals(rules));
    let sql = format!(
        "SELECT message FROM {table} WHERE rule IN ({rules}) AND state != 'withdrawn' AND {limits} AND (alert_id, sequence) NOT \
         IN (SELECT alert_id, arrayJoin(corrects) FROM {table} WHERE rule IN ({rules}) AND notEmpty(corrects)) {order}"
    );
    let rows: Vec<Told> = client.rows(&sql).await.context("can't read the table alerts")?;
    let messages: Result<Vec<Message>, _> = rows.iter().map(|row| serde_json::from_str(&row.message)).collect();
    messages.context("a row of the table alerts has another message than highwater writes")
}

fn time(minute: Minute) -> String {
    format!("toDateTime64({}, 3, 'UTC')", minute * 60)
}
