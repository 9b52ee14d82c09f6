//! One request on a connection of its own: none is kept that could have gone stale.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Request, Response, Uri};
use tokio::time::{Instant, timeout_at};

use super::Dialer;

impl Dialer {
    /// Sends a request to `url`, whose status has to come within `timeout`, and has `read` take the rest of the answer.
    ///
    /// # Errors
    /// What went wrong, in words, with the settings to look at where it is TLS.
    pub async fn exchange<T>(
        &self,
        url: &str,
        request: Request<Full<Bytes>>,
        timeout: Duration,
        read: impl AsyncFnOnce(Response<Incoming>) -> Result<T, String>,
    ) -> Result<T, String> {
        let until = Instant::now() + timeout;
        let late = |_| format!("no answer within {} s", timeout.as_secs_f64());
        let uri: Uri = url.parse().map_err(|_| "the host is no host name".to_owned())?;
        let stream = timeout_at(until, self.dial(uri)).await.map_err(late)??;
        // Who wants a certificate of ours may say so only when something is asked.
        let said = |error: hyper::Error| self.explain(&error);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(said)?;
        let exchange = async {
            let response = timeout_at(until, sender.send_request(request)).await.map_err(late)?.map_err(said)?;
            read(response).await
        };
        // The connection moves only while it is polled, and ends with this request.
        tokio::pin!(exchange, connection);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                // It may end by itself once the answer is there.
                Ok(()) => exchange.await,
                // The status may have come before.
                Err(error) => exchange.await.map_err(|_| said(error)),
            },
        }
    }
}
