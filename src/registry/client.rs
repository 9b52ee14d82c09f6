//! Confluent's registry API over HTTP: what an id means, and how a schema gets one.
//!
//! A process asks for each id once, so every question dials its own connection: none is kept that could have gone stale.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use serde::Deserialize;

use super::Endpoint;
use crate::ports::{Registered, RegistryError};

/// The media type of Confluent's API.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// The error code of an id that is not there. A 404 without it comes from something else than a registry.
const SCHEMA_NOT_FOUND: u32 = 40_403;
/// The error code of a subject that is not there.
const SUBJECT_NOT_FOUND: u32 = 40_401;
/// Longest answer that is taken, bytes.
const LONGEST: usize = 16 << 20;
/// How much of an unexpected answer is told, bytes.
const TOLD: usize = 300;

/// Asks a schema registry and waits for the answer.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
}

/// The answer to a question for an id.
#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    /// Absent: Avro.
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error_code: u32,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

impl Client {
    /// A client of a registry. Nothing is dialed yet.
    pub fn new(endpoint: Endpoint) -> Client {
        Client { endpoint }
    }

    /// What an id means.
    ///
    /// # Errors
    /// The registry can't be reached, refuses access, or answers something that says nothing about the id.
    pub async fn schema(&self, id: u32) -> Result<Registered, RegistryError> {
        self.ask(&format!("/schemas/ids/{id}"), SCHEMA_NOT_FOUND).await
    }

    /// The latest version under a subject.
    ///
    /// # Errors
    /// As [`Client::schema`].
    pub async fn latest(&self, subject: &str) -> Result<Registered, RegistryError> {
        self.ask(&format!("/subjects/{subject}/versions/latest"), SUBJECT_NOT_FOUND).await
    }

    async fn ask(&self, path: &str, not_found: u32) -> Result<Registered, RegistryError> {
        let (status, body) = self.exchange(Method::GET, path, Bytes::new()).await?;
        let missing = || serde_json::from_slice(&body).is_ok_and(|error: ErrorAnswer| error.error_code == not_found);
        match status {
            StatusCode::OK => match serde_json::from_slice(&body) {
                Ok(answer) => Ok(usable(answer)),
                Err(error) => Err(self.unexpected(path, status, &body, &error.to_string())),
            },
            StatusCode::NOT_FOUND if missing() => Ok(Registered::Missing),
            StatusCode::NOT_FOUND => Err(self.unexpected(path, status, &body, "is registry.url that of a registry?")),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let advice = "it refuses access; see registry.user and its password";
                Err(self.unexpected(path, status, &body, advice))
            }
            _ => Err(self.unexpected(path, status, &body, "no answer to the question")),
        }
    }

    /// Registers an Avro schema under a subject, if it is not there yet, and answers its id.
    ///
    /// # Errors
    /// The registry can't be reached or does not take the schema.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        // Topics and record names hold nothing that a path would have to escape.
        let path = format!("/subjects/{subject}/versions");
        let body = serde_json::json!({ "schema": schema }).to_string();
        let (status, body) = self.exchange(Method::POST, &path, body.into()).await?;
        match serde_json::from_slice(&body) {
            Ok(IdAnswer { id }) if status == StatusCode::OK => Ok(id),
            _ => Err(self.unexpected(&path, status, &body, "the schema was not registered")),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), RegistryError> {
        let timeout = self.endpoint.timeout;
        let late = || Err(format!("no answer within {} s", timeout.as_secs_f64()));
        let outcome = tokio::time::timeout(timeout, self.send(method, path, body)).await.unwrap_or_else(|_| late());
        outcome.map_err(|what| RegistryError(format!("{:?}{path}: {what}", self.endpoint)))
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), String> {
        let Endpoint { path: base, authorization, dialer, .. } = &self.endpoint;
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header(HOST, self.endpoint.authority())
            .header(ACCEPT, MEDIA_TYPE)
            .header(CONTENT_TYPE, MEDIA_TYPE);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let uri: Uri = self.endpoint.url().parse().map_err(|_| "the host is no host name".to_owned())?;
        let stream = dialer.dial(uri).await?;
        // A registry that wants a certificate of ours says so only when it is asked.
        let said = |error: hyper::Error| dialer.explain(&error);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(said)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(said)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|error| dialer.explain(error.as_ref()))?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves only while it is polled, and ends with this question.
        tokio::pin!(exchange, connection);
        tokio::select! {
            answer = &mut exchange => answer,
            ended = &mut connection => match ended {
                // It may end by itself once the answer is there.
                Ok(()) => exchange.await,
                Err(error) => Err(said(error)),
            },
        }
    }

    fn unexpected(&self, path: &str, status: StatusCode, body: &[u8], what: &str) -> RegistryError {
        let body = String::from_utf8_lossy(&body[..body.len().min(TOLD)]);
        RegistryError(format!("{:?}{path} answered {status}: {what} ({})", self.endpoint, body.trim()))
    }
}

fn usable(answer: SchemaAnswer) -> Registered {
    let SchemaAnswer { schema, kind, references } = answer;
    match (kind.as_deref().unwrap_or("AVRO"), references.as_slice()) {
        ("AVRO", []) => Registered::Avro(schema),
        ("AVRO", [Reference { name }, ..]) => Registered::Unusable(format!(
            "it refers to the schema `{name}`, registered apart; register the event's schema in one piece"
        )),
        (kind, _) => Registered::Unusable(format!("it is a {kind} schema, and events are Avro")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
