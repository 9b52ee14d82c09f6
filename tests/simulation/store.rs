//! A client's side of ClickHouse, and for some mutations the lies that it tells its worker.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use highwater::batch::{Key, Source};
use highwater::plan::TableKind;
use highwater::ports::{Answer, Insert, Marks, Question, Rows, Store, Ticket};

use crate::mutation::Mutation;
use crate::network::Body;
use crate::plans::plans;
use crate::shared::Shared;

pub struct ModelStore {
    shared: Rc<RefCell<Shared>>,
    client: u32,
    /// Which of the two plans its worker has.
    plan: usize,
    mutation: Mutation,
    lies: Lies,
}

/// What the lies need to remember; untouched without a mutation.
#[derive(Default)]
struct Lies {
    /// What was asked under a ticket.
    asked: BTreeMap<Ticket, Vec<Question>>,
    /// Blocks whose acknowledgement will be believed, under their tickets: whose, where and how far.
    inserted: BTreeMap<Ticket, (Source, (Key, u64))>,
    /// How far inserts were acknowledged.
    believed: BTreeMap<(Source, Key), u64>,
    /// Blocks held back until their ledger row, or their rollup, has gone out.
    held: Vec<Insert>,
    /// The last answer to a question for the ledger's end alone.
    located: BTreeMap<Source, u64>,
    ready: VecDeque<(Ticket, Answer)>,
}

impl ModelStore {
    pub fn new(shared: Rc<RefCell<Shared>>, client: u32, plan: usize) -> ModelStore {
        let mutation = shared.borrow().mutation;
        ModelStore { shared, client, plan, mutation, lies: Lies::default() }
    }

    /// Answers an insert at once, whatever becomes of it.
    fn acknowledge(&mut self) -> Ticket {
        let ticket = self.shared.borrow_mut().ticket();
        self.lies.ready.push_back((ticket, Answer::Inserted(Ok(()))));
        ticket
    }

    /// Whether all rows of a block are older than the server keeps them.
    fn is_expired(&self, insert: &Insert) -> bool {
        let Rows::Block(block) = &insert.rows else { return false };
        let before = self.shared.borrow().expired_before();
        let (events, mut rows) = block.events(&plans()[self.plan].plan);
        self.is_raw(block.key()) && rows.all(|row| events.times[row] < before)
    }

    fn is_raw(&self, key: Key) -> bool {
        matches!(plans()[self.plan].plan.table(key.table).kind, TableKind::Raw(_))
    }

    /// Sends an insert, and for one mutation what was held back for it.
    fn send(&mut self, insert: Insert) -> Ticket {
        let shared = &mut *self.shared.borrow_mut();
        let ledger_of = match &insert.rows {
            Rows::Ledger(row) => Some(row.source.clone()),
            Rows::Block(_) => None,
        };
        let younger = self.mutation == Mutation::YoungerConnection;
        let connection = if younger { shared.dial(self.client) } else { insert.connection };
        let ticket = shared.send(self.client, self.plan, connection, Body::Insert(insert));
        if let Some(source) = ledger_of {
            let is_of =
                |insert: &Insert| matches!(&insert.rows, Rows::Block(block) if *block.batch().source() == source);
            let (due, held) = std::mem::take(&mut self.lies.held).into_iter().partition(is_of);
            self.lies.held = held;
            for insert in due {
                let _ = shared.send(self.client, self.plan, insert.connection, Body::Insert(insert));
            }
        }
        ticket
    }

    /// Bends an answer as the mutation wants it.
    fn bend(&mut self, ticket: Ticket, answer: &mut Answer) {
        let questions = self.lies.asked.remove(&ticket).unwrap_or_default();
        let inserted = self.lies.inserted.remove(&ticket);
        match answer {
            Answer::Marks(Ok(all)) => {
                for (question, marks) in questions.iter().zip(all) {
                    self.bend_marks(question, marks);
                }
            }
            Answer::Inserted(Ok(())) => {
                if let Some((source, (key, to))) = inserted {
                    self.lies.believed.insert((source, key), to);
                }
            }
            _ => {}
        }
    }

