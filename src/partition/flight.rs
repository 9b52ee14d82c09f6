//! One batch on its way into ClickHouse: a compare-and-set on the mark of every table and month that it writes to.
//!
//! ```text
//!    Recognise   is the topic still the one that was claimed?
//!        │
//!        │┌─────────────── something missing ◀────────────┐
//!        ▼▼                                               │
//!       Ask ──marks──▶ settle ──blocks not there──▶ Send ─┤ all sent, or one failed
//!                        │      all there: the ledger row │
//!                        ▼                                │
//!                the ledger has it: done
//! ```
//!
//! - Nothing of a batch goes out before the log, asked after the batch was sealed, has said that the topic is the one that
//!   was claimed. A topic that was deleted and made anew is read on at the old position, if it is long enough already, and
//!   no record tells.
//! - A block is built from the rows at or above its mark, and its token names that mark: of two writers who found the
//!   same mark, one lands.
//! - It goes out on the connection that the mark was asked on. A server killed in between breaks that connection.
//! - An acknowledgement proves nothing; the mark is asked again and decides.
//! - Raw rows go out before the rollups computed from them, one insert after the other: what a writer that died leaves behind
//!   is rows that are not counted yet. The other way round is left only where a raw block's token was spent and its part
//!   is not there (a server killed between the two, and with it the writer).
//! - Rows past their table's retention vanish as they land; an insert time-out after they were acknowledged they are not
//!   waited for any more.
//! - A token that was acknowledged but has no part (killed between the two) is burnt: after the insert time-out the same
//!   rows go out under `/1`, `/2` …, the same sequence for every writer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::token::{Suffix, Token};
use super::{Action, Backoff, Stop, Terms};
use crate::batch::{Batch, Block, Key};
use crate::failpoint::{self, Point};
use crate::meter::Note;
use crate::plan::{Plan, TableKind};
use crate::ports::{Connection, Insert, Marks, Question, Rows};

/// A sealed batch until the ledger has its range.
#[derive(Debug)]
pub(super) struct Flight {
    batch: Arc<Batch>,
    /// Where the ledger ended at the last answer: it never goes back.
    end: u64,
    step: Step,
    /// Tokens in use, by what they are for; `None` is the ledger's.
    tokens: BTreeMap<Option<Key>, Token>,
    /// Where those were heard of. What is known of a token is forgotten with its connection: a server that was restored
    /// from a backup in between may not know the token any more.
    connection: Option<Connection>,
    /// Whether the ledger's recorded marks are asked too: another writer has moved the ledger, or those that are known
    /// were heard on another connection.
    recorded: bool,
    /// Where our ledger row begins and the marks that it recorded, once it was sent.
    row_marks: Option<(u64, BTreeMap<Key, u64>)>,
    sealed_at: Duration,
    backoff: Backoff,
}

#[derive(Debug)]
enum Step {
    /// Have the topic recognised, not before the time. What is known of the marks is kept for afterwards.
    Recognise { due: Duration, known: Option<Known> },
    /// That was asked.
    Recognising { known: Option<Known> },
    /// Ask for the marks, not before the time.
    Ask { due: Duration },
    /// Asked for the marks of these keys, at that time.
    Asking { keys: BTreeSet<Key>, asked: Duration },
    /// Send these, last first, not before the time; the marks that they are built on were `asked` then.
    Send { due: Duration, outbox: Vec<Insert>, asked: Duration },
    /// The insert under `token` is out, these follow.
    Sending { token: String, outbox: Vec<Insert>, target: Option<Key>, asked: Duration },
}

/// Marks and the keys that they were asked for.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) marks: Marks,
    keys: BTreeSet<Key>,
    /// When they were asked: what was not there by then may have come since.
    asked: Duration,
}

/// What an answer means for the flight.
pub(super) enum Landing {
    /// There is more to do.
    Ahead,
    /// The ledger ends at `end`, at or past the batch. `recorded`: the marks in the row, where it was ours.
    Done { end: u64, recorded: Option<BTreeMap<Key, u64>> },
}

