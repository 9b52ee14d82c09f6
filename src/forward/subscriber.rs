//! A member of a target's consumer group, which commits what the target took.
//!
//! The topic is compacted and read from its begin: what is before the committed offset was handed on, and says what fires.
//! A target that comes for the first time is told what fires then, and nothing of what is over. «Then» is an offset too, and
//! is committed before anything is told, with the note that what fires there is still to be: so it stays the same for whoever
//! is started after this one was killed.

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::courier::Courier;
use super::news::{Content, News, understood};
use super::reader::{ReadError, Reader};
use super::reading::{Begin, Reading};
use super::silence::Silence;
use super::watch::Watch;
use super::{Kind, Manner, Target};
use crate::kafka::KafkaLog;
use crate::kafka::identity::IdentityError;
use crate::kafka::settings::{ConsumerSettings, SettingsError};
use crate::ports::{Log, LogEvent, TopicPartition};
use crate::telemetry::Outage;

/// How long a look at the log waits while nothing is on its way.
const IDLE: Duration = Duration::from_millis(100);
/// The same while a message is: at first as long as a target near by takes, later as one that is away.
const BUSY: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];
/// How long «at first» is.
const SOON: Duration = Duration::from_millis(200);
/// Messages that wait; beyond, the log is not read on.
const WAITING: usize = 1_000;
/// Before Kafka is asked again where the log begins and ends.
const AGAIN: Duration = Duration::from_secs(1);
/// Before a record that can't be read yet is looked at again.
const HALT: Duration = Duration::from_secs(5);
/// Before all begins anew after a fault of ours, which may well come again.
const AFTER_PANIC: Duration = Duration::from_secs(10);
/// How long what is on its way is waited for at the end.
const LAST: Duration = Duration::from_secs(2);
/// How long nobody may give us the partition before it is looked whether there is a topic; between two looks; and how long
/// one may take.
const TOPIC: [Duration; 3] = [Duration::from_secs(3), Duration::from_secs(60), Duration::from_secs(1)];

/// See the module.
pub struct Subscriber {
    courier: Courier,
    runtime: Handle,
    log: KafkaLog,
    group: String,
    topic: String,
    reader: Reader,
    /// The partition, once the group gave it to us.
    home: Option<Reading>,
    watch: Watch,
    /// It was lost or never given, and nobody is known to read it.
    is_cut_off: bool,
    /// Alertmanager is being told anew.
    reminder: Option<JoinHandle<()>>,
    reminded: Option<Instant>,
    outage: Outage,
    /// When a record that stops us was said last.
    said: Option<Instant>,
    /// When it is looked whether there is a topic.
    look_at: Instant,
}

impl Subscriber {
    /// Joins the group of a target, which is `{group}-{kind}`. Returns at once; a topic that is not there is waited for.
    ///
    /// # Errors
    /// The settings are refused, by the engine or by librdkafka.
    pub fn new(
        target: Target,
        manner: Manner,
        consumer: &ConsumerSettings,
        reader: Reader,
        runtime: Handle,
    ) -> Result<Subscriber, SettingsError> {
        let group = target.group(&consumer.group);
        let log = KafkaLog::new(&ConsumerSettings { group: group.clone(), ..consumer.clone() })?;
        let topic = consumer.topics.first().cloned().unwrap_or_default();
        Ok(Subscriber {
            outage: Outage::of(format!("the topic {topic}, whose alerts the {target} is to be told of")),
            watch: Watch::new(Silence::new(&topic, manner.silent_after())),
            courier: Courier::new(target, manner),
            runtime,
            log,
            group,
            topic,
            reader,
            home: None,
            is_cut_off: true,
            reminder: None,
            reminded: None,
            said: None,
            look_at: Instant::now() + TOPIC[0],
        })
    }

    /// Hands on until told to stop.
    ///
    /// # Errors
    /// In words: Kafka will deliver nothing more.
    pub fn serve(mut self, stop: &dyn Fn() -> bool) -> Result<(), String> {
        while !stop() {
            self.step();
            if let Some(reason) = self.log.fatal() {
                return Err(format!(
                    "Kafka will deliver nothing more of alerts to the {}: {reason}",
                    self.courier.target()
                ));
            }
        }
        let begun = Instant::now();
        let is_busy = |home: &Reading| home.under_way.is_some();
        while (self.home.as_ref().is_some_and(is_busy) || self.watch.is_busy()) && begun.elapsed() < LAST {
            std::thread::sleep(BUSY[1]);
            self.arrived();
            self.send_own();
        }
        if let Some((partition, offset)) = self.last_commit() {
            self.log.commit(&[(partition, offset)]);
        }
        if let Some(reminder) = &self.reminder {
            reminder.abort();
        }
        self.log.close();
        Ok(())
    }

    /// What is to be committed at the end: not before it was told that a silence is over, as in [`Subscriber::tidy`].
    fn last_commit(&self) -> Option<(TopicPartition, u64)> {
        let home = self.home.as_ref().filter(|home| home.done > home.committed.0 && !self.watch.owes_an_end())?;
        Some((home.partition.clone(), home.done))
    }

