//! A rule: what is watched, what is held against what, and how it is told.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::period::{Calendar, Minute};
use super::signal::Signal;
use super::template::Template;

/// All rules of a plan, and the signals that they look at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rules {
    /// What is looked at; rules that look at the same share it.
    pub signals: Vec<Signal>,
    /// The rules, in the order of the packs; a budget's forecast and its unpriced events are rules too.
    pub rules: Vec<Rule>,
    /// The budgets.
    pub budgets: Vec<Budget>,
}

impl Rules {
    /// Whether there is nothing to judge.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.budgets.is_empty()
    }
}

/// What a rule or a budget is called and how it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    /// Its name, unique among rules and budgets.
    pub name: String,
    /// Its definition, as the pack has it.
    pub text: String,
    /// SHA-256 over what it was resolved to, hexadecimal, first 16 digits.
    pub hash: String,
    /// The metric that it is about.
    pub metric: String,
    /// The metric's unit.
    pub unit: String,
    /// Carried by its messages.
    pub labels: BTreeMap<String, String>,
    /// What its messages say in a sentence.
    pub summary: Template,
    /// Most series that are watched for it.
    pub max_series: usize,
}

/// One rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What it is called.
    pub notice: Notice,
    /// How much it matters.
    pub severity: Severity,
    /// Position of its signal in [`Rules::signals`].
    pub signal: usize,
    /// What is held against what.
    pub test: Test,
    /// Minutes that the condition has to hold before it fires.
    pub hold: i64,
    /// It is judged at minutes that are multiples of this, and windows are whole multiples of it.
    pub step: i64,
}

/// How much an alert matters. Levels of a budget have names of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Someone looks at it in working hours.
    Ticket,
    /// Someone is woken.
    Page,
}

/// On which side of a level something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Above it.
    Above,
    /// Below it.
    Below,
}

/// What is held against what.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// The value over a window against a level.
    Threshold {
        /// What is wrong.
        side: Side,
        /// Wrong beyond it.
        level: f64,
        /// Over once back at it: hysteresis.
        resolve: f64,
        /// Minutes.
        window: i64,
        /// What a share must be proved by.
        proof: Proof,
        /// Of a distribution: which of its quantiles.
        quantile: Option<Quantile>,
        /// Of counts and sums that are `below`: how long a series without rows counts as 0.
        remember: i64,
    },
    /// The value over a window against that of the same window some time earlier, as a relative change.
    Change {
        /// What is wrong.
        side: Side,
        /// Wrong beyond it: 0.5 is half as much again, −0.5 half as much.
        level: f64,
        /// Over once back at it.
        resolve: f64,
        /// Minutes.
        window: i64,
        /// How much earlier the other window ended, in minutes.
        before: i64,
        /// What a share must be proved by; the samples of the larger window count.
        proof: Proof,
        /// Of a distribution: which of its quantiles.
        quantile: Option<f64>,
    },
    /// How fast an objective's budget of bad events is used up, over a long window and a short one.
    BurnRate {
        /// The share of events that have to be good.
        objective: f64,
        /// Wrong above it: 1 uses up exactly all of the budget in the objective's period.
        rate: f64,
        /// Minutes.
        long: i64,
        /// Minutes; it lets the alert end soon after its cause.
        short: i64,
        /// What the shares must be proved by.
        proof: Proof,
        /// Of a distribution: the column of values that are too slow.
        column: Option<usize>,
        /// Of a distribution: above what they are.
        slower_than: f64,
    },
    /// A series has no events any more.
    NoData {
        /// Minutes of silence.
        window: i64,
        /// How long a series is expected after its last event, in minutes.
        remember: i64,
    },
    /// The value over a window against the same hour of earlier weeks, by their median and MAD.
    Anomaly {
        /// Which deviations are wrong; `None`: both.
        side: Option<Side>,
        /// Wrong beyond so many deviations.
        deviations: f64,
        /// Over once back at so many.
        resolve: f64,
        /// The least deviation that is counted with, as a share of the median: where weeks were all alike.
        tolerance: f64,
        /// Minutes.
        window: i64,
        /// How many weeks back.
        weeks: u32,
        /// How many of them must have samples.
        min_weeks: usize,
        /// Whose clock says what the same hour is.
        zone: TimeZone,
        /// Samples that the window must have.
        min_samples: u64,
        /// Of a distribution: which of its quantiles.
        quantile: Option<f64>,
    },
    /// A budget that will not last its period at the pace of the last `window`.
    Forecast {
        /// Days, weeks or months.
        calendar: Calendar,
        /// What there is to spend, in the signal's units.
        amount: i128,
        /// Minutes that the pace is taken from.
        window: i64,
    },
    /// Events that cost something nobody knows.
    Unpriced {
        /// Minutes.
        window: i64,
    },
}

