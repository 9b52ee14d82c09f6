#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod room;

use std::collections::BTreeMap;
use std::sync::Mutex;

use tokio::runtime::Runtime;

use super::super::fixture;
use super::*;
use crate::clickhouse::{Broken, ServerError};

/// Three questions: of numbers, of numbers weeks back, and of distributions of each app.
const PACK: &str = r#"
[[rollup]]
event = "llm_call"
by = ["app"]
distribution = ["latency_ms"]

[[metric]]
name = "calls"
question = "How many?"
unit = "calls"
rollup = "llm_call_1m"
count = true

[[metric]]
name = "latency"
question = "How long?"
unit = "ms"
rollup = "llm_call_1m"
quantiles = "latency_ms"

[[alert]]
name = "small"
metric = "calls"
window = "5m"
above = 1000

[[alert]]
name = "deep"
metric = "calls"
window = "2w"
above = 1000

[[alert]]
name = "large"
metric = "latency"
by = ["app"]
window = "5m"
quantile = 0.95
above = 100
"#;
const NOW: Minute = 30_000_000;
const REACH: Reach = Reach { through: NOW, is_bounded: false };

/// What is said to a question.
#[derive(Debug, Clone, Copy)]
enum Said {
    /// Rows of so many minutes and apps.
    Rows(i64, usize),
    /// An error's code.
    Error(u32),
    /// The same after rows of so many minutes and apps.
    Half(i64, usize, u32),
    /// The connection breaks, or nothing comes in time.
    Broken(bool),
    /// It breaks after rows of so many minutes and apps.
    Cut(i64, usize),
    /// Nothing, until something else is to be said.
    Nothing,
}
use Said::{Cut, Error, Half, Nothing, Rows};

/// What a ClickHouse says to each of the three.
#[derive(Clone)]
struct Server {
    says: Arc<Mutex<BTreeMap<&'static str, Said>>>,
    asked: Arc<Mutex<Vec<&'static str>>>,
    /// How many pieces it gave.
    pieces: Arc<Mutex<usize>>,
}

impl Server {
    fn new(small: Said, deep: Said, large: Said) -> Server {
        let says = BTreeMap::from([("small", small), ("deep", deep), ("large", large)]);
        Server { says: Arc::new(Mutex::new(says)), asked: Arc::default(), pieces: Arc::default() }
    }

    fn says(&self, rule: &'static str, what: Said) {
        self.says.lock().unwrap().insert(rule, what);
    }