    fn step(&mut self) {
        let under_way = self.home.as_ref().and_then(|home| home.under_way.as_ref());
        let wait = under_way.map_or(IDLE, |under_way| BUSY[usize::from(under_way.since.elapsed() > SOON)]);
        let handed_on = self.home.as_ref().map_or(0, Reading::handed_on);
        let (mut news, mut is_halted) = (Vec::new(), false);
        let (reader, runtime) = (&mut self.reader, &self.runtime);
        self.log.poll(wait, &mut |event| {
            let is_record = matches!(event, LogEvent::Record(_) | LogEvent::End(..));
            if is_halted && is_record {
                return;
            }
            let understood = understood(event, handed_on, |payload| runtime.block_on(reader.read(payload)));
            is_halted |= matches!(understood, Some(News::Halt(..)));
            news.extend(understood);
        });
        for news in news {
            self.take(news);
        }
        self.look_for_topic();
        self.begin();
        self.arrived();
        self.look(self.log.is_member());
        self.remind();
        self.send();
        self.tidy();
    }

    fn take(&mut self, news: News) {
        match (news, &mut self.home) {
            (News::Assigned(partition), _) => {
                self.leave(false);
                self.home = Some(Reading::new(partition, Instant::now()));
            }
            (News::Revoked, _) => {
                let is_lost = !self.log.is_member();
                self.leave(is_lost);
            }
            (News::OutOfRange, Some(home)) => *home = Reading::new(home.partition.clone(), Instant::now()),
            (News::Halt(offset, error), Some(home)) if home.is_reading() => {
                home.halt = Some((offset, Instant::now() + HALT));
                self.log.pause(&home.partition);
                self.halted(offset, &error);
            }
            (News::Record(offset, content), Some(home)) if home.is_reading() => {
                // Where the log ends, markers of transactions may stand before what is new.
                home.reached(offset);
                home.seen = offset + 1;
                home.is_at_end = false;
                self.outage.passed();
                match content {
                    Content::Alert(message) if home.is_caught_up => home.wait(*message, Some(offset + 1)),
                    Content::Alert(message) => drop(home.firing.learn(&message)),
                    Content::Beat(beat) => self.watch.heard(beat, home.is_caught_up),
                    Content::Nothing => {}
                }
            }
            (News::Until(offset), Some(home)) if home.is_reading() => {
                home.seen = home.seen.max(offset);
                home.is_at_end = true;
                home.reached(offset);
            }
            // What was on its way when it began anew.
            (News::OutOfRange | News::Halt(..) | News::Record(..) | News::Until(_), _) => {}
        }
    }

    /// The partition is somebody else's, or will be ours from its begin.
    fn leave(&mut self, is_lost: bool) {
        let was_ours = self.home.take().is_some();
        self.is_cut_off = is_lost && (was_ours || self.is_cut_off);
        self.watch.changes_hands();
        if let Some(reminder) = self.reminder.take() {
            reminder.abort();
        }
        self.reminded = None;
        self.look_at = Instant::now() + TOPIC[0];
    }

    fn halted(&mut self, offset: u64, error: &ReadError) {
        let place = format!("{}/0 offset {offset}", self.topic);
        if matches!(error, ReadError::Away(_)) {
            return self.outage.failed(&format!("{place} can't be read yet: {error}"));
        }
        if self.said.is_none_or(|said| said.elapsed() >= TOPIC[1]) {
            self.said = Some(Instant::now());
            let target = self.courier.target();
            tracing::error!(
                "no more alerts are handed on to the {target} before {place} can be read: {error}. If another program wrote \
                 it: stop this, and set the offset of the consumer group {} behind it",
                self.group
            );
        }
    }

    /// While nobody gives us the partition: says what is missing and what to do, now and then.
    fn look_for_topic(&mut self) {
        if self.home.is_some() || Instant::now() < self.look_at {
            return;
        }
        self.look_at = Instant::now() + TOPIC[1];
        match self.log.identity(&self.topic, TOPIC[2]) {
            Err(IdentityError::NotFound(topic)) => tracing::warn!(
                "the Kafka topic {topic} does not exist, so nobody is told of alerts: `highwater run` makes it where rules are \
                 judged; is alerts.topic the same here and there? It is waited for"
            ),
            Err(error @ (IdentityError::Refused { .. } | IdentityError::Credentials { .. })) => {
                tracing::error!("nobody is told of alerts: {error}");
            }
            // Brokers that are away are said to be so; or another one has the partition.
            Err(IdentityError::Away { .. }) | Ok(_) => {}
        }
    }

