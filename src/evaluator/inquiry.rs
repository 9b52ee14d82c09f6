//! What rules ask of ClickHouse, question by question: which minutes are to be read again, and which questions fail.
//!
//! A question that hits a limit is told with its rules and with what to do about it, and costs these rules only: they are not
//! judged until it is answered, and then as far back as corrections reach. Where rows do not fit into memory, that is the
//! question with the most of them.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Trouble;
use super::sight::News;
use super::stale::Stale;
use crate::alert::{Evaluator, Minute, Question, Row, span};
use crate::clickhouse::QueryError;
use crate::plan::Plan;
use crate::rollup::Rollup;

/// Before a question that failed once is asked again.
const SHORTEST: Duration = Duration::from_secs(10);
/// The same of one that fails again and again.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// So many rules are named.
const NAMED: usize = 5;

/// Whoever answers questions.
pub(super) trait Answers {
    /// Hands on all rows that a question asks of its rollup within some spans, in pieces: a span that is read, and its rows.
    /// The pieces cover all spans, in their order.
    async fn rows<E: From<QueryError>>(
        &self,
        question: &Question,
        rollup: &Rollup,
        spans: &[Range<Minute>],
        on: impl FnMut(Range<Minute>, &[Row]) -> Result<(), E>,
    ) -> Result<(), E>;
}

/// See the module.
pub(super) struct Inquiry {
    stale: Vec<Stale>,
    failures: Vec<Option<Failure>>,
    /// Positions of the questions, those of the fewest rows first: so that most are read before one does not fit.
    order: Vec<usize>,
    /// Bytes that all rows may take.
    memory: usize,
}

/// That a question was not answered.
struct Failure {
    again: Instant,
    pause: Duration,
    said: String,
    /// Where there was no room: bytes that its rows took when they were dropped. There may be more of them.
    dropped: Option<usize>,
}

/// Why a question was not answered.
enum Refusal {
    Query(QueryError),
    /// Its rows have no room, of which there were so many bytes when they were dropped.
    Memory(usize),
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Refusal {
        Refusal::Query(error)
    }
}

/// How far a round goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// All before this minute is to be judged.
    pub(super) through: Minute,
    /// More is complete, and is left to the next rounds.
    pub(super) is_bounded: bool,
}

impl Inquiry {
    pub(super) fn new(questions: &[Question], memory: usize) -> Inquiry {
        let mut order: Vec<usize> = (0..questions.len()).collect();
        order.sort_by_key(|position| {
            let question = &questions[*position];
            (question.distributions.len(), question.reach / question.step, question.dimensions.len())
        });
        let stale = questions.iter().map(|_| Stale::all()).collect();
        Inquiry { stale, failures: questions.iter().map(|_| None).collect(), order, memory }
    }

    /// Takes in what came.
    pub(super) fn add(&mut self, news: &News, questions: &[Question], plan: &Plan) {
        for (stale, question) in self.stale.iter_mut().zip(questions) {
            if let Some(from) = news.from {
                stale.add_from(from);
            }
            let minutes = news.minutes.get(&plan.rollups[question.rollup].event);
            minutes.into_iter().flatten().for_each(|minute| stale.add(*minute));
        }
    }

    /// The questions that were not answered.
    pub(super) fn unanswered(&self) -> BTreeSet<usize> {
        let failures = self.failures.iter().enumerate().filter(|(_, failure)| failure.is_some());
        failures.map(|(position, _)| position).collect()
    }

    /// Reads what is to be read, but for questions that failed.
    pub(super) async fn read(
        &mut self,
        of: &impl Answers,
        evaluator: &mut Evaluator,
        plan: &Plan,
        reach: Reach,
    ) -> Result<(), Trouble> {
        for position in self.order.clone() {
            if self.failures[position].is_none() && self.is_wanted(position, evaluator, reach) {
                self.ask(position, of, evaluator, plan, reach).await?;
            }
        }
        Ok(())
    }

    /// Asks the one that is due for longest of the questions that failed, if there is one: no more of them, for each may take as
    /// long as its limit. Answers whether it asked.
    pub(super) async fn retry(
        &mut self,
        of: &impl Answers,
        evaluator: &mut Evaluator,
        plan: &Plan,
        reach: Reach,
        now: Instant,
    ) -> Result<bool, Trouble> {
        let failures = self.failures.iter().enumerate();
        let failures = failures.filter_map(|(position, failure)| Some((failure.as_ref()?.again, position)));
        let Some((_, position)) = failures.filter(|(again, _)| *again <= now).min() else { return Ok(false) };
        self.ask(position, of, evaluator, plan, reach).await?;
        Ok(true)
    }

    /// Reads what is to be read of a question, or takes down that it failed.
    async fn ask(
        &mut self,
        position: usize,
        of: &impl Answers,
        evaluator: &mut Evaluator,
        plan: &Plan,
        reach: Reach,
    ) -> Result<(), Trouble> {
        let question = evaluator.questions()[position].clone();
        let rollup = &plan.rollups[question.rollup];
        // Budgets look at all that was spent, complete or not.
        let ends = (reach.through + question.step - 1).div_euclid(question.step) * question.step;
        let to = if reach.is_bounded && !has_budgets(evaluator, &question) { ends } else { Minute::MAX };
        let spans = self.stale[position].spans(question.step, evaluator.oldest(position), to);
        let (begun, mut displaced) = (Instant::now(), Vec::new());
        let mut take = |span: Range<Minute>, rows: &[_]| {
            evaluator.take_span(position, span, rows);
            self.make_room(position, evaluator, &mut displaced)
        };
        let read = match spans.is_empty() {
            true => Ok(()),
            false => of.rows(&question, rollup, &spans, &mut take).await,
        };
        for (other, bytes) in displaced {
            self.failed(other, &Refusal::Memory(bytes), evaluator, plan);
        }
        match read {
            Ok(()) => {
                self.stale[position].read(to);
                if self.failures[position].take().is_some() {
                    tracing::info!("{} are judged again", named(&evaluator.asking(position)));
                }
                tracing::debug!(rollup = rollup.name, ?spans, took = ?begun.elapsed(), "read");
            }
            Err(Refusal::Query(error)) if !is_of_the_question(&error) => return Err(error.into()),
            // Half of an answer is none: what was taken is read again with the rest, or is too much.
            Err(refusal) => self.failed(position, &refusal, evaluator, plan),
        }
        Ok(())
    }

