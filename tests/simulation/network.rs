//! The way to ClickHouse and back: connections, requests that arrive late, answers that are lost, clients that give up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use highwater::batch::{Key, Month, Source};
use highwater::ports::{Answer, Connection, Insert, LedgerEnd, Marks, Question, StoreError, Ticket};

use crate::clickhouse::{Place, SourceId, Told};
use crate::log::Entry;
use crate::mutation::Mutation;
use crate::plans::{self, LEDGER, plans};
use crate::shared::Shared;

/// What is under way.
#[derive(Default)]
pub struct Network {
    pub requests: Vec<Request>,
    pub answers: BTreeMap<u32, VecDeque<(Ticket, Answer)>>,
    connections: u64,
    tickets: u64,
}

/// A request on its way. Those of one connection arrive in order.
pub struct Request {
    pub client: u32,
    /// Which of the two plans its client has.
    pub plan: usize,
    pub ticket: Ticket,
    pub connection: Connection,
    boot: u64,
    /// The client no longer waits for it.
    given_up: bool,
    pub body: Body,
}

pub enum Body {
    /// Tables are read one after the other: first the ledger's ends, which may be some time before the marks.
    Ask {
        questions: Vec<Question>,
        ends: Option<Vec<Option<u64>>>,
    },
    Insert(Insert),
    /// Watermarks.
    Report(Vec<(Source, i64)>),
    /// The ids of raw rows of a source in a range of offsets.
    Ids(Source, u64, u64),
}

impl Body {
    /// The answer that it did not work.
    pub fn failed(&self, error: StoreError) -> Answer {
        match self {
            Body::Ask { .. } => Answer::Marks(Err(error)),
            Body::Insert(_) | Body::Report(_) => Answer::Inserted(Err(error)),
            Body::Ids(..) => Answer::Ids(Err(error)),
        }
    }
}

impl Shared {
    /// The client's open connection, or a new one.
    pub fn dial(&mut self, client: u32) -> Connection {
        if let Some(&(open, boot)) = self.connections.get(&client) {
            // That the server closed it, a client may see before it sends, or only then.
            if boot == self.clickhouse.boot || self.chance(128) {
                return open;
            }
            self.hang_up(client);
        }
        self.clickhouse.network.connections += 1;
        let connection = Connection(self.clickhouse.network.connections);
        self.connections.insert(client, (connection, self.clickhouse.boot));
        self.say(client, || format!("opens connection {}", connection.0));
        connection
    }

    pub fn ticket(&mut self) -> Ticket {
        self.clickhouse.network.tickets += 1;
        Ticket(self.clickhouse.network.tickets)
    }

    /// Sends a request on a connection, which has to be the client's open one.
    pub fn send(&mut self, client: u32, plan: usize, connection: Connection, body: Body) -> Ticket {
        let ticket = self.ticket();
        match self.connections.get(&client).copied().filter(|&(open, _)| open == connection) {
            Some((_, boot)) => {
                let request = Request { client, plan, ticket, connection, boot, given_up: false, body };
                self.clickhouse.network.requests.push(request);
            }
            None => {
                let gone = StoreError::Broken("that connection is gone".to_owned());
                self.answer(client, ticket, body.failed(gone));
            }
        }
        ticket
    }

    pub fn answer(&mut self, client: u32, ticket: Ticket, answer: Answer) {
        self.clickhouse.network.answers.entry(client).or_default().push_back((ticket, answer));
    }

    /// The first request of a random connection arrives.
    pub fn deliver(&mut self) {
        if std::mem::take(&mut self.clickhouse.restored_soon) && !self.calm {
            self.restore();
        }
        let requests = &mut self.clickhouse.network.requests;
        let lines: BTreeSet<Connection> = requests.iter().map(|request| request.connection).collect();
        if lines.is_empty() {
            return;
        }
        let line = lines.iter().nth(self.rng.usize(0..lines.len())).copied();
        if let Some(first) = requests.iter().position(|request| Some(request.connection) == line) {
            self.arrive(first);
        }
    }

