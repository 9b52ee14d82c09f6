//! The model of ClickHouse: parts and tokens as two steps, a server that is killed between them, answers that get lost,
//! inserts that land after their client gave up.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use highwater::batch::{Block, Key, LedgerKind, LedgerRow, Source};
use highwater::columns::{Column, Values};
use highwater::plan::{Plan, TableKind};
use highwater::ports::{Answer, Connection, Insert, LedgerEnd, Marks, Question, Rows, Store, StoreError, Ticket};

use crate::truth::{Entry, Series};
use crate::world::{Mutation, Shared};

/// One source's rows in one month of one table.
#[derive(Debug, Default, Clone)]
pub struct Cell {
    pub offsets: Vec<u64>,
    pub series: Series,
    pub mark: u64,
}

/// The server.
#[derive(Default)]
pub struct ClickHouse {
    /// Counts starts; a connection belongs to one.
    pub boot: u64,
    pub cells: BTreeMap<(String, Key), Cell>,
    pub ledger: BTreeMap<String, Vec<LedgerRow>>,
    tokens: BTreeSet<String>,
    pub net: Vec<Request>,
    answers: BTreeMap<u32, VecDeque<(Ticket, Answer)>>,
    connections: u64,
    tickets: u64,
    /// For a mutation: what clients were told was inserted.
    believed: BTreeMap<(String, Option<Key>), u64>,
}

/// A request on its way.
pub struct Request {
    pub client: u32,
    ticket: Ticket,
    connection: Connection,
    boot: u64,
    /// The client no longer waits for it.
    pub given_up: bool,
    body: Body,
}

enum Body {
    Ask(Vec<Question>),
    Insert(Insert),
    /// The ids of raw rows of a source in a range of offsets.
    Ids(Source, u64, u64),
}

impl Body {
    /// The answer that it did not work.
    fn failed(&self, error: StoreError) -> Answer {
        match self {
            Body::Ask(_) => Answer::Marks(Err(error)),
            Body::Insert(_) => Answer::Inserted(Err(error)),
            Body::Ids(..) => Answer::Ids(Err(error)),
        }
    }
}

/// A client's side: one connection at a time.
pub struct ModelStore {
    shared: Rc<RefCell<Shared>>,
    client: u32,
}

impl ModelStore {
    pub fn new(shared: Rc<RefCell<Shared>>, client: u32) -> ModelStore {
        ModelStore { shared, client }
    }

    fn send(&mut self, connection: Option<Connection>, body: Body) -> Ticket {
        let shared = &mut *self.shared.borrow_mut();
        let server = &mut shared.clickhouse;
        server.tickets += 1;
        let ticket = Ticket(server.tickets);
        let open = shared.connections.get(&self.client).copied();
        let (connection, boot) = match (connection, open) {
            (Some(wanted), Some((open, boot))) if wanted == open => (open, boot),
            (Some(_), _) => {
                let gone = StoreError::Broken("that connection is gone".to_owned());
                server.answer(self.client, ticket, Answer::Inserted(Err(gone)));
                return ticket;
            }
            (None, Some(open)) => open,
            (None, None) => {
                server.connections += 1;
                let opened = (Connection(server.connections), server.boot);
                shared.connections.insert(self.client, opened);
                opened
            }
        };
        server.net.push(Request { client: self.client, ticket, connection, boot, given_up: false, body });
        ticket
    }
}

impl Store for ModelStore {
    fn ask(&mut self, questions: Vec<Question>) -> Ticket {
        self.send(None, Body::Ask(questions))
    }

    fn insert(&mut self, insert: Insert) -> Ticket {
        self.send(Some(insert.connection), Body::Insert(insert))
    }

    fn ids(&mut self, source: &Source, from: u64, to: u64) -> Ticket {
        self.send(None, Body::Ids(source.clone(), from, to))
    }

    fn report(&mut self, _watermarks: Vec<(Source, i64)>) -> Ticket {
        let server = &mut self.shared.borrow_mut().clickhouse;
        server.tickets += 1;
        let ticket = Ticket(server.tickets);
        server.answer(self.client, ticket, Answer::Inserted(Ok(())));
        ticket
    }

    fn poll(&mut self) -> Option<(Ticket, Answer)> {
        self.shared.borrow_mut().clickhouse.answers.get_mut(&self.client)?.pop_front()
    }
}

impl ClickHouse {
    fn answer(&mut self, client: u32, ticket: Ticket, answer: Answer) {
        self.answers.entry(client).or_default().push_back((ticket, answer));
    }

    fn end(&self, source: &str) -> Option<u64> {
        self.ledger.get(source).and_then(|rows| rows.last()).map(|row| row.to)
    }
}

