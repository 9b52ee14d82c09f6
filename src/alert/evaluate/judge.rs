//! The rules of a signal, judged of each of its series.

use std::collections::BTreeMap;

use super::fold::Fold;
use super::{Alert, Evaluator};
use crate::alert::history::Publication;
use crate::alert::message::{Completeness, Message};
use crate::alert::period::Minute;
use crate::alert::rule::aligned;
use crate::alert::state::Phase;
use crate::alert::verdict::{Moment, Verdict, judge};
use crate::rollup::OTHER;

/// What has to be told of a rule's series, by their numbers.
type Found = Vec<(u32, Vec<Publication>)>;

impl Evaluator {
    /// What a rule says of a series at a moment, by what is known now, and on what evidence. `None`: there is no such rule
    /// or series.
    pub fn explain(&self, rule: &str, dimensions: &BTreeMap<String, String>, at: Minute) -> Option<Verdict> {
        let rule = self.rules.rules.iter().find(|known| known.notice.name == rule)?;
        let (signal, book) = (&self.rules.signals[rule.signal], &self.books[rule.signal]);
        let slots = 0..book.series.len() as u32;
        let slot =
            slots.into_iter().find(|slot| book.is_used(*slot) && book.dimensions(*slot, signal) == *dimensions)?;
        let moment = Moment::new(rule, aligned(at, rule.step));
        Some(judge(rule, signal, &book.series[slot as usize], &moment, true))
    }

    /// Judges all rules of a signal, series by series, so that what is known of a series is fetched from memory once for
    /// all of them. Messages go to those of their rule.
    pub(super) fn judge_signal(
        &mut self,
        signal: usize,
        through: Minute,
        completeness: Completeness,
        messages: &mut [Vec<Message>],
    ) {
        let (book, behind) = (&self.books[signal], self.behind[signal]);
        let judged = behind.unwrap_or(self.judged);
        let unsure = book.is_blank.then(|| self.unsure[signal].min(self.judged));
        // What was pending at the start is found in the rows, so that all are looked at once.
        let of_all = behind.into_iter().chain(unsure).chain(self.is_new.then_some(self.judged)).min();
        let rules = self.rules.rules.iter().enumerate().filter(|(_, rule)| rule.signal == signal);
        let mut folds: Vec<(usize, Fold<'_>, Found)> = rules
            .map(|(position, rule)| (position, Fold::new(rule, &self.rules.signals[signal], book), Vec::new()))
            .collect();
        for slot in 0..book.series.len() as u32 {
            let news = book.news[slot as usize].filter(|news| *news < self.judged);
            let news = news.into_iter().chain(of_all).min();
            // What is beyond a batch's limit is no series that could fall silent.
            let name = &book.names[slot as usize];
            let is_other = !name.is_empty() && name.iter().all(|value| value == OTHER);
            for (position, fold, found) in &mut folds {
                let rule = &self.rules.rules[*position];
                if is_other && rule.test.is_about_lack() {
                    continue;
                }
                let (alerts, rested) = (&mut self.alerts[*position], &mut self.rested[*position]);
                let known = alerts.get(&slot);
                let told_from = known.and_then(|alert| alert.history.known_from());
                let oldest = self.begun[*position].max(self.judged - self.horizon);
                let oldest = told_from.map_or(oldest, |told_from| oldest.max(told_from.min(self.judged)));
                let again = news.map(|news| news.max(oldest));
                let after = again.unwrap_or(self.judged);
                if through <= after {
                    continue;
                }
                let phase = match (known, again) {
                    (known, Some(after)) => fold.phase_at(slot, after, known.map(|alert| &alert.history)),
                    (Some(alert), None) => alert.phase,
                    (None, None) => Phase::Idle,
                };
                let (phase, transitions) = fold.run(slot, phase, after, through);
                if known.is_none() && phase == Phase::Idle && transitions.is_empty() {
                    continue;
                }
                let alert = alerts.entry(slot).or_insert_with(|| {
                    let history = rested.remove(&book.names[slot as usize]).unwrap_or_default();
                    Alert { phase, history }
                });
                alert.phase = phase;
                let publications = alert.history.reconcile(after, judged, &transitions);
                alert.history.forget(through - self.horizon);
                if phase == Phase::Idle && alert.history.last() == 0 {
                    alerts.remove(&slot);
                }
                if !publications.is_empty() {
                    found.push((slot, publications));
                }
            }
        }
        for (position, mut fold, mut found) in folds {
            found.sort_by(|(one, _), (other, _)| book.names[*one as usize].cmp(&book.names[*other as usize]));
            for (slot, publications) in found {
                let told = publications.iter().map(|publication| fold.message(slot, publication, completeness));
                messages[position].extend(told);
            }
        }
    }
}
