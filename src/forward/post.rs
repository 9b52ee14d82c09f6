//! One request, and what its answer means.
//!
//! Every request dials its own connection, as those to the schema registry do: alerts are few, and no connection is kept
//! that could have gone stale.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;

use super::address::Address;

/// Longest answer that is read, bytes.
const LONGEST: usize = 64 << 10;
/// How long the rest of an answer is waited for, once its status is there.
const REST: Duration = Duration::from_secs(1);
/// How much of an answer is told, bytes.
const TOLD: usize = 300;
/// The longest pause that a target may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    /// What is in it, for logs.
    pub(super) name: String,
    /// The same whenever the same comes again, so that a receiver can tell; `None`: what it says changes.
    pub(super) key: Option<String>,
    /// JSON.
    pub(super) body: Bytes,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has it.
    Taken,
    /// It says that it will not take this message: why.
    Refused(String),
    /// It did not take it now.
    Failed(Failure),
}

/// Why a target did not take what it may take later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// In words.
    pub(super) reason: String,
    /// How long it asks us to wait.
    pub(super) pause: Option<Duration>,
    /// It answered, if only that.
    pub(super) is_answer: bool,
    /// It answered that it failed (5xx): perhaps at this message alone.
    pub(super) is_fault: bool,
}

impl Failure {
    /// One without an answer.
    pub(super) fn of(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), pause: None, is_answer: false, is_fault: false }
    }
}

/// Posts once.
pub(super) async fn post(address: &Address, parcel: &Parcel, timeout: Duration) -> Answer {
    match send(address, parcel, timeout).await {
        Ok((status, headers, body)) => judge(address, status, &headers, &body, Timestamp::now()),
        Err(what) => Answer::Failed(Failure::of(what)),
    }
}