impl Flight {
    /// Sends a batch that was sealed `now` on its way, on marks that are known already if they cover it. `end` is where the
    /// ledger was seen to end, which is past the batch's beginning where another writer was ahead.
    pub(super) fn new(now: Duration, batch: Arc<Batch>, end: u64, known: Option<Known>) -> Flight {
        failpoint::reach(Point::Sealed);
        Flight {
            end,
            batch,
            step: Step::Recognise { due: now, known },
            tokens: BTreeMap::new(),
            connection: None,
            recorded: false,
            row_marks: None,
            sealed_at: now,
            backoff: Backoff::default(),
        }
    }

    /// The topic is the one that was claimed, and so all of the batch is of it.
    pub(super) fn recognised(&mut self, terms: Terms<'_>, recorded: &BTreeMap<Key, u64>) {
        let Step::Recognising { known } = &mut self.step else { return };
        failpoint::reach(Point::Recognised);
        let known = known.take().filter(|known| known.marks.ledger.end == Some(self.batch.from()));
        self.backoff = Backoff::default();
        match known {
            Some(known) => self.build(terms, &known, recorded, self.batch.from()),
            None => self.step = Step::Ask { due: terms.now },
        }
    }

    /// Nobody could say whether it is. By the time that somebody does, others may have written so much that the tokens on
    /// the marks of now are forgotten: they are asked anew then.
    pub(super) fn recognise_later(&mut self, now: Duration) {
        let due = self.backoff.after_failure(now);
        if matches!(self.step, Step::Recognising { .. }) {
            self.step = Step::Recognise { due, known: None };
        }
    }

    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    /// The token of the insert that is out.
    pub(super) fn sending(&self) -> &str {
        match &self.step {
            Step::Sending { token, .. } => token,
            _ => "",
        }
    }

    /// What to do next; nothing goes out on marks that are too old. `open` gives the keys of the batch that follows, so that its
    /// marks come with the same answer.
    pub(super) fn next(&mut self, terms: Terms<'_>, open: impl FnOnce() -> BTreeMap<Key, u64>) -> Option<Action> {
        match &mut self.step {
            Step::Recognise { due, known } if *due <= terms.now => {
                self.step = Step::Recognising { known: known.take() };
                Some(Action::Recognise)
            }
            Step::Ask { due } if *due <= terms.now => {
                let own = self.batch.keys(terms.plan, self.batch.from());
                let keys: BTreeSet<Key> = own.into_keys().chain(open().into_keys()).collect();
                let question = Question {
                    source: self.batch.source().clone(),
                    from: self.batch.from(),
                    keys: keys.iter().copied().collect(),
                    recorded: self.recorded,
                };
                self.step = Step::Asking { keys, asked: terms.now };
                Some(Action::Ask(question))
            }
            Step::Send { due, outbox, asked } if *due <= terms.now => {
                let (outbox, asked) = (std::mem::take(outbox), *asked);
                if terms.now.saturating_sub(asked) > terms.tuning.marks_last {
                    // Asleep meanwhile: the tokens on those marks may be spent and forgotten.
                    self.step = Step::Ask { due: terms.now };
                    return self.next(terms, open);
                }
                self.send(outbox, asked, terms.now)
            }
            _ => None,
        }
    }

    fn send(&mut self, mut outbox: Vec<Insert>, asked: Duration, now: Duration) -> Option<Action> {
        let Some(insert) = outbox.pop() else {
            self.step = Step::Ask { due: now };
            return None;
        };
        let target = match &insert.rows {
            Rows::Block(block) => Some(block.key()),
            Rows::Ledger(_) => None,
        };
        self.step = Step::Sending { token: insert.token.clone(), outbox, target, asked };
        Some(Action::Insert(insert))
    }

