//! `packs/*.toml`: what analysts want computed.

/// A pack's file, read.
#[derive(Debug, Clone)]
pub struct Pack {}

/// One rollup, resolved against its event type.
#[derive(Debug, Clone)]
pub struct Rollup {
    /// The view's name, `llm_call_1m`; its table is `{name}_parts`.
    pub name: String,
    /// Index of its event type in the plan.
    pub event: usize,
    /// Columns to group by (indices into [`crate::columns::Columns::columns`]), `app` first if it is among them.
    pub by: Vec<usize>,
    /// Columns to sum.
    pub sum: Vec<usize>,
    /// Columns to take distributions of.
    pub distribution: Vec<usize>,
}

/// Why a pack can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {}
