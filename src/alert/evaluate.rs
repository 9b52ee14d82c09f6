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

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use fold::Fold;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use serde::{Deserialize, Serialize};

use super::book::Book;
use super::desk::Desk;
use super::history::{Before, History, Publication, State};
use super::message::{BudgetState, Completeness, Message, millis};
use super::period::Minute;
use super::query::{Question, Row};
use super::rule::{Notice, Rules, aligned};
use super::state::Phase;
use super::verdict::{Moment, Verdict, judge};
use crate::rollup::{OTHER, Rollup};

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
    /// Whether rows were taken in since the start, so that what comes is news.
    is_read: bool,
    /// From where on rows may be other than those that were judged before the start.
    unsure: Minute,
    /// Of each signal whose rows were not to be had.
    behind: Vec<Option<Behind>>,
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

/// How far a signal is behind the others.
#[derive(Debug, Clone, Copy)]
struct Behind {
    /// From where on it has to be judged.
    from: Minute,
    /// All before this minute was judged.
    judged: Minute,
}

/// What has to be told of a rule's series, by their numbers.
type Found = Vec<(u32, Vec<Publication>)>;

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
    /// How many were left out in the last rows.
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
            behind: vec![None; rules.signals.len()],
            questions,
            books,
            rules,
            judged,
            horizon,
            is_new: true,
            is_read: false,
            unsure: Minute::MIN,
            orphans: BTreeMap::new(),
        }
    }

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
    /// Without that word the first round judges all series again as far back as corrections reach, which takes minutes
    /// where there are thousands of series and hundreds of rules.
    pub fn trust(&mut self, late: Option<Minute>) {
        self.unsure = late.unwrap_or(self.judged).min(self.judged);
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
        let behind = Behind { from: if self.is_new { self.unsure } else { self.judged }, judged: self.judged };
        for (known, _) in self.behind.iter_mut().zip(&unknown).filter(|(_, unknown)| **unknown) {
            known.get_or_insert(behind);
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
        } else if self.is_new && self.is_read {
            // Nothing was judged, so what is news now is to be looked at in the next round.
            let news = self.books.iter().flat_map(|book| book.news.iter().flatten()).min();
            self.unsure = self.unsure.min(news.copied().unwrap_or(self.unsure));
        }
        self.is_read = true;
        for ((book, behind), _) in
            self.books.iter_mut().zip(&mut self.behind).zip(&unknown).filter(|(_, unknown)| !**unknown)
        {
            book.news.fill(None);
            *behind = None;
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
    fn judge_signal(
        &mut self,
        signal: usize,
        through: Minute,
        completeness: Completeness,
        messages: &mut [Vec<Message>],
    ) {
        let (book, behind) = (&self.books[signal], self.behind[signal]);
        let judged = behind.map_or(self.judged, |behind| behind.judged);
        let rules = self.rules.rules.iter().enumerate().filter(|(_, rule)| rule.signal == signal);
        let mut folds: Vec<(usize, Fold<'_>, Found)> = rules
            .map(|(position, rule)| (position, Fold::new(rule, &self.rules.signals[signal], book), Vec::new()))
            .collect();
        for slot in 0..book.series.len() as u32 {
            let news = book.news[slot as usize].filter(|news| *news < self.judged);
            let news = news.into_iter().chain(behind.map(|behind| behind.from)).min();
            // What was pending at the start is found in the rows, so that all are looked at once.
            let news = match self.is_new {
                true => Some(news.filter(|_| self.is_read).map_or(self.unsure, |news| news.min(self.unsure))),
                false => news,
            };
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

    fn overflows(&self) -> Vec<Overflow> {
        let rules = self.rules.rules.iter().map(|rule| (&rule.notice, rule.signal));
        let budgets = self.rules.budgets.iter().map(|budget| (&budget.notice, budget.signal));
        let overflow = |(notice, signal): (&Notice, usize)| {
            let (signal, book) = (&self.rules.signals[signal], &self.books[signal]);
            let example = book.left_out.first()?;
            Some(Overflow {
                rule: notice.name.clone(),
                watched: book.series.len(),
                left_out: book.left_out.len(),
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
mod tests;