/// What a share must be proved by before it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proof {
    /// Fewest samples.
    pub min_samples: u64,
    /// Standard deviations of the Wilson interval whose near end has to be beyond the level; 0: the share itself.
    pub z: f64,
}

/// A quantile held against a level, as the share of values beyond the level: p95 is above 500 exactly if more than 5 % of
/// values are. So it is proved like a share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantile {
    /// Which: 0.95.
    pub of: f64,
    /// Column of the values beyond the level.
    pub column: usize,
    /// Column of the values beyond the level at which it is over.
    pub resolve_column: usize,
}

/// A budget: an amount for each period and series.
#[derive(Debug, Clone, PartialEq)]
pub struct Budget {
    /// What it is called.
    pub notice: Notice,
    /// Position of its signal in [`Rules::signals`].
    pub signal: usize,
    /// Its periods.
    pub calendar: Calendar,
    /// What there is to spend, in the signal's units.
    pub amount: i128,
    /// Its levels, ascending.
    pub levels: Vec<BudgetLevel>,
    /// Position in [`Rules::rules`] of its forecast, if it has one.
    pub forecast: Option<usize>,
    /// Minutes that the pace of a forecast is taken from.
    pub forecast_window: i64,
}

/// A level of a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetLevel {
    /// Its name: `warning`.
    pub name: String,
    /// Percent of the amount.
    pub percent: u32,
}

impl Test {
    /// Its name in messages.
    pub fn kind(&self) -> Kind {
        match self {
            Test::Threshold { .. } => Kind::Threshold,
            Test::Change { .. } => Kind::Change,
            Test::BurnRate { .. } => Kind::BurnRate,
            Test::NoData { .. } => Kind::NoData,
            Test::Anomaly { .. } => Kind::Anomaly,
            Test::Forecast { .. } => Kind::Forecast,
            Test::Unpriced { .. } => Kind::Unpriced,
        }
    }

    /// Whether it tells of what is missing.
    pub fn is_about_lack(&self) -> bool {
        match self {
            Test::NoData { .. } => true,
            Test::Threshold { side, .. } | Test::Change { side, .. } => *side == Side::Below,
            Test::Anomaly { side, .. } => *side != Some(Side::Above),
            Test::BurnRate { .. } | Test::Forecast { .. } | Test::Unpriced { .. } => false,
        }
    }

    /// How many minutes before a moment it may look at, that moment's window included.
    pub fn reach(&self) -> i64 {
        match self {
            Test::Threshold { window, remember, .. } => *window.max(remember),
            Test::Change { window, before, .. } => window + before,
            Test::BurnRate { long, short, .. } => *long.max(short),
            Test::NoData { window, remember } => window + remember,
            // A clock may have been an hour or two off.
            Test::Anomaly { window, weeks, .. } => window + i64::from(*weeks) * 7 * 24 * 60 + 120,
            Test::Forecast { calendar, window, .. } => calendar.longest().max(*window),
            Test::Unpriced { window } => *window,
        }
    }

