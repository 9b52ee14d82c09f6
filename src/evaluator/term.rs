//! A term: from taking over to being shut out, round by round.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::archive::Archive;
use super::budgets::Budgets;
use super::hindrance::Hindrance;
use super::inquiry::{Inquiry, Reach};
use super::publisher::Publisher;
use super::sight::{Rollups, Sight};
use super::{Evaluation, Trouble, now_ms, wait};
use crate::alert::{Backlog, Completeness, Evaluator, Heartbeat, Message, Minute, Overflow, Record, Round, RuleSet};
use crate::clickhouse::Client;
use crate::failpoint::{self, Point};
use crate::telemetry::Judged;

/// Minutes that one round judges at most. Who is far behind goes on from there, so that a round, what it reads and what it
/// publishes, is bounded.
const STRIDE: Minute = 24 * 60;
/// How long an answer may take beyond the time that ClickHouse is given for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// A round rests so many times as long as it took, so that judging costs ClickHouse at most a fifth of its time; but no
/// longer than to the next heartbeat.
const REST: u32 = 4;
/// Where a round waits for rows that were never read, or for what it can do without, it waits at least so long, even if the
/// heartbeat is due.
const LEAST: Duration = Duration::from_secs(5);
/// Before it is looked again whether a first minute is complete.
const AGAIN: Duration = Duration::from_secs(1);

/// Somebody who judges.
pub(super) struct Term<'a> {
    evaluation: &'a Evaluation,
    leave: &'a dyn Fn() -> bool,
    hindrance: &'a mut Hindrance,
    publisher: Publisher,
    sight: Sight,
    inquiry: Inquiry<Rollups>,
    archive: Archive,
    evaluator: Evaluator,
    /// The last one.
    round: i64,
    /// When it was published.
    published: Instant,
    /// What was published last of the rules, of those that could not be judged, and of budgets.
    rules: RuleSet,
    unjudged: Vec<String>,
    budgets: Budgets,
    /// How far the last round went that looked at rollups.
    looked: Option<Reach>,
    /// Something came since.
    is_stale: bool,
    /// A round waited for what was never read, and came to its end: what is still unread holds up no other.
    has_waited: bool,
    /// Rules of which it was said that they don't watch all.
    overflowing: BTreeSet<String>,
}

impl<'a> Term<'a> {
    /// Takes over.
    pub(super) fn new(
        evaluation: &'a Evaluation,
        leave: &'a dyn Fn() -> bool,
        hindrance: &'a mut Hindrance,
    ) -> Result<Term<'a>, Trouble> {
        let settings = &evaluation.settings;
        let (publisher, backlog) = Publisher::open(settings, &evaluation.runtime, leave)?;
        let client = Client::new(settings.endpoint.clone()).with_timeout(settings.limits.time + PATIENCE);
        let sight = Sight::new(client.clone(), settings.limits, settings.kept_days);
        let (mut sight, mut archive, mut is_said) = (sight, Archive::new(client), false);
        let (through, since, archived) = loop {
            let mut pause = AGAIN;
            let seen = evaluation.runtime.block_on(async {
                sight.begin().await?;
                let since = match &backlog.heartbeat {
                    Some(heartbeat) => sight.since(heartbeat.sent_at).await?,
                    None => None,
                };
                Ok::<_, Trouble>((sight.through().await?, since, archive.last().await?))
            });
            match seen {
                // Without a checkpoint it begins at what is complete, and nothing is so yet.
                Ok((through, ..)) if through <= 0 && backlog.heartbeat.is_none() => {
                    if !is_said {
                        tracing::info!(
                            "alerts are judged from the first complete minute on: once all partitions were read"
                        );
                        is_said = true;
                    }
                }
                Ok(seen) => break seen,
                Err(Trouble::Passing(reason)) => pause = hindrance.failed(&reason),
                Err(trouble) => return Err(trouble),
            }
            wait(pause, leave);
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
        if let Some(heartbeat) = &heartbeat {
            // What was judged was judged on all that had come by then.
            evaluator.trust(since, &heartbeat.unjudged);
        }
        let round = heartbeat.map_or(0, |heartbeat| heartbeat.round).max(archived);
        tracing::info!(
            rules = evaluator.rules().rules.len() + evaluator.rules().budgets.len(),
            known = messages.len(),
            round,
            "judging alerts, from minute {} on, to the topic {}",
            shown(evaluator.judged()),
            settings.topic
        );
        let inquiry = Inquiry::new(
            sight.rollups(),
            evaluation.runtime.clone(),
            evaluation.plan.clone(),
            evaluator.questions(),
            settings.memory,
            settings.heartbeat,
        );
        Ok(Term {
            evaluation,
            leave,
            hindrance,
            publisher,
            sight,
            inquiry,
            archive,
            evaluator,
            round,
            published: Instant::now(),
            rules,
            unjudged: Vec::new(),
            budgets: Budgets::new(budgets, settings.heartbeat),
            looked: None,
            is_stale: true,
            has_waited: false,
            overflowing: BTreeSet::new(),
        })
    }

