//! The smallest blocking HTTP client that tests and probes need: one request,
//! one connection, HTTP/1.0 (so that no answer comes in chunks).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

/// An answer of any status.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 when all is well.
    pub status: u16,
    /// The body, with anything that is not UTF-8 replaced.
    pub body: String,
}

/// Sends `body` with `method` to `target` (path and query) at a port of
/// 127.0.0.1. `timeout` bounds the connecting and each wait for bytes.
///
/// # Errors
/// Nobody listens, the time is over, or the answer is not HTTP.
pub fn request(port: u16, method: &str, target: &str, body: &str, timeout: Duration) -> Result<Response> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let length = body.len();
        let message =
            format!("{method} {target} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}");
        stream.write_all(message.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().with_context(|| format!("no answer of http://{address}{target}"))?;
    parse(&String::from_utf8_lossy(&answer))
        .with_context(|| format!("http://{address}{target} answered something that is not HTTP"))
}

fn parse(answer: &str) -> Option<Response> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut first_line = head.lines().next()?.split(' ');
    let status = first_line.next().filter(|version| version.starts_with("HTTP/1.")).and_then(|_| first_line.next())?;
    Some(Response { status: status.parse().ok()?, body: body.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_and_body() {
        let response = parse("HTTP/1.1 404 Not Found\r\nA: b\r\n\r\nno\r\n\r\nsuch").unwrap();
        assert_eq!(response.status, 404);
        assert_eq!(response.body, "no\r\n\r\nsuch");
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for answer in ["", "HTTP/1.1 200 OK", "SSH-2.0-x 1\r\n\r\n", "HTTP/1.1 x\r\n\r\n"] {
            assert_eq!(parse(answer), None, "{answer:?}");
        }
    }

    #[test]
    fn a_closed_port_is_an_error_that_names_it() {
        let [port] = crate::port::free().unwrap();
        let error = request(port, "GET", "/ping", "", Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains(&format!("127.0.0.1:{port}/ping")));
    }
}
