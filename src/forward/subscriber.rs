//! One target's place in the topic: a member of a consumer group that commits what was taken.
//!
//! The topic is compacted and read from its begin: what is before the committed offset was handed on, and says what fires.
//! A target that comes for the first time is told what fires then, and nothing of what is over.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::courier::{Courier, Outcome};
use super::firing::Firing;
use super::{Kind, Manner, Target};
use crate::alert::{Framing, Message, Record};
use crate::kafka::KafkaLog;
use crate::kafka::settings::{ConsumerSettings, SettingsError};
use crate::ports::{Bounds, Log, LogEvent, TopicPartition};

/// How long a look at the log waits while nothing is on its way.
const IDLE: Duration = Duration::from_millis(100);
/// The same while a message is: at first as long as a target near by takes, later as one that is away.
const BUSY: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(20)];
/// How long «at first» is.
const SOON: Duration = Duration::from_millis(200);
/// Messages that wait; beyond, the log is not read on.
const WAITING: usize = 1_000;
/// How often an offset is committed: commits that wait in line keep the group's heartbeats waiting.
const COMMIT: Duration = Duration::from_millis(250);
/// The same where nothing but heartbeats of the evaluator came.
const IDLE_COMMIT: Duration = Duration::from_secs(5);
/// Before Kafka is asked again where the log begins and ends.
const AGAIN: Duration = Duration::from_secs(1);
/// How long what is on its way is waited for at the end.
const LAST: Duration = Duration::from_secs(2);

/// See the module.
pub struct Subscriber {
    courier: Courier,
    framing: Framing,
    runtime: Handle,
    log: KafkaLog,
    /// The partition, once the group gave it to us.
    home: Option<Reading>,
}

/// What came of the log.
enum News {
    Assigned(TopicPartition),
    Revoked,
    Record(u64, Option<Box<Message>>),
    Until(u64),
    OutOfRange,
}

/// Reading the partition.
struct Reading {
    partition: TopicPartition,
    /// Where what is not handed on begins; `None`: it is still to be asked.
    from: Option<Begin>,
    asked: Option<Instant>,
    firing: Firing,
    /// All before is known.
    seen: u64,
    is_caught_up: bool,
    waiting: VecDeque<Waiting>,
    /// What is on its way.
    under_way: Option<UnderWay>,
    /// Alertmanager is being told anew, or was.
    reminder: Option<JoinHandle<()>>,
    reminded: Option<Instant>,
    /// All before was taken.
    done: u64,
    committed: (u64, Option<Instant>),
    is_paused: bool,
}

/// From which offset on messages are handed on, and whether it is the first time.
struct Begin {
    offset: u64,
    is_first: bool,
}

/// A message on its way.
struct UnderWay {
    task: JoinHandle<Outcome>,
    then: Option<u64>,
    since: Instant,
}

