//! A term: from taking over to being shut out, round by round.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use super::archive::Archive;
use super::publisher::Publisher;
use super::sight::Sight;
use super::{AGAIN, Evaluation, Trouble, wait};
use crate::alert::{
    Backlog, BudgetState, Completeness, Evaluator, Heartbeat, Message, Minute, Overflow, Question, Record, Round,
    RuleSet,
};
use crate::clickhouse::Client;
use crate::failpoint::{self, Point};
use crate::telemetry::Outage;

/// Minutes that one round judges at most. Who is far behind goes on from there, so that a round, and what it publishes, is
/// bounded.
const STRIDE: Minute = 24 * 60;
/// How long a question may take: the first ones read weeks.
const PATIENCE: Duration = Duration::from_secs(300);
/// A round rests so many times as long as it took, so that judging costs ClickHouse at most a fifth of its time.
const REST: u32 = 4;

/// Somebody who judges.
pub(super) struct Term<'a> {
    evaluation: &'a Evaluation,
    leave: &'a dyn Fn() -> bool,
    outage: &'a mut Outage,
    publisher: Publisher,
    sight: Sight,
    archive: Archive,
    evaluator: Evaluator,
    /// The last one.
    round: i64,
    /// When it was published.
    published: Instant,
    /// What was published last of the rules, and of each budget.
    rules: RuleSet,
    budgets: BTreeMap<String, BudgetState>,
    /// How far minutes were complete in the last round that looked at rollups.
    looked: Option<Minute>,
    /// Rules of which it was said that they don't watch all.
    overflowing: BTreeSet<String>,
}

