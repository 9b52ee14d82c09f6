//! Budgets: what was spent of each, and which levels were told.
//!
//! What is spent only grows, so a level counts as soon as it is seen to be reached, before its minute is complete; the
//! message says so (`provisional`). Each level is told once a period, in their order, so that whoever looks when, the
//! messages and their numbers are the same.

use std::collections::HashSet;

use hashbrown::HashMap;

use super::book::Book;
use super::decimal;
use super::evaluate::Round;
use super::history::{Before, Publication, State};
use super::message::{
    BudgetState, Completeness, Envelope, Message, MessageBudget, MessageReading, alert_id, millis, minute,
};
use super::period::{Minute, Period};
use super::rule::{Budget, Kind, Rules, aligned};
use super::series::Series;
use super::signal::Signal;
use super::verdict::exhaustion;
use crate::rollup::Quantity;

/// What was told of all budgets.
#[derive(Debug)]
pub(super) struct Desk {
    /// For each budget, by series and begin of the period.
    accounts: Vec<HashMap<(u32, Minute), Account>>,
    /// From when on each budget is looked at: periods that ended before are nobody's news.
    pub(super) begun: Vec<Minute>,
}

/// What was told of a budget's period.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Account {
    /// Numbers of the messages of its levels, in their order; `None`: it was told, and the message is gone.
    levels: Vec<Option<u64>>,
    /// Numbers of the messages of levels that the budget has no more.
    strays: Vec<u64>,
    /// The number of the message of its end.
    closed: Option<u64>,
    last: u64,
}

/// A budget's period of a series, as it stands.
struct Standing<'a> {
    budget: &'a Budget,
    signal: &'a Signal,
    series: &'a Series,
    period: Period,
    spent: i128,
}

impl Desk {
    pub(super) fn new(begun: Vec<Minute>) -> Desk {
        Desk { accounts: begun.iter().map(|_| HashMap::new()).collect(), begun }
    }

    /// Takes in a message that was sent before; false: it is not about a budget that is there, or about a period that ended
    /// by `oldest` or before the budget was looked at, which nothing changes any more.
    pub(super) fn restore(&mut self, message: &Message, rules: &Rules, books: &mut [Book], oldest: Minute) -> bool {
        let Some(told) = message.budget.as_ref().filter(|_| message.kind == Kind::Budget.name()) else { return false };
        let Some(publication) = message.publication() else { return true };
        let Some(position) = rules.budgets.iter().position(|budget| budget.notice.name == message.rule) else {
            return false;
        };
        let budget = &rules.budgets[position];
        let signal = &rules.signals[budget.signal];
        let name: Option<Vec<String>> = signal.by.iter().map(|by| message.dimensions.get(by).cloned()).collect();
        let Some(name) = name.filter(|name| name.len() == message.dimensions.len()) else { return false };
        if minute(told.period_end) <= oldest.max(self.begun[position]) {
            return false;
        }
        if let Some(slot) = books[budget.signal].slot(&name, signal) {
            let account = self.accounts[position].entry((slot, minute(told.period_start))).or_default();
            let level = budget.levels.iter().position(|level| level.name == message.severity);
            account.apply(&publication, level);
        }
        true
    }

    /// The series of a signal that something was told of.
    pub(super) fn told(&self, budgets: &[Budget], signal: usize) -> HashSet<u32> {
        let own = budgets.iter().zip(&self.accounts).filter(|(budget, _)| budget.signal == signal);
        own.flat_map(|(_, accounts)| accounts.keys()).map(|(slot, _)| *slot).collect()
    }

