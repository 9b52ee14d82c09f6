//! Taking over: where alerts stood, by what was sent before.

use super::{Alert, Evaluator};
use crate::alert::history::State;
use crate::alert::message::Message;
use crate::alert::period::Minute;
use crate::alert::rule::Notice;

impl Evaluator {
    /// Takes in what was sent before the start, each alert's in the order of its sequence: the last message of each alert
    /// that is older than the horizon, and all that are not. Where some of these are gone, as from a compacted topic,
    /// nothing is told anew; only what was before the first that is left is not corrected any more.
    pub fn restore(&mut self, messages: &[Message]) {
        for message in messages {
            if self.desk.restore(message, &self.rules, &mut self.books, self.judged - self.horizon) {
                continue;
            }
            let Some(publication) = message.publication() else { continue };
            let rule = self.rules.rules.iter().position(|rule| rule.notice.name == message.rule);
            let found = rule.and_then(|rule| {
                let by = &self.rules.signals[self.rules.rules[rule].signal].by;
                let name: Option<Vec<String>> = by.iter().map(|by| message.dimensions.get(by).cloned()).collect();
                Some((rule, name.filter(|name| name.len() == message.dimensions.len())?))
            });
            match found {
                Some((rule, name)) => self.rested[rule].entry(name).or_default().apply(&publication),
                None if publication.state == State::Firing => {
                    self.orphans.insert(message.alert_id.clone(), message.clone());
                }
                None => drop(self.orphans.remove(&message.alert_id)),
            }
        }
        self.wake();
    }

    /// Says from which minute on events came since the checkpoint was written; `None`: none came for minutes that were judged.
    /// Without that word the first answers have all series judged again as far back as corrections reach, which takes minutes
    /// where there are thousands of series and hundreds of rules. `unjudged`: rules and budgets that were not judged by then,
    /// of which nothing is known; those that look at the same are judged again with them.
    pub fn trust(&mut self, late: Option<Minute>, unjudged: &[String]) {
        let is_judged = |notice: &Notice| !unjudged.contains(&notice.name);
        let rules = self.rules.rules.iter().map(|rule| (&rule.notice, rule.signal));
        let budgets = self.rules.budgets.iter().map(|budget| (&budget.notice, budget.signal));
        let mut unsure = vec![late.unwrap_or(self.judged); self.unsure.len()];
        for (_, signal) in rules.chain(budgets).filter(|(notice, _)| !is_judged(notice)) {
            unsure[signal] = Minute::MIN;
        }
        self.unsure = unsure;
    }

    /// Looks again at what fires, or may yet be corrected.
    fn wake(&mut self) {
        let oldest = self.judged - self.horizon;
        for (position, rule) in self.rules.rules.iter().enumerate() {
            let (signal, book) = (&self.rules.signals[rule.signal], &mut self.books[rule.signal]);
            let alerts = &mut self.alerts[position];
            self.rested[position].retain(|name, history| {
                if history.is_at_rest(oldest) {
                    return true;
                }
                let Some(slot) = book.slot(name, signal) else { return true };
                let phase = history.phase_at(Minute::MAX);
                alerts.insert(slot, Alert { phase, history: std::mem::take(history) });
                false
            });
        }
    }
}
