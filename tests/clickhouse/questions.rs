//! Questions whose answers come row by row, and their limits.

use std::time::{Duration, Instant};

use highwater::clickhouse::{Client, QueryError, QueryLimits};
use serde::Deserialize;

use crate::fixture::{endpoint, server};

#[derive(Deserialize)]
struct Row {
    number: u64,
}

const LIMITS: QueryLimits = QueryLimits { time: Duration::from_secs(60), memory: 1 << 30, rows: 10_000_000 };

fn code(error: &QueryError) -> u32 {
    match error {
        QueryError::Server(error) if error.is_limit() => error.code,
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_one_by_one_and_in_their_order() {
    let client = Client::new(endpoint(server(), "default"));
    let (mut count, mut sum) = (0, 0);
    let mut add = |row: Row| -> Result<(), QueryError> {
        assert_eq!(row.number, count);
        (count, sum) = (count + 1, sum + row.number);
        Ok(())
    };
    client.each("SELECT number FROM numbers(300000)", LIMITS, &mut add).await.unwrap();
    assert_eq!((count, sum), (300_000, 300_000 * 299_999 / 2));
    let nothing = client.each("SELECT number FROM numbers(0)", LIMITS, |_: Row| -> Result<(), QueryError> { panic!() });
    nothing.await.unwrap();
    let other = client.each("SELECT 'x' AS number", LIMITS, |_: Row| -> Result<(), QueryError> { Ok(()) }).await;
    assert!(matches!(other, Err(QueryError::Unexpected { .. })), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_ends_at_each_of_its_limits() {
    let client = Client::new(endpoint(server(), "default"));
    let ask = async |sql: &str, limits: QueryLimits| {
        let error = client.each(sql, limits, |_: Row| -> Result<(), QueryError> { Ok(()) }).await.unwrap_err();
        code(&error)
    };
    assert_eq!(ask("SELECT number FROM numbers(2000)", QueryLimits { rows: 1_000, ..LIMITS }).await, 396);
    let wide = "SELECT max(c) AS number FROM (SELECT number % 5000000 AS key, count() AS c FROM numbers(5000000) GROUP BY key)";
    assert_eq!(ask(wide, QueryLimits { memory: 20 << 20, ..LIMITS }).await, 241);
    let long = "SELECT sum(sleepEachRow(0.1)) AS number FROM numbers(100) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 60000000";
    let begun = Instant::now();
    assert_eq!(ask(long, QueryLimits { time: Duration::from_secs(1), ..LIMITS }).await, 159);
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}

/// Neither the server's limit nor ours is for the time that rows wait to be taken: it has all before it sends the first.
#[tokio::test(flavor = "multi_thread")]
async fn who_takes_rows_slowly_hits_no_limit() {
    let limits = QueryLimits { time: Duration::from_secs(10), ..LIMITS };
    let client = Client::new(endpoint(server(), "default")).with_timeout(Duration::from_secs(12));
    let mut count = 0;
    // More than sockets hold.
    let slow = |row: Row| -> Result<(), QueryError> {
        assert_eq!(row.number, count);
        count += 1;
        if count == 1 || count == 500_000 {
            std::thread::sleep(Duration::from_secs(13));
        }
        Ok(())
    };
    client.each("SELECT number FROM numbers(1000000)", limits, slow).await.unwrap();
    assert_eq!(count, 1_000_000);
}

/// Whoever asks has gone: the server does not go on for nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_waits_for_ends() {
    let client = Client::new(endpoint(server(), "default"));
    let limits = QueryLimits { time: Duration::from_secs(300), ..LIMITS };
    // Only what has begun can end: a busy server may do so late.
    for patience in [1, 4, 16].map(Duration::from_secs) {
        let mark = format!("nobody-waits-for-this-{}", patience.as_secs());
        let sql = format!(
            "SELECT sum(sleepEachRow(0.1)) AS number FROM numbers(3000) WHERE '{mark}' != '' SETTINGS max_block_size = 1, \
             function_sleep_max_microseconds_per_block = 60000000"
        );
        let hasty = client.clone().with_timeout(patience);
        let asking = hasty.each(&sql, limits, |_: Row| -> Result<(), QueryError> { Ok(()) });
        let (asked, ran) = futures::join!(asking, comes_to(&client, &mark, 1, patience));
        assert!(matches!(asked, Err(QueryError::Broken(_))), "{asked:?}");
        // Far sooner than by itself.
        assert!(comes_to(&client, &mark, 0, Duration::from_secs(20)).await, "it goes on");
        if ran {
            return;
        }
    }
    panic!("it never ran");
}

/// Whether so many questions with this mark run, at some moment within a time.
async fn comes_to(client: &Client, mark: &str, count: u64, time: Duration) -> bool {
    let running = format!(
        "SELECT count() AS number FROM system.processes WHERE query LIKE '%{mark}%' AND query NOT LIKE '%processes%'"
    );
    let begun = Instant::now();
    while begun.elapsed() < time {
        let rows: Vec<Row> = client.rows(&running).await.unwrap();
        if rows[0].number == count {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}
