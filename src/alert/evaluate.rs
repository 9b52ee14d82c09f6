//! Rules judged, minute by minute: what is told to whom.
//!
//! A function of the rules, the rows and what was told before. So a look at the past, an explanation, a test and the real
//! thing are the same code, and who takes over after a crash tells the same under the same numbers.
//!
//! ```text
//! wanted ─▶ rows of ClickHouse ─▶ take          what is known is now so
//! advance(through)                              all complete minutes are judged; messages
//! ```

mod fold;
mod judge;
mod restore;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::desk::Desk;
use super::history::{Before, History, State};
use super::message::{BudgetState, Completeness, Message, millis};
use super::period::Minute;
use super::query::{Question, Row};
use super::rule::{Notice, Rules, aligned};
use super::state::Phase;
use crate::rollup::Rollup;

/// Judges rules. Give it rows with [`Evaluator::take`], then let it judge with [`Evaluator::advance`].
#[derive(Debug)]
pub struct Evaluator {
    rules: Rules,
    questions: Vec<Question>,
    /// One for each signal.
    books: Vec<Book>,
    /// What stands of each rule's alerts, by the number of the series.
    alerts: Vec<HashMap<u32, Alert, FxBuildHasher>>,
    /// Of each rule what was told of series that rest or have no events any more: their next message goes on counting.
    rested: Vec<HashMap<Vec<String>, History, FxBuildHasher>>,
    /// From when on each rule is judged.
    begun: Vec<Minute>,
    /// All before this minute was judged.
    judged: Minute,
    /// How far back corrections reach, in minutes.
    horizon: i64,
    /// Whether nothing was judged yet since the start.
    is_new: bool,
    /// Whether rows were taken in since the start.
    is_read: bool,
    /// Of each signal from where on rows may be other than those that were judged; [`Minute::MAX`]: nowhere.
    unsure: Vec<Minute>,
    /// Of each signal whose rows were not to be had: all before this minute was judged.
    behind: Vec<Option<Minute>>,
    desk: Desk,
    /// What fired and no rule looks at any more.
    orphans: BTreeMap<String, Message>,
}

/// An alert that does not rest.
#[derive(Debug, Clone, Default)]
struct Alert {
    phase: Phase,
    history: History,
}

/// How far rules were judged; with the messages since, all that a successor needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// All before this minute was judged.
    pub judged: Minute,
    /// Of each rule and budget by its name: its hash, and from when on it is judged.
    pub begun: BTreeMap<String, (String, Minute)>,
}

/// What a round found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Round {
    /// To send, in this order.
    pub messages: Vec<Message>,
    /// How budgets stand.
    pub budgets: Vec<BudgetState>,
    /// Rules that do not watch all of their series.
    pub overflows: Vec<Overflow>,
}

/// A rule or budget that has more series than it may watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overflow {
    /// Its name.
    pub rule: String,
    /// How many it watches at most.
    pub watched: usize,
    /// How many were left out in the last rows; beyond a thousand an estimate, within some percent.
    pub left_out: usize,
    /// One of them.
    pub example: BTreeMap<String, String>,
}

impl Evaluator {
    /// Begins. `through` is the minute that all are complete before; without a checkpoint it begins there, and rules that
    /// the checkpoint does not know, or knows otherwise, begin where it ends: nothing is told of what was before.
    /// `horizon`: how far back late events are judged anew, in minutes.
    pub fn new(
        rules: Rules,
        rollups: &[Rollup],
        horizon: i64,
        through: Minute,
        checkpoint: Option<&Checkpoint>,
    ) -> Evaluator {
        let questions = Question::all(&rules, rollups);
        let asked = |position: usize| questions.iter().find(|question| question.signals.contains(&position));
        let books = rules.signals.iter().enumerate();
        let books = books.filter_map(|(position, signal)| Some(Book::new(signal, asked(position)?))).collect();
        let judged = checkpoint.map_or(through, |checkpoint| checkpoint.judged);
        let begun = |notice: &Notice| {
            let known = checkpoint.and_then(|checkpoint| checkpoint.begun.get(&notice.name));
            known.filter(|(hash, _)| *hash == notice.hash).map_or(judged, |(_, begun)| *begun)
        };
        Evaluator {
            begun: rules.rules.iter().map(|rule| begun(&rule.notice)).collect(),
            alerts: rules.rules.iter().map(|_| HashMap::default()).collect(),
            rested: rules.rules.iter().map(|_| HashMap::default()).collect(),
            desk: Desk::new(rules.budgets.iter().map(|budget| begun(&budget.notice)).collect()),
            unsure: vec![Minute::MIN; rules.signals.len()],
            behind: vec![None; rules.signals.len()],
            questions,
            books,
            rules,
            judged,
            horizon,
            is_new: true,
            is_read: false,
            orphans: BTreeMap::new(),
        }
    }

