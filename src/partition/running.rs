//! A partition at work: one batch fills while the one before it is in flight.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::flight::{Flight, Known, Landing};
use super::watermark::Watermark;
use super::{Action, Reply, Status, Stop, Terms, Tuning};
use crate::batch::{Batch, Key, Progress, Reason, Source, Window};
use crate::meter::{Note, Why};
use crate::ports::{Connection, LogError, Marks, Record, StoreError};
use crate::writers::Content;

/// The state of a partition that reads and writes.
#[derive(Debug)]
pub(super) struct Running {
    source: Source,
    window: Window,
    progress: Progress,
    watermark: Watermark,
    /// The ledger's end as last seen: everything below is written.
    done: u64,
    /// How far the group was told.
    committed: u64,
    /// Greatest mark that the ledger recorded, per table and month.
    recorded: BTreeMap<Key, u64>,
    /// Where that was heard. It is forgotten with its connection, for a backup may have been restored since.
    recorded_on: Connection,
    /// Batches that begin below this offset may have kept an old duplicate.
    cut_until: u64,
    open: Batch,
    /// Greatest record timestamp of the batch sealed last that had one, milliseconds since 1970.
    latest_ms: Option<i64>,
    /// When the open batch took in its first message.
    opened_at: Duration,
    /// When it is sealed at the latest.
    seal_by: Duration,
    flight: Option<Flight>,
    /// The marks of the last answer; good to build on for as long as its connection lives.
    known: Option<Known>,
    flush: bool,
    throttled: bool,
}

impl Running {
    pub(super) fn new(
        source: Source,
        end: u64,
        (recorded, recorded_on): (BTreeMap<Key, u64>, Connection),
        window: Window,
        cut_until: u64,
    ) -> Running {
        Running {
            open: Batch::new(source.clone(), end, end < cut_until),
            source,
            latest_ms: None,
            window,
            progress: Progress::default(),
            watermark: Watermark::default(),
            done: end,
            committed: 0,
            recorded,
            recorded_on,
            cut_until,
            opened_at: Duration::ZERO,
            seal_by: Duration::ZERO,
            flight: None,
            known: None,
            flush: false,
            throttled: false,
        }
    }

    pub(super) fn done(&self) -> u64 {
        self.done
    }

    pub(super) fn bytes(&self) -> usize {
        self.open.bytes() + self.flight.as_ref().map_or(0, |flight| flight.batch().bytes())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flight.is_none() && self.open.is_empty()
    }

    /// Whether all that the log had is written.
    pub(super) fn is_quiet(&self) -> bool {
        self.is_idle() && self.watermark.end().is_some_and(|end| end >= self.open.to())
    }

    /// As [`super::Partition::quiet`].
    pub(super) fn quiet(&mut self, high: u64, terms: Terms<'_>) {
        if self.is_quiet() {
            self.watermark.quiet(high, terms);
        }
    }

    pub(super) fn watermark(&self) -> Option<i64> {
        self.watermark.reached()
    }

    pub(super) fn flush(&mut self) {
        self.flush = !self.open.is_empty();
    }

    pub(super) fn throttle(&mut self, on: bool) {
        self.throttled = on;
    }

    /// Takes the id of a record at `offset`, which is already written.
    pub(super) fn remember(&mut self, offset: u64, content: Result<Content<'_>, Reason>) {
        if let Ok(Content { event, decoder, body }) = content
            && let Ok(id) = decoder.id(body)
        {
            self.window.observe(event, id, offset);
        }
    }

    pub(super) fn record(
        &mut self,
        terms: Terms<'_>,
        record: &Record<'_>,
        content: Result<Content<'_>, Reason>,
    ) -> Result<(), Stop> {
        if record.offset < self.open.to() {
            return Ok(()); // delivered before a restart of the fetch: taken in already
        }
        self.watermark.record();
        self.begin(terms);
        self.open.push(terms.plan, record, content, &mut self.window, &mut self.progress);
        // What is redriven is a dead letter already, and no duplicate by the list: it has to become a row.
        let other = self.source.redrive.and_then(|_| {
            let letters = self.open.dead_letters(terms.plan, record.offset);
            let second = letters.into_keys().next().map(str::to_owned);
            second.or_else(|| self.open.is_duplicate(record.offset).then(|| "duplicate".to_owned()))
        });
        other.map_or(Ok(()), |reason| Err(Stop::Unreadable { offset: record.offset, reason }))
    }

    /// The log delivers nothing below `offset` any more: the ledger follows over the gap. Else retention, which takes
    /// gaps as it takes records, would seem to have taken what was never read.
    pub(super) fn end_of_log(&mut self, terms: Terms<'_>, offset: u64) {
        self.begin(terms);
        self.open.extend(offset);
        self.watermark.end_of_log(offset);
    }