    /// What it was asked since.
    fn asked(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// Whether it was asked this since; the thread that asks may be slow to begin.
    fn has_heard(&self, rule: &str) -> bool {
        self.asked.lock().unwrap().contains(&rule)
    }
}

impl Answers for Server {
    async fn rows<E: From<QueryError>>(
        &self,
        question: &Question,
        _rollup: &Rollup,
        spans: &[Range<Minute>],
        mut on: impl FnMut(Range<Minute>, Vec<Row>) -> Result<(), E>,
    ) -> Result<(), E> {
        let rule = match (question.distributions.is_empty(), question.reach > 24 * 60) {
            (false, _) => "large",
            (true, is_deep) => ["small", "deep"][usize::from(is_deep)],
        };
        self.asked.lock().unwrap().push(rule);
        let server = |code| QueryError::Server(ServerError { code, text: String::new() });
        let broken = |is_late| Broken { authority: "c:1".to_owned(), what: "gone".to_owned(), is_late };
        let (minutes, apps, error) = loop {
            let says = self.says.lock().unwrap()[rule];
            match says {
                Rows(minutes, apps) => break (minutes, apps, None),
                Half(minutes, apps, code) => break (minutes, apps, Some(server(code))),
                Cut(minutes, apps) => break (minutes, apps, Some(broken(false).into())),
                Error(code) => return Err(server(code).into()),
                Said::Broken(is_late) => return Err(QueryError::Broken(broken(is_late)).into()),
                Nothing => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        for span in spans {
            // A piece a minute.
            for step in (NOW - minutes * question.step..NOW).step_by(question.step as usize) {
                let at = step.div_euclid(question.step) * question.step;
                let row = |app: usize| Row {
                    at,
                    dimensions: question.dimensions.iter().map(|_| format!("app-{app}")).collect(),
                    numbers: vec![1; question.numbers.len()],
                    distributions: question.distributions.iter().map(|_| vec![(1.0, 1)]).collect(),
                };
                if span.contains(&at) {
                    on(at..at + question.step, (0..apps).map(row).collect())?;
                    *self.pieces.lock().unwrap() += 1;
                }
            }
        }
        error.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Rules, and what was asked for them.
struct Stage {
    evaluator: Evaluator,
    inquiry: Inquiry<Server>,
    _runtime: Runtime,
}

impl Stage {
    fn new(server: &Server) -> Stage {
        let plan = Arc::new(fixture::plan(PACK));
        let evaluator = Evaluator::new(plan.alerts.clone(), &plan.rollups, 60, NOW - 1, None);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (questions, handle) = (evaluator.questions(), runtime.handle().clone());
        let inquiry = Inquiry::new(server.clone(), handle, plan.clone(), questions, usize::MAX, LONGEST);
        Stage { evaluator, inquiry, _runtime: runtime }
    }

    /// What came for a minute is to be read again by all.
    fn news(&mut self, from: Minute) {
        let news = News { from: Some(from), minutes: BTreeMap::new() };
        self.inquiry.add(&news, &mut self.evaluator);
    }

    /// Reads, where the heartbeat is due in so many milliseconds.
    fn try_read(&mut self, millis: u64) -> Result<(), Trouble> {
        let until = Instant::now() + Duration::from_millis(millis);
        self.inquiry.read(&mut self.evaluator, REACH, until, &|| false)
    }

    /// Reads; answers the rules that can't be judged.
    fn read(&mut self) -> Vec<&str> {
        self.try_read(60_000).unwrap();
        self.unjudged()
    }

    /// Reads while nothing is said of the large one, which is asked on the side from then on.
    fn read_all_but_large(&mut self) {
        while self.inquiry.aside.is_none() || self.unjudged() != ["large"] {
            self.try_read(50).unwrap();
        }
    }

    /// Attends for so many milliseconds to what is asked on the side, or to its end; answers the rules that can't be judged.
    fn attend(&mut self, millis: u64) -> Vec<&str> {
        let until = Instant::now() + Duration::from_millis(millis);
        self.inquiry.attend(&mut self.evaluator, REACH, until, &|| false).unwrap();
        self.unjudged()
    }

    /// The same in so many seconds.
    fn retry(&mut self, seconds: u64) -> Vec<&str> {
        self.inquiry.rested = Instant::now();
        let passed = Duration::from_secs(seconds);
        let due: Vec<Option<Instant>> = self.inquiry.open.iter().map(|open| Some(open.as_ref()?.again)).collect();
        self.inquiry.open.iter_mut().flatten().for_each(|open| open.again -= passed);
        self.attend(60_000);
        for (open, due) in self.inquiry.open.iter_mut().zip(due) {
            if let (Some(open), Some(due)) = (open, due)
                && open.again == due - passed
            {
                open.again = due;
            }
        }
        self.unjudged()
    }

    /// The question of a rule.
    fn question(&self, rule: &str) -> usize {
        (0..3).find(|question| self.evaluator.asking(*question) == [rule]).unwrap()
    }

    fn unjudged(&self) -> Vec<&str> {
        self.inquiry.unanswered().into_iter().flat_map(|question| self.evaluator.asking(question)).collect()
    }

    /// Bytes of each rule's rows.
    fn sizes(&self) -> BTreeMap<&str, usize> {
        (0..3).map(|question| (self.evaluator.asking(question)[0], self.evaluator.bytes_of(question))).collect()
    }
}

/// No rule.
const NONE: [&str; 0] = [];

/// ClickHouse hangs up on who takes no rows for long, as a round that has much else to do.
#[test]
fn an_answer_that_was_cut_off_for_nobody_took_it_goes_on_where_it_was() {
    for is_left_alone in [true, false] {
        let server = Server::new(Rows(1, 1), Rows(1, 1), Nothing);
        let mut stage = Stage::new(&server);
        stage.read_all_but_large();
        server.says("large", Cut(5, 3));
        let large = stage.question("large");
        if is_left_alone {
            stage.inquiry.aside.as_mut().unwrap().left_alone = LEFT_ALONE;
        }
        assert_eq!(stage.attend(60_000), ["large"]);
        let open = stage.inquiry.open[large].as_ref().unwrap();
        let failed = if is_left_alone { (Duration::ZERO, UNREAD) } else { (SHORTEST, "broken") };
        assert_eq!((open.pause, open.said.as_str()), failed);
        server.says("large", Rows(7, 3));
        server.asked();
        *server.pieces.lock().unwrap() = 0;
        assert_eq!(stage.retry(11), NONE);
        assert_eq!((server.asked(), *server.pieces.lock().unwrap()), (vec!["large"], 0), "what was taken is there");
    }
}

/// Else ClickHouse would give up an answer in a round that waits long for another.
#[test]
fn while_a_round_waits_rows_are_taken_of_what_is_asked_on_the_side() {
    let server = Server::new(Rows(1, 1), Rows(1, 1), Nothing);
    let mut stage = Stage::new(&server);
    stage.read_all_but_large();
    stage.inquiry.open.iter_mut().flatten().for_each(|open| open.pause = SHORTEST);
    server.says("large", Rows(5, 3));
    server.says("small", Nothing);
    stage.news(NOW - 5);
    let begun = Instant::now();
    let leave = || *server.pieces.lock().unwrap() >= 5 || begun.elapsed() > Duration::from_secs(20);
    let read = stage.inquiry.read(&mut stage.evaluator, REACH, begun, &leave);
    assert!(read.is_err() && begun.elapsed() < Duration::from_secs(20), "all five were taken meanwhile");
    server.says("small", Rows(1, 1));
    assert_eq!(stage.read(), ["large"], "it is judged by the next round");
    assert_eq!(stage.attend(60_000), NONE);
}

#[test]
fn of_the_questions_that_failed_one_is_asked_again_when_all_others_are_answered() {
    let server = Server::new(Rows(1, 1), Error(241), Error(396));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), ["deep", "large"]);
    assert_eq!(server.asked(), ["small", "deep", "large"]);
    stage.news(NOW - 5);
    assert_eq!(stage.read(), ["deep", "large"]);
    assert_eq!(server.asked(), ["small"], "a round waits for none of them");
    assert_eq!(stage.retry(11), ["deep", "large"]);
    assert_eq!(server.asked(), ["deep"], "one at a time");
    server.says("large", Rows(1, 1));
    assert_eq!(stage.retry(11), ["deep"]);
    assert_eq!(server.asked(), ["large"], "the other is not due yet");
    assert_eq!(stage.retry(19), ["deep"]);
    assert_eq!(server.asked(), NONE, "nor after twice the pause");
    server.says("deep", Rows(1, 1));
    assert_eq!(stage.retry(21), NONE);
    assert_eq!(server.asked(), ["deep"]);
}

/// A question that ClickHouse takes minutes for holds up neither heartbeats nor those who wait for others' alerts.
#[test]
fn nobody_waits_for_a_question_that_is_asked_again() {
    let server = Server::new(Rows(1, 1), Error(160), Rows(1, 1));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), ["deep"]);
    server.asked();
    server.says("deep", Nothing);
    stage.inquiry.open.iter_mut().flatten().for_each(|open| open.again = Instant::now());
    for round in 0..3 {
        let begun = Instant::now();
        stage.news(NOW - 5);
        assert_eq!(stage.read(), ["deep"], "a round");
        while round == 0 && !server.has_heard("deep") && begun.elapsed() < Duration::from_secs(20) {
            stage.attend(5);
        }
        assert_eq!(stage.attend(20), ["deep"], "the rest after it");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let expected: &[&str] = if round == 0 { &["small", "large", "deep"] } else { &["small", "large"] };
        assert_eq!(server.asked(), expected, "it is still asked, once");
    }
    server.says("deep", Rows(1_200, 1));
    assert_eq!(stage.attend(60_000), NONE);
    // What came while it was asked is read once more.
    assert_eq!(stage.read(), NONE);
    assert_eq!(server.asked(), ["deep"]);
}

#[test]
fn a_start_with_slow_questions_waits_until_the_heartbeat_is_due() {
    let server = Server::new(Rows(1, 1), Nothing, Nothing);
    let mut stage = Stage::new(&server);
    let begun = Instant::now();
    // However many heartbeats it takes until the one has its answer and the next is asked.
    let is_there = |stage: &Stage| stage.unjudged() == ["deep", "large"] && server.has_heard("deep");
    while !is_there(&stage) && begun.elapsed() < Duration::from_secs(20) {
        let due = Instant::now() + Duration::from_millis(50);
        stage.try_read(50).unwrap();
        assert!(Instant::now() >= due, "it waits until then");
    }
    assert_eq!(stage.unjudged(), ["deep", "large"], "those that it did not get to as well");
    assert_eq!(server.asked(), ["small", "deep"]);
    server.says("deep", Rows(1, 1));
    server.says("large", Rows(1, 1));
    assert_eq!(stage.read(), NONE, "the next round waits again");
    assert_eq!(server.asked(), ["large"]);
}

#[test]
fn behind_one_that_took_too_long_a_round_asks_no_other() {
    let server = Server::new(Rows(1, 1), Rows(1, 1), Rows(1, 1));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), NONE);
    server.asked();
    ["small", "deep", "large"].into_iter().for_each(|rule| server.says(rule, Error(159)));
    stage.news(NOW - 5);
    assert_eq!(stage.read(), ["small", "deep", "large"]);
    assert_eq!(server.asked(), ["small"]);
    // The others did not fail: they are the first to be asked.
    server.says("deep", Rows(1, 1));
    assert_eq!(stage.attend(60_000), ["small", "large"]);
    assert_eq!(stage.attend(60_000), ["small", "large"]);
    assert_eq!(server.asked(), ["deep", "large"]);
}