    /// Asks again after a while: the last question had no answer.
    pub(super) fn ask_later(&mut self, now: Duration) {
        self.step = Step::Ask { due: self.backoff.after_failure(now) };
    }

    /// An insert was answered. What became of it, the mark will say.
    pub(super) fn inserted(&mut self, acknowledged: bool, now: Duration) {
        let Step::Sending { outbox, target, asked, .. } = &mut self.step else { return };
        if !acknowledged {
            return self.ask_later(now);
        }
        if let Some(token) = self.tokens.get_mut(target) {
            token.acknowledge(now);
        }
        failpoint::reach(match (target, outbox.is_empty()) {
            (None, _) => Point::LedgerRowSent,
            (Some(_), true) => Point::BlocksSent,
            (Some(_), false) => Point::BetweenBlocks,
        });
        let (outbox, asked) = (std::mem::take(outbox), *asked);
        self.step = if outbox.is_empty() { Step::Ask { due: now } } else { Step::Send { due: now, outbox, asked } };
    }

    /// Whether answers have the marks that the ledger recorded, all of them.
    pub(super) fn asks_recorded(&self) -> bool {
        self.recorded
    }

    /// Puts an answer together with the question that it belongs to.
    pub(super) fn answered(&mut self, marks: Marks) -> Known {
        let (keys, asked) = match &mut self.step {
            Step::Asking { keys, asked } => (std::mem::take(keys), *asked),
            _ => (BTreeSet::new(), Duration::ZERO),
        };
        Known { marks, keys, asked }
    }

    /// Decides what the marks mean. `current`: what the ledger `recorded` was heard on their connection.
    pub(super) fn settle(
        &mut self,
        terms: Terms<'_>,
        known: &Known,
        recorded: &BTreeMap<Key, u64>,
        current: bool,
    ) -> Result<Landing, Stop> {
        let from = self.batch.from();
        let end = known.marks.ledger.end;
        let before = self.end;
        let Some(end) = end.filter(|&end| end >= before) else { return Err(Stop::LedgerWentBack { end, before }) };
        self.end = end;
        let ours = self.row_marks.is_some() && end == self.batch.to();
        if ((end != from && !ours) || !current) && !self.recorded {
            // Another writer wrote ledger rows that we have not read the marks of; or the server was away, and restored
            // from a backup for all we know: the ledger may have come to the same place again with other marks.
            self.recorded = true;
            self.step = Step::Ask { due: terms.now };
            return Ok(Landing::Ahead);
        }
        if end >= self.batch.to() {
            let recorded = self.row_marks.take().filter(|_| ours).map(|(at, marks)| {
                let row = self.batch.ledger_row(terms.plan, at, BTreeMap::new());
                let took = terms.now.saturating_sub(self.sealed_at);
                terms.meter.note(Note::Written { batch: &self.batch, row: &row, took, now: terms.now });
                marks
            });
            return Ok(Landing::Done { end, recorded });
        }
        self.build(terms, known, recorded, end);
        Ok(Landing::Ahead)
    }