    /// All before this minute was judged.
    pub fn judged(&self) -> Minute {
        self.judged
    }

    /// The rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What has to be asked.
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// For each question the minute from which on rows have to be read. `late`: the first minute for which events came
    /// after it was judged, if there is one.
    pub fn wanted(&self, late: Option<Minute>) -> Vec<Minute> {
        let from = |question: &Question| {
            let back = if self.is_read { question.step } else { self.horizon + question.reach + question.step };
            let from = (self.judged - back).min(late.unwrap_or(Minute::MAX));
            aligned(from.max(self.judged - self.horizon - question.reach - question.step), question.step)
        };
        self.questions.iter().map(from).collect()
    }

    /// The first minute whose rows matter to a question, by what was judged; at the begin of a step.
    pub fn oldest(&self, question: usize) -> Minute {
        let Question { reach, step, .. } = self.questions[question];
        aligned(self.judged - self.horizon - reach - step, step)
    }

    /// Says that events came for minutes that a question looks at, from this one on. What that changed is seen in rows that
    /// are read again; rows that are read for the first time, or after they were dropped, can't be held against those that
    /// were judged, and so are judged anew from there on.
    pub fn heard(&mut self, question: usize, from: Minute) {
        for signal in &self.questions[question].signals {
            self.unsure[*signal] = self.unsure[*signal].min(from);
        }
    }

    /// Takes over that all that a question asks for is, from a minute on, as these rows say. The minute is a multiple of
    /// the question's step.
    pub fn take(&mut self, question: usize, from: Minute, rows: &[Row]) {
        self.take_span(question, from..Minute::MAX, rows);
    }

    /// The same of a span of minutes only, whose ends are multiples of the question's step.
    pub fn take_span(&mut self, question: usize, span: Range<Minute>, rows: &[Row]) {
        let question = &self.questions[question];
        for position in &question.signals {
            self.books[*position].replace(span.clone(), &self.rules.signals[*position], question, rows);
        }
    }

    /// Forgets all rows of a question. Until they are read again, from [`Evaluator::oldest`] on, its rules can't be judged.
    pub fn drop_rows(&mut self, question: usize) {
        for position in &self.questions[question].signals {
            self.books[*position].clear(&self.rules.signals[*position]);
        }
    }

    /// Bytes that the rows of all questions take.
    pub fn bytes(&self) -> usize {
        self.books.iter().map(Book::bytes).sum()
    }

    /// Bytes that the rows of a question take.
    pub fn bytes_of(&self, question: usize) -> usize {
        self.questions[question].signals.iter().map(|signal| self.books[*signal].bytes()).sum()
    }

    /// Names of the rules and budgets that a question is asked for.
    pub fn asking(&self, question: usize) -> Vec<&str> {
        let signals = &self.questions[question].signals;
        let rules = self.rules.rules.iter().map(|rule| (&rule.notice, rule.signal));
        let budgets = self.rules.budgets.iter().map(|budget| (&budget.notice, budget.signal));
        let own = rules.chain(budgets).filter(|(_, signal)| signals.contains(signal));
        own.map(|(notice, _)| notice.name.as_str()).collect()
    }

    /// Judges all minutes before `through`, which are complete, and those again that rows have changed since.
    pub fn advance(&mut self, through: Minute, completeness: Completeness) -> Round {
        self.advance_without(&BTreeSet::new(), through, completeness)
    }

