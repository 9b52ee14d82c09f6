//! One `[[budget]]`.

use super::alert::{span_of, too_fine_for};
use super::{Common, Faults, Resolver, Wrong, entry_text, hash};
use crate::alert::decimal;
use crate::alert::period::{Calendar, Unit, time_zone};
use crate::alert::rule::{Budget, BudgetLevel, Notice, Severity, Test, too_fine};
use crate::alert::signal::scales;
use crate::alert::template::{BUDGET_PLACES, PLACES};
use crate::rollup::alerts::BudgetEntry;
use crate::rollup::{Pack, Quantity};

/// Levels of a budget that says nothing else.
const LEVELS: [(&str, u32); 4] = [("warning", 50), ("alert", 80), ("critical", 90), ("stop", 100)];

/// Most percent of a level.
const MOST_PERCENT: u32 = 10_000;

/// How long the forecast's condition has to hold: the pace of a few minutes says little.
const FORECAST_HOLD: i64 = 15;

/// Minutes that events without a price are looked for in.
const UNPRICED_WINDOW: i64 = 60;

const SUMMARY: &str = "{rule}: {percent} % is spent ({spent} of {amount})";

impl<'a> Resolver<'a> {
    /// A budget, and the rules that come with it: its forecast, and its events without a price.
    pub(super) fn budget(&mut self, pack: &Pack, entry: &BudgetEntry) -> Result<(), Vec<Wrong>> {
        let mut faults = Faults::default();
        let common = Common {
            name: &entry.name,
            metric: &entry.metric,
            by: &entry.by,
            r#where: entry.r#where.as_ref(),
            labels: &entry.labels,
            summary: entry.summary.as_ref(),
            max_series: entry.max_series.as_ref(),
            default_summary: SUMMARY,
            places: &BUDGET_PLACES,
        };
        let Some(mut subject) = self.subject(pack, &common, &mut faults) else { return Err(faults.0) };
        let metric = subject.metric;
        if !matches!(metric.quantity, Quantity::Count | Quantity::Sum(_) | Quantity::Cost) {
            let what = format!("{} does not add up; a budget is for a cost, a sum or a count", metric.name);
            faults.add(entry.metric.span().start, "metric", what);
        }
        let unit = faults.keep(entry.period.span().start, "period", unit(entry.period.get_ref()));
        let (zone, at) =
            entry.time_zone.as_ref().map_or(("UTC", 0), |given| (given.get_ref().as_str(), given.span().start));
        let zone = faults.keep(at, "time_zone", time_zone(zone));
        let scale = scales(&metric.quantity, subject.rollup)[0];
        let amount = faults.keep(entry.amount.span().start, "amount", amount(&entry.amount.get_ref().text(), scale));
        let levels = levels(entry, &mut faults);
        let window = span_of("forecast_window", entry.forecast_window.as_ref(), &mut faults);
        if let Some(given) = entry.unpriced.as_ref().filter(|_| metric.quantity != Quantity::Cost) {
            faults.add(given.span().start, "unpriced", "only a cost can lack a price; leave it out");
        }
        let (Some(unit), Some(zone), Some(amount), true) = (unit, zone, amount, faults.0.is_empty()) else {
            return Err(faults.0);
        };
        let calendar = Calendar { unit, zone };
        let window = window.unwrap_or(match unit {
            Unit::Day => 3 * 60,
            Unit::Week => 24 * 60,
            Unit::Month => 3 * 24 * 60,
        });
        let is_wanted = |given: &Option<toml::Spanned<bool>>| given.as_ref().is_none_or(|given| *given.get_ref());
        // The signal of the budget itself is that of its forecast, also where nobody wants to be told of that.
        let test = Test::Forecast { calendar: calendar.clone(), amount, window };
        let spans: Vec<i64> = test.spans().into_iter().chain([FORECAST_HOLD]).collect();
        if let (Some((found, needed)), Some(given)) = (too_fine(test.reach(), &spans), &entry.forecast_window) {
            let what = format!("{}: {}", given.get_ref(), too_fine_for(test.reach(), found, needed));
            faults.add(given.span().start, "forecast_window", what);
            return Err(faults.0);
        }
        subject.notice.text = entry_text(pack, entry.name.span().start);
        let looks_at = (&metric.quantity, &subject.filter, &subject.by, &subject.rollup.name);
        subject.notice.hash = hash(&(&subject.notice, looks_at, &test, &levels));
        let mut companion = subject.notice.clone();
        companion.summary = parsed(
            "{rule}: at the pace of the last {window}, {threshold} will be spent within the period",
            &subject.by,
        );
        let own = std::mem::replace(&mut subject.notice, companion);
        let rule = self.rule(&subject, Some("forecast".to_owned()), Severity::Ticket, FORECAST_HOLD, test);
        let signal = self.rules.rules[rule].signal;
        let forecast = is_wanted(&entry.forecast).then_some(rule);
        if forecast.is_none() {
            self.rules.rules.pop();
        }
        if metric.quantity == Quantity::Cost && is_wanted(&entry.unpriced) {
            subject.notice.summary = parsed("{rule}: {value} events of the last {window} have no price", &subject.by);
            let test = Test::Unpriced { window: UNPRICED_WINDOW };
            self.rule(&subject, Some("unpriced".to_owned()), Severity::Ticket, 0, test);
        }
        // What late events add to the period before is told too.
        let known = &mut self.rules.signals[signal];
        known.reach = known.reach.max(2 * calendar.longest());
        let notice = Notice { ..own };
        self.rules.budgets.push(Budget { notice, signal, calendar, amount, levels, forecast, forecast_window: window });
        Ok(())
    }
}

