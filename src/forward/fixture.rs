//! A server for tests, whose answers a function gives.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Method and path, and the body.
pub(super) type Asked = (String, String);

pub(super) struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers with the status and body that `answer` gives for a request's method and path, and its body.
    pub(super) async fn start(answer: impl Fn(&str, &str) -> (u16, String) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { port: listener.local_addr().unwrap().port(), requests: Arc::default() };
        let (requests, answer) = (Arc::clone(&server.requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (requests, answer) = (Arc::clone(&requests), Arc::clone(&answer));
                    async move {
                        let asked = format!("{} {}", request.method(), request.uri().path());
                        let body = request.into_body().collect().await?.to_bytes();
                        let body = String::from_utf8_lossy(&body).into_owned();
                        let (status, text) = answer(&asked, &body);
                        requests.lock().unwrap_or_else(PoisonError::into_inner).push((asked, body));
                        let mut response = Response::new(Full::new(Bytes::from(text)));
                        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
                        Ok::<_, hyper::Error>(response)
                    }
                });
                // Whoever hangs up has.
                tokio::spawn(async move {
                    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await)
                });
            }
        });
        server
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(super) fn requests(&self) -> Vec<Asked> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