    /// The same, but for the rules of questions that were not answered: these are judged once they are, as far back as
    /// corrections reach.
    pub fn advance_without(
        &mut self,
        unanswered: &BTreeSet<usize>,
        through: Minute,
        completeness: Completeness,
    ) -> Round {
        let unknown: Vec<bool> = {
            let unknown: BTreeSet<usize> =
                unanswered.iter().flat_map(|question| self.questions[*question].signals.iter().copied()).collect();
            (0..self.rules.signals.len()).map(|signal| unknown.contains(&signal)).collect()
        };
        for (behind, _) in self.behind.iter_mut().zip(&unknown).filter(|(_, unknown)| **unknown) {
            behind.get_or_insert(self.judged);
        }
        let told = self.alerts.iter().flat_map(HashMap::values).flat_map(|alert| alert.history.told().last());
        // What was told was complete, whatever is known of it now.
        let through = told.map(|told| told.at).chain([through, self.judged]).max().unwrap_or(through);
        let mut round = Round { overflows: self.overflows(), ..Round::default() };
        for orphan in std::mem::take(&mut self.orphans).into_values() {
            round.messages.push(ended(orphan, through, completeness));
        }
        let mut told = vec![Vec::new(); self.rules.rules.len()];
        for signal in (0..self.rules.signals.len()).filter(|signal| !unknown[*signal]) {
            self.judge_signal(signal, through, completeness, &mut told);
        }
        round.messages.extend(told.into_iter().flatten());
        let judged = self.judged;
        let desk = &mut self.desk;
        desk.advance(&self.rules, (&self.books, &unknown), (judged, through, self.horizon), completeness, &mut round);
        if through > judged {
            self.is_new = false;
        }
        self.is_read = true;
        // What has no answer keeps its news until it is judged itself.
        for signal in (0..self.rules.signals.len()).filter(|signal| !unknown[*signal]) {
            let book = &mut self.books[signal];
            book.news.fill(None);
            book.is_blank = false;
            (self.behind[signal], self.unsure[signal]) = (None, Minute::MAX);
        }
        self.books.iter_mut().for_each(|book| book.is_told = true);
        self.judged = through;
        self.forget();
        round
    }

    /// How far rules were judged. To be kept once the messages of the round are sent.
    pub fn checkpoint(&self) -> Checkpoint {
        let rules = self.rules.rules.iter().map(|rule| &rule.notice).zip(&self.begun);
        let budgets = self.rules.budgets.iter().map(|budget| &budget.notice).zip(&self.desk.begun);
        let begun = rules.chain(budgets).map(|(notice, begun)| (notice.name.clone(), (notice.hash.clone(), *begun)));
        Checkpoint { judged: self.judged, begun: begun.collect() }
    }

    fn overflows(&self) -> Vec<Overflow> {
        let rules = self.rules.rules.iter().map(|rule| (&rule.notice, rule.signal));
        let budgets = self.rules.budgets.iter().map(|budget| (&budget.notice, budget.signal));
        let overflow = |(notice, signal): (&Notice, usize)| {
            let (signal, book) = (&self.rules.signals[signal], &self.books[signal]);
            let example = book.left_out.example()?;
            Some(Overflow {
                rule: notice.name.clone(),
                watched: book.series.len(),
                left_out: book.left_out.count(),
                example: signal.by.iter().cloned().zip(example.iter().cloned()).collect(),
            })
        };
        rules.chain(budgets).filter_map(overflow).collect()
    }

    /// Forgets rows that nobody looks at any more, and series that have none and rest.
    fn forget(&mut self) {
        let oldest = self.judged - self.horizon;
        for (position, rule) in self.rules.rules.iter().enumerate() {
            let book = &self.books[rule.signal];
            let rested = &mut self.rested[position];
            self.alerts[position].retain(|slot, alert| {
                let rests = alert.phase == Phase::Idle && alert.history.is_at_rest(oldest);
                if rests && alert.history.last() > 0 {
                    rested.insert(book.names[*slot as usize].clone(), std::mem::take(&mut alert.history));
                }
                !rests
            });
        }
        for (position, (signal, book)) in self.rules.signals.iter().zip(&mut self.books).enumerate() {
            let before = oldest - signal.reach - signal.step;
            let rules = self.rules.rules.iter().zip(&self.alerts).filter(|(rule, _)| rule.signal == position);
            let alerts: Vec<_> = rules.map(|(_, alerts)| alerts).collect();
            let of_budgets = self.desk.told(&self.rules.budgets, position);
            let is_told = |slot| alerts.iter().any(|alerts| alerts.contains_key(&slot)) || of_budgets.contains(&slot);
            book.forget(before, signal, is_told);
        }
    }
}

/// The last message about an alert that no rule looks at any more.
fn ended(last: Message, at: Minute, completeness: Completeness) -> Message {
    Message {
        sequence: last.sequence + 1,
        state: State::Resolved.name().to_owned(),
        previous: Before::Firing.name().to_owned(),
        corrected: false,
        corrects: Vec::new(),
        at: millis(at),
        summary: format!("{}: the rule is gone, groups by something else, or its period is long over", last.rule),
        value: None,
        readings: Vec::new(),
        baseline: None,
        forecast: None,
        complete_through: completeness.through_ms,
        lag_ms: (completeness.now_ms - completeness.through_ms).max(0),
        late: completeness.late,
        ..last
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod speed;
#[cfg(test)]
mod successor;
#[cfg(test)]
mod tests;
