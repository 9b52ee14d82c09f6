//! What rules ask of ClickHouse, question by question: which minutes are to be read again, and which questions fail.
//!
//! What came since is read by the round that judges it. What was never read, and what failed, is asked *on the side*, one
//! question at a time, while rounds go on: for the first the first round waits until the next heartbeat is due, for the second
//! nobody does.
//!
//! A question that hits a limit is told with its rules and with what to do about it, and costs these rules only: they are not
//! judged until it is answered, and then as far back as corrections reach. So does one whose rows have no room: of those that
//! are asked on the side the one that is read, so that nobody who is judged goes for who is not; and where rows come to those
//! that are judged, first who is not, and then the one with the most of them.

mod asking;
mod refusal;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::sight::News;
use super::stale::Stale;
use super::{TICK, Trouble};
use crate::alert::{Evaluator, Minute, Question, Row, span};
use crate::clickhouse::QueryError;
use crate::plan::Plan;
use crate::rollup::Rollup;
use asking::{Asking, Piece};
use refusal::{Refusal, named};

/// Before a question that failed once is asked again.
const SHORTEST: Duration = Duration::from_secs(10);
/// The same of one that fails again and again.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// What is said of a question that was not read yet.
const UNREAD: &str = "unread";
/// Before another question that failed is asked: so many times as long as the last one took.
const REST: u32 = 4;
/// An answer that nobody took rows of for so long may be cut off for that: ClickHouse waits half a minute at most, unless its
/// `http_send_timeout` says otherwise.
const LEFT_ALONE: Duration = Duration::from_secs(20);

/// Whoever answers questions.
pub(super) trait Answers {
    /// Hands on all rows that a question asks of its rollup within some spans, in pieces: a span that is read, and its rows.
    /// The pieces cover all spans, in their order.
    async fn rows<E: From<QueryError>>(
        &self,
        question: &Question,
        rollup: &Rollup,
        spans: &[Range<Minute>],
        on: impl FnMut(Range<Minute>, Vec<Row>) -> Result<(), E>,
    ) -> Result<(), E>;
}

/// See the module.
pub(super) struct Inquiry<A> {
    answers: A,
    runtime: Handle,
    plan: Arc<Plan>,
    stale: Vec<Stale>,
    /// What is known of questions that have no answer.
    open: Vec<Option<Open>>,
    /// Positions of the questions, those of the fewest rows first: so that most are read before one does not fit.
    order: Vec<usize>,
    /// Bytes that all rows may take.
    memory: usize,
    /// The question that the next round asks first, if once a round left it for the side: else the same would be without an answer
    /// in each.
    first: Option<usize>,
    /// What a round asks begins within this time.
    heartbeat: Duration,
    /// The question that is asked on the side.
    aside: Option<Asking>,
    /// Before that no question that failed is asked again.
    rested: Instant,
}

/// That a question has no answer, so that its rules are not judged.
struct Open {
    /// When to ask.
    again: Instant,
    /// How long it rests; nothing: it did not fail.
    pause: Duration,
    said: String,
}