    /// Judges until it is time to leave.
    pub(super) fn serve(mut self) -> Result<(), Trouble> {
        let settings = &self.evaluation.settings;
        while !(self.leave)() {
            let begun = Instant::now();
            let outcome = self.round().map(|is_judged| {
                self.evaluation.runtime.block_on(self.archive.write());
                if is_judged {
                    failpoint::reach(Point::AlertsKept);
                }
            });
            let rest = rest(begun.elapsed(), settings.heartbeat.saturating_sub(self.published.elapsed()));
            let until = Instant::now() + rest.max(settings.interval.saturating_sub(begun.elapsed()));
            let left = || until.saturating_duration_since(Instant::now());
            match outcome.and_then(|()| self.attend(until)) {
                Ok(()) => {
                    self.hindrance.passed();
                    wait(left(), self.leave);
                }
                // It was interrupted.
                Err(Trouble::Passing(_)) if (self.leave)() => {}
                // A round that failed may have cost as much as one that did not.
                Err(Trouble::Passing(reason)) => {
                    self.has_waited = false;
                    wait(self.hindrance.failed(&reason).max(left()), self.leave);
                }
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(())
    }

    /// Whether there was anything to judge.
    fn round(&mut self) -> Result<bool, Trouble> {
        let begun = Instant::now();
        let Evaluation { runtime, counters, plan, settings, .. } = self.evaluation;
        // How far all is complete first: what is read after that has all of it.
        let through_ms = runtime.block_on(self.sight.through())?;
        let judged = self.evaluator.judged();
        let oldest = (0..self.evaluator.questions().len()).map(|question| self.evaluator.oldest(question)).min();
        let within = patience(false, settings.heartbeat.saturating_sub(self.published.elapsed()));
        if let Some(news) = runtime.block_on(self.sight.look(plan, judged, oldest.unwrap_or(judged), within))? {
            self.inquiry.add(&news, &mut self.evaluator);
            self.is_stale = true;
        }
        let complete = through_ms.div_euclid(60_000).max(judged);
        let reach = Reach { through: complete.min(judged + STRIDE), is_bounded: complete > judged + STRIDE };
        let is_due = self.published.elapsed() >= settings.heartbeat;
        let is_same = !self.is_stale && self.looked.is_some_and(|looked| looked.through == reach.through);
        if is_same && !is_due {
            self.show();
            return Ok(false);
        }
        let patience = patience(self.has_waited, settings.heartbeat.saturating_sub(self.published.elapsed()));
        let until = Instant::now() + patience;
        self.inquiry.read(&mut self.evaluator, reach, until, self.leave)?;
        let unanswered = self.inquiry.unanswered();
        let completeness = Completeness { through_ms, now_ms: now_ms(), late: self.sight.late() };
        let round = self.evaluator.advance_without(&unanswered, reach.through, completeness);
        self.tell_overflows(&round.overflows);
        failpoint::reach(Point::AlertsJudged);
        self.publish(round, &unanswered, completeness, judged)?;
        (self.looked, self.is_stale, self.has_waited) = (Some(reach), false, true);
        counters.judged(begun.elapsed());
        self.show();
        Ok(true)
    }

    /// Until a time, takes in what comes of questions that are asked on the side. It is the next round's.
    fn attend(&mut self, until: Instant) -> Result<(), Trouble> {
        let Some(reach) = self.looked else { return Ok(()) };
        while self.inquiry.attend(&mut self.evaluator, reach, until, self.leave)? {
            self.is_stale = true;
        }
        Ok(())
    }

    /// Shows how far rules are judged, and how many are not.
    fn show(&self) {
        let (through_ms, unjudged) = (self.evaluator.judged() * 60_000, self.unjudged.len());
        self.evaluation.board.judged(Some(Judged { through_ms, at_ms: now_ms(), unjudged }));
    }

    /// Publishes what a round found, if there is anything to tell.
    fn publish(
        &mut self,
        round: Round,
        unanswered: &BTreeSet<usize>,
        completeness: Completeness,
        judged: Minute,
    ) -> Result<(), Trouble> {
        let Round { messages, budgets, .. } = round;
        let settings = &self.evaluation.settings;
        let names = unanswered.iter().flat_map(|question| self.evaluator.asking(*question));
        let unjudged: Vec<String> = names.collect::<BTreeSet<&str>>().into_iter().map(str::to_owned).collect();
        let gone =
            self.budgets.gone(&budgets, self.evaluator.rules(), &unjudged, completeness.now_ms, settings.horizon);
        let budgets = self.budgets.news(budgets);
        let rules = RuleSet::of(&self.evaluator.checkpoint());
        let has_moved = self.evaluator.judged() > judged || rules != self.rules || unjudged != self.unjudged;
        let is_due = self.published.elapsed() >= settings.heartbeat;
        if messages.is_empty() && budgets.is_empty() && gone.is_empty() && !has_moved && !is_due {
            return Ok(());
        }
        let heartbeat = Heartbeat {
            round: self.round + 1,
            group: settings.consumer.group.clone(),
            sent_at: completeness.now_ms,
            judged: self.evaluator.judged() * 60_000,
            complete_through: completeness.through_ms,
            rules: rules.rules.len() as i64,
            home: settings.home.to_string(),
            database: settings.endpoint.database.clone(),
            unjudged: unjudged.clone(),
        };
        let mut records: Vec<Record> = Vec::new();
        records.extend(messages.iter().map(|message| Record::Alert(Box::new(message.clone()))));
        records.extend(budgets.iter().map(|state| Record::Budget(Box::new(state.clone()))));
        records.extend((rules != self.rules).then(|| Record::Rules(rules.clone())));
        records.push(Record::Heartbeat(heartbeat.clone()));
        self.publisher.publish(&records, &gone, || failpoint::reach(Point::AlertsSent), self.leave)?;
        failpoint::reach(Point::AlertsPublished);
        (self.round, self.published) = (heartbeat.round, Instant::now());
        (self.rules, self.unjudged) = (rules, unjudged);
        self.budgets.published(budgets, &gone);
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

/// How long to rest after a round that took so long, where the next heartbeat is due in so long.
fn rest(took: Duration, heartbeat_in: Duration) -> Duration {
    (took * REST).min(heartbeat_in)
}

/// How long a round waits for what was never read, or it can do without, where the next heartbeat is due in so long.
fn patience(has_waited: bool, heartbeat_in: Duration) -> Duration {
    if has_waited { Duration::ZERO } else { heartbeat_in.max(LEAST) }
}

fn shown(minute: Minute) -> String {
    jiff::Timestamp::from_second(minute * 60).map_or_else(|_| minute.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_round_does_not_delay_the_heartbeat() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(seconds(2), seconds(28)), seconds(8));
        assert_eq!(rest(seconds(100), seconds(28)), seconds(28));
        assert_eq!(rest(seconds(100), Duration::ZERO), Duration::ZERO, "it is due");
    }

    #[test]
    fn only_the_first_round_waits_for_what_was_never_read() {
        let seconds = Duration::from_secs;
        assert_eq!(patience(false, seconds(28)), seconds(28));
        assert_eq!(patience(false, Duration::ZERO), LEAST, "the heartbeat is due");
        assert_eq!(patience(true, seconds(28)), Duration::ZERO);
    }
}