async fn send(address: &Address, parcel: &Parcel, timeout: Duration) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&address.path)
        .header(HOST, &address.authority)
        .header(USER_AGENT, concat!("highwater/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json");
    if let Some(key) = &parcel.key {
        request = request.header("Idempotency-Key", key);
    }
    if let Some(authorization) = &address.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let request = request.body(Full::new(parcel.body.clone())).map_err(|_| "the URL can't be asked for".to_owned())?;
    let read = async |response: Response<Incoming>| {
        let (parts, body) = response.into_parts();
        // What it did, its status says; an answer that is too long, breaks off or does not end changes nothing of that.
        if parts.status.is_success() {
            return Ok((parts.status, parts.headers, Bytes::new()));
        }
        let body = tokio::time::timeout(REST, Limited::new(body, LONGEST).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Ok((parts.status, parts.headers, body))
    };
    address.dialer.exchange(&address.url(), request, timeout, read).await
}

/// Only what is wrong with the message itself is refused for good. Whoever moved, lost a token or stands behind a proxy that is
/// not ready takes it once that is mended.
fn judge(address: &Address, status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Answer {
    let refuses = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::UNPROCESSABLE_ENTITY];
    let is_fault = status.is_server_error();
    if status.is_success() {
        return Answer::Taken;
    }
    if refuses.contains(&status) {
        return Answer::Refused(format!("it answered {status}{}", told(address, body)));
    }
    let setting = address.setting;
    let more = match status {
        _ if is_fault => told(address, body),
        _ if status.is_redirection() => format!("; redirections are not followed: name where it leads in {setting}"),
        // It is there, and asks us to come later.
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => String::new(),
        _ => format!("; is {setting} right, and are we let in with it?"),
    };
    let pause = headers.get(RETRY_AFTER).and_then(|after| pause(after.to_str().ok()?, now));
    Answer::Failed(Failure { reason: format!("it answered {status}{more}"), pause, is_answer: true, is_fault })
}

/// What an answer says, unless it repeats a part of the address.
fn told(address: &Address, body: &[u8]) -> String {
    // All of it is looked at: a secret that is cut off is one too.
    if address.is_told_by(&String::from_utf8_lossy(body)) {
        return " (what else it said repeats a part of the URL, and is not shown)".to_owned();
    }
    let body = String::from_utf8_lossy(&body[..body.len().min(TOLD)]);
    let body: String = body.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if body.is_empty() { body } else { format!(": {body}") }
}

/// `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn pause(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::{Kind, addresses};
    use super::*;
    use crate::tls::TlsFiles;

    fn judged(status: u16, after: Option<&str>, body: &str) -> Answer {
        let url = "http://user:p4ss@h/services/T0/s3cr3t?token=abcd1234";
        let address = &addresses(Kind::Slack, url, &TlsFiles::default()).unwrap()[0];
        let headers = after.map(|after| (RETRY_AFTER, after.parse().unwrap())).into_iter().collect();
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        judge(address, StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
    }

    fn reason(answer: Answer) -> String {
        match answer {
            Answer::Refused(reason) | Answer::Failed(Failure { reason, .. }) => reason,
            Answer::Taken => unreachable!(),
        }
    }

    #[test]
    fn an_answer_says_taken_refused_or_again() {
        for status in [200, 201, 202, 204] {
            assert_eq!(judged(status, None, "whatever"), Answer::Taken);
        }
        for status in [400, 413, 422] {
            assert!(matches!(judged(status, Some("5"), "no"), Answer::Refused(_)), "{status}");
        }
        for status in [300, 301, 302, 307, 308, 401, 402, 403, 404, 405, 408, 409, 410, 421, 425, 429, 451] {
            let answer = judged(status, None, "no");
            assert!(matches!(answer, Answer::Failed(Failure { pause: None, is_fault: false, .. })), "{status}");
        }
        for status in [500, 501, 502, 503, 504] {
            assert!(matches!(judged(status, None, ""), Answer::Failed(Failure { is_fault: true, .. })), "{status}");
        }
        assert_eq!(
            reason(judged(404, None, "no hook")),
            "it answered 404 Not Found; is forward.slack_url right, and are we let in with it?"
        );
        assert!(reason(judged(302, None, "")).ends_with("name where it leads in forward.slack_url"));
    }

    #[test]
    fn what_it_says_beside_is_told_unless_it_repeats_the_address() {
        for status in [400, 413, 422, 500, 503] {
            let told = reason(judged(status, None, " no\u{1b}\nhook "));
            assert!(told.starts_with("it answered ") && told.ends_with(": no  hook"), "{told}");
        }
        for status in [302, 401, 403, 404, 405, 410, 429] {
            let told = reason(judged(status, None, "no hook"));
            assert!(!told.contains("no hook"), "{told}");
        }
        let long = reason(judged(400, None, &"é".repeat(1_000)));
        assert!(long.chars().count() < 200, "{long}");
        let far = format!("{} /services", "x".repeat(TOLD));
        // A part that the end of what is told cuts in two.
        let cut = format!("{}s3cr3t", "x".repeat(TOLD - 3));
        for body in ["Cannot POST /services/T0/s3cr3t", "S3CR3T", "token abcd1234", "user", "p4ss", &far, &cut] {
            let told = reason(judged(400, None, body));
            let expected =
                "it answered 400 Bad Request (what else it said repeats a part of the URL, and is not shown)";
            assert_eq!(told, expected, "{body}");
        }
    }

    #[test]
    fn a_pause_that_is_asked_for_is_seconds_or_a_date() {
        let after = |text: &str| match judged(429, Some(text), "") {
            Answer::Failed(Failure { pause, .. }) => pause.map(|pause| pause.as_secs()),
            _ => unreachable!(),
        };
        for (text, seconds) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("999999999", Some(3_600)),
            ("99999999999999999999999", None),
            ("-5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(after(text), seconds, "{text:?}");
        }
    }

    /// It says a status, begins a body, and then nothing any more, or hangs up.
    async fn unfinished(status: &'static str, hangs_up: bool) -> Answer {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: 10\r\n\r\nabc");
                stream.write_all(head.as_bytes()).await.unwrap();
                if !hangs_up {
                    kept.push(stream);
                }
            }
        });
        let address = &addresses(Kind::Webhook, &url, &TlsFiles::default()).unwrap()[0];
        let parcel = Parcel { name: String::new(), key: None, body: Bytes::from_static(b"{}") };
        post(address, &parcel, Duration::from_secs(3)).await
    }

    #[tokio::test]
    async fn a_status_counts_though_the_body_does_not_end() {
        for hangs_up in [false, true] {
            assert_eq!(unfinished("200 OK", hangs_up).await, Answer::Taken);
            assert_eq!(reason(unfinished("400 Bad Request", hangs_up).await), "it answered 400 Bad Request");
            let failed = unfinished("503 Service Unavailable", hangs_up).await;
            assert!(matches!(failed, Answer::Failed(Failure { is_fault: true, .. })), "{failed:?}");
        }
    }
}
