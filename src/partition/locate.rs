//! Where a partition begins: at the ledger's end, whatever the group committed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::running::Running;
use super::token::Token;
use super::{Action, Backoff, Lost, Reply, Stop, Terms};
use crate::batch::{Key, LedgerKind, LedgerRow, Source, Window};
use crate::failpoint::{self, Point};
use crate::meter::Note;
use crate::plan::Plan;
use crate::ports::{Bounds, Connection, Insert, LedgerEnd, LogError, Question, Rows, StoreError};

/// The steps from assignment to the first record.
#[derive(Debug)]
pub(super) struct Locate {
    step: Step,
    /// The token of the source's first row.
    first: Token,
    /// The token of the row that says what the log lost, once there is something to say.
    lost: Option<Token>,
    /// The ledger's end that lay below the log's start when the log was asked: another writer may have moved it between
    /// the two answers, so it is asked once more before anything is called lost.
    doubted: Option<u64>,
    /// When the ledger was last asked.
    asked: Duration,
    /// Where the tokens were heard of. What is known of a token is forgotten with its connection.
    connection: Option<Connection>,
    backoff: Backoff,
}

#[derive(Debug)]
enum Step {
    /// Ask the ledger for its end, not before the time.
    Ledger { due: Duration },
    /// The ledger was asked; the answer leads on.
    Waiting,
    /// A row is on its way; whatever becomes of it, the ledger knows.
    Writing { row: Gap },
    /// The ledger has answered; ask the log.
    Bounds { due: Duration, connection: Connection, ledger: LedgerEnd },
    /// The log was asked; its answer is held against this.
    Comparing { connection: Connection, ledger: LedgerEnd },
    /// The ledger had no row, or the log no longer has what follows it: write a row that says so, then ask again.
    Write { due: Duration, connection: Connection, row: Gap },
    /// The log no longer has all offsets of the duplicates window: ask the raw rows for the ids.
    Ids { due: Duration, place: Place },
    /// Tell the log where to begin.
    Start { due: Duration, place: Place },
    /// Nothing to do until `reply`, which needs this.
    Pending(Place),
}

/// A row of the ledger that stands for no event.
#[derive(Debug, Clone, Copy)]
enum Gap {
    /// The source begins here.
    Start { at: u64 },
    /// The log deleted this range before it was read.
    Lost { from: u64, to: u64 },
}

/// What is known of the place to begin at.
#[derive(Debug, Clone)]
struct Place {
    /// The ledger's end: the first offset to write.
    end: u64,
    /// The first offset to read, for its id.
    read_from: u64,
    /// The first offset of the log.
    log_start: u64,
    /// What the group had committed.
    committed: Option<u64>,
    recorded: BTreeMap<Key, u64>,
    /// Where that was heard.
    connection: Connection,
    window: Window,
}

/// Ready to run; `warm`: after reading ids up to the ledger's end.
pub(super) struct Located {
    pub(super) ready: Running,
    pub(super) warm: bool,
}

impl Locate {
    pub(super) fn new() -> Locate {
        Locate {
            step: Step::Ledger { due: Duration::ZERO },
            first: Token::on(0),
            lost: None,
            doubted: None,
            asked: Duration::ZERO,
            connection: None,
            backoff: Backoff::default(),
        }
    }

    pub(super) fn next(&mut self, source: &Source, terms: Terms<'_>) -> Option<Action> {
        match &mut self.step {
            Step::Ledger { due } if *due <= terms.now => {
                self.step = Step::Waiting;
                self.asked = terms.now;
                Some(Action::Ask(Question { source: source.clone(), from: 0, keys: Vec::new(), recorded: true }))
            }
            Step::Bounds { due, connection, ledger } if *due <= terms.now => {
                self.step = Step::Comparing { connection: *connection, ledger: std::mem::take(ledger) };
                Some(Action::Bounds)
            }
            Step::Write { due, .. }
                if *due <= terms.now && terms.now.saturating_sub(self.asked) > terms.tuning.marks_last =>
            {
                self.step = Step::Ledger { due: terms.now };
                self.next(source, terms)
            }
            Step::Write { due, connection, row } if *due <= terms.now => {
                let (connection, row) = (*connection, *row);
                failpoint::reach(if matches!(row, Gap::Start { .. }) { Point::StartRow } else { Point::LostRow });
                self.step = Step::Writing { row };
                Some(Action::Insert(self.insert(source, terms.plan, connection, row)))
            }
            Step::Ids { due, place } if *due <= terms.now => {
                let action =
                    Action::Ids { from: place.end.saturating_sub(terms.plan.limits.horizon), to: place.log_start };
                self.step = Step::Pending(place.clone());
                Some(action)
            }
            Step::Start { due, place } if *due <= terms.now => {
                let action = Action::Start(place.read_from);
                self.step = Step::Pending(place.clone());
                Some(action)
            }
            _ => None,
        }
    }