    /// Looks at all periods that can still change, of budgets whose signals are not unknown. `judged` and `through`: the
    /// minutes that all were complete before, then and now.
    pub(super) fn advance(
        &mut self,
        rules: &Rules,
        (books, unknown): (&[Book], &[bool]),
        (judged, through, horizon): (Minute, Minute, i64),
        completeness: Completeness,
        round: &mut Round,
    ) {
        let now = minute(completeness.now_ms).max(through);
        for ((budget, accounts), begun) in rules.budgets.iter().zip(&mut self.accounts).zip(&self.begun) {
            if unknown[budget.signal] {
                continue;
            }
            let (signal, book) = (&rules.signals[budget.signal], &books[budget.signal]);
            let mut periods = vec![budget.calendar.containing((judged - horizon).max(*begun))];
            while let Some(next) = periods.last().filter(|last| last.end <= now).map(|last| last.end) {
                periods.push(budget.calendar.containing(next));
            }
            let first = periods[0].start;
            accounts.retain(|(_, start), _| *start >= first);
            let mut slots: Vec<u32> = (0..book.series.len().min(budget.notice.max_series) as u32).collect();
            slots.retain(|slot| book.is_used(*slot));
            slots.sort_by(|one, other| book.names[*one as usize].cmp(&book.names[*other as usize]));
            for slot in slots {
                let series = &book.series[slot as usize];
                for (position, period) in periods.iter().enumerate() {
                    let window = series.window(period.start, period.end);
                    let is_present = position + 1 == periods.len();
                    if window.is_empty() && !accounts.contains_key(&(slot, period.start)) && !is_present {
                        continue;
                    }
                    let standing = Standing { budget, signal, series, period: *period, spent: window.sum(0) };
                    let account = accounts.entry((slot, period.start)).or_default();
                    let dimensions = || book.dimensions(slot, signal);
                    for (publication, level) in standing.reconcile(account, (judged, through, now)) {
                        let envelope = Envelope {
                            notice: &budget.notice,
                            kind: Kind::Budget,
                            severity: level.map_or("closed", |level| budget.levels[level].name.as_str()),
                            dimensions: dimensions(),
                            period: Some(period.start),
                            completeness,
                        };
                        round.messages.push(standing.message(envelope, &publication, level, through));
                    }
                    if account.last == 0 {
                        accounts.remove(&(slot, period.start));
                    }
                    if is_present && series.has_rows(periods[0].start, period.end) {
                        round.budgets.push(standing.state(dimensions(), completeness, through));
                    }
                }
            }
        }
    }
}

impl Account {
    /// Takes in a message, once; `level` is the one that it tells of.
    fn apply(&mut self, publication: &Publication, level: Option<usize>) {
        if publication.sequence <= self.last {
            return;
        }
        self.last = publication.sequence;
        let stands = |sequence: &u64| !publication.corrects.contains(sequence);
        self.levels.retain(|told| told.as_ref().is_none_or(stands));
        self.strays.retain(stands);
        self.closed = self.closed.filter(stands);
        match (publication.state, level) {
            (State::Firing, Some(level)) if level >= self.levels.len() => {
                // Levels are told in their order, so those below were told before.
                self.levels.resize(level, None);
                self.levels.push(Some(publication.sequence));
            }
            (State::Firing, _) => self.strays.push(publication.sequence),
            (State::Resolved, level) => {
                let told = level.map_or(0, |level| level + 1);
                self.levels.resize(self.levels.len().max(told), None);
                self.closed = Some(publication.sequence);
            }
            (State::Withdrawn, _) => self.levels.clear(),
        }
    }
}

