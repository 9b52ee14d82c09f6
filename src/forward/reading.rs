//! One target's place in the topic: what was handed on, what waits, and what fires.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Kind;
use super::courier::{Attempts, Courier, Load, Outcome};
use super::firing::{Alert, BATCH, Firing};
use super::post::Parcel;
use crate::alert::Message;
use crate::kafka::KafkaLog;
use crate::ports::{Log as _, LogError, TopicPartition};

/// How often an offset is committed: commits that wait in line keep the group's heartbeats waiting.
const COMMIT: Duration = Duration::from_millis(250);
/// The same where nothing but heartbeats of the evaluator came.
const IDLE_COMMIT: Duration = Duration::from_secs(5);
/// Beside a committed offset: what fires there is still to be told.
const FIRST: &str = "what fires here is still to be told";
/// Alerts that Alertmanager is told of for one message, at most: itself, and what it takes the place of.
const AT_MOST: usize = 2;

/// Reading the partition.
pub(super) struct Reading {
    pub(super) partition: TopicPartition,
    /// Where what is not handed on begins; `None`: it is still to be asked, not before the time below.
    pub(super) from: Option<Begin>,
    pub(super) ask_at: Instant,
    /// A record that can't be read yet, and when it is looked at again.
    pub(super) halt: Option<(u64, Instant)>,
    pub(super) firing: Firing,
    /// All before is known.
    pub(super) seen: u64,
    pub(super) is_caught_up: bool,
    /// The log has no more now.
    pub(super) is_at_end: bool,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) under_way: Option<UnderWay>,
    /// What is to be tried again beside another message.
    pub(super) stuck: Option<Stuck>,
    /// All before was taken.
    pub(super) done: u64,
    /// The last commit: of what, and when.
    pub(super) committed: (u64, Option<Instant>),
    pub(super) is_paused: bool,
}

/// From which offset on messages are handed on, whether what fires there is still to be told, and whether the offset was
/// committed before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begin {
    pub(super) offset: u64,
    pub(super) is_first: bool,
    pub(super) goes_on: bool,
}

pub(super) struct Waiting {
    pub(super) message: Message,
    /// What is to be committed once it was taken.
    pub(super) then: Option<u64>,
    /// It was taken already, beside one that was stuck.
    is_taken: bool,
}

/// A load on its way.
pub(super) struct UnderWay {
    pub(super) task: JoinHandle<(Outcome, bool)>,
    pub(super) then: Option<u64>,
    pub(super) since: Instant,
    /// The place in the queue of the message that goes beside it.
    beside: Option<usize>,
}

/// See [`Outcome::Stuck`].
pub(super) struct Stuck {
    load: Load,
    attempts: Attempts,
    then: Option<u64>,
}

/// What is to be sent next.
pub(super) struct Next {
    pub(super) load: Load,
    pub(super) attempts: Attempts,
    pub(super) then: Option<u64>,
    /// A message that may be tried too, and its place in the queue.
    pub(super) beside: Option<(usize, Parcel)>,
}

impl Begin {
    /// From where on messages are to be handed on; the partition is delivered from its begin.
    pub(super) fn ask(log: &mut KafkaLog, partition: &TopicPartition) -> Result<Begin, LogError> {
        let unanswered = || Err(LogError::Passing(format!("Kafka did not answer where {partition} ends")));
        let found = log.bounds(std::slice::from_ref(partition)).pop().unwrap_or_else(unanswered)?;
        let begin = match found.committed.filter(|committed| *committed <= found.end) {
            Some(offset) => Begin { offset, is_first: log.note(partition)? == FIRST, goes_on: true },
            None => {
                if found.committed.is_some() {
                    tracing::warn!(
                        "the topic {} ends before what was handed on of it, so it was made anew; what fires is told again",
                        partition.topic
                    );
                }
                log.commit_with(partition, found.end, FIRST)?;
                Begin { offset: found.end, is_first: true, goes_on: false }
            }
        };
        log.start(partition, found.start)?;
        Ok(begin)
    }
}

impl Reading {
    /// Which begins with asking where to, not before a time.
    pub(super) fn new(partition: TopicPartition, ask_at: Instant) -> Reading {
        Reading {
            partition,
            from: None,
            ask_at,
            halt: None,
            firing: Firing::default(),
            seen: 0,
            is_caught_up: false,
            is_at_end: false,
            waiting: VecDeque::new(),
            under_way: None,
            stuck: None,
            done: 0,
            committed: (0, None),
            is_paused: false,
        }
    }

    /// Begins where it is said.
    pub(super) fn begun(&mut self, begin: Begin) {
        self.from = Some(begin);
        // The first time the offset is to be committed once more, when all that fires there was told.
        self.committed.0 = if begin.is_first { 0 } else { begin.offset };
        self.done = self.committed.0;
    }

    /// Whether what comes of the log is to be taken in: not before it is known from where on, nor behind what can't be read.
    pub(super) fn is_reading(&self) -> bool {
        self.from.is_some() && self.halt.is_none()
    }

