//! The [`Store`] that workers write to: a task that owns one pinned connection and works off what it is given, one by one,
//! and questions together.
//!
//! The worker's thread never waits here: it leaves questions and inserts and fetches the answers. Encoding and
//! compression happen on the runtime's blocking threads, so a worker goes on reading while a block is being made.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::connection::{Answered, Pinned};
use super::endpoint::Endpoint;
use super::error::{Broken, QueryError};
use super::insert::{self, Known, Request};
use super::marks;
use super::pace::Pace;
use super::watermarks;
use crate::batch::{LedgerKind, Source};
use crate::meter::{Meter, Note};
use crate::plan::Plan;
use crate::ports::{Answer, Connection, Insert, Marks, Question, Rows, Store, StoreError, Ticket};
use crate::telemetry::Outage;

/// Which an event is: offset, position of its type in the plan, id.
type Id = (u64, usize, u128);

/// A question names every source of a worker once per table, which may be longer than queries usually are. Its answer is
/// of now and whole, or an error: a profile could have it come from a cache, or end early where a limit is reached.
const QUESTION: [(&str, &str); 9] = [
    ("max_query_size", "100000000"),
    ("use_query_cache", "0"),
    ("read_overflow_mode", "throw"),
    ("read_overflow_mode_leaf", "throw"),
    ("group_by_overflow_mode", "throw"),
    ("sort_overflow_mode", "throw"),
    ("result_overflow_mode", "throw"),
    ("set_overflow_mode", "throw"),
    ("timeout_overflow_mode", "throw"),
];

enum Command {
    Ask(Vec<Question>),
    Insert(Box<Insert>),
    Ids(Source, u64, u64),
    Report(Vec<(Source, i64)>),
}

/// ClickHouse as a worker sees it. Dropping it ends its task and closes its connection.
#[derive(Debug)]
pub struct ClickHouseStore {
    commands: UnboundedSender<(Ticket, Command)>,
    answers: Receiver<(Ticket, Answer)>,
    /// An answer that [`ClickHouseStore::wait`] saw and [`Store::poll`] has yet to hand over.
    ahead: Option<(Ticket, Answer)>,
    next: u64,
}

impl ClickHouseStore {
    /// Starts the task, which tells `meter` of inserts. Nothing is dialed before the first question.
    pub fn new(endpoint: Endpoint, plan: Arc<Plan>, runtime: &Handle, meter: Arc<dyn Meter>) -> ClickHouseStore {
        let (commands, inbox) = unbounded_channel();
        let (outbox, answers) = channel();
        let questions = Outage::of(format!("ClickHouse at {endpoint:?}"));
        let inserts = Outage::of(format!("ClickHouse at {endpoint:?} to take inserts"));
        let task = Task { endpoint, plan, open: None, questions, inserts, pace: Pace::new(), meter };
        runtime.spawn(task.run(inbox, outbox));
        ClickHouseStore { commands, answers, ahead: None, next: 0 }
    }

    /// Waits until [`Store::poll`] has an answer, at most `time_out`, and says whether it has.
    pub fn wait(&mut self, time_out: Duration) -> bool {
        if self.ahead.is_none() {
            self.ahead = self.answers.recv_timeout(time_out).ok();
        }
        self.ahead.is_some()
    }

    /// Whether its task has ended, so that no answer will ever come: a fault in it, or the runtime's end.
    pub fn is_dead(&self) -> bool {
        self.commands.is_closed()
    }

    fn send(&mut self, command: Command) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        // The task ends only with its runtime, when nobody fetches answers any more.
        let _ = self.commands.send((ticket, command));
        ticket
    }
}

impl Store for ClickHouseStore {
    fn ask(&mut self, questions: Vec<Question>) -> Ticket {
        self.send(Command::Ask(questions))
    }

    fn insert(&mut self, insert: Insert) -> Ticket {
        self.send(Command::Insert(Box::new(insert)))
    }

    fn ids(&mut self, source: &Source, from: u64, to: u64) -> Ticket {
        self.send(Command::Ids(source.clone(), from, to))
    }

    fn report(&mut self, watermarks: Vec<(Source, i64)>) -> Ticket {
        self.send(Command::Report(watermarks))
    }

    fn poll(&mut self) -> Option<(Ticket, Answer)> {
        self.ahead.take().or_else(|| self.answers.try_recv().ok())
    }
}

/// An open connection and what its server understands.
struct Open {
    pinned: Pinned,
    known: Known,
}

