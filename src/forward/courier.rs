//! One target: a message until it is taken, refused or given up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::firing::{Alert, Firing};
use super::post::{Answer, Failure, Parcel, post};
use super::{Kind, Manner, Target, body, own};
use crate::alert::Message;
use crate::telemetry::Outage;

/// Before what failed is tried again for the first time; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that is not asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often what is refused is tried: a proxy in front of a target that starts may answer anything for a moment.
const REFUSALS: u32 = 3;
/// How long a target may answer one message with errors of its own (5xx) before it is looked whether it takes another.
const STUCK: Duration = Duration::from_secs(10 * 60);

/// What goes on its way together.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// The alerts that it is about.
    pub(super) ids: Vec<String>,
    whole: Parcel,
    /// The same one by one, if it is several.
    parts: Vec<Parcel>,
}

/// How often and how long something was tried.
#[derive(Debug, Clone)]
pub(super) struct Attempts {
    begun: Instant,
    failures: u32,
    refusals: u32,
    /// Since when every answer was an error of the target's own.
    faults: Option<Instant>,
}

impl Default for Attempts {
    fn default() -> Attempts {
        Attempts { begun: Instant::now(), failures: 0, refusals: 0, faults: None }
    }
}

/// What became of a load.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    /// The target has it, or never will have it: what was left out is said.
    Done,
    /// The target answers with errors of its own for so long that it may be the message's fault: it is to be tried again,
    /// beside another one.
    Stuck(Load, Attempts),
}

/// What became of one parcel.
enum Fate {
    Taken,
    /// Why it never will be.
    Refused(String),
    /// Why it was not for all that time.
    GivenUp(String),
    Stuck,
}

/// Brings messages to one target.
#[derive(Clone)]
pub struct Courier {
    target: Arc<Target>,
    manner: Arc<Manner>,
    outage: Arc<Mutex<Outage>>,
    /// Of each address: held while it is asked, so that nothing overtakes what is on its way there.
    turns: Vec<Arc<tokio::sync::Mutex<()>>>,
    /// When it took anything last.
    taken: Arc<Mutex<Option<Instant>>>,
    stuck: Duration,
}

impl Courier {
    /// For a target.
    pub fn new(target: Target, manner: Manner) -> Courier {
        let outage = Outage::of(format!("the {target}"));
        Courier {
            turns: target.addresses.iter().map(|_| Arc::default()).collect(),
            target: Arc::new(target),
            manner: Arc::new(manner),
            outage: Arc::new(Mutex::new(outage)),
            taken: Arc::default(),
            stuck: STUCK,
        }
    }

    /// Who is told.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// How.
    pub(super) fn manner(&self) -> &Manner {
        &self.manner
    }

    /// A message as the target understands it; `alerts` is how Alertmanager is told of it.
    pub(super) fn parcel(&self, message: &Message, alerts: &[Alert]) -> Parcel {
        let link = self.manner.link.as_deref();
        let body = match self.target.kind {
            Kind::Webhook => body::webhook(message, link),
            Kind::Slack => body::slack(message, link),
            Kind::Alertmanager => json(alerts),
        };
        let name = format!("{}/{}", message.alert_id, message.sequence);
        Parcel { key: Some(name.clone()), name, body: Bytes::from(body) }
    }

    /// Messages that go together, each with what Alertmanager is told of it; only Alertmanager takes more than one.
    pub(super) fn load(&self, messages: &[(Message, Vec<Alert>)]) -> Load {
        let ids = messages.iter().map(|(message, _)| message.alert_id.clone()).collect();
        let mut parts: Vec<Parcel> = messages.iter().map(|(message, alerts)| self.parcel(message, alerts)).collect();
        if parts.len() == 1 {
            return Load { ids, whole: parts.remove(0), parts: Vec::new() };
        }
        let alerts: Vec<&Alert> = messages.iter().flat_map(|(_, alerts)| alerts).collect();
        let whole = Parcel { name: format!("{} messages", parts.len()), key: None, body: Bytes::from(json(&alerts)) };
        Load { ids, whole, parts }
    }

