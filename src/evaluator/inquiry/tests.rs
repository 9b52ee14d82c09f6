#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::RefCell;
use std::collections::BTreeMap;

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

/// Rows of so many minutes and apps, or an error's code.
type Said = Result<(i64, usize), u32>;

/// What a ClickHouse says to each of the three.
struct Server {
    says: RefCell<BTreeMap<&'static str, Said>>,
    asked: RefCell<Vec<&'static str>>,
}

impl Server {
    fn new(says: [(&'static str, Said); 3]) -> Server {
        Server { says: RefCell::new(BTreeMap::from(says)), asked: RefCell::default() }
    }

    fn says(&self, rule: &'static str, what: Said) {
        self.says.borrow_mut().insert(rule, what);
    }

    /// What it was asked since.
    fn asked(&self) -> Vec<&'static str> {
        self.asked.take()
    }
}

impl Answers for Server {
    async fn rows<E: From<QueryError>>(
        &self,
        question: &Question,
        _rollup: &Rollup,
        spans: &[Range<Minute>],
        mut on: impl FnMut(Range<Minute>, &[Row]) -> Result<(), E>,
    ) -> Result<(), E> {
        let rule = match (question.distributions.is_empty(), question.reach > 24 * 60) {
            (false, _) => "large",
            (true, is_deep) => ["small", "deep"][usize::from(is_deep)],
        };
        self.asked.borrow_mut().push(rule);
        let (minutes, apps) =
            self.says.borrow()[rule].map_err(|code| QueryError::Server(ServerError { code, text: String::new() }))?;
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
                    on(at..at + question.step, &(0..apps).map(row).collect::<Vec<_>>())?;
                }
            }
        }
        Ok(())
    }
}

/// Rules, and what was asked for them.
struct Stage {
    plan: Plan,
    evaluator: Evaluator,
    inquiry: Inquiry,
}

impl Stage {
    fn new() -> Stage {
        let plan = fixture::plan(PACK);
        let evaluator = Evaluator::new(plan.alerts.clone(), &plan.rollups, 60, NOW - 1, None);
        let inquiry = Inquiry::new(evaluator.questions(), usize::MAX);
        Stage { plan, evaluator, inquiry }
    }

    /// What came for a minute is to be read again by all.
    fn news(&mut self, from: Minute) {
        let news = News { from: Some(from), minutes: BTreeMap::new() };
        self.inquiry.add(&news, self.evaluator.questions(), &self.plan);
    }

    /// Reads; answers the rules that can't be judged.
    async fn read(&mut self, server: &Server) -> Vec<&str> {
        self.inquiry.read(server, &mut self.evaluator, &self.plan, REACH).await.unwrap();
        self.unjudged()
    }

    /// Asks again in so many seconds.
    async fn retry(&mut self, server: &Server, seconds: u64) -> Vec<&str> {
        let now = Instant::now() + Duration::from_secs(seconds);
        self.inquiry.retry(server, &mut self.evaluator, &self.plan, REACH, now).await.unwrap();
        self.unjudged()
    }

    fn unjudged(&self) -> Vec<&str> {
        self.inquiry.unanswered().into_iter().flat_map(|question| self.evaluator.asking(question)).collect()
    }
}

#[tokio::test]
async fn where_memory_is_short_the_largest_gives_way() {
    let server = Server::new([("small", Ok((1, 1))), ("deep", Ok((1, 1))), ("large", Ok((5, 200)))]);
    let mut stage = Stage::new();
    assert_eq!(stage.read(&server).await, [""; 0]);
    assert_eq!(server.asked(), ["small", "deep", "large"]);
    // No room for more, and more comes of a question with few rows.
    let full = stage.evaluator.bytes();
    stage.inquiry.memory = full + 100;
    server.says("small", Ok((60, 1)));
    stage.news(NOW - 60);
    assert_eq!(stage.read(&server).await, ["large"]);
    assert!(stage.evaluator.bytes() < full / 4, "its rows are dropped");
    server.asked();
    // There is no room for it later either, and it takes none from others.
    for (seconds, _) in (11..).step_by(700).zip(0..3) {
        assert_eq!(stage.retry(&server, seconds).await, ["large"]);
        assert_eq!(server.asked(), ["large"]);
    }
    stage.news(NOW - 60);
    assert_eq!(stage.read(&server).await, ["large"]);
    assert_eq!(server.asked(), ["small", "deep"], "others are read as ever");
    stage.inquiry.memory = 2 * full;
    assert_eq!(stage.retry(&server, 10_000).await, [""; 0]);
    assert!(stage.evaluator.bytes() >= full);
}

