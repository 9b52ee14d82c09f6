//! What a rule says of a series at a moment, and on what evidence. A function of the rule and of the rows before that
//! moment, nothing else.

mod anomaly;

use super::decimal;
use super::period::{Minute, Period, weeks_before};
use super::rule::{Proof, Quantile, Rule, Side, Test, aligned};
use super::series::{Series, Window};
use super::signal::Signal;
use super::stat::{quantile, wilson};
use crate::rollup::Quantity;

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its condition holds.
    Breach,
    /// Neither its condition holds nor that by which it is over: hysteresis, or a share that is not proved.
    Between,
    /// It is over.
    Clear,
    /// Too few samples to say anything.
    Unknown,
    /// There is nothing to judge: no events, or no value.
    Absent,
}

/// A window and what was found in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// What the window is for: `window`, `long`, `short`, `before`.
    pub name: &'static str,
    /// Its first minute.
    pub from: Minute,
    /// The minute after its last.
    pub to: Minute,
    /// Above the line; of quantiles, values beyond the level.
    pub numerator: f64,
    /// Below it; of quantiles, values.
    pub denominator: f64,
    /// How many events it rests on.
    pub samples: u64,
    /// What the rule is about; `None` where there is nothing to divide by.
    pub value: Option<f64>,
    /// Of shares: the near end of the Wilson interval, which is what was held against the level.
    pub bound: Option<f64>,
}

/// What earlier weeks were like.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// The values that there were, latest first.
    pub values: Vec<f64>,
    /// Their median.
    pub median: f64,
    /// What one deviation is.
    pub deviation: f64,
}

/// An outcome and its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What the rule says.
    pub outcome: Outcome,
    /// What it looked at: one window or two.
    pub readings: [Option<Reading>; 2],
    /// What was held against the level: the first reading's value, a change, a burn rate, deviations, events without a
    /// price.
    pub value: Option<f64>,
    /// The level.
    pub threshold: f64,
    /// Of anomalies.
    pub baseline: Option<Baseline>,
    /// Of forecasts: the minute at which all is spent.
    pub exhausted: Option<Minute>,
}

/// A moment and what a rule needs to know of it, the same for all its series.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Moment {
    /// The minute after the last one that is looked at.
    pub(super) at: Minute,
    /// Of forecasts.
    period: Option<Period>,
    /// Of anomalies: the same moment of earlier weeks.
    weeks: Vec<Minute>,
}

impl Moment {
    pub(super) fn new(rule: &Rule, at: Minute) -> Moment {
        let period = match &rule.test {
            // The period of what was last: at midnight still that of the day before.
            Test::Forecast { calendar, .. } => Some(calendar.containing(at - 1)),
            _ => None,
        };
        let weeks = match &rule.test {
            Test::Anomaly { weeks, zone, .. } => {
                (1..=*weeks).map(|back| aligned(weeks_before(at, back, zone), rule.step)).collect()
            }
            _ => Vec::new(),
        };
        Moment { at, period, weeks }
    }
}

/// Judges a series. `full` asks for the values of quantiles too, which no outcome depends on and which take longest.
pub(super) fn judge(rule: &Rule, signal: &Signal, series: &Series, moment: &Moment, full: bool) -> Verdict {
    let reader = Reader { signal, series, full };
    let at = moment.at;
    match &rule.test {
        Test::Threshold { side, level, resolve, window, proof, quantile, remember } => {
            let beyond = Beyond { side: *side, level: *level, resolve: *resolve };
            reader.threshold(at, &beyond, *window, *proof, *quantile, *remember)
        }
        Test::Change { side, level, resolve, window, before, proof, quantile } => {
            let beyond = Beyond { side: *side, level: *level, resolve: *resolve };
            reader.change(at, &beyond, (*window, *before), *proof, *quantile)
        }
        Test::BurnRate { objective, rate, long, short, proof, column, .. } => {
            reader.burn(at, (*objective, *rate), (*long, *short), *proof, *column)
        }
        Test::NoData { window, remember } => reader.silence(at, *window, *remember),
        Test::Anomaly { .. } => reader.anomaly(moment, &rule.test),
        Test::Forecast { amount, window, .. } => {
            reader.forecast(at, moment.period.unwrap_or(Period { start: at, end: at }), *amount, *window)
        }
        Test::Unpriced { window } => reader.unpriced(at, *window),
    }
}

