//! One `[[alert]]`.

mod kinds;
mod levels;

use toml::Spanned;

use super::{Common, Faults, Resolver, Subject, Wrong, entry_text, hash};
use crate::alert::period::{parse_span, span};
use crate::alert::rule::{Notice, Proof, Quantile, Rule, Severity, Side, Test, step, too_fine};
use crate::alert::stat::deviations;
use crate::alert::template::PLACES;
use crate::rollup::alerts::{AlertEntry, Level};
use crate::rollup::{Pack, Quantity};

/// The kinds of alerts, of which one has to be given.
const KINDS: &str = "above, below, burn_rate, no_data and anomaly";

/// Longest span: about as long as aggregates of a quarter of a year.
const LONGEST: i64 = 100 * 24 * 60;

/// How long a series counts as there after its last event, unless the rule says otherwise.
const REMEMBER: i64 = 24 * 60;
/// The same for rules that wait for its next event.
const REMEMBER_SILENT: i64 = 7 * 24 * 60;

/// How sure a share has to be, unless the rule says otherwise.
const CONFIDENCE: f64 = 0.95;
/// Surer than that nothing ever is; nor can a double say how many deviations it is.
const SUREST: f64 = 0.999_999_9;
/// Fewest events of a share, mean or quantile, unless the rule says otherwise: with 1 of 2 nothing is known.
const MIN_SAMPLES: u64 = 10;

/// A test and what it is called beside the rule's name.
type Tests = Vec<(Option<String>, Option<Severity>, Test)>;

impl<'a> Resolver<'a> {
    /// The rules of an entry: one, or one for each pair of windows of a burn rate.
    pub(super) fn alert(&mut self, pack: &Pack, entry: &AlertEntry) -> Result<(), Vec<Wrong>> {
        let mut faults = Faults::default();
        let common = Common {
            name: &entry.name,
            metric: &entry.metric,
            by: &entry.by,
            r#where: entry.r#where.as_ref(),
            labels: &entry.labels,
            summary: entry.summary.as_ref(),
            max_series: entry.max_series.as_ref(),
            default_summary: summary_of(entry),
            places: &PLACES,
        };
        let Some(mut subject) = self.subject(pack, &common, &mut faults) else { return Err(faults.0) };
        let severity = severity(entry.severity.as_ref(), &mut faults);
        let hold = span_of("for", entry.r#for.as_ref(), &mut faults).unwrap_or(0);
        let tests = Asked { entry, subject: &subject, faults: &mut faults }.tests();
        tests.iter().for_each(|(_, _, test)| refuse_too_fine(entry, test, hold, &mut faults));
        if !faults.0.is_empty() {
            return Err(faults.0);
        }
        subject.notice.text = entry_text(pack, entry.name.span().start);
        let looks_at = (&subject.metric.quantity, &subject.filter, &subject.by, &subject.rollup.name);
        subject.notice.hash = hash(&(&subject.notice, looks_at, &tests, severity, hold));
        for (suffix, own, test) in tests {
            self.rule(&subject, suffix, own.unwrap_or(severity), hold, test);
        }
        Ok(())
    }

    /// Adds a rule.
    pub(super) fn rule(
        &mut self,
        subject: &Subject<'a>,
        suffix: Option<String>,
        severity: Severity,
        hold: i64,
        mut test: Test,
    ) -> usize {
        let mut spans = test.spans();
        spans.push(hold);
        let step = step(test.reach(), &spans);
        let reach = test.reach() + hold + step;
        let signal = self.signal(subject, step, reach);
        let known = &mut self.rules.signals[signal];
        match &mut test {
            Test::Threshold { side, level, resolve, quantile: Some(quantile), .. } => {
                quantile.column = known.level_column(*side, *level);
                quantile.resolve_column = known.level_column(*side, *resolve);
            }
            Test::BurnRate { column: Some(column), slower_than, .. } => {
                *column = known.level_column(Side::Above, *slower_than);
            }
            _ => {}
        }
        let name = match suffix {
            Some(suffix) => format!("{}:{suffix}", subject.notice.name),
            None => subject.notice.name.clone(),
        };
        let notice = Notice { name, ..subject.notice.clone() };
        self.rules.rules.push(Rule { notice, severity, signal, test, hold, step });
        self.rules.rules.len() - 1
    }
}

/// What a rule's messages say if it does not, after the series that they are about.
fn summary_of(entry: &AlertEntry) -> &'static str {
    if entry.no_data.is_some() {
        "{rule}: no events for {window}"
    } else if entry.burn_rate.is_some() {
        "{rule}: bad events use up their budget {value} times as fast as it lasts, over {window}"
    } else if entry.anomaly.is_some() {
        "{rule}: {value} deviations from the same hour of earlier weeks, over {window}"
    } else if entry.change.is_some() {
        "{rule}: a change of {value} against {threshold}, over {window}"
    } else {
        "{rule}: {value} against {threshold}, over {window}"
    }
}