    /// Builds what is missing on the marks found; where nothing is, the ledger row.
    fn build(&mut self, terms: Terms<'_>, known: &Known, recorded: &BTreeMap<Key, u64>, at: u64) {
        let keys = self.batch.keys(terms.plan, at);
        if !keys.keys().all(|key| known.keys.contains(key)) {
            self.step = Step::Ask { due: terms.now };
            return;
        }
        let connection = known.marks.connection;
        if self.connection.replace(connection) != Some(connection) {
            self.tokens.clear();
        }
        let mut seen = BTreeMap::new();
        let mut outbox = Vec::new();
        let mut unseen = false;
        // Sent last first, so that rollups, which stand behind raw tables in a plan, come after their rows.
        for (key, last) in keys.into_iter().rev() {
            // Also what is found below the ledger's end counts, which the ledger need not have recorded: of a range that was
            // lost somebody may have written the beginning, and a worker with an older plan does not know the table. Who
            // asked before the ledger came there builds on the same.
            let of = |marks: &BTreeMap<Key, u64>| marks.get(&key).copied().unwrap_or(0);
            let mark = of(&known.marks.marks).max(of(recorded));
            if mark > last {
                seen.insert(key, mark);
                continue;
            }
            if self.is_expired(terms, key, at.max(mark), mark, known.asked) {
                seen.insert(key, last + 1);
                continue;
            }
            let (suffix, again) = self.token(terms, Some(key), mark, known.asked);
            unseen |= again;
            let table = &terms.plan.table(key.table).name;
            outbox.push(Insert {
                connection,
                token: format!("{}/{table}/{}/{mark}{suffix}", self.batch.source(), key.month),
                rows: Rows::Block(Block::new(Arc::clone(&self.batch), key, at.max(mark))),
            });
        }
        failpoint::reach(if outbox.is_empty() { Point::BlocksSeen } else { Point::MarksKnown });
        if outbox.is_empty() {
            let (suffix, again) = self.token(terms, None, at, known.asked);
            unseen |= again;
            self.row_marks = Some((at, seen.clone()));
            outbox.push(self.ledger_insert(terms.plan, connection, at, &suffix, seen));
        }
        let due = if unseen { self.backoff.after_failure(terms.now) } else { terms.now };
        self.step = Step::Send { due, outbox, asked: known.asked };
    }

    /// Whether what is missing was inserted, and is older than its table keeps rows: gone as soon as it was there.
    ///
    /// That the insert was acknowledged is asked for so that the token on this mark is spent for every writer. And the
    /// question, at `asked`, has to come an insert time-out after that: the token may have dropped our insert while the part
    /// it was spent on, of another writer and of more rows, was still to come. Those rows would be written a second time
    /// by a batch that is built behind this one.
    fn is_expired(&self, terms: Terms<'_>, key: Key, at: u64, mark: u64, asked: Duration) -> bool {
        let keep = match terms.plan.table(key.table).kind {
            TableKind::Raw(_) => terms.tuning.keep_events,
            // Dead letters are kept from when they were written, markers of a rollup for ever.
            TableKind::DeadLetters | TableKind::Rollup(_) => None,
        };
        let Some(horizon) = keep.and_then(|keep| terms.now.checked_sub(keep)) else { return false };
        let timeout = terms.tuning.insert_timeout;
        let decided = self.tokens.get(&Some(key)).is_some_and(|token| token.is_decided(mark, timeout, asked));
        decided && self.batch.is_older(key, at, i64::try_from(horizon.as_micros()).unwrap_or(i64::MAX))
    }

    fn ledger_insert(
        &self,
        plan: &Plan,
        connection: Connection,
        at: u64,
        suffix: &Suffix,
        marks: BTreeMap<Key, u64>,
    ) -> Insert {
        Insert {
            connection,
            token: format!("{}/ledger/{at}{suffix}", self.batch.source()),
            rows: Rows::Ledger(self.batch.ledger_row(plan, at, marks)),
        }
    }

    /// The token on `base`, and whether an insert under it was acknowledged and yet was not seen by a question asked at
    /// `asked`.
    fn token(&mut self, terms: Terms<'_>, target: Option<Key>, base: u64, asked: Duration) -> (Suffix, bool) {
        let token = self.tokens.entry(target).or_insert(Token::on(base));
        let burnt = token.burnt();
        let unseen = token.missed(base, terms.tuning.insert_timeout, asked);
        if token.burnt() > burnt {
            let table = target.map_or("ledger", |key| &terms.plan.table(key.table).name);
            terms.meter.note(Note::Burnt { table });
            let source = self.batch.source();
            tracing::warn!(
                topic = %source.topic, partition = source.partition, offset = base,
                "ClickHouse acknowledged an insert into {table} on the mark {base} and yet does not have it: the same rows go \
                 out under another token. Once after its crash this is right; again and again, it drops what it is given"
            );
        }
        (token.suffix(), unseen)
    }
}
