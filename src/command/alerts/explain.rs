//! `highwater alerts explain`: what was told of an alert, and the same computed anew from what ClickHouse has now.
//!
//! The rule is the one of that time: each message carries its text. It is judged by the code that judges in production, over
//! the rollups and over the raw rows.

use std::io::Write;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use super::evidence::Inquiry;
use super::now::say;
use super::shown::{message as shown, short, time};
use crate::alert::{Completeness, Evaluator, Kind, Message, MessageReading, Minute, Rules, resolve};
use crate::clickhouse::Client;
use crate::clickhouse::sql::literal;
use crate::clickhouse::tables::ALERTS;
use crate::command::dead_letters::printable::printable;
use crate::command::{UsageError, load};
use crate::config::Settings;
use crate::event::EventType;
use crate::plan::Plan;
use crate::rollup::Pack;

/// How long a question may take: a rule may look at weeks.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);
/// Floating-point sums may be added up in another order.
const TOLERANCE: f64 = 1e-9;

/// What `highwater alerts explain` is asked for.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// The alert's id, or its begin
    #[arg(value_name = "ID")]
    id: String,
    /// Which of its messages; the last if left out
    #[arg(long, value_name = "N")]
    sequence: Option<i64>,
}

/// Prints what was told, the rule, and what it would say now.
pub(super) async fn run(settings: &Settings, args: &Args, mut out: impl Write) -> Result<()> {
    let client = Client::new(settings.endpoint()?).with_timeout(PATIENCE);
    let told = told(&client, args).await?;
    let plan = load::plan(settings)?;
    say(&mut out, &shown(&told))?;
    say(&mut out, &circumstances(&told, &plan))?;
    for line in told.rule_text.lines() {
        say(&mut out, &printable(&format!("    {line}")))?;
    }
    let rules = match rule_of_then(&told, &plan) {
        Ok(rules) => rules,
        Err(why) => return say(&mut out, &format!("with the present packs that rule can't be judged any more: {why}")),
    };
    let is_budget = told.kind == Kind::Budget.name();
    let end = told.budget.as_ref().filter(|_| is_budget).map_or(i64::MAX, |budget| budget.period_end - 60_000);
    let at = told.at.min(end).div_euclid(60_000);
    let inquiry = Inquiry { client: &client, plan: &plan, told: &told, rules: &rules, at };
    let now = inquiry.of_rollups().await?;
    say(&mut out, &judged_now(&told, now.as_ref()))?;
    inquiry.lines(now.as_ref()).await?.iter().try_for_each(|line| say(&mut out, line))
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

/// When it was told, on data how complete, and what became of the rule.
fn circumstances(told: &Message, plan: &Plan) -> String {
    let Message { complete_through, lag_ms, late, rule_hash, .. } = told;
    let rules = plan.alerts.rules.iter().map(|rule| &rule.notice);
    let notices: Vec<_> = rules.chain(plan.alerts.budgets.iter().map(|budget| &budget.notice)).collect();
    let now = match notices.iter().find(|notice| notice.name == told.rule) {
        None => "is gone since",
        Some(notice) if notice.hash == *rule_hash => "is the same now",
        Some(_) => "was changed since",
    };
    format!(
        "complete up to {}, {} s behind the clock, {late} events late of late; the rule, as it was, {now} ({rule_hash}):",
        time(*complete_through),
        lag_ms / 1_000
    )
}

/// The rule as it was, over what the present packs have.
fn rule_of_then(told: &Message, plan: &Plan) -> Result<Rules, String> {
    let pack = Pack::parse("the rule", &told.rule_text).map_err(|error| error.to_string())?;
    let types: Vec<EventType> = plan.types.iter().map(|planned| planned.event.clone()).collect();
    resolve(&[pack], &types, &plan.rollups, &plan.metrics)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

/// What a rule says of the moment.
#[derive(Debug, Clone, PartialEq)]
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

impl Found {
    /// Whether it is what was told.
    pub(super) fn is_as(&self, told: &Message) -> bool {
        match (&self.spent, &told.budget) {
            (Some(spent), Some(budget)) => *spent == budget.spent,
            _ => differences(told, self).is_empty(),
        }
    }

    /// Whether it is what another says.
    pub(super) fn is_like(&self, other: &Found) -> bool {
        let is_alike = |(one, other): (&MessageReading, &MessageReading)| {
            is_equal(Some(one.numerator), Some(other.numerator))
                && is_equal(Some(one.denominator), Some(other.denominator))
                && one.samples == other.samples
        };
        self.spent == other.spent
            && is_equal(self.value, other.value)
            && self.readings.len() == other.readings.len()
            && self.readings.iter().zip(&other.readings).all(is_alike)
    }
}

/// Whether what the rollups say is what was told.
fn judged_now(told: &Message, now: Option<&Found>) -> String {
    match (now, told.budget.as_ref().map(|budget| &budget.spent)) {
        (None, Some(_)) => "computed anew: no rows of that series and period are left".to_owned(),
        (None, None) => "computed anew: no rows of that series are left".to_owned(),
        (Some(Found { spent: Some(spent), .. }), Some(then)) if spent == then => {
            format!("computed anew: {spent} spent, as was told")
        }
        (Some(Found { spent: Some(spent), .. }), then) => {
            let then = then.map_or("", String::as_str);
            format!("computed anew: {spent} spent in that period by now, {then} when it was told")
        }
        (Some(now), _) => compared(told, now),
    }
}

/// Whether the same was found as was told, or what is otherwise.
fn compared(told: &Message, now: &Found) -> String {
    let differences = differences(told, now);
    if differences.is_empty() {
        return format!("computed anew: {} against {}, as was told", text(now.value), short(now.threshold));
    }
    format!("computed anew, it is otherwise than was told:\n    {}", differences.join("\n    "))
}

fn text(value: Option<f64>) -> String {
    value.map_or_else(|| "nothing".to_owned(), short)
}

/// What is otherwise than was told.
fn differences(told: &Message, now: &Found) -> Vec<String> {
    let Found { value, threshold, readings, .. } = now;
    let mut differences = Vec::new();
    if !(is_equal(told.value, *value) && is_equal(Some(told.threshold), Some(*threshold))) {
        differences.push(format!(
            "{} against {} when it was told, {} against {} now",
            text(told.value),
            short(told.threshold),
            text(*value),
            short(*threshold)
        ));
    }
    for now in readings {
        let then = told.readings.iter().find(|then| then.name == now.name);
        let of = |reading: &MessageReading| format!("{} of {}", short(reading.numerator), short(reading.denominator));
        let is_same = then.is_some_and(|then| {
            is_equal(Some(then.numerator), Some(now.numerator))
                && is_equal(Some(then.denominator), Some(now.denominator))
                && then.samples == now.samples
        });
        if !is_same {
            let then = then.map_or_else(|| "nothing".to_owned(), of);
            differences.push(format!("{}: {then} when it was told, {} now", now.name, of(now)));
        }
    }
    differences
}

fn is_equal(one: Option<f64>, other: Option<f64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => (one - other).abs() <= TOLERANCE * one.abs().max(other.abs()),
        (one, other) => one.is_none() && other.is_none(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn reading(numerator: f64, denominator: f64) -> MessageReading {
        let value = Some(numerator / denominator);
        let name = "window".to_owned();
        MessageReading { name, from: 0, to: 300_000, numerator, denominator, samples: 50, value, bound: None }
    }

    fn message(id: &str, sequence: i64) -> Message {
        let message = serde_json::json!({
            "alert_id": id, "sequence": sequence, "rule": "r", "kind": "threshold", "severity": "page", "state": "firing",
            "previous": "pending", "provisional": false, "corrected": false, "corrects": [], "at": 300_000, "since": 0,
            "dimensions": {}, "labels": {}, "summary": "", "metric": "m", "unit": "", "value": 0.8, "threshold": 0.2,
            "readings": [reading(40.0, 50.0)], "baseline": null, "budget": null, "forecast": null, "complete_through": 0,
            "late": 0, "lag_ms": 0, "rule_text": "", "rule_hash": ""
        });
        serde_json::from_value(message).unwrap()
    }

    #[test]
    fn says_that_it_is_the_same_or_what_is_otherwise() {
        let told = message("a", 1);
        let compared = |told: &Message, value, threshold, readings: &[MessageReading]| {
            super::compared(told, &Found { value, threshold, readings: readings.to_vec(), spent: None })
        };
        let same = "computed anew: 0.8 against 0.2, as was told";
        assert_eq!(compared(&told, Some(0.8 + 1e-12), 0.2, &[reading(40.0, 50.0)]), same);
        assert_eq!(
            compared(&told, Some(0.875), 0.2, &[reading(70.0, 80.0)]),
            "computed anew, it is otherwise than was told:\n    0.8 against 0.2 when it was told, 0.875 against 0.2 now\n    \
             window: 40 of 50 when it was told, 70 of 80 now"
        );
        let gone = compared(&told, None, 0.2, &[]);
        assert!(gone.contains("0.8 against 0.2 when it was told, nothing against 0.2 now"), "{gone}");
        let fewer = MessageReading { samples: 49, ..reading(40.0, 50.0) };
        assert!(compared(&told, Some(0.8), 0.2, &[fewer]).contains("otherwise"));
    }

    #[test]
    fn the_message_that_is_meant_is_found_or_told_to_be_missing() {
        let args = |sequence| Args { id: "a".to_owned(), sequence };
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
