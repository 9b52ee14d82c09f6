//! `packs/*.toml`: what analysts want computed.
//!
//! ```toml
//! [[rollup]]
//! event = "llm_call"                          # an event type
//! name = "llm_call_1m"                        # of the view; this is the default
//! version = 1                                 # the next one wherever `by` was changed; this is the default
//! by = ["app", "environment", "model"]        # its dimensions
//! sum = ["input_tokens", "cost_usd"]          # numbers
//! distribution = ["latency_ms"]               # numbers to take percentiles of
//!
//! [[metric]]
//! name = "llm_error_rate"                     # of the view
//! question = "Which share of calls failed?"   # one line
//! unit = "share"
//! rollup = "llm_call_1m"                      # or: event = "llm_call", for the first of its rollups that has it all
//! by = ["app", "model"]                       # some of the rollup's dimensions
//! where = "environment = 'production'"        # which series; see `Condition`
//! ratio = "status in ('error', 'timeout')"    # and one of count, sum, mean, cost, ratio, quantiles
//! ```
//!
//! And `[[alert]]` and `[[budget]]`, which say when a metric is to be told of: [`alerts`].

pub(crate) mod alerts;

use serde::Deserialize;
use toml::Spanned;

use crate::config::nearest;
use alerts::{AlertEntry, BudgetEntry};

/// A pack's file, read but not yet held against event types.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Its name for error messages.
    pub(crate) file: String,
    text: String,
    /// Its rollups, in its order.
    pub(super) rollups: Vec<RollupEntry>,
    /// Its metrics, in its order.
    pub(super) metrics: Vec<MetricEntry>,
    /// Its alerts, in its order.
    pub(crate) alerts: Vec<AlertEntry>,
    /// Its budgets, in its order.
    pub(crate) budgets: Vec<BudgetEntry>,
}

/// One `[[rollup]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollupEntry {
    pub(super) event: Spanned<String>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) version: Option<Spanned<u32>>,
    pub(super) by: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) sum: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) distribution: Vec<Spanned<String>>,
}

/// One `[[metric]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MetricEntry {
    pub(super) name: Spanned<String>,
    pub(super) question: Spanned<String>,
    pub(super) unit: Spanned<String>,
    pub(super) rollup: Option<Spanned<String>>,
    pub(super) event: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) by: Vec<Spanned<String>>,
    pub(super) r#where: Option<Spanned<String>>,
    pub(super) count: Option<Spanned<bool>>,
    pub(super) sum: Option<Spanned<Names>>,
    pub(super) mean: Option<Spanned<String>>,
    pub(super) cost: Option<Spanned<bool>>,
    pub(super) ratio: Option<Spanned<toml::Value>>,
    pub(super) quantiles: Option<Spanned<String>>,
}

/// A name or a list of names.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected the name of a number or a list of such names")]
pub(super) enum Names {
    One(String),
    Many(Vec<String>),
}

impl Names {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Names::One(name) => vec![name],
            Names::Many(names) => names,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rollup: Vec<RollupEntry>,
    #[serde(default)]
    metric: Vec<MetricEntry>,
    #[serde(default)]
    alert: Vec<AlertEntry>,
    #[serde(default)]
    budget: Vec<BudgetEntry>,
}

/// Why a pack can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Not TOML, or not the keys of a pack.
    #[error("{file}:{line}: not a pack: {what}")]
    Syntax {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
    /// A rollup, metric, alert or budget that can't be made.
    #[error("{file}:{line}: {kind} {name}: {key}: {what}")]
    Entry {
        /// The file.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// `rollup`, `metric`, `alert` or `budget`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// Which of its keys is wrong.
        key: &'static str,
        /// What is wrong with it, and what to do.
        what: String,
    },
    /// No pack has a rollup of an event type, and the default one can't be made.
    #[error(
        "event type {event}: its default rollup can't be made: {key}: {what}; or write a [[rollup]] for it in a pack"
    )]
    Default {
        /// The event type.
        event: String,
        /// Which of the rollup's keys would be wrong.
        key: &'static str,
        /// What is wrong, and what to do.
        what: String,
    },
}

impl Pack {
    /// Reads a pack; `file` is its name for error messages.
    ///
    /// # Errors
    /// It is not TOML, a key is unknown, missing or of another type; with the line, and the key that was meant.
    pub fn parse(file: &str, text: &str) -> Result<Pack, PackError> {
        match toml::from_str::<File>(text) {
            Ok(pack) => Ok(Pack {
                file: file.to_owned(),
                text: text.to_owned(),
                rollups: pack.rollup,
                metrics: pack.metric,
                alerts: pack.alert,
                budgets: pack.budget,
            }),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let (line, what) = (line(text, at), explained(error.message(), key_before(text, at)));
                Err(PackError::Syntax { file: file.to_owned(), line, what })
            }
        }
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The line, from 1, of a position in its text.
    pub(crate) fn line(&self, at: usize) -> usize {
        line(&self.text, at)
    }
}

fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// The key whose value stands at a position.
fn key_before(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?.trim_end().strip_suffix('=')?.trim_end();
    let is_other = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == '-');
    let key = before.rsplit(is_other).next()?;
    Some(key).filter(|key| !key.is_empty())
}

/// The parser's message; for an unknown key, with the one that was meant; for a value of another kind, with its key and what
/// to write.
fn explained(message: &str, key: Option<&str>) -> String {
    if let (Some(key), Some((found, wanted))) = (key, message.rsplit_once("expected ")) {
        let wanted = match wanted {
            "a string" => "a text between quotes",
            "a sequence" => "a list between brackets",
            "a map" => "a table between braces",
            "a boolean" => "true or false",
            "u32" | "u64" => "a whole number from 0",
            other => other,
        };
        let found = found
            .trim_end_matches([' ', ','])
            .trim_start_matches("invalid type: ")
            .trim_start_matches("invalid value: ");
        let found = if found.is_empty() { String::new() } else { format!("it can't be {found}; ") };
        return format!("{key}: {found}write {wanted}");
    }
    if message == "invalid type: map, expected a sequence" {
        return "there can be many of these; write the name between two brackets on each side, as [[alert]]".to_owned();
    }
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match words[..] {
        [unknown, ref known @ ..] if message.starts_with("unknown field") => {
            let meant = nearest(unknown, known.iter().copied());
            let meant = meant.map_or_else(String::new, |near| format!("did you mean `{near}`? "));
            format!("unknown key `{unknown}`; {meant}known are {}", known.join(", "))
        }
        _ => message.replace("missing field", "missing key"),
    }
}
