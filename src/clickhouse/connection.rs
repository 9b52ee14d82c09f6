//! One connection to ClickHouse, TCP or TLS over it, that is dialed once and never again.
//!
//! An insert may go out only on a connection that was opened before its mark was asked: when the server is killed
//! between writing a part and remembering its token, the connection dies with it, and so does the right to repeat the
//! insert unasked. HTTP clients with a pool reconnect in silence, so this one has none. [`Pinned`] is used up by each
//! request and comes back only with an answer; whoever holds one holds the very connection that was dialed.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::{Method, Request, Response, StatusCode, Uri};
use tokio::task::JoinHandle;

use super::body::Pieces;
use super::endpoint::Endpoint;
use super::error::{Broken, ServerError};
use super::sql::percent;
use crate::ports::Connection;

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Longest error text that is kept, bytes.
const ERROR_TEXT: usize = 2_000;

/// An open connection. It has no way to dial, and dropping it closes it.
#[derive(Debug)]
pub struct Pinned {
    id: Connection,
    endpoint: Endpoint,
    sender: SendRequest<Pieces>,
    driver: Driver,
}

/// The task that moves the connection's bytes. The socket closes with it at once, also in the middle of a request.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The connection, still open, and the server's answer on it.
pub type Answered = (Pinned, Result<Bytes, ServerError>);

impl Pinned {
    /// Dials once.
    ///
    /// # Errors
    /// [`Broken`] where the server can't be reached within the time-out.
    pub async fn open(endpoint: &Endpoint) -> Result<Pinned, Broken> {
        let dial = async {
            let uri: Uri = endpoint.url().parse().map_err(|_| "the host is no host name".to_owned())?;
            let stream = endpoint.dialer.dial(uri).await?;
            http1::handshake(stream).await.map_err(|e| describe(endpoint, &e))
        };
        let (sender, connection) = within(endpoint.connect_timeout, "connecting", dial)
            .await
            .map_err(|what| broken(endpoint, format!("can't connect: {what}")))?;
        let driver = Driver(tokio::spawn(async move {
            // What ends the connection shows in the request that it interrupts, or in the next one.
            let _ = connection.await;
        }));
        let id = Connection(NEXT.fetch_add(1, Ordering::Relaxed));
        Ok(Pinned { id, endpoint: endpoint.clone(), sender, driver })
    }

    /// Its number, which no other connection of this process has.
    pub fn id(&self) -> Connection {
        self.id
    }

    /// Asks `sql`; the answer comes in the format that `sql` names, whole.
    ///
    /// # Errors
    /// [`Broken`] where no whole answer came within the time-out; the connection is gone then.
    pub async fn query(self, sql: &str, settings: &[(&str, &str)]) -> Result<Answered, Broken> {
        let (path, timeout) = (self.path(None, settings), self.endpoint.query_timeout);
        self.send(path, sql.to_owned().into(), timeout).await
    }

    /// Sends `sql`, which is an `INSERT … FORMAT …`, with `body` as its data.
    ///
    /// # Errors
    /// [`Broken`] where no whole answer came within the time-out: the connection is gone, and the insert may have
    /// happened, may yet happen, or may never happen.
    pub async fn insert(
        self,
        sql: &str,
        settings: &[(&str, &str)],
        body: impl Into<Pieces>,
    ) -> Result<Answered, Broken> {
        let (path, timeout) = (self.path(Some(sql), settings), self.endpoint.insert_timeout);
        self.send(path, body.into(), timeout).await
    }

    fn path(&self, sql: Option<&str>, settings: &[(&str, &str)]) -> String {
        // With `wait_end_of_query` the answer is held back until it is complete, so that an error comes as a status and
        // not behind half an answer.
        let mut path = format!("/?database={}&wait_end_of_query=1", percent(&self.endpoint.database));
        for (name, value) in settings.iter().copied().chain(sql.map(|sql| ("query", sql))) {
            path.push_str(&format!("&{}={}", percent(name), percent(value)));
        }
        path
    }

    async fn send(mut self, path: String, body: Pieces, timeout: Duration) -> Result<Answered, Broken> {
        let endpoint = self.endpoint.clone();
        let exchange = async {
            let request = Request::builder()
                .method(Method::POST)
                .uri(path)
                .header(HOST, endpoint.authority())
                .header("X-ClickHouse-User", &endpoint.user)
                .header("X-ClickHouse-Key", &endpoint.password)
                .header(CONTENT_LENGTH, body.bytes())
                .body(body)
                .map_err(|e| e.to_string())?;
            self.sender.ready().await.map_err(|e| describe(&endpoint, &e))?;
            let response = self.sender.send_request(request).await.map_err(|e| describe(&endpoint, &e))?;
            read(&endpoint, response).await
        };
        match within(timeout, "waiting for the answer", exchange).await {
            Ok(answer) => Ok((self, answer)),
            // `self` ends here, and with it the socket.
            Err(what) => Err(broken(&endpoint, what)),
        }
    }

    /// Whether the server has closed it meanwhile, as it does with one that is long idle.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed() || self.driver.0.is_finished()
    }
}

/// The whole answer; the outer error is a broken connection.
async fn read(
    endpoint: &Endpoint,
    response: Response<hyper::body::Incoming>,
) -> Result<Result<Bytes, ServerError>, String> {
    let status = response.status();
    let code = response.headers().get("X-ClickHouse-Exception-Code");
    let code: Option<u32> = code.and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    let body = response.into_body().collect().await.map_err(|e| describe(endpoint, &e))?.to_bytes();
    match code {
        None if status == StatusCode::OK => Ok(Ok(body)),
        // Something between us and ClickHouse answered: what ClickHouse did is as unknown as behind a lost connection.
        None => Err(format!("HTTP status {status} without a ClickHouse error code: {}", shorten(&body))),
        Some(code) => Ok(Err(ServerError { code, text: shorten(&body) })),
    }
}

fn shorten(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(ERROR_TEXT)]).trim().to_owned()
}

async fn within<T>(
    timeout: Duration,
    doing: &str,
    future: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let late = || format!("timed out after {} s while {doing}", timeout.as_secs_f64());
    tokio::time::timeout(timeout, future).await.unwrap_or_else(|_| Err(late()))
}

/// hyper's errors name their cause only in their sources; one of those may be TLS, which is heard of only here if the
/// server wants a certificate of ours.
fn describe(endpoint: &Endpoint, error: &hyper::Error) -> String {
    let said = endpoint.dialer.explain(error);
    if error.is_parse() { format!("{said}; does clickhouse.url want https:// or another port?") } else { said }
}

fn broken(endpoint: &Endpoint, what: String) -> Broken {
    Broken { authority: endpoint.authority(), what, is_late: false }
}

#[cfg(test)]
mod tests;
