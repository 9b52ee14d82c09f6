//! What rules ask of ClickHouse, question by question: which minutes are to be read again, and which questions fail.
//!
//! A question that hits a limit is told with its rules and with what to do about it, and costs these rules only: they are not
//! judged until it is answered, and then as far back as corrections reach.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Trouble;
use super::sight::{News, Sight};
use super::stale::Stale;
use crate::alert::{Evaluator, Minute, Question, span};
use crate::clickhouse::QueryError;
use crate::plan::Plan;

/// Before a question that failed once is asked again.
const SHORTEST: Duration = Duration::from_secs(10);
/// The same of one that fails again and again.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// So many rules are named.
const NAMED: usize = 5;

/// See the module.
pub(super) struct Inquiry {
    stale: Vec<Stale>,
    failures: Vec<Option<Failure>>,
    /// Positions of the questions, those of the fewest rows first: so that one that does not fit leaves the others theirs.
    order: Vec<usize>,
    /// Bytes that all rows may take.
    memory: usize,
}

/// That a question was not answered.
struct Failure {
    again: Instant,
    pause: Duration,
    said: String,
}

/// Why a question was not answered.
enum Refusal {
    Query(QueryError),
    Memory,
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

    /// Whether a question that failed is to be asked again.
    pub(super) fn is_due(&self) -> bool {
        self.failures.iter().flatten().any(|failure| failure.again <= Instant::now())
    }

    /// Reads what is to be read. Answers the questions that were not answered.
    pub(super) async fn read(
        &mut self,
        sight: &Sight,
        evaluator: &mut Evaluator,
        plan: &Plan,
        reach: Reach,
    ) -> Result<BTreeSet<usize>, Trouble> {
        for position in self.order.clone() {
            let question = evaluator.questions()[position].clone();
            match &self.failures[position] {
                Some(failure) if failure.again > Instant::now() => continue,
                None if !self.is_wanted(position, &question, evaluator, reach) => continue,
                _ => {}
            }
            // Budgets look at all that was spent, complete or not.
            let ends = (reach.through + question.step - 1).div_euclid(question.step) * question.step;
            let to = if reach.is_bounded && !has_budgets(evaluator, &question) { ends } else { Minute::MAX };
            let spans = self.stale[position].spans(question.step, evaluator.oldest(position), to);
            let rollup = &plan.rollups[question.rollup];
            let (memory, begun) = (self.memory, Instant::now());
            let mut take = |span: Range<Minute>, rows: &[_]| {
                evaluator.take_span(position, span, rows);
                if evaluator.bytes() > memory { Err(Refusal::Memory) } else { Ok(()) }
            };
            let read = match spans.is_empty() {
                true => Ok(()),
                false => sight.rows(&question, rollup, &spans, &mut take).await,
            };
            match read {
                Ok(()) => {
                    self.stale[position].read(to);
                    if self.failures[position].take().is_some() {
                        tracing::info!("{} are judged again", named(&evaluator.asking(position)));
                    }
                    tracing::debug!(rollup = rollup.name, ?spans, took = ?begun.elapsed(), "read");
                }
                Err(Refusal::Query(error)) if !is_of_the_question(&error) => return Err(error.into()),
                Err(refusal) => {
                    // Half of an answer is none: what was taken is read again with the rest, or is too much.
                    if matches!(refusal, Refusal::Memory) {
                        evaluator.drop_rows(position);
                        self.stale[position] = Stale::all();
                    }
                    self.failed(position, &refusal, &question, evaluator, &rollup.name);
                }
            }
        }
        let unanswered = self.failures.iter().enumerate().filter(|(_, failure)| failure.is_some());
        Ok(unanswered.map(|(position, _)| position).collect())
    }

    /// Whether there is something to read that matters now.
    fn is_wanted(&self, position: usize, question: &Question, evaluator: &Evaluator, reach: Reach) -> bool {
        let Some(first) = self.stale[position].first() else { return false };
        let judged = evaluator.judged();
        let ends = reach.through.div_euclid(question.step) > judged.div_euclid(question.step);
        // Only a budget looks at minutes that are not complete.
        first < judged || ends || has_budgets(evaluator, question)
    }

    fn failed(&mut self, position: usize, refusal: &Refusal, question: &Question, evaluator: &Evaluator, rollup: &str) {
        let names = named(&evaluator.asking(position));
        let by = match question.dimensions.join(", ") {
            all if all.is_empty() => "all".to_owned(),
            by => format!("by {by}"),
        };
        let what = format!("{rollup} {by}, every {} of the last {}", span(question.step), span(question.reach));
        let (error, setting) = match refusal {
            Refusal::Memory => (
                format!("their rows, of {what}, do not fit into the {} MiB that all rows may take", self.memory >> 20),
                "alerts.memory",
            ),
            Refusal::Query(error) => {
                (format!("the question to ClickHouse, for {what}, failed: {error}"), setting(error))
            }
        };
        let remedy = match setting {
            "" => String::new(),
            setting => format!(
                "; group by less, look less far back, lower max_series or alerts.correct_within, or raise {setting}"
            ),
        };
        let before = self.failures[position].take();
        let said = before.as_ref().map_or("", |failure| failure.said.as_str());
        let saying = format!(
            "{setting}/{}",
            match refusal {
                Refusal::Memory => "memory".to_owned(),
                Refusal::Query(QueryError::Server(error)) => error.code.to_string(),
                Refusal::Query(_) => "answer".to_owned(),
            }
        );
        if said != saying {
            tracing::error!("{names} are not judged: {error}{remedy}. All others are judged");
        }
        let pause = before.map_or(SHORTEST, |failure| (failure.pause * 2).min(LONGEST));
        self.failures[position] = Some(Failure { again: Instant::now() + pause, pause, said: saying });
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
mod tests {
    use super::*;
    use crate::clickhouse::{Broken, ServerError};

    #[test]
    fn a_limit_costs_its_rules_and_a_server_that_is_away_the_round() {
        let server = |code| QueryError::Server(ServerError { code, text: String::new() });
        let away = Broken { authority: "c:1".to_owned(), what: "gone".to_owned() };
        for (error, of_the_question, remedy) in [
            (server(159), true, "alerts.query_time"),
            (server(160), true, "alerts.query_time"),
            (server(241), true, "alerts.query_memory"),
            (server(396), true, "alerts.query_rows"),
            (server(60), true, ""),
            (server(202), false, ""),
            (QueryError::Broken(away), false, ""),
        ] {
            assert_eq!((is_of_the_question(&error), setting(&error)), (of_the_question, remedy), "{error}");
        }
    }

    #[test]
    fn a_few_rules_are_named() {
        assert_eq!(named(&["a", "b"]), "a, b");
        assert_eq!(named(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more rules");
    }
}