/// Rules that look back far are looked at in greater steps, which their spans have to be multiples of.
fn refuse_too_fine(entry: &AlertEntry, test: &Test, hold: i64, faults: &mut Faults) {
    let spans: Vec<i64> = test.spans().into_iter().chain([hold]).collect();
    let Some((found, needed)) = too_fine(test.reach(), &spans) else { return };
    let given = [
        ("window", &entry.window),
        ("change", &entry.change),
        ("no_data", &entry.no_data),
        ("remember", &entry.remember),
        ("for", &entry.r#for),
    ];
    let is_odd = |text: &str| parse_span(text).is_ok_and(|minutes| minutes % needed != 0);
    let odd =
        given.into_iter().find_map(|(key, given)| Some((key, given.as_ref().filter(|given| is_odd(given.get_ref()))?)));
    let what = too_fine_for(test.reach(), found, needed);
    match odd {
        Some((key, given)) => {
            let or = if matches!(test, Test::NoData { .. }) { ", or give a shorter remember" } else { "" };
            faults.add(given.span().start, key, format!("{}: {what}{or}", given.get_ref()));
        }
        None => {
            let at = entry.burn_rate.as_ref().map_or(entry.name.span().start, |given| given.span().start);
            faults.add(at, "burn_rate", what);
        }
    }
}

/// What is wrong with spans that would have too many rows looked at.
pub(super) fn too_fine_for(reach: i64, found: i64, needed: i64) -> String {
    let days = (reach + 24 * 60 - 1) / (24 * 60);
    let every = if found == 1 { "minute by minute".to_owned() } else { format!("every {}", span(found)) };
    let needed = span(needed);
    format!("it looks back {days} days, and looked at {every} that is too much; make all spans multiples of {needed}")
}

fn severity(given: Option<&Spanned<String>>, faults: &mut Faults) -> Severity {
    let Some(given) = given else { return Severity::Ticket };
    named_severity(given.get_ref()).unwrap_or_else(|what| {
        faults.add(given.span().start, "severity", what);
        Severity::Ticket
    })
}

fn named_severity(name: &str) -> Result<Severity, String> {
    let known = [Severity::Page, Severity::Ticket, Severity::Info];
    let found = known.into_iter().find(|severity| severity.name() == name);
    found.ok_or_else(|| format!("there is no severity {name:?}; use one of page, ticket, info"))
}

/// A span of time; nothing where it is not given, or wrong.
pub(super) fn span_of(key: &'static str, given: Option<&Spanned<String>>, faults: &mut Faults) -> Option<i64> {
    let given = given?;
    faults.keep(given.span().start, key, bounded(given.get_ref()))
}

fn bounded(text: &str) -> Result<i64, String> {
    match parse_span(text)? {
        0 => Err(format!("{text:?} is no time at all; give at least 1m")),
        minutes if minutes > LONGEST => Err(format!("{text:?} is too long; give at most {}", span(LONGEST))),
        minutes => Ok(minutes),
    }
}

/// An entry whose metric is known.
struct Asked<'a, 'b> {
    entry: &'a AlertEntry,
    subject: &'a Subject<'b>,
    faults: &'a mut Faults,
}

impl Asked<'_, '_> {
    fn name_at(&self) -> usize {
        self.entry.name.span().start
    }

    fn tests(mut self) -> Tests {
        let entry = self.entry;
        let levels = [entry.above.is_some(), entry.below.is_some()];
        let others = [entry.burn_rate.is_some(), entry.no_data.is_some(), entry.anomaly.is_some()];
        let given = levels.iter().chain(&others).filter(|given| **given).count();
        if given != 1 {
            let what = if given == 0 { "it has no condition" } else { "it has more than one condition" };
            self.faults.add(self.name_at(), "name", format!("{what}; give one of {KINDS}"));
            return Vec::new();
        }
        self.refuse_strangers();
        if let Some(burn) = &entry.burn_rate {
            return self.burn(burn);
        }
        let test = if let Some(silence) = &entry.no_data {
            self.silence(silence)
        } else if let Some(anomaly) = &entry.anomaly {
            self.anomaly(anomaly)
        } else if let Some(level) = &entry.above {
            self.level(Side::Above, level)
        } else {
            entry.below.as_ref().and_then(|level| self.level(Side::Below, level))
        };
        test.map(|test| (None, None, test)).into_iter().collect()
    }

    /// Keys that would be without effect.
    fn refuse_strangers(&mut self) {
        let entry = self.entry;
        let at = |given: &Option<Spanned<String>>| given.as_ref().map(|given| given.span().start);
        let level = |given: &Option<Spanned<Level>>| given.as_ref().map(|given| given.span().start);
        let samples = entry.min_samples.as_ref().map(|given| given.span().start);
        let keys = [
            ("window", at(&entry.window)),
            ("change", at(&entry.change)),
            ("remember", at(&entry.remember)),
            ("resolve", level(&entry.resolve)),
            ("quantile", level(&entry.quantile)),
            ("confidence", level(&entry.confidence)),
            ("min_samples", samples),
        ];
        if let Some(given) = entry.severity.as_ref().filter(|_| entry.burn_rate.is_some()) {
            let what = "it has no effect on burn_rate, whose windows have their own; leave it out";
            self.faults.add(given.span().start, "severity", what);
        }
        let (kind, taken): (&str, &[&str]) = if entry.burn_rate.is_some() {
            ("burn_rate", &["confidence", "min_samples"])
        } else if entry.no_data.is_some() {
            ("no_data", &["remember"])
        } else if entry.anomaly.is_some() {
            ("anomaly", &["window", "resolve", "quantile", "min_samples"])
        } else {
            return;
        };
        for (key, at) in keys {
            if let Some(at) = at.filter(|_| !taken.contains(&key)) {
                self.faults.add(at, key, format!("it has no effect on {kind}; leave it out"));
            }
        }
    }

    fn window(&mut self) -> Option<i64> {
        if self.entry.window.is_none() {
            self.faults.add(self.name_at(), "window", "it is missing; give the time to look at, as \"5m\"");
        }
        span_of("window", self.entry.window.as_ref(), self.faults)
    }

    fn finite(&mut self, key: &'static str, given: &Spanned<Level>) -> Option<f64> {
        let value = given.get_ref().get();
        let checked = if value.is_finite() { Ok(value) } else { Err(format!("it can't be {value}; give a number")) };
        self.faults.keep(given.span().start, key, checked)
    }

    /// A number between two others, neither included.
    fn between(&mut self, key: &'static str, given: &Spanned<Level>, low: f64, high: f64) -> Option<f64> {
        let value = given.get_ref().get();
        let is_in = value > low && value < high;
        let what = || format!("it can't be {value}; give a number between {low} and {high}");
        self.faults.keep(given.span().start, key, if is_in { Ok(value) } else { Err(what()) })
    }

    fn proof(&mut self, min_samples: u64) -> Proof {
        let given = self.entry.confidence.as_ref();
        let confidence = match given {
            Some(given) if given.get_ref().get() == 0.0 => 0.0,
            Some(given) => self.between("confidence", given, 0.0, SUREST).unwrap_or(CONFIDENCE),
            None => CONFIDENCE,
        };
        let is_share = matches!(self.subject.metric.quantity, Quantity::Counts { .. } | Quantity::Quantiles(_));
        let is_change = self.entry.change.is_some() && !matches!(self.subject.metric.quantity, Quantity::Counts { .. });
        if let Some(given) = given.filter(|_| !is_share || is_change) {
            let what = match is_share {
                false => "only shares and quantiles have one; leave it out",
                true => "a change of a quantile has none; leave it out",
            };
            self.faults.add(given.span().start, "confidence", what);
        }
        let min_samples = self.entry.min_samples.as_ref().map_or(min_samples, |given| *given.get_ref());
        Proof { min_samples, z: deviations(confidence) }
    }

    fn is_additive(&self) -> bool {
        matches!(self.subject.metric.quantity, Quantity::Count | Quantity::Sum(_) | Quantity::Cost)
    }

    fn min_samples(&self) -> u64 {
        if self.is_additive() { 0 } else { MIN_SAMPLES }
    }

    /// Which quantile: needed for metrics that have them, refused for others.
    fn quantile(&mut self) -> Option<f64> {
        let (is_needed, given) = (matches!(self.subject.metric.quantity, Quantity::Quantiles(_)), &self.entry.quantile);
        let metric = &self.subject.metric.name;
        match (is_needed, given) {
            (true, None) => {
                let what = format!("the metric {metric} is a distribution; say which quantile, as 0.95");
                self.faults.add(self.name_at(), "quantile", what);
                None
            }
            (false, Some(given)) => {
                let what = format!("the metric {metric} is no distribution; leave it out");
                self.faults.add(given.span().start, "quantile", what);
                None
            }
            (true, Some(given)) => self.between("quantile", given, 0.0, 1.0),
            (false, None) => None,
        }
    }

    /// A level, against the value or against its change.
    fn level(&mut self, side: Side, given: &Spanned<Level>) -> Option<Test> {
        let key = if side == Side::Above { "above" } else { "below" };
        let window = self.window();
        let level = self.finite(key, given);
        let quantile = self.quantile();
        let resolve = self.entry.resolve.as_ref();
        let resolved = resolve.and_then(|given| self.finite("resolve", given));
        let (proof, remember) = (self.proof(self.min_samples()), self.remember());
        if let (Some(level), Some(resolved), Some(given)) = (level, resolved, resolve)
            && (if side == Side::Above { resolved > level } else { resolved < level })
        {
            let other = if side == Side::Above { "at most" } else { "at least" };
            let what = format!("it can't be {resolved}: it would be over and wrong at once; give {other} {level}");
            self.faults.add(given.span().start, "resolve", what);
        }
        if let Some(what) = level.and_then(|level| self.pointless(side, level)) {
            self.faults.add(given.span().start, key, what);
        }
        let (least, most) = self.possible();
        if let (Some(resolved), Some(given)) = (resolved, resolve) {
            let bound = match side {
                Side::Above => (resolved < least).then(|| format!("at least {least}")),
                Side::Below => (resolved > most).then(|| format!("at most {most}")),
            };
            if let Some(bound) = bound {
                let what = format!("it never gets there and would fire for ever; give {bound}");
                self.faults.add(given.span().start, "resolve", what);
            }
        }
        let change = self.entry.change.as_ref();
        let is_count = matches!(self.subject.metric.quantity, Quantity::Count);
        let samples = self.entry.min_samples.as_ref();
        if let Some(given) = samples.filter(|_| is_count && side == Side::Below && change.is_none()) {
            let what = "it has no effect but to hide that there are few; leave it out";
            self.faults.add(given.span().start, "min_samples", what);
        }
        let before = span_of("change", change, self.faults);
        let (level, window) = (level?, window?);
        let resolve = resolved.unwrap_or(level);
        if change.is_some() {
            let proof = Proof { min_samples: proof.min_samples.max(MIN_SAMPLES), ..proof };
            let proof = if self.entry.min_samples.is_some() { self.proof(0) } else { proof };
            return Some(Test::Change { side, level, resolve, window, before: before?, proof, quantile });
        }
        let quantile = quantile.map(|of| Quantile { of, column: 0, resolve_column: 0 });
        Some(Test::Threshold { side, level, resolve, window, proof, quantile, remember })
    }

    /// How long a series without events counts as one with 0.
    fn remember(&mut self) -> i64 {
        let given = self.entry.remember.as_ref();
        let counts = self.is_additive() && self.entry.below.is_some() && self.entry.change.is_none();
        if let Some(given) = given.filter(|_| !counts) {
            let what = "it has an effect only on no_data, and on counts and sums below a level; leave it out";
            self.faults.add(given.span().start, "remember", what);
        }
        let remember = span_of("remember", given, self.faults).unwrap_or(REMEMBER);
        if counts { remember } else { 0 }
    }

    fn silence(&mut self, given: &Spanned<String>) -> Option<Test> {
        let window = span_of("no_data", Some(given), self.faults);
        let remember = span_of("remember", self.entry.remember.as_ref(), self.faults).unwrap_or(REMEMBER_SILENT);
        Some(Test::NoData { window: window?, remember })
    }
}