/// What is to be done now.
enum Due {
    /// To be asked as one question.
    Asks(Vec<(Ticket, Vec<Question>)>),
    Insert(Ticket, Box<Insert>),
    Ids(Ticket, Source, u64, u64),
    Report(Ticket, Vec<(Source, i64)>),
}

/// What to do next; `None`: nobody will ask for anything any more.
///
/// In order, but for two things. A partition that begins goes first: it would else wait for all the writing of those that
/// were there before it. Its first row does so too, so that many partitions that begin have written theirs before any of
/// them asks again, and all then ask once, the store and the log. And where a question is due all that wait go with it, for
/// a question costs the server about as much for one source as for all. Whoever asks has no insert under way, so none of his
/// own is overtaken; one that a former assignment of his partition left behind is another writer's.
async fn next(
    inbox: &mut UnboundedReceiver<(Ticket, Command)>,
    waiting: &mut VecDeque<(Ticket, Command)>,
) -> Option<Due> {
    if waiting.is_empty() {
        waiting.push_back(inbox.recv().await?);
    }
    while let Ok(command) = inbox.try_recv() {
        waiting.push_back(command);
    }
    let first = waiting.iter().position(|(_, command)| command.is_of_a_beginning()).unwrap_or(0);
    let (ticket, command) = waiting.remove(first)?;
    Some(match command {
        Command::Ask(questions) => {
            let mut asks = vec![(ticket, questions)];
            for (ticket, command) in std::mem::take(waiting) {
                match command {
                    Command::Ask(questions) => asks.push((ticket, questions)),
                    other => waiting.push_back((ticket, other)),
                }
            }
            Due::Asks(asks)
        }
        Command::Insert(insert) => Due::Insert(ticket, insert),
        Command::Ids(source, from, to) => Due::Ids(ticket, source, from, to),
        Command::Report(watermarks) => Due::Report(ticket, watermarks),
    })
}

impl Command {
    /// Whether it is asked on the way to where a partition begins.
    fn is_of_a_beginning(&self) -> bool {
        match self {
            Command::Ask(questions) => questions.iter().any(|question| question.recorded),
            Command::Ids(..) => true,
            Command::Insert(insert) => match &insert.rows {
                Rows::Ledger(row) => row.kind == LedgerKind::Start,
                Rows::Block(_) => false,
            },
            Command::Report(_) => false,
        }
    }
}

struct Task {
    endpoint: Endpoint,
    plan: Arc<Plan>,
    open: Option<Open>,
    /// The server is away.
    questions: Outage,
    /// It is there and takes no inserts: read-only, full, overloaded.
    inserts: Outage,
    pace: Pace,
    meter: Arc<dyn Meter>,
}

impl Task {
    async fn run(mut self, mut inbox: UnboundedReceiver<(Ticket, Command)>, outbox: Sender<(Ticket, Answer)>) {
        let mut waiting = VecDeque::new();
        while let Some(due) = next(&mut inbox, &mut waiting).await {
            let answers = match due {
                Due::Asks(asks) => self.ask_together(asks).await,
                Due::Insert(ticket, insert) => vec![(ticket, Answer::Inserted(self.insert(*insert).await))],
                Due::Report(ticket, watermarks) => vec![(ticket, Answer::Inserted(self.report(&watermarks).await))],
                Due::Ids(ticket, source, from, to) => vec![(ticket, Answer::Ids(self.ids(&source, from, to).await))],
            };
            self.pace.say();
            for (ticket, answer) in answers {
                self.note(&answer);
                if outbox.send((ticket, answer)).is_err() {
                    return;
                }
            }
        }
    }

    /// Says when the server goes and when it is back.
    fn note(&mut self, answer: &Answer) {
        let (outage, error) = match answer {
            Answer::Marks(result) => (&mut self.questions, result.as_ref().err()),
            Answer::Ids(result) => (&mut self.questions, result.as_ref().err()),
            // A connection that broke is the server gone, which the questions will find as well.
            Answer::Inserted(Err(error @ StoreError::Broken(_))) => (&mut self.questions, Some(error)),
            Answer::Inserted(result) => (&mut self.inserts, result.as_ref().err()),
        };
        match error {
            None => outage.passed(),
            Some(error @ (StoreError::Broken(_) | StoreError::Passing(_))) => outage.failed(error),
            // The partition that it stops says so.
            Some(StoreError::Refused(_)) => {}
        }
    }

