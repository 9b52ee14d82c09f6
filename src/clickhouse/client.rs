//! A client for commands: statements, and queries whose rows come as JSON.
//!
//! Nothing here is in the path of events; those go through [`super::store`]. A statement or query may go out on any
//! connection, so the `clickhouse` crate and its pool serve; an insert under a token needs a pinned one.

use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper_util::rt::TokioExecutor;
use serde::de::DeserializeOwned;

use super::connection::Pinned;
use super::endpoint::Endpoint;
use super::error::QueryError;
use super::insert;
use super::sql;
use super::tables::PLANS;
use crate::plan::Plan;

/// Settings under which rows come as JSON without loss: 64-bit integers as numbers, decimals as strings. Questions may name
/// thousands of sources.
const JSON: [(&str, &str); 4] = [
    ("max_query_size", "100000000"),
    ("output_format_json_quote_64bit_integers", "0"),
    ("output_format_json_quote_decimals", "1"),
    ("output_format_json_quote_denormals", "1"),
];

/// What a question may cost the server; beyond, it answers an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// How long it may take there, in whole seconds.
    pub time: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Rows of the answer.
    pub rows: u64,
}

/// Longest row of an answer that comes row by row, bytes.
const LONGEST_ROW: usize = 64 << 20;

/// Asks ClickHouse and waits for the answer.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
}

impl Client {
    /// A client of a server. Nothing is dialed yet.
    pub fn new(endpoint: Endpoint) -> Client {
        Client { endpoint }
    }

    /// The same server with another time-out for questions.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.endpoint.query_timeout = timeout;
        self
    }

    /// The same server, from a session in no particular database: what works before the database is there.
    #[must_use]
    pub fn outside(mut self) -> Client {
        self.endpoint.database.clear();
        self
    }

    /// The server.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The database of all tables.
    pub fn database(&self) -> &str {
        &self.endpoint.database
    }

    /// `database.name`, quoted.
    pub fn table(&self, name: &str) -> String {
        sql::table(&self.endpoint.database, name)
    }

    /// Runs a statement that answers nothing.
    ///
    /// # Errors
    /// The server's error, or that it did not answer.
    pub async fn execute(&self, sql: &str) -> Result<(), QueryError> {
        // A plan or a view may be longer than queries usually are.
        self.ask(sql, &[("max_query_size", "100000000")]).await.map(drop)
    }

    /// The rows of a query, by the names of its columns.
    ///
    /// # Errors
    /// The server's error, that it did not answer, or that a row is not a `T`.
    pub async fn rows<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>, QueryError> {
        let answer = self.ask(sql, &JSON).await?;
        let lines = answer.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(parsed).collect()
    }

    /// Answers the rows of a query one after the other, as they come: none is kept here. The server gives up on it at a limit, and
    /// soon after nobody waits for it any more. `on` may refuse to go on, and may take its time: the time-out is for what is
    /// waited for the server, and the server's limit for what it takes before the first row, as it sends none before it has
    /// all. But a server that nobody takes rows from hangs up after its `http_send_timeout` (30 s).
    ///
    /// # Errors
    /// The server's error, a limit among them; that it did not answer; that a row is not a `T`; what `on` says.
    pub async fn each<T: DeserializeOwned, E: From<QueryError>>(
        &self,
        sql: &str,
        limits: QueryLimits,
        mut on: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let endpoint = &self.endpoint;
        let (time, memory, rows) =
            (limits.time.as_secs().max(1).to_string(), limits.memory.to_string(), limits.rows.to_string());
        let own = [
            // Only what writes nothing is given up with its connection, and a POST does not say that of itself.
            ("readonly", "2"),
            ("cancel_http_readonly_queries_on_client_close", "1"),
            ("max_execution_time", time.as_str()),
            ("timeout_overflow_mode", "throw"),
            ("max_memory_usage", memory.as_str()),
            ("max_result_rows", rows.as_str()),
            ("result_overflow_mode", "throw"),
        ];
        let settings: Vec<(&str, &str)> = JSON.into_iter().chain(own).collect();
        let of = |error| QueryError::of(endpoint, error);
        let mut cursor = self.question(sql, &settings).fetch_bytes("JSONEachRow").map_err(of)?;
        let (mut begun, mut left): (Vec<u8>, Duration) = (Vec::new(), endpoint.query_timeout);
        loop {
            let asked = Instant::now();
            let next = tokio::time::timeout(left, cursor.next()).await;
            left = left.saturating_sub(asked.elapsed());
            let Some(bytes) = next.unwrap_or(Err(clickhouse::error::Error::TimedOut)).map_err(of)? else { break };
            let mut rest = &bytes[..];
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                begun.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                if !begun.is_empty() {
                    on(parsed(&begun)?)?;
                    begun.clear();
                }
            }
            begun.extend_from_slice(rest);
            if begun.len() > LONGEST_ROW {
                return Err(E::from(unexpected::<T>(&begun, &"it is too long")));
            }
        }
        if begun.is_empty() { Ok(()) } else { on(parsed(&begun)?) }
    }

    /// Inserts rows given as JSON lines under a token: a compare-and-set, so that reading back tells who won.
    ///
    /// # Errors
    /// The server's error, or that it did not answer; the rows may be there all the same.
    pub async fn insert(&self, table: &str, token: &str, json_lines: String) -> Result<(), QueryError> {
        let pinned = Pinned::open(&self.endpoint).await?;
        let (pinned, known) = insert::known_settings(pinned).await?;
        let settings = insert::settings(token, false, &known?);
        let sql = format!("INSERT INTO {} FORMAT JSONEachRow", self.table(table));
        let (_, answer) = pinned.insert(&sql, &settings, json_lines).await?;
        Ok(answer.map(drop)?)
    }

    /// Keeps what a plan was made of, under its hash, once.
    ///
    /// # Errors
    /// The server's error, or that it did not answer.
    pub async fn record_plan(&self, plan: &Plan) -> Result<(), QueryError> {
        let json = serde_json::json!({ "sources": plan.sources, "limits": format!("{:?}", plan.limits) }).to_string();
        let (table, hash) = (self.table(PLANS), sql::literal(&plan.hash));
        let unknown = format!("{hash} NOT IN (SELECT hash FROM {table})");
        self.execute(&format!(
            "INSERT INTO {table} (hash, json) SELECT {hash}, {} WHERE {unknown}",
            sql::literal(&json)
        ))
        .await
    }

    async fn ask(&self, sql: &str, settings: &[(&str, &str)]) -> Result<Bytes, QueryError> {
        let endpoint = &self.endpoint;
        let answer = async { self.question(sql, settings).fetch_bytes("JSONEachRow")?.collect().await };
        match tokio::time::timeout(endpoint.query_timeout, answer).await {
            Ok(answer) => answer.map_err(|error| QueryError::of(endpoint, error)),
            Err(_) => Err(QueryError::of(endpoint, clickhouse::error::Error::TimedOut)),
        }
    }

    fn question(&self, sql: &str, settings: &[(&str, &str)]) -> clickhouse::query::Query {
        let endpoint = &self.endpoint;
        // No pool: the client lives for one question.
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(endpoint.dialer.connector());
        let mut client = clickhouse::Client::with_http_client(http)
            .with_url(endpoint.url())
            .with_user(&endpoint.user)
            .with_password(&endpoint.password)
            // An error in the middle of an answer is an error and not its end.
            .with_setting("wait_end_of_query", "1");
        if !endpoint.database.is_empty() {
            client = client.with_database(&endpoint.database);
        }
        for (name, value) in settings {
            client = client.with_setting(*name, *value);
        }
        client.query_raw(sql)
    }
}