impl Open {
    /// It was not asked yet.
    fn new(now: Instant) -> Open {
        Open { again: now, pause: Duration::ZERO, said: String::new() }
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

impl<A: Answers + Clone + Send + 'static> Inquiry<A> {
    pub(super) fn new(
        answers: A,
        runtime: Handle,
        plan: Arc<Plan>,
        questions: &[Question],
        memory: usize,
        heartbeat: Duration,
    ) -> Inquiry<A> {
        let mut order: Vec<usize> = (0..questions.len()).collect();
        order.sort_by_key(|position| {
            let question = &questions[*position];
            (question.distributions.len(), question.reach / question.step, question.dimensions.len())
        });
        let (stale, now) = (questions.iter().map(|_| Stale::all()).collect(), Instant::now());
        let open = questions.iter().map(|_| Some(Open::new(now))).collect();
        Inquiry { answers, runtime, plan, stale, open, order, memory, first: None, heartbeat, aside: None, rested: now }
    }

    /// Takes in what came.
    pub(super) fn add(&mut self, news: &News, evaluator: &mut Evaluator) {
        for (position, stale) in self.stale.iter_mut().enumerate() {
            let event = self.plan.rollups[evaluator.questions()[position].rollup].event;
            let minutes = || news.minutes.get(&event).into_iter().flatten().copied();
            news.from.into_iter().for_each(|from| stale.add_from(from));
            minutes().for_each(|minute| stale.add(minute));
            if let Some(first) = minutes().chain(news.from).min() {
                evaluator.heard(position, first);
            }
        }
    }

    /// The questions that were not answered.
    pub(super) fn unanswered(&self) -> BTreeSet<usize> {
        let open = self.open.iter().enumerate().filter(|(_, open)| open.is_some());
        open.map(|(position, _)| position).collect()
    }

    /// Reads what is to be read, but for questions that failed. It waits for those that were never answered until a time, and
    /// for none that has to be asked behind one that took too long, or once a heartbeat's time has passed.
    pub(super) fn read(
        &mut self,
        evaluator: &mut Evaluator,
        reach: Reach,
        until: Instant,
        leave: &dyn Fn() -> bool,
    ) -> Result<(), Trouble> {
        while self.unread().next().is_some() && self.attend(evaluator, reach, until, leave)? {}
        for position in self.unread().collect::<Vec<_>>() {
            if let Some(open) = self.open[position].as_mut().filter(|open| open.said.is_empty()) {
                UNREAD.clone_into(&mut open.said);
                tracing::info!("{} are judged once their rows were read", named(&evaluator.asking(position)));
            }
        }
        let (begun, mut is_slow, mut left) = (Instant::now(), false, None);
        let mut order = self.order.clone();
        let first = self.first.and_then(|first| order.iter().position(|position| *position == first));
        order.rotate_left(first.unwrap_or(0));
        for position in order {
            if self.open[position].is_some() || !self.is_wanted(position, evaluator, reach) {
                continue;
            }
            if is_slow {
                left.get_or_insert(position);
                self.open[position] = Some(Open::new(Instant::now()));
                continue;
            }
            let Some(mut asking) = self.ask(position, evaluator, reach)? else { continue };
            let Some(answer) = self.take_in(&mut asking, evaluator, None, leave)? else {
                self.stale[position].merge(asking.stale);
                return Err(Trouble::Passing("it was interrupted".to_owned()));
            };
            is_slow = begun.elapsed() > self.heartbeat || matches!(&answer, Err(refusal) if refusal.is_of_time());
            self.end(asking, answer, evaluator)?;
        }
        self.first = left.or(self.first);
        Ok(())
    }

    /// Takes in what comes, until a time, of the question that is asked on the side; where there is none, the next is asked if
    /// one is due. Answers whether one came to its end, in whatever way.
    pub(super) fn attend(
        &mut self,
        evaluator: &mut Evaluator,
        reach: Reach,
        until: Instant,
        leave: &dyn Fn() -> bool,
    ) -> Result<bool, Trouble> {
        let asking = match (self.aside.take(), self.next()) {
            (Some(asking), _) => Some(asking),
            (None, Some(position)) => match self.ask(position, evaluator, reach)? {
                None => return Ok(true),
                asking => asking,
            },
            (None, None) => None,
        };
        let Some(mut asking) = asking else { return Ok(false) };
        match self.take_in(&mut asking, evaluator, Some(until), leave)? {
            Some(answer) => self.end(asking, answer, evaluator).map(|()| true),
            None => {
                self.aside = Some(asking);
                Ok(false)
            }
        }
    }

    /// Questions that did not fail and have no answer.
    fn unread(&self) -> impl Iterator<Item = usize> {
        let is_unread = |position: &usize| self.open[*position].as_ref().is_some_and(|open| open.pause.is_zero());
        self.order.iter().copied().filter(is_unread)
    }

    /// The question to ask on the side: those that did not fail come first, then those that failed least often in a row.
    fn next(&self) -> Option<usize> {
        let now = Instant::now();
        let open = self.order.iter().filter_map(|position| Some((*position, self.open[*position].as_ref()?)));
        let due = open.filter(|(_, open)| open.again <= now && (open.pause.is_zero() || self.rested <= now));
        due.min_by_key(|(_, open)| (open.pause, open.again)).map(|(position, _)| position)
    }

    /// Asks what is to be read of a question; `None`: there is nothing, so that it is answered.
    fn ask(&mut self, position: usize, evaluator: &Evaluator, reach: Reach) -> Result<Option<Asking>, Trouble> {
        let question = &evaluator.questions()[position];
        // Budgets look at all that was spent, complete or not.
        let ends = (reach.through + question.step - 1).div_euclid(question.step) * question.step;
        let to = if reach.is_bounded && !has_budgets(evaluator, question) { ends } else { Minute::MAX };
        let spans = self.stale[position].spans(question.step, evaluator.oldest(position), to);
        if spans.is_empty() {
            self.stale[position].read(to);
            self.open[position] = None;
            return Ok(None);
        }
        let stale = self.stale[position].clone();
        let asking = Asking::start(&self.answers, &self.runtime, &self.plan, (position, question), (stale, spans))
            .map_err(|error| Trouble::Passing(format!("no thread can be started for a question: {error}")))?;
        // What comes from now on is not in the answer, or is read twice.
        self.stale[position].read(to);
        Ok(Some(asking))
    }

    /// Takes in the rows of a question, until a time. Answers how it ended, if it did.
    fn take_in(
        &mut self,
        asking: &mut Asking,
        evaluator: &mut Evaluator,
        until: Option<Instant>,
        leave: &dyn Fn() -> bool,
    ) -> Result<Option<Result<(), Refusal>>, Trouble> {
        while !leave() {
            let left = until.map_or(TICK, |until| until.saturating_duration_since(Instant::now()));
            self.take_aside(evaluator)?;
            match asking.next(left.min(TICK)).map_err(Trouble::Over)? {
                Some(Piece::Rows(span, rows)) => {
                    if let Err(refusal) = self.take_rows(asking, evaluator, span, &rows) {
                        return Ok(Some(Err(refusal)));
                    }
                }
                Some(Piece::End(answer)) => return Ok(Some(answer.map_err(Refusal::Query))),
                None => {}
            }
            if left.is_zero() {
                break;
            }
        }
        Ok(None)
    }

    /// While a round waits for another question, takes in what waits of the one that is asked on the side: else ClickHouse gives
    /// its answer up in a long round.
    fn take_aside(&mut self, evaluator: &mut Evaluator) -> Result<(), Trouble> {
        let Some(mut aside) = self.aside.take() else { return Ok(()) };
        match aside.next(Duration::ZERO).map_err(Trouble::Over)? {
            Some(Piece::Rows(span, rows)) => {
                if let Err(refusal) = self.take_rows(&mut aside, evaluator, span, &rows) {
                    return self.end(aside, Err(refusal), evaluator);
                }
            }
            // It is answered for the next round, which first reads what came since it was asked.
            end => aside.put_back(end),
        }
        self.aside = Some(aside);
        Ok(())
    }

    fn take_rows(
        &mut self,
        asking: &mut Asking,
        evaluator: &mut Evaluator,
        span: Range<Minute>,
        rows: &[Row],
    ) -> Result<(), Refusal> {
        asking.taken = span.end;
        evaluator.take_span(asking.position, span, rows);
        self.make_room(asking.position, evaluator)
    }

    /// Takes down how a question ended.
    ///
    /// # Errors
    /// Nothing seems wrong with the question, which a round waited for: ClickHouse is away.
    fn end(&mut self, asking: Asking, answer: Result<(), Refusal>, evaluator: &mut Evaluator) -> Result<(), Trouble> {
        let is_cut_off = asking.taken > Minute::MIN && asking.left_alone >= LEFT_ALONE;
        let Asking { position, mut stale, begun, taken, .. } = asking;
        if self.open[position].as_ref().is_some_and(|open| !open.pause.is_zero()) {
            self.rested = Instant::now() + (begun.elapsed() * REST).min(LONGEST);
        }
        let Err(refusal) = answer else {
            if let Some(open) = self.open[position].take().filter(|open| !open.said.is_empty()) {
                let since = if open.said == UNREAD { "from now on" } else { "again" };
                tracing::info!("{} are judged {since}", named(&evaluator.asking(position)));
            }
            tracing::debug!(question = position, took = ?begun.elapsed(), "read");
            return Ok(());
        };
        // What was taken in is there; the rest is to be read again.
        stale.read(taken);
        self.stale[position].merge(stale);
        match (refusal, &mut self.open[position]) {
            (Refusal::Query(error), open @ None) if refusal::is_of_another(&error) => {
                // From now on it is asked on the side: if it is the question all the same, it holds up no other.
                *open = Some(Open::new(Instant::now()));
                Err(error.into())
            }
            (Refusal::Query(QueryError::Broken(broken)), Some(open)) if is_cut_off && !broken.is_late => {
                // Nothing is wrong but that rounds were long: the rest is asked next.
                open.again = Instant::now();
                tracing::debug!(question = position, "cut off, as nobody took its rows for long: {broken}");
                Ok(())
            }
            (refusal, _) => {
                self.failed(position, &refusal, evaluator);
                Ok(())
            }
        }
    }

    /// Drops rows until the others have room: of a question on the side its own; where one that is judged has got more, those
    /// of questions that are not, and then of the largest, be it this one.
    ///
    /// # Errors
    /// These are the ones that were dropped.
    fn make_room(&mut self, position: usize, evaluator: &mut Evaluator) -> Result<(), Refusal> {
        while evaluator.bytes() > self.memory {
            let rank = |of: usize| (self.open[of].is_some(), evaluator.bytes_of(of));
            let others = (0..self.open.len())
                .filter(|other| *other != position && self.has_rows(*other) && evaluator.bytes_of(*other) > 0);
            let first = others.max_by_key(|other| rank(*other)).filter(|other| rank(*other) > rank(position));
            let Some(other) = first.filter(|_| self.open[position].is_none()) else {
                self.drop_rows(position, evaluator);
                return Err(Refusal::Memory);
            };
            self.aside.take_if(|aside| aside.position == other);
            self.drop_rows(other, evaluator);
            self.failed(other, &Refusal::Memory, evaluator);
        }
        Ok(())
    }

    /// Whether there are rows of a question.
    fn has_rows(&self, position: usize) -> bool {
        match &self.aside {
            Some(aside) if aside.position == position => aside.taken > Minute::MIN || !aside.stale.is_all(),
            _ => !self.stale[position].is_all(),
        }
    }

    /// Forgets the rows of a question, so that all of them are to be read again.
    fn drop_rows(&mut self, position: usize, evaluator: &mut Evaluator) {
        evaluator.drop_rows(position);
        self.stale[position] = Stale::all();
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
    fn failed(&mut self, position: usize, refusal: &Refusal, evaluator: &Evaluator) {
        let (question, names) = (&evaluator.questions()[position], named(&evaluator.asking(position)));
        let by = match question.dimensions.join(", ") {
            all if all.is_empty() => "all".to_owned(),
            by => format!("by {by}"),
        };
        let rollup = &self.plan.rollups[question.rollup].name;
        let what = format!("{rollup} {by}, every {} of the last {}", span(question.step), span(question.reach));
        let (before, said) = (self.open[position].take(), refusal.kind());
        if before.as_ref().is_none_or(|before| before.said != said) {
            tracing::error!("{names} are not judged: {}. All others are judged", refusal.text(&what, self.memory));
        }
        let pause = before.map_or(SHORTEST, |open| (open.pause * 2).clamp(SHORTEST, LONGEST));
        self.open[position] = Some(Open { again: Instant::now() + pause, pause, said });
    }
}

fn has_budgets(evaluator: &Evaluator, question: &Question) -> bool {
    evaluator.rules().budgets.iter().any(|budget| question.signals.contains(&budget.signal))
}

#[cfg(test)]
mod tests;
