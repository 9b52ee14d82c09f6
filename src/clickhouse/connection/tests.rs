//! The connection against a server of a few lines that counts who dials.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// What the server does with a request.
#[derive(Clone, Copy)]
enum Act {
    Answer(&'static str),
    Close,
    CloseAfter(&'static str),
    Silence,
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n1\n";
const ERROR: &str = "HTTP/1.1 200 OK\r\nX-ClickHouse-Exception-Code: 241\r\nContent-Length: 6\r\n\r\nmemory";
const PROXY: &str = "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 4\r\n\r\nlate";
const CUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
const HANG_UP: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n1\n";

/// How long an answer is waited for that comes, and one that never does.
const PATIENT: Duration = Duration::from_secs(60);
const IMPATIENT: Duration = Duration::from_millis(200);

struct Server {
    endpoint: Endpoint,
    dialed: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

/// Every connection goes through `acts`, one a request.
async fn serve(acts: &'static [Act]) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut endpoint = Endpoint::new(&url, "d b", "me", "pass").unwrap();
    let is_silent = acts.iter().any(|act| matches!(act, Act::Silence));
    let timeout = if is_silent { IMPATIENT } else { PATIENT };
    (endpoint.connect_timeout, endpoint.query_timeout, endpoint.insert_timeout) = (PATIENT, timeout, timeout);
    let (dialed, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (dials, asks) = (dialed.clone(), asked.clone());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            dials.fetch_add(1, Ordering::SeqCst);
            let asks = asks.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 65_536];
                for act in acts {
                    let read = stream.read(&mut buffer).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    asks.fetch_add(1, Ordering::SeqCst);
                    let head = String::from_utf8_lossy(&buffer[..read]).to_lowercase();
                    assert!(head.starts_with("post /?database=d%20b&wait_end_of_query=1"), "{head}");
                    assert!(head.contains("x-clickhouse-user: me\r\nx-clickhouse-key: pass\r\n"), "{head}");
                    match act {
                        Act::Answer(text) => stream.write_all(text.as_bytes()).await.unwrap(),
                        Act::CloseAfter(text) => {
                            stream.write_all(text.as_bytes()).await.unwrap();
                            return;
                        }
                        Act::Close => return,
                        Act::Silence => tokio::time::sleep(Duration::from_secs(60)).await,
                    }
                }
            });
        }
    });
    Server { endpoint, dialed, asked }
}

impl Server {
    fn counts(&self) -> (usize, usize) {
        (self.dialed.load(Ordering::SeqCst), self.asked.load(Ordering::SeqCst))
    }
}

/// Waits until something is so that the other side sees in its own time; whoever waits in vain finds out what is not so.
async fn until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() && begun.elapsed() < PATIENT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn many_requests_share_one_dial() {
    let server = serve(&[Act::Answer(OK), Act::Answer(ERROR), Act::Answer(OK)]).await;
    let pinned = Pinned::open(&server.endpoint).await.unwrap();
    let id = pinned.id();
    let (pinned, answer) = pinned.query("SELECT 1", &[]).await.unwrap();
    assert_eq!(answer.unwrap(), "1\n");
    // An error of the server under a status of 200 is an error, and leaves the connection whole.
    let (pinned, answer) = pinned.insert("INSERT", &[("a", "b&c")], Bytes::new()).await.unwrap();
    assert_eq!(answer.unwrap_err(), ServerError { code: 241, text: "memory".into() });
    let (pinned, _) = pinned.query("SELECT 1", &[]).await.unwrap();
    assert_eq!(pinned.id(), id);
    assert_eq!(server.counts(), (1, 3));
}

#[tokio::test]
async fn every_break_is_the_end_and_nothing_is_sent_twice() {
    const SCRIPTS: [(&str, &[Act]); 5] = [
        ("closed without an answer", &[Act::Close]),
        ("silence", &[Act::Silence]),
        ("half an answer", &[Act::CloseAfter(CUT)]),
        ("a proxy's error", &[Act::Answer(PROXY)]),
        ("no HTTP", &[Act::CloseAfter("nonsense\r\n\r\n")]),
    ];
    for (name, acts) in SCRIPTS {
        let server = serve(acts).await;
        let pinned = Pinned::open(&server.endpoint).await.unwrap();
        let error = pinned.insert("INSERT INTO t FORMAT Native", &[], Bytes::from_static(b"x")).await.unwrap_err();
        assert!(error.to_string().contains(&server.endpoint.authority()), "{error}");
        // The one request may still be on its way, and another would come soon after.
        until(|| server.counts() >= (1, 1)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(server.counts(), (1, 1), "{name}: {error}");
    }
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_not_dialed_again() {
    for acts in [&[Act::CloseAfter(OK)][..], &[Act::Answer(HANG_UP), Act::Answer(OK)]] {
        let server = serve(Box::leak(acts.to_vec().into_boxed_slice())).await;
        let (pinned, _) = Pinned::open(&server.endpoint).await.unwrap().query("SELECT 1", &[]).await.unwrap();
        until(|| pinned.is_closed()).await;
        assert!(pinned.is_closed());
        pinned.insert("INSERT", &[], Bytes::new()).await.unwrap_err();
        assert_eq!(server.counts(), (1, 1));
    }
}

#[tokio::test]
async fn two_connections_have_two_numbers_and_nobody_listening_is_an_error() {
    let server = serve(&[Act::Answer(OK)]).await;
    let (a, b) = (Pinned::open(&server.endpoint).await.unwrap(), Pinned::open(&server.endpoint).await.unwrap());
    assert_ne!(a.id(), b.id());
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = Endpoint::new(&format!("http://{unused}"), "d", "u", "p").unwrap();
    let error = Pinned::open(&nobody).await.unwrap_err().to_string();
    assert!(error.contains("can't connect") && error.contains(&unused.to_string()), "{error}");
}