impl<'a> Term<'a> {
    /// Takes over.
    pub(super) fn new(
        evaluation: &'a Evaluation,
        leave: &'a dyn Fn() -> bool,
        outage: &'a mut Outage,
    ) -> Result<Term<'a>, Trouble> {
        let settings = &evaluation.settings;
        let (publisher, backlog) = Publisher::open(settings, &evaluation.runtime, leave)?;
        let client = Client::new(settings.endpoint.clone()).with_timeout(PATIENCE);
        let (mut sight, mut archive) = (Sight::new(client.clone()), Archive::new(client));
        let (through, archived) = loop {
            let seen = evaluation.runtime.block_on(async {
                sight.begin().await?;
                Ok::<_, Trouble>((sight.through().await?, archive.last().await?))
            });
            match seen {
                // Without a checkpoint it begins at what is complete, and nothing is so yet.
                Ok((through, _)) if through <= 0 && backlog.heartbeat.is_none() => {}
                Ok(seen) => break seen,
                Err(Trouble::Passing(reason)) => outage.failed(&reason),
                Err(trouble) => return Err(trouble),
            }
            wait(AGAIN, leave);
            if leave() {
                return Err(Trouble::Passing("it was interrupted".to_owned()));
            }
        };
        for (heartbeat, messages) in backlog.rounds_after(archived) {
            archive.add(heartbeat, messages);
        }
        let (rules, rollups) = (evaluation.plan.alerts.clone(), &evaluation.plan.rollups);
        let (through, checkpoint) = (through.div_euclid(60_000), backlog.checkpoint());
        let mut evaluator = Evaluator::new(rules, rollups, settings.horizon, through, checkpoint.as_ref());
        evaluator.restore(&backlog.messages);
        let Backlog { heartbeat, rules, budgets, messages, .. } = backlog;
        let round = heartbeat.map_or(0, |heartbeat| heartbeat.round).max(archived);
        tracing::info!(
            rules = evaluator.rules().rules.len() + evaluator.rules().budgets.len(),
            known = messages.len(),
            round,
            "judging alerts, from minute {} on, to the topic {}",
            shown(evaluator.judged()),
            settings.topic
        );
        Ok(Term {
            evaluation,
            leave,
            outage,
            publisher,
            sight,
            archive,
            evaluator,
            round,
            published: Instant::now(),
            rules,
            budgets,
            looked: None,
            overflowing: BTreeSet::new(),
        })
    }

    /// Judges until it is time to leave.
    pub(super) fn serve(mut self) -> Result<(), Trouble> {
        while !(self.leave)() {
            let begun = Instant::now();
            match self.round() {
                Ok(()) => {
                    self.outage.passed();
                    let rest = begun.elapsed() * REST;
                    wait(rest.max(self.evaluation.settings.interval.saturating_sub(begun.elapsed())), self.leave);
                }
                Err(Trouble::Passing(reason)) => {
                    self.outage.failed(&reason);
                    // A question that failed may have cost as much as one that did not.
                    wait(AGAIN.max(begun.elapsed() * REST), self.leave);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), Trouble> {
        let begun = Instant::now();
        let Evaluation { runtime, counters, board, .. } = self.evaluation;
        runtime.block_on(self.archive.write());
        // How far all is complete first: what is read after that has all of it.
        let through_ms = runtime.block_on(self.sight.through())?;
        let is_new = runtime.block_on(self.sight.look())?;
        let judged = self.evaluator.judged();
        let through = through_ms.div_euclid(60_000).clamp(judged, judged + STRIDE);
        let is_due = self.published.elapsed() >= self.evaluation.settings.heartbeat;
        if !is_new && self.sight.first().is_none() && self.looked == Some(through) && !is_due {
            board.judged(Some((judged * 60_000, now_ms())));
            return Ok(());
        }
        self.read(through)?;
        let completeness = Completeness { through_ms, now_ms: now_ms(), late: self.sight.late() };
        let round = self.evaluator.advance(through, completeness);
        self.tell_overflows(&round.overflows);
        failpoint::reach(Point::AlertsJudged);
        self.publish(round, completeness, judged, is_due)?;
        self.sight.done();
        self.looked = Some(through);
        runtime.block_on(self.archive.write());
        failpoint::reach(Point::AlertsKept);
        counters.judged(begun.elapsed());
        board.judged(Some((self.evaluator.judged() * 60_000, now_ms())));
        Ok(())
    }

    /// Asks what has to be asked.
    fn read(&mut self, through: Minute) -> Result<(), Trouble> {
        let first = self.sight.first();
        let wanted = self.evaluator.wanted(first);
        let (judged, is_first) = (self.evaluator.judged(), self.looked.is_none());
        for (position, from) in wanted.into_iter().enumerate() {
            let question = &self.evaluator.questions()[position];
            // Only a budget looks at minutes that are not complete.
            let ends = through.div_euclid(question.step) > judged.div_euclid(question.step);
            let is_late = first.is_some_and(|first| first < judged);
            if !(is_first || ends || is_late || self.has_budgets(question)) {
                continue;
            }
            let rollup = &self.evaluation.plan.rollups[question.rollup];
            let rows = self.evaluation.runtime.block_on(self.sight.rows(question, rollup, from))?;
            self.evaluator.take(position, from, &rows);
        }
        Ok(())
    }

    fn has_budgets(&self, question: &Question) -> bool {
        self.evaluator.rules().budgets.iter().any(|budget| question.signals.contains(&budget.signal))
    }

    /// Publishes what a round found, if there is anything to tell.
    fn publish(
        &mut self,
        round: Round,
        completeness: Completeness,
        judged: Minute,
        is_due: bool,
    ) -> Result<(), Trouble> {
        let Round { messages, budgets, .. } = round;
        let changed = |state: &BudgetState| self.budgets.get(&state.key).is_none_or(|told| !is_alike(told, state));
        let budgets: Vec<BudgetState> = budgets.into_iter().filter(changed).collect();
        let rules = RuleSet::of(&self.evaluator.checkpoint());
        let has_moved = self.evaluator.judged() > judged || rules != self.rules;
        if messages.is_empty() && budgets.is_empty() && !has_moved && !is_due {
            return Ok(());
        }
        let heartbeat = Heartbeat {
            round: self.round + 1,
            group: self.evaluation.settings.consumer.group.clone(),
            sent_at: completeness.now_ms,
            judged: self.evaluator.judged() * 60_000,
            complete_through: completeness.through_ms,
            rules: rules.rules.len() as i64,
        };
        let mut records: Vec<Record> = Vec::new();
        records.extend(messages.iter().map(|message| Record::Alert(Box::new(message.clone()))));
        records.extend(budgets.iter().map(|state| Record::Budget(Box::new(state.clone()))));
        records.extend((rules != self.rules).then(|| Record::Rules(rules.clone())));
        records.push(Record::Heartbeat(heartbeat.clone()));
        self.publisher.publish(&records, || failpoint::reach(Point::AlertsSent), self.leave)?;
        failpoint::reach(Point::AlertsPublished);
        (self.round, self.published, self.rules) = (heartbeat.round, Instant::now(), rules);
        self.budgets.extend(budgets.into_iter().map(|state| (state.key.clone(), state)));
        self.tell(&messages);
        self.archive.add(&heartbeat, &messages);
        Ok(())
    }

    fn tell(&self, messages: &[Message]) {
        for message in messages {
            self.evaluation.counters.told(&message.state);
            tracing::debug!(
                rule = message.rule,
                state = message.state,
                sequence = message.sequence,
                "{}",
                message.summary
            );
        }
    }

    /// Says once of each rule that it does not watch all of its series.
    fn tell_overflows(&mut self, overflows: &[Overflow]) {
        for Overflow { rule, watched, left_out, example } in overflows {
            if self.overflowing.insert(rule.clone()) {
                tracing::warn!(
                    "{rule} watches {watched} series and leaves out {left_out}, {example:?} among them; raise its max_series, or \
                     group by less"
                );
            }
        }
        self.overflowing.retain(|rule| overflows.iter().any(|overflow| overflow.rule == *rule));
    }
}

/// Whether two states say the same of a budget, but for how far minutes are complete.
fn is_alike(one: &BudgetState, other: &BudgetState) -> bool {
    *one == BudgetState { complete_through: one.complete_through, ..other.clone() }
}

fn now_ms() -> i64 {
    let now: Duration = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn shown(minute: Minute) -> String {
    jiff::Timestamp::from_second(minute * 60).map_or_else(|_| minute.to_string(), |time| time.to_string())
}
