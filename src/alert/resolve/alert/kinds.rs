//! Burn rates and anomalies.

use toml::Spanned;

use super::{Asked, MIN_SAMPLES, Tests, bounded, named_severity};
use crate::alert::period::{span, time_zone};
use crate::alert::rule::{Severity, Side, Test};
use crate::alert::template::number;
use crate::rollup::Quantity;
use crate::rollup::alerts::{AnomalyEntry, BurnEntry};

/// The same of burn rates, whose levels are so low that a single bad event of ten would be beyond them.
const MIN_SAMPLES_BURN: u64 = 100;

/// Pairs of windows of the SRE workbook (chapter 5, table 5-8): 2 % of a month's budget in an hour, 5 % in six hours, 10 %
/// in three days; the short window is a twelfth of the long one.
const TIERS: [(f64, i64, i64, Severity); 3] =
    [(14.4, 60, 5, Severity::Page), (6.0, 6 * 60, 30, Severity::Page), (1.0, 3 * 24 * 60, 6 * 60, Severity::Ticket)];

impl Asked<'_, '_> {
    pub(super) fn burn(&mut self, given: &Spanned<BurnEntry>) -> Tests {
        let burn = given.get_ref();
        let objective = self.between("burn_rate", &burn.objective, 0.0, 1.0);
        let proof = self.proof(MIN_SAMPLES_BURN);
        let metric = &self.subject.metric.name;
        let slower = burn.slower_than.as_ref();
        let slower_than = slower.and_then(|given| self.finite("burn_rate", given));
        match (&self.subject.metric.quantity, slower) {
            (Quantity::Counts { .. }, None) | (Quantity::Quantiles(_), Some(_)) => {}
            (Quantity::Quantiles(_), None) => {
                let what = format!("the metric {metric} is a distribution; say what is too slow: slower_than = 2000");
                self.faults.add(burn.objective.span().start, "burn_rate", what);
            }
            (Quantity::Counts { .. }, Some(given)) => {
                let what = format!("the metric {metric} is no distribution; leave slower_than out");
                self.faults.add(given.span().start, "burn_rate", what);
            }
            _ => {
                let what = format!(
                    "the metric {metric} is no share of bad events; use one with ratio = \"condition\", or a distribution"
                );
                self.faults.add(burn.objective.span().start, "burn_rate", what);
            }
        }
        let mut tiers: Vec<(f64, i64, i64, Severity)> = Vec::new();
        for given in burn.windows.iter().flatten() {
            let (tier, at) = (given.get_ref(), given.span().start);
            let spans = bounded(&tier.long).and_then(|long| Ok((long, bounded(&tier.short)?)));
            let spans = spans.and_then(|(long, short)| {
                if short < long { Ok((long, short)) } else { Err("long has to be longer than short".to_owned()) }
            });
            let rate = tier.rate.get();
            let severity = named_severity(&tier.severity);
            let checked = spans.and_then(|(long, short)| match severity {
                _ if !(rate > 0.0 && rate.is_finite()) => {
                    Err(format!("a rate can't be {rate}; 1 uses up the budget just in time"))
                }
                Ok(severity) => Ok((rate, long, short, severity)),
                Err(what) => Err(what),
            });
            tiers.extend(self.faults.keep(at, "burn_rate", checked));
        }
        if burn.windows.is_none() {
            tiers.extend(TIERS);
        } else if burn.windows.as_ref().is_some_and(Vec::is_empty) {
            self.faults.add(
                burn.objective.span().start,
                "burn_rate",
                "windows is empty; leave it out for the usual three",
            );
        }
        let Some(objective) = objective else { return Vec::new() };
        let mut tests: Tests = Vec::new();
        for (rate, long, short, severity) in tiers {
            let allowed = 1.0 - objective;
            if rate * allowed >= 1.0 {
                let (rate, percent, most) = (number(rate), number(100.0 * allowed), number(1.0 / allowed));
                let what =
                    format!("{rate} times the budget of {percent} % is more than all there is, so that {}", span(long));
                let what = format!("{what} never fires; give windows with rates below {most}");
                self.faults.add(burn.objective.span().start, "burn_rate", what);
            }
            let suffix = Some(span(long));
            if tests.iter().any(|(known, _, _)| *known == suffix) {
                let what = format!("two pairs of windows are {} long; alerts are told apart by it", span(long));
                self.faults.add(burn.objective.span().start, "burn_rate", what);
            }
            let slower_than = slower_than.unwrap_or(0.0);
            let column = slower.is_some().then_some(0);
            tests.push((
                suffix,
                Some(severity),
                Test::BurnRate { objective, rate, long, short, proof, column, slower_than },
            ));
        }
        tests
    }

    pub(super) fn anomaly(&mut self, given: &Spanned<AnomalyEntry>) -> Option<Test> {
        let (at, given) = (given.span().start, given.get_ref());
        let window = self.window();
        let quantile = self.quantile();
        let weeks = given.weeks.as_ref().map_or(4, |weeks| *weeks.get_ref());
        let min_weeks = given.min_weeks.as_ref().map_or(weeks.min(3), |weeks| *weeks.get_ref());
        if !(2..=12).contains(&weeks) {
            self.faults.add(at, "anomaly", format!("weeks can't be {weeks}; give a number from 2 to 12"));
        }
        if !(2..=weeks).contains(&min_weeks) {
            self.faults.add(at, "anomaly", format!("min_weeks can't be {min_weeks}; give a number from 2 to {weeks}"));
        }
        let deviations = given.deviations.as_ref().map_or(Some(4.0), |given| self.between("anomaly", given, 0.0, 1e6));
        let tolerance = given.tolerance.as_ref().map_or(Some(0.05), |given| self.between("anomaly", given, 0.0, 1e6));
        let side = match given.direction.as_ref().map_or("both", |given| given.get_ref().as_str()) {
            "above" => Some(Side::Above),
            "below" => Some(Side::Below),
            "both" => None,
            other => {
                self.faults.add(at, "anomaly", format!("direction can't be {other:?}; use above, below or both"));
                None
            }
        };
        let zone = given.time_zone.as_ref().map_or("UTC", |given| given.get_ref().as_str());
        let zone = self.faults.keep(at, "anomaly", time_zone(zone));
        let resolve =
            self.entry.resolve.as_ref().map_or(deviations, |given| {
                self.between("resolve", given, 0.0, deviations.unwrap_or(1e6) + f64::EPSILON)
            });
        let window = window?;
        let min_samples = self.entry.min_samples.as_ref().map_or(MIN_SAMPLES, |given| *given.get_ref());
        let (deviations, resolve, tolerance) = (deviations?, resolve?, tolerance?);
        let min_weeks = min_weeks as usize;
        Some(Test::Anomaly {
            side,
            deviations,
            resolve,
            tolerance,
            window,
            weeks,
            min_weeks,
            zone: zone?,
            min_samples,
            quantile,
        })
    }
}