impl Shared {
    /// The first request of a random connection arrives.
    pub fn deliver(&mut self) {
        let lines: BTreeSet<Connection> = self.clickhouse.net.iter().map(|request| request.connection).collect();
        let Some(&line) = lines.iter().nth(self.rng.usize(0..lines.len().max(1))) else { return };
        let first = self.clickhouse.net.iter().position(|request| request.connection == line).expect("it has one");
        let request = self.clickhouse.net.remove(first);
        let resent = self.mutation == Mutation::SilentReconnect && matches!(request.body, Body::Insert(_));
        if request.boot != self.clickhouse.boot && !resent {
            return self.fail(&request, "the server was killed");
        }
        match &request.body {
            Body::Ask(questions) => {
                let marks = questions.iter().map(|question| self.marks(question, request.connection)).collect();
                self.reply(&request, Answer::Marks(Ok(marks)));
            }
            Body::Insert(insert) => self.insert(&request, insert),
            Body::Ids(source, from, to) => {
                self.count("ids read from raw rows");
                let mut ids = self.ids(source, *from, *to);
                if self.mutation == Mutation::ForgetIds {
                    ids.clear();
                }
                self.reply(&request, Answer::Ids(Ok(ids)));
            }
        }
    }

    /// A client stops waiting for a request, which stays on its way.
    pub fn give_up(&mut self) {
        let waiting: Vec<usize> =
            (0..self.clickhouse.net.len()).filter(|&index| !self.clickhouse.net[index].given_up).collect();
        if waiting.is_empty() {
            return;
        }
        let index = waiting[self.rng.usize(0..waiting.len())];
        let client = self.clickhouse.net[index].client;
        self.say(|| format!("client {client} gives its connection up"));
        self.hang_up(client);
    }

    fn hang_up(&mut self, client: u32) {
        self.connections.remove(&client);
        let mut told = Vec::new();
        for request in self.clickhouse.net.iter_mut().filter(|request| request.client == client && !request.given_up) {
            request.given_up = true;
            told.push((request.ticket, request.body.failed(StoreError::Broken("gave up waiting".to_owned()))));
        }
        for (ticket, answer) in told {
            self.clickhouse.answer(client, ticket, answer);
        }
    }

    fn reply(&mut self, request: &Request, answer: Answer) {
        if request.given_up {
            return;
        }
        if !self.calm && self.rng.u8(..) < 12 {
            self.count("answer lost");
            return self.fail(request, "the answer was lost");
        }
        self.clickhouse.answer(request.client, request.ticket, answer);
    }

    fn fail(&mut self, request: &Request, why: &str) {
        if request.given_up {
            return;
        }
        let answer = request.body.failed(StoreError::Broken(why.to_owned()));
        self.clickhouse.answer(request.client, request.ticket, answer);
        self.hang_up(request.client);
    }

    pub fn kill_server(&mut self) {
        self.say(|| "ClickHouse is killed".to_owned());
        self.clickhouse.boot += 1;
    }

    fn marks(&mut self, question: &Question, connection: Connection) -> Marks {
        let source = question.source.to_string();
        let server = &self.clickhouse;
        let mut end = server.end(&source);
        let mut recorded = BTreeMap::new();
        if question.recorded {
            for (&key, &mark) in server.ledger.get(&source).into_iter().flatten().flat_map(|row| &row.marks) {
                let greatest = recorded.entry(key).or_default();
                *greatest = mark.max(*greatest);
            }
        }
        let mut marks = BTreeMap::new();
        for &key in &question.keys {
            let same_table = |&(name, cell): &(&(String, Key), &Cell)| {
                let month = name.1.month == key.month || self.mutation == Mutation::MarkPerTable;
                name.0 == source && name.1.table == key.table && month && cell.mark > question.from
            };
            let mark = server.cells.iter().filter(same_table).map(|(_, cell)| cell.mark).max();
            marks.extend(mark.filter(|_| self.mutation != Mutation::NoMarks).map(|mark| (key, mark)));
        }
        match self.mutation {
            Mutation::BelieveSuccess => {
                for &key in &question.keys {
                    if let Some(&mark) = server.believed.get(&(source.clone(), Some(key))) {
                        let seen = marks.entry(key).or_default();
                        *seen = mark.max(*seen);
                    }
                }
            }
            Mutation::StartAtCommit if question.keys.is_empty() => {
                let partition = question.source.partition as usize;
                end = end.map(|end| self.kafka.committed[partition].unwrap_or(end));
            }
            _ => {}
        }
        self.say(|| format!("{source}: asked at {}: ledger {end:?}, marks {marks:?}", question.from));
        Marks { connection, ledger: LedgerEnd { end, recorded }, marks }
    }

