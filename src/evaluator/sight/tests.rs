#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::super::fixture;
use super::*;
use crate::clickhouse::Endpoint;

const JUDGED: Minute = 30_000_000;
const OLDEST: Minute = JUDGED - 10_000;
/// How long an answer is waited for that comes, and one that never does.
const PATIENT: Duration = Duration::from_secs(60);
const IMPATIENT: Duration = Duration::from_millis(500);
const PACK: &str = include_str!("../../../packs/llm.toml");
const TOO_MANY: &str =
    "Code: 396. DB::Exception: Limit for result exceeded, max rows: 1.00 thousand. (TOO_MANY_ROWS_OR_BYTES)";
/// Nothing is said.
const SILENCE: &str = "";
const BUSY: &str = "Code: 202. DB::Exception: Too many simultaneous queries. (TOO_MANY_SIMULTANEOUS_QUERIES)";

/// Sight of a ClickHouse of a few lines, which answers each question by what stands in it.
async fn sight(answer: impl Fn(&str) -> Result<String, &'static str> + Send + 'static) -> Sight {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut request, mut buffer) = (String::new(), vec![0; 65_536]);
            while !is_whole(&request) {
                let read = stream.read(&mut buffer).await.unwrap();
                assert!(read > 0, "a request that does not end: {request}");
                request.push_str(str::from_utf8(&buffer[..read]).unwrap());
            }
            let (status, body) = match answer(&request) {
                Ok(rows) => ("200 OK", rows),
                Err(SILENCE) => {
                    held.push(stream);
                    continue;
                }
                Err(error) => ("500 Internal Server Error", error.to_owned()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).await.unwrap();
        }
    });
    let limits = QueryLimits { time: PATIENT, memory: 1 << 30, rows: 1_000 };
    let client = Client::new(Endpoint::new(&url, "d", "u", "").unwrap()).with_timeout(PATIENT);
    Sight::new(client, limits, 0)
}

/// Whether all of a request's body has come.
fn is_whole(request: &str) -> bool {
    let Some((head, body)) = request.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length: usize| body.len() >= length)
}