    /// The windows and distances that a step has to divide.
    pub fn spans(&self) -> Vec<i64> {
        match self {
            Test::Threshold { window, remember, .. } => vec![*window, *remember],
            Test::Change { window, before, .. } => vec![*window, *before],
            Test::BurnRate { long, short, .. } => vec![*long, *short],
            Test::NoData { window, remember } => vec![*window, *remember],
            Test::Anomaly { window, .. } | Test::Unpriced { window } => vec![*window],
            // Midnight is at a quarter of an hour of UTC somewhere.
            Test::Forecast { window, .. } => vec![*window, 15],
        }
    }

    /// The window that it is about.
    pub fn window(&self) -> i64 {
        match self {
            Test::BurnRate { long, .. } => *long,
            Test::Threshold { window, .. }
            | Test::Change { window, .. }
            | Test::NoData { window, .. }
            | Test::Anomaly { window, .. }
            | Test::Forecast { window, .. }
            | Test::Unpriced { window } => *window,
        }
    }
}

/// What kind of rule a message comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`Test::Threshold`].
    Threshold,
    /// [`Test::Change`].
    Change,
    /// [`Test::BurnRate`].
    BurnRate,
    /// [`Test::NoData`].
    NoData,
    /// [`Test::Anomaly`].
    Anomaly,
    /// A level of a [`Budget`].
    Budget,
    /// [`Test::Forecast`].
    Forecast,
    /// [`Test::Unpriced`].
    Unpriced,
}

impl Kind {
    /// As messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Threshold => "threshold",
            Kind::Change => "change",
            Kind::BurnRate => "burn_rate",
            Kind::NoData => "no_data",
            Kind::Anomaly => "anomaly",
            Kind::Budget => "budget",
            Kind::Forecast => "forecast",
            Kind::Unpriced => "unpriced",
        }
    }
}

impl Severity {
    /// As packs and messages write it.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Ticket => "ticket",
            Severity::Page => "page",
        }
    }
}

/// Steps that rules are judged in, in minutes, and how far back those may look that are judged so often: about a day, a
/// week, a month.
const STEPS: [(i64, i64); 4] = [(1, 1_500), (5, 10_500), (15, 46_000), (60, i64::MAX)];

/// The step of a rule: the least that keeps its rows few, among those that divide all its windows.
pub fn step(reach: i64, spans: &[i64]) -> i64 {
    let divides = |step: &i64| spans.iter().all(|span| span % step == 0);
    let dividing = || STEPS.into_iter().filter(|(step, _)| divides(step));
    let fits = dividing().find(|(_, furthest)| reach <= *furthest);
    fits.or_else(|| dividing().next_back()).map_or(1, |(step, _)| step)
}

/// Most rows of a series that a rule may look back over. Memory goes by it, and by how many series there are.
const MOST_ROWS: i64 = 4_200;

/// Where a rule would look back over too many rows: the step that it would be judged in, and the one that all its spans
/// have to be multiples of.
pub fn too_fine(reach: i64, spans: &[i64]) -> Option<(i64, i64)> {
    let found = step(reach, spans);
    let needed = STEPS.into_iter().map(|(step, _)| step).find(|step| reach / step <= MOST_ROWS);
    needed.filter(|needed| found < *needed).map(|needed| (found, needed))
}

/// The last multiple of a step that is not after a minute.
pub fn aligned(minute: Minute, step: i64) -> Minute {
    minute.div_euclid(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_divide_windows_and_keep_rows_few() {
        for (reach, spans, expected) in [
            (5, vec![5], 1),
            (360, vec![360, 30], 1),
            (1_440, vec![1_440], 1),
            (4_320, vec![4_320, 360], 5),
            (10_080 + 15, vec![15, 10_080], 5),
            (10_080 + 60, vec![60, 10_080], 5),
            (4 * 10_080 + 180, vec![60], 15),
            (8 * 10_080 + 60, vec![60], 60),
            (8 * 10_080 + 30, vec![30], 15),
            (10_080 + 7, vec![7], 1),
            (44_640, vec![4_320, 15], 15),
        ] {
            assert_eq!(step(reach, &spans), expected, "{reach} {spans:?}");
        }
        assert_eq!((aligned(14, 5), aligned(15, 5), aligned(-1, 5)), (10, 15, -5));
    }
}
