//! A rule on its way over moments: from where its alerts stood to what has to be told.

use std::collections::BTreeMap;

use crate::alert::book::Book;
use crate::alert::history::{History, Publication};
use crate::alert::message::{Completeness, Envelope, Message, millis};
use crate::alert::period::{Minute, span};
use crate::alert::rule::{Rule, aligned};
use crate::alert::signal::Signal;
use crate::alert::state::{Phase, Transition};
use crate::alert::template::number;
use crate::alert::verdict::{Moment, Outcome, Verdict, judge};

/// A rule on its way over moments.
pub(super) struct Fold<'a> {
    rule: &'a Rule,
    signal: &'a Signal,
    book: &'a Book,
    moments: BTreeMap<Minute, Moment>,
}

impl<'a> Fold<'a> {
    pub(super) fn new(rule: &'a Rule, signal: &'a Signal, book: &'a Book) -> Fold<'a> {
        Fold { rule, signal, book, moments: BTreeMap::new() }
    }

    fn verdict(&mut self, slot: u32, at: Minute, full: bool) -> Verdict {
        let rule = self.rule;
        let moment = self.moments.entry(at).or_insert_with(|| Moment::new(rule, at));
        judge(rule, self.signal, &self.book.series[slot as usize], moment, full)
    }

    /// Where an alert stood after a moment, from what was told of it and, for what was pending, from the rows.
    pub(super) fn phase_at(&mut self, slot: u32, after: Minute, known: Option<&History>) -> Phase {
        let (phase, changed) =
            known.map_or((Phase::Idle, None), |history| (history.phase_at(after), history.changed_before(after)));
        if phase != Phase::Idle || self.rule.hold == 0 {
            return phase;
        }
        let (mut at, mut phase) = (aligned(after, self.rule.step), Phase::Idle);
        let earliest = changed.map_or(after - self.rule.hold, |changed| (changed + 1).max(after - self.rule.hold));
        while at >= earliest && self.verdict(slot, at, false).outcome == Outcome::Breach {
            phase = Phase::Pending { since: at };
            at -= self.rule.step;
        }
        phase
    }

    /// Folds the moments after one up to another.
    pub(super) fn run(
        &mut self,
        slot: u32,
        mut phase: Phase,
        after: Minute,
        through: Minute,
    ) -> (Phase, Vec<Transition>) {
        let mut transitions = Vec::new();
        let mut at = aligned(after, self.rule.step) + self.rule.step;
        while at <= through {
            let outcome = self.verdict(slot, at, false).outcome;
            let (next, transition) = phase.step(at, outcome, self.rule.hold);
            phase = next;
            transitions.extend(transition);
            at += self.rule.step;
        }
        (phase, transitions)
    }

    pub(super) fn message(&mut self, slot: u32, publication: &Publication, completeness: Completeness) -> Message {
        let verdict = self.verdict(slot, publication.at, true);
        let dimensions = self.book.dimensions(slot, self.signal);
        let envelope = Envelope {
            notice: &self.rule.notice,
            kind: self.rule.test.kind(),
            severity: self.rule.severity.name(),
            dimensions,
            period: None,
            completeness,
        };
        let message = envelope.message(publication);
        let samples = verdict.readings.iter().flatten().next().map(|reading| reading.samples);
        let summary = self.rule.notice.summary.render(|place| match place {
            "rule" => Some(message.rule.clone()),
            "state" => Some(message.state.clone()),
            "value" => verdict.value.map(number),
            "threshold" => Some(number(verdict.threshold)),
            "samples" => samples.map(|samples| samples.to_string()),
            "window" => Some(span(self.rule.test.window())),
            "severity" => Some(message.severity.clone()),
            dimension => message.dimensions.get(dimension).cloned(),
        });
        Message {
            summary,
            value: verdict.value,
            threshold: verdict.threshold,
            readings: verdict.readings.iter().flatten().map(Into::into).collect(),
            baseline: verdict.baseline.as_ref().map(Into::into),
            forecast: verdict.exhausted.map(millis),
            ..message
        }
    }
}
