//! A metric: a question about a rollup, answered for each minute.

use super::condition::Condition;

/// One metric, resolved against its rollup. It is a view of this name with the columns `minute`, its dimensions and
/// those of its [`Quantity`], and `complete`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metric {
    /// The view's name.
    pub name: String,
    /// What it answers, in one line.
    pub question: String,
    /// The unit of its value.
    pub unit: String,
    /// Position of its rollup in the plan.
    pub rollup: usize,
    /// What it groups by, among its rollup's dimensions.
    pub by: Vec<String>,
    /// Which series it looks at; `None`: all.
    pub filter: Option<Condition>,
    /// What it computes.
    pub quantity: Quantity,
}

/// What a metric computes. Names are those of the rollup's measures.
///
/// All but [`Quantity::Quantiles`] have `numerator`, `denominator` and `value`, of which the first two add up over any
/// rows: `sum(numerator) / sum(denominator)` is right over all minutes and dimensions. `value` is null where the
/// denominator is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Quantity {
    /// Events. Value and numerator: how many; denominator the same.
    Count,
    /// The sum of a measure, or of several. Value and numerator: the sum; denominator: the events that have the measure
    /// (all events where there are several), so that numerator by denominator is the mean.
    Sum(Vec<String>),
    /// What events cost, as [`Quantity::Sum`] of the cost; one more column, `unpriced`, counts those without a price.
    Cost,
    /// The mean of a measure over the events that have it.
    Mean(String),
    /// Events in which one thing holds by those in which another does.
    Counts {
        /// What is counted.
        numerator: Condition,
        /// What it is held against; `None`: all events.
        denominator: Option<Condition>,
    },
    /// The sum of measures by the sum of others.
    Sums {
        /// Summed above the line.
        numerator: Vec<String>,
        /// Summed below it.
        denominator: Vec<String>,
    },
    /// Percentiles of a measure: `p50`, `p95`, `p99` (null without values), `count` of its values, and `distribution`,
    /// from which percentiles over more than one row are taken.
    Quantiles(String),
}

impl Metric {
    /// The names of its view's columns, in order.
    pub fn columns(&self) -> Vec<&str> {
        let own: &[&str] = match self.quantity {
            Quantity::Quantiles(_) => &["count", "p50", "p95", "p99", "distribution"],
            Quantity::Cost => &["numerator", "denominator", "value", "unpriced"],
            _ => &["numerator", "denominator", "value"],
        };
        let by = self.by.iter().map(String::as_str);
        std::iter::once("minute").chain(by).chain(own.iter().copied()).chain(["complete"]).collect()
    }
}