    /// Posts a load until it is taken, refused, or given up; with another message that waits, to be tried once where the load
    /// seems to be at fault. Answers too whether that one was taken.
    pub(super) async fn deliver(&self, load: Load, mut attempts: Attempts, other: Option<Parcel>) -> (Outcome, bool) {
        let is_manager = self.target.kind == Kind::Alertmanager;
        let other = self.nothing().or(other);
        let (fate, other_is_taken) = self.bring(&load.whole, &mut attempts, other.as_ref()).await;
        match fate {
            Fate::Taken => {}
            Fate::Stuck => return (Outcome::Stuck(load, attempts), false),
            Fate::Refused(why) if load.parts.is_empty() => self.left_out(&load.whole, &why),
            // Of many one may be at fault.
            Fate::Refused(_) => {
                // What was found out of all of them together need not be found out again.
                attempts.refusals = 0;
                for part in &load.parts {
                    self.bring_alone(part, attempts.clone()).await;
                }
            }
            Fate::GivenUp(why) if load.parts.is_empty() => self.left_out(&load.whole, &why),
            Fate::GivenUp(why) => {
                for part in &load.parts {
                    if self.attempt(part).await != Answer::Taken {
                        self.left_out(part, &why);
                    }
                }
            }
        }
        (Outcome::Done, other_is_taken && !is_manager)
    }

    /// No alert at all, which Alertmanager takes as any number of them.
    fn nothing(&self) -> Option<Parcel> {
        let parcel = || Parcel { name: "nothing".to_owned(), key: None, body: Bytes::from_static(b"[]") };
        (self.target.kind == Kind::Alertmanager).then(parcel)
    }

    /// Posts a parcel that goes alone until it is taken, refused, or given up.
    pub(super) async fn bring_alone(&self, parcel: &Parcel, mut attempts: Attempts) {
        let other = self.nothing();
        loop {
            match self.bring(parcel, &mut attempts, other.as_ref()).await.0 {
                Fate::Taken => return,
                Fate::Refused(why) | Fate::GivenUp(why) => return self.left_out(parcel, &why),
                Fate::Stuck => {}
            }
        }
    }

    /// Posts a parcel until it is taken, refused, given up, or stuck.
    async fn bring(&self, parcel: &Parcel, attempts: &mut Attempts, mut other: Option<&Parcel>) -> (Fate, bool) {
        loop {
            let failure = match self.attempt(parcel).await {
                Answer::Taken => {
                    self.outage().passed();
                    return (Fate::Taken, false);
                }
                Answer::Refused(reason) => {
                    attempts.refusals += 1;
                    if attempts.refusals >= REFUSALS {
                        return (Fate::Refused(format!("refused it: {reason}")), false);
                    }
                    Failure::of(reason)
                }
                Answer::Failed(failure) => failure,
            };
            let is_stuck = attempts.failed(&failure, self.stuck);
            // Whatever it took since was another one.
            if is_stuck && attempts.faults < self.last_taken() {
                return (self.convicted(parcel, attempts, &failure).await, false);
            }
            if is_stuck
                && let Some(other) = other.take()
                && self.attempt(other).await == Answer::Taken
            {
                return (self.convicted(parcel, attempts, &failure).await, true);
            }
            if attempts.begun.elapsed() >= self.manner.give_up {
                let seconds = self.manner.give_up.as_secs();
                let why = format!("did not take it within {seconds} s: {}", failure.reason);
                return (Fate::GivenUp(why), false);
            }
            self.outage().failed(&failure.reason);
            tokio::time::sleep(attempts.pause(&failure)).await;
            if is_stuck {
                return (Fate::Stuck, false);
            }
        }
    }

    /// The target takes others. It may have come back just then, so this one is tried a last time.
    async fn convicted(&self, parcel: &Parcel, attempts: &Attempts, failure: &Failure) -> Fate {
        self.outage().passed();
        match self.attempt(parcel).await {
            Answer::Taken => Fate::Taken,
            Answer::Refused(_) | Answer::Failed(_) => {
                let seconds = attempts.faults.map_or(0, |since| since.elapsed().as_secs());
                Fate::Refused(format!("failed at it for {seconds} s, and takes others: {}", failure.reason))
            }
        }
    }

    /// Posts what fires once, in some requests; what fails is tried the next time.
    pub(super) async fn remind(&self, alerts: Vec<Vec<Alert>>) {
        let (mut taken, mut reasons) = (0, Vec::new());
        for alerts in &alerts {
            let parcel = Parcel { name: "what fires".to_owned(), key: None, body: Bytes::from(json(alerts)) };
            match self.attempt(&parcel).await {
                Answer::Taken => taken += alerts.len(),
                Answer::Refused(reason) | Answer::Failed(Failure { reason, .. }) => reasons.push(reason),
            }
        }
        if taken > 0 {
            self.outage().passed();
        }
        let Some(reason) = reasons.first() else { return };
        if taken == 0 {
            return self.outage().failed(&format!("it was not told anew of what fires: {reason}"));
        }
        let all: usize = alerts.iter().map(Vec::len).sum();
        let target = &self.target;
        tracing::warn!("the {target} took {taken} of {all} alerts that it was told anew of; of the others: {reason}");
    }