struct Waiting {
    message: Message,
    /// What is to be committed once it was taken.
    then: Option<u64>,
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
        framing: Framing,
        runtime: Handle,
    ) -> Result<Subscriber, SettingsError> {
        let group = target.group(&consumer.group);
        let log = KafkaLog::new(&ConsumerSettings { group, ..consumer.clone() })?;
        Ok(Subscriber { courier: Courier::new(target, manner), framing, runtime, log, home: None })
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
        while self.home.as_ref().is_some_and(|home| home.under_way.is_some()) && begun.elapsed() < LAST {
            std::thread::sleep(BUSY[1]);
            self.arrived();
        }
        if let Some(home) = self.home.as_ref().filter(|home| home.done > home.committed.0) {
            self.log.commit(&[(home.partition.clone(), home.done)]);
        }
        self.log.close();
        Ok(())
    }

    fn step(&mut self) {
        let under_way = self.home.as_ref().and_then(|home| home.under_way.as_ref());
        let wait = under_way.map_or(IDLE, |under_way| BUSY[usize::from(under_way.since.elapsed() > SOON)]);
        let mut news = Vec::new();
        let framing = &self.framing;
        self.log.poll(wait, &mut |event| news.extend(understood(event, framing)));
        for news in news {
            self.take(news);
        }
        self.begin();
        self.arrived();
        self.send();
        self.remind();
        self.tidy();
    }

    fn take(&mut self, news: News) {
        match (news, &mut self.home) {
            (News::Assigned(partition), _) => self.home = Some(Reading::new(partition)),
            (News::Revoked, home) => *home = None,
            (News::OutOfRange, Some(home)) => *home = Reading::new(home.partition.clone()),
            (News::Record(offset, message), Some(home)) => {
                // Where the log ends, markers of transactions may stand before what is new.
                if home.from.as_ref().is_some_and(|from| offset >= from.offset) {
                    home.caught_up();
                }
                home.seen = offset + 1;
                let Some(message) = message else { return };
                if home.is_caught_up {
                    home.waiting.push_back(Waiting { message: *message, then: Some(offset + 1) });
                } else {
                    home.firing.learn(&message);
                }
            }
            (News::Until(offset), Some(home)) => {
                home.seen = home.seen.max(offset);
                if home.from.as_ref().is_some_and(|from| offset >= from.offset) {
                    home.caught_up();
                }
            }
            (News::OutOfRange | News::Record(..) | News::Until(_), None) => {}
        }
    }

    /// Asks where to begin, and begins.
    fn begin(&mut self) {
        let Some(home) = self.home.as_mut().filter(|home| home.from.is_none()) else { return };
        if home.asked.is_some_and(|asked| asked.elapsed() < AGAIN) {
            return;
        }
        home.asked = Some(Instant::now());
        let found = self.log.bounds(std::slice::from_ref(&home.partition)).pop();
        let begun =
            found.map(|found| found.and_then(|bounds| Ok((bounds, self.log.start(&home.partition, bounds.start)?))));
        match begun {
            Some(Ok((bounds, ()))) => home.begun(bounds),
            Some(Err(error)) => tracing::debug!("alerts are not read yet: {error}"),
            None => {}
        }
    }

    /// Looks whether what is on its way has arrived, and commits it.
    fn arrived(&mut self) {
        let Some(home) = &mut self.home else { return };
        let Some(UnderWay { task, then, .. }) = home.under_way.take_if(|under_way| under_way.task.is_finished()) else {
            return;
        };
        match self.runtime.block_on(task) {
            // What was left out is said, and does not come again either.
            Ok(Outcome::Taken | Outcome::LeftOut(_)) => home.done = then.unwrap_or(home.done),
            Err(error) => {
                tracing::error!(
                    "handing on an alert panicked: {error}; this is a fault in highwater. It is tried again"
                );
                *home = Reading::new(home.partition.clone());
            }
        }
    }

    /// Sends the next one on its way.
    fn send(&mut self) {
        let Some(home) = self.home.as_mut().filter(|home| home.under_way.is_none()) else { return };
        let Some(Waiting { message, then }) = home.waiting.pop_front() else { return };
        let alerts = home.firing.take(&message, self.courier.manner().link.as_deref(), now_ms());
        let (courier, parcel) = (self.courier.clone(), self.courier.parcel(&message, &alerts));
        let task = self.runtime.spawn(async move { courier.deliver(parcel).await });
        home.under_way = Some(UnderWay { task, then, since: Instant::now() });
    }

    /// Tells Alertmanager anew of what fires, when it is time.
    fn remind(&mut self) {
        let manner = self.courier.manner();
        let Some(home) = self.home.as_mut().filter(|home| home.is_caught_up) else { return };
        let is_due = home.reminded.is_none_or(|reminded| reminded.elapsed() >= manner.resend);
        let is_idle = home.reminder.as_ref().is_none_or(JoinHandle::is_finished);
        if self.courier.target().kind != Kind::Alertmanager || !is_due || !is_idle {
            return;
        }
        home.reminded = Some(Instant::now());
        let alerts = home.firing.again(manner.link.as_deref(), now_ms());
        let courier = self.courier.clone();
        home.reminder = Some(self.runtime.spawn(async move { courier.remind(alerts).await }));
    }

    /// Keeps the queue short, and commits what is done.
    fn tidy(&mut self) {
        let Some(home) = &mut self.home else { return };
        match home.is_paused {
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
        if let Some(offset) = home.due() {
            home.committed = (offset, Some(Instant::now()));
            self.log.commit(&[(home.partition.clone(), offset)]);
        }
    }
}