    /// A request arrives, which has to be the first of its connection.
    pub fn arrive(&mut self, first: usize) {
        let mut request = self.clickhouse.network.requests.remove(first);
        let resent = self.mutation == Mutation::SilentReconnect && matches!(request.body, Body::Insert(_));
        if request.boot != self.clickhouse.boot && !resent {
            return self.cut(&request, "the server was killed");
        }
        match &mut request.body {
            Body::Ask { questions, ends: ends @ None } => {
                *ends = Some(questions.iter().map(|question| self.end(question, request.connection)).collect());
                // Reading goes on at once, or later.
                self.clickhouse.network.requests.insert(first, request);
                if !self.chance(40) {
                    self.read_marks(first);
                }
            }
            Body::Ask { .. } => {
                self.clickhouse.network.requests.insert(first, request);
                self.read_marks(first);
            }
            Body::Insert(insert) => {
                let insert = insert.clone();
                self.insert(&request, &insert);
            }
            Body::Report(watermarks) => {
                let watermarks = std::mem::take(watermarks);
                if self.chance(8) {
                    return self.refuse(&request, StoreError::Passing("too many parts".to_owned()));
                }
                self.store_watermarks(&watermarks);
                self.acknowledge(&request);
            }
            Body::Ids(source, from, to) => {
                self.count("ids read from raw rows");
                let mut ids = self.ids(SourceId::of(source), *from, *to);
                if self.mutation == Mutation::ForgetIds {
                    ids.clear();
                }
                self.reply(&request, Answer::Ids(Ok(ids)));
            }
        }
    }

    fn read_marks(&mut self, at: usize) {
        let request = self.clickhouse.network.requests.remove(at);
        let Body::Ask { questions, ends: Some(ends) } = &request.body else { return };
        let answers = questions.iter().zip(ends).map(|(question, &end)| self.marks(question, end, &request)).collect();
        if self.chance(2) {
            return self.refuse(&request, StoreError::Passing("too many queries".to_owned()));
        }
        self.reply(&request, Answer::Marks(Ok(answers)));
    }

    fn end(&mut self, question: &Question, connection: Connection) -> Option<u64> {
        let source = SourceId::of(&question.source);
        let added = self.clickhouse.data.tokens[LEDGER].added;
        self.clickhouse.asked.entry((connection, source)).or_default()[LEDGER] = added;
        let end = self.clickhouse.data.end(source);
        match self.mutation {
            Mutation::StartAtCommit if question.keys.is_empty() => {
                let committed = self.kafka.partitions.get(source.partition as usize).and_then(|of| of.committed);
                end.map(|end| committed.unwrap_or(end))
            }
            _ => end,
        }
    }

    fn marks(&mut self, question: &Question, end: Option<u64>, request: &Request) -> Marks {
        let source = SourceId::of(&question.source);
        let planned = &plans()[request.plan];
        let added = self.clickhouse.data.tokens.each_ref().map(|tokens| tokens.added);
        let asked = self.clickhouse.asked.entry((request.connection, source)).or_default();
        asked[..LEDGER].copy_from_slice(&added[..LEDGER]);
        self.note_return(question, end, request.client);
        // A topic made anew is to be told by its id.
        let epoch = self.faults.rewinds.then(|| self.kafka.in_force());
        let data = &self.clickhouse.data;
        let mut ledger = LedgerEnd { end, epoch, ..LedgerEnd::default() };
        if question.recorded {
            for (&(table, month), &mark) in data.ledger.get(&source).into_iter().flatten().flat_map(|line| &line.marks)
            {
                let Some(table) = planned.id(table) else { continue };
                let greatest = ledger.recorded.entry(Key { table, month: Month(month) }).or_default();
                *greatest = mark.max(*greatest);
            }
        }
        let mut marks = BTreeMap::new();
        for &key in &question.keys {
            let place = Place { source, table: planned.number(key.table), month: key.month.0 };
            let mark = match self.mutation {
                Mutation::NoMarks => None,
                Mutation::MarkPerTable => {
                    let same = data.cells.keys().filter(|other| (other.source, other.table) == (source, place.table));
                    same.filter_map(|&place| data.mark(place)).max()
                }
                _ => data.mark(place),
            };
            marks.extend(mark.map(|mark| (key, mark)));
        }
        let shown: BTreeMap<String, u64> = marks
            .iter()
            .map(|(key, &mark)| (format!("{}/{}", planned.plan.table(key.table).name, key.month), mark))
            .collect();
        let (from, id) = (question.from, question.source.partition);
        self.say(request.client, || format!("{id}: asked at {from}: the ledger ends at {end:?}, marks {shown:?}"));
        Marks { connection: request.connection, ledger, marks }
    }

