//! `packs/*.toml`: what analysts want computed.
//!
//! ```toml
//! [[rollup]]
//! event = "llm_call"                          # an event type
//! name = "llm_call_1m"                        # of the view; this is the default
//! by = ["app", "environment", "model"]        # its dimensions
//! sum = ["input_tokens", "cost_usd"]          # numbers
//! distribution = ["latency_ms"]               # numbers to take percentiles of
//! ```

use serde::Deserialize;

/// A pack's file, read but not yet held against event types.
#[derive(Debug, Clone)]
pub struct Pack {
    /// Its name for error messages.
    pub(super) file: String,
    /// Its rollups, in its order.
    pub(super) rollups: Vec<RollupEntry>,
}

/// One `[[rollup]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RollupEntry {
    pub(super) event: String,
    pub(super) name: Option<String>,
    pub(super) by: Vec<String>,
    #[serde(default)]
    pub(super) sum: Vec<String>,
    #[serde(default)]
    pub(super) distribution: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rollup: Vec<RollupEntry>,
}

/// Why a pack can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// Not TOML, or not the keys of a pack.
    #[error("{file}: not a pack: {error}")]
    Syntax {
        /// The file.
        file: String,
        /// The parser's message, with line, column and key.
        error: String,
    },
    /// A rollup that can't be made.
    #[error("{file}: rollup {rollup}: {key}: {what}")]
    Rollup {
        /// The file.
        file: String,
        /// The rollup's name.
        rollup: String,
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
    pub fn parse(file: &str, text: &str) -> Result<Pack, PackError> {
        match toml::from_str::<File>(text) {
            Ok(pack) => Ok(Pack { file: file.to_owned(), rollups: pack.rollup }),
            Err(error) => Err(PackError::Syntax { file: file.to_owned(), error: error.to_string() }),
        }
    }
}