impl Reading {
    fn new(partition: TopicPartition) -> Reading {
        Reading {
            partition,
            from: None,
            asked: None,
            firing: Firing::default(),
            seen: 0,
            is_caught_up: false,
            waiting: VecDeque::new(),
            under_way: None,
            reminder: None,
            reminded: None,
            done: 0,
            committed: (0, None),
            is_paused: false,
        }
    }

    fn begun(&mut self, bounds: Bounds) {
        let Bounds { end, committed, .. } = bounds;
        if committed.is_some_and(|committed| committed > end) {
            tracing::warn!(
                "the topic {} ends before what was handed on of it, so it was made anew; what fires is told again",
                self.partition.topic
            );
        }
        let known = committed.filter(|committed| *committed <= end);
        self.from = Some(Begin { offset: known.unwrap_or(end), is_first: known.is_none() });
        self.committed.0 = known.unwrap_or(0);
        self.done = self.committed.0;
    }

    /// What is to be committed now, if anything is.
    fn due(&mut self) -> Option<u64> {
        let (committed, at) = self.committed;
        let pace = if self.done > committed { COMMIT } else { IDLE_COMMIT };
        if self.is_caught_up && self.waiting.is_empty() && self.under_way.is_none() {
            self.done = self.done.max(self.seen);
        }
        let is_time = at.is_none_or(|at| at.elapsed() >= pace);
        (self.done > committed && is_time).then_some(self.done)
    }

    /// All that was handed on before is known: what comes is to be handed on. The first time that is what fires.
    fn caught_up(&mut self) {
        if std::mem::replace(&mut self.is_caught_up, true) {
            return;
        }
        let Some(Begin { offset, is_first: true }) = self.from else { return };
        let firing = self.firing.messages();
        let last = firing.len();
        let waiting = firing.into_iter().enumerate();
        self.waiting.extend(waiting.map(|(at, message)| Waiting { message, then: (at + 1 == last).then_some(offset) }));
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Somebody else hands on now, or we do from the begin.
        if let Some(UnderWay { task, .. }) = &self.under_way {
            task.abort();
        }
        if let Some(task) = &self.reminder {
            task.abort();
        }
    }
}

fn understood(event: LogEvent<'_>, framing: &Framing) -> Option<News> {
    let first = |partitions: Vec<TopicPartition>| partitions.into_iter().find(|name| name.partition == 0);
    match event {
        // Alerts stand in the first partition, in the order in which they hold.
        LogEvent::Assigned(partitions) => first(partitions).map(News::Assigned),
        LogEvent::Revoked(partitions) => first(partitions).map(|_| News::Revoked),
        LogEvent::OutOfRange(partition) => first(vec![partition]).map(|_| News::OutOfRange),
        LogEvent::End(partition, offset) => first(vec![partition]).map(|_| News::Until(offset)),
        LogEvent::Record(record) if record.partition != 0 => None,
        LogEvent::Record(record) => {
            let message = match record.payload.map(|payload| framing.decode(payload)) {
                Some(Ok(Record::Alert(message))) => Some(message),
                Some(Err(error)) => {
                    tracing::error!(
                        "a record of the topic of alerts can't be read and is not handed on: {}/{} offset {}: {error}",
                        record.topic,
                        record.partition,
                        record.offset
                    );
                    None
                }
                Some(Ok(_)) | None => None,
            };
            Some(News::Record(record.offset, message))
        }
    }
}

fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