/// Each in its time, and together so slow that the heartbeat would come late.
#[test]
fn a_round_asks_no_other_once_a_heartbeats_time_has_passed() {
    let server = Server::new(Rows(1, 1), Rows(1, 1), Rows(1, 1));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), NONE);
    server.asked();
    stage.inquiry.heartbeat = Duration::ZERO;
    stage.news(NOW - 5);
    assert_eq!(stage.read(), ["deep", "large"]);
    assert_eq!(server.asked(), ["small"]);
    assert_eq!(stage.read(), NONE, "they are asked on the side");
    server.asked();
    // Else the same would be without an answer in each round.
    stage.news(NOW - 4);
    assert_eq!(stage.read(), ["small", "large"]);
    assert_eq!(server.asked(), ["deep"]);
}

#[test]
fn a_connection_that_breaks_on_the_side_puts_off_its_question_and_no_other() {
    for (is_late, said) in [(false, "broken"), (true, "late")] {
        let server = Server::new(Rows(1, 1), Said::Broken(is_late), Rows(1, 1));
        let mut stage = Stage::new(&server);
        assert_eq!(stage.read(), ["deep"]);
        assert_eq!(server.asked(), ["small", "deep", "large"]);
        let deep = (0..3).find(|question| stage.evaluator.asking(*question) == ["deep"]).unwrap();
        let open = stage.inquiry.open[deep].as_ref().unwrap();
        assert_eq!((open.pause, open.said.as_str()), (SHORTEST, said));
        stage.news(NOW - 5);
        assert_eq!(stage.retry(0), ["deep"]);
        assert_eq!(stage.read(), ["deep"], "a round goes on without it");
        assert_eq!(server.asked(), ["small", "large"]);
        assert_eq!(stage.retry(11), ["deep"]);
        assert_eq!(server.asked(), ["deep"]);
        assert_eq!(stage.inquiry.open[deep].as_ref().unwrap().pause, 2 * SHORTEST);
    }
}

