//! The delivery protocol of one partition, as a state machine.
//!
//! It holds no connection and reads no clock: [`Partition::next`] says what it wants done, the worker does it and brings
//! the [`Reply`]. Records come in by [`Partition::record`]; one whose schema is not known yet, and all behind it, wait in
//! the module `hold` while delivery is paused.
//!
//! ```text
//! Locating ──▶ Warming ──▶ Running ──▶ (revoked: dropped)
//!    │  the ledger's end      │  open batch fills while one is in flight
//!    └────────────┬───────────┘
//!                 ▼
//!              Stopped   a guard said no; an operator is needed
//! ```
//!
//! What keeps it exact is in the module `flight`: a block is built on the mark that was found, its token names that mark, and only
//! the mark says that it is there. So any number of these machines, asleep or awake, may work on one partition at once.

mod flight;
mod hold;
mod locate;
mod running;
mod status;
mod stop;
mod token;
mod watermark;

use std::time::Duration;

use crate::batch::Source;
use crate::meter::Meter;
use crate::plan::Plan;
use crate::ports::{Bounds, Insert, LogError, Marks, Question, Record, StoreError};
use crate::writers::{Opened, Writers};

use hold::Hold;
use locate::{Locate, Located};
use running::Running;
pub use status::Status;
pub use stop::Stop;

/// Parked records whose schemas are asked for at once.
const LOOK_AHEAD: usize = 64;

/// When a batch is sealed, and how patient its delivery is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Greatest age of an open batch: it is sealed at the next of its partition's moments, which are so far apart.
    pub seal_after: Duration,
    /// Messages at which it is sealed.
    pub seal_events: u64,
    /// Bytes at which it is sealed.
    pub seal_bytes: usize,
    /// How long an acknowledged insert may stay unseen before its token counts as burnt. At least the time after which
    /// the store gives up on an insert.
    pub insert_timeout: Duration,
    /// How long the store keeps events, from their own time on; `None`: for ever. Rows older than that are gone as soon
    /// as they are there, so nobody waits for longer than `insert_timeout` to see them.
    pub keep_events: Option<Duration>,
    /// How long after they were asked marks may still be built on. The store forgets old tokens: by then it must still have
    /// every token that was spent since.
    pub marks_last: Duration,
    /// What to do where retention ran over us.
    pub lost: Lost,
}

impl Tuning {
    /// When a batch that `source` opens at `now` is sealed at the latest.
    ///
    /// Each partition has moments of its own, [`Tuning::seal_after`] apart and the same for all processes. Were it the batch's own
    /// age, partitions that began together would seal together ever after, and the last would wait for the inserts of all.
    fn seal_by(&self, source: &Source, now: Duration) -> Duration {
        // Multiples of the golden ratio lie far from each other modulo one, however many there are.
        const GOLDEN: u32 = 0x9E37_79B9;
        let topic = source.topic.bytes().fold(0_u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let place = source.partition.cast_unsigned().wrapping_add(topic).wrapping_mul(GOLDEN);
        let apart = self.seal_after.as_nanos().max(1);
        let shift = (apart * u128::from(place)) >> u32::BITS;
        let moment = (now.as_nanos() + apart - shift) / apart * apart + shift;
        u64::try_from(moment).map_or(Duration::MAX, Duration::from_nanos)
    }
}

/// What to do where the log deleted offsets before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The ledger records them as lost, and reading goes on behind them.
    Record,
    /// The partition stops until an operator acts.
    Stop,
}

/// What a step is taken under.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// What every message is put through.
    pub plan: &'a Plan,
    /// The schemas that messages were written with, as far as they are known.
    pub writers: &'a Writers,
    /// When to seal, how long to wait.
    pub tuning: &'a Tuning,
    /// Time since 1970; it never goes back.
    pub now: Duration,
    /// Who is told what happens.
    pub meter: &'a dyn Meter,
}

/// What a partition wants done. Every one but the last three is answered by a [`Reply`].
#[derive(Debug)]
pub enum Action {
    /// Ask the store for marks.
    Ask(Question),
    /// Send an insert.
    Insert(Insert),
    /// Ask the store for the ids of raw rows with offsets in `[from, to)`.
    Ids {
        /// First offset.
        from: u64,
        /// One past the last.
        to: u64,
    },
    /// Ask the log for its bounds.
    Bounds,
    /// Ask the log whether the topic is still the one that was claimed.
    Recognise,
    /// Begin to deliver from here.
    Start(u64),
    /// Stop delivering for now.
    Pause,
    /// Deliver again.
    Resume,
    /// Tell the group how far we are.
    Commit(u64),
}

/// What came of an [`Action`].
#[derive(Debug)]
pub enum Reply {
    /// To [`Action::Ask`].
    Marks(Result<Marks, StoreError>),
    /// To [`Action::Insert`].
    Inserted(Result<(), StoreError>),
    /// To [`Action::Ids`]: offset, position of the event type, id; ascending.
    Ids(Result<Vec<(u64, usize, u128)>, StoreError>),
    /// To [`Action::Bounds`].
    Bounds(Result<Bounds, LogError>),
    /// To [`Action::Recognise`].
    Recognised(Result<(), LogError>),
    /// To [`Action::Start`].
    Started(Result<(), LogError>),
}