    /// Drops the rows of the largest questions until the others have room, and answers which, with their bytes.
    ///
    /// # Errors
    /// The one that is being read is the largest; its rows are dropped.
    fn make_room(
        &self,
        position: usize,
        evaluator: &mut Evaluator,
        displaced: &mut Vec<(usize, usize)>,
    ) -> Result<(), Refusal> {
        while evaluator.bytes() > self.memory {
            let dropped = |of: usize| self.failures[of].as_ref().and_then(|failure| failure.dropped);
            // One that had no room before has at least as many rows as then: two that don't fit beside each other do not
            // displace each other by turns.
            let own = evaluator.bytes_of(position).max(dropped(position).unwrap_or(0));
            let others = (0..self.failures.len()).filter(|other| {
                *other != position && dropped(*other).is_none() && displaced.iter().all(|(known, _)| known != other)
            });
            let largest = others.map(|other| (evaluator.bytes_of(other), other)).max();
            match largest.filter(|(bytes, _)| *bytes > own) {
                Some((bytes, other)) => {
                    evaluator.drop_rows(other);
                    displaced.push((other, bytes));
                }
                None => {
                    evaluator.drop_rows(position);
                    return Err(Refusal::Memory(own));
                }
            }
        }
        Ok(())
    }

    /// Whether there is something to read that matters now.
    fn is_wanted(&self, position: usize, evaluator: &Evaluator, reach: Reach) -> bool {
        let Some(first) = self.stale[position].first() else { return false };
        let (question, judged) = (&evaluator.questions()[position], evaluator.judged());
        let ends = reach.through.div_euclid(question.step) > judged.div_euclid(question.step);
        // Only a budget looks at minutes that are not complete.
        first < judged || ends || has_budgets(evaluator, question)
    }

    /// Takes down that a question failed, and says so if that is new.
    fn failed(&mut self, position: usize, refusal: &Refusal, evaluator: &Evaluator, plan: &Plan) {
        let (question, names) = (&evaluator.questions()[position], named(&evaluator.asking(position)));
        let by = match question.dimensions.join(", ") {
            all if all.is_empty() => "all".to_owned(),
            by => format!("by {by}"),
        };
        let rollup = &plan.rollups[question.rollup].name;
        let what = format!("{rollup} {by}, every {} of the last {}", span(question.step), span(question.reach));
        let (error, setting, code, dropped) = match refusal {
            Refusal::Memory(bytes) => {
                self.stale[position] = Stale::all();
                let error = format!(
                    "their rows, of {what}, do not fit into the {} MiB that all rows may take, and no other question has more",
                    self.memory >> 20
                );
                (error, "alerts.memory", "memory".to_owned(), Some(*bytes))
            }
            Refusal::Query(error) => {
                let code = match error {
                    QueryError::Server(error) => error.code.to_string(),
                    _ => "answer".to_owned(),
                };
                (format!("the question to ClickHouse, for {what}, failed: {error}"), setting(error), code, None)
            }
        };
        let remedy = match setting {
            "" => String::new(),
            setting => format!(
                "; group by less, look less far back, lower max_series or alerts.correct_within, or raise {setting}"
            ),
        };
        let before = self.failures[position].take();
        let said = format!("{setting}/{code}");
        if before.as_ref().is_none_or(|before| before.said != said) {
            tracing::error!("{names} are not judged: {error}{remedy}. All others are judged");
        }
        let pause = before.map_or(SHORTEST, |failure| (failure.pause * 2).min(LONGEST));
        self.failures[position] = Some(Failure { again: Instant::now() + pause, pause, said, dropped });
    }
}

fn has_budgets(evaluator: &Evaluator, question: &Question) -> bool {
    evaluator.rules().budgets.iter().any(|budget| question.signals.contains(&budget.signal))
}

/// Whether it is about what was asked, and not about whom.
fn is_of_the_question(error: &QueryError) -> bool {
    match error {
        QueryError::Broken(_) => false,
        QueryError::Server(error) => error.is_limit() || !error.is_passing(),
        QueryError::Unexpected { .. } => true,
    }
}

/// The setting that has to do with an error.
fn setting(error: &QueryError) -> &'static str {
    match error {
        QueryError::Server(error) if error.is_limit() => match error.code {
            241 => "alerts.query_memory",
            396 => "alerts.query_rows",
            _ => "alerts.query_time",
        },
        _ => "",
    }
}

/// Some names, and how many more.
fn named(names: &[&str]) -> String {
    let (first, more) = (names[..names.len().min(NAMED)].join(", "), names.len().saturating_sub(NAMED));
    if more == 0 { first } else { format!("{first} and {more} more rules") }
}

#[cfg(test)]
mod tests;