    /// The open batch takes something in.
    fn begin(&mut self, terms: Terms<'_>) {
        if self.open.is_empty() {
            self.opened_at = terms.now;
            self.seal_by = terms.tuning.seal_by(&self.source, terms.now);
        }
    }

    pub(super) fn next(&mut self, terms: Terms<'_>) -> Option<Action> {
        if self.flight.is_none()
            && let Some(why) = self.due(terms)
        {
            self.seal(terms, why);
        }
        if let Some(flight) = &mut self.flight {
            let open = &self.open;
            if let Some(action) = flight.next(terms, || open.keys(terms.plan, 0)) {
                return Some(action);
            }
        }
        if self.done > self.committed {
            self.committed = self.done;
            return Some(Action::Commit(self.done));
        }
        None
    }

    /// Whether it can take no more for now.
    pub(super) fn is_full(&self, tuning: &Tuning) -> bool {
        self.throttled || (self.flight.is_some() && self.is_ripe(tuning))
    }

    fn is_ripe(&self, tuning: &Tuning) -> bool {
        self.open.events() >= tuning.seal_events || self.open.bytes() >= tuning.seal_bytes
    }

    /// Why the open batch is to be sealed now, if it is.
    fn due(&self, terms: Terms<'_>) -> Option<Why> {
        match self.open.events() {
            _ if self.open.is_empty() => None,
            events if events >= terms.tuning.seal_events => Some(Why::Events),
            _ if self.open.bytes() >= terms.tuning.seal_bytes => Some(Why::Bytes),
            _ if terms.now >= self.seal_by => Some(Why::Age),
            _ => self.flush.then_some(Why::Early),
        }
    }

    /// How the partition stands, whose log was last read to its end at `end`.
    pub(super) fn status(&self, end: u64) -> Status {
        let flying = self.flight.as_ref().and_then(|flight| flight.batch().stamps());
        let open = self.open.stamps();
        Status {
            position: Some(self.open.to().max(end)),
            done: Some(self.done),
            oldest_ms: flying.into_iter().chain(open).map(|(least, _)| least).min(),
            latest_ms: open.map(|(_, greatest)| greatest).or(self.latest_ms),
            greatest_event_ms: self.progress.greatest_ms(),
            bytes: self.bytes(),
            paused: false,
            stopped: None,
        }
    }

    fn seal(&mut self, terms: Terms<'_>, why: Why) {
        let age = terms.now.saturating_sub(self.opened_at);
        terms.meter.note(Note::Sealed { batch: &self.open, why, age });
        self.latest_ms = self.open.stamps().map(|(_, greatest)| greatest).or(self.latest_ms);
        let to = self.open.to();
        let next = Batch::new(self.source.clone(), to, to < self.cut_until);
        let batch = Arc::new(std::mem::replace(&mut self.open, next));
        self.flush = false;
        self.watermark.seal(self.progress.greatest_ms(), terms);
        self.flight = Some(Flight::new(terms.now, batch, self.done, self.known.take()));
    }

    pub(super) fn reply(&mut self, terms: Terms<'_>, reply: Reply) -> Result<(), Stop> {
        let Some(flight) = &mut self.flight else { return Ok(()) };
        match reply {
            Reply::Marks(Ok(marks)) => {
                let known = flight.answered(marks);
                let Marks { connection, ledger, .. } = &known.marks;
                if flight.asks_recorded() {
                    self.recorded.clone_from(&ledger.recorded);
                    self.recorded_on = *connection;
                }
                match flight.settle(terms, &known, &self.recorded, self.recorded_on == *connection)? {
                    Landing::Ahead => {}
                    Landing::Done { end, recorded } => {
                        self.done = end;
                        self.watermark.written();
                        self.recorded.extend(recorded.unwrap_or_default());
                        self.known = Some(known);
                        self.flight = None;
                    }
                }
            }
            Reply::Marks(Err(StoreError::Refused(error))) => {
                return Err(Stop::Refused { what: "the question for the marks".to_owned(), error });
            }
            Reply::Marks(Err(_)) => flight.ask_later(terms.now),
            Reply::Inserted(Err(StoreError::Refused(error))) => {
                return Err(Stop::Refused { what: format!("the insert {}", flight.sending()), error });
            }
            Reply::Inserted(result) => flight.inserted(result.is_ok(), terms.now),
            Reply::Recognised(Ok(())) => flight.recognised(terms, &self.recorded),
            Reply::Recognised(Err(LogError::OtherTopic(why))) => return Err(Stop::OtherTopic(why)),
            Reply::Recognised(Err(LogError::Passing(_))) => flight.recognise_later(terms.now),
            Reply::Ids(_) | Reply::Bounds(_) | Reply::Started(_) => {}
        }
        Ok(())
    }
}