fn parsed<T: DeserializeOwned>(line: &[u8]) -> Result<T, QueryError> {
    serde_json::from_slice(line).map_err(|error| unexpected::<T>(line, &error))
}

fn unexpected<T>(line: &[u8], error: &dyn std::fmt::Display) -> QueryError {
    QueryError::Unexpected {
        expected: std::any::type_name::<T>(),
        answer: format!("{} ({error})", String::from_utf8_lossy(&line[..line.len().min(300)])),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(500);
    /// Of a server that is not late, before each row.
    const SHORT: Duration = Duration::from_millis(20);

    /// What came of a question.
    struct Each {
        taken: usize,
        /// How long nobody was at taking a row.
        waited: Duration,
        answer: Result<(), QueryError>,
    }

    /// A ClickHouse that sends so many rows, each after a pause once all before it were taken, and then says no more.
    async fn client(rows: usize, pause: Duration, ends: bool, taken: Arc<Semaphore>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut vec![0; 65_536]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
            for _ in 0..rows {
                tokio::time::sleep(pause).await;
                stream.write_all(b"2\r\n7\n\r\n").await.unwrap();
                taken.acquire().await.unwrap().forget();
            }
            if ends {
                tokio::time::sleep(pause).await;
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        });
        Client::new(Endpoint::new(&url, "d", "u", "").unwrap()).with_timeout(TIMEOUT)
    }

    /// Asks for so many rows, and takes so long for each.
    async fn each(rows: usize, pause: Duration, ends: bool, takes: Duration) -> Each {
        let gate = Arc::new(Semaphore::new(0));
        let client = client(rows, pause, ends, gate.clone()).await;
        let limits = QueryLimits { time: TIMEOUT, memory: 1, rows: 1 };
        let (mut taken, mut taking, begun) = (0, Duration::ZERO, Instant::now());
        let on = |row: u64| {
            let came = Instant::now();
            assert_eq!(row, 7);
            std::thread::sleep(takes);
            (taken, taking) = (taken + 1, taking + came.elapsed());
            gate.add_permits(1);
            Ok(())
        };
        let answer = client.each("SELECT 7", limits, on).await;
        Each { taken, waited: begun.elapsed() - taking, answer }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_takes_rows_slowly_does_not_make_the_server_late() {
        for _ in 0..60 {
            // Together twice the time-out, of which little is waited for the server.
            let Each { taken, waited, answer } = each(5, SHORT, true, TIMEOUT * 2 / 5).await;
            // Unless the machine stood still: then it was late indeed.
            if waited < TIMEOUT || answer.is_ok() {
                assert!(taken == 5 && answer.is_ok(), "{taken} {answer:?}, of which {waited:?} were waited");
                return;
            }
        }
        panic!("the server was late each time");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_server_that_is_late_is_late_in_the_middle_of_an_answer_too() {
        for (rows, pause) in [(0, Duration::ZERO), (2, Duration::ZERO), (100, TIMEOUT / 5)] {
            let Each { taken, answer, .. } = each(rows, pause, false, Duration::ZERO).await;
            assert!(taken <= rows.min(5), "{taken}");
            assert!(matches!(answer, Err(QueryError::Broken(broken)) if broken.is_late), "{rows}");
        }
    }
}