    fn insert(&self, source: &Source, plan: &Plan, connection: Connection, row: Gap) -> Insert {
        let (token, kind, from, to) = match row {
            Gap::Start { at } => (format!("{source}/ledger/new{}", self.first.suffix()), LedgerKind::Start, at, at),
            Gap::Lost { from, to } => {
                let token = self.lost.unwrap_or(Token::on(from));
                (format!("{source}/ledger/{from}{}", token.suffix()), LedgerKind::Lost, from, to)
            }
        };
        let row = LedgerRow::empty(source.clone(), kind, from, to, plan.hash.clone());
        Insert { connection, token, rows: Rows::Ledger(row) }
    }

    pub(super) fn reply(&mut self, source: &Source, terms: Terms<'_>, reply: Reply) -> Result<Option<Located>, Stop> {
        let step = std::mem::replace(&mut self.step, Step::Waiting);
        self.step = match (step, reply) {
            (_, Reply::Marks(Ok(marks))) => {
                Step::Bounds { due: terms.now, connection: marks.connection, ledger: marks.ledger }
            }
            (Step::Comparing { connection, ledger }, Reply::Bounds(Ok(bounds))) => {
                self.place(source, terms, connection, ledger, bounds)?
            }
            (Step::Comparing { .. }, Reply::Bounds(Err(LogError::OtherTopic(error)))) => {
                return Err(Stop::OtherTopic(error));
            }
            (Step::Comparing { connection, ledger }, Reply::Bounds(Err(LogError::Passing(_)))) => {
                Step::Bounds { due: self.backoff.after_failure(terms.now), connection, ledger }
            }
            (Step::Pending(mut place), Reply::Ids(Ok(ids))) => {
                for (offset, kind, id) in ids {
                    place.window.observe(kind, id, offset);
                }
                Step::Start { due: terms.now, place }
            }
            (_, Reply::Ids(Err(StoreError::Refused(error)))) => {
                return Err(Stop::Refused {
                    what: "the question for the ids before the ledger's end".to_owned(),
                    error,
                });
            }
            (Step::Pending(place), Reply::Ids(Err(_))) => {
                Step::Ids { due: self.backoff.after_failure(terms.now), place }
            }
            (Step::Pending(place), Reply::Started(Ok(()))) => {
                let warm = place.read_from < place.end;
                let cut_until = if place.is_cut(terms.plan) { place.log_start + terms.plan.limits.horizon } else { 0 };
                let (topic, offset) = (&source.topic, place.end);
                let found = match place.committed {
                    None => ", as the group has no committed offset".to_owned(),
                    Some(committed) if committed < offset => {
                        format!(", which is ahead of the committed offset {committed}")
                    }
                    Some(_) => String::new(),
                };
                tracing::info!(%topic, partition = source.partition, offset, "starting at the ledger's end{found}");
                let recorded = (place.recorded, place.connection);
                let ready = Running::new(source.clone(), place.end, recorded, place.window, cut_until);
                return Ok(Some(Located { ready, warm }));
            }
            (Step::Pending(place), Reply::Started(Err(_))) => {
                Step::Start { due: self.backoff.after_failure(terms.now), place }
            }
            (Step::Writing { row }, Reply::Inserted(Ok(()))) => {
                match row {
                    Gap::Start { .. } => self.first.acknowledge(terms.now),
                    Gap::Lost { from, .. } => self.lost.get_or_insert(Token::on(from)).acknowledge(terms.now),
                }
                failpoint::reach(if matches!(row, Gap::Start { .. }) {
                    Point::StartRowSent
                } else {
                    Point::LostRowSent
                });
                Step::Ledger { due: terms.now }
            }
            (_, Reply::Marks(Err(StoreError::Refused(error)))) => {
                return Err(Stop::Refused { what: "the question for the ledger's end".to_owned(), error });
            }
            (_, Reply::Inserted(Err(StoreError::Refused(error)))) => {
                return Err(Stop::Refused { what: "a row of the ledger".to_owned(), error });
            }
            (_, Reply::Marks(Err(_)) | Reply::Inserted(Err(_))) => {
                Step::Ledger { due: self.backoff.after_failure(terms.now) }
            }
            (
                step,
                Reply::Bounds(_) | Reply::Ids(_) | Reply::Started(_) | Reply::Recognised(_) | Reply::Inserted(Ok(())),
            ) => step,
        };
        Ok(None)
    }