/// One partition that the group gave to this worker.
#[derive(Debug)]
pub struct Partition {
    source: Source,
    /// The topic's epoch that was in force when its reader began: nothing is written in a later one.
    in_force: u32,
    state: State,
    /// The end of the log as last reached.
    end: u64,
    /// How it stood when it was stopped.
    last: Option<Status>,
    hold: Hold,
    /// Whether the log was told to deliver nothing for now.
    paused: bool,
}

#[derive(Debug)]
enum State {
    /// Asking where to begin.
    Locating(Locate),
    /// Reading the ids before the ledger's end again; the batch that follows is ready and empty.
    Warming(Running),
    /// Delivering.
    Running(Running),
    /// Not without an operator; `silent` once the log was told to deliver nothing more.
    Stopped { silent: bool },
}

impl Partition {
    /// A partition that was just assigned. `in_force` is the topic's epoch that its reader has found in force: the source's
    /// own, but where letters of an earlier epoch are redriven.
    pub fn new(source: Source, in_force: u32) -> Partition {
        Partition {
            source,
            in_force,
            state: State::Locating(Locate::new()),
            end: 0,
            last: None,
            hold: Hold::default(),
            paused: false,
        }
    }

    /// Whose machine this is.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The same partition, assigned again.
    #[must_use]
    pub fn anew(&self) -> Partition {
        Partition::new(self.source.clone(), self.in_force)
    }

    /// What to do next, if anything. Call again until it answers `None`.
    pub fn next(&mut self, terms: Terms<'_>) -> Option<Action> {
        self.release(terms);
        let action = match &mut self.state {
            State::Locating(locate) => return locate.next(&self.source, terms),
            State::Stopped { silent } => return (!std::mem::replace(silent, true)).then_some(Action::Pause),
            State::Warming(_) => None,
            State::Running(running) => running.next(terms),
        };
        action.or_else(|| {
            let full = matches!(&self.state, State::Running(running) if running.is_full(terms.tuning));
            let pause = full || !self.hold.is_empty();
            (std::mem::replace(&mut self.paused, pause) != pause).then_some(if pause {
                Action::Pause
            } else {
                Action::Resume
            })
        })
    }

    /// Takes in what came of an action.
    pub fn reply(&mut self, terms: Terms<'_>, reply: Reply) {
        // Before anything is made of the marks: what may be built on them is of an epoch that is over.
        let over = match &reply {
            Reply::Marks(Ok(marks)) => Stop::by_epoch(&self.source, self.in_force, &marks.ledger).err(),
            _ => None,
        };
        let outcome = match &mut self.state {
            State::Locating(_) | State::Running(_) if let Some(over) = over => Err(over),
            State::Locating(locate) => locate.reply(&self.source, terms, reply).map(|located| {
                if let Some(Located { ready, warm }) = located {
                    self.state = if warm { State::Warming(ready) } else { State::Running(ready) };
                }
            }),
            State::Running(running) => running.reply(terms, reply),
            State::Warming(_) | State::Stopped { .. } => Ok(()),
        };
        if let Err(stop) = outcome {
            self.stop(stop);
        }
    }

    /// Takes in the next record of the log.
    pub fn record(&mut self, terms: Terms<'_>, record: &Record<'_>) {
        if !self.hold.is_empty() || !self.take(terms, record, terms.now) {
            self.hold.park(record, terms.now);
        }
    }

    /// Takes in a record that was first seen at that time; answers false, and does nothing, while its schema is unknown.
    fn take(&mut self, terms: Terms<'_>, record: &Record<'_>, seen: Duration) -> bool {
        if matches!(self.state, State::Locating(_) | State::Stopped { .. }) {
            return true; // neither is delivered anything
        }
        let Opened::Known(content) = terms.writers.open(terms.plan, record, seen) else { return false };
        if let State::Warming(running) = &mut self.state {
            if record.offset < running.done() {
                running.remember(record.offset, content);
                return true;
            }
            self.finish_warming();
        }
        if let State::Running(running) = &mut self.state
            && let Err(stop) = running.record(terms, record, content)
        {
            self.stop(stop);
        }
        true
    }

    /// Takes in what waited, as far as its schemas are known by now.
    fn release(&mut self, terms: Terms<'_>) {
        if self.hold.is_empty() {
            return;
        }
        let source = self.source.clone();
        while let Some(parked) = self.hold.pop() {
            if !self.take(terms, &parked.record(&source), parked.seen) {
                return self.hold.put_back(parked);
            }
        }
        if let Some(end) = self.hold.take_end() {
            self.end_of_log(terms, end);
        }
    }