    fn ids(&self, source: &Source, from: u64, to: u64) -> Vec<(u64, usize, u128)> {
        let name = source.to_string();
        let raw = |key: &Key| matches!(self.plan.table(key.table).kind, TableKind::Raw(_));
        let cells = self.clickhouse.cells.iter().filter(|((of, key), _)| *of == name && raw(key));
        let offsets = cells.flat_map(|(_, cell)| cell.offsets.iter().copied());
        let mut offsets: Vec<u64> = offsets.filter(|offset| (from..to).contains(offset)).collect();
        offsets.sort_unstable();
        let log = &self.kafka.logs[source.partition as usize];
        let id = |offset: u64| match log[offset as usize].entry {
            Entry::Event { id, .. } => (offset, 0, id),
            Entry::Gap | Entry::Bad => panic!("offset {offset} is no event and yet a raw row"),
        };
        offsets.into_iter().map(id).collect()
    }

    fn insert(&mut self, request: &Request, insert: &Insert) {
        let token = match self.mutation {
            Mutation::TokenWithoutMark => insert.token.rsplit_once('/').map_or("", |(head, _)| head).to_owned(),
            _ => insert.token.clone(),
        };
        let table = token.split('/').nth(3).unwrap_or_default().to_owned();
        let show = |what: &str| format!("client {}: insert {token}: {what}", request.client);
        if matches!(&insert.rows, Rows::Block(_)) && insert.token.split('/').count() > 6 {
            self.count("sent under a suffix");
        }
        if self.mutation != Mutation::NoTokens && self.clickhouse.tokens.contains(&token) {
            self.count(if table == "ledger" {
                "ledger row of a slower writer dropped"
            } else {
                "dropped by its token"
            });
            self.say(|| show("dropped by its token"));
        } else {
            let fate = if self.calm { 0 } else { self.rng.u8(..) };
            if fate < 250 {
                self.say(|| show("lands"));
                self.clickhouse.tokens.insert(token.clone());
                self.land(insert);
            } else if fate < 253 {
                self.count("killed between token and part");
                self.say(|| show("token logged, killed before the part"));
                self.clickhouse.tokens.insert(token.clone());
                self.kill_server();
                return self.fail(request, "the server was killed");
            } else {
                self.count("killed between part and token");
                self.say(|| show("part added, killed before the token"));
                self.land(insert);
                self.kill_server();
                return self.fail(request, "the server was killed");
            }
        }
        if let Rows::Block(block) = &insert.rows {
            let name = (block.batch().source().to_string(), Some(block.key()));
            self.clickhouse.believed.insert(name, block.batch().to());
        }
        self.reply(request, Answer::Inserted(Ok(())));
    }

    fn land(&mut self, insert: &Insert) {
        match &insert.rows {
            Rows::Ledger(row) => {
                let rows = self.clickhouse.ledger.entry(row.source.to_string()).or_default();
                let end = rows.last().map(|row| row.to);
                let fits = if row.kind == LedgerKind::Start { end.is_none() } else { end == Some(row.from) };
                rows.push(row.clone());
                if !fits {
                    self.wrong(format!("{}: ledger row {}..{} on an end of {end:?}", row.source, row.from, row.to));
                }
            }
            Rows::Block(block) => self.land_block(block),
        }
    }

    fn land_block(&mut self, block: &Block) {
        let plan = std::sync::Arc::clone(&self.plan);
        let cell = self.clickhouse.cells.entry((block.batch().source().to_string(), block.key())).or_default();
        if let TableKind::Rollup(_) = plan.table(block.key().table).kind {
            read_rollup(block, &plan, cell);
            if self.mutation == Mutation::NoMarker {
                cell.mark = 0;
            }
        } else {
            let (events, rows) = block.events(&plan);
            let is_raw = matches!(plan.table(block.key().table).kind, TableKind::Raw(_));
            let horizon = self.keep_events.filter(|_| is_raw).map_or(0, |keep| (self.now - keep).as_micros() as i64);
            for row in rows {
                if events.times[row] >= horizon {
                    cell.offsets.push(events.offsets[row]);
                } else {
                    *self.counts.entry("row expired as it landed").or_default() += 1;
                }
            }
            cell.mark = cell.mark.max(cell.offsets.last().map_or(0, |last| last + 1));
        }
    }
}

/// Adds a rollup block as the merging engine would.
fn read_rollup(block: &Block, plan: &Plan, cell: &mut Cell) {
    let (columns, rows) = block.columns(plan);
    let column = |name: &str| -> &Column { columns.iter().find(|column| column.name == name).expect(name) };
    let text = |name: &str, row: usize| match &column(name).values {
        Values::LowCardinality(values) => values.get(row).to_owned(),
        other => panic!("{name}: {other:?}"),
    };
    let (Values::UInt32(minutes), Values::UInt64(counts), Values::UInt64(throughs), Values::Int128(sums)) =
        (&column("minute").values, &column("count").values, &column("_through").values, &column("amount_sum").values)
    else {
        panic!("unexpected column types");
    };
    for row in rows {
        if text("_source", row).is_empty() {
            let (count, sum) = cell.series.entry((minutes[row], text("app", row))).or_default();
            *count += counts[row];
            *sum += i64::try_from(sums[row]).expect("small sums");
        } else {
            cell.mark = cell.mark.max(throughs[row]);
        }
    }
}
