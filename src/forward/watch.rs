//! The alert that nothing is heard of whoever judges, on its way beside those of the topic: it moves no offset and waits for
//! none of them.

use std::collections::VecDeque;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::courier::{Attempts, Courier};
use super::firing::{Alert, Firing};
use super::growth::Growth;
use super::silence::{Beat, Silence};
use crate::alert::{Message, State};
use crate::kafka::KafkaLog;

/// See the module.
pub(super) struct Watch {
    silence: Silence,
    /// Of the topic since somebody else is known to read it.
    growth: Growth,
    firing: Firing,
    waiting: VecDeque<Message>,
    /// What is on its way, and whether it says that it is over.
    under_way: Option<(JoinHandle<()>, bool)>,
}

impl Watch {
    pub(super) fn new(silence: Silence) -> Watch {
        let (growth, firing) = (Growth::default(), Firing::default());
        Watch { silence, growth, firing, waiting: VecDeque::new(), under_way: None }
    }

    /// As [`Silence::heard`].
    pub(super) fn heard(&mut self, beat: Beat, is_new: bool) {
        self.waiting.extend(self.silence.heard(beat, is_new));
    }

    /// As [`Silence::look`].
    pub(super) fn look(&mut self, now_ms: i64) {
        self.waiting.extend(self.silence.look(now_ms));
    }

    /// As [`Silence::goes_on`].
    pub(super) fn goes_on(&mut self) {
        self.silence.goes_on();
    }

    /// Another process has the partition of a topic, need not have missed a heartbeat, and then ends nothing. What was told here
    /// is over once the topic grows: before that the other one may be about to tell the same, and was not heard behind an end.
    /// Answers whether the other one watches from now on.
    pub(super) fn hand_over(&mut self, log: &mut KafkaLog, topic: &str, now_ms: i64) -> bool {
        let is_over = !self.silence.has_told() || self.growth.is_seen(log, topic);
        if is_over {
            self.growth = Growth::default();
            self.waiting.extend(self.silence.hand_over(now_ms));
        }
        is_over
    }

    /// Takes note that the partition changes hands: how far the topic grew until then says nothing of what is told after it.
    pub(super) fn changes_hands(&mut self) {
        self.growth = Growth::default();
    }

    /// Whether there was a heartbeat within a time.
    pub(super) fn is_heard(&self, within: std::time::Duration, now_ms: i64) -> bool {
        self.silence.is_heard(within, now_ms)
    }

    /// Sends the next message on its way, once the one before has arrived.
    pub(super) fn send(&mut self, courier: &Courier, runtime: &Handle, now_ms: i64) {
        if self.is_sending() {
            return;
        }
        self.under_way = None;
        let Some(message) = self.waiting.pop_front() else { return };
        let alerts = self.firing.take(&message, courier.manner().link.as_deref(), now_ms);
        let (courier, parcel) = (courier.clone(), courier.parcel(&message, &alerts));
        let task = runtime.spawn(async move { courier.bring_alone(&parcel, Attempts::default()).await });
        self.under_way = Some((task, is_over(&message)));
    }

    /// Whether something is on its way or waits.
    pub(super) fn is_busy(&self) -> bool {
        self.is_sending() || !self.waiting.is_empty()
    }

    /// Whether something is on its way.
    pub(super) fn is_sending(&self) -> bool {
        self.under_way.as_ref().is_some_and(|(task, _)| !task.is_finished())
    }

    /// Whether it is still to be told that it is over. Who is started anew finds that out from what is not committed.
    pub(super) fn owes_an_end(&self) -> bool {
        let is_under_way = self.is_sending() && self.under_way.as_ref().is_some_and(|(_, is_over)| *is_over);
        is_under_way || self.waiting.iter().any(is_over)
    }

    /// What Alertmanager is to be told of it anew, in the requests that tell it.
    pub(super) fn again(&self, link: Option<&str>, now_ms: i64) -> Vec<Vec<Alert>> {
        self.firing.again(link, now_ms)
    }
}

fn is_over(message: &Message) -> bool {
    message.state == State::Resolved.name()
}

#[cfg(test)]
impl Watch {
    /// As if all on its way had arrived.
    pub(super) fn arrive(&mut self) {
        self.under_way = None;
    }

    /// As if the topic had grown.
    pub(super) fn grow(&mut self) {
        self.growth = Growth::seen();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some((task, _)) = &self.under_way {
            task.abort();
        }
    }
}
