//! The tables `[[alert]]` and `[[budget]]` of a pack, as written. What they mean, `crate::alert` says.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// One `[[alert]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AlertEntry {
    pub(crate) name: Spanned<String>,
    pub(crate) metric: Spanned<String>,
    #[serde(default)]
    pub(crate) by: Vec<Spanned<String>>,
    pub(crate) r#where: Option<Spanned<String>>,
    pub(crate) window: Option<Spanned<String>>,
    pub(crate) r#for: Option<Spanned<String>>,
    pub(crate) above: Option<Spanned<Level>>,
    pub(crate) below: Option<Spanned<Level>>,
    pub(crate) resolve: Option<Spanned<Level>>,
    pub(crate) quantile: Option<Spanned<Level>>,
    pub(crate) min_samples: Option<Spanned<u64>>,
    pub(crate) confidence: Option<Spanned<Level>>,
    pub(crate) change: Option<Spanned<String>>,
    pub(crate) no_data: Option<Spanned<String>>,
    pub(crate) remember: Option<Spanned<String>>,
    pub(crate) burn_rate: Option<Spanned<BurnEntry>>,
    pub(crate) anomaly: Option<Spanned<AnomalyEntry>>,
    pub(crate) severity: Option<Spanned<String>>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) summary: Option<Spanned<String>>,
    pub(crate) max_series: Option<Spanned<u32>>,
}

/// `burn_rate = { … }` of an alert.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as { objective = 0.999 }")]
pub(crate) struct BurnEntry {
    pub(crate) objective: Spanned<Level>,
    pub(crate) slower_than: Option<Spanned<Level>>,
    pub(crate) windows: Option<Vec<Spanned<TierEntry>>>,
}

/// A pair of windows of `burn_rate`.
#[derive(Debug, Clone, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a table, as { rate = 2, long = \"1d\", short = \"2h\", severity = \"ticket\" }"
)]
pub(crate) struct TierEntry {
    pub(crate) rate: Level,
    pub(crate) long: String,
    pub(crate) short: String,
    pub(crate) severity: String,
}

/// `anomaly = { … }` of an alert.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table, as { weeks = 4 }")]
pub(crate) struct AnomalyEntry {
    pub(crate) weeks: Option<Spanned<u32>>,
    pub(crate) min_weeks: Option<Spanned<u32>>,
    pub(crate) deviations: Option<Spanned<Level>>,
    pub(crate) tolerance: Option<Spanned<Level>>,
    pub(crate) direction: Option<Spanned<String>>,
    pub(crate) time_zone: Option<Spanned<String>>,
}

/// One `[[budget]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BudgetEntry {
    pub(crate) name: Spanned<String>,
    pub(crate) metric: Spanned<String>,
    #[serde(default)]
    pub(crate) by: Vec<Spanned<String>>,
    pub(crate) r#where: Option<Spanned<String>>,
    pub(crate) period: Spanned<String>,
    pub(crate) time_zone: Option<Spanned<String>>,
    pub(crate) amount: Spanned<Amount>,
    pub(crate) levels: Option<Spanned<BTreeMap<String, u32>>>,
    pub(crate) forecast: Option<Spanned<bool>>,
    pub(crate) forecast_window: Option<Spanned<String>>,
    pub(crate) unpriced: Option<Spanned<bool>>,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) summary: Option<Spanned<String>>,
    pub(crate) max_series: Option<Spanned<u32>>,
}

/// An amount: exact, so a number with a point stands between quotes.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected an amount between quotes, as \"50.00\"")]
pub(crate) enum Amount {
    Text(String),
    Whole(i64),
}

impl Amount {
    /// As written.
    pub(crate) fn text(&self) -> String {
        match self {
            Amount::Text(text) => text.clone(),
            Amount::Whole(whole) => whole.to_string(),
        }
    }
}

/// A number, with or without a point.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged, expecting = "expected a number")]
pub(crate) enum Level {
    Whole(i64),
    Real(f64),
}

impl Level {
    /// As a double.
    pub(crate) fn get(self) -> f64 {
        match self {
            Level::Whole(value) => value as f64,
            Level::Real(value) => value,
        }
    }
}
