//! One target: a message until it is taken, refused or given up.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::firing::Alert;
use super::post::{Answer, Parcel, post};
use super::{Kind, Manner, Target, body};
use crate::alert::Message;
use crate::telemetry::Outage;

/// Before what failed is tried again for the first time; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that is not asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often what is refused is tried: a proxy in front of a target that starts may answer 404 for a moment.
const REFUSALS: u32 = 3;

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The target has it.
    Taken,
    /// It never will have it: it refused, or failed for too long.
    LeftOut(String),
}

/// Brings messages to one target.
#[derive(Clone)]
pub struct Courier {
    target: Arc<Target>,
    manner: Arc<Manner>,
    outage: Arc<Mutex<Outage>>,
}

impl Courier {
    /// For a target.
    pub fn new(target: Target, manner: Manner) -> Courier {
        let outage = Outage::of(format!("the {target}"));
        Courier { target: Arc::new(target), manner: Arc::new(manner), outage: Arc::new(Mutex::new(outage)) }
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
        Parcel { name: format!("{}/{}", message.alert_id, message.sequence), body: Bytes::from(body) }
    }

    /// Posts a message until it is taken, refused, or given up.
    pub(super) async fn deliver(&self, parcel: Parcel) -> Outcome {
        let (begun, mut failures, mut refusals) = (Instant::now(), 0, 0);
        loop {
            let (reason, asked) = match self.attempt(&parcel).await {
                Answer::Taken => {
                    self.outage().passed();
                    return Outcome::Taken;
                }
                Answer::Refused(reason) => {
                    refusals += 1;
                    if refusals >= REFUSALS {
                        return self.left_out(&parcel, &format!("refused it: {reason}"));
                    }
                    (reason, None)
                }
                Answer::Failed(reason, asked) => (reason, asked),
            };
            if begun.elapsed() >= self.manner.give_up {
                let seconds = self.manner.give_up.as_secs();
                return self.left_out(&parcel, &format!("did not take it within {seconds} s: {reason}"));
            }
            self.outage().failed(&reason);
            let backed_off = PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
            failures += 1;
            // Not all at the same moment: who was away has many to hear from.
            let spread = backed_off.mul_f64(0.8 + 0.4 * fastrand::f64());
            tokio::time::sleep(asked.unwrap_or_default().max(spread)).await;
        }
    }

    /// Posts what fires once; what fails is tried the next time.
    pub(super) async fn remind(&self, alerts: Vec<Vec<Alert>>) {
        for alerts in alerts {
            let parcel = Parcel { name: "what fires".to_owned(), body: Bytes::from(json(&alerts)) };
            match self.attempt(&parcel).await {
                Answer::Taken => {}
                Answer::Refused(reason) | Answer::Failed(reason, _) => {
                    self.outage().failed(&format!("it was not told anew of what fires: {reason}"));
                    return;
                }
            }
        }
    }

    /// Tries once, and says in words why it failed.
    ///
    /// # Errors
    /// It was not taken.
    pub async fn try_once(&self, message: &Message, now_ms: i64) -> Result<(), String> {
        let alerts = super::firing::Firing::default().take(message, self.manner.link.as_deref(), now_ms);
        match self.attempt(&self.parcel(message, &alerts)).await {
            Answer::Taken => Ok(()),
            Answer::Refused(reason) | Answer::Failed(reason, _) => Err(reason),
        }
    }

    /// Tries once, at all addresses: one that takes it is enough, since what fires is told to all again and again.
    async fn attempt(&self, parcel: &Parcel) -> Answer {
        if let [address] = &self.target.addresses[..] {
            return post(address, parcel, self.manner.timeout).await;
        }
        let mut posts = JoinSet::new();
        for address in &self.target.addresses {
            let (address, parcel, timeout) = (address.clone(), parcel.clone(), self.manner.timeout);
            posts.spawn(async move { (format!("{address:?}"), post(&address, &parcel, timeout).await) });
        }
        let answers = posts.join_all().await;
        if answers.iter().any(|(_, answer)| *answer == Answer::Taken) {
            return Answer::Taken;
        }
        let reasons = answers.iter().filter_map(|(address, answer)| match answer {
            Answer::Refused(reason) | Answer::Failed(reason, _) => Some(format!("{address}: {reason}")),
            Answer::Taken => None,
        });
        let reasons = reasons.collect::<Vec<_>>().join("; ");
        let pauses = answers.iter().filter_map(|(_, answer)| match answer {
            Answer::Failed(_, asked) => Some(*asked),
            _ => None,
        });
        // As soon as the first of them may take it.
        match pauses.min() {
            None => Answer::Refused(reasons),
            Some(asked) => Answer::Failed(reasons, asked),
        }
    }

    fn left_out(&self, parcel: &Parcel, why: &str) -> Outcome {
        let (name, target) = (&parcel.name, &self.target);
        tracing::error!("an alert was not handed on: {target} {why}; the alert and its number are {name}");
        Outcome::LeftOut(why.to_owned())
    }

    fn outage(&self) -> std::sync::MutexGuard<'_, Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn json(alerts: &[Alert]) -> String {
    // Texts by names have no way to fail.
    serde_json::to_string(alerts).unwrap_or_default()
}
