//! A signal: what rules look at. A metric, grouped by some dimensions, of the series that a condition holds of; for each
//! step and series a few whole numbers that add up.
//!
//! Whole numbers, so that a window's sum is a difference of two running sums, exact whichever way it was come by:
//!
//! | quantity | columns | scale |
//! |---|---|---|
//! | count | events | 0 |
//! | sum, mean | sum, events that have the measure | the measure's, 0 |
//! | cost | cost, priced events, unpriced events | 12, 0, 0 |
//! | ratio of counts | events above the line, below it | 0 |
//! | ratio of sums | sum above the line, below it, events | the measures', 0 |
//! | quantiles | values, then those beyond each level that rules ask for | 0 |

use super::decimal;
use super::query::{Number as Asked, Picks, Row};
use super::rule::Side;
use super::stat::Histogram;
use crate::event::COST_COLUMN;
use crate::rollup::{Condition, Number, OTHER, Quantity, Rollup};

/// What rules look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    /// Position of its rollup in the plan.
    pub rollup: usize,
    /// What it groups by, among the rollup's dimensions.
    pub by: Vec<String>,
    /// Which of the rollup's series it looks at; `None`: all.
    pub filter: Option<Condition>,
    /// What it computes.
    pub quantity: Quantity,
    /// Minutes of a row.
    pub step: i64,
    /// How many minutes before a moment any of its rules may look.
    pub reach: i64,
    /// Of quantiles: the levels beyond which values are counted.
    pub levels: Vec<(Side, f64)>,
    /// Digits behind the point of the first column, and of the second.
    pub scales: [u8; 2],
    /// Most series that are watched.
    pub max_series: usize,
}

/// What one row of a rollup adds to a signal.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Share {
    pub(super) counters: Vec<i128>,
    pub(super) histogram: Histogram,
}

/// What of a rollup's series a signal is asked of, by its dimensions; the same in every minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    /// Of a ratio of counts: whether its events are above the line.
    numerator: bool,
    /// Whether they are below it.
    denominator: bool,
}

impl Signal {
    /// Whole numbers of a row.
    pub fn columns(&self) -> usize {
        match &self.quantity {
            Quantity::Count => 1,
            Quantity::Sum(_) | Quantity::Mean(_) | Quantity::Counts { .. } => 2,
            Quantity::Cost | Quantity::Sums { .. } => 3,
            Quantity::Quantiles(_) => 1 + self.levels.len(),
        }
    }

    /// The column of values beyond a level, made where it is not there yet.
    pub(super) fn level_column(&mut self, side: Side, level: f64) -> usize {
        let found = self.levels.iter().position(|known| *known == (side, level));
        1 + found.unwrap_or_else(|| {
            self.levels.push((side, level));
            self.levels.len() - 1
        })
    }

    /// Whether rules over the two can share one.
    pub(super) fn is_like(&self, other: &Signal) -> bool {
        // With another limit it watches other series.
        let limits = (self.step, self.max_series) == (other.step, other.max_series);
        limits
            && (self.rollup, &self.by, &self.filter, &self.quantity)
                == (other.rollup, &other.by, &other.filter, &other.quantity)
    }

    /// What it needs of its rollup's columns: numbers, and the name of a distribution.
    pub(super) fn asks(&self) -> (Vec<Asked>, Option<String>) {
        let sum = |name: &String| Asked::Sum(name.clone());
        let having = |name: &str| [Asked::Count, Asked::Missing(name.to_owned()), Asked::Invalid(name.to_owned())];
        let numbers = match &self.quantity {
            Quantity::Count | Quantity::Counts { .. } => vec![Asked::Count],
            Quantity::Sum(names) if names.len() > 1 => names.iter().map(sum).chain([Asked::Count]).collect(),
            Quantity::Sum(names) => names.iter().flat_map(|name| [sum(name)].into_iter().chain(having(name))).collect(),
            Quantity::Mean(name) => [sum(name)].into_iter().chain(having(name)).collect(),
            Quantity::Cost => {
                let cost = COST_COLUMN.to_owned();
                vec![Asked::Sum(cost.clone()), Asked::Count, Asked::Missing(cost)]
            }
            Quantity::Sums { numerator, denominator } => {
                numerator.iter().chain(denominator).map(sum).chain([Asked::Count]).collect()
            }
            Quantity::Quantiles(name) => return (Vec::new(), Some(name.clone())),
        };
        (numbers, None)
    }