fn batches(is_far: u8, first: Minute, late: u64) -> String {
    format!(r#"{{"source":"s","is_far":{is_far},"first_offset":0,"end_offset":9,"first":{first},"late":{late}}}"#)
        + "\n"
}

/// What is news where the first of some late events is in a minute, and the question for their minutes has an answer.
async fn news(first: Minute, minutes: Result<&'static str, &'static str>) -> Result<News, QueryError> {
    let answer = move |sql: &str| match sql {
        ends if ends.contains("GROUP BY `source`") => Ok(r#"{"source":"s","end":9}"#.to_owned()),
        of_ledger if of_ledger.contains("is_far") => Ok(batches(1, first, 1)),
        _ => minutes.map(str::to_owned),
    };
    let patience = if minutes == Err(SILENCE) { IMPATIENT } else { PATIENT };
    sight(answer).await.look(&fixture::plan(PACK), JUDGED, OLDEST, patience).await.map(Option::unwrap)
}

#[tokio::test]
async fn late_events_whose_minutes_are_too_much_to_ask_for_are_read_with_all_since() {
    let found = news(JUDGED - 500, Ok("{\"minute\":29999500}\n{\"minute\":29999700}\n")).await.unwrap();
    assert_eq!(found.from, Some(JUDGED - NEAR));
    assert!(found.minutes.values().any(|minutes| minutes.iter().eq(&[JUDGED - 500, JUDGED - 300])), "{found:?}");
    for (first, from) in [(JUDGED - 500, JUDGED - 500), (JUDGED - 20_000, OLDEST)] {
        let all = News { from: Some(from), minutes: BTreeMap::new() };
        for error in [TOO_MANY, SILENCE] {
            let begun = Instant::now();
            assert_eq!(news(first, Err(error)).await.unwrap(), all, "{error}");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    }
    assert!(news(JUDGED - 500, Err(BUSY)).await.is_err(), "it passes, and is asked again");
}

/// The ledger gets a batch between the question for ends and the one for batches.
#[tokio::test]
async fn late_events_are_counted_once() {
    let ends = Arc::new(Mutex::new(vec![20, 10]));
    let answer = move |sql: &str| {
        if sql.contains("GROUP BY `source`") {
            return Ok(format!(r#"{{"source":"s","end":{}}}"#, ends.lock().unwrap().pop().unwrap_or(20)));
        }
        let bound = |mark: &str| sql.split_once(mark)?.1.split([' ', ')']).next()?.parse::<u64>().ok();
        let within = bound("`to` > ").unwrap() + 1..=bound("`to` <= ").unwrap_or(u64::MAX);
        let late = [(10, 1), (20, 2)].iter().filter(|(to, _)| within.contains(to)).map(|(_, late)| late).sum();
        Ok(batches(0, JUDGED, late))
    };
    let mut sight = sight(answer).await;
    for late in [1, 3, 3] {
        sight.look(&fixture::plan(PACK), JUDGED, OLDEST, PATIENT).await.unwrap();
        assert_eq!(sight.late(), late);
    }
}

/// All are asked for whoever judges, and none for longer than a question may take.
#[tokio::test]
async fn no_question_is_without_limits() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let answer = move |request: &str| {
        heard.lock().unwrap().push(request.to_owned());
        match request {
            ends if ends.contains("GROUP BY `source`") => Ok(r#"{"source":"s","end":9}"#.to_owned()),
            of_ledger if of_ledger.contains("is_far") => Ok(batches(1, JUDGED - 500, 1)),
            through if through.contains("through") => Ok(r#"{"through":7}"#.to_owned()),
            since if since.contains("written_at") => Ok(r#"{"first":8}"#.to_owned()),
            _ => Ok(String::new()),
        }
    };
    let is_of_minutes = |request: &String| request.contains("DISTINCT");
    let begun = Instant::now();
    // Less than a second may be over before the question for minutes is on its way: then it is not asked.
    while !asked.lock().unwrap().iter().any(is_of_minutes) && begun.elapsed() < PATIENT {
        asked.lock().unwrap().clear();
        let mut sight = sight(answer.clone()).await;
        assert_eq!(sight.through().await.unwrap(), 7);
        assert_eq!(sight.since(0).await.unwrap(), Some(8));
        sight.look(&fixture::plan(PACK), JUDGED, OLDEST, IMPATIENT).await.unwrap();
    }
    let asked = asked.lock().unwrap();
    assert!(asked.len() > 4, "{}", asked.len());
    for request in asked.iter() {
        let limit = |name: &str| request.split_once(&format!("{name}="))?.1.split(['&', ' ']).next();
        let time = if is_of_minutes(request) { "1" } else { "60" };
        assert_eq!(limit("max_execution_time"), Some(time), "{request}");
        assert_eq!(limit("max_memory_usage"), Some("1073741824"), "{request}");
    }
}

/// Then nothing is trusted, and judging begins all the same.
#[tokio::test]
async fn what_came_since_the_last_heartbeat_may_be_too_much_to_ask_for() {
    for (error, timeout) in [(TOO_MANY, PATIENT), (SILENCE, IMPATIENT)] {
        let mut sight = sight(move |_| Err(error)).await;
        sight.client = sight.client.with_timeout(timeout);
        assert_eq!(sight.since(0).await.unwrap(), Some(Minute::MIN), "{error}");
    }
    assert!(sight(|_| Err(BUSY)).await.since(0).await.is_err(), "it passes, and is asked again");
}

#[test]
fn rows_come_in_pieces_that_cover_what_was_asked() {
    let spans = [0..5, 100..40_000, 50_000..Minute::MAX];
    let (mut found, mut most) = (Vec::new(), 0);
    let on = |span: Range<Minute>, rows: Vec<Row>| -> Result<(), QueryError> {
        assert!(rows.iter().all(|row| span.contains(&row.at)));
        most = most.max(rows.len());
        found.push((span, rows.len()));
        Ok(())
    };
    let mut pieces = Pieces { spans: &spans, done: Minute::MIN, rows: Vec::new(), on };
    let row = |at| Row { at, dimensions: Vec::new(), numbers: Vec::new(), distributions: Vec::new() };
    let minutes = || (0..3).chain((100..40_000).step_by(2)).chain([50_000, 50_001]);
    for at in minutes() {
        (0..3).for_each(|_| pieces.take(row(at)).unwrap());
    }
    pieces.flush(Minute::MAX).unwrap();
    drop(pieces);
    assert_eq!(found.iter().map(|(_, rows)| rows).sum::<usize>(), 3 * minutes().count());
    assert!(most < CHUNK + 3 && found.len() > 5, "{most} {}", found.len());
    let mut covered: Vec<Range<Minute>> = Vec::new();
    for (span, _) in found {
        match covered.last_mut() {
            Some(last) if last.end == span.start => last.end = span.end,
            _ => covered.push(span),
        }
    }
    assert_eq!(covered, spans);
}
