//! An HTTP server that does what a script says: it answers with a status, late, or hangs up.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::Value;

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum Then {
    /// It is answered with a status, further lines of the head, and a body.
    Answer(u16, &'static str, &'static str),
    /// It is answered well, so much later.
    Late(Duration),
    /// The connection is cut when the request was read.
    HangUp,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub head: String,
    pub body: Value,
    /// Whether it was answered with 200.
    pub is_taken: bool,
}

pub struct Receiver {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    script: Arc<Mutex<VecDeque<Then>>>,
    always: Arc<Mutex<Then>>,
}

const FINE: Then = Then::Answer(200, "", "ok");

impl Receiver {
    pub fn start() -> Receiver {
        Receiver::with(None)
    }

    /// Under TLS, if there is a certificate to show.
    pub fn with(tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver =
            Receiver { port, requests: Arc::default(), script: Arc::default(), always: Arc::new(Mutex::new(FINE)) };
        let (requests, script, always) =
            (Arc::clone(&receiver.requests), Arc::clone(&receiver.script), Arc::clone(&receiver.always));
        std::thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                let (requests, script, always) = (Arc::clone(&requests), Arc::clone(&script), Arc::clone(&always));
                let tls = tls.clone();
                std::thread::spawn(move || {
                    let then = || script.lock().unwrap().pop_front().unwrap_or_else(|| always.lock().unwrap().clone());
                    // Whoever does not trust us, or is killed, hangs up.
                    let _ = match tls {
                        None => serve(stream, &requests, then),
                        Some(config) => {
                            let connection = rustls::ServerConnection::new(config).unwrap();
                            serve(rustls::StreamOwned::new(connection, stream), &requests, then)
                        }
                    };
                });
            }
        });
        receiver
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What becomes of the next requests, before all is well.
    pub fn then(&self, script: &[Then]) {
        self.script.lock().unwrap().extend(script.iter().cloned());
    }

    /// What becomes of all others.
    pub fn always(&self, then: Then) {
        *self.always.lock().unwrap() = then;
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// Bodies of what was taken.
    pub fn taken(&self) -> Vec<Value> {
        self.requests().into_iter().filter(|request| request.is_taken).map(|request| request.body).collect()
    }
}

fn serve<S: Read + Write>(
    stream: S,
    requests: &Mutex<Vec<Request>>,
    then: impl FnOnce() -> Then,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let head = head.to_lowercase();
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let body = serde_json::from_slice(&body).unwrap();
    let then = then();
    let is_taken = matches!(then, Then::Answer(200, ..));
    requests.lock().unwrap().push(Request { path, head, body, is_taken });
    let (status, lines, body) = match then {
        Then::Answer(status, lines, body) => (status, lines, body),
        Then::Late(time) => {
            std::thread::sleep(time);
            (200, "", "ok")
        }
        Then::HangUp => return Ok(()),
    };
    let mut stream = reader.into_inner();
    write!(stream, "HTTP/1.1 {status} X\r\n{lines}Content-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())?;
    stream.flush()
}

/// A port that nobody listens on.
pub fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether something listens.
pub fn is_up(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}