    /// Before this offset all was handed on, so that what can't be read is no loss.
    pub(super) fn handed_on(&self) -> u64 {
        self.from.filter(|from| !from.is_first).map_or(0, |from| from.offset)
    }

    /// The log was read up to an offset.
    pub(super) fn reached(&mut self, offset: u64) {
        if self.from.is_some_and(|from| offset >= from.offset) {
            self.caught_up();
        }
    }

    /// All that was handed on before is known: what comes is to be handed on. The first time that is what fires.
    fn caught_up(&mut self) {
        if std::mem::replace(&mut self.is_caught_up, true) {
            return;
        }
        let Some(Begin { offset, is_first: true, .. }) = self.from else { return };
        let firing = self.firing.messages();
        let last = firing.len();
        for (at, message) in firing.into_iter().enumerate() {
            self.wait(message, (at + 1 == last).then_some(offset));
        }
    }

    /// Puts a message last in the queue.
    pub(super) fn wait(&mut self, message: Message, then: Option<u64>) {
        self.waiting.push_back(Waiting { message, then, is_taken: false });
    }

    /// What is to be committed now, if anything is.
    pub(super) fn due(&mut self) -> Option<u64> {
        let (committed, at) = self.committed;
        let pace = if self.done > committed { COMMIT } else { IDLE_COMMIT };
        if self.is_caught_up && self.is_idle() {
            self.done = self.done.max(self.seen);
        }
        let is_time = at.is_none_or(|at| at.elapsed() >= pace);
        (self.done > committed && is_time).then_some(self.done)
    }

    /// Nothing waits, and nothing is on its way.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none() && self.stuck.is_none()
    }

    /// Takes the next load out of the queue; `None`: there is nothing to send.
    pub(super) fn next(&mut self, courier: &Courier, now_ms: i64) -> Option<Next> {
        if let Some(Stuck { load, attempts, then }) = self.stuck.take() {
            let beside = self.beside(&load, courier);
            return Some(Next { load, attempts, then, beside });
        }
        let mut then = None;
        let mut together: Vec<(Message, Vec<Alert>)> = Vec::new();
        while let Some(next) =
            self.waiting.pop_front_if(|next| next.is_taken || fits(&together, &next.message, courier))
        {
            then = next.then.or(then);
            if !next.is_taken {
                let alerts = self.firing.take(&next.message, courier.manner().link.as_deref(), now_ms);
                together.push((next.message, alerts));
            }
        }
        if together.is_empty() {
            self.done = then.unwrap_or(self.done);
            return None;
        }
        Some(Next { load: courier.load(&together), attempts: Attempts::default(), then, beside: None })
    }

    /// Any message that waits, of another alert: what one alert is told stays in its order.
    fn beside(&self, load: &Load, courier: &Courier) -> Option<(usize, Parcel)> {
        let is_other = |waiting: &Waiting| !waiting.is_taken && !load.ids.contains(&waiting.message.alert_id);
        let others = self.waiting.iter().enumerate().filter(|(_, waiting)| is_other(waiting));
        let mut first: Vec<(usize, &Waiting)> = Vec::new();
        for (place, waiting) in others {
            // Not one that another of its alert stands before.
            if first.iter().all(|(_, before)| before.message.alert_id != waiting.message.alert_id) {
                first.push((place, waiting));
            }
        }
        let (place, waiting) = *first.get(fastrand::usize(..first.len().max(1)))?;
        Some((place, courier.parcel(&waiting.message, &[])))
    }

    /// Something is on its way.
    pub(super) fn sent(&mut self, task: JoinHandle<(Outcome, bool)>, then: Option<u64>, beside: Option<usize>) {
        self.under_way = Some(UnderWay { task, then, since: Instant::now(), beside });
    }

    /// What was on its way has arrived, or is stuck.
    pub(super) fn arrived(&mut self, outcome: Outcome, then: Option<u64>, taken_beside: Option<usize>) {
        if let Some(other) = taken_beside.and_then(|place| self.waiting.get_mut(place)) {
            other.is_taken = true;
        }
        match outcome {
            Outcome::Done => self.done = then.unwrap_or(self.done),
            Outcome::Stuck(load, attempts) => self.stuck = Some(Stuck { load, attempts, then }),
        }
    }
}

impl UnderWay {
    /// The place of what was taken beside it.
    pub(super) fn beside(&self, is_taken: bool) -> Option<usize> {
        self.beside.filter(|_| is_taken)
    }
}

/// Whether a message may go with others: to Alertmanager, in one request that is not too long, one of each alert.
fn fits(together: &[(Message, Vec<Alert>)], next: &Message, courier: &Courier) -> bool {
    let alerts: usize = together.iter().map(|(_, alerts)| alerts.len()).sum();
    let is_other = || together.iter().all(|(message, _)| message.alert_id != next.alert_id);
    let is_manager = courier.target().kind == Kind::Alertmanager;
    together.is_empty() || (is_manager && alerts + AT_MOST <= BATCH && is_other())
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Somebody else hands on now, or we do from the begin.
        if let Some(UnderWay { task, .. }) = &self.under_way {
            task.abort();
        }
    }
}