/// A template of our own, after the series that it is about.
fn parsed(text: &str, by: &[String]) -> crate::alert::Template {
    let series: Vec<String> = by.iter().map(|name| format!("{{{name}}}")).collect();
    let named = if series.is_empty() { String::new() } else { format!("{}: ", series.join(", ")) };
    crate::alert::Template::parse(&format!("{named}{text}"), by, &PLACES).unwrap_or_default()
}

fn unit(name: &str) -> Result<Unit, String> {
    match name {
        "day" => Ok(Unit::Day),
        "week" => Ok(Unit::Week),
        "month" => Ok(Unit::Month),
        _ => Err(format!("there is no period {name:?}; use one of day, week, month")),
    }
}

fn amount(text: &str, scale: u8) -> Result<i128, String> {
    match decimal::parse(text, scale) {
        Some(units) if units > 0 && units < 10_i128.pow(34) => Ok(units),
        Some(_) => Err(format!("it can't be {text:?}; give an amount above 0")),
        None if scale == 0 => Err(format!("{text:?} is no whole number; write it between quotes, as \"5000\"")),
        None => {
            Err(format!("{text:?} is no amount of at most {scale} decimals; write it between quotes, as \"50.00\""))
        }
    }
}

fn levels(entry: &BudgetEntry, faults: &mut Faults) -> Vec<BudgetLevel> {
    let level = |(name, percent): (&str, u32)| BudgetLevel { name: name.to_owned(), percent };
    let Some(given) = &entry.levels else { return LEVELS.into_iter().map(level).collect() };
    let at = given.span().start;
    let mut levels: Vec<BudgetLevel> =
        given.get_ref().iter().map(|(name, percent)| level((name.as_str(), *percent))).collect();
    levels.sort_by_key(|level| level.percent);
    if levels.is_empty() {
        faults.add(at, "levels", "it is empty; leave it out for warning = 50, alert = 80, critical = 90, stop = 100");
    }
    if let Some(wrong) = levels.iter().find(|level| !(1..=MOST_PERCENT).contains(&level.percent)) {
        let what = format!("{} can't be {} %; give a number from 1 to {MOST_PERCENT}", wrong.name, wrong.percent);
        faults.add(at, "levels", what);
    }
    if let Some(pair) = levels.windows(2).find(|pair| pair[0].percent == pair[1].percent) {
        let what = format!("{} and {} are one level; take one away", pair[0].name, pair[1].name);
        faults.add(at, "levels", what);
    }
    if levels.iter().any(|level| ["ok", "closed", ""].contains(&level.name.as_str())) {
        faults.add(at, "levels", "ok and closed say that there is no level; choose another name");
    }
    levels
}
