//! One request, and what its answer means.
//!
//! Every request dials its own connection, as those to the schema registry do: alerts are few, and no connection is kept
//! that could have gone stale.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Uri};
use jiff::Timestamp;

use super::address::Address;

/// Longest answer that is read, bytes.
const LONGEST: usize = 64 << 10;
/// How much of an answer is told, bytes.
const TOLD: usize = 300;
/// The longest pause that a target may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What is posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    /// Names the message for logs: the alert's id and the number.
    pub(super) name: String,
    /// JSON.
    pub(super) body: Bytes,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has it.
    Taken,
    /// It says that it will not take that: why.
    Refused(String),
    /// It did not take it now: why, and how long it asks us to wait.
    Failed(String, Option<Duration>),
}

/// Posts once.
pub(super) async fn post(address: &Address, parcel: &Parcel, timeout: Duration) -> Answer {
    match tokio::time::timeout(timeout, send(address, parcel)).await {
        Ok(Ok((status, headers, body))) => judge(status, &headers, &body, Timestamp::now()),
        Ok(Err(what)) => Answer::Failed(what, None),
        Err(_) => Answer::Failed(format!("no answer within {} s", timeout.as_secs_f64()), None),
    }
}

async fn send(address: &Address, parcel: &Parcel) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&address.path)
        .header(HOST, &address.authority)
        .header(USER_AGENT, concat!("highwater/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        // The same whenever it comes again, so that a receiver can tell.
        .header("Idempotency-Key", &parcel.name);
    if let Some(authorization) = &address.authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    let request = request.body(Full::new(parcel.body.clone())).map_err(|_| "the URL can't be asked for".to_owned())?;
    let uri: Uri = address.url().parse().map_err(|_| "the host is no host name".to_owned())?;
    let stream = address.dialer.dial(uri).await?;
    let said = |error: hyper::Error| address.dialer.explain(&error);
    let (mut sender, connection) = http1::handshake(stream).await.map_err(said)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(said)?;
        let (parts, body) = response.into_parts();
        // What it did, its status says; an answer that is too long or breaks off changes nothing of that.
        let body = Limited::new(body, LONGEST).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Ok((parts.status, parts.headers, body))
    };
    // The connection moves only while it is polled, and ends with this request.
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(said(error)),
        },
    }
}

fn judge(status: StatusCode, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Answer {
    let said = || {
        let body = String::from_utf8_lossy(&body[..body.len().min(TOLD)]);
        let body: String = body.trim().chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        format!("it answered {status}{}", if body.is_empty() { String::new() } else { format!(": {body}") })
    };
    let passes = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    match status {
        status if status.is_success() => Answer::Taken,
        status if status.is_server_error() || passes.contains(&status) => {
            Answer::Failed(said(), headers.get(RETRY_AFTER).and_then(|after| pause(after.to_str().ok()?, now)))
        }
        status if status.is_redirection() => {
            Answer::Refused(format!("{}; redirections are not followed, so name where it leads", said()))
        }
        _ => Answer::Refused(said()),
    }
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
    use super::*;

    fn judged(status: u16, after: Option<&str>, body: &str) -> Answer {
        let headers = after.map(|after| (RETRY_AFTER, after.parse().unwrap())).into_iter().collect();
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        judge(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
    }

    #[test]
    fn an_answer_says_taken_refused_or_again() {
        for status in [200, 201, 202, 204] {
            assert_eq!(judged(status, None, "whatever"), Answer::Taken);
        }
        for status in [301, 302, 307, 308, 400, 401, 403, 404, 405, 410, 413, 422, 451] {
            assert!(matches!(judged(status, Some("5"), "no"), Answer::Refused(_)), "{status}");
        }
        for status in [408, 425, 429, 500, 501, 502, 503, 504] {
            assert!(matches!(judged(status, None, ""), Answer::Failed(_, None)), "{status}");
        }
        assert_eq!(
            judged(404, None, " no\u{1b}\nhook "),
            Answer::Refused("it answered 404 Not Found: no  hook".into())
        );
        let Answer::Refused(long) = judged(400, None, &"é".repeat(1_000)) else { unreachable!() };
        assert!(long.chars().count() < 200, "{long}");
    }

    #[test]
    fn a_pause_that_is_asked_for_is_seconds_or_a_date() {
        let after = |text: &str| match judged(429, Some(text), "") {
            Answer::Failed(_, after) => after.map(|after| after.as_secs()),
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
}