    fn bend_marks(&mut self, question: &Question, marks: &mut Marks) {
        let locating = question.keys.is_empty() && question.recorded;
        match self.mutation {
            Mutation::BelieveSuccess | Mutation::ExpiredAtOnce | Mutation::LedgerFirst => {
                for &key in &question.keys {
                    if let Some(&mark) = self.lies.believed.get(&(question.source.clone(), key)) {
                        let seen = marks.marks.entry(key).or_default();
                        *seen = mark.max(*seen);
                    }
                }
            }
            Mutation::LedgerNeverBack => marks.ledger.end = marks.ledger.end.map(|end| end.max(question.from)),
            Mutation::NoRecordedMarks => marks.ledger.recorded.clear(),
            Mutation::EpochIgnored => marks.ledger.epoch = None,
            Mutation::NoDoubt if locating => {
                if let Some(end) = marks.ledger.end {
                    // The second of two in a row is the first once more.
                    marks.ledger.end = Some(*self.lies.located.entry(question.source.clone()).or_insert(end));
                }
            }
            Mutation::NoDoubt => drop(self.lies.located.remove(&question.source)),
            _ => {}
        }
    }
}

impl Store for ModelStore {
    fn ask(&mut self, questions: Vec<Question>) -> Ticket {
        let ticket = {
            let shared = &mut *self.shared.borrow_mut();
            if self.mutation == Mutation::RollupFirst {
                for insert in std::mem::take(&mut self.lies.held) {
                    let _ = shared.send(self.client, self.plan, insert.connection, Body::Insert(insert));
                }
            }
            let connection = shared.dial(self.client);
            shared.send(self.client, self.plan, connection, Body::Ask { questions: questions.clone(), ends: None })
        };
        if self.mutation != Mutation::None {
            self.lies.asked.insert(ticket, questions);
        }
        ticket
    }

    fn insert(&mut self, insert: Insert) -> Ticket {
        let (source, block) = match &insert.rows {
            Rows::Ledger(row) => (row.source.clone(), None),
            Rows::Block(block) => {
                let (events, rows) = block.events(&plans()[self.plan].plan);
                (block.batch().source().clone(), Some((block.key(), events.offsets[rows.end - 1] + 1)))
            }
        };
        match (self.mutation, block) {
            (Mutation::None, _) => return self.send(insert),
            (Mutation::LedgerFirst, Some((key, to))) => {
                self.lies.believed.insert((source, key), to);
                self.lies.held.push(insert);
                return self.acknowledge();
            }
            (Mutation::RollupFirst, Some((key, _))) if self.is_raw(key) => {
                self.lies.held.push(insert);
                return self.acknowledge();
            }
            _ => {}
        }
        let believed = match self.mutation {
            Mutation::BelieveSuccess => true,
            Mutation::ExpiredAtOnce => self.is_expired(&insert),
            _ => false,
        };
        let ticket = self.send(insert);
        if let Some(block) = block.filter(|_| believed) {
            self.lies.inserted.insert(ticket, (source, block));
        }
        ticket
    }

    fn report(&mut self, mut watermarks: Vec<(Source, i64)>) -> Ticket {
        let shared = &mut *self.shared.borrow_mut();
        shared.claim(self.client, &mut watermarks);
        let connection = shared.dial(self.client);
        shared.send(self.client, self.plan, connection, Body::Report(watermarks))
    }

    fn ids(&mut self, source: &Source, from: u64, to: u64) -> Ticket {
        let shared = &mut *self.shared.borrow_mut();
        let connection = shared.dial(self.client);
        shared.send(self.client, self.plan, connection, Body::Ids(source.clone(), from, to))
    }

    fn poll(&mut self) -> Option<(Ticket, Answer)> {
        if let Some(ready) = self.lies.ready.pop_front() {
            return Some(ready);
        }
        let (ticket, mut answer) = {
            let shared = &mut *self.shared.borrow_mut();
            shared.clickhouse.network.answers.get_mut(&self.client)?.pop_front()?
        };
        if self.mutation != Mutation::None {
            self.bend(ticket, &mut answer);
        }
        Some((ticket, answer))
    }
}