/// A level and the one at which it is over.
struct Beyond {
    side: Side,
    level: f64,
    resolve: f64,
}

impl Beyond {
    /// `bound` is what has to be beyond the level, `point` what has to be back.
    fn outcome(&self, bound: f64, point: f64) -> Outcome {
        let (breach, clear) = match self.side {
            Side::Above => (bound > self.level, point <= self.resolve),
            Side::Below => (bound < self.level, point >= self.resolve),
        };
        match (breach, clear) {
            (true, _) => Outcome::Breach,
            (false, true) => Outcome::Clear,
            (false, false) => Outcome::Between,
        }
    }
}

/// What a double can be off after a subtraction from 1.
const ROUNDING: f64 = 1e-12;

fn verdict(outcome: Outcome, reading: Option<Reading>, value: Option<f64>, threshold: f64) -> Verdict {
    Verdict { outcome, readings: [reading, None], value, threshold, baseline: None, exhausted: None }
}

struct Reader<'a> {
    signal: &'a Signal,
    series: &'a Series,
    full: bool,
}

impl Reader<'_> {
    /// Whether there is anything from a minute to before another. What does not add up is not there where it has rows
    /// without samples: calls, but no latency of any.
    fn is_there(&self, from: Minute, to: Minute) -> bool {
        if self.is_additive() { self.series.has_rows(from, to) } else { self.read("", from, to, None).0.samples > 0 }
    }

    /// Whether no rows mean 0, as of counts and sums.
    fn is_additive(&self) -> bool {
        matches!(self.signal.quantity, Quantity::Count | Quantity::Sum(_) | Quantity::Cost)
    }

    /// What the signal's quantity is over some rows.
    fn read(&self, name: &'static str, from: Minute, to: Minute, level: Option<f64>) -> (Reading, Window<'_>) {
        let window = self.series.window(from, to);
        let scales = self.signal.scales;
        let column = |at: usize| decimal::double(window.sum(at), scales[at]);
        let samples = |at: usize| u64::try_from(window.sum(at)).unwrap_or(0);
        let quotient = |above: f64, below: f64| (below != 0.0).then(|| above / below);
        let (numerator, denominator, samples, value) = match &self.signal.quantity {
            Quantity::Count => (column(0), column(0), samples(0), Some(column(0))),
            Quantity::Sum(_) | Quantity::Cost => (column(0), column(1), samples(1), Some(column(0))),
            Quantity::Mean(_) | Quantity::Counts { .. } => {
                (column(0), column(1), samples(1), quotient(column(0), column(1)))
            }
            Quantity::Sums { .. } => (column(0), column(1), samples(2), quotient(column(0), column(1))),
            Quantity::Quantiles(_) => {
                let value = level.filter(|_| self.full).and_then(|level| quantile(&window.histogram(), level));
                (column(0), column(0), samples(0), value)
            }
        };
        (Reading { name, from, to, numerator, denominator, samples, value, bound: None }, window)
    }

    fn threshold(
        &self,
        at: Minute,
        beyond: &Beyond,
        length: i64,
        proof: Proof,
        quantile: Option<Quantile>,
        remember: i64,
    ) -> Verdict {
        let (mut reading, window) = self.read("window", at - length, at, quantile.map(|quantile| quantile.of));
        // All there is is expected at any time; a series of several, while it is remembered.
        let is_expected = || self.signal.by.is_empty() || self.series.has_rows(at - remember, at);
        let is_zero = || self.is_additive() && beyond.side == Side::Below && is_expected();
        let is_there = if self.is_additive() { !window.is_empty() } else { reading.samples > 0 };
        if !is_there && !is_zero() {
            return verdict(Outcome::Absent, Some(reading), None, beyond.level);
        }
        let enough = reading.samples >= proof.min_samples;
        let outcome = match (quantile, &self.signal.quantity) {
            (Some(quantile), _) => {
                let (hits, over) = (window.sum(quantile.column) as f64, window.sum(quantile.resolve_column) as f64);
                let (rest, total) = (1.0 - quantile.of, reading.denominator);
                let (lower, upper) = wilson(hits, total, proof.z);
                reading.numerator = hits;
                let (breach, clear, bound) = match beyond.side {
                    Side::Above => (lower > rest + ROUNDING, over <= (rest + ROUNDING) * total, lower),
                    Side::Below => (upper <= rest + ROUNDING, over > (rest + ROUNDING) * total, upper),
                };
                reading.bound = Some(bound);
                if breach {
                    Outcome::Breach
                } else if clear {
                    Outcome::Clear
                } else {
                    Outcome::Between
                }
            }
            (None, Quantity::Counts { .. }) => {
                let (lower, upper) = wilson(reading.numerator, reading.denominator, proof.z);
                let bound = if beyond.side == Side::Above { lower } else { upper };
                reading.bound = Some(bound);
                reading.value.map_or(Outcome::Absent, |value| beyond.outcome(bound, value))
            }
            _ => reading.value.map_or(Outcome::Absent, |value| beyond.outcome(value, value)),
        };
        let value = reading.value;
        let outcome = if enough || outcome == Outcome::Absent { outcome } else { Outcome::Unknown };
        verdict(outcome, Some(reading), value, beyond.level)
    }

    fn change(
        &self,
        at: Minute,
        beyond: &Beyond,
        (length, distance): (i64, i64),
        proof: Proof,
        quantile: Option<f64>,
    ) -> Verdict {
        // Quantiles are what is compared here, so they are needed at any rate.
        let full = Reader { full: true, ..*self };
        let (mut now, _) = full.read("window", at - length, at, quantile);
        let (before, _) = full.read("before", at - distance - length, at - distance, quantile);
        let answer = |outcome, now: Reading, before: Reading, value| Verdict {
            readings: [Some(now), Some(before)],
            ..verdict(outcome, None, value, beyond.level)
        };
        let is_there = |reading: &Reading| self.is_there(reading.from, reading.to);
        if !is_there(&now) && (!self.is_additive() || !is_there(&before)) {
            return answer(Outcome::Absent, now, before, None);
        }
        let least = match &self.signal.quantity {
            Quantity::Count => Some(1.0),
            Quantity::Counts { .. } => Some(1.0 / before.denominator.max(1.0)),
            _ => None,
        };
        let relative = |value: f64, reference: f64| match (reference == 0.0, least) {
            (false, _) => Some((value - reference) / reference.abs()),
            (true, _) if value == 0.0 => Some(0.0),
            // From nothing: as if there had been a single event. Otherwise the rise from 1 would be told, and not that from 0.
            (true, least) => least.map(|least| ((value - least) / least).max(0.0)),
        };
        let changed = now
            .value
            .zip(before.value)
            .and_then(|(value, reference)| Some((value, reference, relative(value, reference)?)));
        let Some((value, reference, change)) = changed else { return answer(Outcome::Unknown, now, before, None) };
        let mut bound = value;
        if matches!(self.signal.quantity, Quantity::Counts { .. }) {
            let (lower, upper) = wilson(now.numerator, now.denominator, proof.z);
            bound = if beyond.side == Side::Above { lower } else { upper };
            now.bound = Some(bound);
        }
        // Counts and sums may fall to nothing or come from it; of all else, few samples on either side say nothing.
        let samples =
            if self.is_additive() { now.samples.max(before.samples) } else { now.samples.min(before.samples) };
        let outcome = beyond.outcome(relative(bound, reference).unwrap_or(change), change);
        let enough = samples >= proof.min_samples;
        answer(if enough { outcome } else { Outcome::Unknown }, now, before, Some(change))
    }

    fn burn(
        &self,
        at: Minute,
        (objective, rate): (f64, f64),
        (long, short): (i64, i64),
        proof: Proof,
        column: Option<usize>,
    ) -> Verdict {
        let allowed = 1.0 - objective;
        let read = |name, length: i64| {
            let (mut reading, _) = self.read(name, at - length, at, None);
            if let Some(column) = column {
                reading.numerator = self.series.window(at - length, at).sum(column) as f64;
            }
            reading.value = (reading.denominator > 0.0).then(|| reading.numerator / reading.denominator);
            reading.bound = Some(wilson(reading.numerator, reading.denominator, proof.z).0);
            reading
        };
        let (long, short) = (read("long", long), read("short", short));
        let burns = |share: Option<f64>| share.is_some_and(|share| share > rate * allowed + ROUNDING);
        let outcome = if long.samples == 0 {
            Outcome::Absent
        } else if !burns(long.value) || !burns(short.value) {
            Outcome::Clear
        } else if long.samples < proof.min_samples {
            Outcome::Unknown
        } else if burns(long.bound) && burns(short.bound) {
            Outcome::Breach
        } else {
            Outcome::Between
        };
        let value = long.value.map(|share| share / allowed);
        Verdict { readings: [Some(long), Some(short)], ..verdict(outcome, None, value, rate) }
    }

    fn silence(&self, at: Minute, length: i64, remember: i64) -> Verdict {
        let (reading, _) = self.read("window", at - length, at, None);
        let expected = || self.signal.by.is_empty() || self.is_there(at - length - remember, at - length);
        let outcome = if self.is_there(at - length, at) {
            Outcome::Clear
        } else if expected() {
            Outcome::Breach
        } else {
            Outcome::Absent
        };
        let value = reading.samples as f64;
        verdict(outcome, Some(reading), Some(value), 0.0)
    }

    fn forecast(&self, at: Minute, period: Period, amount: i128, length: i64) -> Verdict {
        let (reading, _) = self.read("period", period.start, at, None);
        let spent = self.series.window(period.start, at).sum(0);
        let recent = self.series.window(at - length, at).sum(0);
        let exhausted = exhaustion(at, period, amount, spent, recent, length);
        let is_spent = spent >= amount;
        let outcome = match exhausted {
            // The budget's own levels tell of that.
            _ if is_spent => Outcome::Between,
            Some(_) => Outcome::Breach,
            None => Outcome::Clear,
        };
        let value = reading.value;
        Verdict { exhausted, ..verdict(outcome, Some(reading), value, decimal::double(amount, self.signal.scales[0])) }
    }

    fn unpriced(&self, at: Minute, length: i64) -> Verdict {
        let (mut reading, window) = self.read("window", at - length, at, None);
        if window.is_empty() {
            return verdict(Outcome::Absent, Some(reading), None, 0.0);
        }
        let unpriced = window.sum(2);
        reading.numerator = unpriced as f64;
        reading.denominator += reading.numerator;
        reading.samples += u64::try_from(unpriced).unwrap_or(0);
        reading.value = Some(reading.numerator);
        let value = reading.value;
        verdict(if unpriced > 0 { Outcome::Breach } else { Outcome::Clear }, Some(reading), value, 0.0)
    }
}

/// The minute at which all of an amount is spent, at the pace of the last `length` minutes, rounded up; `None`: not within
/// the period. Amounts are in one unit, whichever.
pub(super) fn exhaustion(
    at: Minute,
    period: Period,
    amount: i128,
    spent: i128,
    recent: i128,
    length: i64,
) -> Option<Minute> {
    let left = amount.saturating_sub(spent);
    if recent <= 0 || left <= 0 {
        return None;
    }
    let minutes = left.saturating_mul(i128::from(length)).saturating_add(recent - 1) / recent;
    let exhausted = at.saturating_add(i64::try_from(minutes).unwrap_or(i64::MAX));
    (exhausted < period.end).then_some(exhausted)
}

#[cfg(test)]
mod edges;
#[cfg(test)]
mod tests;