    /// Asks all as one question; each ticket gets the answers to its own. What is refused is asked one by one, for it stops
    /// whoever asked it and nobody else.
    async fn ask_together(&mut self, asks: Vec<(Ticket, Vec<Question>)>) -> Vec<(Ticket, Answer)> {
        let all: Vec<Question> = asks.iter().flat_map(|(_, questions)| questions).cloned().collect();
        let mut answers = Vec::with_capacity(asks.len());
        match self.ask(&all).await.map(Vec::into_iter) {
            Ok(mut marks) => {
                let mut own = |questions: Vec<Question>| marks.by_ref().take(questions.len()).collect();
                answers.extend(asks.into_iter().map(|(ticket, of)| (ticket, Answer::Marks(Ok(own(of))))));
            }
            Err(StoreError::Refused(_)) if asks.len() > 1 => {
                for (ticket, questions) in asks {
                    answers.push((ticket, Answer::Marks(self.ask(&questions).await)));
                }
            }
            Err(error) => {
                answers.extend(asks.into_iter().map(|(ticket, _)| (ticket, Answer::Marks(Err(error.clone())))))
            }
        }
        answers
    }

    async fn ask(&mut self, questions: &[Question]) -> Result<Vec<Marks>, StoreError> {
        let sql = marks::question(questions, &self.plan, &self.endpoint.database);
        let settings = [&QUESTION[..], &marks::SETTINGS].concat();
        let (connection, text) = self.query(&sql, &settings).await?;
        Ok(marks::answer(&text, questions, &self.plan, connection)?)
    }

    async fn ids(&mut self, source: &Source, from: u64, to: u64) -> Result<Vec<Id>, StoreError> {
        let sql = marks::ids_question(source, from, to, &self.plan, &self.endpoint.database);
        let (_, text) = self.query(&sql, &QUESTION).await?;
        Ok(marks::ids_answer(&text, &self.plan)?)
    }

    async fn report(&mut self, watermarks: &[(Source, i64)]) -> Result<(), StoreError> {
        let sql = watermarks::insertion(watermarks, &self.endpoint.database);
        self.query(&sql, &QUESTION).await?;
        Ok(())
    }

    /// Asks on the open connection, or on a new one: a question may go out on any.
    async fn query(&mut self, sql: &str, settings: &[(&str, &str)]) -> Result<(Connection, bytes::Bytes), QueryError> {
        // A server closes what is idle for long; to ask on a closed connection would cost the asker one failed attempt.
        let open = match self.open.take().filter(|open| !open.pinned.is_closed()) {
            Some(open) => open,
            None => self.dial().await?,
        };
        let answered = open.pinned.query(sql, settings).await;
        let answer = self.keep(answered, open.known)?;
        let connection = self.open.as_ref().map(|open| open.pinned.id());
        // `keep` has put the connection back, for it answered.
        let connection = connection.ok_or_else(|| Broken::before_sending(&self.endpoint))?;
        Ok((connection, answer?))
    }

    async fn dial(&self) -> Result<Open, QueryError> {
        let pinned = Pinned::open(&self.endpoint).await?;
        let (pinned, known) = insert::known_settings(pinned).await?;
        Ok(Open { pinned, known: known? })
    }

    /// Sends an insert on the connection that its mark was asked on, or not at all.
    async fn insert(&mut self, insert: Insert) -> Result<(), StoreError> {
        let Some(open) = self.open.take_if(|open| open.pinned.id() == insert.connection) else {
            return Err(Broken::before_sending(&self.endpoint).into());
        };
        let (plan, database, compressed) =
            (self.plan.clone(), self.endpoint.database.clone(), self.endpoint.compressed);
        let encoded = tokio::task::spawn_blocking(move || {
            let request = Request::new(&insert.rows, &plan, &database, compressed);
            (request, insert)
        });
        let (request, insert) = match encoded.await {
            Ok(encoded) => encoded,
            Err(error) => return Err(StoreError::Refused(format!("a block could not be encoded: {error}"))),
        };
        let settings = insert::settings(&insert.token, compressed, &open.known);
        let sent = Instant::now();
        let answered = open.pinned.insert(&request.sql, &settings, request.body).await;
        let answer = self.keep(answered, open.known)?;
        answer.map_err(StoreError::from)?;
        let took = sent.elapsed();
        self.pace.took(&insert.rows, took);
        let table = match &insert.rows {
            Rows::Block(block) => &self.plan.table(block.key().table).name,
            Rows::Ledger(_) => super::tables::LEDGER,
        };
        let (series, overflow) = request.series;
        self.meter.note(Note::Inserted { table, series, overflow, took });
        Ok(())
    }