    /// Posts a made-up alert once, at a time in milliseconds since 1970.
    ///
    /// # Errors
    /// It was not taken: why not, in words.
    pub async fn try_once(&self, now_ms: i64) -> Result<(), String> {
        let message = own::made_up(now_ms);
        let alerts = Firing::default().take(&message, self.manner.link.as_deref(), now_ms);
        match self.attempt(&self.parcel(&message, &alerts)).await {
            Answer::Taken => Ok(()),
            Answer::Refused(reason) | Answer::Failed(Failure { reason, .. }) => Err(reason),
        }
    }

    /// Tries once, and takes note of what was taken.
    async fn attempt(&self, parcel: &Parcel) -> Answer {
        let answer = self.ask(parcel).await;
        if answer == Answer::Taken {
            *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        answer
    }

    fn last_taken(&self) -> Option<Instant> {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries once, at all addresses: one that takes it is enough, since what fires is told to all again and again. Those that
    /// have not answered by then may go on; until they have they are passed over.
    async fn ask(&self, parcel: &Parcel) -> Answer {
        if let [address] = &self.target.addresses[..] {
            return post(address, parcel, self.manner.timeout).await;
        }
        let (told, mut answers) = mpsc::channel(self.target.addresses.len().max(1));
        let mut answered = Vec::new();
        for (address, turn) in self.target.addresses.iter().zip(&self.turns) {
            let Ok(turn) = Arc::clone(turn).try_lock_owned() else {
                let busy = Failure::of("it has not answered what came before");
                answered.push((format!("{address:?}"), Answer::Failed(busy)));
                continue;
            };
            let (address, parcel, told) = (address.clone(), parcel.clone(), told.clone());
            let timeout = self.manner.timeout;
            tokio::spawn(async move {
                let answer = post(&address, &parcel, timeout).await;
                drop(turn);
                // Nobody listens any more once another one took it.
                let _ = told.send((format!("{address:?}"), answer)).await;
            });
        }
        drop(told);
        while let Some((address, answer)) = answers.recv().await {
            if answer == Answer::Taken {
                return Answer::Taken;
            }
            answered.push((address, answer));
        }
        together(&answered)
    }

    fn left_out(&self, parcel: &Parcel, why: &str) {
        let (name, target) = (&parcel.name, &self.target);
        tracing::error!("an alert was not handed on: {target} {why}; the alert and its number are {name}");
    }

    fn outage(&self) -> std::sync::MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempts {
    /// Takes a failure in; answers whether it may be the message's fault.
    fn failed(&mut self, failure: &Failure, stuck: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        let since = self.faults.take().unwrap_or_else(Instant::now);
        self.faults = failure.is_fault.then_some(since);
        self.faults.is_some_and(|since| since.elapsed() >= stuck)
    }

    /// Before it is tried again.
    fn pause(&self, failure: &Failure) -> Duration {
        let backed_off = PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(10)).min(LONGEST_PAUSE);
        // Not all at the same moment: who was away has many to hear from.
        let spread = backed_off.mul_f64(0.8 + 0.4 * fastrand::f64());
        failure.pause.unwrap_or_default().max(spread)
    }
}

/// What the answers of several addresses that did not take it come to. Those that say nothing, being away, say nothing of the
/// message either.
fn together(answers: &[(String, Answer)]) -> Answer {
    let reason = |(address, answer): &(String, Answer)| match answer {
        Answer::Refused(reason) | Answer::Failed(Failure { reason, .. }) => Some(format!("{address}: {reason}")),
        Answer::Taken => None,
    };
    let reason = answers.iter().filter_map(reason).collect::<Vec<_>>().join("; ");
    let failures = || {
        answers.iter().filter_map(|(_, answer)| match answer {
            Answer::Failed(failure) => Some(failure),
            _ => None,
        })
    };
    let refuses = answers.iter().any(|(_, answer)| matches!(answer, Answer::Refused(_)));
    let mut answered = failures().filter(|failure| failure.is_answer).peekable();
    let is_answer = refuses || answered.peek().is_some();
    match answered.peek() {
        None if refuses => Answer::Refused(reason),
        _ => {
            let is_fault = is_answer && !refuses && answered.all(|failure| failure.is_fault);
            // As soon as the first of them may take it.
            let pause = failures().map(|failure| failure.pause).min().flatten();
            Answer::Failed(Failure { reason, pause, is_answer, is_fault })
        }
    }
}

fn json(alerts: &(impl serde::Serialize + ?Sized)) -> String {
    // Texts by names have no way to fail.
    serde_json::to_string(alerts).unwrap_or_default()
}

#[cfg(test)]
mod tests;
