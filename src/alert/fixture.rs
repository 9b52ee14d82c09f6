//! Rules and a stage to try them on, for this room's tests.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use super::evaluate::{Checkpoint, Evaluator, Round};
use super::message::{Completeness, Message, millis};
use super::period::Minute;
use super::query::Question;
use super::rule::{Rules, aligned};
use super::trial::{Sample, rows};
use crate::event::EventType;
use crate::rollup::{Pack, Resolved};

/// Monday, 2 November 2026, 00:00 UTC.
pub(super) const START: Minute = 29_892_960;

/// The pack that rules of tests are written for.
pub(super) const METRICS: &str = r#"
[[rollup]]
event = "llm_call"
by = ["app", "environment", "model", "status"]
sum = ["input_tokens", "output_tokens", "retries", "cost_usd"]
distribution = ["latency_ms"]

[[metric]]
name = "calls"
question = "How many?"
unit = "calls"
rollup = "llm_call_1m"
count = true

[[metric]]
name = "error_rate"
question = "How many fail?"
unit = "share"
rollup = "llm_call_1m"
ratio = "status in ('error', 'timeout')"

[[metric]]
name = "latency"
question = "How long?"
unit = "ms"
rollup = "llm_call_1m"
quantiles = "latency_ms"

[[metric]]
name = "cost"
question = "How much?"
unit = "USD"
rollup = "llm_call_1m"
cost = true

[[metric]]
name = "tokens_per_token"
question = "How many?"
unit = "tokens"
rollup = "llm_call_1m"
ratio = { sum = "output_tokens", of = "input_tokens" }

[[metric]]
name = "mean_retries"
question = "How many?"
unit = "retries"
rollup = "llm_call_1m"
mean = "retries"
"#;

pub(super) fn types() -> Vec<EventType> {
    vec![EventType::parse("llm_call.avsc", include_str!("../../schemas/llm_call.avsc")).unwrap()]
}

/// Rules of a pack's text, or all errors, one a line.
pub(crate) fn parse(text: &str) -> Result<(Rules, Resolved), String> {
    let packs = [Pack::parse("metrics.toml", METRICS), Pack::parse("alerts.toml", text)];
    let packs: Vec<Pack> = packs.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    let types = types();
    let resolved = crate::rollup::resolve(&packs, &types).unwrap();
    let rules = super::resolve(&packs, &types, &resolved.rollups, &resolved.metrics)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok((rules, resolved))
}

/// Calls of a minute, with an app and a status.
pub(super) fn calls(at: Minute, app: &str, status: &str, count: u64) -> Sample {
    let dimensions = [("app", app), ("environment", "production"), ("model", "sonnet"), ("status", status)];
    let dimensions = dimensions.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Sample { at, arrives: Minute::MIN, dimensions, count, ..Sample::default() }
}

/// The same that cost something, in units of 10⁻¹² USD in all.
pub(super) fn spending(at: Minute, app: &str, cost: i128) -> Sample {
    Sample { sums: BTreeMap::from([("cost_usd".to_owned(), cost)]), ..calls(at, app, "ok", 1) }
}

/// The same that took so many ms each.
pub(super) fn taking(at: Minute, app: &str, latency: f64, count: u64) -> Sample {
    let distributions = BTreeMap::from([("latency_ms".to_owned(), vec![(latency, count)])]);
    Sample { distributions, ..calls(at, app, "ok", count) }
}

/// An evaluator and all that happens to it.
pub(super) struct Stage {
    pub(super) rules: Rules,
    pub(super) resolved: Resolved,
    pub(super) samples: Vec<Sample>,
    pub(super) evaluator: Evaluator,
    pub(super) told: Vec<Message>,
    pub(super) horizon: i64,
    pub(super) last: Round,
}

impl Stage {
    /// Begins at a minute.
    pub(super) fn new(text: &str, start: Minute) -> Stage {
        Stage::with_horizon(text, start, 24 * 60)
    }

    pub(super) fn with_horizon(text: &str, start: Minute, horizon: i64) -> Stage {
        let (rules, resolved) = parse(text).unwrap();
        let evaluator = Evaluator::new(rules.clone(), &resolved.rollups, horizon, start, None);
        Stage { rules, resolved, samples: Vec::new(), evaluator, told: Vec::new(), horizon, last: Round::default() }
    }

    /// Reads all that is known by a minute and judges up to another.
    pub(super) fn advance(&mut self, through: Minute, now: Minute) -> Vec<Message> {
        let questions: Vec<Question> = self.evaluator.questions().to_vec();
        for (position, question) in questions.iter().enumerate() {
            let from = aligned(START - 100 * 24 * 60, question.step);
            let known: Vec<Sample> = self.samples.iter().filter(|sample| sample.at < now).cloned().collect();
            self.evaluator.take(position, from, &rows(question, &known, from, now));
        }
        let completeness = Completeness { through_ms: millis(through), now_ms: millis(now), late: 0 };
        self.last = self.evaluator.advance(through, completeness);
        self.told.extend(self.last.messages.clone());
        self.last.messages.clone()
    }

    /// Judges minute by minute up to one.
    pub(super) fn run(&mut self, through: Minute) -> Vec<Message> {
        let mut told = Vec::new();
        for at in self.evaluator.judged() + 1..=through {
            told.extend(self.advance(at, at));
        }
        told
    }

    /// Another evaluator takes over, from what was told and the checkpoint.
    pub(super) fn restart(&mut self, checkpoint: &Checkpoint) {
        let through = checkpoint.judged;
        let rules = self.rules.clone();
        self.evaluator = Evaluator::new(rules, &self.resolved.rollups, self.horizon, through, Some(checkpoint));
        self.evaluator.restore(&self.told);
    }
}

/// Minute after the start, rule, app, state; of budgets the level.
pub(super) fn brief(messages: &[Message]) -> Vec<(i64, String)> {
    let one = |message: &Message| {
        let app = message.dimensions.get("app").map_or("", String::as_str);
        let level = if message.kind == "budget" { format!(" {}", message.severity) } else { String::new() };
        let corrected = if message.corrected { format!(" corrects {:?}", message.corrects) } else { String::new() };
        let text = format!("{} {app} {}{level}{corrected}", message.rule, message.state);
        (message.at / 60_000 - START, text.replace("  ", " "))
    };
    messages.iter().map(one).collect()
}