    /// Puts a connection back that has answered; one that has not is gone.
    fn keep(
        &mut self,
        answered: Result<Answered, Broken>,
        known: Known,
    ) -> Result<Result<bytes::Bytes, super::ServerError>, Broken> {
        let (pinned, answer) = answered?;
        self.open = Some(Open { pinned, known });
        Ok(answer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::batch::LedgerRow;
    use crate::plan::{Limits, Sources};

    const SCHEMA: &str = r#"{"type": "record", "name": "tick", "fields": [
        {"name": "event_id", "type": "string", "highwater": {"role": "id"}},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}, "highwater": {"role": "time"}},
        {"name": "app", "type": "string", "highwater": {"role": "dimension"}},
        {"name": "environment", "type": "string", "highwater": {"role": "dimension"}}]}"#;

    #[tokio::test]
    async fn who_begins_goes_first_and_questions_go_together() {
        let (send, mut inbox) = unbounded_channel();
        let source = Source { epoch: 1, redrive: None, topic: "t".into(), partition: 0 };
        let ask =
            |recorded| Command::Ask(vec![Question { source: source.clone(), from: 0, keys: Vec::new(), recorded }]);
        let report = || Command::Report(vec![(source.clone(), 0)]);
        let row = |kind| {
            let rows = Rows::Ledger(LedgerRow::empty(source.clone(), kind, 0, 0, String::new()));
            Command::Insert(Box::new(Insert { connection: Connection(0), token: String::new(), rows }))
        };
        let said = |commands: Vec<Command>| {
            for (number, command) in commands.into_iter().enumerate() {
                send.send((Ticket(number as u64), command)).ok().unwrap();
            }
        };
        said(vec![report(), ask(false), report(), ask(false), ask(true), Command::Ids(source.clone(), 0, 1)]);
        let mut order: Vec<Vec<u64>> = Vec::new();
        let mut waiting = VecDeque::new();
        for _ in 0..4 {
            order.push(match next(&mut inbox, &mut waiting).await.unwrap() {
                Due::Asks(asks) => asks.into_iter().map(|(ticket, _)| ticket.0).collect(),
                Due::Insert(ticket, _) | Due::Ids(ticket, ..) | Due::Report(ticket, _) => vec![ticket.0],
            });
        }
        assert_eq!(order, [vec![4, 1, 3], vec![5], vec![0], vec![2]]);
        // Without anybody who begins, in order.
        said(vec![report(), ask(false), report(), ask(false)]);
        assert!(matches!(next(&mut inbox, &mut waiting).await, Some(Due::Report(Ticket(0), _))));
        assert!(matches!(next(&mut inbox, &mut waiting).await, Some(Due::Asks(asks)) if asks.len() == 2));
        assert!(matches!(next(&mut inbox, &mut waiting).await, Some(Due::Report(Ticket(2), _))));
        // First rows go before who asks again after his, and before the rows of batches.
        said(vec![
            row(LedgerKind::Batch),
            row(LedgerKind::Start),
            row(LedgerKind::Lost),
            ask(true),
            row(LedgerKind::Start),
        ]);
        let mut order = Vec::new();
        for _ in 0..5 {
            order.push(match next(&mut inbox, &mut waiting).await.unwrap() {
                Due::Asks(asks) => asks[0].0.0,
                Due::Insert(ticket, _) | Due::Ids(ticket, ..) | Due::Report(ticket, _) => ticket.0,
            });
        }
        assert_eq!(order, [1, 3, 4, 0, 2]);
        drop(send);
        assert!(next(&mut inbox, &mut waiting).await.is_none());
    }

    #[test]
    fn a_store_whose_task_has_ended_is_known_to_be_dead() {
        let sources = Sources { schemas: vec![("tick.avsc".to_owned(), SCHEMA.to_owned())], ..Sources::default() };
        let limits = Limits { horizon: 1, max_skew_ms: 1, max_age_ms: 1, lateness_ms: 1, max_series: 1 };
        let plan = Arc::new(Plan::compile(&sources, limits).unwrap());
        let endpoint = Endpoint::new("http://127.0.0.1:1", "d", "u", "p").unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut store = ClickHouseStore::new(endpoint, plan, runtime.handle(), Arc::new(()));
        store.ask(Vec::new());
        assert!(store.wait(Duration::from_secs(10)), "it answers that nobody is there");
        assert!(!store.is_dead());
        drop(runtime);
        assert!(store.is_dead());
    }
}