    /// Holds the ledger against the log.
    fn place(
        &mut self,
        source: &Source,
        terms: Terms<'_>,
        connection: Connection,
        ledger: LedgerEnd,
        bounds: Bounds,
    ) -> Result<Step, Stop> {
        if self.connection.replace(connection) != Some(connection) {
            self.first = Token::on(0);
            self.lost = self.lost.map(|_| Token::on(0));
        }
        let Some(end) = ledger.end else {
            // The one time that a committed offset is believed; and not in a later life of the topic, for the commit may
            // well be of the life before. A redrive's log is its own, and commits where its first letter is.
            let committed = bounds.committed.filter(|_| source.epoch <= 1 || source.redrive.is_some());
            let at = committed.unwrap_or(bounds.start).max(bounds.start).min(bounds.end.max(bounds.start));
            if let Some(committed) = committed.filter(|&committed| committed != at) {
                tracing::warn!(
                    topic = %source.topic, partition = source.partition, committed,
                    "the first start is at {at}: the group had committed {committed}, and the log has offsets {}..{}",
                    bounds.start, bounds.end
                );
            }
            if at > bounds.start && source.redrive.is_none() {
                tracing::warn!(
                    topic = %source.topic, partition = source.partition, offset = at,
                    "the ledger has no row of this partition, so it begins where the group had committed: offsets {}..{at} of \
                     the log are left out. If they should not be (the database was dropped, or restored from before the \
                     first row), begin with an empty database and a kafka.group that has committed nothing",
                    bounds.start
                );
            }
            let burnt = self.first.burnt();
            let unseen = self.first.missed(0, terms.tuning.insert_timeout, self.asked);
            if self.first.burnt() > burnt {
                terms.meter.note(Note::Burnt { table: "ledger" });
            }
            let due = if unseen { self.backoff.after_failure(terms.now) } else { terms.now };
            return Ok(Step::Write { due, connection, row: Gap::Start { at } });
        };
        if bounds.end < end {
            return Err(Stop::LogEndsEarlier { ledger: end, end: bounds.end });
        }
        if bounds.start > end {
            if self.doubted.replace(end) != Some(end) {
                return Ok(Step::Ledger { due: terms.now });
            }
            return self.lose(source, terms, connection, end..bounds.start);
        }
        if let Some(committed) = bounds.committed.filter(|&committed| committed > end) {
            tracing::warn!(
                topic = %source.topic, partition = source.partition, offset = end, committed,
                "the committed offset is ahead of the ledger; the ledger decides: reading from {end}. To \
                 leave events out on purpose, delete them from the topic (kafka-delete-records); to read some again, `highwater rewind`"
            );
        }
        // Of a redrive the list says which letters are duplicates: what is written of it needn't be there to be read again.
        let horizon = if source.redrive.is_some() { 0 } else { terms.plan.limits.horizon };
        let read_from = end.saturating_sub(horizon).max(bounds.start);
        let window = Window::new(terms.plan.limits.horizon);
        let place = Place {
            end,
            read_from,
            log_start: bounds.start,
            committed: bounds.committed,
            recorded: ledger.recorded,
            connection,
            window,
        };
        Ok(if place.is_cut(terms.plan) {
            Step::Ids { due: terms.now, place }
        } else {
            Step::Start { due: terms.now, place }
        })
    }
}

impl Locate {
    /// The log deleted offsets before they were read: says so in the ledger, or stops, as the settings have it.
    fn lose(
        &mut self,
        source: &Source,
        terms: Terms<'_>,
        connection: Connection,
        lost: Range<u64>,
    ) -> Result<Step, Stop> {
        if terms.tuning.lost == Lost::Stop {
            return Err(Stop::LogStartsLater { ledger: lost.start, start: lost.end });
        }
        let mut token = self.lost.unwrap_or_else(|| {
            tracing::error!(
                topic = %source.topic, partition = source.partition, offset = lost.start,
                "offsets {}..{} were deleted from the log before they were read: those events are gone. The ledger records \
                 them as lost and reading goes on at {}; raise the topic's retention",
                lost.start, lost.end, lost.end
            );
            terms.meter.note(Note::Lost { source, offsets: lost.end - lost.start });
            Token::on(lost.start)
        });
        let unseen = token.missed(lost.start, terms.tuning.insert_timeout, self.asked);
        self.lost = Some(token);
        let due = if unseen { self.backoff.after_failure(terms.now) } else { terms.now };
        Ok(Step::Write { due, connection, row: Gap::Lost { from: lost.start, to: lost.end } })
    }
}

impl Place {
    /// Whether the log begins inside the duplicates window before the ledger's end.
    fn is_cut(&self, plan: &Plan) -> bool {
        self.log_start > self.end.saturating_sub(plan.limits.horizon)
    }
}