/// Each would fit without the other: the larger stays out.
#[tokio::test]
async fn two_that_have_no_room_together_do_not_take_turns() {
    let server = Server::new([("small", Ok((1, 1))), ("deep", Ok((1_200, 1))), ("large", Ok((5, 60)))]);
    let mut stage = Stage::new();
    assert_eq!(stage.read(&server).await, [""; 0]);
    let sizes: BTreeMap<&str, usize> =
        (0..3).map(|question| (stage.evaluator.asking(question)[0], stage.evaluator.bytes_of(question))).collect();
    let (deep, large) = (sizes["deep"], sizes["large"]);
    assert!(large < deep && deep < large + large / 2, "{sizes:?}");
    let mut stage = Stage::new();
    stage.inquiry.memory = sizes["small"] + deep + large / 2;
    assert_eq!(stage.read(&server).await, ["deep"]);
    for (seconds, _) in (11..).step_by(700).zip(0..3) {
        assert_eq!(stage.retry(&server, seconds).await, ["deep"]);
    }
}

#[tokio::test]
async fn of_the_questions_that_failed_one_is_asked_again_when_all_others_are_answered() {
    let server = Server::new([("small", Ok((1, 1))), ("deep", Err(160)), ("large", Err(159))]);
    let mut stage = Stage::new();
    assert_eq!(stage.read(&server).await, ["deep", "large"]);
    assert_eq!(server.asked(), ["small", "deep", "large"]);
    stage.inquiry.failures.iter_mut().flatten().for_each(|failure| failure.again = Instant::now());
    stage.news(NOW - 5);
    assert_eq!(stage.read(&server).await, ["deep", "large"]);
    assert_eq!(server.asked(), ["small"], "a round waits for none of them");
    assert_eq!(stage.retry(&server, 0).await, ["deep", "large"]);
    assert_eq!(server.asked(), ["deep"], "one at a time");
    server.says("large", Ok((1, 1)));
    assert_eq!(stage.retry(&server, 0).await, ["deep"]);
    assert_eq!(server.asked(), ["large"], "the other is not due yet");
    assert_eq!(stage.retry(&server, 19).await, ["deep"]);
    assert_eq!(server.asked(), [""; 0], "nor after twice the pause");
    server.says("deep", Ok((1, 1)));
    assert_eq!(stage.retry(&server, 21).await, [""; 0]);
    assert_eq!(server.asked(), ["deep"]);
}

#[test]
fn a_limit_costs_its_rules_and_a_server_that_is_away_the_round() {
    let server = |code| QueryError::Server(ServerError { code, text: String::new() });
    let away = Broken { authority: "c:1".to_owned(), what: "gone".to_owned() };
    for (error, of_the_question, remedy) in [
        (server(159), true, "alerts.query_time"),
        (server(160), true, "alerts.query_time"),
        (server(241), true, "alerts.query_memory"),
        (server(396), true, "alerts.query_rows"),
        (server(60), true, ""),
        (server(202), false, ""),
        (QueryError::Broken(away), false, ""),
    ] {
        assert_eq!((is_of_the_question(&error), setting(&error)), (of_the_question, remedy), "{error}");
    }
}

#[test]
fn a_few_rules_are_named() {
    assert_eq!(named(&["a", "b"]), "a, b");
    assert_eq!(named(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more rules");
}