    /// How it looks at a series of the rollup; `None`: not at all. `value` answers a dimension's value.
    pub(super) fn fit<'a>(&self, value: &dyn Fn(&str) -> &'a str) -> Option<Fit> {
        if self.filter.as_ref().is_some_and(|filter| !holds(filter, value)) {
            return None;
        }
        let fit = match &self.quantity {
            Quantity::Counts { numerator, denominator } => Fit {
                numerator: holds(numerator, value),
                denominator: match denominator {
                    Some(denominator) => holds(denominator, value),
                    None => is_known(numerator, value),
                },
            },
            _ => Fit { numerator: true, denominator: true },
        };
        (fit.numerator || fit.denominator).then_some(fit)
    }

    /// What a row adds. `picks` are the positions in it of what the signal asks for, in that order.
    pub(super) fn share(&self, fit: Fit, row: &Row, picks: &Picks) -> Share {
        let number = |at: usize| picks.numbers[at].map_or(0, |position| row.numbers[position]);
        let sum = |from: usize, to: usize| (from..to).fold(0_i128, |sum, at| sum.saturating_add(number(at)));
        // Events less those that lack the measure, and those in which it is no number.
        let having = |at: usize| number(at) - number(at + 1) - number(at + 2);
        let counters = match &self.quantity {
            Quantity::Count => vec![number(0)],
            Quantity::Sum(names) if names.len() > 1 => vec![sum(0, names.len()), number(names.len())],
            Quantity::Sum(_) | Quantity::Mean(_) => vec![number(0), having(1)],
            Quantity::Cost => vec![number(0), number(1) - number(2), number(2)],
            Quantity::Counts { .. } => {
                vec![number(0) * i128::from(fit.numerator), number(0) * i128::from(fit.denominator)]
            }
            Quantity::Sums { numerator, denominator } => {
                let (above, all) = (numerator.len(), numerator.len() + denominator.len());
                vec![sum(0, above), sum(above, all), number(all)]
            }
            Quantity::Quantiles(_) => {
                let histogram = picks.distribution.map(|position| row.distributions[position].clone());
                let histogram = histogram.unwrap_or_default();
                return Share { counters: self.beyond(&histogram), histogram };
            }
        };
        Share { counters, histogram: Histogram::new() }
    }

    /// The values of a distribution, and how many of them are beyond each level. At a level itself a value is beyond
    /// `below` and not beyond `above`: so that a quantile is above (below) a level exactly if more than (at most) the rest
    /// of all values is beyond it.
    fn beyond(&self, histogram: &Histogram) -> Vec<i128> {
        let among = |is_in: &dyn Fn(f64) -> bool| {
            histogram.iter().filter(|(value, _)| is_in(*value)).map(|(_, count)| i128::from(*count)).sum::<i128>()
        };
        let beyond = self.levels.iter().map(|(side, level)| match side {
            Side::Above => among(&|value| value > *level),
            Side::Below => among(&|value| value >= *level),
        });
        std::iter::once(among(&|_| true)).chain(beyond).collect()
    }
}

/// Digits behind the point of a quantity's first and second column over a rollup.
pub(super) fn scales(quantity: &Quantity, rollup: &Rollup) -> [u8; 2] {
    let scale = |names: &[String]| {
        let of = |name: &String| rollup.measures.iter().find(|measure| measure.name == *name);
        names.first().and_then(of).map_or(0, |measure| number_scale(measure.number))
    };
    match quantity {
        Quantity::Count | Quantity::Counts { .. } | Quantity::Quantiles(_) => [0, 0],
        Quantity::Sum(names) => [scale(names), 0],
        Quantity::Mean(name) => [scale(std::slice::from_ref(name)), 0],
        Quantity::Cost => [decimal::SCALE, 0],
        Quantity::Sums { numerator, denominator } => [scale(numerator), scale(denominator)],
    }
}

/// Digits behind the point that sums of a measure are added up with.
pub(super) fn number_scale(number: Number) -> u8 {
    match number {
        Number::Integer => 0,
        Number::Float => decimal::SCALE,
        Number::Decimal { scale } => scale,
    }
}

/// Whether a condition can be asked of a series: those beyond a batch's limit have lost their dimensions, and nothing
/// holds of them.
fn is_known<'a>(condition: &Condition, value: &dyn Fn(&str) -> &'a str) -> bool {
    condition.dimensions().first().is_none_or(|name| value(name) != OTHER)
}

fn holds<'a>(condition: &Condition, value: &dyn Fn(&str) -> &'a str) -> bool {
    is_known(condition, value) && condition.holds(value)
}