    /// Counts the restores that a writer can only know of by what it was told before its batch. One whom another has
    /// overtaken has a moment in which it may be deceived, so that is when a restore often comes.
    fn note_return(&mut self, question: &Question, end: Option<u64>, client: u32) {
        let Some(end) = end else { return };
        let is_locating = question.keys.is_empty() && question.recorded;
        let (source, from, restores) = (SourceId::of(&question.source), question.from, self.clickhouse.restores);
        if is_locating {
            self.clickhouse.begun.entry((client, source)).or_insert(end);
        }
        if !is_locating && question.recorded && end > from && self.faults.restore && self.chance(128) {
            self.clickhouse.restored_soon = true;
        }
        match self.clickhouse.told.insert((client, source), Told { end, from, restores }).filter(|_| !is_locating) {
            Some(told) if from != told.from && (from..told.end).contains(&end) => {
                self.count("ledger back to within the next batch");
            }
            Some(told) if end >= told.end && restores != told.restores => self.count("ledger back and on again unseen"),
            _ => {}
        }
    }

    fn ids(&self, source: SourceId, from: u64, to: u64) -> Vec<(u64, usize, u128)> {
        let raw = |table: u8| plans::holds(table, Some(0)) || plans::holds(table, Some(1));
        let cells = self.clickhouse.data.cells.iter();
        let cells =
            cells.filter(|(place, _)| place.source == source && raw(place.table) && !plans::is_rollup(place.table));
        let mut offsets: Vec<u64> = cells.flat_map(|(_, cell)| cell.offsets.iter().copied()).collect();
        offsets.retain(|offset| (from..to).contains(offset));
        offsets.sort_unstable();
        let records = &self.kafka.partitions[source.partition as usize].records;
        let id = |offset: u64| match &records[offset as usize].entry {
            Entry::Event(event) => (offset, event.kind, event.id),
            Entry::Gap | Entry::Noise(_) | Entry::Letter(_) => panic!("offset {offset} is no event and yet a raw row"),
        };
        offsets.into_iter().map(id).collect()
    }

    /// A client stops waiting for its requests, which stay on their way.
    pub fn give_up(&mut self) {
        let requests = &self.clickhouse.network.requests;
        let waiting: Vec<u32> =
            requests.iter().filter(|request| !request.given_up).map(|request| request.client).collect();
        if waiting.is_empty() {
            return;
        }
        let client = waiting[self.rng.usize(0..waiting.len())];
        self.count("client gave up waiting");
        self.say(client, || "gives its connection up".to_owned());
        self.hang_up(client);
    }

    pub fn hang_up(&mut self, client: u32) {
        self.connections.remove(&client);
        let mut told = Vec::new();
        let requests = &mut self.clickhouse.network.requests;
        for request in requests.iter_mut().filter(|request| request.client == client && !request.given_up) {
            request.given_up = true;
            told.push((request.ticket, request.body.failed(StoreError::Broken("gave up waiting".to_owned()))));
        }
        for (ticket, answer) in told {
            self.answer(client, ticket, answer);
        }
    }

    pub fn acknowledge(&mut self, request: &Request) {
        self.reply(request, Answer::Inserted(Ok(())));
    }

    fn reply(&mut self, request: &Request, answer: Answer) {
        if self.chance(12) {
            self.count("answer lost");
            return self.cut(request, "the answer was lost");
        }
        if !request.given_up {
            self.answer(request.client, request.ticket, answer);
        }
    }

    /// The server answers with an error; the connection stays.
    pub fn refuse(&mut self, request: &Request, error: StoreError) {
        if !request.given_up {
            self.answer(request.client, request.ticket, request.body.failed(error));
        }
    }

    /// The connection breaks before there is an answer.
    pub fn cut(&mut self, request: &Request, why: &str) {
        if request.given_up {
            return;
        }
        self.say(request.client, || format!("loses its connection: {why}"));
        self.answer(request.client, request.ticket, request.body.failed(StoreError::Broken(why.to_owned())));
        self.hang_up(request.client);
    }
}