impl Standing<'_> {
    /// The least that reaches a level, in the units of the signal.
    fn at_level(&self, percent: u32) -> i128 {
        let hundredfold = self.budget.amount.saturating_mul(i128::from(percent));
        hundredfold.div_euclid(100) + i128::from(hundredfold.rem_euclid(100) > 0)
    }

    /// What has to be told so that the levels told are those that are reached; with the level that each message is about.
    fn reconcile(
        &self,
        account: &mut Account,
        (judged, through, now): (Minute, Minute, Minute),
    ) -> Vec<(Publication, Option<usize>)> {
        let is_reached = |level: &&super::rule::BudgetLevel| self.spent >= self.at_level(level.percent);
        let reached = self.budget.levels.iter().take_while(is_reached).count();
        let mut told = Vec::new();
        let mut tell = |account: &mut Account, state, at: Minute, corrects: Vec<u64>, level| {
            let before = match (account.closed, account.levels.is_empty()) {
                (Some(_), _) => Before::Resolved,
                (None, true) => Before::Inactive,
                (None, false) => Before::Firing,
            };
            // What the first look at a budget finds in minutes long complete is no correction of anything.
            let is_correction = !corrects.is_empty() || state == State::Withdrawn || (at <= judged && account.last > 0);
            let sequence = account.last + 1;
            let publication = Publication { sequence, state, before, at, since: at, corrects, is_correction };
            account.apply(&publication, level);
            told.push((publication, level));
        };
        let was_told = account.levels.len();
        let is_other = !account.strays.is_empty();
        let mut gone = Vec::new();
        if is_other || reached < was_told {
            // The highest level that is left takes the place of all from its own on; if levels have other names now, all
            // are told anew.
            let left = if is_other { 0 } else { reached.saturating_sub(1) };
            gone.extend(account.levels.drain(left..).flatten().chain(account.strays.drain(..)));
            match reached.checked_sub(1) {
                None => {
                    gone.extend(account.closed);
                    tell(account, State::Withdrawn, now, std::mem::take(&mut gone), Some(0));
                }
                Some(level) if !is_other => {
                    tell(account, State::Firing, now, std::mem::take(&mut gone), Some(level));
                }
                Some(_) => {}
            }
        }
        for level in account.levels.len()..reached {
            let amount = self.at_level(self.budget.levels[level].percent);
            let row = self.series.reaches(self.period.start, self.period.end, 0, amount);
            let at = row.map_or(now, |row| (row + self.signal.step).min((now + 1).max(row + 1)));
            tell(account, State::Firing, at, std::mem::take(&mut gone), Some(level));
        }
        let changed = is_other || reached != was_told;
        if through >= self.period.end && reached > 0 && (changed || account.closed.is_none()) {
            let level = reached - 1;
            tell(account, State::Resolved, self.period.end, account.closed.into_iter().collect(), Some(level));
        }
        told
    }

    fn shown(&self, units: i128) -> String {
        decimal::show(units, self.signal.scales[0])
    }

    fn percent(&self) -> String {
        decimal::show(self.spent.saturating_mul(10_000).div_euclid(self.budget.amount), 2)
    }

    fn overshoot(&self) -> String {
        self.shown(self.spent.saturating_sub(self.budget.amount).max(0))
    }

    /// When all will be spent, by what is known of the complete minutes.
    fn forecast(&self, through: Minute) -> Option<Minute> {
        let (at, length) = (aligned(through, self.signal.step), self.budget.forecast_window);
        let spent = self.series.window(self.period.start, at).sum(0);
        let recent = self.series.window(at - length, at).sum(0);
        exhaustion(at, self.period, self.budget.amount, spent, recent, length)
    }

    fn message(
        &self,
        envelope: Envelope<'_>,
        publication: &Publication,
        level: Option<usize>,
        through: Minute,
    ) -> Message {
        let message = envelope.message(publication);
        let percent = level.map_or(100, |level| self.budget.levels[level].percent);
        let summary = self.budget.notice.summary.render(|place| match place {
            "rule" => Some(message.rule.clone()),
            "state" => Some(message.state.clone()),
            "level" => Some(message.severity.clone()),
            "percent" => Some(self.percent()),
            "threshold" => Some(percent.to_string()),
            "spent" => Some(self.shown(self.spent)),
            "amount" => Some(self.shown(self.budget.amount)),
            "overshoot" => Some(self.overshoot()),
            dimension => message.dimensions.get(dimension).cloned(),
        });
        let window = self.series.window(self.period.start, self.period.end);
        let samples = if self.signal.columns() > 1 { window.sum(1) } else { window.sum(0) };
        let spent = decimal::double(self.spent, self.signal.scales[0]);
        Message {
            summary,
            provisional: message.at > message.complete_through,
            value: Some(100.0 * spent / decimal::double(self.budget.amount, self.signal.scales[0])),
            threshold: f64::from(percent),
            readings: vec![MessageReading {
                name: "period".to_owned(),
                from: millis(self.period.start),
                to: millis(publication.at.min(self.period.end)),
                numerator: spent,
                denominator: decimal::double(self.budget.amount, self.signal.scales[0]),
                samples: i64::try_from(samples).unwrap_or(i64::MAX),
                value: Some(spent),
                bound: None,
            }],
            budget: Some(MessageBudget {
                period_start: millis(self.period.start),
                period_end: millis(self.period.end),
                amount: self.shown(self.budget.amount),
                spent: self.shown(self.spent),
                percent: self.percent(),
                overshoot: self.overshoot(),
            }),
            forecast: self.forecast(through).map(millis),
            ..message
        }
    }

    fn state(
        &self,
        dimensions: std::collections::BTreeMap<String, String>,
        completeness: Completeness,
        through: Minute,
    ) -> BudgetState {
        let levels = self.budget.levels.iter();
        let reached = levels.take_while(|level| self.spent >= self.at_level(level.percent)).last();
        let unpriced = match self.signal.quantity {
            Quantity::Cost => self.series.window(self.period.start, self.period.end).sum(2),
            _ => 0,
        };
        BudgetState {
            key: alert_id(&self.budget.notice.name, &dimensions, None).to_string(),
            budget: self.budget.notice.name.clone(),
            dimensions,
            labels: self.budget.notice.labels.clone(),
            period_start: millis(self.period.start),
            period_end: millis(self.period.end),
            amount: self.shown(self.budget.amount),
            spent: self.shown(self.spent),
            percent: self.percent(),
            overshoot: self.overshoot(),
            state: reached.map_or_else(|| "ok".to_owned(), |level| level.name.clone()),
            forecast: self.forecast(through).map(millis),
            unpriced: i64::try_from(unpriced).unwrap_or(i64::MAX),
            complete_through: completeness.through_ms,
        }
    }
}

#[cfg(test)]
mod tests;