    /// Asks where to begin, and begins; looks again at what could not be read.
    fn begin(&mut self) {
        let Some(home) = &mut self.home else { return };
        let now = Instant::now();
        if let Some((offset, _)) = home.halt.filter(|(_, at)| now >= *at) {
            match self.log.start(&home.partition, offset) {
                Ok(()) => (home.halt, home.is_paused, home.is_at_end) = (None, false, false),
                Err(error) => {
                    home.halt = Some((offset, now + HALT));
                    self.outage.failed(&error);
                }
            }
        }
        if home.from.is_some() || now < home.ask_at {
            return;
        }
        home.ask_at = now + AGAIN;
        match Begin::ask(&mut self.log, &home.partition) {
            Ok(begin) => {
                self.outage.passed();
                if begin.goes_on {
                    self.watch.goes_on();
                }
                home.begun(begin);
            }
            Err(error) => self.outage.failed(&error),
        }
    }

    /// Looks whether what is on its way has arrived.
    fn arrived(&mut self) {
        let Some(home) = &mut self.home else { return };
        let Some(mut under_way) = home.under_way.take_if(|under_way| under_way.task.is_finished()) else { return };
        match self.runtime.block_on(&mut under_way.task) {
            Ok((outcome, is_taken)) => home.arrived(outcome, under_way.then, under_way.beside(is_taken)),
            Err(error) => {
                tracing::error!(
                    "handing on an alert panicked: {error}; this is a fault in highwater. It is tried again in {} s",
                    AFTER_PANIC.as_secs()
                );
                *home = Reading::new(home.partition.clone(), Instant::now() + AFTER_PANIC);
            }
        }
    }

    /// Looks whether anything is heard of whoever judges, where all that the log says is known or nothing can be read of it.
    fn look(&mut self, is_member: bool) {
        let now = now_ms();
        let is_to_look = match &self.home {
            Some(home) if home.halt.is_some() || home.from.is_none() => true,
            Some(home) => home.is_caught_up && home.is_at_end && !home.is_paused,
            None if is_member => {
                self.is_cut_off = self.is_cut_off && !self.watch.hand_over(&mut self.log, &self.topic, now);
                false
            }
            None => self.is_cut_off,
        };
        if is_to_look {
            self.watch.look(now);
        }
        self.send_own();
    }

    /// Sends what this process tells of by itself.
    fn send_own(&mut self) {
        if !self.is_reminding() {
            self.watch.send(&self.courier, &self.runtime, now_ms());
        }
    }

    /// Tells Alertmanager anew of what fires, when it is time. Nothing else is on its way meanwhile, so that what was newer
    /// stays the last that it hears.
    fn remind(&mut self) {
        let manner = self.courier.manner();
        let is_due = self.reminded.is_none_or(|reminded| reminded.elapsed() >= manner.resend);
        let is_busy = self.watch.is_sending() || self.home.as_ref().is_some_and(|home| home.under_way.is_some());
        if self.courier.target().kind != Kind::Alertmanager || !is_due || is_busy || self.is_reminding() {
            return;
        }
        let (now, link) = (now_ms(), manner.link.as_deref());
        // Whoever stands by tells nothing.
        if self.home.is_none() && !self.is_cut_off {
            return;
        }
        let home = self.home.as_ref().filter(|home| home.is_caught_up);
        // What was heard long ago may be over.
        let known = home.filter(|_| self.watch.is_heard(manner.heard_within(), now));
        let mut alerts = known.map_or_else(Vec::new, |home| home.firing.again(link, now));
        alerts.extend(self.watch.again(link, now));
        if home.is_some() || !alerts.is_empty() {
            self.reminded = Some(Instant::now());
        }
        if !alerts.is_empty() {
            let courier = self.courier.clone();
            self.reminder = Some(self.runtime.spawn(async move { courier.remind(alerts).await }));
        }
    }

    fn is_reminding(&self) -> bool {
        self.reminder.as_ref().is_some_and(|reminder| !reminder.is_finished())
    }

    /// Sends what is next on its way.
    fn send(&mut self) {
        if self.is_reminding() {
            return;
        }
        let Some(home) = self.home.as_mut().filter(|home| home.under_way.is_none()) else { return };
        let Some(next) = home.next(&self.courier, now_ms()) else { return };
        let courier = self.courier.clone();
        let (place, other) = next.beside.map_or((None, None), |(place, parcel)| (Some(place), Some(parcel)));
        let task = self.runtime.spawn(async move { courier.deliver(next.load, next.attempts, other).await });
        home.sent(task, next.then, place);
    }

    /// Keeps the queue short, and commits what is done.
    fn tidy(&mut self) {
        let Some(home) = &mut self.home else { return };
        match home.is_paused {
            _ if home.halt.is_some() => {}
            false if home.waiting.len() >= WAITING => {
                self.log.pause(&home.partition);
                home.is_paused = true;
            }
            true if home.waiting.len() < WAITING / 2 => {
                self.log.resume(&home.partition);
                home.is_paused = false;
            }
            _ => {}
        }
        if self.watch.owes_an_end() {
            return;
        }
        if let Some(offset) = home.due() {
            home.committed = (offset, Some(Instant::now()));
            self.log.commit(&[(home.partition.clone(), offset)]);
        }
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests;
