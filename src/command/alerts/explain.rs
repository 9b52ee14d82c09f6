//! `highwater alerts explain`: what was told of an alert, and the same computed anew from what ClickHouse has now.
//!
//! The rule is the one of that time: each message carries its text. It is judged by the code that judges in production, over
//! the rollups and over the raw rows.

use std::io::Write;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

use super::evidence::Inquiry;
use super::explanation::{Anew, Explanation, RuleNow};
use super::now::say;
use crate::alert::{Completeness, Evaluator, Kind, Message, MessageReading, Minute, Rules, resolve};
use crate::clickhouse::Client;
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::ALERTS;
use crate::command::{UsageError, load};
use crate::config::Settings;
use crate::event::EventType;
use crate::plan::Plan;
use crate::rollup::Pack;

/// How long a question may take: a rule may look at weeks.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);
/// What `highwater alerts explain` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The alert's id, or its begin
    #[arg(value_name = "ID")]
    id: String,
    /// Which of its messages; the last if left out
    #[arg(long, value_name = "N")]
    sequence: Option<i64>,
    /// Print all of it as one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints what was told, the rule, and what it would say now.
pub(super) async fn run(settings: &Settings, args: &Args, mut out: impl Write) -> Result<()> {
    let client = Client::new(settings.endpoint()?).with_timeout(PATIENCE);
    let told = told(&client, args).await?;
    let plan = load::plan(settings)?;
    let anew = match rule_of_then(&told, &plan) {
        Ok(rules) => Ok(anew(&client, &plan, &told, &rules).await?),
        Err(why) => Err(why),
    };
    let explanation = Explanation { rule_now: RuleNow::of(&told, &plan), told: &told, anew };
    if args.json {
        return say(&mut out, &explanation.json());
    }
    explanation.lines().iter().try_for_each(|line| say(&mut out, line))
}

/// What the rule as it was says now of what was judged.
async fn anew(client: &Client, plan: &Plan, told: &Message, rules: &Rules) -> Result<Anew> {
    let is_budget = told.kind == Kind::Budget.name();
    let end = told.budget.as_ref().filter(|_| is_budget).map_or(i64::MAX, |budget| budget.period_end - 60_000);
    let at = told.at.min(end).div_euclid(60_000);
    let inquiry = Inquiry { client, plan, told, rules, at };
    Ok(Anew { rollups: inquiry.of_rollups().await?, evidence: inquiry.evidence().await? })
}

/// The message that is meant.
async fn told(client: &Client, args: &Args) -> Result<Message> {
    #[derive(Deserialize)]
    struct Row {
        message: String,
    }
    let is_id = |character: char| character.is_ascii_hexdigit() || character == '-';
    if args.id.is_empty() || !args.id.chars().all(is_id) {
        let what = format!("{:?} is no id of an alert; `highwater alerts` prints them", args.id);
        return Err(UsageError(what).into());
    }
    let id = literal(&args.id.to_ascii_lowercase());
    let sql = format!(
        "SELECT message FROM {} WHERE startsWith(toString(alert_id), {id}) ORDER BY alert_id, sequence",
        client.table(ALERTS)
    );
    let rows: Vec<Row> = client.rows(&sql).await.context("can't read the table alerts")?;
    let messages: Result<Vec<Message>, _> = rows.iter().map(|row| serde_json::from_str(&row.message)).collect();
    choose(messages.context("a row of the table alerts has another message than highwater writes")?, args)
}

fn choose(messages: Vec<Message>, args: &Args) -> Result<Message> {
    let mut ids: Vec<&str> = messages.iter().map(|message| message.alert_id.as_str()).collect();
    ids.dedup();
    match ids[..] {
        [] => bail!("nothing was told of an alert whose id begins with {}; `highwater alerts` prints ids", args.id),
        [_] => {}
        _ => bail!("several ids begin with {}: {}; give more of it", args.id, ids.join(", ")),
    }
    let last = messages.last().map_or(0, |message| message.sequence);
    let wanted = args.sequence.unwrap_or(last);
    let found = messages.into_iter().find(|message| message.sequence == wanted);
    found.ok_or_else(|| anyhow!("there is no message {wanted} of that alert; there are 1 to {last}"))
}

/// The rule as it was, over what the present packs have.
fn rule_of_then(told: &Message, plan: &Plan) -> Result<Rules, String> {
    let pack = Pack::parse("the rule", &told.rule_text).map_err(|error| error.to_string())?;
    let types: Vec<EventType> = plan.types.iter().map(|planned| planned.event.clone()).collect();
    resolve(&[pack], &types, &plan.rollups, &plan.metrics)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// What a rule says of the moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Found {
    pub(super) value: Option<f64>,
    pub(super) threshold: f64,
    pub(super) readings: Vec<MessageReading>,
    /// Of budgets, all that counts.
    pub(super) spent: Option<String>,
}

/// What an evaluator that was given its rows says of what was told; `None`: it knows no such series.
pub(super) fn found(mut evaluator: Evaluator, told: &Message, at: Minute) -> Option<Found> {
    if told.kind == Kind::Budget.name() {
        let completeness = Completeness { through_ms: at * 60_000, now_ms: at * 60_000, late: 0 };
        let round = evaluator.advance(at, completeness);
        let state = round.budgets.into_iter().find(|state| state.dimensions == told.dimensions)?;
        return Some(Found { value: None, threshold: told.threshold, readings: Vec::new(), spent: Some(state.spent) });
    }
    let verdict = evaluator.explain(&told.rule, &told.dimensions, at)?;
    let readings = verdict.readings.iter().flatten().map(Into::into).collect();
    Some(Found { value: verdict.value, threshold: verdict.threshold, readings, spent: None })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::explanation::tests::message;
    use super::*;

    #[test]
    fn the_message_that_is_meant_is_found_or_told_to_be_missing() {
        let args = |sequence| Args { id: "a".to_owned(), sequence, json: false };
        let all = || vec![message("ab", 1), message("ab", 2), message("ab", 3)];
        assert_eq!(choose(all(), &args(None)).unwrap().sequence, 3);
        assert_eq!(choose(all(), &args(Some(2))).unwrap().sequence, 2);
        let error = choose(all(), &args(Some(4))).unwrap_err().to_string();
        assert_eq!(error, "there is no message 4 of that alert; there are 1 to 3");
        assert!(choose(vec![], &args(None)).unwrap_err().to_string().contains("begins with a"));
        let several = [all(), vec![message("ac", 1)]].concat();
        assert!(choose(several, &args(None)).unwrap_err().to_string().contains("ab, ac"));
    }
}