/// ClickHouse may be away then; if not, only the question breaks it.
#[test]
fn a_connection_that_breaks_in_a_round_ends_one_round_at_most() {
    let server = Server::new(Rows(1, 1), Rows(1, 1), Rows(1, 1));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), NONE);
    server.says("deep", Said::Broken(false));
    stage.news(NOW - 5);
    assert!(matches!(stage.try_read(60_000), Err(Trouble::Passing(reason)) if reason.contains("gone")));
    assert_eq!(stage.read(), ["deep"]);
    server.asked();
    // What takes longer than anybody waits for it is of time at once.
    server.says("small", Said::Broken(true));
    stage.news(NOW - 5);
    assert_eq!(stage.read(), ["small", "deep", "large"]);
    assert_eq!(server.asked(), ["small"]);
}

#[test]
fn who_leaves_waits_for_no_answer() {
    let server = Server::new(Rows(1, 1), Rows(1, 1), Rows(1, 1));
    let mut stage = Stage::new(&server);
    assert_eq!(stage.read(), NONE);
    server.asked();
    server.says("small", Nothing);
    stage.news(NOW - 5);
    let begun = Instant::now();
    // Who is asked only after that would count as asked again.
    let is_asked = || server.has_heard("small") || begun.elapsed() > Duration::from_secs(20);
    let leave = || is_asked() && begun.elapsed() > Duration::from_millis(50);
    assert!(stage.inquiry.read(&mut stage.evaluator, REACH, Instant::now(), &leave).is_err());
    assert!(begun.elapsed() < Duration::from_secs(20));
    // What it was asked for is still to be read.
    server.asked();
    server.says("small", Rows(1, 1));
    assert_eq!(stage.read(), NONE);
    assert_eq!(server.asked(), ["small", "deep", "large"]);
}