    /// Ids of a schema registry that it waits for, or will when those before are known.
    pub fn wanted(&self, terms: Terms<'_>) -> impl Iterator<Item = u32> {
        self.hold.iter().take(LOOK_AHEAD).filter_map(move |parked| {
            match terms.writers.open(terms.plan, &parked.record(&self.source), parked.seen) {
                Opened::Unknown(id) => Some(id),
                Opened::Known(_) => None,
            }
        })
    }

    /// The log has been read to its end; the next record will be at `offset` or later.
    pub fn end_of_log(&mut self, terms: Terms<'_>, offset: u64) {
        if !self.hold.is_empty() {
            return self.hold.end(offset);
        }
        self.end = offset;
        if matches!(&self.state, State::Warming(running) if offset >= running.done()) {
            self.finish_warming();
        }
        if let State::Running(running) = &mut self.state {
            running.end_of_log(terms, offset);
        }
    }

    /// Whether it has come to the log's end and written all of it; whoever knows the log's high watermark then, open
    /// transactions included, should tell it by [`Partition::quiet`].
    pub fn is_quiet(&self) -> bool {
        self.hold.is_empty() && matches!(&self.state, State::Running(running) if running.is_quiet())
    }

    /// The log's high watermark is `high`; it was asked for at `terms.now`, or later.
    pub fn quiet(&mut self, high: u64, terms: Terms<'_>) {
        if let State::Running(running) = &mut self.state {
            running.quiet(high, terms);
        }
    }

    /// The time, in milliseconds since 1970, before which no event is expected any more, by what is written; once it is
    /// known.
    pub fn watermark(&self) -> Option<i64> {
        match &self.state {
            State::Running(running) => running.watermark(),
            State::Locating(_) | State::Warming(_) | State::Stopped { .. } => None,
        }
    }

    fn finish_warming(&mut self) {
        if let State::Warming(running) = std::mem::replace(&mut self.state, State::Stopped { silent: false }) {
            let Source { topic, partition, .. } = &self.source;
            tracing::debug!(%topic, partition, offset = running.done(), "the ids before are known: taking in events");
            self.state = State::Running(running);
        }
    }

    /// Stops this partition and no other, and says so.
    fn stop(&mut self, stop: Stop) {
        let Source { topic, partition, .. } = &self.source;
        tracing::error!(%topic, partition, offset = self.done(), "partition stopped: {stop}");
        self.last = Some(Status { bytes: 0, paused: true, stopped: Some(stop.name()), ..self.status() });
        self.state = State::Stopped { silent: false };
        self.hold = Hold::default();
    }

    /// Seals what is open as soon as nothing is in flight, whatever its age: to end, or to free memory.
    pub fn flush(&mut self) {
        if let State::Running(running) = &mut self.state {
            running.flush();
        }
    }

    /// Holds records back while memory is short.
    pub fn throttle(&mut self, on: bool) {
        if let State::Running(running) = &mut self.state {
            running.throttle(on);
        }
    }

    /// Whether it is past asking where to begin, and not stopped: it may have something to write.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running(_))
    }

    /// Whether nothing read is still to be written.
    pub fn is_idle(&self) -> bool {
        match &self.state {
            State::Running(running) => running.is_idle(),
            State::Locating(_) | State::Warming(_) | State::Stopped { .. } => true,
        }
    }

    /// Whether it holds nothing that was read: neither to be written nor waiting for a schema. So too when it stopped.
    pub fn is_empty_handed(&self) -> bool {
        self.is_stopped() || (self.is_idle() && self.hold.is_empty())
    }

    /// Whether a guard stopped it.
    pub fn is_stopped(&self) -> bool {
        matches!(self.state, State::Stopped { .. })
    }

    /// One past the last offset known to be done, once it is known.
    pub fn done(&self) -> Option<u64> {
        match &self.state {
            State::Warming(running) | State::Running(running) => Some(running.done()),
            State::Locating(_) | State::Stopped { .. } => None,
        }
    }

    /// How it stands.
    pub fn status(&self) -> Status {
        match (&self.state, &self.last) {
            (State::Warming(running) | State::Running(running), _) => {
                Status { bytes: self.bytes(), paused: self.paused, ..running.status(self.end) }
            }
            (State::Stopped { .. }, Some(last)) => last.clone(),
            (State::Locating(_) | State::Stopped { .. }, _) => Status::default(),
        }
    }

    /// Memory held, roughly.
    pub fn bytes(&self) -> usize {
        let batches = match &self.state {
            State::Running(running) => running.bytes(),
            State::Locating(_) | State::Warming(_) | State::Stopped { .. } => 0,
        };
        batches + self.hold.bytes()
    }
}

/// Waits between attempts: doubling from 50 ms to 5 s.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// When to try again after one more failure.
    pub(crate) fn after_failure(&mut self, now: Duration) -> Duration {
        let wait = Duration::from_millis(50 << self.failures.min(7)).min(Duration::from_secs(5));
        self.failures += 1;
        now + wait
    }
}

#[cfg(test)]
mod tests;
