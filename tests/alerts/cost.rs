//! What a round costs, with the real ClickHouse: a measurement.

use std::ops::Range;
use std::time::{Duration, Instant};

use highwater::alert::{Completeness, Evaluator, Minute, Row};
use highwater::clickhouse::{Catalog, Client, Endpoint, QueryError, QueryLimits, Retention};
use highwater::command::migrate::migrate;
use highwater::evaluator::read;
use highwater::plan::{Limits, Plan, Sources};

const SERIES: usize = 10_000;
const RULES: usize = 1_000;
/// Minutes that there are before the rounds, which are a minute each.
const BEFORE: i64 = 60;
const ROUNDS: i64 = 5;

/// Seconds of processor that a process has used, by `/proc`: its ticks are hundredths.
fn used(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

/// Prints what a minute of 10,000 series under 1,000 rules costs, from the question to ClickHouse to the messages.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, not a test: make cost-alerts"]
async fn seconds_per_round() {
    let server = devstack::ClickHouse::options().start().unwrap();
    let head = include_str!("history.toml").split("[[alert]]").next().unwrap().to_owned();
    let rule = |number: usize| {
        let (window, level) = ([5, 15, 60][number % 3], 0.5 + number as f64 / 10_000.0);
        format!(
            "[[alert]]\nname = \"r{number}\"\nmetric = \"failed\"\nby = [\"app\"]\nwindow = \"{window}m\"\nabove = {level}\n"
        )
    };
    let pack = head + &(0..RULES).map(rule).collect::<String>();
    let sources = Sources {
        schemas: vec![("call.avsc".into(), include_str!("call.avsc").into())],
        packs: vec![("call.toml".into(), pack)],
        ..Sources::default()
    };
    let limits = Limits { horizon: 100, max_skew_ms: 1_000, max_age_ms: 1_000, lateness_ms: 0, max_series: SERIES };
    let plan = Plan::compile(&sources, limits).unwrap();
    let endpoint = Endpoint::new(&server.url(), "cost", "default", "").unwrap();
    let client = Client::new(endpoint).with_timeout(Duration::from_secs(300));
    let catalog = Catalog::new(&plan, &Retention::default(), "cost");
    migrate(&client, &catalog, false).await.unwrap();
    let start = jiff::Timestamp::now().as_second() / 60 - 600;
    let insert = async |from: Minute, minutes: i64| {
        let sql = format!(
            "INSERT INTO cost.call_1m_parts (minute, app, environment, status, count) SELECT toDateTime(({from} + m) * 60), \
             concat('app-', toString(s)), 'production', st, if(st = 'ok', 100, s % 90) FROM (SELECT number AS m FROM \
             numbers({minutes})) AS ms, (SELECT number AS s FROM numbers({SERIES})) AS ss, (SELECT arrayJoin(['ok', \
             'error']) AS st) AS sts"
        );
        client.execute(&sql).await.unwrap();
    };
    insert(start - BEFORE, BEFORE).await;
    let mut evaluator = Evaluator::new(plan.alerts.clone(), &plan.rollups, BEFORE, start, None);
    assert_eq!((evaluator.questions().len(), evaluator.rules().rules.len()), (1, RULES));
    let question = evaluator.questions()[0].clone();
    let rollup = &plan.rollups[question.rollup];
    let limits = QueryLimits { time: Duration::from_secs(120), memory: 4 << 30, rows: 100_000_000 };
    let mut from = evaluator.oldest(0);
    for round in 0..=ROUNDS {
        if round > 0 {
            insert(start + round - 1, 1).await;
        }
        let server_pid = server.pid().unwrap().to_string();
        let (own, theirs, begun) = (used("self"), used(&server_pid), Instant::now());
        let (mut rows, span) = (0, from..Minute::MAX);
        let take = |span: Range<Minute>, piece: Vec<Row>| -> Result<(), QueryError> {
            rows += piece.len();
            evaluator.take_span(0, span, &piece);
            Ok(())
        };
        read(&client, limits, (&question, rollup), std::slice::from_ref(&span), take).await.unwrap();
        let (reading, read_in) = (used("self") - own, begun.elapsed());
        let messages = evaluator.advance(start + round, Completeness::default()).messages.len();
        println!(
            "round {round}: {rows} rows, {messages} messages: {:.2} s of processor here ({reading:.2} s reading), {:.2} s in \
             ClickHouse, {:.2?} in all ({read_in:.2?} reading), {} MiB of rows",
            used("self") - own,
            used(&server_pid) - theirs,
            begun.elapsed(),
            evaluator.bytes() >> 20
        );
        from = start + round;
    }
}
